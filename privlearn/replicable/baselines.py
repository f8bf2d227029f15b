"""What one would try first: k-means whose centres are rounded on a shared grid."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted, validate_data

from .oracles import check_n_clusters, in_order, nearest
from .primitives import replicable_round
from .streams import check_shared_seed, integer_seed
from .theory._arguments import positive


class RoundedKMeans(ClusterMixin, BaseEstimator):
    """k-means on the sample, its centres moved to a randomly shifted grid that runs share.

    Replicates where the optimum is unique and found by every run; fails under symmetry, where two
    samples lead to different optima that no rounding brings together. A baseline.

    Parameters
    ----------
    n_clusters : int, default=3
    shared_seed : int
        `fit` refuses to work without it.
    grid : float, default=0.1
        Width of the grid, in units of the features.
    n_init : int, default=1
        Starts of k-means.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
    labels_ : ndarray of shape (n,)

    Examples
    --------
    >>> X = np.repeat([[0.0], [5.0]], 50, axis=0)
    >>> RoundedKMeans(2, shared_seed=0).fit(X).cluster_centers_.shape
    (2, 1)
    """

    def __init__(
        self,
        n_clusters: int = 3,
        *,
        shared_seed: int | None = None,
        grid: float = 0.1,
        n_init: int = 1,
    ) -> None:
        self.n_clusters = n_clusters
        self.shared_seed = shared_seed
        self.grid = grid
        self.n_init = n_init

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit k-means and round.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : ignored

        Returns
        -------
        self
        """
        seed = check_shared_seed(self.shared_seed)
        grid = positive("grid", self.grid)
        X = validate_data(self, X, dtype=np.float64)
        model = KMeans(
            check_n_clusters(self.n_clusters),
            n_init=self.n_init,
            random_state=integer_seed(seed, "k-means"),
        ).fit(X)
        axes = np.arange(X.shape[1])
        self.cluster_centers_ = in_order(
            replicable_round(
                model.cluster_centers_, alpha=grid, shared_seed=seed, purpose="centres", labels=axes
            )
        )
        self.labels_ = nearest(X, self.cluster_centers_)
        return self

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Nearest rounded centre of each row.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return nearest(X, self.cluster_centers_)
