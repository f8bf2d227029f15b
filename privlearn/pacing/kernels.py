"""Mirror steps on filtered gradients: one core for every pacing controller and for OCO.

A *filter* turns the gradient g_t into the increment u_t of the control; a *learner* subtracts
increments in the coordinates of a mirror map and clips to a box. Both mirror maps here are
separable, so the Bregman projection on the box is that clip. Convolutional mirror descent is any
filter u_t = eta sum_j alpha_j g_{t-j}; PID, momentum and optimistic mirror descent are filters
with a short state. Gradients before time 1 are 0.

Pure JAX: shapes (m,), 32 or 64 bits as the inputs and the precision in force, no global state.
Gains may be arrays that vmap traces; terms whose gain is a plain Python 0 are left out of the
program and of the state.

Source: Balseiro, Lu, Mirrokni, Sivan, "Analysis of Dual-Based PID Controllers through
Convolutional Mirror Descent", arXiv 2202.06152. The parametrisation is re-derived; its
equivalences are checked (`privlearn check pacing`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.pacing._validation import (
    check_domain,
    check_finite,
    check_gains,
    check_nonnegative,
    check_positive,
    check_share,
    is_zero,
    known,
)

Mirror = Literal["euclidean", "entropic"]
MIRRORS: tuple[Mirror, ...] = get_args(Mirror)

#: A gain as the filters take it: a float, or an array of shape () or (m,).
Number = float | Array

#: Least multiplier under the entropic mirror, which never reaches 0.
FLOOR = 1e-6


class Filter(NamedTuple):
    """Turns gradients into increments of the control.

    Attributes
    ----------
    init : callable
        Shape of a gradient -> state.
    apply : callable
        (state, gradient) -> (increment, state).
    """

    init: Callable[[tuple[int, ...]], Any]
    apply: Callable[[Any, Array], tuple[Array, Any]]


class Learner(NamedTuple):
    """An online convex optimiser.

    Attributes
    ----------
    init : callable
        () -> state, a pytree of arrays.
    point : callable
        state -> point w_t, shape (m,).
    update : callable
        (state, gradient at w_t) -> state.
    """

    init: Callable[[], Any]
    point: Callable[[Any], Array]
    update: Callable[[Any, Array], Any]


# ------------------------------------------------------------------------------- filters


def number(value: ArrayLike) -> Number:
    """Leave plain numbers as they are (they adapt to the precision); make arrays of the rest."""
    if isinstance(value, int | float | Array):
        return value
    return jnp.asarray(value, dtype=float)


def gain(eta: Number) -> Filter:
    """u_t = eta g_t: the filter of plain mirror descent."""
    return Filter(lambda shape: (), lambda state, g: (eta * g, state))


class Ring(NamedTuple):
    """The last J gradients: row (t mod J) holds that of step t."""

    history: Array
    step: Array


def convolution(kernel: ArrayLike, eta: Number) -> Filter:
    """u_t = eta sum over j < J of alpha_j g_{t-j}, by a ring buffer.

    Parameters
    ----------
    kernel : array of shape (J,) or (J, m)
        alpha_0, alpha_1, ...; a geometric tail may be cut where it is below 1e-12.
    eta : float or array of shape (m,)
    """
    alpha = jnp.asarray(kernel, dtype=float)
    length = alpha.shape[0]
    weights = alpha.reshape(length, -1)

    def init(shape: tuple[int, ...]) -> Ring:
        return Ring(jnp.zeros((length, *shape)), jnp.zeros((), jnp.int32))

    def apply(state: Ring, g: Array) -> tuple[Array, Ring]:
        history = jax.lax.dynamic_update_index_in_dim(state.history, g, state.step, 0)
        age = (state.step - jnp.arange(length)) % length
        u = eta * (weights[age] * history).sum(axis=0)
        return u, Ring(history, (state.step + 1) % length)

    return Filter(init, apply)


def smoothing(beta: Number, eta: Number) -> Filter:
    """u_t = eta m_t, m_t = beta m_{t-1} + (1 - beta) g_t: momentum, in constant memory."""

    def apply(state: Array, g: Array) -> tuple[Array, Array]:
        m = beta * state + (1 - beta) * g
        return eta * m, m

    return Filter(jnp.zeros, apply)


def extrapolation(eta: Number) -> Filter:
    """u_t = eta (2 g_t - g_{t-1}): the last gradient as the hint of optimistic mirror descent."""
    return Filter(jnp.zeros, lambda last, g: (eta * (2 * g - last), g))


class PIDMemory(NamedTuple):
    """What a velocity PID remembers; empty tuples where a gain is a plain 0.

    Attributes
    ----------
    average : Array of shape (m,) or ()
        Exponential moving average of gradients.
    last : Array of shape (m,) or ()
        g_{t-1}.
    before : Array of shape (m,) or ()
        g_{t-2}.
    """

    average: Any
    last: Any
    before: Any


def pid_velocity(k_i: Number, k_p: Number = 0.0, k_d: Number = 0.0, beta: Number = 0.0) -> Filter:
    """u_t = K_I m_t + K_P (g_t - g_{t-1}) + K_D (g_t - 2 g_{t-1} + g_{t-2}).

    m_t is g_t, or its exponential moving average with ``beta``. With ``beta = 0`` this is
    `convolution` with eta = K_I and alpha = (1 + (K_P + K_D) / K_I, -(K_P + 2 K_D) / K_I,
    K_D / K_I).
    """
    smooth, slopes, curves = (
        not is_zero(beta),
        not (is_zero(k_p) and is_zero(k_d)),
        not is_zero(k_d),
    )

    def init(shape: tuple[int, ...]) -> PIDMemory:
        zero = jnp.zeros(shape)
        return PIDMemory(zero if smooth else (), zero if slopes else (), zero if curves else ())

    def apply(state: PIDMemory, g: Array) -> tuple[Array, PIDMemory]:
        average, last, before = state
        if smooth:
            average = beta * average + (1 - beta) * g
        u = k_i * (average if smooth else g)
        if slopes:
            u = u + k_p * (g - last)
        if curves:
            u = u + k_d * (g - 2 * last + before)
            before = last
        return u, PIDMemory(average, g if slopes else (), before)

    return Filter(init, apply)


def ema_pid(a_p: Number, a_i: Number, a_d: Number, beta: Number, eta: Number) -> Filter:
    """u_t = eta (a_P g_t + a_I m_t + a_D (g_t - g_{t-1})), m_t the moving average of g with beta.

    The mirror step itself integrates: here eta a_P plays the part of K_I in `pid_velocity`, and
    eta a_D that of K_P.
    """

    def init(shape: tuple[int, ...]) -> tuple[Array, Array]:
        return jnp.zeros(shape), jnp.zeros(shape)

    def apply(state: tuple[Array, Array], g: Array) -> tuple[Array, tuple[Array, Array]]:
        average, last = state
        average = beta * average + (1 - beta) * g
        return eta * (a_p * g + a_i * average + a_d * (g - last)), (average, g)

    return Filter(init, apply)


# ------------------------------------------------------------------------------- mirror steps


class Chart(NamedTuple):
    """A mirror map with its box, in the coordinates theta = grad h(w) in which steps are sums."""

    theta: Array
    low: Array
    high: Array
    to_point: Callable[[Array], Array]


def chart(mirror: Mirror, start: ArrayLike, low: ArrayLike, high: ArrayLike, *like: Any) -> Chart:
    """Bring a start and a box into mirror coordinates, of the common shape (m,).

    Parameters
    ----------
    mirror : {"euclidean", "entropic"}
        h(w) = |w|^2 / 2, or sum of w log w.
    start, low, high : float or array of shape (m,)
    like : float or array of shape (m,)
        Further parameters that take part in broadcasting.
    """
    check_domain(mirror, start, low, high)
    shape = jnp.broadcast_shapes((1,), *(np.shape(x) for x in (start, low, high, *like)))
    theta, bottom, top = (
        jnp.broadcast_to(jnp.asarray(x, dtype=float), shape) for x in (start, low, high)
    )
    if mirror == "euclidean":
        return Chart(theta, bottom, top, lambda w: w)
    return Chart(jnp.log(theta), jnp.log(bottom), jnp.log(top), jnp.exp)


def _check_shape(g: Array, place: Chart) -> None:
    if jnp.shape(g) != place.theta.shape:
        raise ValueError(
            f"gradient (target - spend) must have the shape {place.theta.shape} of the start, got "
            f"{jnp.shape(g)}: give a start (mu0) with one price for each resource"
        )


class StepState(NamedTuple):
    """State of a learner.

    Attributes
    ----------
    theta : Array of shape (m,)
        The point, in mirror coordinates.
    total : Array of shape (m,) or ()
        Sum of increments (lazy learners only).
    memory : pytree
        State of the filter.
    """

    theta: Array
    total: Any
    memory: Any


def mirror_steps(increments: Filter, place: Chart, *, lazy: bool = False) -> Learner:
    """Follow a filter's increments: agile (from the last point) or lazy (from the start).

    Agile: theta_{t+1} = clip(theta_t - u_t). Lazy, or dual averaging:
    theta_{t+1} = clip(theta_1 - sum over s <= t of u_s).
    """

    def init() -> StepState:
        shape = place.theta.shape
        return StepState(place.theta, jnp.zeros(shape) if lazy else (), increments.init(shape))

    def update(state: StepState, g: Array) -> StepState:
        _check_shape(g, place)
        u, memory = increments.apply(state.memory, g)
        if not lazy:
            return StepState(jnp.clip(state.theta - u, place.low, place.high), (), memory)
        total = state.total + u
        return StepState(jnp.clip(place.theta - total, place.low, place.high), total, memory)

    return Learner(init, lambda state: place.to_point(state.theta), update)


class PositionState(NamedTuple):
    """State of a position-form PID: the point in mirror coordinates, sum of errors, last error."""

    theta: Array
    integral: Array
    last: Array


def pid_position(
    k_i: Number, k_p: Number, k_d: Number, place: Chart, *, anti_windup: bool = False
) -> Learner:
    """theta_{t+1} = clip(theta_1 - [K_P g_t + K_I S_t + K_D (g_t - g_{t-1})]), S_t the sum of g.

    This is lazy convolutional mirror descent with the kernel of `pid_velocity`; it winds up while
    the box binds. With anti-windup by back-calculation, S_t += (raw - clipped) / K_I, it equals
    the velocity form exactly, under both mirrors.
    """

    def init() -> PositionState:
        zero = jnp.zeros(place.theta.shape)
        return PositionState(place.theta, zero, zero)

    def update(state: PositionState, g: Array) -> PositionState:
        _check_shape(g, place)
        integral = state.integral + g
        raw = place.theta - (k_p * g + k_i * integral + k_d * (g - state.last))
        theta = jnp.clip(raw, place.low, place.high)
        if anti_windup:
            integral = integral + (raw - theta) / k_i
        return PositionState(theta, integral, g)

    return Learner(init, lambda state: place.to_point(state.theta), update)


# ------------------------------------------------------------------------------- named learners


def _box(mirror: Mirror, low: ArrayLike | None) -> ArrayLike:
    if low is not None:
        return low
    return FLOOR if mirror == "entropic" else 0.0


def mirror_descent(
    eta: ArrayLike,
    start: ArrayLike,
    *,
    mirror: Mirror = "euclidean",
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Learner:
    """Online mirror descent, w_{t+1} = argmin over the box of <g_t, w> + V_h(w, w_t) / eta.

    Parameters
    ----------
    eta : float or array of shape (m,)
        Step.
    start : float or array of shape (m,)
        w_1.
    mirror : {"euclidean", "entropic"}
        Projected gradient steps, or multiplicative updates w exp(-eta g).
    low, high : float or array of shape (m,)
        The box; ``low`` is 0, or `FLOOR` under the entropic mirror, unless given.
    lazy : bool, default=False
        Dual averaging: step from w_1 along the sum of gradients.

    Returns
    -------
    Learner

    Examples
    --------
    >>> learner = mirror_descent(0.5, start=[1.0, 0.1])
    >>> state = learner.update(learner.init(), jnp.array([1.0, 1.0]))
    >>> learner.point(state).tolist()
    [0.5, 0.0]
    """
    check_positive("eta", eta)
    return mirror_steps(
        gain(number(eta)), chart(mirror, start, _box(mirror, low), high, eta), lazy=lazy
    )


def convolutional_mirror_descent(
    kernel: ArrayLike,
    eta: ArrayLike,
    start: ArrayLike,
    *,
    mirror: Mirror = "euclidean",
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Learner:
    """Mirror descent fed with a weighted sum of past gradients, z_t = sum_j alpha_j g_{t-j}.

    Parameters
    ----------
    kernel : array of shape (J,) or (J, m)
        Weights that sum to 1. (1,) is mirror descent, (2, -1) optimistic mirror descent,
        (1 - beta) beta^j momentum.
    eta, start, mirror, low, high, lazy
        As in `mirror_descent`.

    Raises
    ------
    ValueError
        If the kernel is empty, not finite, or does not sum to 1.

    Examples
    --------
    >>> learner = convolutional_mirror_descent([2.0, -1.0], 0.5, start=1.0)
    >>> state = learner.update(learner.init(), jnp.array([0.5]))
    >>> learner.point(state).tolist()
    [0.5]
    """
    check_positive("eta", eta)
    check_finite("kernel", kernel)
    alpha = known(kernel)
    if np.ndim(kernel) not in (1, 2) or np.shape(kernel)[0] == 0:
        raise ValueError(
            f"kernel must have shape (J,) or (J, m) with J >= 1, got {np.shape(kernel)}"
        )
    if alpha is not None and (abs(alpha.sum(axis=0) - 1) > 1e-5).any():
        raise ValueError(
            f"kernel must sum to 1, got a sum of {alpha.sum(axis=0)}: divide it by its sum and "
            "multiply eta by it (a kernel that sums to 0 has no integral action)"
        )
    shape = (1,) if np.ndim(kernel) == 1 else np.shape(kernel)[1:]
    place = chart(mirror, start, _box(mirror, low), high, eta, jnp.zeros(shape))
    return mirror_steps(convolution(kernel, number(eta)), place, lazy=lazy)


def momentum(
    beta: ArrayLike,
    eta: ArrayLike,
    start: ArrayLike,
    *,
    mirror: Mirror = "euclidean",
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Learner:
    """Mirror descent with heavy-ball momentum: alpha_j = (1 - beta) beta^j, in constant memory.

    Parameters
    ----------
    beta : float or array of shape (m,)
        In [0, 1).
    eta, start, mirror, low, high, lazy
        As in `mirror_descent`.

    Examples
    --------
    >>> learner = momentum(0.5, 1.0, start=1.0)
    >>> learner.point(learner.update(learner.init(), jnp.array([1.0]))).tolist()
    [0.5]
    """
    check_share("beta", beta)
    check_positive("eta", eta)
    place = chart(mirror, start, _box(mirror, low), high, eta, beta)
    return mirror_steps(smoothing(number(beta), number(eta)), place, lazy=lazy)


def optimistic(
    eta: ArrayLike,
    start: ArrayLike,
    *,
    mirror: Mirror = "euclidean",
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Learner:
    """Optimistic mirror descent: alpha = (2, -1), the last gradient as the hint.

    Examples
    --------
    >>> learner = optimistic(0.25, start=1.0)
    >>> learner.point(learner.update(learner.init(), jnp.array([1.0]))).tolist()
    [0.5]
    """
    check_positive("eta", eta)
    place = chart(mirror, start, _box(mirror, low), high, eta)
    return mirror_steps(extrapolation(number(eta)), place, lazy=lazy)


def pid_learner(
    k_i: ArrayLike,
    k_p: ArrayLike = 0.0,
    k_d: ArrayLike = 0.0,
    *,
    start: ArrayLike,
    beta: ArrayLike = 0.0,
    mirror: Mirror = "euclidean",
    form: Literal["velocity", "position"] = "velocity",
    anti_windup: bool = False,
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
) -> Learner:
    """PID control of a multiplier, in velocity or position form.

    Parameters
    ----------
    k_i, k_p, k_d : float or array of shape (m,)
        Integral, proportional and derivative gain.
    start : float or array of shape (m,)
        w_1.
    beta : float or array of shape (m,), default=0
        The integral term takes an exponential moving average of errors (velocity form).
    mirror, low, high
        As in `mirror_descent`.
    form : {"velocity", "position"}
        Increments from the last point (agile), or from the start (lazy).
    anti_windup : bool, default=False
        Back-calculation in position form; the path is then that of the velocity form.

    Raises
    ------
    ValueError
        If ``k_i`` is negative, ``form`` unknown, or options do not fit together.

    Warns
    -----
    PacingWarning
        If ``k_i`` is 0 (linear regret), or ``k_p`` or ``k_d`` negative.
    """
    check_gains(k_i, k_p, k_d)
    check_share("beta", beta)
    k_i, k_p, k_d, beta = number(k_i), number(k_p), number(k_d), number(beta)
    place = chart(mirror, start, _box(mirror, low), high, k_i, k_p, k_d, beta)
    if form == "velocity":
        if anti_windup:
            raise ValueError("anti_windup is for form='position'; the velocity form has no wind-up")
        return mirror_steps(pid_velocity(k_i, k_p, k_d, beta), place)
    if form != "position":
        raise ValueError(f"form must be 'velocity' or 'position', got {form!r}")
    if not is_zero(beta):
        raise ValueError(f"beta must be 0 in position form, got {beta!r}")
    if anti_windup:
        check_positive("k_i", k_i)
    return pid_position(k_i, k_p, k_d, place, anti_windup=anti_windup)


def ema_pid_learner(
    a_p: ArrayLike,
    a_i: ArrayLike,
    a_d: ArrayLike,
    beta: ArrayLike,
    eta: ArrayLike,
    start: ArrayLike,
    *,
    mirror: Mirror = "euclidean",
    low: ArrayLike | None = None,
    high: ArrayLike = jnp.inf,
    lazy: bool = False,
) -> Learner:
    """PID with a forgetting integral, as platforms run it: `ema_pid` inside a mirror step.

    Parameters
    ----------
    a_p, a_i, a_d : float or array of shape (m,)
        Weights of the error, of its moving average, and of its difference.
    beta : float or array of shape (m,)
        Forgetting of the moving average, in [0, 1).
    eta, start, mirror, low, high, lazy
        As in `mirror_descent`.
    """
    for name, value in (("a_p", a_p), ("a_i", a_i)):
        check_nonnegative(name, value)
    check_finite("a_d", a_d)
    check_share("beta", beta)
    check_positive("eta", eta)
    place = chart(mirror, start, _box(mirror, low), high, a_p, a_i, a_d, beta, eta)
    weights = (number(a_p), number(a_i), number(a_d))
    return mirror_steps(ema_pid(*weights, number(beta), number(eta)), place, lazy=lazy)
