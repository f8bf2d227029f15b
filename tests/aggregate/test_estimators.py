"""AggregateRegressor: closed forms, invariances, reference numbers, scikit-learn, bad input."""

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.data import boston_housing_data
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from privlearn.aggregate import kernels
from privlearn.aggregate.estimators import AggregateRegressor, BagKFold
from privlearn.aggregate.linear import BagData, diagonal_path, fit_linear, weighted_statistics
from privlearn.simulate.precision import float64


@parametrize_with_checks([AggregateRegressor()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([AggregateRegressor(loss=name) for name in ("easyllp", "debiased")])
def test_scikit_learn_contract_of_other_losses(estimator, check):
    check(estimator)


def bagged(seed=0, m=20, p=4, equal=None, noise=0.5):
    """Rows in shuffled bags: X, individual y, y repeated bag means, ids."""
    rng = np.random.default_rng(seed)
    sizes = np.full(m, equal) if equal else rng.permutation(np.resize([1, 2, 3, 4, 6], m))
    ids = rng.permutation(np.repeat(np.arange(m), sizes))
    X = rng.normal(size=(ids.size, p)) + 2.0
    y = X @ np.linspace(-1, 2, p) + 3 + noise * rng.normal(size=ids.size)
    return X, y, (np.bincount(ids, y) / np.bincount(ids))[ids], ids


def bag_means(values, ids):
    sizes = np.bincount(ids)
    return np.stack([np.bincount(ids, column) / sizes for column in values.T], axis=1)


# ------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_bags_it_is_ordinary_least_squares_whatever_rho(rho, fit_intercept):
    X, y, _, _ = bagged()
    model = AggregateRegressor(rho=rho, fit_intercept=fit_intercept).fit(X, y)
    peer = LinearRegression(fit_intercept=fit_intercept).fit(X, y)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-9)
    np.testing.assert_allclose(model.score(X, y), peer.score(X, y), rtol=1e-9)
    assert model.n_bags_ == len(y)


@pytest.mark.parametrize("loss", ["bag", "interpolate"])
def test_the_bag_loss_is_least_squares_on_bag_means_weighted_by_size(loss):
    X, _, y, ids = bagged()
    sizes = np.bincount(ids)
    means = bag_means(np.column_stack([X, y]), ids)
    peer = LinearRegression().fit(means[:, :-1], means[:, -1], sample_weight=sizes)
    model = AggregateRegressor(loss=loss, rho=0.0).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-8)
    assert model.rho_ == 0.0
    alike = AggregateRegressor(loss=loss, rho=0.0, weights="bag").fit(X, y, bags=ids)
    peer = LinearRegression().fit(means[:, :-1], means[:, -1])
    np.testing.assert_allclose(alike.coef_, peer.coef_, rtol=1e-8)


@pytest.mark.parametrize("loss", ["instance", "interpolate"])
def test_the_instance_loss_is_least_squares_of_repeated_bag_means(loss):
    X, _, y, ids = bagged()
    peer = LinearRegression().fit(X, y)
    model = AggregateRegressor(loss=loss, rho=1.0).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-8)
    sizes = np.bincount(ids)
    alike = AggregateRegressor(loss=loss, rho=1.0, weights="bag").fit(X, y, bags=ids)
    peer = LinearRegression().fit(X, y, sample_weight=1 / sizes[ids])
    np.testing.assert_allclose(alike.coef_, peer.coef_, rtol=1e-8)


def test_easyllp_is_the_instance_solution_times_the_size_for_equal_bags():
    X, _, y, ids = bagged(equal=4)
    instance = AggregateRegressor(loss="instance").fit(X, y, bags=ids)
    easy = AggregateRegressor(loss="easyllp").fit(X, y, bags=ids)
    np.testing.assert_allclose(easy.coef_, 4 * instance.coef_, rtol=1e-9)
    np.testing.assert_allclose(easy.predict(X).mean(), y.mean(), rtol=1e-9)


