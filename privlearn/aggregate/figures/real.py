"""Figures on real tables: Boston housing, diabetes and breast cancer, cut into random bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import jax
import numpy as np
import optax
import polars as pl
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from privlearn import datasets
from privlearn.aggregate import studies, training
from privlearn.aggregate.bags import random_bags
from privlearn.aggregate.estimators import AggregateClassifier, AggregateRegressor
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line

PAPER = "Javanmard et al. 2024 (arXiv 2401.11081)"
TABLES = {"Boston housing": datasets.load_boston, "diabetes": datasets.load_diabetes}
RHO_AXIS = alt.X("rho:Q", title="rho (leftmost: 0)").scale(type="symlog", constant=0.003)


def _standardised(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Z-scored features and response of a table, and the standard deviation of the response."""
    table = TABLES[name]()
    y = table.target.to_numpy(float)
    return *studies.standardise(table.data.to_numpy(float), y), float(y.std())


def _summary(errors: np.ndarray) -> tuple[float, float]:
    """Mean over splits and its standard error."""
    return float(errors.mean()), float(errors.std(ddof=1) / np.sqrt(len(errors)))


def linear_table(
    *, ks: Sequence[int], rhos: Sequence[float], n_splits: int, seed: int
) -> pl.DataFrame:
    """Test error against rho for both tables and several bag sizes, with EasyLLP."""
    rows = []
    for name in TABLES:
        X, y, _ = _standardised(name)
        for k in ks:
            splits = studies.bagged_splits(X, y, k, n_splits=n_splits, seed=seed)
            study = studies.linear_study(splits, rhos)
            easy = _summary(study.easyllp)
            for rho, mean, stderr in zip(study.rhos, study.mean, study.stderr, strict=True):
                rows.append((name, k, float(rho), float(mean), float(stderr), *easy))
    columns = ["data", "k", "rho", "mse", "stderr", "easyllp", "easyllp_stderr"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _paths(table: pl.DataFrame, series: Series, title: str) -> alt.LayerChart | alt.FacetChart:
    """Lines with dots and error bars of test error against rho."""
    axis = alt.Y(title=title)
    return (
        theory_line(table, RHO_AXIS, "mse", series=series, axis=axis)
        + error_bars(table, RHO_AXIS, "mse", stderr="stderr", series=series, axis=axis)
        + dots(table, RHO_AXIS, "mse", series=series, axis=axis)
    )


def draw_linear(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a table."""
    series = Series("k", title="Bag size k", order=sorted(table["k"].unique().to_list()))
    panels = [
        _paths(table.filter(pl.col("data") == name), series, "Test error (1 = predict the mean)")
        .properties(title=name, width=300, height=280)
        for name in TABLES
    ]  # fmt: skip
    return pick_in_legend(alt.hconcat(*panels), series)


RHOS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
register(
    Figure(
        name="aggregate-real-linear",
        topic="aggregate",
        title="On real tables the best rho is small but not zero",
        caption=(
            "Standardised test error of the linear interpolating estimator on two real tables, "
            "random bags, against rho. The larger the bag, the more an interior rho gains over "
            "both ends: at 20 rows a bag it halves the error of the bag loss. Bars are two "
            "standard errors over random splits, which share one table. At k = 20 the bag loss "
            "sits near as many bags as features and is heavy-tailed."
        ),
        source=f"the real-data experiment of {PAPER}, with the linear model; Boston and diabetes",
        profiles={
            "quick": {"ks": (2, 5, 10, 20), "rhos": RHOS, "n_splits": 40, "seed": 0},
            "paper": {"ks": (2, 5, 10, 20), "rhos": RHOS, "n_splits": 400, "seed": 0},
        },
        compute=linear_table,
        draw=draw_linear,
        claims=(
            "aggregate/identity-squared",
            "aggregate/easyllp-risk",
        ),
    )
)


def mlp_table(
    *,
    ks: Sequence[int],
    rhos: Sequence[float],
    schedules: Sequence[tuple[int, float]],
    width: int,
    n_splits: int,
    seed: int,
) -> pl.DataFrame:
    """Test error of a small network on Boston against rho, for two training schedules."""
    X, y, _ = _standardised("Boston housing")
    rows = []
    for k in ks:
        splits = studies.bagged_splits(X, y, k, n_splits=n_splits, seed=seed)
        for epochs, decay in schedules:
            optimizer = optax.adamw(1e-2, weight_decay=decay)
            errors = np.stack(
                [
                    _mlp_errors(*one, rhos, width, epochs, optimizer, seed + i)
                    for i, one in enumerate(zip(*splits, strict=True))
                ]
            )
            label = f"{epochs} steps, weight decay {decay:g}"
            for rho, column in zip(rhos, errors.T, strict=True):
                rows.append((k, label, float(rho), *_summary(column)))
    return pl.DataFrame(rows, schema=["k", "schedule", "rho", "mse", "stderr"], orient="row")


def _mlp_errors(
    features: np.ndarray,
    responses: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    rhos: Sequence[float],
    width: int,
    epochs: int,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> np.ndarray:
    m, k, p = features.shape
    start, train = jax.random.split(jax.random.key(seed))
    fit = training.fit_path(
        training.mlp(p, width=width, key=start),
        "squared",
        features.reshape(m * k, p),
        responses.mean(axis=1),
        np.repeat(np.arange(m), k),
        rhos=np.asarray(rhos),
        key=train,
        epochs=epochs,
        optimizer=optimizer,
    )
    predicted = np.asarray(training.predict_path(fit.model, test_x))
    return ((predicted - test_y) ** 2).mean(axis=1)


def draw_mlp(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a bag size."""
    series = Series(
        "schedule", title="Training", order=table["schedule"].unique(maintain_order=True).to_list()
    )
    panels = [
        _paths(table.filter(pl.col("k") == k), series, "Test error (1 = predict the mean)")
        .properties(title=f"Bags of {k}", width=300, height=280)
        for k in sorted(table["k"].unique().to_list())
    ]  # fmt: skip
    return pick_in_legend(alt.hconcat(*panels), series)


MLP_RHOS = (0.0, 0.003, 0.01, 0.03, 0.1, 1.0)
register(
    Figure(
        name="aggregate-real-mlp",
        topic="aggregate",
        title="For a neural network the gain of rho is small",
        caption=(
            "Boston housing, one hidden layer of 8 tanh units, full-batch Adam on whole bags. "
            "Small rho changes little: what it gains with a short training is within the error "
            "bars, with longer training and weight decay, which already regularises, it gains "
            "nothing, and rho near 1 ruins the fit. Choose rho by cross-validation over bags "
            "rather than from the linear theory. Bars are two standard errors over splits."
        ),
        source=f"{PAPER}, Boston housing with an MLP",
        profiles={
            "quick": {
                "ks": (5, 20),
                "rhos": MLP_RHOS,
                "schedules": ((150, 0.0), (400, 0.003)),
                "width": 8,
                "n_splits": 6,
                "seed": 0,
            },
            "paper": {
                "ks": (5, 20),
                "rhos": MLP_RHOS,
                "schedules": ((150, 0.0), (400, 0.003)),
                "width": 8,
                "n_splits": 60,
                "seed": 0,
            },
        },
        compute=mlp_table,
        draw=draw_mlp,
        claims=("aggregate/identity-squared",),
    )
)


def cv_table(*, ks: Sequence[int], n_splits: int, seed: int) -> pl.DataFrame:
    """Test error of rho chosen by cross-validation over bags, beside both ends and the oracle."""
    rhos = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
    rows = []
    for name in TABLES:
        X, y, _ = _standardised(name)
        for k in ks:
            splits = studies.bagged_splits(X, y, k, n_splits=n_splits, seed=seed)
            path = studies.linear_study(splits, rhos).errors
            m = splits.features.shape[1]
            bags = np.repeat(np.arange(m), k)
            chosen = []
            for features, responses, test_x, test_y in zip(*splits, strict=True):
                model = AggregateRegressor(rho="cv", rhos=rhos, cv=5)
                model.fit(features.reshape(m * k, -1), responses.mean(axis=1)[bags], bags=bags)
                chosen.append(np.mean((model.predict(test_x) - test_y) ** 2))
            for method, errors in (
                ("chosen by cross-validation", np.array(chosen)),
                ("bag loss", path[:, 0]),
                ("instance loss", path[:, -1]),
                ("best rho of each split (oracle)", path.min(axis=1)),
            ):
                rows.append((name, k, method, *_summary(errors)))
    return pl.DataFrame(rows, schema=["data", "k", "method", "mse", "stderr"], orient="row")


METHODS = (
    "chosen by cross-validation",
    "bag loss",
    "instance loss",
    "best rho of each split (oracle)",
)


def draw_cv(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a table, error against bag size."""
    series = Series("method", title="rho", order=METHODS)
    x = alt.X("k:O", title="Bag size k").axis(labelAngle=0)
    # Beside each other, not on top: the bars overlap.
    beside = alt.XOffset("method:N", sort=list(METHODS))
    axis = alt.Y(title="Test error (1 = predict the mean)")
    panels = []
    for name in TABLES:
        part = table.filter(pl.col("data") == name)
        bars = error_bars(part, x, "mse", stderr="stderr", series=series, axis=axis)
        layers = bars.encode(xOffset=beside) + dots(
            part, x, "mse", series=series, axis=axis
        ).encode(xOffset=beside)
        panels.append(layers.properties(title=name, width=260, height=280))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="aggregate-cv-rho",
        topic="aggregate",
        title="Cross-validation over bags finds a good rho without any individual response",
        caption=(
            "Test error of rho chosen by five-fold cross-validation over whole bags, with the bag "
            "loss of held-out bags as the criterion. It follows the oracle closely while there "
            "are some 40 bags or more, and gets noisy at k = 20. The instance loss of held-out "
            "bags must not be used: it favours too much shrinkage. Bars are two standard errors."
        ),
        source=f"setting of {PAPER}; tuning rule and experiment are ours",
        profiles={
            "quick": {"ks": (5, 10, 20), "n_splits": 10, "seed": 3},
            "paper": {"ks": (5, 10, 20), "n_splits": 100, "seed": 3},
        },
        compute=cv_table,
        draw=draw_cv,
    )
)


def private_table(
    *, epsilons: Sequence[float], ks: Sequence[int], n_splits: int, seed: int
) -> pl.DataFrame:
    """Best test error over rho, and the pure bag loss, against bag size and epsilon on Boston."""
    rhos = np.array([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
    X, y, scale = _standardised("Boston housing")
    rows = []
    for k in ks:
        splits = studies.bagged_splits(X, y, k, n_splits=n_splits, seed=seed)
        for epsilon in epsilons:
            key = jax.random.fold_in(jax.random.key(seed), k)
            study = studies.private_study(splits, rhos, epsilon, 50 / scale, key)
            best = int(np.argmin(study.mean))
            row = (epsilon, k, float(study.mean[best]), float(study.stderr[best]))
            rows.append((*row, float(rhos[best]), float(study.mean[0])))
    columns = ["epsilon", "k", "mse", "stderr", "rho", "bag_loss"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_private(table: pl.DataFrame) -> alt.LayerChart:
    """Error against bag size, one line an epsilon."""
    series = Series("epsilon", title="epsilon", order=sorted(table["epsilon"].unique().to_list()))
    x = alt.X("k:Q", title="Bag size k").scale(type="log", nice=False)
    axis = alt.Y(title="Test error (1 = predict the mean)").scale(type="log")
    layers = (
        theory_line(table, x, "mse", series=series, axis=axis)
        + error_bars(table, x, "mse", stderr="stderr", series=series, axis=axis, floor=0.1)
        + dots(table, x, "mse", series=series, axis=axis)
    )
    return pick_in_legend(layers, series)


register(
    Figure(
        name="aggregate-private-real",
        topic="aggregate",
        title="Label privacy on Boston housing: aggregation helps only together with rho",
        caption=(
            "Standardised test error when bag means are released under label differential privacy "
            "with the public response range [0, 50], at the rho that is best on average (in the "
            "tooltip). At strong privacy bags of 5 beat noise on single responses; at weak "
            "privacy single responses win. The pure bag loss (tooltip) gains almost nothing from "
            "bags. Picking rho on the test error, as here, is optimistic. Bars are two standard "
            "errors over splits."
        ),
        source=f"label-DP setting of {PAPER}; experiment on Boston is ours",
        profiles={
            "quick": {
                "epsilons": (0.5, 1.0, 2.0, 4.0, 8.0),
                "ks": (1, 2, 5, 10, 20, 40),
                "n_splits": 40,
                "seed": 1,
            },
            "paper": {
                "epsilons": (0.5, 1.0, 2.0, 4.0, 8.0),
                "ks": (1, 2, 5, 10, 20, 40),
                "n_splits": 400,
                "seed": 1,
            },
        },
        compute=private_table,
        draw=draw_private,
    )
)


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "proportion matching": {"loss": "proportion"},
    "bag loss (mean logit)": {"loss": "bag"},
    "rho = 0.1": {"loss": "interpolate", "rho": 0.1},
    "rho = 0.3": {"loss": "interpolate", "rho": 0.3},
    "instance loss": {"loss": "instance"},
    "EasyLLP": {"loss": "easyllp"},
}


def classification_table(
    *, ks: Sequence[int], n_train: int, n_splits: int, seed: int
) -> pl.DataFrame:
    """AUC and accuracy of every classification loss on breast cancer."""
    table = datasets.load_breast_cancer()
    X, y = table.data.to_numpy(float), table.target.to_numpy(int)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(y)) for _ in range(n_splits)]
    rows = []
    for k in ks:
        for name, settings in CLASSIFIERS.items():
            scores = np.array(
                [_classify(X, y, order, k, n_train, settings, seed) for order in orders]
            )
            for metric, column in zip(("AUC", "accuracy"), scores.T, strict=True):
                rows.append((k, name, metric, *_summary(column)))
    return pl.DataFrame(rows, schema=["k", "method", "metric", "value", "stderr"], orient="row")


def _classify(
    X: np.ndarray,
    y: np.ndarray,
    order: np.ndarray,
    k: int,
    n_train: int,
    settings: dict[str, Any],
    seed: int,
) -> tuple[float, float]:
    train, test = order[:n_train], order[n_train:]
    scaler = StandardScaler().fit(X[train])
    bags = random_bags(n_train, k, seed)
    model = AggregateClassifier(alpha=1e-3, response="individual", **settings)
    model.fit(scaler.transform(X[train]), y[train], bags=bags)
    probability = model.predict_proba(scaler.transform(X[test]))[:, 1]
    accuracy = float(np.mean((probability > 0.5) == y[test]))
    return float(roc_auc_score(y[test], probability)), accuracy


def draw_classification(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a metric, against bag size."""
    series = Series("method", title="Loss", order=list(CLASSIFIERS))
    x = alt.X("k:Q", title="Bag size k").scale(type="log", base=2, nice=False)
    panels = []
    for metric in ("AUC", "accuracy"):
        part = table.filter(pl.col("metric") == metric)
        axis = alt.Y(title=metric).scale(zero=False)
        layers = (
            theory_line(part, x, "value", series=series, axis=axis)
            + error_bars(part, x, "value", stderr="stderr", series=series, axis=axis)
            + dots(part, x, "value", series=series, axis=axis)
        )
        panels.append(layers.properties(title=metric, width=280, height=280))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="aggregate-classification",
        topic="aggregate",
        title="Classification from label proportions: with strong signal, match the proportions",
        caption=(
            "Breast cancer, logistic model, random bags: area under the ROC curve and accuracy on "
            "individual test labels. The task is nearly separable, so the signal is strong and, "
            "as theory says, every rho > 0 only hurts; proportion matching stays almost as good "
            "as individual labels up to 32 rows a bag. EasyLLP keeps a better accuracy than the "
            "instance loss because it does not shrink. Bars are two standard errors over splits."
        ),
        source=(
            f"losses of {PAPER} and of Busa-Fekete et al. 2023 (arXiv 2302.03115); "
            "the experiment is ours"
        ),
        profiles={
            "quick": {"ks": (2, 8, 32), "n_train": 448, "n_splits": 4, "seed": 6},
            "paper": {"ks": (2, 4, 8, 16, 32), "n_train": 448, "n_splits": 24, "seed": 6},
        },
        compute=classification_table,
        draw=draw_classification,
        claims=(
            "aggregate/identity-logistic",
            "aggregate/easyllp-unbiased",
        ),
    )
)
