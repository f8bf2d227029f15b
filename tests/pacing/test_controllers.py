"""Controllers and what wraps them: signs, delays, slots, constraints, what is not observed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.pacing import combinations, controllers, theory
from privlearn.pacing.controllers import Action, Feedback

STEPS = 60
SPEND = np.random.default_rng(3).random((STEPS, 1)).astype(np.float32)


def feed(controller, spend=SPEND, target=0.4, value=None, observed=None):
    """Prices (m,), ROI prices and participation before each step, and the last state."""
    spend = jnp.asarray(spend)
    n = spend.shape[0]
    told = Feedback(
        spend,
        jnp.zeros(n) if value is None else jnp.asarray(value),
        jnp.broadcast_to(jnp.asarray(target, spend.dtype), spend.shape),
        jnp.ones(n, bool) if observed is None else jnp.asarray(observed),
    )
    last, actions = jax.lax.scan(
        lambda s, f: (controller.update(s, f), controller.act(s)), controller.init(), told
    )
    return actions, last


EVERY_KIND = {
    "pid": lambda: controllers.pid(0.1, 0.05, 0.02, mu0=0.5),
    "position": lambda: controllers.pid(0.1, 0.05, mu0=0.5, form="position", anti_windup=True),
    "entropic": lambda: controllers.pid(0.1, mu0=0.5, mirror="entropic", beta=0.3),
    "bid_pid": lambda: controllers.bid_pid(0.1, 0.1, bid_factor=2.0),
    "cmd": lambda: controllers.convolutional_mirror_descent([0.5, 0.3, 0.2], 0.1, mu0=0.5),
    "mirror descent": lambda: controllers.dual_mirror_descent(0.1, mu0=0.5),
    "adaptive": lambda: controllers.adaptive_pacing(STEPS, mu0=0.5),
    "multiplicative": lambda: controllers.multiplicative_pacing(0.1),
    "fixed": lambda: controllers.fixed_multiplier(0.3),
    "none": lambda: controllers.no_pacing(),
    "throttling": lambda: controllers.throttling(period=5),
    "roi": lambda: controllers.with_roi(controllers.dual_mirror_descent(0.1), 2.0, 0.1),
    "delayed": lambda: controllers.delayed(controllers.pid(0.1, mu0=0.5), 3),
    "slots": lambda: controllers.every(
        controllers.normalised(controllers.deadband(controllers.pid(0.1, mu0=0.5), 0.05)), 6
    ),
}
LEARNING = [kind for kind in EVERY_KIND if kind not in ("fixed", "none")]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_state_can_be_saved_and_read_back_in_the_middle(kind):
    controller = EVERY_KIND[kind]()
    whole, _ = feed(controller)
    _, middle = feed(controller, SPEND[:25])
    leaves, tree = jax.tree.flatten(middle)
    again = jax.tree.unflatten(tree, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    rest, _ = feed(controller._replace(init=lambda: again), SPEND[25:])
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a[25:], b)


@pytest.mark.parametrize("kind", LEARNING)
def test_what_is_not_observed_changes_nothing(kind):
    controller = EVERY_KIND[kind]()
    seen = np.ones(STEPS, bool)
    blind, _ = feed(controller, observed=~seen)
    for path in blind:
        np.testing.assert_array_equal(path, np.broadcast_to(path[0], path.shape))


@pytest.mark.parametrize("kind", LEARNING)
def test_over_spending_makes_bids_fall_and_under_spending_makes_them_rise(kind):
    controller = EVERY_KIND[kind]()
    over, _ = feed(controller, np.full((STEPS, 1), 0.9, np.float32))
    under, _ = feed(controller, np.zeros((STEPS, 1), np.float32))
    if kind == "throttling":
        assert over.participation[-1] < over.participation[0]
    else:
        assert over.mu[-1, 0] > over.mu[0, 0]
        assert under.mu[-1, 0] < over.mu[-1, 0]


def test_campaigns_with_different_gains_run_in_one_vmap():
    gains = jnp.array([0.05, 0.2])
    run = lambda k: feed(controllers.pid(k, mu0=0.5))[0].mu  # noqa: E731
    together = jax.vmap(run)(gains)
    for row, k in zip(together, gains, strict=True):
        np.testing.assert_allclose(row, run(float(k)), atol=1e-6)


def test_delay_shifts_what_the_controller_sees_by_exactly_its_steps():
    late, _ = feed(controllers.delayed(controllers.pid(0.1, 0.2, mu0=0.5), 4))
    now, _ = feed(controllers.pid(0.1, 0.2, mu0=0.5))
    np.testing.assert_array_equal(late.mu[:5], np.full((5, 1), 0.5, np.float32))
    np.testing.assert_array_equal(late.mu[4:], now.mu[:-4])
    plain = controllers.pid(0.1)
    assert controllers.delayed(plain, 0) is plain


def test_slots_update_once_on_sums():
    slots, _ = feed(controllers.every(controllers.pid(0.1, mu0=0.5), 10))
    sums = SPEND.reshape(6, 10, 1).sum(axis=1)
    direct, _ = feed(controllers.pid(0.1, mu0=0.5), sums, target=4.0)
    np.testing.assert_allclose(slots.mu[::10], direct.mu, atol=1e-5)
    assert (slots.mu[1:10] == slots.mu[0]).all()


def test_slots_leave_out_steps_that_were_not_observed():
    seen = np.arange(STEPS) % 2 == 0
    half, _ = feed(controllers.every(controllers.pid(0.1, mu0=0.5), 10), observed=seen)
    sums = (SPEND * seen[:, None]).reshape(6, 10, 1).sum(axis=1)
    direct, _ = feed(controllers.pid(0.1, mu0=0.5), sums, target=2.0)
    np.testing.assert_allclose(half.mu[::10], direct.mu, atol=1e-5)


def test_normalised_errors_do_not_depend_on_the_currency():
    one, _ = feed(controllers.normalised(controllers.pid(0.1, mu0=0.5)))
    yen, _ = feed(controllers.normalised(controllers.pid(0.1, mu0=0.5)), 150 * SPEND, 60.0)
    np.testing.assert_allclose(one.mu, yen.mu, rtol=1e-5)


def test_normalised_error_of_a_slot_without_target_is_finite():
    actions, _ = feed(controllers.normalised(controllers.pid(0.1, mu0=0.5)), target=0.0)
    np.testing.assert_allclose(np.diff(actions.mu[:, 0]), 0.1, atol=1e-6)


def test_deadband_ignores_small_errors_only():
    spend = np.array([[0.41], [0.6], [0.39]], np.float32)
    actions, last = feed(controllers.deadband(controllers.pid(0.1, mu0=0.5), 0.1), spend)
    np.testing.assert_allclose(actions.mu[:, 0], [0.5, 0.5, 0.52], atol=1e-6)
    np.testing.assert_allclose(last.theta, 0.52, atol=1e-6)


def test_throttling_follows_cumulative_spend_every_period():
    actions, _ = feed(controllers.throttling(period=5, start=0.5), np.full((STEPS, 1), 0.9))
    np.testing.assert_allclose(
        np.asarray(actions.participation)[[0, 4, 5, 10]], [0.5, 0.5, 0.45, 0.405]
    )
    lazy, _ = feed(controllers.throttling(period=1, start=0.5), np.zeros((STEPS, 1)))
    assert lazy.participation[-1] == 1.0
    assert (lazy.mu == 0).all()


def test_day_parting_is_the_target_of_each_step():
    plan = np.linspace(0.1, 0.7, STEPS, dtype=np.float32)[:, None]
    actions, last = feed(controllers.pid(0.3, 0.1, mu0=0.5), plan, target=plan)
    assert (actions.mu == 0.5).all()
    assert last.theta[0] == 0.5


def test_several_budgets_have_a_price_each():
    spend = np.random.default_rng(0).random((STEPS, 3)).astype(np.float32)
    rho = np.array([0.2, 0.5, 0.9], np.float32)
    actions, _ = feed(controllers.pid(1 / rho, mu0=np.zeros(3)), spend, target=rho)
    for j in range(3):
        alone, _ = feed(controllers.pid(1 / float(rho[j])), spend[:, j : j + 1], target=rho[j])
        np.testing.assert_allclose(actions.mu[:, j], alone.mu[:, 0], atol=1e-4)


def test_roi_price_follows_its_own_gradient_and_leaves_the_budget_alone():
    value = np.linspace(0, 1, STEPS, dtype=np.float32)
    both, last = feed(controllers.with_roi(controllers.pid(0.1, mu0=0.5), 2.0, 0.05), value=value)
    alone, _ = feed(controllers.pid(0.1, mu0=0.5))
    np.testing.assert_array_equal(both.mu, alone.mu)
    slack = (value - 2.0 * SPEND[:, 0]).sum()
    assert float(jnp.exp(last.roi.theta[0])) == pytest.approx(math.exp(-0.05 * slack), rel=1e-4)


def test_bid_pid_is_the_exponential_of_position_form():
    actions, _ = feed(controllers.bid_pid(0.1, 0.2, 0.05, bid_factor=2.0))
    e = 0.4 - SPEND[:, 0]
    de = np.diff(e, prepend=0.0)
    stated = 2.0 * np.exp(0.2 * e + 0.1 * np.cumsum(e) + 0.05 * de)
    np.testing.assert_allclose(1 / actions.mu[1:, 0], stated[:-1], rtol=1e-4)


def test_adaptive_pacing_steps_by_one_over_root_horizon():
    actions, _ = feed(controllers.adaptive_pacing(100, mu0=0.5), np.full((2, 1), 0.9, np.float32))
    assert actions.mu[1, 0] - actions.mu[0, 0] == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("rule", combinations.COMBINATIONS)
def test_every_combination_meets_the_fluid_optimum_at_its_own_prices(rule):
    """At (mu, lam) that make the binding constraint tight, the multiplier is the fluid one."""
    fluid, gamma, lam = theory.roi_value(0.05, 2.5), 2.5, 0.5
    roi = (1 + lam) / (lam * gamma)
    mu = {
        "dual": (1 + lam) / fluid.multiplier - lam * gamma,
        "minimum": 1 / fluid.multiplier,
        "sequential": roi / fluid.multiplier - 1,
    }[rule]
    action = Action(jnp.array([mu]), jnp.array(lam), jnp.array(1.0))
    kappa = combinations.bid_multiplier(action, objective="value", gamma=gamma, combination=rule)
    assert float(kappa) == pytest.approx(fluid.multiplier, rel=1e-5)


def test_bids_are_finite_without_a_price():
    action = Action(jnp.zeros(1), jnp.array(0.0), jnp.array(1.0))
    assert combinations.bid_multiplier(action, objective="value", cap=20.0) == 20.0
    assert combinations.bid_multiplier(action) == 1.0
    for rule in combinations.COMBINATIONS:
        kappa = combinations.bid_multiplier(
            action, objective="value", gamma=2.0, combination=rule, cap=20.0
        )
        assert kappa == 20.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: controllers.pid(-0.1), ValueError, "k_i must be at least 0"),
        (lambda: controllers.pid(0.1, mu0=-1.0), ValueError, "start must lie between"),
        (lambda: controllers.adaptive_pacing(0), ValueError, "horizon must be at least 1"),
        (lambda: controllers.adaptive_pacing(1.5), TypeError, "horizon must be a whole number"),
        (lambda: controllers.fixed_multiplier(-1.0), ValueError, "mu must be at least 0"),
        (lambda: controllers.throttling(up=0.9), ValueError, "up must be above 1"),
        (lambda: controllers.throttling(down=1.1), ValueError, "down must be below 1"),
        (lambda: controllers.throttling(period=0), ValueError, "period must be at least 1"),
        (lambda: controllers.delayed(controllers.no_pacing(), -1), ValueError, "delay must be"),
        (
            lambda: controllers.with_roi(controllers.pid(0.1), 0.0, 0.1),
            ValueError,
            "gamma must be positive",
        ),
        (
            lambda: combinations.bid_multiplier(controllers.no_pacing().act(()), gamma=1.0),
            ValueError,
            "gamma needs objective='value'",
        ),
    ],
)
def test_bad_input_names_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()
