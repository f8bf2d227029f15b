"""Replicable estimates: the same value, bit by bit, from two samples, with a stated probability.

Each takes ``shared_seed``, the one argument that two teams must share, and ``purpose``, a name
under which this use draws its shared numbers: give each use its own. What the estimates share is a
randomly shifted grid or a random threshold; how often two runs differ is in
`privlearn.replicable.theory`, exactly.

Sources: Impagliazzo, Lei, Pitassi, Sorrell 2022 (arXiv 2201.08430) for the replicable statistical
query and heavy hitters; Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou 2023 (arXiv 2302.10359) for
masses. Plain NumPy: results must not depend on how a compiler orders additions.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .streams import check_shared_seed, uniforms
from .theory import threshold_window
from .theory._arguments import positive, window

FloatArray = NDArray[np.float64]


class HeavyHitters(NamedTuple):
    """Values of large mass (see `replicable_heavy_hitters`)."""

    values: NDArray[Any]  #: sorted
    threshold: float  #: the random threshold, the same in every run with this seed
    low: float  #: range of the threshold
    high: float


def replicable_round(
    values: ArrayLike,
    *,
    alpha: ArrayLike,
    shared_seed: int,
    purpose: str = "round",
    labels: ArrayLike | tuple[ArrayLike, ...] = (),
) -> FloatArray:
    """Round to the midpoints of a grid of width alpha whose offset is random and shared.

    Two runs whose values are v1 and v2 round them differently with probability
    min(1, |v1 - v2| / alpha), over the shared seed.

    Parameters
    ----------
    values : float or array
        What was estimated.
    alpha : float or array
        Width of the half-open cells [o + alpha j, o + alpha (j + 1)).
    shared_seed : int
        Shared by all runs.
    purpose : str, default="round"
        Name of this use.
    labels : array of int or tuple of such, default=()
        Labels of the values (their cell, their coordinate); every combination has an offset of its
        own. Without labels all values share one.

    Returns
    -------
    float or ndarray, within alpha / 2 of the values

    Examples
    --------
    >>> first, second = (replicable_round(v, alpha=0.1, shared_seed=3) for v in (0.412, 0.408))
    >>> bool(first == second)
    True
    """
    width = np.asarray(alpha, dtype=np.float64)
    if not (np.isfinite(width) & (width > 0)).all():
        raise ValueError(f"alpha must be positive and finite, got {alpha!r}")
    v = np.asarray(values, dtype=np.float64)
    if not np.isfinite(v).all():
        raise ValueError("values must be finite: they contain NaN or infinity")
    keys = labels if isinstance(labels, tuple) else (labels,)
    offset = uniforms(check_shared_seed(shared_seed), f"offset/{purpose}", *keys)
    cell = np.floor(v / width - offset)
    return ((cell + offset + 0.5) * width)[()]


def replicable_mean(
    values: ArrayLike,
    *,
    alpha: float,
    shared_seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    purpose: str = "mean",
) -> float:
    """Replicable statistical query: the mean of a bounded quantity, rounded on a shared grid.

    Parameters
    ----------
    values : array of shape (n,)
        The quantity of each row, within the bounds.
    alpha : float
        Width of the grid, in the unit of the values. `theory.stat_query_design` gives it (and n)
        for a wanted accuracy, `theory.rounding_differs` what it does at your n.
    shared_seed : int
        Shared by all runs.
    bounds : (float, float), default=(0, 1)
        Known bounds. Must be shared too: never take them from the sample.
    purpose : str, default="mean"
        Name of this use.

    Returns
    -------
    float
        Within alpha / 2 of the sample mean, and within the bounds.

    Raises
    ------
    ValueError
        If there are no values, or some lie outside the bounds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> clicked = rng.random((2, 100_000)) < 0.3          # two samples of one population
    >>> a, b = (replicable_mean(sample, alpha=0.05, shared_seed=5) for sample in clicked)
    >>> a == b
    True
    """
    v = _column(values)
    low, high = (float(end) for end in bounds)
    if not low < high:
        raise ValueError(f"bounds must be (low, high) with low < high, got {bounds!r}")
    if v.min() < low or v.max() > high:
        raise ValueError(f"values must lie in bounds {bounds!r}; they reach {v.min()} to {v.max()}")
    rounded = replicable_round(v.mean(), alpha=alpha, shared_seed=shared_seed, purpose=purpose)
    return float(np.clip(rounded, low, high))


def replicable_threshold(
    *,
    low: float,
    high: float,
    shared_seed: int,
    purpose: str = "threshold",
    label: ArrayLike = 0,
) -> Any:
    """A threshold, uniform on [low, high), the same for everyone who has the seed.

    Two runs that compare their frequencies v1 and v2 with it disagree with probability
    |clip(v1) - clip(v2)| / (high - low), clipping to [low, high].

    Parameters
    ----------
    low, high : float
        Range, 0 <= low < high.
    shared_seed : int
        Shared by all runs.
    purpose : str, default="threshold"
        Name of this use.
    label : int or array of int, default=0
        Which one of several; an array of labels gives an array of thresholds.

    Examples
    --------
    >>> bool(0.2 <= replicable_threshold(low=0.2, high=0.25, shared_seed=1) < 0.25)
    True
    """
    low, high = window(low, high)
    u = uniforms(check_shared_seed(shared_seed), f"threshold/{purpose}", label)
    return (low + (high - low) * u)[()]


def replicable_heavy_hitters(
    values: ArrayLike,
    *,
    mass: float,
    slack: float | None = None,
    shared_seed: int,
    candidates: ArrayLike | None = None,
    purpose: str = "heavy hitters",
) -> HeavyHitters:
    """All values of probability at least ``mass``, none below ``mass - slack``, replicably.

    Parameters
    ----------
    values : array of shape (n,)
        The sample; anything that NumPy can sort.
    mass : float
        v, in (0, 1).
    slack : float, optional
        eps < v; v / 2 if not given.
    shared_seed : int
        Shared by all runs.
    candidates : array, optional
        Values of a first sample, from which the candidates are taken; the theorem wants it. The
        values themselves if not given.
    purpose : str, default="heavy hitters"
        Name of this use.

    Returns
    -------
    HeavyHitters

    Examples
    --------
    >>> colours = np.repeat(["red", "green", "blue"], [60, 35, 5])
    >>> replicable_heavy_hitters(colours, mass=0.3, shared_seed=0).values.tolist()
    ['green', 'red']
    """
    slack = mass / 2 if slack is None else slack
    low, high = threshold_window(mass, slack)
    if mass >= 1:
        raise ValueError(f"mass must be below 1, got {mass!r}")
    column = np.asarray(values)
    if column.ndim != 1 or len(column) == 0:
        raise ValueError(f"values must have shape (n,) with n >= 1, got {column.shape}")
    threshold = float(
        replicable_threshold(low=low, high=high, shared_seed=shared_seed, purpose=purpose)
    )
    found, counts = np.unique(column, return_counts=True)
    heavy = counts / len(column) >= threshold
    if candidates is not None:
        heavy &= np.isin(found, np.asarray(candidates))
    return HeavyHitters(found[heavy], threshold, low, high)


def replicable_masses(
    counts: ArrayLike,
    *,
    alpha: float,
    shared_seed: int,
    offsets: Literal["shared", "own"] = "shared",
    purpose: str = "masses",
) -> FloatArray:
    """Probabilities of known atoms, rounded on a shared grid and made to sum to 1.

    Parameters
    ----------
    counts : array of shape (n_atoms,)
        Rows of each atom.
    alpha : float
        Width of the grid (`theory.masses_design`, `theory.calibrated_mass_grid`).
    shared_seed : int
        Shared by all runs.
    offsets : {"shared", "own"}, default="shared"
        One offset for all atoms, or one for each. The probability that two runs differ has the same
        bound; with one offset equal masses are rounded equally, so that the division by the sum
        takes the error away again, and failures coincide.
    purpose : str, default="masses"
        Name of this use.

    Returns
    -------
    ndarray of shape (n_atoms,)
        At least 0, of sum 1; equal masses if all are rounded to 0.

    Examples
    --------
    >>> replicable_masses([260, 240, 255, 245], alpha=0.1, shared_seed=2).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    c = np.asarray(counts, dtype=np.float64)
    if c.ndim != 1 or len(c) == 0 or not np.isfinite(c).all() or (c < 0).any() or c.sum() == 0:
        raise ValueError("counts must be one row of numbers >= 0, not all 0")
    if offsets not in ("shared", "own"):
        raise ValueError(f"offsets must be 'shared' or 'own', got {offsets!r}")
    labels: Any = np.arange(len(c)) if offsets == "own" else ()
    rounded = replicable_round(
        c / c.sum(), alpha=alpha, shared_seed=shared_seed, purpose=purpose, labels=labels
    ).clip(0, 1)
    total = rounded.sum()
    return rounded / total if total > 0 else np.full(len(c), 1 / len(c))


