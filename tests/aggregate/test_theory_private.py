"""Theory of the private release, planning, and EasyLLP: known numbers, limits, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from privlearn.aggregate import theory
from privlearn.aggregate.theory._search import golden

EPSILONS = np.array([0.5, 1, 2, 4, 8])
SETTING = {"gamma": 0.05, "signal": 1.0, "noise": 0.25, "clip": 3.0}


# ------------------------------------------------------------------------------------ known numbers


def test_effective_noise_reproduces_the_values_that_simulation_confirmed():
    got = theory.risk_private(
        0.1, [4, 4, 2], [1, 0.2, 0], 1, 0.25, epsilon=[2, 2, 4], clip=4.0, clipping=False
    )
    np.testing.assert_allclose(got.total, [0.8125, 1.516, 1.0625], atol=5e-4)


def test_clipping_formula_reproduces_known_values():
    clip = [1, 1.7, 2.2, 3.4]
    release = {"epsilon": 2, "clip": clip}
    got = theory.risk_private(0.1, 4, 0.2, 1, 0.25, **release).total
    np.testing.assert_allclose(got, [0.526, 0.539, 0.657, 1.168], atol=6e-4)
    ignored = theory.risk_private(0.1, 4, 0.2, 1, 0.25, **release, clipping=False).total
    np.testing.assert_allclose(ignored, [0.335, 0.484, 0.638, 1.167], atol=6e-4)


def test_best_bag_size_of_the_instance_loss_reproduces_the_table():
    got = theory.best_bag_size(EPSILONS, **SETTING, rho=1.0)
    assert got.k.tolist() == [17, 5, 2, 1, 1]
    np.testing.assert_allclose(got.risk, [0.9420, 0.8026, 0.5066, 0.2500, 0.0724], atol=6e-5)


def test_best_bag_size_with_the_best_rho_reproduces_the_table():
    got = theory.best_bag_size(EPSILONS, **SETTING)
    assert got.k.tolist() == [5, 3, 2, 2, 1]
    np.testing.assert_allclose(got.risk, [0.9398, 0.7999, 0.5065, 0.2172, 0.0724], atol=6e-5)
    at_four = theory.best_bag_size(0.5, **SETTING, sizes=[4])
    assert at_four.risk == pytest.approx(0.93982, abs=6e-6)


def test_individual_responses_reproduce_the_table():
    got = theory.risk_private(
        0.05, 1, 0.0, 1.0, 0.25, epsilon=EPSILONS, clip=3.0, clipping=False
    ).total
    np.testing.assert_allclose(got, [15.171, 3.8026, 0.9605, 0.25, 0.0724], atol=6e-5, rtol=4e-5)


def test_ridge_baseline_reproduces_the_table_and_loses_to_random_bags():
    ridge = theory.ridge_private_risk(0.05, 1.0, 0.25, epsilon=EPSILONS, clip=3.0).total
    np.testing.assert_allclose(ridge, [0.9353, 0.7850, 0.4837, 0.1983, 0.0673], atol=6e-5)
    bags = theory.best_bag_size(EPSILONS, **SETTING, sizes=range(2, 61)).risk
    np.testing.assert_allclose(bags, [0.9398, 0.7999, 0.5066, 0.2172, 0.0827], atol=1.2e-4)
    assert (ridge < bags).all()


def test_least_norm_bag_loss_prefers_the_wrong_large_bag_under_strong_privacy():
    got = theory.best_bag_size(1.0, **SETTING, rho=0.0, sizes=range(21, 1000))
    assert got.k == 235
    assert got.risk == pytest.approx(0.967, abs=5e-4)


def test_best_clip_reproduces_known_values():
    best = theory.best_clip(0.05, 1, 0.0, 1.0, 0.25, epsilon=EPSILONS)
    np.testing.assert_allclose(best.risk, [0.775, 0.494, 0.241, 0.102, 0.0438], atol=6e-4)
    ratio = best.clip / np.sqrt(1.25)
    np.testing.assert_allclose(ratio, [0.28, 0.63, 1.04, 1.39, 1.71], atol=0.02)


def test_random_bags_beat_individual_noise_with_ridge_somewhere():
    gamma, k, snr = np.meshgrid([0.01, 0.05, 0.1, 0.2, 0.4, 0.6], [2, 3, 5, 10, 20], [0.1, 1, 10])
    for epsilon in (0.5, 2.0, 8.0):
        noise = theory.effective_noise(k, 1.0, epsilon, 3.0)
        bags = theory.best_rho(gamma, k, snr, noise).risk
        ridge = theory.ridge_private_risk(gamma, snr, 1.0, epsilon=epsilon, clip=3.0).total
        assert (bags > ridge).all()


def test_easyllp_risk_reproduces_known_values():
    got = theory.easyllp_risk([0.25, 0.2, 0.5], [2, 4, 4], 2.0, 0.5)
    np.testing.assert_allclose(got.total, [1.0, 2.0, 8.0])
    np.testing.assert_allclose(got.shrinkage, 1.0)


# ------------------------------------------------------------------------------------------ privacy


def test_no_privacy_changes_the_risk():
    free = theory.risk_private(0.2, 3, 0.3, 1, 0.25, epsilon=np.inf, clip=50.0)
    np.testing.assert_allclose(free, theory.risk(0.2, 3, 0.3, 1, 0.25), rtol=1e-12)


def test_a_wide_clip_makes_clipping_matter():
    release = {"epsilon": 2.0, "clip": 12.0}
    with_clipping = theory.risk_private(0.2, 3, 0.3, 1, 0.25, **release)
    without = theory.risk_private(0.2, 3, 0.3, 1, 0.25, **release, clipping=False)
    np.testing.assert_allclose(with_clipping, without, rtol=1e-12)


@settings(max_examples=25)
@given(clip=st.floats(0.05, 6), scale=st.floats(0.3, 3))
def test_clip_moments_differ_from_quadrature(clip, scale):
    def expect(function):
        density = stats.norm(scale=scale).pdf
        points = [-clip, clip]
        return integrate.quad(
            lambda y: function(y) * density(y), -12 * scale, 12 * scale, points=points, limit=200
        )[0]

    alpha, variance = theory.clip_moments(clip, scale)
    assert alpha == pytest.approx(
        expect(lambda y: np.clip(y, -clip, clip) * y) / scale**2, rel=1e-6
    )
    assert variance == pytest.approx(expect(lambda y: np.clip(y, -clip, clip) ** 2), rel=1e-6)


def test_clip_moments_fail_for_responses_without_variance():
    assert theory.clip_moments(1.0, 0.0) == (1.0, 0.0)
    with pytest.raises(ValueError, match="scale"):
        theory.clip_moments(1.0, -1.0)


def test_ridge_of_zero_is_not_least_squares():
    for gamma in (0.3, 2.0):
        got = theory.ridge_private_risk(gamma, 2.0, 0.5, epsilon=np.inf, clip=3.0, ridge=0.0)
        expected = theory.risk(gamma, 1, 0.0, 2.0, 0.5)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("clipping", [False, True])
def test_some_ridge_beats_the_best_ridge(clipping):
    arguments = {"epsilon": 2.0, "clip": 1.5, "clipping": clipping}
    best = theory.ridge_private_risk(0.2, 1.0, 0.25, **arguments).total
    grid = theory.ridge_private_risk(
        0.2, 1.0, 0.25, **arguments, ridge=np.geomspace(1e-5, 1e4, 900)
    )
    assert best <= grid.total.min() * (1 + 1e-9)
    assert best == pytest.approx(grid.total.min(), rel=1e-3)


def test_best_clip_is_not_a_minimum():
    best = theory.best_clip(0.1, 4, 0.2, 1.0, 0.25, epsilon=2.0)
    around = theory.risk_private(
        0.1, 4, 0.2, 1.0, 0.25, epsilon=2.0, clip=best.clip * np.geomspace(0.2, 5, 301)
    ).total
    assert best.risk <= around.min() * (1 + 1e-9)


def test_best_bag_size_ignores_clipping_when_asked_for_it():
    got = theory.best_bag_size([1.0, 4.0], **SETTING, clipping=True)
    for k, rho, risk, epsilon in zip(got.k, got.rho, got.risk, [1.0, 4.0], strict=True):
        again = theory.risk_private(0.05, k, rho, 1.0, 0.25, epsilon=epsilon, clip=3.0)
        assert again.total == pytest.approx(risk)
        others = theory.risk_private(
            0.05,
            np.arange(1, 61)[:, None],
            np.geomspace(1e-4, 1e4, 200),
            1.0,
            0.25,
            epsilon=epsilon,
            clip=3.0,
        )
        assert risk <= others.total.min() * (1 + 1e-6)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": np.nan}, "epsilon"),
        ({"clip": 0.0}, "clip"),
        ({"clip": np.inf}, "clip"),
        ({"rho": -1.0}, "rho"),
        ({"k": 0}, "k"),
    ],
)
def test_private_risk_accepts_bad_numbers(change, name):
    good = {"gamma": 0.1, "k": 4, "rho": 0.2, "signal": 1.0, "noise": 0.25}
    arguments = {**good, "epsilon": 2.0, "clip": 1.0, **change}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        theory.risk_private(**arguments)


def test_planning_accepts_empty_or_fractional_sizes_and_endless_budgets():
    with pytest.raises(ValueError, match="sizes"):
        theory.best_bag_size(1.0, **SETTING, sizes=[])
    with pytest.raises(ValueError, match="sizes"):
        theory.best_bag_size(1.0, **SETTING, sizes=[1.5])
    with pytest.raises(ValueError, match="epsilon"):
        theory.best_clip(0.05, 1, 0.0, 1.0, 0.25, epsilon=np.inf)
    with pytest.raises(ValueError, match="signal"):
        theory.best_clip(0.05, 1, 0.0, 0.0, 0.0, epsilon=1.0)


# ------------------------------------------------------------------------------------------ EasyLLP


@given(gamma=st.floats(0.01, 3), k=st.integers(1, 20))
def test_multiplier_one_is_not_the_instance_loss(gamma, k):
    if gamma != 1:
        got = theory.easyllp_risk(gamma, k, 2.0, 0.5, multiplier=1.0)
        np.testing.assert_allclose(got, theory.risk(gamma, k, 1.0, 2.0, 0.5), rtol=1e-7, atol=1e-12)


@given(gamma=st.floats(0.01, 3), k=st.integers(1, 20), snr=st.floats(1e-3, 1e3))
def test_some_multiplier_beats_the_best(gamma, k, snr):
    best = theory.best_multiplier(gamma, k, snr, 1.0)
    risk = theory.easyllp_risk(gamma, k, snr, 1.0, multiplier=best).total
    grid = theory.easyllp_risk(gamma, k, snr, 1.0, multiplier=np.linspace(0, k, 101)).total
    assert risk <= grid.min() * (1 + 1e-9)


def test_finite_easyllp_risk_does_not_tend_to_the_limit():
    exact = theory.easyllp_risk_finite(800_000, 160_000, 4, 2.0, 0.5)
    np.testing.assert_allclose(exact, theory.easyllp_risk(0.2, 4, 2.0, 0.5), rtol=1e-4)
    one = theory.easyllp_risk_finite(60, 12, 3, 2.0, 0.5, multiplier=1.0)
    np.testing.assert_allclose(one, theory.exact_risk_finite(60, 12, 3, 1.0, 2.0, 0.5))
    with pytest.raises(ValueError, match="p <= n"):
        theory.easyllp_risk_finite(60, 90, 3, 2.0, 0.5)


def test_easyllp_is_finite_at_its_peak_or_fails_without_signal():
    assert theory.easyllp_risk(1.0, 3, 1.0, 1.0).total == np.inf
    assert theory.easyllp_risk(0.5, 3, 0.0, 0.0).total == 0
    assert theory.easyllp_risk(0.5, 3, 2.0, 1.0, multiplier=0.0).total == 2.0


# ------------------------------------------------------------------------------------------- search


def test_golden_section_misses_minima_of_an_array_of_functions():
    centres = np.array([[-1.5, 0.2], [0.0, 2.9]])
    got = golden(lambda z: (z - centres) ** 2, np.full((2, 2), -3.0), np.full((2, 2), 3.0))
    np.testing.assert_allclose(got, centres, atol=1e-6)
