"""Scores: equal to the closed forms, whole numbers, the same in every order and block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from privlearn import simulate
from privlearn.reidentification import kernels, theory
from privlearn.reidentification.api import TopicsApi

API = TopicsApi(n_topics=12, top_k=3, noise=0.2)


def tables(seed=0, n=30, q=7, weeks=5, missing=0.0):
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, 13)
    draw = rng.choice(12, (n + q, weeks), p=weight / weight.sum()).astype(np.int32)
    draw[rng.random(draw.shape) < missing] = -1
    return draw[:n], draw[n:]


def all_scores(a, b, method, **settings):
    with simulate.float64():
        targets = kernels.fit_targets(
            jnp.asarray(a), n_topics=12, law=API.law, method=method, **settings
        )
        table = kernels.query_table(targets, jnp.asarray(b), law=API.law, method=method)
        return np.asarray(kernels.scores(table, targets.codes)).T


def loop_scores(a, b, method):
    """The definition, pair by pair, from the closed forms of `theory`."""
    numbers = (API.n_topics, API.top_k, API.noise)
    counts = np.bincount(a.ravel(), minlength=12)
    share = theory.inclusion_from_frequency(counts / a.size, *numbers)
    match, mismatch = theory.asymmetric_weights(share, *numbers)
    ratio = theory.likelihood_weights(share, *numbers)
    prior = 10.0 * (counts + 0.5) / (counts + 0.5).sum()
    found = np.zeros((len(b), len(a)))
    for i, x in enumerate(b):
        for j, y in enumerate(a):
            hamming = (x == y).sum()
            asymmetric = -np.where(x == y, match[x], mismatch[x]).sum()
            cx, cy = np.bincount(x, minlength=12), np.bincount(y, minlength=12)
            dirichlet = (
                gammaln(prior + cx + cy)
                + gammaln(prior)
                - gammaln(prior + cx)
                - gammaln(prior + cy)
            ).sum()
            found[i, j] = {
                "hamming": hamming,
                "asymmetric": asymmetric,
                "likelihood": ratio[x, y].sum(),
                "dirichlet": dirichlet,
                "combined": dirichlet + 0.5 * asymmetric,
            }[method]
    return found


@pytest.mark.parametrize("method", kernels.METHODS)
def test_scores_are_the_sums_of_the_closed_forms(method):
    a, b = tables()
    step = kernels.unit(a.shape[1])
    found = all_scores(a, b, method) * step
    # Rounded once a code: at most half a step for each of ten.
    assert np.abs(found - loop_scores(a, b, method)).max() <= 5 * step


@pytest.mark.parametrize("method", kernels.METHODS)
def test_permuting_weeks_leaves_every_score_and_tie_as_it_is(method):
    a, b = tables(1)
    order = [3, 0, 4, 2, 1]
    assert np.array_equal(all_scores(a, b, method), all_scores(a[:, order], b[:, order], method))


@pytest.mark.parametrize("method", kernels.METHODS)
def test_relabelling_topics_leaves_every_score_as_it_is(method):
    a, b = tables(2)
    names = np.random.default_rng(3).permutation(12).astype(np.int32)
    first, second = all_scores(a, b, method), all_scores(names[a], names[b], method)
    # Same numbers up to the rounding of one step each.
    assert np.abs(first - second).max() <= 2 * 10


@pytest.mark.parametrize("method", kernels.METHODS)
def test_weeks_that_show_nothing_rank_targets_as_if_they_were_not_there(method):
    a, b = tables(4)
    late_a, late_b = a.copy(), b.copy()
    late_a[:, 3:] = late_b[:, 3:] = -1
    masked, cut = all_scores(late_a, late_b, method), all_scores(a[:, :3], b[:, :3], method)
    ratio = kernels.unit(3) / kernels.unit(5)
    assert np.abs(masked - cut * ratio).max() <= 10
    assert (all_scores(a, np.full_like(b, -1), method) == 0).all()


def test_a_target_without_topics_scores_what_it_would_on_average():
    """It must not win by showing nothing: asymmetric scores are all negative."""
    a, b = tables(5, n=200)
    a[0] = -1
    for method in ("hamming", "asymmetric"):
        found = all_scores(a, b, method)
        assert (found.max(axis=1) > found[:, 0]).all()
        assert (found.min(axis=1) <= found[:, 0]).all()


def test_counts_of_better_and_tied_are_those_of_a_sort(monkeypatch):
    a, b = tables(6, n=100, q=40)
    whole = all_scores(a, b, "hamming")
    truth = np.arange(40)
    targets = kernels.fit_targets(jnp.asarray(a), n_topics=12, law=API.law, method="hamming")
    table = kernels.query_table(targets, jnp.asarray(b), law=API.law, method="hamming")
    own = kernels.own_scores(table, targets.codes[truth])
    assert np.array_equal(own, whole[truth, truth])
    for chunk in (32,):
        monkeypatch.setattr(kernels, "_CHUNK", chunk)
        better, tied = kernels.rank_counts(table, targets.codes, own)
        assert np.array_equal(better, (whole > whole[truth, truth][:, None]).sum(axis=1))
        assert np.array_equal(tied, (whole == whole[truth, truth][:, None]).sum(axis=1))
        some, _ = kernels.rank_counts(table, targets.codes, own, 60)
        assert np.array_equal(some, (whole[:, :60] > whole[truth, truth][:, None]).sum(axis=1))


def test_best_targets_are_the_first_of_the_best():
    a, b = tables(7, n=96)
    targets = kernels.fit_targets(jnp.asarray(a), n_topics=12, law=API.law, method="asymmetric")
    table = kernels.query_table(targets, jnp.asarray(b), law=API.law, method="asymmetric")
    whole = np.asarray(kernels.scores(table, targets.codes))
    for group in (32, 96):
        found = kernels.best_targets(table, targets.codes, group)
        assert np.array_equal(found, whole.argmax(axis=0))


def test_credit_shares_a_rank_among_those_who_tie():
    better, tied = jnp.array([0, 0, 2, 1]), jnp.array([1, 4, 3, 2])
    assert np.allclose(kernels.credit(better, tied), [1, 0.25, 0, 0])
    assert np.allclose(kernels.credit(better, tied, 3), [1, 0.75, 1 / 3, 1])


def test_units_leave_room_for_many_weeks():
    for weeks in (1, 8, 30, 500, 10**5):
        assert 2 * weeks * kernels.CUTOFF / kernels.unit(weeks) < 2**31
    with pytest.raises(ValueError, match="n_weeks must be below"):
        kernels.unit(2**21)


def test_kernels_work_under_jit_and_vmap():
    a, b = tables(8)
    batch = jnp.stack([jnp.asarray(a), jnp.asarray(a[::-1])])

    @jax.jit
    def one(site):
        targets = kernels.fit_targets(site, n_topics=12, law=API.law, method="combined")
        table = kernels.query_table(targets, jnp.asarray(b), law=API.law, method="combined")
        return kernels.scores(table, targets.codes)

    both = jax.vmap(one)(batch)
    assert np.array_equal(both[0], both[1][::-1])
