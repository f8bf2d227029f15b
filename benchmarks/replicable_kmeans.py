"""Replicable k-means beside scikit-learn's KMeans, and beside a walk over a tree in Python.

    python benchmarks/replicable_kmeans.py [--rows 1_000_000] [--clusters 8] [--repeats 5]

One process, everything warmed, repeats interleaved. In 2 dimensions the tree is built on the rows,
in 10 on a shared random projection to 3. KMeans has as many clusters and one start. Ours is timed
whole (box, guess of the cost, tree, coreset, oracle with 10 starts, labels of all rows, forecast).

The Python walk does what public experiment code for this method does: node objects, a loop over
samples that descends to a leaf, one level after another. Written here; same thresholds, same
schedule. It is timed at three sizes and extrapolated along its cost per row, which the table shows.
Ratios are medians of per-repeat ratios, with their range.
"""

import argparse
import os
import time
import warnings

import numpy as np
import sklearn
from sklearn.cluster import KMeans

from privlearn.replicable import (
    ReplicabilityWarning,
    ReplicableKMeans,
    replicable_threshold,
    theory,
)
from privlearn.replicable.coreset import replicable_coreset
from privlearn.replicable.simulation import PAPER_SETTINGS, truncated_mixture

warnings.simplefilter("ignore", ReplicabilityWarning)


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
                k, bounds=(-1.6, 1.6), opt=0.1 * dim, **common
            ),
        }
        for model in methods.values():
            model.fit(X)
        times = {name: np.empty(repeats) for name in methods}
        for repeat in range(repeats):
            for name, model in methods.items():
                times[name][repeat] = seconds(lambda model=model: model.fit(X))
        for name, spent in times.items():
            print(
                f"  d = {dim:2d}  {name:26s} {np.median(spent):7.3f} s   "
                f"{spread(spent / times['KMeans'])} KMeans"
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


def python_walk(X, seed):
    """Quad tree and masses, one sample at a time."""
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    cells, masses = X[::2].tolist(), X[1::2].tolist()
    root = Node((0.0, 0.0), 1.0, 0)
    frontier = [root]
    for level in plan.levels:
        for node in frontier:
            node.split()
        counts = {}
        for x in cells:
            node = root
            while node.children and node.heavy:
                node = node.child_of(x)
            if node.level == level.level:
                counts[node] = counts.get(node, 0) + 1
        at = replicable_threshold(
            low=level.low, high=level.high, shared_seed=seed, purpose="cells", label=level.level
        )
        children = [child for node in frontier for child in node.children]
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
                        for v, c in zip(x, leaf.centre, strict=True)  # noqa: B023
                    ),
                )
            else:
                node = child
        totals[node] += 1
    return {leaf.centre: total for leaf, total in totals.items()}


def against_python(rows, repeats):
    print("\ncoreset of the truncated mixture (2 dimensions), a walk over the tree in Python")
    settings = {**PAPER_SETTINGS, "shared_seed": 2}
    rng = np.random.default_rng(0)
    per_row = []
    for n in (5_000, 10_000, 20_000):
        X = truncated_mixture(n, rng)
        ours = replicable_coreset(X, **settings)
        theirs = python_walk(X, 2)
        expected = {
            tuple(point): int(count) for point, count in zip(ours.points, ours.rows, strict=True)
        }
        assert theirs == expected, "the two implementations disagree"
        walk = np.array([seconds(lambda X=X: python_walk(X, 2)) for _ in range(repeats)])
        fast = np.array(
            [seconds(lambda X=X: replicable_coreset(X, **settings)) for _ in range(repeats)]
        )
        per_row.append(np.median(walk) / n)
        print(
            f"  n = {n:9,}  Python {np.median(walk):8.3f} s ({per_row[-1] * 1e6:.1f} us a row)   "
            f"ours {np.median(fast):.4f} s   {spread(walk / fast)} faster, same counts"
        )
    X = truncated_mixture(rows, rng)
    replicable_coreset(X, **settings)
    fast = np.array([seconds(lambda: replicable_coreset(X, **settings)) for _ in range(repeats)])
    ratio = per_row[-1] * rows / fast
    print(
        f"  n = {rows:9,}  Python {per_row[-1] * rows:8.1f} s (extrapolated)   "
        f"ours {np.median(fast):.4f} s   {spread(ratio)} faster"
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
