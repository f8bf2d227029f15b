"""Scores of pairs of users, exactly and fast: the one core of the estimator and the simulation.

A score is a sum of log-likelihoods (nats), each rounded to a multiple of a small power of two and
carried as a whole number. Sums of whole numbers do not depend on their order, so ties are ties:
in every block size, permutation of weeks, and precision.

Every attack is brought to one form. A target j is a few *codes* (one for each week, or one for each
topic with its count); a block of queries is a *table* with a row for each code and a column for
each query; then

    score[j, i] = sum over the codes c of target j of table[c, i],

which reads rows of consecutive memory. Nothing of size targets x queries x weeks ever exists.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from privlearn.reidentification.api import Law

Method = Literal["hamming", "asymmetric", "likelihood", "dirichlet", "combined"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Log-likelihoods of a week are cut off at this many nats: the logarithm of 0 is a finite penalty.
CUTOFF = 64.0
#: Least inclusion of a topic, for topics that the first site never saw.
FLOOR = 1e-6
#: Targets counted at once; a count of this many fits half of an int32.
_CHUNK = 2**14


class Targets(NamedTuple):
    """What an attack learns from the first site.

    Attributes
    ----------
    codes : Array of shape (n, s), int32
        Rows of the query table that make up the score of each target.
    inclusion : Array of shape (m,)
        Estimated chance that each topic is in a random top set.
    terms : Array of shape (weeks + 1, m, weeks + 1)
        Dirichlet-multinomial log ratio of a topic with a and b occurrences; empty if unused.
    """

    codes: Array
    inclusion: Array
    terms: Array


def unit(n_weeks: int) -> float:
    """Nats of one step of a score: 2^-20, or coarser where many weeks would overflow an int32."""
    bits = min(20, 24 - (max(n_weeks, 1)).bit_length())
    if bits < 4:
        raise ValueError(f"n_weeks must be below 2**20, got {n_weeks}")
    return 2.0**-bits


def popularity(topics: Array, n_topics: int) -> Array:
    """Count how often each topic is shown; -1 is not counted.

    Parameters
    ----------
    topics : Array of shape (n, weeks)
    n_topics : int

    Returns
    -------
    Array of shape (m,), float32
    """
    flat = jnp.where(topics < 0, n_topics, topics).ravel()
    return jnp.zeros(n_topics + 1, jnp.float32).at[flat].add(1.0)[:n_topics]


def estimated_inclusion(counts: Array, shown: Array, law: Law) -> Array:
    """Chance that a topic is in a random top set, from the first site's topics alone.

    Where all topics are random, nothing depends on it, and it is the floor.
    """
    gain = law.inside - law.outside
    frequency = counts / jnp.maximum(shown, 1)
    share = (frequency - law.outside) / jnp.where(gain > 0, gain, 1.0)
    return jnp.where(gain > 0, jnp.clip(share, FLOOR, 1.0), FLOOR)


def fit_targets(
    topics: Array,
    *,
    n_topics: int,
    law: Law,
    method: Method,
    concentration: Array | float = 10.0,
    popularity_prior: Array | None = None,
) -> Targets:
    """Learn from the first site, and bring its users into codes.

    Parameters
    ----------
    topics : Array of shape (n, weeks), int32
        What the first site was shown; -1 where nothing was.
    n_topics : int
        Topics are numbered from 0 to n_topics - 1 (the taxonomy, or those seen plus one).
    law : Law
    method : str
        One of `METHODS`.
    concentration : float, default=10.0
        A of the Dirichlet-multinomial prior a_k = A x popularity_k.
    popularity_prior : Array of shape (m,), optional
        Popularity of topics, if known; else the first site's counts plus 1/2, normalised.
    """
    weeks = topics.shape[1]
    counts = popularity(topics, n_topics)
    inclusion = estimated_inclusion(counts, (topics >= 0).sum(), law)
    codes, terms = [], jnp.zeros((0, 0, 0))
    if method != "dirichlet":
        place = jnp.where(topics < 0, n_topics, topics)
        codes.append(place + (n_topics + 1) * jnp.arange(weeks))
    if method in ("dirichlet", "combined"):
        prior = counts + 0.5 if popularity_prior is None else popularity_prior
        terms = dirichlet_terms(concentration * prior / prior.sum(), weeks)
        start = weeks * (n_topics + 1) if codes else 0
        codes.append(start + count_codes(topics, n_topics))
    return Targets(jnp.concatenate(codes, axis=1).astype(jnp.int32), inclusion, terms)


def count_codes(topics: Array, n_topics: int) -> Array:
    """Code each distinct topic of a row, with its count, once.

    The code of topic k with count b is k (weeks + 1) + b; repeats and -1 get n_topics (weeks + 1).
    """
    weeks = topics.shape[1]
    same = topics[:, :, None] == topics[:, None, :]
    first = ~jnp.tril(same, k=-1).any(axis=2) & (topics >= 0)
    code = topics * (weeks + 1) + same.sum(axis=2)
    return jnp.where(first, code, n_topics * (weeks + 1))


def dirichlet_terms(prior: Array, most: int) -> Array:
    """Log ratio of a topic with counts a and b: shared against separate draws of its share.

    lnG(p + a + b) + lnG(p) - lnG(p + a) - lnG(p + b), as products of a ratio each, so that nothing
    cancels; 0 if a or b is 0. The terms of the total count are the same for all pairs with one
    number of weeks, and left out.

    Parameters
    ----------
    prior : Array of shape (m,)
        Positive.
    most : int
        Largest count.

    Returns
    -------
    Array of shape (most + 1, m, most + 1)
    """
    p = prior[None, :, None]
    a = jnp.arange(most + 1)[:, None, None]
    b = jnp.arange(most + 1)[None, None, :]
    steps = jnp.arange(max(most, 1))
    # log of (p + b)_a / (p)_a: rising factorials, by cumulative sums over the steps of a.
    rising = jnp.cumsum(
        jnp.log((p + b + steps[:, None, None]) / (p + steps[:, None, None])), axis=0
    )
    full = jnp.pad(rising, ((1, 0), (0, 0), (0, 0)))[: most + 1]
    return jnp.where((a > 0) & (b > 0), full, 0.0)


def weekly_table(method: Method, query: Array, inclusion: Array, law: Law) -> Array:
    """Score in nats of every topic of the target, and of none, for one week of some queries.

    Parameters
    ----------
    method : {"hamming", "asymmetric", "likelihood", "combined"}
    query : Array of shape (q,)
        Topics of the queries in this week; -1 for none.
    inclusion : Array of shape (m,)
    law : Law

    Returns
    -------
    Array of shape (m + 1, q)
        The last row is a target that was shown nothing: its mean score over topics, or a
        likelihood ratio of one.
    """
    n_topics = inclusion.shape[0]
    none = query < 0
    at = jnp.where(none, 0, query)
    gain = law.inside - law.outside
    share = inclusion[at]
    shown = law.outside + gain * inclusion
    rho = law.inside * share / (law.outside + gain * share)
    if method == "hamming":
        match, other = jnp.ones_like(share), jnp.zeros((1, 1))
    elif method == "likelihood":
        rest = (law.top_k - rho) / jnp.maximum(law.top_k - share, 1e-12)
        match = _log(law.outside + gain * rho) - _log(shown[at])
        other = _log(law.outside + gain * rest[None, :] * inclusion[:, None]) - _log(shown)[:, None]
    else:
        pair = (law.top_k - 1) * share / jnp.maximum(law.top_k - share, 1e-12)
        match = _log(law.outside + gain * rho)
        other = _log(law.outside + gain * pair)[None, :]
    equal = jnp.arange(n_topics)[:, None] == at[None, :]
    table = jnp.where(equal, match[None, :], other)
    if method == "likelihood":
        blank = jnp.zeros_like(share)
    else:
        chance = shown[at]
        blank = chance * match + (1 - chance) * other[0]
    table = jnp.concatenate([table, blank[None, :]])
    return jnp.where(none[None, :], 0.0, table)


def query_table(
    targets: Targets,
    query: Array,
    *,
    law: Law,
    method: Method,
    mix: Array | float = 0.5,
) -> Array:
    """Table of a block of queries: one row for each code of a target.

    Parameters
    ----------
    targets : Targets
    query : Array of shape (q, weeks), int32
        What the second site was shown; -1 where nothing was.
    law, method
        As in `fit_targets`.
    mix : float, default=0.5
        Weight of the asymmetric score beside the Dirichlet-multinomial one, if combined.

    Returns
    -------
    Array of shape (codes, q), int32
        In units of ``unit(weeks)`` nats.
    """
    weeks = query.shape[1]
    scale = 1 / unit(weeks)
    n_topics = targets.inclusion.shape[0]
    parts = []
    if method != "dirichlet":
        weight = mix if method == "combined" else 1.0
        for week in range(weeks):
            part = weekly_table(method, query[:, week], targets.inclusion, law)
            parts.append(_whole(weight * jnp.clip(part, -CUTOFF, CUTOFF), scale))
    if method in ("dirichlet", "combined"):
        hot = jax.nn.one_hot(query, n_topics, dtype=jnp.int32).sum(axis=1)
        # (q, m, b) -> (m b, q)
        found = targets.terms[hot, jnp.arange(n_topics)[None, :]]
        rows = found.reshape(found.shape[0], -1).T
        parts.append(_whole(rows, scale))
        parts.append(jnp.zeros((1, query.shape[0]), jnp.int32))
    return jnp.concatenate(parts)


def persistent_targets(sequences: Array, index: Array, law: Array, prior: Array) -> Targets:
    """Bring targets into codes for the exact likelihood ratio of persistent top sets.

    Parameters
    ----------
    sequences : Array of shape (u, weeks), int32
        The distinct rows of the first site.
    index : Array of shape (n,), int32
        Which of them each target has.
    law : Array of shape (sets, m)
        Law of a week's topic given each top set.
    prior : Array of shape (sets,)
        Law of the top set.
    """
    given = sequence_law(sequences, law)
    ratio = given * prior / (given @ prior)[:, None]
    return Targets(index[:, None].astype(jnp.int32), jnp.zeros(0), ratio[None])


def persistent_table(targets: Targets, query: Array, law: Array, prior: Array) -> Array:
    """Log of J(x, y) / (M(x) M(y)) for every distinct target (rows) and query (columns)."""
    given = sequence_law(query, law)
    ratio = targets.terms[0] @ (given / (given @ prior)[:, None]).T
    return _whole(jnp.clip(_log(ratio), -CUTOFF, CUTOFF), 1 / unit(query.shape[1]))


def sequence_law(topics: Array, law: Array) -> Array:
    """Chance of each row of topics given each top set, of shape (rows, sets); -1 is no news."""
    weekly = jnp.where(topics[:, :, None] < 0, 1.0, law.T[jnp.maximum(topics, 0)])
    return weekly.prod(axis=1)


def scores(table: Array, codes: Array) -> Array:
    """Score of every target (rows) for every query (columns)."""
    total = table[codes[:, 0]]
    for slot in range(1, codes.shape[1]):
        total = total + table[codes[:, slot]]
    return total


def own_scores(table: Array, codes: Array) -> Array:
    """Score of query i against the target whose codes are ``codes[i]``."""
    columns = jnp.arange(table.shape[1])[:, None]
    return table[codes, columns].sum(axis=1)


def rank_counts(
    table: Array, codes: Array, own: Array, n_alive: Array | int | None = None
) -> tuple[Array, Array]:
    """Count the targets that score better than a query's own, and those that tie with it.

    Parameters
    ----------
    table : Array of shape (codes, q), int32
    codes : Array of shape (n, s), int32
    own : Array of shape (q,), int32
        Score of the true target, which counts as tied with itself.
    n_alive : int, optional
        Count only this many targets, the first ones; may be traced.

    Returns
    -------
    (better, tied) : Arrays of shape (q,), int32
    """
    whole = codes.shape[0] // _CHUNK
    body = codes[: whole * _CHUNK].reshape(whole, _CHUNK, codes.shape[1])
    alive = jnp.arange(codes.shape[0]) < (codes.shape[0] if n_alive is None else n_alive)
    counted = _count(table, codes[whole * _CHUNK :], own, alive[whole * _CHUNK :])
    if whole == 0:
        return counted

    def step(
        counts: tuple[Array, Array], part: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        more = _count(table, part[0], own, part[1])
        return (counts[0] + more[0], counts[1] + more[1]), None

    parts = (body, alive[: whole * _CHUNK].reshape(whole, _CHUNK))
    return jax.lax.scan(step, counted, parts)[0]


def _count(table: Array, codes: Array, own: Array, alive: Array) -> tuple[Array, Array]:
    """Counts of `rank_counts` for at most `_CHUNK` targets."""
    gap = scores(table, codes) - own[None, :]
    # Both counts in one number, so that one pass over the scores does.
    packed = jnp.where(gap > 0, 1 << 16, 0) + (gap == 0)
    packed = jnp.where(alive[:, None], packed, 0).astype(jnp.int32)
    counts = packed.sum(axis=0, dtype=jnp.int32)
    return counts >> 16, counts & 0xFFFF


def best_targets(table: Array, codes: Array, group: int = 512) -> Array:
    """Index of the best target of each query, the first one of those that tie.

    Put the targets in random order beforehand, and ties are broken at random.

    Parameters
    ----------
    table : Array of shape (codes, q), int32
    codes : Array of shape (n, s), int32
        n must be a multiple of `group`, or smaller.
    group : int, default=512
        First the best score of each group of targets is found, then the place in one group.

    Returns
    -------
    Array of shape (q,), int32
    """
    group = min(group, codes.shape[0])
    blocks = codes.reshape(-1, group, codes.shape[1])
    # A loop over the groups, so that additions and maximum are one pass that writes nothing else.
    highest = jax.lax.map(lambda part: scores(table, part).max(axis=0), blocks)
    winner = jnp.argmax(highest, axis=0)
    columns = jnp.arange(table.shape[1])[:, None]
    inside = jnp.zeros((table.shape[1], group), jnp.int32)
    for slot in range(codes.shape[1]):
        inside = inside + table[blocks[winner, :, slot], columns]
    return (winner * group + jnp.argmax(inside, axis=1)).astype(jnp.int32)


def credit(better: Array, tied: Array, rank: int = 1) -> Array:
    """Chance that the true target is among the first `rank`, with ties broken at random."""
    return jnp.clip((rank - better) / tied, 0.0, 1.0)


def _log(values: Array) -> Array:
    return jnp.log(jnp.maximum(values, 1e-30))


def _whole(table: Array, scale: float) -> Array:
    return jnp.round(table * scale).astype(jnp.int32)
