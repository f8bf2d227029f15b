"""The label-private mechanism: exact sensitivity, exact epsilon, and both faces alike."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privlearn.aggregate.mechanism import BagMeanMechanism, ResponseGrid, simulate_release
from privlearn.privacy import audit_epsilon

numbers = st.floats(-1e12, 1e12, allow_nan=False)
ranges = st.tuples(numbers, st.floats(1e-6, 1e12)).map(lambda pair: (pair[0], sum(pair)))


@given(bounds=ranges.filter(lambda b: b[0] < b[1]), values=st.lists(st.floats(allow_nan=False)))
def test_steps_are_whole_and_between_those_of_the_bounds(bounds, values):
    grid = ResponseGrid.of(bounds)
    steps = grid.steps(np.array(values))
    assert (steps == np.floor(steps)).all()
    assert ((steps >= 0) & (steps <= grid.steps_per_response)).all()
    assert grid.steps(np.float64(bounds[0])) == 0
    assert 2**22 <= grid.steps_per_response <= 2**24


@given(value=st.floats(-10, 60))
def test_rounding_moves_a_response_by_at_most_half_a_step(value):
    grid = ResponseGrid.of((-1.5, 50))
    moved = grid.lower + grid.steps(np.float64(value)) * grid.step - np.clip(value, -1.5, 50)
    assert abs(moved) <= grid.step / 2


@given(
    y=st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=40),
    order=st.randoms(use_true_random=False),
)
def test_sums_do_not_depend_on_the_order_of_rows(y, order):
    steps = ResponseGrid.of((-0.1, 1 / 3)).steps(np.array(y)).tolist()
    shuffled = list(steps)
    order.shuffle(shuffled)
    total = int(sum(map(Fraction, steps)))
    assert sum(steps) == sum(shuffled) == np.sum(shuffled) == total


def test_the_largest_bag_still_adds_up_exactly():
    grid = ResponseGrid.of((0.0, 1 - 2**-53))  # the worst case: the most steps
    assert grid.steps_per_response * 2**28 <= 2**53


@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (0, 1), (0.1, 0.7), (1e9, 1e9 + 1)])
def test_one_response_moves_one_sum_by_the_stated_sensitivity_and_no_more(bounds):
    rng = np.random.default_rng(0)
    grid = ResponseGrid.of(bounds)
    codes = np.array([0, 1, 1, 2, 2, 2, 1])
    y = rng.uniform(bounds[0] - 1, bounds[1] + 1, size=7)

    def sums(responses):
        return np.bincount(codes, weights=grid.steps(responses), minlength=3)

    worst = 0
    for i in range(7):
        ends = []
        for replacement in (-1e300, *bounds, 1e300):
            changed = y.copy()
            changed[i] = replacement
            ends.append(sums(changed))
        moved = np.abs(np.array(ends)[:, None] - np.array(ends)[None]).max(axis=(0, 1))
        assert (moved[np.arange(3) != codes[i]] == 0).all()
        worst = max(worst, moved.sum())
    assert worst == grid.steps_per_response
    width = bounds[1] - bounds[0]
    assert grid.steps_per_response * grid.step == pytest.approx(width, rel=2**-22)


@given(epsilon=st.floats(1e-6, 100), bounds=ranges.filter(lambda b: b[0] < b[1]))
def test_worst_likelihood_ratio_is_epsilon_in_exact_arithmetic(epsilon, bounds):
    # P(noise = z) is proportional to exp(-|z| / scale): the log ratio of the worst pair, in exact
    # rationals, is sensitivity / scale.
    mechanism = BagMeanMechanism(bounds=bounds, epsilon=epsilon)
    ratio = Fraction(mechanism.grid.steps_per_response) / Fraction(mechanism.noise.scale)
    assert ratio <= Fraction(epsilon)
    assert ratio >= Fraction(epsilon) * (1 - Fraction(1, 10**12))  # and no noise is wasted


def test_opendp_certifies_the_promise():
    mechanism = BagMeanMechanism(bounds=(-0.1, 1 / 3), epsilon=0.7)
    assert mechanism.noise.certified_epsilon(3) <= 0.7


def replicate(mechanism, y, codes, n):
    """Release the same small data set n times, independently; shape (n, bags)."""
    sizes = np.bincount(codes)
    sums = np.bincount(codes, weights=mechanism.grid.steps(np.asarray(y)))
    return mechanism.release_sums(np.tile(sums, n), np.tile(sizes, n)).reshape(n, -1)


def test_noise_has_the_stated_standard_deviation():
    # 60,000 draws: the variance of a Laplace variance estimate is 5 sd^4 / n, so 5 sigma is 4.6 %.
    mechanism = BagMeanMechanism(bounds=(0, 6), epsilon=2.0)
    draws = replicate(mechanism, [1.0, 1.0, 1.0], np.array([0, 0, 1]), 60_000)
    sd = mechanism.noise_sd([2, 1])
    assert sd == pytest.approx([np.sqrt(2) * 6 / (2 * 2.0), np.sqrt(2) * 6 / 2.0], rel=1e-6)
    assert draws.var(axis=0) / sd**2 == pytest.approx(1, abs=5 * np.sqrt(5 / 60_000))
    assert np.abs(draws.mean(axis=0) - 1.0) / sd == pytest.approx(0, abs=5 / np.sqrt(60_000))


@pytest.mark.parametrize(("noise_ratio", "same"), [(1.0, True), (0.8, False)])
def test_release_and_simulation_have_one_distribution(noise_ratio, same):
    # Kolmogorov-Smirnov with 40,000 draws a side, rejected at 1e-7. Noise 20 % too small lies at
    # a distance of 0.041, the threshold is 0.021: caught with 5.8 sigma to spare, as the second
    # case shows.
    import jax
    import jax.numpy as jnp

    y, codes = np.array([0.2, 1.7, 9.0]), np.array([0, 0, 1])
    released = replicate(BagMeanMechanism(bounds=(-1, 2), epsilon=1.0), y, codes, 40_000)
    keys = jax.random.split(jax.random.key(0), 40_000)
    simulated = jax.vmap(
        lambda key: simulate_release(
            key, jnp.array(y), jnp.array(codes), 2, bounds=(-1, 2), epsilon=1.0 / noise_ratio
        )
    )(keys)
    for bag in range(2):
        p = stats.ks_2samp(released[:, bag], np.asarray(simulated)[:, bag], method="asymp").pvalue
        assert bool(p > 1e-7) is same


@pytest.mark.parametrize(("fault", "caught"), [(1.0, False), (0.8, True), (0.5, True)])
def test_audit_passes_the_release_and_catches_too_little_noise(fault, caught):
    # Confidence 1 - 1e-7 a run. 0.8: noise 20 % too small; 0.5: half the sensitivity, the classic
    # slip of C / k for 2 C / k. Both are missed less than once in 1e9. The neighbours are the worst
    # pair: one response at one bound or at the other.
    honest = BagMeanMechanism(bounds=(0, 1), epsilon=1.0)
    audited = BagMeanMechanism(bounds=(0, 1), epsilon=1.0 / fault)
    codes = np.array([0, 0, 1])

    result = audit_epsilon(
        lambda y, n: replicate(audited, y, codes, n),
        [0.0, 0.5, 0.5],
        [1.0, 0.5, 0.5],
        n=40_000,
        confidence=1 - 1e-7,
        batched=True,
        score=lambda means: means[:, 0],
    )
    assert result.contradicts(honest.guarantee) is caught
    assert result.epsilon_lower > 0.8  # 0.91 expected of the honest one: the audit can see


def test_simulated_release_traces_epsilon_and_clips():
    import jax
    import jax.numpy as jnp

    y, codes = jnp.array([-5.0, 0.5, 7.0]), jnp.array([0, 0, 1])
    path = jax.jit(
        jax.vmap(
            lambda epsilon: simulate_release(
                jax.random.key(1), y, codes, 2, bounds=(0, 1), epsilon=epsilon
            )
        )
    )(jnp.array([1.0, 1e7]))
    assert path[1] == pytest.approx([0.25, 1.0], abs=1e-5)
    assert abs(path[0] - path[1]).min() > 1e-4


def test_guarantee_says_for_whom_and_on_what_condition():
    text = str(BagMeanMechanism(bounds=(0, 1), epsilon=0.5).guarantee)
    for word in ("epsilon = 0.5", "delta = 0,", "one response", "replace one", "overlap", "public"):
        assert word in text


def test_sizes_in_32_bits_do_not_wrap_around():
    mechanism = BagMeanMechanism(bounds=(0, 1), epsilon=1e3)
    sizes = np.array([1_000_000], dtype=np.uint32)
    sums = np.array([1e6 * mechanism.grid.steps_per_response])
    assert mechanism.release_sums(sums, sizes) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((1, 0), ValueError, r"bounds must increase .* \(1.0, 0.0\)"),
        ((1, 1), ValueError, "bounds must increase"),
        ((0, np.inf), ValueError, "bounds must be finite"),
        ((np.nan, 1), ValueError, "bounds must be finite"),
        ((-1.7e308, 1.7e308), ValueError, "bounds must be finite"),
        ((0, 1e-300), ValueError, "bounds are too close"),
        (None, TypeError, "bounds must be a pair"),
        (3.0, TypeError, "bounds must be a pair"),
        ((0, 1, 2), TypeError, "bounds must be a pair"),
        (("0", "1"), TypeError, "bounds must be two numbers"),
        ((False, True), TypeError, "bounds must be two numbers"),
    ],
)
def test_bad_bounds_are_refused(bounds, error, message):
    with pytest.raises(error, match=message):
        BagMeanMechanism(bounds=bounds, epsilon=1.0)


@pytest.mark.parametrize("epsilon", [0, -1.0, np.inf, np.nan, None, "1", 1e-12])
def test_bad_epsilon_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        BagMeanMechanism(bounds=(0, 1), epsilon=epsilon)


@pytest.mark.parametrize(
    ("sums", "sizes", "message"),
    [
        ([0.0], [0], "sizes 0 to 0"),
        ([0.0], [2**28 + 1], r"1 to 2\*\*28 rows"),
        ([-1.0], [1], "were responses clipped"),
        ([2.0**25], [1], "were responses clipped"),
        ([np.nan], [1], "were responses clipped"),
    ],
)
def test_sums_that_no_clipped_responses_have_are_refused(sums, sizes, message):
    mechanism = BagMeanMechanism(bounds=(0, 1), epsilon=1.0)
    with pytest.raises(ValueError, match=message):
        mechanism.release_sums(sums, sizes)
