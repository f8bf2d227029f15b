"""Regret bounds and bound-minimising rates for convex and non-convex losses that drift.

Fahrbach, Javanmard, Mirrokni and Worah (ICML 2023, arXiv 2303.15634) give schedules for convex and
non-convex losses with bounds; their exact statements were not at hand. Every bound here is derived
from first principles and tested as an inequality over random instances; the schedules minimise
these bounds, and are named reconstructions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, number, numbers, per_step
from ._optimal import Schedule


def convex_bound(
    rates: ArrayLike,
    second: ArrayLike,
    *,
    shifts: ArrayLike,
    distances: ArrayLike,
    noise: float,
    batch: ArrayLike,
    smoothness: float,
) -> float:
    r"""Return an upper bound on the regret of SGD on drifting convex, L-smooth losses.

    .. math::
        \text{Regret} \le \frac{v_1}{\eta_1} + \sum_{t \ge 2} v_t \left[\frac{1}{\eta_t} -
        \frac{1}{\eta_{t-1}}\right]_+ + \sum_t \frac{2 D_t \gamma_t + \gamma_t^2}{\eta_t}
        + \sum_t \frac{\eta_t s_2}{B_t}, \qquad \eta_t \le \frac{1}{2 L}

    Parameters
    ----------
    rates : array of shape (T,)
        Learning rates, positive and at most 1 / (2 L).
    second : float or array of shape (T,)
        Expected squared distances v_t before each step, or an upper bound (a squared diameter).
    shifts : float or array of shape (T,)
        Lengths of the moves of the optimum after each step.
    distances : float or array of shape (T,)
        D_t: expected distance of the updated parameter from the *old* optimum, or a diameter.
    noise : float
        s2, where the gradient of one sample has variance at most s2 (of the whole vector).
    batch : float or array of shape (T,)
        Samples of a step.
    smoothness : float
        L.

    Returns
    -------
    float
        The bound on the sum over steps of expected excess loss, paid before each update.

    Raises
    ------
    ValueError
        If a rate is 0 or above 1 / (2 L), besides what is out of range.

    Examples
    --------
    >>> convex_bound(
    ...     [0.1] * 100, 1.0, shifts=0.0, distances=1.0, noise=1.0, batch=1, smoothness=1.0
    ... ).__round__(6)  # 1 / 0.1 + 100 * 0.1
    20.0
    """
    eta = per_step("rates", rates)
    top = 1 / (2 * number("smoothness", smoothness))
    if not (eta > 0).all() or (eta > top * (1 + 1e-12)).any():
        raise ValueError(
            f"rates must lie in (0, 1 / (2 smoothness)] = (0, {top:g}], got {eta.min():g} to "
            f"{eta.max():g}"
        )
    v = per_step("second_moment", second, eta.size)
    gamma = per_step("shifts", shifts, eta.size)
    reach = per_step("second_moment", distances, eta.size)
    rise = np.maximum(np.diff(1 / eta), 0)
    tail = number("noise", noise) / per_step("batch", batch, eta.size)
    return float(
        v[0] / eta[0]
        + (v[1:] * rise).sum()
        + ((2 * reach * gamma + gamma**2) / eta).sum()
        + (eta * tail).sum()
    )


def convex_rate(
    drift: ArrayLike,
    *,
    window: ArrayLike,
    diameter: float,
    noise: float,
    batch: float,
    smoothness: float,
) -> FloatArray:
    r"""Return the constant rate of a window that minimises `convex_bound` over the window.

    .. math:: \eta = \min\left(\frac{1}{2 L}, \sqrt{\frac{D^2 + \Gamma}{W s_2 / B}}\right),
              \qquad \Gamma = \sum_{t \in W} (2 D \gamma_t + \gamma_t^2)

    Without drift this is the D / (s sqrt(T)) rate; a window with a jump has a larger rate.

    Parameters
    ----------
    drift : float or array
        Sum of the lengths of the moves within the window; the squares in Gamma are bounded by
        their sum squared, which is exact for a single jump.
    window : float or array
        Steps W.
    diameter : float
        D.
    noise, batch, smoothness
        As in `convex_bound`.

    Examples
    --------
    >>> convex_rate([0.0, 2.0], window=100, diameter=1.0, noise=1.0, batch=1, smoothness=1.0)
    array([0.1, 0.3])
    """
    total, reach = numbers("drift", drift), number("diameter", diameter)
    top = 1 / (2 * number("smoothness", smoothness))
    tail = numbers("window", window) * number("noise", noise) / number("batch", batch)
    gain = reach**2 + 2 * reach * total + total**2
    with np.errstate(divide="ignore"):
        return np.minimum(top, np.sqrt(gain / tail))[()]


class Contraction(NamedTuple):
    """One step of the squared distance under strong convexity.

    Attributes
    ----------
    rate : array
        The per-step minimiser of the bound.
    second : array
        The bound on the squared distance after step and move.
    """

    rate: FloatArray
    second: FloatArray


def strongly_convex_step(
    second_moment: ArrayLike,
    shift: ArrayLike,
    *,
    modulus: float,
    smoothness: float,
    noise: float,
    batch: float,
    rate: ArrayLike | None = None,
    slack: float | None = None,
) -> Contraction:
    r"""Return the best rate at a squared distance, and the bound on the next one.

    .. math:: v' = (1 - a \eta) v + \frac{\eta^2 s_2}{B} + \gamma^2, \qquad
              \eta^* = \min\left(\frac{1}{L}, \frac{a v B}{2 s_2}\right)

    for moves in unpredictable directions of mean zero; for arbitrary ones, with any c > 0,
    (1 + c)(...) + (1 + 1 / c) gamma^2.

    Parameters
    ----------
    second_moment : float or array
        Bound v on the squared distance before the step.
    shift : float or array
        Length of the move after the step.
    modulus, smoothness : float
        Strong convexity a and smoothness L.
    noise : float
        Variance of one sample's gradient, of the whole vector.
    batch : float
        Samples of a step.
    rate : float or array, default=None
        Another learning rate, at most 1 / L, instead of the best one.
    slack : float, default=None
        c; unpredictable moves if not given.

    Examples
    --------
    >>> strongly_convex_step(1.0, 0.0, modulus=1.0, smoothness=2.0, noise=4.0, batch=1)
    Contraction(rate=np.float64(0.125), second=np.float64(0.9375))
    """
    v, gamma = numbers("second_moment", second_moment), numbers("shifts", shift)
    a, top = number("modulus", modulus), 1 / number("smoothness", smoothness)
    if a * top > 1 + 1e-12:
        raise ValueError(f"modulus {a:g} is above smoothness {1 / top:g}")
    tail = number("noise", noise) / number("batch", batch)
    if rate is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            eta = np.where(v > 0, np.minimum(top, a * v / (2 * tail)), 0.0)
    else:
        eta = numbers("rates", rate)
        if (eta > top * (1 + 1e-12)).any():
            raise ValueError(f"rate must be at most 1 / smoothness = {top:g}, got {eta.max():g}")
    after = (1 - a * eta) * v + eta**2 * tail
    if slack is None:
        after = after + gamma**2
    else:
        c = number("modulus", slack)
        after = (1 + c) * after + (1 + 1 / c) * gamma**2
    return Contraction(eta[()], after[()])


def strongly_convex_schedule(
    shifts: ArrayLike,
    *,
    modulus: float,
    smoothness: float,
    noise: float,
    batch: float,
    start: float,
    slack: float | None = None,
) -> Schedule:
    """Return the rates that minimise the strongly convex bound step by step.

    The same shape as the linear case: up after a move, like 1 / t between moves. Parameters as in
    `strongly_convex_step`; `shifts` is an array of shape (T,), `start` a bound on the first
    squared distance. ``second`` of the result is the bound.

    Examples
    --------
    >>> strongly_convex_schedule(
    ...     [0.0, 2.0, 0.0], modulus=1.0, smoothness=1.0, noise=4.0, batch=1, start=1.0
    ... ).rates.round(3)
    array([0.125, 0.117, 0.61 ])
    """
    moves = per_step("shifts", shifts)
    rates, second = [], [number("start", start)]
    for gamma in moves:
        step = strongly_convex_step(
            second[-1], gamma, modulus=modulus, smoothness=smoothness, noise=noise, batch=batch,
            slack=slack,
        )  # fmt: skip
        rates.append(float(step.rate))
        second.append(float(step.second))
    return Schedule(np.array(rates), np.array(second))


def nonconvex_bound(
    rates: ArrayLike,
    *,
    gap: float,
    drift: float,
    noise: float,
    batch: ArrayLike,
    smoothness: float,
) -> float:
    r"""Return an upper bound on :math:`\sum_t \eta_t (1 - L \eta_t / 2) E|\nabla l_t(\theta_t)|^2`.

    .. math:: \ldots \le l_1(\theta_1) - \inf + \sum_t \Phi_t + \sum_t \frac{L \eta_t^2 s_2}{2 B_t},
              \qquad \Phi_t = \sup_\theta |l_{t+1} - l_t|

    Descent lemma with losses that shift; regret of a non-convex problem is counted in squared
    gradients.

    Parameters
    ----------
    rates : array of shape (T,)
        Learning rates, at most 2 / L.
    gap : float
        First loss minus the infimum.
    drift : float
        Sum of the largest changes of the loss.
    noise, batch, smoothness
        As in `convex_bound`.

    Examples
    --------
    >>> nonconvex_bound([0.1] * 10, gap=1.0, drift=0.5, noise=2.0, batch=1, smoothness=1.0)
    1.6
    """
    eta = per_step("rates", rates)
    L = number("smoothness", smoothness)
    if (eta > 2 / L * (1 + 1e-12)).any():
        raise ValueError(f"rates must be at most 2 / smoothness = {2 / L:g}, got {eta.max():g}")
    tail = number("noise", noise) / per_step("batch", batch, eta.size)
    return float(number("gap", gap) + number("drift", drift) + (L * eta**2 * tail / 2).sum())


def nonconvex_rate(
    drift: ArrayLike,
    *,
    window: ArrayLike,
    gap: float,
    noise: float,
    batch: float,
    smoothness: float,
) -> FloatArray:
    r"""Return the constant rate of a window that minimises the bound on its squared gradients.

    .. math:: \eta = \min\left(\frac{1}{L}, \sqrt{\frac{2 B (\text{gap} + \Phi)}{L s_2 W}}\right)

    Parameters
    ----------
    drift : float or array
        Sum Phi of the largest changes of the loss within the window.
    window : float or array
        Steps W.
    gap, noise, batch, smoothness
        As in `nonconvex_bound`.

    Examples
    --------
    >>> nonconvex_rate([0.0, 3.0], window=200, gap=1.0, noise=1.0, batch=1, smoothness=1.0)
    array([0.1, 0.2])
    """
    phi, start = numbers("drift", drift), number("gap", gap)
    L = number("smoothness", smoothness)
    tail = L * number("noise", noise) * numbers("window", window)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.sqrt(2 * number("batch", batch) * (start + phi) / tail)
    return np.where(start + phi > 0, np.minimum(1 / L, best), 0.0)[()]
