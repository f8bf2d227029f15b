"""The review of a table: the same from every frame, right about classes, clear errors."""

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from privlearn.figures.theme import spec
from privlearn.reidentification import ReidentificationReport, reidentification_report
from privlearn.reidentification.histories import equivalence_classes, read_histories

COLUMNS = {"user": "who", "time": "when", "item": "page"}


def visits(n_users=30, n_events=24, seed=0):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), n_events)
    return pl.DataFrame(
        {
            "who": user,
            "when": np.tile(np.arange(n_events), n_users),
            "page": (rng.integers(0, 3, len(user)) + user) % 20,
            "city": [f"c{u % 7}" for u in user],
            "age": user % 5,
        }
    )


def review(table, **settings):
    settings = {"n_slices": 3, "top_k": 3, "n_repeats": 1, "methods": ("asymmetric",)} | settings
    return reidentification_report(table, **(COLUMNS | settings))


@pytest.fixture(scope="module")
def report():
    return review(visits(), quasi_identifiers=["city", "age"], methods=("hamming", "asymmetric"))


def test_the_report_finds_stable_users_and_names_its_population(report):
    assert isinstance(report, ReidentificationReport)
    link = report.linkage
    assert report.population == link.population == 30
    # Guessing finds 1 of 30; these users visit 3 of 20 pages each, always the same.
    assert link.success["asymmetric"].value > 0.15
    assert link.risk.shape == (30,)
    assert link.best in link.success
    rates = [link.success_at[k].value for k in (1, 5, 10)]
    assert rates == sorted(rates)
    assert link.success["asymmetric"].value <= link.known_profiles.upper["success"] + 0.2
    assert link.capacity_bound == 1
    assert "population: 30 users" in str(report)
    assert report.table()["risk"].is_sorted(descending=True)


def test_its_charts_are_valid_and_carry_their_data(report):
    text = json.dumps(spec(report.charts()))
    assert "knows all top sets" in text
    assert "Classes of city, age" in text


def test_the_same_seed_gives_the_same_report_and_another_one_another():
    first, second, third = (review(visits(), random_state=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.linkage.risk, second.linkage.risk)
    assert not np.array_equal(first.linkage.risk, third.linkage.risk)


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "lazy", "duckdb"])
def test_every_kind_of_frame_gives_the_same_arrays(kind):
    table = visits()
    if kind == "pandas":
        other = table.to_pandas()
    elif kind == "pyarrow":
        other = table.to_arrow()
    elif kind == "lazy":
        other = table.lazy()
    else:
        connection = duckdb.connect()
        connection.register("arrow", table.to_arrow())
        other = connection.sql("SELECT * FROM arrow")
    expected, found = read_histories(table, **COLUMNS), read_histories(other, **COLUMNS)
    for name in ("users", "items", "user", "item", "part"):
        assert np.array_equal(getattr(expected, name), getattr(found, name)), name
    quasi = {"user": "who", "quasi_identifiers": ["city", "age"]}
    assert np.array_equal(
        equivalence_classes(other, **quasi).sizes, equivalence_classes(table, **quasi).sizes
    )


def test_classes_are_counted_by_users_not_by_rows():
    table = pl.DataFrame(
        {"who": [1, 1, 1, 2, 3, 4], "zip": ["a", "a", "a", "a", "b", None], "x": [0] * 6}
    )
    found = equivalence_classes(table, user="who", quasi_identifiers=["zip"])
    assert found.sizes.tolist() == [1, 1, 2]
    assert found.k_anonymity == 1
    assert found.unique == 0.5
    assert found.success == 0.75
    assert found.within(2) == 0.5
    with pytest.raises(ValueError, match=r"1 user.*such as 1, have rows with different zip"):
        equivalence_classes(
            pl.DataFrame({"who": [1, 1], "zip": ["a", "b"]}), user="who", quasi_identifiers=["zip"]
        )


def test_slices_are_equal_counts_in_order_of_time_or_equal_times():
    table = pl.DataFrame(
        {"who": [7] * 6 + [8] * 2, "when": [5, 0, 1, 2, 3, 100, 0, 100], "page": list("fabcdexy")}
    )
    by_count = read_histories(table, **COLUMNS, n_slices=3)
    assert by_count.part.tolist() == [0, 0, 1, 1, 2, 2, 0, 1]
    assert [by_count.items[i] for i in by_count.item[:6]] == list("abcdfe")
    by_time = read_histories(table, **COLUMNS, n_slices=2, slicing="time")
    assert by_time.part.tolist() == [0, 0, 0, 0, 0, 1, 0, 1]


