"""Releases from tables: the same in every engine, lazy where the table is, never half-checked."""

import dask.dataframe as dd
import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from privlearn.aggregate.bags import label_sorted_bags, prediction_sorted_bags, random_bags
from privlearn.aggregate.mechanism import ResponseGrid
from privlearn.aggregate.release import BagRelease, _aggregate, release_bags

ENGINES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "pyarrow": pa.table,
    "duckdb": lambda columns: duckdb.from_arrow(pa.table(columns)),
    "dask": lambda columns: dd.from_pandas(pd.DataFrame(columns), npartitions=3),
}
engines = pytest.mark.parametrize("engine", ENGINES)


def columns(seed=0, n=500):
    rng = np.random.default_rng(seed)
    return {
        "campaign": rng.integers(-4, 5, n),
        "name": rng.choice(["b", "a", "ä"], n),
        "spent": rng.normal(size=n) * 2,
        "converted": rng.random(n) < 0.3,
        "clicks": rng.integers(0, 200, n).astype(np.uint8),
        "age": rng.random(n),
    }


def rows(table):
    """The bag table as columns of NumPy arrays, whatever it is."""
    frame = nw.from_native(table)
    frame = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
    return {name: frame[name].to_numpy() for name in frame.columns}


def aggregated(table, bag, response, bounds, features=()):
    """The part before the noise."""
    frame = nw.from_native(table).lazy()
    return rows(_aggregate(frame, bag, response, features, ResponseGrid.of(bounds)).collect())


def release(table, **changes) -> BagRelease:
    arguments = {"bag": "campaign", "response": "spent", "bounds": (-1, 2), "epsilon": 1.0}
    return release_bags(table, **(arguments | changes))


@engines
@pytest.mark.parametrize("bag", ["campaign", "name"])
@pytest.mark.parametrize(
    ("response", "bounds"), [("spent", (-1.0, 2.0)), ("converted", (0, 1)), ("clicks", (0, 150))]
)
def test_every_engine_adds_up_the_same_whole_numbers(engine, bag, response, bounds):
    data = columns()
    result = aggregated(ENGINES[engine](data), bag, response, bounds, ["age"])
    labels, codes, sizes = np.unique(data[bag], return_inverse=True, return_counts=True)
    steps = ResponseGrid.of(bounds).steps(data[response].astype(float))
    assert result["bag"].tolist() == labels.tolist()  # sorted by id
    assert result["size"].tolist() == result["valid"].tolist() == sizes.tolist()
    assert result["steps"].tolist() == np.bincount(codes, weights=steps).tolist()
    assert result["f0"] == pytest.approx(np.bincount(codes, weights=data["age"]) / sizes)


@engines
def test_the_release_is_the_kind_of_table_that_came_in(engine):
    table = ENGINES[engine](columns())
    released = release(table, features=["age", "clicks"])
    assert type(released.table) is type(table)
    assert list(rows(released.table)) == [
        "campaign",
        "size",
        "mean_spent",
        "mean_age",
        "mean_clicks",
    ]
    assert released.mean == "mean_spent"
    assert released.feature_means == ("mean_age", "mean_clicks")


@engines
def test_means_come_out_in_the_units_of_the_response(engine):
    data = columns()
    released = rows(release(ENGINES[engine](data), epsilon=1e7).table)
    for campaign, size, mean in zip(*list(released.values())[:3], strict=True):
        mine = data["campaign"] == campaign
        assert size == mine.sum()
        # Half a step and noise of scale 3 / (size 1e7), exceeded 40-fold with probability 4e-18.
        assert mean == pytest.approx(data["spent"][mine].clip(-1, 2).mean(), abs=2e-5)


@engines
def test_bag_column_keeps_its_type(engine):
    table = ENGINES[engine](columns())
    before = nw.from_native(table).collect_schema()
    after = nw.from_native(release(table, bag="name").table).collect_schema()
    assert after["name"] == before["name"]


def test_narwhals_frames_come_back_as_narwhals_frames():
    frame = nw.from_native(pl.DataFrame(columns()))
    assert isinstance(release(frame).table, nw.DataFrame)
    assert isinstance(release(frame.lazy()).table, nw.LazyFrame)


