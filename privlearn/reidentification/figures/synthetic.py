"""Figures of synthetic users: success against weeks, population, noise, taxonomy, and flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import jax
import polars as pl

from privlearn import simulate
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    theory_line,
)
from privlearn.reidentification import simulation
from privlearn.reidentification.api import TopicsApi

PAPER = "Carey et al. 2023 (arXiv 2304.07210)"
_NAMES = {
    "hamming": "Hamming",
    "asymmetric": "asymmetric Hamming",
    "likelihood": "likelihood ratio by week",
    "dirichlet": "Dirichlet-multinomial",
    "combined": "combined",
}
_ORDER = tuple(_NAMES.values())
_WORLD = (
    "Synthetic users: Zipf popularity, Dirichlet shares, 60 visits a week, so consecutive weekly "
    "top sets of 5 share about 2.9 topics; not real browsing data."
)


def _run(trial: Any, seed: int, n_trials: int) -> simulate.Estimate:
    return simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=min(n_trials, 2)
    )


def _rows(found: simulate.Estimate, name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            name: value,
            "attack": _NAMES[method],
            "mean": float(found.mean[method][i]),
            "stderr": float(found.stderr[method][i]),
        }
        for method in found.mean
        for i, value in enumerate(values)
    ]


def _draw(table: pl.DataFrame, x: alt.X, axis: alt.Y) -> Any:
    """Dots with error bars joined by lines, one colour an attack."""
    series = Series("attack", title="", order=_ORDER)
    chart = (
        theory_line(table, x, "mean", series=series, axis=axis)
        + error_bars(table, x, "mean", stderr="stderr", series=series, axis=axis, floor=1e-5)
        + dots(table, x, "mean", series=series, axis=axis)
    )
    return chart, series


def weeks_table(
    *, n_users: int, weeks: Sequence[int], methods: Sequence[str], n_trials: int, seed: int
) -> pl.DataFrame:
    """Success of all attacks against weeks, with guessing and the capacity bound."""
    trial = simulation.linkage_trial(
        n_users=n_users,
        weeks=weeks,
        methods=tuple(methods),  # type: ignore[arg-type]
    )
    api = TopicsApi()
    lines = [
        {"weeks": week, "attack": None, "line": name, "level": level}
        for week in weeks
        for name, level in (
            ("guessing", 1 / n_users),
            ("bound for any attacker", api.capacity_bound(n_users, week)),
        )
    ]
    return pl.concat(
        [pl.DataFrame(_rows(_run(trial, seed, n_trials), "weeks", weeks)), pl.DataFrame(lines)],
        how="diagonal_relaxed",
    )


def draw_weeks(table: pl.DataFrame) -> Any:
    """Success against weeks, with reference lines."""
    x = alt.X("weeks:Q", title="Weeks").scale(type="log", base=2)
    axis = alt.Y(title="Success at rank 1").scale(type="log")
    chart, series = _draw(table.filter(pl.col("line").is_null()), x, axis)
    levels = alt.Chart(table.filter(pl.col("line").is_not_null()))
    lines = levels.mark_line(style="reference").encode(x=x, y="level:Q", detail="line:N")
    return pick_in_legend(chart + lines, series)


register(
    Figure(
        name="reidentification-weeks",
        topic="reidentification",
        title="Risk grows week by week, and depends on the attack",
        caption=(
            "Share of users of one site found again on another, by the weeks that both saw, for "
            "several attacks; dots are means over independent populations with two standard "
            "errors. Dashed: guessing, and the bound for any attacker, which is trivial from the "
            "second week on. Weights learnt from the first site (asymmetric Hamming) multiply the "
            "success of plain Hamming; coincidences across weeks raise it further where interests "
            "are stable, the more so the longer both sites watch. A statement that fewer than x % "
            "are at "
            f"risk is one about an attack.\n\n{_WORLD}"
        ),
        source=f"{PAPER}, success against the number of weeks; on synthetic users",
        profiles={
            "quick": {
                "n_users": 500,
                "weeks": (1, 2, 4, 8),
                "methods": ("hamming", "asymmetric", "dirichlet", "combined"),
                "n_trials": 4,
                "seed": 1,
            },
            "paper": {
                "n_users": 1000,
                "weeks": (1, 2, 4, 8, 16, 30),
                "methods": tuple(_NAMES),
                "n_trials": 20,
                "seed": 1,
            },
        },
        compute=weeks_table,
        draw=draw_weeks,
        claims=("reidentification/small-world*", "reidentification/topic-probabilities"),
    )
)


def population_table(
    *,
    populations: Sequence[int],
    n_weeks: int,
    queries: int,
    n_trials: int,
    seed: int,
    methods: Sequence[str],
) -> pl.DataFrame:
    """Success of the same users among nested populations."""
    trial = simulation.population_trial(
        populations=populations,
        n_weeks=n_weeks,
        queries=queries,
        methods=tuple(methods),  # type: ignore[arg-type]
    )
    return pl.DataFrame(_rows(_run(trial, seed, n_trials), "users", populations))


def draw_population(table: pl.DataFrame) -> Any:
    """Both axes logarithmic."""
    x = alt.X("users:Q", title="Population").scale(type="log")
    axis = alt.Y(title="Success at rank 1").scale(type="log")
    chart, series = _draw(table, x, axis)
    return pick_in_legend(chart, series)


register(
    Figure(
        name="reidentification-population",
        topic="reidentification",
        title="More users to hide among",
        caption=(
            "Share of the same queried users found among populations of different sizes, on "
            "logarithmic axes; all targets are kept, only queries are sampled. Success falls "
            "slowly, roughly like a small power of the population: a rate measured among a "
            "hundred users says little about a million, and quoting it without the population "
            f"says nothing.\n\n{_WORLD}"
        ),
        source=f"{PAPER}, success against the number of users; on synthetic users",
        profiles={
            "quick": {
                "populations": (250, 500, 1000, 2000),
                "n_weeks": 4,
                "queries": 250,
                "n_trials": 3,
                "seed": 2,
                "methods": ("hamming", "asymmetric"),
            },
            "paper": {
                "populations": (500, 1000, 3000, 10_000),
                "n_weeks": 8,
                "queries": 500,
                "n_trials": 10,
                "seed": 2,
                "methods": ("hamming", "asymmetric", "combined"),
            },
        },
        compute=population_table,
        draw=draw_population,
        claims=("reidentification/score-groups*",),
    )
)


def release_table(
    *,
    n_users: int,
    n_weeks: int,
    noises: Sequence[float],
    sizes: Sequence[int],
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Success against the chance of a random topic, and against the size of the taxonomy."""
    releases = [TopicsApi(noise=p) for p in noises] + [TopicsApi(n_topics=m) for m in sizes]
    trial = simulation.release_trial(
        n_users=n_users, n_weeks=n_weeks, releases=releases, methods=("hamming", "asymmetric")
    )
    found = pl.DataFrame(_rows(_run(trial, seed, n_trials), "release", range(len(releases))))
    numbers = pl.DataFrame(
        {
            "release": range(len(releases)),
            "panel": ["noise"] * len(noises) + ["taxonomy"] * len(sizes),
            "noise": [api.noise for api in releases],
            "topics": [api.n_topics for api in releases],
        }
    )
    return found.join(numbers, on="release")


