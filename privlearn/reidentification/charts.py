"""Charts of a report; each is an Altair chart with its data within."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import polars as pl

if TYPE_CHECKING:
    from privlearn.reidentification.histories import Classes
    from privlearn.reidentification.report import Linkage, ReidentificationReport

__all__ = ["class_chart", "report_charts", "risk_chart", "success_chart"]


def success_chart(linkage: Linkage) -> alt.LayerChart:
    """Success of each attack with its interval, beside guessing and the upper bounds."""
    attacks = pl.DataFrame(
        {
            "attack": list(linkage.success),
            "success": [rate.value for rate in linkage.success.values()],
            "lower": [rate.lower for rate in linkage.success.values()],
            "upper": [rate.upper for rate in linkage.success.values()],
        }
    )
    marks = pl.DataFrame(
        {
            "at": [
                1 / linkage.population,
                linkage.known_profiles.success,
                linkage.capacity_bound,
            ],
            "what": ["guessing", "knows all top sets", "bound for any attacker"],
        }
    )
    title = "Share of users found at first rank"
    scale = alt.Scale(type="symlog", constant=0.01, domainMin=0)
    base = alt.Chart(attacks).encode(y=alt.Y("attack:N", sort=None, title=None))
    bars = base.mark_rule().encode(x=alt.X("lower:Q", title=title, scale=scale), x2="upper:Q")
    dots = base.mark_point(filled=True).encode(x=alt.X("success:Q", title=title, scale=scale))
    rules = (
        alt.Chart(marks)
        .mark_rule(strokeDash=[4, 4])
        .encode(x="at:Q", color=alt.Color("what:N", sort=None, title=None))
    )
    return (rules + bars + dots).properties(
        title=f"Linkage among {linkage.population:,} users, {linkage.n_slices} slices"
    )


def risk_chart(linkage: Linkage) -> alt.Chart:
    """How many users have which chance of being found."""
    counts, edges = np.histogram(linkage.risk, bins=np.linspace(0, 1, 11))
    table = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "users": counts})
    return (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X("low:Q", title=f"Chance of being found by {linkage.best!r}").bin("binned"),
            x2="high:Q",
            y=alt.Y("users:Q", title="Users").scale(type="symlog"),
        )
        .properties(title="Risk of each user")
    )


def class_chart(classes: Classes) -> alt.Chart:
    """How many users share their quasi-identifiers with how many."""
    size, count = np.unique(classes.sizes, return_counts=True)
    table = pl.DataFrame({"size": size, "users": size * count})
    return (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X("size:O", title="Users with the same quasi-identifiers"),
            y=alt.Y("users:Q", title="Users"),
        )
        .properties(title=f"Classes of {', '.join(classes.columns)}")
    )


def report_charts(report: ReidentificationReport) -> alt.VConcatChart:
    """All charts of a report, one below the other."""
    charts: list[alt.Chart | alt.LayerChart] = [
        success_chart(report.linkage),
        risk_chart(report.linkage),
    ]
    if report.classes is not None:
        charts.append(class_chart(report.classes))
    return alt.vconcat(*charts)
