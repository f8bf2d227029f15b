"""Shared numbers, and the estimates that are built on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privlearn.replicable import (
    replicable_heavy_hitters,
    replicable_masses,
    replicable_mean,
    replicable_median,
    replicable_round,
    replicable_threshold,
    theory,
)
from privlearn.replicable.streams import integer_seed, normals, uniforms

SEEDS = st.integers(0, 2**70)


def test_shared_numbers_are_uniform_and_uncorrelated_over_seeds_labels_and_purposes():
    """Kolmogorov-Smirnov and correlations: false alarm below 1e-6 in each; power: a bias of .02."""
    by_seed = np.array([float(uniforms(seed, "a")) for seed in range(20_000)])
    by_label = uniforms(3, "a", np.arange(100_000))
    by_pair = uniforms(3, "a", np.arange(300)[:, None], np.arange(300)[None, :])
    for sample in (by_seed, by_label, by_pair.ravel()):
        assert stats.kstest(sample, "uniform").pvalue > 1e-6
        assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 5 / np.sqrt(len(sample))
    other = uniforms(3, "b", np.arange(100_000))
    assert abs(np.corrcoef(by_label, other)[0, 1]) < 5 / np.sqrt(100_000)
    assert len(np.unique(by_pair)) == by_pair.size
    assert stats.kstest(normals(5, "n", np.arange(50_000)), "norm").pvalue > 1e-6


def test_shared_numbers_never_change():
    """Pinned: another version or platform that drew others would break every agreement."""
    assert float(uniforms(2, "cells", 1)) == 0.8707283440093156
    assert float(uniforms(10**30, "x", -5, 7)) == 0.15786041101502102
    assert integer_seed(2, "oracle") == integer_seed(np.int64(2), "oracle") == 1295489034


@given(SEEDS, st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_a_number_depends_on_its_label_and_not_on_its_company(seed, labels):
    together = uniforms(seed, "x", np.array(labels))
    alone = [float(uniforms(seed, "x", label)) for label in labels]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


@pytest.mark.parametrize("seed", [None, True, 1.5, "7", np.random.default_rng(0)])
def test_a_shared_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises((TypeError, ValueError), match="shared_seed"):
        replicable_round(0.3, alpha=0.1, shared_seed=seed)


def test_a_negative_shared_seed_is_refused():
    with pytest.raises(ValueError, match="shared_seed must be >= 0"):
        uniforms(-1, "x")


@given(SEEDS, st.floats(-1e9, 1e9), st.floats(1e-6, 1e6))
def test_rounding_moves_by_at_most_half_a_cell_and_is_idempotent(seed, value, alpha):
    rounded = replicable_round(value, alpha=alpha, shared_seed=seed)
    slack = 1e-9 * (abs(value) + alpha)
    assert abs(rounded - value) <= alpha / 2 + slack
    again = replicable_round(rounded, alpha=alpha, shared_seed=seed)
    assert abs(again - rounded) <= slack


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_rounding_keeps_the_order_and_equal_cells_give_equal_bits(seed, one, two):
    a, b = replicable_round([one, two], alpha=0.13, shared_seed=seed)
    assert (a - b) * (one - two) >= 0
    if a != b:
        assert abs(a - b) >= 0.13 * (1 - 1e-9)


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05, 0.2])
def test_rounding_separates_a_gap_with_probability_gap_over_alpha(gap):
    """5 sigma of 40,000 seeds; power: an error of .02 in the probability."""
    one, two = replicable_round(
        np.array([[0.4], [0.4 + gap]]), alpha=0.1, shared_seed=11, labels=np.arange(40_000)
    )
    expected = min(1, gap / 0.1)
    margin = 5 * np.sqrt(expected * (1 - expected) / 40_000) + 1e-12
    assert abs((one != two).mean() - expected) <= margin


def test_mean_stays_in_its_bounds_and_near_the_sample_mean():
    values = np.array([0.0, 0.0, 0.01])
    for seed in range(50):
        found = replicable_mean(values, alpha=0.3, shared_seed=seed)
        assert 0 <= found <= values.mean() + 0.15
    with pytest.raises(ValueError, match="values must lie in bounds"):
        replicable_mean([2.0], alpha=0.1, shared_seed=0)
    with pytest.raises(ValueError, match="NaN"):
        replicable_mean([np.nan], alpha=0.1, shared_seed=0)


def test_threshold_is_in_its_range_and_one_number_per_label():
    at = replicable_threshold(low=0.2, high=0.3, shared_seed=4, label=np.arange(1000))
    assert 0.2 <= at.min() < 0.201
    assert 0.299 < at.max() < 0.3
    assert at[7] == replicable_threshold(low=0.2, high=0.3, shared_seed=4, label=7)


def test_heavy_hitters_finds_all_above_v_and_none_below_v_minus_eps():
    sample = np.repeat(["a", "b", "c", "d"], [500, 300, 140, 60])
    seen = set()
    for seed in range(200):
        found = replicable_heavy_hitters(sample, mass=0.3, slack=0.2, shared_seed=seed)
        assert {"a", "b"} <= set(found.values)
        assert "d" not in found.values  # below v - eps = .1
        seen.add(len(found.values))
    assert seen == {2}  # .14 lies below every threshold, drawn from [.1667, .2333]
    only = replicable_heavy_hitters(sample, mass=0.3, shared_seed=0, candidates=["b"])
    assert only.values.tolist() == ["b"]


def test_heavy_hitters_of_one_atom_always_agree_and_far_masses_nearly_so():
    rng = np.random.default_rng(2)
    for seed in range(30):
        a, b = (
            replicable_heavy_hitters(
                rng.choice(3, 2000, p=[0.6, 0.3, 0.1]), mass=0.5, slack=0.1, shared_seed=seed
            )
            for _ in range(2)
        )
        assert a.values.tolist() == b.values.tolist() == [0]
        assert a.threshold == b.threshold


def test_an_atom_in_the_middle_of_the_range_fails_as_the_law_says():
    """5 sigma of 3,000 pairs: an error of .04 in a probability of .23 would show."""
    rng = np.random.default_rng(3)
    low, high = theory.threshold_window(0.4, 0.2)
    p, n = (low + high) / 2, 1000
    differ = 0
    for seed in range(3000):
        one, two = rng.binomial(n, p, 2)
        found = [
            replicable_heavy_hitters(
                np.repeat([0, 1], [n - c, c]), mass=0.4, slack=0.2, shared_seed=seed
            )
            for c in (one, two)
        ]
        differ += (1 in found[0].values) != (1 in found[1].values)
    exact = theory.threshold_differs(n, p, low, high)
    assert abs(differ / 3000 - exact) < 5 * np.sqrt(exact * (1 - exact) / 3000)


@given(
    SEEDS, st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any), st.floats(0.001, 2)
)
def test_masses_are_a_distribution_and_within_alpha_before_normalisation(seed, counts, alpha):
    for offsets in ("shared", "own"):
        found = replicable_masses(counts, alpha=alpha, shared_seed=seed, offsets=offsets)
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(1)


def test_one_offset_rounds_equal_masses_equally_and_own_offsets_do_not():
    own = [
        replicable_masses([5, 5, 5, 5], alpha=0.15, shared_seed=s, offsets="own") for s in range(20)
    ]
    for seed in range(20):
        found = replicable_masses([5, 5, 5, 5], alpha=0.15, shared_seed=seed)
        assert np.ptp(found) == 0
    assert any(np.ptp(masses) > 0.05 for masses in own)


def test_masses_differ_with_the_probability_of_the_example():
    """p = (.3, .3, .4), n = 2,000: simulation on record .306; 5 sigma of 8,000 pairs."""
    rng = np.random.default_rng(4)
    differ = 0
    for seed in range(8000):
        one, two = rng.multinomial(2000, [0.3, 0.3, 0.4], 2)
        a, b = (
            replicable_masses(c, alpha=0.1, shared_seed=seed, offsets="own") for c in (one, two)
        )
        differ += not np.array_equal(a, b)
    assert abs(differ / 8000 - 0.306) < 5 * np.sqrt(0.306 * 0.694 / 8000) + 0.003
    assert differ / 8000 < theory.masses_differ(2000, [0.3, 0.3, 0.4], 0.1)


def test_median_is_near_in_rank_whatever_the_scale_and_tails():
    rng = np.random.default_rng(5)
    for seed in range(30):
        sample = np.exp(3 * rng.normal(size=4001))
        found = replicable_median(
            sample, bounds=(0, 1e6), resolution=1e-3, tau=0.05, shared_seed=seed
        )
        assert abs((sample <= found).mean() - 0.5) < 0.06


def test_median_differs_no_more_often_than_the_union_bound():
    rng = np.random.default_rng(6)
    n, tau, steps, pairs = 2001, 0.1, 7, 400
    differ = 0
    for seed in range(pairs):
        a, b = (
            replicable_median(
                rng.random(n), bounds=(0, 1), resolution=2**-steps, tau=tau, shared_seed=seed
            )
            for _ in range(2)
        )
        differ += a != b
    bound = steps * theory.binomial_gap(n, 0.5) / (2 * tau)
    assert differ / pairs < bound + 5 * np.sqrt(bound * (1 - bound) / pairs)
    assert differ > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: replicable_round([np.inf], alpha=1, shared_seed=0), "values must be finite"),
        (lambda: replicable_round([1.0], alpha=0, shared_seed=0), "alpha must be positive"),
        (lambda: replicable_heavy_hitters([], mass=0.3, shared_seed=0), "values must have shape"),
        (lambda: replicable_heavy_hitters([1], mass=1.3, shared_seed=0), "mass must be below 1"),
        (lambda: replicable_masses([0, 0], alpha=0.1, shared_seed=0), "not all 0"),
        (lambda: replicable_masses([1], alpha=0.1, shared_seed=0, offsets="x"), "offsets must"),
        (lambda: replicable_median([1.0], bounds=(1, 0), resolution=1, shared_seed=0), "bounds"),
        (
            lambda: replicable_median([1.0], bounds=(0, 1), resolution=1, tau=1, shared_seed=0),
            "tau",
        ),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
