"""Figures of the Gaussian mixture: risk, gain, ridge. Theory as lines, simulation as dots."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn import simulate
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
from privlearn.lookalike import theory
from privlearn.lookalike.populations import Case
from privlearn.lookalike.simulation import cases_trial, mean_risk, one_blas_thread
from privlearn.lookalike.theory import GaussianMixtureModel

PAPER = "Javanmard and Mirrokni 2023 (arXiv 2310.04015)"
NAMES = {
    "base": "own features",
    "known": "look-alike, true centres",
    "empirical": "look-alike, cluster averages",
    "drop": "no sensitive features",
}
ESTIMATOR = Series("estimator", title="Trained on", order=tuple(NAMES.values()))
RATIO = alt.X("psi_d:Q", title="Features per training row, d / n").scale(
    type="log", domain=(0.3, 3.2), nice=False
)


def mixture(ths: float, *, norm: float = 2.0, alignment: float = 0.5) -> GaussianMixtureModel:
    """Three balanced clusters with orthogonal centres; theta along the sum of the centres."""
    return GaussianMixtureModel.orthogonal(
        n_clusters=3, norm=norm, alignment=alignment, signal_sensitive=ths**2, signal_public=1.0,
        noise=0.25,
    )  # fmt: skip


def simulated(
    cases: Sequence[Case], *, n: int, psi_d: float, psi_p: float, n_trials: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean risk of every case and its standard error."""
    p = round(psi_p * n)
    trial = cases_trial(cases, n=n, p=p, q=round(psi_d * n) - p, n_responses=8)
    found = mean_risk(trial, seed=seed, n_trials=n_trials)
    return np.asarray(found.mean.total), np.asarray(found.stderr.total)


# ------------------------------------------------------------------------------- risk against d / n


def psid_table(
    *, psi_p: float, ths: float, n: int, dots_at: Sequence[float], n_trials: int, seed: int
) -> pl.DataFrame:
    """Risk of four ways to train against d / n, sensitive features fixed at p / n."""
    model = mixture(ths)
    fine = np.geomspace(psi_p + 0.02, 3, 260)
    fine = fine[(abs(fine - 1) > 2e-3) & (abs(fine - 1 - psi_p) > 2e-3)]
    frames = []
    for estimator, name in NAMES.items():
        curve = [
            theory.risk(model, psi_d=x, psi_p=psi_p, estimator=estimator).total  # type: ignore[arg-type]
            for x in fine
        ]
        frames.append(
            pl.DataFrame({"psi_d": fine, "theory": curve}).with_columns(estimator=pl.lit(name))
        )
    for psi_d in dots_at:
        mean, stderr = simulated(
            [Case(model, name) for name in NAMES],
            n=n, psi_d=psi_d, psi_p=psi_p, n_trials=n_trials, seed=seed,
        )  # fmt: skip
        frames.append(
            pl.DataFrame(
                {
                    "psi_d": [psi_d] * len(NAMES),
                    "estimator": list(NAMES.values()),
                    "mean": mean,
                    "stderr": stderr,
                }
            )
        )
    return pl.concat(frames, how="diagonal")


def draw_psid(table: pl.DataFrame) -> alt.LayerChart:
    """Risk against d / n on logarithmic scales."""
    return theory_and_simulation(
        table, x=RATIO, theory="theory", mean="mean", stderr="stderr", series=ESTIMATOR,
        axis=alt.Y(title="Test risk (noise 0.25)").scale(
            type="log", domain=(0.3, 30), clamp=True, nice=False
        ),
        floor=0.3,
    )  # fmt: skip


