"""Real tables cut into bags: the splits, the whole path at once, and the published pattern."""

import jax
import numpy as np
import pytest

from privlearn.aggregate import AggregateRegressor, studies
from privlearn.datasets import load_boston, load_diabetes

RHOS = (0, 0.003, 0.01, 0.03, 0.1, 0.3, 1)

# Mean standardised test errors over 40 random splits at RHOS and for EasyLLP, made by an
# independent implementation. Splits differ, and with them the numbers: by about 10 %.
REFERENCE = {
    ("boston", 2): (0.280, 0.280, 0.280, 0.280, 0.285, 0.317, 0.450, 0.304),
    ("boston", 5): (0.301, 0.298, 0.295, 0.294, 0.335, 0.473, 0.694, 0.408),
    ("boston", 10): (0.420, 0.406, 0.395, 0.419, 0.545, 0.732, 0.903, 0.642),
    ("diabetes", 5): (0.586, 0.584, 0.579, 0.573, 0.596, 0.694, 0.857, 0.624),
    ("diabetes", 10): (0.698, 0.680, 0.655, 0.638, 0.685, 0.796, 0.909, 0.773),
}


def table(name):
    X, y = {"boston": load_boston, "diabetes": load_diabetes}[name](return_X_y=True)
    return studies.standardise(X, y)


@pytest.mark.parametrize(("name", "k"), sorted(REFERENCE))
def test_linear_errors_on_real_tables_reproduce_the_reference_table(name, k):
    X, y = table(name)
    study = studies.linear_study(studies.bagged_splits(X, y, k, n_splits=200, seed=5), RHOS)
    found = np.append(study.mean, study.easyllp.mean())
    np.testing.assert_allclose(found, REFERENCE[name, k], atol=0.03, rtol=0.1)


@pytest.mark.parametrize("name", ["boston", "diabetes"])
def test_an_interior_rho_beats_both_losses_for_bags_of_twenty(name):
    X, y = table(name)
    study = studies.linear_study(studies.bagged_splits(X, y, 20, n_splits=200, seed=6), RHOS)
    best = study.errors[:, 2]  # rho = 0.01
    for end in (0, -1):
        gain = study.errors[:, end] - best
        assert gain.mean() > 5 * gain.std(ddof=1) / np.sqrt(len(gain))


def test_a_path_is_what_the_estimator_finds_one_rho_at_a_time():
    X, y = table("diabetes")
    splits = studies.bagged_splits(X, y, 5, n_splits=2, seed=1)
    study = studies.linear_study(splits, (0.03, 0.5))
    features, responses, test_x, test_y = (part[1] for part in splits)
    m, k, p = features.shape
    bags = np.repeat(np.arange(m), k)
    for rho, expected in zip(study.rhos, study.errors[1], strict=True):
        model = AggregateRegressor(rho=float(rho))
        model.fit(features.reshape(m * k, p), responses.mean(axis=1)[bags], bags=bags)
        found = np.mean((model.predict(test_x) - test_y) ** 2)
        assert found == pytest.approx(expected, rel=1e-9)


def test_splits_keep_training_and_test_rows_apart_and_repeat_with_the_seed():
    X = np.arange(53.0)[:, None]
    splits = studies.bagged_splits(X, np.arange(53.0), 4, n_splits=3, seed=2)
    assert splits.features.shape == (3, 10, 4, 1)
    assert splits.test_features.shape == (3, 11, 1)
    for i in range(3):
        rows = np.concatenate([splits.features[i].ravel(), splits.test_features[i].ravel()])
        assert len(np.unique(rows)) == len(rows)
    again = studies.bagged_splits(X, np.arange(53.0), 4, n_splits=3, seed=2)
    np.testing.assert_array_equal(again.responses, splits.responses)


def test_private_study_is_the_plain_one_without_privacy_and_worse_with_it():
    X, y = table("boston")
    splits = studies.bagged_splits(X, y, 5, n_splits=40, seed=3)
    plain = studies.linear_study(splits, RHOS)
    width = np.ptp(splits.responses)
    lavish = studies.private_study(splits, RHOS, 1e9, width, jax.random.key(0))
    np.testing.assert_allclose(lavish.errors, plain.errors, atol=1e-6)
    strict = studies.private_study(splits, RHOS, 1.0, width, jax.random.key(0))
    assert strict.mean.min() > plain.mean.min() + 0.1


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda s: studies.private_study(s, RHOS, 0.0, 9.0, jax.random.key(0)), "epsilon"),
        (lambda s: studies.private_study(s, RHOS, 1.0, -1.0, jax.random.key(0)), "width"),
        (lambda s: studies.private_study(s, RHOS, 1.0, 1e-3, jax.random.key(0)), "clip"),
        (lambda s: studies.bagged_splits(np.ones((9, 1)), np.ones(9), 5, n_splits=1), "k = 5"),
        (lambda s: studies.standardise(np.ones((9, 1)), np.arange(9.0)), "constant"),
        (lambda s: studies.standardise(np.full((2, 1), np.nan), np.arange(2.0)), "finite"),
        (lambda s: studies.standardise(np.ones(3), np.ones(3)), "X must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, word):
    X, y = table("diabetes")
    with pytest.raises(ValueError, match=word):
        call(studies.bagged_splits(X, y, 5, n_splits=1))
