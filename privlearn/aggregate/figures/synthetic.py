"""Figures of the linear model: theory lines, simulated dots."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn import simulate
from privlearn.aggregate import simulation, theory
from privlearn.aggregate.bag_building import Strategy, bag_building_risk
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_and_simulation,
    theory_line,
)

PAPER = "Javanmard et al. 2024 (arXiv 2401.11081)"


def bias_variance_table(
    *, n: int, p: int, k: int, signal: float, noise: float, n_trials: int, seed: int
) -> pl.DataFrame:
    """Theory on a fine grid of rho, simulation on a coarse one, one row a quantity and rho."""
    fine = np.geomspace(1e-3, 10, 121)
    coarse = np.geomspace(1e-3, 10, 13)
    curve = theory.risk(gamma=p / n, k=k, rho=fine, signal=signal, noise=noise)
    trial = simulation.interpolating_trial(n=n, p=p, k=k, rho=coarse, signal=signal, noise=noise)
    found = simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=n_trials, x64=True
    )
    frames = []
    for quantity, field in (("bias²", "bias"), ("variance", "variance"), ("risk", "total")):
        frames += [
            pl.DataFrame({"rho": fine, "theory": getattr(curve, field)}).with_columns(
                quantity=pl.lit(quantity)
            ),
            pl.DataFrame(
                {
                    "rho": coarse,
                    "mean": np.asarray(getattr(found.mean, field)),
                    "stderr": np.asarray(getattr(found.stderr, field)),
                }
            ).with_columns(quantity=pl.lit(quantity)),
        ]
    return pl.concat(frames, how="diagonal")


def draw_bias_variance(table: pl.DataFrame) -> alt.LayerChart:
    """Bias, variance and risk against rho."""
    return theory_and_simulation(
        table,
        x=alt.X("rho:Q", title="rho (0 = bag loss, 1 = instance loss)").scale(type="log"),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("quantity", title="", order=("bias²", "variance", "risk")),
        axis=alt.Y(title="Squared error"),
    )


register(
    Figure(
        name="aggregate-bias-variance",
        topic="aggregate",
        title="One knob between two losses: bias and variance against rho",
        caption=(
            "The interpolating loss mixes the bag loss (left end) and the instance loss (rho = 1). "
            "Variance falls and bias rises in rho, and the risk has its minimum in between. Lines "
            "are the exact asymptotic formulas, dots are simulations with two standard errors, "
            "mostly smaller than the dots."
        ),
        source=f"{PAPER}, risk against the regularisation parameter",
        profiles={
            "quick": {
                "n": 400,
                "p": 100,
                "k": 2,
                "signal": 2.0,
                "noise": 0.5,
                "n_trials": 40,
                "seed": 1,
            },
            "paper": {
                "n": 800,
                "p": 200,
                "k": 2,
                "signal": 2.0,
                "noise": 0.5,
                "n_trials": 400,
                "seed": 1,
            },
        },
        compute=bias_variance_table,
        draw=draw_bias_variance,
        claims=(
            "aggregate/interpolating-bias",
            "aggregate/interpolating-variance",
            "aggregate/interpolating-shrinkage",
            "aggregate/saddle-point-equals-closed-form",
        ),
    )
)


def double_descent_table(
    *, n: int, k: int, signal: float, noise: float, n_trials: int, n_dots: int, seed: int
) -> pl.DataFrame:
    """Risk against p / n for the bag loss, the instance loss and the best rho."""
    fine = np.unique(np.concatenate([np.geomspace(0.05, 2, 400), [0.249, 0.251, 0.995, 1.005]]))
    fine = fine[(abs(fine * k - 1) > 2e-3) & (abs(fine - 1) > 2e-3)]
    bag = theory.risk(gamma=fine, k=k, rho=0.0, signal=signal, noise=noise).total
    instance = theory.risk(gamma=fine, k=k, rho=1.0, signal=signal, noise=noise).total
    best = theory.best_rho(gamma=fine, k=k, signal=signal, noise=noise).risk
    names = ("bag loss (rho = 0)", "instance loss (rho = 1)", "best rho")
    frames = [
        pl.DataFrame({"gamma": fine, "theory": values}).with_columns(loss=pl.lit(name))
        for name, values in zip(names, (bag, instance, best), strict=True)
    ]
    for gamma in np.geomspace(0.05, 2, n_dots):
        p = round(gamma * n)
        if abs(p * k / n - 1) < 0.08 or abs(p / n - 1) < 0.08:
            continue  # at the peaks the mean over trials has no finite variance
        rho = theory.best_rho(gamma=p / n, k=k, signal=signal, noise=noise).rho
        rhos = np.array([0.0, 1.0, float(rho)])
        trial = simulation.interpolating_trial(n=n, p=p, k=k, rho=rhos, signal=signal, noise=noise)
        found = simulate.monte_carlo(
            trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=n_trials, x64=True
        )
        mean, stderr = np.asarray(found.mean.total), np.asarray(found.stderr.total)
        frames.append(
            pl.DataFrame({"gamma": [p / n] * 3, "mean": mean, "stderr": stderr, "loss": names})
        )
    return pl.concat(frames, how="diagonal")


def draw_double_descent(table: pl.DataFrame) -> alt.LayerChart:
    """Risk against p / n on logarithmic scales."""
    return theory_and_simulation(
        table,
        x=alt.X("gamma:Q", title="Features per sample, p / n").scale(type="log", nice=False),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series(
            "loss", title="", order=("bag loss (rho = 0)", "instance loss (rho = 1)", "best rho")
        ),
        axis=alt.Y(title="Risk").scale(type="log", domain=(0.1, 30), clamp=True),
        floor=0.1,
    )


register(
    Figure(
        name="aggregate-double-descent",
        topic="aggregate",
        title="Two interpolation peaks, one for each loss",
        caption=(
            "Risk against the number of features per sample at bag size 4. The bag loss explodes "
            "where features meet bags (p / n = 1/4), the instance loss where they meet instances "
            "(p / n = 1); around the first peak the instance loss is far better, elsewhere below "
            "it the bag loss wins. Beyond p = n every rho > 0 gives the same solution. The best "
            "rho avoids the first peak altogether."
        ),
        source=f"{PAPER}, risk against overparametrisation",
        profiles={
            "quick": {
                "n": 200,
                "k": 4,
                "signal": 2.0,
                "noise": 0.5,
                "n_trials": 30,
                "n_dots": 6,
                "seed": 2,
            },
            "paper": {
                "n": 400,
                "k": 4,
                "signal": 2.0,
                "noise": 0.5,
                "n_trials": 40,
                "n_dots": 16,
                "seed": 2,
            },
        },
        compute=double_descent_table,
        draw=draw_double_descent,
        claims=(
            "aggregate/bag-loss-exact",
            "aggregate/bag-loss-min-norm-exact",
            "aggregate/instance-loss-exact",
            "aggregate/overparametrised-exact",
        ),
    )
)


def snr_threshold_table(
    *, gamma: float, ks: Sequence[int], n: int, n_trials: int, n_dots: int, seed: int
) -> pl.DataFrame:
    """Ratio of instance to bag risk against SNR, with the predicted crossing of each k."""
    fine = np.geomspace(0.1, 10, 161)
    coarse = np.geomspace(0.1, 10, n_dots)
    p = round(gamma * n)
    frames = []
    for k in ks:
        bag = theory.risk(gamma=gamma, k=k, rho=0.0, signal=fine, noise=1.0).total
        instance = theory.risk(gamma=gamma, k=k, rho=1.0, signal=fine, noise=1.0).total
        at = float(theory.snr_threshold(gamma, k))
        frames.append(
            pl.DataFrame({"snr": fine, "theory": instance / bag}).with_columns(
                k=pl.lit(k), crossing=pl.lit(at)
            )
        )
        # Bias is linear in the signal: one simulation at signal 1 serves every SNR.
        trial = simulation.interpolating_trial(
            n=n, p=p, k=k, rho=np.array([0.0, 1.0]), signal=1.0, noise=1.0
        )
        runs = simulate.run_trials(
            trial, key=jax.random.key(seed + k), n_trials=n_trials, batch_size=n_trials, x64=True
        )
        bias, variance = np.asarray(runs.bias), np.asarray(runs.variance)
        risk = coarse[:, None, None] * bias + variance  # (snr, trial, rho)
        mean = risk.mean(axis=1)
        ratio = mean[:, 1] / mean[:, 0]
        # Delta method for a ratio of two means over the same trials.
        influence = risk[..., 1] - ratio[:, None] * risk[..., 0]
        stderr = influence.std(axis=1, ddof=1) / np.sqrt(n_trials) / mean[:, 0]
        frames.append(
            pl.DataFrame({"snr": coarse, "mean": ratio, "stderr": stderr}).with_columns(
                k=pl.lit(k), crossing=pl.lit(at)
            )
        )
    return pl.concat(frames, how="diagonal")


def draw_snr_threshold(table: pl.DataFrame) -> alt.LayerChart:
    """Risk ratio against SNR, level 1 and the crossings marked."""
    series = Series("k", title="Bag size k", order=sorted(table["k"].unique().to_list()))
    crossings = table.select("k", "crossing").unique().with_columns(level=pl.lit(1.0))
    marks = (
        alt.Chart(crossings)
        .mark_point(shape="diamond", size=140, filled=False, strokeWidth=2)
        .encode(
            x="crossing:Q",
            y="level:Q",
            color=series.color(table),
            tooltip=[alt.Tooltip("k:N"), alt.Tooltip("crossing:Q", format=".4g")],
        )
    )
    lines = theory_and_simulation(
        table,
        x=alt.X("snr:Q", title="Signal-to-noise ratio").scale(type="log", nice=False),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=series,
        axis=alt.Y(title="Risk of instance loss / risk of bag loss").scale(type="log"),
        floor=0.05,
    )
    return reference(y=1.0, label="equal") + lines + marks


register(
    Figure(
        name="aggregate-snr-threshold",
        topic="aggregate",
        title="Which loss wins depends on the signal-to-noise ratio",
        caption=(
            "Ratio of the instance loss's risk to the bag loss's, at p / n = 0.1. Below one the "
            "instance loss is better: that is so below a threshold that the theory gives exactly "
            "(diamonds), 0.70 at bag size 2 and 1.10 at bag size 4, and larger for larger bags. "
            "Dots are simulations with two standard errors."
        ),
        source=f"{PAPER}, the two losses compared; threshold re-derived and simulated",
        profiles={
            "quick": {
                "gamma": 0.1,
                "ks": (2, 4, 8),
                "n": 400,
                "n_trials": 60,
                "n_dots": 7,
                "seed": 3,
            },
            "paper": {
                "gamma": 0.1,
                "ks": (2, 4, 8),
                "n": 2000,
                "n_trials": 100,
                "n_dots": 13,
                "seed": 3,
            },
        },
        compute=snr_threshold_table,
        draw=draw_snr_threshold,
        claims=("aggregate/snr-threshold",),
    )
)


def best_rho_table(*, gammas: Sequence[float], k: int, noise: float) -> pl.DataFrame:
    """Best rho against SNR for several ratios p / n (theory only)."""
    snr = np.geomspace(0.05, 100, 200)
    frames = []
    for gamma in gammas:
        best = theory.best_rho(gamma=gamma, k=k, signal=snr * noise, noise=noise)
        frames.append(
            pl.DataFrame({"snr": snr, "rho": best.rho, "risk": best.risk}).with_columns(
                gamma=pl.lit(gamma)
            )
        )
    return pl.concat(frames)


def draw_best_rho(table: pl.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Best rho against SNR."""
    series = Series("gamma", title="p / n", order=sorted(table["gamma"].unique().to_list()))
    positive = table.filter(pl.col("rho") > 0)
    line = theory_line(
        positive,
        alt.X("snr:Q", title="Signal-to-noise ratio").scale(type="log", nice=False),
        "rho",
        series=series,
        axis=alt.Y(title="Best rho").scale(type="log"),
    )
    return (reference(y=1.0, label="instance loss") + line).add_params(series.picked)


