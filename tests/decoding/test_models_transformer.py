"""Transformers: what comes out of the cache is what comes out of whole texts."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import (
    CausalLM,
    CausalSoftmax,
    TransformerConfig,
    TransformerLM,
    commit,
    forward,
    prefill,
)
from privlearn.simulate import float64

LLAMA = TransformerConfig(
    vocab_size=37, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, context=32
)
GPT2 = TransformerConfig(
    vocab_size=37, d_model=24, n_layers=2, n_heads=4, context=32, style="gpt2", tied=False
)


def rough(config, dtype=jnp.float32, seed=0):
    """A model with weights large enough that every part of it shows in the logits."""
    model = TransformerLM.init(jax.random.key(seed), config, dtype=jnp.float32)
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy).astype(dtype)


@pytest.fixture(scope="module", params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def model(request):
    return rough(request.param)


TEXT = jax.random.randint(jax.random.key(5), (2, 12), 0, 37)


def test_a_transformer_is_a_model(model):
    assert isinstance(model, CausalLM)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model))


def test_no_token_sees_the_future(model):
    changed = TEXT.at[:, 8:].set((TEXT[:, 8:] + 1) % 37)
    before, after = model(TEXT), model(changed)
    np.testing.assert_allclose(before[:, :8], after[:, :8], atol=1e-5)
    assert float(jnp.abs(before[:, 8:] - after[:, 8:]).max()) > 0.1


def test_cached_steps_are_the_whole_text_with_rows_of_different_lengths(model):
    whole = model(TEXT)
    np.testing.assert_allclose(forward(model, TEXT), whole, atol=2e-5)

    @jax.jit
    def step(model, cache, tokens, n):
        logits, cache = model.extend(cache, tokens)
        return logits, commit(cache, jnp.broadcast_to(jnp.arange(3), (2, 3)), n)

    cache = prefill(model, model.init_cache(2, 12, slack=3), TEXT[:, :5], [3, 5])
    for n in ([3, 1], [2, 3]):
        at = np.asarray(cache.length)
        fed = jnp.stack([TEXT[row, at[row] : at[row] + 3] for row in range(2)])
        logits, cache = step(model, cache, fed, jnp.array(n))
        for row in range(2):
            np.testing.assert_allclose(logits[row], whole[row, at[row] : at[row] + 3], atol=2e-5)
    assert cache.length.tolist() == [7, 8]


def test_every_path_of_a_tree_is_a_text(model):
    cache = prefill(model, model.init_cache(1, 12, slack=5), TEXT[:1, :4], [4])
    tokens = jnp.concatenate([TEXT[:1, 3:4], jnp.array([[7, 9, 11, 13]])], axis=1)
    parent = [-1, 0, 0, 1, 2]
    mask = np.eye(5, dtype=bool)
    for node in range(1, 5):
        mask[node] |= mask[parent[node]]
    logits, after = model.extend(cache, tokens, [3, 4, 4, 5, 5], mask)
    paths = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4]]
    for node, path in enumerate(paths):
        text = jnp.concatenate([TEXT[0, :3], tokens[0, jnp.array(path)]])[None]
        np.testing.assert_allclose(logits[0, node], model(text)[0, -1], atol=2e-5)
    # The winner is moved together; going on from it is going on from the text.
    kept = commit(after, [paths[4]], [3])
    text = jnp.concatenate([TEXT[0, :3], tokens[0, jnp.array(paths[4])], jnp.array([5])])[None]
    again, _ = model.extend(kept, jnp.array([[5]]))
    np.testing.assert_allclose(again[0, 0], model(text)[0, -1], atol=2e-5)


def test_an_invisible_token_changes_nothing_and_a_visible_one_does(model):
    cache = prefill(model, model.init_cache(1, 12), TEXT[:1, :4], [4])
    mask = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
    one, _ = model.extend(cache, jnp.array([[1, 2, 3]]), [3, 4, 4], mask)
    two, _ = model.extend(cache, jnp.array([[1, 5, 3]]), [3, 4, 4], mask)
    np.testing.assert_array_equal(one[0, 2], two[0, 2])
    assert float(jnp.abs(one[0, 1] - two[0, 1]).max()) > 0.05


def test_in_float64_cache_and_whole_text_agree_to_the_last_digits():
    with float64():
        model = rough(LLAMA, jnp.float64)
        np.testing.assert_allclose(forward(model, TEXT), model(TEXT), atol=1e-12)
        assert forward(model, TEXT).dtype == jnp.float64


def test_bfloat16_stays_near_float32_and_its_logits_are_float32():
    model = rough(LLAMA)
    half = model.astype(jnp.bfloat16)
    logits = forward(half, TEXT)
    assert logits.dtype == jnp.float32
    assert half.init_cache(1, 4).slots[0][0].dtype == jnp.bfloat16
    reference = model(TEXT)
    assert float(jnp.abs(logits - reference).mean() / jnp.abs(reference).mean()) < 0.1


def test_grouped_heads_are_heads_with_copied_keys():
    model = rough(LLAMA)
    c = dataclasses.replace(LLAMA, n_kv_heads=4)

    def widen(block):
        q, k, v = jnp.split(block.qkv.weight, (32, 48), axis=1)
        twice = [jnp.repeat(w.reshape(24, 2, 8), 2, axis=1).reshape(24, 32) for w in (k, v)]
        qkv = dataclasses.replace(block.qkv, weight=jnp.concatenate([q, *twice], axis=1))
        return dataclasses.replace(block, qkv=qkv, config=c)

    wide = dataclasses.replace(model, blocks=tuple(map(widen, model.blocks)), config=c)
    np.testing.assert_allclose(forward(wide, TEXT), forward(model, TEXT), atol=2e-5)


def test_rotary_positions_are_relative():
    model = rough(LLAMA)
    cache = model.init_cache(1, 8)
    near, _ = model.extend(cache, TEXT[:1, :4], [0, 1, 2, 3])
    far, _ = model.extend(cache, TEXT[:1, :4], [17, 18, 19, 20])
    gap, _ = model.extend(cache, TEXT[:1, :4], [0, 1, 2, 9])
    np.testing.assert_allclose(near, far, atol=2e-5)
    assert float(jnp.abs(near - gap)[0, 3].max()) > 0.05


def test_an_untied_copy_of_a_tied_head_gives_the_same_logits():
    model = rough(LLAMA)
    loose = model.untied()
    assert loose.head is not None
    assert loose.untied() is loose
    np.testing.assert_allclose(loose(TEXT), model(TEXT), atol=2e-5)


def test_the_attention_hook_is_used_in_the_chosen_layer_and_may_hold_weights(model):
    class Window(eqx.Module):
        strength: jax.Array

        def __call__(self, q, k, v):
            return self.strength * v + (1 - self.strength) * CausalSoftmax()(q, k, v)

    same = model.with_attention(Window(jnp.array(0.0)))
    np.testing.assert_allclose(same(TEXT), model(TEXT), atol=1e-6)
    other = model.with_attention(Window(jnp.array(0.5)), layers=[1])
    assert isinstance(other.blocks[0].attention, CausalSoftmax)
    grad = jax.grad(lambda m: m(TEXT).sum())(other)
    assert float(jnp.abs(grad.blocks[1].attention.module.strength)) > 0
    with pytest.raises(ValueError, match=r"layers \[1\] do not use softmax"):
        other.extend(other.init_cache(1, 4), TEXT[:1, :2])
    with pytest.raises(ValueError, match=r"layers: \[2\]"):
        model.with_attention(Window(jnp.array(0.0)), layers=[2])
    with pytest.raises(TypeError, match="callable"):
        model.with_attention("linear")


def test_first_layers_is_the_stack_cut_short(model):
    cut = model.first_layers(1)
    assert cut.config.n_layers == len(cut.blocks) == 1
    np.testing.assert_array_equal(cut.embedding, model.embedding)
    assert cut(TEXT).shape == (2, 12, 37)
    with pytest.raises(ValueError, match="2 layers"):
        model.first_layers(3)


def test_texts_beyond_the_context_are_refused(model):
    with pytest.raises(ValueError, match="context of the model, 32"):
        model.init_cache(1, 33)
    assert model.init_cache(1, 32, slack=5).n_slots == 37
    with pytest.raises(ValueError, match="exceed the context, 32"):
        model(jnp.zeros((1, 33), int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "bert"}, "style: 'bert'"),
        ({"n_layers": 0}, "n_layers: 0"),
        ({"n_kv_heads": 3}, "does not divide"),
        ({"d_head": 7}, "even width"),
        ({"style": "gpt2"}, "as many heads"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LLAMA, **change)
