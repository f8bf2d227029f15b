"""The paper's questions on real tables: repeated splits, random bags, test error of each method.

A study takes a numeric table, cuts it into training bags and test rows many times, and fits every
rho on every split at once. Errors are mean squared test errors of standardised responses, so that
1 is the error of predicting the mean.

Features and responses are z-scored on the whole table, as is usual for comparing methods; an
analyst who holds only bag means standardises with public numbers instead. Bags are random and
equal: the rows that do not fill a bag are left out of training.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from privlearn.aggregate import kernels
from privlearn.simulate.precision import float64

__all__ = [
    "BaggedSplits",
    "LinearStudy",
    "bagged_splits",
    "linear_study",
    "private_study",
    "standardise",
]


class BaggedSplits(NamedTuple):
    """Training bags and test rows of several random splits of one table.

    Attributes
    ----------
    features : ndarray of shape (n_splits, n_bags, k, p)
    responses : ndarray of shape (n_splits, n_bags, k)
        Individual responses; a learner sees their mean over the last axis.
    test_features : ndarray of shape (n_splits, n_test, p)
    test_responses : ndarray of shape (n_splits, n_test)
    """

    features: np.ndarray
    responses: np.ndarray
    test_features: np.ndarray
    test_responses: np.ndarray


class LinearStudy(NamedTuple):
    """Test errors of the linear family on every split.

    Attributes
    ----------
    rhos : ndarray of shape (r,)
    errors : ndarray of shape (n_splits, r)
        Standardised test error at each rho.
    easyllp : ndarray of shape (n_splits,)
        Standardised test error of EasyLLP.
    """

    rhos: np.ndarray
    errors: np.ndarray
    easyllp: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean test error over splits, shape (r,)."""
        return self.errors.mean(axis=0)

    @property
    def stderr(self) -> np.ndarray:
        """Its standard error over splits (which share the table), shape (r,)."""
        return self.errors.std(axis=0, ddof=1) / np.sqrt(len(self.errors))


def standardise(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Z-score columns and response.

    Parameters
    ----------
    X : array-like of shape (n, p)
    y : array-like of shape (n,)

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite, or a column is constant.
    """
    X, y = np.asarray(X, float), np.asarray(y, float)
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise ValueError(f"X must be (n, p) and y (n,), got {X.shape} and {y.shape}")
    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise ValueError("X and y must be finite, got NaN or infinite values")
    scale = X.std(axis=0)
    if (scale == 0).any() or y.std() == 0:
        raise ValueError("X and y must not have constant columns")
    return (X - X.mean(axis=0)) / scale, (y - y.mean()) / y.std()


def bagged_splits(
    X: ArrayLike,
    y: ArrayLike,
    k: int,
    *,
    n_splits: int,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> BaggedSplits:
    """Cut a table into random training bags of ``k`` and test rows, ``n_splits`` times.

    Parameters
    ----------
    X : array-like of shape (n, p)
    y : array-like of shape (n,)
    k : int
        Rows per bag.
    n_splits : int
    test_fraction : float, default=0.2
    seed : int, default=0

    Returns
    -------
    BaggedSplits

    Raises
    ------
    ValueError
        If the training part has fewer than two bags of k.

    Examples
    --------
    >>> splits = bagged_splits(np.ones((20, 3)), np.arange(20.0), k=4, n_splits=2)
    >>> splits.features.shape, splits.test_responses.shape
    ((2, 4, 4, 3), (2, 4))
    """
    X, y = np.asarray(X, float), np.asarray(y, float)
    n_test = round(test_fraction * len(y))
    n_bags = (len(y) - n_test) // k
    if n_bags < 2:
        raise ValueError(f"k = {k} leaves {n_bags} training bags of {len(y)} rows; 2 are needed")
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(y)) for _ in range(n_splits)])
    test, train = orders[:, :n_test], orders[:, n_test : n_test + n_bags * k]
    train = train.reshape(n_splits, n_bags, k)
    return BaggedSplits(X[train], y[train], X[test], y[test])


def _path_errors(
    features: Array, means: Array, test_x: Array, test_y: Array, rhos: Array
) -> tuple[Array, Array]:
    """Test error at every rho, and of EasyLLP, of one split."""
    k = features.shape[1]
    centred, centred_means, mean_x, mean_y = kernels.centre(features, means)
    stats = kernels.gram_statistics(centred, centred_means)
    # EasyLLP on centred data is k times the instance solution, rho = 1 (`easyllp_solution`). One
    # batched eigendecomposition for all: two that are independent may deadlock XLA's CPU pool
    # where it has two threads (jax 0.10).
    thetas = kernels.solve_path(stats, jnp.append(rhos, 1.0))
    thetas = thetas.at[-1].multiply(k)
    predicted = (test_x - mean_x) @ thetas.T + mean_y
    errors = jnp.mean((test_y[:, None] - predicted) ** 2, axis=0)
    return errors[:-1], errors[-1]


_path_errors_of_splits = jax.jit(jax.vmap(_path_errors, in_axes=(0, 0, 0, 0, None)))


def _study(splits: BaggedSplits, means: np.ndarray, rhos: ArrayLike) -> LinearStudy:
    rhos = np.asarray(rhos, float)
    with float64():
        arrays = (splits.features, means, splits.test_features, splits.test_responses, rhos)
        errors, easyllp = _path_errors_of_splits(*map(jnp.asarray, arrays))
        return LinearStudy(rhos, np.asarray(errors), np.asarray(easyllp))


def linear_study(splits: BaggedSplits, rhos: ArrayLike) -> LinearStudy:
    """Fit the whole rho path and EasyLLP on every split.

    Parameters
    ----------
    splits : BaggedSplits
    rhos : array-like of shape (r,)

    Returns
    -------
    LinearStudy
        Computed in float64.
    """
    return _study(splits, splits.responses.mean(axis=-1), rhos)


def private_study(
    splits: BaggedSplits, rhos: ArrayLike, epsilon: float, width: float, key: Array
) -> LinearStudy:
    """Fit the rho path on bag means released under label differential privacy.

    Each bag mean carries Laplace noise of scale ``width / (k epsilon)``: the simulated face of the
    release, for studying it; real data are released by `privlearn.aggregate.release_bags`.

    Parameters
    ----------
    splits : BaggedSplits
        Responses within an interval of length ``width``, in the units of the responses.
    rhos : array-like of shape (r,)
    epsilon : float
        Privacy loss; one response changes, features are public.
    width : float
        Length of the public response range.
    key : jax.random.key

    Returns
    -------
    LinearStudy
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon!r}")
    if not width > 0:
        raise ValueError(f"width must be > 0, got {width!r}")
    spread = np.ptp(splits.responses)
    if spread > width * (1 + 1e-9):
        raise ValueError(f"width is {width}, but the responses span {spread}: clip them first")
    means = splits.responses.mean(axis=-1)
    scale = width / (splits.features.shape[2] * epsilon)
    with float64():
        noise = np.asarray(jax.random.laplace(key, means.shape, float))
    return _study(splits, means + scale * noise, rhos)
