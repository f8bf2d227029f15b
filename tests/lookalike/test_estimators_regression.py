"""The estimators of B3: kernels against plain least squares, and the scikit-learn face."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import check_estimator

from privlearn.lookalike import LookAlikeRegression, kernels
from privlearn.simulate import float64


def draw(n=60, p=12, q=9, k=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    centres = rng.standard_normal((k, p))
    sensitive = centres[labels] + rng.standard_normal((n, p))
    other = rng.standard_normal((n, q))
    y = sensitive[:, 0] + other.sum(axis=1) + rng.standard_normal(n)
    return sensitive, other, y, labels, centres


def full_table_fit(table, y, lam):
    n, d = table.shape
    if lam is None:
        return np.linalg.lstsq(table, y, rcond=None)[0]
    return np.linalg.solve(table.T @ table + n * lam * np.eye(d), table.T @ y)


@pytest.mark.parametrize("lam", [None, 0.3])
@pytest.mark.parametrize("shape", [(60, 12, 9, 4), (30, 40, 50, 4), (50, 5, 8, 20), (20, 3, 0, 5)])
def test_low_rank_fit_equals_least_squares_on_the_full_table(shape, lam):
    sensitive, other, y, labels, centres = draw(*shape)
    p = sensitive.shape[1]
    with float64():
        fit = kernels.fit_centres(centres, labels, jnp.asarray(other), jnp.asarray(y), lam=lam)
        shown = kernels.predict(fit, jnp.asarray(sensitive), jnp.asarray(other))
        table = np.asarray(kernels.centre_table(jnp.asarray(centres), labels, jnp.asarray(other)))
    theta = full_table_fit(table, y, lam)
    np.testing.assert_array_equal(table, np.hstack([centres[labels], other]))
    np.testing.assert_allclose(fit.sensitive, theta[:p], atol=1e-8)
    np.testing.assert_allclose(fit.other, theta[p:], atol=1e-8)
    np.testing.assert_allclose(shown, np.hstack([sensitive, other]) @ theta, atol=1e-8)


@pytest.mark.parametrize("lam", [None, 0.2])
@pytest.mark.parametrize("shape", [(60, 12, 9, 4), (15, 12, 9, 4)])
def test_base_drop_and_empirical_equal_least_squares_on_their_tables(shape, lam):
    sensitive, other, y, labels, _ = draw(*shape)
    means = np.array([sensitive[labels == k].mean(axis=0) for k in range(4)])
    with float64():
        s, o, r = jnp.asarray(sensitive), jnp.asarray(other), jnp.asarray(y)
        base = kernels.fit_base(s, o, r, lam=lam)
        drop = kernels.fit_drop(s, o, r, lam=lam)
        empirical = kernels.fit_empirical(s, labels, o, r, 4, lam=lam)
    for fit, block in ((base, sensitive), (empirical, means[labels])):
        theta = full_table_fit(np.hstack([block, other]), y, lam)
        np.testing.assert_allclose(np.concatenate(fit), theta, atol=1e-8)
    np.testing.assert_allclose(drop.other, full_table_fit(other, y, lam), atol=1e-8)
    assert (np.asarray(drop.sensitive) == 0).all()


def test_every_row_its_own_cluster_is_the_base_and_one_zero_centre_is_drop():
    sensitive, other, y, _, _ = draw()
    with float64():
        s, o, r = jnp.asarray(sensitive), jnp.asarray(other), jnp.asarray(y)
        alone = kernels.fit_empirical(s, jnp.arange(60), o, r, 60)
        base = kernels.fit_base(s, o, r)
        zero = kernels.fit_centres(jnp.zeros((1, 12)), jnp.zeros(60, int), o, r)
        drop = kernels.fit_drop(s, o, r)
    np.testing.assert_allclose(np.concatenate(alone), np.concatenate(base), atol=1e-10)
    np.testing.assert_allclose(np.concatenate(zero), np.concatenate(drop), atol=1e-10)


def test_predictions_do_not_change_when_the_blocks_are_rotated():
    sensitive, other, y, labels, _ = draw(30, 12, 30, 4)
    rng = np.random.default_rng(1)
    turn_s = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    turn_o = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    with float64():
        out = []
        for s, o in ((sensitive, other), (sensitive @ turn_s, other @ turn_o)):
            s, o = jnp.asarray(s), jnp.asarray(o)
            fit = kernels.fit_empirical(s, labels, o, jnp.asarray(y), 4)
            out.append(np.asarray(kernels.predict(fit, s, o)))
    np.testing.assert_allclose(*out, atol=1e-9)


def test_tiny_ridge_is_a_surrogate_of_the_min_norm_fit():
    sensitive, other, y, _, _ = draw(30, 40, 30, 4)
    X = np.hstack([sensitive, other])
    with float64():
        lam = 1e-10 * (X**2).sum() / X.shape[0] / min(X.shape)
        near = kernels.ridge(jnp.asarray(X), jnp.asarray(y), lam)
        exact = kernels.min_norm(jnp.asarray(X), jnp.asarray(y))
    np.testing.assert_allclose(near, exact, atol=1e-6)


@pytest.mark.parametrize("lam", [None, 0.1])
def test_kernels_run_under_vmap_and_jit_as_one_by_one(lam):
    draws = [draw(seed=seed) for seed in range(3)]
    with float64():
        s, o, y, labels, centres = (
            jnp.stack(list(map(jnp.asarray, part))) for part in zip(*draws, strict=True)
        )

        def both(s, o, y, labels, centres):
            return (
                kernels.fit_empirical(s, labels, o, y, 4, lam=lam),
                kernels.fit_centres(centres, labels, o, y, lam=lam),
            )

        together = jax.jit(jax.vmap(both))(s, o, y, labels, centres)
        for i in range(3):
            alone = both(s[i], o[i], y[i], labels[i], centres[i])
            for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a[i], b, atol=1e-9)


# ----------------------------------------------------------------------------------- the estimator


def test_base_without_ridge_is_ordinary_least_squares():
    X, y = load_diabetes(return_X_y=True)
    model = LookAlikeRegression(features="base", ridge=0).fit(X, y)
    np.testing.assert_allclose(model.predict(X), LinearRegression().fit(X, y).predict(X))


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_empirical_fit_is_least_squares_on_the_released_table(ridge, fit_intercept):
    sensitive, other, y, _, _ = draw(120, 5, 6, 4)
    X = np.hstack([other[:, :3], sensitive + 3, other[:, 3:]])
    model = LookAlikeRegression([3, 4, 5, 6, 7], 6, ridge=ridge, fit_intercept=fit_intercept).fit(
        X, y + 7
    )
    table = model.lookalike_.transform(X)
    mean = table.mean(axis=0) if fit_intercept else np.zeros(X.shape[1])
    level = (y + 7).mean() if fit_intercept else 0.0
    theta = full_table_fit(table - mean, y + 7 - level, ridge or None)
    np.testing.assert_allclose(model.coef_, theta, atol=1e-8)
    assert model.intercept_ == pytest.approx(level - mean @ theta, abs=1e-8)
    assert model.lookalike_.anonymity_level_ >= 6


@pytest.mark.filterwarnings("ignore:.*interpolation peak")
def test_known_centres_and_wrong_labels_give_the_mis_clustered_fit():
    sensitive, other, y, labels, centres = draw(80, 5, 6, 4)
    X = np.hstack([sensitive, other])
    wrong = np.random.default_rng(0).permutation(labels)
    for used in (labels, wrong):
        model = LookAlikeRegression(range(5), features="known", ridge=0, fit_intercept=False)
        model.fit(X, y, clusters=used, centers=centres)
        theta = full_table_fit(np.hstack([centres[used], other]), y, None)
        np.testing.assert_allclose(model.coef_, theta, atol=1e-8)


def test_drop_ignores_the_sensitive_columns():
    X, y = load_diabetes(return_X_y=True)
    model = LookAlikeRegression(slice(4, 10), features="drop", ridge=0).fit(X, y)
    assert (model.coef_[4:] == 0).all()
    expected = LinearRegression().fit(X[:, :4], y)
    np.testing.assert_allclose(model.predict(X), expected.predict(X[:, :4]))


def test_clusters_near_the_number_of_sensitive_features_warn_without_ridge():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(UserWarning, match="interpolation peak"):
        LookAlikeRegression(slice(0, 20), 10, ridge=0).fit(X[:200], y[:200])


@pytest.mark.filterwarnings("error")
def test_a_ridge_or_many_clusters_do_not_warn():
    X, y = load_breast_cancer(return_X_y=True)
    LookAlikeRegression(slice(0, 20), 10).fit(X[:200], y[:200])
    LookAlikeRegression(slice(0, 20), 3, ridge=0).fit(X[:200], y[:200])


def test_anonymity_is_free_on_diabetes_up_to_ten_and_dropping_costs():
    """An independent run of 30 splits: base .517, m=3 .517, m=10 .520, drop .61-.62."""
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    settings = {
        "base": {"features": "base"},
        "m=3": {"min_size": 3, "method": "mdav"},
        "m=10": {"min_size": 10, "method": "mdav"},
        "drop": {"features": "drop"},
    }
    error = {}
    for name, parameters in settings.items():
        errors = []
        for split in range(30):
            order = np.random.default_rng(split).permutation(442)
            train, test = order[:350], order[350:]
            model = LookAlikeRegression(slice(4, 10), ridge=0, **parameters)
            model.fit(X[train], y[train])
            errors.append(np.mean((y[test] - model.predict(X[test])) ** 2))
        error[name] = np.mean(errors)
    assert error["base"] == pytest.approx(0.517, abs=0.03)
    assert error["m=3"] == pytest.approx(error["base"], abs=0.015)
    assert error["m=10"] == pytest.approx(error["base"], abs=0.02)
    assert 0.06 < error["drop"] - error["base"] < 0.15


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({"ridge": -1}, {}, "ridge"),
        ({"ridge": np.nan}, {}, "ridge"),
        ({"features": "centre"}, {}, "features must be"),
        ({"features": "known"}, {}, "needs both"),
        ({}, {"centers": np.zeros((2, 3))}, "only"),
        ({"features": "known"}, {"clusters": [0] * 20, "centers": [[1.0]]}, "shape"),
        ({"features": "known"}, {"clusters": [2] * 20, "centers": np.ones((2, 3))}, "0..1"),
        ({"features": "known"}, {"clusters": [0.5] * 20, "centers": np.ones((2, 3))}, "numbers"),
        ({}, {"clusters": np.arange(20)}, "fewer than min_size"),
        ({"min_size": 21}, {}, "cannot be met"),
    ],
)
def test_bad_input_of_the_regression_is_refused(parameters, arguments, message):
    X = np.random.default_rng(0).standard_normal((20, 3))
    with pytest.raises(ValueError, match=message):
        LookAlikeRegression(**parameters).fit(X, X[:, 0], **arguments)


@pytest.mark.filterwarnings("ignore:.*interpolation peak")
@pytest.mark.parametrize("estimator", [LookAlikeRegression(), LookAlikeRegression(ridge=0)])
def test_regression_keeps_the_contract_of_scikit_learn(estimator):
    check_estimator(estimator)
