"""The optimal learning rates of a drifting linear regression, and what they settle to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, number, numbers, per_step


class Schedule(NamedTuple):
    """Learning rates and the expected squared distances that they lead to.

    Attributes
    ----------
    rates : array of shape (T,)
        Learning rate of each step.
    second : array of shape (T + 1,)
        Expected squared distance before each step, and after the last one.
    """

    rates: FloatArray
    second: FloatArray

    @property
    def regret(self) -> float:
        """Dynamic regret: the sum over steps of half the squared distance before the step."""
        return float(self.second[:-1].sum() / 2)


def optimal_rate(
    second_moment: ArrayLike, *, dim: int, noise: float, batch: ArrayLike
) -> FloatArray:
    r"""Return the best learning rate at an expected squared distance v.

    .. math:: \eta^* = \frac{B v}{(B + d + 1) v + d s_2}

    Parameters
    ----------
    second_moment : float or array
        Expected squared distance v between parameter and optimum.
    dim, noise, batch
        As in `moments`.

    Returns
    -------
    array
        0 where nothing is to be learnt (v = 0).

    Examples
    --------
    >>> float(optimal_rate(1.0, dim=1, noise=0.0, batch=1))
    0.333...
    """
    v, size = numbers("second_moment", second_moment), numbers("batch", batch)
    d, s2 = number("dim", dim), number("noise", noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Divided by v and by B, so that infinite values of either have their limits.
        rate = 1 / (1 + (d + 1) / size + np.where(s2 > 0, d * s2 / (size * v), 0.0))
    return np.where(v > 0, rate, 0.0)[()]


def optimal_schedule(
    shifts: ArrayLike,
    *,
    dim: int,
    noise: float,
    batch: ArrayLike,
    start: float = 1.0,
    horizon: int | None = None,
) -> Schedule:
    r"""Return the learning rates that minimise regret when the lengths of all moves are known.

    Where directions are unpredictable, :math:`v_{t+1}` is increasing in :math:`v_t` for every
    rate, so that the greedy rate `optimal_rate` is optimal over the whole horizon (dynamic
    programming), and :math:`v_{t+1} = v_t (1 - \eta_t) + \gamma_t^2`.

    Parameters
    ----------
    shifts : float or array of shape (T,)
        Lengths of the moves after each step; one number needs `horizon`.
    dim, noise, batch
        As in `moments`.
    start : float, default=1
        Squared distance before the first step.
    horizon : int, default=None
        Steps T; must agree with the lengths of `shifts` and `batch`.

    Returns
    -------
    Schedule
        ``rates``, ``second`` and the property ``regret``.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, or lengths do not agree.

    Notes
    -----
    Fahrbach et al. (ICML 2023, arXiv 2303.15634), linear regression; re-derived and checked by
    simulation. `privlearn.drift.optimal_schedule` is the same in JAX.

    Examples
    --------
    >>> burst = np.where(np.arange(60) == 30, 2.0, 0.0)
    >>> best = optimal_schedule(burst, dim=10, noise=0.25, batch=4)
    >>> best.rates[[0, 29, 30, 31]].round(4)  # the move comes after step 30
    array([0.2286, 0.0432, 0.0416, 0.2561])
    """
    if horizon is None and np.ndim(shifts) == 0 and np.ndim(batch) == 0:
        raise ValueError("one number for shifts needs a horizon: how many steps?")
    steps = horizon if np.ndim(shifts) or horizon is not None else len(np.asarray(batch))
    moves = per_step("shifts", shifts, steps)
    size = per_step("batch", batch, moves.size)
    d, s2, v = number("dim", dim), number("noise", noise), number("start", start)
    rates, second = [], [v]
    for g, b in zip(moves.tolist(), size.tolist(), strict=True):
        eta = b * v / ((b + d + 1) * v + d * s2) if v > 0 else 0.0
        v = v * (1 - eta) + g * g
        rates.append(eta)
        second.append(v)
    return Schedule(np.array(rates), np.array(second))


def largest_rate(*, dim: int, batch: ArrayLike) -> FloatArray:
    """Return B / (B + d + 1): the best rate far away or without noise, half the unstable one.

    Without noise one step multiplies the squared distance by one minus this rate.

    Examples
    --------
    >>> largest_rate(dim=10, batch=4).round(4)
    np.float64(0.2667)
    """
    size, d = numbers("batch", batch), number("dim", dim)
    return (1 / (1 + (d + 1) / size))[()]


class FixedPoint(NamedTuple):
    """Where the optimal schedule settles under a drift of constant size.

    Attributes
    ----------
    rate : float
        Learning rate.
    second : float
        Expected squared distance.
    """

    rate: float
    second: float


def fixed_point(shift: float, *, dim: int, noise: float, batch: float) -> FixedPoint:
    r"""Return where the optimal schedule settles when the optimum moves by g after every step.

    .. math:: v_\infty = \frac{g^2 (B + d + 1) + \sqrt{g^4 (B + d + 1)^2 + 4 B g^2 d s_2}}{2 B},
              \qquad \eta_\infty = g^2 / v_\infty

    For small g the rate is about :math:`g \sqrt{B / (d s_2)}`. It is also the best *constant* rate
    in the long run: it minimises `steady_state`.

    Parameters
    ----------
    shift : float
        Length g of the move after each step; 0 gives rate 0.
    dim, noise, batch
        As in `moments`.

    Examples
    --------
    >>> fixed_point(0.15, dim=10, noise=0.25, batch=4)
    FixedPoint(rate=0.13388..., second=0.16805...)
    """
    g2 = number("shifts", shift) ** 2
    d, s2, size = number("dim", dim), number("noise", noise), number("batch", batch)
    if g2 == 0:
        return FixedPoint(0.0, 0.0)
    # Divided by the batch, so that an infinite one has its limit.
    half = g2 * (1 + (d + 1) / size) / 2
    v = half + float(np.sqrt(half**2 + g2 * d * s2 / size))
    return FixedPoint(g2 / v, v)


def noise_scale_rate(gradient: ArrayLike, noise: ArrayLike, batch: ArrayLike) -> FloatArray:
    r"""Return :math:`|G|^2 / (|G|^2 + \mathrm{tr}\,\Sigma / B)`, for any model.

    G is the expected gradient, Sigma the covariance of one sample's gradient (the noise scale of
    McCandlish et al. 2018). For the linear regression here it *equals* `optimal_rate`; for others
    multiply it by the largest stable rate, about 1 / smoothness.

    Parameters
    ----------
    gradient : float or array
        Squared norm of the expected gradient.
    noise : float or array
        Trace of the covariance of one sample's gradient.
    batch : float or array
        Samples of a step.

    Examples
    --------
    >>> d, v, s2, B = 10, 0.5, 0.25, 4
    >>> tail = (d + 1) * v + d * s2  # the trace of the covariance at a lag of squared length v
    >>> float(noise_scale_rate(v, tail, B) / optimal_rate(v, dim=d, noise=s2, batch=B))
    1.0
    """
    g2, trace = numbers("gradient", gradient), numbers("noise", noise)
    spread = trace / numbers("batch", batch)
    with np.errstate(invalid="ignore"):
        return np.where(g2 > 0, g2 / (g2 + spread), 0.0)[()]
