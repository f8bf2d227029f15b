"""Clusters and arms: the public layout of an experiment, one cell per cluster and arm.

Everything here is public, and decided without the outcomes: who is in which cluster and arm, the
sizes, and which small clusters are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

Small = Literal["raise", "merge", "drop"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Who is in which cell; cell number = 2 * cluster + arm.

    Attributes
    ----------
    codes : ndarray of shape (n,), int32
        Cell of each unit that takes part.
    members : tuple of tuples
        Original cluster labels in each cluster; several where small ones were merged.
    sizes : ndarray of shape (C, 2), int64
        Units per cluster and arm.
    kept : ndarray of shape (n,) or None
        Positions of these units in the input; None if all take part.
    """

    codes: np.ndarray
    members: tuple[tuple[Any, ...], ...]
    sizes: np.ndarray
    kept: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.codes)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.sizes)

    @property
    def arms(self) -> np.ndarray:
        """Arm of each unit."""
        return self.codes & 1

    @property
    def clusters(self) -> np.ndarray:
        """Cluster number of each unit."""
        return self.codes >> 1

    @property
    def labels(self) -> list[str]:
        """One name a cluster, for tables."""
        return [str(m[0]) if len(m) == 1 else f"{m[0]} and {len(m) - 1} more" for m in self.members]


def build_cells(
    z: ArrayLike, clusters: ArrayLike, *, min_cell: int = 2, small: Small = "raise"
) -> Cells:
    """Index clusters and arms, and deal with cells that are too small.

    Parameters
    ----------
    z : array-like of shape (n,)
        Arm of each unit: 0 or 1, or booleans.
    clusters : array-like of shape (n,)
        Integers or strings.
    min_cell : int, default=2
        Fewest units that a cell may have; 2 is what an interval needs.
    small : {"raise", "merge", "drop"}
        What to do with clusters that have a smaller cell, by their public sizes alone. "merge"
        goes through the clusters below `min_cell` from the smallest on and throws them together
        until both arms of the group are large enough; what is left over joins the last group, or
        the smallest other cluster. A merged cluster counts as one completely randomised stratum, so
        where its parts had different shares of treated units, the estimate compares parts too.
        "drop" leaves the units out: the effect is then that of the rest.

    Returns
    -------
    Cells

    Raises
    ------
    TypeError
        If arms are not 0/1 or booleans, or labels neither integers nor strings.
    ValueError
        If lengths differ, there are no units, an arm is missing, or cells are too small and
        `small` is "raise" or leaves nothing.

    Examples
    --------
    >>> cells = build_cells([0, 1, 0, 1, 0, 0], ["a", "a", "a", "a", "b", "b"], small="merge")
    >>> cells.members, cells.sizes
    ((('a', 'b'),), array([[4, 2]]))
    """
    if isinstance(min_cell, bool) or not isinstance(min_cell, Integral) or min_cell < 1:
        raise ValueError(f"min_cell must be a whole number >= 1, got {min_cell!r}")
    if small not in ("raise", "merge", "drop"):
        raise ValueError(f"small must be 'raise', 'merge' or 'drop', got {small!r}")
    arms = _arms(z)
    labels, codes = _index(clusters)
    if len(arms) != len(codes):
        raise ValueError(f"z and clusters must be as long, got {len(arms)} and {len(codes)}")
    cells = codes * 2 + arms
    sizes = np.bincount(cells, minlength=2 * len(labels)).reshape(-1, 2)
    members = tuple((label,) for label in labels.tolist())
    too_small = sizes.min(1) < min_cell
    if not too_small.any():
        return Cells(cells.astype(np.int32), members, sizes)
    if small == "raise":
        raise ValueError(_complaint(labels, sizes, too_small, min_cell))
    if small == "drop":
        return _drop(cells, members, sizes, ~too_small)
    return _merge(cells, members, sizes, too_small, min_cell)


def _arms(z: ArrayLike) -> np.ndarray:
    arms = np.asarray(z)
    if arms.ndim != 1:
        raise ValueError(f"z must have one axis, got shape {arms.shape}")
    if len(arms) == 0:
        raise ValueError("z must have at least one unit, got none")
    if arms.dtype.kind not in "biuf":
        raise TypeError(f"z must be 0 or 1 for every unit, got dtype {arms.dtype}")
    if not ((arms == 0) | (arms == 1)).all():
        raise ValueError("z must be 0 (control) or 1 (treated) for every unit")
    return arms.astype(np.int32)


