"""Figures on the Gaussian mixture: variance against floor, clusters, budget; coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import jax
import numpy as np
import polars as pl
from scipy import stats

from privlearn import simulate
from privlearn.causal import planner, simulation, theory
from privlearn.causal.mechanism import ClusterDP, ClusterFreeDP, UniformPriorDP
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    band,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_and_simulation,
    theory_line,
)

PAPER = "Javanmard, Mirrokni, Pouget-Abadie 2025 (arXiv 2308.00957)"
FAMILY = ("Cluster-DP", "Cluster-Free-DP", "Uniform, by cluster", "Uniform, thrown together")


def _estimate(trial: Any, n_trials: int, seed: int) -> simulate.Estimate:
    return simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=min(n_trials, 100)
    )


# ----------------------------------------------------------------------- variance against the floor


def floor_table(
    *,
    n: int,
    k: int,
    beta: float,
    lam: float,
    sigma: float,
    floors: Sequence[float],
    dots_at: Sequence[float],
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Variance against gamma K for the family at one lam, and what each costs."""
    people = simulation.gaussian_mixture(n, k, beta, seed)
    uniform = UniformPriorDP(people.grid, lam)
    rows: list[dict[str, Any]] = []
    kinds = ((ClusterDP, FAMILY[0]), (ClusterFreeDP, FAMILY[1]))
    for kind, name in kinds:
        for share in sorted({*floors, *dots_at}):
            mechanism = kind(people.grid, lam, share / k, sigma)
            gap = simulation.planned_gap(people, mechanism, n_draws=100, seed=seed)
            total = people.sampling_variance + gap
            rows.append(_row(share, name, mechanism, total))
    simulated: list[Any] = [
        kind(people.grid, lam, s / k, sigma) for kind, _ in kinds for s in dots_at
    ]
    names = [(name, s) for _, name in kinds for s in dots_at] + [(FAMILY[2], 1.0)]
    found = _estimate(simulation.experiment_trial(people, [*simulated, uniform]), n_trials, seed)
    for i, (name, share) in enumerate(names):
        mechanism = [*simulated, uniform][i]
        seen = {"mean": float(found.mean.square[i]), "stderr": float(found.stderr.square[i])}
        rows.append(_row(share, name, mechanism) | seen)
    for name, population in ((FAMILY[2], people), (FAMILY[3], people.merged())):
        flat = population.sampling_variance + simulation.planned_gap(population, uniform)
        rows += [_row(share, name, uniform, flat) for share in (min(floors), 1.0)]
    return pl.DataFrame(rows)


def _row(floor: float, name: str, mechanism: Any, theory: float | None = None) -> dict[str, Any]:
    return {
        "floor": floor,
        "mechanism": name,
        "theory": theory,
        "epsilon": mechanism.guarantee.epsilon,
        "mean": None,
        "stderr": None,
    }


def draw_floor(table: pl.DataFrame) -> alt.LayerChart:
    """Added variance against the floor."""
    return theory_and_simulation(
        table,
        x=alt.X("floor:Q", title="Floor, gamma K (1 = uniform prior)").scale(type="log"),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("mechanism", title="", order=FAMILY),
        axis=alt.Y(title="Variance of the estimated effect").scale(type="log"),
    )


register(
    Figure(
        name="causal-gap-floor",
        topic="causal",
        title="At one resampling probability, cluster priors give the smallest variance",
        caption=(
            "Variance of the estimated effect (sampling and privacy) against the floor of the "
            "priors; 3,500 units in three clusters two standard deviations apart, 12 values, lam = "
            "0.5 and sigma = 10. Lines: closed form, averaged over the noise of the priors. Dots: "
            "whole simulated experiments with two standard errors.\n\n"
            "The order is that of the paper. But privacy is not the same along the axis: epsilon "
            "(in the tooltip) falls from above 7 on the left to 2.6 on the right, and at equal "
            "epsilon the order is another one, see the frontier."
        ),
        source=f"{PAPER}, variance against gamma; the outcome model is ours",
        profiles={
            "quick": {
                "n": 3500,
                "k": 12,
                "beta": 2.0,
                "lam": 0.5,
                "sigma": 10.0,
                "floors": (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0),
                "dots_at": (0.1, 0.5),
                "n_trials": 300,
                "seed": 0,
            },
            "paper": {
                "n": 3500,
                "k": 12,
                "beta": 2.0,
                "lam": 0.5,
                "sigma": 10.0,
                "floors": (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0),
                "dots_at": (0.01, 0.1, 0.2, 0.5, 1.0),
                "n_trials": 2000,
                "seed": 0,
            },
        },
        compute=floor_table,
        draw=draw_floor,
        claims=("causal/simulated-variance", "causal/exact-variance-gap"),
    )
)


