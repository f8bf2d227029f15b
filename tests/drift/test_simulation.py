"""Simulated streams meet the exact recursion; comparisons are paired and complete."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privlearn import simulate
from privlearn.drift import drift_aware_sgd, real_data, simulation, streams, studies, theory

SMALL = {"dim": 6, "noise": 0.3, "batch": 4}


def test_simulated_regret_of_any_schedule_is_that_of_the_recursion():
    """Two optimizers, two streams, 400 paths: 5 standard errors, each below 3 % of the value."""
    shifts = streams.burst(80, at=[30, 60], size=1.0)
    best = theory.optimal_schedule(shifts, **SMALL)
    rates = jnp.asarray(best.rates, jnp.float32)
    optimizers = {"constant": optax.sgd(0.15), "optimal": optax.sgd(lambda t: rates[t])}
    trial = simulation.regression_trial(optimizers, shifts, **SMALL)
    found = simulate.monte_carlo(trial, key=jax.random.key(1), n_trials=400, batch_size=400)
    exact = {"constant": theory.regret([0.15] * 80, shifts=shifts, **SMALL), "optimal": best.regret}
    for name, value in exact.items():
        mean, stderr = found.mean["regret"][name], found.stderr["regret"][name]
        assert abs(mean - value) < 5 * stderr
        assert stderr < 0.03 * value


def test_the_path_shows_distances_before_each_update_and_the_rates():
    trial = simulation.regression_trial(
        drift_aware_sgd(batch=4, noise=0.3), streams.still(20), path=True, **SMALL
    )
    found = trial(jax.random.key(2))
    assert found["second"][0] == pytest.approx(1.0, rel=1e-5)
    assert float(found["second"].sum() / 2) == pytest.approx(float(found["regret"]), rel=1e-5)
    assert (np.asarray(found["rates"]) > 0).all()


def test_logistic_regret_by_quadrature_is_that_of_a_large_sample():
    """A rate of 0 stays where it starts: its regret is the excess risk there, times the steps."""
    trial = simulation.logistic_trial(optax.sgd(0.0), streams.still(2), dim=3, batch=2, start=2.0)
    key = jax.random.key(3)
    found = float(trial(key)["regret"]) / 2
    start_key, _ = jax.random.split(key)
    one, two = jax.random.split(start_key)
    optimum = 2 * simulation._direction(one, 3)
    theta = np.asarray(optimum + np.sqrt(2.0) * simulation._direction(two, 3), float)
    x = np.random.default_rng(0).standard_normal((400_000, 3))
    truth, guess = x @ np.asarray(optimum, float), x @ theta
    p = 1 / (1 + np.exp(-truth))
    gap = np.logaddexp(0, guess) - np.logaddexp(0, truth) - p * (guess - truth)
    assert abs(gap.mean() - found) < 5 * gap.std() / np.sqrt(len(gap))
    assert (gap >= 0).all()


def test_the_logistic_optimum_stays_on_its_sphere_and_sgd_learns():
    trial = simulation.logistic_trial(
        {"learn": optax.sgd(1.0), "stay": optax.sgd(0.0)}, streams.gradual(100, 0.01), dim=4,
        batch=8,
    )  # fmt: skip
    found = trial(jax.random.key(4))["regret"]
    assert found["learn"] < 0.7 * found["stay"]


def test_adam_and_odd_batches_run_too():
    trial = simulation.regression_trial(
        optax.adam(0.1), streams.gradual(10), dim=3, noise=0.1, batch=1
    )
    assert np.isfinite(trial(jax.random.key(5))["regret"])


BIG = {"dim": 20, "noise": 0.25, "batch": 8}


def test_the_published_order_holds_on_bursts_and_without_drift():
    """Optimal schedule < filter < constant tuned in hindsight, by more than 5 standard errors."""
    both = {k: v for k, v in streams.named(1500).items() if k in ("burst", "none")}
    cells = studies.compare_on_regression(
        both, key=jax.random.key(6), n_trials=24,
        methods=["optimal schedule", "filter", "best constant", "restarts, told when"], **BIG,
    )  # fmt: skip
    by = {(cell.stream, cell.method): cell for cell in cells}
    assert len(by) == 8
    for stream in both:
        own = by[stream, "filter"]
        assert by[stream, "optimal schedule"].regret < own.regret
        assert own.regret + 5 * own.stderr < by[stream, "best constant"].regret
    # Published: 63.6 and 7.5, standard errors 1 to 3 %.
    assert by["burst", "filter"].regret == pytest.approx(63.6, rel=0.15)
    assert by["none", "filter"].regret == pytest.approx(7.5, rel=0.15)
    told = by["burst", "restarts, told when"]
    assert told.regret < by["burst", "filter"].regret


def test_tuning_by_simulation_finds_the_exact_best_constant():
    shifts = streams.gradual(60, 0.3)
    exact = theory.best_constant(shifts, **SMALL)

    def trial_of(rates):
        def trial(key):
            run = simulation.regression_trial(optax.sgd(rates[0]), shifts, **SMALL)
            return {"regret": run(key)["regret"][None]}

        return trial

    found = simulation.tuned_rates(trial_of, jax.random.key(7), n_trials=300, low=0.01, high=0.6)
    assert found[0] == pytest.approx(exact.parameters[0], rel=0.12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: streams.burst(10, at=[10]), ValueError, r"at must lie in \[0, 10\)"),
        (lambda: streams.gradual(10, -0.1), ValueError, "shifts must be at least 0"),
        (lambda: streams.still(0), ValueError, "steps must be at least 1"),
        (lambda: streams.still(1.5), TypeError, "steps must be a whole number"),
        (lambda: streams.periodic(10, period=0), ValueError, "period must be positive"),
        (
            lambda: simulation.regression_trial(optax.sgd(0.1), [-1.0], **SMALL),
            ValueError, "shifts must be at least 0",
        ),
        (
            lambda: simulation.regression_trial(
                optax.sgd(0.1), [0.1], dim=2, noise=1.0, batch=0
            ),
            ValueError, "batch must be at least 1",
        ),
        (
            lambda: simulation.regression_trial(optax.sgd(0.1), [0.1], alarms=[True] * 2, **SMALL),
            ValueError, "the horizon is 1",
        ),
        (
            lambda: studies.compare_on_regression(
                {"a": [0.1], "b": [0.1, 0.2]}, key=jax.random.key(0), n_trials=2, **SMALL
            ),
            ValueError, "one horizon",
        ),
        (
            lambda: studies.compare_on_regression(
                {"a": [0.1]}, key=jax.random.key(0), n_trials=2, methods=["magic"], **SMALL
            ),
            ValueError, "got 'magic'",
        ),
        (lambda: real_data.flight_batches(63), ValueError, "batch must be even"),
        (lambda: real_data.flight_batches(months=(3, 13)), ValueError, "months must be"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_flights_come_in_the_order_of_the_timetable_without_the_future():
    batches = real_data.flight_batches(64, months=(2, 3))
    assert (np.diff(batches.day) >= 0).all()
    assert batches.day[0] == 31
    assert batches.month.min() == 2
    assert batches.features.shape[2] == 31
    assert np.abs(batches.features).max() < 5


def test_a_contest_tunes_and_reports_every_start():
    batches = real_data.flight_batches(256, months=(2, 2))
    found = real_data.contest(
        batches, methods=("best constant", "half-batches, largest rate 1"), n_seeds=2,
        key=jax.random.key(8), points=4, width=4,
    )  # fmt: skip
    constant, halves = found
    assert constant.loss.shape == (2, len(batches.labels))
    assert 0.01 <= constant.parameter <= 3
    assert halves.parameter == 1
    share = batches.labels.mean()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert constant.loss[:, 20:].mean() < entropy
    assert (halves.rate > 0).all()
