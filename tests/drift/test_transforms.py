"""Optax faces: one protocol, under jit, scan and vmap; errors that say what is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privlearn import drift
from privlearn.drift import kernels, theory, transforms

LOSS = {"batch": 8, "noise": 0.25}
ALL = {
    "filter": LOSS,
    "average": LOSS,
    "restarts": LOSS,
    "halves": {},
}


def update(optimizer, grads, state, params=None, **extra):
    g = jnp.asarray(grads)
    return optimizer.update(grads, state, params, value=0.5, halves=(g, g / 2), **extra)


@pytest.mark.parametrize("method", ALL)
def test_the_step_is_the_rate_times_the_gradient_downhill(method):
    optimizer = drift.drift_aware_sgd(method, **ALL[method])
    grads = jnp.arange(1.0, 6.0)
    updates, state = update(optimizer, grads, optimizer.init(grads))
    assert float(state.rate) > 0
    assert np.allclose(updates, -state.rate * grads, rtol=1e-6)
    assert int(state.steps) == 1


@pytest.mark.parametrize("method", ALL)
def test_jit_scan_and_vmap_give_what_single_steps_give(method):
    optimizer = drift.drift_aware_sgd(method, **ALL[method])
    values = jnp.asarray(np.random.default_rng(0).exponential(0.5, (3, 12)), jnp.float32)

    def run(values):
        def step(state, value):
            g = jnp.full(4, value)
            _, state = optimizer.update(g, state, value=value, halves=(g, g * 0.8))
            return state, state.rate

        return jax.lax.scan(step, optimizer.init(jnp.zeros(4)), values)[1]

    together = jax.jit(jax.vmap(run))(values)
    for row, rates in zip(values, together, strict=True):
        state = optimizer.init(jnp.zeros(4))
        for value, rate in zip(row, rates, strict=True):
            g = jnp.full(4, value)
            _, state = optimizer.update(g, state, value=value, halves=(g, g * 0.8))
            assert float(state.rate) == pytest.approx(float(rate), rel=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_parameters_may_be_any_tree_and_traced(method):
    params = {"w": jnp.ones((2, 3)), "b": (jnp.ones(3, jnp.bfloat16),)}

    @jax.jit
    def run(number):
        name = "start" if method == "halves" else "noise"
        optimizer = drift.drift_aware_sgd(method, **(ALL[method] | {name: number}))
        state = optimizer.init(params)
        updates, state = optimizer.update(params, state, value=0.5, halves=(params, params))
        return updates, state.rate

    updates, rate = run(0.3)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert updates["b"][0].dtype == jnp.bfloat16
    assert rate > 0


def test_the_number_of_coordinates_is_that_of_the_gradient():
    params = {"w": jnp.ones((4, 5))}
    state = drift.scale_by_filter(**LOSS).init(params)
    assert float(state.rate) == pytest.approx(theory.optimal_rate(1.0, dim=20, **LOSS), rel=1e-6)


def test_restarts_run_the_optimal_schedule_forward_and_jump_on_an_alarm():
    optimizer = drift.scale_by_restarts(**LOSS, dim=20)
    exact = theory.optimal_schedule(0.0, horizon=50, dim=20, **LOSS).rates
    state, rates = optimizer.init(jnp.zeros(20)), []
    for t in range(50):
        _, state = optimizer.update(jnp.zeros(20), state, value=2.0, alarm=t == 40)
        rates.append(float(state.rate))
    assert np.allclose(rates[:40], exact[:40], rtol=1e-4)
    assert rates[40] > 3 * rates[39]
    assert int(state.alarms) == 1


def test_a_rise_of_the_loss_restarts_inside_of_jit_and_noise_does_not():
    optimizer = drift.with_alarm(drift.scale_by_restarts(**LOSS))
    losses = 0.125 * np.random.default_rng(1).chisquare(8, 3000) / 8
    losses[2000:2020] *= 20

    def step(state, loss):
        _, state = optimizer.update(jnp.zeros(20), state, value=loss)
        return state, drift.drift_state(state).alarm

    alarms = jax.lax.scan(step, optimizer.init(jnp.zeros(20)), jnp.asarray(losses))[1]
    where = np.flatnonzero(alarms)
    assert len(where)
    assert 2000 <= where[0] <= 2003
    assert len(where[where > 2035]) == 0


def test_chains_and_masks_of_optax_pass_the_loss_on():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), drift.scale_by_filter(**LOSS))
    grads = jnp.full(20, 3.0)
    updates, state = optimizer.update(grads, optimizer.init(grads), grads, value=0.7)
    rate = drift.drift_state(state).rate
    assert float(jnp.linalg.norm(updates)) == pytest.approx(float(rate), rel=1e-5)


def test_momentum_is_an_average_of_gradients_before_the_rate():
    optimizer = drift.drift_aware_sgd(momentum=0.9, **LOSS)
    grads = jnp.ones(20)
    updates, state = optimizer.update(grads, optimizer.init(grads), grads, value=0.7)
    assert np.allclose(updates, -drift.drift_state(state).rate)


def test_a_noise_from_outside_is_used():
    optimizer = drift.scale_by_filter(batch=8)
    state = optimizer.init(jnp.zeros(20))
    _, known = drift.scale_by_filter(**LOSS).update(
        jnp.zeros(20), drift.scale_by_filter(**LOSS).init(jnp.zeros(20)), value=0.7
    )
    _, told = optimizer.update(jnp.zeros(20), state, value=0.7, noise_now=0.25)
    assert float(told.noise) == 0.25
    assert float(told.second_moment) == pytest.approx(float(known.second_moment), rel=0.2)


def test_half_batch_gradients_average_to_the_gradient():
    rng = np.random.default_rng(2)
    batch = jnp.asarray(rng.standard_normal((6, 3))), jnp.asarray(rng.standard_normal(6))

    def loss(w, data):
        return jnp.mean((data[1] - data[0] @ w) ** 2) / 2

    w = jnp.ones(3)
    value, gradient, (one, two) = transforms.value_and_half_grads(loss)(w, batch)
    assert np.allclose(gradient, jax.grad(loss)(w, batch), rtol=1e-5)
    assert np.allclose((one + two) / 2, gradient, rtol=1e-6)
    assert float(value) == pytest.approx(float(loss(w, batch)), rel=1e-6)
    with pytest.raises(ValueError, match="even number of samples, got 5"):
        transforms.value_and_half_grads(loss)(w, (batch[0][:5], batch[1][:5]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch": 0, "noise": 1.0}, ValueError, "batch must be positive"),
        ({"batch": 8, "noise": -1.0}, ValueError, "noise must be at least 0"),
        ({"batch": 8, "noise": float("nan")}, ValueError, "noise must be .* got nan"),
        ({"batch": "many", "noise": 1.0}, TypeError, "batch must be a number"),
        ({"start": -1.0, **LOSS}, ValueError, "start must be at least 0"),
        ({"gain": 0.0, **LOSS}, ValueError, r"gain must be in \(0, 1\]"),
        ({"threshold": -2, **LOSS}, ValueError, "threshold must be positive"),
        ({"smallest": 1.0, **LOSS}, ValueError, "smallest must be in"),
        ({"method": "average", "decay": 1.0, **LOSS}, ValueError, r"decay must be in \[0, 1\)"),
        ({"method": "restarts", "drift": -0.1, **LOSS}, ValueError, "drift must be at least 0"),
        ({"method": "halves", "largest": 0.0}, ValueError, "largest must be positive"),
        ({"method": "oracle"}, ValueError, "method must be one of filter, average"),
        ({"momentum": 1.0, **LOSS}, ValueError, "decay must be in"),
    ],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        drift.drift_aware_sgd(**settings)


def test_an_update_without_what_it_needs_says_so():
    for method, missing in (("filter", "value=loss"), ("halves", "halves=")):
        optimizer = drift.drift_aware_sgd(method, **ALL[method])
        with pytest.raises(ValueError, match=missing):
            optimizer.update(jnp.zeros(2), optimizer.init(jnp.zeros(2)))
    alarmed = drift.with_alarm(drift.scale_by_restarts(**LOSS))
    with pytest.raises(ValueError, match="value=loss"):
        alarmed.update(jnp.zeros(2), alarmed.init(jnp.zeros(2)))
    with pytest.raises(ValueError, match="holds 0 DriftState"):
        drift.drift_state(optax.sgd(0.1).init(jnp.zeros(2)))


def test_alarms_are_counted_when_they_begin():
    state = kernels.initial_state(1.0, 0.2, 0.25)
    for flag in (True, True, False, True):
        state = kernels.average_step(state, 0.5, flag, dim=20, batch=8, smallest=8e-4, decay=0.9)
    assert int(state.alarms) == 2
