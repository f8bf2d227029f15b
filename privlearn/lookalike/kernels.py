"""Pure JAX functions for look-alike regression: the tables one trains on, and the linear fits.

Five ways to train (Javanmard and Mirrokni, NeurIPS 2023, arXiv 2310.04015); a table is
n x (p + q), the p sensitive columns first:

===============  =====================================================================
base             the individual sensitive features
known            row i carries the true centre of its cluster
empirical        row i carries the mean of its cluster's observed sensitive features
mis-clustered    `known` with the labels of a noisy source
drop             no sensitive features
===============  =====================================================================

Nothing is jitted here and dtypes follow the inputs. Near the interpolation peak a min-norm fit has
no meaning in float32: use float64 (``jax.enable_x64``).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve


class Coefficients(NamedTuple):
    """A linear model on individual features."""

    sensitive: Array  #: (p,)
    other: Array  #: (q,)


# --------------------------------------------------------------------------------------- centres


def empirical_centres(sensitive: Array, labels: Array, n_clusters: int) -> Array:
    """Means of the clusters' sensitive features, (K, p); 0 for an empty cluster.

    Parameters
    ----------
    sensitive : Array, shape (n, p)
    labels : Array, shape (n,)
        Integers 0..K-1.
    n_clusters : int
        K; static under jit.
    """
    sums = jax.ops.segment_sum(sensitive, labels, n_clusters)
    sizes = jax.ops.segment_sum(jnp.ones(labels.shape, sums.dtype), labels, n_clusters)
    return sums / jnp.maximum(sizes, 1)[:, None]


def centre_table(centres: Array, labels: Array, other: Array) -> Array:
    """The look-alike table: every row's centre (n, p), then its other features (n, q).

    With true centres and true labels: `known`. With labels of a noisy source: `mis-clustered`.
    With :func:`empirical_centres`: `empirical`.
    """
    return jnp.concatenate([centres[labels], other], axis=1)


def span(centres: Array) -> tuple[Array, Array]:
    """Orthonormal coordinates of the centres: ``coordinates @ basis.T == centres``.

    Parameters
    ----------
    centres : Array, shape (K, p)

    Returns
    -------
    coordinates : Array, shape (K, r)
        r = min(K, p).
    basis : Array, shape (p, r)
        Orthonormal columns.
    """
    if centres.shape[0] >= centres.shape[1]:
        return centres, jnp.eye(centres.shape[1], dtype=centres.dtype)
    basis, _ = jnp.linalg.qr(centres.T)
    # Not the triangle of the factorisation: what follows then waits for all of it. Two batched
    # factorisations side by side can deadlock XLA's CPU pool (jax 0.10, two threads).
    return centres @ basis, basis


# ------------------------------------------------------------------------------------- linear fits


def min_norm(X: Array, y: Array) -> Array:
    """Least squares of least norm, (d,): the limit of :func:`ridge` for lam -> 0.

    By singular values; those below ``eps * max(n, d)`` times the largest count as 0.
    """
    return jnp.linalg.lstsq(X, y)[0]


def ridge(X: Array, y: Array, lam: Array | float) -> Array:
    """Minimiser of ``(1/n) ||y - X theta||^2 + lam ||theta||^2``, lam > 0; (d,).

    Cholesky of the smaller Gram matrix (d x d or n x n). A tiny ``lam`` is a cheap surrogate of
    :func:`min_norm` under vmap; 1e-10 times the mean squared singular value agrees to about 1e-6
    away from the interpolation peak, in float64.
    """
    n, d = X.shape
    if d <= n:
        gram = X.T @ X + n * lam * jnp.eye(d, dtype=X.dtype)
        return cho_solve(cho_factor(gram), X.T @ y)
    gram = X @ X.T + n * lam * jnp.eye(n, dtype=X.dtype)
    return X.T @ cho_solve(cho_factor(gram), y)


def _linear(X: Array, y: Array, lam: Array | float | None) -> Array:
    return min_norm(X, y) if lam is None else ridge(X, y, lam)


# ---------------------------------------------------------------------------------- the estimators


def fit_base(
    sensitive: Array, other: Array, y: Array, *, lam: Array | float | None = None
) -> Coefficients:
    """Fit on individual features. ``lam=None`` is the min-norm fit, here and below."""
    theta = _linear(jnp.concatenate([sensitive, other], axis=1), y, lam)
    p = sensitive.shape[1]
    return Coefficients(theta[:p], theta[p:])


def fit_drop(
    sensitive: Array, other: Array, y: Array, *, lam: Array | float | None = None
) -> Coefficients:
    """Fit on the other features only; the sensitive coefficients are 0."""
    zero = jnp.zeros(sensitive.shape[1], other.dtype)
    return Coefficients(zero, _linear(other, y, lam))


def fit_centres(
    centres: Array, labels: Array, other: Array, y: Array, *, lam: Array | float | None = None
) -> Coefficients:
    """Fit on the look-alike table with given centres: `known`, or `mis-clustered`.

    The sensitive block of the table has rank r <= min(K, p), so its p columns are replaced by r
    coordinates in an orthonormal basis of the centres' span: the same coefficients as on the full
    table, from an n x (r + q) problem.

    Parameters
    ----------
    centres : Array, shape (K, p)
    labels : Array, shape (n,)
        The cluster whose centre each row carries.
    other : Array, shape (n, q)
    y : Array, shape (n,)
    lam : float or None
    """
    coordinates, basis = span(centres)
    theta = _linear(jnp.concatenate([coordinates[labels], other], axis=1), y, lam)
    r = basis.shape[1]
    return Coefficients(basis @ theta[:r], theta[r:])


def fit_empirical(
    sensitive: Array,
    labels: Array,
    other: Array,
    y: Array,
    n_clusters: int,
    *,
    lam: Array | float | None = None,
) -> Coefficients:
    """Fit on the look-alike table with the clusters' observed means; arguments as above."""
    centres = empirical_centres(sensitive, labels, n_clusters)
    return fit_centres(centres, labels, other, y, lam=lam)


def predict(coefficients: Coefficients, sensitive: Array, other: Array) -> Array:
    """Predictions (n,) for rows with these sensitive features, individual or centres."""
    return sensitive @ coefficients.sensitive + other @ coefficients.other
