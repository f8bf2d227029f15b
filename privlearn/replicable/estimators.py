"""Replicable k-means and k-medians as scikit-learn clusterers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from . import theory
from .coreset import Coreset, in_units_of, summarise
from .forecast import Forecast, forecast_tree
from .k_centers import ReplicableKCenters
from .oracles import WeightedKMedians, check_n_clusters, one_thread, solve
from .primitives import replicable_round
from .quadtree import QuadTree, grow
from .space import NearestCentre
from .streams import check_shared_seed, integer_seed
from .theory import _arguments as check
from .warnings import ReplicabilityWarning

__all__ = ["ReplicableKCenters", "ReplicableKMeans", "ReplicableKMedians"]

FloatArray = NDArray[np.float64]

_GUESS_ROWS = 16_384  # rows from which the least cost is guessed
#: The guess is so many times the cost of k-means: about the ratio of the authors' experiments (opt
#: .5 on mixtures whose least cost is .145). Smaller would make more and smaller cells.
_GUESS_FACTOR = 4.0
_ATTEMPTS = 3  # guesses, each a quarter of the one before, if there are fewer leaves than clusters
_LEAST_GUESS = 1e-3  # in squared half-sides: keeps the tree shallow where clusters are points


class _TreeClusterer(NearestCentre):
    """Quad tree, coreset, oracle: k-means and k-medians differ in cost and default oracle only."""

    _objective: ClassVar[theory.tree.Objective]

    def __init__(
        self,
        n_clusters: int = 3,
        *,
        shared_seed: int | None = None,
        rho: float = 0.3,
        epsilon: float = 0.9,
        failure_probability: float = 0.01,
        bounds: Any = None,
        opt: float | None = None,
        levels: int | None = None,
        skip_levels: int = 1,
        representative: Literal["mean", "centre"] = "mean",
        mass_grid: float | None = None,
        mean_grid: float | None = None,
        sample_size: int | None = None,
        fresh_samples: bool = False,
        n_components: int | None = None,
        oracle: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.shared_seed = shared_seed
        self.rho = rho
        self.epsilon = epsilon
        self.failure_probability = failure_probability
        self.bounds = bounds
        self.opt = opt
        self.levels = levels
        self.skip_levels = skip_levels
        self.representative = representative
        self.mass_grid = mass_grid
        self.mean_grid = mean_grid
        self.sample_size = sample_size
        self.fresh_samples = fresh_samples
        self.n_components = n_components
        self.oracle = oracle

    def fit(self, X: Any, y: object = None) -> Self:
        """Cluster the population that X is a sample of.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            Independent rows. Their order matters only if ``fresh_samples`` (even rows make the
            cells, odd rows the masses) or the cost is guessed from more than 16,384 rows.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``shared_seed`` is missing, a parameter is out of range, X has more than 3 features
            and no ``n_components``, or X is not finite.

        Warns
        -----
        ReplicabilityWarning
            If n is too small for ``rho`` by the forecast, or rows lie outside the given bounds.
        ConvergenceWarning
            If fewer clusters than asked for can be told apart on the coreset.
        """
        seed = check_shared_seed(self.shared_seed)
        k = self._check_parameters()
        X = self._read(X, reset=True)
        points = self._enter(X, seed)
        inside = points.clip(-1, 1)
        self.n_outside_ = int((inside != points).any(axis=1).sum())
        guess, guess_failure = self._guess(inside, k, seed)
        halves = self.fresh_samples and len(X) > 1
        first, second = (inside[::2], inside[1::2]) if halves else (inside, inside)
        trees = self._grow(first, guess, k, seed)
        tree, dim = trees[-1], points.shape[1]
        coreset = self._summarise(second, tree, seed)
        centres = solve(
            self.oracle, self._default_oracle(k), coreset.points, coreset.weights, k,
            integer_seed(seed, "oracle"),
        )  # fmt: skip
        self.tree_ = tree
        self.coreset_ = in_units_of(coreset, self.box_.from_unit(coreset.points))
        self._finish(points, centres)
        distance = np.linalg.norm(points - centres[self.labels_], axis=1) * self.box_.half_side
        self.inertia_ = float(
            distance.sum() if self._objective == "kmedians" else distance @ distance
        )
        self.sample_sizes_ = theory.sample_sizes(
            self.schedule_, dim=dim, epsilon=self.epsilon, rho=self.rho,
            failure_probability=self.failure_probability, skip_levels=self.skip_levels,
            n_leaves=len(coreset),
        )  # fmt: skip
        self.forecast_ = forecast_tree(
            trees, coreset, n_samples=len(X), n_cells=len(first), rho=self.rho,
            box_failure=self.box_.failure, opt_failure=guess_failure,
        )  # fmt: skip
        self.required_samples_ = self.forecast_.required_samples
        self._warn(k, len(X))
        return self

    forecast_: Forecast
    coreset_: Coreset
    schedule_: theory.Schedule

    def _grow(self, points: FloatArray, guess: float, k: int, seed: int) -> list[QuadTree]:
        """Trees for ever smaller guesses, until one has k leaves; one tree for a given cost.

        Each is replicable, so the number of attempts is.
        """
        trees = []
        for attempt in range(_ATTEMPTS if self.opt is None else 1):
            self.schedule_ = theory.schedule(
                n_clusters=k, epsilon=self.epsilon, opt=guess / 4**attempt, dim=points.shape[1],
                levels=self.levels, objective=self._objective,
            )  # fmt: skip
            levels = self.schedule_.levels
            trees.append(grow(points, levels, shared_seed=seed, skip_levels=self.skip_levels))
            if len(trees[-1].level) >= k:
                break
        return trees

    def _default_oracle(self, k: int) -> Any:
        raise NotImplementedError

    def _check_parameters(self) -> int:
        k = check_n_clusters(self.n_clusters)
        check.budget(self.rho, self.failure_probability)
        check.proportion("epsilon", self.epsilon)
        check.count("skip_levels", self.skip_levels, 0)
        if self.representative not in ("mean", "centre"):
            raise ValueError(
                f"representative must be 'mean' or 'centre', got {self.representative!r}"
            )
        for name in ("opt", "mass_grid", "mean_grid"):
            if getattr(self, name) is not None:
                check.positive(name, getattr(self, name))
        if self.sample_size is not None:
            check.count("sample_size", self.sample_size, 2)
        return k

    def _guess(self, points: FloatArray, k: int, seed: int) -> tuple[float, float]:
        """Least cost of a row in the box: given, or k-means on some rows, rounded to 4^integer."""
        power = 1 if self._objective == "kmedians" else 2
        if self.opt is not None:
            return self.opt / self.box_.half_side**power, 0.0
        some = points[:: max(1, -(-len(points) // _GUESS_ROWS))]
        with warnings.catch_warnings(), one_thread():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
            model = KMeans(min(k, len(some)), n_init=4, random_state=integer_seed(seed, "guess"))
            centres = model.fit(some).cluster_centers_
        away = np.linalg.norm(some - centres[model.labels_], axis=1) ** power
        least = _LEAST_GUESS if power == 2 else np.sqrt(_LEAST_GUESS)
        cost = _GUESS_FACTOR * float(away.mean())
        if cost <= least:
            return least, 0.0
        rounded = replicable_round(
            np.log(cost), alpha=np.log(2**power), shared_seed=seed, purpose="guess"
        )
        error = _GUESS_FACTOR * float(away.std()) / cost / np.sqrt(len(some))
        return float(np.exp(rounded)), min(1.0, float(theory.normal_gap(error) / np.log(2**power)))

    def _summarise(self, points: FloatArray, tree: QuadTree, seed: int) -> Coreset:
        """Coreset in the box, with grids as given, calibrated to the sample size, or theorem's."""
        n_leaves, dim = tree.cell.shape
        rows = self.sample_size
        if rows is not None and self.fresh_samples:
            rows = max(1, rows // 2)
        alpha: float
        if self.mass_grid is not None:
            alpha = self.mass_grid
        else:
            if rows is not None:
                alpha = theory.calibrated_mass_grid(n=rows, n_atoms=n_leaves, rho=self.rho / 4)
            else:
                alpha = theory.masses_design(
                    n_atoms=n_leaves, epsilon=self.epsilon / 10, rho=self.rho,
                    failure_probability=self.failure_probability,
                ).alpha  # fmt: skip
            alpha = min(alpha, 1 / n_leaves)  # coarser would round leaves of average mass away
        kind = self.representative
        width = 0.25 if self.mean_grid is None else self.mean_grid
        if self.mean_grid is None and rows is not None:
            width = theory.calibrated_mean_grid(
                n=rows, n_leaves=n_leaves, dim=dim, rho=self.rho / 2
            )
            if width > 1:
                kind = "centre"  # at this n no better than the middle of the cell
        return summarise(
            points, tree, shared_seed=seed, representative=kind, mass_grid=alpha, mean_grid=width
        )

    def _warn(self, k: int, n: int) -> None:
        if self.n_outside_ and self.bounds is not None:
            warnings.warn(
                f"{self.n_outside_} of {n} rows lie outside the bounds and count as if they lay on "
                "the border; widen bounds if they matter",
                ReplicabilityWarning,
                stacklevel=3,
            )
        if len(self.projected_centers_) < k:
            warnings.warn(
                f"only {len(self.projected_centers_)} of n_clusters={k} clusters can be told apart "
                "on the coreset (too few distinct rows, or cells too coarse: lower epsilon)",
                ConvergenceWarning,
                stacklevel=3,
            )
        if not self.forecast_.enough:
            warnings.warn(
                f"n={n} is short of rho={self.rho:g}: forecast probability of another partition "
                f"from another such sample {self.forecast_.total:.2f}, about "
                f"{self.required_samples_:,} rows needed (see forecast_)",
                ReplicabilityWarning,
                stacklevel=3,
            )


class ReplicableKMeans(_TreeClusterer):
    """k-means that gives the same partition on two samples of one population.

    Two people who draw different samples of one population, and agree on the parameters and on
    ``shared_seed``, get the identical partition of the whole space with high probability: the same
    centres, bit by bit. How high is forecast from each sample (``forecast_``) and can be measured
    with `replicability_report`.

    Parameters
    ----------
    n_clusters : int, default=3
    shared_seed : int
        At least 0; the only randomness that runs share. `fit` refuses to work without it.
    rho : float, default=0.3
        Probability with which another run may differ, in (0, 1). `fit` warns where n is short.
    epsilon : float, default=0.9
        Accuracy, in (0, 1): smaller makes smaller cells and needs many more rows.
    failure_probability : float, default=0.01
        Of the cost guarantee; below rho / 3.
    bounds : (low, high), default=None
        Known range of the features: numbers, or one number per feature. None finds a box
        replicably from quantiles, which takes a part of the failure probability.
    opt : float, default=None
        Guess of the least cost of a row, in squared units of the features, which sets how fine the
        cells are. None guesses it replicably: about four times the cost of k-means on some rows,
        and less if that gives fewer leaves than clusters.
    levels : int, default=None
        Divides the budgets; None for the number that the stopping rule gives.
    skip_levels : int, default=1
        Levels of the tree whose cells are all kept.
    representative : {"mean", "centre"}, default="mean"
        What stands for a leaf: the rounded mean of its rows, or the centre of its cell as in the
        paper. Means cost a little replicability and bring the cost close to that of plain
        k-means (figure ``replicable-frontier``).
    mass_grid : float, default=None
        Width of the grid on which masses are rounded. None: from ``sample_size`` if given, or
        else the theorem's; at most 1 / number of leaves.
    mean_grid : float, default=None
        Width of the grid on which means are rounded, in sides of the leaf. None: from
        ``sample_size`` if given, or else 1/4.
    sample_size : int, default=None
        Rows of a run for which both grids are calibrated by the exact laws (a quarter of rho for
        the masses, half for the means, which give way to cell centres where their grid would be
        wider than the leaf); the same for everyone.
    fresh_samples : bool, default=False
        Even rows for the cells and odd rows for the rest, as the theorems want it; all rows for
        both otherwise, which replicates more often.
    n_components : {1, 2, 3}, default=None
        Cluster a shared random projection to so many dimensions; needed above 3 features.
    oracle : clusterer, default=None
        Any scikit-learn clusterer with ``sample_weight`` and ``cluster_centers_``; it sees the
        coreset only. `sklearn.cluster.KMeans` with 10 starts if None.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (k, n_features)
        In lexicographic order; only without a projection.
    projected_centers_ : ndarray of shape (k, d)
        The same, or in the space of the projection, whose output is the label function.
    labels_ : ndarray of shape (n,)
    inertia_ : float
        Cost of the sample (in the space of the projection).
    coreset_ : Coreset
        ``points`` and ``weights`` that the oracle saw.
    tree_ : QuadTree
        Its leaves, and what was tested at each level.
    forecast_ : Forecast
        Probability that another such sample gives another partition, by part.
    required_samples_ : int
        Rows at which the forecast meets rho on this distribution.
    sample_sizes_ : SampleSizes
        Rows that the theorems ask for, whatever the distribution (without box and guess).
    schedule_ : Schedule
        Thresholds of the levels.
    box_ : Box
    projection_ : ndarray of shape (n_features, d) or None
    n_outside_ : int
        Rows beyond the box, counted as on its border.

    Notes
    -----
    Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou, "Replicable Clustering", NeurIPS 2023
    (arXiv 2302.10359). Beyond the paper: rounded means, a box and a guess of the cost from the
    sample, calibrated grids, the forecast. Scale the features first, as for k-means. Fewer distinct
    rows than clusters give fewer clusters, with a warning. Replicable does not mean private.

    Examples
    --------
    >>> from privlearn.replicable.simulation import truncated_mixture
    >>> one, other = (truncated_mixture(20_000, np.random.default_rng(seed)) for seed in (0, 1))
    >>> model = ReplicableKMeans(4, shared_seed=4, bounds=(-1, 1), opt=0.5, sample_size=20_000)
    >>> bool((model.fit(one).predict(other) == model.fit(other).predict(other)).all())
    True
    """

    _objective = "kmeans"

    def _default_oracle(self, k: int) -> Any:
        return KMeans(k, n_init=10)


class ReplicableKMedians(_TreeClusterer):
    """k-medians that gives the same partition on two samples of one population.

    Parameters, attributes and guarantees are those of `ReplicableKMeans`, with these differences:
    costs are sums of distances, ``opt`` is in units of the features, and the oracle is
    `WeightedKMedians` if none is given. Its cells are finer than those of k-means at the same
    epsilon (thresholds grow by 2 and not by 4 a level), so it needs more rows.

    Parameters
    ----------
    n_clusters, shared_seed, rho, epsilon, failure_probability, bounds, opt, levels, skip_levels, \
representative, mass_grid, mean_grid, sample_size, fresh_samples, n_components, oracle
        As for `ReplicableKMeans`.

    Notes
    -----
    Esfandiari et al., NeurIPS 2023 (arXiv 2302.10359). The authors' public experiments are k-means
    only; the constants of the thresholds are by analogy.

    Examples
    --------
    >>> from privlearn.replicable.simulation import truncated_mixture
    >>> X = truncated_mixture(20_000, np.random.default_rng(0))
    >>> model = ReplicableKMedians(4, shared_seed=1, rho=0.6, bounds=(-1, 1), opt=0.5).fit(X)
    >>> model.cluster_centers_.shape
    (4, 2)
    """

    _objective = "kmedians"

    def _default_oracle(self, k: int) -> Any:
        return WeightedKMedians(k)