@pytest.mark.parametrize("engine", ["polars lazy", "duckdb", "dask"])
def test_only_bag_rows_are_collected_from_lazy_tables(engine, monkeypatch):
    collected = []
    collect = nw.LazyFrame.collect

    def counting(self, *args, **kwargs):
        result = collect(self, *args, **kwargs)
        collected.append(len(result))
        return result

    table = ENGINES[engine](columns(n=2_000))
    monkeypatch.setattr(nw.LazyFrame, "collect", counting)
    release(table, features=["age"])
    assert collected == [9]


def test_a_lazy_plan_runs_once():
    runs = []

    def source(frame):
        runs.append(len(frame))
        return frame

    plan = pl.LazyFrame(columns()).map_batches(source, schema=pl.DataFrame(columns()).schema)
    release(plan, features=["age"])
    assert runs == [500]


def test_duckdb_aggregates_more_rows_than_would_fit_in_memory():
    # 20 million rows of 16 bytes through an engine that may hold 100 MB.
    connection = duckdb.connect(config={"memory_limit": "100MB", "threads": 1})
    table = connection.sql(
        "SELECT i % 7 AS campaign, (i % 11)::DOUBLE AS spent FROM range(20_000_000) t(i)"
    )
    result = aggregated(table, "campaign", "spent", (0, 10))
    assert result["size"].sum() == 20_000_000


def test_duckdb_release_stays_in_the_connection_of_its_table():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE campaigns AS SELECT i AS campaign FROM range(-4, 5) t(i)")
    connection.register("clicks", pa.table(columns()))
    bag_table = release(connection.table("clicks")).table
    joined = bag_table.join(connection.table("campaigns"), "campaign")
    assert len(joined.fetchall()) == 9


def test_two_releases_draw_different_noise():
    table = pl.DataFrame(columns())
    first, second = (rows(release(table).table)["mean_spent"] for _ in range(2))
    assert (first != second).all()


def test_clamping_is_off_unless_asked_for():
    table = pl.DataFrame({"campaign": np.arange(200), "spent": np.zeros(200)})
    free = rows(release(table, bounds=(0, 1)).table)["mean_spent"]
    clamped = release(table, bounds=(0, 1), clamp=True)
    assert free.min() < 0  # fails with probability 2^-200
    assert clamped.clamped
    assert (
        (rows(clamped.table)["mean_spent"] >= 0) & (rows(clamped.table)["mean_spent"] <= 1)
    ).all()


def test_noise_level_of_each_bag_is_told():
    released = release(pl.DataFrame(columns()), epsilon=0.5)
    expected = np.sqrt(2) * 3 / (rows(released.table)["size"] * 0.5)
    assert released.noise_sd == pytest.approx(expected, rel=1e-6)


def test_guarantee_and_print_say_what_is_promised():
    released = release(pl.DataFrame(columns()), epsilon=0.25)
    assert released.guarantee.epsilon == 0.25
    assert released.guarantee.is_pure
    assert "bag means of 'spent' by 'campaign'\nepsilon = 0.25" in str(released)


# ----------------------------------------------------------------------------------- bags as arrays


@pytest.mark.parametrize("engine", ["pandas", "polars", "pyarrow"])
def test_ids_may_come_beside_the_table(engine):
    data = columns()
    bags = random_bags(500, 50, 0)
    released = release(ENGINES[engine](data), bag=bags, epsilon=1e7)
    means = [data["spent"][bags == a].clip(-1, 2).mean() for a in range(10)]
    assert rows(released.table)["mean_spent"] == pytest.approx(means, abs=2e-5)
    assert released.bag == "bag"


@pytest.mark.parametrize("build", [label_sorted_bags, prediction_sorted_bags])
def test_bags_built_from_labels_are_refused_unless_no_guarantee_is_wanted(build):
    table = pl.DataFrame(columns())
    bags = build(columns()["spent"], 50)
    with pytest.raises(ValueError, match="sorted bags depend on the labels"):
        release(table, bag=bags)
    with pytest.raises(ValueError, match="accept_label_leak=True"):
        release(table, bag=bags[::1])
    accepted = release(table, bag=bags, accept_label_leak=True)
    assert not accepted.guarantee.is_private
    assert "built from the responses" in str(accepted.guarantee)


def test_ids_beside_a_lazy_table_are_refused():
    with pytest.raises(TypeError, match="bag must name a column"):
        release(pl.LazyFrame(columns()), bag=random_bags(500, 50, 0))


