import functools
import hashlib
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn import simulate

KEY = jax.random.key(20)


def regression(key):
    """A trial with draws, a matrix product and a LAPACK call: what could depend on the batch."""
    left, right = jax.random.split(key)
    x, y = jax.random.normal(left, (20, 4)), jax.random.normal(right, (20,))
    w = jnp.linalg.solve(x.T @ x, x.T @ y)
    return {"weights": w, "risk": jnp.square(x @ w - y).mean()}


JITTED = jax.jit(regression)


def normal(key, location=0.0):
    return location + jax.random.normal(key)


# --- the numbers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normal_estimate():
    trial = jax.jit(partial(normal, location=0.1))
    return simulate.monte_carlo(trial, key=KEY, n_trials=100_000)


def test_mean_of_normals_lies_within_five_standard_errors_of_the_truth(normal_estimate):
    # False alarm 6e-7; with 1e5 trials five standard errors are 0.016, so an offset of 0.03 is
    # caught with more than 99.99 % probability.
    assert abs(normal_estimate.mean - 0.1) < 5 * normal_estimate.stderr


def test_the_same_check_catches_a_mean_that_is_off_by_a_thirtieth(normal_estimate):
    assert abs(normal_estimate.mean - 0.13) > 5 * normal_estimate.stderr


def test_standard_error_is_that_of_the_mean_and_not_of_one_trial(normal_estimate):
    # The relative error of a standard deviation from n normals is 1 / sqrt(2 n): five of those.
    assert normal_estimate.stderr * np.sqrt(100_000) == pytest.approx(1, abs=5 / np.sqrt(200_000))
    assert normal_estimate.n == 100_000


def test_estimate_equals_the_moments_of_the_trials_themselves():
    draws = simulate.run_trials(JITTED, key=KEY, n_trials=57, batch_size=10)
    estimate = simulate.monte_carlo(JITTED, key=KEY, n_trials=57, batch_size=10)
    for name, values in draws.items():
        values = values.astype(np.float64)
        np.testing.assert_allclose(estimate.mean[name], values.mean(axis=0), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(
            estimate.stderr[name], values.std(axis=0, ddof=1) / np.sqrt(57), rtol=1e-12
        )
        assert estimate.mean[name].dtype == estimate.stderr[name].dtype == np.float64


def test_trial_i_gets_key_i_whatever_the_batch():
    alone = [jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(23)]
    for batch_size in (1, 7, 23, 1_000, None):
        draws = simulate.run_trials(normal, key=KEY, n_trials=23, batch_size=batch_size)
        np.testing.assert_array_equal(draws, np.array(alone))


def test_more_trials_leave_the_first_ones_as_they_were():
    few = simulate.run_trials(normal, key=KEY, n_trials=10, batch_size=4)
    many = simulate.run_trials(normal, key=KEY, n_trials=30, batch_size=4)
    np.testing.assert_array_equal(few, many[:10])


def test_mean_has_the_same_bits_for_every_batch_size_when_the_trials_have():
    estimates = [
        simulate.monte_carlo(normal, key=KEY, n_trials=3_000, batch_size=size)
        for size in (3_000, 1_024, 17 * 9)
    ]
    assert len({(e.mean.hex(), e.stderr.hex()) for e in estimates}) == 1


def test_events_and_counts_are_numbers_too():
    def trial(key):
        x = jax.random.normal(key)
        return {"event": x > 0, "count": jnp.int32(3), "constant": 0.25}

    estimate = simulate.monte_carlo(trial, key=KEY, n_trials=2_000)
    assert abs(estimate.mean["event"] - 0.5) < 5 * estimate.stderr["event"]
    assert (estimate.mean["count"], estimate.stderr["count"]) == (3, 0)
    assert (estimate.mean["constant"], estimate.stderr["constant"]) == (0.25, 0)


def test_structure_of_the_output_is_kept():
    def trial(key):
        return simulate.Estimate(mean=jax.random.normal(key, (2,)), stderr=(1.0, None), n=3)

    estimate = simulate.monte_carlo(trial, key=KEY, n_trials=4)
    assert type(estimate.mean) is simulate.Estimate
    assert estimate.mean.mean.shape == (2,)
    assert estimate.mean.stderr == (1.0, None)


# --- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("x64", [False, True])
def test_precision_is_the_one_asked_for_and_does_not_leak(x64):
    draws = simulate.run_trials(normal, key=KEY, n_trials=4, x64=x64)
    assert draws.dtype == (np.float64 if x64 else np.float32)
    assert jnp.zeros(1).dtype == np.float32


def test_precision_already_in_force_is_kept():
    with simulate.float64():
        assert simulate.run_trials(normal, key=KEY, n_trials=2).dtype == np.float64


def test_a_jitted_trial_serves_both_precisions():
    trial = jax.jit(normal)
    single = simulate.run_trials(trial, key=KEY, n_trials=20)
    double = simulate.run_trials(trial, key=KEY, n_trials=20, x64=True)
    again = simulate.run_trials(trial, key=KEY, n_trials=20)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single, again)


