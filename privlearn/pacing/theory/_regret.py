"""Bounds of regret: of convolutional mirror descent, and of budgets paced by it."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import number, vector, whole
from ._convolution import kernel_constants

Mirror = Literal["euclidean", "entropic"]


class RegretBound(NamedTuple):
    """A bound of regret and its parts.

    Attributes
    ----------
    distance : float
        V_h(w, w_1) / eta: how far the comparator is.
    movement : float
        Proportional to eta T G^2: how much the iterates move.
    tail : float
        Weights of the kernel that reach beyond the horizon.
    extra : float
        Parts of the pacing problem: the last purchase, corruption, the floor of the multipliers.
    total : float
        The bound.
    """

    distance: float
    movement: float
    tail: float
    extra: float
    total: float


def divergence(mirror: Mirror, w: ArrayLike, start: ArrayLike) -> float:
    """Bregman divergence V_h(w, start): |w - start|^2 / 2, or sum of w log(w/s) - w + s.

    Examples
    --------
    >>> divergence("euclidean", [1.0, 0.0], [0.0, 0.0])
    0.5
    """
    x, s = np.broadcast_arrays(np.asarray(w, dtype=float), np.asarray(start, dtype=float))
    if mirror == "euclidean":
        return float(((x - s) ** 2).sum() / 2)
    if mirror != "entropic":
        raise ValueError(f"mirror must be 'euclidean' or 'entropic', got {mirror!r}")
    if (s <= 0).any():
        raise ValueError(f"start must be positive under the entropic mirror, got {start!r}")
    logs = np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0) / s), 0.0)
    return float((logs - x + s).sum())


def strong_convexity(mirror: Mirror, high: float) -> float:
    """Constant of the mirror map in the Euclidean norm on w <= high: 1, or 1 / high.

    Examples
    --------
    >>> strong_convexity("entropic", 4.0)
    0.25
    """
    if mirror == "euclidean":
        return 1.0
    if mirror != "entropic":
        raise ValueError(f"mirror must be 'euclidean' or 'entropic', got {mirror!r}")
    return 1.0 / number("high", high, above=0.0)


def oco_bound(
    *,
    eta: float,
    horizon: int,
    gradient: float,
    distance: float,
    diameter: float,
    alpha: ArrayLike = (1.0,),
    sigma: float = 1.0,
) -> RegretBound:
    """Bound of sum over t of <g_t, w_t - w> for convolutional mirror descent, agile or lazy.

    V_h(w, w_1) / eta + (eta T G^2 / sigma) (mass^2 / 2 + mass x lag) + G Dm x tail, for any
    gradients with dual norm at most G, also those chosen after seeing w_t; Dm is the diameter of
    the domain, h is sigma-strongly convex in the primal norm. Re-derived: mirror-step inequality
    on z_t, sums swapped, w_{s+j} moved back to w_s. Exact (tight) for plain mirror descent.

    Parameters
    ----------
    eta : float
        Step.
    horizon : int
        T.
    gradient : float
        G.
    distance : float
        V_h(w, w_1), see `divergence`.
    diameter : float
        Dm, in the primal norm; it matters only if the kernel has memory.
    alpha : array of shape (J,)
        Kernel, of sum 1.
    sigma : float

    Returns
    -------
    RegretBound

    Raises
    ------
    ValueError
        If a number is out of range, or the kernel does not sum to 1.

    Examples
    --------
    >>> oco_bound(eta=0.1, horizon=100, gradient=1.0, distance=0.5, diameter=1.0).total
    10.0
    """
    step, steps = number("eta", eta, above=0.0), whole("horizon", horizon, 1)
    g, v = number("gradient", gradient, least=0.0), number("distance", distance, least=0.0)
    dm, s = number("diameter", diameter, least=0.0), number("sigma", sigma, above=0.0)
    weights = vector("alpha", alpha)
    if abs(weights.sum() - 1) > 1e-9:
        raise ValueError(f"alpha must sum to 1, got a sum of {weights.sum()}")
    mass, lag, tail = kernel_constants(weights)
    movement = step * steps * g**2 / s * (mass**2 / 2 + mass * lag)
    parts = (v / step, movement, g * dm * tail)
    return RegretBound(*parts, 0.0, math.fsum(parts))


def best_step(
    *,
    horizon: int,
    gradient: float,
    distance: float,
    alpha: ArrayLike = (1.0,),
    sigma: float = 1.0,
) -> float:
    """Step that makes `oco_bound` least: sqrt(V sigma / (T G^2 (mass^2 / 2 + mass lag))).

    Examples
    --------
    >>> round(best_step(horizon=100, gradient=1.0, distance=0.5), 12)
    0.1
    """
    mass, lag, _ = kernel_constants(alpha)
    steps, g = whole("horizon", horizon, 1), number("gradient", gradient, above=0.0)
    v, s = number("distance", distance, above=0.0), number("sigma", sigma, above=0.0)
    return math.sqrt(v * s / (steps * g**2 * (mass**2 / 2 + mass * lag)))


class Pacing(NamedTuple):
    """The constants of a pacing problem.

    Attributes
    ----------
    reward : float
        fbar: most that one request can bring.
    consumption : float
        bbar: most that one request can consume of any resource.
    rate : array of shape (m,)
        rho: budget per step.
    """

    reward: float
    consumption: float
    rate: NDArray[np.float64]


def pacing_problem(reward: float, consumption: float, rate: ArrayLike) -> Pacing:
    """Check the constants of a pacing problem.

    Examples
    --------
    >>> pacing_problem(1.0, 1.0, 0.1).rate.tolist()
    [0.1]
    """
    return Pacing(
        number("reward", reward, above=0.0),
        number("consumption", consumption, above=0.0),
        vector("rate", rate, above=0.0),
    )


def _dual_regret(
    problem: Pacing,
    eta: float,
    horizon: int,
    start: ArrayLike,
    high: float,
    alpha: ArrayLike,
    mirror: Mirror,
    floor: float,
) -> RegretBound:
    """Regret of the dual against 0 and the points (fbar / rho_j) e_j, for every prefix."""
    rate = problem.rate
    m = rate.size
    top = number("mu_max", high, above=0.0)
    need = problem.reward / rate.min()
    if top < need * (1 - 1e-12):
        raise ValueError(
            f"mu_max must be at least reward / min(rate) = {need:g} for this bound, got {high!r}"
        )
    first = np.broadcast_to(np.asarray(start, dtype=float), (m,))
    if not np.isfinite(first).all() or (first < 0).any() or (first > top).any():
        raise ValueError(f"mu0 must lie in [0, mu_max], got {start!r}")
    low = 0.0 if mirror == "euclidean" else number("floor", floor, above=0.0)
    points = np.maximum(np.vstack([np.zeros(m), np.diag(problem.reward / rate)]), low)
    # 0 <= b <= bbar, so |rho - b| <= max(rho, bbar - rho) in every coordinate.
    sizes = np.maximum(rate, problem.consumption - rate)
    bound = oco_bound(
        eta=eta,
        horizon=horizon,
        gradient=float(np.linalg.norm(sizes)),
        distance=max(divergence(mirror, point, first) for point in points),
        diameter=math.sqrt(m) * (top - low),
        alpha=alpha,
        sigma=strong_convexity(mirror, top),
    )
    # Comparators are raised to the floor, by at most `low` in every coordinate and step.
    extra = low * horizon * float(sizes.sum())
    return bound._replace(extra=extra, total=bound.total + extra)


def pacing_bound(
    *,
    reward: float,
    consumption: float,
    rate: ArrayLike,
    horizon: int,
    eta: float,
    mu_max: float,
    mu0: ArrayLike = 0.0,
    alpha: ArrayLike = (1.0,),
    mirror: Mirror = "euclidean",
    floor: float = 1e-6,
    corruption: float = 0.0,
) -> RegretBound:
    """Bound of E[OPT - reward] for independent requests, paced by convolutional mirror descent.

    fbar bbar / min(rho) + R + fbar x corruption, R the bound of `oco_bound` on the dual against 0
    and (fbar / rho_j) e_j, and corruption = sum over t of the total variation between the law of
    request t and the mean law (0 if identically distributed). Re-derived; for plain mirror descent
    the structure is that of Balseiro, Lu and Mirrokni, arXiv 2011.10124. Loose by one to two
    orders of magnitude.

    Parameters
    ----------
    reward, consumption : float
        fbar and bbar: the most that one request brings and consumes.
    rate : float or array of shape (m,)
        rho, the budget per step.
    horizon : int
    eta : float
        Step; of a PID, its integral gain.
    mu_max : float
        Upper end of the box, at least fbar / min(rho).
    mu0 : float or array of shape (m,)
    alpha : array of shape (J,)
        Kernel; of a PID, see `pid_to_kernel`.
    mirror : {"euclidean", "entropic"}
    floor : float
        Lower end of the box under the entropic mirror.
    corruption : float
        In units of requests, at least 0.

    Returns
    -------
    RegretBound

    Examples
    --------
    >>> bound = pacing_bound(
    ...     reward=1.0, consumption=1.0, rate=0.1, horizon=10_000, eta=0.1, mu_max=10.0
    ... )
    >>> round(bound.total, 3)
    915.0
    """
    problem = pacing_problem(reward, consumption, rate)
    wrong = number("corruption", corruption, least=0.0)
    bound = _dual_regret(problem, eta, horizon, mu0, mu_max, alpha, mirror, floor)
    last = problem.reward * problem.consumption / float(problem.rate.min())
    extra = bound.extra + last + problem.reward * wrong
    return bound._replace(extra=extra, total=bound.total - bound.extra + extra)


class AdversarialBound(NamedTuple):
    """OPT - ratio x reward <= total, for any requests.

    Attributes
    ----------
    ratio : float
        a* = max(1, max of b_tj / rho_j): the competitive ratio.
    total : float
    """

    ratio: float
    total: float


def adversarial_bound(
    *,
    reward: float,
    consumption: float,
    rate: ArrayLike,
    horizon: int,
    eta: float,
    mu_max: float,
    mu0: ArrayLike = 0.0,
    alpha: ArrayLike = (1.0,),
    mirror: Mirror = "euclidean",
    floor: float = 1e-6,
) -> AdversarialBound:
    """Bound of OPT - a* x reward for requests chosen by an adversary.

    fbar bbar / min(rho) + a* R with a* = max(1, bbar / min(rho)); parameters as in `pacing_bound`.

    Examples
    --------
    >>> adversarial_bound(
    ...     reward=1.0, consumption=1.0, rate=0.1, horizon=10_000, eta=0.1, mu_max=10.0
    ... ).ratio
    10.0
    """
    problem = pacing_problem(reward, consumption, rate)
    bound = _dual_regret(problem, eta, horizon, mu0, mu_max, alpha, mirror, floor)
    least = float(problem.rate.min())
    ratio = max(1.0, problem.consumption / least)
    last = problem.reward * problem.consumption / least
    return AdversarialBound(ratio, last + ratio * bound.total)
