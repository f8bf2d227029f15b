"""Figures of the clusters: separation, number, balance, mistakes, size, information loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

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
from privlearn.lookalike.estimators import LookAlikeClustering
from privlearn.lookalike.populations import Case
from privlearn.lookalike.simulation import (
    cases_trial,
    found_clusters_risk,
    m_anonymity_trial,
    mean_risk,
)
from privlearn.lookalike.theory import GaussianMixtureModel

PAPER = "Javanmard and Mirrokni 2023 (arXiv 2310.04015)"
NAMES = {
    "base": "own features",
    "known": "true centres",
    "empirical": "cluster averages",
    "found": "averages of clusters found by k-means",
}
TRAINED = Series("estimator", title="Trained on", order=tuple(NAMES.values()))
WEIGHTS = {
    "equal": (1 / 3, 1 / 3, 1 / 3),
    "50 / 30 / 20": (0.5, 0.3, 0.2),
    "10 / 45 / 45": (0.1, 0.45, 0.45),
}


def _model(
    *,
    n_clusters: int = 3,
    norm: float = 2.0,
    direction: Literal["sum", "contrast"] = "sum",
    weights: Sequence[float] | None = None,
) -> GaussianMixtureModel:
    return GaussianMixtureModel.orthogonal(
        n_clusters=n_clusters, norm=norm, alignment=0.8, signal_sensitive=0.25, signal_public=1.0,
        noise=0.25, direction=direction, weights=weights,
    )  # fmt: skip


# --------------------------------------------------------------- separation, number and balance


def clusters_table(
    *,
    psi_d: float,
    psi_p: float,
    n: int,
    norm_dots: Sequence[float],
    number_dots: Sequence[int],
    n_trials: int,
    n_found: int,
    seed: int,
) -> pl.DataFrame:
    """Risk against the norm of the centres, their number and their balance."""
    p, q = round(psi_p * n), round((psi_d - psi_p) * n)
    rows: list[tuple[Any, ...]] = []
    blank = (None, None)

    def lines(panel: str, at: float, label: str, model: GaussianMixtureModel) -> None:
        for name in ("base", "known", "empirical"):
            value = theory.risk(model, psi_d=psi_d, psi_p=psi_p, estimator=name).total
            rows.append((panel, at, label, NAMES[name], value, *blank))

    def measured(panel: str, places: Sequence[tuple[float, str, GaussianMixtureModel]]) -> None:
        names = ("base", "known", "empirical")
        cases = [Case(model, name) for _, _, model in places for name in names]
        trial = cases_trial(cases, n=n, p=p, q=q, n_responses=8)
        found = mean_risk(trial, seed=seed, n_trials=n_trials)
        values = zip(found.mean.total, found.stderr.total, strict=True)
        for at, label, _ in places:
            for name in names:
                rows.append((panel, at, label, NAMES[name], None, *map(float, next(values))))

    for norm in np.geomspace(0.5, 8, 41):
        lines("norm", float(norm), "", _model(norm=float(norm)))
    for k in range(1, 41):
        lines("number", float(k), "", _model(n_clusters=k))
    for at, (label, weights) in enumerate(WEIGHTS.items()):
        lines("balance", at, label, _model(direction="contrast", weights=weights))
    measured("norm", [(norm, "", _model(norm=norm)) for norm in norm_dots])
    for k in number_dots:
        measured("number", [(k, "", _model(n_clusters=k))])
    balances = enumerate(WEIGHTS.items())
    measured(
        "balance",
        [(i, key, _model(direction="contrast", weights=w)) for i, (key, w) in balances],
    )
    for norm in norm_dots:
        risks = found_clusters_risk(
            _model(norm=norm), n=n, p=p, q=q, n_clusters=3, min_size=n // 10, n_trials=n_found,
            seed=seed,
        )  # fmt: skip
        stderr = float(risks.std(ddof=1) / np.sqrt(n_found))
        rows.append(("norm", norm, "", NAMES["found"], None, float(risks.mean()), stderr))
    columns = ["panel", "at", "label", "estimator", "theory", "mean", "stderr"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def draw_clusters(table: pl.DataFrame) -> alt.HConcatChart:
    """Three panels on one vertical scale."""
    axis = alt.Y(title="Test risk (noise 0.25)").scale(zero=False)
    panels = []
    for panel, title, x in (
        (
            "norm",
            "Separation",
            alt.X("at:Q", title="Norm of the centres").scale(type="log", nice=False),
        ),
        ("number", "Number", alt.X("at:Q", title="Clusters K").scale(type="log", nice=False)),
        ("balance", "Balance", alt.X("label:N", title="Weights in %", sort=list(WEIGHTS))),
    ):
        part = table.filter(pl.col("panel") == panel)
        layers = (
            theory_line(part, x, "theory", series=TRAINED, axis=axis)
            + error_bars(part, x, "mean", stderr="stderr", series=TRAINED, axis=axis)
            + dots(part, x, "mean", series=TRAINED, axis=axis)
        )
        panels.append(layers.properties(title=title, width=210, height=280))
    return pick_in_legend(alt.hconcat(*panels).resolve_scale(y="shared"), TRAINED)


register(
    Figure(
        name="lookalike-clusters",
        topic="lookalike",
        title="Averages approach true centres where clusters are few and far apart",
        caption=(
            "Test risk at d / n = 0.6, p / n = 0.3. In the limit of many rows and few clusters, "
            "neither separation nor number matters with true centres. Averages of the members must "
            "be estimated: their cost fades with separation and grows with the number of "
            "clusters; unequal clusters cost little. Averages over clusters that k-means (with a "
            "minimum size) found in the sensitive features do as well as those over the true "
            "clusters. Lines are asymptotic theory, dots simulations with two standard errors. "
            "They lie above the lines by an amount of order K / n, which 10 clusters in 300 rows "
            "make visible: there even true centres no longer gain."
        ),
        source=f"{PAPER}, role of the clusters and estimated centres; formulas re-derived",
        profiles={
            "quick": {
                "psi_d": 0.6, "psi_p": 0.3, "n": 300, "norm_dots": (1.0, 2.0, 4.0),
                "number_dots": (2, 10), "n_trials": 20, "n_found": 12, "seed": 4,
            },
            "paper": {
                "psi_d": 0.6, "psi_p": 0.3, "n": 800, "norm_dots": (0.5, 1.0, 2.0, 4.0, 8.0),
                "number_dots": (1, 5, 20, 40), "n_trials": 100, "n_found": 60, "seed": 4,
            },
        },
        compute=clusters_table,
        draw=draw_clusters,
        claims=("lookalike/risk-*",),
    )
)  # fmt: skip


# ----------------------------------------------------------------------------------- mis-clustering


def mistakes_table(
    *,
    settings: Sequence[tuple[float, float]],
    dots_at: Sequence[float],
    n: int,
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Risk against the rate at which a row gets the centre of a random cluster, over that at 0."""
    model = _model(direction="contrast")
    weights = model.weights

    def confusion(rate: float) -> np.ndarray:
        return (1 - rate) * np.diag(weights) + rate * np.outer(weights, weights)

    frames = []
    for psi_d, psi_p in settings:
        label = f"d / n = {psi_d:g}"
        fine = np.linspace(0, 1, 41)
        curve = np.array([
            theory.risk(
                model, psi_d=psi_d, psi_p=psi_p, estimator="misclustered", confusion=confusion(x)
            ).total
            for x in fine
        ])  # fmt: skip
        p = round(psi_p * n)
        cases = [Case(model, "misclustered", 0.0, confusion(x)) for x in dots_at]
        trial = cases_trial(cases, n=n, p=p, q=round(psi_d * n) - p, n_responses=8)
        found = mean_risk(trial, seed=seed, n_trials=n_trials)
        frames += [
            pl.DataFrame({"rate": fine, "theory": curve}).with_columns(setting=pl.lit(label)),
            pl.DataFrame(
                {"rate": dots_at, "mean": found.mean.total, "stderr": found.stderr.total}
            ).with_columns(setting=pl.lit(label)),
        ]
    return pl.concat(frames, how="diagonal")