# --- compilation --------------------------------------------------------------------------------


def test_a_changed_global_is_seen_by_the_next_call():
    scale = {"value": 1.0}

    def trial(key):
        return scale["value"] * jax.random.normal(key)

    first = simulate.run_trials(trial, key=KEY, n_trials=3)
    scale["value"] = 2.0
    np.testing.assert_array_equal(simulate.run_trials(trial, key=KEY, n_trials=3), 2 * first)


def test_a_jitted_trial_is_traced_once_for_many_calls():
    traces = []

    @jax.jit
    def trial(key):
        traces.append(1)
        return jax.random.normal(key)

    for seed in range(3):
        simulate.monte_carlo(trial, key=jax.random.key(seed), n_trials=64, batch_size=16)
    assert len(traces) == 1


def test_automatic_batches_keep_within_the_memory_given(monkeypatch):
    widths = []
    from privlearn.simulate import batches

    width = batches._Program.width

    def spy(self, *args):
        widths.append((width(self, *args), self.trial_bytes(KEY)))
        return widths[-1][0]

    monkeypatch.setattr(batches._Program, "width", spy)

    def trial(key):
        x = jax.random.normal(key, (64, 64))
        return (x @ x.T)[0, 0]

    for memory in (2**17, 2**20):
        simulate.monte_carlo(trial, key=KEY, n_trials=200, memory=memory)
    (small, bytes_each), (large, _) = widths
    assert bytes_each >= 64 * 64 * 4  # at least the matrix itself
    assert 1 <= small < large <= 200
    assert small * bytes_each <= 2**17
    assert large * bytes_each <= 2**20


# --- devices ------------------------------------------------------------------------------------

DEVICES = """
import sys
import jax
sys.path.insert(0, {folder!r})
from test_monte_carlo import digest
from privlearn.simulate import batches
used = []
init = batches._Program.__init__
def spy(self, trial, devices):
    used.append(len(devices))
    init(self, trial, devices)
batches._Program.__init__ = spy
print(digest(), used[-1])
if len(sys.argv) > 1:
    print(digest(devices=tuple(jax.devices()[1:3])), used[-1])
"""


@functools.cache
def digest(devices=None):
    """Hash of every bit of 301 trials, which no number of batches or devices divides evenly."""
    options = {"key": KEY, "n_trials": 301, "batch_size": 32, "x64": True, "devices": devices}
    draws = simulate.run_trials(JITTED, **options)
    estimate = simulate.monte_carlo(JITTED, **options)
    bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((draws, estimate)))
    return hashlib.sha256(bits).hexdigest()


# On a pool of threads as large as the number of devices a batched LAPACK call would hang.
@pytest.mark.parametrize(("threads", "used"), [("8", ["4", "2"]), ("1", ["3"])])
def test_four_devices_give_the_bits_of_one_device_and_do_not_hang(threads, used):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": threads}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES.format(folder=os.path.dirname(__file__)), *used[1:]],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [[digest(), n] for n in used]


def test_the_default_device_is_used_when_one_is_set():
    with jax.default_device(jax.devices()[0]):
        assert simulate.run_trials(normal, key=KEY, n_trials=2).shape == (2,)
    with jax.default_device("cpu"):
        assert simulate.run_trials(normal, key=KEY, n_trials=2).shape == (2,)


# --- outputs that are not finite ----------------------------------------------------------------


def broken(key):
    x = jax.random.uniform(key)
    return {"fine": x, "bad": jnp.where(x < 0.25, jnp.nan, x)}


