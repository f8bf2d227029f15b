"""Minimum-size clustering beside its peers: information loss and seconds, one process.

1. `MinSizeKMeans` against `k-means-constrained` (K = n // m, one start, 30 iterations) on wine,
   diabetes and breast cancer at m = 3, 5, 10, z-scored; then the same tables times 1e-5.
2. The same two on normal data, n = 2,000 and 20,000.
3. `MDAV` against the published loop in plain NumPy, and `anonypyx` where it is installed.
4. 100,000 x 10: `MDAV` and `MinSizeKMeans`, with the largest memory of the process.

Runs alternate between the sides, so that a slow minute of the machine hits both; a ratio is peer
seconds over ours, pair by pair: median (least to most). IL is 100 SSE / SST of the same labels, by
one function for all. `--reduced` is a quick functional run whose times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import time
import warnings

import numpy as np
from k_means_constrained import KMeansConstrained
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from privlearn.lookalike import MDAV, MinSizeKMeans

REAL = {"wine": load_wine, "diabetes": load_diabetes, "breast": load_breast_cancer}


def normal(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 10))


def information_loss(X: np.ndarray, labels: np.ndarray) -> float:
    X = X / X.std()
    means = np.array([X[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    return 100 * ((X - means[labels]) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()


def plain_mdav(X: np.ndarray, m: int) -> np.ndarray:
    """The loop of Domingo-Ferrer and Torra (2005), as one would write it."""
    left, labels, k = np.arange(len(X)), np.empty(len(X), int), 0

    def squared(point: np.ndarray) -> np.ndarray:
        return ((X[left] - point) ** 2).sum(axis=1)

    def close(point: np.ndarray) -> None:
        nonlocal left, k
        nearest = np.argsort(squared(point), kind="stable")[:m]
        labels[left[nearest]] = k
        left, k = np.delete(left, nearest), k + 1

    while len(left) >= 3 * m:
        r = X[left[squared(X[left].mean(axis=0)).argmax()]]
        s = X[left[squared(r).argmax()]]
        close(r)
        close(s)
    if len(left) >= 2 * m:
        close(X[left[squared(X[left].mean(axis=0)).argmax()]])
    labels[left] = k
    return labels


def anonypyx_mdav(X: np.ndarray, m: int) -> np.ndarray:
    import pandas as pd
    from anonypyx.microaggregation import MDAVGeneric

    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    labels = np.empty(len(X), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, rows in enumerate(MDAVGeneric(frame, list(frame.columns)).partition(m)):
            labels[np.asarray(rows, int)] = k
    return labels


def ours(X: np.ndarray, m: int) -> np.ndarray:
    return MinSizeKMeans(m).fit(X).labels_


def ours_one_start(X: np.ndarray, m: int) -> np.ndarray:
    return MinSizeKMeans(m, init="mdav").fit(X).labels_


def our_mdav(X: np.ndarray, m: int) -> np.ndarray:
    return MDAV(m).fit(X).labels_


def kmeans_constrained(X: np.ndarray, m: int) -> np.ndarray:
    model = KMeansConstrained(len(X) // m, size_min=m, n_init=1, max_iter=30, random_state=0)
    return model.fit(X).labels_


def alternate(sides: dict, X: np.ndarray, m: int, repeats: int) -> dict[str, tuple]:
    """Seconds of each run and labels of the last, for every side; runs interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    labels = {}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            labels[name] = side(X, m)
            seconds[name].append(time.perf_counter() - start)
    return {name: (seconds[name], labels[name]) for name in sides}


def show(title: str, X: np.ndarray, m: int, sides: dict, repeats: int) -> None:
    """One line a side; the first side is the one whose ratio to the others is given."""
    runs = alternate(sides, X, m, repeats)
    mine = next(iter(runs.values()))[0]
    for name, (seconds, labels) in runs.items():
        ratios = sorted(a / b for a, b in zip(seconds, mine, strict=True))
        against = f"{statistics.median(ratios):7.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(
            f"{title:24} m={m:<4} {name:22} IL {information_loss(X, labels):6.2f} %  "
            f"least size {np.bincount(labels).min():4}  {statistics.median(seconds):9.4f} s  "
            f"x ours {against}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes, one repeat")
    reduced = parser.parse_args().reduced
    repeats = 1 if reduced else 7

    flow = {
        "MinSizeKMeans": ours,
        "MinSizeKMeans, MDAV": ours_one_start,
        "k-means-constrained": kmeans_constrained,
    }
    for side in (*flow.values(), our_mdav, plain_mdav):  # imports and first calls
        side(normal(60), 5)
    print("-- 1. real tables, z-scored; then times 1e-5 (the peer rounds costs to integers)")
    for name, load in REAL.items():
        X = load().data
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        for m in (5,) if reduced else (3, 5, 10):
            show(name, X, m, flow, repeats)
            show(f"{name} x 1e-5", 1e-5 * X, m, flow, repeats)

    print("-- 2. normal data, 10 columns")
    sizes = [(500, 10)] if reduced else [(2_000, 10), (2_000, 50), (20_000, 100), (20_000, 500)]
    two = {"MinSizeKMeans": ours, "k-means-constrained": kmeans_constrained}
    for n, m in sizes:
        show(f"normal {n} x 10", normal(n), m, two, repeats if n < 10_000 else 3)

    print("-- 3. MDAV")
    mdav = {"MDAV": our_mdav, "published loop, NumPy": plain_mdav}
    if importlib.util.find_spec("anonypyx"):
        mdav["anonypyx MDAV-generic"] = anonypyx_mdav
    else:
        print("anonypyx is not installed: left out")
    breast = load_breast_cancer().data
    breast = (breast - breast.mean(axis=0)) / breast.std(axis=0)
    show("breast 569 x 30", breast, 5, mdav, repeats)
    mdav.pop("anonypyx MDAV-generic", None)  # it holds all n^2 distances
    n = 1_000 if reduced else 10_000
    show(f"normal {n} x 10", normal(n), 5, mdav, 1 if reduced else 3)

    n = 5_000 if reduced else 100_000
    print(f"-- 4. {n} x 10 (target: under 60 s)")
    for m in (10,) if reduced else (3, 10, 100):
        show(f"normal {n} x 10", normal(n), m, {"MDAV": our_mdav, "MinSizeKMeans": ours}, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"largest memory of the process so far: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
