"""A privacy review of a table of events: who stands out, who is linked, how much at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from privlearn.reidentification import simulation
from privlearn.reidentification.api import TopicsApi
from privlearn.reidentification.attack import ReidentificationAttack
from privlearn.reidentification.channels import SampledBounds, bounds_from_posterior
from privlearn.reidentification.histories import (
    Classes,
    Histories,
    Slicing,
    equivalence_classes,
    read_histories,
)
from privlearn.reidentification.result import Rate, wilson
from privlearn.reidentification.theory._arguments import whole

__all__ = ["Linkage", "ReidentificationReport", "reidentification_report"]

METHODS = ("hamming", "asymmetric", "likelihood", "dirichlet", "combined")


@dataclass(frozen=True, eq=False)
class Linkage:
    """How well users are linked between two sites that see their weekly topics.

    Attributes
    ----------
    api : TopicsApi
        What is released.
    population, n_slices : int
        Users, and slices of each history.
    success : dict of str to Rate
        Success at rank 1 of each method, averaged over the evaluation repeats.
    best : str
        The method that did best in the calibration repeats, which are not among those reported.
    risk : ndarray of shape (n,)
        Chance of each user to be found by that method.
    success_at : dict of int to Rate
        Success of that method within the first ranks.
    known_profiles : SampledBounds
        The best attacker who knows every user's top sets and sees one site, with bounds on it.
    capacity_bound : float
        What no attacker exceeds, whatever they know.
    """

    api: TopicsApi
    population: int
    n_slices: int
    success: dict[str, Rate]
    best: str
    risk: np.ndarray
    success_at: dict[int, Rate]
    known_profiles: SampledBounds
    capacity_bound: float


@dataclass(frozen=True, eq=False)
class ReidentificationReport:
    """What the review found.

    Attributes
    ----------
    population : int
        Users in the table.
    without_history : int
        Users without any event: their slices are padding.
    n_events, n_items : int
        Rows with an item, and distinct items.
    classes : Classes or None
        Groups of equal quasi-identifiers.
    unicity : dict of int to float
        Share of users singled out by that many of their items.
    linkage : Linkage
        Linking two sites that see a topic a slice.
    users : ndarray of shape (n,)
        Ids, in the order of ``linkage.risk``.
    """

    population: int
    without_history: int
    n_events: int
    n_items: int
    classes: Classes | None
    unicity: dict[int, float]
    linkage: Linkage
    users: np.ndarray

    def __str__(self) -> str:
        link = self.linkage
        lines = [
            f"population: {self.population:,} users, {self.n_events:,} events of "
            f"{self.n_items:,} items ({self.without_history:,} users without history)"
        ]
        if self.classes is not None:
            c = self.classes
            lines.append(
                f"quasi-identifiers {', '.join(c.columns)}: {len(c.sizes):,} classes, "
                f"k-anonymity {c.k_anonymity}, {c.unique:.1%} unique; "
                f"an attacker who knows them names {c.success:.1%}"
            )
        for known, share in self.unicity.items():
            lines.append(f"{known} known item(s) single out {share:.1%}")
        rate = link.success[link.best]
        lines += [
            f"linkage over {link.n_slices} slices, best attack {link.best!r}: {rate.value:.2%} "
            f"({rate.lower:.2%} to {rate.upper:.2%}); guessing {1 / link.population:.2%}",
            f"upper bounds: {link.known_profiles.success:.1%} for an attacker who knows all top "
            f"sets, {link.capacity_bound:.1%} for any",
        ]
        return "\n".join(lines)

    def table(self) -> Any:
        """One row a user: id and risk, the most exposed first (polars)."""
        import polars as pl

        found = pl.DataFrame({"user": self.users, "risk": self.linkage.risk})
        return found.sort("risk", descending=True, maintain_order=True)

    def charts(self) -> Any:
        """All charts of the report, one below the other (Altair)."""
        from privlearn.reidentification import charts

        return charts.report_charts(self)


def reidentification_report(
    table: Any,
    *,
    user: str,
    time: str,
    item: str,
    quasi_identifiers: Sequence[str] = (),
    n_slices: int = 4,
    slicing: Slicing = "events",
    top_k: int = 5,
    noise: float = 0.05,
    methods: Sequence[str] = METHODS,
    known_items: Sequence[int] = (1, 2, 3),
    n_repeats: int = 5,
    random_state: int = 0,
) -> ReidentificationReport:
    """Review a table of events: uniqueness, linkage by the best attack, upper bounds, charts.

    The release under review is the Topics model: each user's history is cut into slices, two
    sites see one item a slice, mostly of the slice's `top_k` most frequent. The question is how
    often site B's user is found again in site A.

    Parameters
    ----------
    table : frame
        What narwhals accepts: pandas, polars, pyarrow; lazily polars, DuckDB, Dask. One row an
        event. Rows without time and item stand for users without history.
    user, time, item : str
        Columns.
    quasi_identifiers : sequence of str, optional
        Columns an attacker may know from elsewhere, the same in all rows of a user.
    n_slices, slicing
        As in `histories.read_histories`.
    top_k, noise : int, float
        Size of top sets, chance of a random item.
    methods : sequence of str
        Attacks to try, see `ReidentificationAttack`.
    known_items : sequence of int
        Numbers of known items for the unicity.
    n_repeats : int, default=5
        Draws of the release on which the attacks are evaluated; the best attack is chosen on two
        further ones, so that choosing does not flatter it.
    random_state : int, default=0
        Seed of the draws.

    Returns
    -------
    ReidentificationReport

    Raises
    ------
    TypeError, ValueError
        If the table cannot serve (missing columns or values, one user only, users whose rows
        disagree), or a parameter makes no sense.

    Examples
    --------
    >>> import polars as pl
    >>> rng = np.random.default_rng(0)
    >>> visits = pl.DataFrame(
    ...     {
    ...         "who": np.repeat(np.arange(40), 40),
    ...         "when": np.tile(np.arange(40), 40),
    ...         "page": (rng.integers(0, 4, 1600) + np.repeat(np.arange(40), 40)) % 30,
    ...         "city": np.repeat(np.arange(40) % 8, 40),
    ...     }
    ... )
    >>> report = reidentification_report(
    ...     visits,
    ...     user="who",
    ...     time="when",
    ...     item="page",
    ...     quasi_identifiers=["city"],
    ...     methods=["asymmetric"],
    ...     n_repeats=1,
    ... )
    >>> report.classes.k_anonymity, report.classes.success, report.linkage.population
    (5, 0.2, 40)
    """
    repeats = whole("n_repeats", n_repeats, 1)
    seed = whole("random_state", random_state, 0)
    names = (methods,) if isinstance(methods, str) else tuple(methods)
    if not names or set(names) - set(METHODS):
        raise ValueError(f"methods must be some of {', '.join(METHODS)}, got {list(names)}")
    histories = read_histories(
        table, user=user, time=time, item=item, n_slices=n_slices, slicing=slicing
    )
    quasi = [quasi_identifiers] if isinstance(quasi_identifiers, str) else list(quasi_identifiers)
    classes = equivalence_classes(table, user=user, quasi_identifiers=quasi) if quasi else None
    api = TopicsApi(len(histories.items), top_k, noise)
    rng = np.random.default_rng([seed, 1])
    return ReidentificationReport(
        population=len(histories.users),
        without_history=histories.without_history,
        n_events=len(histories.user),
        n_items=len(histories.items),
        classes=classes,
        unicity={int(k): histories.unicity(k, random_state=rng) for k in known_items},
        linkage=link_histories(histories, api, names, repeats, seed),
        users=histories.users,
    )


def link_histories(
    histories: Histories, api: TopicsApi, methods: Sequence[str], n_repeats: int, seed: int
) -> Linkage:
    """Draw the release several times, choose the best attack on two draws, report the others.

    Intervals are Wilson's at 95 % for one draw's number of users: repeats of the draw share their
    users, so they make the estimate steadier without adding people to it.
    """
    n, top_k = len(histories.users), api.top_k
    attacks = {
        name: ReidentificationAttack(
            name, n_topics=api.n_topics, top_k=top_k, noise=api.noise, random_state=seed
        )
        for name in methods
    }
    found: dict[str, list[Any]] = {name: [] for name in methods}
    sets = []
    for repeat in range(n_repeats + 2):
        sets.append(histories.top_sets(top_k, np.random.default_rng([seed, 2, repeat])))
        views = simulation.show_sites(
            jax.random.fold_in(jax.random.key(seed), repeat), sets[-1], api
        )
        site_a, site_b = np.asarray(views.site_a), np.asarray(views.site_b)
        for name, attack in attacks.items():
            found[name].append(attack.fit(site_a).score(site_b))
    best = max(methods, key=lambda name: sum(float(result) for result in found[name][:2]))
    success = {
        name: wilson(float(np.mean([r.risk.sum() for r in results[2:]])), n)
        for name, results in found.items()
    }
    ranks = [rank for rank in (1, 5, 10, 50) if rank <= n]
    within = {
        rank: wilson(float(np.mean([r.success_at(rank).value for r in found[best][2:]])) * n, n)
        for rank in ranks
    }
    return Linkage(
        api=api,
        population=n,
        n_slices=histories.n_slices,
        success=success,
        best=best,
        risk=np.mean([r.risk for r in found[best][2:]], axis=0),
        success_at=within,
        known_profiles=known_profile_bounds(sets[-1], api, seed),
        capacity_bound=api.capacity_bound(n, histories.n_slices),
    )


def known_profile_bounds(
    top_sets: np.ndarray, api: TopicsApi, seed: int, n_draws: int = 2000
) -> SampledBounds:
    """Bounds for an attacker who knows everybody's top sets and sees one site's topics.

    Parameters
    ----------
    top_sets : ndarray of shape (n, T, k)
    api : TopicsApi
        Without caller filter and with padding, one topic a call.
    seed : int
    n_draws : int, default=2000
        Releases of uniformly drawn users.
    """
    plain = replace(api, topics_per_call=1, reach=None, padding=True)
    n, weeks, _ = top_sets.shape
    rng = np.random.default_rng([seed, 3])
    asked = rng.integers(0, n, n_draws)
    views = simulation.show_sites(
        jax.random.fold_in(jax.random.key(seed), 1_000_003), top_sets[asked], plain
    )
    topics = np.asarray(views.site_a)
    likelihood = np.zeros((n_draws, n))
    with np.errstate(divide="ignore"):
        inside, outside = np.log(plain.inside), np.log(plain.outside)
    for week in range(weeks):
        member = np.zeros((n, plain.n_topics), bool)
        np.put_along_axis(member, top_sets[:, week], True, axis=1)
        likelihood += np.where(member.T[topics[:, week]], inside, outside)
    likelihood -= likelihood.max(axis=1, keepdims=True)
    posterior = np.exp(likelihood)
    return bounds_from_posterior(posterior / posterior.sum(axis=1, keepdims=True))
