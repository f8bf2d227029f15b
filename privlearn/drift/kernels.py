"""Pure functions on arrays: the optimal rate, its schedule, and four estimators of drift.

Everything here is JAX without classes, input checks or global state; jit, vmap and scan work on
all of it, and the optax transformations of `privlearn.drift.transforms` are thin covers.

Each estimator has a step ``(state, observation, ...) -> state`` on one `DriftState`, whose field
``rate`` is the learning rate for the gradient at hand.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

#: Standard deviation of the smoothed innovation Z = .7 Z + .3 z for independent z of variance one:
#: .3 / sqrt(1 - .7^2).
SCORE_SD = 0.42


class DriftState(NamedTuple):
    """What an estimator of drift remembers: scalars only.

    Attributes
    ----------
    steps : int32
        Steps so far.
    rate : float
        Learning rate of the latest step.
    second_moment : float
        Estimate of the expected squared distance to the optimum (of the squared norm of the
        expected gradient, for half-batches).
    noise : float
        Noise variance in use (for half-batches: variance of the batch gradient).
    score : float
        Smoothed standardised surprise; above 5 `SCORE_SD` the filter sounds the alarm.
    alarm : bool
        Whether the latest step was one of alarm.
    alarms : int32
        How many alarms began so far.
    slow : float
        Long running mean of twice the loss, from which an unknown noise is estimated.
    recent : float
        Short running mean of the excess, from which a restart starts.
    """

    steps: jax.Array
    rate: jax.Array
    second_moment: jax.Array
    noise: jax.Array
    score: jax.Array
    alarm: jax.Array
    alarms: jax.Array
    slow: jax.Array
    recent: jax.Array


def optimal_rate(second_moment, dim, noise, batch):
    """Return B v / ((B + d + 1) v + d s2), the best rate at an expected squared distance v.

    Examples
    --------
    >>> float(optimal_rate(jnp.float32(1.0), 1, 0.0, 1))
    0.333...
    """
    noisy = (batch + dim + 1) * second_moment + dim * noise
    return jnp.where(second_moment > 0, batch * second_moment / jnp.maximum(noisy, 1e-30), 0.0)


def next_second_moment(second_moment, rate, dim, noise, batch, shift=0.0):
    """Return the expected squared distance after a step at any rate and a move of given length.

    Examples
    --------
    >>> float(next_second_moment(1.0, 1 / 3, 1, 0.0, 1))
    0.666...
    """
    keep = 1 - 2 * rate + rate**2 * (1 + (dim + 1) / batch)
    return keep * second_moment + rate**2 * noise * dim / batch + shift**2


def optimal_schedule(shifts, batch, start, dim, noise):
    """Return the optimal rates and second moments: a scan with one division a step.

    The scan carries and stores v alone, and the rates are computed from all v at once: storing
    both, or unrolling the loop, is several times slower on a CPU (XLA stops writing in place).

    Parameters
    ----------
    shifts : array of shape (T,)
        Lengths of the moves after each step.
    batch : scalar or array of shape (T,)
        Samples of a step.
    start, dim, noise : scalars
        First squared distance, coordinates, variance of a response.

    Returns
    -------
    (rates, second) : arrays of shapes (T,) and (T + 1,)

    Examples
    --------
    >>> rates, second = optimal_schedule(jnp.zeros(3), 1.0, 1.0, 1.0, 0.0)
    >>> second.round(4).tolist()
    [1.0, 0.6667..., 0.4443..., 0.2962...]
    """
    dtype = jnp.result_type(shifts, float)
    squares = jnp.asarray(shifts, dtype) ** 2
    size = jnp.asarray(batch, dtype)
    dim, noise = jnp.asarray(dim, dtype), jnp.asarray(noise, dtype)

    def step(v, inputs):
        square, b = (inputs, size) if size.ndim == 0 else inputs
        return v * (1 - optimal_rate(v, dim, noise, b)) + square, v

    inputs = squares if size.ndim == 0 else (squares, size)
    last, before = jax.lax.scan(step, jnp.asarray(start, dtype), inputs)
    return optimal_rate(before, dim, noise, size), jnp.append(before, last)


# ------------------------------------------------------------------------------- estimators


def initial_state(start, rate, noise, dtype=None) -> DriftState:
    """Return the state before the first step; `rate` is the one at the guess `start`."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    return DriftState(
        steps=count,
        rate=jnp.asarray(rate, dtype),
        second_moment=jnp.asarray(start, dtype),
        noise=jnp.asarray(noise, dtype),
        score=zero,
        alarm=jnp.zeros((), bool),
        alarms=count,
        slow=zero,
        recent=jnp.asarray(start, dtype),
    )