# ------------------------------------------------------------------------------------- the frontier

COMPETITORS = ("Cluster-DP", "Cluster-Free-DP", "one bit per outcome", "noisy histogram")


def frontier_table(
    *,
    n: int,
    k: int,
    beta: float,
    epsilons: Sequence[float],
    deltas: Sequence[float],
    n_draws: int,
    seeds: Sequence[int],
) -> pl.DataFrame:
    """Best variance at (epsilon, delta) relative to the uniform prior, over populations."""
    rows = []
    for epsilon in epsilons:
        for delta in deltas:
            found: dict[str, list[float]] = {name: [] for name in COMPETITORS}
            for seed in seeds:
                people = simulation.gaussian_mixture(n, k, beta, seed)
                chosen = planner.plan(
                    people.grid, people.sizes, people.shares, epsilon=epsilon, delta=delta,
                    n_draws=n_draws, random_state=seed,
                )  # fmt: skip
                flat = chosen["Uniform-Prior-DP"].gap
                for name, ratios in found.items():
                    gap = chosen[name].gap
                    # gamma K = 1 is in both families: they are never worse than uniform.
                    ratios.append(min(gap / flat, 1.0) if "DP" in name else gap / flat)
            for name, ratios in found.items():
                spread = float(np.std(ratios, ddof=1) / len(ratios) ** 0.5)
                rows.append((epsilon, delta, name, float(np.mean(ratios)), spread))
    columns = ["epsilon", "delta", "release", "ratio", "stderr"]
    table = pl.DataFrame(rows, schema=columns, orient="row")
    boundary = theory.boundary_delta(table["epsilon"].to_numpy(), k)
    return table.with_columns(boundary=pl.Series(boundary))


