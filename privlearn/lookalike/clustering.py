"""Clusterers that guarantee a minimum cluster size: MDAV and minimum-size k-means.

Both give the same labels for X and for c * X, break ties by row, and check every size after the
fit. Columns are used as they are: standardise before (``make_pipeline(StandardScaler(), ...)``)
if their units differ; :class:`~privlearn.lookalike.LookAlikeClustering` does so by itself.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import kmeans_plusplus
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .blocks import blocks, default_block_size
from .coordinates import FloatArray, coordinates, group_means, relabel, within_sse
from .improve import hartigan_moves, polish, polish_blocks
from .mdav import mdav_partition
from .univariate import univariate_microaggregation

BlockSize = int | None | Literal["auto"]
#: Rows x clusters above which "auto" cuts the table in blocks, and the same for one block.
_MDAV_WHOLE, _MDAV_BLOCK = 100_000_000, 20_000_000
_FLOW_WHOLE, _FLOW_BLOCK = 20_000_000, 400_000
#: "auto" tries this many k-means++ starts, up to so many distances; below so small an m they
#: lose to MDAV's.
_N_STARTS, _MANY_STARTS, _LEAST_M = 3, 50_000, 5
#: Rounds over the blocks, each with other boundaries.
_ROUNDS = 3


def check_min_size(min_size: object, n_samples: int) -> int:
    """``min_size`` as an int, if 1 <= min_size <= n_samples.

    Raises
    ------
    ValueError
        With what to do about it.
    """
    if isinstance(min_size, bool) or not isinstance(min_size, Integral):
        raise ValueError(f"min_size must be an integer >= 1, got {min_size!r}")
    min_size = int(min_size)
    if min_size < 1:
        raise ValueError(f"min_size must be at least 1, got {min_size}")
    if min_size > n_samples:
        raise ValueError(
            f"min_size={min_size} cannot be met with n_samples={n_samples} rows: "
            "lower min_size or bring more rows"
        )
    return min_size


def check_sizes(labels: NDArray[np.intp], min_size: int) -> NDArray[np.intp]:
    """Cluster sizes; the last line of defence before a size is promised to anybody.

    Raises
    ------
    RuntimeError
        If a cluster is smaller than ``min_size``. No input is known to cause it.
    """
    sizes = np.bincount(labels)
    if sizes.min() < min_size:
        raise RuntimeError(f"a cluster has {sizes.min()} rows, fewer than min_size={min_size}")
    return sizes


class _MinSizeClusterer(ClusterMixin, BaseEstimator):
    """What the clusterers share: validation, attributes and prediction."""

    min_size: int

    def fit(self, X: Any, y: object = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Finite numbers.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X is not a finite numeric table, or its rows cannot fill the clusters asked for.
        """
        X = validate_data(self, X, dtype=np.float64)
        min_size = check_min_size(self.min_size, len(X))
        Z, self._frame = coordinates(X)
        labels = relabel(self._partition(Z, min_size))
        self.labels_ = labels
        self.cluster_sizes_ = check_sizes(labels, min_size)
        n_clusters = len(self.cluster_sizes_)
        self._centers = group_means(Z, labels, n_clusters)
        self.cluster_centers_ = scaled_group_means(X, labels, n_clusters)
        sse, total = within_sse(Z, labels), within_sse(Z, np.zeros(len(Z), dtype=np.intp))
        self.information_loss_ = sse / total if total > 0 else 0.0
        with np.errstate(over="ignore"):
            self.inertia_ = float(np.float64(sse) * self._frame.squared_unit())
        return self

    def _partition(self, Z: FloatArray, min_size: int) -> NDArray[np.intp]:
        raise NotImplementedError

    def predict(self, X: Any) -> NDArray[np.intp]:
        """Cluster of the nearest centre for each row.

        For new rows. The rows of the fit keep their cluster in ``labels_`` alone: the nearest
        centre of some of them is another one, and the minimum size would not hold.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        Z = self._frame.apply(X, snap=False)
        return np.asarray(KDTree(self._centers).query(Z)[1], dtype=np.intp)


def scaled_group_means(X: FloatArray, labels: NDArray[np.intp], n_groups: int) -> FloatArray:
    """Group means of raw columns, without overflow in the sums."""
    _, exponent = np.frexp(np.abs(X).max(axis=0))
    exponent = np.maximum(exponent, 0)
    return np.ldexp(group_means(np.ldexp(X, -exponent), labels, n_groups), exponent)


class MDAV(_MinSizeClusterer):
    """Microaggregation around the outermost records: clusters of ``min_size`` look-alikes.

    Deterministic and fast; the best choice for small ``min_size``, and the start of
    :class:`MinSizeKMeans`.

    Parameters
    ----------
    min_size : int, default=5
        m: every cluster has m to 2m - 1 rows (one more block's remainder where blocks are used).
    block_size : int, None or "auto", default="auto"
        Rows that are looked at together. None: all, O(n^2 d / m) time. "auto": all while n^2 / m
        is at most 1e8, then blocks of a k-d tree with about sqrt(2e7 m) rows each: time and
        memory linear in n.

    Attributes
    ----------
    labels_ : ndarray of shape (n,)
        Clusters, numbered by first appearance.
    cluster_centers_ : ndarray of shape (K, d)
        Means of the members, in the units of X.
    cluster_sizes_ : ndarray of shape (K,)
        All at least ``min_size``.
    inertia_ : float
        Within-cluster sum of squares, in the units of X squared.
    information_loss_ : float
        The same as a part of the total sum of squares, in [0, 1]; 0 for a constant table.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X came with names.

    References
    ----------
    J. Domingo-Ferrer and V. Torra, "Ordinal, continuous and heterogeneous k-anonymity through
    microaggregation", Data Mining and Knowledge Discovery 11 (2005).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [0.1], [5.0], [5.2], [9.0], [9.3], [0.2]])
    >>> MDAV(min_size=2).fit(X).cluster_sizes_
    array([2, 3, 2])
    """

    def __init__(self, min_size: int = 5, *, block_size: BlockSize = "auto") -> None:
        self.min_size = min_size
        self.block_size = block_size

    def _partition(self, Z: FloatArray, min_size: int) -> NDArray[np.intp]:
        return _mdav(Z, min_size, self.block_size)


class MinSizeKMeans(_MinSizeClusterer):
    """k-means in which every cluster has at least ``min_size`` rows.

    Lloyd's iterations with the exact optimal assignment under the size constraint, then moves of
    single rows (Hartigan), from the MDAV partition, from k-means++ or from both.

    Parameters
    ----------
    min_size : int, default=5
        m: the least size of a cluster.
    n_clusters : int or None, default=None
        K, with K * m <= n. None: as many as fit, n // m.
    init : {"both", "mdav", "k-means++"} or ndarray of shape (K, d), default="both"
        Where to start. MDAV wins at small m, k-means++ at large m; "both" keeps the best. MDAV
        makes n // m clusters, so any other ``n_clusters`` starts from k-means++ alone.
    n_init : int or "auto", default="auto"
        k-means++ starts. "auto": 3 while n * K <= 50,000, beyond that 1; beside MDAV 0 beyond that
        and for ``min_size`` below 5, where MDAV's start wins.
    max_iter : int, default=300
        Assignments per start.
    tol : float, default=1e-4
        A start is done when an iteration lowers the sum of squares by less than this part.
    block_size : int, None or "auto", default="auto"
        Rows that are optimised together. None: all, with n * K distances in memory. "auto": all
        while n * K <= 2e7; beyond that MDAV by blocks and three rounds of exact optimisation over
        blocks of neighbouring clusters with shifting boundaries: time and memory linear in n.
        Blocks need ``n_clusters=None`` and an ``init`` with MDAV.
    random_state : int, RandomState or None, default=0
        For k-means++. The default gives the same partition each time.

    Attributes
    ----------
    labels_, cluster_centers_, cluster_sizes_, inertia_, information_loss_
        As for :class:`MDAV`.
    n_iter_ : int
        Assignments that the best start took (with blocks: the longest of a block).

    Notes
    -----
    One varying column with ``n_clusters=None`` and an ``init`` by name is partitioned optimally
    (:func:`univariate_microaggregation`); the number of clusters then follows from the optimum.

    References
    ----------
    P. Bradley, K. Bennett and A. Demiriz, "Constrained k-means clustering", MSR-TR-2000-65.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0], [0, 1], [1, 0], [9, 9], [9, 8], [30, 30]])
    >>> MinSizeKMeans(min_size=3).fit(X).labels_
    array([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        min_size: int = 5,
        *,
        n_clusters: int | None = None,
        init: str | ArrayLike = "both",
        n_init: int | Literal["auto"] = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        block_size: BlockSize = "auto",
        random_state: Any = 0,
    ) -> None:
        self.min_size = min_size
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.block_size = block_size
        self.random_state = random_state

    def _partition(self, Z: FloatArray, min_size: int) -> NDArray[np.intp]:
        n_clusters = check_n_clusters(self.n_clusters, len(Z), min_size)
        by_name = isinstance(self.init, str)
        if by_name and self.init not in ("both", "mdav", "k-means++"):
            raise ValueError(
                f"init must be 'both', 'mdav', 'k-means++' or an array, got {self.init!r}"
            )
        if not self.max_iter >= 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol must lie in [0, 1), got {self.tol}")
        self.n_iter_ = 0
        if not by_name:
            return self._from_array(Z, min_size, n_clusters)
        if self.n_clusters is None:
            if min_size == 1:
                return np.arange(len(Z), dtype=np.intp)
            varying = np.flatnonzero(np.ptp(Z, axis=0) > 0)
            if len(varying) <= 1:
                column = Z[:, varying[0]] if len(varying) else np.zeros(len(Z))
                return univariate_microaggregation(column, min_size).labels
        size = _rows_per_block(
            self.block_size, len(Z), n_clusters, min_size, _FLOW_WHOLE, _FLOW_BLOCK
        )
        with_mdav = self.init != "k-means++" and n_clusters == len(Z) // min_size
        if size is not None and with_mdav:
            return self._by_blocks(Z, min_size, size)
        return self._best_of(Z, self._starts(Z, min_size, n_clusters, with_mdav), min_size)

    def _from_array(self, Z: FloatArray, min_size: int, n_clusters: int) -> NDArray[np.intp]:
        centers = np.asarray(self.init, dtype=np.float64)
        if centers.ndim != 2 or centers.shape[1] != Z.shape[1] or not np.isfinite(centers).all():
            raise ValueError(f"init must be a finite array with {Z.shape[1]} columns")
        if self.n_clusters is not None and len(centers) != n_clusters:
            raise ValueError(f"init has {len(centers)} centres, but n_clusters={n_clusters}")
        check_n_clusters(len(centers), len(Z), min_size)
        return self._best_of(Z, [self._frame.apply(centers, snap=False)], min_size)

    def _starts(
        self, Z: FloatArray, min_size: int, n_clusters: int, with_mdav: bool
    ) -> list[FloatArray]:
        starts = []
        if with_mdav:
            starts.append(group_means(Z, _mdav(Z, min_size, None), n_clusters))
        if self.n_init == "auto":
            large = len(Z) * n_clusters > _MANY_STARTS
            beaten = with_mdav and min_size < _LEAST_M
            n_init = int(not with_mdav) if large or beaten else _N_STARTS
        elif isinstance(self.n_init, Integral) and self.n_init >= 1:
            n_init = int(self.n_init)
        else:
            raise ValueError(f"n_init must be 'auto' or an integer >= 1, got {self.n_init!r}")
        if self.init == "mdav" and with_mdav:
            n_init = 0
        rng = check_random_state(self.random_state)
        starts += [kmeans_plusplus(Z, n_clusters, random_state=rng)[0] for _ in range(n_init)]
        return starts

    def _best_of(self, Z: FloatArray, starts: list[FloatArray], min_size: int) -> NDArray[np.intp]:
        best, least = None, math.inf
        for centers in starts:
            labels, n_iter = polish(Z, centers, min_size, max_iter=self.max_iter, tol=self.tol)
            sse = within_sse(Z, labels)
            if best is None or sse < least:
                best, least, self.n_iter_ = labels, sse, n_iter
        assert best is not None
        return best

    def _by_blocks(self, Z: FloatArray, min_size: int, block_size: int) -> NDArray[np.intp]:
        labels = _mdav(Z, min_size, self.block_size)
        for turn in range(_ROUNDS):
            labels, n_iter = polish_blocks(
                Z, labels, min_size, block_size, turn=turn, max_iter=self.max_iter, tol=self.tol
            )
            self.n_iter_ = max(self.n_iter_, n_iter)
        return hartigan_moves(Z, labels, min_size)


def check_n_clusters(n_clusters: object, n_samples: int, min_size: int) -> int:
    """K as an int, ``n_samples // min_size`` for None.

    Raises
    ------
    ValueError
        If K is no positive integer, or K clusters of ``min_size`` need more rows than there are.
    """
    if n_clusters is None:
        return n_samples // min_size
    if isinstance(n_clusters, bool) or not isinstance(n_clusters, Integral):
        raise ValueError(f"n_clusters must be None or an integer >= 1, got {n_clusters!r}")
    n_clusters = int(n_clusters)
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be None or an integer >= 1, got {n_clusters}")
    if n_clusters * min_size > n_samples:
        raise ValueError(
            f"n_clusters={n_clusters} clusters of at least min_size={min_size} need "
            f"{n_clusters * min_size} rows, but n_samples={n_samples}: lower one of the two"
        )
    return n_clusters


def _rows_per_block(
    block_size: object, n_samples: int, n_clusters: int, min_size: int, whole: int, block: int
) -> int | None:
    """Rows of a block, or None where the table is taken whole."""
    if block_size is None:
        return None
    if isinstance(block_size, str) and block_size == "auto":
        if n_samples * n_clusters <= whole:
            return None
        block_size = default_block_size(min_size, block)
    if isinstance(block_size, bool) or not isinstance(block_size, Integral):
        raise ValueError(f"block_size must be 'auto', None or an integer, got {block_size!r}")
    block_size = int(block_size)
    if block_size < 2 * min_size:
        raise ValueError(
            f"block_size must be at least 2 * min_size = {2 * min_size}, got {block_size}"
        )
    return block_size if block_size < n_samples else None


def _mdav(Z: FloatArray, min_size: int, block_size: BlockSize) -> NDArray[np.intp]:
    n = len(Z)
    size = _rows_per_block(block_size, n, n // min_size, min_size, _MDAV_WHOLE, _MDAV_BLOCK)
    if size is None:
        return mdav_partition(Z, min_size)
    labels = np.empty(n, dtype=np.intp)
    n_groups = 0
    for rows in blocks(Z, min_size, size):
        labels[rows] = mdav_partition(Z[rows], min_size) + n_groups
        n_groups = int(labels[rows].max()) + 1
    return labels
