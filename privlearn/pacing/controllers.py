"""Pacing controllers with one protocol: init, act, update.

    state = controller.init()
    for each step (an auction, or a time slot):
        action = controller.act(state)           # multipliers, and whether to take part
        ...bid, see what it cost...
        state = controller.update(state, Feedback(spend, value, target, observed))

Signs: the error of step t is g_t = target - spend, positive where the campaign under-spends. The
dual variable mu is a price of the budget: over-spending raises it and lowers bids.

Everything is pure JAX: `jax.lax.scan` over time, `jax.vmap` over campaigns and gains, states are
pytrees of arrays that can be saved. Controllers compose as optax transformations do: ``delayed``,
``normalised``, ``every``, ``deadband`` and ``with_roi`` take a controller and return one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.pacing import kernels
from privlearn.pacing._validation import (
    check_domain,
    check_nonnegative,
    check_positive,
    check_whole,
    known,
)
from privlearn.pacing.kernels import Learner, Mirror


class Action(NamedTuple):
    """What a controller asks for in this step.

    Attributes
    ----------
    mu : Array of shape (m,)
        Price of a unit of each budget.
    lam : Array of shape ()
        Price of the ROI (target cost) constraint; 0 where there is none.
    participation : Array of shape ()
        Probability to take part in the auction.
    """

    mu: Array
    lam: Array
    participation: Array


class Feedback(NamedTuple):
    """What came of a step.

    Attributes
    ----------
    spend : Array of shape (m,)
        Consumption that was realised (0 if lost, throttled or out of budget).
    value : Array of shape ()
        Value won.
    target : Array of shape (m,)
        Planned consumption of this step, rho_t; over the horizon it sums to the budget.
    observed : Array of shape (), bool
        False where nothing was seen, or the budget is gone: the controller then keeps its state.
    """

    spend: Array
    value: ArrayLike
    target: Array
    observed: ArrayLike = True


class Controller(NamedTuple):
    """A pacing rule.

    Attributes
    ----------
    init : callable
        () -> state, a pytree of arrays.
    act : callable
        state -> Action.
    update : callable
        (state, Feedback) -> state.
    """

    init: Callable[[], Any]
    act: Callable[[Any], Action]
    update: Callable[[Any, Feedback], Any]


def _if_seen(observed: ArrayLike, new: Any, old: Any) -> Any:
    if observed is True:
        return new
    return jax.tree.map(lambda n, o: jnp.where(observed, n, o), new, old)


def from_learner(learner: Learner) -> Controller:
    """Let an online convex optimiser move the dual variable: its gradient is target - spend.

    Parameters
    ----------
    learner : Learner
        Such as those of `privlearn.pacing.kernels`; its point is mu.

    Returns
    -------
    Controller

    Examples
    --------
    >>> controller = from_learner(kernels.mirror_descent(0.5, start=0.0))
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.2]))
    >>> round(float(controller.act(controller.update(controller.init(), seen)).mu[0]), 3)
    0.4
    """

    def act(state: Any) -> Action:
        mu = learner.point(state)
        return Action(mu, jnp.zeros((), mu.dtype), jnp.ones((), mu.dtype))

    def update(state: Any, feedback: Feedback) -> Any:
        new = learner.update(state, feedback.target - feedback.spend)
        return _if_seen(feedback.observed, new, state)

    return Controller(learner.init, act, update)


# ------------------------------------------------------------------------------- dual controllers


def pid(
    k_i: ArrayLike,
    k_p: ArrayLike = 0.0,
    k_d: ArrayLike = 0.0,
    *,
    mu0: ArrayLike = 0.0,
    beta: ArrayLike = 0.0,
    mirror: Mirror = "euclidean",
    form: Literal["velocity", "position"] = "velocity",
    anti_windup: bool = False,
    mu_min: ArrayLike | None = None,
    mu_max: ArrayLike = jnp.inf,
) -> Controller:
    """PID control of the price of the budget.

    Velocity form: mu_{t+1} = clip(mu_t - u_t), u_t = K_I g_t + K_P (g_t - g_{t-1})
    + K_D (g_t - 2 g_{t-1} + g_{t-2}); entropic mirror: mu_t exp(-u_t). For an error per auction,
    K_I = (typical mu) / (rho sqrt(T)) and K_P = K_D = 0 are sound; see `gains_for`.

    Parameters
    ----------
    k_i, k_p, k_d : float or array of shape (m,)
        Gains: units of mu per unit of spend.
    mu0 : float or array of shape (m,), default=0
        Price to begin with; positive under the entropic mirror.
    beta : float, default=0
        Smooths the error of the integral term by an exponential moving average.
    mirror : {"euclidean", "entropic"}
    form : {"velocity", "position"}
        The position form winds up while a bound binds, unless ``anti_windup``.
    anti_windup : bool, default=False
    mu_min, mu_max : float or array of shape (m,)
        The box. ``mu_max`` below (largest reward) / (least rho) voids the bounds of regret.

    Returns
    -------
    Controller

    Raises
    ------
    ValueError
        If a gain is out of range, or ``mu0`` outside of its box.

    Examples
    --------
    >>> controller = pid(0.5, k_p=0.1)
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.2]))
    >>> round(float(controller.act(controller.update(controller.init(), seen)).mu[0]), 3)
    0.48
    """
    return from_learner(
        kernels.pid_learner(
            k_i,
            k_p,
            k_d,
            start=mu0,
            beta=beta,
            mirror=mirror,
            form=form,
            anti_windup=anti_windup,
            low=mu_min,
            high=mu_max,
        )
    )


def bid_pid(
    k_i: ArrayLike,
    k_p: ArrayLike = 0.0,
    k_d: ArrayLike = 0.0,
    *,
    bid_factor: ArrayLike = 1.0,
    min_factor: ArrayLike = 1e-6,
    max_factor: ArrayLike = 1e6,
) -> Controller:
    """PID on bids: bid_t = value x bid_factor x exp(K_P e + K_I sum of e + K_D de).

    The controller of Zhang et al., "Feedback control of real-time display advertising", WSDM 2016
    (recalled), which is position-form PID under the entropic mirror with bid = value / mu.

    Parameters
    ----------
    k_i, k_p, k_d : float or array of shape (m,)
    bid_factor : float, default=1
        Bid per unit of value to begin with.
    min_factor, max_factor : float
        Bounds of the bid per unit of value.

    Examples
    --------
    >>> controller = bid_pid(0.5, k_p=0.5)
    >>> seen = Feedback(jnp.array([0.0]), 0.0, jnp.array([0.2]))
    >>> factor = 1 / controller.act(controller.update(controller.init(), seen)).mu[0]
    >>> round(float(factor), 4) == round(math.exp(0.2), 4)
    True
    """
    for name, value in (("bid_factor", bid_factor), ("min_factor", min_factor)):
        check_positive(name, value)
    return pid(
        k_i,
        k_p,
        k_d,
        mu0=1.0 / jnp.asarray(bid_factor, dtype=float),
        mirror="entropic",
        form="position",
        mu_min=1.0 / jnp.asarray(max_factor, dtype=float),
        mu_max=1.0 / jnp.asarray(min_factor, dtype=float),
    )


def convolutional_mirror_descent(
    kernel: ArrayLike,
    eta: ArrayLike,
    *,
    mu0: ArrayLike = 0.0,
    mirror: Mirror = "euclidean",
    mu_min: ArrayLike | None = None,
    mu_max: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Controller:
    """Dual mirror descent on a weighted sum of past errors; kernel of shape (J,), sum 1.

    Examples
    --------
    >>> controller = convolutional_mirror_descent([2.0, -1.0], 0.5, mu0=1.0)
    >>> controller.act(controller.init()).mu.tolist()
    [1.0]
    """
    return from_learner(
        kernels.convolutional_mirror_descent(
            kernel, eta, mu0, mirror=mirror, low=mu_min, high=mu_max, lazy=lazy
        )
    )


def dual_mirror_descent(
    eta: ArrayLike,
    *,
    mu0: ArrayLike = 0.0,
    mirror: Mirror = "euclidean",
    mu_min: ArrayLike | None = None,
    mu_max: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Controller:
    """Dual mirror descent of Balseiro, Lu and Mirrokni: mu - eta g, or mu exp(-eta g).

    Source: "The Best of Many Worlds", Operations Research 2023, arXiv 2011.10124.

    Examples
    --------
    >>> controller = dual_mirror_descent(0.5, mu0=[1.0, 0.5])
    >>> controller.act(controller.init()).mu.tolist()
    [1.0, 0.5]
    """
    return from_learner(
        kernels.mirror_descent(eta, mu0, mirror=mirror, low=mu_min, high=mu_max, lazy=lazy)
    )


def adaptive_pacing(
    horizon: int, *, mu0: ArrayLike = 0.0, mu_max: ArrayLike = 10.0, scale: ArrayLike = 1.0
) -> Controller:
    """Adaptive pacing of Balseiro and Gur (2019): step scale / sqrt(T), mu kept in [0, mu_max].

    Parameters
    ----------
    horizon : int
        T, the number of steps of the campaign.
    mu0, mu_max : float or array of shape (m,)
    scale : float, default=1
        About (typical mu) / rho does better than 1 where rho is small.

    Examples
    --------
    >>> controller = adaptive_pacing(100)
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.2]))
    >>> round(float(controller.act(controller.update(controller.init(), seen)).mu[0]), 3)
    0.08
    """
    steps = check_whole("horizon", horizon, 1)
    check_positive("scale", scale)
    return dual_mirror_descent(scale / math.sqrt(steps), mu0=mu0, mu_max=mu_max)


def multiplicative_pacing(
    eta: ArrayLike,
    *,
    mu0: ArrayLike = 1.0,
    mu_min: ArrayLike = kernels.FLOOR,
    mu_max: ArrayLike = jnp.inf,
) -> Controller:
    """Multiply the price by exp(-eta (target - spend)): mirror descent under the entropic mirror.

    Examples
    --------
    >>> controller = multiplicative_pacing(1.0)
    >>> seen = Feedback(jnp.array([1.2]), 0.0, jnp.array([0.2]))
    >>> mu = controller.act(controller.update(controller.init(), seen)).mu[0]
    >>> round(float(mu), 4) == round(math.e, 4)
    True
    """
    return dual_mirror_descent(eta, mu0=mu0, mirror="entropic", mu_min=mu_min, mu_max=mu_max)


def fixed_multiplier(mu: ArrayLike, lam: ArrayLike = 0.0) -> Controller:
    """Keep the price: with the best price in hindsight, the oracle that learns nothing.

    Examples
    --------
    >>> fixed_multiplier(0.29).act(()).lam.item()
    0.0
    """
    check_nonnegative("mu", mu)
    check_nonnegative("lam", lam)
    price = jnp.atleast_1d(jnp.asarray(mu, dtype=float))
    action = Action(price, jnp.asarray(lam, price.dtype), jnp.ones((), price.dtype))
    return Controller(lambda: (), lambda state: action, lambda state, feedback: state)


def no_pacing(n_resources: int = 1) -> Controller:
    """Bid truthfully until the budget is gone.

    Examples
    --------
    >>> no_pacing().act(()).mu.tolist()
    [0.0]
    """
    return fixed_multiplier(jnp.zeros(check_whole("n_resources", n_resources, 1)))


class ThrottleState(NamedTuple):
    """Participation, money ahead of plan (target - spend so far), and steps seen."""

    participation: Array
    ahead: Array
    step: Array


def throttling(
    *,
    period: int = 50,
    up: ArrayLike = 1.1,
    down: ArrayLike = 0.9,
    start: ArrayLike = 1.0,
    least: ArrayLike = 1e-3,
    mu: ArrayLike = 0.0,
) -> Controller:
    """Probabilistic throttling: bid as always, but take part at random.

    Every ``period`` steps the probability to take part is multiplied by ``up`` where spend is
    behind plan in all budgets, else by ``down``.

    Parameters
    ----------
    period : int, default=50
    up, down : float
        Factors, above 1 and below 1.
    start, least : float
        First and least probability.
    mu : float or array of shape (m,), default=0
        The fixed price with which bids are made.

    Examples
    --------
    >>> controller = throttling(period=1)
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.2]))
    >>> round(float(controller.act(controller.update(controller.init(), seen)).participation), 3)
    0.9
    """
    every_steps = check_whole("period", period, 1)
    check_nonnegative("mu", mu)
    for name, value in (("up", up), ("down", down), ("start", start), ("least", least)):
        check_positive(name, value)
    if (rise := known(up)) is not None and not (rise > 1).all():
        raise ValueError(f"up must be above 1, got {up!r}")
    if (fall := known(down)) is not None and not (fall < 1).all():
        raise ValueError(f"down must be below 1, got {down!r}")
    price = jnp.atleast_1d(jnp.asarray(mu, dtype=float))

    def init() -> ThrottleState:
        return ThrottleState(
            jnp.asarray(start, dtype=float), jnp.zeros(price.shape), jnp.zeros((), jnp.int32)
        )

    def act(state: ThrottleState) -> Action:
        return Action(price, jnp.zeros((), price.dtype), state.participation)

    def update(state: ThrottleState, feedback: Feedback) -> ThrottleState:
        ahead = state.ahead + (feedback.target - feedback.spend)
        step = state.step + 1
        factor = jnp.where((ahead >= 0).all(), up, down)
        moved = jnp.clip(state.participation * factor, least, 1.0)
        p = jnp.where(step % every_steps == 0, moved, state.participation)
        return _if_seen(feedback.observed, ThrottleState(p, ahead, step), state)

    return Controller(init, act, update)


# ------------------------------------------------------------------------------- transformations


class DelayState(NamedTuple):
    """State of the controller inside, feedback under way, and where the oldest stands."""

    inner: Any
    queue: Feedback
    slot: Array


def delayed(controller: Controller, delay: int) -> Controller:
    """Let feedback arrive ``delay`` steps late: the controller sees g_{t-D}.

    Parameters
    ----------
    controller : Controller
    delay : int
        D >= 0; see `theory.largest_stable_gain` for the gains that it leaves.

    Examples
    --------
    >>> controller = delayed(dual_mirror_descent(1.0), 1)
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.0]))
    >>> state = controller.update(controller.init(), seen)
    >>> controller.act(state).mu.item(), controller.act(controller.update(state, seen)).mu.item()
    (0.0, 1.0)
    """
    length = check_whole("delay", delay, 0)
    if length == 0:
        return controller

    def init() -> DelayState:
        inner = controller.init()
        mu = controller.act(inner).mu
        blank = jnp.zeros((length, *mu.shape), mu.dtype)
        queue = Feedback(blank, blank[:, 0], blank, jnp.zeros(length, bool))
        return DelayState(inner, queue, jnp.zeros((), jnp.int32))

    def update(state: DelayState, feedback: Feedback) -> DelayState:
        oldest = jax.tree.map(lambda q: q[state.slot], state.queue)
        queue = jax.tree.map(lambda q, new: q.at[state.slot].set(new), state.queue, feedback)
        inner = controller.update(state.inner, oldest)
        return DelayState(inner, queue, (state.slot + 1) % length)

    return Controller(init, lambda state: controller.act(state.inner), update)


def normalised(controller: Controller) -> Controller:
    """Measure spend in units of the target, so that gains transfer between campaigns and slots.

    Where the target is 0, the error is 0, or -1 (a whole target) if something was spent.

    Examples
    --------
    >>> controller = normalised(dual_mirror_descent(0.5))
    >>> seen = Feedback(jnp.array([60.0]), 0.0, jnp.array([40.0]))
    >>> controller.act(controller.update(controller.init(), seen)).mu.item()
    0.25
    """

    def update(state: Any, feedback: Feedback) -> Any:
        planned = feedback.target > 0
        ratio = feedback.spend / jnp.where(planned, feedback.target, 1.0)
        unplanned = (feedback.spend > 0).astype(ratio.dtype)
        spend = jnp.where(planned, ratio, unplanned)
        target = planned.astype(ratio.dtype)
        return controller.update(state, feedback._replace(spend=spend, target=target))

    return controller._replace(update=update)


def deadband(controller: Controller, band: ArrayLike) -> Controller:
    """Hysteresis: take errors below ``band`` times the target for 0.

    Examples
    --------
    >>> controller = deadband(dual_mirror_descent(0.5), 0.1)
    >>> seen = Feedback(jnp.array([41.0]), 0.0, jnp.array([40.0]))
    >>> controller.act(controller.update(controller.init(), seen)).mu.item()
    0.0
    """
    check_nonnegative("band", band)

    def update(state: Any, feedback: Feedback) -> Any:
        small = jnp.abs(feedback.target - feedback.spend) <= band * feedback.target
        spend = jnp.where(small, feedback.target, feedback.spend)
        return controller.update(state, feedback._replace(spend=spend))

    return controller._replace(update=update)


class SlotState(NamedTuple):
    """State of the controller inside, sums over the slot so far, and steps into the slot."""

    inner: Any
    sums: Feedback
    step: Array


def every(controller: Controller, period: int) -> Controller:
    """Update once per slot of ``period`` steps, on sums of spend, value and target.

    Steps that were not observed add nothing (neither spend nor target); a slot of which nothing
    was observed is passed on as unobserved.

    Examples
    --------
    >>> controller = every(dual_mirror_descent(0.5), 2)
    >>> seen = Feedback(jnp.array([1.0]), 0.0, jnp.array([0.5]))
    >>> state = controller.update(controller.init(), seen)
    >>> controller.act(state).mu.item(), controller.act(controller.update(state, seen)).mu.item()
    (0.0, 0.5)
    """
    length = check_whole("period", period, 1)

    def blank(inner: Any) -> Feedback:
        mu = controller.act(inner).mu
        zero = jnp.zeros(mu.shape, mu.dtype)
        return Feedback(zero, zero[0], zero, jnp.zeros((), bool))

    def init() -> SlotState:
        inner = controller.init()
        return SlotState(inner, blank(inner), jnp.zeros((), jnp.int32))

    def update(state: SlotState, feedback: Feedback) -> SlotState:
        seen = jnp.asarray(feedback.observed)
        sums = Feedback(
            state.sums.spend + jnp.where(seen, feedback.spend, 0.0),
            state.sums.value + jnp.where(seen, feedback.value, 0.0),
            state.sums.target + jnp.where(seen, feedback.target, 0.0),
            jnp.asarray(state.sums.observed) | seen,
        )
        full = state.step + 1 == length
        told = controller.update(
            state.inner, sums._replace(observed=full & jnp.asarray(sums.observed))
        )
        kept = jax.tree.map(lambda x: jnp.where(full, jnp.zeros_like(x), x), sums)
        return SlotState(told, kept, (state.step + 1) % length)

    return Controller(init, lambda state: controller.act(state.inner), update)


class ROIState(NamedTuple):
    """State of the budget's controller and of the price of the ROI constraint."""

    budget: Any
    roi: Any