def update_noise(state: DriftState, value, window) -> DriftState:
    """Estimate an unknown noise variance: the least value of a long running mean of 2 loss.

    In the first `window` steps, while the mean is still of a transient, half of it is taken. Loss
    alone cannot tell noise from a constant distance: the estimate is too high by the distance
    that remains, and never rises again.
    """
    gain = jnp.maximum(1 / (state.steps + 1.0), 1 / window)
    slow = state.slow + gain * (2 * value - state.slow)
    first = state.steps < window
    settled = state.steps == window
    noise = jnp.where(first, slow / 2, jnp.where(settled, slow, jnp.minimum(state.noise, slow)))
    return state._replace(slow=slow.astype(state.slow.dtype), noise=noise.astype(slow.dtype))


def filter_step(
    state: DriftState, value, alarm, *, dim, batch, smallest, gain, threshold, propagate
) -> DriftState:
    r"""Filter the second moment from batch losses, with a larger gain in an alarm.

    With excess :math:`l = 2\,\text{loss} - s_2` (unbiased for v), surprise
    :math:`z = (l - \hat v) / \sqrt{2 (\hat v + s_2)^2 / B}` and :math:`Z \leftarrow .7 Z + .3 z`,

    .. math:: \hat v \leftarrow \max(\hat v + K (l - \hat v), \text{floor}), \qquad
              \eta = \frac{B \hat v}{(B + d + 1) \hat v + d s_2},

    where K is `gain` in an alarm (:math:`Z >` `threshold` standard deviations, or `alarm` from
    outside) and the previous rate, within [.01, .5], otherwise. Not from the paper: an addition.
    """
    noise = state.noise
    excess = 2 * value - noise
    spread = jnp.sqrt(2 / batch) * jnp.maximum(state.second_moment + noise, 1e-30)
    score = 0.7 * state.score + 0.3 * (excess - state.second_moment) / spread
    loud = jnp.logical_or(score > threshold * SCORE_SD, alarm)
    step = jnp.where(loud, gain, jnp.clip(state.rate, 0.01, 0.5))
    floor = _floor(noise, dim, batch, smallest)
    v = jnp.maximum(state.second_moment + step * (excess - state.second_moment), floor)
    rate = optimal_rate(v, dim, noise, batch)
    after = jnp.where(propagate, next_second_moment(v, rate, dim, noise, batch), v)
    return _moved(state, value, rate, after, score, loud, state.recent)


def average_step(state: DriftState, value, alarm, *, dim, batch, smallest, decay) -> DriftState:
    """Average the excess loss exponentially and use the optimal rate at the average."""
    excess = 2 * value - state.noise
    recent = jnp.where(alarm, excess, decay * state.recent + (1 - decay) * excess)
    v = jnp.maximum(recent, _floor(state.noise, dim, batch, smallest))
    rate = optimal_rate(v, dim, state.noise, batch)
    return _moved(state, value, rate, v, state.score, alarm, recent)


def restart_step(
    state: DriftState, value, alarm, *, dim, batch, smallest, decay, drift
) -> DriftState:
    """Run the optimal recursion forward; on an alarm, start again from the recent excess.

    Between alarms the rate does not look at the loss at all: v <- v (1 - rate) + drift^2.
    """
    excess = 2 * value - state.noise
    recent = decay * state.recent + (1 - decay) * excess
    v = jnp.where(alarm, jnp.maximum(recent, state.second_moment), state.second_moment)
    v = jnp.maximum(v, _floor(state.noise, dim, batch, smallest))
    rate = optimal_rate(v, dim, state.noise, batch)
    return _moved(state, value, rate, v * (1 - rate) + drift**2, state.score, alarm, recent)