def draw_release(table: pl.DataFrame) -> Any:
    """One panel for the noise, one for the taxonomy."""
    axis = alt.Y(title="Success at rank 1")
    panels = []
    for panel, x in (
        ("noise", alt.X("noise:Q", title="Chance of a random topic, p")),
        ("taxonomy", alt.X("topics:Q", title="Topics in the taxonomy").scale(type="log")),
    ):
        chart, series = _draw(table.filter(pl.col("panel") == panel), x, axis)
        panels.append(chart.properties(width=260))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="reidentification-release",
        topic="reidentification",
        title="What random topics buy, and what a finer taxonomy costs",
        caption=(
            "Success against the chance p that a week's topic is drawn from the whole taxonomy "
            "(left, 349 topics), and against the number of topics (right, p = 0.05); dots are "
            "means over independent populations with two standard errors. The deployed p = 0.05 "
            "gives deniability, not protection against linkage: success drops markedly only when a "
            "large part of all topics is random, and at p = 1 only guessing is left. Rare topics "
            "carry the information, so a finer taxonomy helps the attack that weighs them most. "
            f"349 and 469 topics are the taxonomies that browsers have used.\n\n{_WORLD}"
        ),
        source=f"{PAPER}, parameters of the release; on synthetic users",
        profiles={
            "quick": {
                "n_users": 500,
                "n_weeks": 8,
                "noises": (0.0, 0.05, 0.4, 1.0),
                "sizes": (30, 100, 469),
                "n_trials": 4,
                "seed": 3,
            },
            "paper": {
                "n_users": 1000,
                "n_weeks": 8,
                "noises": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
                "sizes": (20, 50, 100, 200, 349, 469, 1000),
                "n_trials": 10,
                "seed": 3,
            },
        },
        compute=release_table,
        draw=draw_release,
        claims=("reidentification/topic-probabilities", "reidentification/epsilon-and-capacity"),
    )
)

