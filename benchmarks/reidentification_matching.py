"""Top-1 match of all users of one site among all users of another, beside two other ways.

    python benchmarks/reidentification_matching.py [--users 100_000] [--weeks 8] [--repeats 3]

Ours is `ReidentificationAttack`: "predict" names the best match of every row, "score" counts who
ranks above and beside the true one. The peers, on the same scores (asymmetric weighted Hamming):
(a) a pair loop in plain Python, as published attack code does it, timed on a few pairs and
multiplied up; (b) SciPy's sparse product of one-hot tables in blocks, and the best entry of each
row. Work is quadratic in the users, so (b) is timed on some rows and multiplied up too
(``--peer-rows``). Memory is the largest resident size of the process while ours runs, which is
before SciPy's blocks. The peak is that of this machine for 32-bit additions in cache, measured
beside it: ours makes one addition for each pair and week.
"""

import argparse
import os
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from scipy import sparse

from privlearn.reidentification import ReidentificationAttack, theory


def users(n, weeks, seed=0):
    """Two sites' topics of users whose five topics stay the same, Zipf popularity."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, 350)
    # The five least of exponential waiting times: draws without replacement.
    sets = np.empty((n, 5), np.int64)
    for start in range(0, n, 10_000):
        part = slice(start, min(n, start + 10_000))
        waiting = rng.exponential(size=(part.stop - start, 349)) / popularity
        sets[part] = np.argpartition(waiting, 5, axis=1)[:, :5]
    views = []
    for _ in range(2):
        shown = np.take_along_axis(sets, rng.integers(0, 5, (n, weeks)), axis=1)
        random = rng.random((n, weeks)) < 0.05
        views.append(np.where(random, rng.integers(0, 349, (n, weeks)), shown))
    return views


def weights(site_a):
    share = np.bincount(site_a.ravel(), minlength=349) / site_a.size
    return theory.asymmetric_weights(theory.inclusion_from_frequency(share))


def pair_loop(site_a, site_b, match, mismatch):
    """Best match of each row of site b, one pair and week at a time."""
    a, b = site_a.tolist(), site_b.tolist()
    hit, miss = match.tolist(), mismatch.tolist()
    best = []
    for query in b:
        least, named = float("inf"), -1
        for j, target in enumerate(a):
            cost = 0.0
            for x, y in zip(query, target, strict=True):
                cost += hit[x] if x == y else miss[x]
            if cost < least:
                least, named = cost, j
        best.append(named)
    return best


def sparse_product(site_a, site_b, match, mismatch, block=256):
    """Gains of matches over mismatches: one-hot tables, multiplied; a row has one base."""
    weeks = site_a.shape[1]
    offset = 349 * np.arange(weeks)

    def one_hot(topics, values):
        starts = np.arange(0, topics.size + 1, weeks)
        shape = (len(topics), 349 * weeks)
        return sparse.csr_matrix((values.ravel(), (topics + offset).ravel(), starts), shape)

    targets = one_hot(site_a, np.ones(site_a.shape, np.float32)).T.tocsr()
    gain = (mismatch - match).astype(np.float32)
    best = np.empty(len(site_b), np.int64)
    for start in range(0, len(site_b), block):
        query = site_b[start : start + block]
        scores = one_hot(query, gain[query]) @ targets
        best[start : start + len(query)] = np.asarray(scores.argmax(axis=1)).ravel()
    return best


def peak_additions(repeats=5):
    """32-bit additions a second of all cores together, on arrays that stay in cache."""

    @jax.jit
    def add(x):
        return jax.lax.fori_loop(0, 2_000, lambda i, v: (v + (v ^ i)) + i, x)

    x = jnp.arange(2**17, dtype=jnp.int32)
    add(x).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        add(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 3 * 2_000 * x.size / min(times)


def seconds(function, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return np.array(times), result


def show(name, times, pairs, note=""):
    middle = np.median(times)
    print(
        f"  {name:26s} {middle:10.2f} s  ({times.min():.2f} to {times.max():.2f})"
        f"  {middle / pairs * 1e9:9.3f} ns a pair  {note}"
    )
    return middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-rows", type=int, default=2_048)
    parser.add_argument("--loop-pairs", type=int, default=200_000)
    parser.add_argument("--methods", nargs="+", default=["hamming", "asymmetric", "combined"])
    arguments = parser.parse_args()
    n, weeks, repeats = arguments.users, arguments.weeks, arguments.repeats
    site_a, site_b = users(n, weeks)
    pairs = n * n
    print(
        f"{n:,} x {n:,} pairs, {weeks} weeks, 349 topics; {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, jax {jax.__version__} on {jax.default_backend()}, "
        f"scipy {scipy.__version__}, numpy {np.__version__}"
    )
    ours = {}
    for method in arguments.methods:
        attack = ReidentificationAttack(method, random_state=0).fit(site_a)
        warm = min(n, 4_096)
        attack.predict(site_b[:warm])
        attack.score(site_b[:warm], np.arange(warm))
        times, named = seconds(lambda a=attack: a.predict(site_b), repeats)
        ours[method] = show(f"predict, {method}", times, pairs)
        times, result = seconds(lambda a=attack: a.score(site_b), repeats)
        show(f"score, {method}", times, pairs, f"{(named == np.arange(n)).mean():.3%} right")
        print(f"    {result}")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  largest resident size so far: {resident:.2f} GiB")

    match, mismatch = weights(site_a)
    rows = min(n, arguments.peer_rows)
    side = max(2, min(n, int(arguments.loop_pairs**0.5)))
    times, _ = seconds(lambda: pair_loop(site_a[:side], site_b[:side], match, mismatch), repeats)
    loop = show("(a) pair loop, multiplied", times * pairs / side**2, pairs, f"from {side}^2 pairs")
    times, found = seconds(lambda: sparse_product(site_a, site_b[:rows], match, mismatch), repeats)
    product = show("(b) sparse, multiplied", times * n / rows, pairs, f"from {rows:,} rows")
    mine = ReidentificationAttack("asymmetric", random_state=0).fit(site_a)
    check = min(rows, 512)
    scores = mine.match_scores(site_b[:check])
    agree = np.isclose(
        scores[np.arange(check), found[:check]], scores.max(axis=1), atol=1e-4
    ).mean()
    print(f"  (b) names a best match of ours in {agree:.2%} of {check} rows")
    if "asymmetric" in ours:
        print(
            f"  asymmetric: {loop / ours['asymmetric']:,.0f} times as fast as (a), "
            f"{product / ours['asymmetric']:.1f} times as fast as (b)"
        )
        peak = peak_additions()
        share = pairs * weeks / ours["asymmetric"] / peak
        print(f"  {share:.0%} of this machine's {peak / 1e9:.0f} billion additions a second")


if __name__ == "__main__":
    main()
