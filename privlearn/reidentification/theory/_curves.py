"""From tests between two users to the identification of one among n."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from ._arguments import channel, probabilities, real, whole


class PowerCurve(NamedTuple):
    """Power of the best test at every level: concave, increasing, linear between its corners.

    Attributes
    ----------
    level : ndarray of shape (c,)
        Type I error, the probability of naming the user when the release is someone else's;
        from 0 to 1.
    power : ndarray of shape (c,)
        Probability of naming the user when the release is theirs (1 - type II error).
    """

    level: np.ndarray
    power: np.ndarray

    def __call__(self, level: ArrayLike) -> np.ndarray:
        """Power at some levels."""
        return np.interp(np.asarray(level, dtype=float), self.level, self.power)


def pair_curve(user: ArrayLike, other: ArrayLike) -> PowerCurve:
    """Neyman and Pearson's curve: the best power against `user` at every level under `other`.

    Parameters
    ----------
    user, other : array-like of shape (s,)
        Laws of the release of the user, and of the user that it is tested against.

    Examples
    --------
    >>> curve = pair_curve([0.7, 0.3], [0.2, 0.8])
    >>> curve([0.0, 0.2, 1.0])
    array([0. , 0.7, 1. ])
    """
    p, q = probabilities("user", user, 1), probabilities("other", other, 1)
    if p.shape != q.shape:
        raise ValueError(f"user and other must have one length, got {len(p)} and {len(q)}")
    return _hull(*_corners(p[None], q[None]))


def targeted_curve(matrix: ArrayLike, user: int) -> PowerCurve:
    """Best test of "this release is the user's" against "it is of someone else, drawn uniformly".

    The targeted attack of Carey et al. 2023.

    Parameters
    ----------
    matrix : array-like of shape (n, s)
        The channel.
    user : int
        Row of the user.

    Examples
    --------
    >>> targeted_curve(np.eye(3), 0)(0.0)
    np.float64(1.0)
    """
    rows = channel(matrix)
    u = whole("user", user, 0)
    if u >= len(rows):
        raise ValueError(f"user must be a row of the channel, below {len(rows)}, got {u}")
    return pair_curve(rows[u], np.delete(rows, u, axis=0).mean(axis=0))


def pairwise_curve(matrix: ArrayLike) -> PowerCurve:
    """Upper concave hull of the curves of all ordered pairs of users.

    The hull is needed, not the pointwise maximum: `curve_bound` averages over pairs inside a
    concave function, and with the plain maximum its value can lie below the exact success.

    Examples
    --------
    >>> curve = pairwise_curve([[0.9, 0.1], [0.5, 0.5]])
    >>> bool(curve(0.1) >= 0.5)
    True
    """
    rows = channel(matrix)
    level, power = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    for u in range(len(rows)):
        others = np.delete(rows, u, axis=0)
        x, y = _corners(np.broadcast_to(rows[u], others.shape), others)
        level, power = _hull(np.concatenate([level, x]), np.concatenate([power, y]))
    return PowerCurve(level, power)


def curve_bound(n_users: int, curve: PowerCurve | Callable[[float], float]) -> float:
    """Solve S = g((1 - S) / (n - 1)): no attacker names one of n users more often than S.

    If P_u(E) <= g(P_v(E)) for all users u, v and events E, with g concave and increasing, then
    S <= g((1 - S) / (n - 1)): take for E the set of releases on which the attacker says u, and
    average over v and u inside g.

    Parameters
    ----------
    n_users : int
        At least 2.
    curve : PowerCurve or callable
        g; a callable must be concave and increasing on [0, 1].

    Examples
    --------
    >>> round(curve_bound(10, gaussian_curve(2.0)), 4)
    0.7959
    """
    n = whole("n_users", n_users, 2)
    if not isinstance(curve, PowerCurve):

        def excess(success: float) -> float:
            return float(curve((1 - success) / (n - 1))) - success

        if excess(1.0) >= 0:
            return 1.0
        return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-16, rtol=1e-14))
    level, power = curve.level, np.minimum(curve.power, 1.0)
    gap = power + (n - 1) * level - 1  # increasing; its root is at level (1 - S) / (n - 1)
    if gap[0] >= 0:
        return min(1.0, float(power[0]))
    i = int(np.argmax(gap >= 0))
    share = -gap[i - 1] / (gap[i] - gap[i - 1])
    return min(1.0, float(power[i - 1] + share * (power[i] - power[i - 1])))


def gaussian_curve(distance: float) -> Callable[[float], float]:
    """Test curve of two users who send N(a e_u, I): g(x) = Phi(Phi^-1(x) + a sqrt 2).

    Parameters
    ----------
    distance : float
        a, in standard deviations of the noise.
    """
    shift = real("distance", distance, 0.0, math.inf) * math.sqrt(2)
    return lambda level: float(special.ndtr(special.ndtri(level) + shift))


def _corners(users: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the test curves of rows of `users` against rows of `others`, flattened."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(others > 0, users / others, np.where(users > 0, np.inf, -1.0))
    order = np.argsort(-ratio, axis=1, kind="stable")
    zero = np.zeros((len(users), 1))
    level = np.cumsum(np.take_along_axis(others, order, axis=1), axis=1)
    power = np.cumsum(np.take_along_axis(users, order, axis=1), axis=1)
    return (
        np.minimum(np.hstack([zero, level]), 1.0).ravel(),
        np.minimum(np.hstack([zero, power]), 1.0).ravel(),
    )


def _hull(x: np.ndarray, y: np.ndarray) -> PowerCurve:
    """Upper concave hull of points in the unit square, from level 0 to level 1."""
    x, y = np.append(x, [0.0, 1.0]), np.append(y, [0.0, 1.0])
    order = np.lexsort((-y, x))
    x, y = x[order], y[order]
    # Only records of the power can be corners; most points of many pairs fall away here.
    record = np.append(True, y[1:] > np.maximum.accumulate(y)[:-1])
    xs: list[float] = []
    ys: list[float] = []
    for px, py in zip(x[record].tolist(), y[record].tolist(), strict=True):
        while len(xs) > 1 and (ys[-1] - ys[-2]) * (px - xs[-2]) <= (py - ys[-2]) * (
            xs[-1] - xs[-2]
        ):
            xs.pop()
            ys.pop()
        xs.append(px)
        ys.append(py)
    if xs[-1] < 1:
        xs.append(1.0)
        ys.append(1.0)
    return PowerCurve(np.array(xs), np.array(ys))
