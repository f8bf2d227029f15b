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


@pytest.fixture(scope="module", params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def model(request, random_transformer):
    return random_transformer(0, request.param)


@pytest.fixture(scope="module")
def llama(random_transformer):
    return random_transformer(0, LLAMA)


TEXT = np.random.default_rng(5).integers(37, size=(2, 12))
whole_text = eqx.filter_jit(lambda model, tokens: model(tokens))
read = eqx.filter_jit(forward)
start = eqx.filter_jit(
    lambda model, tokens, lengths, slack=0: prefill(
        model, model.init_cache(tokens.shape[0], 12, slack=slack), tokens, lengths
    )
)
extend = eqx.filter_jit(lambda model, *arguments: model.extend(*arguments))


def test_a_transformer_is_a_model(model):
    assert isinstance(model, CausalLM)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model))


def test_no_token_sees_the_future(model):
    changed = np.where(np.arange(12) < 8, TEXT, (TEXT + 1) % 37)
    before, after = whole_text(model, TEXT), whole_text(model, changed)
    np.testing.assert_allclose(before[:, :8], after[:, :8], atol=1e-5)
    assert float(jnp.abs(before[:, 8:] - after[:, 8:]).max()) > 0.1


def test_cached_steps_are_the_whole_text_with_rows_of_different_lengths(model):
    whole = whole_text(model, TEXT)
    np.testing.assert_allclose(read(model, TEXT), whole, atol=2e-5)

    @eqx.filter_jit
    def step(model, cache, tokens, n):
        logits, cache = model.extend(cache, tokens)
        return logits, commit(cache, jnp.broadcast_to(jnp.arange(3), (2, 3)), n)

    cache = start(model, TEXT[:, :5], np.array([3, 5]), 5)
    for n in ([3, 1], [2, 3]):
        at = np.asarray(cache.length)
        fed = np.stack([TEXT[row, at[row] : at[row] + 3] for row in range(2)])
        logits, cache = step(model, cache, fed, np.array(n))
        for row in range(2):
            np.testing.assert_allclose(logits[row], whole[row, at[row] : at[row] + 3], atol=2e-5)
    assert cache.length.tolist() == [7, 8]


def test_every_path_of_a_tree_is_a_text(llama):
    """Row 1 has other tokens and another length, so no row reads its mate's cache."""
    model, lengths = llama, np.array([4, 5])
    cache = start(model, TEXT[:, :5], lengths, 5)
    drafted = np.array([[7, 9, 11, 13], [3, 30, 1, 20]])
    pending = TEXT[[0, 1], lengths - 1]
    tokens = np.concatenate([pending[:, None], drafted], axis=1)
    parent = [-1, 0, 0, 1, 2]
    mask = np.eye(5, dtype=bool)
    for node in range(1, 5):
        mask[node] |= mask[parent[node]]
    positions = lengths[:, None] - 1 + np.array([0, 1, 1, 2, 2])
    logits, after = extend(model, cache, tokens, positions, mask)
    paths = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4]]
    # The winner is moved together; going on from it is going on from the text.
    kept = eqx.filter_jit(commit)(after, np.array([paths[4]] * 2), np.array([3, 3]))
    again, _ = extend(model, kept, np.array([[5], [6]]))
    for row, n in enumerate(lengths):
        texts = np.zeros((6, 12), int)  # what comes after a path is not seen
        for text, path in zip(texts, [*paths, paths[4]], strict=True):
            text[: n - 1 + len(path)] = [*TEXT[row, : n - 1], *tokens[row, path]]
        texts[5, n + 2] = 5 + row
        expected = np.concatenate([whole_text(model, texts[at : at + 2]) for at in (0, 2, 4)])
        for node, path in enumerate(paths):
            np.testing.assert_allclose(
                logits[row, node], expected[node, n - 2 + len(path)], atol=2e-5
            )
        np.testing.assert_allclose(again[row, 0], expected[5, n + 2], atol=2e-5)


@pytest.mark.slow
def test_an_invisible_token_changes_nothing_and_a_visible_one_does(llama):
    cache = start(llama, TEXT[:, :5], np.array([4, 4]), 5)
    mask = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
    positions = np.array([[3, 4, 4]] * 2)
    logits, _ = extend(llama, cache, np.array([[1, 2, 3], [1, 2, 3]]), positions, mask)
    other, _ = extend(llama, cache, np.array([[1, 5, 3], [1, 2, 3]]), positions, mask)
    np.testing.assert_array_equal(logits[0, 2], other[0, 2])
    assert float(jnp.abs(logits[0, 1] - other[0, 1]).max()) > 0.05