def draw_frontier(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel an epsilon; a dashed line where clusters should begin to pay."""
    series = Series("release", title="", order=COMPETITORS)
    x = alt.X("delta:Q", title="delta").scale(type="log")
    axis = alt.Y(title="Added variance / that of the uniform prior").scale(type="log")
    panels = []
    for epsilon in sorted(table["epsilon"].unique().to_list()):
        part = table.filter(pl.col("epsilon") == epsilon)
        panel = (
            theory_line(part, x, "ratio", series=series, axis=axis)
            + error_bars(part, x, "ratio", stderr="stderr", series=series, axis=axis)
            + dots(part, x, "ratio", series=series, axis=axis)
            + reference(x=float(part["boundary"][0]), label="(e^eps - 1) / K")
        )
        panels.append(panel.properties(title=f"epsilon = {epsilon:g}", width=250, height=260))
    return pick_in_legend(alt.hconcat(*panels).resolve_scale(y="shared"), series)


register(
    Figure(
        name="causal-frontier",
        topic="causal",
        title="Clusters pay only where delta is not small against (e^epsilon - 1) / K",
        caption=(
            "Smallest added variance of each release at the same (epsilon, delta), relative to "
            "K-ary randomised response (the uniform prior) with that budget; 3,500 units in three "
            "clusters, 12 values. Dots are means over populations with two standard errors.\n\n"
            "For small delta, and always at delta = 0, Cluster-DP is the uniform prior: no prior "
            "is better at equal epsilon. It wins to the right of the dashed line, where its best "
            "setting is to publish the true outcome with probability delta and else a draw from a "
            "private histogram: a delta of .05 means that about 5 % of the outcomes are told in "
            "clear. The noisy histogram and the one-bit outcomes use no delta; the histogram, "
            "which gives nothing per unit, is far below everything that does until delta is so "
            "large that a fifth of the outcomes leaks."
        ),
        source=f"privacy-variance frontier of {PAPER}, with the delta axis that decides it",
        profiles={
            "quick": {
                "n": 3500,
                "k": 12,
                "beta": 2.0,
                "epsilons": (0.2, 1.0),
                "deltas": (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
                "n_draws": 10,
                "seeds": (0, 1, 2),
            },
            "paper": {
                "n": 3500,
                "k": 12,
                "beta": 2.0,
                "epsilons": (0.2, 0.5, 1.0),
                "deltas": (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2),
                "n_draws": 100,
                "seeds": (0, 1, 2, 3, 4, 5, 6, 7),
            },
        },
        compute=frontier_table,
        draw=draw_frontier,
        claims=("causal/approximate-dp-gain", "causal/pure-dp-uniform-is-best"),
    )
)


# ---------------------------------------------------------------------------------- cluster quality


def quality_table(
    *,
    n: int,
    k: int,
    sigma: float,
    floor: float,
    betas: Sequence[float],
    lams: Sequence[float],
    seeds: Sequence[int],
) -> pl.DataFrame:
    """Added variance of Cluster-DP over that of Cluster-Free-DP against cluster separation."""
    rows = []
    for beta in betas:
        for lam in lams:
            ratios = []
            for seed in seeds:
                people = simulation.gaussian_mixture(n, k, beta, seed)
                gaps = [
                    simulation.planned_gap(
                        people, kind(people.grid, lam, floor / k, sigma), n_draws=60, seed=seed
                    )
                    for kind in (ClusterDP, ClusterFreeDP)
                ]
                ratios.append(gaps[0] / gaps[1])
            spread = float(np.std(ratios, ddof=1) / len(ratios) ** 0.5)
            rows.append((beta, lam, float(np.mean(ratios)), spread))
    return pl.DataFrame(rows, schema=["beta", "lam", "ratio", "stderr"], orient="row")


def draw_quality(table: pl.DataFrame) -> alt.LayerChart:
    """Ratio against separation, one line a resampling probability."""
    series = Series("lam", title="lam", order=sorted(table["lam"].unique().to_list()))
    x = alt.X("beta:Q", title="Distance of cluster means (standard deviations)")
    axis = alt.Y(title="Added variance, Cluster / Cluster-Free")
    return pick_in_legend(
        theory_line(table, x, "ratio", series=series, axis=axis)
        + band(table, x, "ratio", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "ratio", series=series, axis=axis)
        + reference(y=1.0, label="clusters do not matter"),
        series,
    )


register(
    Figure(
        name="causal-cluster-quality",
        topic="causal",
        title="The better the clusters, the less variance their priors add",
        caption=(
            "Variance added by Cluster-DP relative to Cluster-Free-DP (one prior per arm for all "
            "clusters) against how far apart the clusters are, at equal lam, sigma = 10 and gamma "
            "K = .1: the same privacy for both. Bands are two standard errors over populations. "
            "Without structure (left) clusters cost a few percent, because smaller cells get "
            "noisier priors; with it they save up to four fifths."
        ),
        source=f"{PAPER}, variance ratio against cluster quality; outcome model ours",
        profiles={
            "quick": {
                "n": 3500,
                "k": 12,
                "sigma": 10.0,
                "floor": 0.1,
                "betas": (0.0, 1.0, 2.0, 3.0, 4.5),
                "lams": (0.2, 0.5, 0.9),
                "seeds": (0, 1, 2, 3),
            },
            "paper": {
                "n": 3500,
                "k": 12,
                "sigma": 10.0,
                "floor": 0.1,
                "betas": (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
                "lams": (0.2, 0.5, 0.9),
                "seeds": tuple(range(12)),
            },
        },
        compute=quality_table,
        draw=draw_quality,
        claims=("causal/excess-identity", "causal/gap-bound"),
    )
)


# --------------------------------------------------------------------------- what practitioners use

WAYS = (
    "Uniform-Prior-DP",
    "Laplace on outcomes",
    "one bit per outcome",
    "noisy cell means",
    "noisy histogram",
)


def baselines_table(
    *, n: int, k: int, beta: float, epsilons: Sequence[float], seeds: Sequence[int]
) -> pl.DataFrame:
    """Added variance of pure-epsilon releases against epsilon, over populations."""
    rows = []
    for epsilon in epsilons:
        gaps: dict[str, list[float]] = {name: [] for name in WAYS}
        for seed in seeds:
            people = simulation.gaussian_mixture(n, k, beta, seed)
            chosen = planner.plan(
                people.grid, people.sizes, people.shares, epsilon=epsilon, floors=(), n_draws=1
            )
            for name, found in gaps.items():
                found.append(chosen[name].gap)
        for name, found in gaps.items():
            spread = float(np.std(found, ddof=1) / len(found) ** 0.5)
            rows.append((epsilon, name, float(np.mean(found)), spread))
    return pl.DataFrame(rows, schema=["epsilon", "release", "gap", "stderr"], orient="row")


def draw_baselines(table: pl.DataFrame) -> alt.LayerChart:
    """Added variance against epsilon."""
    series = Series("release", title="", order=WAYS)
    x = alt.X("epsilon:Q", title="epsilon (delta = 0)").scale(type="log", base=2)
    axis = alt.Y(title="Variance added by privacy").scale(type="log")
    return pick_in_legend(
        theory_line(table, x, "gap", series=series, axis=axis)
        + error_bars(table, x, "gap", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "gap", series=series, axis=axis),
        series,
    )


register(
    Figure(
        name="causal-baselines",
        topic="causal",
        title="Randomised response wins only at large epsilon, and aggregates win always",
        caption=(
            "Variance that pure privacy adds to the effect, for everything that a practitioner "
            "might do with 3,500 units in three clusters and 12 values; exact formulas, means over "
            "populations with two standard errors (which move because the range of the sample "
            "does). A private bit per outcome is best among releases per unit below epsilon of "
            "about 3, randomised response above. Private means or histograms of cells, which give "
            "nothing per unit, need hundreds of times less noise."
        ),
        source="Warner 1965; Duchi et al. 2018; Dwork et al. 2006; the comparison is ours",
        profiles={
            "quick": {
                "n": 3500,
                "k": 12,
                "beta": 0.0,
                "epsilons": (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
                "seeds": (0, 1, 2),
            },
            "paper": {
                "n": 3500,
                "k": 12,
                "beta": 0.0,
                "epsilons": (0.125, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
                "seeds": tuple(range(10)),
            },
        },
        compute=baselines_table,
        draw=draw_baselines,
        claims=(
            "causal/user-level-baselines",
            "causal/aggregate-baselines",
            "causal/uniform-is-randomized-response",
        ),
    )
)


# ----------------------------------------------------------------------------------------- coverage


def coverage_table(
    *,
    n: int,
    k: int,
    beta: float,
    sigma: float,
    gamma: float,
    lams: Sequence[float],
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Coverage of 95 % intervals, with Clopper-Pearson limits, and the size of the variance."""
    people = simulation.gaussian_mixture(n, k, beta, seed)
    family: list[tuple[float, Any]] = []
    for lam in lams:
        family += [
            (lam, ClusterDP(people.grid, lam, gamma, sigma)),
            (lam, ClusterFreeDP(people.grid, lam, gamma, sigma)),
            (lam, UniformPriorDP(people.grid, lam)),
        ]
    trial = simulation.experiment_trial(people, [mechanism for _, mechanism in family])
    found = _estimate(trial, n_trials, seed)
    rows = []
    for i, (lam, mechanism) in enumerate(family):
        hits = round(float(found.mean.covered[i]) * n_trials)
        interval = stats.binomtest(hits, n_trials).proportion_ci(0.95)
        ratio = float(found.mean.variance[i] / found.mean.square[i])
        rows.append((lam, mechanism.name, hits / n_trials, interval.low, interval.high, ratio))
    columns = ["lam", "mechanism", "coverage", "lower", "upper", "variance_ratio"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_coverage(table: pl.DataFrame) -> alt.LayerChart:
    """Coverage against the resampling probability."""
    series = Series("mechanism", title="")
    shift = alt.XOffset("mechanism:N")
    x = alt.X("lam:O", title="Resampling probability lam")
    axis = alt.Y(title="Coverage of 95 % intervals").scale(zero=False)
    bars = error_bars(table, x, "coverage", stderr=("lower", "upper"), series=series, axis=axis)
    points = dots(table, x, "coverage", series=series, axis=axis)
    layers = bars.encode(xOffset=shift) + points.encode(xOffset=shift)
    return pick_in_legend(layers + reference(y=0.95, label="nominal"), series)


register(
    Figure(
        name="causal-coverage",
        topic="causal",
        title="Intervals from the release alone cover as they should",
        caption=(
            "Share of simulated experiments whose 95 % interval, computed from the release alone, "
            "covers the true effect, with 95 % Clopper-Pearson limits; 1,000 units, three "
            "clusters, six values, sigma = 5, gamma = .02. The variance estimate can only be too "
            "large, by how much effects differ between units of a cluster."
        ),
        source=f"intervals for {PAPER}, derived here",
        profiles={
            "quick": {
                "n": 1000,
                "k": 6,
                "beta": 2.0,
                "sigma": 5.0,
                "gamma": 0.02,
                "lams": (0.3, 0.6),
                "n_trials": 500,
                "seed": 0,
            },
            "paper": {
                "n": 1000,
                "k": 6,
                "beta": 2.0,
                "sigma": 5.0,
                "gamma": 0.02,
                "lams": (0.1, 0.3, 0.6, 0.9),
                "n_trials": 10_000,
                "seed": 0,
            },
        },
        compute=coverage_table,
        draw=draw_coverage,
        claims=("causal/coverage", "causal/variance-estimate"),
    )
)
