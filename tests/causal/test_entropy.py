"""Exact draws: integers in, integer probabilities out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from privlearn.causal import entropy, kernels


def words(*numbers):
    """Return a source that yields these 32-bit words, then fails."""
    left = list(numbers)

    def source(n_bytes):
        taken, left[:] = left[: n_bytes // 4], left[n_bytes // 4 :]
        assert len(taken) == n_bytes // 4, "asked for more words than expected"
        return np.array(taken, np.uint32).tobytes()

    return source


distributions = st.integers(2, 13).flatmap(
    lambda k: st.tuples(
        arrays(float, (3, k), elements=st.floats(0, 1)),
        st.floats(1e-6, 1.0).map(lambda share: share / k),
        st.sampled_from(["project", "affine"]),
    )
)


@given(distributions)
def test_weights_keep_the_floor_exactly_and_sum_to_the_total(case):
    noisy, gamma, normalize = case
    k = noisy.shape[1]
    priors = kernels.priors_from_counts(noisy * 50 - 10, np.full(3, 20), gamma, normalize)
    weights = entropy.integer_weights(priors, gamma)
    assert (weights.sum(1) == entropy.total_weight(k)).all()
    assert weights.min() >= entropy.floor_weight(gamma, k)
    assert entropy.floor_weight(gamma, k) / entropy.total_weight(k) >= gamma * (1 - 1e-12)
    np.testing.assert_allclose(weights / entropy.total_weight(k), priors, atol=1e-6)


@given(distributions)
def test_alias_tables_have_exactly_the_law_of_the_weights(case):
    noisy, gamma, normalize = case
    priors = kernels.priors_from_counts(noisy * 50, np.full(3, 20), gamma, normalize)
    weights = entropy.integer_weights(priors, gamma)
    table = entropy.alias_table(weights)
    side = 1 << table.bits
    assert ((table.threshold >= 0) & (table.threshold <= side)).all()
    law = table.threshold.copy()
    for row in range(3):
        np.add.at(law[row], table.alias[row], side - table.threshold[row])
    assert (law == weights).all()


def test_weights_that_do_not_sum_to_the_total_are_refused():
    with pytest.raises(ValueError, match="sum to"):
        entropy.alias_table(np.array([[1, 2]]))


@pytest.mark.parametrize("k", range(2, 40))
def test_gamma_of_one_over_k_is_exactly_uniform(k):
    assert entropy.is_uniform(1 / k, k)
    assert entropy.floor_weight(1 / k, k) * k == entropy.total_weight(k)


def test_coins_fall_with_exactly_their_weight():
    """True for the words below the weight, all 2^32 of them equally likely."""
    source = words(0, 6, 7, 8, 2**32 - 1)
    assert entropy.coins(7, 5, source).tolist() == [True, True, False, False, False]
    each = np.array([0, 2**32, 1])
    assert entropy.coins(each, 3, words(0, 2**32 - 1, 1)).tolist() == [False, True, False]


def test_uniform_rejects_the_words_that_would_favour_small_numbers():
    high = 3 * 2**30
    assert entropy.uniform(high, 2, words(high, high - 1, 5)).tolist() == [high - 1, 5]
    assert entropy.uniform(10, 1, words(2**32 - 1, 13)).tolist() == [3]


def test_resampling_takes_column_and_side_from_one_word():
    weights = np.array([[3 << 30, 1 << 30]])  # thresholds: column 0 whole, column 1 half its own
    table = entropy.alias_table(weights)
    assert table.bits == 31
    column_1 = 1 << 31
    source = words(0, 0, 0, 2**32 - 1, 5, column_1, column_1 + (1 << 30))
    found = entropy.resample(np.full(4, 1), np.zeros(4, int), table, 1 << 31, source)
    assert found.tolist() == [0, 1, 0, 1]


def test_coin_weight_rounds_towards_privacy():
    assert entropy.coin_weight(0.1) / entropy.COIN >= 0.1
    assert entropy.coin_weight(1.0) == entropy.COIN


@settings(max_examples=5)
@given(st.integers(0, 3))
def test_system_entropy_gives_the_law_across_blocks(shift):
    """Chi-square at a false-alarm rate of 1e-7; a shift of 1 % in a probability fails."""
    n = 600_000
    weights = entropy.integer_weights(np.roll([[0.5, 0.25, 0.2, 0.05]], shift, axis=1), 0.05)
    codes = np.zeros(n, np.int32)
    table = entropy.alias_table(weights)
    found = entropy.resample(codes, codes, table, entropy.coin_weight(0.75))
    expected = 0.75 * weights[0] / entropy.total_weight(4)
    expected[0] += 0.25
    assert stats.chisquare(np.bincount(found, minlength=4), n * expected).pvalue > 1e-7
