"""Exact moments of SGD on a linear regression whose optimum moves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import FloatArray, number, numbers, path, per_step


class Moments(NamedTuple):
    """First and second moments of the lag (parameter minus optimum) before and after each step.

    Attributes
    ----------
    mean : array of shape (T + 1, d)
        Expected lag; of shape (T + 1, 0) where directions are unpredictable (it does not matter).
    second : array of shape (T + 1,)
        Expected squared distance v; entry t is the one whose loss step t pays, the last one comes
        after the last step.
    """

    mean: FloatArray
    second: FloatArray

    @property
    def regret(self) -> float:
        """Dynamic regret: the sum over steps of v / 2, paid before each update."""
        return float(self.second[:-1].sum() / 2)


def moments(
    rates: ArrayLike,
    *,
    dim: int,
    noise: float,
    batch: ArrayLike,
    start: float | None = None,
    shifts: ArrayLike = 0.0,
    displacements: ArrayLike | None = None,
    start_lag: ArrayLike | None = None,
) -> Moments:
    r"""Return the exact first and second moments of the lag under given learning rates.

    Features are N(0, I), responses have noise of variance s2, the loss is (y - x.theta)^2 / 2,
    each step averages B fresh samples, and after step t the optimum moves by a length
    :math:`\gamma_t`. With :math:`\delta_t` the old minus the new optimum,

    .. math::
        m_{t+1} &= (1 - \eta_t) m_t + \delta_t \\
        v_{t+1} &= \left(1 - 2 \eta_t + \eta_t^2 \left(1 + \tfrac{d + 1}{B_t}\right)\right) v_t
            + \frac{\eta_t^2 s_2 d}{B_t} + \gamma_t^2 + 2 (1 - \eta_t) m_t \cdot \delta_t .

    Where directions are unpredictable (mean zero given the past) the last term vanishes.

    Parameters
    ----------
    rates : array of shape (T,)
        Learning rates.
    dim : int
        Coordinates d.
    noise : float
        Variance s2 of one response around its mean.
    batch : float or array of shape (T,)
        Samples of a step; values below 1 make sense for the recursion (see `moment_ode`).
    start : float, default=None
        Squared distance v_1 before the first step. Default: that of `start_lag`, else 1.
    shifts : float or array of shape (T,), default=0
        Lengths of the moves after each step, in unpredictable directions.
    displacements : array of shape (T, d), default=None
        Known moves instead: new minus old optimum after each step.
    start_lag : array of shape (d,), default=None
        Expected lag before the first step; needed with `displacements`.

    Returns
    -------
    Moments
        ``mean``, ``second`` and the property ``regret``.

    Raises
    ------
    ValueError, TypeError
        If a drift or noise is negative, a batch is 0, something is not a number, or lengths do
        not agree.

    Notes
    -----
    Setting of Fahrbach, Javanmard, Mirrokni and Worah (ICML 2023, arXiv 2303.15634), linear
    regression; re-derived and checked by simulation. With a loss without the 1/2 every learning
    rate is to be halved.

    Examples
    --------
    >>> moments([1 / 3], dim=1, noise=0.0, batch=1).second  # the best rate of one sample
    array([1.        , 0.66666667])
    """
    eta = per_step("rates", rates)
    steps = eta.size
    d, s2 = number("dim", dim), number("noise", noise)
    size = per_step("batch", batch, steps)
    shrink = 1 - 2 * eta + eta**2 * (1 + (d + 1) / size)
    if displacements is None:
        if start_lag is not None:
            raise ValueError("start_lag has a meaning only with displacements (known directions)")
        mean = np.zeros((steps + 1, 0))
        add = eta**2 * s2 * d / size + per_step("shifts", shifts, steps) ** 2
        v = number("start", 1.0 if start is None else start)
    else:
        if np.any(numbers("shifts", shifts)):
            raise ValueError("give either shifts (lengths) or displacements (vectors), not both")
        moves = path("displacements", displacements, steps)
        if moves.shape[1] != int(d):
            raise ValueError(f"displacements have {moves.shape[1]} coordinates, dim is {dim}")
        mean = _mean_path(eta, moves, start_lag)
        cross = -2 * (1 - eta) * (mean[:-1] * moves).sum(axis=1)
        add = eta**2 * s2 * d / size + (moves**2).sum(axis=1) + cross
        v = float(mean[0] @ mean[0]) if start is None else number("start", start)
        if v < mean[0] @ mean[0] - 1e-12:
            raise ValueError(f"start is {v:g}, below |start_lag|^2 = {mean[0] @ mean[0]:g}")
    second = [v]
    for factor, addend in zip(shrink.tolist(), add.tolist(), strict=True):
        v = factor * v + addend
        second.append(v)
    return Moments(mean, np.array(second))


def _mean_path(eta: FloatArray, moves: FloatArray, start_lag: ArrayLike | None) -> FloatArray:
    if start_lag is None:
        raise ValueError("displacements need start_lag, the expected lag before the first step")
    mean = np.empty((len(eta) + 1, moves.shape[1]))
    first = np.asarray(start_lag, dtype=float)
    if first.shape != mean[0].shape or not np.isfinite(first).all():
        raise ValueError(f"start_lag must be {mean.shape[1]} finite numbers, got {start_lag!r}")
    mean[0] = first
    for t in range(len(eta)):
        mean[t + 1] = (1 - eta[t]) * mean[t] - moves[t]
    return mean


def regret(rates: ArrayLike, **problem: object) -> float:
    """Return the expected dynamic regret of learning rates; arguments as in `moments`.

    Examples
    --------
    >>> regret([0.2] * 100, dim=10, noise=0.25, batch=4, shifts=0.15)
    11.1...
    """
    return moments(rates, **problem).regret  # type: ignore[arg-type]


def gradient_covariance(lag: ArrayLike, noise: float) -> FloatArray:
    """Return the covariance of one sample's gradient at a lag: (|lag|^2 + s2) I + lag lag'.

    Examples
    --------
    >>> gradient_covariance([1.0, 0.0], noise=0.5)
    array([[2.5, 0. ],
           [0. , 1.5]])
    """
    delta = np.asarray(lag, dtype=float)
    if delta.ndim != 1 or not np.isfinite(delta).all():
        raise ValueError(f"lag must be a vector of finite numbers, got shape {delta.shape}")
    s2 = number("noise", noise)
    return (delta @ delta + s2) * np.eye(delta.size) + np.outer(delta, delta)


def steady_state(
    rate: ArrayLike, shift: ArrayLike, *, dim: int, noise: float, batch: float, direction: str
) -> FloatArray:
    r"""Return the squared distance at which a constant learning rate settles.

    .. math:: v_\infty = \frac{\eta^2 s_2 d / B + g^2 + [2 (1 - \eta) g^2 / \eta]}
                              {2 \eta - \eta^2 (1 + (d + 1) / B)}

    The term in brackets belongs to a drift in one fixed direction, where the expected lag settles
    at :math:`\delta / \eta`.

    Parameters
    ----------
    rate : float or array
        The constant learning rate.
    shift : float or array
        Length g of the move after each step.
    dim, noise, batch
        As in `moments`.
    direction : {"random", "fixed"}
        Whether each move has a fresh direction, or all the same one.

    Returns
    -------
    array
        inf where the rate is 0 (and something moves) or at least 2 B / (B + d + 1).

    Examples
    --------
    >>> steady_state(0.2, 0.15, dim=10, noise=0.25, batch=4, direction="random").round(3)
    np.float64(0.19)
    """
    if direction not in ("random", "fixed"):
        raise ValueError(f'direction must be "random" or "fixed", got {direction!r}')
    eta, g = np.broadcast_arrays(numbers("rates", rate), numbers("shifts", shift))
    d, s2, size = number("dim", dim), number("noise", noise), number("batch", batch)
    top = eta**2 * s2 * d / size + g**2
    with np.errstate(divide="ignore", invalid="ignore"):
        if direction == "fixed":
            top = top + np.where(g > 0, 2 * (1 - eta) * g**2 / eta, 0.0)
        bottom = 2 * eta - eta**2 * (1 + (d + 1) / size)
        value = np.where(bottom > 0, top / bottom, np.inf)
    # Nothing moves and nothing is learnt: the distance stays what it was, and 0 is its infimum.
    return np.where((eta == 0) & (g == 0), 0.0, value)[()]
