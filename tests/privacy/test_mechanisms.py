"""Mechanisms: certified by OpenDP, one distribution on both faces, clear about bad input."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import opendp.mod
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privlearn.privacy import (
    DiscreteLaplaceMechanism,
    GaussianMechanism,
    LaplaceMechanism,
    RandomizedResponse,
    kernels,
    theory,
)
from privlearn.simulate.precision import float64

FALSE_ALARM = 1e-7  # for each statistical test here; well under 1e-6 for the file
N_RELEASE, N_SIMULATE = 60_000, 1_000_000

LAPLACE = LaplaceMechanism(sensitivity=2.0, epsilon=0.7)
GEOMETRIC = DiscreteLaplaceMechanism(sensitivity=3, epsilon=0.9)
GAUSSIAN = GaussianMechanism(sensitivity=2.0, epsilon=0.7, delta=1e-5)
RESPONSE = RandomizedResponse(n_categories=5, epsilon=1.2)
ALL = [LAPLACE, GEOMETRIC, GAUSSIAN, RESPONSE]


def differs_continuous(a, b) -> bool:
    """Two-sample Kolmogorov-Smirnov (Massart's bound) on the noise and on its size."""
    critical = math.sqrt(math.log(4 / FALSE_ALARM) / 2 * (1 / len(a) + 1 / len(b)))
    pairs = ((a, b), (np.abs(a), np.abs(b)))
    return any(stats.ks_2samp(x, y, method="asymp").statistic > critical for x, y in pairs)


def differs_discrete(a, b) -> bool:
    """Two-sample chi-square; tails pooled until every cell expects at least 20."""
    low, high = np.quantile(a, [0.001, 0.999]).astype(int)
    counts = np.array(
        [np.bincount(np.clip(x, low, high) - low, minlength=high - low + 1) for x in (a, b)]
    )
    counts = counts[:, counts.sum(0) > 20 * (1 + len(b) / len(a))]
    return stats.chi2_contingency(counts).pvalue < FALSE_ALARM


SCALED = {  # the same mechanism, its noise multiplied
    "laplace": lambda k, v, f: kernels.laplace(k, v, f * LAPLACE.scale),
    "gaussian": lambda k, v, f: kernels.gaussian(k, v, f * GAUSSIAN.scale),
    "discrete_laplace": lambda k, v, f: kernels.discrete_laplace(k, v, f * GEOMETRIC.scale),
    "response": lambda k, v, f: kernels.randomized_response(k, v, 1 - f * RESPONSE.scale, 5),
}


@pytest.mark.parametrize(
    ("name", "mechanism", "value"),
    [
        ("laplace", LAPLACE, 5.0),
        ("gaussian", GAUSSIAN, 5.0),
        ("discrete_laplace", GEOMETRIC, 5),
        ("response", RESPONSE, 2),
    ],
)
def test_release_and_simulate_have_one_distribution_and_7_percent_would_be_seen(
    name, mechanism, value
):
    released = mechanism.release(np.full(N_RELEASE, value)) - value
    values = jnp.full(N_SIMULATE, value)
    simulated = np.asarray(mechanism.simulate(jax.random.key(1), values)) - value
    differ = differs_continuous if released.dtype.kind == "f" else differs_discrete
    assert not differ(released, simulated)
    for factor in (0.93, 1.07):
        wrong = np.asarray(SCALED[name](jax.random.key(2), values, factor)) - value
        assert differ(released, wrong), factor


def test_release_noise_is_independent_across_entries_and_calls():
    a, b = LAPLACE.release(np.zeros(20_000)), LAPLACE.release(np.zeros(20_000))
    bound = 5.5 / math.sqrt(20_000)  # false alarm 4e-8 each
    assert abs(np.corrcoef(a, b)[0, 1]) < bound
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < bound
    assert np.unique(np.concatenate([a, b])).size == 40_000


@given(
    epsilon=st.floats(1e-6, 100),
    sensitivity=st.floats(1e-9, 1e9),
    size=st.sampled_from([1, 7, 10**4, 10**7]),
)
@settings(max_examples=60)
def test_opendp_certifies_laplace_and_almost_no_noise_is_wasted(epsilon, sensitivity, size):
    mechanism = LaplaceMechanism(sensitivity=sensitivity, epsilon=epsilon)
    certified = mechanism.certified_epsilon(size)
    assert (1 - 1e-11) * epsilon <= certified <= epsilon
    assert mechanism.guarantee.epsilon == epsilon


@given(epsilon=st.floats(1e-6, 100), sensitivity=st.integers(1, 10**9))
@settings(max_examples=40)
def test_opendp_certifies_discrete_laplace(epsilon, sensitivity):
    mechanism = DiscreteLaplaceMechanism(sensitivity=sensitivity, epsilon=epsilon)
    assert (1 - 1e-13) * epsilon <= mechanism.certified_epsilon(10) <= epsilon


@given(
    epsilon=st.floats(1e-5, 50),
    delta=st.floats(1e-12, 0.5),
    sensitivity=st.floats(1e-6, 1e6),
    size=st.sampled_from([1, 10**6]),
)
@settings(max_examples=60)
def test_gaussian_delta_from_opendps_rho_keeps_the_promise(epsilon, delta, sensitivity, size):
    mechanism = GaussianMechanism(sensitivity=sensitivity, epsilon=epsilon, delta=delta)
    assert (1 - 1e-6) * delta <= mechanism.certified_delta(size) <= delta
    rho = (sensitivity / mechanism.scale) ** 2 / 2
    assert mechanism.certified_rho(size) == pytest.approx(rho, rel=1e-11)


@given(epsilon=st.floats(1e-6, 30), k=st.integers(2, 300))
@settings(max_examples=60)
def test_opendp_certifies_randomised_response(epsilon, k):
    mechanism = RandomizedResponse(n_categories=k, epsilon=epsilon)
    # Near epsilon = 30 a lie has probability 1e-13, of which float64 keeps three digits.
    assert (1 - 1e-2) * epsilon <= mechanism.certified_epsilon() <= epsilon


def test_gaussian_delta_has_all_its_digits():
    """Against 60-digit arithmetic, from hardly any privacy loss to a great deal."""

    def exact(sigma, epsilon):
        with mpmath.workdps(60):
            mu, e = 1 / mpmath.mpf(sigma), mpmath.mpf(epsilon)
            tail = [mpmath.ncdf(s * mu / 2 - e / mu) for s in (1, -1)]
            return float(tail[0] - mpmath.e**e * tail[1])

    for sigma in (0.05, 0.3, 1, 1.9, 2.1, 5, 50, 1e3, 1e5):
        for epsilon in (1e-8, 1e-4, 0.01, 0.3, 1, 3, 10, 60):
            if (delta := exact(sigma, epsilon)) > 1e-250:
                got = float(theory.gaussian_delta(sigma, 1.0, epsilon))
                assert got == pytest.approx(delta, rel=2e-12)


@given(epsilon=st.floats(1e-4, 20), delta=st.floats(1e-12, 0.3))
def test_gaussian_sigma_and_epsilon_invert_delta(epsilon, delta):
    sigma = theory.gaussian_sigma(epsilon, delta, 3.0)
    assert float(theory.gaussian_delta(sigma, 3.0, epsilon)) == pytest.approx(delta, rel=1e-8)
    assert theory.gaussian_epsilon(sigma, 3.0, delta) == pytest.approx(epsilon, rel=1e-6)


def test_gaussian_sigma_is_dp_accountings_and_not_the_classical_one():
    from dp_accounting.gaussian_mechanism import get_sigma_gaussian

    for epsilon, delta in ((0.1, 1e-6), (1.0, 1e-5), (8.0, 1e-9)):
        sigma = theory.gaussian_sigma(epsilon, delta)
        assert sigma == pytest.approx(get_sigma_gaussian(epsilon, delta), rel=1e-3)
        assert sigma < math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def test_randomised_response_closed_forms_are_inverse():
    keep = theory.randomized_response_keep(1.3, 7)
    assert theory.randomized_response_epsilon(keep, 7) == pytest.approx(1.3)


@pytest.mark.parametrize("mechanism", ALL)
def test_release_keeps_shape_order_and_input(mechanism):
    for shape in ((), (0,), (3,), (2, 3, 4), (0, 5)):
        values = np.ones(shape, dtype=int)
        released = mechanism.release(values)
        assert released.shape == shape
        assert (values == 1).all()


def test_order_is_kept_across_chunks():
    values = np.arange(40_000) * 1_000_000
    for mechanism in (LAPLACE, GEOMETRIC):
        assert np.abs(mechanism.release(values) - values).max() < 500_000


def test_values_far_from_zero_and_extreme_scales_survive():
    big = LaplaceMechanism(sensitivity=1e-6, epsilon=50.0).release([1e300, -1e300])
    np.testing.assert_allclose(big, [1e300, -1e300])
    assert np.isfinite(LaplaceMechanism(sensitivity=1e200, epsilon=1e-6).release([0.0])).all()


@pytest.mark.parametrize("mechanism", ALL)
def test_simulate_jits_and_vmaps_to_the_same_numbers(mechanism):
    values = jnp.arange(4) if mechanism in (GEOMETRIC, RESPONSE) else jnp.arange(4.0)
    keys = jax.random.split(jax.random.key(0), 3)
    one_by_one = jnp.stack([mechanism.simulate(k, values) for k in keys])
    mapped = jax.jit(jax.vmap(mechanism.simulate, in_axes=(0, None)))(keys, values)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-5)
    assert mapped.dtype == values.dtype


