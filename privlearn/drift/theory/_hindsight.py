"""The best constant and the best decaying rate in hindsight, over continuous parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar

from ._arguments import FloatArray, number, per_step
from ._moments import moments
from ._optimal import largest_rate


class Tuned(NamedTuple):
    """A family of schedules at its best parameters in hindsight.

    Attributes
    ----------
    parameters : tuple of float
        Where the minimum is.
    rates : array of shape (T,)
        The schedule there.
    regret : float
        Its exact expected dynamic regret.
    """

    parameters: tuple[float, ...]
    rates: FloatArray
    regret: float


def best_constant(
    shifts: ArrayLike, *, dim: int, noise: float, batch: ArrayLike, start: float = 1.0
) -> Tuned:
    """Return the constant rate with the least exact regret on this very drift.

    A minimum over all rates, not over a grid: a grid of a few rates overstates what a constant
    costs, and so flatters whatever is compared with it.

    Parameters
    ----------
    shifts : array of shape (T,)
        Lengths of the moves after each step.
    dim, noise, batch, start
        As in `moments`.

    Examples
    --------
    >>> burst = np.where(np.arange(60) == 30, 2.0, np.where(np.arange(60) < 40, 0.0, 0.15))
    >>> best_constant(burst, dim=10, noise=0.25, batch=4).parameters[0].__round__(3)
    0.197
    """
    regret_of, steps, top = _problem(shifts, dim, noise, batch, start)
    best = _along(lambda rate: regret_of(np.full(steps, rate)), 1e-6 * top, 1.999 * top)
    return Tuned((best,), np.full(steps, best), regret_of(np.full(steps, best)))


def best_decay(
    shifts: ArrayLike, *, dim: int, noise: float, batch: ArrayLike, start: float = 1.0
) -> Tuned:
    """Return a / (1 + b t) with the least exact regret; b = 0, a constant, is among them.

    Parameters as in `best_constant`; t counts from 0.

    Examples
    --------
    >>> calm = best_decay(np.zeros(1500), dim=20, noise=0.25, batch=8)
    >>> round(calm.regret, 2)
    4.28
    """
    regret_of, steps, top = _problem(shifts, dim, noise, batch, start)
    time = np.arange(steps)

    def schedule(parameters: FloatArray) -> FloatArray:
        return np.exp(parameters[0]) / (1 + np.exp(parameters[1]) * time)

    def cost(parameters: FloatArray) -> float:
        return regret_of(np.minimum(schedule(parameters), 1.999 * top))

    constant = best_constant(shifts, dim=dim, noise=noise, batch=batch, start=start)
    best, least = constant.rates, constant.regret
    found: tuple[float, ...] = (constant.parameters[0], 0.0)
    for decay in (1.0 / steps, 0.01, 0.3):
        first = np.array([np.log(constant.parameters[0] * (1 + decay * 30)), np.log(decay)])
        end = minimize(cost, first, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6})
        if end.fun < least:
            best, least = np.minimum(schedule(end.x), 1.999 * top), float(end.fun)
            found = (float(np.exp(end.x[0])), float(np.exp(end.x[1])))
    return Tuned(found, best, least)


def best_cosine(
    shifts: ArrayLike,
    *,
    dim: int,
    noise: float,
    batch: ArrayLike,
    start: float = 1.0,
    cycles: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50),
) -> Tuned:
    """Return cosine decay to 0 with warm restarts, equally long cycles, tuned in hindsight.

    The peak is a continuous minimum for each number of cycles, and the best number is taken. The
    clock does not know the drift: cycles start at equal distances (Loshchilov and Hutter 2017).

    Parameters
    ----------
    shifts, dim, noise, batch, start
        As in `best_constant`.
    cycles : tuple of int
        Numbers of cycles that are tried.

    Returns
    -------
    Tuned
        ``parameters`` are the peak and the number of cycles.
    """
    regret_of, steps, top = _problem(shifts, dim, noise, batch, start)
    best = None
    for number_of in cycles:
        length = -(-steps // number_of)
        shape = (1 + np.cos(np.pi * (np.arange(steps) % length) / length)) / 2

        def cost_of(peak: float, shape: FloatArray = shape) -> float:
            return regret_of(peak * shape)

        peak = _along(cost_of, 1e-6 * top, 1.999 * top)
        cost = regret_of(peak * shape)
        if best is None or cost < best.regret:
            best = Tuned((peak, float(number_of)), peak * shape, cost)
    if best is None:
        raise ValueError("cycles must name at least one number of cycles")
    return best


def _problem(
    shifts: ArrayLike, dim: int, noise: float, batch: ArrayLike, start: float
) -> tuple[Callable[[FloatArray], float], int, float]:
    """Give the regret of rates, the horizon, and the largest useful rate."""
    moves = per_step("shifts", shifts)
    size = per_step("batch", batch, moves.size)
    d, s2, first = number("dim", dim), number("noise", noise), number("start", start)

    def regret_of(rates: FloatArray) -> float:
        return moments(rates, dim=int(d), noise=s2, batch=size, start=first, shifts=moves).regret

    return regret_of, moves.size, float(np.max(largest_rate(dim=int(d), batch=size)))


def _along(cost: Callable[[float], float], low: float, high: float) -> float:
    """Minimise over a positive number: a coarse look on a logarithmic scale, then Brent."""
    grid = np.geomspace(low, high, 25)
    values = [cost(float(x)) for x in grid]
    k = int(np.argmin(values))
    ends = np.log(grid[max(k - 1, 0)]), np.log(grid[min(k + 1, len(grid) - 1)])
    end = minimize_scalar(
        lambda x: cost(float(np.exp(x))), bounds=ends, method="bounded", options={"xatol": 1e-7}
    )
    return float(np.exp(end.x)) if end.fun < values[k] else float(grid[k])
