"""The grid: what comes onto it, and how."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.causal import OutcomeGrid, theory


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_exact_outcomes_come_back_as_they_were(values):
    for grid in (OutcomeGrid.of(range(10)), OutcomeGrid.of(np.arange(10) * 0.1 - 0.3)):
        y = grid.array[values]
        assert (grid.array[grid.encode(y)] == y).all()
    assert (OutcomeGrid.of(range(10)).encode(values) == values).all()


def test_booleans_and_integers_are_outcomes_too():
    grid = OutcomeGrid.of([0, 1])
    assert grid.encode(np.array([True, False])).tolist() == [1, 0]
    assert OutcomeGrid.of([-2, -1, 0]).encode(np.array([-2, 0], np.int8)).tolist() == [0, 2]


def test_rounding_is_unbiased_and_has_the_stated_variance():
    """Mean and variance of 200,000 roundings of one value; false alarms below 1e-6 each."""
    grid = OutcomeGrid.rounding((0.0, 10.0), 6)
    n, y = 200_000, 3.5
    found = grid.array[grid.encode(np.full(n, y))]
    variance = float(theory.rounding_variance(y, grid.values))
    assert set(found) == {2.0, 4.0}
    assert abs(found.mean() - y) < 5 * (variance / n) ** 0.5
    assert variance == pytest.approx(0.75)


@given(st.floats(-100, 100))
def test_rounding_clips_and_keeps_grid_points(y):
    grid = OutcomeGrid.rounding((-1.0, 3.0), 5)
    (code,) = grid.encode([y])
    assert abs(grid.array[code] - np.clip(y, -1, 3)) <= 1
    below, share = grid.neighbours(grid.array)
    assert (np.where(share == 1, below + 1, below) == np.arange(5)).all()


@given(st.floats(-1, 11))
def test_bins_move_an_outcome_by_at_most_half_their_width(y):
    grid = OutcomeGrid.bins((0.0, 10.0), 5)
    (code,) = grid.encode([y])
    assert abs(grid.array[code] - np.clip(y, 0, 10)) <= 1 + 1e-9
    assert grid.bias_bound == 2.0


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        ([0, 7], ValueError, "1 of 2 outcomes are not among the 3 values"),
        ([0, -1], ValueError, "1 of 2"),
        ([0.5, 1.0], ValueError, "1 of 2"),
        ([np.nan, 1.0], ValueError, "1 of 2 are missing"),
        ([np.inf, 1.0], ValueError, "1 of 2"),
        (["a", "b"], TypeError, "numeric"),
        ([[1.0]], ValueError, "one axis"),
    ],
)
def test_outcomes_off_the_grid_are_counted_not_shown(y, error, match):
    with pytest.raises(error, match=match):
        OutcomeGrid.of([0, 1, 2]).encode(y)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: OutcomeGrid.of([1]), ValueError, "2 to"),
        (lambda: OutcomeGrid.of([1, 1]), ValueError, "increase"),
        (lambda: OutcomeGrid.of([2, 1]), ValueError, "increase"),
        (lambda: OutcomeGrid.of([0, np.inf]), ValueError, "finite"),
        (lambda: OutcomeGrid.of(["a"]), TypeError, "numbers"),
        (lambda: OutcomeGrid((0, 1)), TypeError, "OutcomeGrid.of"),
        (lambda: OutcomeGrid((0.0, 1.0), "guess"), ValueError, "rule"),
        (lambda: OutcomeGrid.bins((1, 0), 4), ValueError, "bounds"),
        (lambda: OutcomeGrid.bins(3, 4), TypeError, "bounds"),
        (lambda: OutcomeGrid.bins((0, 1), 1), ValueError, "n_bins"),
        (lambda: OutcomeGrid.rounding((0, 1), 2.5), TypeError, "n_points"),
    ],
)
def test_bad_grids_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
