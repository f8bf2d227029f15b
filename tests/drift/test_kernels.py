"""Kernels: the schedule beside the theory, estimators beside plain Python, Page-Hinkley, river."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.drift import detectors, kernels, theory
from privlearn.simulate import float64


def test_the_scan_gives_the_schedule_of_the_theory_also_with_changing_batches():
    rng = np.random.default_rng(0)
    shifts, batch = rng.exponential(0.3, 200), rng.integers(1, 30, 200).astype(float)
    with float64():
        found = jax.jit(kernels.optimal_schedule)(jnp.asarray(shifts), batch, 1.5, 7, 0.4)
        found = tuple(map(np.asarray, found))
    exact = theory.optimal_schedule(shifts, dim=7, noise=0.4, batch=batch, start=1.5)
    assert np.allclose(found[0], exact.rates, rtol=1e-12)
    assert np.allclose(found[1], exact.second, rtol=1e-12)


def test_32_bits_are_enough_for_a_long_schedule():
    found = jax.jit(kernels.optimal_schedule)(jnp.zeros(100_000), 4.0, 1.0, 10, 0.25)
    exact = theory.optimal_schedule(0.0, horizon=100_000, dim=10, noise=0.25, batch=4)
    assert np.allclose(found[0], exact.rates, rtol=2e-3)


def test_one_step_is_that_of_the_exact_recursion():
    exact = theory.moments([0.13], dim=6, noise=0.7, batch=3, start=2.0, shifts=0.4).second[1]
    assert kernels.next_second_moment(2.0, 0.13, 6, 0.7, 3, 0.4) == pytest.approx(exact, rel=1e-12)


def test_nothing_to_learn_and_no_noise_is_rate_zero_and_not_nan():
    assert kernels.optimal_rate(jnp.float32(0), 3, 0.0, 2) == 0
    assert theory.optimal_rate(0.0, dim=3, noise=0.0, batch=2) == 0


def test_a_schedule_can_be_differentiated():
    def regret(noise):
        return kernels.optimal_schedule(jnp.full(30, 0.1), 4.0, 1.0, 5.0, noise)[1][:-1].sum() / 2

    with float64():
        slope = float(jax.grad(regret)(0.3))
        numeric = float(regret(0.3 + 1e-5) - regret(0.3 - 1e-5)) / 2e-5
    assert slope == pytest.approx(numeric, rel=1e-5)
    assert slope > 0


def plain_filter(losses, d, s2, B, start, propagate):
    """The published filter, as plain Python."""
    v, Z = start, 0.0
    eta = B * v / ((B + d + 1) * v + d * s2)
    rates, loud = [], []
    for loss in losses:
        excess = 2 * loss - s2
        z = (excess - v) / np.sqrt(2 * (v + s2) ** 2 / B)
        Z = 0.7 * Z + 0.3 * z
        K = 0.3 if Z > 5 * 0.42 else min(max(eta, 0.01), 0.5)
        v = max(v + K * (excess - v), 8e-4 * d * s2 / B)
        eta = B * v / ((B + d + 1) * v + d * s2)
        rates.append(eta)
        loud.append(Z > 5 * 0.42)
        if propagate:
            v = v * (1 - 2 * eta + eta**2 * (1 + (d + 1) / B)) + eta**2 * s2 * d / B
    return np.array(rates), np.array(loud)


@pytest.mark.parametrize("propagate", [False, True])
def test_the_filter_is_the_published_one(propagate):
    rng = np.random.default_rng(1)
    level = np.where(np.arange(300) % 100 < 50, 0.15, 2.0)
    losses = level * rng.chisquare(8, 300) / 8
    rates, loud = plain_filter(losses, 20, 0.25, 8, 1.0, propagate)
    with float64():
        state = kernels.initial_state(1.0, kernels.optimal_rate(1.0, 20, 0.25, 8), 0.25)

        def step(state, loss):
            state = kernels.filter_step(
                state, loss, False, dim=20, batch=8, smallest=8e-4, gain=0.3, threshold=5.0,
                propagate=propagate,
            )  # fmt: skip
            return state, (state.rate, state.alarm)

        last, (found, alarm) = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(state, losses)
        assert np.allclose(found, rates, rtol=1e-9)
        assert np.array_equal(alarm, loud)
        assert int(last.alarms) == (np.diff(loud.astype(int), prepend=0) == 1).sum() >= 3


def test_a_loss_that_is_not_finite_leaves_the_estimate_as_it_was():
    state = kernels.initial_state(1.0, 0.2, 0.25)
    settings = {"dim": 20, "batch": 8, "smallest": 8e-4}
    for bad in (jnp.nan, jnp.inf):
        after = kernels.filter_step(
            state, bad, False, gain=0.3, threshold=5.0, propagate=True, **settings
        )
        assert after.steps == 1
        assert after.second_moment == state.second_moment
        assert after.rate == state.rate
        assert not after.alarm
        after = kernels.average_step(state, bad, False, decay=0.9, **settings)
        assert after.recent == state.recent
    after = kernels.halves_step(state, jnp.nan, jnp.nan, False, largest=1.0, decay=0.9)
    assert after.second_moment == state.second_moment
    assert after.noise == state.noise


def test_true_moments_make_the_half_batch_rate_the_optimal_one():
    state = kernels.initial_state(0.0, 0.0, 0.0)
    v, d, s2, B = 0.6, 20, 0.25, 8
    after = kernels.halves_step(state, v, ((d + 1) * v + d * s2) / B, False, largest=1.0, decay=0.0)
    assert after.rate == pytest.approx(theory.optimal_rate(v, dim=d, noise=s2, batch=B), rel=1e-6)


def test_half_batch_moments_are_unbiased_and_the_classic_mistake_is_not():
    rng = np.random.default_rng(2)
    d, B, s2, n = 10, 8, 0.5, 20_000
    lag = rng.standard_normal(d) / 3
    x = rng.standard_normal((n, B, d))
    g = x * (x @ lag + np.sqrt(s2) * rng.standard_normal((n, B)))[..., None]
    halves = jnp.asarray(g[:, 0::2].mean(axis=1)), jnp.asarray(g[:, 1::2].mean(axis=1))
    inner, spread = map(np.asarray, jax.vmap(kernels.half_batch_moments)(*halves))
    v = lag @ lag
    noise = ((d + 1) * v + d * s2) / B
    for found, exact in ((inner, v), (spread, noise)):
        assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(n)
    biased = (g.mean(axis=1) ** 2).sum(axis=1)
    assert biased.mean() > v + 0.9 * noise


def test_an_unknown_noise_is_estimated_from_above_when_the_parameter_settles():
    rng = np.random.default_rng(3)
    state = kernels.initial_state(1.0, 0.2, 0.0)
    v = np.concatenate([np.geomspace(1, 0.01, 100), np.full(900, 0.01)])
    for t in range(1000):
        loss = (v[t] + 0.25) * rng.chisquare(8) / 16
        state = kernels.update_noise(state, loss, 200)._replace(steps=jnp.int32(t + 1))
    # A least running mean of 200 batches of 8: standard deviation 0.009, its minimum lower.
    assert 0.21 < float(state.noise) < 0.28


@pytest.mark.parametrize("seed", range(3))
def test_page_hinkley_inside_of_jit_fires_where_river_does(seed):
    pytest.importorskip("river")
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(600) + np.repeat([0.0, 1.5, 0.0, 3.0], 150)
    settings = {"delta": 0.1, "threshold": 15.0, "min_instances": 20, "alpha": 0.999}
    expected = detectors.alarms(detectors.page_hinkley(**settings), values)
    with float64():

        def step(state, value):
            state = kernels.page_hinkley_step(state, value, **settings)
            return state, state.alarm

        found = jax.lax.scan(step, kernels.page_hinkley_init(), jnp.asarray(values))[1]
        assert np.flatnonzero(found).tolist() == expected.tolist()
    assert len(expected) >= 2