def draw_mistakes(table: pl.DataFrame) -> alt.LayerChart:
    """Risk against the rate of mistakes."""
    order = table["setting"].unique(maintain_order=True).to_list()
    return theory_and_simulation(
        table,
        x=alt.X("rate:Q", title="Rows with the centre of a random cluster").axis(format="%"),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("setting", title="", order=order),
        axis=alt.Y(title="Test risk (noise 0.25)").scale(type="log", nice=False),
    )


register(
    Figure(
        name="lookalike-misclustering",
        topic="lookalike",
        title="A row in the wrong cluster costs a little, not a lot",
        caption=(
            "Some training rows carry the true centre of a cluster drawn at random. The risk rises "
            "smoothly from that of true clusters (0) to that of useless ones (1): a tenth of the "
            "rows wrong costs a few per cent. The coefficients point along a contrast between the "
            "clusters; if they pointed along their sum, centres would act as an intercept only "
            "and mistakes would cost nothing. Lines are theory, dots simulations with two "
            "standard errors."
        ),
        source=f"setting of {PAPER}; formula with a confusion matrix derived here",
        profiles={
            "quick": {
                "settings": ((0.6, 0.3), (0.95, 0.3), (1.5, 0.3)), "dots_at": (0.1, 0.5, 1.0),
                "n": 240, "n_trials": 30, "seed": 5,
            },
            "paper": {
                "settings": ((0.6, 0.3), (0.95, 0.3), (1.5, 0.3)),
                "dots_at": (0.0, 0.05, 0.1, 0.2, 0.5, 1.0), "n": 600, "n_trials": 200, "seed": 5,
            },
        },
        compute=mistakes_table,
        draw=draw_mistakes,
        claims=("lookalike/risk-misclustered",),
    )
)  # fmt: skip


