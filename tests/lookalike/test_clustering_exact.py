"""The exact solvers against other routes: flow, linear programme, assignment, brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_array

from privlearn.lookalike import min_size_assignment, univariate_microaggregation


def by_linear_programme(D, m):
    """HiGHS on the transportation problem; also the largest distance of T to an integer."""
    n, k = D.shape
    entry = np.arange(n * k)
    once = coo_array((np.ones(n * k), (entry // k, entry)), shape=(n, n * k)).tocsr()
    least = coo_array((-np.ones(n * k), (entry % k, entry)), shape=(k, n * k)).tocsr()
    out = linprog(
        D.ravel(), A_ub=least, b_ub=np.full(k, -m), A_eq=once, b_eq=np.ones(n), method="highs-ds"
    )
    assert out.status == 0
    return out.fun, np.abs(out.x - out.x.round()).max()


def by_assignment(D, m):
    """K * m mandatory slots against all points; a point without a slot goes to the nearest."""
    base = D.min(axis=1)
    slots = np.repeat((D - base[:, None]).T, m, axis=0)
    return base.sum() + slots[linear_sum_assignment(slots)].sum()


@pytest.mark.parametrize(
    ("n", "k", "m"), [(60, 4, 12), (300, 10, 25), (500, 50, 8), (1000, 100, 8)]
)
def test_flow_meets_the_linear_programme_and_the_assignment(n, k, m):
    D = np.random.default_rng(n).random((n, k))
    flow = min_size_assignment(D, m)
    assert np.bincount(flow.labels, minlength=k).min() >= m
    assert flow.cost == pytest.approx(D[np.arange(n), flow.labels].sum(), abs=1e-12)
    assert flow.cost == pytest.approx(by_assignment(D, m), abs=1e-9)
    assert abs(flow.gap) < 1e-9
    if n <= 500:
        cost, fraction = by_linear_programme(D, m)
        assert flow.cost == pytest.approx(cost, abs=1e-9)
        assert fraction < 1e-9


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("n", "k", "m"), [(400, 40, 10), (400, 40, 7), (90, 1, 4), (50, 50, 1)])
def test_flow_is_optimal_for_squared_distances_at_any_scale(n, k, m, scale):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, 3))
    D = scale * ((X[:, None] - X[rng.choice(n, k, replace=False)]) ** 2).sum(axis=2)
    flow = min_size_assignment(D, m)
    assert np.bincount(flow.labels, minlength=k).min() >= m
    assert flow.cost == pytest.approx(by_assignment(D, m), rel=1e-12)
    assert abs(flow.gap) <= 1e-12 * D.sum()


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 5), st.integers(0, 9))
def test_flow_is_optimal_with_ties_from_any_prices(seed, k, m, slack):
    rng = np.random.default_rng(seed)
    n = max(1, k * m + slack)
    D = rng.integers(0, 4, (n, k)).astype(float)
    prices = rng.choice([0.0, 0.5, 1.0, 3.0, 40.0], k)
    kept = prices.copy()
    for start in (None, prices):
        flow = min_size_assignment(D, m, prices=start)
        assert np.bincount(flow.labels, minlength=k).min() >= m
        assert (flow.prices >= 0).all()
        assert flow.cost == pytest.approx(by_assignment(D, m) if m else D.min(axis=1).sum())
        assert flow.gap == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(prices, kept)


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0])
def test_warm_start_reaches_the_same_cost(noise):
    rng = np.random.default_rng(0)
    D = rng.random((600, 30))
    for m in (20, 15):
        first = min_size_assignment(D, m)
        near = D + noise * rng.random(D.shape)
        warm = min_size_assignment(near, m, prices=first.prices)
        assert warm.cost == pytest.approx(min_size_assignment(near, m).cost, abs=1e-9)
        assert abs(warm.gap) < 1e-9


def test_squared_distances_are_what_is_minimised():
    # Unsquared distances would send the far point to the far centre: 10121 instead of 10101.
    centres, points = np.array([[0.0, 0], [10, 0]]), np.array([[0.0, 0], [-1, 100]])
    D = ((points[:, None] - centres) ** 2).sum(axis=2)
    assert min_size_assignment(D, 1).cost == 10101


def test_too_many_clusters_for_the_points_are_refused():
    with pytest.raises(ValueError, match="need 12 points, but there are 11"):
        min_size_assignment(np.ones((11, 4)), 3)


def sse(x):
    return ((x - x.mean()) ** 2).sum()


def best_by_enumeration(x, m):
    """Least sum of squares over all partitions of the sorted values in runs of at least m."""
    x = np.sort(x)
    n = len(x)
    least = np.inf
    for parts in range(1, n // m + 1):
        for cuts in itertools.combinations(range(1, n), parts - 1):
            edges = (0, *cuts, n)
            runs = list(itertools.pairwise(edges))
            if min(b - a for a, b in runs) >= m:
                least = min(least, sum(sse(x[a:b]) for a, b in runs))
    return least


def best_of_all_partitions(x, m):
    """The same over every set partition, contiguous or not."""

    def partitions(items):
        if not items:
            yield []
            return
        first, rest = items[0], items[1:]
        for size in range(m - 1, len(rest) + 1):
            for others in itertools.combinations(rest, size):
                left = [i for i in rest if i not in others]
                for tail in partitions(left):
                    yield [(first, *others), *tail]

    return min(sum(sse(x[list(g)]) for g in p) for p in partitions(list(range(len(x)))))


@pytest.mark.parametrize("seed", range(4))
def test_one_dimensional_optimum_meets_every_partition(seed):
    x = np.random.default_rng(seed).standard_normal(10)
    assert univariate_microaggregation(x, 3).sse == pytest.approx(best_of_all_partitions(x, 3))


@given(st.integers(1, 13), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_one_dimensional_optimum_meets_enumeration_of_runs(n, m, seed, ties):
    m = min(m, n)
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, n).astype(float) if ties else rng.standard_normal(n)
    out = univariate_microaggregation(x, m)
    sizes = np.bincount(out.labels)
    assert sizes.min() >= m
    assert sizes.max() <= 2 * m - 1
    assert out.sse == pytest.approx(best_by_enumeration(x, m), abs=1e-8)
    assert out.sse == pytest.approx(
        sum(sse(x[out.labels == k]) for k in range(len(sizes))), abs=1e-8
    )


def test_one_dimensional_optimum_survives_an_offset_that_prefix_sums_would_not():
    x = np.random.default_rng(0).standard_normal(50)
    near = univariate_microaggregation(x, 4)
    far = univariate_microaggregation(x + 2.0**26, 4)
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_array_equal(univariate_microaggregation(1e-5 * x, 4).labels, near.labels)


def test_one_dimensional_chunks_join_without_a_seam(monkeypatch):
    from privlearn.lookalike import univariate

    x = np.random.default_rng(0).standard_normal(300)
    whole = univariate_microaggregation(x, 4)
    monkeypatch.setattr(univariate, "_CHUNK", 40)
    pieces = univariate_microaggregation(x, 4)
    np.testing.assert_array_equal(whole.labels, pieces.labels)
    assert whole.sse == pieces.sse


@pytest.mark.parametrize(
    ("x", "m", "message"),
    [
        ([], 1, "non-empty"),
        ([1.0, np.nan], 1, "finite"),
        ([[1.0]], 1, "column"),
        ([1.0, 2.0], 3, "between 1 and n = 2"),
        ([1.0, 2.0], 0, "between 1"),
    ],
)
def test_bad_columns_are_refused(x, m, message):
    with pytest.raises(ValueError, match=message):
        univariate_microaggregation(x, m)
