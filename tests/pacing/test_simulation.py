"""Simulated campaigns: never overspend, meet the fluid law, and count what they say they count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privlearn.pacing import plans, simulation, theory
from privlearn.pacing.auctions import (
    FirstPrice,
    LogNormal,
    Market,
    SecondPrice,
    Uniform,
    ValueShift,
    Worthless,
)
from privlearn.pacing.controllers import (
    dual_mirror_descent,
    fixed_multiplier,
    no_pacing,
    normalised,
    pid,
    throttling,
    with_roi,
)
from privlearn.pacing.simulation import simulate_campaigns

KEY = jax.random.key(5)
T = 4000
TUNED = dual_mirror_descent(1 / (0.1 * math.sqrt(T)))
#: One market with everything, so that the property test compiles few programs.
WILD = Market(Uniform(), LogNormal(0.4, 1.5), correlation=0.3, stress=(ValueShift(0.5, 3.0),))


@settings(max_examples=12, deadline=None)
@given(st.floats(1e-3, 1e5), st.integers(0, 2**31 - 1), st.sampled_from([0, 1]))
def test_no_campaign_ever_overspends_even_added_up_without_rounding(budget, seed, which):
    controller = (no_pacing(), TUNED)[which]
    run = _PROPERTY(controller, jax.random.key(seed), budget)
    charges = np.asarray(run.auctions.charge, dtype=float)
    for i in range(charges.shape[1]):
        assert math.fsum(charges[:, i]) <= float(np.float32(budget))


def _PROPERTY(controller, key, budget):
    return simulate_campaigns(
        controller, key=key, budget=budget, horizon=600, n_campaigns=4, market=WILD,
        n_slots=20, record="auctions", rounds=13,
    )  # fmt: skip


def test_a_ledger_of_a_million_roundings_is_exact():
    """Plain float32 subtraction of 0.1 from 1e5 is off by far more than the ledger."""
    n = 200_000

    def step(ledger, _):
        charge = jnp.full(1, 0.1)
        return simulation.pay(ledger, charge, jnp.ones(1, bool), charge)

    ledger, paid = jax.lax.scan(step, simulation.open_ledger(jnp.full(1, 15_000.0)), None, n)
    true = float(np.float32(0.1)) * int(paid.sum())
    spent = 15_000 * (1 - 4 * np.finfo(np.float32).eps) - float(ledger.remaining[0])
    assert true <= 15_000
    assert true == pytest.approx(15_000, abs=0.2)
    assert spent == pytest.approx(true, abs=2e-3)


@pytest.fixture(scope="module")
def tuned():
    return simulate_campaigns(
        TUNED, key=KEY, budget=0.1 * T, horizon=T, n_campaigns=60, optimum=True, record="auctions"
    )


def test_tuned_dual_descent_has_the_published_regret(tuned):
    """Regret 5.3 to 5.6 at T = 4000 from an independent NumPy run (40 seeds, standard error 0.7).

    Five standard errors of either.
    """
    regret = tuned.metrics.regret
    error = regret.std() / math.sqrt(regret.size)
    assert abs(regret.mean() - 5.4) < 5 * math.hypot(error, 0.7)
    assert (tuned.metrics.regret > 0).all()
    assert float(tuned.metrics.utilisation.mean()) > 0.995


def test_metrics_are_those_of_the_recorded_auctions(tuned):
    a, m = tuned.auctions, tuned.metrics
    won = np.asarray(a.charge) > 0
    value = np.where(won, np.asarray(a.value, float) - np.asarray(a.price, float), 0).sum(axis=0)
    np.testing.assert_allclose(m.value, value, rtol=1e-5)
    np.testing.assert_allclose(m.spend, np.asarray(a.charge, float).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(m.win_rate, won.mean(axis=0), atol=1e-6)
    cumulated = np.cumsum(np.asarray(a.charge, float).reshape(100, -1, 60).sum(axis=1), axis=0)
    plan = np.arange(1, 101)[:, None] / 100
    error = np.abs(cumulated / (0.1 * T) - plan)
    np.testing.assert_allclose(m.pacing_error, error.max(axis=0), rtol=1e-3)
    assert (np.asarray(a.bid) >= np.asarray(a.charge)).all(), "charged above the bid"


def test_no_pacing_is_gone_early_and_the_oracle_is_not(tuned):
    day = {"key": KEY, "budget": 0.1 * T, "horizon": T, "n_campaigns": 60, "optimum": True}
    rushed = simulate_campaigns(no_pacing(), **day).metrics
    fixed = simulate_campaigns(fixed_multiplier(theory.second_price_utility(0.1).mu), **day).metrics
    # Truthful spend is 1/6 a round: the budget lasts for 0.6 of the horizon.
    assert float(rushed.exhausted.mean()) == pytest.approx(0.6, abs=0.02)
    assert float(rushed.pacing_error.mean()) == pytest.approx(0.4, abs=0.02)
    assert rushed.regret.mean() > 20 * fixed.regret.mean()
    np.testing.assert_allclose(rushed.optimum, tuned.metrics.optimum, rtol=1e-12)


def test_fixed_multipliers_meet_the_fluid_law():
    """20 campaigns of 20,000: five standard errors."""
    run = simulate_campaigns(
        fixed_multiplier(0.5), key=KEY, budget=1e4, horizon=20_000, n_campaigns=20
    ).metrics
    fluid = theory.utility_at(0.5)
    for got, want in ((run.value, fluid.reward), (run.spend, fluid.spend)):
        rate = np.asarray(got) / 20_000
        assert abs(rate.mean() - want) < 5 * rate.std() / math.sqrt(20)


def test_throttling_buys_at_the_average_price():
    run = simulate_campaigns(
        throttling(), key=KEY, budget=0.1 * T, horizon=T, n_campaigns=40, optimum=True
    ).metrics
    share = np.asarray(run.value) / run.optimum
    assert abs(share.mean() - 0.1 / 0.1581989) < 5 * share.std() / math.sqrt(40) + 0.01


def test_first_price_learns_the_law_whether_prices_are_revealed_or_censored():
    fluid = theory.first_price_utility(0.05).reward
    controller = dual_mirror_descent(1 / (0.05 * math.sqrt(T)))
    day = {"key": KEY, "budget": 0.05 * T, "horizon": T, "n_campaigns": 8}
    # Censored bids say nothing of prices above them: some campaigns settle for bids too low.
    for prices, used in ((Uniform(), 0.95), ("revealed", 0.95), ("censored", 0.85)):
        run = simulate_campaigns(controller, auction=FirstPrice(prices), **day).metrics
        assert float(run.value.mean()) / T == pytest.approx(fluid, rel=0.06), prices
        assert float(run.utilisation.mean()) > used, prices


def test_a_return_constraint_is_met_and_costs_value():
    T, rate, gamma = 20_000, 0.12, 4.0
    step = 1 / math.sqrt(T)
    controller = with_roi(dual_mirror_descent(step, mu0=1.0), gamma=gamma, eta=step)
    run = simulate_campaigns(
        controller, key=KEY, budget=rate * T, horizon=T, n_campaigns=8,
        auction=SecondPrice("value", gamma=gamma),
    )  # fmt: skip
    assert float(run.metrics.roi_violation.max()) < 0.1
    mu, lam = run.slots.mu[-25:], run.slots.lam[-25:]
    kappa = float(((1 + lam) / (mu + gamma * lam)).mean())
    assert kappa == pytest.approx(2 / gamma, abs=3 * 0.0074)


def test_a_plan_by_traffic_beats_an_even_one():
    traffic = plans.day_curve(96, mean=60)
    controller = normalised(pid(0.05, mu0=0.3))
    day = {
        "key": KEY, "budget": 0.1 * traffic.sum(), "traffic": traffic, "n_campaigns": 10,
        "control": "slot", "optimum": True,
    }  # fmt: skip
    even = simulate_campaigns(controller, **day)
    planned = simulate_campaigns(controller, plan=plans.proportional(traffic), **day).metrics
    got, lost = planned.value / planned.optimum, even.metrics.value / even.metrics.optimum
    assert (np.asarray(got) > np.asarray(lost)).all()
    assert float(got.mean()) > 0.98
    # Poisson counts: 96 slots x 10 campaigns, five standard deviations.
    arrived = float(even.slots.auctions.sum())
    assert abs(arrived - 10 * traffic.sum()) < 5 * math.sqrt(10 * traffic.sum())


def test_worthless_endings_leave_budget_unspent():
    run = simulate_campaigns(
        TUNED, key=KEY, budget=0.1 * T, horizon=T, n_campaigns=10,
        market=Market(stress=(Worthless(0.8),)),
    ).metrics  # fmt: skip
    assert float(run.utilisation.mean()) == pytest.approx(0.83, abs=0.05)


def test_each_campaign_may_have_its_own_gain_and_budget():
    gains = jnp.array([0.0, 0.1])  # 0: traced, and so not refused
    run = simulate_campaigns(
        dual_mirror_descent, key=KEY, params=gains, n_campaigns=2,
        budget=[50.0, 100.0], horizon=1000,
    )  # fmt: skip
    assert np.asarray(run.slots.mu)[:, 0].max() == 0
    assert np.asarray(run.slots.mu)[:, 1].max() > 0
    assert run.budget.tolist() == [50.0, 100.0]


def test_a_horizon_that_no_slot_divides_is_kept():
    run = simulate_campaigns(no_pacing(), key=KEY, budget=1e6, horizon=105, n_slots=10)
    assert run.slots.auctions.sum() == 105
    assert float(run.plan.sum()) == pytest.approx(1)


def test_same_key_same_result_and_other_key_another():
    day = {"budget": 5.0, "horizon": 60, "n_slots": 6}
    one, two = (simulate_campaigns(TUNED, key=jax.random.key(k), **day) for k in (0, 1))
    again = simulate_campaigns(TUNED, key=jax.random.key(0), **day)
    assert one.metrics.value == again.metrics.value
    assert one.metrics.value != two.metrics.value


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"budget": 0.0}, ValueError, "budget must be positive"),
        ({"budget": -1.0}, ValueError, "budget must be positive"),
        ({"budget": np.nan}, ValueError, "budget must be positive"),
        ({"budget": [1.0, 2.0, 3.0]}, ValueError, "budget must be one number or one a campaign"),
        ({"horizon": None}, ValueError, "either horizon"),
        ({"horizon": 0}, ValueError, "horizon must be at least 1"),
        ({"horizon": 2.5}, TypeError, "horizon must be a whole number"),
        ({"traffic": [1.0]}, ValueError, "either horizon"),
        ({"plan": [0.5, 0.5], "n_slots": 3}, ValueError, "disagree on the number of slots"),
        ({"plan": [0.5, 0.6]}, ValueError, "sum to 1"),
        ({"plan": np.full(20, 0.05), "horizon": 10}, ValueError, "at least the number of slots"),
        ({"control": "hour"}, ValueError, "control must be one of"),
        ({"rounds": 3}, ValueError, "rounds must be one of"),
        ({"controller": 3}, TypeError, "controller must be a Controller"),
        ({"params": jnp.ones(2)}, TypeError, "must be a function"),
    ],
)
def test_bad_input_is_named(change, error, words):
    settings = {"controller": TUNED, "key": KEY, "budget": 1.0, "horizon": 10, **change}
    with pytest.raises(error, match=words):
        simulate_campaigns(settings.pop("controller"), **settings)
