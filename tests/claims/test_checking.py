"""A check must let the truth pass, see errors of the size it declares, and say why it objects."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from privlearn import claims
from privlearn.claims import Claim, Measurement


def make(measure=None, **changes):
    fields = {
        "name": "synthetic/half",
        "topic": "synthetic",
        "statement": "the mean is a half",
        "source": "made up",
        "measure": measure or (lambda profile: Measurement(0.5, 0.501, 0.001, 400)),
        "resolution": 0.02,
    }
    return Claim(**(fields | changes))


def check(*measured, **changes):
    return claims.check_claim(make(lambda profile: Measurement(*measured), **changes))


def test_a_claim_that_holds_passes_and_reports_what_was_compared():
    verdict = claims.check_claim(make())
    assert verdict.passed
    assert bool(verdict)
    assert verdict.status == "passed"
    assert verdict.message == ""
    assert (verdict.theory, verdict.estimate, verdict.stderr) == (0.5, 0.501, 0.001)
    assert verdict.n == 400
    assert verdict.seconds >= 0
    assert verdict.sigmas == pytest.approx(1.0)
    assert (verdict.declared_resolution, verdict.n_sigma, verdict.tolerance) == (0.02, 5.0, 0.0)


def test_a_contradiction_fails_in_either_direction():
    for factor in (1.02, 0.98):
        verdict = claims.check_claim(make(), theory_factor=factor)
        assert verdict.status == "differs"
        assert not verdict.passed
        assert "standard errors" in verdict.message


def test_the_verdict_changes_exactly_at_n_sigma_standard_errors():
    inside = check(1.0, 1.0 + 4.999e-3, 1e-3, resolution=0.01)
    outside = check(1.0, 1.0 + 5.001e-3, 1e-3, resolution=0.01)
    assert (inside.status, outside.status) == ("passed", "differs")


def test_tolerance_widens_the_band_relative_to_theory():
    settings = {"tolerance": 0.01, "resolution": 0.05}
    assert check(-10.0, -10.0999, 0.0, **settings).passed
    assert check(-10.0, -10.1001, 0.0, **settings).status == "differs"
    assert "0.01 of the theory" in check(-10.0, -10.2, 0.0, **settings).message


def test_a_check_that_is_too_blunt_to_fail_is_a_failure():
    verdict = check(0.5, 0.501, 0.01, resolution=0.02)
    assert verdict.status == "blunt"
    assert not verdict.passed
    assert verdict.resolution == pytest.approx((5 + 2.3263478740408408) * 0.01 / 0.5)
    assert "0.02" in verdict.message


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        ((math.nan, 0.5, 0.001), "theory is not finite"),
        ((0.5, math.inf, 0.001), "estimate is not finite"),
        ((0.5, 0.5, math.nan), "stderr is not finite"),
        (([0.5, 0.5], [0.5, math.nan], 0.001), "estimate is not finite in 1 of 2"),
        (([0.5, 0.5], [0.5], 0.001), "shapes differ"),
        ((0.5, [0.5], 0.001), "shapes differ"),
        (([0.5, 0.5], [0.5, 0.5], [0.001]), "shapes differ"),
        (([], [], []), "empty"),
        ((0.0, 0.0, 0.001), "theory is 0"),
        ((0.5, 0.5, -0.001), "stderr is negative"),
        ((0.5, 0.5, 0.0), "exact comparison must declare a tolerance"),
        (([0.5, 0.5], [0.5, 0.5], [0.001, 0.0]), "exact comparison must declare a tolerance"),
        ((0.5j, 0.5, 0.001), "theory must be real"),
        (("0.5", 0.5, 0.001), "theory must be real"),
        ((True, 0.5, 0.001), "theory must be real"),
        ((0.5, 0.5, 0.001, 0), "n must be"),
        ((0.5, 0.5, 0.001, 2.5), "n must be"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(measured, word):
    verdict = check(*measured)
    assert verdict.status == "invalid"
    assert not verdict.passed
    assert word in verdict.message


def test_a_measure_that_returns_something_else_fails():
    verdict = claims.check_claim(make(lambda profile: (0.5, 0.5, 0.001)))
    assert verdict.status == "invalid"
    assert "tuple" in verdict.message


def test_an_exception_inside_a_claim_becomes_its_verdict():
    verdict = claims.check_claim(make(lambda profile: 1 / 0))
    assert verdict.status == "error"
    assert "ZeroDivisionError" in verdict.message
    assert "test_checking.py, line" in verdict.message


def test_an_exact_comparison_passes_within_its_tolerance():
    assert check(math.pi, math.pi * (1 + 1e-12), tolerance=1e-9, resolution=1e-8).passed


def test_one_wrong_component_of_many_is_enough():
    theory = np.linspace(1, 2, 50)
    estimate = theory.copy()
    estimate[17] *= 1.02
    verdict = check(theory, estimate, 0.001, resolution=0.01)
    assert verdict.status == "differs"
    assert verdict.size == 50
    assert verdict.theory == theory[17]
    assert "component 17; 1 of 50" in verdict.message


def test_resolution_is_that_of_the_least_sharp_component():
    sharp, dull = claims.resolution_of(2.0, 0.01), claims.resolution_of(0.5, 0.01)
    assert dull > sharp
    assert claims.resolution_of([2.0, 0.5], [0.01, 0.01]) == dull


def test_the_profile_reaches_the_measurement_and_is_checked():
    seen = []
    claim = make(lambda profile: seen.append(profile) or Measurement(1.0, 1.0, 1e-4))
    claims.check_claim(claim, "paper")
    assert seen == ["paper"]
    with pytest.raises(ValueError, match="profile must be one of quick, paper"):
        claims.check_claim(claim, "fast")


def test_measurement_of_an_estimate_with_mean_stderr_and_n():
    @dataclasses.dataclass
    class Estimate:
        mean: float = 0.3
        stderr: float = 0.01
        n: int = 12

    assert Measurement.of(0.31, Estimate()) == Measurement(0.31, 0.3, 0.01, 12)


def test_single_precision_inputs_are_compared_in_double():
    verdict = check(np.float32(0.1), np.float32(0.1), np.float32(1e-4))
    assert verdict.passed
    assert isinstance(verdict.theory, float)


# Statistical: does the formula for the resolution tell the truth about the power of the check?
# 200,000 simulated checks; the binomial standard deviation at 99 % is 0.022 %, at 6e-7 it is 0.35
# of one event. Deterministic by seed; a correct formula would fail with probability below 1e-6.
N = 200_000


def fraction_failing(shift, n_sigma, tolerance, stderr=0.01):
    """Failure rate of checks whose theory is `shift` (relative) off the truth of 1.

    The check is applied to arrays through `resolution_of` and, on a subsample, through the real
    `judge`, which must say the same.
    """
    rng = np.random.default_rng(20261121)
    estimates = 1.0 + stderr * rng.standard_normal(N)
    failing = np.abs(estimates - (1 + shift)) > n_sigma * stderr + tolerance
    claim = make(n_sigma=n_sigma, tolerance=tolerance, resolution=0.9)
    for estimate, expected in zip(estimates[:300], failing[:300], strict=True):
        measurement = Measurement(1.0, estimate, stderr)
        status = claims.judge(claim, measurement, theory_factor=1 + shift).status
        assert (status == "differs") == expected
    return failing.mean()


@pytest.mark.parametrize(("n_sigma", "tolerance"), [(5.0, 0.0), (3.0, 0.0), (5.0, 0.02)])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_of_the_declared_resolution_is_seen_with_99_percent_power(
    n_sigma, tolerance, sign
):
    resolution = claims.resolution_of(1.0, 0.01, n_sigma, tolerance)
    power = fraction_failing(sign * resolution, n_sigma, tolerance)
    slack = 5 * math.sqrt(0.99 * 0.01 / N)
    assert power >= 0.99 - slack
    assert power <= 0.99 + slack, "the resolution is stated more pessimistically than it is"


def test_an_error_well_below_the_resolution_is_not_promised_to_be_seen():
    resolution = claims.resolution_of(1.0, 0.01)
    assert fraction_failing(0.6 * resolution, 5.0, 0.0) < 0.5


def test_a_true_claim_fails_no_more_often_than_n_sigma_allows():
    for n_sigma in (2.0, 3.0, 5.0):
        expected = 2 * stats.norm.sf(n_sigma)
        count = fraction_failing(0.0, n_sigma, 0.0) * N
        assert count <= stats.binom.isf(1e-7, N, expected)
    assert 2 * stats.norm.sf(Claim.__dataclass_fields__["n_sigma"].default) < 1e-6