DOTS = (0.4, 0.6, 0.8, 1.15, 1.6, 2.2, 3.0)
register(
    Figure(
        name="lookalike-risk-vs-psid",
        topic="lookalike",
        title="Averaging the sensitive features moves the interpolation peak",
        caption=(
            "Test risk of min-norm least squares against the number of features per row; "
            "0.3 n of the features are sensitive and carry little signal (norm 0.3). With own "
            "features the risk explodes where features meet rows (1). Look-alike training counts "
            "only the other features and the clusters, so its peak is at 1.3: around 1 it is far "
            "better, between 1.15 and 1.6 far worse. Its line for cluster averages lies just "
            "above that for true centres. Dropping the sensitive features has the same peak and "
            "is close, as there is little to lose here. Lines are asymptotic theory, dots "
            "simulations with two standard errors; close to a peak the finite-n risk lies a few "
            "per cent above its limit."
        ),
        source=f"{PAPER}, risk against overparametrisation; formulas re-derived",
        profiles={
            "quick": {
                "psi_p": 0.3, "ths": 0.3, "n": 200, "dots_at": DOTS, "n_trials": 20, "seed": 1,
            },
            "paper": {
                "psi_p": 0.3, "ths": 0.3, "n": 400, "dots_at": (*DOTS, 0.5, 0.7, 0.87, 1.9),
                "n_trials": 200, "seed": 1,
            },
        },
        compute=psid_table,
        draw=draw_psid,
        claims=("lookalike/risk-*",),
    )
)  # fmt: skip


# --------------------------------------------------------------------------------- gain against SNR