def test_simulated_noise_follows_an_array_of_scales_and_has_a_gradient():
    scales = jnp.array([1e-3, 1.0, 1e3])
    for kernel in (kernels.laplace, kernels.gaussian):
        noise = kernel(jax.random.key(0), jnp.zeros((2000, 3)), scales)
        np.testing.assert_array_less(0.8, jnp.std(noise, axis=0) / scales)
        slope = jax.grad(lambda s, k=kernel: k(jax.random.key(0), jnp.zeros(()), s))(2.0)
        assert jnp.isfinite(slope)


def test_simulate_in_float64_under_a_local_flag():
    with float64():
        noise = LAPLACE.simulate(jax.random.key(0), jnp.zeros(3, jnp.float64))
        assert noise.dtype == jnp.float64
    with pytest.raises(TypeError, match="values must be integers"):
        GEOMETRIC.simulate(jax.random.key(0), jnp.zeros(3))
    with pytest.raises(TypeError, match="integer codes"):
        RESPONSE.simulate(jax.random.key(0), jnp.zeros(3))


@pytest.mark.parametrize("mechanism", ALL)
@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf], ["a"], np.array([1, None], object), [1j]])
def test_bad_values_are_refused_by_name(mechanism, bad):
    with pytest.raises(ValueError, match="values"):
        mechanism.release(bad)


