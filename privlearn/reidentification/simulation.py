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
from privlearn.reidentification.api import TopicsApi
from privlearn.reidentification.kernels import Method
from privlearn.reidentification.theory import PersistentWorld
from privlearn.reidentification.theory._exact import Method as ExactMethod

__all__ = [
    "SiteViews",
    "SyntheticUsers",
    "linkage_trial",
    "persistent_trial",
    "population_trial",
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


def show_sites(key: Array, top_sets: Array, api: TopicsApi) -> SiteViews:
    """Show two sites topics of given top sets, each fixed for a user, a week and a site.

    Parameters
    ----------
    key : Array
    top_sets : Array of shape (n, weeks, k)
    api : TopicsApi
        Its n_topics, noise and topics_per_call; the caller filter needs visits, see
        `simulate_sites`.
    """
    views = []
    for site_key in jax.random.split(key):
        show_key, call_key = jax.random.split(site_key)
        topics, _ = draws.show_topics(show_key, top_sets, api.n_topics, api.noise)
        views.append(draws.first_call(call_key, topics, api.topics_per_call))
    return SiteViews(views[0], views[1], top_sets)


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

    Examples
    --------
    >>> views = simulate_sites(jax.random.key(0), n_users=10, n_weeks=3)
    >>> views.site_a.shape, views.top_sets.shape
    ((10, 3), (10, 3, 5))
    """
    api = api or TopicsApi()
    users = users or SyntheticUsers()
    share_key, visit_key, set_key, site_key = jax.random.split(key, 4)
    popularity = jnp.asarray(users.popularity(api.n_topics), jnp.float32)
    shares = draws.interests(share_key, n_users, popularity, users.concentration)
    seen = n_weeks + api.topics_per_call - 1
    lead = _MEMORY - 1 if api.reach is not None else 0  # weeks before the first that is shown
    if api.shared_weeks:
        counts = draws.visit_counts(visit_key, shares, seen + lead, users.visits)
    else:
        counts = draws.visit_counts(visit_key, shares, 7 * (seen + lead + 1), users.visits / 7)
    views, sets = [], None
    for number, one in enumerate(jax.random.split(site_key)):
        start_key, show_key, saw_key, call_key = jax.random.split(one, 4)
        weekly = counts
        if not api.shared_weeks:
            starts = jax.random.randint(start_key, (n_users,), 0, 7)
            weekly = draws.window_sums(counts, starts, 7, seen + lead)
        # With shared weeks both sites draw from the same top sets, ties and padding included.
        ties = set_key if api.shared_weeks else jax.random.fold_in(set_key, number)
        every = draws.top_sets(ties, weekly, api.top_k, api.padding)[:, lead:]
        topics, random = draws.show_topics(show_key, every, api.n_topics, api.noise)
        if api.reach is not None:
            saw = draws.caller_saw(saw_key, weekly, api.reach, _MEMORY)[:, lead:]
            at = jnp.maximum(topics, 0)[:, :, None]
            kept = random | jnp.take_along_axis(saw, at, axis=2)[:, :, 0]
            topics = jnp.where(kept, topics, -1)
        views.append(draws.first_call(call_key, topics, api.topics_per_call))
        sets = every if sets is None else sets
    assert sets is not None
    return SiteViews(views[0], views[1], sets)


def _success(
    views: tuple[Array, Array],
    api: TopicsApi,
    method: Method,
    *,
    queries: int | None = None,
    **settings: float,
) -> Array:
    """Mean credit at rank 1 of all users of site b, or the first few, among all of site a."""
    site_a, site_b = views
    mix = settings.pop("mix", 0.5)
    targets = kernels.fit_targets(
        site_a, n_topics=api.n_topics, api=api, method=method, **settings
    )
    n = site_b.shape[0] if queries is None else queries
    block = min(_BLOCK, n)
    if n % block:
        raise ValueError(f"queries beyond {_BLOCK} must be a multiple of it, got {n}")

    def one(part: tuple[Array, Array]) -> Array:
        query, own_codes = part
        table = kernels.query_table(targets, query, api=api, method=method, mix=mix)
        own = kernels.own_scores(table, own_codes)
        better, tied = kernels.rank_counts(table, targets.codes, own)
        return kernels.credit(better, tied)

    parts = (
        site_b[:n].reshape(-1, block, site_b.shape[1]),
        targets.codes[:n].reshape(-1, block, targets.codes.shape[1]),
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
        Numbers of weekly calls, ascending.
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

    def trial(key: Array) -> dict[str, Array]:
        views = simulate_sites(key, n_users, max(weeks), api=api, users=users)
        found = {}
        for method in methods:
            rates = []
            for week in weeks:
                seen = week + api.topics_per_call - 1
                pair = (views.site_a[:, :seen], views.site_b[:, :seen])
                rates.append(_success(pair, api, method, concentration=concentration, mix=mix))
            found[method] = jnp.stack(rates)
        return found

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
        Numbers of targets, ascending.
    n_weeks : int
    queries : int
        Users looked for, the same in each population.
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
        return {
            method: jnp.stack(
                [
                    _success((views.site_a[:n], views.site_b), api, method, queries=queries)
                    for n in populations
                ]
            )
            for method in methods
        }

    return trial


def persistent_trial(
    world: PersistentWorld,
    *,
    n_users: int,
    n_weeks: int,
    methods: Sequence[ExactMethod] = ("optimal",),
) -> Callable[[Array], dict[str, Array]]:
    """One population of a persistent world, with the exact scores of `theory`: its trial.

    Returns
    -------
    callable
        key -> {method: credit of a user}, whose mean is ``theory.exact_success``.
    """
    sets = jnp.asarray(world.sets, jnp.int32)
    log_prior = jnp.log(jnp.asarray(world.prior))
    step = kernels.unit(n_weeks)
    tables = {
        method: jnp.asarray(np.round(world.scores(n_weeks, method).T / step), jnp.int32)
        for method in methods
    }
    place = jnp.asarray(world.n_topics ** np.arange(n_weeks)[::-1], jnp.int32)
    api = TopicsApi(world.n_topics, world.top_k, world.noise)

    def trial(key: Array) -> dict[str, Array]:
        set_key, site_key = jax.random.split(key)
        number = jax.random.categorical(set_key, log_prior, shape=(n_users,))
        top = jnp.broadcast_to(sets[number][:, None, :], (n_users, n_weeks, world.top_k))
        views = show_sites(site_key, top, api)
        codes = (views.site_a @ place)[:, None]
        asked = views.site_b @ place
        found = {}
        for method, table in tables.items():
            columns = table[:, asked]
            own = kernels.own_scores(columns, codes)
            better, tied = kernels.rank_counts(columns, codes, own)
            found[method] = kernels.credit(better, tied).mean()
        return found

    return trial
