"""The search for K-SEQ's division factor, and the index of the largest entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding import theory
from privlearn.decoding.verifiers.choice import first_above, likeliest
from privlearn.decoding.verifiers.kseq import division, kseq_residual
from privlearn.simulate import float64

CASES = 200


def laws(size, spread, seed):
    """Pairs of laws (CASES, size): near each other, and one of them peaked."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(CASES, size))
    apart = logits + spread * rng.normal(size=(CASES, size))
    return (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (logits, apart))


@pytest.mark.parametrize(("size", "spread"), [(3, 0.5), (40, 0.1), (40, 3.0)])
def test_factor_is_not_the_root_or_lies_below_it(size, spread):
    p, q = laws(size, spread, 0)
    n = np.random.default_rng(1).integers(1, 9, CASES)
    with float64():
        found = jax.jit(jax.vmap(division))(jnp.asarray(p), jnp.asarray(q), jnp.asarray(n))
        found = jax.tree.map(np.asarray, found)
    for i in range(CASES):
        exact = theory.kseq(p[i], q[i], n[i])
        assert found.rho[i] == pytest.approx(exact.rho, rel=1e-9) or exact.acceptance > 1 - 1e-9
        assert found.acceptance[i] == pytest.approx(exact.acceptance, abs=1e-12)
        # Below the root the residual would be negative somewhere, and clipped: a silent bias.
        assert found.acceptance[i] <= found.rho[i] * found.beta[i] + 1e-15


@pytest.mark.parametrize("case", ["equal", "disjoint", "one token"])
def test_degenerate_laws_have_no_factor(case):
    p, q = {
        "equal": ([0.25, 0.75], [0.25, 0.75]),
        "disjoint": ([1.0, 0.0], [0.0, 1.0]),
        "one token": ([1.0, 0.0], [0.5, 0.5]),
    }[case]
    found = division(jnp.array(p), jnp.array(q), 3)
    assert 1 <= float(found.rho) <= 3
    exact = theory.kseq(p, q, 3)
    assert float(found.acceptance) == pytest.approx(exact.acceptance, abs=1e-5)
    residual = kseq_residual(jnp.array(p), jnp.array(q), found)
    assert float(residual.sum()) == pytest.approx(1)


def test_search_in_float32_stops_short():
    """At the vocabulary of a real model: within 1e-5 of the root found in float64."""
    keys = jax.random.split(jax.random.key(0))
    logits = 3 * jax.random.normal(keys[0], (49_152,))
    p = jax.nn.softmax(logits)
    q = jax.nn.softmax(logits + jax.random.normal(keys[1], logits.shape))
    found = jax.jit(division)(p, q, 4)
    wide = [np.asarray(law, float) / np.asarray(law, float).sum() for law in (p, q)]
    assert float(found.rho) == pytest.approx(theory.kseq(*wide, 4).rho, rel=1e-5)


def test_largest_entry_is_another_than_argmax_says():
    values = np.random.default_rng(0).integers(0, 4, (50, 7)).astype(float)
    np.testing.assert_array_equal(likeliest(jnp.asarray(values)), values.argmax(axis=1))
    assert int(likeliest(jnp.full(5, -jnp.inf))) == 0


def test_index_without_weight_is_drawn():
    weights = jnp.array([0.0, 1.0, 0.0, 2.0, 0.0])
    drawn = [int(first_above(jnp.float32(t), weights)) for t in (0.0, 0.99, 1.0, 2.9, 3.0, 9.0)]
    assert drawn == [1, 1, 3, 3, 3, 3]
