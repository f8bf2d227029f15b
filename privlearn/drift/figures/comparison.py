"""Figures of comparisons by simulation: linear and logistic regression, all cells shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import altair as alt
import jax
import polars as pl

from privlearn.drift import streams, studies
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, pick_in_legend, tooltips

_STREAMS = ("burst", "gradual", "periodic", "none")
_KNOWS = ("drift", "hindsight", "noise", "nothing")


def regression_table(
    *, dim: int, noise: float, batch: int, steps: int, n_trials: int, seed: int
) -> pl.DataFrame:
    """Regret of every method on the four streams."""
    cells = studies.compare_on_regression(
        streams.named(steps), dim=dim, noise=noise, batch=batch, key=jax.random.key(seed),
        n_trials=n_trials,
    )  # fmt: skip
    return _table(cells)


def logistic_table(
    *, dim: int, batch: int, steps: int, n_trials: int, points: int, chosen: Sequence[str],
    seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Excess log loss of every method on streams of logistic regression."""
    every = {
        "burst": streams.burst(steps, [round(steps * s / 15) for s in (3, 7, 11)], 5.0),
        "gradual": streams.gradual(steps, 0.05),
        "periodic": streams.periodic(steps, 0.12, steps / 5),
        "none": streams.still(steps),
    }
    cells = studies.compare_on_logistic(
        {name: every[name] for name in chosen}, dim=dim, batch=batch, key=jax.random.key(seed),
        n_trials=n_trials, points=points,
    )  # fmt: skip
    return _table(cells)


def _table(cells: Sequence[studies.Cell]) -> pl.DataFrame:
    rows = []
    for cell in cells:
        row = asdict(cell) | {"parameters": ", ".join(f"{p:.3g}" for p in cell.parameters)}
        rows.append(row | {"low": cell.regret - 2 * cell.stderr,
                           "high": cell.regret + 2 * cell.stderr})  # fmt: skip
    return pl.DataFrame(rows)


def draw_cells(table: pl.DataFrame) -> Any:
    """One panel a stream, one row a method, colour by what the method is told."""
    series = Series("knows", title="Is told", order=_KNOWS)
    names = table["method"].unique(maintain_order=True).to_list()
    shown = [name for name in _STREAMS if name in table["stream"].unique().to_list()]
    panels = []
    for k, name in enumerate(shown):
        part = table.filter(pl.col("stream") == name)
        axis = alt.Axis() if k % 2 == 0 else alt.Axis(labels=False, ticks=False)
        y = alt.Y("method:N", sort=names, title=None, axis=axis)
        x = alt.X("regret:Q", title="Regret", scale=alt.Scale(type="log", zero=False, nice=False))
        base = alt.Chart(part)
        bars = base.mark_rule(tooltip=None).encode(
            y=y, x=x.copy(deep=False), x2="high:Q", color=series.color(table),
            opacity=series.opacity(),
        )  # fmt: skip
        bars.encoding.x.shorthand = "low:Q"
        points = base.mark_point().encode(
            y=y, x=x, color=series.color(table), shape=series.shape(table),
            opacity=series.opacity(), tooltip=tooltips(part),
        )  # fmt: skip
        panels.append((bars + points).properties(width=230, height=18 * len(names), title=name))
    return pick_in_legend(alt.concat(*panels, columns=2), series)


register(
    Figure(
        name="drift-comparison",
        topic="drift",
        title="Every method on every kind of drift, also where ours lose",
        caption=(
            "Dynamic regret (logarithmic) of linear regression on four kinds of drift. Colour says "
            "what a method is told: the drift itself, the whole stream in hindsight (constant, "
            "decay, cosine restarts and Adam at their best parameters), the noise variance only, "
            "or nothing. Schedules without feedback are exact; dots of the others are means over "
            "simulated streams, bars two standard errors.\n\n"
            "Notice that the filter beats the tuned constant on bursts, on periodic drift and "
            "without drift, but not on gradual drift, where it loses at full size; that a tuned "
            "a / (1 + b t) beats it without drift, and cosine restarts whose clock agrees with the "
            "drift's period beat it there; that restarts on an alarm are right for bursts only; "
            "and that half-batch estimates are too slow to win anywhere."
        ),
        source=(
            "Setting of Fahrbach et al., ICML 2023 (arXiv 2303.15634); estimators and comparison "
            "are additions"
        ),
        profiles={
            "quick": {
                "dim": 20, "noise": 0.25, "batch": 8, "steps": 600, "n_trials": 16, "seed": 3,
            },
            "paper": {
                "dim": 20, "noise": 0.25, "batch": 8, "steps": 1500, "n_trials": 200, "seed": 3,
            },
        },
        compute=regression_table,
        draw=draw_cells,
        claims=("drift/hindsight-table", "drift/filter-between", "drift/half-batches"),
    )
)  # fmt: skip
register(
    Figure(
        name="drift-logistic",
        topic="drift",
        title="Logistic regression: gradient noise instead of losses",
        caption=(
            "Dynamic regret in nats (logarithmic) of logistic regression whose optimum wanders on "
            "a sphere; dots are means over simulated streams, bars two standard errors. All "
            "methods but one have a learning rate that was tuned in hindsight on the same kind of "
            "stream; half-batches at 4 = 1 / smoothness are not tuned.\n\n"
            "Notice that half-batches lose here: the best constant has less regret on bursts and "
            "on gradual drift, and tuning their largest rate does not change that."
        ),
        source=(
            "Convex setting of Fahrbach et al., ICML 2023 (arXiv 2303.15634); estimators and "
            "comparison are additions"
        ),
        profiles={
            "quick": {
                "dim": 10, "batch": 8, "steps": 200, "n_trials": 16, "points": 4,
                "chosen": ("burst", "gradual"), "seed": 4,
            },
            "paper": {
                "dim": 20, "batch": 8, "steps": 1500, "n_trials": 100, "points": 9,
                "chosen": _STREAMS, "seed": 4,
            },
        },
        compute=logistic_table,
        draw=draw_cells,
        claims=("drift/half-batches", "drift/bounds-hold"),
    )
)  # fmt: skip
