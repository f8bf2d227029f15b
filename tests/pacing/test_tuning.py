"""Gains that are advised: inside the region of stability, with margin, at the stated cost."""

import math

import numpy as np
import pytest

from privlearn.pacing import theory
from privlearn.pacing.theory import Gains
from privlearn.pacing.tuning import assess, gains_for
from privlearn.pacing.warnings import PacingWarning


def test_advised_gains_keep_their_margin_everywhere():
    rng = np.random.default_rng(11)
    reasons = set()
    for _ in range(120):
        slope, rate = np.exp(rng.uniform(-3, 3, 2))
        delay, margin = int(rng.integers(0, 15)), float(rng.uniform(1.2, 4))
        tuning = gains_for(
            slope=float(slope),
            rate=float(rate),
            horizon=int(np.exp(rng.uniform(0, 10))),
            delay=delay,
            margin=margin,
            proportional=bool(rng.integers(2)),
        )
        reasons.add(tuning.reason)
        assert tuning.gains.k_i > 0
        assert tuning.stability.stable
        assert tuning.stability.gain_margin >= margin * (1 - 1e-6)
    assert reasons == {"regret", "delay"}


def test_long_horizons_get_the_step_of_least_regret():
    tuning = gains_for(slope=0.155, rate=0.1, horizon=10_000, multiplier=0.3)
    assert tuning.gains == Gains(0.3 / (0.1 * 100))
    assert tuning.reason == "regret"


def test_proportional_gain_makes_a_delayed_loop_faster():
    options = {"slope": 1.0, "rate": 1.0, "horizon": 4, "delay": 5}
    plain, with_p = gains_for(**options), gains_for(**options, proportional=True)
    assert with_p.gains.k_p > 0
    assert with_p.stability.radius < plain.stability.radius


def test_predictions_are_those_of_a_noisy_linear_loop():
    slope, rate, horizon, delay, noise = 0.5, 0.1, 2000, 3, 0.2
    tuning = gains_for(
        slope=slope, rate=rate, horizon=horizon, delay=delay, multiplier=0.4, noise=noise
    )
    n = 500
    draws = noise * np.random.default_rng(2).standard_normal((horizon, n))
    x, late = np.full(n, 0.4), [np.zeros(n)] * delay
    loss, last, moves = np.zeros(n), [], []
    for t in range(horizon):
        loss += slope / 2 * x**2
        late = [*late, slope * x + draws[t]]
        new = x - tuning.gains.k_i * late.pop(0)
        if t >= horizon // 2:
            last.append(x.var())
            moves.append((new - x).var())
        x = new
    assert np.sqrt(np.mean(last)) == pytest.approx(tuning.price_deviation, rel=0.05)
    assert np.sqrt(np.mean(moves)) == pytest.approx(tuning.volatility, rel=0.05)
    assert loss.mean() == pytest.approx(tuning.predicted_regret, rel=0.1)


def test_the_bound_is_that_of_the_kernel():
    tuning = gains_for(slope=0.155, rate=0.1, horizon=10_000, reward=1.0, consumption=1.0)
    stated = theory.pacing_bound(
        reward=1.0, consumption=1.0, rate=0.1, horizon=10_000, eta=tuning.gains.k_i, mu_max=10.0
    )
    assert tuning.regret_bound == pytest.approx(stated.total)
    assert math.isnan(gains_for(slope=0.155, rate=0.1, horizon=100).regret_bound)


def test_gains_outside_the_region_warn_with_their_radius():
    with pytest.warns(PacingWarning, match=r"spectral radius 1\.5.*below 2"):
        found = assess(Gains(2.5), slope=1.0)
    assert not found.stable
    assert found.radius == pytest.approx(1.5)


def test_stable_gains_do_not_warn(recwarn):
    assert assess(Gains(0.05), slope=1.55, delay=12).stable
    assert not recwarn.list
    with pytest.warns(PacingWarning, match="delay=12"):
        assess(Gains(0.2), slope=1.55, delay=12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": -1.0}, "slope must be finite and above 0"),
        ({"rate": 0.0}, "rate must be finite and above 0"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"delay": -2}, "delay must be at least 0"),
        ({"margin": 1.0}, "margin must be above 1"),
        ({"reward": 1.0}, "reward and consumption must be given together"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        gains_for(**{"slope": 1.0, "horizon": 100, "rate": 0.1, **change})
