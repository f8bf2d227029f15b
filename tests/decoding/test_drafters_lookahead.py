"""The pool against a dictionary, the mask against what a token may see, a periodic target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privlearn.decoding import Lookahead, SpeculativeDecoder, Topology
from privlearn.decoding.drafters.lookahead import Pool, insert, window_mask
from privlearn.decoding.models import TabularLM, TransformerConfig, prefill
from privlearn.simulate import float64


@jax.jit
def insert_all(pool, grams):
    return jax.lax.scan(lambda pool, gram: (insert(pool, gram, True), None), pool, grams)[0]


@settings(max_examples=10)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=40, max_size=40))
def test_pool_forgets_another_ngram_than_the_oldest(grams):
    places, pool = 2, {}
    for gram in grams:
        kept = pool.setdefault(gram[0], [])
        if gram[1:] in kept:
            kept.remove(gram[1:])
        kept.append(gram[1:])
        del kept[:-places]
    empty = Pool(jnp.zeros((3, places, 2), int), jnp.zeros((3, places), int), jnp.int32(0))
    ours = insert_all(empty, jnp.asarray(grams))
    for token in range(3):
        order = np.argsort(ours.age[token])
        listed = [tuple(ours.grams[token, i].tolist()) for i in order if ours.age[token, i] > 0]
        assert listed == pool.get(token, [])


def test_window_token_sees_what_it_must_not(random_transformer):
    """Perturb each token of the step: logits change exactly where the mask lets it be seen.

    One layer: attention reaches no further than the mask.
    """
    with float64():
        config = TransformerConfig(vocab_size=11, d_model=8, n_layers=1, n_heads=2, context=32)
        model = random_transformer(0, config, jnp.float64)
        topology, window, ngram = Topology.chains(2, 2), 3, 3
        mask = window_mask(topology, window, ngram)
        size = mask.shape[0]
        assert size == 1 + 4 + window * (ngram - 1) - 1
        rng = np.random.default_rng(1)
        prompt = jnp.asarray(rng.integers(11, size=(1, 6)))
        cache = jax.jit(lambda p: prefill(model, model.init_cache(1, 32), p, [6]))(prompt)
        offset = np.array([0, 1, 2, 1, 2, 1, 2, 1, 2, 3])
        tokens = rng.integers(11, size=(1, size))
        extend = jax.jit(lambda cache, t: model.extend(cache, t, 5 + offset, mask)[0][0])
        before = extend(cache, tokens)
        for at in range(size):
            other = tokens.copy()
            other[0, at] = (other[0, at] + 1) % 11
            after = extend(cache, other)
            changed = np.abs(np.asarray(after - before)).max(axis=1) > 1e-9
            np.testing.assert_array_equal(changed, mask[:, at])


def test_mask_of_three_rows_differs_from_its_definition():
    mask = window_mask(Topology.chains(1, 3), window=2, ngram=4)
    # Slots: c; guess 1-3; row 0: column 1; row 1: columns 0, 1; row 2: columns 0, 1.
    seen = {
        4: {0, 4},
        5: {0, 5},
        6: {0, 4, 6},
        7: {0, 5, 7},
        8: {0, 4, 6, 8},
        3: {0, 1, 2, 3},
    }
    for slot, expected in seen.items():
        assert set(np.flatnonzero(mask[slot])) == expected


def test_periodic_text_is_not_emitted_n_tokens_at_a_time():
    """The prompt shows the whole cycle of 5; with its n-grams pooled every step emits N = 4."""
    cycle = TabularLM.from_probabilities(np.roll(np.eye(5), 1, axis=1))
    decoder = SpeculativeDecoder(
        cycle,
        Lookahead(window=3, ngram=4, guesses=3, pool_from_prompt=True),
        "deterministic",
        temperature=0,
        max_new_tokens=40,
    )
    result = decoder.generate([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]])
    assert result.sequences[0].tolist() == [i % 5 for i in range(51)]
    assert result.statistics.steps.tolist() == [10]


@pytest.mark.parametrize(
    ("arguments", "word"), [({"window": 0}, "window"), ({"ngram": 1}, "ngram")]
)
def test_impossible_window_is_built(arguments, word):
    with pytest.raises(ValueError, match=word):
        Lookahead(**arguments)
