"""The trials: tables, fits and closed-form risks, each against an independent computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.lookalike import kernels, populations, simulation, theory
from privlearn.lookalike.populations import Case
from privlearn.lookalike.theory import GaussianMixtureModel
from privlearn.simulate import float64


def skewed(ths: float = 1.0, n_clusters: int = 3) -> GaussianMixtureModel:
    weights = {3: (0.5, 0.3, 0.2), 1: (1.0,)}[n_clusters]
    return GaussianMixtureModel.orthogonal(
        n_clusters=n_clusters, norm=2.0, norm_public=1.5, alignment=0.6, weights=weights,
        signal_sensitive=ths**2, signal_public=1.0, noise=0.25,
        direction="contrast" if n_clusters > 1 else "sum",
    )  # fmt: skip


def mixed_up(weights, rate):
    return (1 - rate) * np.diag(weights) + rate * np.outer(weights, weights)


def one_outcome(cases, **setting):
    """The outcome of a single key."""
    trial = simulation.cases_trial(cases, **setting)
    with float64(), simulation.one_blas_thread():
        return jax.tree.map(np.asarray, jax.jit(trial)(jax.random.key(3)))


def test_population_has_the_inner_products_of_its_model():
    model = skewed(0.7)
    laid_out = populations.population(model, p=6, q=5)
    inside, means = laid_out.inside, laid_out.means
    np.testing.assert_allclose(means[:, :6] @ means[:, :6].T, model.gram_sensitive, atol=1e-12)
    np.testing.assert_allclose(means[:, 6:] @ means[:, 6:].T, model.gram_public, atol=1e-12)
    np.testing.assert_allclose(means[:, :6] @ inside[:6], model.align_sensitive, atol=1e-12)
    np.testing.assert_allclose(means[:, 6:] @ inside[6:], model.align_public, atol=1e-12)
    outside = laid_out.length**2
    assert inside[:6] @ inside[:6] + outside[0] == pytest.approx(model.signal_sensitive)
    assert inside[6:] @ inside[6:] + outside[1] == pytest.approx(model.signal_public)
    assert not np.any(means * laid_out.free.sum(axis=0))


@pytest.mark.parametrize("lam", [None, 0.3])
@pytest.mark.parametrize("shape", [(60, 20, 15), (40, 30, 35)])
def test_one_fit_on_each_table_is_each_estimator_of_the_kernels(lam, shape):
    n, p, q = shape
    rng = np.random.default_rng(0)
    sensitive, other, y = rng.normal(size=(n, p)), rng.normal(size=(n, q)), rng.normal(size=n)
    labels = rng.integers(0, 4, size=n)
    with float64():
        sensitive, other, y, labels = map(jnp.asarray, (sensitive, other, y, labels))
        centres = kernels.empirical_centres(sensitive, labels, 4)
        for table, expected in (
            (jnp.zeros((n, p)), kernels.fit_drop(sensitive, other, y, lam=lam)),
            (centres[labels], kernels.fit_empirical(sensitive, labels, other, y, 4, lam=lam)),
            (centres[labels], kernels.fit_centres(centres, labels, other, y, lam=lam)),
        ):
            found = simulation._fit(table, other, y[:, None], lam)
            np.testing.assert_allclose(found.sensitive[:, 0], expected.sensitive, atol=1e-9)
            np.testing.assert_allclose(found.other[:, 0], expected.other, atol=1e-9)


def test_responses_are_independent_draws_of_the_models_theta_and_noise():
    laid_out = populations.population(skewed(), p=6, q=5)
    rng = np.random.default_rng(1)
    with float64():
        turns, errors = jnp.asarray(rng.normal(size=(11, 4000))), jnp.ones((3, 4000))
        X = jnp.asarray(rng.normal(size=(3, 11)))
        theta, y = simulation._responses(turns, errors, X, laid_out, 0.25)
        theta, y, X = map(np.asarray, (theta, y, X))
    np.testing.assert_allclose((theta[:6] ** 2).sum(axis=0), 1.0)
    np.testing.assert_allclose(y - X @ theta, 0.5)
    # Mean of 4000 uniform directions: standard error at most 0.8 / sqrt(3 * 4000) = 0.0073.
    np.testing.assert_allclose(theta.mean(axis=1), laid_out.inside, atol=5 * 0.0073)


def sampled_risk(case, fits, theta0, p, *, carried=None, n=400_000):
    """Mean squared error on drawn test people, and its standard error."""
    rng = np.random.default_rng(2)
    labels = rng.choice(len(case.weights), size=n, p=case.weights)
    x = case.people.means[labels] + rng.normal(size=(n, len(theta0)))
    y = x @ theta0 + np.sqrt(case.variances[0]) * rng.normal(size=n)
    if carried is not None:
        law = case.joint / case.joint.sum(axis=1, keepdims=True)
        used = (rng.random(n)[:, None] > law.cumsum(axis=1)[labels]).sum(axis=1)
        x = np.concatenate([carried[used], x[:, p:]], axis=1)
    miss = (y - x[:, :p] @ fits.sensitive - x[:, p:] @ fits.other) ** 2
    return miss.mean(), miss.std() / np.sqrt(n)


@pytest.mark.parametrize("anonymised", [False, True])
def test_closed_form_risk_of_a_fit_is_the_error_on_drawn_people(anonymised):
    model, p, q = skewed(), 5, 6
    confusion = mixed_up(model.weights, 0.4)
    case = populations.setting(Case(model, "misclustered", 0.0, confusion), p, q)
    rng = np.random.default_rng(4)
    fits = kernels.Coefficients(rng.normal(size=(p, 1)), rng.normal(size=(q, 1)))
    theta0 = case.people.inside[:, None].copy()
    theta0[[4, 9], 0] += case.people.length
    carried = rng.normal(size=(3, p))
    with float64():
        args = kernels.Coefficients(*map(jnp.asarray, fits)), jnp.asarray(theta0)
        if anonymised:
            found = simulation._anonymised_risk(*args, case, jnp.asarray(carried)).total
        else:
            found = simulation._individual_risk(*args, case).total
    flat = kernels.Coefficients(fits.sensitive[:, 0], fits.other[:, 0])
    mean, stderr = sampled_risk(
        case, flat, theta0[:, 0], p, carried=carried if anonymised else None
    )
    assert abs(float(found) - mean) < 5 * stderr  # false alarm 6e-7; the error is about 0.3 %
    assert stderr < 0.01 * mean


def test_cases_share_their_draws_and_misclustering_at_rate_0_is_known_centres():
    model = skewed()
    joint = np.diag(model.weights)
    cases = [Case(model, "known"), Case(model, "misclustered", 0.0, joint), Case(model, "known")]
    total = one_outcome(cases, n=40, p=8, q=9).total
    assert total[0] == total[1] == total[2]


def test_one_cluster_at_the_origin_with_true_centre_is_dropping_the_block():
    model = GaussianMixtureModel.from_parameters(
        np.zeros((2, 1)), np.zeros((3, 1)), [0.5, 0.2], [1.0, 0, 0], weights=[1.0], noise=0.1
    )
    total = one_outcome([Case(model, "known"), Case(model, "drop")], n=30, p=6, q=10).total
    assert total[0] == pytest.approx(total[1], rel=1e-9)


@pytest.mark.parametrize("size", [(60, 10, 12), (30, 20, 40)])
def test_cholesky_stands_in_for_singular_values_below_and_above_the_peak(size):
    n, p, q = size
    names = ("base", "known", "empirical", "drop")
    cases = [Case(skewed(), name) for name in names]
    fast = one_outcome(cases, n=n, p=p, q=q, n_responses=2).total
    exact = one_outcome(cases, n=n, p=p, q=q, n_responses=2, solver="svd").total
    np.testing.assert_allclose(fast, exact, rtol=1e-5)


def test_mean_risk_is_reproducible_and_meets_the_exact_risk_of_least_squares():
    # noise (1 + d / (n - d - 1)) for least squares on d features: exact for Gaussian features.
    model = GaussianMixtureModel.from_parameters(
        np.zeros((1, 1)), np.zeros((1, 1)), [0.6], [0.8], weights=[1.0], noise=0.5
    )
    trial = simulation.mixture_trial(model, n=60, p=10, q=10, estimators="base", n_responses=4)
    first, second = (simulation.mean_risk(trial, seed=5, n_trials=400) for _ in range(2))
    assert first.mean.total == second.mean.total
    assert first.n == 400
    exact = 0.5 * (1 + 20 / 39)
    # 5 standard errors: a false alarm of 6e-7; they are under 1 % of the risk.
    assert abs(first.mean.total[0] - exact) < 5 * first.stderr.total[0] < 0.05 * exact


@pytest.mark.parametrize("centred", [False, True])
def test_m_anonymity_with_clusters_of_one_is_least_squares_on_own_features(centred):
    n, p, q = 50, 6, 7
    trial = simulation.m_anonymity_trial(
        n=n, p=p, q=q, min_size=1, signal_sensitive=0.8, noise=0.25, centred=centred,
        ridge=(0.0, 0.1), n_responses=8,
    )  # fmt: skip
    found = simulation.mean_risk(trial, seed=6, n_trials=400)
    assert found.mean.total.shape == (2,)
    exact = 0.25 * (1 + (p + q) / (n - centred - p - q - 1))
    assert abs(found.mean.total[0] - exact) < 5 * found.stderr.total[0] < 0.04 * exact


def test_found_clusters_that_are_far_apart_are_the_true_ones():
    model = GaussianMixtureModel.orthogonal(
        n_clusters=2, norm=12.0, alignment=0.5, signal_sensitive=0.25, signal_public=1.0, noise=0.25
    )
    n, p, q = 120, 12, 24
    found = simulation.found_clusters_risk(
        model, n=n, p=p, q=q, n_clusters=2, min_size=20, n_trials=60, seed=0
    )
    exact = theory.risk(model, psi_d=(p + q) / n, psi_p=p / n, estimator="empirical").total
    stderr = found.std(ddof=1) / np.sqrt(60)
    assert abs(found.mean() / exact - 1) < 0.06 + 5 * stderr / exact  # finite n: K / (n - q)
    assert stderr < 0.02 * exact


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n": 0}, "n must"),
        ({"p": 2}, "p must be at least"),
        ({"estimators": "best"}, "estimators"),
        ({"estimators": ()}, "estimators"),
        ({"ridge": -1.0}, "ridge"),
        ({"solver": "magic"}, "solver"),
        ({"test_features": "some"}, "test_features"),
        ({"test_features": "anonymised", "estimators": "base"}, "test_features"),
        ({"estimators": "misclustered"}, "confusion"),
        ({"estimators": "misclustered", "confusion": np.eye(3)}, "confusion"),
        ({"n_responses": 0}, "n_responses"),
    ],
)
def test_bad_arguments_of_a_trial_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        simulation.mixture_trial(skewed(), **({"n": 30, "p": 8, "q": 8} | change))


def test_counts_that_are_no_integers_or_do_not_divide_are_refused():
    with pytest.raises(TypeError, match="n must be an integer"):
        simulation.mixture_trial(skewed(), n=30.5, p=8, q=8)
    setting = {"n": 30, "p": 8, "q": 8, "signal_sensitive": 1.0, "noise": 1.0}
    with pytest.raises(ValueError, match="multiple of min_size = 4"):
        simulation.m_anonymity_trial(min_size=4, **setting)
    with pytest.raises(ValueError, match="noise"):
        simulation.m_anonymity_trial(min_size=3, **(setting | {"noise": -1.0}))
    with pytest.raises(ValueError, match="one number of clusters"):
        simulation.cases_trial([Case(skewed()), Case(skewed(n_clusters=1))], n=30, p=8, q=8)
    with pytest.raises(ValueError, match="svd"):
        simulation.cases_trial(
            [Case(skewed()), Case(skewed(), ridge=0.1)], n=30, p=8, q=8, solver="svd"
        )