def test_easyllp_regresses_on_pseudo_labels_for_unequal_bags():
    X, _, y, ids = bagged()
    sizes = np.bincount(ids)[ids]
    peer = LinearRegression().fit(X, sizes * y - (sizes - 1) * y.mean())
    easy = AggregateRegressor(loss="easyllp").fit(X, y, bags=ids)
    np.testing.assert_allclose(easy.coef_, peer.coef_, rtol=1e-8)
    np.testing.assert_allclose(easy.intercept_, peer.intercept_, rtol=1e-8)


def test_the_debiased_loss_with_an_intercept_and_equal_bags_is_the_bag_loss():
    X, _, y, ids = bagged(equal=3)
    bag = AggregateRegressor(loss="bag").fit(X, y, bags=ids)
    debiased = AggregateRegressor(loss="debiased").fit(X, y, bags=ids)
    np.testing.assert_allclose(debiased.coef_, bag.coef_, rtol=1e-9)
    np.testing.assert_allclose(debiased.intercept_, bag.intercept_, rtol=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_debiased_loss_minimises_what_it_says_for_unequal_bags(fit_intercept):
    X, _, y, ids = bagged()
    sizes, means = np.bincount(ids), bag_means(np.column_stack([X, y]), ids)
    theta, b = cp.Variable(4), cp.Variable() if fit_intercept else 0.0
    gap = means[:, -1] - means[:, :-1] @ theta - b
    weight = sizes / sizes.sum()
    deviation = gap - weight @ gap
    loss = cp.sum(cp.multiply(weight * sizes, cp.square(deviation))) + cp.square(weight @ gap)
    cp.Problem(cp.Minimize(loss)).solve(solver="CLARABEL")
    model = AggregateRegressor(loss="debiased", fit_intercept=fit_intercept).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, theta.value, atol=1e-6)


@pytest.mark.parametrize("weights", ["size", "bag"])
@pytest.mark.parametrize(("rho", "alpha"), [(0.37, 0.0), (0.37, 0.2), (0.0, 0.1), (2.5, 0.01)])
def test_it_minimises_the_stated_loss_as_a_convex_solver_does(weights, rho, alpha):
    X, _, y, ids = bagged(seed=3)
    sizes, ybar = np.bincount(ids), bag_means(y[:, None], ids)[:, 0]
    weight = sizes / sizes.sum() if weights == "size" else np.full(len(sizes), 1 / len(sizes))
    theta, b = cp.Variable(4), cp.Variable()
    average = (ids == np.arange(len(sizes))[:, None]) / sizes[:, None]
    f = X @ theta + b
    bag = cp.sum(cp.multiply(weight, cp.square(ybar - average @ f)))
    instance = cp.sum(cp.multiply((weight / sizes)[ids], cp.square(ybar[ids] - f)))
    if rho <= 1:
        loss = (1 - rho) * bag + rho * instance
    else:  # not a sum of convex terms in that form
        within = cp.sum(cp.multiply((weight / sizes)[ids], cp.square(f - (average @ f)[ids])))
        loss = bag + rho * within
    cp.Problem(cp.Minimize(loss + alpha * cp.sum_squares(theta))).solve(solver="CLARABEL")
    model = AggregateRegressor(rho=rho, alpha=alpha, weights=weights).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, theta.value, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, b.value, atol=1e-6)


def test_the_ridge_is_that_of_scikit_learn_divided_by_the_rows():
    X, y, _, _ = bagged()
    model = AggregateRegressor(alpha=0.1).fit(X, y)
    peer = Ridge(alpha=0.1 * len(y)).fit(X, y)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-9)