def snr_table(
    *,
    settings: Sequence[tuple[float, float]],
    noise: float,
    dots_at: Sequence[float],
    n: int,
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Gain of look-alike training against the signal-to-noise ratio of the sensitive block."""
    fine = np.geomspace(0.01, 10, 121)
    frames = []
    for psi_d, psi_p in settings:
        label = f"d / n = {psi_d:g}"
        curve = []
        for snr in fine:
            risks = [
                theory.risk(mixture(np.sqrt(snr * noise)), psi_d=psi_d, psi_p=psi_p, estimator=e)
                for e in ("base", "known")
            ]  # fmt: skip
            curve.append(theory.gain_percent(risks[0].total, risks[1].total))
        frames.append(
            pl.DataFrame({"snr": fine, "theory": curve}).with_columns(setting=pl.lit(label))
        )
        models = [mixture(np.sqrt(snr * noise)) for snr in dots_at]
        cases = [Case(model, name) for model in models for name in ("base", "known")]
        p = round(psi_p * n)
        d = round(psi_d * n)
        trial = cases_trial(cases, n=n, p=p, q=d - p, n_responses=8)
        # Equal batches whose tables and Gram matrices, one a case, stay near a gibibyte.
        most = max(1, 2**30 // (8 * n * (n + d) * len(cases)))
        size = -(-n_trials // -(-n_trials // most))
        with one_blas_thread():
            runs = simulate.run_trials(
                trial,
                key=jax.random.key(seed),
                n_trials=size * -(-n_trials // size),
                batch_size=size,
                x64=True,
            )
        mean, stderr = paired_gain(np.asarray(runs.total).reshape(-1, len(models), 2))
        frames.append(
            pl.DataFrame({"snr": dots_at, "mean": mean, "stderr": stderr}).with_columns(
                setting=pl.lit(label)
            )
        )
    return pl.concat(frames, how="diagonal")


def paired_gain(risks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain in per cent and its error, from paired risks (trials, ..., 2): base, look-alike."""
    base, lookalike = risks[..., 0], risks[..., 1]
    ratio = base.mean(axis=0) / lookalike.mean(axis=0)
    residual = (base - ratio * lookalike) / lookalike.mean(axis=0)
    stderr = residual.std(axis=0, ddof=1) / np.sqrt(len(risks))
    return 100 * (ratio - 1), 100 * stderr


def draw_snr(table: pl.DataFrame) -> alt.LayerChart:
    """Gain against SNR; above 0, look-alike training is better."""
    order = table["setting"].unique(maintain_order=True).to_list()
    chart = theory_and_simulation(
        table,
        x=alt.X("snr:Q", title="Sensitive signal / noise").scale(type="log", nice=False),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("setting", title="", order=order),
        axis=alt.Y(title="Gain in %, 100 (own - look-alike) / look-alike").scale(
            type="symlog", constant=50
        ),
    )
    return chart + reference(y=0.0, label="no difference")


register(
    Figure(
        name="lookalike-gain-vs-snr",
        topic="lookalike",
        title="Anonymised training gains where the sensitive signal is weak",
        caption=(
            "Change of the test risk when the sensitive features (0.3 n of them) are replaced by "
            "true cluster centres. Averaging turns what it removes into noise and saves that many "
            "coefficients: the balance is a gain below a certain signal-to-noise ratio and a loss "
            "above it. The closer d is to n, the larger both the gain and the range of it; beyond "
            "n, at 1.5, own features are better throughout. Lines are theory, dots paired "
            "simulations with two standard errors; close to d = n the finite-n gain is a little "
            "larger than its limit."
        ),
        source=f"{PAPER}, gain against SNR; formulas re-derived",
        profiles={
            "quick": {
                "settings": ((0.6, 0.3), (0.95, 0.3), (1.5, 0.3)), "noise": 0.25,
                "dots_at": (0.03, 0.3, 3.0), "n": 200, "n_trials": 25, "seed": 2,
            },
            "paper": {
                "settings": ((0.6, 0.3), (0.95, 0.3), (1.5, 0.3)), "noise": 0.25,
                "dots_at": (0.02, 0.1, 0.4, 1.5, 6.0), "n": 600, "n_trials": 200, "seed": 2,
            },
        },
        compute=snr_table,
        draw=draw_snr,
        claims=("lookalike/risk-*", "lookalike/snr-threshold"),
    )
)  # fmt: skip


# ------------------------------------------------------------------------------------------ the map


def map_table(*, ths: float, step: float, top: float) -> pl.DataFrame:
    """Gain over the grid of p / n and d / n, p at most d."""
    model = mixture(ths)
    rows = []
    # The offsets keep the centres of the cells off both peaks, where a risk is infinite.
    for psi_p in np.arange(step / 2, 1.0, step):
        for psi_d in np.arange(step / 4, top, step):
            if psi_d <= psi_p:
                continue
            base, lookalike = (
                theory.risk(model, psi_d=psi_d, psi_p=psi_p, estimator=e).total
                for e in ("base", "empirical")
            )
            rows.append((psi_p, psi_d, step / 2, theory.gain_percent(base, lookalike)))
    columns = ["psi_p", "psi_d", "half", "gain"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        pl.col("psi_p", "psi_d").round(6), shown=pl.col("gain").clip(-100, 100)
    )


def draw_map(table: pl.DataFrame) -> alt.Chart:
    """Heat map, clipped at 100 %."""
    return (
        alt.Chart(table)
        .transform_calculate(
            left="datum.psi_p - datum.half", right="datum.psi_p + datum.half",
            low="datum.psi_d - datum.half", high="datum.psi_d + datum.half",
        )
        .mark_rect()
        .encode(
            x=alt.X("left:Q", title="Sensitive features per row, p / n").scale(domain=(0, 1)),
            x2="right:Q",
            y=alt.Y("low:Q", title="Features per row, d / n").scale(nice=False),
            y2="high:Q",
            color=alt.Color("shown:Q", title="Gain in %").scale(
                scheme="blueorange", reverse=True, domain=(-100, 100)
            ),
            tooltip=[
                alt.Tooltip("psi_p:Q", title="p / n"),
                alt.Tooltip("psi_d:Q", title="d / n"),
                alt.Tooltip("gain:Q", title="gain in %", format=".3g"),
            ],
        )
    )  # fmt: skip


register(
    Figure(
        name="lookalike-gain-map",
        topic="lookalike",
        title="Where anonymised training improves the prediction",
        caption=(
            "Gain of look-alike training with cluster averages over training on own features, "
            "for a weak sensitive signal (norm 0.3, noise 0.25). Blue is a gain. The wedge around "
            "d = n is where averaging removes the interpolation peak; the orange diagonal is "
            "where it makes its own, at d - p = n. Theory only, no sampling error. Colours stop "
            "at 100 %; the tooltip tells the value."
        ),
        source=f"{PAPER}, regions of improvement; formulas re-derived",
        profiles={
            "quick": {"ths": 0.3, "step": 0.04, "top": 2.4},
            "paper": {"ths": 0.3, "step": 0.02, "top": 2.4},
        },
        compute=map_table,
        draw=draw_map,
        claims=("lookalike/risk-*",),
    )
)


# -------------------------------------------------------------------------------------------- ridge

_RIDGE = {k: NAMES[k] for k in ("base", "known", "empirical")}


def ridge_table(
    *,
    populations: Sequence[tuple[float, float]],
    psi_d: float,
    psi_p: float,
    dots_at: Sequence[float],
    n: int,
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Risk against the ridge penalty for (alignment, norm of theta_s) pairs."""
    fine = np.geomspace(1e-3, 10, 81)
    frames, cases, keys = [], [], []
    for alignment, ths in populations:
        model = GaussianMixtureModel.orthogonal(
            n_clusters=3, norm=3.0, alignment=alignment, signal_sensitive=ths**2,
            signal_public=1.0, noise=0.25, direction="contrast",
        )  # fmt: skip
        panel = f"alignment {alignment:g}, norm {ths:g}"
        for estimator, name in _RIDGE.items():
            curve = [
                theory.risk(model, psi_d=psi_d, psi_p=psi_p, estimator=estimator, ridge=x).total  # type: ignore[arg-type]
                for x in fine
            ]
            frames.append(
                pl.DataFrame({"ridge": fine, "theory": curve}).with_columns(
                    panel=pl.lit(panel), estimator=pl.lit(name)
                )
            )
            cases += [Case(model, estimator, ridge) for ridge in dots_at]
            keys += [(panel, name, ridge) for ridge in dots_at]
    mean, stderr = simulated(cases, n=n, psi_d=psi_d, psi_p=psi_p, n_trials=n_trials, seed=seed)
    found = pl.DataFrame(keys, schema=["panel", "estimator", "ridge"], orient="row")
    return pl.concat(
        [*frames, found.with_columns(mean=pl.Series(mean), stderr=pl.Series(stderr))],
        how="diagonal",
    )


def draw_ridge(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a population, each with its own scale."""
    series = Series("estimator", title="Trained on", order=tuple(_RIDGE.values()))
    x = alt.X("ridge:Q", title="Ridge penalty lam").scale(type="log", nice=False)
    panels = []
    for panel in table["panel"].unique(maintain_order=True):
        part = table.filter(pl.col("panel") == panel)
        axis = alt.Y(title="Test risk (noise 0.25)").scale(type="log", nice=False)
        layers = (
            theory_line(part, x, "theory", series=series, axis=axis)
            + error_bars(part, x, "mean", stderr="stderr", series=series, axis=axis)
            + dots(part, x, "mean", series=series, axis=axis)
        )
        panels.append(layers.properties(title=panel, width=300, height=280))
    return pick_in_legend(alt.hconcat(*panels).resolve_scale(y="independent"), series)


register(
    Figure(
        name="lookalike-ridge",
        topic="lookalike",
        title="The gain is more than a ridge would give, and the loss is not cured by one",
        caption=(
            "Test risk against the ridge penalty at d / n = 1.5, p / n = 1. Left: the sensitive "
            "signal is weak and carried by the clusters; look-alike training beats the best ridge "
            "on own features, with true centres and with cluster averages. Right: a strong "
            "sensitive signal of which the clusters carry 81 %, so that averaging throws the rest "
            "away; with the best ridge of each, look-alike training loses by 77 %, and by more "
            "with cluster averages. Compare the minima of the lines. Dots are simulations with two "
            "standard errors."
        ),
        source=f"setting of {PAPER}; tuned-ridge comparison derived here",
        profiles={
            "quick": {
                "populations": ((1.0, 0.3), (0.9, 2.0)), "psi_d": 1.5, "psi_p": 1.0,
                "dots_at": (0.03, 0.3, 2.0), "n": 200, "n_trials": 16, "seed": 3,
            },
            "paper": {
                "populations": ((1.0, 0.3), (0.9, 2.0)), "psi_d": 1.5, "psi_p": 1.0,
                "dots_at": (0.01, 0.1, 0.5, 2.0), "n": 400, "n_trials": 100, "seed": 3,
            },
        },
        compute=ridge_table,
        draw=draw_ridge,
        claims=("lookalike/risk-*", "lookalike/saddle-point-equals-closed-form"),
    )
)  # fmt: skip
