"""Trials follow the model: they meet the exact finite-sample theory and one another.

Comparisons with exact values reject at 5.5 standard errors: 4e-8 a number. Precision is stated
where it matters: each closed-form trial here resolves about 1 %.
"""

import jax
import numpy as np
import pytest
from scipy import stats

from privlearn import simulate
from privlearn.aggregate import simulation, theory
from privlearn.aggregate.bag_building import bag_building_risk

SIGMAS = 5.5


def _mean(trial, n_trials=400, seed=0):
    return simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, x64=True, batch_size=100
    )


def _assert_close(estimate, exact, fields=("bias", "variance", "total"), resolution=0.1):
    for field in fields:
        mean, stderr = getattr(estimate.mean, field), getattr(estimate.stderr, field)
        truth = np.asarray(getattr(exact, field))
        assert (np.abs(mean - truth) <= SIGMAS * stderr + 1e-9).all(), field
        assert (SIGMAS * stderr <= resolution * truth + 1e-9).all(), f"{field} is too noisy"


@pytest.mark.parametrize(
    ("n", "p", "k", "rho", "design"),
    [
        (60, 8, 3, 0.0, "gaussian"),
        (60, 15, 3, 1.0, "wishart"),
        (24, 40, 3, 0.5, "gaussian"),
        (24, 40, 3, 0.5, "wishart"),
        (40, 8, 1, 0.7, "wishart"),
    ],
)
def test_trial_misses_the_exact_finite_sample_risk(n, p, k, rho, design):
    trial = simulation.interpolating_trial(n, p, k, rho, 2.0, 0.5, design=design)
    _assert_close(_mean(trial), theory.exact_risk_finite(n, p, k, rho, 2.0, 0.5))


def test_wishart_design_has_another_law_than_drawn_features():
    outcomes = []
    for seed, design in enumerate(("gaussian", "wishart")):
        trial = simulation.interpolating_trial(36, 10, 3, 0.2, 2.0, 0.5, design=design)
        outcomes.append(
            simulate.run_trials(
                trial, key=jax.random.key(seed), n_trials=3000, x64=True, batch_size=100
            )
        )
    literal, short = outcomes
    for field in ("bias", "variance", "shrinkage"):
        a, b = getattr(literal, field), getattr(short, field)
        assert stats.ks_2samp(a, b, method="asymp").pvalue > 1e-7
        assert stats.ks_2samp(a, 1.1 * b, method="asymp").pvalue < 1e-7  # power


@pytest.mark.parametrize("design", ["gaussian", "wishart"])
def test_fit_to_drawn_responses_differs_from_the_closed_form_given_the_features(design):
    rho = np.array([0.0, 0.3])
    drawn = _mean(simulation.fitted_trial(48, 8, 2, rho, 2.0, 0.5, design=design), 4000)
    closed = _mean(simulation.interpolating_trial(48, 8, 2, rho, 2.0, 0.5), 1000)
    for field in ("total", "shrinkage"):
        gap = getattr(drawn.mean, field) - getattr(closed.mean, field)
        error = np.hypot(getattr(drawn.stderr, field), getattr(closed.stderr, field))
        assert (np.abs(gap) < SIGMAS * error).all()
        assert (SIGMAS * error < 0.1 * getattr(closed.mean, field)).all()


def test_a_path_differs_from_single_values_of_rho_on_the_same_draws():
    rhos = np.array([0.0, 0.3, 1.0])
    path = _mean(simulation.interpolating_trial(48, 8, 2, rhos, 2.0, 0.5), 50)
    one = _mean(simulation.interpolating_trial(48, 8, 2, rhos[1], 2.0, 0.5), 50)
    assert one.mean.total.shape == ()
    np.testing.assert_allclose([m[1] for m in path.mean], one.mean, rtol=1e-9)


def test_covariance_does_not_whiten_away():
    sigma = 0.8 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    trial = simulation.fitted_trial(48, 8, 2, 0.0, 2.0, 0.5, covariance=sigma)
    exact = theory.exact_risk_finite(48, 8, 2, 0.0, 2.0, 0.5)
    _assert_close(_mean(trial, 4000), exact, ["total"])


def test_averaging_the_laplace_noise_changes_the_mean_or_gains_nothing():
    size, model = (60, 6, 3), {"rho": 0.4, "signal": 1.0, "noise": 0.25}
    release = {"epsilon": 1.0, "clip": 2.0}
    drawn = _mean(simulation.private_trial(*size, **model, **release), 4000)
    averaged = _mean(simulation.private_trial(*size, **model, **release, laplace="averaged"), 4000)
    error = np.hypot(drawn.stderr.total, averaged.stderr.total)
    assert abs(drawn.mean.total - averaged.mean.total) < SIGMAS * error
    assert averaged.stderr.total < drawn.stderr.total / 2


def test_private_trial_without_privacy_is_not_the_plain_one():
    settings = {"n": 60, "p": 6, "k": 3, "rho": 0.4, "signal": 1.0, "noise": 0.25}
    free = _mean(simulation.private_trial(**settings, epsilon=np.inf, clip=50.0), 3000)
    plain = _mean(simulation.fitted_trial(**settings), 3000)
    error = np.hypot(free.stderr.total, plain.stderr.total)
    assert abs(free.mean.total - plain.mean.total) < SIGMAS * error


