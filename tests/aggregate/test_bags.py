"""Bags have the sizes that were asked for, lose no row, and remember whether labels made them."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from privlearn.aggregate.bags import (
    BagAssignment,
    feature_clustered_bags,
    index_bags,
    label_sorted_bags,
    prediction_sorted_bags,
    random_bags,
)


def build(method, n, k, seed=0):
    rng = np.random.default_rng(seed)
    if method == "random":
        return random_bags(n, k, seed)
    if method == "feature-clustered":
        return feature_clustered_bags(rng.normal(size=(n, 2)), k, seed, max_block=16)
    sorted_bags = {"label-sorted": label_sorted_bags, "prediction-sorted": prediction_sorted_bags}
    return sorted_bags[method](rng.normal(size=n), k)


METHODS = ["random", "feature-clustered", "label-sorted", "prediction-sorted"]


def within(X, bags):
    """Sum of squared distances to the bag means."""
    return sum(((X[bags == a] - X[bags == a].mean(axis=0)) ** 2).sum() for a in np.unique(bags))


@pytest.mark.parametrize("method", METHODS)
@given(n=st.integers(1, 70), data=st.data())
def test_every_row_has_a_bag_and_only_the_last_bag_is_short(method, n, data):
    k = data.draw(st.integers(1, n))
    bags = build(method, n, k)
    assert bags.dtype == np.int64
    full, left_over = divmod(n, k)
    sizes = np.bincount(bags).tolist()
    assert len(bags) == n
    assert sizes == [k] * full + [left_over] * (left_over > 0)


@pytest.mark.parametrize("method", ["random", "feature-clustered"])
def test_same_seed_same_bags_and_other_seed_other_bags(method):
    X = np.random.default_rng(0).normal(size=(60, 2))

    def make(state):
        return (
            random_bags(60, 5, state) if method == "random" else feature_clustered_bags(X, 5, state)
        )

    assert np.array_equal(make(3), make(3))
    assert np.array_equal(make(3), make(np.random.default_rng(3)))
    assert not np.array_equal(make(3), make(4))
    assert np.array_equal(make(np.random.RandomState(3)), make(np.random.RandomState(3)))


def test_random_bags_pair_any_two_rows_as_often_as_chance_says():
    # 11 rows in bags of 4, 4 and 3: rows 0 and 1 share one with probability 30 / 110. 4,000 draws,
    # 5 sigma (false alarm 6e-7, and the seed is fixed); would see 0.24 or 0.31.
    rng = np.random.default_rng(0)
    together = [bags[0] == bags[1] for bags in (random_bags(11, 4, rng) for _ in range(4_000))]
    chance = (4 * 3 + 4 * 3 + 3 * 2) / (11 * 10)
    assert abs(np.mean(together) - chance) < 5 * np.sqrt(chance * (1 - chance) / 4_000)


def test_converged_clusters_cannot_be_improved_by_any_swap():
    X = np.random.default_rng(1).normal(size=(48, 2))
    bags = np.asarray(feature_clustered_bags(X, 6, 0, max_rounds=200))
    centres = np.array([X[bags == a].mean(axis=0) for a in range(8)])
    cost = cdist(X, centres, "sqeuclidean")
    own = cost[np.arange(48), bags]
    swapped = cost[:, bags] + cost[:, bags].T  # i takes j's slot and j takes i's
    assert (swapped >= own[:, None] + own[None, :] - 1e-9).all()


def test_clusters_find_groups_of_exactly_the_bag_size():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(6), 10)
    X = rng.normal(size=(60, 3)) * 0.01 + np.array([[100 * g, -g, g % 2] for g in groups])
    best = min(
        (feature_clustered_bags(X, 10, seed) for seed in range(20)), key=lambda b: within(X, b)
    )
    assert len({(g, b) for g, b in zip(groups, best, strict=True)}) == 6


def test_blocks_cost_little_tightness():
    X = np.random.default_rng(3).normal(size=(600, 2))
    whole = within(X, feature_clustered_bags(X, 10, 0, max_block=600))
    blocked = within(X, feature_clustered_bags(X, 10, 0, max_block=100))
    random = within(X, random_bags(600, 10, 0))
    assert whole <= 1.05 * blocked  # a whole assignment is at least about as tight
    assert blocked < 1.35 * whole
    assert blocked < 0.1 * random


def test_bags_larger_than_a_block_still_split_on_the_widest_direction():
    X = np.column_stack([np.arange(40.0)[::-1], np.zeros(40)])
    bags = feature_clustered_bags(X, 10, 0, max_block=4)
    assert len(set(bags[:10].tolist())) == 1
    assert within(X, bags) == pytest.approx(4 * 10 * 99 / 12)


def test_prediction_sorted_bags_are_the_best_bags_of_one_dimension():
    scores = np.random.default_rng(4).normal(size=6)
    ours = within(scores[:, None], prediction_sorted_bags(scores, 2))
    every = [
        within(scores[:, None], np.array(ids))
        for ids in itertools.product(range(3), repeat=6)
        if np.bincount(ids, minlength=3).tolist() == [2, 2, 2]
    ]
    assert ours == pytest.approx(min(every))


def test_ties_keep_their_order():
    assert label_sorted_bags([1.0, 0.0, 1.0, 0.0], 2).tolist() == [1, 0, 1, 0]


def test_bags_from_labels_are_flagged_and_scores_are_suspect_until_vouched_for():
    assert not label_sorted_bags([1.0, 2.0], 1).label_private
    assert not prediction_sorted_bags([1.0, 2.0], 1).label_private
    assert prediction_sorted_bags([1.0, 2.0], 1, scores_use_labels=False).label_private
    assert random_bags(4, 2, 0).label_private
    assert feature_clustered_bags([[1.0], [2.0]], 1, 0).label_private


@pytest.mark.parametrize(
    "derive",
    [
        lambda b: b[1:],
        lambda b: b[[2, 0, 1]],
        lambda b: b.copy(),
        lambda b: copy.deepcopy(b),
        lambda b: b.astype(np.int32),
        lambda b: pickle.loads(pickle.dumps(b)),
        lambda b: np.take(b, [0, 1]),
    ],
)
def test_the_flag_survives_what_people_do_to_arrays(derive):
    leaky, safe = derive(label_sorted_bags([3.0, 1.0, 2.0], 1)), derive(random_bags(3, 1, 0))
    assert isinstance(leaky, BagAssignment)
    assert (leaky.method, leaky.label_private) == ("label-sorted", False)
    assert (safe.method, safe.label_private) == ("random", True)


def test_an_array_viewed_as_bags_is_not_vouched_for():
    assert not np.arange(3).view(BagAssignment).label_private


def test_arithmetic_on_bags_gives_plain_arrays():
    bags = random_bags(4, 2, 0)
    assert type(bags == 0) is np.ndarray
    assert type(bags + 1) is np.ndarray
    out = np.empty(4, dtype=np.int64).view(BagAssignment)
    np.add(bags, 1, out=out)
    assert out.tolist() == (np.asarray(bags) + 1).tolist()


def test_jax_takes_bags_as_the_array_that_they_are():
    import jax.numpy as jnp

    assert jnp.asarray(random_bags(4, 2, 0)).shape == (4,)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        ([7, -2, 7], [-2, 7]),
        (["b", "a", "b"], ["a", "b"]),
        (np.array(["b", "a", "b"], dtype=object), ["a", "b"]),
        ([2**53 + 1, 2**53, 2**53 + 1], [2**53, 2**53 + 1]),
        (np.array([2**64 - 1, 0, 2**64 - 1], dtype=np.uint64), [0, 2**64 - 1]),
    ],
)
def test_index_keeps_ids_apart_and_in_order(ids, labels):
    index = index_bags(ids, 3)
    assert index.labels.tolist() == labels
    assert index.codes.tolist() == [1, 0, 1]
    assert index.sizes.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0.0, 1.0, 1.0], TypeError, "float64"),
        ([0.0, np.nan, 1.0], TypeError, "bags must be integers or strings"),
        ([0, None, 1], TypeError, "object"),
        ([0, "a", None], TypeError, "object"),
        ([0, 2**70, 1], TypeError, "beyond 64 bits"),
        ([True, False, True], TypeError, "bool"),
        ([0, 1], ValueError, "2 ids for 3 rows"),
        ([[0, 1, 1]], ValueError, r"shape \(1, 3\)"),
    ],
)
def test_index_refuses_ids_that_could_be_confused(ids, error, message):
    with pytest.raises(error, match=message):
        index_bags(ids, 3)


def test_index_refuses_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        index_bags([])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random_bags(5, 0), ValueError, r"k must lie between 1 and .*\(5\), got 0"),
        (lambda: random_bags(5, 6), ValueError, "got 6"),
        (lambda: random_bags(0, 1), ValueError, "at least one row"),
        (lambda: random_bags(5, 2.0), TypeError, "k must be an integer"),
        (lambda: random_bags(5, True), TypeError, "k must be an integer"),
        (lambda: label_sorted_bags([1.0, np.nan], 1), ValueError, "y must be finite, got 1"),
        (lambda: prediction_sorted_bags([np.inf], 1), ValueError, "scores must be finite"),
        (lambda: prediction_sorted_bags([[1.0]], 1), ValueError, "scores must have one axis"),
        (lambda: feature_clustered_bags([1.0, 2.0], 1), ValueError, "X must have two axes"),
        (lambda: feature_clustered_bags([[np.nan]], 1), ValueError, "X must be finite"),
        (lambda: feature_clustered_bags([[1.0]], 1, max_rounds=0), ValueError, "max_rounds"),
        (lambda: feature_clustered_bags([[1.0]], 1, max_block=0), ValueError, "max_block"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
