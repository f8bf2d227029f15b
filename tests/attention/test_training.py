"""Small models and tasks: the tasks say what they claim, models learn, variants share weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.training import (
    VARIANTS,
    SmallLM,
    TextBatches,
    induction_heads,
    library_text,
    make_attention,
    score,
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


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("polynomial-2", "learned")])
def test_every_variant_is_causal(variant):
    model = SmallLM.init(jax.random.key(0), variant, **SMALL)
    tokens = jnp.arange(16)[None] % 8
    run = jax.jit(lambda tokens: model(tokens))
    before, after = run(tokens), run(tokens.at[0, 9:].set(3))
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert not np.array_equal(before[:, 9:], after[:, 9:])


def test_variants_share_what_lies_outside_the_attention():
    one, other = (SmallLM.init(jax.random.key(0), v, **SMALL) for v in ("softmax", "learned"))
    np.testing.assert_array_equal(one.layers[0].up, other.layers[0].up)
    assert other.n_parameters > one.n_parameters
    assert SmallLM.init(jax.random.key(0), "random", **SMALL).n_parameters == one.n_parameters


def test_training_lowers_the_loss_and_moves_a_learned_sketch():
    task = TextBatches("to be or not to be. " * 60, context=16)
    held = task.validation(8)
    sizes = {**SMALL, "vocab_size": task.vocab_size}
    model = SmallLM.init(jax.random.key(0), "learned-local", **sizes)
    trained, history = train(model, task, held, jax.random.key(1), n_steps=60, every=30)
    assert history.scores[-1].loss < 0.7 * float(score(model, held).loss)
    assert history.steps == [30, 60]
    before, after = (m.layers[0].attention.sketch.up_1 for m in (model, trained))
    assert not np.array_equal(before, after)


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