def test_easyllp_trial_misses_the_exact_finite_sample_risk():
    for multiplier in (None, 1.5):
        trial = simulation.easyllp_trial(60, 15, 3, 2.0, 0.5, multiplier=multiplier)
        exact = theory.easyllp_risk_finite(60, 15, 3, 2.0, 0.5, multiplier=multiplier)
        _assert_close(_mean(trial, 1000), exact, ["bias", "variance", "total", "shrinkage"])


# ------------------------------------------------------------------------------------- bag building


def test_random_bags_miss_the_exact_risk_or_the_order_of_the_strategies_is_lost():
    setting = {"n": 200, "p": 6, "k": 5, "rho": [0.0, 1.0], "noise": 0.49, "n_trials": 30}
    found = {
        name: bag_building_risk(name, **setting)
        for name in ("random", "feature-clustered", "prediction-sorted", "label-sorted")
    }
    exact = theory.exact_risk_finite(200, 6, 5, [0.0, 1.0], 1.0, 0.49).total
    random = found["random"]
    assert (np.abs(random.mean - exact) < SIGMAS * random.stderr).all()
    bag, instance = ({name: e.mean[i] for name, e in found.items()} for i in (0, 1))
    assert bag["feature-clustered"] < 0.5 * bag["random"]
    assert bag["label-sorted"] > 1.5 * bag["random"]  # selection on the response biases it
    assert instance["prediction-sorted"] < 0.1 * instance["random"]
    assert instance["label-sorted"] < 0.3 * instance["random"]


def test_private_clusters_do_not_beat_individual_noise_with_the_best_ridge():
    release = {"n": 200, "p": 4, "noise": 0.25, "epsilon": 1.0, "clip": 3.0, "n_trials": 20}
    alone = bag_building_risk("random", k=1, rho=0.0, ridge=np.geomspace(1e-3, 10, 12), **release)
    clustered = bag_building_risk("feature-clustered", k=10, rho=[0.0, 0.1, 1.0], **release)
    gap = alone.mean.min() - clustered.mean.min()
    assert gap > 4 * np.hypot(alone.stderr.max(), clustered.stderr.max())


def test_ridge_of_individual_noise_misses_its_theory():
    n, p = 400, 20
    found = bag_building_risk(
        "random", n=n, p=p, k=1, rho=0.0, ridge=0.3, noise=0.25, epsilon=2.0, clip=10.0, n_trials=40
    )
    exact = theory.ridge_private_risk(p / n, 1.0, 0.25, epsilon=2.0, clip=10.0, ridge=0.3).total
    assert found.mean == pytest.approx(exact, abs=SIGMAS * found.stderr + 0.01 * exact)


# -------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 61}, ValueError, "multiple of k = 3, got 61: try 60"),
        ({"n": 60.0}, TypeError, "n must be an integer"),
        ({"p": 0}, ValueError, "p must be at least 1"),
        ({"rho": -1.0}, ValueError, "rho must be at least 0"),
        ({"rho": [0.1, np.nan]}, ValueError, "rho must be at least 0"),
        ({"rho": np.inf}, ValueError, "finite"),
        ({"rho": [[0.1]]}, ValueError, "vector"),
        ({"signal": -1.0}, ValueError, "signal must be"),
        ({"noise": np.inf}, ValueError, "noise must be"),
        ({"design": "normal"}, ValueError, "design must be"),
    ],
)
def test_trial_accepts_bad_input(change, error, message):
    good = {"n": 60, "p": 8, "k": 3, "rho": 0.3}
    for make in (simulation.interpolating_trial, simulation.fitted_trial):
        with pytest.raises(error, match=message):
            make(**{**good, **change})


def test_private_studies_accept_bad_input():
    good = {"n": 60, "p": 8, "k": 3, "rho": 0.3}
    with pytest.raises(ValueError, match="epsilon"):
        simulation.private_trial(**good, epsilon=0.0, clip=1.0)
    with pytest.raises(ValueError, match="clip"):
        simulation.private_trial(**good, epsilon=1.0, clip=np.inf)
    with pytest.raises(ValueError, match="laplace"):
        simulation.private_trial(**good, epsilon=1.0, clip=1.0, laplace="none")
    with pytest.raises(ValueError, match="covariance"):
        simulation.fitted_trial(**good, covariance=np.eye(3))
    with pytest.raises(ValueError, match="positive definite"):
        simulation.fitted_trial(**good, covariance=-np.eye(8))
    with pytest.raises(ValueError, match="strategy"):
        bag_building_risk("sorted", **good)
    with pytest.raises(ValueError, match="clip"):
        bag_building_risk("random", **good, epsilon=1.0)
    with pytest.raises(ValueError, match="privately"):
        bag_building_risk("label-sorted", **good, epsilon=1.0, clip=1.0)
    with pytest.raises(ValueError, match="ridge"):
        bag_building_risk("random", **good, ridge=-1.0)
    with pytest.raises(ValueError, match="n_trials"):
        bag_building_risk("random", **good, n_trials=1)
