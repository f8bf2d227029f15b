"""Figures on real randomised trials (villages, schools) and on a graph of communities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from privlearn import datasets
from privlearn.causal import planner, simulation
from privlearn.causal.baselines import LaplaceOutcome, NoisyHistogram, OneBitOutcome
from privlearn.causal.cells import Cells, build_cells
from privlearn.causal.estimation import EffectEstimator
from privlearn.causal.figures.seeded import seeded_codes, seeded_release, seeded_releases
from privlearn.causal.mechanism import ClusterDP, ClusterFreeDP, NoDP, UniformPriorDP
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    band,
    dots,
    error_bars,
    pick_in_legend,
    theory_line,
    tooltips,
)

PAPER = "Javanmard, Mirrokni, Pouget-Abadie 2025 (arXiv 2308.00957)"
BINARY = OutcomeGrid.of([0, 1])


def villages() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome (got the result), arm (any voucher) and village of the Malawi trial."""
    people = datasets.load_thornton_hiv().frame
    return (
        people["got"].to_numpy(),
        people["any"].to_numpy(),
        people["villnum"].astype(str).to_numpy(),
    )


def schools() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, arm (small class against regular class) and school of Project STAR, kindergarten."""
    pupils = datasets.load_star().frame
    two = pupils[pupils["class_type"] != "regular+aide"]
    return (
        two["score"].to_numpy(),
        (two["class_type"] == "small").to_numpy().astype(int),
        two["school"].astype(str).to_numpy(),
    )


def _true_shares(codes: np.ndarray, cells: Cells, k: int) -> np.ndarray:
    """Shares of the values in each cell: of the true outcomes, for predictions in figures only."""
    flat = np.bincount(cells.codes * k + codes, minlength=cells.sizes.size * k)
    return flat.reshape(-1, 2, k) / cells.sizes[..., None]


# ----------------------------------------------------------------------------- villages and merging

KINDS = ("Cluster-DP", "Cluster-Free-DP", "Uniform-Prior-DP")


def merging_table(
    *,
    lams: Sequence[float],
    sigma: float,
    gamma: float,
    min_cells: Sequence[int],
    n_releases: int,
    seed: int,
) -> pl.DataFrame:
    """Added variance on the village trial against how far small villages are merged."""
    y, z, village = villages()
    rows: list[dict[str, Any]] = []
    for least in min_cells:
        cells = build_cells(z, village, min_cell=least, small="merge")
        codes = BINARY.encode(y)
        plain = EffectEstimator().fit(NoDP(BINARY).release_codes(codes, cells)).tau_
        shares = _true_shares(codes, cells, 2)
        for lam in lams:
            mechanisms: list[Any] = [
                ClusterDP(BINARY, lam, gamma, sigma),
                ClusterFreeDP(BINARY, lam, gamma, sigma),
                UniformPriorDP(BINARY, lam),
            ]
            for mechanism in mechanisms:
                gap = _predicted(mechanism, shares, cells)
                taus = [
                    EffectEstimator().fit(release).tau_
                    for release in seeded_releases(
                        mechanism, codes, cells, n_releases, seed=seed + len(rows)
                    )
                ]
                square = (np.array(taus) - plain) ** 2
                rows.append(
                    {
                        "clusters": cells.n_clusters,
                        "lam": lam,
                        "mechanism": mechanism.name,
                        "epsilon": mechanism.guarantee.epsilon,
                        "theory": gap,
                        "mean": float(square.mean()),
                        "stderr": float(square.std(ddof=1) / n_releases**0.5),
                    }
                )
    return pl.DataFrame(rows)


def _predicted(mechanism: Any, shares: np.ndarray, cells: Cells) -> float:
    values = mechanism.grid.array
    spread, distance = planner.prior_moments(
        shares, cells.sizes, values, gamma=mechanism.exact_gamma,
        sigma=float(mechanism.sigma), pooled=mechanism.priors != "cell", n_draws=200,
    )  # fmt: skip
    return planner.expected_gap(shares, cells.sizes, values, mechanism.exact_lam, spread, distance)


def draw_merging(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a resampling probability."""
    series = Series("mechanism", title="", order=KINDS)
    x = alt.X("clusters:Q", title="Clusters (villages merged by size)").scale(type="log")
    axis = alt.Y(title="Variance added by privacy").scale(zero=True)
    panels = []
    for lam in sorted(table["lam"].unique().to_list()):
        part = table.filter(pl.col("lam") == lam)
        panel = (
            theory_line(part, x, "theory", series=series, axis=axis)
            + error_bars(part, x, "mean", stderr="stderr", series=series, axis=axis)
            + dots(part, x, "mean", series=series, axis=axis)
        )
        panels.append(panel.properties(title=f"lam = {lam:g}", width=280, height=260))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="causal-villages",
        topic="causal",
        title="Merging tiny villages helps every release, and cluster priors keep ahead",
        caption=(
            "The Malawi trial (does a voucher bring people to learn their HIV result? 2,830 people "
            "in 119 villages): variance that privacy adds to the effect, against how many "
            "clusters are left after merging small villages by size, for sigma = 10 and gamma = "
            ".05. Lines: closed form; dots: seeded releases with two standard errors.\n\n"
            "Tiny, unbalanced cells weigh heavily in a stratified estimate, so all curves fall as "
            "villages are merged; at lam = .8 Cluster-DP is best with a few dozen clusters, where "
            "priors are no longer noisy and groups still differ. The lead over pooled priors is "
            "largest for many clusters. All this is at equal lam, not at equal privacy: epsilon "
            "is in the tooltip."
        ),
        source=f"the method of {PAPER} on Thornton (2008), Amer. Econ. Rev. 98",
        profiles={
            "quick": {
                "lams": (0.5, 0.8),
                "sigma": 10.0,
                "gamma": 0.05,
                "min_cells": (2, 5, 15, 40, 120),
                "n_releases": 120,
                "seed": 3,
            },
            "paper": {
                "lams": (0.5, 0.8),
                "sigma": 10.0,
                "gamma": 0.05,
                "min_cells": (2, 3, 5, 8, 15, 25, 40, 70, 120, 250),
                "n_releases": 2000,
                "seed": 3,
            },
        },
        compute=merging_table,
        draw=draw_merging,
        claims=("causal/exact-variance-gap", "causal/excess-identity"),
    )
)


