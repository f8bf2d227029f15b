"""What else a practitioner would do: noise on each outcome, or on means and histograms of cells.

All of them protect one outcome, "replace one", like Cluster-DP. The aggregate ones give no data
about single units, and have far less noise: if only the effect is wanted, they win.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from privlearn.causal import entropy, kernels, theory
from privlearn.causal.cells import Cells, Small, build_cells
from privlearn.causal.mechanism import CONDITION, NEIGHBOURS, UNIT, take_units
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.causal.release import AggregateRelease, ScoreRelease
from privlearn.causal.theory._arguments import check_budget
from privlearn.privacy import (
    DiscreteLaplaceMechanism,
    Guarantee,
    LaplaceMechanism,
    SumGrid,
    release_means,
)

__all__ = ["LaplaceOutcome", "NoisyCellMeans", "NoisyHistogram", "OneBitOutcome"]


@dataclass(frozen=True)
class _Baseline:
    """Grid and budget; outcomes come to the grid as in `ClusterDP`."""

    grid: OutcomeGrid
    epsilon: float

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.grid, OutcomeGrid):
            raise TypeError(f"grid must be an OutcomeGrid, got {type(self.grid).__name__}")
        check_budget(self.epsilon)

    @property
    def guarantee(self) -> Guarantee:
        """What one release promises."""
        return Guarantee(float(self.epsilon), 0.0, UNIT, NEIGHBOURS, CONDITION)

    def privatize(
        self,
        y: ArrayLike,
        z: ArrayLike,
        clusters: ArrayLike,
        *,
        min_cell: int = 2,
        small: Small = "raise",
    ) -> Any:
        """Release; parameters and errors as `ClusterDP.privatize`."""
        cells = build_cells(z, clusters, min_cell=min_cell, small=small)
        return self.release_codes(self.grid.encode(take_units(y, clusters, cells)), cells)

    def release_codes(self, codes: np.ndarray, cells: Cells) -> Any:
        """Release from value codes and a layout."""
        raise NotImplementedError


@dataclass(frozen=True)
class LaplaceOutcome(_Baseline):
    """Laplace noise of scale range / epsilon on every outcome.

    Parameters
    ----------
    grid : OutcomeGrid
    epsilon : float

    Examples
    --------
    >>> mechanism = LaplaceOutcome(OutcomeGrid.of([0, 1]), epsilon=1.0)
    >>> mechanism.privatize([0, 1, 1, 0], [0, 0, 1, 1], [7, 7, 7, 7]).outcomes.shape
    (4,)
    """

    name: ClassVar[str] = "Laplace on outcomes"

    @cached_property
    def noise(self) -> LaplaceMechanism:
        """The noise: one unit owns one outcome, which moves by at most the range."""
        return LaplaceMechanism(
            sensitivity=self.grid.width,
            epsilon=self.epsilon,
            unit=UNIT,
            neighbours=NEIGHBOURS,
            condition=CONDITION,
        )

    def release_codes(self, codes: np.ndarray, cells: Cells) -> ScoreRelease:
        """Release from value codes and a layout."""
        outcomes = self.noise.release(self.grid.array[codes])
        return ScoreRelease(outcomes, cells, self.guarantee, self.name)

    def simulate(self, key: Any, codes: Any, cells: Any, n_clusters: int) -> Any:
        """Private outcomes (n,) in pure JAX: for simulation, not for private data."""
        import jax.numpy as jnp

        return self.noise.simulate(key, jnp.asarray(self.grid.array)[codes])


@dataclass(frozen=True)
class OneBitOutcome(_Baseline):
    """One private bit per unit: high or low, with probabilities linear in the outcome.

    The output is m +- h (e^eps + 1) / (e^eps - 1), m the middle and h half of the range (Duchi,
    Jordan and Wainwright 2018). Probabilities are whole numbers of 2^-32; the outputs are set so
    that the mean is right to 2^-32 of the range.

    Parameters
    ----------
    grid : OutcomeGrid
    epsilon : float

    Examples
    --------
    >>> mechanism = OneBitOutcome(OutcomeGrid.of([0, 1]), epsilon=1.0)
    >>> np.array(mechanism.outputs).round(3)
    array([-0.582,  1.582])
    """

    name: ClassVar[str] = "one bit per outcome"

    @cached_property
    def _low(self) -> int:
        """Weight of "high" for the lowest outcome, rounded up: the ratio is at most e^epsilon."""
        return min(math.ceil(entropy.COIN / (1 + math.exp(self.epsilon))) + 1, entropy.COIN // 2)

    @cached_property
    def weights(self) -> np.ndarray:
        """Weight over 2^32 of the output "high" for each value of the grid."""
        span = entropy.COIN - 2 * self._low
        share = (self.grid.array - self.grid.values[0]) / self.grid.width
        return self._low + np.rint(share * span).astype(np.int64)

    @property
    def outputs(self) -> tuple[float, float]:
        """The two values that can be given out."""
        middle = (self.grid.values[0] + self.grid.values[-1]) / 2
        spread = self.grid.width / 2 * entropy.COIN / (entropy.COIN - 2 * self._low)
        return middle - spread, middle + spread

    def release_codes(self, codes: np.ndarray, cells: Cells) -> ScoreRelease:
        """Release from value codes and a layout."""
        if self._low >= entropy.COIN // 2:
            raise ValueError(f"epsilon must be at least 1e-8 here, got {self.epsilon!r}")
        high = entropy.coins(self.weights[codes], len(codes), os.urandom)
        outcomes = np.array(self.outputs)[high.astype(np.int8)]
        return ScoreRelease(outcomes, cells, self.guarantee, self.name)

    def simulate(self, key: Any, codes: Any, cells: Any, n_clusters: int) -> Any:
        """Private outcomes (n,) in pure JAX: for simulation, not for private data."""
        import jax
        import jax.numpy as jnp

        share = jnp.asarray(self.weights / entropy.COIN)[codes]
        low, high = self.outputs
        return jnp.where(jax.random.bernoulli(key, share), high, low)


@dataclass(frozen=True)
class NoisyCellMeans(_Baseline):
    """Laplace noise of scale range / (n_ac epsilon) on the mean of each cell.

    The interval bounds the sampling variance by range^2 / 4 (a mean says nothing about it), so it
    is conservative.

    Parameters
    ----------
    grid : OutcomeGrid
    epsilon : float

    Examples
    --------
    >>> mechanism = NoisyCellMeans(OutcomeGrid.of([0, 1]), epsilon=1e6)
    >>> mechanism.privatize([0, 1, 1, 1], [0, 0, 1, 1], [7, 7, 7, 7]).means.round(3)
    array([[0.5, 1. ]])
    """

    name: ClassVar[str] = "noisy cell means"

    def release_codes(self, codes: np.ndarray, cells: Cells) -> AggregateRelease:
        """Release from value codes and a layout."""
        sizes = cells.sizes
        grid = SumGrid(0.0, self.grid.width, int(sizes.max()))  # values above the lowest one
        noise = LaplaceMechanism(
            sensitivity=grid.sensitivity,
            epsilon=self.epsilon,
            unit=UNIT,
            neighbours=NEIGHBOURS,
            condition=CONDITION,
        )
        above = grid.snap(self.grid.array - self.grid.values[0])
        sums = np.bincount(cells.codes, above[codes], sizes.size)
        means = release_means(noise, sums, sizes.ravel()).reshape(sizes.shape)
        return self.assemble(self.grid.values[0] + means, noise.scale, cells)

    def assemble(self, means: np.ndarray, scale: float, cells: Cells) -> AggregateRelease:
        """Put noisy means (C, 2), with noise of this scale on their sums, into a release."""
        sizes = cells.sizes
        # Popoviciu's bound on a variance, with the divisor n - 1.
        bound = self.grid.width**2 / 4 / np.maximum(sizes - 1, 1)
        return AggregateRelease(
            means=means,
            noise_variance=2 * (scale / sizes) ** 2,
            sampling_variance=bound,
            cells=cells,
            guarantee=self.guarantee,
            mechanism=self.name,
        )

    def simulate(self, key: Any, codes: Any, cells: Any, n_clusters: int) -> Any:
        """Noisy means (C, 2) in pure JAX: for simulation, not for private data."""
        import jax.numpy as jnp

        from privlearn.privacy.kernels import laplace

        counts = kernels.count_cells(codes, cells, 2 * n_clusters, self.grid.k)
        sizes = counts.sum(-1)
        means = counts @ jnp.asarray(self.grid.array) / sizes
        return laplace(key, means, self.grid.width / (sizes * self.epsilon)).reshape(-1, 2)


@dataclass(frozen=True)
class NoisyHistogram(_Baseline):
    """Integer Laplace noise of scale 2 / epsilon on how often each value occurs in each cell.

    It is what Cluster-DP itself releases before projecting, at the whole budget. Means are
    m + sum_k (v_k - m) count_k / n_ac with m the middle of the values, which is unbiased.

    Parameters
    ----------
    grid : OutcomeGrid
    epsilon : float

    Examples
    --------
    >>> mechanism = NoisyHistogram(OutcomeGrid.of([0, 1]), epsilon=1e3)
    >>> mechanism.privatize([0, 1, 1, 1], [0, 0, 1, 1], [7, 7, 7, 7]).counts
    array([[[1, 1],
            [0, 2]]])
    """

    name: ClassVar[str] = "noisy histogram"

    @cached_property
    def noise(self) -> DiscreteLaplaceMechanism:
        """The noise on the counts, of which one outcome moves two by 1."""
        return DiscreteLaplaceMechanism(
            sensitivity=2,
            epsilon=self.epsilon,
            unit=UNIT,
            neighbours=NEIGHBOURS,
            condition=CONDITION,
        )

    def release_codes(self, codes: np.ndarray, cells: Cells) -> AggregateRelease:
        """Release from value codes and a layout."""
        sizes, k = cells.sizes, self.grid.k
        counts = kernels.count_cells(codes, cells.codes, sizes.size, k)
        return self.assemble(self.noise.release(counts).reshape(-1, 2, k), cells)

    def assemble(self, noisy: np.ndarray, cells: Cells) -> AggregateRelease:
        """Put noisy counts (C, 2, K) into a release, with unbiased means."""
        sizes = cells.sizes
        centred = self.grid.array - self.grid.array.mean()
        means = noisy @ centred / sizes
        per_count = float(theory.discrete_laplace_variance(self.noise.scale))
        noise_variance = per_count * (centred**2).sum() / sizes**2
        # E[means^2] = true mean^2 + noise variance; a negative estimate is cut off at 0.
        spread = noisy @ centred**2 / sizes - (means**2 - noise_variance)
        within = np.maximum(spread, 0) / np.maximum(sizes - 1, 1)
        return AggregateRelease(
            means=self.grid.array.mean() + means,
            noise_variance=noise_variance,
            sampling_variance=within,
            cells=cells,
            guarantee=self.guarantee,
            mechanism=self.name,
            counts=noisy,
        )

    def simulate(self, key: Any, codes: Any, cells: Any, n_clusters: int) -> Any:
        """Noisy counts (C, 2, K) in pure JAX: for simulation, not for private data."""
        counts = kernels.count_cells(codes, cells, 2 * n_clusters, self.grid.k)
        return self.noise.simulate(key, counts).reshape(n_clusters, 2, self.grid.k)
