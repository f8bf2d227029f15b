"""The family: special cases, what a release holds, invariances, bad input."""

import dataclasses

import jax
import numpy as np
import pytest

from privlearn.causal import (
    ClusterDP,
    ClusterFreeDP,
    EffectEstimator,
    NoDP,
    OutcomeGrid,
    UniformPriorDP,
    kernels,
)

GRID = OutcomeGrid.of(range(4))
RNG = np.random.default_rng(0)
N = 400
CLUSTERS = RNG.integers(0, 3, N)
Z = RNG.integers(0, 2, N)
Y = np.minimum(RNG.integers(0, 3, N) + CLUSTERS // 2 + Z * (RNG.random(N) < 0.5), 3)


def cluster_dp(**changes):
    return ClusterDP(**{"grid": GRID, "lam": 0.5, "gamma": 0.02, "sigma": 4.0} | changes)


def test_a_release_holds_nothing_but_what_may_be_released():
    release = cluster_dp().privatize(Y, Z, CLUSTERS)
    fields = {f.name for f in dataclasses.fields(release)}
    assert fields == {
        "outcomes", "cells", "guarantee", "mechanism", "grid", "lam", "weights", "prior_of_cell",
    }  # fmt: skip
    assert {f.name for f in dataclasses.fields(release.cells)} == {
        "codes", "members", "sizes", "kept",
    }  # fmt: skip
    # Nothing of the object is the array of true outcomes, nor shares memory with it.
    for value in vars(release).values():
        if isinstance(value, np.ndarray):
            assert not np.shares_memory(value, Y)


def test_two_releases_differ_and_neither_takes_a_seed():
    mechanism = cluster_dp()
    a, b = (mechanism.privatize(Y, Z, CLUSTERS) for _ in range(2))
    assert (a.outcomes != b.outcomes).any()
    assert (a.weights != b.weights).any()
    with pytest.raises(TypeError, match="unexpected keyword"):
        mechanism.privatize(Y, Z, CLUSTERS, random_state=0)


def test_released_priors_keep_the_floor_and_are_those_that_debias():
    mechanism = cluster_dp(gamma=0.1)
    release = mechanism.privatize(Y, Z, CLUSTERS)
    assert release.priors.shape == (3, 2, 4)
    assert release.priors.min() >= 0.1
    np.testing.assert_allclose(release.priors.sum(-1), 1)
    np.testing.assert_allclose(release.prior_means(), release.priors @ GRID.array)


def test_gamma_of_one_over_k_is_the_uniform_prior_at_no_cost():
    mechanism = cluster_dp(gamma=0.25, sigma=1e-3)
    assert mechanism.guarantee == UniformPriorDP(GRID, 0.5).guarantee
    assert (mechanism.privatize(Y, Z, CLUSTERS).priors == 0.25).all()


def test_one_cluster_makes_cluster_dp_cluster_free():
    """The same counts, so the same law; with no noise to speak of, the same priors."""
    one = np.zeros(N, int)
    pair = [
        kind(GRID, lam=0.5, gamma=0.02, sigma=1e-2).privatize(Y, Z, one).priors
        for kind in (ClusterDP, ClusterFreeDP)
    ]
    np.testing.assert_array_equal(*pair)


def test_cluster_free_priors_are_pooled_over_clusters_per_arm():
    release = ClusterFreeDP(GRID, lam=0.5, gamma=1e-6, sigma=1e-2).privatize(Y, Z, CLUSTERS)
    for arm in (0, 1):
        pooled = np.bincount(Y[arm == Z], minlength=4) / (arm == Z).sum()
        np.testing.assert_allclose(release.priors[:, arm], [pooled] * 3, atol=2e-6)


def test_no_dp_gives_the_difference_in_means():
    estimator = EffectEstimator().fit(NoDP(GRID).privatize(Y, Z, CLUSTERS))
    expected = sum(
        (c == CLUSTERS).mean()
        * (Y[(c == CLUSTERS) & (Z == 1)].mean() - Y[(c == CLUSTERS) & (Z == 0)].mean())
        for c in range(3)
    )
    assert estimator.tau_ == pytest.approx(expected, abs=1e-12)


def test_simulation_does_not_depend_on_the_order_of_units_or_names_of_clusters():
    """Without draws (lam = 0, sigma = 0) the priors are a function of the cells alone."""
    mechanism = ClusterDP(GRID, lam=0.0, gamma=0.02, sigma=0.0)
    order = np.random.default_rng(1).permutation(N)
    cells = 2 * CLUSTERS + Z
    a = mechanism.simulate(jax.random.key(0), Y, cells, 3)
    b = mechanism.simulate(jax.random.key(1), Y[order], cells[order], 3)
    np.testing.assert_allclose(a.priors, b.priors, atol=1e-6)
    renamed = mechanism.simulate(jax.random.key(0), Y, 2 * (2 - CLUSTERS) + Z, 3)
    np.testing.assert_allclose(
        np.asarray(renamed.priors).reshape(3, 2, 4)[::-1].reshape(6, 4), a.priors, atol=1e-6
    )


@pytest.mark.parametrize("normalize", [kernels.project_floor, kernels.shrink_floor])
def test_floors_hold_in_both_array_libraries_and_agree(normalize):
    q = np.random.default_rng(2).normal(size=(500, 6))
    found = normalize(q, 0.05)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert found.min() > 0.05 - 1e-12
    np.testing.assert_allclose(normalize(jax.numpy.asarray(q), 0.05), found, atol=1e-5)
    np.testing.assert_allclose(normalize(q, 1 / 6), 1 / 6, atol=1e-12)


def test_projection_is_the_nearest_point_and_leaves_feasible_points_alone():
    rng = np.random.default_rng(3)
    feasible = 0.05 + 0.7 * rng.dirichlet(np.ones(6), 200)
    np.testing.assert_allclose(kernels.project_floor(feasible, 0.05), feasible, atol=1e-12)
    for q in rng.normal(size=(20, 6)):
        nearest = kernels.project_floor(q, 0.05)
        distance = np.linalg.norm(feasible - q, axis=1)
        assert (distance >= np.linalg.norm(nearest - q) - 1e-12).all()


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"grid": [0, 1]}, TypeError, "OutcomeGrid"),
        ({"lam": 1.0}, ValueError, "lam"),
        ({"lam": -0.1}, ValueError, "lam"),
        ({"lam": 1 - 1e-12}, ValueError, "lam"),
        ({"lam": True}, TypeError, "lam"),
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"gamma": 0.3}, ValueError, "1/K"),
        ({"sigma": -1.0}, ValueError, "sigma"),
        ({"sigma": np.inf}, ValueError, "sigma"),
        ({"delta": 1.0}, ValueError, "delta"),
        ({"delta": -0.1}, ValueError, "delta"),
        ({"normalize": "clip"}, ValueError, "normalize"),
    ],
)
def test_bad_parameters_are_refused_by_name(changes, error, match):
    with pytest.raises(error, match=match):
        cluster_dp(**changes)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"epsilon": 0.5, "sigma": 4.0}, "must exceed 2 / sigma = 0.5"),
        ({"epsilon": 0.4, "sigma": 4.0}, "must exceed 2 / sigma = 0.5"),
        ({"epsilon": 1.0, "prior_share": 1.0}, "must exceed"),
        ({"epsilon": 1.0, "prior_share": 0.0}, "prior_share"),
        ({"epsilon": 1.0, "sigma": 0.0}, "sigma must be positive"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta"),
        ({"epsilon": 1.0, "delta": -0.1}, "delta"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        ClusterDP.for_budget(GRID, **({"gamma": 0.05} | arguments))


def test_the_whole_budget_may_go_to_the_priors_if_delta_pays_for_the_rest():
    mechanism = ClusterDP.for_budget(GRID, 0.5, 0.1, gamma=0.05, sigma=4.0)
    assert mechanism.lam == pytest.approx(0.9)
    assert mechanism.leaked_share == 0.1


def test_priors_without_noise_are_refused_for_real_data():
    with pytest.raises(ValueError, match="promises nothing"):
        cluster_dp(sigma=0.0).privatize(Y, Z, CLUSTERS)
    with pytest.raises(ValueError, match="promises nothing"):
        cluster_dp(lam=0.0).privatize(Y, Z, CLUSTERS)


@pytest.mark.parametrize(
    ("y", "z", "clusters", "match"),
    [
        (Y[:-1], Z, CLUSTERS, "one outcome per unit"),
        (Y, Z[:-1], CLUSTERS, "as long"),
        (Y + 1, Z, CLUSTERS, "not among"),
        (Y, np.zeros(N, int), CLUSTERS, "lack an arm"),
        (Y * 1.5, Z, CLUSTERS, "not among"),
    ],
)
def test_bad_data_are_refused_before_anything_is_released(y, z, clusters, match):
    with pytest.raises(ValueError, match=match):
        cluster_dp().privatize(y, z, clusters)
    with pytest.raises(TypeError, match="no budget"):
        NoDP.for_budget(GRID, 1.0)
