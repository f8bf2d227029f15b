"""Learning rates for a drift that is known beforehand: arrays, and optax schedules.

An optax schedule is a function of the step count, so it can follow a *calendar* (sales events,
school terms, retraining days) but not the data; for that see `privlearn.drift.transforms`.

The linear schedule is exact for the model of Fahrbach et al. (ICML 2023, arXiv 2303.15634). The
convex and non-convex ones minimise bounds that were derived here (`privlearn.drift.theory`),
window by window; the paper's own schedules for these cases were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privlearn.drift import kernels, theory
from privlearn.drift._checks import check, traced
from privlearn.drift.theory import _arguments


class OptimalSchedule(NamedTuple):
    """Learning rates and expected squared distances, as JAX arrays.

    Attributes
    ----------
    rates : array of shape (T,)
        Learning rate of each step.
    second : array of shape (T + 1,)
        Expected squared distance before each step, and after the last one.
    """

    rates: jax.Array
    second: jax.Array

    @property
    def regret(self) -> jax.Array:
        """Dynamic regret: the sum over steps of half the squared distance before the step."""
        return self.second[:-1].sum() / 2

    @property
    def schedule(self) -> optax.Schedule:
        """The rates as a function of the step count, for any optax optimizer."""
        return schedule_from_rates(self.rates)


_compiled = jax.jit(kernels.optimal_schedule)


def optimal_schedule(
    shifts: Any,
    *,
    dim: int,
    noise: float,
    batch: Any,
    start: float = 1.0,
    horizon: int | None = None,
) -> OptimalSchedule:
    """Return the learning rates that minimise regret when the lengths of all moves are known.

    Parameters
    ----------
    shifts : float or array of shape (T,)
        Length of the move of the optimum after each step; one number needs `horizon`.
    dim : int
        Coordinates d.
    noise : float
        Variance s2 of a response around its mean.
    batch : float or array of shape (T,)
        Samples of a step.
    start : float, default=1
        Squared distance before the first step.
    horizon : int, default=None
        Steps T.

    Returns
    -------
    OptimalSchedule
        ``rates``, ``second``, ``regret``, and ``schedule``, a function of the count for optax.
        In the precision that is in force: 64 bits inside `privlearn.simulate.float64`.

    Raises
    ------
    ValueError, TypeError
        As `privlearn.drift.theory.optimal_schedule`. Traced arguments (inside jit or vmap) are
        not checked for their values.

    Notes
    -----
    `optimal_schedule` of the theory, as a scan: vmap it over grids of sizes and noises. A million
    steps take tens of milliseconds (``benchmarks/drift_schedule.py``).

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> sale = jnp.zeros(60).at[30].set(2.0)
    >>> best = optimal_schedule(sale, dim=10, noise=0.25, batch=4)
    >>> [round(float(best.rates[t]), 4) for t in (0, 29, 30, 31)]
    [0.2286, 0.0432, 0.0416, 0.2561]
    >>> optimizer = optax.sgd(best.schedule)
    """
    if any(map(traced, (shifts, batch, dim, noise, start))):
        moves = jnp.asarray(shifts)
        if moves.ndim == 0:
            if horizon is None:
                raise ValueError("one number for shifts needs a horizon: how many steps?")
            moves = jnp.broadcast_to(moves, (horizon,))
        if horizon is not None and moves.shape[0] != horizon:
            raise ValueError(f"shifts has {moves.shape[0]} steps, the horizon is {horizon}")
        if jnp.ndim(batch) and jnp.shape(batch) != moves.shape:
            raise ValueError(
                f"batch has {jnp.shape(batch)[0]} steps, the horizon is {moves.shape[0]}"
            )
        return OptimalSchedule(*kernels.optimal_schedule(moves, batch, start, dim, noise))
    steps = len(np.atleast_1d(np.asarray(batch))) if np.ndim(batch) else None
    if np.ndim(shifts) == 0 and horizon is None and steps is None:
        raise ValueError("one number for shifts needs a horizon: how many steps?")
    known = _arguments.per_step("shifts", shifts, horizon if np.ndim(shifts) else horizon or steps)
    size: Any = _arguments.numbers("batch", batch)
    if size.ndim:
        size = _arguments.per_step("batch", size, known.size)
    check(dim=dim, noise=noise, start=start)
    dtype = jnp.result_type(float)
    return OptimalSchedule(
        *_compiled(jnp.asarray(known, dtype), jnp.asarray(size, dtype), start, dim, noise)
    )


def schedule_from_rates(rates: Any, *, beyond: str = "hold") -> optax.Schedule:
    """Turn an array of learning rates into an optax schedule.

    Parameters
    ----------
    rates : array of shape (T,)
        Learning rate of each step.
    beyond : {"hold", "nan"}, default="hold"
        After the last step: keep its rate, or give nan, so that training past the horizon shows.

    Raises
    ------
    ValueError
        If rates are negative, not finite, or no sequence.

    Examples
    --------
    >>> schedule = schedule_from_rates([0.3, 0.2, 0.1])
    >>> [round(float(schedule(t)), 1) for t in (0, 2, 7)]
    [0.3, 0.1, 0.1]
    """
    if beyond not in ("hold", "nan"):
        raise ValueError(f'beyond must be "hold" or "nan", got {beyond!r}')
    if not traced(rates):
        _arguments.per_step("rates", rates)
    table = jnp.asarray(rates, jnp.result_type(float))

    def schedule(count: Any) -> jax.Array:
        value = table[jnp.minimum(count, table.shape[0] - 1)]
        return jnp.where(count < table.shape[0], value, jnp.nan) if beyond == "nan" else value

    return schedule


def restart_schedule(schedule: Callable[[Any], Any], at: Sequence[int]) -> optax.Schedule:
    """Start any schedule again at given steps: the calendar's answer to known shifts.

    Parameters
    ----------
    schedule : callable
        Function of the count since the latest restart.
    at : sequence of int
        Steps at which it starts again; positive and ascending.

    Raises
    ------
    ValueError, TypeError
        If steps are not whole, positive and ascending.

    Examples
    --------
    >>> decay = restart_schedule(lambda t: 1.0 / (1 + t), at=[3])
    >>> [round(float(decay(t)), 2) for t in range(5)]
    [1.0, 0.5, 0.33, 1.0, 0.5]
    """
    steps = np.asarray(at)
    if steps.ndim != 1 or steps.dtype.kind not in "iu":
        raise TypeError(f"at must be a sequence of whole numbers, got {at!r}")
    if (np.diff(np.concatenate([[0], steps])) <= 0).any():
        raise ValueError(f"at must be positive and ascending, got {list(at)!r}")
    starts = jnp.asarray(np.concatenate([[0], steps]))

    def restarted(count: Any) -> Any:
        latest = starts[jnp.searchsorted(starts, count, side="right") - 1]
        return schedule(count - latest)

    return restarted


def convex_schedule(
    drifts: Any,
    lengths: Any,
    *,
    diameter: float,
    noise: float,
    batch: float,
    smoothness: float,
) -> optax.Schedule:
    """Return piecewise constant rates for convex losses: `theory.convex_rate` in each window.

    Parameters
    ----------
    drifts : array of shape (K,)
        Sum of the lengths of the moves within (or just before) each window.
    lengths : array of K whole numbers
        Steps of each window.
    diameter, noise, batch, smoothness : float
        As in `privlearn.drift.theory.convex_rate`; noise is the variance of one sample's whole
        gradient.

    Raises
    ------
    ValueError, TypeError
        If there are not as many drifts as lengths, or something is out of its range.

    Examples
    --------
    >>> calm_then_shift = convex_schedule(
    ...     [0.0, 2.0], [100, 100], diameter=1.0, noise=1.0, batch=1, smoothness=1.0
    ... )
    >>> [round(float(calm_then_shift(t)), 3) for t in (0, 99, 100, 500)]
    [0.1, 0.1, 0.3, 0.3]
    """
    rates = theory.convex_rate(
        drifts, window=lengths, diameter=diameter, noise=noise, batch=batch, smoothness=smoothness
    )
    return _in_windows(rates, drifts, lengths)


def nonconvex_schedule(
    drifts: Any,
    lengths: Any,
    *,
    gap: float,
    noise: float,
    batch: float,
    smoothness: float,
) -> optax.Schedule:
    """Return piecewise constant rates for smooth losses: `theory.nonconvex_rate` in each window.

    Parameters
    ----------
    drifts : array of shape (K,)
        Sum of the largest changes of the loss within (or just before) each window.
    lengths : array of K whole numbers
        Steps of each window.
    gap, noise, batch, smoothness : float
        As in `privlearn.drift.theory.nonconvex_rate`.

    Examples
    --------
    >>> rates = nonconvex_schedule(
    ...     [0.0, 3.0], [200, 200], gap=1.0, noise=1.0, batch=1, smoothness=1.0
    ... )
    >>> [round(float(rates(t)), 3) for t in (0, 200)]
    [0.1, 0.2]
    """
    rates = theory.nonconvex_rate(
        drifts, window=lengths, gap=gap, noise=noise, batch=batch, smoothness=smoothness
    )
    return _in_windows(rates, drifts, lengths)


def _in_windows(rates: Any, drifts: Any, lengths: Any) -> optax.Schedule:
    steps = np.asarray(lengths)
    if steps.ndim != 1 or steps.dtype.kind not in "iu":
        raise TypeError(f"lengths must be a sequence of whole numbers, got {lengths!r}")
    if np.shape(drifts) != steps.shape:
        raise ValueError(f"{np.size(drifts)} drifts for {steps.size} windows: give one each")
    ends = jnp.asarray(np.cumsum(steps)[:-1])
    table = jnp.asarray(rates, jnp.result_type(float))

    def schedule(count: Any) -> jax.Array:
        return table[jnp.searchsorted(ends, count, side="right")]

    return schedule
