"""The exact risk: regimes, corner cases, limits, the published numbers, and bad input."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.aggregate import theory
from privlearn.aggregate.theory._risk import _interpolating_by_shrinkage

gammas = st.floats(0.01, 0.98)
sizes = st.integers(1, 30)
rhos = st.floats(1e-4, 1e3)
variances = st.floats(1e-3, 1e3)


# ------------------------------------------------------------------------------------ known numbers


@pytest.mark.parametrize(
    ("n", "p", "k", "rho", "bias", "variance", "shrinkage"),
    [
        (600, 150, 2, 0.3, 0.2816, 0.1812, 0.7143),
        (600, 150, 2, 1.0, 0.6667, 0.0833, 0.5),
        (600, 120, 4, 0.2, 0.6352, 0.1534, 0.5253),
        (600, 240, 4, 0.5, 1.2545, 0.1479, 0.3293),
        (600, 60, 6, 0.1, 0.4647, 0.1293, 0.5789),
        (300, 450, 3, 0.0, 1.5556, 0.1429, 2 / 9),
        (300, 450, 3, 0.7, 2.1481, 0.3333, 2 / 9),
        (400, 200, 4, 0.1, 1.4244, 0.4467, 0.4299),
    ],
)
def test_risk_reproduces_the_values_that_simulation_confirmed(
    n, p, k, rho, bias, variance, shrinkage
):
    got = theory.risk(p / n, k, rho, signal=2.0, noise=0.5)
    np.testing.assert_allclose(got, (bias, variance, bias + variance, shrinkage), atol=1.1e-4)


def test_saddle_point_reproduces_the_published_digits():
    assert theory.risk_cgmt(0.25, 2, 0.3, 2, 0.5) == pytest.approx((0.46273, 0.71429), abs=6e-6)
    assert theory.risk_cgmt(0.4, 4, 0.5, 2, 0.5) == pytest.approx((1.40237, 0.32932), abs=6e-6)


def test_snr_threshold_reproduces_known_values():
    got = theory.snr_threshold([0.1, 0.1, 0.2, 0.2, 0.05, 0.4], [2, 4, 2, 4, 10, 2])
    np.testing.assert_allclose(got, [0.7, 1.09524, 1.73333, 6.46154, 1.22093, 8.8], atol=6e-6)


@pytest.mark.parametrize(
    ("gamma", "k", "signal", "noise", "x", "rho", "best", "bag", "instance"),
    [
        (0.1, 4, 1, 1, 0.6569, 0.1345, 0.36374, 0.6667, 0.6111),
        (0.2, 4, 2, 0.5, 0.7042, 0.0664, 0.67663, 2.0, 1.25),
        (0.2, 4, 4, 0.1, 0.9389, 0.0055, 0.30278, 0.4, 2.4438),
        (0.24, 2, 2, 0.5, 0.8696, 0.0932, 0.36187, 0.4615, 0.7368),
        (0.4, 4, 2, 0.5, 0.3733, 0.3386, 1.39337, 1.5833, 1.4583),
        (0.1, 2, 0.2, 1, 0.4723, 1.1311, 0.11080, 0.25, 0.1111),
    ],
)
def test_best_rho_reproduces_the_grid_search(gamma, k, signal, noise, x, rho, best, bag, instance):
    got = theory.best_rho(gamma, k, signal, noise)
    np.testing.assert_allclose(got, (rho, x, best), atol=6e-5)
    ends = theory.risk(gamma, k, [0.0, 1.0], signal, noise).total
    np.testing.assert_allclose(ends, (bag, instance), atol=6e-5)


# ------------------------------------------------------------------------------------------ regimes


@given(gamma=gammas, k=st.integers(2, 30), rho=rhos, signal=variances, noise=variances)
def test_rational_form_in_the_shrinkage_differs_from_the_fixed_point_form(
    gamma, k, rho, signal, noise
):
    got = theory.risk(gamma, k, rho, signal, noise)
    bias, variance = _interpolating_by_shrinkage(gamma, k, got.shrinkage, signal, noise)
    np.testing.assert_allclose((got.bias, got.variance), (bias, variance), rtol=1e-5)


@given(gamma=gammas, k=sizes, rho=rhos, signal=variances, noise=variances)
def test_saddle_point_differs_from_the_closed_form(gamma, k, rho, signal, noise):
    closed = theory.risk(gamma, k, rho, signal, noise)
    saddle = theory.risk_cgmt(gamma, k, rho, signal, noise)
    np.testing.assert_allclose(saddle, (closed.total, closed.shrinkage), rtol=1e-5)


@given(gamma=gammas, k=sizes, rho=rhos)
def test_shrinkage_does_not_solve_the_leverage_equation(gamma, k, rho):
    x = theory.risk(gamma, k, rho, 1.0, 1.0).shrinkage
    h1 = k * gamma * x
    delta = h1 / (1 - h1) if h1 < 1 else np.inf
    h2 = rho * delta / (1 + rho * delta)
    if h1 < 1 - 1e-9:
        assert h1 / k + (1 - 1 / k) * h2 == pytest.approx(gamma, rel=1e-6)


@given(gamma=st.floats(0.01, 0.98), k=st.integers(2, 30))
def test_instance_loss_differs_from_its_corner_formula(gamma, k):
    got = theory.risk(gamma, k, 1.0, 2.0, 0.5)
    odds = gamma / (1 - gamma)
    assert got.bias == pytest.approx(2.0 * (k - 1) / k**2 * (k - 1 + odds))
    assert got.variance == pytest.approx(0.5 * odds / k)
    assert got.shrinkage == pytest.approx(1 / k)


def test_bag_loss_is_not_the_limit_of_small_rho_below_its_peak():
    gamma, k = 0.2, 3
    limit, bag = theory.risk(gamma, k, 1e-10, 2, 0.5), theory.risk(gamma, k, 0, 2, 0.5)
    np.testing.assert_allclose(limit, bag, atol=1e-8)
    assert bag.variance == pytest.approx(0.5 * 0.6 / 0.4)


def test_bias_does_not_jump_at_zero_rho_above_the_bag_peak():
    bag, limit = theory.risk(0.5, 4, [0, 1e-12], 1.0, 0.0).bias
    assert bag == pytest.approx(0.5)
    assert limit == pytest.approx(0.75)


def test_bias_is_monotone_where_it_should_dip():
    bias = theory.risk(0.5, 4, [1e-9, 0.174, 1.0], 1.0, 0.0).bias
    np.testing.assert_allclose(bias, [0.75, 0.709, 0.75], atol=1e-3)
    bias = theory.risk(0.8, 4, [1e-9, 53], 1.0, 0.0).bias
    np.testing.assert_allclose(bias, [1.547, 1.142], atol=1e-3)


def test_shrinkage_and_variance_do_not_fall_in_rho():
    gamma, k = np.meshgrid(np.linspace(0.05, 0.95, 10), [2, 3, 5, 10])
    path = theory.risk(gamma[..., None], k[..., None], np.geomspace(1e-4, 1e4, 300), 1.0, 1.0)
    assert (np.diff(path.shrinkage, axis=-1) < 0).all()
    assert (np.diff(path.variance, axis=-1) <= 1e-15).all()
    below = k * gamma < 1
    assert (np.diff(path.bias, axis=-1)[below] > 0).all()


@given(gamma=st.floats(1.02, 20), k=sizes, rho=rhos)
def test_rho_matters_when_features_outnumber_instances(gamma, k, rho):
    np.testing.assert_array_equal(
        theory.risk(gamma, k, rho, 2, 0.5), theory.risk(gamma, k, 1.0, 2, 0.5)
    )


@given(gamma=st.floats(0.02, 5), rho=st.floats(0, 1e6))
def test_rho_matters_for_bags_of_one(gamma, rho):
    got = theory.risk(gamma, 1, rho, 2.0, 0.5)
    if gamma < 1:
        np.testing.assert_allclose(got.total, 0.5 * gamma / (1 - gamma), rtol=1e-9)
    elif gamma > 1:
        expected = 2.0 * (1 - 1 / gamma) + 0.5 / (gamma - 1)
        np.testing.assert_allclose(got.total, expected, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "k"), [(0.3, 3), (0.6, 3), (0.9, 3), (0.7, 2)])
def test_infinite_rho_is_not_the_limit_of_large_rho(gamma, k):
    np.testing.assert_allclose(
        theory.risk(gamma, k, np.inf, 2, 0.5), theory.risk(gamma, k, 1e9, 2, 0.5), atol=1e-6
    )


def test_peaks_are_finite_or_warn():
    with np.errstate(all="raise"):
        assert theory.risk(0.25, 4, 0.0, 1.0, 1.0).variance == np.inf
        assert theory.risk(1.0, 4, 0.3, 1.0, 1.0).total == np.inf
        assert np.isfinite(theory.risk(0.25, 4, 0.3, 1.0, 1.0).total)
        assert theory.risk(0.25, 4, 0.0, 1.0, 0.0).total == 0
        assert theory.risk(1.0, 4, 0.3, 0.0, 0.0).total == 0


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_risk_is_discontinuous_in_the_bag_size_next_to_one(rho):
    near, at = theory.risk(0.3, [1 + 1e-9, 1], rho, 2.0, 0.5).total
    assert near == pytest.approx(at, rel=1e-6)


@given(gamma=gammas, k=sizes, rho=rhos, signal=variances, noise=variances, c=st.floats(0.1, 10))
def test_risk_depends_on_the_units_of_the_response(gamma, k, rho, signal, noise, c):
    one = theory.risk(gamma, k, rho, signal, noise)
    two = theory.risk(gamma, k, rho, c * signal, c * noise)
    np.testing.assert_allclose(two.total, c * one.total, rtol=1e-9)
    assert two.shrinkage == one.shrinkage


def test_correlated_features_are_not_equivalent_to_white_ones():
    sigma = 0.7 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    theta0 = np.arange(5) / 5
    got = theory.risk_correlated(0.25, 3, 0.2, theta0, sigma, 0.5)
    np.testing.assert_array_equal(got, theory.risk(0.25, 3, 0.2, theta0 @ sigma @ theta0, 0.5))
    with pytest.raises(ValueError, match="least-norm"):
        theory.risk_correlated(1.5, 3, 0.2, theta0, sigma, 0.5)
    with pytest.raises(ValueError, match="least-norm"):
        theory.risk_correlated(0.5, 3, 0.0, theta0, sigma, 0.5)
    with pytest.raises(ValueError, match="covariance"):
        theory.risk_correlated(0.25, 3, 0.2, theta0, sigma[:3], 0.5)
    with pytest.raises(ValueError, match="symmetric"):
        theory.signal_strength([1.0, 1.0], [[1.0, 0.5], [0.0, 1.0]])


# ------------------------------------------------------------------------------------- finite sizes


def test_exact_risk_reproduces_the_finite_sample_value_that_the_limit_misses():
    assert theory.exact_risk_finite(600, 90, 5, 0, 2, 0.5).total == pytest.approx(1.552, abs=5e-4)
    assert theory.risk(0.15, 5, 0, 2, 0.5).total == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("gamma", "k", "rho"),
    [
        (0.1, 4, 0.0),
        (0.5, 4, 0.0),
        (0.3, 4, 1.0),
        (1.5, 3, 0.0),
        (1.5, 3, 0.4),
        (0.9, 3, np.inf),
        (0.4, 3, np.inf),
        (0.4, 1, 0.3),
        (1.6, 1, 0.3),
    ],
)
def test_exact_finite_risk_does_not_tend_to_the_limit(gamma, k, rho):
    n = 1_200_000
    exact = theory.exact_risk_finite(n, round(gamma * n), k, rho, 2.0, 0.5)
    np.testing.assert_allclose(exact, theory.risk(gamma, k, rho, 2.0, 0.5), rtol=1e-4)


def test_exact_finite_risk_is_finite_where_the_expectation_is_not():
    for p in (19, 20, 21):
        assert theory.exact_risk_finite(60, p, 3, 0.0, 1.0, 1.0).total == np.inf
    for p in (59, 60, 61):
        assert theory.exact_risk_finite(60, p, 3, 1.0, 1.0, 1.0).total == np.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((61, 10, 3, 0.0), "multiple of k"),
        ((60.5, 10, 1, 0.0), "n must be an integer"),
        ((60, 10, 3, 0.5), "no exact formula"),
        ((60, 0, 3, 0.0), "p must be"),
    ],
)
def test_exact_finite_risk_accepts_what_it_cannot_answer(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.exact_risk_finite(*arguments, 1.0, 1.0)


# ------------------------------------------------------------------------------ threshold, best rho


@given(gamma=st.floats(0.01, 3), k=st.integers(2, 20))
def test_bag_and_instance_risk_do_not_cross_at_the_threshold(gamma, k):
    threshold = theory.snr_threshold(gamma, k)
    if 1e-6 < threshold < 1e6:
        for factor, sign in ((0.99, 1), (1.01, -1)):
            bag, instance = theory.risk(gamma, k, [0.0, 1.0], factor * threshold, 1.0).total
            assert sign * (bag - instance) > 0
    elif threshold == 0 and gamma != 1:
        bag, instance = theory.risk(gamma, k, [0.0, 1.0], 1e-9, 1.0).total
        assert bag <= instance


def test_threshold_is_finite_at_the_bag_peak_or_defined_for_bags_of_one():
    assert theory.snr_threshold(0.25, 4) == np.inf
    assert np.isnan(theory.snr_threshold(0.25, 1))
    assert theory.snr_threshold(1.0, 4) == 0


@given(gamma=gammas, k=st.integers(2, 20), log_snr=st.floats(-12, 12))
def test_some_rho_on_a_grid_beats_the_best_rho(gamma, k, log_snr):
    signal = float(np.exp(log_snr))
    best = theory.best_rho(gamma, k, signal, 1.0)
    grid = np.concatenate([[0.0], np.geomspace(1e-9, 1e9, 2001), [np.inf]])
    others = theory.risk(gamma, k, grid, signal, 1.0).total
    assert best.risk <= others.min() * (1 + 1e-9)
    again = theory.risk(gamma, k, best.rho, signal, 1.0)
    assert again.total == pytest.approx(best.risk)
    assert again.shrinkage == pytest.approx(best.shrinkage)


def test_best_rho_has_wrong_limits_in_the_signal():
    assert theory.best_rho(0.2, 4, 1.0, 1e-9).rho < 1e-8
    assert theory.best_rho(0.2, 4, 1e-6, 1.0).rho > 1e3
    assert theory.best_rho(0.2, 4, 0.0, 1.0) == (np.inf, 0.0, 0.0)
    assert theory.best_rho(0.2, 4, 1.0, 0.0) == (0.0, 1.0, 0.0)


def test_best_rho_misses_the_separate_point_of_the_bag_loss():
    assert theory.best_rho(0.5, 4, 1.0, 1e-6).rho == 0
    assert theory.best_rho(0.5, 4, 1.0, 1e-6).risk == pytest.approx(0.5, abs=1e-4)
    assert theory.best_rho(2.0, 3, 1.0, 1.0).rho == 0
    assert theory.best_rho(0.5, 1, 1.0, 1.0).rho == 0


def test_best_rho_of_an_array_differs_from_that_of_its_elements():
    settings = list(itertools.product([0.05, 0.3, 0.7, 1.5], [1, 3], [0.0, 2.0], [0.0, 0.5]))
    together = theory.best_rho(*np.array(settings).T)
    for i, setting in enumerate(settings):
        np.testing.assert_array_equal(
            [field[i] for field in together], theory.best_rho(*setting), err_msg=str(setting)
        )


# --------------------------------------------------------------------------------- arrays and input


def test_results_do_not_broadcast_or_scalars_come_back_as_arrays():
    got = theory.risk(np.full((3, 1), 0.25), [2, 4], 0.3, 2.0, 0.5)
    assert all(field.shape == (3, 2) for field in got)
    assert isinstance(theory.risk(0.25, 2, 0.3, 2.0, 0.5).total, float)


def test_a_hundred_thousand_points_take_more_than_a_second_of_processor_time():
    rng = np.random.default_rng(0)
    gamma, k = rng.uniform(0.01, 2, 100_000), rng.integers(1, 20, 100_000)
    rho = np.exp(rng.normal(0, 3, 100_000))
    start = time.process_time()
    got = theory.risk(gamma, k, rho, 2.0, 0.5)
    assert time.process_time() - start < 1
    assert np.isfinite(got.total).all()


GOOD = {"gamma": 0.25, "k": 2, "rho": 0.3, "signal": 2.0, "noise": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 0.0),
        ("gamma", -1.0),
        ("gamma", np.inf),
        ("k", 0.5),
        ("k", np.inf),
        ("rho", -0.1),
        ("signal", -1.0),
        ("noise", -1.0),
        ("noise", np.inf),
        *[(name, np.nan) for name in GOOD],
        *[(name, [1.0, np.nan]) for name in GOOD],
    ],
)
def test_bad_numbers_are_accepted_or_not_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        theory.risk(**{**GOOD, name: value})


def test_bad_types_or_shapes_are_accepted_or_not_named():
    with pytest.raises(TypeError, match="rho must be a number"):
        theory.risk(**{**GOOD, "rho": "best"})
    with pytest.raises(ValueError, match="do not broadcast"):
        theory.risk(**{**GOOD, "rho": [0.1, 0.2], "k": [1, 2, 3]})


@pytest.mark.parametrize("change", [{"gamma": 1.0}, {"gamma": 2.0}, {"rho": 0.0}, {"rho": np.inf}])
def test_saddle_point_answers_where_it_is_not_unique(change):
    with pytest.raises(ValueError, match="gamma < 1"):
        theory.risk_cgmt(**{**GOOD, **change})
    with pytest.raises(ValueError, match="floats"):
        theory.risk_cgmt(**{**GOOD, "rho": [0.1, 0.2]})


def test_saddle_point_fails_without_signal_or_noise():
    assert theory.risk_cgmt(0.25, 2, 0.3, 0.0, 0.0).total == 0
    without = theory.risk_cgmt(0.25, 2, 0.3, 0.0, 0.5)
    assert without.total == pytest.approx(theory.risk(0.25, 2, 0.3, 0.0, 0.5).total)
    assert np.isnan(without.shrinkage)
    quiet = theory.risk_cgmt(0.25, 2, 0.3, 2.0, 0.0)
    assert quiet.total == pytest.approx(theory.risk(0.25, 2, 0.3, 2.0, 0.0).total)