register(
    Figure(
        name="aggregate-best-rho",
        topic="aggregate",
        title="The best rho falls with the signal",
        caption=(
            "The rho of least risk at bag size 4, from theory. With little signal it goes beyond "
            "1, more regularisation than the instance loss has; with much it goes to 0, the bag "
            "loss; in between it is typically 0.01 to 0.3. A curve ends where the minimum-norm bag "
            "solution (rho exactly 0, a separate point when features outnumber bags) takes over."
        ),
        source=f"{PAPER}; minimiser re-derived in closed form and checked against a grid",
        profiles={
            "quick": {"gammas": (0.05, 0.1, 0.2, 0.4), "k": 4, "noise": 1.0},
            "paper": {"gammas": (0.05, 0.1, 0.2, 0.4), "k": 4, "noise": 1.0},
        },
        compute=best_rho_table,
        draw=draw_best_rho,
        claims=("aggregate/best-rho",),
    )
)


STRATEGIES: tuple[Strategy, ...] = (
    "random",
    "feature-clustered",
    "prediction-sorted",
    "label-sorted",
)


def bag_building_table(
    *,
    n: int,
    p: int,
    k: int,
    rhos: Sequence[float],
    signal: float,
    noise: float,
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Risk of each way to make bags at several rho."""
    frames = []
    for strategy in STRATEGIES:
        found = bag_building_risk(
            strategy, n=n, p=p, k=k, rho=np.asarray(rhos), signal=signal, noise=noise,
            n_trials=n_trials, seed=seed,
        )  # fmt: skip
        frames.append(
            pl.DataFrame(
                {
                    "loss": [f"rho = {rho:g}" for rho in rhos],
                    "mean": np.asarray(found.mean),
                    "stderr": np.asarray(found.stderr),
                }
            ).with_columns(bags=pl.lit(strategy))
        )
    return pl.concat(frames)


def draw_bag_building(table: pl.DataFrame) -> alt.LayerChart:
    """Risk of each bagging, one colour a loss."""
    series = Series("loss", title="", order=table["loss"].unique(maintain_order=True).to_list())
    x = alt.X("bags:N", title="How the bags are made", sort=list(STRATEGIES)).axis(labelAngle=0)
    axis = alt.Y(title="Risk").scale(type="log")
    return pick_in_legend(
        error_bars(table, x, "mean", stderr="stderr", series=series, axis=axis, floor=1e-4)
        + dots(table, x, "mean", series=series, axis=axis),
        series,
    )


register(
    Figure(
        name="aggregate-bag-building",
        topic="aggregate",
        title="The right loss depends on how the bags were made",
        caption=(
            "Risk of the linear estimator for bags of 5 made in four ways. Bags of similar "
            "features suit the bag loss; bags sorted by a prediction suit the instance loss; bags "
            "sorted by the label itself make the bag loss biased, and who shares a bag then tells "
            "the labels, so they are not label-private. Dots are means over simulations with two "
            "standard errors."
        ),
        source=(
            "bag building after Agarwal et al. 2024 (arXiv 2411.19045) and Javanmard et al. 2024, "
            "PriorBoost (arXiv 2402.04987); the experiment is ours"
        ),
        profiles={
            "quick": {
                "n": 400,
                "p": 8,
                "k": 5,
                "rhos": (0.0, 0.1, 1.0),
                "signal": 1.0,
                "noise": 0.49,
                "n_trials": 15,
                "seed": 7,
            },
            "paper": {
                "n": 400,
                "p": 8,
                "k": 5,
                "rhos": (0.0, 0.1, 1.0),
                "signal": 1.0,
                "noise": 0.49,
                "n_trials": 400,
                "seed": 7,
            },
        },
        compute=bag_building_table,
        draw=draw_bag_building,
    )
)
