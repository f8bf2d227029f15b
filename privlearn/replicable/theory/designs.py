"""Sample sizes and grids: what the theorems ask for, and what the exact laws ask for."""

from __future__ import annotations

import math
from typing import NamedTuple

from . import _arguments as check


class StatQueryDesign(NamedTuple):
    """How to estimate one mean in [0, 1] replicably (see `stat_query_design`)."""

    alpha: float  #: width of the grid
    estimate_accuracy: float  #: how close the sample mean must come to the truth, tau'
    n: int  #: rows


class HeavyHittersDesign(NamedTuple):
    """How to find heavy values replicably (see `heavy_hitters_design`)."""

    low: float  #: least threshold
    high: float  #: greatest threshold
    n_candidates: int  #: rows for the candidates
    n_frequencies: int  #: fresh rows for the frequencies


class MassesDesign(NamedTuple):
    """How to estimate the masses of known atoms replicably (see `masses_design`)."""

    alpha: float  #: width of the grid
    estimate_accuracy: float  #: accuracy that the frequencies must have, eps'
    n: int  #: rows


def stat_query_design(*, tau: float, rho: float, failure_probability: float) -> StatQueryDesign:
    """Grid and rows for a replicable mean of a [0, 1] quantity: accuracy tau, failure rho.

    Parameters
    ----------
    tau : float
        Accuracy, in (0, 1): the output is within tau of the mean, but for the failure probability.
    rho : float
        Probability that two runs may differ.
    failure_probability : float
        delta, below rho / 3.

    Returns
    -------
    StatQueryDesign
        alpha = 2 tau / (rho + 1 - 2 delta), tau' = tau (rho - 2 delta) / (rho + 1 - 2 delta),
        n = ceil(log(2/delta) / (2 tau'^2)), so that tau' + alpha / 2 = tau and
        2 delta + 2 tau' / alpha = rho.

    Notes
    -----
    Source: Impagliazzo et al. 2022 (arXiv 2201.08430), the replicable statistical query. Very
    conservative: see `laws.rounding_differs`.

    Examples
    --------
    >>> stat_query_design(tau=0.05, rho=0.1, failure_probability=0.01).n
    193124
    """
    tau = check.proportion("tau", tau)
    rho, delta = check.budget(rho, failure_probability)
    whole = rho + 1 - 2 * delta
    accuracy = tau * (rho - 2 * delta) / whole
    return StatQueryDesign(
        2 * tau / whole, accuracy, math.ceil(math.log(2 / delta) / (2 * accuracy**2))
    )


def threshold_window(mass: float, slack: float) -> tuple[float, float]:
    """Range of the random threshold of heavy hitters: [v - 2 eps / 3, v - eps / 3].

    Examples
    --------
    >>> [round(end, 4) for end in threshold_window(0.3, 0.15)]
    [0.2, 0.25]
    """
    mass, slack = check.positive("mass", mass), check.positive("slack", slack)
    if not slack < mass:
        raise ValueError(f"slack must be below mass = {mass!r}, got {slack!r}")
    return mass - 2 * slack / 3, mass - slack / 3


def heavy_hitters_design(
    *,
    mass: float,
    slack: float,
    rho: float,
    failure_probability: float,
    n_values: int | None = None,
    constant: float = 648.0,
) -> HeavyHittersDesign:
    """Rows for replicable heavy hitters: all values of mass v found, none below v - eps.

    Parameters
    ----------
    mass, slack : float
        v and eps, 0 < eps < v < 1.
    rho, failure_probability : float
        As in `stat_query_design`.
    n_values : int, optional
        Candidates that are really met; the number of candidate rows if not given (each could be
        a new value).
    constant : float, default=648
        Of the second sample; the authors' experiments use 1.

    Notes
    -----
    Source: Impagliazzo et al. 2022 (arXiv 2201.08430); constants as in the experiments of
    Esfandiari et al. 2023 (arXiv 2302.10359).

    Examples
    --------
    >>> design = heavy_hitters_design(mass=0.4, slack=0.1, rho=0.1, failure_probability=0.01,
    ...     n_values=22, constant=1)
    >>> design.n_candidates, design.n_frequencies
    (22, 212408)
    """
    mass = check.proportion("mass", mass)
    rho, delta = check.budget(rho, failure_probability)
    low, high = threshold_window(mass, slack)
    least = mass - slack
    first = math.ceil(math.log(2 / (delta * least)) / least)
    values = first if n_values is None else check.count("n_values", n_values)
    inside = math.log(2 / delta) + (values + 1) * math.log(2)
    second = math.ceil(check.positive("constant", constant) * inside / (rho * slack) ** 2)
    return HeavyHittersDesign(low, high, first, second)


