"""Linking two whole tables: exact success of three ways to guess the permutation."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from ._arguments import whole
from ._exact import PersistentWorld


class MatchingSuccess(NamedTuple):
    """Exact success of an attacker who sees both tables, of n users each.

    Attributes
    ----------
    best_permutation : float
        Expected fraction of correct links of the one-to-one guess that maximises it.
    best_rows : float
        The same when each row may name any target; at least as large.
    map_permutation : float
        The same for the most probable permutation.
    all_correct : float
        Chance that the most probable permutation is right throughout.
    """

    best_permutation: float
    best_rows: float
    map_permutation: float
    all_correct: float


def matching_success(world: PersistentWorld, n_users: int, n_weeks: int = 1) -> MatchingSuccess:
    """Enumerate both tables and all permutations.

    Parameters
    ----------
    world : PersistentWorld
    n_users : int
        At least 2; m^(2 n T) pairs of tables are enumerated, times n! permutations.
    n_weeks : int, default=1

    Examples
    --------
    >>> [round(value, 4) for value in matching_success(PersistentWorld(4, 2, 0.2), 2)]
    [0.6115, 0.6115, 0.6115, 0.6115]
    """
    n, weeks = whole("n_users", n_users, 2), whole("n_weeks", n_weeks, 1)
    joint = world.joint(weeks)
    size = len(joint)
    if size ** (2 * n) > 300_000:
        raise ValueError(
            f"n_users must leave at most 300,000 pairs of tables, got {size}^{2 * n} of them"
        )
    permutations = np.array(list(itertools.permutations(range(n))))
    tables = np.array(list(itertools.product(range(size), repeat=n)))
    # posterior[a, b, s]: weight of permutation s when site 1 shows table b and site 2 table a.
    weight = np.ones((len(tables), len(tables), len(permutations)))
    for s, permutation in enumerate(permutations):
        for i in range(n):
            weight[:, :, s] *= joint[tables[:, None, i], tables[None, :, permutation[i]]]
    weight /= len(permutations)
    # agree[s, r]: fraction of links that two permutations share.
    agree = (permutations[:, None, :] == permutations[None, :, :]).mean(axis=2)
    fraction = weight @ agree
    rows = np.stack(
        [
            np.stack([weight[:, :, permutations[:, i] == j].sum(axis=2) for j in range(n)], axis=2)
            for i in range(n)
        ],
        axis=2,
    )
    likely = np.isclose(weight, weight.max(axis=2, keepdims=True), rtol=1e-9, atol=0.0)
    mapped = (fraction * likely).sum(axis=2) / likely.sum(axis=2)
    return MatchingSuccess(
        best_permutation=float(fraction.max(axis=2).sum()),
        best_rows=float(rows.max(axis=3).sum(axis=2).sum() / n),
        map_permutation=float(mapped.sum()),
        all_correct=float(weight.max(axis=2).sum()),
    )
