"""Which mechanism is best for a budget, and what to expect: from public or pilot knowledge only.

For every member of the family the planner finds the parameters with the smallest predicted
variance at the same (epsilon, delta), and says when the plain uniform prior is best, which under
pure privacy (delta = 0) it always is. Choosing parameters from the private outcomes would leak
them, so the pilot must be public, or earlier data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from privlearn.causal import baselines, kernels, mechanism, theory
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.causal.theory._arguments import check_budget, check_delta, check_distributions

__all__ = ["Option", "Plan", "discretised_normal", "plan", "prior_moments"]

FLOORS = (0.001, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)


class Option(NamedTuple):
    """One way to spend the budget, and the variance to expect from it.

    Attributes
    ----------
    name : str
    per_unit : bool
        Whether it releases a private outcome per unit, not only means or counts of cells.
    gap : float
        Variance that privacy adds to the estimate.
    stderr : float
        Standard error to expect, sampling included.
    mechanism : object
        Ready to ``privatize``.
    delta : float
        Which part of the delta it uses.
    """

    name: str
    per_unit: bool
    gap: float
    stderr: float
    mechanism: Any
    delta: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Options for one budget, best first, those with an outcome per unit before the others.

    Attributes
    ----------
    options : tuple of Option
    epsilon, delta : float
    sampling_variance : float
        Variance that the estimate has without privacy (not counting how effects vary within
        clusters, which makes it smaller).
    boundary : float
        Delta from which on empirical priors pay, roughly (`theory.boundary_delta`).
    """

    options: tuple[Option, ...]
    epsilon: float
    delta: float
    sampling_variance: float
    boundary: float

    @property
    def best(self) -> Option:
        """Best option with a private outcome per unit."""
        return self.options[0]

    def __getitem__(self, name: str) -> Option:
        """Option of that name; KeyError lists the names."""
        for option in self.options:
            if option.name == name:
                return option
        raise KeyError(f"no option {name!r} among {[o.name for o in self.options]}")

    @property
    def advice(self) -> str:
        """What to do, and what it costs, in a few sentences."""
        best, lines = self.best, []
        family = [o for o in self.options if isinstance(o.mechanism, mechanism._Resampling)]
        resampler = min(family, key=lambda o: o.gap)
        if resampler.name == mechanism.UniformPriorDP.name:
            why = (
                "as always for delta = 0"
                if self.delta == 0
                else f"delta = {self.delta:g} is too small (about {self.boundary:.2g} is needed)"
            )
            lines.append(f"Uniform prior is best here within the Cluster-DP family, {why}.")
        else:
            gain = self[mechanism.UniformPriorDP.name].gap / resampler.gap
            lines.append(
                f"{resampler.name} is best here within its family: {gain:.3g} times less added "
                f"variance than the uniform prior, bought with delta = {self.delta:g}."
            )
            leak = resampler.mechanism.leaked_share
            lines.append(
                f"About {100 * leak:.2g} % of the outcomes are then told in clear: that is what "
                "such a delta allows."
            )
        if resampler.gap > 1.01 * best.gap:
            lines.append(
                f"Of all releases with an outcome per unit, {best.name} adds least: "
                f"{resampler.gap / best.gap:.3g} times less than {resampler.name}."
            )
        rest = [o for o in self.options if not o.per_unit]
        if rest:
            cheapest = min(rest, key=lambda o: o.gap)
            lines.append(
                f"If only the effect is wanted, {cheapest.name} adds {best.gap / cheapest.gap:.3g} "
                "times less variance, with delta = 0."
            )
        return " ".join(lines)

    def __str__(self) -> str:
        rows = [("release", "per unit", "added variance", "standard error", "parameters")]
        for o in self.options:
            m = o.mechanism
            parameters = (
                f"lam = {m.lam:.4g}, gamma K = {m.gamma * m.grid.k:.4g}, sigma = {m.sigma:.4g}"
                if isinstance(m, mechanism.ClusterDP)
                else f"lam = {m.lam:.4g}"
                if isinstance(m, mechanism.UniformPriorDP)
                else f"epsilon = {m.epsilon:.4g}"
            )
            each = "yes" if o.per_unit else "no"
            rows.append((o.name, each, f"{o.gap:.4g}", f"{o.stderr:.4g}", parameters))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        head = f"epsilon = {self.epsilon:g}, delta = {self.delta:g}"
        return "\n".join([head, *lines, self.advice])

    __repr__ = __str__


