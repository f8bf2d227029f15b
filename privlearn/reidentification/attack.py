"""The attack as an estimator: fit what one site saw, score what another saw."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from privlearn.reidentification import kernels
from privlearn.reidentification.api import Law, TopicsApi
from privlearn.reidentification.result import AttackResult
from privlearn.reidentification.theory import PersistentWorld
from privlearn.reidentification.theory._arguments import real, whole
from privlearn.simulate import float64

__all__ = ["ReidentificationAttack"]

METHODS = (*kernels.METHODS, "persistent")
#: Score of the empty targets that fill up the last group: below every real one.
_NEVER = -(2**30)
#: Targets whose best score is kept while the best group is looked for.
_GROUP = 512
#: Most users on either side of the assignment, which holds all pairs.
_MOST_ASSIGNED = 10_000
#: Larger taxonomies are cut down to the topics that site A saw, in steps of this many.
_MOST_TOPICS, _STEP = 2048, 512
#: Bytes of a table of queries, unless `block_size` says otherwise.
_TABLE_BYTES = 2**23


class ReidentificationAttack(BaseEstimator):
    """Link users between two sites: fit site A's table, score site B's.

    Parameters
    ----------
    method : str, default="asymmetric"
        - "hamming": number of weeks with equal topics;
        - "asymmetric": weighted Hamming distance, rare topics count more (Carey et al. 2023);
        - "likelihood": week-wise likelihood ratio;
        - "dirichlet": Dirichlet-multinomial ratio of all topics, whatever their weeks; best for
          users with stable interests;
        - "combined": "dirichlet" plus ``mix`` times "asymmetric";
        - "persistent": exact likelihood ratio if top sets never change, for a small taxonomy whose
          `world` is known: no attack is better there.

        Weights come from site A alone.
    n_topics, top_k, noise : int, int, float
        The release, as in `TopicsApi`.
    concentration : float, default=10.0
        A of the Dirichlet prior A x popularity.
    mix : float, default=0.5
        Weight of the asymmetric score in "combined".
    world : PersistentWorld, optional
        Law of the top sets, for "persistent".
    assignment : bool, default=False
        Hold both whole tables and choose links one to one, to maximise the total score, instead of
        each user's best match. All users of A must then be in B; at most 10,000.
    block_size : int, optional
        Queries scored at once; chosen for 8 MiB of table if not given.
    random_state : int, RandomState instance or None, default=None
        Breaks ties in `predict` and in the assignment.

    Attributes
    ----------
    users_ : ndarray of shape (n,)
        Ids of site A's users.
    n_weeks_ : int
        Weeks per user.
    topics_ : ndarray
        Distinct topics that site A saw.
    population_ : int
        Number of users among whom the attack chooses.

    Notes
    -----
    Topics of site B that site A never saw are legal: they have the least inclusion (in taxonomies
    beyond 2048 topics they all count as one and the same). Users without any history (rows of -1)
    are legal too: all users tie for them, so their risk is that of guessing. Scores are exact whole
    multiples of 2^-20 nats, see `kernels`; tables are made in 64 bits, on JAX's default device.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sets = rng.permuted(np.tile(np.arange(30), (50, 1)), axis=1)[:, :5]
    >>> site_a, site_b = (
    ...     np.take_along_axis(sets, rng.integers(0, 5, (50, 6)), axis=1) for _ in range(2)
    ... )
    >>> attack = ReidentificationAttack("dirichlet", n_topics=30).fit(site_a)
    >>> result = attack.score(site_b)
    >>> result.population, bool(result.success.value > 0.5)
    (50, True)
    """

    def __init__(
        self,
        method: str = "asymmetric",
        *,
        n_topics: int = 349,
        top_k: int = 5,
        noise: float = 0.05,
        concentration: float = 10.0,
        mix: float = 0.5,
        world: PersistentWorld | None = None,
        assignment: bool = False,
        block_size: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.n_topics = n_topics
        self.top_k = top_k
        self.noise = noise
        self.concentration = concentration
        self.mix = mix
        self.world = world
        self.assignment = assignment
        self.block_size = block_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> ReidentificationAttack:
        """Learn from the first site.

        Parameters
        ----------
        X : array-like of shape (n, weeks)
            Topic numbers in 0 to n_topics - 1; -1 where nothing was shown.
        y : array-like of shape (n,), optional
            User ids, all different; the row numbers if not given.

        Returns
        -------
        ReidentificationAttack
            Itself.

        Raises
        ------
        TypeError, ValueError
            If X is no table of topics, there are fewer than 2 users, ids repeat, or a parameter
            makes no sense.
        """
        self._check_parameters()
        topics = _topics("X", X, self.n_topics)
        if len(topics) < 2:
            raise ValueError(
                "X must hold at least 2 users: among one alone everybody is found, got 1"
            )
        self.users_ = _users("y", y, len(topics))
        self.n_weeks_ = topics.shape[1]
        self.population_ = len(topics)
        self.topics_ = np.unique(topics[topics >= 0])
        self._coded = self._encode(topics)
        self._law = Law(*(float(x) for x in TopicsApi(self.n_topics, self.top_k, self.noise).law))
        with float64():
            self._targets = self._fit_targets()
        return self

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        confidence: float = 0.95,
    ) -> AttackResult:
        """Attack the second site, and count how often the right user of the first is named.

        Parameters
        ----------
        X : array-like of shape (q, weeks)
            Topic numbers of the users to look for; -1 where nothing was shown.
        y : array-like of shape (q,), optional
            Their ids, among those given to `fit`; if not given, row i is user i of `fit`.
        confidence : float, default=0.95
            Level of the intervals.

        Returns
        -------
        AttackResult
            Success at rank 1 and beyond with intervals, the risk of each user, the population.

        Raises
        ------
        TypeError, ValueError
            If X does not fit the first site's table, or an id is unknown or repeated.
        """
        topics, truth = self._queries(X, y)
        real("confidence", confidence, 0.0, 1.0)
        better = np.empty(len(topics), np.int64)
        tied = np.empty(len(topics), np.int64)
        for rows, found in self._blocks(topics, truth):
            better[rows], tied[rows] = (np.asarray(part) for part in found)
        risk = np.clip((1 - better) / tied, 0.0, 1.0)
        if self.assignment:
            risk = (self._assign(topics, truth) == truth).astype(float)
        return AttackResult(
            population=self.population_,
            method=self.method + (" + assignment" if self.assignment else ""),
            n_weeks=self.n_weeks_,
            users=self.users_[truth],
            better=better,
            tied=tied,
            risk=risk,
            confidence=confidence,
        )

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Name the best match of each row; ties are broken by a random order of the users of A.

        Parameters
        ----------
        X : array-like of shape (q, weeks)

        Returns
        -------
        ndarray of shape (q,)
            User ids.
        """
        check_is_fitted(self)
        topics = self._encode(self._fitting(X))
        if self.assignment:
            if len(topics) != self.population_:
                raise ValueError(
                    f"X must hold all {self.population_} users for an assignment, got {len(topics)}"
                )
            return self.users_[self._assign(topics, None)]
        order = check_random_state(self.random_state).permutation(self.population_)
        found = np.empty(len(topics), np.int64)
        for rows, best in self._blocks(topics, None, order):
            found[rows] = np.asarray(best)
        return self.users_[order[found]]

    def match_scores(self, X: ArrayLike) -> np.ndarray:
        """Score of each row of X for every user of site A, in nats (matches, if Hamming).

        Parameters
        ----------
        X : array-like of shape (q, weeks)

        Returns
        -------
        ndarray of shape (q, n)
        """
        check_is_fitted(self)
        return self._whole_scores(self._encode(self._fitting(X))) * kernels.unit(self.n_weeks_)

    # -------------------------------------------------------------------------- arguments

    def _check_parameters(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        TopicsApi(self.n_topics, self.top_k, self.noise)
        for name in ("concentration", "mix"):
            if real(name, getattr(self, name), 0.0, 1e6) == 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        if self.block_size is not None:
            whole("block_size", self.block_size, 1)
        if self.method != "persistent":
            return
        if not isinstance(self.world, PersistentWorld):
            raise TypeError(f"world must be a PersistentWorld, got {type(self.world).__name__}")
        mine = (self.n_topics, self.top_k, self.noise)
        if mine != (self.world.n_topics, self.world.top_k, self.world.noise):
            raise ValueError(f"world must have n_topics, top_k and noise {mine}, got {self.world}")

    def _queries(self, X: ArrayLike, y: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        """Coded topics of the second site, and which user of the first each row truly is."""
        check_is_fitted(self)
        topics = self._fitting(X)
        if y is None:
            if len(topics) != self.population_:
                raise ValueError(
                    f"X has {len(topics)} rows and the first site {self.population_}: give the "
                    "users' ids as y"
                )
            truth = np.arange(len(topics))
        else:
            asked = _users("y", y, len(topics))
            place = {user: i for i, user in enumerate(self.users_.tolist())}
            unknown = [user for user in asked.tolist() if user not in place]
            if unknown:
                raise ValueError(
                    f"y names {len(unknown)} user(s) that the first site does not have, "
                    f"such as {unknown[0]!r}: they cannot be found, leave them out"
                )
            truth = np.array([place[user] for user in asked.tolist()])
        if self.assignment and len(topics) != self.population_:
            raise ValueError(
                f"an assignment needs all {self.population_} users in X, got {len(topics)}"
            )
        return self._encode(topics), truth

    def _fitting(self, X: ArrayLike) -> np.ndarray:
        topics = _topics("X", X, self.n_topics)
        if topics.shape[1] != self.n_weeks_:
            raise ValueError(
                f"X must have {self.n_weeks_} weeks, as the first site, got {topics.shape[1]}"
            )
        return topics

    # ------------------------------------------------------------------------------- scoring

    def _encode(self, topics: np.ndarray) -> np.ndarray:
        """Number the topics of a large taxonomy by those that A saw; all others are one more."""
        if self.n_topics <= _MOST_TOPICS:
            return topics.astype(np.int32)
        code = np.searchsorted(self.topics_, topics)
        known = np.append(self.topics_, -2)[code] == topics
        return np.where(topics < 0, -1, np.where(known, code, len(self.topics_))).astype(np.int32)

    def _n_codes(self) -> int:
        """Topics of the tables; in steps, so that few shapes are compiled."""
        if self.n_topics <= _MOST_TOPICS:
            return self.n_topics
        return -(-(len(self.topics_) + 1) // _STEP) * _STEP

    def _fit_targets(self) -> kernels.Targets:
        if self.method == "persistent":
            assert self.world is not None
            distinct, index = np.unique(self._coded, axis=0, return_inverse=True)
            return kernels.persistent_targets(
                jnp.asarray(distinct),
                jnp.asarray(index.ravel()),
                jnp.asarray(self.world.topic_law),
                jnp.asarray(self.world.prior),
            )
        return _fit(
            jnp.asarray(self._coded),
            float(self.concentration),
            self._law,
            n_topics=self._n_codes(),
            method=self.method,
        )

    def _table(self, query: np.ndarray) -> jax.Array:
        if self.method == "persistent":
            assert self.world is not None
            law, prior = jnp.asarray(self.world.topic_law), jnp.asarray(self.world.prior)
            return kernels.persistent_table(self._targets, jnp.asarray(query), law, prior)
        return _table(
            self._targets, jnp.asarray(query), float(self.mix), self._law, method=self.method
        )

    def _width(self) -> int:
        """Number of queries in a block."""
        if self.block_size is not None:
            return int(self.block_size)
        weeks, topics = self.n_weeks_, self._n_codes() + 1
        rows = weeks * topics * {"combined": 2}.get(self.method, 1)
        if self.method == "persistent":
            rows = self._targets.terms.shape[1]
        return max(16, min(256, _TABLE_BYTES // (4 * rows)))

    def _tables(self, topics: np.ndarray) -> Iterator[tuple[slice, jax.Array]]:
        """Tables of blocks of queries, all of one width; the last one repeats its last query."""
        width = min(self._width(), len(topics))
        for start in range(0, len(topics), width):
            rows = slice(start, min(start + width, len(topics)))
            padded = np.minimum(np.arange(start, start + width), len(topics) - 1)
            with float64():
                table = self._table(topics[padded])
            yield rows, table

    def _blocks(
        self, topics: np.ndarray, truth: np.ndarray | None, order: np.ndarray | None = None
    ) -> Iterator[tuple[slice, Any]]:
        """(better, tied) of each block of queries, or the best of the targets in some order."""
        codes = self._targets.codes
        if truth is None:
            codes = codes[jnp.asarray(order)]
        for rows, table in self._tables(topics):
            size = rows.stop - rows.start
            if truth is None:
                yield rows, _best(table, codes)[:size]
                continue
            mine = np.full(table.shape[1], truth[rows.stop - 1])
            mine[:size] = truth[rows]
            better, tied = _ranks(table, codes, jnp.asarray(mine))
            yield rows, (better[:size], tied[:size])

    def _whole_scores(self, topics: np.ndarray) -> np.ndarray:
        found = np.empty((len(topics), self.population_), np.int32)
        for rows, table in self._tables(topics):
            block = np.asarray(_scores(table, self._targets.codes))
            found[rows] = block[:, : rows.stop - rows.start].T
        return found

    def _assign(self, topics: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """Best one-to-one links. Targets are shuffled: solvers favour the diagonal among ties."""
        if len(topics) > _MOST_ASSIGNED:
            raise ValueError(
                f"an assignment holds all pairs: at most {_MOST_ASSIGNED:,} users, "
                f"got {len(topics):,}"
            )
        order = check_random_state(self.random_state).permutation(self.population_)
        _, column = linear_sum_assignment(self._whole_scores(topics)[:, order], maximize=True)
        return order[column]


# Compiled once for each shape; inputs and outputs are arrays, the numbers of the API are fixed.


@functools.partial(jax.jit, static_argnames=("n_topics", "method"))
def _fit(
    topics: jax.Array, concentration: jax.Array, law: Law, *, n_topics: int, method: Any
) -> kernels.Targets:
    return kernels.fit_targets(
        topics, n_topics=n_topics, law=law, method=method, concentration=concentration
    )


@functools.partial(jax.jit, static_argnames=("method",))
def _table(
    targets: kernels.Targets, query: jax.Array, mix: jax.Array, law: Law, *, method: Any
) -> jax.Array:
    return kernels.query_table(targets, query, law=law, method=method, mix=mix)


@jax.jit
def _ranks(table: jax.Array, codes: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array]:
    return kernels.rank_counts(table, codes, kernels.own_scores(table, codes[truth]))


@jax.jit
def _scores(table: jax.Array, codes: jax.Array) -> jax.Array:
    return kernels.scores(table, codes)


@jax.jit
def _best(table: jax.Array, codes: jax.Array) -> jax.Array:
    """Best targets, after filling the last group up with targets that nobody names."""
    n, slots = codes.shape
    short = -n % min(_GROUP, n)
    rows = table.shape[0]
    blank = jnp.stack([jnp.full(table.shape[1], _NEVER), jnp.zeros(table.shape[1])])
    empty = jnp.full((short, slots), rows + 1, codes.dtype).at[:, 0].set(rows)
    return kernels.best_targets(
        jnp.concatenate([table, blank.astype(table.dtype)]), jnp.concatenate([codes, empty]), _GROUP
    )


def _topics(name: str, values: ArrayLike, n_topics: int) -> np.ndarray:
    """Return a table of topic numbers, or say what it has instead."""
    array = np.asarray(values)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"{name} must be a table of shape (users, weeks), got an array of shape {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold topic numbers (integers), got dtype {array.dtype}")
    low, high = array.min(), array.max()
    if low < -1 or high >= n_topics:
        raise ValueError(
            f"{name} must hold topic numbers in 0 to {n_topics - 1}, or -1 for nothing shown; "
            f"got {low} to {high} (set n_topics to the size of the taxonomy)"
        )
    return array.astype(np.int64)


def _users(name: str, values: ArrayLike | None, n: int) -> np.ndarray:
    """Return distinct user ids, one a row."""
    if values is None:
        return np.arange(n)
    ids = np.asarray(values)
    if ids.shape != (n,):
        raise ValueError(f"{name} must have one user id a row, {n} of them, got shape {ids.shape}")
    distinct, counts = np.unique(ids, return_counts=True)
    if len(distinct) < n:
        raise ValueError(
            f"{name} must name each user once, got {distinct[counts.argmax()]!r} "
            f"{counts.max()} times: merge the rows of a user first"
        )
    return ids