# -------------------------------------------------------------------------------------- m-anonymity


_M_COLUMNS = ["m", "mean", "stderr", "fit"]


def m_table(
    *,
    n: int,
    p: int,
    q: int,
    signal: float,
    noise: float,
    dots_at: Sequence[int],
    ridge: float,
    n_trials: int,
    seed: int,
) -> pl.DataFrame:
    """Risk against the minimum cluster size, min-norm and ridge."""
    setting = {"n": n, "p": p, "q": q, "signal_sensitive": signal, "noise": noise}
    fine = np.geomspace(1, n / 2, 600)
    curve = [theory.risk_m_anonymity(min_size=m, **setting).total for m in fine]  # type: ignore[arg-type]
    names = ("least squares", f"ridge, lam = {ridge:g}")
    frames = [pl.DataFrame({"m": fine, "theory": curve}).with_columns(fit=pl.lit(names[0]))]
    for m in dots_at:
        trial = m_anonymity_trial(**setting, min_size=m, ridge=(0.0, ridge), n_responses=8)  # type: ignore[arg-type]
        found = mean_risk(trial, seed=seed, n_trials=n_trials)
        for at, name in enumerate(names):
            if at == 0 and 0.6 < (n / m - 1) / p < 1.6:
                continue  # the mean over trials has no finite variance near the peak
            values = float(found.mean.total[at]), float(found.stderr.total[at])
            frames.append(
                pl.DataFrame([(float(m), *values, name)], orient="row", schema=_M_COLUMNS)
            )
    drop = (noise + signal) * (1 + q / (n - 1 - q - 1))
    place = pl.DataFrame({"peak": [n / (p + 1)], "drop": [drop]})
    return pl.concat([*frames, place], how="diagonal")


def draw_m(table: pl.DataFrame) -> alt.LayerChart:
    """Risk against m, the peak and the level of dropping marked."""
    chart = theory_and_simulation(
        table.filter(pl.col("fit").is_not_null()).select("m", "theory", "fit", "mean", "stderr"),
        x=alt.X("m:Q", title="Minimum cluster size m").scale(type="log", nice=False),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("fit", title=""),
        axis=alt.Y(title="Test risk (noise 0.25)").scale(
            type="log", domain=(0.3, 20), clamp=True, nice=False
        ),
        floor=0.3,
    )
    marks = table.filter(pl.col("peak").is_not_null())
    return (
        chart
        + reference(x=marks["peak"][0], label="clusters = sensitive features + 1")
        + reference(y=marks["drop"][0], label="no sensitive features")
    )


