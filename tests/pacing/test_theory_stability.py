"""Stability of the linearised loop against eigenvalues, optimisers and the loop itself."""

import math

import numpy as np
import pytest

from privlearn.pacing import theory
from privlearn.pacing.theory import Gains


def random_gains(rng, delay):
    return Gains(
        rng.uniform(0, 1.5) / (delay + 1),
        rng.uniform(-0.5, 1) * (rng.random() < 0.6) / (delay + 1),
        rng.uniform(-0.3, 0.3) * (rng.random() < 0.4),
        rng.uniform(0, 0.9) * (rng.random() < 0.4),
    )


def loop(gains, slope, delay, steps, noise=None, start=1.0):
    """The linear loop step by step: mu_t - mu*, with the feedback D steps late."""
    k_i, k_p, k_d, beta = gains
    x, average, last, before, path = start, 0.0, 0.0, 0.0, []
    errors = []
    for t in range(steps):
        path.append(x)
        errors.append(slope * x + (0.0 if noise is None else noise[t]))
        g = errors[t - delay] if t >= delay else 0.0
        average = beta * average + (1 - beta) * g
        x -= k_i * average + k_p * (g - last) + k_d * (g - 2 * last + before)
        last, before = g, last
    return np.array(path)


def test_jury_schur_and_roots_agree():
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(1500):
        gains = Gains(*rng.uniform([-0.5, -1, -0.5], [2.5, 1.2, 0.8]))
        radius = theory.spectral_radius(gains, 1.3)
        if abs(radius - 1) < 1e-6:
            continue
        stable = radius < 1
        checked += stable
        assert theory.jury_pid(gains, 1.3) == stable
        assert theory.is_schur(theory.characteristic_polynomial(gains, 1.3)) == stable
    assert checked > 100


def test_radius_is_the_decay_of_the_loop():
    for gains, delay in (
        (Gains(0.1), 3),
        (Gains(0.1, 0.15, 0.0), 2),
        (Gains(0.2, 0.1, 0.05, 0.4), 1),
    ):
        path = abs(loop(gains, 0.9, delay, 900))
        peak = [path[s : s + 60].max() for s in (200, 300)]
        decay = (peak[1] / peak[0]) ** (1 / 100)
        assert decay == pytest.approx(theory.spectral_radius(gains, 0.9, delay), rel=0.01)


@pytest.mark.parametrize(
    ("delay", "limit"), [(0, 2), (1, 1), (2, 0.61803), (5, 0.28463), (50, 0.0311)]
)
def test_largest_stable_gain_is_the_edge(delay, limit):
    edge = theory.largest_stable_gain(1.0, delay)
    assert edge == pytest.approx(limit, rel=1e-3)
    assert theory.spectral_radius(Gains(edge * 0.999), 1.0, delay) < 1
    assert theory.spectral_radius(Gains(edge * 1.001), 1.0, delay) > 1
    assert theory.largest_stable_gain(4.0, delay) == pytest.approx(edge / 4)


def test_margins_are_where_the_loop_turns_unstable():
    rng = np.random.default_rng(5)
    finite = 0
    for _ in range(150):
        delay = int(rng.integers(0, 8))
        gains = random_gains(rng, delay)
        loop_now = theory.stability(gains, 1.0, delay)
        if not loop_now.stable:
            assert loop_now.gain_margin == loop_now.delay_margin == 0
            continue

        def radius(factor, gains=gains, delay=delay):
            scaled = Gains(*(factor * k for k in gains[:3]), gains.beta)
            return theory.spectral_radius(scaled, 1.0, delay)

        if math.isfinite(loop_now.gain_margin):
            finite += 1
            assert radius(loop_now.gain_margin * 0.999) < 1 + 1e-9
            assert radius(loop_now.gain_margin * 1.001) > 1 - 1e-9
        later = math.ceil(loop_now.delay_margin - 1e-9)
        if later <= 40:
            assert theory.spectral_radius(gains, 1.0, delay + later - 1) < 1 + 1e-9
            if abs(later - loop_now.delay_margin) > 1e-6:
                assert theory.spectral_radius(gains, 1.0, delay + later) > 1 - 1e-9
    assert finite > 40


def test_delay_margin_of_an_integral_gain_in_closed_form():
    for k in (0.02, 0.1, 0.5, 1.2):
        stated = math.pi / (4 * math.asin(k / 2)) - 0.5
        assert theory.delay_margin(Gains(k), 1.0) == pytest.approx(stated, rel=1e-9)


@pytest.mark.parametrize("delay", [1, 2, 5, 20])
@pytest.mark.parametrize("terms", [1, 2])
def test_no_other_gains_are_faster(delay, terms):
    gains, radius = theory.fastest_gains(2.0, delay, terms)
    # A root of multiplicity k is found to (rounding)^(1 / k) only.
    assert theory.spectral_radius(gains, 2.0, delay) == pytest.approx(radius, abs=1e-4)
    rng = np.random.default_rng(delay)
    for _ in range(200):
        other = np.array(gains[:terms]) * (1 + rng.uniform(-0.3, 0.3, terms))
        assert theory.spectral_radius(Gains(*other), 2.0, delay) > radius - 1e-4
    if terms == 2:
        assert radius < theory.fastest_gains(2.0, delay).radius


def test_noise_and_offset_have_the_closed_forms_of_an_integral_gain():
    for k, c in ((0.5, 1.0), (0.1, 3.0), (1.2, 1.0)):
        price, step = theory.noise_response(Gains(k), c)
        assert price**2 == pytest.approx(k * k / (c * k * (2 - c * k)), rel=1e-9)
        assert step**2 == pytest.approx(2 * k * k / (2 - c * k), rel=1e-9)
        assert theory.offset_energy(Gains(k), c) == pytest.approx(1 / (c * k * (2 - c * k)))


def test_noise_and_offset_are_those_of_the_loop():
    gains, c, delay = Gains(0.15, 0.1, 0.02, 0.3), 0.8, 2
    pulse = np.zeros(800)
    pulse[0] = 1.0
    answer = loop(gains, c, delay, 800, noise=pulse, start=0.0)
    price, step = theory.noise_response(gains, c, delay)
    assert price**2 == pytest.approx((answer**2).sum(), rel=1e-9)
    assert step**2 == pytest.approx((np.diff(answer) ** 2).sum(), rel=1e-9)
    free = loop(gains, c, delay, 800)
    assert theory.offset_energy(gains, c, delay) == pytest.approx((free**2).sum(), rel=1e-9)


def test_settling_is_the_time_to_one_percent():
    gains = Gains(0.2)
    steps = math.ceil(theory.stability(gains, 1.0).settling)
    path = loop(gains, 1.0, 0, steps + 1)
    assert path[steps] <= 0.01 + 1e-12 < path[steps - 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.stability(Gains(0.1), 0.0), "slope must be finite and above 0"),
        (lambda: theory.stability(Gains(float("nan")), 1.0), "k_i must be finite"),
        (lambda: theory.stability(Gains(0.1), 1.0, -1), "delay must be at least 0"),
        (lambda: theory.stability(Gains(0.1, beta=1.0), 1.0), "beta must be below 1"),
        (lambda: theory.fastest_gains(1.0, 1, 3), "terms must be 1"),
        (lambda: theory.jury_pid(Gains(0.1, beta=0.5), 1.0), "beta = 0"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