def test_dates_order_events_as_numbers_do():
    table = visits()
    dated = table.with_columns(when=pl.datetime(2024, 1, 1) + pl.duration(hours=pl.col("when")))
    for slicing in ("events", "time"):
        first = read_histories(table, **COLUMNS, slicing=slicing)
        second = read_histories(dated, **COLUMNS, slicing=slicing)
        assert np.array_equal(first.part, second.part)


def test_top_sets_hold_the_most_frequent_and_are_padded_with_distinct_items():
    table = pl.DataFrame({"who": [1] * 6 + [2], "when": range(7), "page": [4, 4, 4, 9, 9, 1, 30]})
    histories = read_histories(table, **COLUMNS, n_slices=1)
    sets = histories.top_sets(2, 0)
    assert histories.items[sets[0, 0]].tolist() == [4, 9]
    assert histories.items[sets[1, 0]][0] == 30
    for seed in range(20):
        row = histories.top_sets(4, seed)[1, 0]
        assert len(set(row.tolist())) == 4
    pads = [int(histories.top_sets(2, seed)[1, 0, 1]) for seed in range(300)]
    assert np.bincount(pads, minlength=4)[:3].min() > 50  # 100 expected of each; 5.7 sigma


def test_unicity_counts_users_alone_with_their_items():
    table = pl.DataFrame(
        {"who": [1, 1, 2, 2, 3], "when": range(5), "page": ["a", "b", "a", "c", "a"]}
    )
    histories = read_histories(table, **COLUMNS)
    assert histories.unicity(2, random_state=0) == 1.0  # {a, b} and {a, c} are each one user's
    assert 0 < histories.unicity(1, random_state=0) < 0.7
    assert np.isnan(histories.unicity(3, random_state=0))


def test_users_without_history_count_and_are_found_by_guessing_only():
    table = pl.concat(
        [
            visits().select("who", "when", "page"),
            pl.DataFrame(
                {"who": [99], "when": [None], "page": [None]},
                schema=visits().select("who", "when", "page").schema,
            ),
        ]
    )
    found = review(table, n_repeats=3)
    assert found.population == 31
    assert found.without_history == 1
    assert "1 users without history" in str(found)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"user": "nobody"}, ValueError, "user: no column 'nobody' among"),
        ({"time": 3}, TypeError, "time must be a column name, got 3"),
        ({"quasi_identifiers": ["page"]}, ValueError, "have rows with different page"),
        ({"quasi_identifiers": ["who"]}, ValueError, "distinct, and other than the user"),
        ({"n_slices": 0}, ValueError, "n_slices must be at least 1, got 0"),
        ({"slicing": "moons"}, ValueError, 'slicing must be "events" or "time"'),
        ({"methods": ("guess",)}, ValueError, "methods must be some of hamming"),
        ({"top_k": 21}, ValueError, "top_k must be at most n_topics = 20, got 21"),
        ({"noise": 2}, ValueError, r"noise must lie in \[0, 1\], got 2"),
        ({"n_repeats": 0}, ValueError, "n_repeats must be at least 1"),
    ],
)
def test_bad_parameters_are_named(change, error, message):
    with pytest.raises(error, match=message):
        review(visits(), **change)


def test_bad_tables_are_named():
    table = visits()
    with pytest.raises(ValueError, match="at least 2 users"):
        review(table.filter(pl.col("who") == 3))
    with pytest.raises(ValueError, match="table must hold events, got no rows"):
        review(table.clear())
    with pytest.raises(ValueError, match=r"user: column 'who' has 24 missing"):
        review(table.with_columns(who=pl.when(pl.col("who") > 0).then("who")))
    with pytest.raises(ValueError, match=r"item: column 'page' has \d+ missing value"):
        review(table.with_columns(page=pl.when(pl.col("page") > 5).then("page")))
    with pytest.raises(TypeError, match="item: column 'page' holds lists"):
        review(table.with_columns(page=pl.concat_list("page")))
    with pytest.raises(TypeError, match="table must be a frame that narwhals reads, got dict"):
        review({"who": [1]})


def test_nan_in_a_pandas_column_is_missing():
    table = pd.DataFrame({"who": [1, 2], "when": [0, 1], "page": ["a", None]})
    with pytest.raises(ValueError, match="missing value"):
        review(table)