def test_wrong_number_of_ids_is_refused():
    with pytest.raises(ValueError, match="499 ids for 500 rows"):
        release(pl.DataFrame(columns()), bag=np.zeros(499, int))


# ---------------------------------------------------------------------------------------- bad input


@engines
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
def test_bad_responses_are_counted_and_never_released(engine, bad):
    data = columns() | {"spent": [1.0, bad, 2.0, bad] * 125}
    if engine in ("pandas", "dask"):
        data["spent"] = pd.Series(data["spent"], dtype=float)
    with pytest.raises(ValueError, match=r"response: column 'spent' is .* in 250 of 500 rows"):
        release(ENGINES[engine](data))


@engines
def test_bad_features_are_counted(engine):
    data = columns()
    data["age"][:3] = [np.nan, np.inf, -np.inf]
    with pytest.raises(ValueError, match=r"features: column 'age' is .* in 3 of 500 rows"):
        release(ENGINES[engine](data), features=["clicks", "age"])


@engines
def test_missing_bag_ids_are_counted(engine):
    data = columns() | {"name": [None, "a", "b", "c"] * 125}
    with pytest.raises(ValueError, match="bag: column 'name' is missing in 125 of 500 rows"):
        release(ENGINES[engine](data), bag="name")


@engines
def test_empty_tables_are_refused(engine):
    data = {name: values[:0] for name, values in columns().items()}
    with pytest.raises(ValueError, match="table has no rows"):
        release(ENGINES[engine](data))


@engines
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bag": "nope"}, ValueError, "bag: no column 'nope' among .*'campaign'"),
        ({"response": "nope"}, ValueError, "response: no column 'nope'"),
        ({"features": ["nope"]}, ValueError, "features: no column 'nope'"),
        ({"response": "campaign"}, ValueError, "different columns, got 'campaign'"),
        ({"features": ["spent"]}, ValueError, "must not contain the response 'spent'"),
        ({"features": ["age", "age"]}, ValueError, "features must be distinct"),
        ({"features": [1]}, TypeError, "features must be column names"),
        ({"response": 3}, TypeError, "response must be a column name, got 3"),
        ({"response": "name"}, TypeError, "column 'name' must be numeric, got String"),
        ({"features": "name"}, TypeError, "features: column 'name' must be numeric"),
        ({"bag": "age"}, TypeError, "bag: column 'age' must hold integers.*got Float64"),
        ({"bounds": (2, -1)}, ValueError, "bounds must increase"),
        ({"epsilon": 0.0}, ValueError, "epsilon"),
        ({"epsilon": np.inf}, ValueError, "epsilon"),
    ],
)
def test_bad_arguments_are_named(engine, changes, error, message):
    with pytest.raises(error, match=message):
        release(ENGINES[engine](columns()), **changes)


def test_bounds_and_epsilon_have_no_default():
    with pytest.raises(TypeError, match="bounds"):
        release_bags(pl.DataFrame(columns()), bag="campaign", response="spent", epsilon=1.0)
    with pytest.raises(TypeError, match="epsilon"):
        release_bags(pl.DataFrame(columns()), bag="campaign", response="spent", bounds=(0, 1))


def test_object_columns_are_refused_as_bags():
    table = pd.DataFrame(columns())
    table["campaign"] = pd.Series([1, "a"] * 250, dtype=object)
    with pytest.raises(TypeError, match="column 'campaign' must hold integers"):
        release(table)


def test_integers_that_pandas_turned_to_floats_get_a_hint():
    table = pd.DataFrame(columns())
    table["campaign"] = [1, None] * 250
    with pytest.raises(TypeError, match="missing integers turn a pandas column to floats"):
        release(table)


def test_column_names_that_collide_are_refused():
    table = pl.DataFrame(columns()).rename({"campaign": "size"})
    with pytest.raises(ValueError, match="rename the bag column 'size'"):
        release(table, bag="size")


def test_an_odd_bag_column_name_does_not_disturb_the_query():
    table = pl.DataFrame(columns()).rename({"campaign": "steps"})
    assert rows(release(table, bag="steps").table)["steps"].tolist() == list(range(-4, 5))


def test_something_that_is_no_table_is_refused():
    with pytest.raises(TypeError, match="dict"):
        release(columns())
