"""Exact assignment of points to centres when every centre must get at least m of them.

The linear programme of Bradley, Bennett and Demiriz (2000),

    min sum_ij D_ij T_ij,   sum_j T_ij = 1,   sum_i T_ij >= m,   T >= 0,

is a min-cost flow. It is solved by successive shortest paths on the graph of the K clusters, not
of the n x K pairs: moving one point from cluster a to b costs at least
``min_{i in a} (D_ib - D_ia)``. Float costs stay float; the dual prices come out as well and prove
the optimum (weak duality), whatever the rounding.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .coordinates import FloatArray

#: Entries of a temporary table; bounds the memory that one step needs beside D.
_CHUNK = 1 << 15


class Assignment(NamedTuple):
    """An assignment with its proof of optimality."""

    labels: NDArray[np.intp]  #: (n,) cluster of each point
    prices: FloatArray  #: (K,) dual prices, >= 0: what one point more of the minimum would cost
    cost: float  #: sum of D over the assignment
    bound: float  #: value of the dual at ``prices``: no assignment costs less

    @property
    def gap(self) -> float:
        """``cost - bound``: 0 up to rounding, or the assignment is not optimal."""
        return self.cost - self.bound


def min_size_assignment(
    D: FloatArray, min_size: int, *, prices: FloatArray | None = None
) -> Assignment:
    """Cheapest assignment in which every cluster has at least ``min_size`` points.

    Parameters
    ----------
    D : ndarray of shape (n, K)
        Cost of every pair, finite; for k-means the *squared* distances.
    min_size : int
        m >= 0, with K * m <= n.
    prices : ndarray of shape (K,), optional
        Prices to start from, as a similar problem returned them. They change the time, not the
        cost that comes out.

    Returns
    -------
    Assignment
        Labels, prices, cost and the dual bound.

    Raises
    ------
    ValueError
        If K * m > n.

    Examples
    --------
    >>> D = np.array([[0.0, 9.0], [1.0, 5.0], [2.0, 4.0]])
    >>> result = min_size_assignment(D, 1)
    >>> result.labels, result.cost, result.gap
    (array([0, 0, 1]), np.float64(5.0), np.float64(0.0))
    """
    n, n_clusters = D.shape
    if n_clusters * min_size > n:
        raise ValueError(
            f"{n_clusters} clusters of at least {min_size} need {n_clusters * min_size} points, "
            f"but there are {n}: lower min_size or n_clusters"
        )
    start = np.zeros(n_clusters) if prices is None else prices.copy()
    labels, prices = solve(D, min_size, start)
    least = 0.0
    rows = max(1, _CHUNK // n_clusters)
    for first in range(0, n, rows):
        least += (D[first : first + rows] - prices).min(axis=1).sum()
    cost = D[np.arange(n), labels].sum()
    return Assignment(labels, prices, cost, least + min_size * prices.sum())


def solve(D: FloatArray, min_size: int, prices: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Labels and prices of the optimum; :func:`min_size_assignment` without checks and proof.

    ``prices`` is changed in place.
    """
    labels = _ascend(D, min_size, prices)
    sizes = np.bincount(labels, minlength=len(prices))
    if _imbalance(sizes, prices, min_size):
        graph = _ClusterGraph(D, min_size, prices, labels, sizes)
        for short in np.flatnonzero(sizes < min_size):
            while sizes[short] < min_size:
                graph.fill(int(short))
        for over in np.flatnonzero((sizes > min_size) & (prices > 0)):
            while sizes[over] > min_size and prices[over] > 0:
                graph.shed(int(over))
    return labels, prices


