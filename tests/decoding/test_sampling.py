"""Temperature, top-k, top-p and min-p against slow definitions; draws against their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privlearn.decoding.sampling import SamplingRule, draw, usable
from privlearn.simulate import float64

LOGITS = hnp.arrays(np.int64, 6, elements=st.integers(-300, 300), unique=True).map(
    lambda whole: whole / 64
)


def definition(logits, temperature, top_k, top_p, min_p):
    """The transformations token by token, in the order temperature, top-k, top-p, min-p."""
    weights = np.exp(logits / temperature - np.max(logits / temperature))
    p = weights / weights.sum()
    order = np.argsort(-p)
    if top_k is not None:
        p[order[top_k:]] = 0
        p /= p.sum()
    if top_p is not None:
        mass, kept = 0.0, []
        for token in order:
            if mass >= top_p:
                break
            kept.append(token)
            mass += p[token]
        p[[t for t in range(len(p)) if t not in kept]] = 0
        p /= p.sum()
    if min_p is not None:
        p[p < min_p * p.max()] = 0
        p /= p.sum()
    return p


@given(
    LOGITS,
    st.floats(0.1, 3),
    st.none() | st.integers(1, 8),
    st.none() | st.floats(0.05, 0.999),
    st.none() | st.floats(0.0, 0.9),
)
def test_transformed_law_differs_from_its_definition(logits, temperature, top_k, top_p, min_p):
    with float64():
        rule = SamplingRule.of(temperature, top_k, top_p, min_p)
        got = np.asarray(rule(jnp.asarray(logits)))
    want = definition(logits, temperature, top_k, top_p, min_p)
    # A threshold met within rounding may fall on either side: compare where it is not.
    if (got > 0).tolist() == (want > 0).tolist():
        np.testing.assert_allclose(got, want, atol=1e-12)
    else:
        p = definition(logits, temperature, top_k, None, None)
        steps = np.cumsum(np.sort(p)[::-1])
        near_mass = top_p is not None and np.min(np.abs(steps - top_p)) < 1e-9
        kept = definition(logits, temperature, top_k, top_p, None)
        near_floor = min_p is not None and np.min(np.abs(kept / kept.max() - min_p)) < 1e-9
        assert near_mass or near_floor


@given(LOGITS)
def test_temperature_zero_is_not_the_one_hot_limit(logits):
    rule = SamplingRule.of(0.0, top_k=3, top_p=0.5, min_p=0.1)
    law = np.asarray(rule(jnp.asarray(logits, jnp.float32)))
    assert rule.greedy
    assert law.sum() == 1
    assert law.argmax() == np.asarray(logits, np.float32).argmax()


def test_greedy_tie_goes_to_another_than_the_lowest_token():
    assert SamplingRule.of(0)(jnp.array([1.0, 3.0, 3.0])).tolist() == [0.0, 1.0, 0.0]


def test_half_precision_logits_are_normalised_in_half_precision():
    law = SamplingRule.of(1.0)(jnp.zeros(1000, jnp.bfloat16))
    assert law.dtype == jnp.float32
    assert abs(float(law.sum()) - 1) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
    ],
)
def test_parameter_out_of_range_is_taken(arguments, word):
    with pytest.raises(ValueError, match=word):
        SamplingRule.of(**arguments)


def test_temperature_that_is_no_number_is_taken():
    with pytest.raises(TypeError, match="temperature"):
        SamplingRule.of("warm")


def test_logits_that_cannot_be_sampled_pass_as_usable():
    rows = jnp.array(
        [[0.0, 1.0], [jnp.nan, 1.0], [jnp.inf, 1.0], [-jnp.inf, -jnp.inf], [-jnp.inf, 1.0]]
    )
    assert usable(rows).tolist() == [True, False, False, False, True]


def test_draws_follow_another_law():
    """One chi-square on 3 degrees of freedom; false alarm below 1e-6 at 31.0."""
    law = jnp.array([0.1, 0.0, 0.25, 0.05, 0.6, 0.0])
    n = 50_000
    tokens = jax.vmap(draw, (0, None))(jax.random.split(jax.random.key(0), n), law)
    counts = np.bincount(np.asarray(tokens), minlength=6)
    assert counts[1] == counts[5] == 0
    expected = n * np.asarray(law)[[0, 2, 3, 4]]
    assert np.sum((counts[[0, 2, 3, 4]] - expected) ** 2 / expected) < 31.0
