"""Exact success in small worlds, by the law of all sequences of topics."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import probabilities, real, whole
from ._topics import asymmetric_weights, topic_probabilities

Method = Literal["optimal", "weekly", "conditional", "asymmetric", "hamming"]
METHODS: tuple[Method, ...] = ("optimal", "weekly", "conditional", "asymmetric", "hamming")

#: Most sequences of topics that are enumerated (squared, for pairs of sites).
_MOST_SEQUENCES = 4096


@dataclass(frozen=True)
class PersistentWorld:
    """Users whose top set is drawn once and stays the same in all weeks, few enough to enumerate.

    Parameters
    ----------
    n_topics, top_k : int
        m and k; the C(m, k) top sets are numbered in lexicographic order.
    noise : float
        p, the chance of a random topic.
    weights : tuple of float, optional
        Relative frequency of each top set; equal if not given.

    Examples
    --------
    >>> world = PersistentWorld(4, 2, 0.2)
    >>> len(world.sets), world.topic_law[0].round(2)
    (6, array([0.45, 0.45, 0.05, 0.05]))
    """

    n_topics: int = 4
    top_k: int = 2
    noise: float = 0.2
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse worlds without a law."""
        topic_probabilities(self.n_topics, self.top_k, self.noise)
        count = math.comb(self.n_topics, self.top_k)
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights) or (1.0,) * count)
        if len(self.weights) != count:
            raise ValueError(
                f"weights must have one entry for each of the {count} top sets, "
                f"got {len(self.weights)}"
            )
        if min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf:
            raise ValueError(f"weights must be >= 0 with a positive sum, got {self.weights}")

    @property
    def sets(self) -> np.ndarray:
        """All top sets, of shape (C(m, k), k)."""
        return np.array(list(itertools.combinations(range(self.n_topics), self.top_k)))

    @property
    def prior(self) -> np.ndarray:
        """Probability of each top set."""
        return np.array(self.weights) / sum(self.weights)

    @property
    def topic_law(self) -> np.ndarray:
        """Law of the topic of a week, one row a top set."""
        inside, outside = topic_probabilities(self.n_topics, self.top_k, self.noise)
        law = np.full((len(self.sets), self.n_topics), outside)
        np.put_along_axis(law, self.sets, inside, axis=1)
        return law

    @property
    def inclusion(self) -> np.ndarray:
        """Chance of each topic to be in the top set of a random user."""
        member = np.zeros((len(self.sets), self.n_topics))
        np.put_along_axis(member, self.sets, 1.0, axis=1)
        return self.prior @ member

    def sequences(self, n_weeks: int) -> np.ndarray:
        """All sequences of topics, of shape (m^T, T)."""
        weeks = whole("n_weeks", n_weeks, 0)
        if self.n_topics**weeks > _MOST_SEQUENCES:
            raise ValueError(
                f"n_weeks must leave at most {_MOST_SEQUENCES} sequences of topics to enumerate, "
                f"got {self.n_topics}^{weeks}"
            )
        return np.array(list(itertools.product(range(self.n_topics), repeat=weeks)), dtype=int)

    def sequence_law(self, n_weeks: int) -> np.ndarray:
        """Law of a site's sequence given the top set, of shape (C(m, k), m^T)."""
        every = self.sequences(n_weeks)
        return self.topic_law[:, every].prod(axis=2)

    def joint(self, n_weeks: int) -> np.ndarray:
        """Law J(x, y) of what the two sites see of one user, of shape (m^T, m^T)."""
        law = self.sequence_law(n_weeks)
        return law.T @ (self.prior[:, None] * law)

    def scores(self, n_weeks: int, method: Method = "optimal") -> np.ndarray:
        """Similarity that an attack gives to query sequence x (rows) and target y.

        Parameters
        ----------
        n_weeks : int
            T.
        method : {"optimal", "weekly", "conditional", "asymmetric", "hamming"}
            Likelihood ratio of the whole sequence (no attack is better); sum over weeks of the
            exact weekly log ratio; the same without dividing by P(y); asymmetric weighted Hamming
            with the true inclusions; number of equal weeks.
        """
        every = self.sequences(n_weeks)
        x, y = every[:, None, :], every[None, :, :]
        if method == "optimal":
            joint = self.joint(n_weeks)
            marginal = joint.sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(joint) - np.log(np.outer(marginal, marginal))
        if method == "hamming":
            return (x == y).sum(axis=2).astype(float)
        if method == "asymmetric":
            match, mismatch = asymmetric_weights(
                self.inclusion, self.n_topics, self.top_k, self.noise
            )
            return -np.where(x == y, match[x], mismatch[x]).sum(axis=2)
        if method in ("weekly", "conditional"):
            joint = self.joint(1)
            given = np.log(joint / joint.sum(axis=1, keepdims=True))
            if method == "weekly":
                given = given - np.log(joint.sum(axis=0))
            return given[x, y].sum(axis=2)
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