def test_statistics_are_those_of_the_kernels_that_the_simulation_uses():
    X, _, y, ids = bagged()
    ybar = bag_means(y[:, None], ids)[:, 0]
    with float64():
        arrays = [jnp.asarray(values) for values in (X, ybar, ids)]
        for weights in ("size", "bag"):
            kernel = kernels.gram_statistics_segments(*arrays, weights=weights)
            weight = kernels.bag_weights(jnp.bincount(arrays[2]), weights)
            ours = weighted_statistics(*arrays, weight)
            for name in ("between", "within", "cross"):
                scaled = len(y) * getattr(ours, name)
                np.testing.assert_allclose(scaled, getattr(kernel, name), rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_path_by_one_diagonalisation_is_that_of_the_kernel_rho_by_rho(alpha):
    X, _, y, ids = bagged()
    ybar = bag_means(y[:, None], ids)[:, 0]
    rhos = np.array([0.0, 1e-3, 0.2, 1.0, 30.0])
    with float64():
        arrays = [jnp.asarray(values) for values in (X, ybar, ids)]
        weight = kernels.bag_weights(jnp.bincount(arrays[2]), "size")
        stats = weighted_statistics(*arrays, weight)
        found, ratios = diagonal_path(stats, jnp.asarray(rhos), alpha)
        expected = kernels.solve_path(stats, jnp.asarray(rhos), alpha)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        for rho, ratio in zip(rhos, ratios, strict=True):
            values = np.linalg.eigvalsh(kernels.system_matrix(stats, rho, alpha))
            assert 0 < ratio <= values[0] / values[-1] * (1 + 1e-9)


# -------------------------------------------------------------------------- singular and ill-posed


def test_with_more_features_than_rows_rho_is_inert_and_the_norm_is_least():
    rng = np.random.default_rng(0)
    X, ids = rng.normal(size=(24, 40)), np.repeat(np.arange(8), 3)
    y = rng.normal(size=8)[ids]
    fits = [
        AggregateRegressor(rho=rho, fit_intercept=False).fit(X, y, bags=ids).coef_
        for rho in (0.1, 1.0, 10.0)
    ]
    np.testing.assert_allclose(fits[0], fits[2], rtol=1e-8)
    np.testing.assert_allclose(fits[0], np.linalg.pinv(X) @ y, rtol=1e-8)
    bag = AggregateRegressor(rho=0.0, fit_intercept=False).fit(X, y, bags=ids).coef_
    np.testing.assert_allclose(bag, np.linalg.pinv(bag_means(X, ids)) @ y[::3], rtol=1e-8)
    assert np.linalg.norm(bag) < np.linalg.norm(fits[0])


def test_the_bag_loss_with_fewer_bags_than_features_has_the_least_norm():
    X, _, y, ids = bagged(m=6, p=9, equal=5)
    model = AggregateRegressor(rho=0.0).fit(X, y, bags=ids)
    means = bag_means(np.column_stack([X, y]), ids)
    centred = means - means.mean(axis=0)
    expected = np.linalg.pinv(centred[:, :-1]) @ centred[:, -1]
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-8)


def test_a_duplicated_column_shares_its_coefficient():
    X, _, y, ids = bagged()
    single = AggregateRegressor(rho=0.2).fit(X, y, bags=ids).coef_
    double = AggregateRegressor(rho=0.2).fit(np.column_stack([X, X[:, 0]]), y, bags=ids).coef_
    np.testing.assert_allclose(double[[0, 4]], single[0] / 2, rtol=1e-6)
    np.testing.assert_allclose(double[1:4], single[1:], rtol=1e-6)


def test_badly_scaled_columns_lose_no_digits_with_the_automatic_solver():
    X, _, y, ids = bagged()
    scale = np.array([1.0, 1e-7, 1e6, 1.0])
    plain = AggregateRegressor(rho=0.2).fit(X, y, bags=ids)
    scaled = AggregateRegressor(rho=0.2).fit(X * scale, y, bags=ids)
    np.testing.assert_allclose(scaled.coef_ * scale, plain.coef_, rtol=1e-7)


@pytest.mark.parametrize("solver", ["gram", "rows", "auto"])
def test_all_solvers_agree_on_a_good_problem(solver):
    X, _, y, ids = bagged()
    model = AggregateRegressor(rho=0.3, alpha=0.01, solver=solver).fit(X, y, bags=ids)
    other = AggregateRegressor(rho=0.3, alpha=0.01).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-9)


