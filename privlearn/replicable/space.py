"""From the user's rows to the space of the grid: validation, projection, box."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.metrics import pairwise_distances
from sklearn.utils.validation import check_is_fitted, validate_data

from .box import Box, given_box, projected_box, replicable_box
from .oracles import nearest
from .quadtree import MAX_DIM
from .streams import normals
from .theory import _arguments as check

FloatArray = NDArray[np.float64]


def projection(shared_seed: int, n_features: int, n_components: int) -> FloatArray:
    """Shared Gaussian projection, (n_features, n_components), of entries of variance 1/q.

    Keeps squared lengths on average (Johnson-Lindenstrauss); entries are found by their position.
    """
    rows, columns = np.arange(n_features)[:, None], np.arange(n_components)[None, :]
    return normals(shared_seed, "projection", rows, columns) / np.sqrt(n_components)


class NearestCentre(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """What all replicable clusterers share: a box, maybe a projection, and the nearest centre."""

    n_components: int | None
    bounds: Any
    box_: Box
    projection_: FloatArray | None
    projected_centers_: FloatArray
    n_features_in_: int

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Cluster of each row: the nearest centre (the first of those at equal distance).

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        return self._nearest(self._locate(self._read(X, reset=False)))

    def transform(self, X: Any) -> FloatArray:
        """Distances to the centres, in the units of X (after a projection: in its space).

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_clusters found)
        """
        check_is_fitted(self)
        points = self._locate(self._read(X, reset=False))
        return pairwise_distances(points, self._unit_centres) * self.box_.half_side

    def fit_predict(self, X: Any, y: object = None, **ignored: Any) -> NDArray[np.int32]:
        """Fit, and give the cluster of each row.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : ignored

        Returns
        -------
        ndarray of shape (n,)
        """
        return self.fit(X).labels_

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit; see the subclasses."""
        raise NotImplementedError

    @property
    def _n_features_out(self) -> int:
        return len(self.projected_centers_)

    def _read(self, X: Any, *, reset: bool) -> FloatArray:
        return validate_data(self, X, dtype=np.float64, reset=reset)

    def _enter(self, X: FloatArray, seed: int) -> FloatArray:
        """Choose projection and box, and give the rows in it; beyond -1 and 1 outside."""
        dim = X.shape[1]
        self.projection_ = None
        if self.n_components is not None:
            q = check.count("n_components", self.n_components)
            if q > MAX_DIM:
                raise ValueError(f"n_components must be 1, 2 or 3, got {q}")
            if dim > q:
                self.projection_ = projection(seed, dim, q)
        elif dim > MAX_DIM:
            raise ValueError(
                f"X has {dim} features, and the grid's cells are exponential in their number: give "
                f"n_components=2 or 3 to cluster a shared random projection, or at most {MAX_DIM} "
                "features"
            )
        points = X if self.projection_ is None else X @ self.projection_
        if self.bounds is None:
            self.box_ = replicable_box(points, seed)
        elif self.projection_ is None:
            self.box_ = given_box(self.bounds, dim)
        else:
            self.box_ = projected_box(self.bounds, self.projection_)
        return self.box_.to_unit(points)

    def _locate(self, X: FloatArray) -> FloatArray:
        points = X if self.projection_ is None else X @ self.projection_
        return self.box_.to_unit(points)

    def _nearest(self, points: FloatArray) -> NDArray[np.int32]:
        return nearest(points, self._unit_centres)

    def _finish(self, points: FloatArray, centres: FloatArray) -> None:
        """Keep the centres, and the labels of the fitted rows."""
        self._unit_centres = centres
        self.projected_centers_ = self.box_.from_unit(centres)
        if self.projection_ is None:
            self.cluster_centers_ = self.projected_centers_
        elif hasattr(self, "cluster_centers_"):
            del self.cluster_centers_  # of an earlier fit without a projection
        self.labels_ = self._nearest(points)