register(
    Figure(
        name="lookalike-m-anonymity",
        topic="lookalike",
        title="The second peak: as many clusters as sensitive features",
        caption=(
            "The practical regime: 300 rows in random clusters of m, so that n / m clusters show "
            "30 sensitive features. Least squares on the averages explodes where the number of "
            "clusters (less one, for the intercept) meets the number of sensitive features, at "
            "m = 9.7. A small ridge (dots only) removes the peak. Random clusters are the worst "
            "case; clusters of look-alikes keep more of the features, but have the same peak. The "
            "line is exact at this n, with a gap where no mean exists; dots are simulations with "
            "two standard errors."
        ),
        source=f"beyond {PAPER}; finite-n formula derived here",
        profiles={
            "quick": {
                "n": 300, "p": 30, "q": 40, "signal": 0.8, "noise": 0.25,
                "dots_at": (2, 4, 10, 30, 100), "ridge": 0.1, "n_trials": 100, "seed": 6,
            },
            "paper": {
                "n": 300, "p": 30, "q": 40, "signal": 0.8, "noise": 0.25,
                "dots_at": (2, 3, 4, 5, 6, 10, 12, 20, 30, 60, 100), "ridge": 0.1,
                "n_trials": 1000, "seed": 6,
            },
        },
        compute=m_table,
        draw=draw_m,
        claims=("lookalike/m-anonymity-*",),
    )
)  # fmt: skip


# --------------------------------------------------------------------------------- information loss

METHODS = {
    "mdav": "MDAV",
    "flow": "minimum-size k-means",
    "mdav+flow": "both starts, best kept",
    "kmeans-merge": "k-means, small clusters merged",
}
TABLES = {"wine": load_wine, "diabetes": load_diabetes, "breast cancer": load_breast_cancer}


def loss_table(
    *, min_sizes: Sequence[int], methods: Sequence[str], n_seeds: int, seed: int
) -> pl.DataFrame:
    """Information loss against m, all columns sensitive; range over seeds of the random starts."""
    rows = []
    for name, load in TABLES.items():
        X = load().data
        for m in min_sizes:
            for method in methods:
                found = [
                    100
                    * LookAlikeClustering(min_size=m, method=method, random_state=seed + i)
                    .fit(X)
                    .information_loss_
                    for i in range(1 if method == "mdav" else n_seeds)
                ]
                label = METHODS[method]
                rows.append((name, m, label, float(np.median(found)), min(found), max(found)))
    columns = ["data", "m", "method", "loss", "least", "most"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_loss(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a table."""
    order = [name for name in METHODS.values() if name in set(table["method"])]
    series = Series("method", title="", order=order)
    x = alt.X("m:O", title="Minimum cluster size m")
    axis = alt.Y(title="Information loss in %")
    panels = []
    for name in table["data"].unique(maintain_order=True):
        part = table.filter(pl.col("data") == name)
        layers = (
            theory_line(part, x, "loss", series=series, axis=axis)
            + error_bars(part, x, "loss", stderr=("least", "most"), series=series, axis=axis)
            + dots(part, x, "loss", series=series, axis=axis)
        )
        panels.append(layers.properties(title=name, width=200, height=280))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="lookalike-information-loss",
        topic="lookalike",
        title="What averaging in groups of at least m removes",
        caption=(
            "Share of the standardised columns' variance within clusters, in per cent: what a "
            "look-alike table loses. Every cluster has at least m rows. MDAV is good at small m, "
            "optimised minimum-size k-means at large m; the default starts from both and keeps the "
            "better. Merging the small clusters of plain k-means costs most: it ends with few, "
            "large clusters. Dots are medians and bars the range over seeds of the random starts "
            "(MDAV has none)."
        ),
        source="minimum-size clustering after Domingo-Ferrer and Torra 2005, Bradley et al. 2000",
        profiles={
            "quick": {
                "min_sizes": (3, 5, 10, 20), "methods": tuple(METHODS), "n_seeds": 2, "seed": 0,
            },
            "paper": {
                "min_sizes": (2, 3, 5, 10, 20, 50), "methods": tuple(METHODS), "n_seeds": 10,
                "seed": 0,
            },
        },
        compute=loss_table,
        draw=draw_loss,
    )
)  # fmt: skip
