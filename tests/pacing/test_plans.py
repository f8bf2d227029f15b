"""Spending plans: shares that sum to one, whatever the forecast."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.pacing import plans

forecasts = st.lists(st.floats(0, 1e6), min_size=1, max_size=50).filter(lambda x: sum(x) > 1e-3)


@given(forecasts, st.floats(0, 1), st.integers(1, 60))
def test_plans_sum_to_one_and_keep_it_when_rebinned(forecast, floor, n):
    plan = plans.proportional(forecast, floor=floor)
    assert plan.sum() == pytest.approx(1)
    assert (plan >= 0).all()
    other = plans.rebin(plan, n)
    assert other.sum() == pytest.approx(1)
    # At the edges that both grids share, what has been spent is the same.
    whole = plans.rebin(plan, plan.size * n)
    np.testing.assert_allclose(whole.reshape(-1, n).sum(axis=1), plan, atol=1e-12)


def test_a_plan_from_a_log_counts_only_what_is_inside():
    plan = plans.from_times([-1.0, 0.0, 1.9, 5.0], 2, start=0.0, end=2.0, floor=0.0)
    assert plan.tolist() == [0.5, 0.5]
    assert plans.from_times([0.1], 2, start=0, end=1).min() == pytest.approx(0.025)


def test_planned_is_linear_within_a_slot_and_clamped_outside():
    assert plans.planned([0.2, 0.8], [-1.0, 0.75, 2.0]).tolist() == pytest.approx([0.0, 0.6, 1.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plans.proportional([1.0, -1.0]), "got -1.0"),
        (lambda: plans.proportional([1.0, np.nan]), "got nan"),
        (lambda: plans.proportional([0.0, 0.0]), "only zeros"),
        (lambda: plans.proportional([[1.0]]), "one number a slot"),
        (lambda: plans.proportional([1.0], floor=2), "floor must be"),
        (lambda: plans.even(0), "n_slots must be at least 1, got 0"),
        (lambda: plans.check_plan([0.5, 0.6]), "sum to 1, got a sum of 1.1"),
        (lambda: plans.check_plan([0.5, 0.5], 3), "2 slots where 3 are needed"),
        (lambda: plans.check_plan([1.5, -0.5]), "at least 0"),
        (lambda: plans.day_curve(5, swing=1.5), "swing must be"),
        (lambda: plans.day_curve(5, mean=0), "mean must be positive"),
        (lambda: plans.from_times([1.0], 2, start=1, end=1), "end must be after start"),
    ],
)
def test_bad_plans_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
