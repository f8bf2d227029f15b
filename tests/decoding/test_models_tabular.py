"""Tables as language models, and what may be done to a cache."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import (
    Cache,
    CausalLM,
    TabularLM,
    advance,
    check_logits,
    check_same_vocabulary,
    commit,
    forward,
    pack_prompts,
    prefill,
    repeat_rows,
    room,
    set_length,
    take_rows,
)
from privlearn.simulate import float64


@pytest.fixture(scope="module")
def model(random_table):
    return random_table(0, 3, 2, zeros=0.2)


read = eqx.filter_jit(forward)
extend = eqx.filter_jit(lambda model, *arguments: model.extend(*arguments))
start = eqx.filter_jit(
    lambda model, tokens, lengths, slots, slack=0: prefill(
        model, model.init_cache(tokens.shape[0], slots, slack=slack), tokens, lengths
    )
)


def test_table_is_a_model(model):
    assert isinstance(model, CausalLM)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_forward_is_the_table_for_every_text(order, random_table):
    with float64():
        model = random_table(order, 2, order, zeros=0.3)
        texts = np.array(list(itertools.product(range(2), repeat=4)))
        laws = np.exp(np.asarray(read(model, texts)))
    for text, rows in zip(texts, laws, strict=True):
        for t in range(4):
            np.testing.assert_allclose(rows[t], model.law(text[: t + 1]), atol=1e-12)


@pytest.mark.slow
def test_laws_sum_to_one_and_some_are_zero():
    model = TabularLM.random(jax.random.key(0), vocab_size=3, order=2, zeros=0.2)
    laws = np.exp(np.asarray(model.log_table))
    np.testing.assert_allclose(laws.sum(-1), 1, atol=1e-6)
    assert 0.02 < np.mean(laws == 0) < 0.3


def test_extend_in_steps_is_forward_with_rows_of_different_lengths(model):
    text = np.random.default_rng(1).integers(3, size=(2, 9))
    whole = read(model, text)
    cache = start(model, text, np.array([3, 5]), 9)
    logits, after = extend(model, cache, np.stack([text[0, 2:5], text[1, 4:7]]))
    np.testing.assert_array_equal(logits[0], whole[0, 2:5])
    np.testing.assert_array_equal(logits[1], whole[1, 4:7])
    np.testing.assert_array_equal(after.length, cache.length)


def test_a_tree_reads_each_path_as_a_text_and_commits_the_winner(model):
    # pending token 2, then the tree 2 -> {0 -> 1, 1 -> 0}: nodes 1, 2, 3, 4.
    cache = start(model, np.array([[1, 0, 2]]), np.array([3]), 8, 5)
    tokens = np.array([[2, 0, 1, 1, 0]])
    parent = [-1, 0, 0, 1, 2]
    mask = np.eye(5, dtype=bool)
    for node in range(1, 5):
        mask[node] |= mask[parent[node]]
    logits, cache = extend(model, cache, tokens, np.array([2, 3, 3, 4, 4]), mask)
    for node, path in enumerate([[2], [2, 0], [2, 1], [2, 0, 1], [2, 1, 0]]):
        np.testing.assert_allclose(np.exp(logits[0, node]), model.law([1, 0, *path]), atol=1e-6)
    kept = eqx.filter_jit(commit)(cache, np.array([[0, 2, 4]]), np.array([3]))
    assert kept.slots[0, 0, :5, 0].tolist() == [1, 0, 2, 1, 0]
    assert kept.length.tolist() == [5]
    again, _ = extend(model, kept, np.array([[2]]))
    np.testing.assert_allclose(np.exp(again[0, 0]), model.law([1, 0, 2, 1, 0, 2]), atol=1e-6)


def test_what_is_not_committed_is_forgotten(model):
    cache = start(model, np.array([[0, 1, 2]]), np.array([3]), 8)
    _, dirty = extend(model, cache, np.array([[2, 0]]))
    clean, _ = extend(model, cache, np.array([[2, 1]]))
    rolled, _ = extend(model, dirty, np.array([[2, 1]]))
    np.testing.assert_array_equal(clean, rolled)


def test_a_row_that_keeps_nothing_does_not_move(model):
    cache = Cache(jnp.arange(12).reshape(2, 1, 6, 1), jnp.array([2, 3]))
    kept = commit(cache, [[0, 2], [1, 2]], [0, 1])
    assert kept.length.tolist() == [2, 4]
    assert kept.slots[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert kept.slots[1, 0, :, 0].tolist() == [6, 7, 8, 10, 10, 11]


def test_commit_of_a_chain_is_advance():
    cache = Cache({"k": jnp.arange(24.0).reshape(2, 2, 6, 1)}, jnp.array([1, 2]))
    moved, counted = commit(cache, [[0, 1, 2], [0, 1, 2]], [3, 2]), advance(cache, [3, 2])
    np.testing.assert_array_equal(moved.slots["k"], counted.slots["k"])
    np.testing.assert_array_equal(moved.length, counted.length)


def test_rows_can_be_copied_and_chosen():
    cache = Cache(jnp.arange(4).reshape(2, 1, 2, 1), jnp.array([1, 2]))
    four = repeat_rows(cache, 2)
    assert four.length.tolist() == [1, 1, 2, 2]
    assert take_rows(four, [2, 2, 0, 0]).slots[:, 0, 0, 0].tolist() == [2, 2, 0, 0]
    assert room(set_length(four, [0, 1, 0, 0])) == 1


def test_everything_works_under_plain_jit(model):
    @jax.jit
    def step(model, cache, tokens):
        logits, cache = model.extend(cache, tokens)
        return logits, commit(cache, jnp.zeros((1, 1), int), jnp.array([1]))

    cache = model.init_cache(1, 4)
    logits, cache = step(model, cache, jnp.array([[2]]))
    np.testing.assert_allclose(np.exp(logits[0, 0]), model.law([2]), atol=1e-6)
    assert cache.length.tolist() == [1]


def test_bigrams_of_a_text_are_its_frequencies():
    ids = np.random.default_rng(0).integers(0, 3, 400)
    model = TabularLM.from_text(ids, 3, order=1, smoothing=1e-6)
    follows = ids[1:][ids[:-1] == 1]
    np.testing.assert_allclose(
        model.law([1]), np.bincount(follows, minlength=3) / len(follows), atol=1e-5
    )
    np.testing.assert_allclose(model.law([]), np.bincount(ids[1:], minlength=3) / 399, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "kwargs", "message"),
    [
        ([[0, 1]] * 2, {}, r"tokens: shape \(2, 2\).*1 rows"),
        ([[0] * 9], {}, "do not fit"),
        ([[0] * 7], {}, "cache overflow"),
        ([[0, 1]], {"mask": np.ones((3, 3), bool)}, "mask: shape"),
        ([[0, 1]], {"positions": [1, 2, 3]}, "positions: shape"),
    ],
)
def test_extend_refuses_what_does_not_fit(model, tokens, kwargs, message):
    cache = start(model, np.array([[0, 1, 2]]), np.array([3]), 8)
    with pytest.raises(ValueError, match=message):
        model.extend(cache, jnp.array(tokens), **kwargs)


def test_extend_refuses_text_that_is_not_integers(model):
    with pytest.raises(TypeError, match="integers"):
        model.extend(model.init_cache(1, 8), jnp.array([[0.5]]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], "sums to 1.1"),
        ([[float("nan"), 0.5], [0.5, 0.5]], "finite"),
        ([[1.5, -0.5], [0.5, 0.5]], "negative"),
        ([[0.5, 0.5]] * 4, "shape"),
    ],
)
def test_a_table_that_is_no_law_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        TabularLM.from_probabilities(table)


def test_prompts_are_packed_or_refused(model):
    packed = pack_prompts([[0, 1], [2]], model)
    assert packed.tokens.tolist() == [[0, 1], [2, 0]]
    assert packed.lengths.tolist() == [2, 1]
    assert pack_prompts([1, 2, 0], model).tokens.shape == (1, 3)
    for bad, message in [
        ([], "none given"),
        ([[]], "empty"),
        ([[0], [0, 3]], r"prompts\[1\]: id 3"),
        ([[-1]], "id -1"),
        ([[[0]]], "axes"),
    ]:
        with pytest.raises(ValueError, match=message):
            pack_prompts(bad, model)
    with pytest.raises(ValueError, match="at least 2"):
        pack_prompts([[0]], model, min_length=2)
    with pytest.raises(TypeError, match="integers"):
        pack_prompts([[0.0, 1.0]], model)
    with pytest.raises(TypeError, match="string"):
        pack_prompts("text", model)


def test_models_of_different_vocabularies_are_refused(model, random_table):
    check_same_vocabulary(model, model)
    with pytest.raises(ValueError, match="vocabulary of 2"):
        check_same_vocabulary(model, random_table(1, 2))


def test_broken_logits_are_refused_and_impossible_tokens_are_not():
    check_logits([[-np.inf, 0.0]])
    for bad, message in [
        ([[0.0, np.nan]], r"NaN at \(0, 1\)"),
        ([[np.inf, 0.0]], r"\+inf at \(0, 0\)"),
        ([[0.0, 0.0], [-np.inf, -np.inf]], r"possible at \(1,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_logits(bad)
