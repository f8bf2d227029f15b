"""The pacer in plain Python: the law of the JAX controller, and what production does to it."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.pacing import controllers
from privlearn.pacing.controllers import Feedback
from privlearn.pacing.pacer import PacingController
from privlearn.pacing.warnings import PacingWarning
from privlearn.simulate import float64

T = 400


def campaign(pacer, steps=T, seed=0):
    """Second-price auctions; spends, values won and (mu, lam) before every bid."""
    rng = np.random.default_rng(seed)
    rows = []
    for v, d in rng.random((steps, 2)):
        price, lam = pacer.mu, pacer.lam
        won = pacer.bid(v) >= d
        pacer.observe(d if won else 0.0, value=v if won else 0.0)
        rows.append((price, lam, d if won else 0.0, v if won else 0.0))
    return np.array(rows)


def in_jax(make, rows, target):
    """The prices of the JAX controller on the same feedback."""
    with float64():
        controller = make()
        told = Feedback(
            jnp.asarray(rows[:, 2:3]),
            jnp.asarray(rows[:, 3]),
            jnp.asarray(np.broadcast_to(target, len(rows))[:, None]),
            jnp.ones(len(rows), bool),
        )
        _, actions = jax.lax.scan(
            lambda s, f: (controller.update(s, f), controller.act(s)), controller.init(), told
        )
        return np.asarray(actions.mu[:, 0]), np.asarray(actions.lam)


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"k_i": 0.3}, lambda: controllers.pid(0.3)),
        (
            {"k_i": 0.3, "k_p": 0.2, "k_d": 0.1, "beta": 0.4, "mu_max": 0.6},
            lambda: controllers.pid(0.3, 0.2, 0.1, beta=0.4, mu_max=0.6),
        ),
        (
            {"k_i": 0.3, "k_p": 0.2, "mirror": "entropic", "mu0": 0.5, "objective": "value"},
            lambda: controllers.pid(0.3, 0.2, mirror="entropic", mu0=0.5),
        ),
        ({}, lambda: controllers.pid(math.sqrt(T) / (0.12 * T))),
    ],
)
def test_path_is_that_of_the_jax_controller(settings, make):
    rows = campaign(PacingController(0.12 * T, horizon=T, **settings))
    # The hard budget may cut the last bids short, which do not move the price.
    free = int(0.9 * T)
    mu, _ = in_jax(make, rows, 0.12)
    np.testing.assert_allclose(rows[:free, 0], mu[:free], rtol=0, atol=1e-12)
    assert rows[:, 0].std() > 0.01


def test_path_with_a_plan_and_a_least_return_is_that_of_the_jax_controller():
    plan = [1.0, 3.0, 2.0, 2.0]
    settings = {"objective": "value", "gamma": 3.0, "eta_roi": 0.05, "k_i": 0.2, "mu0": 1.0}
    rows = campaign(PacingController(0.2 * T, horizon=T, plan=plan, **settings))
    target = np.repeat(np.array(plan) / 2.0, T // 4) * 0.2
    mu, lam = in_jax(
        lambda: controllers.with_roi(controllers.pid(0.2, mu0=1.0), 3.0, 0.05), rows, target
    )
    free = int(0.8 * T)
    np.testing.assert_allclose(rows[:free, 0], mu[:free], atol=1e-12)
    np.testing.assert_allclose(rows[:free, 1], lam[:free], atol=1e-12)


def test_it_paces():
    pacer = PacingController(0.1 * 4000, horizon=4000)
    campaign(pacer, 4000)
    assert 0.97 * pacer.budget < pacer.spent <= pacer.budget
    assert pacer.mu == pytest.approx(0.29, abs=0.25)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["bid", "win", "lose", "forget", "later", "budget", "json"]),
        st.floats(0, 3, allow_subnormal=False),
    ),
    max_size=60,
)


@given(st.floats(0.1, 8), MOVES)
def test_spend_never_exceeds_the_budget_whatever_comes_in_whatever_order(budget, moves):
    pacer = PacingController(budget, horizon=50, objective="utility")
    bids = {}
    for move, x in moves:
        if move == "bid":
            amount = pacer.bid(x)
            bids[pacer.ticket] = amount
        elif move == "budget":
            if budget + x > pacer.budget:
                pacer.set_budget(budget + x)
        elif move == "json":
            pacer = PacingController.from_json(pacer.to_json())
        elif bids:
            ticket = list(bids)[-1] if move == "later" else next(iter(bids))
            amount = bids.pop(ticket)
            if move == "forget":
                pacer.forget(ticket, charged=x < 2)
            else:
                pacer.observe(0.0 if move == "lose" else amount, ticket=ticket)
        assert pacer.spent <= pacer.budget
        assert pacer.spent + math.fsum(bids.values()) <= pacer.budget * (1 + 1e-12)
        assert pacer.reserved == pytest.approx(math.fsum(bids.values()), abs=1e-9)
    for ticket, amount in bids.items():  # all that is outstanding is won at the full bid
        pacer.observe(amount, ticket=ticket)
    assert pacer.spent <= pacer.budget * (1 + 1e-12)


def test_outstanding_bids_are_reserved():
    pacer = PacingController(1.0, horizon=10)
    assert [pacer.bid(0.4), pacer.bid(0.4)] == [0.4, 0.4]
    assert pacer.bid(0.4) == pytest.approx(0.2)
    assert pacer.bid(0.4) == 0.0
    pacer.observe(0.0)
    assert pacer.bid(0.3) == pytest.approx(0.3, abs=0.02)


def test_bids_cut_short_do_not_move_the_price():
    pacer = PacingController(1.0, horizon=10, mu0=0.0)
    pacer.bid(5.0)
    pacer.observe(1.0)
    price = pacer.mu
    for _ in range(20):
        assert pacer.bid(1.0) == 0.0
        pacer.observe(0.0)
    assert pacer.mu == price == 0.0


def test_a_result_that_comes_twice_is_counted_once():
    pacer = PacingController(10.0, horizon=10)
    pacer.bid(0.5)
    ticket = pacer.ticket
    pacer.bid(0.5)
    pacer.observe(0.5, ticket=ticket)
    with pytest.raises(ValueError, match=r"ticket must be one of .*\(2,\), got 1"):
        pacer.observe(0.5, ticket=ticket)
    assert pacer.spent == 0.5
    pacer.observe(0.25)
    with pytest.raises(ValueError, match="no bid is without a result"):
        pacer.observe(0.25)
    assert pacer.spent == 0.75


def clocked(**more):
    return PacingController(
        100.0, start=0.0, end=100.0, **{"k_i": 0.01, "mu0": 1.0, "max_gap": 10.0, **more}
    )


def tick(pacer, now, spend=0.0):
    pacer.bid(100.0)
    pacer.observe(spend, now=now)


def test_a_clock_that_goes_backwards_is_held():
    pacer = clocked()
    tick(pacer, 5.0)
    price = pacer.mu
    assert price == pytest.approx(1.0 - 0.01 * 5)
    tick(pacer, 2.0)
    assert pacer.skews == 1
    assert pacer.mu == price
    tick(pacer, 7.0)
    assert pacer.mu == pytest.approx(price - 0.01 * 2)


def test_a_gap_does_not_move_the_price_and_its_money_goes_to_the_rest():
    pacer = clocked()
    tick(pacer, 5.0)
    price = pacer.mu
    tick(pacer, 50.0)
    assert pacer.gaps == 1
    assert pacer.mu == price
    tick(pacer, 51.0)  # 100 money over 50 time: 2 a unit, not 1
    assert pacer.mu == pytest.approx(price - 0.01 * 2)


def test_bids_end_with_the_campaign():
    pacer = clocked()
    assert pacer.bid(1.0, now=99.0) == 0.5
    pacer.observe(0.0, now=99.0)
    assert pacer.bid(1.0, now=100.0) == 0.0
    pacer.observe(0.0, now=1e9)
    assert pacer.planned() == pytest.approx(1.0)


def test_slots_of_the_plan_are_met_across_their_edges():
    pacer = clocked(plan=[1.0, 0.0, 3.0, 4.0], max_gap=1000.0)
    assert [pacer.planned(t) for t in (0, 12.5, 25, 40, 50, 75, 87.5, 100, 400)] == pytest.approx(
        [0, 0.0625, 0.125, 0.125, 0.125, 0.5, 0.75, 1.0, 1.0]
    )
    tick(pacer, 80.0)
    assert pacer.mu == pytest.approx(1.0 - 0.01 * 60)


def test_a_new_budget_is_spread_over_the_rest():
    pacer = clocked()
    tick(pacer, 10.0, spend=10.0)
    assert pacer.mu == pytest.approx(1.0)
    pacer.set_budget(190.0)
    tick(pacer, 11.0, spend=2.0)
    assert pacer.mu == pytest.approx(1.0)
    with pytest.warns(PacingWarning, match="budget=5 is below what is spent"):
        pacer.set_budget(5.0)
    assert pacer.bid(1.0) == 0.0
    pacer.observe(0.0, now=12.0)
    pacer.set_budget(100.0)
    assert pacer.bid(1.0) > 0


@pytest.mark.parametrize("gain", ["k_p", "k_d"])
def test_negative_proportional_or_derivative_gain_warns_by_name(gain):
    with pytest.warns(PacingWarning, match=f"{gain}=-1 is negative"):
        PacingController(10.0, horizon=100, **{gain: -1.0})


def test_budget_0_warns_and_never_bids():
    with pytest.warns(PacingWarning, match="budget is 0"):
        pacer = PacingController(0.0, horizon=100)
    for _ in range(5):
        assert pacer.bid(3.0) == 0.0
        pacer.observe(0.0)
    assert pacer.mu == 0.0
    pacer.set_budget(10.0)
    assert pacer.bid(0.5) == 0.5


def test_charges_above_the_bid_are_counted_and_reported():
    pacer = PacingController(10.0, horizon=100)
    pacer.bid(0.5)
    with pytest.warns(PacingWarning, match=r"spend=0\.7 exceeds the bid of 0\.5"):
        pacer.observe(0.7)
    assert pacer.spent == 0.7


def test_reconcile_takes_over_the_billing_total():
    pacer = PacingController(10.0, horizon=100)
    pacer.bid(0.5)
    pacer.reconcile(3.0)
    assert (pacer.spent, pacer.reserved) == (3.0, 0.5)
    pacer.reconcile(3.5, keep_outstanding=False)
    assert (pacer.spent, pacer.reserved, pacer.outstanding) == (3.5, 0.0, ())


@pytest.mark.parametrize(
    "make",
    [
        lambda: PacingController(20.0, horizon=T, k_p=0.3, k_d=0.1, beta=0.2, plan=[1, 2, 3]),
        lambda: PacingController(
            20.0, horizon=T, mirror="entropic", objective="value", gamma=2.0, eta_roi=0.1
        ),
    ],
)
def test_json_goes_on_where_it_stood(make):
    whole, first = make(), make()
    rows = campaign(whole, 200)
    campaign(first, 200)
    first.bid(0.3)
    text = first.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    second = PacingController.from_json(text)
    assert second.outstanding == first.outstanding
    assert second.reserved == first.reserved
    for pacer in (first, second):
        pacer.observe(0.0)
    np.testing.assert_array_equal(campaign(first, 100, 5), campaign(second, 100, 5))
    assert rows.shape == (200, 4)
    assert second.to_json() == first.to_json()


def test_json_of_a_clock_goes_on_too():
    pacer = clocked(plan=[1, 2])
    tick(pacer, 5.0, 3.0)
    again = PacingController.from_json(pacer.to_json())
    for each in (pacer, again):
        tick(each, 60.0, 1.0)
        tick(each, 61.0, 1.0)
    assert again.to_json() == pacer.to_json()


def test_json_that_is_not_ours_is_refused():
    for text in ('{"version": 99}', "[1]"):
        with pytest.raises(ValueError, match="text must be what to_json wrote"):
            PacingController.from_json(text)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"budget": -1.0}, ValueError, r"budget must be finite and at least 0, got -1\.0"),
        ({"budget": math.nan}, ValueError, "budget must be finite"),
        ({"budget": "much"}, TypeError, "budget must be a number, got 'much'"),
        ({"horizon": 0}, ValueError, "horizon must be at least 1"),
        ({"horizon": 1.5}, TypeError, "horizon must be a whole number"),
        ({"horizon": None}, ValueError, "horizon, or start and end"),
        ({"start": 0.0}, ValueError, "give horizon, or start and end, not both"),
        ({"horizon": None, "start": 2.0, "end": 1.0, "k_i": 1.0}, ValueError, "end must be after"),
        ({"horizon": None, "start": 0.0, "end": 1.0}, ValueError, "k_i or expected_auctions"),
        ({"plan": []}, ValueError, "plan must have a positive sum"),
        ({"plan": [1.0, -1.0]}, ValueError, r"plan\[1\] must be finite and at least 0"),
        ({"k_i": -0.1}, ValueError, "k_i must be finite and at least 0"),
        ({"k_p": math.inf}, ValueError, "k_p must be finite"),
        ({"beta": 1.0}, ValueError, r"beta must be in \[0, 1\)"),
        ({"mirror": "log"}, ValueError, "mirror must be one of"),
        ({"mirror": "entropic", "mu0": 0.0}, ValueError, "mu0 must be between"),
        ({"mu_min": 2.0, "mu_max": 1.0}, ValueError, "mu_max must be above mu_min"),
        ({"objective": "clicks"}, ValueError, "objective must be one of"),
        ({"gamma": 2.0, "eta_roi": 0.1}, ValueError, "gamma needs objective='value'"),
        ({"gamma": 2.0, "objective": "value"}, ValueError, "eta_roi must be given"),
        ({"eta_roi": 0.1}, ValueError, "eta_roi needs gamma"),
    ],
)
def test_bad_settings_name_the_argument(change, error, message):
    settings = {"budget": 10.0, "horizon": 100, **change}
    with pytest.raises(error, match=message):
        PacingController(settings.pop("budget"), **settings)


@pytest.mark.parametrize("bad", [math.nan, -0.5, math.inf])
def test_bad_numbers_of_a_bid_name_the_argument_and_change_nothing(bad):
    pacer = PacingController(10.0, horizon=100)
    with pytest.raises(ValueError, match="value must be finite and at least 0"):
        pacer.bid(bad)
    pacer.bid(0.5)
    before = pacer.to_json()
    with pytest.raises(ValueError, match="spend must be finite and at least 0"):
        pacer.observe(bad)
    with pytest.raises(ValueError, match="value must be finite and at least 0"):
        pacer.observe(0.1, value=bad)
    with pytest.raises(TypeError, match="value must be a number, got None"):
        pacer.bid(None)
    assert pacer.to_json() == before
    timed = clocked()
    timed.bid(0.5)
    with pytest.raises(ValueError, match="now must be given"):
        timed.observe(0.1)
    with pytest.raises(ValueError, match="now must be finite"):
        timed.observe(0.1, now=math.nan)
    assert timed.outstanding == (1,)