def halves_step(state: DriftState, inner, spread, alarm, *, largest, decay) -> DriftState:
    r"""Estimate signal and noise of the gradient from two half-batches.

    With half-batch gradients :math:`g_1, g_2`, `inner` :math:`= g_1 \cdot g_2` is unbiased for
    :math:`|G|^2` and `spread` :math:`= |g_1 - g_2|^2 / 4` for the variance of the batch gradient;
    the rate is `largest` times signal / (signal + noise). An alarm forgets the averages.
    """
    keep = jnp.where(alarm, 0.0, decay)
    signal = keep * state.second_moment + (1 - keep) * inner
    noise = keep * state.noise + (1 - keep) * spread
    known = jnp.maximum(signal, 1e-12 * noise)
    rate = largest * known / jnp.maximum(known + noise, 1e-30)
    # Not-a-number gradients: keep what was known.
    new = state._replace(noise=jnp.where(jnp.isfinite(spread), noise, state.noise))
    return _moved(new, inner, rate, signal, state.score, alarm, state.recent)


def half_batch_moments(first, second):
    """Return g1.g2 and |g1 - g2|^2 / 4 of two pytrees of gradients.

    Examples
    --------
    >>> inner, spread = half_batch_moments(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0]))
    >>> float(inner), float(spread)
    (3.0, 2.0)
    """
    pairs = list(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    inner = sum(jnp.vdot(a, b) for a, b in pairs)
    spread = sum(jnp.sum((a - b) ** 2) for a, b in pairs) / 4
    return inner, spread


def _floor(noise, dim, batch, smallest):
    """Give the second moment at which the optimal rate is about `smallest`."""
    return smallest * dim * noise / batch + 1e-12


def _moved(state: DriftState, seen, rate, v, score, alarm, recent) -> DriftState:
    """Put one step's results together; an observation that is not finite changes nothing."""
    good = jnp.isfinite(seen)
    alarm = jnp.logical_and(alarm, good)

    def keep(new, old):
        return jnp.where(good, new, old).astype(old.dtype)

    return state._replace(
        steps=state.steps + 1,
        rate=keep(rate, state.rate),
        second_moment=keep(v, state.second_moment),
        score=keep(score, state.score),
        recent=keep(recent, state.recent),
        alarm=alarm,
        alarms=state.alarms + jnp.logical_and(alarm, ~state.alarm),
    )


# ---------------------------------------------------------------------------- Page-Hinkley


class PageHinkleyState(NamedTuple):
    """State of the Page-Hinkley test for an increase of the mean.

    Attributes
    ----------
    steps : int32
        Values since the start or the latest alarm.
    mean : float
        Their mean.
    total : float
        Discounted sum of deviations from the mean, less the tolerance.
    least : float
        Its smallest value.
    alarm : bool
        Whether the latest value raised the alarm.
    """

    steps: jax.Array
    mean: jax.Array
    total: jax.Array
    least: jax.Array
    alarm: jax.Array


def page_hinkley_init(dtype=None) -> PageHinkleyState:
    """Return the state before the first value."""
    zero = jnp.zeros((), jnp.result_type(float) if dtype is None else dtype)
    return PageHinkleyState(
        jnp.zeros((), jnp.int32), zero, zero, jnp.full_like(zero, jnp.inf), jnp.zeros((), bool)
    )


def page_hinkley_step(
    state: PageHinkleyState, value, *, min_instances=30, delta=0.005, threshold=50.0, alpha=0.9999
) -> PageHinkleyState:
    """Take in a value; the test starts anew after an alarm.

    The same arithmetic as ``river.drift.PageHinkley(mode="up")``, inside of jit.

    Examples
    --------
    >>> state = page_hinkley_init()
    >>> for value in [0.0] * 30 + [10.0] * 10:
    ...     state = page_hinkley_step(state, value, threshold=20.0)
    ...     if state.alarm:
    ...         print("alarm after", int(state.steps))
    alarm after 33
    """
    fresh = page_hinkley_init(state.mean.dtype)
    state = jax.tree.map(lambda new, old: jnp.where(state.alarm, new, old), fresh, state)
    count = state.steps + 1
    mean = state.mean + (value - state.mean) / count
    total = alpha * state.total + (value - mean) - delta
    least = jnp.minimum(state.least, total)
    alarm = jnp.logical_and(count >= min_instances, total - least > threshold)
    return PageHinkleyState(count, mean, total, least, alarm)
