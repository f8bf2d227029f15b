"""Tables of several kinds, and the real trials."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from privlearn.causal import (
    EffectEstimator,
    NoDP,
    NoisyCellMeans,
    OutcomeGrid,
    UniformPriorDP,
    kernels,
    planner,
    release_experiment,
)
from privlearn.causal.tables import release_table
from privlearn.datasets import load_star, load_thornton_hiv

COLUMNS = {
    "got": [0, 1, 1, 1, 0, 0, 1, 1],
    "cash": [0, 0, 1, 1, 0, 0, 1, 1],
    "village": list("aaaabbbb"),
}
NAMES = {"outcome": "got", "arm": "cash", "cluster": "village"}
BINARY = NoDP(OutcomeGrid.of([0, 1]))
FRAMES = {
    "pandas": pd.DataFrame(COLUMNS),
    "categorical": pd.DataFrame(COLUMNS).astype({"village": "category", "cash": bool}),
    "polars": pl.DataFrame(COLUMNS),
    "lazy": pl.LazyFrame(COLUMNS),
    "arrow": pa.table(COLUMNS),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_tables_of_every_kind_give_the_same_release(kind):
    release = release_experiment(FRAMES[kind], BINARY, **NAMES)
    assert EffectEstimator().fit(release).tau_ == pytest.approx(0.75)
    assert release.cells.labels == ["a", "b"]


def test_released_table_is_of_the_kind_that_came_in_and_holds_three_columns():
    for kind in ("pandas", "polars", "arrow"):
        release = release_experiment(FRAMES[kind], UniformPriorDP(BINARY.grid, 0.5), **NAMES)
        table = release_table(release, like=FRAMES[kind])
        assert type(table) is type(FRAMES[kind])
        names = table.column_names if kind == "arrow" else list(table.columns)
        assert names == ["cluster", "arm", "outcome"]
    means = release_experiment(FRAMES["polars"], NoisyCellMeans(BINARY.grid, 1.0), **NAMES)
    with pytest.raises(TypeError, match="no rows"):
        release_table(means)


@pytest.mark.parametrize(
    ("names", "error", "match"),
    [
        ({"outcome": "gone"}, ValueError, "outcome: no column 'gone'"),
        ({"arm": "got"}, ValueError, "three columns"),
        ({"cluster": 3}, TypeError, "cluster must be a column name"),
    ],
)
def test_bad_columns_are_named(names, error, match):
    with pytest.raises(error, match=match):
        release_experiment(FRAMES["polars"], BINARY, **(NAMES | names))


def test_missing_values_are_counted():
    holes = FRAMES["polars"].with_columns(pl.lit(None, pl.String).alias("village"))
    with pytest.raises(ValueError, match="'village' is missing in 8 rows"):
        release_experiment(holes, BINARY, **NAMES)


def test_villages_of_the_hiv_trial_give_the_published_differences():
    people = load_thornton_hiv().frame
    names = {"outcome": "got", "arm": "any", "cluster": "villnum"}
    with pytest.raises(ValueError, match="25 of 119"):
        release_experiment(people, BINARY, **names)
    dropped = release_experiment(people, BINARY, small="drop", **names)
    assert (dropped.cells.n, dropped.cells.n_clusters) == (2598, 94)
    assert EffectEstimator().fit(dropped).tau_ == pytest.approx(0.4407, abs=5e-5)
    plain = EffectEstimator(stratify=False).fit(dropped).tau_
    assert plain == pytest.approx(0.4504, abs=5e-5)
    merged = release_experiment(people, BINARY, small="merge", min_cell=40, **names)
    assert merged.cells.n == 2830
    assert merged.cells.sizes.min() >= 40


@pytest.mark.parametrize(
    ("lam", "expected"),
    [(0.5, (0.00161, 0.00195, 0.00228)), (0.8, (0.00980, 0.01558, 0.01825))],
)
def test_added_variance_on_the_villages_is_that_computed_independently(lam, expected):
    """sigma = 10, gamma = .05, 94 villages, stratified; the noise is averaged over 300 draws."""
    cells = release_experiment(
        load_thornton_hiv().frame, BINARY, outcome="got", arm="any", cluster="villnum", small="drop"
    )
    counts = kernels.count_cells(cells.outcomes, cells.cells.codes, 2 * 94, 2).reshape(-1, 2, 2)
    shares, sizes = counts / counts.sum(-1, keepdims=True), cells.cells.sizes
    found = []
    for gamma, pooled in ((0.05, False), (0.05, True), (0.5, False)):
        moments = planner.prior_moments(
            shares, sizes, BINARY.grid.array, gamma=gamma, sigma=10.0, pooled=pooled, n_draws=300
        )
        found.append(planner.expected_gap(shares, sizes, BINARY.grid.array, lam, *moments))
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_schools_of_the_star_trial_come_onto_a_public_grid():
    pupils = load_star().frame
    two = pupils[pupils["class_type"] != "regular+aide"]
    two = two.assign(small=(two["class_type"] == "small").astype(int))
    grid = OutcomeGrid.rounding((700, 1250), 12)
    release = release_experiment(
        two, NoDP(grid), outcome="score", arm="small", cluster="school", small="drop"
    )
    effect = EffectEstimator().fit(release)
    exact = []
    for _, school in two.groupby("school", observed=True):
        means = school.groupby("small")["score"].agg(["mean", "size"])
        if len(means) == 2 and means["size"].min() >= 2:
            exact.append((len(school), means["mean"][1] - means["mean"][0]))
    n, tau = np.array(exact).T
    assert abs(effect.tau_ - (n @ tau) / n.sum()) < 5 * 25 * 2 / n.sum() ** 0.5
