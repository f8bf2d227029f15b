"""The simulated browser: laws of what is shown, flags, success beside exact and known values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn import simulate
from privlearn.reidentification import draws, simulation, theory
from privlearn.reidentification.api import TopicsApi


def test_topics_of_two_sites_are_independent_given_the_top_set_and_fixed_per_week():
    """One draw a user, week and site: a second look at the same view shows the same topics."""
    api = TopicsApi(20, 3, 0.3)
    sets = jnp.broadcast_to(jnp.array([4, 7, 9], jnp.int32), (20_000, 1, 3))
    views = simulation.show_sites(jax.random.key(0), sets, api)
    a, b = np.asarray(views.site_a)[:, 0], np.asarray(views.site_b)[:, 0]
    again = simulation.show_sites(jax.random.key(0), sets, api)
    assert np.array_equal(a, again.site_a[:, 0])
    counts = np.zeros((20, 20))
    np.add.at(counts, (a, b), 1)
    law = np.full(20, api.outside)
    law[[4, 7, 9]] = api.inside
    expected = 20_000 * np.outer(law, law)
    # 400 cells at 6 standard errors: false alarm below 1e-6; a shared coin would be off by 100.
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected) + 6).all()


def test_visit_counts_have_the_poisson_law():
    shares = jnp.array([[0.5, 0.3, 0.2, 0.0]] * 400)
    counts = np.asarray(draws.visit_counts(jax.random.key(1), shares, 50, 6.0))
    mean, variance = counts.mean(axis=(0, 1)), counts.var(axis=(0, 1))
    expected = np.array([3.0, 1.8, 1.2, 0.0])
    # 20,000 counts: five standard errors, those of a variance included.
    assert np.abs(mean - expected).max() < 5 * np.sqrt(3 / 20_000)
    assert np.abs(variance - expected).max() < 5 * np.sqrt((3 + 2 * 9) / 20_000)
    assert abs(np.corrcoef(counts[:, :, 0].ravel(), counts[:, :, 1].ravel())[0, 1]) < 5 / 141


def test_top_sets_are_the_most_visited_and_ties_and_padding_are_uniform():
    counts = jnp.asarray(np.tile([5, 2, 2, 0, 0, 0], (30_000, 1, 1)), jnp.int32)
    sets = np.asarray(draws.top_sets(jax.random.key(2), counts, 2))[:, 0]
    assert (sets[:, 0] == 0).all()
    # A fair coin between topics 1 and 2: five standard errors.
    assert abs((sets[:, 1] == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(30_000)
    sets = np.asarray(draws.top_sets(jax.random.key(3), counts, 4))[:, 0]
    last = np.bincount(sets[:, 3], minlength=6) / 30_000
    assert np.abs(last[3:] - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 30_000)
    assert all(len(set(row)) == 4 for row in sets[:100].tolist())
    bare = np.asarray(draws.top_sets(jax.random.key(3), counts[:5], 4, padding=False))
    assert (bare[:, 0, 3] == -1).all()


def test_only_existing_topics_enter_top_sets_of_a_smaller_taxonomy():
    counts = jnp.zeros((50, 2, 10), jnp.int32)
    sets = draws.top_sets(jax.random.key(4), counts, 3, n_topics=4)
    assert sets.max() < 4


def test_windows_start_where_they_are_told_to():
    counts = jnp.arange(2 * 10).reshape(2, 10, 1)
    found = draws.window_sums(counts, jnp.array([0, 3]), 3, 2)[:, :, 0]
    assert found.tolist() == [[0 + 1 + 2, 3 + 4 + 5], [13 + 14 + 15, 16 + 17 + 18]]


def test_a_caller_sees_topics_of_the_last_three_weeks_only():
    counts = jnp.zeros((1, 6, 2), jnp.int32).at[0, 1, 0].set(4)
    saw = np.asarray(draws.caller_saw(jax.random.key(5), counts, 1.0))[0]
    assert saw[:, 0].tolist() == [False, True, True, True, False, False]
    assert not saw[:, 1].any()


def test_the_first_call_is_shuffled_and_shows_each_topic_once():
    topics = jnp.asarray(np.tile([3, 5, 3, 8], (2_000, 1)), jnp.int32)
    found = np.asarray(draws.first_call(jax.random.key(6), topics, 3))
    assert (found[:, 3] == 8).all()
    assert {tuple(sorted(row[:3])) for row in found.tolist()} == {(-1, 3, 5)}
    assert 400 < (found[:, 0] == 5).sum() < 930  # a third of 2,000, 11 standard errors
    assert np.array_equal(draws.first_call(jax.random.key(6), topics, 1), topics)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "weeks"),
    [({"topics_per_call": 3, "reach": 0.02, "shared_weeks": False}, 5)],
)
def test_views_have_the_weeks_that_the_interface_shows(flags, weeks):
    api = TopicsApi(n_topics=30, top_k=3, **flags)
    views = simulation.simulate_sites(jax.random.key(7), 40, 3, api=api)
    assert views.site_a.shape == views.site_b.shape == (40, weeks)
    assert views.top_sets.shape == (40, weeks, 3)
    assert views.site_a.max() < 30
    assert 0.05 < float((views.site_a == -1).mean()) < 0.95


@pytest.mark.slow
def test_weekly_top_sets_overlap_as_the_synthetic_world_is_described():
    views = simulation.simulate_sites(jax.random.key(8), 500, 2)
    first, second = np.asarray(views.top_sets).transpose(1, 0, 2)
    overlap = (first[:, :, None] == second[:, None, :]).sum(axis=(1, 2))
    # 2.88 in an independent implementation; the standard error is about 0.045.
    assert abs(overlap.mean() - 2.88) < 0.25


@functools.cache
def rates():
    trial = simulation.linkage_trial(
        n_users=1000, weeks=(1, 4, 8), methods=("hamming", "asymmetric", "dirichlet", "combined")
    )
    found = simulate.monte_carlo(trial, key=jax.random.key(9), n_trials=2, batch_size=2)
    return found.mean


def test_success_on_synthetic_users_is_that_of_an_independent_implementation():
    """Within 5 standard errors of 2 x 1,000 users, and .015 for the sampling error of the known."""
    known = {
        "hamming": (0.039, 0.051, 0.077),
        "asymmetric": (0.039, 0.118, 0.223),
        "dirichlet": (0.039, 0.136, 0.352),
        "combined": (0.039, 0.149, 0.370),
    }
    for method, expected in known.items():
        p = np.array(expected)
        assert (np.abs(rates()[method] - p) < 5 * np.sqrt(p * (1 - p) / 2000) + 0.015).all(), method


def test_a_cross_week_attack_beats_weekly_weights_beat_plain_hamming():
    found = rates()
    # Differences of .12 and more; the standard error of one is below .02.
    assert found["combined"][2] > found["asymmetric"][2] + 0.05
    assert found["asymmetric"][2] > found["hamming"][2] + 0.08
    assert (np.diff(found["combined"]) > 0.05).all()


@pytest.mark.slow
def test_success_among_nested_populations_falls():
    trial = simulation.population_trial(populations=(60, 120, 240), n_weeks=4, queries=60)
    found = simulate.monte_carlo(trial, key=jax.random.key(10), n_trials=8, batch_size=8)
    assert (np.diff(found.mean["asymmetric"]) < 0).all()
    with pytest.raises(ValueError, match="queries must be at most the least population"):
        simulation.population_trial(populations=(10,), n_weeks=1, queries=11)


@pytest.mark.slow
def test_noise_lowers_success_and_all_noise_leaves_guessing():
    releases = [TopicsApi(60, 5, p) for p in (0.0, 0.5, 1.0)]
    trial = simulation.release_trial(n_users=100, n_weeks=6, releases=releases)
    found = simulate.monte_carlo(trial, key=jax.random.key(11), n_trials=12, batch_size=12)
    rate, stderr = found.mean["asymmetric"], found.stderr["asymmetric"]
    assert rate[0] > rate[1] + 0.05 > 0.05 + rate[2]
    assert abs(rate[2] - 0.01) < 6 * stderr[2] + 1e-6
    with pytest.raises(ValueError, match="releases must all have one top_k"):
        simulation.release_trial(n_users=9, n_weeks=1, releases=[TopicsApi(), TopicsApi(top_k=3)])


def test_simulated_success_meets_the_exact_table():
    world = theory.PersistentWorld(4, 2, 0.2, (6, 3, 2, 1, 0.5, 0.5))
    trial = simulation.persistent_trial(world, n_users=3, weeks=(1, 2), methods=("optimal",))
    found = simulate.monte_carlo(trial, key=jax.random.key(12), n_trials=20_000, batch_size=5_000)
    exact = [theory.exact_success(world, weeks, 3) for weeks in (1, 2)]
    assert (np.abs(found.mean["optimal"] - exact) < 5 * found.stderr["optimal"]).all()
    assert found.stderr["optimal"].max() < 0.003  # an error of .03 would be seen


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"topics_per_call": 4}, ValueError, "topics_per_call must be 1, 2 or 3, got 4"),
        ({"reach": 0.0}, ValueError, r"reach must lie in \(0, 1\]"),
        ({"padding": 1}, TypeError, "padding must be True or False, got 1"),
        ({"noise": -0.1}, ValueError, r"noise must lie in \[0, 1\], got -0.1"),
        ({"top_k": 400}, ValueError, "top_k must be at most n_topics = 349, got 400"),
    ],
)
def test_an_interface_without_meaning_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        TopicsApi(**settings)


def test_the_capacity_bound_counts_weeks_and_blank_answers():
    plain = TopicsApi()
    assert plain.capacity_bound(10**7, 2) == theory.capacity_bound(10**7, 2)
    assert TopicsApi(topics_per_call=3).capacity_bound(10**9, 2) == plain.capacity_bound(10**9, 4)
    assert TopicsApi(reach=0.1).capacity_bound(10**7, 2) > plain.capacity_bound(10**7, 2)
    assert plain.capacity_bound(50, 0) == 1 / 50
