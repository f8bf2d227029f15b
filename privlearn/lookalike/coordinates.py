"""Coordinates in which a partition does not depend on the unit of measurement.

Rows that tie in exact arithmetic must tie for ``X`` and for ``1e-5 * X``, although the product is
rounded. So the table is centred, divided by its widest range and snapped to a power-of-two grid
that is coarser than the rounding: both tables then give the same bits, and so the same labels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Grid of the coordinates, as a part of the widest column's range. Sums of up to 2**20 rows are
#: exact on it, and it moves the information loss of a partition by less than 1e-18 of the total.
GRID = 2.0**-32


class Frame(NamedTuple):
    """How to get from a table to its coordinates: ``(X * 2**-exponent - shift) / width``."""

    exponent: int  #: X times 2**-exponent has no entry above 1 in magnitude
    shift: FloatArray  #: (d,) middle of the columns, in those units
    width: float  #: range of the widest column, in those units; 1 if the table is constant
    grid: float  #: entries are rounded to multiples of this; a power of two
    origin: FloatArray  #: (d,) mean on the grid, taken off last

    def apply(self, X: FloatArray, *, snap: bool = True) -> FloatArray:
        """Coordinates of the rows of X, (n, d); unrounded if ``snap`` is false."""
        Z = (np.ldexp(X, -self.exponent) - self.shift) / self.width
        if snap:
            Z = np.rint(Z / self.grid) * self.grid
        return Z - self.origin

    def squared_unit(self) -> float:
        """What one unit of squared distance in coordinates is in the units of X squared."""
        try:
            return math.ldexp(self.width, self.exponent) ** 2
        except OverflowError:
            return math.inf


def coordinates(X: FloatArray) -> tuple[FloatArray, Frame]:
    """Scale-free coordinates of a table of finite numbers.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Finite float64.

    Returns
    -------
    Z : ndarray of shape (n, d)
        Within [-1, 1], mean 0 up to the grid. The same bits for X and for c * X, c > 0, but for
        entries within rounding of a grid boundary (about one in a million).
    frame : Frame
        The map, for new rows.
    """
    low, high = X.min(axis=0), X.max(axis=0)
    _, exponent = math.frexp(float(max(np.abs(low).max(), np.abs(high).max())))
    low, high = np.ldexp(low, -exponent), np.ldexp(high, -exponent)
    width = float((high - low).max()) or 1.0
    # An offset that dwarfs the spread leaves rounding errors in the data; the grid covers them.
    noise = (
        64 * np.finfo(np.float64).eps * float(max(np.abs(low).max(), np.abs(high).max())) / width
    )
    grid = GRID if noise <= GRID else 2.0 ** math.ceil(math.log2(noise))
    frame = Frame(exponent, low / 2 + high / 2, width, grid, np.zeros(X.shape[1]))
    Z = frame.apply(X)
    frame = frame._replace(origin=np.rint(Z.mean(axis=0) / grid) * grid)
    return Z - frame.origin, frame


def group_sums(Z: FloatArray, labels: NDArray[np.intp], n_groups: int) -> FloatArray:
    """Sums of the rows of each group, (n_groups, d)."""
    return np.stack(
        [np.bincount(labels, weights=column, minlength=n_groups) for column in Z.T], axis=1
    )


def group_means(Z: FloatArray, labels: NDArray[np.intp], n_groups: int) -> FloatArray:
    """Means of the rows of each group, (n_groups, d); 0 for an empty group."""
    sizes = np.bincount(labels, minlength=n_groups)
    return group_sums(Z, labels, n_groups) / np.maximum(sizes, 1)[:, None]


def within_sse(Z: FloatArray, labels: NDArray[np.intp]) -> float:
    """Sum of squared distances of the rows to the mean of their group."""
    residual = Z - group_means(Z, labels, int(labels.max()) + 1)[labels]
    return float(np.einsum("ij,ij->", residual, residual))


def relabel(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Labels 0, 1, ... in the order in which the groups first appear; no gaps."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