def with_roi(
    controller: Controller,
    gamma: ArrayLike,
    eta: ArrayLike,
    *,
    lam0: ArrayLike = 1.0,
    mirror: Mirror = "entropic",
    lam_min: ArrayLike | None = None,
    lam_max: ArrayLike = 1e6,
    cost: int = 0,
) -> Controller:
    """Add a constraint on return: (sum of value) >= gamma x (sum of spend).

    A target cost c per conversion is value = c x conversions with gamma = 1. The price lam follows
    its own gradient, value - gamma x spend (positive = slack); how mu and lam make a bid is the
    choice of `privlearn.pacing.combinations`: dual, minimum or sequential.

    Parameters
    ----------
    controller : Controller
        Of the budgets.
    gamma : float
        Least value per unit of money.
    eta : float
        Step of lam.
    lam0, lam_min, lam_max : float
    mirror : {"entropic", "euclidean"}
    cost : int, default=0
        The resource that is money.

    Examples
    --------
    >>> controller = with_roi(dual_mirror_descent(0.1), gamma=2.0, eta=1.0)
    >>> seen = Feedback(jnp.array([0.5]), 1.0, jnp.array([0.5]))
    >>> controller.act(controller.update(controller.init(), seen)).lam.item()
    1.0
    """
    check_positive("gamma", gamma)
    resource = check_whole("cost", cost, 0)
    low = lam_min if lam_min is not None else (kernels.FLOOR if mirror == "entropic" else 0.0)
    check_domain(mirror, lam0, low, lam_max)
    learner = kernels.mirror_descent(eta, lam0, mirror=mirror, low=low, high=lam_max)

    def act(state: ROIState) -> Action:
        return controller.act(state.budget)._replace(lam=learner.point(state.roi)[0])

    def update(state: ROIState, feedback: Feedback) -> ROIState:
        slack = feedback.value - gamma * feedback.spend[resource]
        moved = learner.update(state.roi, jnp.atleast_1d(slack))
        roi = _if_seen(feedback.observed, moved, state.roi)
        return ROIState(controller.update(state.budget, feedback), roi)

    return Controller(lambda: ROIState(controller.init(), learner.init()), act, update)
