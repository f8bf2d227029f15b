"""Populations in coordinates, and the ways to train on them, as arrays that a trial can stack."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from privlearn.lookalike.theory import ESTIMATORS, GaussianMixtureModel


class Case(NamedTuple):
    """One way to train, on one population.

    Attributes
    ----------
    model : GaussianMixtureModel
        The population, the same object that `theory.risk` takes.
    estimator : str
        "base", "known", "empirical", "misclustered" or "drop", as in `theory.risk`.
    ridge : float
        Penalty lam in ``(1/n)|y - X theta|^2 + lam |theta|^2``; 0 is the min-norm fit.
    confusion : ndarray of shape (K, K), optional
        ``confusion[l, l'] = P(true cluster l, used centre l')``, for "misclustered".
    """

    model: GaussianMixtureModel
    estimator: str = "empirical"
    ridge: float = 0.0
    confusion: np.ndarray | None = None


class Population(NamedTuple):
    """A mixture model in d = p + q dimensions: means in the first coordinates of each block.

    Attributes
    ----------
    means : ndarray of shape (K, d)
    inside : ndarray of shape (d,)
        theta0 within the span of each block's means.
    free : ndarray of shape (2, d)
        1 at the coordinates of each block (sensitive, other) outside that span.
    length : ndarray of shape (2,)
        Length of theta0 there.
    """

    means: np.ndarray
    inside: np.ndarray
    free: np.ndarray
    length: np.ndarray


def population(model: GaussianMixtureModel, p: int, q: int) -> Population:
    """Lay a model, which is a set of inner products, out in p + q dimensions.

    Parameters
    ----------
    model : GaussianMixtureModel
    p, q : int
        Sensitive and other features.

    Raises
    ------
    ValueError
        If a block has too few dimensions for its means and coefficients.

    Examples
    --------
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=2, norm=2.0, alignment=0.6,
    ...     signal_sensitive=1.0, signal_public=1.0, noise=0.25)
    >>> laid_out = population(model, p=4, q=3)
    >>> laid_out.means.shape, laid_out.length.round(3)
    ((2, 7), array([0.8, 0.8]))
    """
    d = p + q
    means, inside = np.zeros((len(model.weights), d)), np.zeros(d)
    free, length = np.zeros((2, d)), np.zeros(2)
    for block, (name, label, start, size, signal) in enumerate(
        (
            ("sensitive", "p", 0, p, model.signal_sensitive),
            ("public", "q", p, q, model.signal_public),
        )
    ):
        columns, theta = model._coordinates(name)
        left = max(signal - float(theta @ theta), 0.0)
        needed = len(theta) + (left > 1e-12 * max(signal, 1.0))
        if size < needed:
            raise ValueError(
                f"{label} must be at least {needed}, for the {name} means and coefficients of the "
                f"model, got {size}"
            )
        first = start + len(theta)
        means[:, start:first] = columns.T
        inside[start:first] = theta
        free[block, first : start + size] = 1.0
        length[block] = math.sqrt(left)
    return Population(means, inside, free, length)


class Setting(NamedTuple):
    """A case as arrays, so that cases can be stacked."""

    people: Population
    weights: np.ndarray  # (K,)
    joint: np.ndarray  # (K, K) law of true and used cluster
    of_all: np.ndarray  # (K - 1,) thresholds of the true cluster
    of_true: np.ndarray  # (K, K - 1) thresholds of the used cluster
    parts: np.ndarray  # (3,) of own features, true centres and empirical centres in the table
    variances: np.ndarray  # (2,) of the response noise and of the sensitive detail


_PARTS = {
    "base": (1.0, 0.0, 0.0),
    "known": (0.0, 1.0, 0.0),
    "misclustered": (0.0, 1.0, 0.0),
    "empirical": (0.0, 0.0, 1.0),
    "drop": (0.0, 0.0, 0.0),
}


def setting(case: Case, p: int, q: int) -> Setting:
    """Lay a case out in p + q dimensions."""
    weights = case.model.weights
    mistaken = case.estimator == "misclustered"
    joint = check_confusion(case.confusion, weights) if mistaken else np.diag(weights)
    return Setting(
        population(case.model, p, q),
        weights,
        joint,
        thresholds(weights),
        thresholds(joint / weights[:, None]),
        np.array(_PARTS[case.estimator]),
        np.array([case.model.noise, case.model.signal_sensitive]),
    )


def thresholds(weights: np.ndarray) -> np.ndarray:
    """Normal quantiles that cut off classes of these probabilities (along the last axis)."""
    below = np.cumsum(weights, axis=-1)[..., :-1]
    return scipy.stats.norm.ppf(np.clip(below, 0.0, 1.0))


def check_count(name: str, value: int) -> int:
    """Check a count: a positive integer."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count


def check_cases(cases: Sequence[Case], test_features: str) -> None:
    """Check names of estimators, that they can be tested in this way, and numbers of clusters."""
    if not len(cases):
        raise ValueError("estimators (or cases) must hold at least one")
    names = [case.estimator for case in cases]
    for name in names:
        if name not in ESTIMATORS:
            raise ValueError(f"estimators must be some of {', '.join(ESTIMATORS)}, got {name!r}")
    if test_features not in ("individual", "anonymised"):
        raise ValueError(
            f"test_features must be 'individual' or 'anonymised', got {test_features!r}"
        )
    if test_features == "anonymised" and "base" in names:
        raise ValueError("test_features='anonymised' has no meaning for 'base': leave it out")
    if len({len(case.model.weights) for case in cases}) > 1:
        raise ValueError("cases must have models with one number of clusters")


def check_confusion(confusion: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    """Check the joint law of true and used cluster."""
    if confusion is None:
        raise ValueError("confusion is needed for 'misclustered': the (K, K) joint law")
    joint = np.asarray(confusion, float)
    if joint.shape != (len(weights),) * 2 or not (joint >= 0).all():
        raise ValueError(f"confusion must be a non-negative (K, K) matrix, got shape {joint.shape}")
    if not np.allclose(joint.sum(axis=1), weights, atol=1e-8):
        raise ValueError(f"confusion must have row sums equal to the weights {weights}")
    return joint