def replicable_median(
    values: ArrayLike,
    *,
    bounds: tuple[float, float],
    resolution: float,
    tau: float = 0.05,
    shared_seed: int,
    purpose: str = "median",
) -> float:
    """A value near the median in rank, by binary search against random thresholds.

    Each step compares the share of rows at or below the middle of an interval with a shared
    threshold, uniform on [1/2 - tau, 1/2 + tau], and keeps one half. Two runs differ with
    probability at most (number of steps) * max E|F1 - F2| / (2 tau), whatever the distribution
    (gap in `theory.binomial_gap`). A simple search: not the median of Impagliazzo et al., whose
    sample size grows only with the iterated logarithm of the range; where the density at the median
    is known to be large, rounding the sample median (`replicable_round`) needs fewer rows.

    Parameters
    ----------
    values : array of shape (n,)
        The sample; what lies outside the bounds counts as the bound.
    bounds : (float, float)
        Known range, shared.
    resolution : float
        Width of the last interval; the number of steps is ceil(log2(range / resolution)).
    tau : float, default=0.05
        Half-width of the threshold, in rank.
    shared_seed : int
        Shared by all runs.
    purpose : str, default="median"
        Name of this use.

    Returns
    -------
    float
        Midpoint of the last interval, which holds a quantile of the sample of a level within tau
        of 1/2.

    Examples
    --------
    >>> sample = np.random.default_rng(0).exponential(size=10_001)
    >>> m = replicable_median(sample, bounds=(0, 16), resolution=0.125, shared_seed=2)
    >>> bool(abs((sample <= m).mean() - 0.5) < 0.1)
    True
    """
    v = _column(values)
    low, high = (float(end) for end in bounds)
    if not low < high:
        raise ValueError(f"bounds must be (low, high) with low < high, got {bounds!r}")
    if not 0 < tau < 0.5:
        raise ValueError(f"tau must lie in (0, 1/2), got {tau!r}")
    steps = max(0, int(np.ceil(np.log2((high - low) / positive("resolution", resolution)))))
    for step in range(steps):
        middle = (low + high) / 2
        threshold = replicable_threshold(
            low=0.5 - tau, high=0.5 + tau, shared_seed=shared_seed, purpose=purpose, label=step
        )
        if (v <= middle).mean() >= threshold:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _column(values: ArrayLike) -> FloatArray:
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1 or len(v) == 0:
        raise ValueError(f"values must have shape (n,) with n >= 1, got {v.shape}")
    if not np.isfinite(v).all():
        raise ValueError("values must be finite: they contain NaN or infinity")
    return v
