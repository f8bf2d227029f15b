"""Optimal microaggregation of one column: exact, by a shortest path over the sorted values.

Source: Hansen and Mukherjee (2003). In an optimal partition of a line the groups are contiguous
and hold m to 2m - 1 values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .coordinates import FloatArray, coordinates

_CHUNK = 1 << 20


class UnivariatePartition(NamedTuple):
    """The best partition of a line in groups of at least m."""

    labels: NDArray[np.intp]  #: (n,) group of each value, numbered from the smallest value up
    sse: float  #: within-group sum of squares, in the square of the unit of the values


def univariate_microaggregation(x: ArrayLike, min_size: int) -> UnivariatePartition:
    """Partition one column in groups of at least ``min_size`` with the least sum of squares.

    Parameters
    ----------
    x : array_like of shape (n,)
        Finite numbers.
    min_size : int
        m, 1 <= m <= n.

    Returns
    -------
    UnivariatePartition
        Labels and the optimal sum of squares.

    Raises
    ------
    ValueError
        If x is not a column of finite numbers, or m lies outside [1, n].

    Notes
    -----
    O(n log n + n m) time, O(n) memory. The sums of squares are built up by adding one value at a
    time to every window at once, without the cancellation of prefix sums.

    Examples
    --------
    >>> univariate_microaggregation([1.0, 9.0, 1.5, 8.0, 2.0], min_size=2)
    UnivariatePartition(labels=array([0, 1, 0, 1, 0]), sse=1.0)
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("x must be a non-empty column of finite numbers")
    n = len(values)
    if not 1 <= min_size <= n:
        raise ValueError(f"min_size must lie between 1 and n = {n}, got {min_size}")
    Z, frame = coordinates(values[:, None])
    order = np.argsort(Z[:, 0], kind="stable")
    lengths, cost = _shortest_path(Z[order, 0], int(min_size))
    labels = np.empty(n, dtype=np.intp)
    labels[order] = np.repeat(np.arange(len(lengths)), lengths)
    with np.errstate(over="ignore"):
        return UnivariatePartition(labels, float(np.float64(cost) * frame.squared_unit()))


def _shortest_path(z: FloatArray, m: int) -> tuple[NDArray[np.intp], float]:
    """Group lengths, from the smallest value up, and the least sum of squares."""
    n = len(z)
    best = np.full(n + 1, np.inf)  # best[j]: the first j values
    best[0] = 0.0
    last = np.zeros(n + 1, dtype=np.intp)  # length of the last group of that
    sizes = np.arange(m, 2 * m)
    rows = max(2 * m, _CHUNK // m)
    for start in range(m, n + 1, rows):
        stop = min(start + rows, n + 1)
        spread = _window_sse(z, start, stop, m)
        # best[j - size] for the sizes 2m - 1, ..., m, as one slice; inf before the first value.
        padded = np.concatenate([np.full(m, np.inf), best])
        for j in range(start, stop):
            low = j - 2 * m + 1 + m
            path = padded[low : low + m][::-1] + spread[j - start]
            k = int(path.argmin())
            padded[j + m] = path[k]
            last[j] = sizes[k]
        best[start:stop] = padded[start + m : stop + m]
    lengths = []
    j = n
    while j > 0:
        lengths.append(last[j])
        j -= int(last[j])
    return np.array(lengths[::-1], dtype=np.intp), float(best[n])


def _window_sse(z: FloatArray, start: int, stop: int, m: int) -> FloatArray:
    """(stop - start, m): sum of squares of the windows of m..2m-1 values that end before j."""
    ends = np.arange(start, stop)
    mean = np.zeros(len(ends))
    total = np.zeros(len(ends))
    out = np.full((len(ends), m), np.inf)
    for size in range(1, 2 * m):
        inside = ends >= size
        gap = z[np.where(inside, ends - size, 0)] - mean
        mean = mean + gap / size
        total = total + gap * gap * ((size - 1) / size)
        if size >= m:
            out[inside, size - m] = total[inside]
    return out