def test_a_trial_that_is_not_finite_is_named_and_can_be_run_again():
    draws = simulate.run_trials(broken, key=KEY, n_trials=100, nonfinite="keep")
    wrong = np.flatnonzero(np.isnan(draws["bad"]))
    assert 0 < len(wrong) < 100
    with pytest.raises(FloatingPointError, match="'bad'") as caught:
        simulate.monte_carlo(broken, key=KEY, n_trials=100, batch_size=100)
    assert f"in {len(wrong)} of the trials 0 to 99" in str(caught.value)
    assert f"fold_in(key, {wrong[0]})" in str(caught.value)
    assert jnp.isnan(broken(jax.random.fold_in(KEY, int(wrong[0])))["bad"])


def test_the_number_of_the_bad_trial_counts_from_the_first_batch():
    def trial(key):
        target = jax.random.key_data(jax.random.fold_in(KEY, 13))
        return jnp.where((jax.random.key_data(key) == target).all(), jnp.inf, 1.0)

    with pytest.raises(FloatingPointError, match=r"'output'.*in 1 of .*10 to 14.*trial 13"):
        simulate.run_trials(trial, key=KEY, n_trials=20, batch_size=5)


def test_kept_values_reach_the_mean_without_warnings(recwarn):
    kept = simulate.monte_carlo(broken, key=KEY, n_trials=50, nonfinite="keep")
    assert np.isnan(kept.mean["bad"])
    assert np.isfinite(kept.mean["fine"])
    infinite = simulate.monte_carlo(
        lambda key: 1 / jnp.zeros(()), key=KEY, n_trials=5, nonfinite="keep"
    )
    assert infinite.mean == np.inf
    assert np.isnan(infinite.stderr)
    assert not recwarn.list


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"n_trials": 1}, ValueError, "n_trials must be at least 2, got 1"),
        ({"n_trials": 10.0}, TypeError, "n_trials must be a whole number, got 10.0"),
        ({"n_trials": True}, TypeError, "n_trials must be a whole number"),
        ({"n_trials": 2**32 + 1}, ValueError, "n_trials must be at most"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"memory": 0}, ValueError, "memory must be at least 1"),
        ({"nonfinite": "ignore"}, ValueError, "nonfinite must be"),
        ({"key": 0}, TypeError, r"key must be a typed JAX key, got int.*jax.random.key\(seed\)"),
        ({"key": jax.random.PRNGKey(0)}, TypeError, "uint32.*wrap_key_data"),
        ({"key": jax.random.split(KEY)}, ValueError, r"single key.*shape \(2,\)"),
        ({"key": jax.random.key(0, impl="rbg")}, ValueError, "'rbg'.*depend on its batch"),
        ({"key": jax.random.key(0, impl="unsafe_rbg")}, ValueError, "'unsafe_rbg'.*threefry"),
        ({"devices": []}, ValueError, "devices must name at least one"),
        ({"devices": ["cpu"]}, TypeError, "devices must be JAX devices, got 'cpu'"),
        ({"devices": jax.devices()[:1] * 2}, ValueError, "twice"),
        ({"trial": 3.0}, TypeError, "trial must be a function of a key, got float"),
    ],
)
def test_bad_arguments_are_named(change, error, match):
    arguments = {"trial": normal, "key": KEY, "n_trials": 10} | change
    with pytest.raises(error, match=match):
        simulate.monte_carlo(arguments.pop("trial"), **arguments)


@pytest.mark.parametrize(
    ("output", "match"),
    [
        ({"name": "text"}, "'name' is str"),
        ({"z": 1j}, "'z' is complex"),
        ({"deep": [1.0, object()]}, "'deep.1' is object"),
        (None, "at least one number, got None"),
        (np.array(["a"], dtype=object), "'output' is ndarray of dtype object"),
        (KEY, "'output' is .*of dtype key<"),
    ],
)
def test_outputs_that_cannot_be_averaged_are_named(output, match):
    with pytest.raises(TypeError, match=match):
        simulate.monte_carlo(lambda key: output, key=KEY, n_trials=2)


def test_an_error_of_the_trial_itself_comes_through():
    def trial(key):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        simulate.monte_carlo(trial, key=KEY, n_trials=2)


def test_importing_the_package_imports_no_jax():
    code = (
        "import sys, privlearn.simulate; assert not {'jax', 'joblib', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
