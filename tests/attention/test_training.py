"""Small models and tasks: the tasks say what they claim, models learn, variants share weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.training import (
    VARIANTS,
    SmallLM,
    TextBatches,
    _compiled_steps,
    induction_heads,
    library_text,
    make_attention,
    selective_copying,
    train,
)

SMALL = {"vocab_size": 8, "context": 16, "width": 16, "n_layers": 1, "r": 4, "block": 4}


def test_selective_copying_asks_for_the_data_in_order():
    texts = selective_copying(jax.random.key(0), 50, length=20, n_data=5, vocab_size=9)
    for tokens, targets, counts in zip(*map(np.asarray, texts), strict=True):
        data = tokens[:20][tokens[:20] >= 2]
        assert len(data) == 5
        np.testing.assert_array_equal(targets[20:], data)
        np.testing.assert_array_equal(tokens[20:], 1)
        np.testing.assert_array_equal(counts, np.repeat([0, 1], [20, 5]))


def test_induction_heads_ask_for_what_followed_the_special_token():
    texts = induction_heads(jax.random.key(0), 50, length=12, vocab_size=5)
    for tokens, targets, counts in zip(*map(np.asarray, texts), strict=True):
        (special,) = np.flatnonzero(tokens[:-1] == 0)
        assert tokens[-1] == 0
        assert targets[-1] == tokens[special + 1] != 0
        assert counts.sum() == counts[-1] == 1


def test_windows_of_text_follow_themselves_and_hold_out_the_end():
    task = TextBatches(library_text()[:5000], context=16)
    batch = task(jax.random.key(0), 4)
    np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    held = task.validation(3)
    assert held.tokens.shape == (3, 16)
    assert task.vocab_size == len(set(library_text()[:5000]))


def causal(variants):
    """One layer of each variant on top of another: all must be causal, or the whole is not."""
    sizes = {**SMALL, "n_layers": len(variants), "width": 8}
    model = SmallLM.init(jax.random.key(0), "softmax", **sizes)
    layers = tuple(
        dataclasses.replace(layer, attention=make_attention(v, jax.random.key(i), 4, r=4, block=4))
        for i, (layer, v) in enumerate(zip(model.layers, variants, strict=True))
    )
    model = dataclasses.replace(model, layers=layers)
    tokens = jnp.arange(16)[None] % 8
    run = jax.jit(lambda tokens: model(tokens))
    before, after = run(tokens), run(tokens.at[0, 9:].set(3))
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    return not np.array_equal(before[:, 9:], after[:, 9:])


def test_a_text_is_read_from_left_to_right():
    assert causal(["softmax", "polynomial-4"])


@pytest.mark.slow
def test_every_variant_is_causal():
    assert causal(VARIANTS)


def test_variants_share_what_lies_outside_the_attention():
    one, other = (SmallLM.init(jax.random.key(0), v, **SMALL) for v in ("softmax", "learned"))
    np.testing.assert_array_equal(one.layers[0].up, other.layers[0].up)
    assert other.n_parameters > one.n_parameters
    shapes = jax.eval_shape(lambda key: SmallLM.init(key, "random", **SMALL), jax.random.key(0))
    assert shapes.n_parameters == one.n_parameters


TEXT = TextBatches("to be or not to be. " * 60, context=16)


def small(variant, seed=0):
    return SmallLM.init(jax.random.key(seed), variant, **{**SMALL, "vocab_size": TEXT.vocab_size})


def run(model, seed=0):
    trained, history = train(
        model, TEXT, TEXT.validation(8), jax.random.key(seed), n_steps=41, every=30
    )
    assert history.steps == [30, 60]
    assert 0 < history.seconds[0] < history.seconds[1]
    return trained, [s.loss for s in history.scores]


def test_training_lowers_the_loss_and_other_seeds_reuse_the_program():
    (_, first), before = run(small("softmax")), _compiled_steps.cache_info()
    assert first[1] < first[0] < np.log(TEXT.vocab_size)
    assert first[1] < 0.5
    _, other = run(small("softmax", seed=1), seed=1)
    _, again = run(small("softmax"))
    assert again == first != other
    after = _compiled_steps.cache_info()
    assert (after.hits, after.misses) == (before.hits + 2, before.misses)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["random-local", "learned-local"])
def test_training_lowers_the_loss_and_moves_a_learned_sketch_only(variant):
    model = small(variant)
    trained, losses = run(model)
    assert losses[1] < losses[0] < np.log(TEXT.vocab_size)
    before, after = (jax.tree.leaves(m.layers[0].attention) for m in (model, trained))
    same = [np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
    assert all(same) if variant == "random-local" else not any(same)


def test_bad_settings_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="variant: 'linear'"):
        make_attention("linear", key, 8)
    with pytest.raises(ValueError, match="n_heads: 3"):
        SmallLM.init(key, "softmax", **{**SMALL, "n_heads": 3})
    with pytest.raises(ValueError, match="n_data: 9"):
        selective_copying(key, 1, length=8, n_data=9)
    with pytest.raises(ValueError, match="held_out: 1"):
        TextBatches("abc", held_out=1)
    with pytest.raises(ValueError, match="longer than the context"):
        TextBatches("abc", context=10)
