"""A real stream: late flights, month by month."""

from __future__ import annotations

from typing import Any

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn.drift import real_data
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line

_WEEK = 7


def flights_table(
    *,
    batch: int,
    months: tuple[int, int],
    methods: tuple[str, ...],
    n_seeds: int,
    points: int,
    width: int,
    seed: int,
) -> pl.DataFrame:
    """Mean log loss of each week and method, and its difference from the best constant."""
    batches = real_data.flight_batches(batch, months=tuple(months))  # type: ignore[arg-type]
    found = real_data.contest(
        batches,
        methods=tuple(methods),
        n_seeds=n_seeds,
        key=jax.random.key(seed),
        points=points,
        width=width,
    )
    week = (batches.day - batches.day[0]) // _WEEK
    constant = found[0].loss
    late = [float(batches.labels[week == w].mean()) for w in range(week.max() + 1)]
    rows = []
    for outcome in found:
        gap = outcome.loss - constant  # starts are paired: the same first weights
        total = gap.mean(axis=1)
        label = f"{outcome.method} ({outcome.parameter:.2g}): {outcome.loss.mean():.4f}"
        for w in range(week.max() + 1):
            own = gap[:, week == w].mean(axis=1)
            rows.append(
                {
                    "method": label,
                    "week": w + 1,
                    "late": late[w],
                    "loss": float(outcome.loss[:, week == w].mean()),
                    "gap": float(own.mean()),
                    "gap_se": float(own.std(ddof=1) / np.sqrt(n_seeds)),
                    "total_gap": float(total.mean()),
                    "total_se": float(total.std(ddof=1) / np.sqrt(n_seeds)),
                }
            )
    return pl.DataFrame(rows)


def draw_flights(table: pl.DataFrame) -> Any:
    """The share of late flights above, differences from the best constant below."""
    series = Series("method", title="Method (rate): mean log loss")
    x = alt.X("week:Q", title="Week of the stream").axis(tickMinStep=1)
    first = table.filter(pl.col("method") == table["method"][0])
    share = theory_line(first, x, "late", axis=alt.Y(title="Late flights").axis(format="%"))
    axis = alt.Y(title="Log loss less best constant")
    gaps = (
        theory_line(table, x, "gap", series=series, axis=axis)
        + error_bars(table, x, "gap", stderr="gap_se", series=series, axis=axis)
        + dots(table, x, "gap", series=series, axis=axis)
    )
    return pick_in_legend(
        alt.vconcat(share.properties(width=560, height=90), gaps.properties(width=560, height=260)),
        series,
    )


register(
    Figure(
        name="drift-flights",
        topic="drift",
        title="Late flights: on this stream a well-tuned constant is hard to beat",
        caption=(
            "A small network predicts from the timetable whether each departure from New York in "
            "2013 will be late; every batch is predicted first and learnt from after. Above: the "
            "share of late flights by week, which is what drifts. Below: log loss by week, less "
            "that of the best constant learning rate; dots are means over first weights (paired), "
            "bars two standard errors over them. They do not cover what another year would "
            "bring.\n\n"
            "All rates but that of half-batches at 1 were tuned in hindsight on this very stream. "
            "Notice that half-batches, which nobody tuned, stay close to the best constant and do "
            "not beat it, and that Adam does worse. At full size decay, cosine restarts by the "
            "calendar and half-batches with a tuned largest rate are shown too."
        ),
        source="An addition; the paper's own real stream is single-cell data",
        profiles={
            "quick": {
                "batch": 256, "months": (7, 7),
                "methods": ("best constant", "best Adam", "half-batches, largest rate 1"),
                "n_seeds": 4, "points": 4, "width": 8, "seed": 5,
            },
            "paper": {
                "batch": 64, "months": (1, 12), "methods": tuple(real_data.FAMILIES),
                "n_seeds": 10, "points": 9, "width": 16, "seed": 5,
            },
        },
        compute=flights_table,
        draw=draw_flights,
        claims=("drift/noise-scale-form",),
    )
)  # fmt: skip
