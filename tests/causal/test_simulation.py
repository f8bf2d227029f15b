"""Populations and trials."""

import jax
import numpy as np
import pytest

from privlearn import simulate
from privlearn.causal import ClusterDP, OutcomeGrid, UniformPriorDP, simulation


def test_every_cluster_gets_exactly_its_number_of_treated_units():
    clusters = np.repeat([0, 1, 2], [5, 1, 8])
    treated = np.array([2, 0, 8])
    z = jax.vmap(lambda key: simulation.assign(key, clusters, treated))(
        jax.random.split(jax.random.key(0), 400)
    )
    counts = [np.asarray(z)[:, clusters == c].sum(1) for c in range(3)]
    for found, expected in zip(counts, treated, strict=True):
        assert (found == expected).all()
    # Every unit of the first cluster is equally likely: 5 sigma of 400 coins at 2/5.
    np.testing.assert_allclose(np.asarray(z)[:, :5].mean(0), 0.4, atol=5 * (0.24 / 400) ** 0.5)


def test_mixture_has_the_effect_and_the_cluster_quality_it_was_made_for():
    people = simulation.gaussian_mixture(3500, 12, 4.5, seed=0)
    assert people.effect == pytest.approx(1.0, abs=0.05)
    assert people.sampling_variance == pytest.approx(0.0012, abs=2e-4)
    assert people.merged().sampling_variance == pytest.approx(0.0171, abs=2e-3)


def test_communities_are_clusters_that_explain_outcomes():
    users = simulation.communities(seed=0)
    assert len(users.n_treated) == 50
    assert users.sampling_variance < 0.5 * users.merged().sampling_variance


def test_trial_without_privacy_noise_worth_naming_is_the_neyman_experiment():
    people = simulation.gaussian_mixture(60, 3, 1.0, seed=3)
    trial = simulation.experiment_trial(people, UniformPriorDP(people.grid, lam=0.0))
    found = simulate.monte_carlo(trial, key=jax.random.key(1), n_trials=2000, batch_size=500)
    assert found.mean.gap == pytest.approx(0, abs=1e-9)
    assert abs(found.mean.square - people.sampling_variance) < 5 * found.stderr.square


def test_planned_gap_meets_the_simulated_one():
    people = simulation.gaussian_mixture(600, 6, 2.0, seed=0)
    mechanism = ClusterDP(people.grid, lam=0.5, gamma=0.02, sigma=5.0)
    trial = simulation.experiment_trial(people, mechanism)
    found = simulate.monte_carlo(trial, key=jax.random.key(2), n_trials=200, batch_size=100)
    planned = simulation.planned_gap(people, mechanism)
    assert planned == pytest.approx(float(found.mean.expected_gap), rel=0.03)


def test_a_real_trial_under_no_effect_keeps_its_sizes():
    grid = OutcomeGrid.of([0, 1])
    codes, z = np.array([1, 0, 1, 1, 0]), np.array([0, 1, 1, 0, 1])
    people = simulation.from_trial(codes, z, np.array([1, 0, 1, 0, 0]), grid)
    assert people.effect == 0
    assert people.sizes.tolist() == [[1, 2], [1, 1]]
    with pytest.raises(ValueError, match="grid of the population"):
        simulation.experiment_trial(people, UniformPriorDP(OutcomeGrid.of([0, 2]), lam=0.1))
