"""Local improvement of a partition that never lets a cluster fall below its minimum size.

Two steps, both monotone in the within-cluster sum of squares: Lloyd iterations whose assignment
is the exact minimum-size one (Bradley, Bennett and Demiriz 2000), and moves of single rows that
pay after both means have followed (Hartigan).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from .blocks import blocks
from .coordinates import FloatArray, group_means, group_sums, within_sse
from .flow import solve

#: A step must lower the sum of squares by more than this part of it.
TOLERANCE = 1e-12
#: Nearest centres that a row may move to where the full table of distances would not fit.
_NEAREST = 16
#: Entries of a table of distances that is still made at once.
_TABLE = 40_000_000


def size_constrained_lloyd(
    Z: FloatArray, centers: FloatArray, min_size: int, *, max_iter: int = 300, tol: float = 0.0
) -> tuple[NDArray[np.intp], int]:
    """Alternate the exact minimum-size assignment and the means until the labels repeat.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    centers : ndarray of shape (K, d)
        Where to start; K * min_size <= n.
    min_size : int
    max_iter : int, default=300
    tol : float, default=0.0
        Stop as well when an iteration lowers the sum of squares by less than this part of it.

    Returns
    -------
    labels : ndarray of shape (n,)
    n_iter : int
        Assignments that were solved.
    """
    best: NDArray[np.intp] | None = None
    objective = np.inf
    prices = np.zeros(len(centers))
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        labels, prices = solve(cdist(Z, centers, "sqeuclidean"), min_size, prices)
        if best is not None and np.array_equal(labels, best):
            break
        reached = within_sse(Z, labels)
        if reached >= objective * (1 - TOLERANCE):
            break  # a tie: another partition of the same cost
        small = reached >= objective * (1 - tol)
        best, objective = labels, reached
        if small:
            break
        centers = group_means(Z, labels, len(centers))
    assert best is not None
    return best, n_iter


def hartigan_moves(
    Z: FloatArray, labels: NDArray[np.intp], min_size: int, *, max_sweeps: int = 100
) -> NDArray[np.intp]:
    """Move single rows while that lowers the sum of squares and leaves ``min_size`` behind.

    A row goes from a to b if ``N_a > m`` and ``N_a/(N_a-1) d_ia > N_b/(N_b+1) d_ib``, with d the
    squared distances to the means at that moment. A sweep screens all rows at once and applies
    the candidates in row order, each checked again; sweeps end when none moves.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    labels : ndarray of shape (n,)
        All sizes at least ``min_size``; not changed.
    min_size : int
    max_sweeps : int, default=100

    Returns
    -------
    labels : ndarray of shape (n,)

    Notes
    -----
    Where (movable rows) x (clusters) exceeds 4e7, only the 16 nearest centres are candidates.
    """
    labels = labels.copy()
    n_groups = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=n_groups)
    sums = group_sums(Z, labels, n_groups)
    for _ in range(max_sweeps):
        rows, near = _screen(Z, labels, sizes, sums / sizes[:, None], min_size)
        moved = False
        for i, some in zip(rows, near, strict=True):
            a = labels[i]
            if sizes[a] <= min_size:
                continue
            others = np.arange(n_groups) if some is None else some
            gap = Z[i] - sums[others] / sizes[others, None]
            arrive = np.einsum("kd,kd->k", gap, gap) * (sizes[others] / (sizes[others] + 1.0))
            arrive[others == a] = np.inf
            best = int(arrive.argmin())
            stay = Z[i] - sums[a] / sizes[a]
            leave = float(stay @ stay) * sizes[a] / (sizes[a] - 1.0)
            if arrive[best] < leave * (1 - TOLERANCE):
                b = others[best]
                labels[i] = b
                sums[a] -= Z[i]
                sums[b] += Z[i]
                sizes[a] -= 1
                sizes[b] += 1
                moved = True
        if not moved:
            break
    return labels


def _screen(
    Z: FloatArray,
    labels: NDArray[np.intp],
    sizes: NDArray[np.intp],
    means: FloatArray,
    min_size: int,
) -> tuple[NDArray[np.intp], list[NDArray[np.intp] | None]]:
    """Rows that would gain by a move at the present means, and the centres each may go to."""
    rows = np.flatnonzero((sizes[labels] > min_size) & (sizes[labels] > 1))
    if len(rows) == 0 or len(means) == 1:
        return rows[:0], []
    own = labels[rows]
    gap = Z[rows] - means[own]
    leave = np.einsum("ij,ij->i", gap, gap) * sizes[own] / (sizes[own] - 1.0)
    if len(rows) * len(means) <= _TABLE:
        arrive = cdist(Z[rows], means, "sqeuclidean") * (sizes / (sizes + 1.0))
        arrive[np.arange(len(rows)), own] = np.inf
        keep = arrive.min(axis=1) < leave * (1 - TOLERANCE)
        return rows[keep], [None] * int(keep.sum())
    near = np.asarray(KDTree(means).query(Z[rows], k=min(_NEAREST, len(means)))[1])
    gaps = Z[rows][:, None, :] - means[near]
    arrive = np.einsum("ikd,ikd->ik", gaps, gaps) * (sizes / (sizes + 1.0))[near]
    arrive[near == own[:, None]] = np.inf
    keep = arrive.min(axis=1) < leave * (1 - TOLERANCE)
    return rows[keep], list(near[keep])


def polish(
    Z: FloatArray, centers: FloatArray, min_size: int, *, max_iter: int = 300, tol: float = 0.0
) -> tuple[NDArray[np.intp], int]:
    """Lloyd, then single moves; a round again while single moves still found something.

    Parameters and results are those of :func:`size_constrained_lloyd`.
    """
    labels, n_iter = size_constrained_lloyd(Z, centers, min_size, max_iter=max_iter, tol=tol)
    while n_iter <= max_iter:
        moved = hartigan_moves(Z, labels, min_size)
        if np.array_equal(moved, labels):
            break
        means = group_means(Z, moved, len(centers))
        again, more = size_constrained_lloyd(Z, means, min_size, max_iter=max_iter, tol=tol)
        n_iter += more
        before = within_sse(Z, moved)
        if within_sse(Z, again) >= before * (1 - max(tol, TOLERANCE)):
            return moved, n_iter
        labels = again
    return labels, n_iter


def polish_blocks(
    Z: FloatArray,
    labels: NDArray[np.intp],
    min_size: int,
    block_size: int,
    *,
    turn: int = 0,
    max_iter: int = 300,
    tol: float = 0.0,
) -> tuple[NDArray[np.intp], int]:
    """One round of :func:`polish` over groups of neighbouring clusters, each on its own.

    The clusters of a partition are cut in blocks by their means; within a block members may go
    anywhere. The sum of squares never rises, and no cluster falls below ``min_size``.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    labels : ndarray of shape (n,)
        0..K-1 without gaps, all sizes at least ``min_size``.
    min_size : int
    block_size : int
        Rows in a block, about.
    turn : int, default=0
        0 cuts along the columns; every other number along axes of its own, so that what lay at
        a boundary in one round lies inside in the next.
    max_iter, tol
        As in :func:`size_constrained_lloyd`.

    Returns
    -------
    labels : ndarray of shape (n,)
    n_iter : int
        The most assignments that one block took.
    """
    n_groups = int(labels.max()) + 1
    means = group_means(Z, labels, n_groups)
    if turn:
        axes, _ = np.linalg.qr(np.random.default_rng(turn).standard_normal((Z.shape[1],) * 2))
        means = means @ axes
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(labels, minlength=n_groups))[:-1])
    labels = labels.copy()
    n_iter = 0
    for clusters in blocks(means, 1, max(2, block_size * n_groups // len(Z))):
        rows = np.sort(np.concatenate([members[c] for c in clusters]))
        local = np.searchsorted(clusters, labels[rows])
        part = Z[rows]
        start = group_means(part, local, len(clusters))
        better, iterations = polish(part, start, min_size, max_iter=max_iter, tol=tol)
        n_iter = max(n_iter, iterations)
        if within_sse(part, better) < within_sse(part, local):
            labels[rows] = clusters[better]
    return labels, n_iter
