"""Linking two sites' histories: ours beside anonymeter's linkability attack, time and answer.

    python benchmarks/reidentification_anonymeter.py [--users 2_000] [--weeks 8] [--repeats 5]

anonymeter (`pip install --no-deps anonymeter numba`; it is not in the lock, because it asks for
NumPy below 1.27) links two halves of a record if both halves have the same nearest neighbour, by
Gower's distance, in a released table. For release of site A's histories that is this: each target
has its history at A in one half and at B in the other; each released record has its history at A in
both. The first half then finds the record itself (or its first double), the second the Hamming
match of B among A: the same question as `ReidentificationAttack("hamming")`. It breaks ties by the
lowest row, ours counts the expected success of breaking them at random, so users with ties are what
the answers may differ by. Shown beside it: the asymmetric weights and the combined attack, which
anonymeter has not.
"""

import argparse
import importlib.util
import os
import time
import warnings

import numpy as np
import pandas as pd
from reidentification_matching import users

from privlearn.reidentification import ReidentificationAttack


def linkability(site_a, site_b):
    """Attack rate of anonymeter with its interval, all users attacked, one neighbour."""
    from anonymeter.evaluators import LinkabilityEvaluator

    first = [f"first_{week}" for week in range(site_a.shape[1])]
    second = [f"second_{week}" for week in range(site_a.shape[1])]

    def table(left, right):
        return pd.DataFrame(np.hstack([left, right]), columns=first + second).astype(str)

    evaluator = LinkabilityEvaluator(
        ori=table(site_a, site_b),
        syn=table(site_a, site_a),
        aux_cols=(first, second),
        n_attacks=len(site_a),
        n_neighbors=1,
    )
    rate = evaluator.evaluate(n_jobs=-2).results().attack_rate
    return rate.value, rate.error


def ours(method, site_a, site_b):
    """Expected success with its interval."""
    result = ReidentificationAttack(method, random_state=0).fit(site_a).score(site_b)
    return tuple(result.success)


def lowest_row(site_a, site_b):
    """What breaking Hamming ties by the lowest row must find: both halves name one record."""
    cost = (site_a[None] != site_b[:, None]).sum(-1)
    own = (site_a[None] != site_a[:, None]).sum(-1)
    return (cost.argmin(1) == own.argmin(1)).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if importlib.util.find_spec("anonymeter") is None:
        print("anonymeter is not installed: nothing to compare with")
        return
    site_a, site_b = users(arguments.users, arguments.weeks)
    sides = {
        "anonymeter linkability": lambda: linkability(site_a, site_b),
        "ours, hamming": lambda: ours("hamming", site_a, site_b),
        "ours, asymmetric": lambda: ours("asymmetric", site_a, site_b),
        "ours, combined": lambda: ours("combined", site_a, site_b),
    }
    print(f"{arguments.users:,} users, {arguments.weeks} weeks, load {os.getloadavg()[0]:.1f}")
    warnings.simplefilter("ignore")
    answers = {name: side() for name, side in sides.items()}  # compiles, not timed
    times = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    peer = np.array(times["anonymeter linkability"])
    for name, spent in times.items():
        ratio = np.sort(peer / np.array(spent))
        print(
            f"  {name:24s} {np.median(spent):9.4f} s  {np.median(ratio):8.1f}x as fast as the peer"
            f" ({ratio[0]:.1f} to {ratio[-1]:.1f})  {answers[name]}"
        )
    print(f"  Hamming with ties to the lowest row, counted here: {lowest_row(site_a, site_b):.4f}")


if __name__ == "__main__":
    main()
