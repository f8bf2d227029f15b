"""Linear regression trained on look-alike features, and what it is compared with."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from privlearn.simulate import float64

from . import kernels
from .coordinates import FloatArray
from .estimators import LookAlikeClustering
from .tables import CLUSTER_ON, resolve_columns


class LookAlikeRegression(RegressorMixin, BaseEstimator):
    """Least squares or ridge in which every training row carries its cluster's sensitive average.

    It predicts from *individual* features: a new user needs no cluster. The objective is
    ``(1/n) ||y - X theta||^2 + ridge ||theta||^2`` on the look-alike table, with an unpenalised
    intercept.

    Parameters
    ----------
    sensitive : as in :class:`LookAlikeClustering`, default=None
        Sensitive columns; None is all of them.
    min_size : int, default=5
        m: no training row shares its sensitive features with fewer than m - 1 others.
    features : {"empirical", "known", "base", "drop"}, default="empirical"
        What the sensitive block of the training table is. "empirical": means of the clusters.
        "known": the ``centers`` given to `fit`, through the ``clusters`` given to `fit` (those of a
        noisy source make it the mis-clustered estimator). "base": the individual values, no
        anonymity. "drop": nothing.
    ridge : float, default=0.1
        At 0 the fit is the min-norm one, which has a peak of its error where the number of
        clusters comes near the number of sensitive features; a warning says so.
    fit_intercept : bool, default=True
    method, cluster_on, n_clusters, random_state
        As in :class:`LookAlikeClustering`, for "empirical" without ``clusters``.

    Attributes
    ----------
    coef_ : ndarray of shape (d,)
        On individual features, columns as in X.
    intercept_ : float
    lookalike_ : LookAlikeClustering or None
        The fitted clustering, for "empirical".
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X came with names.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> model = LookAlikeRegression(["s1", "s2", "s3", "s4", "s5", "s6"], ridge=1e-5).fit(X, y)
    >>> model.lookalike_.report_.anonymity_level
    5
    >>> round(model.score(X, y), 2)
    0.52
    """

    def __init__(
        self,
        sensitive: Any = None,
        min_size: int = 5,
        *,
        features: Literal["empirical", "known", "base", "drop"] = "empirical",
        ridge: float = 0.1,
        fit_intercept: bool = True,
        method: str = "mdav+flow",
        cluster_on: Any = "sensitive",
        n_clusters: int | None = None,
        random_state: Any = 0,
    ) -> None:
        self.sensitive = sensitive
        self.min_size = min_size
        self.features = features
        self.ridge = ridge
        self.fit_intercept = fit_intercept
        self.method = method
        self.cluster_on = cluster_on
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        clusters: ArrayLike | None = None,
        centers: ArrayLike | None = None,
    ) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Numeric.
        y : array-like of shape (n,)
        clusters : array-like of shape (n,), optional
            Cluster of each row. Labels for "empirical" (every cluster needs ``min_size`` rows),
            row numbers of ``centers`` for "known".
        centers : array-like of shape (K, p), optional
            Sensitive centres, for "known" only.

        Returns
        -------
        self
        """
        table = X
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        columns = resolve_columns(self, table, self.sensitive, "sensitive")
        y = y.astype(np.float64)
        if not (np.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge must be a finite number >= 0, got {self.ridge}")
        if self.features not in ("empirical", "known", "base", "drop"):
            raise ValueError(
                f"features must be 'empirical', 'known', 'base' or 'drop', got {self.features!r}"
            )
        if self.features != "known" and centers is not None:
            raise ValueError("centers are for features='known' only")
        rest = np.setdiff1d(np.arange(X.shape[1]), columns)
        sensitive, other = X[:, columns], X[:, rest]
        self.lookalike_: LookAlikeClustering | None = None
        centres, labels = self._centres(X, table, columns, clusters, centers)
        self._warn_of_peak(None if centres is None else len(centres), len(columns))

        lam = None if self.ridge == 0 else self.ridge
        shown = sensitive if centres is None else centres[labels]
        s_mean, o_mean, y_mean = shown.mean(axis=0), other.mean(axis=0), y.mean()
        if not self.fit_intercept:
            s_mean, o_mean, y_mean = 0 * s_mean, 0 * o_mean, 0.0
        with float64():
            args = jnp.asarray(other - o_mean), jnp.asarray(y - y_mean)
            if self.features == "drop":
                fitted = kernels.fit_drop(jnp.asarray(sensitive), *args, lam=lam)
            elif centres is None:
                fitted = kernels.fit_base(jnp.asarray(sensitive - s_mean), *args, lam=lam)
            else:
                assert labels is not None
                fitted = kernels.fit_centres(
                    jnp.asarray(centres - s_mean), jnp.asarray(labels), *args, lam=lam
                )
            theta_s, theta_o = np.asarray(fitted.sensitive), np.asarray(fitted.other)
        self.coef_ = np.empty(X.shape[1])
        self.coef_[columns], self.coef_[rest] = theta_s, theta_o
        self.intercept_ = float(y_mean - s_mean @ theta_s - o_mean @ theta_o)
        return self

    def _centres(
        self,
        X: FloatArray,
        table: object,
        columns: NDArray[np.intp],
        clusters: ArrayLike | None,
        centers: ArrayLike | None,
    ) -> tuple[FloatArray | None, NDArray[np.intp] | None]:
        """The centres of the training table and the centre of each row; None for "base", "drop"."""
        if self.features in ("base", "drop"):
            return None, None
        if self.features == "empirical":
            cluster_on = self.cluster_on
            if not isinstance(cluster_on, str) or cluster_on not in CLUSTER_ON:
                cluster_on = resolve_columns(self, table, cluster_on, "cluster_on")
            self.lookalike_ = LookAlikeClustering(
                columns,
                self.min_size,
                method=self.method,
                cluster_on=cluster_on,
                n_clusters=self.n_clusters,
                random_state=self.random_state,
            ).fit(X, clusters=clusters)
            return self.lookalike_.centers_, self.lookalike_.labels_
        if clusters is None or centers is None:
            raise ValueError("features='known' needs both clusters and centers in fit")
        centres = np.asarray(centers, dtype=np.float64)
        labels = np.asarray(clusters)
        if centres.ndim != 2 or centres.shape[1] != len(columns) or not np.isfinite(centres).all():
            raise ValueError(f"centers must be finite, of shape (K, {len(columns)})")
        if labels.shape != (len(X),) or labels.dtype.kind not in "iu":
            raise ValueError(f"clusters must be {len(X)} row numbers of centers")
        if labels.min() < 0 or labels.max() >= len(centres):
            raise ValueError(f"clusters must lie in 0..{len(centres) - 1}")
        return centres, labels.astype(np.intp)

    def _warn_of_peak(self, n_clusters: int | None, n_sensitive: int) -> None:
        if n_clusters is None or self.ridge > 0 or n_sensitive < 2:
            return
        if 0.5 < n_clusters / n_sensitive < 2:
            warnings.warn(
                f"{n_clusters} clusters for {n_sensitive} sensitive features, without ridge: the "
                "error has an interpolation peak where these numbers meet. Set ridge > 0 or "
                "change min_size.",
                UserWarning,
                stacklevel=3,
            )

    def predict(self, X: Any) -> FloatArray:
        """Predict from individual features.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_
