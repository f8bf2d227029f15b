"""The label-private release as a scikit-learn transformer: bag ids in, noisy bag means out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from privlearn.aggregate.bags import BagAssignment, index_bags
from privlearn.aggregate.mechanism import BagMeanMechanism
from privlearn.aggregate.release import check_label_private

__all__ = ["LabelDPAggregator"]


class LabelDPAggregator(TransformerMixin, BaseEstimator):
    """Learn the private mean response of each bag; transform bag ids to those means.

    A scikit-learn transformer may not change ``y``, so this one makes a new one: like a target
    encoder, it takes the bag ids as ``X`` and the private responses as ``y`` of `fit`, which
    releases the noisy means once and spends epsilon. Everything after that, `transform` included,
    looks at the released means only and costs nothing. What `transform` gives has one value per
    row, constant within bags: the ``y`` for estimators that learn from aggregates.

    Each `fit` is a new release with new noise from the operating system (there is no
    ``random_state``) and spends epsilon again; within cross-validation, that is once a fold. Fit it
    once, before.

    Parameters
    ----------
    bounds : (float, float)
        Responses are clipped to this range. Public knowledge, never taken from the data.
    epsilon : float
        Privacy loss of one fit.
    clamp : bool, default=False
        Cut noisy means off at the bounds: free of privacy cost, but biased.
    accept_label_leak : bool, default=False
        Accept a `BagAssignment` that was built from the labels, without any guarantee.

    Attributes
    ----------
    bags_ : ndarray of shape (m,)
        Distinct bag ids, sorted.
    sizes_ : ndarray of shape (m,)
        Rows in each bag.
    means_ : ndarray of shape (m,)
        Noisy mean response of each bag.
    noise_sd_ : ndarray of shape (m,)
        Standard deviation of the noise in ``means_``.
    guarantee_ : Guarantee
        What the fit promises.

    See Also
    --------
    privlearn.aggregate.release_bags : the same release for tables, eager or lazy.

    Examples
    --------
    >>> bags, y = ["a", "a", "b"], [0.0, 1.0, 1.0]
    >>> aggregator = LabelDPAggregator(bounds=(0, 1), epsilon=1e6)
    >>> aggregator.fit_transform(bags, y).round(2)
    array([0.5, 0.5, 1. ])
    >>> print(aggregator.guarantee_)  # doctest: +ELLIPSIS
    epsilon = 1e+06, delta = 0, unit: one response, neighbours: replace one, given: bags ...
    """

    def __init__(
        self,
        *,
        bounds: tuple[float, float],
        epsilon: float,
        clamp: bool = False,
        accept_label_leak: bool = False,
    ) -> None:
        self.bounds = bounds
        self.epsilon = epsilon
        self.clamp = clamp
        self.accept_label_leak = accept_label_leak

    def fit(self, X: ArrayLike, y: ArrayLike) -> LabelDPAggregator:
        """Release the noisy mean of each bag.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Integer or string bag id of each row.
        y : array-like of shape (n,)
            Private responses; finite numbers.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If bag ids, responses, bounds or epsilon cannot serve, or the bags were built from the
            labels.
        """
        mechanism = BagMeanMechanism(bounds=self.bounds, epsilon=self.epsilon)
        ids = _column(X)
        guarantee = check_label_private(ids, mechanism.guarantee, self.accept_label_leak)
        responses = column_or_1d(y, dtype=np.float64)
        assert_all_finite(responses, input_name="y")
        check_consistent_length(ids, responses)
        index = index_bags(ids)
        means = mechanism.release(responses, index.codes, index.sizes)
        if self.clamp:
            means = means.clip(mechanism.grid.lower, mechanism.grid.upper)
        self.bags_, self.sizes_, self.means_ = index.labels, index.sizes, means
        self.noise_sd_ = mechanism.noise_sd(index.sizes)
        self.guarantee_ = guarantee
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Look up the released mean of the bag of each row.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Bag ids that were there in `fit`.

        Returns
        -------
        ndarray
            Noisy means, in the shape of ``X``.

        Raises
        ------
        ValueError
            If an id is unknown.
        """
        check_is_fitted(self)
        index = index_bags(_column(X))
        same_kind = (index.labels.dtype.kind in "iu") == (self.bags_.dtype.kind in "iu")
        unknown = np.setdiff1d(index.labels, self.bags_) if same_kind else index.labels
        if len(unknown):
            examples = ", ".join(map(str, unknown[:3]))
            raise ValueError(f"X has {len(unknown)} unknown bag ids, such as {examples}")
        rows = self.means_[np.searchsorted(self.bags_, index.labels)][index.codes]
        return rows if np.ndim(X) == 1 else rows[:, None]

    def __sklearn_tags__(self) -> Any:
        """Say that ``X`` is a column of ids and that every fit draws new noise."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        tags.non_deterministic = True
        return tags


def _column(X: ArrayLike) -> np.ndarray:
    """Bag ids as a vector, from a vector or a single column."""
    ids = X if isinstance(X, BagAssignment) else np.asarray(X)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 1:
        raise ValueError(f"X must be one column of bag ids, got shape {ids.shape}")
    return ids
