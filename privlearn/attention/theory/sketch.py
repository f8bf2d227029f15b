"""Moments of polynomial sketches, exactly, for vectors whose cosine is known.

The sketch is that of Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655), section 2.2, with r
outputs. Write Z = <S x, S y> for unit vectors x and y with cosine c. The weight that attention of
twice the degree uses is Z^2. All formulas were re-derived and checked by simulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Floats = Any


def _checked(c: ArrayLike, r: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    cosine, size = np.asarray(c, float), np.asarray(r, float)
    if np.any(np.abs(cosine) > 1 + 1e-12):
        raise ValueError(f"c: {c!r}; a cosine lies in [-1, 1]")
    if np.any(size < 1):
        raise ValueError(f"r: {r!r}; a sketch has at least 1 output")
    return cosine, size


def product_moments(c: ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
    """Moments 1 to 4 of (g.x)(g.y) for a standard normal g and unit x, y with cosine c.

    Examples
    --------
    >>> [float(m) for m in product_moments(1.0)]
    [1.0, 3.0, 15.0, 105.0]
    """
    c, _ = _checked(c, 1)
    return c, 1 + 2 * c**2, 9 * c + 6 * c**3, 9 + 72 * c**2 + 24 * c**4


def overlap(x: ArrayLike, y: ArrayLike) -> Floats:
    """sum_i x_i^2 y_i^2 of the unit vectors along x and y: what signs save against Gaussians."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    norms = np.sum(x * x, axis=-1) * np.sum(y * y, axis=-1)
    return np.sum(x * x * y * y, axis=-1) / norms


def sketch_second_moment(
    c: ArrayLike, r: ArrayLike, *, degree: int = 2, overlap: ArrayLike = 0.0
) -> Floats:
    """E Z^2 of a sketch of degree 2 or 4; equally the mean weight of attention of degree 4 or 8.

    Parameters
    ----------
    c : array
        Cosine.
    r : array
        Size of the sketch.
    degree : {2, 4}
        Degree of the sketch, half that of the attention.
    overlap : array, default 0
        `overlap` of x and y for matrices of independent signs (degree 2); 0 for Gaussian ones. For
        SRHT, whose columns share one diagonal of signs, it is an approximation.

    Notes
    -----
    The mean weight exceeds c^4: orthogonal vectors get weight 1 / r, not 0.

    Examples
    --------
    >>> float(sketch_second_moment(0.0, 32)), float(sketch_second_moment(1.0, 32))
    (0.03125, 1.25)
    """
    c, r = _checked(c, r)
    each = (1 + 2 * c**2 - 2 * np.asarray(overlap, float)) ** 2
    second = c**4 + (each - c**4) / r
    if degree == 2:
        return second
    if degree != 4 or np.any(np.asarray(overlap) != 0):
        raise ValueError(f"degree: {degree}; known are 2, and 4 for Gaussian matrices")
    norms = 1 - 1 / r + (1 + 2 * c**2) ** 2 / r
    return (norms + 2 * second) ** 2 / r + (1 - 1 / r) * second**2


def sketch_variance(
    c: ArrayLike, r: ArrayLike, *, degree: int = 2, overlap: ArrayLike = 0.0
) -> Floats:
    """Var Z of a sketch of degree 2 or 4; arguments as in `sketch_second_moment`.

    For vectors of other lengths multiply by |x|^(2 degree) |y|^(2 degree).

    Examples
    --------
    >>> float(sketch_variance(0.5, 32))
    0.068359375
    """
    c, r = _checked(c, r)
    return sketch_second_moment(c, r, degree=degree, overlap=overlap) - c ** (2 * degree)


def weight_bias(c: ArrayLike, r: ArrayLike) -> Floats:
    """Mean of a sketched weight of degree 4 less c^4: [(1 + 2 c^2)^2 - c^4] / r."""
    return sketch_variance(c, r)


def weight_rms(c: ArrayLike, r: ArrayLike) -> Floats:
    """Root mean squared error of a sketched weight of degree 4, Gaussian matrices.

    sqrt(E Z^4 - 2 c^4 E Z^2 + c^8). At c = 0 it is sqrt(3 (1 + 26 / r)) / r. Z^2 has heavy tails:
    the standard error of a simulated mean square is itself badly estimated by few trials.

    Examples
    --------
    >>> [round(float(weight_rms(c, 32)), 3) for c in (0.0, 0.5, 1.0)]
    [0.073, 0.283, 1.508]
    """
    c, r = _checked(c, r)
    one, two, three, four = (m**2 for m in product_moments(c))
    second = (r * two + r * (r - 1) * one**2) / r**2
    fourth = (
        r * four
        + 4 * r * (r - 1) * three * one
        + 3 * r * (r - 1) * two**2
        + 6 * r * (r - 1) * (r - 2) * two * one**2
        + r * (r - 1) * (r - 2) * (r - 3) * one**4
    ) / r**4
    return np.sqrt(np.maximum(fourth - 2 * c**4 * second + c**8, 0))


def frobenius_error(cosines: ArrayLike, r: ArrayLike) -> float:
    """Root mean squared error of degree 4 over pairs with the given cosines.

    Theorem 1.1 of the paper bounds sum_ij (weight_ij - <q_i, k_j>^4)^2 by epsilon^2 times
    sum_ij |q_i|^8 |k_j|^8. For vectors of equal length this is the epsilon that a sketch of size r
    attains in the mean.

    Examples
    --------
    >>> round(frobenius_error([1.0, 1.0], 32), 2)
    1.51
    """
    return float(np.sqrt(np.mean(weight_rms(cosines, r) ** 2)))


def legacy_shrinkage(r: ArrayLike, *, degree: int = 4) -> Floats:
    """How much smaller weights are in the authors' published code: it divides by r, not sqrt(r).

    r^(2 - degree). At degree 4 the 1 in the denominator then weighs r^2 times as much.

    Examples
    --------
    >>> float(1 / legacy_shrinkage(32))
    1024.0
    """
    size = np.asarray(r, float)
    if degree not in (4, 8, 16):
        raise ValueError(f"degree: {degree}; must be 4, 8 or 16")
    # Of y, e(q) = 2 e(q / 2) + 1/2 factors 1 / r are too many, so (q - 1) / 2; weights have y^4.
    return size ** (2.0 - degree)
