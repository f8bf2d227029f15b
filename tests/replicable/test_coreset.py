"""The quad tree, its coreset, and what replicates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privlearn.replicable import replicable_coreset, simulation, theory
from privlearn.replicable.oracles import WeightedKMedians, solve
from privlearn.replicable.quadtree import grow, occupied, route

PLAN = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3).levels
SETTINGS = {"n_clusters": 3, "epsilon": 0.99, "opt": 0.5, "levels": 3}


def tree_by_hand(points, levels, shared_seed, skip=1):
    """Leaves by recursion on cells, one cell at a time."""
    from privlearn.replicable import replicable_threshold

    dim, leaves = points.shape[1], []
    by_level = {level.level: level for level in levels}

    def visit(level, cell):
        side = 2.0 ** (1 - level)
        heavy = []
        if level + 1 in by_level:
            plan = by_level[level + 1]
            at = replicable_threshold(
                low=plan.low,
                high=plan.high,
                shared_seed=shared_seed,
                purpose="cells",
                label=level + 1,
            )
            for step in np.ndindex(*(2,) * dim):
                child = tuple(2 * c + s for c, s in zip(cell, step, strict=True))
                low = np.array(child) * side / 2 - 1
                high = low + side / 2
                inside = (points >= low) & ((points < high) | (high == 1))
                if level + 1 <= skip or inside.all(axis=1).mean() >= at:
                    heavy.append(child)
        if not heavy:
            leaves.append((level, *cell))
        for child in heavy:
            visit(level + 1, child)

    visit(0, (0,) * dim)
    return sorted(leaves)


def route_by_hand(points, tree):
    labels = []
    for x in points:
        inside = [
            i for i, (low, side) in enumerate(zip(tree.low, tree.side, strict=True))
            if all(l <= v and (v < l + side or l + side == 1) for v, l in zip(x, low, strict=True))
        ]  # fmt: skip
        gap = [
            sum(max(l - v, 0, v - l - side) ** 2 for v, l in zip(x, low, strict=True))
            for low, side in zip(tree.low, tree.side, strict=True)
        ]
        labels.append(inside[0] if inside else int(np.argmin(gap)))
    return labels


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("skip", [0, 1])
def test_tree_and_routing_agree_with_a_walk_over_single_cells(dim, skip):
    plan = theory.schedule(n_clusters=3, epsilon=0.9, opt=0.05, dim=dim)
    rng = np.random.default_rng(dim)
    for seed in range(6):
        centres = rng.uniform(-1, 1, (4, dim))
        points = (centres[rng.integers(4, size=300)] + rng.normal(0, 0.1, (300, dim))).clip(-1, 1)
        tree = grow(points, plan.levels, shared_seed=seed, skip_levels=skip)
        leaves = [(int(i), *map(int, c)) for i, c in zip(tree.level, tree.cell, strict=True)]
        assert leaves == tree_by_hand(points, plan.levels, seed, skip)
        assert route(points, tree).tolist() == route_by_hand(points, tree)


def test_routing_of_a_deep_sparse_level_agrees_with_the_dense_histogram(monkeypatch):
    import privlearn.replicable.quadtree as module

    points = simulation.two_moons(3000, np.random.default_rng(0))
    tree = grow(points, PLAN, shared_seed=1)
    dense = route(points, tree)
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(module, "_BLOCK", 50)
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_FINE", 0)
    again = grow(points, PLAN, shared_seed=1)
    assert again.cell.tolist() == tree.cell.tolist()
    assert route(points, tree).tolist() == dense.tolist()


def test_points_on_cell_borders_belong_to_the_upper_cell_and_the_box_is_closed():
    points = np.array([[-1.0, 1.0], [0.0, -0.5], [0.5, 0.5 - 1e-12]])
    cells, counts, where = occupied(points, 2)
    assert cells[where].tolist() == [[0, 3], [2, 1], [3, 2]]
    assert counts.tolist() == [1, 1, 1]


def test_equal_distances_go_to_the_first_leaf():
    corners = np.repeat([[-0.9, -0.9], [0.9, 0.9]], 50, axis=0)
    tree = grow(corners, PLAN, shared_seed=0, skip_levels=0)
    assert len(tree.level) == 2
    assert route(np.array([[0.0, 0.0]]) - 1e-300, tree).tolist() == [0]


def test_four_dimensions_are_refused():
    with pytest.raises(ValueError, match="n_components"):
        grow(np.zeros((10, 4)), PLAN, shared_seed=0)
    with pytest.raises(ValueError, match="more than 3"):
        replicable_coreset(np.zeros((10, 4)), **SETTINGS, shared_seed=0)


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(2, 40), st.integers(1, 3)), elements=st.floats(-2, 2)
    ),
    st.integers(0, 2**40),
    st.sampled_from(["mean", "centre"]),
)
def test_a_coreset_is_a_distribution_in_the_box_and_ignores_the_order_of_rows(X, seed, kind):
    settings = {**SETTINGS, "shared_seed": seed, "representative": kind, "fresh_samples": False}
    coreset = replicable_coreset(X, **settings)
    assert coreset.weights.sum() == pytest.approx(1)
    assert (coreset.weights >= 0).all()
    assert (np.abs(coreset.points) <= 1).all()
    assert coreset.rows.sum() == len(X)
    if kind == "centre":  # means are sums, whose last bit depends on the order
        assert replicable_coreset(X[::-1], **settings).key == coreset.key
    assert replicable_coreset(X, **settings).key == coreset.key


def test_rounded_means_stay_near_the_means_of_their_rows():
    X = simulation.truncated_mixture(5000, np.random.default_rng(0))
    coreset = replicable_coreset(X, **SETTINGS, shared_seed=1, fresh_samples=False, mean_grid=0.2)
    labels = route(X, coreset.tree)
    for leaf in np.flatnonzero(coreset.rows):
        off = np.abs(coreset.points[leaf] - X[labels == leaf].mean(axis=0))
        assert (off <= 0.1 * coreset.tree.side[leaf] + 1e-12).all()


def test_a_point_mass_replicates_always():
    found = simulation.coreset_agreement(
        lambda n, rng: np.full((n, 2), 0.3), 20, 50, seed=1, representative="mean"
    )
    assert found == (50, 50, 50)


def test_two_runs_share_the_leaves_as_often_as_published():
    """400 pairs each; published .28, .67 at 400 pairs (SE .024): 5 sigma of the difference."""
    for n, published in ((1000, 0.28), (4000, 0.67)):
        found = simulation.coreset_agreement(simulation.truncated_mixture, n, 400, seed=3)
        margin = 5 * np.sqrt(2 * published * (1 - published) / 400)
        assert abs(found.same_leaves / 400 - published) < margin
        assert found.same_coreset <= found.same_leaves


def test_more_rows_replicate_more_often():
    """.19 against .67 published: 200 pairs tell them apart by more than 8 sigma."""
    rates = [
        simulation.coreset_agreement(simulation.truncated_mixture, n, 200, seed=4).same_coreset
        for n in (1000, 16_000)
    ]
    assert rates[1] > rates[0] + 30


def test_the_shared_seed_matters_and_not_only_the_sample():
    X = simulation.truncated_mixture(4000, np.random.default_rng(0))
    keys = {replicable_coreset(X, **SETTINGS, shared_seed=s).key for s in range(10)}
    assert len(keys) > 3


def test_cost_on_the_coreset_is_within_the_routing_bound():
    """|cost(C, w) - cost(sample)| <= mean(r^2 + 2 r d), before masses are rounded."""
    rng = np.random.default_rng(5)
    X = simulation.two_moons(4000, rng)
    coreset = replicable_coreset(
        X, **SETTINGS, shared_seed=2, fresh_samples=False, representative="centre", mass_grid=1e-9
    )
    labels = route(X, coreset.tree)
    moved = np.linalg.norm(X - coreset.points[labels], axis=1)
    for _ in range(100):
        centres = rng.uniform(-1, 1, (3, 2))
        d2 = ((coreset.points[:, None] - centres) ** 2).sum(axis=2).min(axis=1)
        sample = ((X[:, None] - centres) ** 2).sum(axis=2).min(axis=1).mean()
        bound = (moved**2 + 2 * moved * np.sqrt(d2[labels])).mean()
        assert abs(coreset.weights @ d2 - sample) <= bound + 1e-6


def test_fresh_samples_use_disjoint_halves():
    X = simulation.truncated_mixture(2000, np.random.default_rng(0))
    changed = X.copy()
    changed[1::2] = 0.9  # rows of the masses only
    one, two = (replicable_coreset(Y, **SETTINGS, shared_seed=2) for Y in (X, changed))
    assert one.support == two.support
    assert one.key != two.key


def brute_force(points, weights, k, power):
    from itertools import combinations

    return min(
        weights @ (np.linalg.norm(points[:, None] - points[list(c)], axis=2).min(axis=1) ** power)
        for c in combinations(range(len(points)), k)
    )


def test_k_medians_is_hardly_worse_than_the_best_centres_among_the_rows():
    rng = np.random.default_rng(6)
    better = 0
    for _ in range(60):
        n, k = int(rng.integers(4, 9)), int(rng.integers(1, 4))
        points, weights = rng.normal(size=(n, 2)), rng.random(n)
        model = WeightedKMedians(k).fit(points, sample_weight=weights)
        best = brute_force(points, weights, k, 1)
        assert model.inertia_ <= 1.2 * best  # guaranteed: 5
        better += model.inertia_ <= best * (1 + 1e-9)
        distance = np.linalg.norm(points - model.cluster_centers_[model.labels_], axis=1)
        assert model.inertia_ == pytest.approx(weights @ distance, rel=1e-9)
    assert better >= 55


def test_k_medians_of_one_cluster_is_the_geometric_median():
    from scipy.optimize import minimize

    rng = np.random.default_rng(7)
    points, weights = rng.normal(size=(30, 2)), rng.random(30)
    cost = lambda c: weights @ np.linalg.norm(points - c, axis=1)  # noqa: E731
    best = minimize(
        cost, points.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    found = WeightedKMedians(1).fit(points, sample_weight=weights)
    assert found.inertia_ <= best.fun * (1 + 1e-8)


def test_oracle_sees_weights_and_orders_centres():
    from sklearn.cluster import KMeans

    points, weights = np.array([[3.0], [0.0], [1.0]]), np.array([1.0, 3.0, 1.0])
    assert solve(None, KMeans(1, n_init=1), points, weights, 1, 0).ravel() == pytest.approx([0.8])
    assert solve(None, KMeans(3), points, weights, 3, 0).ravel().tolist() == [0, 1, 3]
    assert solve(None, KMeans(2, n_init=2), points, weights * [1, 1, 0], 2, 0).ravel().tolist() == [
        0,
        3,
    ]