def test_a_large_rho_shrinks_all_coefficients_to_zero():
    X, _, y, ids = bagged(equal=4)
    model = AggregateRegressor(rho=1e9).fit(X, y, bags=ids)
    assert np.abs(model.coef_).max() < 1e-6
    np.testing.assert_allclose(model.intercept_, y.mean(), rtol=1e-6)


def test_the_path_is_one_fit_for_each_rho():
    X, _, y, ids = bagged()
    model = AggregateRegressor(rho="cv").fit(X, y, bags=ids)
    path = model.rho_path_
    assert path.coef.shape == (14, 4)
    for i in (0, 5, 13):
        alone = AggregateRegressor(rho=float(path.rhos[i])).fit(X, y, bags=ids)
        np.testing.assert_allclose(path.coef[i], alone.coef_, rtol=1e-10)
    np.testing.assert_array_equal(model.coef_, path.coef[model.cv_results_.chosen])
    assert model.rho_ == model.cv_results_.rho


# ------------------------------------------------------------------------------------- invariances


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    rho=st.floats(0, 5),
    loss=st.sampled_from(["interpolate", "easyllp"]),
)
def test_permuting_rows_and_renaming_bags_changes_nothing(seed, rho, loss):
    X, _, y, ids = bagged(seed=1)
    rng = np.random.default_rng(seed)
    rows, names = rng.permutation(len(y)), rng.permutation(ids.max() + 1)
    one = AggregateRegressor(loss=loss, rho=rho).fit(X, y, bags=ids)
    two = AggregateRegressor(loss=loss, rho=rho).fit(X[rows], y[rows], bags=names[ids][rows])
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-7, atol=1e-9)


def test_moving_members_between_bags_changes_the_fit():
    X, y, _, ids = bagged(equal=4)
    model = AggregateRegressor(rho=0.3, response="individual")
    moved = ids.copy()
    moved[[np.flatnonzero(ids == 0)[0], np.flatnonzero(ids == 1)[0]]] = [1, 0]
    one, two = (clone(model).fit(X, y, bags=bags).coef_ for bags in (ids, moved))
    assert np.abs(one - two).max() > 1e-6


@settings(max_examples=15)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 20))
def test_an_intercept_makes_the_fit_follow_shifts_and_scales_of_the_response(shift, scale):
    X, _, y, ids = bagged()
    one = AggregateRegressor(rho=0.2).fit(X, y, bags=ids)
    two = AggregateRegressor(rho=0.2).fit(X + 3.0, scale * y + shift, bags=ids)
    np.testing.assert_allclose(two.coef_, scale * one.coef_, rtol=1e-6)
    np.testing.assert_allclose(two.predict(X + 3.0), scale * one.predict(X) + shift, atol=1e-6)


def test_every_way_to_hand_over_the_responses_gives_the_same_fit():
    X, individual, y, ids = bagged()
    by_row = AggregateRegressor(rho=0.2).fit(X, y, bags=ids)
    averaged = AggregateRegressor(rho=0.2, response="individual").fit(X, individual, bags=ids)
    mapping = {int(bag): float(y[ids == bag][0]) for bag in np.unique(ids)}
    mapped = AggregateRegressor(rho=0.2).fit(X, mapping, bags=ids)
    names = np.array([f"campaign {bag:02d}" for bag in ids])
    named = AggregateRegressor(rho=0.2).fit(X, y, bags=names)
    for other in (averaged, mapped, named):
        np.testing.assert_allclose(other.coef_, by_row.coef_, rtol=1e-10)
    assert by_row.score(X, y, bags=ids) == pytest.approx(mapped.score(X, mapping, bags=ids))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_and_series_are_taken_and_feature_names_remembered(frame):
    X, _, y, ids = bagged()
    table = frame({f"x{i}": X[:, i] for i in range(4)} | {"y": y, "bag": [f"b{i}" for i in ids]})
    features = table[["x0", "x1", "x2", "x3"]]
    model = AggregateRegressor(rho=0.2).fit(features, table["y"], bags=table["bag"])
    assert model.feature_names_in_.tolist() == ["x0", "x1", "x2", "x3"]
    plain = AggregateRegressor(rho=0.2).fit(X, y, bags=ids)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9)