@pytest.mark.slow
def test_in_float64_cache_and_whole_text_agree_to_the_last_digits(random_transformer):
    with float64():
        model = random_transformer(0, LLAMA, jnp.float64)
        logits = read(model, TEXT)
        np.testing.assert_allclose(logits, whole_text(model, TEXT), atol=1e-12)
        assert logits.dtype == jnp.float64


@pytest.mark.slow
def test_bfloat16_stays_near_float32_and_its_logits_are_float32(llama):
    half = llama.astype(jnp.bfloat16)
    logits = read(half, TEXT)
    assert logits.dtype == jnp.float32
    assert half.init_cache(1, 4).slots[0][0].dtype == jnp.bfloat16
    reference = whole_text(llama, TEXT)
    assert float(jnp.abs(logits - reference).mean() / jnp.abs(reference).mean()) < 0.1


def test_grouped_heads_are_heads_with_copied_keys(llama):
    model = llama
    c = dataclasses.replace(LLAMA, n_kv_heads=4)

    def widen(block):
        q, k, v = jnp.split(block.qkv.weight, (32, 48), axis=1)
        twice = [jnp.repeat(w.reshape(24, 2, 8), 2, axis=1).reshape(24, 32) for w in (k, v)]
        qkv = dataclasses.replace(block.qkv, weight=jnp.concatenate([q, *twice], axis=1))
        return dataclasses.replace(block, qkv=qkv, config=c)

    wide = dataclasses.replace(model, blocks=tuple(map(widen, model.blocks)), config=c)
    np.testing.assert_allclose(whole_text(wide, TEXT), whole_text(model, TEXT), atol=2e-5)


def test_rotary_positions_are_relative(llama):
    cache, text = llama.init_cache(1, 8), TEXT[:1, :4]
    near, far, gap = (
        extend(llama, cache, text, np.array([places]))[0]
        for places in ([0, 1, 2, 3], [17, 18, 19, 20], [0, 1, 2, 9])
    )
    np.testing.assert_allclose(near, far, atol=2e-5)
    assert float(jnp.abs(near - gap)[0, 3].max()) > 0.05


def test_an_untied_copy_of_a_tied_head_gives_the_same_logits(llama):
    loose = llama.untied()
    assert loose.head is not None
    assert loose.untied() is loose
    np.testing.assert_allclose(whole_text(loose, TEXT), whole_text(llama, TEXT), atol=2e-5)


@pytest.mark.slow
def test_the_attention_hook_is_used_in_the_chosen_layer_and_may_hold_weights(llama):
    model = llama

    class Window(eqx.Module):
        strength: jax.Array

        def __call__(self, q, k, v):
            return self.strength * v + (1 - self.strength) * CausalSoftmax()(q, k, v)

    same = model.with_attention(Window(jnp.array(0.0)))
    np.testing.assert_allclose(whole_text(same, TEXT), whole_text(model, TEXT), atol=1e-6)
    other = model.with_attention(Window(jnp.array(0.5)), layers=[1])
    assert isinstance(other.blocks[0].attention, CausalSoftmax)
    grad = jax.jit(jax.grad(lambda m: m(TEXT).sum()))(other)
    assert float(jnp.abs(grad.blocks[1].attention.module.strength)) > 0
    with pytest.raises(ValueError, match=r"layers \[1\] do not use softmax"):
        other.extend(other.init_cache(1, 4), TEXT[:1, :2])
    with pytest.raises(ValueError, match=r"layers: \[2\]"):
        model.with_attention(Window(jnp.array(0.0)), layers=[2])
    with pytest.raises(TypeError, match="callable"):
        model.with_attention("linear")


def test_first_layers_is_the_stack_cut_short(llama):
    model = llama
    cut = model.first_layers(1)
    assert cut.config.n_layers == len(cut.blocks) == 1
    np.testing.assert_array_equal(cut.embedding, model.embedding)
    assert jax.eval_shape(cut, TEXT).shape == (2, 12, 37)
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