def discretised_normal(grid: OutcomeGrid, mean: ArrayLike, sd: ArrayLike) -> np.ndarray:
    """Pilot distributions on a grid from means and standard deviations, shape (..., K).

    A normal density at the grid points, scaled to sum to one. Its moments are those asked for
    where the grid is fine and wide against `sd`.

    Examples
    --------
    >>> p = discretised_normal(OutcomeGrid.of(range(11)), mean=4.0, sd=1.5)
    >>> float((p * range(11)).sum().round(3))
    4.006
    """
    mean, sd = np.asarray(mean, float), np.asarray(sd, float)
    if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()):
        raise ValueError("mean must be finite and sd positive and finite")
    z = (grid.array - mean[..., None]) / sd[..., None]
    p = np.exp(-(z**2) / 2 + (z**2).min(-1, keepdims=True) / 2)
    return p / p.sum(-1, keepdims=True)


def prior_moments(
    p: np.ndarray,
    sizes: np.ndarray,
    values: np.ndarray,
    *,
    gamma: float,
    sigma: float,
    pooled: bool,
    normalize: kernels.Normalize = "project",
    n_draws: int = 200,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Expected variance of the values under the noisy priors, and squared distance of means.

    Parameters
    ----------
    p : ndarray of shape (C, 2, K)
        True shares of the values in each cell.
    sizes : ndarray of shape (C, 2)
    values : ndarray of shape (K,)
    gamma, sigma : float
    pooled : bool
        One prior per arm (Cluster-Free-DP), or one per cell.
    normalize : str
    n_draws : int
        Draws of the noise (1 is enough for sigma = 0).
    rng : Generator

    Returns
    -------
    (ndarray of shape (C, 2), ndarray of shape (C, 2))
        E[v_q] and E[(mean_q - mean_p)^2] of each cell.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    counts = p * sizes[..., None]
    if pooled:
        counts, sizes = counts.sum(0, keepdims=True), sizes.sum(0, keepdims=True)
    draws = 1 if sigma == 0 else n_draws
    noise = _discrete_laplace(rng, sigma, (draws, *counts.shape))
    priors = kernels.priors_from_counts(counts + noise, np.asarray(sizes), gamma, normalize)
    mean, variance = kernels.distribution_moments(priors, values)
    own = p @ values
    return np.broadcast_to(variance.mean(0), own.shape), ((mean - own) ** 2).mean(0)


def _discrete_laplace(rng: np.random.Generator, sigma: float, shape: tuple) -> np.ndarray:
    if sigma == 0:
        return np.zeros(shape)
    up, down = np.floor(rng.exponential(sigma, (2, *shape)))
    return up - down


def expected_gap(
    p: np.ndarray,
    sizes: np.ndarray,
    values: np.ndarray,
    lam: float,
    spread: np.ndarray,
    distance: np.ndarray,
) -> float:
    """Variance gap from the moments of the priors, see `prior_moments`."""
    centre = p @ values
    own = ((values - centre[..., None]) ** 2 * p).sum(-1) + distance
    each = (lam * spread + lam * (1 - lam) * own) / (1 - lam) ** 2
    return float((theory.cell_weights(sizes).weights * each).sum())


def plan(
    grid: OutcomeGrid,
    sizes: ArrayLike,
    pilot: ArrayLike,
    *,
    epsilon: float,
    delta: float = 0.0,
    floors: Sequence[float] = FLOORS,
    shares: Sequence[float] = SHARES,
    normalize: kernels.Normalize = "project",
    n_draws: int = 40,
    random_state: int = 0,
) -> Plan:
    """Predict the variance of every mechanism at a budget, each at its best parameters.

    Parameters
    ----------
    grid : OutcomeGrid
    sizes : array-like of shape (C, 2)
        Units per cluster and arm: public.
    pilot : array-like of shape (C, 2, K), (2, K) or (K,)
        Shares of the values expected in each cell; from public or earlier data
        (`discretised_normal` makes them from means and standard deviations).
    epsilon, delta : float
        The whole budget.
    floors : sequence of float
        Candidates for gamma K, in (0, 1).
    shares : sequence of float
        Candidates for the share of epsilon that the priors get; 1 is left out for delta = 0.
    normalize : str
    n_draws : int, default=40
        Draws of the noise behind each prediction.
    random_state : int, default=0

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the pilot's rows do not sum to one or do not fit the grid, a cell is empty, or the
        budget is out of range.

    Examples
    --------
    >>> grid = OutcomeGrid.of(range(12))
    >>> pilot = discretised_normal(grid, [[2.0, 3.0], [5.0, 6.0], [8.0, 9.0]], 1.2)
    >>> chosen = plan(grid, [[500, 500]] * 3, pilot, epsilon=0.2, delta=0.05)
    >>> chosen.best.name, plan(grid, [[500, 500]] * 3, pilot, epsilon=0.2).best.name
    ('Cluster-DP', 'one bit per outcome')
    """
    epsilon, delta = check_budget(epsilon), check_delta(delta)
    sizes = theory.cell_weights(sizes).sizes
    p = check_distributions("pilot", pilot, grid.k)
    if p.ndim > 3:
        raise ValueError(f"pilot must have shape (C, 2, K), (2, K) or (K,), got {p.shape}")
    p = np.broadcast_to(p, (*sizes.shape, grid.k))
    for name, candidates in (("floors", floors), ("shares", shares)):
        if not all(0 < x <= 1 for x in candidates):
            raise ValueError(f"{name} must lie in (0, 1], got {tuple(candidates)}")
    within = ((grid.array - (p @ grid.array)[..., None]) ** 2 * p).sum(-1)
    sampling = float((theory.cell_weights(sizes).weights * within).sum())

    found: list[tuple[Any, float]] = [_uniform(grid, p, sizes, epsilon, delta)]
    for kind in (mechanism.ClusterDP, mechanism.ClusterFreeDP):
        tried = [
            _candidate(kind, grid, p, sizes, epsilon, delta, floor / grid.k, share, normalize,
                       n_draws, random_state)
            for floor in floors if floor < 1
            for share in shares if share < 1 or delta > 0
        ]  # fmt: skip
        if tried:
            found.append(min(tried, key=lambda c: c[1]))
    rows = [(m, gap, True, delta) for m, gap in found]
    rows += _others(grid, p, sizes, epsilon)
    options = [
        Option(m.name, per_unit, gap, math.sqrt(sampling + gap), m, used)
        for m, gap, per_unit, used in rows
    ]
    # Equal to six digits is a tie (two values: one bit is randomised response); the family leads.
    options.sort(key=lambda o: (not o.per_unit, float(f"{o.gap:.6g}")))
    boundary = float(theory.boundary_delta(epsilon, grid.k))
    return Plan(tuple(options), epsilon, delta, sampling, boundary)


def _uniform(grid: OutcomeGrid, p: Any, sizes: Any, epsilon: float, delta: float) -> Any:
    chosen = mechanism.UniformPriorDP.for_budget(grid, epsilon, delta)
    flat = np.full(p.shape, 1 / grid.k)
    return chosen, theory.variance_gap(p, flat, grid.array, chosen.exact_lam, sizes)


def _candidate(
    kind: Any, grid: OutcomeGrid, p: Any, sizes: Any, epsilon: float, delta: float, gamma: float,
    share: float, normalize: Any, n_draws: int, seed: int,
) -> tuple[Any, float]:  # fmt: skip
    chosen = kind.for_budget(
        grid, epsilon, delta, gamma=gamma, prior_share=share, normalize=normalize
    )
    spread, distance = prior_moments(
        p, sizes, grid.array, gamma=gamma, sigma=chosen.sigma, normalize=normalize,
        pooled=kind is mechanism.ClusterFreeDP, n_draws=n_draws, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return chosen, expected_gap(p, sizes, grid.array, chosen.exact_lam, spread, distance)


def _others(grid: OutcomeGrid, p: Any, sizes: Any, epsilon: float) -> list[tuple]:
    """Other releases at the same epsilon; none of them needs delta."""
    width = grid.width
    return [
        (
            baselines.LaplaceOutcome(grid, epsilon),
            theory.laplace_outcome_gap(width, epsilon, sizes),
            True,
            0.0,
        ),
        (
            baselines.OneBitOutcome(grid, epsilon),
            theory.one_bit_gap(p, grid.array, epsilon, sizes),
            True,
            0.0,
        ),
        (
            baselines.NoisyCellMeans(grid, epsilon),
            theory.noisy_mean_gap(width, epsilon, sizes),
            False,
            0.0,
        ),
        (
            baselines.NoisyHistogram(grid, epsilon),
            theory.noisy_histogram_gap(grid.array, epsilon, sizes),
            False,
            0.0,
        ),
    ]
