"""The mechanisms of the data holder: Cluster-DP and its special cases.

``privatize(y, z, clusters)`` is for private data: integer noise from OpenDP, exact coins and draws
from the operating system's entropy, no seed. ``simulate(key, codes, cells, n_clusters)`` is for
research: pure JAX, reproducible, not private. Both have one distribution.

What is protected
-----------------
One outcome: neighbouring data sets differ in the outcome of one unit ("replace one"). Arms,
clusters, cell sizes and the grid of values are public and must not depend on the outcomes; neither
may the parameters (choose them from public or pilot data). Who took part is not protected.

What is released
----------------
The private outcomes and the private priors that they were drawn from. With noise of scale sigma on
the counts behind the priors, resampling probability lam and floor gamma, the release is
(epsilon, delta)-DP for every epsilon >= 2 / sigma with

    delta = max(0, 1 - lam - (e^(epsilon - 2/sigma) - 1) lam gamma).

Releases draw probabilities as integers: lam is rounded up and gamma kept as a whole number of
2^-32 (or so), so this holds without a rounding error. Laplace noise is discrete (whole counts): the
same epsilon as the paper's continuous noise, a little less variance, and no floating-point leak.

Source: Javanmard, Mirrokni, Pouget-Abadie, ICML 2025, arXiv 2308.00957, with two corrections:
sensitivity 2 for "replace one", and a projection that keeps the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from privlearn.causal import entropy, kernels, theory
from privlearn.causal.cells import Cells, Small, build_cells
from privlearn.causal.kernels import Normalize
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.causal.release import OutcomeRelease
from privlearn.causal.theory._arguments import check_budget, check_delta
from privlearn.privacy import DiscreteLaplaceMechanism, Guarantee

__all__ = ["ClusterDP", "ClusterFreeDP", "NoDP", "UniformPriorDP"]

UNIT = "one outcome"
NEIGHBOURS = "replace one"
CONDITION = (
    "arms, clusters, cell sizes, the grid of values and all parameters are public "
    "and do not depend on the outcomes"
)
_ROUNDING = 1 + 2.0**-48  # covers the rounding of the formula for epsilon
_LARGEST_SIGMA = 2.0**50


@dataclass(frozen=True)
class _Resampling:
    """What the family shares: grid, resampling probability, floor, noise, where priors are."""

    grid: OutcomeGrid
    lam: float
    gamma: float
    sigma: float
    delta: float = 0.0
    normalize: Normalize = "project"

    name: ClassVar[str]
    #: Whose priors there are: of each cell, of each arm, or one for all that needs no data.
    priors: ClassVar[Literal["cell", "arm", "none"]]

    def __post_init__(self) -> None:
        if not isinstance(self.grid, OutcomeGrid):
            raise TypeError(f"grid must be an OutcomeGrid, got {type(self.grid).__name__}")
        k = self.grid.k
        for name in ("lam", "gamma", "sigma"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
                raise TypeError(f"{name} must be a number, got {value!r}")
        if not 0 <= self.lam < 1:
            raise ValueError(f"lam must lie in [0, 1), got {self.lam!r}: at 1 nothing is left")
        if not 0 < self.gamma <= (1 + 1e-12) / k:
            raise ValueError(f"gamma must lie in (0, 1/K] with K = {k}, got {self.gamma!r}")
        if not 0 <= self.sigma <= _LARGEST_SIGMA:
            raise ValueError(f"sigma must lie in [0, 2**50], got {self.sigma!r}")
        check_delta(self.delta)
        if self.normalize not in ("project", "affine"):
            raise ValueError(f"normalize must be 'project' or 'affine', got {self.normalize!r}")
        if self._coin == entropy.COIN:
            raise ValueError(f"lam must be at most 1 - 2**-32, got {self.lam!r}")

    # ----------------------------------------------------------------------------- what it promises

    @property
    def uses_data(self) -> bool:
        """Whether the priors look at the outcomes (and so cost budget)."""
        return self.priors != "none" and not entropy.is_uniform(self.gamma, self.grid.k)

    @cached_property
    def _coin(self) -> int:
        return entropy.coin_weight(float(self.lam))

    @property
    def exact_lam(self) -> float:
        """Resampling probability of releases: lam rounded up to a multiple of 2^-32."""
        return self._coin / entropy.COIN

    @property
    def exact_gamma(self) -> float:
        """Floor of the priors of releases: gamma rounded up."""
        return entropy.floor_weight(self.gamma, self.grid.k) / entropy.total_weight(self.grid.k)

    @property
    def _sigma(self) -> float | None:
        return float(self.sigma) if self.uses_data else None

    def epsilon_at(self, delta: float) -> float:
        """Epsilon of a release at this delta, by composition of its two stages; inf if none."""
        epsilon = theory.label_dp_epsilon(
            self.exact_lam, self.exact_gamma, self._sigma, delta=delta
        )
        return float(epsilon) * _ROUNDING

    def delta_at(self, epsilon: ArrayLike) -> np.ndarray:
        """Delta of a release at this total epsilon; 1 where nothing is promised."""
        return theory.label_dp_delta(epsilon, self.exact_lam, self.exact_gamma, self._sigma)

    @property
    def guarantee(self) -> Guarantee:
        """What one release promises, at `delta`."""
        epsilon = self.epsilon_at(self.delta)
        delta = float(self.delta) if math.isfinite(epsilon) else 0.0
        return Guarantee(epsilon, delta, UNIT, NEIGHBOURS, CONDITION)

    @property
    def leaked_share(self) -> float:
        """Expected share of outcomes told outright: those that epsilon alone does not explain."""
        return float(self.delta) if self.guarantee.is_private else 1.0

    @property
    def loss_width(self) -> float:
        """Largest privacy loss (for the tight composition of a `Ledger`)."""
        return self.epsilon_at(0.0)

    def privacy_loss(self, interval: float) -> Any:
        """dp-accounting's privacy loss distribution, pessimistic, on a grid of `interval`.

        Of both stages together (`theory.privacy_losses`): composing several experiments with it
        costs less than adding up their guarantees.
        """
        from dp_accounting.pld import pld_pmf
        from dp_accounting.pld import privacy_loss_distribution as pld

        losses, probabilities = theory.privacy_losses(self.exact_lam, self.exact_gamma, self._sigma)
        steps = losses / interval
        points = np.unique(np.concatenate([np.floor(steps), np.ceil(steps), [0]])).astype(int)
        over = np.maximum(-np.expm1((points * interval)[:, None] - losses), 0.0)
        stick = np.clip((probabilities * over).sum(1) * (1 + 1e-12), 0, 1)
        stick[-1] = 0.0
        pmf = pld_pmf.create_pmf_pessimistic_connect_dots(interval, points, stick)
        return pld.PrivacyLossDistribution(pmf)

    # ---------------------------------------------------------------------------------- the release

    def privatize(
        self,
        y: ArrayLike,
        z: ArrayLike,
        clusters: ArrayLike,
        *,
        min_cell: int = 2,
        small: Small = "raise",
    ) -> OutcomeRelease:
        """Release private outcomes and priors; spends the guarantee, anew with every call.

        Parameters
        ----------
        y : array-like of shape (n,)
            True outcomes; brought to the grid by its rule.
        z : array-like of shape (n,)
            Arm of each unit, 0 or 1. Public.
        clusters : array-like of shape (n,)
            Integers or strings. Public.
        min_cell, small : int, str
            What to do with small cells, see `build_cells`.

        Returns
        -------
        OutcomeRelease

        Raises
        ------
        TypeError, ValueError
            If lengths differ, outcomes are off the grid, arms are missing in a cluster, or the
            parameters promise nothing (sigma = 0).
        """
        self._check_private()
        cells = build_cells(z, clusters, min_cell=min_cell, small=small)
        codes = self.grid.encode(take_units(y, clusters, cells))
        return self.release_codes(codes, cells)

    def release_codes(self, codes: np.ndarray, cells: Cells) -> OutcomeRelease:
        """Release from value codes and a layout that are already there."""
        self._check_private()
        where = self.prior_of_cell(cells.n_clusters)
        weights = self.prior_weights(codes, cells)
        rows = cells.codes if self.priors == "cell" else where[cells.codes]
        outcomes = (
            entropy.resample(codes, rows, entropy.alias_table(weights), self._coin)
            if self._coin
            else codes.copy()
        )
        return OutcomeRelease(
            outcomes=outcomes,
            cells=cells,
            guarantee=self.guarantee,
            mechanism=self.name,
            grid=self.grid,
            lam=self.exact_lam,
            weights=weights,
            prior_of_cell=where,
        )

    def prior_of_cell(self, n_clusters: int) -> np.ndarray:
        """Which prior each cell uses, shape (2 C,)."""
        cells = np.arange(2 * n_clusters, dtype=np.int32)
        return {"cell": cells, "arm": cells & 1, "none": cells * 0}[self.priors]

    def prior_weights(self, codes: np.ndarray, cells: Cells) -> np.ndarray:
        """Draw the priors of a release as integer weights, shape (P, K)."""
        k, n_cells = self.grid.k, 2 * cells.n_clusters
        if not self.uses_data:
            n_priors = {"cell": n_cells, "arm": 2, "none": 1}[self.priors]
            return np.full((n_priors, k), entropy.total_weight(k) // k, np.int64)
        counts = kernels.count_cells(codes, cells.codes, n_cells, k)
        if self.priors == "arm":
            counts = counts.reshape(-1, 2, k).sum(0)
        noisy = self.noise.release(counts)
        return self.weights_from_counts(noisy, counts.sum(1))

    def weights_from_counts(self, noisy: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Post-process noisy counts (P, K) to weights: the floor holds exactly in each of them."""
        priors = kernels.priors_from_counts(
            noisy.astype(np.float64), sizes, self.exact_gamma, self.normalize
        )
        return entropy.integer_weights(priors, self.exact_gamma)

    @cached_property
    def noise(self) -> DiscreteLaplaceMechanism:
        """The noise on the counts, of which one outcome moves two by 1."""
        return DiscreteLaplaceMechanism(
            sensitivity=2,
            epsilon=2 / float(self.sigma),
            unit=UNIT,
            neighbours=NEIGHBOURS,
            condition=CONDITION,
        )

    def _check_private(self) -> None:
        if not self.guarantee.is_private:
            raise ValueError(
                f"{self.name} with lam = {self.lam:g} and sigma = {self.sigma:g} promises nothing; "
                "use it in simulations, or NoDP to release outcomes as they are"
            )

    # ------------------------------------------------------------------------------- the simulation

    def simulate(self, key: Any, codes: Any, cells: Any, n_clusters: int) -> kernels.Draw:
        """Same distribution in pure JAX, seeded: for simulation, not for private data.

        Parameters
        ----------
        key : JAX key
        codes : integer array of shape (n,)
            Value codes.
        cells : integer array of shape (n,)
            2 * cluster + arm.
        n_clusters : int

        Returns
        -------
        kernels.Draw
            ``outcomes`` (n,) and ``priors`` (P, K), see `prior_of_cell`.
        """
        import jax.numpy as jnp

        where = jnp.asarray(self.prior_of_cell(n_clusters))
        return kernels.privatize(
            key,
            codes,
            cells,
            where,
            k=self.grid.k,
            n_priors={"cell": 2 * n_clusters, "arm": 2, "none": 1}[self.priors],
            lam=self.exact_lam,
            gamma=self.exact_gamma,
            sigma=float(self.sigma),
            normalize=self.normalize,
        )


