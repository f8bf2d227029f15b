"""Figures of closed forms: bounds beside exact success, and exact small worlds beside attacks."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn import simulate
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, pick_in_legend, theory_and_simulation, theory_line
from privlearn.reidentification import simulation, theory

PAPER = "Carey et al. 2023 (arXiv 2304.07210)"
_ATTACKS = {
    "optimal": "likelihood ratio (optimal)",
    "weekly": "likelihood ratio by week",
    "asymmetric": "asymmetric Hamming",
    "hamming": "Hamming",
}


def small_world_table(
    *, weights: Sequence[float], weeks: Sequence[int], n_users: int, n_trials: int, seed: int
) -> pl.DataFrame:
    """Exact success and simulation of four attacks in a persistent world."""
    world = theory.PersistentWorld(4, 2, 0.2, tuple(weights))
    trial = simulation.persistent_trial(
        world,
        n_users=n_users,
        weeks=weeks,
        methods=tuple(_ATTACKS),  # type: ignore[arg-type]
    )
    found = simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=min(n_trials, 5_000)
    )
    rows = [
        {
            "weeks": week,
            "attack": name,
            "theory": theory.exact_success(world, week, n_users, method),  # type: ignore[arg-type]
            "mean": float(found.mean[method][i]),
            "stderr": float(found.stderr[method][i]),
        }
        for i, week in enumerate(weeks)
        for method, name in _ATTACKS.items()
    ]
    return pl.DataFrame(rows)


def draw_small_world(table: pl.DataFrame) -> alt.LayerChart:
    """Success against weeks."""
    return theory_and_simulation(
        table,
        x=alt.X("weeks:Q", title="Weeks").axis(tickMinStep=1),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("attack", title="", order=tuple(_ATTACKS.values())),
        axis=alt.Y(title="Success at rank 1"),
    )


register(
    Figure(
        name="reidentification-small-world",
        topic="reidentification",
        title="A world small enough to enumerate: no attack beats the likelihood ratio",
        caption=(
            "Four topics, top sets of two that never change and are unequally frequent, noise 0.2, "
            "three users. Lines are exact sums over all sequences, dots are attacks run on drawn "
            "populations, with two standard errors. With one week all scores that use the law "
            "agree; from the second week on the optimal attack sees that a user's topics "
            "belong together, which week-by-week scores cannot."
        ),
        source=f"Small case of the Topics model of {PAPER}, enumerated here",
        profiles={
            "quick": {
                "weights": (6, 3, 2, 1, 0.5, 0.5),
                "weeks": (1, 2, 3),
                "n_users": 3,
                "n_trials": 5_000,
                "seed": 1,
            },
            "paper": {
                "weights": (6, 3, 2, 1, 0.5, 0.5),
                "weeks": (1, 2, 3, 4, 5, 6),
                "n_users": 3,
                "n_trials": 100_000,
                "seed": 1,
            },
        },
        compute=small_world_table,
        draw=draw_small_world,
        claims=("reidentification/small-world*", "reidentification/score-groups*"),
    )
)


def gaussian_table(*, n_users: Sequence[int], n_points: int) -> pl.DataFrame:
    """Exact success and bounds for the Gaussian simplex, against the distance."""
    rows = []
    for n in n_users:
        for a in np.linspace(0.0, 6.0, n_points):
            values = {"exact success": theory.gaussian_simplex_success(n, a)} | {
                name: theory.gaussian_simplex_bound(n, a, kind)
                for name, kind in (
                    ("two-user test bound", "test_curve"),
                    ("Fano", "fano"),
                    ("sharp Fano", "sharp_fano"),
                )
            }
            rows += [
                {"users": n, "distance": a, "curve": name, "success": value}
                for name, value in values.items()
            ]
    return pl.DataFrame(rows)


_CURVES = ("exact success", "two-user test bound", "sharp Fano", "Fano")


def draw_gaussian(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel for each population."""
    series = Series("curve", title="", order=_CURVES)
    panels = [
        theory_line(
            table.filter(pl.col("users") == n),
            alt.X("distance:Q", title="Distance a between users"),
            "success",
            series=series,
            axis=alt.Y(title="Success"),
        ).properties(width=260, title=f"{n:,} users")
        for n in table["users"].unique().sort()
    ]
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="reidentification-bounds",
        topic="reidentification",
        title="From a test between two users to a bound for n users",
        caption=(
            "User u releases a point at distance a from the origin along an axis of their own, "
            "with standard Gaussian noise. Exact success of the best attacker, and three upper "
            "bounds. The bound from the best test between two users is the better one among few "
            "users, information bounds win among many: report the least of all."
        ),
        source=f"Framework of {PAPER}; bounds derived here",
        profiles={
            "quick": {"n_users": (10, 1000), "n_points": 31},
            "paper": {"n_users": (10, 1000), "n_points": 121},
        },
        compute=gaussian_table,
        draw=draw_gaussian,
        claims=("reidentification/gaussian-simplex", "reidentification/bounds-hold"),
    )
)


def exact_population_table(*, weeks: Sequence[int], largest: float, n_points: int) -> pl.DataFrame:
    """Exact optimal success against population, and the capacity bound."""
    world = theory.PersistentWorld(6, 2, 0.1)
    capacity = theory.topics_capacity(6, 2, 0.1)
    rows = []
    for week in weeks:
        joint, scores = world.joint(week), world.scores(week)
        for n in np.unique(np.geomspace(1, largest, n_points).astype(int)):
            values = {
                "optimal attack": theory.expected_success(joint, scores, int(n)),
                "capacity bound": min(1.0, capacity**week / n),
            }
            rows += [
                {"users": int(n), "weeks": f"{week} week(s)", "curve": name, "success": value}
                for name, value in values.items()
            ]
    return pl.DataFrame(rows)


def draw_exact_population(table: pl.DataFrame) -> alt.LayerChart:
    """Both axes logarithmic."""
    series = Series("weeks", title="")
    x = alt.X("users:Q", title="Population").scale(type="log")
    axis = alt.Y(title="Success").scale(type="log")
    solid = theory_line(
        table.filter(pl.col("curve") == "optimal attack"), x, "success", series=series, axis=axis
    )
    dashed = theory_line(
        table.filter(pl.col("curve") == "capacity bound"),
        x,
        "success",
        series=series,
        axis=axis,
        dash=(4, 4),
    )
    return pick_in_legend(solid + dashed, series)


register(
    Figure(
        name="reidentification-population-exact",
        topic="reidentification",
        title="Risk falls with the population: a rate means nothing without it",
        caption=(
            "Exact success of the optimal attack in a world of 6 topics and persistent top sets of "
            "2, for populations up to ten million (solid), and the bound for any attacker, Bayes "
            "capacity over population (dashed). Beyond the number of distinguishable sequences "
            "success falls like one over the population."
        ),
        source=f"Small case of the Topics model of {PAPER}, enumerated here",
        profiles={
            "quick": {"weeks": (1, 2, 4), "largest": 1e7, "n_points": 22},
            "paper": {"weeks": (1, 2, 3, 4), "largest": 1e9, "n_points": 60},
        },
        compute=exact_population_table,
        draw=draw_exact_population,
        claims=("reidentification/score-groups*", "reidentification/epsilon-and-capacity"),
    )
)
