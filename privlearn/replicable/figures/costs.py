"""What replicability costs: against the width of the grids, and on real tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl
from sklearn.cluster import KMeans

from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, pick_in_legend
from privlearn.replicable import real_data
from privlearn.replicable.estimators import ReplicableKMeans
from privlearn.replicable.simulation import SAMPLERS

from .rates import draw_comparison, measured

PAPER = "Esfandiari et al. 2023 (arXiv 2302.10359)"


def frontier_table(
    *,
    settings: Sequence[tuple[str, int]],
    mean_grids: Sequence[float],
    epsilons: Sequence[float],
    n: int,
    n_pairs: int,
    seed: int,
) -> pl.DataFrame:
    """Rate and cost of cell centres and of rounded means for several grids and depths."""
    rows = []
    for distribution, k in settings:
        for epsilon in epsilons:
            common: dict[str, Any] = {"epsilon": epsilon, "opt": 0.5, "bounds": (-1.01, 1.01)}
            models: list[tuple[str, float, dict[str, Any]]] = [
                ("cell centres", 0.0, {"representative": "centre"})
            ]
            models += [("rounded means", grid, {"mean_grid": grid}) for grid in mean_grids]
            for what, grid, options in models:
                report = measured(
                    ReplicableKMeans(k, **common, **options), SAMPLERS[distribution], n_samples=n,
                    n_pairs=n_pairs, seed=seed,
                )  # fmt: skip
                rows.append(
                    {
                        "setting": f"{distribution}, k = {k}",
                        "what": f"{what}, epsilon {epsilon:g}", "grid": grid, "rate": report.rate,
                        "lower": report.interval[0], "upper": report.interval[1],
                        "cost_ratio": report.cost_ratio, "forecast": report.forecast,
                        "cost_lower": report.cost_ratio - 2 * report.cost_ratio_stderr,
                        "cost_upper": report.cost_ratio + 2 * report.cost_ratio_stderr,
                        "pairs": n_pairs, "n": n,
                    }
                )  # fmt: skip
    return pl.DataFrame(rows)


def draw_frontier(table: pl.DataFrame) -> alt.HConcatChart:
    """Cost against rate, one panel a setting, lines along the grids."""
    series = Series("what", title="")
    panels = []
    for setting in table["setting"].unique(maintain_order=True):
        rows = table.filter(pl.col("setting") == setting)
        panels.append(_cost_against_rate(rows, table, series).properties(title=setting, width=270))
    return pick_in_legend(alt.hconcat(*panels), series)


def _cost_against_rate(rows: pl.DataFrame, table: pl.DataFrame, series: Series) -> alt.LayerChart:
    x = alt.X("rate:Q", title="Share of pairs that agree exactly").scale(domain=(0, 1))
    y = alt.Y("cost_ratio:Q", title="Cost over that of k-means").scale(type="log", nice=False)
    base = alt.Chart(rows).encode(color=series.color(table), opacity=series.opacity())
    tips = [
        alt.Tooltip("what:N"), alt.Tooltip("grid:Q"), alt.Tooltip("rate:Q", format=".3f"),
        alt.Tooltip("forecast:Q", format=".3f"), alt.Tooltip("cost_ratio:Q", format=".3f"),
        alt.Tooltip("pairs:Q"), alt.Tooltip("n:Q"),
    ]  # fmt: skip
    line = base.mark_line(strokeWidth=1, tooltip=None).encode(x=x, y=y, order="grid:Q")
    across = base.mark_rule(tooltip=None, strokeWidth=1).encode(
        x=alt.X("lower:Q"), x2="upper:Q", y=y
    )
    along = base.mark_rule(tooltip=None, strokeWidth=1).encode(
        x=x, y=alt.Y("cost_lower:Q"), y2="cost_upper:Q"
    )
    points = base.mark_point().encode(x=x, y=y, shape=series.shape(table), tooltip=tips)
    return line + across + along + points


register(
    Figure(
        name="replicable-frontier",
        topic="replicable",
        title="Rate against cost: cell centres, or means on a grid",
        caption=(
            "Share of pairs that agree exactly against cost over that of k-means, for coresets of "
            "cell centres (the paper) and of rounded means (ours) whose grid is .1, .2 or .4 of a "
            "leaf's side (along each line, coarser to the right). 8,000 rows, 24 pairs a dot "
            "(64,000 and 100 in the paper profile, with more grids and a finer tree), costs from "
            "half of them; seed 9; 95 % Clopper-Pearson intervals across, two standard errors "
            "along. Means take away most of the extra cost; the price is agreement, the more the "
            "finer the grid. Hover for the forecast that the fits made of themselves."
        ),
        source=f"coreset of {PAPER}; rounded means derived and measured here",
        profiles={
            "quick": {
                "settings": (("mixture", 3), ("moons", 3)),
                "mean_grids": (0.1, 0.2, 0.4),
                "epsilons": (0.99,),
                "n": 8_000,
                "n_pairs": 24,
                "seed": 9,
            },
            "paper": {
                "settings": (("mixture", 3), ("mixture", 4), ("moons", 3)),
                "mean_grids": (0.05, 0.1, 0.2, 0.4, 0.8),
                "epsilons": (0.99, 0.8),
                "n": 64_000,
                "n_pairs": 100,
                "seed": 9,
            },
        },
        compute=frontier_table,
        draw=draw_frontier,
        claims=("replicable/means", "replicable/masses-shared-offset"),
    )
)


_TABLES = {
    "flight destinations": (real_data.flight_destinations, 5),
    "diamonds": (real_data.diamonds, 3),
    "digits": (real_data.digits, 5),
}


def real_table(*, tables: Sequence[str], n_most: int, n_pairs: int, seed: int) -> pl.DataFrame:
    """Rates and costs from disjoint parts of real tables."""
    rows = []
    for name in tables:
        load, k = _TABLES[name]
        table = load()
        n = min(n_most, len(table) // 2)
        methods = {
            "k-means": KMeans(k, n_init=3),
            "replicable, defaults": ReplicableKMeans(k),
            "replicable, calibrated to n": ReplicableKMeans(k, sample_size=n),
            "replicable, cell centres": ReplicableKMeans(k, representative="centre"),
        }
        for method, model in methods.items():
            report = measured(model, table, n_samples=n, n_pairs=n_pairs, seed=seed)
            rows.append(
                {
                    "setting": f"{name}, k = {k}, n = {n:,}", "method": method,
                    "rate": report.rate, "lower": report.interval[0], "upper": report.interval[1],
                    "disagreement": report.disagreement, "cost_ratio": report.cost_ratio,
                    "cost_stderr": report.cost_ratio_stderr, "forecast": report.forecast,
                    "pairs": n_pairs, "n": n,
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def draw_real(table: pl.DataFrame) -> alt.VConcatChart:
    """As the comparison on simulated data."""
    return draw_comparison(table)


register(
    Figure(
        name="replicable-real-data",
        topic="replicable",
        title="Real tables: segments of two halves",
        caption=(
            "Two disjoint random parts of a real table, clustered separately with one seed: how "
            "often the partitions of the plane are exactly equal, and the cost over that of "
            "k-means. Longitude and latitude where 329,174 flights went; logarithms of carat and "
            "price of 53,940 diamonds; two principal components of 1,797 digits. Quick profile: at "
            "most 10,000 rows a part and 15 pairs; paper profile: halves and 100 pairs; seed 11. "
            "95 % Clopper-Pearson intervals, for random parts of this table; two standard errors "
            "of the cost. With 898 rows a half the digits are far too few for exact agreement, and "
            "the fits say so beforehand (forecast in the tooltip)."
        ),
        source=f"method of {PAPER}; tables from nycflights13, ggplot2 and scikit-learn",
        profiles={
            "quick": {
                "tables": ("flight destinations", "diamonds", "digits"),
                "n_most": 10_000,
                "n_pairs": 15,
                "seed": 11,
            },
            "paper": {
                "tables": ("flight destinations", "diamonds", "digits"),
                "n_most": 1_000_000,
                "n_pairs": 100,
                "seed": 11,
            },
        },
        compute=real_table,
        draw=draw_real,
    )
)
