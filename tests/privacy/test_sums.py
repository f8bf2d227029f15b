"""Private means over bags: one scale a bag, exact sums, one guarantee."""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.privacy import LaplaceMechanism, SumGrid, release_means, simulate_means

MECHANISM = LaplaceMechanism(sensitivity=2.0, epsilon=0.5)


def test_each_mean_gets_laplace_noise_of_its_own_scale():
    """Mean |noise| is the scale; 6 standard errors, false alarm 1e-8 for all."""
    sizes = np.tile([1, 10, 1000], 10_000)
    for means in (
        release_means(MECHANISM, np.zeros(30_000), sizes),
        simulate_means(MECHANISM, jax.random.key(0), jnp.zeros(30_000), jnp.asarray(sizes)),
    ):
        noise = np.abs(np.asarray(means)).reshape(-1, 3).mean(0)
        expected = 2.0 / (0.5 * np.array([1, 10, 1000]))
        np.testing.assert_array_less(np.abs(noise / expected - 1), 6 / math.sqrt(10_000))


@pytest.mark.parametrize("sizes", [[1], [1, 0], [1.0, 2.0], [1, -3]])
def test_bad_sizes_are_refused_by_name(sizes):
    with pytest.raises(ValueError, match="sizes"):
        release_means(MECHANISM, [1.0, 2.0], sizes)


@given(
    lower=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    values=st.lists(st.floats(-3e6, 3e6), min_size=2, max_size=50),
    seed=st.integers(0, 2**20),
)
def test_sums_of_snapped_values_are_exact_in_any_order(lower, width, values, seed):
    grid = SumGrid(lower=lower, upper=lower + width, count=1000)
    snapped = grid.snap(values).tolist()
    shuffled = random.Random(seed).sample(snapped, len(snapped))
    assert sum(snapped) == sum(shuffled) == math.fsum(snapped) == float(np.sum(snapped))


@given(
    lower=st.floats(-100, 100),
    width=st.floats(1e-3, 100),
    values=st.lists(st.floats(-300, 300), min_size=1, max_size=30),
    replacement=st.floats(-300, 300),
)
def test_replacing_a_value_moves_the_sum_by_at_most_the_sensitivity(
    lower, width, values, replacement
):
    grid = SumGrid(lower=lower, upper=lower + width, count=100)
    before = sum(grid.snap(values).tolist())
    after = sum(grid.snap([replacement, *values[1:]]).tolist())
    assert abs(before - after) <= grid.sensitivity <= width + 2 * grid.spacing


def test_plain_float_sums_break_the_sensitivity_so_the_grid_refuses_counts_beyond_it():
    """Adding 1.5 instead of 0 to a sum of 2^53 moves it by 2: that is why SumGrid exists."""
    assert (2.0**53 + 1.5) - (2.0**53 + 0.0) == 2.0 > 1.5
    with pytest.raises(ValueError, match="count"):
        SumGrid(lower=0.0, upper=1.5, count=2**53)


@pytest.mark.parametrize(
    ("bounds", "count", "name"),
    [
        ((1.0, 0.0), 10, "bounds"),
        ((0.0, math.inf), 10, "bounds"),
        ((0.0, math.nan), 10, "bounds"),
        ((0.0, 1.0), 0, "count"),
        ((0.0, 1.0), 1.5, "count"),
        ((1e15, 1e15 + 1), 1000, "count"),
    ],
)
def test_bad_bounds_and_counts_are_refused_by_name(bounds, count, name):
    with pytest.raises(ValueError, match=name):
        SumGrid(lower=bounds[0], upper=bounds[1], count=count)


def test_nan_is_not_clipped_away():
    with pytest.raises(ValueError, match="values"):
        SumGrid(lower=0.0, upper=1.0, count=1).snap([math.nan])
