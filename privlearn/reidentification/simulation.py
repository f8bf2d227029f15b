"""Synthetic users, their weeks and two sites, as trials for `privlearn.simulate`.

A trial is a pure function of a JAX key that returns success rates::

    trial = linkage_trial(n_users=1000, weeks=(1, 2, 4, 8), methods=("hamming", "asymmetric"))
    monte_carlo(trial, key=jax.random.key(0), n_trials=10, batch_size=2)

Users have Dirichlet shares of topics around a Zipf popularity and visit pages at Poisson times;
real browsing data are not public. The attack is that of `kernels`, which the estimator runs too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from privlearn.reidentification import draws, kernels
from privlearn.reidentification.api import Law, TopicsApi
from privlearn.reidentification.kernels import Method
from privlearn.reidentification.theory import PersistentWorld
from privlearn.reidentification.theory._exact import Method as ExactMethod

__all__ = [
    "SiteViews",
    "SyntheticUsers",
    "linkage_trial",
    "persistent_trial",
    "population_trial",
    "release_trial",
    "show_sites",
    "simulate_sites",
]

#: Queries scored at once in a trial.
_BLOCK = 250
#: Weeks that a caller's presence counts for.
_MEMORY = 3


@dataclass(frozen=True)
class SyntheticUsers:
    """How synthetic users browse.

    Parameters
    ----------
    exponent : float, default=1.0
        Popularity of the i-th topic is proportional to i^-exponent.
    concentration : float, default=34.9
        Total of the Dirichlet's parameters. With 349 topics and 60 visits a week, consecutive
        weekly top sets of 5 share 2.9 topics on average.
    visits : float, default=60.0
        Mean number of visits a week.
    """

    exponent: float = 1.0
    concentration: float = 34.9
    visits: float = 60.0

    def popularity(self, n_topics: int) -> np.ndarray:
        """Mean share of each topic."""
        weight = np.arange(1, n_topics + 1, dtype=float) ** -self.exponent
        return weight / weight.sum()


class SiteViews(NamedTuple):
    """What two sites were shown.

    Attributes
    ----------
    site_a, site_b : Array of shape (n, weeks), int32
        Topics; -1 where nothing was shown.
    top_sets : Array of shape (n, weeks, k), int32
        The top sets behind the first site's topics. No attacker sees them.
    """

    site_a: Array
    site_b: Array
    top_sets: Array


def show_sites(key: Array, top_sets: Array | np.ndarray, api: TopicsApi) -> SiteViews:
    """Show two sites topics of given top sets, each fixed for a user, a week and a site.

    Parameters
    ----------
    key : Array
    top_sets : Array of shape (n, weeks, k)
    api : TopicsApi
        Its n_topics, noise and topics_per_call; the caller filter needs visits, see
        `simulate_sites`.

    Examples
    --------
    >>> sets = np.tile([3, 1, 4], (10, 6, 1))
    >>> views = show_sites(jax.random.key(0), sets, TopicsApi(n_topics=9, top_k=3, noise=0.0))
    >>> views.site_a.shape, np.unique(views.site_a).tolist()
    ((10, 6), [1, 3, 4])
    """
    sets = jnp.asarray(top_sets)

    def one(keys: Array) -> Array:
        topics, _ = draws.show_topics(keys[0], sets, api.n_topics, api.noise)
        return draws.first_call(keys[1], topics, api.topics_per_call)

    # vmap over the two sites: the same program, compiled once.
    views = jax.vmap(one)(jax.random.split(key, (2, 2)))
    return SiteViews(views[0], views[1], sets)


def simulate_sites(
    key: Array,
    n_users: int,
    n_weeks: int,
    *,
    api: TopicsApi | None = None,
    users: SyntheticUsers | None = None,
) -> SiteViews:
    """Draw users, their browsing, and what two sites that call every week are shown.

    Parameters
    ----------
    key : Array
    n_users, n_weeks : int
        A site sees n_weeks + api.topics_per_call - 1 weeks.
    api : TopicsApi, optional
        The paper's model if not given.
    users : SyntheticUsers, optional
    """
    api = api or TopicsApi()
    users = users or SyntheticUsers()
    keys = jax.random.split(key, 12)
    share_key, visit_key, ties, site_keys = keys[0], keys[1], keys[2:4], keys[4:].reshape(2, 4)
    popularity = jnp.asarray(users.popularity(api.n_topics), jnp.float32)
    shares = draws.interests(share_key, n_users, popularity, users.concentration)
    seen = n_weeks + api.topics_per_call - 1
    lead = _MEMORY - 1 if api.reach is not None else 0  # weeks before the first that is shown
    if api.shared_weeks:
        counts = draws.visit_counts(visit_key, shares, seen + lead, users.visits)
    else:
        counts = draws.visit_counts(visit_key, shares, 7 * (seen + lead + 1), users.visits / 7)

    def one(ties: Array, site_keys: Array) -> tuple[Array, Array]:
        start_key, show_key, saw_key, call_key = site_keys
        weekly = counts
        if not api.shared_weeks:
            starts = jax.random.randint(start_key, (n_users,), 0, 7)
            weekly = draws.window_sums(counts, starts, 7, seen + lead)
        sets = draws.top_sets(ties, weekly, api.top_k, api.padding)[:, lead:]
        topics, random = draws.show_topics(show_key, sets, api.n_topics, api.noise)
        if api.reach is not None:
            saw = draws.caller_saw(saw_key, weekly, api.reach, _MEMORY)[:, lead:]
            at = jnp.maximum(topics, 0)[:, :, None]
            kept = random | jnp.take_along_axis(saw, at, axis=2)[:, :, 0]
            topics = jnp.where(kept, topics, -1)
        return draws.first_call(call_key, topics, api.topics_per_call), sets

    # With shared weeks both sites draw from the same top sets, ties and padding included.
    if api.shared_weeks:
        ties = jnp.stack([ties[0], ties[0]])
    views, sets = jax.vmap(one)(ties, site_keys)
    return SiteViews(views[0], views[1], sets[0])


def _success(
    views: tuple[Array, Array],
    law: Law,
    method: Method,
    *,
    n_topics: int,
    queries: int,
    n_alive: Array | int | None = None,
    concentration: float = 10.0,
    mix: float = 0.5,
) -> Array:
    """Mean credit at rank 1 of the first users of site b, among the first users of site a."""
    site_a, site_b = views
    if n_alive is not None:
        site_a = jnp.where(jnp.arange(site_a.shape[0])[:, None] < n_alive, site_a, -1)
    targets = kernels.fit_targets(
        site_a, n_topics=n_topics, law=law, method=method, concentration=concentration
    )
    block = min(_BLOCK, queries)
    if queries % block:
        raise ValueError(f"users beyond {_BLOCK} must be a multiple of it, got {queries}")

    def one(part: tuple[Array, Array]) -> Array:
        query, own_codes = part
        table = kernels.query_table(targets, query, law=law, method=method, mix=mix)
        own = kernels.own_scores(table, own_codes)
        better, tied = kernels.rank_counts(table, targets.codes, own, n_alive)
        return kernels.credit(better, tied)

    parts = (
        site_b[:queries].reshape(-1, block, site_b.shape[1]),
        targets.codes[:queries].reshape(-1, block, targets.codes.shape[1]),
    )
    return jax.lax.map(one, parts).mean()


def linkage_trial(
    *,
    n_users: int,
    weeks: Sequence[int],
    methods: Sequence[Method] = ("asymmetric",),
    api: TopicsApi | None = None,
    users: SyntheticUsers | None = None,
    concentration: float = 10.0,
    mix: float = 0.5,
) -> Callable[[Array], dict[str, Array]]:
    """One draw of everything; success at rank 1 of each method after each number of weeks.

    Parameters
    ----------
    n_users : int
        Population; a multiple of 250 if larger than that.
    weeks : sequence of int
        Numbers of weekly calls.
    methods : sequence of str
        Some of `kernels.METHODS`.
    api, users
        As in `simulate_sites`.
    concentration, mix
        As in `kernels.fit_targets` and `kernels.query_table`.

    Returns
    -------
    callable
        key -> {method: success of shape (len(weeks),)}.
    """
    api = api or TopicsApi()
    longest = max(weeks) + api.topics_per_call - 1
    seen = jnp.asarray(weeks) + api.topics_per_call - 1

    def trial(key: Array) -> dict[str, Array]:
        views = simulate_sites(key, n_users, max(weeks), api=api, users=users)

        def after(n_weeks: Array, method: Method) -> Array:
            # Weeks that show nothing add the same to every score: fewer weeks, in one shape.
            past = jnp.arange(longest) < n_weeks
            pair = (jnp.where(past, views.site_a, -1), jnp.where(past, views.site_b, -1))
            return _success(
                pair,
                api.law,
                method,
                n_topics=api.n_topics,
                queries=n_users,
                concentration=concentration,
                mix=mix,
            )

        return {
            method: jax.lax.map(lambda n, method=method: after(n, method), seen)
            for method in methods
        }

    return trial


def population_trial(
    *,
    populations: Sequence[int],
    n_weeks: int,
    queries: int,
    methods: Sequence[Method] = ("asymmetric",),
    api: TopicsApi | None = None,
    users: SyntheticUsers | None = None,
) -> Callable[[Array], dict[str, Array]]:
    """Success of a few queries among nested populations: all targets are kept, always.

    Parameters
    ----------
    populations : sequence of int
        Numbers of targets.
    n_weeks : int
    queries : int
        Users looked for, the same in each population; a multiple of 250 if larger than that.
    methods, api, users
        As in `linkage_trial`.

    Returns
    -------
    callable
        key -> {method: success of shape (len(populations),)}.
    """
    api = api or TopicsApi()
    if queries > min(populations):
        raise ValueError(f"queries must be at most the least population, got {queries}")

    def trial(key: Array) -> dict[str, Array]:
        views = simulate_sites(key, max(populations), n_weeks, api=api, users=users)
        pair = (views.site_a, views.site_b)

        def among(n_alive: Array, method: Method) -> Array:
            return _success(
                pair, api.law, method, n_topics=api.n_topics, queries=queries, n_alive=n_alive
            )

        return {
            method: jax.lax.map(lambda n, method=method: among(n, method), jnp.asarray(populations))
            for method in methods
        }

    return trial


def release_trial(
    *,
    n_users: int,
    n_weeks: int,
    releases: Sequence[TopicsApi],
    methods: Sequence[Method] = ("asymmetric",),
    users: SyntheticUsers | None = None,
) -> Callable[[Array], dict[str, Array]]:
    """Success under releases of different noise and taxonomy, for users drawn with the same key.

    Parameters
    ----------
    n_users, n_weeks : int
    releases : sequence of TopicsApi
        They may differ in noise and n_topics; flags are not looked at.
    methods : sequence of str
        As in `linkage_trial`.
    users : SyntheticUsers, optional

    Returns
    -------
    callable
        key -> {method: success of shape (number of releases,)}.
    """
    users = users or SyntheticUsers()
    top_k = releases[0].top_k
    if any(api.top_k != top_k for api in releases):
        raise ValueError("releases must all have one top_k")
    largest = max(api.n_topics for api in releases)
    laws = Law(*(jnp.asarray([api.law[i] for api in releases], jnp.float32) for i in range(3)))
    shares_of = np.zeros((len(releases), largest), np.float32)
    for row, api in zip(shares_of, releases, strict=True):
        row[: api.n_topics] = users.popularity(api.n_topics)
    numbers = (
        jnp.asarray([api.noise for api in releases]),
        jnp.asarray([api.n_topics for api in releases]),
        jnp.asarray(shares_of),
    )

    def trial(key: Array) -> dict[str, Array]:
        share_key, visit_key, set_key, key_a, key_b = jax.random.split(key, 5)

        def one(part: tuple[Law, tuple[Array, Array, Array]]) -> dict[str, Array]:
            law, (noise, n_topics, popularity) = part
            shares = draws.interests(share_key, n_users, popularity, users.concentration)
            counts = draws.visit_counts(visit_key, shares, n_weeks, users.visits)
            sets = draws.top_sets(set_key, counts, top_k, n_topics=n_topics)
            pair = tuple(draws.show_topics(k, sets, n_topics, noise)[0] for k in (key_a, key_b))
            return {
                method: _success((pair[0], pair[1]), law, method, n_topics=largest, queries=n_users)
                for method in methods
            }

        return jax.lax.map(one, (laws, numbers))

    return trial


def persistent_trial(
    world: PersistentWorld,
    *,
    n_users: int,
    weeks: Sequence[int],
    methods: Sequence[ExactMethod] = ("optimal",),
) -> Callable[[Array], dict[str, Array]]:
    """One population of a persistent world, with the exact scores of `theory`.

    Returns
    -------
    callable
        key -> {method: mean credit of a user after each number of weeks}, with the means
        ``theory.exact_success``.
    """
    sets = jnp.asarray(world.sets, jnp.int32)
    log_prior = jnp.log(jnp.asarray(world.prior))
    tables = {
        method: [
            jnp.asarray(np.round(world.scores(week, method).T / kernels.unit(week)), jnp.int32)
            for week in weeks
        ]
        for method in methods
    }
    places = [jnp.asarray(world.n_topics ** np.arange(week)[::-1], jnp.int32) for week in weeks]
    api = TopicsApi(world.n_topics, world.top_k, world.noise)

    def trial(key: Array) -> dict[str, Array]:
        set_key, site_key = jax.random.split(key)
        number = jax.random.categorical(set_key, log_prior, shape=(n_users,))
        top = jnp.broadcast_to(sets[number][:, None, :], (n_users, max(weeks), world.top_k))
        views = show_sites(site_key, top, api)
        found: dict[str, Array] = {}
        for method, by_week in tables.items():
            credits = []
            for week, place, table in zip(weeks, places, by_week, strict=True):
                codes = (views.site_a[:, :week] @ place)[:, None]
                columns = table[:, views.site_b[:, :week] @ place]
                own = kernels.own_scores(columns, codes)
                better, tied = kernels.rank_counts(columns, codes, own)
                credits.append(kernels.credit(better, tied).mean())
            found[method] = jnp.stack(credits)
        return found

    return trial
