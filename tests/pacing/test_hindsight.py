"""The offline optimum: the linear-time answer is the LP's, whatever the instance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privlearn.pacing import hindsight as h

RNG = np.random.default_rng(0)


def dual(f, b, budget, mu):
    return mu * budget + np.maximum(f - mu * b, 0).sum()


# Few distinct numbers, so that ties, zeros and negative rewards are common.
grid = st.integers(-3, 6).map(float)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(grid, st.integers(0, 4).map(float)), min_size=1, max_size=25),
    st.floats(0.1, 60.0),
)
def test_fast_equals_the_lp_with_ties_zeros_and_any_budget(items, budget):
    f, b = map(np.array, zip(*items, strict=True))
    fast = h.hindsight(f, b, budget)
    lp = h.hindsight_lp(f, b[:, None], [budget])
    assert fast.value == pytest.approx(lp.value, abs=1e-7)
    assert b @ fast.shares <= budget * (1 + 1e-12)
    assert fast.n_fractional <= 1
    # Strong duality certifies the price without the solver.
    assert dual(f, b, budget, fast.price[0]) == pytest.approx(fast.value, abs=1e-9)
    assert fast.value - max(f.max(), 0) <= fast.whole_value <= fast.value + 1e-12


@pytest.mark.parametrize("size", [1, 100, 20_000, 60_001])
@pytest.mark.parametrize("share", [1e-4, 0.3, 0.999, 2.0])
@pytest.mark.parametrize("ties", [False, True])
def test_selection_finds_the_price_that_certifies_its_value(size, share, ties):
    f, b = RNG.random((2, size))
    if ties:
        f, b = np.round(4 * f), np.round(2 * b)
    budget = max(share * b.sum(), 1e-3)
    best = h.hindsight(f, b, budget)
    assert best.spend[0] <= budget * (1 + 1e-12)
    assert dual(f, b, budget, best.price[0]) == pytest.approx(best.value, rel=1e-12, abs=1e-12)
    if share > 1:
        assert best.price[0] == 0
        assert best.value == pytest.approx(f[f > 0].sum(), rel=1e-12)


def test_published_instance():
    """Numbers computed independently (greedy and HiGHS) on this stream of NumPy draws."""
    rng = np.random.default_rng(0)
    v, d = rng.random(500), rng.random(500)
    best = h.hindsight(v - d, d, 50.0)
    assert best.value == pytest.approx(84.5893832435, abs=1e-9)
    assert best.price[0] == pytest.approx(0.3855423, abs=1e-7)


def test_several_resources_with_actions_match_the_published_optimum():
    rng = np.random.default_rng(0)
    f, b = rng.random((500, 5)), rng.random((500, 5, 4))
    best = h.hindsight_lp(f, b, np.full(4, 0.2 * 500))
    assert best.value == pytest.approx(237.587, abs=1e-3)
    np.testing.assert_allclose(best.price, [0.474, 0.468, 0.467, 0.405], atol=1e-3)
    assert (best.shares.sum(axis=1) <= 1 + 1e-9).all()
    assert (best.spend <= 100 + 1e-6).all()


@pytest.mark.parametrize(("rate", "gamma"), [(0.1, 4.0), (0.1, 2.5), (0.03, 2.5), (0.3, 1.0)])
def test_roi_equals_the_lp_of_two_constraints(rate, gamma):
    v, d = np.random.default_rng(7).random((2, 300))
    best = h.hindsight_roi(v, d, rate * 300, gamma)
    lp = h.hindsight_lp(v, np.stack([d, gamma * d - v], axis=1), [rate * 300, 0.0])
    assert best.value == pytest.approx(lp.value, rel=1e-8)
    assert best.spend[0] <= rate * 300 * (1 + 1e-9)
    assert v @ best.shares >= gamma * best.spend[0] * (1 - 1e-9)


def test_scaling_money_and_reward_scales_value_and_price():
    f, b = RNG.random((2, 1000))
    one, two = h.hindsight(f, b, 50.0), h.hindsight(3 * f, 7 * b, 350.0)
    assert two.value == pytest.approx(3 * one.value)
    assert two.price[0] == pytest.approx(3 / 7 * one.price[0])


def test_fluid_policies_meet_their_closed_forms():
    """n = 2e5: sampling errors of the means are below 1e-3, the tolerance is 5 of them."""
    v, d = np.random.default_rng(1).random((2, 200_000))
    second = h.fluid_policy(v, d, 0.1)
    assert second.multiplier == pytest.approx(0.290994, abs=5e-3)
    assert second.value == pytest.approx(0.1581989, abs=5e-3)
    value = h.fluid_policy(v, d, 0.1, objective="value")
    assert value.value == pytest.approx(0.2581989, abs=5e-3)
    assert 1 / value.multiplier == pytest.approx(np.sqrt(0.6), abs=5e-3)
    first = h.fluid_policy(v, d, 0.05, auction="first")
    assert first.multiplier == pytest.approx(0.290994, abs=1e-2)
    assert first.value == pytest.approx(0.0790994, abs=2e-3)
    assert h.fluid_policy(v, d, 1.0, auction="first").multiplier == 0


def test_envelope_is_the_best_line_by_brute_force():
    slopes = np.sort(RNG.random(30))
    costs = RNG.random(30) * slopes
    at = np.sort(RNG.random(200)) * 2
    found = h._envelope(slopes, costs, at)
    lines = np.outer(at, np.append(0, slopes)) - np.append(0, costs)
    np.testing.assert_allclose(lines[np.arange(200), found], lines.max(axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("f", "b", "budget", "words"),
    [
        ([1.0, np.nan], [1.0, 1.0], 1.0, "finite, got nan at 1"),
        ([1.0, 1.0], [1.0, -2.0], 1.0, "at least 0, got -2.0 at 1"),
        ([1.0], [1.0, 1.0], 1.0, r"one length.*\(1,\) and \(2,\)"),
        ([], [], 1.0, "at least 1"),
        ([1.0], [1.0], 0.0, "budget .* must be positive and finite, got 0.0"),
        ([1.0], [1.0], np.inf, "must be positive and finite"),
    ],
)
def test_bad_input_is_named(f, b, budget, words):
    with pytest.raises(ValueError, match=words):
        h.hindsight(f, b, budget)


def test_bad_input_of_the_general_problem_is_named():
    with pytest.raises(ValueError, match="one more axis"):
        h.hindsight_lp([1.0, 2.0], [1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="costs must be finite"):
        h.hindsight_lp([1.0], [[np.nan]], [1.0])
    with pytest.raises(ValueError, match="budgets must be at least 0"):
        h.hindsight_lp([1.0], [[1.0]], [-1.0])
    with pytest.raises(ValueError, match="gamma must be positive"):
        h.hindsight_roi([1.0], [1.0], 1.0, 0.0)
    with pytest.raises(ValueError, match='needs auction="second"'):
        h.fluid_policy([1.0], [1.0], 1.0, auction="first", objective="value")