def test_predict_bags_averages_predictions_of_bags_that_fit_never_saw():
    X, _, y, ids = bagged()
    model = AggregateRegressor(rho=0.2).fit(X, y, bags=ids)
    result = model.predict_bags(X[:3], ["new", "old", "new"])
    rows = model.predict(X[:3])
    assert result.bags.tolist() == ["new", "old"]
    np.testing.assert_allclose(result.predictions, [(rows[0] + rows[2]) / 2, rows[1]])


def test_the_global_jax_precision_is_left_alone():
    X, _, y, ids = bagged()
    before = jnp.ones(1).dtype
    AggregateRegressor().fit(X, y, bags=ids)
    assert jnp.ones(1).dtype == before == jnp.float32


# ------------------------------------------------------------------- pipelines, searches, bag folds


def test_a_pipeline_in_a_grid_search_with_bag_folds_sees_bags_everywhere():
    X, _, y, ids = bagged(m=24)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), AggregateRegressor(rho=0.0))
        grid = {"aggregateregressor__rho": [0.0, 0.05, 1.0]}
        search = GridSearchCV(pipeline, grid, cv=BagKFold(4)).fit(X, y, bags=ids)
        scores = search.cv_results_["mean_test_score"]
    by_hand = []
    for rho in grid["aggregateregressor__rho"]:
        fold_scores = []
        for train, test in BagKFold(4).split(X, bags=ids):
            scaler = StandardScaler().fit(X[train])
            model = AggregateRegressor(rho=rho)
            model.fit(scaler.transform(X[train]), y[train], bags=ids[train])
            fold_scores.append(model.score(scaler.transform(X[test]), y[test], bags=ids[test]))
        by_hand.append(np.mean(fold_scores))
    np.testing.assert_allclose(scores, by_hand, rtol=1e-9)


def test_group_folds_of_scikit_learn_work_with_explicit_requests():
    X, _, y, ids = bagged(m=24)
    with sklearn.config_context(enable_metadata_routing=True):
        model = AggregateRegressor(rho=0.1).set_fit_request(bags=True).set_score_request(bags=True)
        scores = cross_val_score(model, X, y, cv=GroupKFold(4), params={"bags": ids, "groups": ids})
    assert scores.shape == (4,)
    assert (scores > 0.5).all()


def test_a_request_can_be_withdrawn_and_the_bags_then_do_not_arrive():
    X, _, y, ids = bagged(m=24)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            StandardScaler(), AggregateRegressor(rho=0.0).set_fit_request(bags=None)
        )
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="bags"):
            pipeline.fit(X, y, bags=ids)


def test_score_is_the_r2_of_bag_means():
    X, _, y, ids = bagged()
    model = AggregateRegressor(rho=0.1).fit(X, y, bags=ids)
    sizes, ybar = np.bincount(ids), bag_means(y[:, None], ids)[:, 0]
    fbar = bag_means(model.predict(X)[:, None], ids)[:, 0]
    mean = np.average(ybar, weights=sizes)
    r2 = 1 - (sizes * (ybar - fbar) ** 2).sum() / (sizes * (ybar - mean) ** 2).sum()
    assert model.score(X, y, bags=ids) == pytest.approx(r2, rel=1e-12)
    by_rows = model.score(X, y, bags=ids, sample_weight=np.full(len(y), 3.0))
    assert by_rows == pytest.approx(r2, rel=1e-12)
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        model.score(X, y, bags=ids, sample_weight=-np.ones(len(y)))


# ------------------------------------------------------------------------------ reference numbers