def _index(clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels in sorted order, and the number of each unit's label."""
    ids = np.asarray(clusters)
    if ids.ndim != 1:
        raise ValueError(f"clusters must have one axis, got shape {ids.shape}")
    if ids.dtype.kind == "O" and all(isinstance(i, str) for i in ids):
        ids = ids.astype(str)
    if ids.dtype.kind not in "biuUT":
        hint = " (missing values?)" if ids.dtype.kind in "fO" else ""
        raise TypeError(f"clusters must be integers or strings, got dtype {ids.dtype}{hint}")
    if ids.dtype.kind in "iu" and len(ids):
        low, high = int(ids.min()), int(ids.max())
        if high - low < 4 * len(ids):  # a table look-up instead of a sort
            shifted = ids.astype(np.int64, copy=False) - low if low else ids
            present = np.zeros(high - low + 1, bool)
            present[shifted] = True
            number = np.cumsum(present, dtype=np.int32) - 1
            return np.flatnonzero(present) + low, number[shifted]
    labels, codes = np.unique(ids, return_inverse=True)
    return labels, codes.astype(np.int32)


def _complaint(labels: np.ndarray, sizes: np.ndarray, too_small: np.ndarray, min_cell: int) -> str:
    first = int(np.flatnonzero(too_small)[0])
    missing = int((sizes.min(1) == 0).sum())
    what = f"{missing} of them lack an arm; " if missing else ""
    return (
        f"clusters: {int(too_small.sum())} of {len(labels)} have fewer than {min_cell} units in an "
        f"arm ({what}the first is {labels[first]!s} with {sizes[first, 0]} control and "
        f"{sizes[first, 1]} treated). small='merge' throws them together, small='drop' leaves them "
        "out"
    )


def _drop(cells: np.ndarray, members: Any, sizes: np.ndarray, keep: np.ndarray) -> Cells:
    if not keep.any():
        raise ValueError("clusters: none is large enough in both arms; small='merge' may help")
    number = np.cumsum(keep) - 1
    kept = np.flatnonzero(keep[cells >> 1])
    codes = (number[cells[kept] >> 1] * 2 + (cells[kept] & 1)).astype(np.int32)
    named = tuple(m for m, k in zip(members, keep, strict=True) if k)
    return Cells(codes, named, sizes[keep], kept)


def _merge(
    cells: np.ndarray, members: Any, sizes: np.ndarray, too_small: np.ndarray, min_cell: int
) -> Cells:
    group = np.where(too_small, -1, np.cumsum(~too_small) - 1)
    n_groups = int((~too_small).sum())
    by_size = np.lexsort((np.arange(len(sizes)), sizes.sum(1)))
    waiting: list[int] = []
    open_sizes = np.zeros(2, np.int64)
    last = -1
    for cluster in by_size[too_small[by_size]]:
        waiting.append(int(cluster))
        open_sizes = open_sizes + sizes[cluster]
        if open_sizes.min() >= min_cell:
            group[waiting] = last = n_groups
            n_groups += 1
            waiting, open_sizes = [], np.zeros(2, np.int64)
    if waiting:
        if last < 0 and n_groups:
            whole = np.flatnonzero(~too_small)
            last = int(group[whole[np.argmin(sizes[whole].sum(1))]])
        if last < 0:
            total = sizes.sum(0)
            raise ValueError(
                f"clusters: all together have {total[0]} control and {total[1]} treated units, "
                f"fewer than min_cell = {min_cell} in an arm"
            )
        group[waiting] = last
    # Groups in the order of their first cluster.
    firsts = np.full(n_groups, len(sizes))
    np.minimum.at(firsts, group, np.arange(len(sizes)))
    rank = np.argsort(np.argsort(firsts))
    group = rank[group]
    merged = np.zeros((n_groups, 2), np.int64)
    np.add.at(merged, group, sizes)
    named: list[list[Any]] = [[] for _ in range(n_groups)]
    for cluster, g in enumerate(group):
        named[g].extend(members[cluster])
    codes = (group[cells >> 1] * 2 + (cells & 1)).astype(np.int32)
    return Cells(codes, tuple(map(tuple, named)), merged)