def expected_success(
    joint: ArrayLike, scores: ArrayLike, n_users: int, tolerance: float = 1e-9
) -> float:
    """Exact success of naming the target with the best score, ties broken at random.

    E = sum over x, y of J(x, y) sum_j C(n - 1, j) eq^j lt^(n - 1 - j) / (j + 1), where lt and eq
    are the chances that another user's target has a lower or an equal score. The inner sum is
    ((lt + eq)^n - lt^n) / (n eq), so any population size costs the same.

    Parameters
    ----------
    joint : array-like of shape (s, s)
        Law of query and target of one user.
    scores : array-like of shape (s, s)
        Similarity of query x (rows) and target y.
    n_users : int
        Population size, at least 1.
    tolerance : float, default=1e-9
        Scores that differ by less are tied.

    Examples
    --------
    >>> world = PersistentWorld(4, 2, 0.2)
    >>> round(expected_success(world.joint(1), world.scores(1), 3), 6)
    0.426667
    """
    law = np.asarray(joint, dtype=float)
    points = np.asarray(scores, dtype=float)
    n = whole("n_users", n_users, 1)
    real("tolerance", tolerance, 0.0, math.inf)
    if law.ndim != 2 or law.shape[0] != law.shape[1] or points.shape != law.shape:
        raise ValueError(
            f"joint and scores must be square and alike, got {law.shape} and {points.shape}"
        )
    probabilities("joint", law.ravel(), 1)
    marginal = law.sum(axis=0)
    total = 0.0
    for row, score in zip(law, points, strict=True):
        order = np.argsort(score, kind="stable")
        starts = np.append(True, np.diff(score[order]) > tolerance)
        group = np.cumsum(starts) - 1
        equal = np.bincount(group, marginal[order])
        hit = np.bincount(group, row[order])
        below = np.concatenate([[0.0], np.cumsum(equal)[:-1]])
        seen = (equal > 0) & (hit > 0)
        equal, hit, below = equal[seen], hit[seen], below[seen]
        upto = below + equal
        with np.errstate(divide="ignore"):
            # upto^n - below^n without cancellation, for large n or a small group.
            some = -np.expm1(n * np.log1p(-equal / upto))
            total += float(
                (hit * some * np.exp(n * np.log(np.minimum(upto, 1.0))) / (n * equal)).sum()
            )
    return total


def exact_success(
    world: PersistentWorld, n_weeks: int, n_users: int, method: Method = "optimal"
) -> float:
    """Exact success of an attack in a persistent world.

    Examples
    --------
    >>> round(exact_success(PersistentWorld(4, 2, 0.2), n_weeks=3, n_users=5), 6)
    0.453443
    """
    return expected_success(world.joint(n_weeks), world.scores(n_weeks, method), n_users)


def brute_force_success(
    world: PersistentWorld, n_weeks: int, n_users: int, method: Method = "optimal"
) -> float:
    """Success by enumeration of a query and all targets: the oracle of `exact_success`.

    Without loss of generality the query is of the first user.

    Examples
    --------
    >>> round(brute_force_success(PersistentWorld(4, 2, 0.2), 1, 3), 6)
    0.426667
    """
    joint, scores = world.joint(n_weeks), world.scores(n_weeks, method)
    n, marginal = whole("n_users", n_users, 1), joint.sum(axis=0)
    total = 0.0
    for x, targets in itertools.product(
        range(len(joint)), itertools.product(range(len(joint)), repeat=n)
    ):
        found = scores[x, list(targets)]
        best = found >= found.max() - 1e-9
        if best[0]:
            others = math.prod(marginal[y] for y in targets[1:])
            total += float(joint[x, targets[0]] * others / best.sum())
    return total


def known_profiles_success(top_sets: ArrayLike, n_weeks: int, n_topics: int, noise: float) -> float:
    """Best success of an attacker who knows every user's persistent top set, by enumeration.

    (1 / n) sum over x of max_u prod_t P(x_t | S_u).

    Parameters
    ----------
    top_sets : array-like of shape (n, k)
        One row of topic numbers a user.
    n_weeks, n_topics : int
        T and m.
    noise : float
        p.

    Examples
    --------
    >>> round(known_profiles_success([[0, 1], [0, 2], [2, 3]], 2, 4, 0.2), 12)
    0.72
    """
    sets = np.asarray(top_sets)
    if sets.ndim != 2 or sets.dtype.kind not in "iu" or len(sets) < 1:
        raise ValueError(f"top_sets must be integers of shape (n, k), got shape {sets.shape}")
    if sets.min() < 0 or sets.max() >= n_topics:
        raise ValueError(
            f"top_sets must lie in 0 to {n_topics - 1}, got {sets.min()} to {sets.max()}"
        )
    inside, outside = topic_probabilities(n_topics, sets.shape[1], noise)
    every = PersistentWorld(n_topics, sets.shape[1], noise).sequences(n_weeks)
    law = np.full((len(sets), n_topics), outside)
    np.put_along_axis(law, sets, inside, axis=1)
    return float(law[:, every].prod(axis=2).max(axis=0).sum() / len(sets))
