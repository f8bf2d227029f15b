"""The replicable quad tree: which cells of a box are heavy, and which leaf a point belongs to.

A level is one histogram: the index of a cell is floor(2^level (x + 1) / 2) along each axis, and a
coarser level is the finest one with bits dropped. There are no node objects.

Source: Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou 2023 (arXiv 2302.10359), replicable quad tree.
Plain NumPy rather than JAX: the number of cells depends on the data, and the order of additions is
part of the promise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .primitives import replicable_threshold
from .theory import Level

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: The number of cells is exponential in the dimension; beyond 3 the grid is hopeless.
MAX_DIM = 3

_DENSE = 2**22  # cells of the finest level up to which a plain histogram is cheap
_BLOCK = 2**22  # numbers in one block of distances between cells
_ROWS = 2**14  # rows at a time: a few columns of them stay in the cache
_FINE = 15  # bits of the cells by which points are routed


class TreeLevel(NamedTuple):
    """What was tested at one level."""

    level: int
    threshold: float  #: NaN where all cells are kept untested
    low: float
    high: float
    cells: NDArray[Any]  #: (m, d) candidates: children of heavy cells that hold rows
    masses: FloatArray  #: (m,) share of the rows in each
    heavy: NDArray[np.bool_]  #: (m,)


class QuadTree(NamedTuple):
    """Leaves of the tree, in the order (level, first index, second index ...)."""

    level: IntArray  #: (N,)
    cell: IntArray  #: (N, d) index of the cell along each axis, 0 <= index < 2^level
    levels: tuple[TreeLevel, ...]  #: what was tested (empty cells left out)

    @property
    def side(self) -> FloatArray:
        """Side of each leaf, in a box from -1 to 1."""
        return np.ldexp(1.0, 1 - self.level)

    @property
    def low(self) -> FloatArray:
        """Lower corners of the leaves, (N, d)."""
        return self.cell * self.side[:, None] - 1

    @property
    def centre(self) -> FloatArray:
        """Centres of the leaves, (N, d)."""
        return (self.cell + 0.5) * self.side[:, None] - 1


def grow(
    points: FloatArray, levels: tuple[Level, ...], *, shared_seed: int, skip_levels: int = 1
) -> QuadTree:
    """Find the heavy cells level by level, each level against one shared random threshold.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        In the box from -1 to 1 (others count for the cell at the border), d <= 3.
    levels : tuple of Level
        From `theory.schedule`.
    shared_seed : int
        Shared by all runs.
    skip_levels : int, default=1
        Levels whose cells are all kept, tested or not, empty or not.

    Returns
    -------
    QuadTree

    Examples
    --------
    >>> from privlearn.replicable import theory
    >>> plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    >>> points = np.random.default_rng(0).normal(0.3, 0.05, size=(1000, 2))
    >>> tree = grow(points, plan.levels, shared_seed=0)
    >>> tree.level.tolist()
    [1, 1, 1, 3]
    """
    dim = _check_dim(points)
    tree = _root(dim)
    if not levels:
        return tree
    finest = min(levels[-1].level, 60 // dim)
    cells, counts, _ = occupied(points, finest)
    alive = np.ones(len(cells), dtype=bool)
    heavy, tested, leaves = tree.cell, [], []
    for plan in levels[:finest]:
        shift = finest - plan.level
        flat, where = np.unique(_flat(cells[alive] >> shift, plan.level), return_inverse=True)
        masses = np.bincount(where, weights=counts[alive], minlength=len(flat)) / len(points)
        kept = plan.level <= skip_levels
        threshold = np.nan
        if not kept:
            threshold = replicable_threshold(
                low=plan.low, high=plan.high, shared_seed=shared_seed, purpose="cells",
                label=plan.level,
            )  # fmt: skip
        passed = np.ones(len(flat), dtype=bool) if kept else masses >= threshold
        index = _unflat(flat, plan.level, dim)
        tested.append(TreeLevel(plan.level, threshold, plan.low, plan.high, index, masses, passed))
        children = _every_cell(plan.level, dim) if kept else index[passed]
        parents = np.isin(_flat(heavy, plan.level - 1), _flat(children >> 1, plan.level - 1))
        leaves.append((plan.level - 1, heavy[~parents]))
        heavy = children
        alive[alive] = passed[where]
        if len(heavy) == 0:
            break
    else:
        leaves.append((levels[:finest][-1].level, heavy))
    level = np.concatenate([np.full(len(cell), i, dtype=np.int64) for i, cell in leaves])
    return QuadTree(level, np.concatenate([cell for _, cell in leaves]), tuple(tested))


def route(points: FloatArray, tree: QuadTree) -> NDArray[np.intp]:
    """Leaf of each point: the one that holds it, or else the nearest one.

    Nearest by Euclidean distance to the closed cell; the first leaf of those at equal distance.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        In the box from -1 to 1.
    tree : QuadTree

    Returns
    -------
    ndarray of shape (n,)
        Numbers of leaves.
    """
    dim = _check_dim(points)
    # Finer cells than the tree's: fewer of them have points with different nearest leaves.
    finest = max(1, int(tree.level.max()), _FINE // dim)
    cells, _, where = occupied(points, finest)
    leaf = np.full(len(cells), -1, dtype=np.intp)
    for level in np.unique(tree.level):
        members = np.flatnonzero(tree.level == level)
        codes = _flat(tree.cell[members], int(level))  # ascending, as leaves are sorted
        wanted = _flat(cells >> (finest - level), int(level))
        place = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
        hit = codes[place] == wanted
        leaf[hit] = members[place[hit]]
    light = np.flatnonzero(leaf < 0)
    leaf[light] = _unambiguous(cells[light], 2.0 ** (1 - finest), tree)
    labels = leaf[where]
    open_ = np.flatnonzero(labels < 0)
    labels[open_] = _nearest_leaf(points[open_], tree)
    return labels


def _nearest_leaf(points: FloatArray, tree: QuadTree) -> NDArray[np.intp]:
    """Leaf at the least distance of each point, the first of those at equal distance."""
    labels = np.zeros(len(points), dtype=np.intp)
    low, high = tree.low, tree.low + tree.side[:, None]
    for start in range(0, len(points), _ROWS):
        rows = np.ascontiguousarray(points[start : start + _ROWS].T)
        least = np.full(rows.shape[1], np.inf)
        found = labels[start : start + _ROWS]
        for number in range(len(tree.level)):
            distance = np.zeros(rows.shape[1])
            for axis, column in enumerate(rows):
                outside = column - column.clip(low[number, axis], high[number, axis])
                distance += outside * outside
            closer = distance < least
            np.copyto(found, number, where=closer)
            np.copyto(least, distance, where=closer)
    return labels


def occupied(points: FloatArray, level: int) -> tuple[IntArray, IntArray, NDArray[np.intp]]:
    """Cells of a level that hold rows: their indices (m, d), counts (m,), and cell of each row."""
    dim, along = points.shape[1], 2**level
    flat = np.zeros(len(points), dtype=np.int64)
    for column in points.T:
        index = np.floor((column + 1) * (along / 2)).clip(0, along - 1).astype(np.int64)
        flat = flat * along + index
    if along**dim <= _DENSE:
        histogram = np.bincount(flat, minlength=along**dim)
        codes = np.flatnonzero(histogram)
        place = np.empty(along**dim, dtype=np.intp)
        place[codes] = np.arange(len(codes))
        return _unflat(codes, level, dim), histogram[codes], place[flat]
    codes, where, counts = np.unique(flat, return_inverse=True, return_counts=True)
    return _unflat(codes, level, dim), counts, where


def _unambiguous(cells: IntArray, side: float, tree: QuadTree) -> NDArray[np.intp]:
    """The leaf that is nearest to every point of a cell, or -1 where that depends on the point."""
    found = np.full(len(cells), -1, dtype=np.intp)
    step = max(1, _BLOCK // (len(tree.level) * cells.shape[1]))
    leaf_low, leaf_high = tree.low, tree.low + tree.side[:, None]
    for start in range(0, len(cells), step):
        low = (cells[start : start + step] * side - 1)[:, None, :]
        high = low + side
        nearest = np.maximum(np.maximum(leaf_low - high, low - leaf_high), 0)
        furthest = np.maximum(np.maximum(leaf_low - low, high - leaf_high), 0)
        least = (nearest**2).sum(axis=2)
        possible = least <= (furthest**2).sum(axis=2).min(axis=1, keepdims=True)
        alone = possible.sum(axis=1) == 1
        found[start : start + step] = np.where(alone, np.argmax(possible, axis=1), -1)
    return found


def _check_dim(points: FloatArray) -> int:
    dim = points.shape[1]
    if dim > MAX_DIM:
        raise ValueError(
            f"a quad tree takes at most {MAX_DIM} dimensions, got {dim}: project first "
            "(n_components=2 or 3)"
        )
    return dim


def _root(dim: int) -> QuadTree:
    return QuadTree(np.zeros(1, dtype=np.int64), np.zeros((1, dim), dtype=np.int64), ())


def _every_cell(level: int, dim: int) -> IntArray:
    if level * dim > 16:
        raise ValueError(
            f"skip_levels={level} would keep 2^{level * dim} cells in {dim} dimensions; lower it"
        )
    return _unflat(np.arange(2 ** (level * dim)), level, dim)


def _flat(cells: IntArray, level: int) -> IntArray:
    """One number for each cell, ascending in the order of the indices."""
    code = np.zeros(len(cells), dtype=np.int64)
    for column in cells.T:
        code = (code << level) + column
    return code


def _unflat(codes: IntArray, level: int, dim: int) -> IntArray:
    mask = (1 << level) - 1
    return np.stack([(codes >> (level * (dim - 1 - axis))) & mask for axis in range(dim)], axis=1)
