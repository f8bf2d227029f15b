"""MDAV: groups of m look-alikes around the outermost records (deterministic, no tuning).

Source: Domingo-Ferrer and Mateo-Sanz (2002), Domingo-Ferrer and Torra (2005), with ties to the
lowest row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from .coordinates import FloatArray


def mdav_partition(Z: FloatArray, min_size: int) -> NDArray[np.intp]:
    """Partition the rows in groups of ``min_size`` (the last one up to twice that, less one).

    Parameters
    ----------
    Z : ndarray of shape (n, d)
        Coordinates; Euclidean distance decides.
    min_size : int
        m, with 1 <= m <= n.

    Returns
    -------
    labels : ndarray of shape (n,)
        Group of each row, numbered in the order of their making. Sizes lie in [m, 2m - 1]; one
        group if n < 2m.

    Notes
    -----
    Time O(n^2 d / m), memory O(n d). Rows that already have a group stay in the working table,
    masked, until a sixteenth of it is idle; then it is compacted.
    """
    n = len(Z)
    if min_size == 1:
        return np.arange(n, dtype=np.intp)
    pool = _Pool(Z)
    labels = np.empty(n, dtype=np.intp)
    n_groups = 0

    def close(group: NDArray[np.intp]) -> None:
        nonlocal n_groups
        labels[pool.take(group)] = n_groups
        n_groups += 1

    while pool.n_left >= 3 * min_size:
        far = pool.farthest(pool.distances(pool.centroid()))
        from_far = pool.distances(pool.rows[far])
        close(pool.nearest(from_far, min_size))
        opposite = pool.farthest(from_far)
        close(pool.nearest(pool.distances(pool.rows[opposite]), min_size))
        pool.compact()
    if pool.n_left >= 2 * min_size:
        far = pool.farthest(pool.distances(pool.centroid()))
        close(pool.nearest(pool.distances(pool.rows[far]), min_size))
    close(pool.left())
    return labels


class _Pool:
    """The records without a group yet, as a table with idle rows."""

    def __init__(self, Z: FloatArray) -> None:
        self.rows = np.ascontiguousarray(Z)
        self.index = np.arange(len(Z), dtype=np.intp)
        self.total = self.rows.sum(axis=0)
        self.idle: list[int] = []

    @property
    def n_left(self) -> int:
        return len(self.rows) - len(self.idle)

    def centroid(self) -> FloatArray:
        return self.total / self.n_left

    def distances(self, point: FloatArray) -> FloatArray:
        """Squared distance of every row, idle ones included, to a point."""
        return cdist(self.rows, point[None], "sqeuclidean")[:, 0]

    def farthest(self, distances: FloatArray) -> int:
        distances[self.idle] = -1.0
        return int(distances.argmax())

    def nearest(self, distances: FloatArray, m: int) -> NDArray[np.intp]:
        """The m rows that are nearest, ties to the lowest."""
        distances[self.idle] = np.inf
        bound = np.partition(distances, m - 1)[m - 1]
        group = np.flatnonzero(distances <= bound)
        if len(group) > m:
            group = group[np.argsort(distances[group], kind="stable")[:m]]
        return group

    def left(self) -> NDArray[np.intp]:
        keep = np.ones(len(self.rows), dtype=bool)
        keep[self.idle] = False
        return np.flatnonzero(keep)

    def take(self, group: NDArray[np.intp]) -> NDArray[np.intp]:
        """Retire rows and return their places in the table that came in."""
        self.total = self.total - self.rows[group].sum(axis=0)
        self.idle.extend(group.tolist())
        return self.index[group]

    def compact(self) -> None:
        if len(self.idle) * 16 > len(self.rows):
            keep = self.left()
            self.rows, self.index, self.idle = self.rows[keep], self.index[keep], []