def masses_design(
    *, n_atoms: int, epsilon: float, rho: float, failure_probability: float
) -> MassesDesign:
    """Grid and rows for the masses of known atoms, within epsilon in total.

    Notes
    -----
    alpha = 2 eps / (rho + 1 - 2 delta), eps' = eps (rho - 2 delta) / (rho + 1 - 2 delta),
    n = ceil((log(1/delta) + N log 2) / (2 eps'^2)). Source: Esfandiari et al. 2023
    (arXiv 2302.10359), replicable probability mass estimation.

    Examples
    --------
    >>> round(masses_design(n_atoms=4, epsilon=0.099, rho=0.3, failure_probability=0.01).alpha, 4)
    0.1547
    """
    atoms = check.count("n_atoms", n_atoms)
    epsilon = check.positive("epsilon", epsilon)
    rho, delta = check.budget(rho, failure_probability)
    whole = rho + 1 - 2 * delta
    accuracy = epsilon * (rho - 2 * delta) / whole
    rows = math.ceil((math.log(1 / delta) + atoms * math.log(2)) / (2 * accuracy**2))
    return MassesDesign(2 * epsilon / whole, accuracy, rows)


def calibrated_mass_grid(*, n: int, n_atoms: int, rho: float) -> float:
    """Width of the mass grid at which two runs of n rows differ with probability at most rho.

    From the exact law of rounding (normal approximation of the frequencies) at equal masses, which
    are the worst ones: alpha = 2 sqrt((N - 1) / (pi n)) / rho. It depends on nothing but what both
    runs know. Derived here and checked by simulation.

    Examples
    --------
    >>> round(calibrated_mass_grid(n=16_000, n_atoms=4, rho=0.1), 4)
    0.1545
    """
    n, atoms = check.count("n", n), check.count("n_atoms", n_atoms)
    return 2 * math.sqrt(max(atoms - 1, 1) / (math.pi * n)) / check.proportion("rho", rho)


def calibrated_mean_grid(*, n: int, n_leaves: int, dim: int, rho: float) -> float:
    """Width of the grid of means, in sides of a leaf, at which two runs differ with P about rho.

    N d 2 s / (sqrt(pi n / N) rho) for leaves of equal mass whose rows are spread uniformly
    (s = 1 / sqrt(12) sides): the sum over all coordinates of the law of rounding. Derived here;
    a plan, not a bound: the forecast of a fit uses the deviations that it finds.

    Examples
    --------
    >>> round(calibrated_mean_grid(n=16_000, n_leaves=4, dim=2, rho=0.15), 3)
    0.275
    """
    n, leaves = check.count("n", n), check.count("n_leaves", n_leaves)
    each = 2 / math.sqrt(12 * math.pi * n / leaves)
    return leaves * check.count("dim", dim) * each / check.proportion("rho", rho)


def calibrated_window_rows(*, low: float, high: float, rho: float) -> int:
    """Rows at which a random threshold on [low, high] selects the same cells, whatever the masses.

    At most 1 / low cells can matter; each differs with probability at most
    2 sqrt(p(1-p)/(pi n)) / (high - low) with p <= high or p = 1/2. Derived here.

    Examples
    --------
    >>> calibrated_window_rows(low=0.1437, high=0.1797, rho=0.1)
    521349
    """
    low, high = check.window(low, high)
    if low == 0:
        raise ValueError("low must be positive: any number of cells could have the mass 0")
    rho, p = check.proportion("rho", rho), min(high, 0.5)
    cells = max(1, math.floor(1 / low))
    return math.ceil(4 / math.pi * p * (1 - p) * (cells / (rho * (high - low))) ** 2)
