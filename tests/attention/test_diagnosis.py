"""Measured alpha, kappa, block share and error are those of the dense formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import diagnosis
from privlearn.attention.approxd import sort_lsh_mask
from privlearn.attention.diagnosis import diagnose
from privlearn.attention.theory import hyper as theory
from privlearn.simulate import float64


def draw(T=26, S=26, N=2, K=1):
    a, b, c = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(a, (1, T, N, 4)),
        jax.random.normal(b, (1, S, K, 4)),
        jax.random.normal(c, (1, S, K, 3)),
    )


def expected(q, k, v, block, m):
    """The dense formulas for one head, with the mask of the same hyperplanes."""
    M = np.asarray(sort_lsh_mask(jax.random.key(1), q, k, block=block, lsh_projs=3).dense())
    P, D = theory.softmax_matrix(q, k, 0.5)
    error = theory.output_variance(P, v, M, m).sum() / ((P @ np.asarray(v)) ** 2).sum()
    share = (P * M).sum(axis=1).mean()
    return theory.alpha(P), theory.kappa(P * D[:, None], M), share, error**0.5


@pytest.mark.parametrize(
    ("causal", "step"), [pytest.param(False, 7, marks=pytest.mark.slow), (True, 5)]
)
def test_numbers_differ_from_dense_formulas(causal, step, monkeypatch):
    with float64():
        q, k, v = draw()
        # The chunks of queries are as many as fit 2**20 scores; here a few, the last one ragged.
        monkeypatch.setattr(diagnosis, "_CHUNK", step * 26)
        found = diagnose(
            q, k, v, rng=jax.random.key(1), block=6, samples=5, lsh_projs=3, is_causal=causal
        )
        if causal:
            q, k, v = q[:, 13:], k[:, :13], v[:, :13]
        numbers = [expected(q[0, :, g], k[0, :, 0], v[0, :, 0], 6, 5) for g in range(2)]
    for i, name in enumerate(("alpha", "kappa", "block_share", "error")):
        np.testing.assert_allclose(
            getattr(found, name)[0], [one[i] for one in numbers], rtol=1e-10, err_msg=name
        )


def test_masked_keys_count():
    with float64():
        q, k, v = draw()
        mask = jnp.arange(26)[None] < 20
        options = {"rng": jax.random.key(1), "block": 5, "samples": 4, "lsh_projs": 3}
        masked = diagnose(q, k.at[:, 20:].set(9.0), v, key_mask=mask, **options)
        other = diagnose(q, k.at[:, 20:].set(-5.0), v, key_mask=mask, **options)
    np.testing.assert_allclose(masked.alpha, other.alpha, rtol=1e-12)
    np.testing.assert_allclose(masked.error, other.error, rtol=1e-12)


def test_samples_for_an_error_do_not_follow_the_square_root():
    with float64():
        q, k, v = draw()
        run = lambda m: diagnose(q, k, v, rng=jax.random.key(1), block=6, samples=m)  # noqa: E731
        few, many = run(4), run(400)
    np.testing.assert_allclose(few.error, 10 * many.error, rtol=1e-10)
    np.testing.assert_allclose(few.samples_for(float(many.error[0, 0]))[0, 0], 400, atol=1)
    assert few.suits(1e9).all()
    assert not few.suits(1e-9).any()
    assert "26 keys, blocks of 6, 4 samples" in str(few)


def test_bad_argument_is_not_named():
    q, k, v = draw(T=1, S=1)
    with pytest.raises(ValueError, match="one token"):
        diagnose(q, k, v, rng=jax.random.key(0), is_causal=True)
    with pytest.raises(ValueError, match="samples: 0"):
        diagnose(q, k, v, rng=jax.random.key(0), samples=0)
    with pytest.raises(ValueError, match="key_mask: a row without any key"):
        diagnose(q, k, v, rng=jax.random.key(0), key_mask=jnp.zeros((1, 1), bool))
