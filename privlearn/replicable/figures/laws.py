"""The exact laws beside simulation, and the masses that meet the threshold."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, theory_and_simulation
from privlearn.replicable import replicable_round, replicable_threshold, theory
from privlearn.replicable.quadtree import grow
from privlearn.replicable.report import clopper_pearson
from privlearn.replicable.simulation import SAMPLERS

PAPER = "Esfandiari et al. 2023 (arXiv 2302.10359)"
_LAWS = (
    "rounded to a grid of .1",
    "against a threshold on [.25, .35]",
    "... of mass .25, at its end",
)


def laws_table(
    *, p: float, alpha: float, low: float, high: float, n_dots: int, n_trials: int, seed: int
) -> pl.DataFrame:
    """P(two runs differ) against n: exact, and simulated through the public functions."""
    fine = np.unique(np.geomspace(20, 1e6, 60).astype(int))
    coarse = np.unique(np.geomspace(30, 3e5, n_dots).astype(int))
    exact = {
        _LAWS[0]: lambda n: theory.rounding_differs(n, p, alpha),
        _LAWS[1]: lambda n: theory.threshold_differs(n, p, low, high),
        _LAWS[2]: lambda n: theory.threshold_differs(n, low, low, high),
    }
    masses = dict(zip(_LAWS, (p, p, low), strict=True))
    rows = [
        {"n": int(n), "law": name, "theory": law(int(n))}
        for name, law in exact.items()
        for n in fine
    ]
    trials = np.arange(n_trials)
    for number, n in enumerate(coarse):
        rng = np.random.default_rng([seed, number])
        for name in _LAWS:
            v = rng.binomial(n, masses[name], (2, n_trials)) / n
            if name == _LAWS[0]:
                one, two = replicable_round(v, alpha=alpha, shared_seed=seed, labels=trials)
            else:
                at = replicable_threshold(low=low, high=high, shared_seed=seed, label=trials)
                one, two = v >= at
            hits = int((one != two).sum())
            lower, upper = clopper_pearson(hits, n_trials)
            rows.append(
                {"n": int(n), "law": name, "mean": hits / n_trials, "lower": lower, "upper": upper}
            )
    schema = dict.fromkeys(("theory", "mean", "lower", "upper"), pl.Float64)
    return pl.DataFrame(rows, schema={"n": pl.Int64, "law": pl.String, **schema})


def draw_laws(table: pl.DataFrame) -> alt.LayerChart:
    """Probability against rows, logarithmic."""
    return theory_and_simulation(
        table,
        x=alt.X("n:Q", title="Rows of each run").scale(type="log"),
        theory="theory",
        mean="mean",
        stderr=("lower", "upper"),
        series=Series("law", title="", order=_LAWS),
        axis=alt.Y(title="P(two runs differ)").scale(type="log"),
    )


register(
    Figure(
        name="replicable-laws",
        topic="replicable",
        title="How often shared rounding and shared thresholds fail, exactly",
        caption=(
            "Probability that two independent samples, after rounding a frequency (p = .3) on a "
            "shared grid or comparing it with a shared random threshold, give different results. "
            "Lines: exact sums over the binomial law. Dots: simulations through the public "
            "functions (20,000 pairs each, 200,000 in the paper profile; seed 1) with 95 % "
            "intervals. It falls only like one over the root of n: ten times fewer failures cost "
            "a hundred times more rows. A mass at the very end of the range fails half as often, "
            "since half of the gap is cut off."
        ),
        source=f"laws derived here for the constructions of Impagliazzo et al. 2022 and {PAPER}",
        profiles={
            "quick": {
                "p": 0.3,
                "alpha": 0.1,
                "low": 0.25,
                "high": 0.35,
                "n_dots": 8,
                "n_trials": 20_000,
                "seed": 1,
            },
            "paper": {
                "p": 0.3,
                "alpha": 0.1,
                "low": 0.25,
                "high": 0.35,
                "n_dots": 16,
                "n_trials": 200_000,
                "seed": 1,
            },
        },
        compute=laws_table,
        draw=draw_laws,
        claims=("replicable/rounding*", "replicable/threshold*"),
    )
)


def band_table(*, ns: Sequence[int], n_samples: int, seed: int) -> pl.DataFrame:
    """Masses of the level-2 cells of both distributions in many samples, and the window."""
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    second = plan.levels[1]
    rows = []
    for name, sampler in SAMPLERS.items():
        for n in ns:
            for sample in range(n_samples):
                points = sampler(n, np.random.default_rng([seed, n, sample]))
                tested = grow(points, plan.levels[:2], shared_seed=seed).levels[1]
                rows += [{"distribution": name, "n": n, "mass": float(m)} for m in tested.masses]
    width = 0.005
    return (
        pl.DataFrame(rows)
        .with_columns(bin=(pl.col("mass") / width).floor() * width)
        .group_by("distribution", "n", "bin")
        .agg(cells=pl.len() / n_samples)
        .with_columns(end=pl.col("bin") + width, low=second.low, high=second.high)
        .sort("distribution", "n", "bin")
    )


def draw_band(table: pl.DataFrame) -> alt.HConcatChart:
    """Histograms of cell masses, one panel a distribution and n, the band of thresholds behind."""
    low, high = table["low"][0], table["high"][0]
    x = alt.X("bin:Q", title="Mass of a cell of level 2").scale(domain=(0, 0.3))
    panels = []
    for name in table["distribution"].unique(maintain_order=True):
        column = []
        part = table.filter(pl.col("distribution") == name)
        for n in part["n"].unique(maintain_order=True):
            rows = part.filter(pl.col("n") == n)
            band = (
                alt.Chart(pl.DataFrame({"low": [low], "high": [high]}))
                .mark_rect(opacity=0.25, color="#E69F00", tooltip=None)
                .encode(x=alt.X("low:Q"), x2="high:Q")
            )
            bars = (
                alt.Chart(rows)
                .mark_bar()
                .encode(
                    x=x, x2="end:Q", y=alt.Y("cells:Q", title="Cells a sample"), y2=alt.datum(0),
                    tooltip=[alt.Tooltip(f"{field}:Q", format=".3g") for field in ("bin", "cells")],
                )
            )  # fmt: skip
            column.append(
                (band + bars).properties(title=f"{name}, n = {n:,}", width=270, height=110)
            )
        panels.append(alt.vconcat(*column))
    return alt.hconcat(*panels)


register(
    Figure(
        name="replicable-threshold-band",
        topic="replicable",
        title="Which cells decide: masses beside the range of the threshold",
        caption=(
            "Masses of the 16 cells of level 2, averaged over 100 samples (1,000 in the paper "
            "profile; seed 3), and in orange the range [.1437, .1797] from which the one threshold "
            "is drawn that both runs share. A cell is at risk only if the threshold falls within "
            "its own sampling spread. The blobs' cells of the mixture have mass .177, inside the "
            "range: no number of rows takes them out of it, more rows only narrow the bars. So "
            "have the two heaviest cells of the moons, with .167."
        ),
        source=f"replicable quad tree of {PAPER}, settings of the authors' experiments",
        profiles={
            "quick": {"ns": (1_000, 16_000), "n_samples": 100, "seed": 3},
            "paper": {"ns": (1_000, 16_000, 138_990), "n_samples": 1_000, "seed": 3},
        },
        compute=band_table,
        draw=draw_band,
        claims=("replicable/threshold*", "replicable/same-leaves"),
    )
)
