"""Studies on real tables: the fits are those of the estimators, the findings hold."""

import functools

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression, Ridge

from privlearn.lookalike import LookAlikeRegression, studies


@pytest.fixture(scope="module")
def diabetes():
    return studies.diabetes_table()


def first_split(table, n_train, seed):
    order = np.random.default_rng(seed).permutation(len(table.y))
    return order[:n_train], order[n_train:]


def test_every_method_is_the_public_estimator_on_the_same_split(diabetes):
    study = studies.lookalike_study(
        diabetes, n_train=300, min_sizes=(1, 4), ridges=(0.0, 0.2), n_splits=1, seed=7
    )
    train, test = first_split(diabetes, 300, 7)
    X, y = diabetes.X, diabetes.y
    for at, (m, features) in enumerate(
        ((1, "base"), (1, "empirical"), (4, "empirical"), (1, "drop"))
    ):
        for column, ridge in enumerate((0.0, 0.2)):
            model = LookAlikeRegression(
                diabetes.sensitive, m, features=features, ridge=ridge, method="mdav"
            ).fit(X[train], y[train])
            expected = np.mean((model.predict(X[test]) - y[test]) ** 2)
            assert study.errors[0, at, column] == pytest.approx(expected, rel=1e-8)


def test_base_and_drop_are_scikit_learns_least_squares_and_ridge(diabetes):
    study = studies.lookalike_study(
        diabetes, n_train=300, min_sizes=(5,), ridges=(0.0, 0.2), n_splits=1, seed=8
    )
    train, test = first_split(diabetes, 300, 8)
    rest = np.setdiff1d(np.arange(diabetes.X.shape[1]), diabetes.sensitive)
    for at, columns in ((0, slice(None)), (2, rest)):
        X = diabetes.X[:, columns]
        for column, model in enumerate((LinearRegression(), Ridge(alpha=300 * 0.2))):
            model.fit(X[train], diabetes.y[train])
            expected = np.mean((model.predict(X[test]) - diabetes.y[test]) ** 2)
            assert study.errors[0, at, column] == pytest.approx(expected, rel=1e-8)


def test_interval_of_the_median_covers_it_at_its_level():
    study = studies.Study(("base",), (1,), (0.0,), np.arange(30.0)[::-1].reshape(30, 1, 1), None)
    low, high = (int(end.item()) for end in study.interval())
    # The median lies between order statistics a and b (from 1) if a to b - 1 draws are below it.
    covered = scipy.stats.binom.cdf(high, 30, 0.5) - scipy.stats.binom.cdf(low, 30, 0.5)
    narrower = scipy.stats.binom.cdf(high - 1, 30, 0.5) - scipy.stats.binom.cdf(low + 1, 30, 0.5)
    assert narrower < 0.95 <= covered
    with pytest.raises(ValueError, match="too few"):
        study._replace(errors=study.errors[:5]).interval()


@pytest.mark.parametrize("name", sorted(studies.TABLES))
def test_tables_are_complete_standardised_and_name_their_sensitive_columns(name):
    table = studies.TABLES[name]()
    assert table.name == name
    np.testing.assert_allclose(table.X.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(table.X.std(axis=0), 1, atol=1e-9)
    assert table.X.shape == (len(table.y), len(table.columns))
    assert np.isfinite(table.y).all()
    sensitive = {table.columns[i] for i in table.sensitive}
    people = {"census income": "race_white", "election survey": "racef_White"}
    assert name not in people or {people[name], "age"} <= sensitive
    assert len(sensitive) < len(table.columns)


def test_anonymity_is_nearly_free_on_diabetes_up_to_m_20_and_dropping_is_not(diabetes):
    study = studies.lookalike_study(diabetes, n_train=350, min_sizes=(5, 20), n_splits=20)
    cost = np.median(study.errors / study.errors[:, :1], axis=0)[:, 0]
    assert (cost[1:3] < 1.05).all()
    assert cost[3] > 1.1


def test_second_peak_appears_where_clusters_meet_sensitive_columns_and_ridge_removes_it():
    study = studies.lookalike_study(
        studies.breast_cancer_table(), n_train=200, min_sizes=(3, 10), ridges=(0.0, 0.1),
        n_splits=15,
    )  # fmt: skip
    least_squares, ridge = study.median[:, 0], study.median[:, 1]
    assert least_squares[2] > 10 * least_squares[0]  # m = 10: 20 clusters, 20 sensitive columns
    assert ridge[2] < 1.3 * ridge[0]
    assert study.information_loss[0] == 0
    assert 0 < study.information_loss[1] < study.information_loss[2] < 1


def test_lookalike_removes_the_first_peak_but_dropping_redundant_columns_is_better_still():
    study = studies.lookalike_study(
        studies.breast_cancer_table(), n_train=34, min_sizes=(5,), n_splits=20
    )
    base, lookalike, drop = study.median[:, 0]
    assert lookalike < base / 3
    assert drop < lookalike


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_train": 442}, "n_train"),
        ({"n_test": 200}, "n_test"),
        ({"ridges": ()}, "ridges"),
        ({"ridges": (-1.0,)}, "ridges"),
        ({"n_splits": 0}, "n_splits"),
        ({"min_sizes": (0,)}, "min_size"),
        ({"method": "magic"}, "method"),
    ],
)
def test_bad_arguments_of_a_study_are_refused_by_name(diabetes, change, word):
    setting = {"n_train": 300, "min_sizes": (5,), "n_splits": 2} | change
    with pytest.raises(ValueError, match=word):
        studies.lookalike_study(diabetes, **setting)


def test_errors_do_not_depend_on_how_many_splits_go_through_memory_at_once(diabetes, monkeypatch):
    study = functools.partial(
        studies.lookalike_study, diabetes, n_train=300, min_sizes=(5,), ridges=(0.1,), n_splits=5
    )
    whole = study().errors
    per_split = 8 * 3 * (len(diabetes.y) - 300) * diabetes.X.shape[1]
    monkeypatch.setattr(studies, "_BLOCK_BYTES", 2 * per_split)
    np.testing.assert_allclose(study().errors, whole, rtol=1e-12)