def splits(data, n_train, repeats=40):
    """80/20 splits of standardised data, the training part cut to whole bags."""
    X, y = boston_housing_data() if data == "boston" else load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        order = rng.permutation(len(y))
        cut = round(0.8 * len(y))
        yield X[order[:n_train]], y[order[:n_train]], X[order[cut:]], y[order[cut:]]


@pytest.mark.parametrize(
    ("data", "n_train", "k", "by_rho", "easyllp"),
    [
        ("boston", 400, 5, {0.0: 0.301, 0.03: 0.294, 0.1: 0.335, 1.0: 0.694}, 0.408),
        ("boston", 400, 10, {0.0: 0.420, 0.01: 0.395, 0.1: 0.545, 1.0: 0.903}, 0.642),
        ("diabetes", 350, 5, {0.0: 0.586, 0.03: 0.573, 1.0: 0.857}, 0.624),
        ("diabetes", 350, 10, {0.0: 0.698, 0.03: 0.638, 1.0: 0.909}, 0.773),
    ],
)
def test_real_data_errors_meet_an_independent_implementation(data, n_train, k, by_rho, easyllp):
    """Test errors that separate code found on 40 other splits.

    Between seeds our cells differ by .01 to .03 for rho < .1, by up to .05 beyond it and for
    EasyLLP. Boston at k = 5 lies .06 above the reference at rho = 1 (.75 in five seeds), and within
    .03 of it at the best rho.
    """
    ids = np.arange(n_train) // k
    rhos = list(by_rho)
    errors, easy = [], []
    for X, y, X_test, y_test in splits(data, n_train):
        ybar = y.reshape(-1, k).mean(axis=1)
        path = fit_linear(BagData(X, ybar, ids, np.bincount(ids)), rhos)
        predictions = X_test @ path.coef.T + path.intercept
        errors.append(((predictions - y_test[:, None]) ** 2).mean(axis=0))
        model = AggregateRegressor(loss="easyllp").fit(X, ybar[ids], bags=ids)
        easy.append(((model.predict(X_test) - y_test) ** 2).mean())
    gaps = np.abs(np.mean(errors, axis=0) - list(by_rho.values()))
    assert (gaps < np.where(np.array(rhos) < 0.1, 0.05, 0.08)).all()
    assert abs(np.mean(easy) - easyllp) < 0.08


# ---------------------------------------------------------------------------------------- bad input

GOOD_X, _, GOOD_Y, GOOD_IDS = bagged()
N = len(GOOD_Y)


