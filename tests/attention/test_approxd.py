"""The estimators of the theory: masks, row sums, sampled products."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.approxd import (
    approximate_row_sums,
    masked_row_sums,
    sampled_product,
    sort_lsh_mask,
)
from privlearn.attention.theory import hyper as theory
from privlearn.simulate import float64

N, WIDTH, SCALE = 32, 4, 0.5


def quickly(f):
    """Compiled without LLVM's optimisation, which takes longer than these calls."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def mask_table(mask):
    blocks = map(np.asarray, (mask.q_block, mask.k_block))
    return np.equal.outer(*blocks).astype(float)


@functools.cache
def problem():
    with float64():

        @quickly
        def draw():
            q, k, v = jax.random.normal(jax.random.key(0), (3, N, WIDTH))
            return q, k, v, sort_lsh_mask(jax.random.key(1), q, k, block=6, lsh_projs=3)

        q, k, v, mask = draw()
        A = np.exp(SCALE * np.asarray(q) @ np.asarray(k).T)
    return q, k, v, mask, A, mask_table(mask)


def many(trial, n=4000):
    """Results of independent trials."""
    with float64():
        return jax.jit(jax.vmap(trial))(jax.random.split(jax.random.key(3), n))


def test_mask_is_not_made_of_blocks():
    *_, M = problem()
    assert set(M.sum(axis=1)) <= {2.0, 6.0}  # 32 keys: five blocks of 6 and one of 2
    assert M.sum() == 5 * 6 * 6 + 2 * 2


def test_masked_row_sums_differ_from_dense():
    q, k, _, mask, A, M = problem()
    with float64():
        found = masked_row_sums(q, k, mask, scale=SCALE)
    np.testing.assert_allclose(found, (A * M).sum(axis=1), rtol=1e-12)


def test_row_sums_are_biased_or_have_another_variance():
    """4,000 draws, z-score per row below 5.5 (32 rows: false alarm 1e-6); a bias of 3 % is seen."""
    q, k, _, mask, A, M = problem()
    # kappa so large that the floor never acts: the estimator is then unbiased.
    total = np.asarray(
        many(
            lambda rng: (
                approximate_row_sums(rng, q, k, mask, samples=16, scale=SCALE, kappa=1e9).total
            )
        )
    )
    mean, sd = np.mean(total, axis=0), np.sqrt(theory.row_sum_variance(A, M, 16))
    assert np.abs((mean - A.sum(axis=1)) / (sd / len(total) ** 0.5)).max() < 5.5
    np.testing.assert_allclose(np.std(total, axis=0), sd, rtol=0.2)


def test_cap_does_not_lower_and_floor_does_not_hold():
    q, k, _, mask, A, M = problem()
    run = functools.partial(approximate_row_sums, q=q, k=k, mask=mask, samples=8, scale=SCALE)
    with float64():
        free, capped = quickly(lambda rng: [run(rng, cap_constant=c) for c in (None, 1.0)])(
            jax.random.key(2)
        )
    assert float(free.capped) == 0 < float(capped.capped)
    assert np.all(np.asarray(capped.total) <= np.asarray(free.total) + 1e-12)
    for found in (free, capped):
        floor = found.in_mask + found.tau / found.kappa
        assert np.all(np.asarray(found.total) >= np.asarray(floor) - 1e-12)
        assert float(found.tau) <= (A * (1 - M)).sum(axis=1).max() + 1e-9


def test_all_rows_looked_at_do_not_give_the_true_kappa():
    q, k, _, mask, A, M = problem()
    with float64():
        found = quickly(lambda rng: approximate_row_sums(rng, q, k, mask, samples=N, scale=SCALE))(
            jax.random.key(0)
        )
    assert float(found.kappa) == pytest.approx(theory.kappa(A, M), rel=1e-10)


@pytest.mark.parametrize("sampling", ["norm", "uniform"])
def test_sampled_product_misses_its_error(sampling):
    """Mean squared error of 4,000 draws against the closed form, within 5 standard errors."""
    q, k, v, _, A, _ = problem()
    D = A.sum(axis=1)
    exact = A @ np.asarray(v) / D[:, None]
    found = many(
        lambda rng: sampled_product(
            rng, q, k, v, jnp.asarray(D), samples=8, sampling=sampling, scale=SCALE
        )
    )
    squared = ((np.asarray(found) - exact) ** 2).sum(axis=(1, 2))
    stderr = squared.std(ddof=1) / len(squared) ** 0.5
    expected = theory.product_error(A / D[:, None], v, 8, sampling)
    assert abs(squared.mean() - expected) < 5 * stderr < 0.1 * expected


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"samples": 0}, "samples: 0"),
        ({"samples": 2, "kappa": 0.5}, "kappa: 0.5"),
        ({"samples": 2, "cap_constant": 0.0}, "cap_constant: 0.0"),
        ({"samples": 2, "scale": 0.0}, "scale: 0.0"),
    ],
)
def test_bad_argument_is_not_named(options, match):
    q, k, _, mask, *_ = problem()
    with pytest.raises(ValueError, match=match):
        approximate_row_sums(jax.random.key(0), q, k, mask, **options)
