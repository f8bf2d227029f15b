"""What leaves the data holder: releases that hold nothing but public facts and private outcomes.

Each kind of release can be turned into an effect by itself (`effect`, `cell_estimates`); nothing
else is needed, and nothing else is there: no true outcome, no true count, no key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from privlearn.causal import entropy, kernels
from privlearn.causal.cells import Cells
from privlearn.causal.kernels import Effect, Moments
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.causal.theory import response_matrix
from privlearn.privacy import Guarantee


class CellEstimates(NamedTuple):
    """Unbiased mean outcome of each cell and the estimated variance of that mean, shape (C, 2)."""

    size: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class _UnitRelease:
    """What releases with one private outcome per unit share."""

    outcomes: np.ndarray
    cells: Cells
    guarantee: Guarantee
    mechanism: str

    def moments(self) -> Moments:
        """Size, mean and squared deviations of the debiased scores of each cell, (C, 2)."""
        raise NotImplementedError

    def cell_estimates(self) -> CellEstimates:
        """Mean score of each cell and its variance; cells of one unit have variance nan."""
        size, mean, squares = self.moments()
        with np.errstate(invalid="ignore", divide="ignore"):
            return CellEstimates(size, mean, squares / (size - 1) / size)

    def effect(self, stratify: bool = True) -> Effect:
        """Effect and estimated variance: weights n_c / n, or all clusters thrown together."""
        moments = self.moments()
        effect = kernels.stratified_effect(moments if stratify else kernels.pool_clusters(moments))
        return Effect(float(effect.tau), float(effect.variance))

    @property
    def values(self) -> np.ndarray:
        """Private outcome of each unit, in the units of the outcome; biased before debiasing."""
        return self.outcomes

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table that may be published: cluster, arm, private outcome."""
        labels = np.array(self.cells.labels)
        return {
            "cluster": labels[self.cells.clusters],
            "arm": self.cells.arms,
            "outcome": self.values,
        }

    def __str__(self) -> str:
        sizes = self.cells.sizes
        return (
            f"{self.mechanism}: {self.cells.n} units in {self.cells.n_clusters} clusters, "
            f"cells of {sizes.min()} to {sizes.max()}\n{self.guarantee}"
        )

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class OutcomeRelease(_UnitRelease):
    """Private outcomes on a grid, and the priors that debias them.

    Attributes
    ----------
    outcomes : ndarray of shape (n,), int32
        Private value codes; ``values`` gives the values.
    cells : Cells
        Public layout.
    guarantee : Guarantee
    mechanism : str
        Name of the mechanism.
    grid : OutcomeGrid
        Public.
    lam : float
        Resampling probability, a multiple of 2^-32.
    weights : ndarray of shape (P, K), int64
        The priors that were drawn from, exactly, as weights that sum to `entropy.total_weight`.
    prior_of_cell : ndarray of shape (2 C,)
        Which prior each cell used.
    """

    grid: OutcomeGrid
    lam: float
    weights: np.ndarray
    prior_of_cell: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """Private outcome of each unit, in the units of the outcome; biased before debiasing."""
        return self.grid.array[self.outcomes]

    @property
    def priors(self) -> np.ndarray:
        """Private prior of each cell, shape (C, 2, K)."""
        p = self.weights / entropy.total_weight(self.grid.k)
        return p[self.prior_of_cell].reshape(-1, 2, self.grid.k)

    def prior_means(self) -> np.ndarray:
        """Mean value under the prior of each cell, shape (C, 2)."""
        means = self.weights @ self.grid.array / entropy.total_weight(self.grid.k)
        return means[self.prior_of_cell].reshape(-1, 2)

    def scores(self) -> np.ndarray:
        """Debiased outcome of each unit: unbiased for the true one, and noisy."""
        means = self.prior_means().ravel()[self.cells.codes]
        return (self.values - self.lam * means) / (1 - self.lam)

    def moments(self) -> Moments:
        """Size, mean and squared deviations of the debiased scores of each cell, (C, 2)."""
        k, n_cells = self.grid.k, 2 * self.cells.n_clusters
        counts = kernels.count_cells(self.outcomes, self.cells.codes, n_cells, k)
        shaped = counts.reshape(-1, 2, k)
        return kernels.score_moments(shaped, self.grid.array, self.prior_means(), self.lam)

    def response_matrix(self, cluster: int, arm: int) -> np.ndarray:
        """P(private = row | true = column) in one cell, shape (K, K)."""
        n = self.cells.n_clusters
        if not (0 <= cluster < n and arm in (0, 1)):
            raise ValueError(f"cluster must be 0 ... {n - 1} and arm 0 or 1, got {cluster}, {arm}")
        return response_matrix(self.priors[cluster, arm], self.lam)


@dataclass(frozen=True, eq=False, repr=False)
class ScoreRelease(_UnitRelease):
    """Private outcomes that are unbiased as they are, such as outcome plus noise."""

    def moments(self) -> Moments:
        """Size, mean and squared deviations of the outcomes of each cell, (C, 2)."""
        codes, n_cells = self.cells.codes, 2 * self.cells.n_clusters
        size = self.cells.sizes
        mean = (np.bincount(codes, self.outcomes, n_cells)).reshape(-1, 2) / size
        squares = np.bincount(codes, (self.outcomes - mean.ravel()[codes]) ** 2, n_cells)
        return Moments(size, mean, squares.reshape(-1, 2))


@dataclass(frozen=True, eq=False, repr=False)
class AggregateRelease:
    """Private means of cells: nothing about single units, and much less noise.

    Attributes
    ----------
    means : ndarray of shape (C, 2)
        Unbiased private means.
    noise_variance : ndarray of shape (C, 2)
        Variance of the noise in them: public.
    sampling_variance : ndarray of shape (C, 2)
        Variance of the true means over assignments, estimated from the release or bounded.
    cells : Cells
    guarantee : Guarantee
    mechanism : str
    counts : ndarray of shape (C, 2, K) or None
        Noisy histogram, if that is what was released.
    """

    means: np.ndarray
    noise_variance: np.ndarray
    sampling_variance: np.ndarray
    cells: Cells
    guarantee: Guarantee
    mechanism: str
    counts: Any = None

    def cell_estimates(self) -> CellEstimates:
        """Mean of each cell and its variance, sampling and noise together."""
        variance = self.noise_variance + self.sampling_variance
        return CellEstimates(self.cells.sizes, self.means, variance)

    def effect(self, stratify: bool = True) -> Effect:
        """Effect and variance: weights n_c / n, or all clusters thrown together.

        Thrown together, the variance leaves out what clusters differ by.
        """
        size, mean, variance = self.cell_estimates()
        if stratify:
            weight = np.repeat(size.sum(1, keepdims=True) / size.sum(), 2, axis=1)
        else:
            weight = size / size.sum(0)
        tau = (weight * mean * [-1, 1]).sum()
        return Effect(float(tau), float((weight**2 * variance).sum()))

    def __str__(self) -> str:
        return f"{self.mechanism}: means of {self.cells.sizes.size} cells\n{self.guarantee}"

    __repr__ = __str__