_FLAGS: dict[str, dict[str, Any]] = {
    "the paper's model": {},
    "three topics a call": {"topics_per_call": 3},
    "caller on 10 % of pages": {"reach": 0.1},
    "own week starts": {"shared_weeks": False},
    "top sets of 3": {"top_k": 3},
}


def interface_table(
    *,
    n_users: int,
    n_weeks: int,
    changes: Sequence[str],
    methods: Sequence[str],
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Success of some attacks for each change of the interface."""
    rows = []
    for name in changes:
        trial = simulation.linkage_trial(
            n_users=n_users,
            weeks=(n_weeks,),
            methods=tuple(methods),  # type: ignore[arg-type]
            api=replace(TopicsApi(), **_FLAGS[name]),
        )
        rows += _rows(_run(trial, seed, n_trials), "interface", (name,))
    return pl.DataFrame(rows)


def draw_interface(table: pl.DataFrame) -> Any:
    """One row an interface."""
    series = Series("attack", title="", order=_ORDER)
    base = alt.Chart(table).transform_calculate(
        low="datum.mean - 2 * datum.stderr", high="datum.mean + 2 * datum.stderr"
    )
    y = alt.Y("interface:N", sort=list(_FLAGS), title=None)
    color, opacity = series.color(table), series.opacity()
    title = "Success at rank 1"
    bars = base.mark_rule().encode(
        y=y, x=alt.X("low:Q", title=title), x2="high:Q", color=color, opacity=opacity
    )
    points = base.mark_point().encode(
        y=y, x=alt.X("mean:Q", title=title), color=color, opacity=opacity, shape=series.shape(table)
    )
    return pick_in_legend((bars + points).properties(height=220), series)


register(
    Figure(
        name="reidentification-interface",
        topic="reidentification",
        title="Details of the interface matter too",
        caption=(
            "The same kind of users under changes of the release: topics filtered by what the "
            "caller itself observed; at full size also weeks that start on a day of their own for "
            "each user and site, a call that shows three past weeks (two more for the attacker) "
            "and smaller top sets. Dots with two standard errors.\n\n" + _WORLD
        ),
        source=f"Model of {PAPER}; flags after public descriptions of the interface",
        profiles={
            "quick": {
                "n_users": 250,
                "n_weeks": 4,
                "changes": ("the paper's model", "caller on 10 % of pages"),
                "methods": ("asymmetric",),
                "n_trials": 4,
                "seed": 5,
            },
            "paper": {
                "n_users": 1000,
                "n_weeks": 8,
                "changes": tuple(_FLAGS),
                "methods": ("asymmetric", "combined"),
                "n_trials": 10,
                "seed": 5,
            },
        },
        compute=interface_table,
        draw=draw_interface,
        claims=("reidentification/topic-probabilities",),
    )
)
