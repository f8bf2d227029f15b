"""Replicable k-means beside scikit-learn's KMeans, and beside a walk over a tree in Python.

    python benchmarks/replicable_kmeans.py [--rows 1_000_000] [--clusters 8] [--repeats 5]

One process, everything warmed, repeats interleaved. In 2 dimensions the tree is built on the rows,
in 10 on a shared random projection to 3. KMeans has as many clusters and one start. Ours is timed
whole (box, guess of the cost, tree, coreset, oracle with 10 starts, labels of all rows, forecast).

Two Python peers, written here, with the same thresholds and the same schedule; all three must give
the same counts. "row by cell" does what the authors' public experiments do: node objects and, at
each level, a NumPy norm for each pair of row and candidate cell. "walk on lists" is a lean version:
plain floats, and each row descends the tree. Both are timed at three sizes and extrapolated along
their time per row, which the table shows.
Ratios are medians of per-repeat ratios, with their range.
"""

import argparse
import functools
import os
import time
import warnings

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from privlearn.replicable import (
    ReplicabilityWarning,
    ReplicableKMeans,
    replicable_threshold,
    theory,
)
from privlearn.replicable.coreset import replicable_coreset
from privlearn.replicable.simulation import PAPER_SETTINGS, truncated_mixture

warnings.simplefilter("ignore", ReplicabilityWarning)
warnings.simplefilter("ignore", ConvergenceWarning)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(ratios):
    return f"{np.median(ratios):7.2f}x ({ratios.min():.2f} to {ratios.max():.2f})"


def blobs(rng, n, dim, k):
    centres = rng.uniform(-1, 1, (k, dim))
    return centres[rng.integers(k, size=n)] + rng.normal(0, 0.12, (n, dim))


def against_kmeans(rows, k, repeats):
    print(f"\n{rows:,} rows, {k} clusters, {repeats} repeats, {os.cpu_count()} cores")
    for dim in (2, 10):
        X = blobs(np.random.default_rng(dim), rows, dim, k)
        common = {"shared_seed": 1, "n_components": 3 if dim > 3 else None}
        methods = {
            "KMeans": KMeans(k, n_init=1, random_state=0),
            "ReplicableKMeans": ReplicableKMeans(k, **common),
            "... bounds and opt given": ReplicableKMeans(
                k, bounds=(-1.6, 1.6), opt=0.02 * dim, **common
            ),
        }
        for model in methods.values():
            model.fit(X)
        times = {name: np.empty(repeats) for name in methods}
        for repeat in range(repeats):
            for name, model in methods.items():
                times[name][repeat] = seconds(functools.partial(model.fit, X))
        for name, spent in times.items():
            print(
                f"  d = {dim:2d}  {name:26s} {np.median(spent):7.3f} s   "
                f"{spread(spent / times['KMeans'])} KMeans, "
                f"{len(np.unique(methods[name].labels_))} clusters"
            )


class Node:
    def __init__(self, centre, half, level):
        self.centre, self.half, self.level = centre, half, level
        self.children, self.heavy = [], True

    def split(self):
        for sx in (-1, 1):
            for sy in (-1, 1):
                centre = (self.centre[0] + sx * self.half / 2, self.centre[1] + sy * self.half / 2)
                self.children.append(Node(centre, self.half / 2, self.level + 1))

    def child_of(self, x):
        return self.children[2 * (x[0] >= self.centre[0]) + (x[1] >= self.centre[1])]


def walk_on_lists(root, children, rows, level):
    counts = {}
    for x in rows:
        node = root
        while node.children and node.heavy:
            node = node.child_of(x)
        if node.level == level:
            counts[node] = counts.get(node, 0) + 1
    return counts


def row_by_cell(root, children, rows, level):
    counts = {}
    centres = [np.array(child.centre) for child in children]
    for x in rows:
        for child, centre in zip(children, centres, strict=True):
            if np.linalg.norm(x - centre, ord=np.inf) <= child.half:
                counts[child] = counts.get(child, 0) + 1
                break
    return counts


def python_walk(X, seed, count):
    """Quad tree and masses, one row at a time."""
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    cells, masses = X[::2], X[1::2]
    if count is walk_on_lists:
        cells, masses = cells.tolist(), masses.tolist()
    root = Node((0.0, 0.0), 1.0, 0)
    frontier = [root]
    for level in plan.levels:
        for node in frontier:
            node.split()
        children = [child for node in frontier for child in node.children]
        counts = count(root, children, cells, level.level)
        at = replicable_threshold(
            low=level.low, high=level.high, shared_seed=seed, purpose="cells", label=level.level
        )
        for child in children:
            child.heavy = level.level == 1 or counts.get(child, 0) / len(cells) >= at
        frontier = [child for child in children if child.heavy]
    leaves, stack = [], [root]
    while stack:
        node = stack.pop()
        heavy = [child for child in node.children if child.heavy]
        stack += heavy
        if not heavy:
            leaves.append(node)
    totals = dict.fromkeys(leaves, 0)
    for x in masses:
        node = root
        while node not in totals:
            child = node.child_of(x)
            if not child.heavy:  # light: the nearest leaf by distance to its square
                node = min(
                    leaves,
                    key=lambda leaf: sum(
                        max(abs(v - c) - leaf.half, 0) ** 2
                        for v, c in zip(x, leaf.centre, strict=True)
                    ),
                )
            else:
                node = child
        totals[node] += 1
    return {leaf.centre: total for leaf, total in totals.items()}


def against_python(rows, repeats):
    print("\ncoreset of the truncated mixture (2 dimensions), ours beside loops in Python")
    settings = {**PAPER_SETTINGS, "shared_seed": 2}
    rng = np.random.default_rng(0)
    large = truncated_mixture(rows, rng)
    replicable_coreset(large, **settings)
    whole = np.array(
        [seconds(lambda: replicable_coreset(large, **settings)) for _ in range(repeats)]
    )
    for count in (row_by_cell, walk_on_lists):
        name = count.__name__.replace("_", " ")
        for n in (5_000, 10_000, 20_000):
            X = large[:n]
            ours = replicable_coreset(X, **settings)
            pairs = zip(ours.points, ours.rows, strict=True)
            expected = {tuple(point): int(total) for point, total in pairs}
            assert python_walk(X, 2, count) == expected, "the two implementations disagree"
            walk = functools.partial(python_walk, X, 2, count)
            slow = np.array([seconds(walk) for _ in range(repeats)])
            fast = [seconds(lambda X=X: replicable_coreset(X, **settings)) for _ in range(repeats)]
            per_row = np.median(slow) / n
            print(
                f"  {name:14s} n = {n:9,}  {np.median(slow):8.3f} s ({per_row * 1e6:6.1f} us a row)"
                f"   ours {np.median(fast):.4f} s  {spread(slow / np.array(fast))} faster"
            )
        print(
            f"  {name:14s} n = {rows:9,}  {per_row * rows:8.1f} s (extrapolated)       "
            f"   ours {np.median(whole):.4f} s  {spread(per_row * rows / whole)} faster"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"scikit-learn {sklearn.__version__}, NumPy {np.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    against_kmeans(arguments.rows, arguments.clusters, arguments.repeats)
    against_python(arguments.rows, arguments.repeats)


if __name__ == "__main__":
    main()
