"""LookAlikeClustering: what is released, what is promised, tables in and out, bad input."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_selector
from sklearn.datasets import load_wine
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from privlearn.lookalike import LookAlikeClustering

METHODS = ["mdav", "flow", "mdav+flow", "kmeans-merge"]


def fewest_alike(block):
    return np.unique(np.asarray(block), axis=0, return_counts=True)[1].min()


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    n = 60
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "city": rng.choice(["A", "B", "C"], n),
            "income": rng.lognormal(10, 1, n),
            "spend": rng.standard_normal(n),
            "member": rng.random(n) < 0.5,
        },
        index=np.arange(n) * 3 + 100,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("m", [2, 5, 20, 178])
def test_released_blocks_are_shared_by_min_size_rows_and_keep_the_mean(method, m):
    X = load_wine().data
    look = LookAlikeClustering(slice(0, 6), m, method=method)
    out = look.fit_transform(X)
    assert fewest_alike(out[:, :6]) >= m
    assert look.anonymity_level_ == fewest_alike(out[:, :6])
    assert look.cluster_sizes_.min() >= m
    np.testing.assert_allclose(out[:, :6].sum(axis=0), X[:, :6].sum(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(out[:, 6:], X[:, 6:])
    np.testing.assert_array_equal(look.transform(X), out)


@settings(max_examples=40)
@given(st.integers(1, 40), st.data())
def test_anonymity_holds_for_every_table_type_and_unit(n, data):
    m = data.draw(st.integers(1, n))
    levels = data.draw(st.sampled_from([1, 3, 10**6]))
    factor = data.draw(st.sampled_from([1e-12, 1.0, 1e12]))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    method = data.draw(st.sampled_from(METHODS))
    X = (factor * np.random.default_rng(n).integers(0, levels, (n, 3))).astype(dtype)
    look = LookAlikeClustering([0, 2], m, method=method)
    out = look.fit_transform(X)
    assert out.dtype == dtype
    assert fewest_alike(out[:, [0, 2]]) >= m
    assert look.anonymity_level_ == fewest_alike(out[:, [0, 2]])


def test_min_size_one_releases_the_table_itself():
    X = np.random.default_rng(0).standard_normal((30, 3))
    np.testing.assert_array_equal(LookAlikeClustering(min_size=1).fit_transform(X), X)


@pytest.mark.parametrize("factor", [1e-5, 1e12])
@pytest.mark.parametrize("method", METHODS)
def test_partition_does_not_depend_on_the_unit(method, factor):
    X = load_wine().data
    labels = LookAlikeClustering(min_size=5, method=method).fit(X).labels_
    scaled = LookAlikeClustering(min_size=5, method=method).fit(factor * X)
    np.testing.assert_array_equal(scaled.labels_, labels)
    one = X * np.where(np.arange(13) == 4, factor, 1.0)
    np.testing.assert_array_equal(
        LookAlikeClustering(min_size=5, method=method).fit(one).labels_, labels
    )


def test_centres_are_raw_means_and_loss_is_of_standardised_columns():
    X = load_wine().data
    look = LookAlikeClustering([0, 12], 4, cluster_on="all").fit(X)
    for k, centre in enumerate(look.centers_):
        np.testing.assert_allclose(centre, X[look.labels_ == k][:, [0, 12]].mean(axis=0))
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    means = np.array([Z[look.labels_ == k].mean(axis=0) for k in range(len(look.centers_))])
    loss = ((Z - means[look.labels_]) ** 2).sum() / (Z**2).sum()
    assert look.information_loss_ == pytest.approx(loss, rel=1e-9)


def test_clusters_follow_the_columns_that_cluster_on_names():
    rng = np.random.default_rng(0)
    near = np.repeat([0.0, 100.0], 10)
    X = np.column_stack([rng.permutation(20.0 * np.arange(20)), near + rng.random(20)])
    groups = {"other": [1], "sensitive": [0], "all": [0, 1]}
    for name, columns in groups.items():
        by_name = LookAlikeClustering(0, 10, cluster_on=name).fit(X)
        by_number = LookAlikeClustering(0, 10, cluster_on=columns).fit(X)
        np.testing.assert_array_equal(by_name.labels_, by_number.labels_)
    other = LookAlikeClustering(0, 10, cluster_on="other").fit(X)
    assert len(set(other.labels_[:10])) == 1
    assert set(other.labels_[:10]).isdisjoint(other.labels_[10:])


@pytest.mark.parametrize(
    "selector",
    [
        ["age", "income"],
        [0, 2],
        [2, 0, 2],
        [-5, -3],
        [True, False, True, False, False],
        np.array([True, False, True, False, False]),
        pd.Index(["age", "income"]),
        make_column_selector(pattern="age|income"),
        lambda table: ["income", "age"],
    ],
)
def test_columns_are_found_by_every_kind_of_selector(people, selector):
    look = LookAlikeClustering(selector, 5).fit(people)
    np.testing.assert_array_equal(look.sensitive_, [0, 2])
    assert look.report_.sensitive == ("age", "income")


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("agee", "names column 'agee', but the columns are age, city"),
        (7, "has 5 columns"),
        ([], "names no column"),
        ([True, False], "mask of 2"),
        ([1.5], "by string or integer"),
        ([False] * 5, "names no column"),
    ],
)
def test_unknown_columns_are_named_in_the_error(people, selector, message):
    with pytest.raises(ValueError, match=message):
        LookAlikeClustering(selector, 5).fit(people)


def test_pandas_frame_comes_back_with_its_index_and_other_columns_untouched(people):
    kept = people.copy()
    out = LookAlikeClustering(["age", "income"], 5).fit_transform(people)
    pd.testing.assert_frame_equal(people, kept)
    assert isinstance(out, pd.DataFrame)
    pd.testing.assert_index_equal(out.index, people.index)
    rest = ["city", "spend", "member"]
    pd.testing.assert_frame_equal(out[rest], people[rest])
    assert fewest_alike(out[["age", "income"]]) >= 5
    assert out["age"].mean() == pytest.approx(people["age"].mean())


def test_polars_and_pyarrow_frames_come_back_as_they_came_with_the_same_numbers(people):
    look = LookAlikeClustering(["age", "income", "member"], 5)
    expected = look.fit_transform(people)
    columns = ["age", "income", "member"]
    frame = pl.from_pandas(people.reset_index(drop=True))
    out = look.fit_transform(frame)
    assert isinstance(out, pl.DataFrame)
    assert out["city"].to_list() == people["city"].to_list()
    np.testing.assert_array_equal(out[columns].to_numpy(), expected[columns].to_numpy(float))
    pa = pytest.importorskip("pyarrow")
    table = look.fit_transform(frame.to_arrow())
    assert isinstance(table, pa.Table)
    np.testing.assert_array_equal(table["age"].to_numpy(), expected["age"])


def test_set_output_decides_the_kind_of_frame(people):
    numbers = people[["age", "income", "spend"]]
    frame = pl.from_pandas(numbers.reset_index(drop=True))
    for X in (numbers, frame, numbers.to_numpy()):
        for kind, type_ in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
            look = LookAlikeClustering([0], 5).set_output(transform=kind)
            for out in (look.fit_transform(X), look.transform(X), look.transform(X[:7])):
                assert isinstance(out, type_)
                assert list(out.columns) == list(look.get_feature_names_out())
                assert out.shape[1] == 3
    np.testing.assert_array_equal(
        LookAlikeClustering(0).fit(numbers).get_feature_names_out(), ["age", "income", "spend"]
    )


def test_lazy_frames_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match="collect"):
        LookAlikeClustering().fit(pl.LazyFrame({"a": [1.0, 2.0]}))


@pytest.mark.parametrize("kind", [str, "category"])
def test_text_and_categories_are_refused_with_the_way_out(people, kind):
    people["city"] = people["city"].astype(kind)
    with pytest.raises(ValueError, match=r"'city' has type .* One-hot encode it first"):
        LookAlikeClustering(["age", "city"], 5).fit(people)
    with pytest.raises(ValueError, match=r"cluster_on column 'city'"):
        LookAlikeClustering("age", 5, cluster_on="all").fit(people)


def test_one_hot_categories_become_shares(people):
    dummies = pd.get_dummies(people[["city", "age"]])
    out = LookAlikeClustering(min_size=6).fit_transform(dummies)
    shares = out[[c for c in out if c.startswith("city_")]].to_numpy(float)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_missing_values_are_refused_where_they_matter(people):
    people["spend"] = people["spend"].where(people["spend"] > 0)
    LookAlikeClustering("age", 5).fit(people)
    with pytest.raises(ValueError, match=r"NaN.*'spend'"):
        LookAlikeClustering(["age", "spend"], 5).fit(people)
    frame = pl.DataFrame({"a": [1, None, 3]})
    with pytest.raises(ValueError, match=r"missing.*'a'"):
        LookAlikeClustering(min_size=2).fit(frame)


def test_constant_columns_play_no_part():
    X = load_wine().data
    with_constant = np.column_stack([X, np.full(len(X), 0.1)])
    look = LookAlikeClustering(min_size=5).fit(with_constant)
    np.testing.assert_array_equal(look.labels_, LookAlikeClustering(min_size=5).fit(X).labels_)
    np.testing.assert_allclose(look.centers_[:, -1], 0.1)
    flat = LookAlikeClustering(min_size=3).fit(np.full((10, 2), 7.0))
    assert flat.anonymity_level_ == 10
    assert flat.information_loss_ == 0


def test_fewer_distinct_rows_than_clusters_can_only_raise_the_anonymity():
    X = np.repeat([[0.0], [1.0]], 15, axis=0)
    for method in METHODS:
        look = LookAlikeClustering(min_size=3, method=method).fit(X)
        assert look.anonymity_level_ == 15


def test_given_clusters_are_used_and_small_ones_refused():
    X = np.random.default_rng(0).standard_normal((12, 2))
    names = np.repeat(["north", "south", "west"], [5, 4, 3])
    look = LookAlikeClustering(0, 3).fit(X, clusters=names)
    np.testing.assert_array_equal(look.clusters_[look.labels_], names)
    np.testing.assert_allclose(look.centers_[0], X[:5, 0].mean())
    assert look.report_.method == "given clusters"
    with pytest.raises(ValueError, match=r"1 of the given clusters.*west \(3 rows\)"):
        LookAlikeClustering(0, 4).fit(X, clusters=names)
    with pytest.raises(ValueError, match="shape"):
        LookAlikeClustering(0, 4).fit(X, clusters=names[:3])
    for missing in ([None] + ["a"] * 11, [np.nan] + [1.0] * 11):
        with pytest.raises(ValueError, match="missing"):
            LookAlikeClustering(0, 1).fit(X, clusters=missing)


def test_given_clusters_reach_the_transformer_through_a_pipeline():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    clusters = np.arange(20) % 4
    with sklearn.config_context(enable_metadata_routing=True):
        look = LookAlikeClustering(0, 5).set_fit_request(clusters=True)
        pipeline = make_pipeline(look, Ridge()).fit(X, y, clusters=clusters)
    np.testing.assert_array_equal(pipeline[0].labels_, clusters)


def test_new_rows_get_the_nearest_centre_or_stay_individual():
    X = np.repeat([[0.0, 1.0], [10.0, 2.0]], 5, axis=0) + np.arange(10)[:, None] / 10
    new = np.array([[0.4, 7.0], [9.0, 8.0]])
    look = LookAlikeClustering(0, 5).fit(X)
    np.testing.assert_allclose(look.transform(new), [[0.2, 7.0], [10.7, 8.0]])
    alone = LookAlikeClustering(0, 5, test_features="individual").fit(X)
    np.testing.assert_array_equal(alone.transform(new), new)
    assert fewest_alike(alone.transform(X)[:, [0]]) == 5


def test_fitted_table_is_recognised_where_nearest_centres_would_break_the_guarantee():
    # Nearest centres send the row at 4 away from its cluster of 3.
    X = np.array([[0.0], [4.0], [20.0], [3.0], [3.1], [3.2]])
    clusters = [0, 0, 0, 1, 1, 1]
    look = LookAlikeClustering(min_size=3).fit(X, clusters=clusters)
    assert fewest_alike(look.transform(X)) == 3
    assert fewest_alike(look.transform(X[::-1])) < 3  # documented: other tables are new rows


def test_fitted_object_holds_no_rows_of_the_table():
    X = np.random.default_rng(0).standard_normal((50, 3))
    stored = pickle.dumps(LookAlikeClustering(min_size=5).fit(X))
    assert all(value.tobytes() not in stored for value in X.ravel())


def test_report_says_what_holds_and_what_does_not(people):
    look = LookAlikeClustering(["age", "income"], 7).fit(people)
    report = look.report_
    assert (report.n_rows, report.min_size) == (60, 7)
    assert report.smallest == look.cluster_sizes_.min()
    assert report.largest == look.cluster_sizes_.max()
    assert report.information_loss == pytest.approx(100 * look.information_loss_)
    text = str(report)
    assert f"shared by at least {look.anonymity_level_} rows" in text
    for caveat in ("not k-anonymous", "not differential privacy", "New rows"):
        assert caveat in text


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_size": 0}, "at least 1"),
        ({"min_size": 31}, "cannot be met"),
        ({"min_size": 2.5}, "integer"),
        ({"method": "magic"}, "method must be"),
        ({"test_features": "both"}, "test_features"),
        ({"n_clusters": 10}, "need 50 rows"),
        ({"n_clusters": 3, "method": "mdav"}, "its own number"),
        ({"cluster_on": "other"}, "every column is sensitive"),
        ({"cluster_on": 5}, "has 3 columns"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    X = np.random.default_rng(0).standard_normal((30, 3))
    with pytest.raises(ValueError, match=message):
        LookAlikeClustering(**parameters).fit(X)


@pytest.mark.parametrize("factor", [1e-300, 1e-12, 1e12, 1e300])
def test_huge_and_tiny_magnitudes_keep_finite_centres_and_the_guarantee(factor):
    X = factor * np.random.default_rng(0).uniform(-1, 1, (40, 2))
    look = LookAlikeClustering(min_size=4)
    out = look.fit_transform(X)
    assert np.isfinite(out).all()
    assert fewest_alike(out) >= 4


# scikit-learn sets n_clusters itself in these checks, which "mdav" refuses.
@pytest.mark.parametrize("method", ["flow", "mdav+flow", "kmeans-merge"])
@pytest.mark.parametrize("min_size", [1, 5])
def test_transformer_keeps_the_contract_of_scikit_learn(method, min_size):
    check_estimator(LookAlikeClustering(min_size=min_size, method=method))
