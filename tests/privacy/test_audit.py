"""The audit: valid when the promise is kept, and it sees noise that is 20 % too small."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privlearn.privacy import (
    DiscreteLaplaceMechanism,
    GaussianMechanism,
    Guarantee,
    LaplaceMechanism,
    RandomizedResponse,
    audit,
    audit_epsilon,
    kernels,
)

CONFIDENCE = 1 - 1e-8  # with some 30 audits here, a false alarm below 1e-6 in all
LAPLACE = LaplaceMechanism(sensitivity=1.0, epsilon=1.0)
GEOMETRIC = DiscreteLaplaceMechanism(sensitivity=1, epsilon=1.0)
GAUSSIAN = GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=0.05)
RESPONSE = RandomizedResponse(n_categories=4, epsilon=1.0)

CASES = {  # mechanism, the same with noise 20 % too small, neighbours, runs
    "laplace": (LAPLACE, lambda k, v: kernels.laplace(k, v, 0.8 * LAPLACE.scale), 0.0, 1.0, 40_000),
    "discrete": (
        GEOMETRIC, lambda k, v: kernels.discrete_laplace(k, v, 0.8 * GEOMETRIC.scale), 0, 1, 40_000,
    ),
    "gaussian": (
        GAUSSIAN, lambda k, v: kernels.gaussian(k, v, 0.8 * GAUSSIAN.scale), 0.0, 1.0, 1_000_000,
    ),
    "response": (
        RESPONSE, lambda k, v: kernels.randomized_response(k, v, 1 - 0.8 * RESPONSE.scale, 4),
        0, 3, 40_000,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_noise_20_percent_too_small_is_caught_and_the_right_noise_passes(name):
    mechanism, faulty, left, right, n = CASES[name]
    delta = mechanism.guarantee.delta
    arguments = {"n": n, "delta": delta, "confidence": CONFIDENCE}
    right_noise = audit_epsilon(mechanism.simulate, left, right, key=jax.random.key(0), **arguments)
    assert not right_noise.contradicts(mechanism.guarantee)
    assert right_noise.epsilon_lower > 0.7  # it does not pass for want of power
    for a, b, seed in ((left, right, 1), (right, left, 2)):
        found = audit_epsilon(faulty, a, b, key=jax.random.key(seed), **arguments)
        assert found.contradicts(mechanism.guarantee)


@pytest.mark.parametrize("name", CASES)
def test_releases_keep_their_promise(name):
    mechanism, _, left, right, n = CASES[name]
    result = audit_epsilon(
        lambda value, runs: mechanism.release(np.full(runs, value)), left, right,
        n=min(n, 40_000), delta=mechanism.guarantee.delta, confidence=CONFIDENCE, batched=True,
    )  # fmt: skip
    assert not result.contradicts(mechanism.guarantee)
    assert result.epsilon_lower > 0.5  # unseeded; 7 standard deviations below the usual bound


def test_a_vector_mechanism_is_audited_by_a_learnt_score():
    left, right = np.zeros(3), np.array([0.5, -0.5, 0.0])
    arguments = {"n": 80_000, "confidence": CONFIDENCE}
    passed = audit_epsilon(LAPLACE.simulate, left, right, key=jax.random.key(0), **arguments)
    assert 0.7 < passed.epsilon_lower <= 1.0
    thin = lambda k, v: kernels.laplace(k, v, 0.6)  # noqa: E731
    assert audit_epsilon(thin, left, right, key=jax.random.key(1), **arguments).contradicts(
        LAPLACE.guarantee
    )


def test_forgetting_to_noise_one_coordinate_is_caught():
    def leaky(key, values):
        return kernels.laplace(key, values, 1.0).at[2].set(values[2])

    result = audit_epsilon(
        leaky, np.zeros(3), np.array([0.0, 0.0, 1.0]), n=4000, key=jax.random.key(0),
        confidence=CONFIDENCE,
    )  # fmt: skip
    assert result.epsilon_lower > 4


def test_a_users_score_and_a_plain_callable_are_accepted():
    rng = np.random.default_rng(0)
    result = audit_epsilon(
        lambda v: v + rng.laplace(scale=0.5, size=2), np.zeros(2), np.array([1.0, 0.0]),
        n=4000, confidence=0.99, score=lambda x: x[:, 0],
    )  # fmt: skip
    assert 1.0 < result.epsilon_lower < 2.0
    assert result.event.startswith("score")


def test_bounds_exceed_the_truth_no_more_often_than_stated():
    """300 audits at 80 % confidence: 60 false alarms expected at most; 110 has probability 1e-9.

    Selection on the testing half, for one, would fail this.
    """
    rng = np.random.default_rng(0)
    wrong = sum(
        audit_epsilon(
            lambda v, n: v + rng.laplace(size=n), 0.0, 1.0, n=400, confidence=0.8, batched=True
        ).epsilon_lower
        > 1.0
        for _ in range(300)
    )
    assert wrong < 110


@given(st.integers(0, 50), st.integers(0, 50), st.floats(1e-9, 0.5))
def test_the_bound_is_clopper_pearsons(likely, unlikely, risk):
    low = stats.binomtest(likely, 50).proportion_ci(1 - risk, "exact").low
    high = stats.binomtest(unlikely, 50).proportion_ci(1 - risk, "exact").high
    with np.errstate(divide="ignore"):
        expected = np.log(low) - np.log(high)
    assert audit._bound(likely, unlikely, 50, 0.0, risk) == pytest.approx(expected, abs=1e-6)


def test_a_mechanism_that_ignores_its_input_has_epsilon_zero():
    result = audit_epsilon(
        lambda k, v: jax.random.normal(k) + 0 * v, 0.0, 1.0, n=2000, key=jax.random.key(0),
        confidence=CONFIDENCE,
    )  # fmt: skip
    assert result.epsilon_lower == 0.0


def test_a_guarantee_with_a_larger_delta_is_not_compared():
    result = audit_epsilon(LAPLACE.simulate, 0.0, 1.0, n=200, key=jax.random.key(0))
    with pytest.raises(ValueError, match="delta"):
        result.contradicts(Guarantee(1.0, 1e-3))
    assert "epsilon >=" in str(result)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"n": 10}, "n must"),
        ({"n": 1e3}, "n must"),
        ({"delta": 1.0}, "delta"),
        ({"confidence": 1.0}, "confidence"),
        ({"batched": True}, "batched"),
        ({"key": None, "mechanism": lambda v: np.nan}, "NaN"),
        ({"key": None, "mechanism": lambda v: "a"}, "numbers"),
        ({"key": None, "mechanism": lambda v, n: np.zeros(n - 1), "batched": True}, "n = 200"),
    ],
)
def test_bad_input_is_refused_by_name(change, name):
    arguments = {
        "mechanism": LAPLACE.simulate, "left": 0.0, "right": 1.0, "n": 200,
        "key": jax.random.key(0), **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=name):
        audit_epsilon(**arguments)