# -------------------------------------------------------------------------- the effect, both trials

RELEASES = (
    "No-DP",
    "noisy histogram",
    "one bit per outcome",
    "Laplace on outcomes",
    "Uniform-Prior-DP",
    "Cluster-DP",
    "Cluster-Free-DP",
)


def effects_table(
    *, epsilons: Sequence[float], min_cell: int, bounds: tuple[float, float], points: int, seed: int
) -> pl.DataFrame:
    """One seeded release each of both trials: effect and interval."""
    rows: list[tuple[Any, ...]] = []
    trials = (
        ("HIV results (share)", BINARY, villages()),
        ("STAR scores (points)", OutcomeGrid.rounding(bounds, points), schools()),
    )
    for title, grid, (y, z, cluster) in trials:
        cells = build_cells(z, cluster, min_cell=min_cell, small="merge")
        codes = seeded_codes(grid, y, seed=seed)
        for epsilon in epsilons:
            mechanisms: list[Any] = [
                NoDP(grid),
                NoisyHistogram(grid, epsilon),
                OneBitOutcome(grid, epsilon),
                LaplaceOutcome(grid, epsilon),
                UniformPriorDP.for_budget(grid, epsilon),
                ClusterDP.for_budget(grid, epsilon, gamma=0.5 / grid.k),
                ClusterFreeDP.for_budget(grid, epsilon, gamma=0.5 / grid.k),
            ]
            for mechanism in mechanisms:
                release = seeded_release(mechanism, codes, cells, seed=seed + len(rows))
                fitted = EffectEstimator().fit(release)
                low, high = fitted.interval_
                rows.append((title, epsilon, release.mechanism, fitted.tau_, low, high))
    columns = ["trial", "epsilon", "release", "effect", "lower", "upper"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_effects(table: pl.DataFrame) -> alt.VConcatChart:
    """Effect with interval, one panel a trial and epsilon."""
    rows = []
    for trial in table["trial"].unique(maintain_order=True):
        panels = []
        for epsilon in table["epsilon"].unique(maintain_order=True):
            part = table.filter((pl.col("trial") == trial) & (pl.col("epsilon") == epsilon))
            y = alt.Y("release:N", title="", sort=list(RELEASES))
            base = alt.Chart(part)
            bars = base.mark_rule().encode(
                y=y, x=alt.X("lower:Q", title="Effect, 95 % interval"), x2="upper:Q"
            )
            point = base.mark_point(filled=True).encode(y=y, x="effect:Q", tooltip=tooltips(part))
            zero = alt.Chart(pl.DataFrame({"at": [0.0]})).mark_rule(strokeDash=[3, 3])
            panel = bars + point + zero.encode(x="at:Q")
            panels.append(
                panel.properties(title=f"{trial}, epsilon = {epsilon:g}", width=260, height=150)
            )
        rows.append(alt.hconcat(*panels))
    return alt.vconcat(*rows)


register(
    Figure(
        name="causal-real-effects",
        topic="causal",
        title="What two real trials still say after a private release",
        caption=(
            "Effect and 95 % interval from one release each, at the same pure epsilon: vouchers on "
            "learning an HIV result (2,830 people, villages merged into districts) and small "
            "classes on test scores (3,700 pupils of Project STAR; scores rounded at random to a "
            "public grid, which keeps the effect unbiased). Noise is seeded here, so that the "
            "figure can be drawn again; real releases draw from the operating system. The large "
            "effect of vouchers survives a release per person; that of small classes, a seventh "
            "of a standard deviation, needs a release per school (noisy histogram) or a "
            "large epsilon."
        ),
        source="Thornton 2008; Project STAR through Stock and Watson 2007; releases ours",
        profiles={
            "quick": {
                "epsilons": (1.0, 4.0),
                "min_cell": 60,
                "bounds": (700.0, 1250.0),
                "points": 12,
                "seed": 4,
            },
            "paper": {
                "epsilons": (0.5, 1.0, 4.0),
                "min_cell": 60,
                "bounds": (700.0, 1250.0),
                "points": 12,
                "seed": 4,
            },
        },
        compute=effects_table,
        draw=draw_effects,
        claims=("causal/unbiased", "causal/randomised-rounding", "causal/coverage"),
    )
)


# --------------------------------------------------------------------------- communities of a graph


def community_table(
    *, noises: Sequence[float], lam: float, sigma: float, floor: float, seeds: Sequence[int], n: int
) -> pl.DataFrame:
    """Added variance on a graph of communities, relative to the uniform prior."""
    rows = []
    for noise in noises:
        ratios: dict[str, list[float]] = {"Cluster-DP": [], "Cluster-Free-DP": []}
        share = []
        for seed in seeds:
            users = simulation.communities(seed, n=n, noise=noise)
            flat = simulation.planned_gap(users, UniformPriorDP(users.grid, lam))
            for kind in (ClusterDP, ClusterFreeDP):
                mechanism = kind(users.grid, lam, floor / users.grid.k, sigma)
                gap = simulation.planned_gap(users, mechanism, n_draws=60, seed=seed)
                ratios[mechanism.name].append(gap / flat)
            share.append(1 - users.sampling_variance / users.merged().sampling_variance)
        for name, found in ratios.items():
            spread = float(np.std(found, ddof=1) / len(found) ** 0.5)
            rows.append((noise, float(np.mean(share)), name, float(np.mean(found)), spread))
    columns = ["noise", "explained", "mechanism", "ratio", "stderr"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_community(table: pl.DataFrame) -> alt.LayerChart:
    """Ratio against how much communities explain."""
    series = Series("mechanism", title="", order=KINDS[:2])
    x = alt.X("explained:Q", title="Share of the variance that communities explain")
    axis = alt.Y(title="Added variance / that of the uniform prior, same lam")
    return pick_in_legend(
        theory_line(table, x, "ratio", series=series, axis=axis)
        + band(table, x, "ratio", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "ratio", series=series, axis=axis),
        series,
    )


register(
    Figure(
        name="causal-communities",
        topic="causal",
        title="Communities of a graph as clusters: useful if they explain the outcome",
        caption=(
            "Users of a stochastic block model with 50 communities of power-law sizes; outcomes "
            "depend on the size and density of the community. Added variance relative to the "
            "uniform prior at the same lam against how much of the sampling variance communities "
            "explain, gamma K = .1 and sigma = 10. Bands: two standard errors over graphs. The "
            "more communities explain, the less cluster priors add; where they explain a third, "
            "the noise of a hundred priors has eaten the advantage over pooled ones."
        ),
        source=f"stands in for the social-network experiment of {PAPER}",
        profiles={
            "quick": {
                "noises": (0.15, 0.3, 0.6, 1.2, 2.4),
                "lam": 0.5,
                "sigma": 10.0,
                "floor": 0.1,
                "seeds": (0, 1, 2, 3),
                "n": 22_000,
            },
            "paper": {
                "noises": (0.1, 0.15, 0.3, 0.45, 0.6, 0.9, 1.2, 1.8, 2.4),
                "lam": 0.5,
                "sigma": 10.0,
                "floor": 0.1,
                "seeds": tuple(range(12)),
                "n": 22_000,
            },
        },
        compute=community_table,
        draw=draw_community,
        claims=("causal/exact-variance-gap",),
    )
)
