"""The quad tree's thresholds and depth, the projection's dimension, and costs."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from . import _arguments as check
from .designs import (
    calibrated_window_rows,
    heavy_hitters_design,
    masses_design,
    threshold_window,
)

#: k-means sums squared distances, k-medians distances.
Objective = Literal["kmeans", "kmedians"]


class Level(NamedTuple):
    """One level of the quad tree: cells of side ``side`` (box of side 2) against a threshold."""

    level: int
    side: float
    mass: float  #: v: every cell of this mass is kept
    low: float  #: least threshold
    high: float  #: greatest threshold


class Schedule(NamedTuple):
    """Thresholds of all levels (see `schedule`)."""

    n_levels: int  #: t, by which budgets are divided
    gamma: float
    levels: tuple[Level, ...]  #: those that are really tested


class SampleSizes(NamedTuple):
    """Rows for one run, by three routes (see `sample_sizes`)."""

    theorem: int  #: as the theorems have it, constants included
    experiments: int  #: the same without the constant 648, as in the authors' experiments
    calibrated: int  #: from the exact laws, whatever the distribution


def schedule(
    *,
    n_clusters: int,
    epsilon: float,
    opt: float,
    dim: int,
    objective: Objective = "kmeans",
    diameter: float | None = None,
    levels: int | None = None,
    paper_constants: bool = False,
) -> Schedule:
    """Thresholds v_i = gamma Gamma 2^(2i) of the replicable quad tree, and where it stops.

    Parameters
    ----------
    n_clusters : int
        k.
    epsilon : float
        Accuracy in (0, 1).
    opt : float
        Gamma, a guess (or lower bound) of the least cost of a row, in a box of half-side 1.
    dim : int
        d, at least 1.
    objective : {"kmeans", "kmedians"}, default="kmeans"
        For k-medians 2^(2i) becomes 2^i and squares of the diameter the diameter (by analogy).
    diameter : float, optional
        Delta; sqrt(d), as in the authors' experiments, if not given.
    levels : int, optional
        t, by which budgets are divided; from the stopping rule if not given.
    paper_constants : bool, default=False
        The paper's factors 2^10 and 1/20, which the authors' experiments leave out.

    Returns
    -------
    Schedule

    Notes
    -----
    gamma = eps / (t k M Delta^2), M = (Delta/eps)^d; t = ceil(log2(5 Delta^2/(eps Gamma))/2 + 1);
    level i is tested while (2^(1-i) Delta)^2 > eps Gamma / 5, and while a cell of all mass would
    pass. Source: Esfandiari et al. 2023 (arXiv 2302.10359), section on the replicable quad tree,
    and the authors' experiments.

    Examples
    --------
    >>> plan = schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    >>> round(plan.gamma, 7), [round(level.mass, 4) for level in plan.levels]
    (0.0269527, [0.0539, 0.2156, 0.8625])
    """
    k, d = check.count("n_clusters", n_clusters), check.count("dim", dim)
    eps, guess = check.proportion("epsilon", epsilon), check.positive("opt", opt)
    if objective not in ("kmeans", "kmedians"):
        raise ValueError(f"objective must be 'kmeans' or 'kmedians', got {objective!r}")
    power = 2 if objective == "kmeans" else 1
    size = math.sqrt(d) if diameter is None else check.positive("diameter", diameter)
    limit = eps * guess / 5
    if levels is None:
        t = max(1, math.ceil(math.log2(size**power / limit) / power + 1))
    else:
        t = check.count("levels", levels)
    spread = (size / eps) ** d * (2**10 if paper_constants else 1)
    gamma = eps / (t * k * spread * size**power) / (20 if paper_constants else 1)
    tested = []
    for i in range(1, 64):
        if (2.0 ** (1 - i) * size) ** power <= limit:
            break
        mass = gamma * guess * 2.0 ** (power * i)
        low, high = threshold_window(mass, mass / 2)
        if low >= 1:
            break
        tested.append(Level(i, 2.0 ** (1 - i), mass, low, high))
    return Schedule(t, gamma, tuple(tested))


def sample_sizes(
    plan: Schedule,
    *,
    dim: int,
    epsilon: float,
    rho: float,
    failure_probability: float,
    skip_levels: int = 1,
    n_leaves: int | None = None,
) -> SampleSizes:
    """Rows of one run for replicability 1 - rho: half of rho for the cells, half for the masses.

    Parameters
    ----------
    plan : Schedule
    dim, epsilon, rho, failure_probability
        As the estimators take them.
    skip_levels : int, default=1
        Levels whose cells are all kept without a test.
    n_leaves : int, optional
        Leaves whose masses are estimated; if not given, as many as the last tested level lets
        pass, at most.

    Examples
    --------
    >>> plan = schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    >>> sizes = sample_sizes(plan, dim=2, epsilon=0.99, rho=0.3, failure_probability=0.01)
    >>> sizes.calibrated < sizes.theorem
    True
    """
    rho, delta = check.budget(rho, failure_probability)
    tested = [level for level in plan.levels if level.level > skip_levels]
    share, miss = rho / 2 / plan.n_levels, delta / plan.n_levels
    miss = min(miss, share / 4)
    theorem = experiments = exact = 0
    leaves = 2 ** (dim * skip_levels)
    for level in tested:
        possible = min(2 ** (dim * level.level), math.floor(1 / level.low))
        leaves = max(leaves, possible)
        if level.mass >= 1:
            continue
        for constant in (648.0, 1.0):
            rows = sum(
                heavy_hitters_design(
                    mass=level.mass, slack=level.mass / 2, rho=share, failure_probability=miss,
                    n_values=max(1, possible), constant=constant,
                )[2:]
            )  # fmt: skip
            if constant == 1.0:
                experiments += rows
            else:
                theorem += rows
        exact = max(exact, calibrated_window_rows(low=level.low, high=level.high, rho=share))
    atoms = leaves if n_leaves is None else check.count("n_leaves", n_leaves)
    masses = masses_design(
        n_atoms=atoms, epsilon=epsilon / 10, rho=rho / 2, failure_probability=min(delta, rho / 8)
    )
    wanted = math.ceil(4 * max(atoms - 1, 1) / (math.pi * (masses.alpha * rho / 2) ** 2))
    return SampleSizes(theorem + masses.n, experiments + masses.n, exact + wanted)


def jl_dimension(
    *, n_clusters: int, epsilon: float, failure_probability: float, constant: float = 1.0
) -> int:
    """Dimension log(k / (delta eps)) / eps^2 at which a random projection keeps k-means costs.

    Up to a constant that the theorem leaves open (Makarychev, Makarychev, Razenshteyn 2019, as
    used by Esfandiari et al. 2023, arXiv 2302.10359).

    Examples
    --------
    >>> jl_dimension(n_clusters=3, epsilon=0.9, failure_probability=0.05)
    6
    """
    k = check.count("n_clusters", n_clusters)
    eps = check.proportion("epsilon", epsilon)
    delta = check.proportion("failure_probability", failure_probability)
    return math.ceil(check.positive("constant", constant) * math.log(k / (delta * eps)) / eps**2)


def k_centers_bound(*, opt: float, side: float, dim: int, beta: float = 2.0) -> float:
    """Largest radius of replicable k-centers: beta OPT + (beta + 1) c sqrt(d) / 2.

    Every point moves at most c sqrt(d) / 2 to the centre of its cell, and back, if cells that are
    not active hold no mass. Re-derived, and checked on 500 random instances with exact optimum.

    Examples
    --------
    >>> round(k_centers_bound(opt=1.0, side=0.5, dim=2), 3)
    3.061
    """
    if not opt >= 0:
        raise ValueError(f"opt must be >= 0, got {opt!r}")
    half = check.positive("side", side) * math.sqrt(check.count("dim", dim)) / 2
    return beta * opt + (beta + 1) * half
