"""The black box that clusters the coreset: deterministic given its input and one integer."""

from __future__ import annotations

import functools
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, clone
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)
from threadpoolctl import ThreadpoolController

FloatArray = NDArray[np.float64]

_BLOCK = 2**15  # rows at a time: a few columns of them stay in the cache
_SWAPS_UP_TO = 512  # rows up to which every row is a candidate centre


class WeightedKMedians(ClusterMixin, BaseEstimator):
    """k-medians with sample weights: least sum of weighted distances to the nearest centre.

    Up to 512 distinct rows: centres among the rows by adding greedily and then swapping while that
    helps (deterministic; a local optimum under swaps costs at most 5 times the best centres among
    the rows, Arya et al. 2004), then moved to the geometric medians of their clusters. More rows:
    started from k-means instead.

    Parameters
    ----------
    n_clusters : int, default=3
    max_iter : int, default=100
        Rounds of assigning and moving.
    random_state : int, default=0
        For k-means, where there are many rows.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (k, d)
    labels_ : ndarray of shape (n,)
    inertia_ : float
        Sum of weighted distances.
    n_iter_ : int

    Examples
    --------
    >>> model = WeightedKMedians(2).fit([[0.0], [1.0], [10.0]], sample_weight=[1, 2, 1])
    >>> model.cluster_centers_.ravel().round(6).tolist()
    [1.0, 10.0]
    """

    def __init__(self, n_clusters: int = 3, *, max_iter: int = 100, random_state: int = 0) -> None:
        self.n_clusters = n_clusters
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find centres.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : ignored
        sample_weight : array-like of shape (n,), optional
            At least 0.

        Returns
        -------
        self
        """
        X = validate_data(self, X, dtype=np.float64)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        k = check_n_clusters(self.n_clusters)
        if k > len(X):
            raise ValueError(
                f"n_clusters={k} must be at most the number of rows, n_samples={len(X)}"
            )
        scale = float(np.abs(X - X[0]).max()) or 1.0
        points = (X - X[0]) / scale
        centres = self._start(points, weight, k)
        cost = _cost(points, weight, centres)
        for n_iter in range(1, self.max_iter + 1):
            self.n_iter_ = n_iter
            labels = nearest(points, centres)
            moved = np.array([
                _geometric_median(points[labels == j], weight[labels == j], centres[j])
                for j in range(k)
            ])  # fmt: skip
            new_cost = _cost(points, weight, moved)
            if not new_cost < cost * (1 - 1e-12):
                break
            centres, cost = moved, new_cost
        self.cluster_centers_ = centres * scale + X[0]
        self.labels_ = nearest(X, self.cluster_centers_)
        self.inertia_ = float(_cost(X, weight, self.cluster_centers_))
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Nearest centre of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return nearest(X, self.cluster_centers_)

    def _start(self, points: FloatArray, weight: FloatArray, k: int) -> FloatArray:
        distinct, group = np.unique(points, axis=0, return_inverse=True)
        if len(distinct) <= k:
            return np.concatenate([distinct, np.repeat(distinct[:1], k - len(distinct), axis=0)])
        if len(distinct) > _SWAPS_UP_TO:
            start = KMeans(k, n_init=3, random_state=self.random_state)
            return start.fit(points, sample_weight=weight).cluster_centers_
        together = np.bincount(group.ravel(), weights=weight).astype(np.float64)
        return distinct[_swap_medoids(pairwise_distances(distinct), together, k)]


def solve(
    oracle: Any, default: Any, points: FloatArray, weights: FloatArray, k: int, seed: int
) -> FloatArray:
    """Centres of the coreset by the oracle, sorted; all its points, if it has at most k.

    Raises
    ------
    TypeError
        If the oracle is no clusterer with ``sample_weight`` and ``cluster_centers_``.
    ValueError
        If its ``random_state`` is a generator, whose state two runs would not share.
    """
    kept = weights > 0
    points, weights = points[kept], weights[kept]
    distinct = np.unique(points, axis=0)
    if len(distinct) <= k:
        return distinct
    model = clone(default if oracle is None else oracle)
    if not hasattr(model, "fit") or not has_fit_parameter(model, "sample_weight"):
        raise TypeError(f"oracle must be a clusterer whose fit takes sample_weight, got {oracle!r}")
    parameters = model.get_params(deep=False)
    state = parameters.get("random_state")
    if not (state is None or isinstance(state, Integral)):
        raise ValueError(f"random_state of the oracle must be None or an integer, got {state!r}")
    changes: dict[str, Any] = {"n_clusters": k} if "n_clusters" in parameters else {}
    if "random_state" in parameters and state is None:
        changes["random_state"] = seed
    model.set_params(**changes)
    with one_thread():
        model.fit(points, sample_weight=weights)
    centres = getattr(model, "cluster_centers_", None)
    if centres is None:
        raise TypeError(f"oracle must have cluster_centers_ after fit, {model!r} has none")
    return in_order(np.asarray(centres, dtype=np.float64))


def one_thread() -> Any:
    """Context in which native code uses one thread.

    With several, the additions of a large coreset have no fixed order; and on a small one threads
    only wait for each other.
    """
    return _controller().limit(limits=1)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def in_order(centres: FloatArray) -> FloatArray:
    """Rows in lexicographic order: labels do not depend on the order of the solver."""
    return centres[np.lexsort(centres.T[::-1])]


def nearest(points: FloatArray, centres: FloatArray) -> NDArray[np.int32]:
    """Number of the nearest centre of each row; the first of those at equal distance.

    In few dimensions, and in one fixed order of additions: no expansion of the square, no threads.
    """
    labels = np.zeros(len(points), dtype=np.int32)
    for start in range(0, len(points), _BLOCK):
        rows = np.ascontiguousarray(points[start : start + _BLOCK].T)
        least = np.full(rows.shape[1], np.inf)
        found = labels[start : start + _BLOCK]
        for number, centre in enumerate(centres):
            distance = (rows[0] - centre[0]) ** 2
            for column, place in zip(rows[1:], centre[1:], strict=True):
                distance += (column - place) ** 2
            closer = distance < least
            np.copyto(found, number, where=closer)
            np.copyto(least, distance, where=closer)
    return labels


def farthest_first(points: FloatArray, k: int) -> NDArray[np.intp]:
    """Greedy k-centers (Gonzalez 1985, a 2-approximation): each next point is the farthest.

    Starts at the first row; the first of the farthest rows is taken.

    Examples
    --------
    >>> farthest_first(np.array([[0.0], [1.0], [5.0], [9.0]]), 3).tolist()
    [0, 3, 2]
    """
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(k, len(points)):
        furthest = int(np.argmax(distance))
        chosen.append(furthest)
        distance = np.minimum(distance, np.linalg.norm(points - points[furthest], axis=1))
    return np.array(chosen, dtype=np.intp)


def check_n_clusters(n_clusters: object) -> int:
    """Return n_clusters if it is an integer >= 1, or say what is wrong."""
    if isinstance(n_clusters, bool) or not isinstance(n_clusters, Integral):
        raise TypeError(f"n_clusters must be an integer >= 1, got {n_clusters!r}")
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be >= 1, got {n_clusters}")
    return int(n_clusters)


def _cost(points: FloatArray, weight: FloatArray, centres: FloatArray) -> float:
    away = points - centres[nearest(points, centres)]
    return float(weight @ np.linalg.norm(away, axis=1))


def _swap_medoids(distance: FloatArray, weight: FloatArray, k: int) -> list[int]:
    """Rows as centres: greedy, then the best single swap until none helps."""
    chosen: list[int] = []
    away = np.full(len(distance), np.inf)
    for _ in range(k):
        best = int(np.argmin(np.minimum(distance, away[None, :]) @ weight))
        chosen.append(best)
        away = np.minimum(away, distance[best])
    cost = float(away @ weight)
    for _ in range(100 * k):
        options = []
        for place in range(k):
            rest = chosen[:place] + chosen[place + 1 :]
            without = distance[rest].min(axis=0, initial=np.inf)
            costs = np.minimum(distance, without[None, :]) @ weight
            options.append((float(costs.min()), place, int(np.argmin(costs))))
        best_cost, place, row = min(options)
        if not best_cost < cost * (1 - 1e-12):
            break
        chosen[place], cost = row, best_cost
    return chosen


def _geometric_median(points: FloatArray, weight: FloatArray, start: FloatArray) -> FloatArray:
    """Weiszfeld's iteration, with Vardi and Zhang's step where it meets a row (2000)."""
    if len(points) == 0 or weight.sum() == 0:
        return start
    centre = start
    for _ in range(200):
        away = np.linalg.norm(points - centre, axis=1)
        at = away < 1e-12
        pull = weight[~at] / away[~at]
        if len(pull) == 0:
            return centre
        mean = (pull @ points[~at]) / pull.sum()
        if at.any():
            force = float(np.linalg.norm(pull @ (points[~at] - centre)))
            stay = float(weight[at].sum())
            if force <= stay:
                return centre
            mean = (1 - stay / force) * mean + stay / force * centre
        if float(np.linalg.norm(mean - centre)) < 1e-13:
            return mean
        centre = mean
    return centre
