"""Schedules for optax: values, windows, restarts, horizons."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privlearn import drift
from privlearn.drift import theory
from privlearn.simulate import float64

SMALL = {"dim": 10, "noise": 0.25, "batch": 4}


def test_the_jax_schedule_is_that_of_the_theory():
    shifts = np.random.default_rng(0).exponential(0.2, 100)
    with float64():
        found = drift.optimal_schedule(shifts, **SMALL)
        exact = theory.optimal_schedule(shifts, **SMALL)
        assert np.allclose(found.rates, exact.rates, rtol=1e-12)
        assert float(found.regret) == pytest.approx(exact.regret, rel=1e-12)


def test_vmap_over_noises_is_a_grid_of_schedules():
    noises = jnp.array([0.1, 0.5, 2.0])
    grid = jax.vmap(
        lambda s2: drift.optimal_schedule(0.1, dim=10, noise=s2, batch=4, horizon=30).rates
    )(noises)
    for noise, rates in zip([0.1, 0.5, 2.0], grid, strict=True):
        exact = theory.optimal_schedule(0.1, dim=10, noise=noise, batch=4, horizon=30).rates
        assert np.allclose(rates, exact, rtol=1e-4)


def test_sgd_with_the_schedule_uses_its_rates_in_order():
    best = drift.optimal_schedule(jnp.zeros(5), **SMALL)
    optimizer = optax.sgd(best.schedule)
    state = optimizer.init(jnp.zeros(2))
    for t in range(7):
        updates, state = optimizer.update(jnp.ones(2), state)
        assert float(-updates[0]) == pytest.approx(float(best.rates[min(t, 4)]), rel=1e-6)


def test_past_the_horizon_a_schedule_holds_or_shows():
    assert np.isnan(drift.schedule_from_rates([0.2, 0.1], beyond="nan")(2))
    assert float(drift.schedule_from_rates([0.2, 0.1])(9)) == pytest.approx(0.1)


def test_restarts_of_the_calendar_start_the_schedule_again():
    cosine = optax.cosine_decay_schedule(1.0, 10)
    restarted = drift.restart_schedule(cosine, [4, 20])
    for count, since in ((0, 0), (3, 3), (4, 0), (19, 15), (20, 0), (25, 5)):
        assert float(restarted(count)) == pytest.approx(float(cosine(since)))
    assert float(jax.jit(restarted)(5)) == pytest.approx(float(cosine(1)))


def test_windows_have_the_rates_of_the_bounds():
    settings = {"noise": 2.0, "batch": 4, "smoothness": 1.0}
    convex = drift.convex_schedule([0.0, 1.0], [50, 70], diameter=2.0, **settings)
    rough = drift.nonconvex_schedule([0.0, 1.0], [50, 70], gap=0.5, **settings)
    for k, (t, w) in enumerate(((49, 50), (50, 70))):
        assert float(convex(t)) == pytest.approx(
            theory.convex_rate(float(k), window=w, diameter=2.0, **settings), rel=1e-6
        )
        assert float(rough(t)) == pytest.approx(
            theory.nonconvex_rate(float(k), window=w, gap=0.5, **settings), rel=1e-6
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shifts": [0.1, -0.1]}, ValueError, "shifts must be at least 0 .* got -0.1"),
        ({"shifts": 0.1}, ValueError, "needs a horizon"),
        ({"horizon": 5}, ValueError, "shifts has 2 steps, the horizon is 5"),
        ({"batch": [1, 2, 3]}, ValueError, "batch has 3 steps, the horizon is 2"),
        ({"batch": 0}, ValueError, "batch must be positive"),
        ({"noise": -1}, ValueError, "noise must be at least 0"),
        ({"noise": float("nan")}, ValueError, "noise must be .* got nan"),
        ({"dim": "ten"}, TypeError, "dim must be a number"),
    ],
)
def test_bad_input_of_the_schedule_is_named(change, error, message):
    with pytest.raises(error, match=message):
        drift.optimal_schedule(**({"shifts": [0.1, 0.2], **SMALL} | change))


def test_bad_input_of_the_others_is_named():
    with pytest.raises(ValueError, match="positive and ascending"):
        drift.restart_schedule(lambda t: t, [5, 5])
    with pytest.raises(TypeError, match="whole numbers"):
        drift.restart_schedule(lambda t: t, [0.5])
    with pytest.raises(ValueError, match="rates must be at least 0"):
        drift.schedule_from_rates([0.1, -0.1])
    with pytest.raises(ValueError, match='"hold" or "nan"'):
        drift.schedule_from_rates([0.1], beyond="loop")
    with pytest.raises(ValueError, match="2 drifts for 1 windows"):
        drift.convex_schedule([0, 1], [5], diameter=1, noise=1, batch=1, smoothness=1)
    with pytest.raises(ValueError, match="horizon is 3"):
        jax.jit(lambda s: drift.optimal_schedule(s, horizon=3, **SMALL).rates)(jnp.zeros(4))