def _nearest(D: FloatArray, prices: FloatArray) -> NDArray[np.intp]:
    """The cluster of least ``D - prices`` for every point, ties to the lowest."""
    labels = np.empty(len(D), dtype=np.intp)
    rows = max(1, _CHUNK // D.shape[1])
    for start in range(0, len(D), rows):
        part = slice(start, start + rows)
        labels[part] = (D[part] - prices).argmin(axis=1)
    return labels


def _ascend(D: FloatArray, min_size: int, prices: FloatArray) -> NDArray[np.intp]:
    """Raise the dual by whole clusters at a time; prices in place, best labels at them returned.

    One price at a time is set to its best value given the others: a cluster below m bids until
    it has m points, one above m with a positive price cuts it until it has m or the price is 0.
    Alone this need not end at the optimum; it stops when a round hardly helps.
    """
    n_clusters = len(prices)
    labels = _nearest(D, prices)
    sizes = np.bincount(labels, minlength=n_clusters)
    own = D[np.arange(len(D)), labels] - prices[labels]
    columns: FloatArray | None = None
    wrong = _imbalance(sizes, prices, min_size)
    while wrong:
        if columns is None:
            columns = np.ascontiguousarray(D.T)
        for j in np.flatnonzero(sizes < min_size):
            lacking = min_size - sizes[j]
            if lacking <= 0:
                continue
            extra = columns[j] - prices[j] - own
            extra[labels == j] = np.inf
            taken = _cheapest(extra, int(lacking))
            prices[j] += max(extra[taken].max(), 0.0)
            sizes -= np.bincount(labels[taken], minlength=n_clusters)
            labels[taken] = j
            sizes[j] += lacking
            inside = labels == j
            own[inside] = columns[j, inside] - prices[j]
        for j in np.flatnonzero((sizes > min_size) & (prices > 0)):
            surplus = sizes[j] - min_size
            inside = np.flatnonzero(labels == j)
            others = D[inside] - prices
            others[:, j] = np.inf
            margin = others.min(axis=1) - own[inside]
            leave = _cheapest(margin, int(surplus))
            cut = min(max(margin[leave].max(), 0.0), prices[j])
            leave = leave[margin[leave] <= cut]
            prices[j] -= cut
            own[inside] += cut
            to = others[leave].argmin(axis=1)
            rows = inside[leave]
            labels[rows] = to
            own[rows] = D[rows, to] - prices[to]
            sizes = sizes + np.bincount(to, minlength=n_clusters)
            sizes[j] -= len(leave)
        now = _imbalance(sizes, prices, min_size)
        if now > 0.8 * wrong:
            break
        wrong = now
    return labels


def _cheapest(values: FloatArray, count: int) -> NDArray[np.intp]:
    """Places of the ``count`` least values, ties to the lowest place."""
    bound = np.partition(values, count - 1)[count - 1]
    places = np.flatnonzero(values <= bound)
    if len(places) > count:
        places = places[np.argsort(values[places], kind="stable")[:count]]
    return places


def _imbalance(sizes: NDArray[np.intp], prices: FloatArray, min_size: int) -> int:
    """Points that are missing below m, and points above m in clusters with a price."""
    short = np.maximum(min_size - sizes, 0).sum()
    return int(short + np.maximum(sizes - min_size, 0)[prices > 0].sum())


class _ClusterGraph:
    """The residual graph: labels that are optimal at the prices, sizes that are not yet right.

    Invariant: every point sits where ``D - prices`` is least, so the reduced length
    ``step[b, a] + prices[a] - prices[b]`` of every edge a -> b is >= 0.
    """

    def __init__(
        self,
        D: FloatArray,
        min_size: int,
        prices: FloatArray,
        labels: NDArray[np.intp],
        sizes: NDArray[np.intp],
    ) -> None:
        self.D, self.min_size, self.prices = D, min_size, prices
        self.labels, self.sizes = labels, sizes
        self.own = D[np.arange(len(D)), labels]
        order = np.argsort(labels, kind="stable")
        self.members: list[NDArray[np.intp]] = np.split(order, np.cumsum(sizes)[:-1])
        self.step = self._steps(order)

    def _steps(self, order: NDArray[np.intp]) -> FloatArray:
        """(K, K), [b, a]: least cost of moving one point from a to b; inf if a is empty."""
        n_clusters = len(self.prices)
        step = np.full((n_clusters, n_clusters), np.inf)
        filled = np.flatnonzero(self.sizes)
        ends = np.cumsum(self.sizes[filled])
        begins = ends - self.sizes[filled]
        first = 0
        while first < len(filled):
            # As many whole clusters as fit in a chunk, and one at least.
            room = begins[first] + max(1, _CHUNK // n_clusters)
            last = max(int(np.searchsorted(ends, room, "right")), first + 1)
            part = order[begins[first] : ends[last - 1]]
            extra = self.D[part] - self.own[part, None]
            cuts = begins[first:last] - begins[first]
            step[:, filled[first:last]] = np.minimum.reduceat(extra, cuts, axis=0).T
            first = last
        return step

    def fill(self, short: int) -> None:
        """Bring one point, by the cheapest chain of moves, to a cluster that is short of m."""
        step, prices, sizes = self.step, self.prices, self.sizes
        key = np.full(len(prices), np.inf)  # tentative distance to `short`; inf once final
        best = key.copy()  # the same; -inf once final
        towards = np.full(len(prices), -1, dtype=np.intp)
        key[short] = 0.0
        final: list[int] = []
        reach: list[float] = []
        while True:
            node = int(key.argmin())
            distance = float(key[node])
            if sizes[node] > self.min_size:
                break
            final.append(node)
            reach.append(distance)
            key[node], best[node] = np.inf, -np.inf
            through = step[node] + prices
            through += distance - prices[node]
            better = through < best
            np.copyto(key, through, where=better)
            np.copyto(best, through, where=better)
            towards[better] = node
        prices[final] += np.maximum(distance - np.array(reach), 0.0)
        path = [node]
        while path[-1] != short:
            path.append(int(towards[path[-1]]))
        self.move(path)

    def shed(self, over: int) -> None:
        """Take one point from a cluster above m whose price is still positive, or the price."""
        step, prices = self.step, self.prices
        key = np.full(len(prices), np.inf)
        best = key.copy()
        back = np.full(len(prices), -1, dtype=np.intp)
        key[over] = 0.0
        final: list[int] = []
        reach: list[float] = []
        end, length = over, float(prices[over])
        while True:
            node = int(key.argmin())
            distance = float(key[node])
            if distance >= length:
                break
            final.append(node)
            reach.append(distance)
            key[node], best[node] = np.inf, -np.inf
            if distance + prices[node] < length:
                end, length = node, distance + float(prices[node])
            through = step[:, node] - prices
            through += distance + prices[node]
            better = through < best
            np.copyto(key, through, where=better)
            np.copyto(best, through, where=better)
            back[better] = node
        prices[final] = np.maximum(prices[final] - np.maximum(length - np.array(reach), 0.0), 0.0)
        prices[end] = 0.0
        path = [end]
        while path[-1] != over:
            path.append(int(back[path[-1]]))
        self.move(path[::-1])

    def move(self, path: list[int]) -> None:
        """Pass one point along every edge of a path of clusters, the cheapest one each."""
        edges = list(itertools.pairwise(path))
        movers = []
        for a, b in edges:
            inside = self.members[a]
            movers.append(int(inside[(self.D[inside, b] - self.own[inside]).argmin()]))
        lost = {a: self.D[i] - self.own[i] for i, (a, _) in zip(movers, edges, strict=True)}
        for i, (a, b) in zip(movers, edges, strict=True):
            self.members[a] = self.members[a][self.members[a] != i]
            self.members[b] = np.append(self.members[b], i)
            self.labels[i] = b
            self.own[i] = self.D[i, b]
            self.sizes[a] -= 1
            self.sizes[b] += 1
        for a, row in lost.items():
            # Only where the point that left was the cheapest one can the least cost rise.
            stale = np.flatnonzero(row <= self.step[:, a])
            inside = self.members[a]
            extra = self.D[np.ix_(inside, stale)] - self.own[inside, None]
            self.step[stale, a] = extra.min(axis=0, initial=np.inf)
        for i, (_, b) in zip(movers, edges, strict=True):
            self.step[:, b] = np.minimum(self.step[:, b], self.D[i] - self.own[i])
