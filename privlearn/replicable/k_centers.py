"""Replicable k-centers: greedy on the active cells of a randomly shifted grid."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from . import theory
from .forecast import Forecast, make_forecast
from .oracles import check_n_clusters, farthest_first, in_order
from .primitives import replicable_threshold
from .quadtree import TreeLevel
from .space import NearestCentre
from .streams import check_shared_seed, uniforms
from .theory import _arguments as check
from .warnings import ReplicabilityWarning

FloatArray = NDArray[np.float64]

_MOST_HALVINGS = 30
_CODES = 2.0**62
_CELL = 0.25  # side of the cells in half-sides of the box, if not given


class ReplicableKCenters(NearestCentre):
    """k-centers (least greatest distance) that gives the same partition on two samples.

    Cells of a grid with a shared random shift count as active if their mass reaches a shared random
    threshold; greedy k-centers runs on the centres of the active cells. Rows in cells that are
    not active have no say, so outliers do not attract centres.

    Parameters
    ----------
    n_clusters : int, default=3
    shared_seed : int
        At least 0; the only randomness that runs share. `fit` refuses to work without it.
    rho : float, default=0.3
        Probability with which another run may differ, in (0, 1); `fit` warns where n is short.
    cell : float, default=None
        Side of the cells, in units of the features; None for an eighth of the box.
    min_mass : float, default=0.02
        v: every cell of this mass is active, none below v/2. Where fewer than n_clusters cells are
        active it is halved until there are enough.
    bounds : (low, high), default=None
        Known range of the features, from which the side of the cells follows if it is not given.
        None finds a box replicably from quantiles. Not used if ``cell`` is given.
    n_components : {1, 2, 3}, default=None
        Cluster a shared random projection to so many dimensions; needed above 3 features.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (k, n_features)
        In lexicographic order; only without a projection.
    projected_centers_ : ndarray of shape (k, d)
        The same, or in the space of the projection.
    labels_ : ndarray of shape (n,)
    active_cells_ : ndarray of shape (m, d)
        Centres of the active cells.
    cell_ : float
        Side of the cells.
    radius_ : float
        Greatest distance of a row in an active cell to its centre.
    tail_share_ : float
        Share of the rows in cells that are not active, which no guarantee covers.
    levels_ : tuple of TreeLevel
        Masses of the cells and the threshold, for each value of v that was tried.
    forecast_ : Forecast
    required_samples_ : int
        Rows at which the forecast meets rho on this distribution.
    box_ : Box
    projection_ : ndarray or None

    Notes
    -----
    If active cells carry all the mass, the radius is at most beta OPT + (beta + 1) c sqrt(d) / 2
    with beta = 2 (`theory.k_centers_bound`, re-derived). Principle of Esfandiari et al. 2023
    (arXiv 2302.10359); the random threshold is that of their heavy hitters.

    Examples
    --------
    >>> from privlearn.replicable.simulation import truncated_mixture
    >>> one, other = (truncated_mixture(20_000, np.random.default_rng(seed)) for seed in (0, 1))
    >>> model = ReplicableKCenters(4, shared_seed=0, cell=0.5, min_mass=0.05)
    >>> bool((model.fit(one).cluster_centers_ == model.fit(other).cluster_centers_).all())
    True
    """

    forecast_: Forecast

    def __init__(
        self,
        n_clusters: int = 3,
        *,
        shared_seed: int | None = None,
        rho: float = 0.3,
        cell: float | None = None,
        min_mass: float = 0.02,
        bounds: Any = None,
        n_components: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.shared_seed = shared_seed
        self.rho = rho
        self.cell = cell
        self.min_mass = min_mass
        self.bounds = bounds
        self.n_components = n_components

    def fit(self, X: Any, y: object = None) -> Self:
        """Find the active cells and k centres among them.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
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
            If n is too small for ``rho`` by the forecast.
        ConvergenceWarning
            If the rows fill fewer than n_clusters cells.
        """
        seed = check_shared_seed(self.shared_seed)
        k = check_n_clusters(self.n_clusters)
        check.proportion("rho", self.rho)
        check.proportion("min_mass", self.min_mass)
        if self.cell is not None:
            check.positive("cell", self.cell)
        X = self._read(X, reset=True)
        points = self._enter(X, seed)
        if self.cell is not None:
            # Cells of a given side stand still wherever the box is.
            self.box_ = self.box_._replace(
                centre=np.zeros_like(self.box_.centre), half_side=self.cell / _CELL, failure=0.0
            )
            points = self._locate(X)
        self.cell_ = _CELL * self.box_.half_side
        shift = uniforms(seed, "shift", np.arange(points.shape[1]))
        index = np.floor(points / _CELL - shift)
        cells, where, counts = _distinct(index)
        active = self._activate(cells, counts / len(X), k, seed)
        middle = (cells[active] + shift + 0.5) * _CELL
        centres = in_order(middle[farthest_first(middle, k)])
        self.active_cells_ = self.box_.from_unit(middle)
        self._finish(points, centres)
        held = active[where]
        away = np.linalg.norm(points - centres[self.labels_], axis=1)
        self.radius_ = float(away[held].max()) * self.box_.half_side
        self.tail_share_ = float(1 - held.mean())
        self._foresee(len(X))
        self._warn(k, len(X))
        return self

    def _activate(
        self, cells: FloatArray, masses: FloatArray, k: int, seed: int
    ) -> NDArray[np.bool_]:
        """Which cells are active; the mass is halved until there are k (or all of them are)."""
        levels = []
        for halving in range(_MOST_HALVINGS):
            mass = self.min_mass / 2**halving
            low, high = theory.threshold_window(mass, mass / 2)
            threshold = replicable_threshold(
                low=low, high=high, shared_seed=seed, purpose="active", label=halving
            )
            active = masses >= threshold
            levels.append(TreeLevel(halving, threshold, low, high, cells, masses, active))
            if active.sum() >= min(k, len(cells)):
                break
        self.levels_ = tuple(levels)
        return active

    def _foresee(self, n: int) -> None:
        def parts(factor: float) -> tuple[float, float, float, float, float]:
            rows, agree = max(1, round(n * factor)), 1.0
            for level in self.levels_:
                agree *= 1 - theory.thresholds_differ(
                    rows, level.masses, level.low, level.high, resolution=100, normal=True
                )
            return min(1.0, self.box_.failure / np.sqrt(factor)), 0.0, 1 - agree, 0.0, 0.0

        self.forecast_ = make_forecast(parts, n_samples=n, rho=self.rho)
        self.required_samples_ = self.forecast_.required_samples

    def _warn(self, k: int, n: int) -> None:
        if len(self.projected_centers_) < k:
            warnings.warn(
                f"only {len(self.projected_centers_)} of n_clusters={k} clusters: the rows fill no "
                "more cells (fewer distinct rows than clusters, or cell too large)",
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


def _distinct(index: FloatArray) -> tuple[FloatArray, NDArray[np.intp], NDArray[np.intp]]:
    """Distinct rows in lexicographic order, the number of each row's, and how often each occurs."""
    low = index.min(axis=0)
    span = index.max(axis=0) - low + 1
    if float(np.prod(span)) > _CODES:  # outliers far away: sort whole rows, slowly
        cells, where, counts = np.unique(index, axis=0, return_inverse=True, return_counts=True)
        return cells, where.ravel(), counts
    code = np.zeros(len(index), dtype=np.int64)
    for column, width, least in zip(index.T, span, low, strict=True):
        code = code * int(width) + (column - least).astype(np.int64)
    _, first, where, counts = np.unique(
        code, return_index=True, return_inverse=True, return_counts=True
    )
    return index[first], where, counts
