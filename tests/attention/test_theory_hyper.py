"""Closed forms of HyperAttention against enumeration and hand-made cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from privlearn.attention.theory import hyper as theory


def small(seed=0, n=4):
    rng = np.random.default_rng(seed)
    P, D = theory.softmax_matrix(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)))
    M = np.kron(np.eye(2), np.ones((n // 2, n // 2)))
    return P, D, rng.normal(size=(n, 2)), M


def test_collision_law_is_no_distribution_or_has_wrong_mean():
    angle, r = 1.1, 5
    law = [theory.collision_probability(angle, r, bits) for bits in range(r + 1)]
    assert sum(law) == pytest.approx(1)
    assert np.dot(law, range(r + 1)) == pytest.approx(r * angle / np.pi)


@pytest.mark.parametrize("sampling", ["norm", "uniform"])
def test_product_error_is_not_that_of_all_samples(sampling):
    """All 4^2 samples of two columns, with their probabilities."""
    P, _, V, _ = small()
    norms = (V**2).sum(axis=1)
    p = norms / norms.sum() if sampling == "norm" else np.full(4, 0.25)
    expected = 0.0
    for drawn in itertools.product(range(4), repeat=2):
        at = list(drawn)
        estimate = P[:, at] @ (V[at] / (2 * p[at])[:, None])
        expected += np.prod(p[at]) * ((estimate - P @ V) ** 2).sum()
    assert theory.product_error(P, V, 2, sampling) == pytest.approx(expected, rel=1e-12)


def test_row_sum_mean_or_variance_is_not_that_of_all_samples():
    P, D, _, M = small()
    A = P * D[:, None]
    estimates = np.array(
        [
            [(A * M).sum(axis=1) + 2 * ((1 - M) * A)[:, list(drawn)].sum(axis=1)]
            for drawn in itertools.product(range(4), repeat=2)
        ]
    )[:, 0]
    np.testing.assert_allclose(estimates.mean(axis=0), D, rtol=1e-12)
    np.testing.assert_allclose(estimates.var(axis=0), theory.row_sum_variance(A, M, 2), rtol=1e-12)
    unmasked = np.array(
        [
            (A * M).sum(axis=1) + 2 * A[:, list(drawn)].sum(axis=1)
            for drawn in itertools.product(range(4), repeat=2)
        ]
    )
    np.testing.assert_allclose(
        unmasked.mean(axis=0), theory.row_sums_counted_twice(A, M), rtol=1e-12
    )


def test_output_variance_is_not_that_of_the_linear_term():
    """One draw, enumerated: n (1 - M) P (V - O), of which m draws have a mean of variance 1/m."""
    P, _, V, M = small()
    out = P @ V
    term = 4 * ((1 - M) * P)[:, :, None] * (V[None] - out[:, None])  # (T, l, D)
    expected = term.var(axis=1).sum(axis=-1) / 3
    np.testing.assert_allclose(theory.output_variance(P, V, M, 3), expected, rtol=1e-12)


def test_alpha_and_kappa_of_known_matrices():
    assert theory.alpha(np.full((8, 8), 1 / 8)) == pytest.approx(1)
    assert theory.alpha(np.eye(8)) == pytest.approx(8)
    assert theory.alpha(np.eye(8)[[0] * 8]) == pytest.approx(64)
    A = np.array([[1.0, 2.0, 1.0], [5.0, 1.0, 1.0], [3.0, 3.0, 1.0]])
    assert theory.kappa(A, np.eye(3)) == pytest.approx(6 / 3)


def test_flops_of_the_paper_scale():
    n = 131_072
    assert theory.exact_flops(n, 64, 64) == pytest.approx(4398e9, rel=1e-3)
    for leaf, expected in ((4096, 112e9), (1024, 77e9)):
        found = theory.hyper_flops(n, 64, 64, lsh_projs=0, min_seq_len=leaf, causal=True)
        assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.collision_probability(4.0, 3), "angle: 4.0"),
        (lambda: theory.collision_probability(1.0, 3, 4), "distance: 4"),
        (lambda: theory.product_error(np.eye(2), np.eye(2), 1, "rows"), "sampling: 'rows'"),
    ],
)
def test_bad_argument_is_not_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