@dataclass(frozen=True)
class ClusterDP(_Resampling):
    """Cluster-DP: outcomes are resampled from a private histogram of their own cluster and arm.

    Parameters
    ----------
    grid : OutcomeGrid
        Public values of the outcome.
    lam : float
        Probability in [0, 1) with which an outcome is replaced by a draw from its prior.
    gamma : float
        Floor of the priors, in (0, 1/K]; at 1/K they are uniform and cost nothing.
    sigma : float
        Scale of the noise on the counts behind the priors.
    delta : float, default=0.0
        At which delta `guarantee` states epsilon (`epsilon_at` and `delta_at` give the rest).
    normalize : {"project", "affine"}
        How noisy histograms become distributions above the floor.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> grid = OutcomeGrid.of(range(12))
    >>> mechanism = ClusterDP(grid, lam=0.5, gamma=0.1 / 12, sigma=10.0)
    >>> print(mechanism.guarantee)  # doctest: +ELLIPSIS
    epsilon = 4.99579, delta = 0, unit: one outcome, neighbours: replace one, given: arms, ...
    """

    name: ClassVar[str] = "Cluster-DP"
    priors: ClassVar[Literal["cell", "arm", "none"]] = "cell"

    @classmethod
    def for_budget(
        cls,
        grid: OutcomeGrid,
        epsilon: float,
        delta: float = 0.0,
        *,
        gamma: float,
        sigma: float | None = None,
        prior_share: float = 0.5,
        normalize: Normalize = "project",
    ) -> Self:
        """Mechanism with the smallest lam that keeps (epsilon, delta).

        Parameters
        ----------
        grid : OutcomeGrid
        epsilon, delta : float
            The whole budget.
        gamma : float
        sigma : float, optional
            Then 2 / sigma of epsilon goes to the priors, and must leave something.
        prior_share : float, default=0.5
            Share of epsilon for the priors, if sigma is not given; 1 needs delta > 0.
        normalize : str

        Raises
        ------
        ValueError
            If epsilon <= 2 / sigma (< if delta > 0), or delta lies outside [0, 1).

        Examples
        --------
        >>> mechanism = ClusterDP.for_budget(OutcomeGrid.of([0, 1, 2]), 1.0, gamma=0.1)
        >>> mechanism.sigma, round(mechanism.guarantee.epsilon, 6)
        (4.0, 1.0)
        """
        epsilon, delta = check_budget(epsilon), check_delta(delta)
        if entropy.is_uniform(gamma, grid.k):
            left, scale = epsilon, 0.0 if sigma is None else float(sigma)
        else:
            if sigma is None:
                if not 0 < prior_share <= 1:
                    raise ValueError(f"prior_share must lie in (0, 1], got {prior_share!r}")
                sigma = 2 / (epsilon * prior_share)
            scale = float(sigma)
            if not scale > 0:
                raise ValueError(f"sigma must be positive, got {sigma!r}")
            left = epsilon - 2 / scale
            left = 0.0 if abs(left) <= 1e-12 * epsilon else left
            if left < 0 or (left == 0 and delta == 0):
                raise ValueError(
                    f"epsilon must exceed 2 / sigma = {2 / scale:.6g}, which the priors cost, "
                    f"got epsilon = {epsilon:.6g} with delta = {delta:g}: raise sigma or lower "
                    "prior_share"
                )
        lam = float(theory.resampling_probability(left, min(gamma, 1 / grid.k), delta))
        return cls(grid, _next_coin(lam), gamma, scale, delta, normalize)


