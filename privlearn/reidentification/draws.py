"""Random draws of the Topics model, in JAX: visits, top sets, and what a site is shown.

All functions are pure, take typed keys, and work under jit and vmap. Topics are numbered from 0;
-1 means that nothing was shown.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import stats

__all__ = [
    "caller_saw",
    "first_call",
    "interests",
    "show_topics",
    "top_sets",
    "visit_counts",
    "window_sums",
]


def interests(key: Array, n_users: int, popularity: Array, concentration: float) -> Array:
    """Draw users' shares of topics: Dirichlet with mean `popularity`.

    Parameters
    ----------
    key : Array
    n_users : int
    popularity : Array of shape (m,)
        Sums to one; topics of popularity 0 get no share.
    concentration : float
        Total of the Dirichlet's parameters; users differ more if it is small.

    Returns
    -------
    Array of shape (n, m)
    """
    shape = (n_users, popularity.shape[0])
    # In logarithms: gammas of a shape as small as these underflow.
    scale = concentration * jnp.where(popularity > 0, popularity, 1.0)
    weight = jax.random.loggamma(key, scale, shape)
    return jax.nn.softmax(jnp.where(popularity > 0, weight, -jnp.inf), axis=1)


def visit_counts(key: Array, shares: Array, n_periods: int, rate: float) -> Array:
    """Draw visits of each user, period and topic: independent Poisson of mean rate x share.

    Drawn as a Poisson number of visits, each to a topic by the user's shares. The number is cut
    off at rate + 8 sqrt(rate) + 8, which has a chance below 1e-12.

    Parameters
    ----------
    key : Array
    shares : Array of shape (n, m)
        Rows sum to one.
    n_periods : int
    rate : float
        Mean number of visits of a user in a period.

    Returns
    -------
    Array of shape (n, n_periods, m), int32
    """
    n_users, n_topics = shares.shape
    most = math.ceil(rate + 8 * math.sqrt(rate) + 8)
    number_key, place_key = jax.random.split(key)
    # By the table of the law: quicker to compile than a rejection sampler, and as exact.
    table = jnp.asarray(stats.poisson.cdf(np.arange(most), rate), jnp.float32)
    number = jnp.searchsorted(table, jax.random.uniform(number_key, (n_users, n_periods)))
    uniform = jax.random.uniform(place_key, (n_users, n_periods, most))
    edges = jnp.cumsum(shares, axis=1)
    topic = jax.vmap(lambda e, u: jnp.searchsorted(e, u * e[-1], side="right"))(edges, uniform)
    real = jnp.arange(most) < number[:, :, None]
    # Visits beyond the number fall into a column of their own, which is dropped.
    topic = jnp.where(real, jnp.minimum(topic, n_topics - 1), n_topics)
    user, period = jnp.arange(n_users)[:, None, None], jnp.arange(n_periods)[None, :, None]
    counts = jnp.zeros((n_users, n_periods, n_topics + 1), jnp.int32)
    return counts.at[user, period, topic].add(1)[:, :, :n_topics]


def window_sums(counts: Array, starts: Array, width: int, n_windows: int) -> Array:
    """Add up consecutive windows of periods, from each user's own start.

    Parameters
    ----------
    counts : Array of shape (n, periods, m)
    starts : Array of shape (n,)
        First period of each user.
    width, n_windows : int
        starts + width * n_windows must not exceed the number of periods.

    Returns
    -------
    Array of shape (n, n_windows, m)
    """
    upto = jnp.pad(jnp.cumsum(counts, axis=1), ((0, 0), (1, 0), (0, 0)))
    edges = starts[:, None] + width * jnp.arange(n_windows + 1)
    at_edges = jnp.take_along_axis(upto, edges[:, :, None], axis=1)
    return jnp.diff(at_edges, axis=1)


def top_sets(
    key: Array,
    counts: Array,
    top_k: int,
    padding: bool = True,
    n_topics: Array | int | None = None,
) -> Array:
    """Draw the most visited topics of each user and week; ties are broken at random.

    Parameters
    ----------
    key : Array
    counts : Array of shape (n, weeks, m)
        Visits, whole numbers below 2**16.
    top_k : int
    padding : bool, default=True
        Fill up with distinct uniformly random topics; without it with -1.
    n_topics : int, optional
        Only this many topics exist, the first ones; may be traced.

    Returns
    -------
    Array of shape (n, weeks, k), int32
    """
    # A jitter below one breaks ties of whole numbers, and orders the topics without visits
    # uniformly: padding is the same draw.
    jitter = jax.random.uniform(key, counts.shape)
    value = counts + 0.99 * jitter
    if n_topics is not None:
        value = jnp.where(jnp.arange(counts.shape[2]) < n_topics, value, -1.0)
    _, best = jax.lax.top_k(value, top_k)
    best = best.astype(jnp.int32)
    if padding:
        return best
    visited = jnp.take_along_axis(counts, best, axis=2) > 0
    return jnp.where(visited, best, -1)


def show_topics(
    key: Array, sets: Array, n_topics: Array | int, noise: Array | float
) -> tuple[Array, Array]:
    """Draw what one site is shown: fixed for each user and week, independent between sites.

    Parameters
    ----------
    key : Array
        One a site.
    sets : Array of shape (n, weeks, k)
        Top sets.
    n_topics : int
    noise : float
        Chance that the topic is drawn from the whole taxonomy.

    Returns
    -------
    (topics, random) : Arrays of shape (n, weeks)
        The topics, and whether each was drawn from the whole taxonomy.
    """
    # One call of the generator: each costs seconds to compile. A float has 2^23 values, so topics
    # are uniform up to a relative m / 2^23.
    coin, anything, place = jax.random.uniform(key, (3, *sets.shape[:2]))
    random = coin < noise
    drawn = jnp.floor(anything * n_topics).astype(jnp.int32)
    slot = jnp.floor(place * sets.shape[2]).astype(jnp.int32)
    chosen = jnp.take_along_axis(sets, slot[:, :, None], axis=2)[:, :, 0]
    return jnp.where(random, drawn, chosen).astype(jnp.int32), random


def caller_saw(key: Array, counts: Array, reach: float, memory: int = 3) -> Array:
    """Draw whether a caller was present at a visit to each topic in the last weeks.

    Parameters
    ----------
    key : Array
        One a site.
    counts : Array of shape (n, weeks, m)
        Visits.
    reach : float
        Chance that the caller is present at a visit.
    memory : int, default=3
        Number of weeks that count, this one included.

    Returns
    -------
    Array of shape (n, weeks, m), bool
    """
    absent = (1 - reach) ** counts
    saw = jax.random.uniform(key, counts.shape) >= absent
    weeks = counts.shape[1]
    padded = jnp.pad(saw, ((0, 0), (memory - 1, 0), (0, 0)))
    return jnp.stack([padded[:, i : i + weeks] for i in range(memory)]).any(axis=0)


def first_call(key: Array, topics: Array, topics_per_call: int) -> Array:
    """Shuffle the weeks that a site's first call shows at once, and leave out repeats (-1).

    Parameters
    ----------
    key : Array
        One a site.
    topics : Array of shape (n, weeks)
        The first `topics_per_call` weeks are those of the first call.
    topics_per_call : int

    Returns
    -------
    Array of shape (n, weeks)
    """
    if topics_per_call == 1:
        return topics
    first, later = topics[:, :topics_per_call], topics[:, topics_per_call:]
    first = jax.random.permutation(key, first, axis=1, independent=True)
    earlier = jnp.tril(first[:, :, None] == first[:, None, :], k=-1).any(axis=2)
    return jnp.concatenate([jnp.where(earlier, -1, first), later], axis=1)
