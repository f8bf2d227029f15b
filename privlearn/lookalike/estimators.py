"""The product: a transformer that shows cluster averages in place of sensitive features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .clustering import (
    MDAV,
    MinSizeKMeans,
    check_min_size,
    check_n_clusters,
    check_sizes,
    scaled_group_means,
)
from .coordinates import FloatArray, coordinates, group_means, relabel, within_sse
from .merge import kmeans_merge
from .tables import CLUSTER_ON, as_frame, numbers_of, replace_columns, resolve_columns

_METHODS = ("mdav", "flow", "mdav+flow", "kmeans-merge")

NOT_PROMISED = (
    "The table is not k-anonymous: a whole row may be unique by its other columns, and the label "
    "is not protected.",
    "It is not differential privacy: a centre is the mean of its members, so whoever knows all "
    "members but one can solve for the last.",
    "New rows: `transform` gives them a centre, but no minimum number of them shares it.",
)


@dataclass(frozen=True, slots=True)
class LookAlikeReport:
    """What was done to the fitted table, what holds for it, and what does not."""

    n_rows: int
    n_clusters: int
    min_size: int  #: m, as asked
    smallest: int  #: rows of the smallest cluster
    largest: int  #: rows of the largest cluster
    anonymity_level: int  #: fewest rows with one and the same sensitive block, by counting
    information_loss: float  #: IL%, 100 SSE / SST of the standardised clustering columns
    sensitive: tuple[str, ...]  #: columns that were replaced
    clustered_on: tuple[str, ...]  #: columns that made the clusters (empty: clusters were given)
    method: str
    not_promised: tuple[str, ...] = NOT_PROMISED

    def __str__(self) -> str:
        """Readable lines for a notebook or a log."""
        on = ", ".join(self.clustered_on) or "clusters given by the user"
        lines = [
            f"Look-alike clustering of {self.n_rows} rows in {self.n_clusters} clusters "
            f"({self.method})",
            f"  sensitive columns replaced by averages: {', '.join(self.sensitive)}",
            f"  clustered on: {on}",
            f"  cluster sizes: {self.smallest} to {self.largest} (asked: at least {self.min_size})",
            f"  every sensitive block of the released rows is shared by at least "
            f"{self.anonymity_level} rows",
            f"  information loss: {self.information_loss:.2f} %",
            "  Not promised:",
        ]
        return "\n".join(lines + [f"  - {line}" for line in self.not_promised])


class _Standard(NamedTuple):
    """Z-scores of the fit rows: ``(X * 2**-exponent - mean) / deviation``, columnwise."""

    exponent: NDArray[np.intp]
    mean: FloatArray
    deviation: FloatArray

    @classmethod
    def of(cls, X: FloatArray) -> _Standard:
        largest = np.abs(X).max(axis=0)
        exponent = np.frexp(largest)[1].astype(np.intp)
        scaled = np.ldexp(X, -exponent)
        # A spread of a few roundings is a constant column, not a signal to blow up.
        constant = np.ptp(scaled, axis=0) <= 16 * np.finfo(np.float64).eps
        deviation = np.where(constant, 1.0, scaled.std(axis=0))
        return cls(exponent, np.where(constant, scaled[0], scaled.mean(axis=0)), deviation)

    def apply(self, X: FloatArray) -> FloatArray:
        return (np.ldexp(X, -self.exponent) - self.mean) / self.deviation


class LookAlikeClustering(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Replace sensitive columns by the averages of clusters of at least ``min_size`` rows.

    In the table that ``fit_transform`` returns, every row shares its sensitive block, bit by bit,
    with at least ``min_size - 1`` others. ``report_`` states what was reached, and what is *not*
    promised.

    Parameters
    ----------
    sensitive : str, int, list of these, boolean mask, slice or callable, default=None
        Columns to replace; a callable gets the table and returns one of the others. None is all
        columns. They must be numeric: one-hot encode categories first.
    min_size : int, default=5
        m: the least rows of a cluster, 1 <= m <= n. 1 replaces nothing.
    method : {"mdav+flow", "mdav", "flow", "kmeans-merge"}, default="mdav+flow"
        "mdav": :class:`MDAV`. "flow": :class:`MinSizeKMeans` from k-means++. "mdav+flow":
        MinSizeKMeans from both starts, the best kept. "kmeans-merge": plain k-means, its small
        clusters merged into their neighbours.
    cluster_on : {"sensitive", "other", "all"} or a selector of columns, default="sensitive"
        Columns whose z-scores make the clusters.
    n_clusters : int or None, default=None
        None: n // m. Not for "mdav", which makes its own number.
    test_features : {"anonymised", "individual"}, default="anonymised"
        What `transform` does to rows that were not fitted: give them the centre of the nearest
        cluster, or leave them as they are.
    random_state : int, RandomState or None, default=0
        For k-means++ and k-means. The default gives the same partition each time.

    Attributes
    ----------
    labels_ : ndarray of shape (n,)
        Cluster of each fitted row.
    centers_ : ndarray of shape (K, p)
        Means of the raw sensitive columns.
    cluster_sizes_ : ndarray of shape (K,)
    sensitive_ : ndarray of shape (p,)
        Numbers of the sensitive columns, ascending.
    clusters_ : ndarray of shape (K,) or None
        The user's names of the clusters, where he gave them.
    anonymity_level_ : int
        Fewest rows that share one sensitive block in the released table, by counting.
    information_loss_ : float
        SSE / SST of the standardised clustering columns, in [0, 1].
    report_ : LookAlikeReport
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If the table came with names.

    Notes
    -----
    * The fitted table is recognised by a digest of it as a whole: ``fit(X).transform(X)`` equals
      ``fit_transform(X)``. A part of it, or its rows in another order, are new rows: the nearest
      centre may be another than the own, and the minimum size then does not hold.
    * The fitted object holds centres and labels, never rows. Keep ``labels_`` private all the
      same: it says who is in which cluster.
    * The same partition for X and c * X. Constant clustering columns play no part; if all are
      constant, clusters are made in row order. With fewer distinct rows than clusters some centres
      coincide and ``anonymity_level_`` exceeds ``min_size``.
    * A frame comes back as the kind of frame that it was, columns that are not sensitive untouched
      (they may be of any type unless clusters are made on them); ``set_output`` overrides that.
    * Fit inside the cross-validation fold: clusters that saw test rows leak them.

    Examples
    --------
    >>> import polars as pl
    >>> people = pl.DataFrame({"age": [20, 22, 60, 64], "city": ["A", "B", "C", "D"]})
    >>> look = LookAlikeClustering("age", min_size=2)
    >>> look.fit_transform(people)["age"].to_list()
    [21.0, 21.0, 62.0, 62.0]
    >>> look.anonymity_level_
    2
    """

    def __init__(
        self,
        sensitive: Any = None,
        min_size: int = 5,
        *,
        method: str = "mdav+flow",
        cluster_on: Any = "sensitive",
        n_clusters: int | None = None,
        test_features: Literal["anonymised", "individual"] = "anonymised",
        random_state: Any = 0,
    ) -> None:
        self.sensitive = sensitive
        self.min_size = min_size
        self.method = method
        self.cluster_on = cluster_on
        self.n_clusters = n_clusters
        self.test_features = test_features
        self.random_state = random_state

    def fit(self, X: Any, y: object = None, clusters: ArrayLike | None = None) -> Self:
        """Find the clusters, or take the given ones, and average the sensitive columns.

        Parameters
        ----------
        X : table of shape (n, d)
            Array, or a pandas, polars or pyarrow frame.
        y : ignored
            Clusters that look at the label would leak it.
        clusters : array-like of shape (n,), optional
            Cluster of each row; every cluster needs ``min_size`` rows. Routed as metadata in a
            pipeline: ``set_fit_request(clusters=True)``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If m is not in [1, n] or cannot be met, a column is not numeric or not finite, a given
            cluster is too small, or a parameter has no meaning.
        """
        self._check_parameters()
        source = self._read(X, reset=True)
        min_size = check_min_size(self.min_size, len(source))
        self.sensitive_ = resolve_columns(self, X, self.sensitive, "sensitive")
        self._on = self._clustering_columns(X)
        sensitive = source.numbers(self.sensitive_, "sensitive")
        basis = source.numbers(self._on, "cluster_on")
        self._standard = _Standard.of(basis)
        standardised = self._standard.apply(basis)
        Z, _ = coordinates(standardised)
        self.clusters_: NDArray[Any] | None = None
        if clusters is None:
            labels = relabel(self._find(standardised, Z, min_size))
        else:
            self.clusters_, labels = _given(clusters, len(source), min_size)
        self.labels_ = labels
        self.cluster_sizes_ = check_sizes(labels, min_size)
        n_clusters = len(self.cluster_sizes_)
        self.centers_ = scaled_group_means(sensitive, labels, n_clusters)
        self._look_alikes = group_means(standardised, labels, n_clusters)
        self._digest = _digest(sensitive, basis)
        sse, total = within_sse(Z, labels), within_sse(Z, np.zeros(len(Z), dtype=np.intp))
        self.information_loss_ = sse / total if total > 0 else 0.0
        self._certify(source.dtype, min_size, given=clusters is not None)
        return self

    def transform(self, X: Any) -> Any:
        """Show averages in the sensitive columns.

        The fitted table, whole and in its order, gets the centres of its own clusters. Other rows
        get the centre of the nearest cluster, or stay as they are (``test_features``); the minimum
        size does not cover them.

        Parameters
        ----------
        X : table of shape (n, d)

        Returns
        -------
        table of shape (n, d)
            Of the kind that came in, or as ``set_output`` says.
        """
        check_is_fitted(self)
        source = self._read(X, reset=False)
        sensitive = source.numbers(self.sensitive_, "sensitive")
        basis = source.numbers(self._on, "cluster_on")
        if len(source) == len(self.labels_) and _digest(sensitive, basis) == self._digest:
            return source.release(self.sensitive_, self.centers_[self.labels_])
        if self.test_features == "individual":
            return source.release(self.sensitive_, sensitive)
        nearest = KDTree(self._look_alikes).query(self._standard.apply(basis))[1]
        return source.release(self.sensitive_, self.centers_[nearest])

    def fit_transform(self, X: Any, y: object = None, clusters: ArrayLike | None = None) -> Any:
        """Fit, and release the fitted table; arguments as in `fit`.

        Returns
        -------
        table of shape (n, d)
            Of the kind that came in, or as ``set_output`` says.
        """
        self.fit(X, y, clusters=clusters)
        return self._read(X, reset=False).release(self.sensitive_, self.centers_[self.labels_])

    def __sklearn_tags__(self) -> Any:
        """Say that float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_parameters(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {self.method!r}")
        if self.test_features not in ("anonymised", "individual"):
            raise ValueError(
                f"test_features must be 'anonymised' or 'individual', got {self.test_features!r}"
            )
        if self.method == "mdav" and self.n_clusters is not None:
            raise ValueError("method='mdav' makes its own number of clusters: leave n_clusters out")

    def _read(self, X: Any, *, reset: bool) -> _Source:
        frame = as_frame(X)
        if frame is None:
            return _Source(validate_data(self, X, dtype=[np.float64, np.float32], reset=reset))
        validate_data(self, X, skip_check_array=True, reset=reset)
        if len(frame) == 0:
            raise ValueError("Found a table with 0 rows: at least 1 is required")
        return _Source(None, frame)

    def _clustering_columns(self, X: Any) -> NDArray[np.intp]:
        every = np.arange(self.n_features_in_)
        if isinstance(self.cluster_on, str) and self.cluster_on in CLUSTER_ON:
            if self.cluster_on == "all":
                return every
            if self.cluster_on == "sensitive":
                return self.sensitive_
            other = np.setdiff1d(every, self.sensitive_)
            if len(other) == 0:
                raise ValueError("cluster_on='other', but every column is sensitive")
            return other
        return resolve_columns(self, X, self.cluster_on, "cluster_on")

    def _find(self, standardised: FloatArray, Z: FloatArray, m: int) -> NDArray[np.intp]:
        n_clusters = check_n_clusters(self.n_clusters, len(Z), m)
        if self.method == "kmeans-merge":
            state = self.random_state
            return kmeans_merge(Z, m, n_clusters, n_init=1, random_state=state)
        if self.method == "mdav":
            return MDAV(m).fit(standardised).labels_
        model = MinSizeKMeans(
            m,
            n_clusters=self.n_clusters,
            init="k-means++" if self.method == "flow" else "both",
            random_state=self.random_state,
        )
        return model.fit(standardised).labels_

    def _certify(self, dtype: Any, min_size: int, *, given: bool) -> None:
        """Count the identical sensitive blocks of what is released, and write the report."""
        _, kinds = np.unique(self.centers_.astype(dtype), axis=0, return_inverse=True)
        level = int(np.bincount(kinds.ravel(), weights=self.cluster_sizes_).min())
        if level < min_size:
            raise RuntimeError(f"only {level} rows share a sensitive block, asked: {min_size}")
        self.anonymity_level_ = level
        names = self.get_feature_names_out()
        self.report_ = LookAlikeReport(
            n_rows=len(self.labels_),
            n_clusters=len(self.cluster_sizes_),
            min_size=min_size,
            smallest=int(self.cluster_sizes_.min()),
            largest=int(self.cluster_sizes_.max()),
            anonymity_level=level,
            information_loss=100 * self.information_loss_,
            sensitive=tuple(map(str, names[self.sensitive_])),
            clustered_on=() if given else tuple(map(str, names[self._on])),
            method="given clusters" if given else self.method,
        )


class _Source:
    """A table that came in, as an array or as a frame."""

    def __init__(self, array: Any, frame: Any = None) -> None:
        self.array, self.frame = array, frame
        self.dtype = np.float64 if array is None else array.dtype

    def __len__(self) -> int:
        return len(self.frame if self.array is None else self.array)

    def numbers(self, columns: NDArray[np.intp], parameter: str) -> FloatArray:
        if self.array is None:
            return numbers_of(self.frame, columns, parameter)
        return self.array[:, columns].astype(np.float64)

    def release(self, columns: NDArray[np.intp], values: FloatArray) -> Any:
        if self.array is None:
            return replace_columns(self.frame, columns, values)
        out = self.array.copy()
        out[:, columns] = values
        return out


def _given(
    clusters: ArrayLike, n_samples: int, min_size: int
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Names and labels 0..K-1 of clusters that the user brought."""
    names = np.asarray(clusters)
    if names.shape != (n_samples,):
        raise ValueError(f"clusters must have shape ({n_samples},), got {names.shape}")
    missing = (
        names != names if names.dtype.kind == "f" else np.array([name is None for name in names])
    )
    if np.any(missing):
        raise ValueError("clusters has missing values: every row needs a cluster")
    found, labels = np.unique(names, return_inverse=True)
    sizes = np.bincount(labels)
    small = np.flatnonzero(sizes < min_size)
    if len(small):
        some = ", ".join(f"{found[k]!s} ({sizes[k]} rows)" for k in small[:5])
        raise ValueError(
            f"{len(small)} of the given clusters have fewer than min_size={min_size} rows: {some}"
            f"{', ...' if len(small) > 5 else ''}. Merge them or lower min_size."
        )
    return found, labels.astype(np.intp)


def _digest(*tables: FloatArray) -> bytes:
    """A fingerprint of whole tables; of no use for guessing single rows."""
    state = hashlib.blake2b(digest_size=32)
    for table in tables:
        state.update(str(table.shape).encode())
        state.update(np.ascontiguousarray(table).tobytes())
    return state.digest()