@dataclass(frozen=True)
class ClusterFreeDP(ClusterDP):
    """Cluster-Free-DP: one prior per arm, pooled over clusters. Parameters as `ClusterDP`.

    Examples
    --------
    >>> ClusterFreeDP(OutcomeGrid.of([0, 1]), lam=0.5, gamma=0.1, sigma=10.0).prior_of_cell(2)
    array([0, 1, 0, 1], dtype=int32)
    """

    name: ClassVar[str] = "Cluster-Free-DP"
    priors: ClassVar[Literal["cell", "arm", "none"]] = "arm"


@dataclass(frozen=True)
class UniformPriorDP(_Resampling):
    """Uniform-Prior-DP: resampling from the uniform distribution: K-ary randomised response.

    Parameters
    ----------
    grid : OutcomeGrid
    lam : float
    delta : float, default=0.0

    Examples
    --------
    >>> grid = OutcomeGrid.of(range(12))
    >>> mechanism = UniformPriorDP.for_budget(grid, 2.0)
    >>> round(mechanism.lam, 6), round(mechanism.guarantee.epsilon, 6)
    (0.652562, 2.0)
    """

    name: ClassVar[str] = "Uniform-Prior-DP"
    priors: ClassVar[Literal["cell", "arm", "none"]] = "none"

    def __init__(self, grid: OutcomeGrid, lam: float, delta: float = 0.0) -> None:
        k = grid.k if isinstance(grid, OutcomeGrid) else 2
        super().__init__(grid, lam, 1 / k, 0.0, delta)

    @classmethod
    def for_budget(cls, grid: OutcomeGrid, epsilon: float, delta: float = 0.0) -> UniformPriorDP:
        """Mechanism with the smallest lam that keeps (epsilon, delta)."""
        lam = theory.resampling_probability(check_budget(epsilon), 1 / grid.k, check_delta(delta))
        return cls(grid, _next_coin(float(lam)), delta)