def spoiled(values, value):
    values = np.array(values, float)
    values[3] = value
    return values


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": GOOD_Y[:-1]}, ValueError, "y must have one entry per row of X"),
        ({"y": GOOD_Y[:20]}, ValueError, "pass a mapping"),
        ({"bags": GOOD_IDS[:-1]}, ValueError, "bags must have one id per row"),
        ({"bags": GOOD_IDS[:, None]}, ValueError, "bags must have one axis"),
        ({"X": spoiled(GOOD_X, np.nan)}, ValueError, "Input X contains NaN"),
        ({"X": spoiled(GOOD_X, np.inf)}, ValueError, "Input X contains infinity"),
        ({"y": spoiled(GOOD_Y, np.nan)}, ValueError, "Input y contains NaN"),
        ({"y": spoiled(GOOD_Y, np.inf)}, ValueError, "Input y contains infinity"),
        ({"bags": np.zeros(N, int)}, ValueError, "bags must name at least 2 bags"),
        ({"y": GOOD_Y + np.arange(N)}, ValueError, "y must be constant within a bag"),
        ({"bags": GOOD_IDS + 0.5}, TypeError, "bags must be integers or strings"),
        ({"bags": spoiled(GOOD_IDS, np.nan)}, TypeError, "bags must be integers or strings"),
        ({"bags": [None, *GOOD_IDS[1:]]}, TypeError, "bags must be integers .*dtype object"),
        ({"bags": [2**70, *GOOD_IDS[1:]]}, TypeError, "bags .*integers beyond 64 bits"),
        ({"bags": [object()] * N}, TypeError, "bags must be integers or strings"),
        ({"X": GOOD_X.astype(str).astype(object) + "a"}, ValueError, "X must be numeric"),
        ({"y": np.array(["a"] * N, object)}, ValueError, "y must be numeric"),
        ({"y": [{}] * N}, TypeError, "y must be numeric"),
        ({"y": {0: 1.0, 1: 2.0}}, ValueError, "y has no response for .*unknown bag ids"),
        ({"y": dict.fromkeys(range(21), 1.0)}, ValueError, "y names bags .* bags of size 0"),
        ({"y": dict.fromkeys(range(20), np.nan)}, ValueError, "y must be finite"),
        ({"y": dict.fromkeys(range(20), 1.0), "bags": None}, ValueError, "bags must be given"),
        ({"y": None}, ValueError, "y"),
    ],
)
def test_bad_data_are_named(change, error, message):
    arguments = {"X": GOOD_X, "y": GOOD_Y, "bags": GOOD_IDS, **change}
    with pytest.raises(error, match=message):
        AggregateRegressor(rho=0.1).fit(**arguments)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rho": -0.1}, "rho must be finite and >= 0"),
        ({"rho": np.nan}, "rho must be finite"),
        ({"rho": np.inf}, "rho must be finite"),
        ({"rho": "best"}, "rho must be one of 'cv', 'theory'"),
        ({"rho": None}, "rho must be a number"),
        ({"rho": True}, "rho must be a number"),
        ({"alpha": -1.0}, "alpha must be finite and >= 0"),
        ({"loss": "squared"}, "loss must be one of"),
        ({"weights": "row"}, "weights must be one of"),
        ({"response": "mean"}, "response must be one of"),
        ({"solver": "lu"}, "solver must be one of"),
        ({"rho": "cv", "rho_rule": "2se"}, "rho_rule must be one of"),
        ({"rho": "cv", "rhos": [0.1, -1]}, "rhos must be finite and >= 0"),
        ({"rho": "cv", "rhos": []}, "rhos must be a list"),
        ({"rho": "cv", "cv": 1}, "cv must be at least 2"),
        ({"rho": "cv", "cv": "five"}, "cv must be an int"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        AggregateRegressor(**parameters).fit(GOOD_X, GOOD_Y, bags=GOOD_IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": GOOD_Y + np.arange(N)}, "y must be constant within a bag"),
        ({"bags": GOOD_IDS[:-1]}, "bags must have one id per row"),
        ({"y": {0: 1.0}}, "unknown bag ids"),
        ({"X": GOOD_X[:, :2]}, "features"),
    ],
)
def test_bad_data_are_named_by_score_too(change, message):
    model = AggregateRegressor(rho=0.1).fit(GOOD_X, GOOD_Y, bags=GOOD_IDS)
    with pytest.raises(ValueError, match=message):
        model.score(**{"X": GOOD_X, "y": GOOD_Y, "bags": GOOD_IDS, **change})
    with pytest.raises((ValueError, TypeError), match="bags"):
        model.predict_bags(GOOD_X, GOOD_IDS + 0.5)


def test_large_ids_of_64_bits_stay_apart():
    X, _, y, ids = bagged()
    plain = AggregateRegressor(rho=0.1).fit(X, y, bags=ids)
    for base, dtype in ((2**62, np.int64), (2**63 + 5, np.uint64)):
        huge = ids.astype(dtype) + dtype(base)
        np.testing.assert_allclose(
            AggregateRegressor(rho=0.1).fit(X, y, bags=huge).coef_, plain.coef_, rtol=1e-12
        )


def test_a_refit_forgets_the_search_of_the_fit_before():
    X, _, y, ids = bagged()
    model = AggregateRegressor(rho="cv").fit(X, y, bags=ids)
    assert hasattr(model, "cv_results_")
    model.set_params(rho=0.1).fit(X, y, bags=ids)
    assert not hasattr(model, "cv_results_")
    assert model.rho_ == 0.1