def test_values_that_would_lose_digits_or_codes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"values must be at most 2\*\*53"):
        LAPLACE.release(np.array([2**53 + 1]))
    with pytest.raises(ValueError, match="values must be integers"):
        GEOMETRIC.release([1.5])
    with pytest.raises(ValueError, match="values must fit"):
        GEOMETRIC.release(np.array([2**63], dtype=np.uint64))
    for codes in ([-1], [5]):
        with pytest.raises(ValueError, match=r"values must be codes in 0\.\.4"):
            RESPONSE.release(codes)


@pytest.mark.parametrize("epsilon", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_epsilon_must_be_positive_and_finite(epsilon):
    for make in (
        lambda: LaplaceMechanism(sensitivity=1.0, epsilon=epsilon),
        lambda: DiscreteLaplaceMechanism(sensitivity=1, epsilon=epsilon),
        lambda: GaussianMechanism(sensitivity=1.0, epsilon=epsilon, delta=1e-5),
        lambda: RandomizedResponse(n_categories=2, epsilon=epsilon),
    ):
        with pytest.raises(ValueError, match="epsilon must be"):
            make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LaplaceMechanism(sensitivity=0.0, epsilon=1.0), "sensitivity"),
        (lambda: DiscreteLaplaceMechanism(sensitivity=1.5, epsilon=1.0), "sensitivity"),
        (lambda: GaussianMechanism(sensitivity=math.nan, epsilon=1.0, delta=0.1), "sensitivity"),
        (lambda: GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=0.0), "delta"),
        (lambda: GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=1.0), "delta"),
        (lambda: RandomizedResponse(n_categories=1, epsilon=1.0), "n_categories"),
        (lambda: RandomizedResponse(n_categories=2.0, epsilon=1.0), "n_categories"),
        (lambda: LaplaceMechanism(sensitivity=1.0, epsilon=1.0, unit=""), "unit"),
        (lambda: LaplaceMechanism(sensitivity=1e-320, epsilon=1.0).release([0.0]), "sensitivity"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_guarantee_says_whom_it_protects():
    mechanism = GaussianMechanism(
        sensitivity=1.0, epsilon=np.float32(0.5), delta=1e-6, unit="one user",
        neighbours="add or remove one", condition="weights are public",
    )  # fmt: skip
    assert str(mechanism.guarantee) == (
        "epsilon = 0.5, delta = 1e-06, unit: one user, neighbours: add or remove one, "
        "given: weights are public"
    )


def test_opendps_global_features_are_left_as_they_were():
    before = set(opendp.mod.GLOBAL_FEATURES)
    try:
        for features in (set(), {"contrib"}):
            opendp.mod.GLOBAL_FEATURES.clear()
            opendp.mod.GLOBAL_FEATURES.update(features)
            for mechanism in ALL:
                mechanism.release([1])
            assert features == opendp.mod.GLOBAL_FEATURES
    finally:
        opendp.mod.GLOBAL_FEATURES.clear()
        opendp.mod.GLOBAL_FEATURES.update(before)


def test_importing_guarantee_loads_neither_jax_nor_opendp():
    code = (
        "import sys; from privlearn.privacy import Guarantee, LaplaceMechanism, Ledger; "
        "LaplaceMechanism(sensitivity=1.0, epsilon=1.0).scale; "
        "print({'jax', 'opendp', 'dp_accounting'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