@dataclass(frozen=True)
class NoDP(UniformPriorDP):
    """No privacy: outcomes as they are, for comparison. Its guarantee says so (epsilon = inf).

    Examples
    --------
    >>> NoDP(OutcomeGrid.of([0, 1])).guarantee.is_private
    False
    """

    name: ClassVar[str] = "No-DP"

    def __init__(self, grid: OutcomeGrid) -> None:
        super().__init__(grid, 0.0)

    @classmethod
    def for_budget(cls, grid: OutcomeGrid, epsilon: float, delta: float = 0.0) -> NoDP:
        """Raise: No-DP keeps no budget."""
        raise TypeError("NoDP keeps no budget: its epsilon is infinite")

    def _check_private(self) -> None:
        """Let it pass: the name says what it does."""


def take_units(y: ArrayLike, clusters: ArrayLike, cells: Cells) -> np.ndarray:
    """Outcomes of the units that take part, of one length with the clusters or an error."""
    outcomes = np.asarray(y)
    n = len(np.asarray(clusters))
    if outcomes.ndim != 1 or len(outcomes) != n:
        raise ValueError(f"y must have one outcome per unit, {n}, got shape {outcomes.shape}")
    return outcomes if cells.kept is None else outcomes[cells.kept]


def _next_coin(lam: float) -> float:
    """Next multiple of 2^-32 above lam, so that rounding never costs privacy."""
    return min(math.floor(lam * entropy.COIN) + 1, entropy.COIN - 1) / entropy.COIN
