"""The estimator: agreement with the kernels and with exact cases, ties, intervals, bad input."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.base import clone

from privlearn.reidentification import AttackResult, ReidentificationAttack, theory
from privlearn.reidentification.result import wilson

METHODS = ("hamming", "asymmetric", "likelihood", "dirichlet", "combined")


@pytest.fixture(scope="module")
def sites():
    """120 users of stable interests, 40 topics of unequal popularity, 5 weeks."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(10 / np.arange(1, 41) / 4.28, 120)
    sets = np.argsort(-rng.poisson(30 * shares[:, None, :], (120, 5, 40)), axis=2)[:, :, :3]
    views = []
    for _ in range(2):
        shown = np.take_along_axis(sets, rng.integers(0, 3, (120, 5, 1)), axis=2)[:, :, 0]
        random = rng.random((120, 5)) < 0.1
        views.append(np.where(random, rng.integers(0, 40, (120, 5)), shown))
    return views


def attack(method="asymmetric", **settings):
    return ReidentificationAttack(method, **({"n_topics": 40, "top_k": 3, "noise": 0.1} | settings))


@pytest.mark.parametrize("method", METHODS)
def test_ranks_are_those_of_the_whole_table_of_scores(method, sites):
    a, b = sites
    fitted = attack(method, block_size=50).fit(a)
    result, scores = fitted.score(b), fitted.match_scores(b)
    own = np.diag(scores)[:, None]
    assert np.array_equal(result.better, (scores > own).sum(axis=1))
    assert np.array_equal(result.tied, (scores == own).sum(axis=1))
    assert result.population == 120
    assert result.n_weeks == 5
    assert result.success.value == pytest.approx(((result.better == 0) / result.tied).mean())
    # Guessing would find 1 of 120; the chance that it finds 10 or more is below 1e-6.
    assert binom.sf(9, 120, 1 / 120) < 1e-6
    assert result.risk.sum() > 10


def test_blocks_of_queries_change_nothing(sites):
    a, b = sites
    whole = attack("combined").fit(a).score(b)
    for size in (1, 7, 120):
        part = attack("combined", block_size=size).fit(a).score(b[:20], np.arange(20))
        assert np.array_equal(part.better, whole.better[:20])


def test_predictions_are_best_matches_and_agree_with_the_score(sites):
    a, b = sites
    names = np.array([f"u{i}" for i in range(120)])
    fitted = attack(random_state=0).fit(a, names)
    found = fitted.predict(b)
    scores = fitted.match_scores(b)
    place = {name: i for i, name in enumerate(names)}
    chosen = scores[np.arange(120), [place[name] for name in found]]
    assert np.array_equal(chosen, scores.max(axis=1))
    hits, expected = (found == names).sum(), fitted.score(b, names).risk.sum()
    assert abs(hits - expected) < 25


def test_ties_are_broken_without_favour_for_any_row():
    """All users look alike: everybody is named equally often, and the risk is that of guessing."""
    same = np.zeros((8, 3), int)
    result = attack("hamming").fit(same).score(same)
    assert np.allclose(result.risk, 1 / 8)
    named = [attack("hamming", random_state=seed).fit(same).predict(same)[0] for seed in range(200)]
    counts = np.bincount(named, minlength=8)
    assert counts.min() > 3  # 25 expected; a chance below 1e-7 each
    linked = [
        attack("hamming", assignment=True, random_state=seed).fit(same).score(same).success.value
        for seed in range(50)
    ]
    # The mean number of fixed points of a permutation is one of 8; solvers alone would find all.
    assert abs(np.mean(linked) - 1 / 8) < 0.1


def test_an_assignment_links_one_to_one_and_does_as_the_best_total(sites):
    a, b = sites
    fitted = attack("combined", assignment=True, random_state=0).fit(a)
    found = fitted.predict(b)
    assert sorted(found) == list(range(120))
    scores = fitted.match_scores(b)
    assert scores[np.arange(120), found].sum() >= np.trace(scores) - 1e-9
    result = fitted.score(b)
    assert result.method == "combined + assignment"
    assert set(result.risk.tolist()) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="an assignment needs all 120 users in X, got 5"):
        fitted.score(b[:5], np.arange(5))


def test_the_persistent_attack_is_the_exact_likelihood_ratio():
    world = theory.PersistentWorld(4, 2, 0.2, (6, 3, 2, 1, 0.5, 0.5))
    every = world.sequences(2)
    fitted = ReidentificationAttack("persistent", n_topics=4, top_k=2, noise=0.2, world=world).fit(
        every
    )
    assert np.allclose(fitted.match_scores(every), world.scores(2, "optimal"), atol=2e-6)
    result = fitted.score(every)
    scores = world.scores(2, "optimal")
    assert np.array_equal(result.better, (scores > np.diag(scores)[:, None] + 1e-9).sum(axis=1))


def test_exact_success_is_met_by_the_estimator():
    """3 users of a persistent world, 2 weeks: the estimator beside the sum over all sequences."""
    world = theory.PersistentWorld(4, 2, 0.2)
    rng, every, hits = np.random.default_rng(1), world.sequences(2), []
    joint = world.joint(2)
    for _ in range(300):
        x, y = np.divmod(rng.choice(joint.size, 3, p=joint.ravel()), len(every))
        fitted = ReidentificationAttack(
            "persistent", n_topics=4, top_k=2, noise=0.2, world=world
        ).fit(every[y])
        hits.append(fitted.score(every[x]).success.value)
    error = 5 * np.std(hits) / np.sqrt(len(hits))
    assert abs(np.mean(hits) - theory.exact_success(world, 2, 3)) < error
    assert error < 0.15


def test_users_may_come_in_any_order_and_be_fewer(sites):
    a, b = sites
    names = np.array([f"u{i}" for i in range(120)])
    fitted = attack().fit(a, names)
    whole = fitted.score(b, names)
    order = np.random.default_rng(2).permutation(120)[:30]
    some = fitted.score(b[order], names[order])
    assert np.array_equal(some.risk, whole.risk[order])
    assert np.array_equal(some.users, names[order])
    assert some.population == 120


def test_topics_unseen_at_the_first_site_and_users_without_history_are_legal(sites):
    a, b = sites[0].copy(), sites[1].copy()
    a[a == 39] = 0
    b[0], b[1] = 39, -1
    for method in METHODS:
        result = attack(method).fit(a).score(b)
        assert np.isfinite(result.risk).all()
        assert result.tied[1] == 120  # nothing known: all tie
        assert result.risk[1] == pytest.approx(1 / 120)


def test_a_large_taxonomy_is_cut_down_without_changing_weekly_scores():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 50, (60, 4)), rng.integers(0, 60, (60, 4))
    spread = rng.permutation(5000)
    for method in ("hamming", "asymmetric"):
        small = ReidentificationAttack(method, n_topics=2000).fit(a).match_scores(b)
        large = ReidentificationAttack(method, n_topics=5000).fit(spread[a]).match_scores(spread[b])
        if method == "hamming":
            assert np.array_equal(small, large)
        assert small.shape == large.shape == (60, 60)


def test_rank_k_success_grows_to_one_and_unique_is_no_more_than_found(sites):
    a, b = sites
    result = attack().fit(a).score(b)
    rates = [result.success_at(k).value for k in (1, 2, 5, 50, 120)]
    assert (np.diff(rates) >= 0).all()
    assert rates[-1] == 1
    assert result.unique.value <= result.success.value
    assert float(result) == result.success.value
    assert result.lift == pytest.approx(120 * result.success.value)
    assert "among 120" in str(result)
    assert result.table().columns == ["user", "risk", "better", "tied"]
    with pytest.raises(ValueError, match="rank must be at most the population 120, got 121"):
        result.success_at(121)


def test_wilson_intervals_cover_as_they_say():
    """Exact coverage over the binomial law, at its worst over p: not far below 95 %."""
    for p in (0.01, 0.1, 0.5):
        hits = np.arange(201)
        inside = [(r := wilson(int(h), 200)).lower <= p <= r.upper for h in hits]
        assert binom.pmf(hits, 200, p)[inside].sum() > 0.93
    assert wilson(0, 10).lower == 0
    assert wilson(10, 10).upper == 1
    assert wilson(2.5, 10).value == 0.25


def test_parameters_are_stored_and_cloned(sites):
    a, b = sites
    first = attack("dirichlet", concentration=20.0)
    second = clone(first)
    assert second.get_params() == first.get_params()
    assert not hasattr(second, "users_")
    assert isinstance(second.fit(a).score(b), AttackResult)


A = np.zeros((3, 2), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: attack("guess").fit(A), ValueError, "method must be one of hamming"),
        (lambda: attack().fit(A[:1]), ValueError, "at least 2 users"),
        (lambda: attack().fit(A[0]), ValueError, r"table of shape \(users, weeks\)"),
        (lambda: attack().fit(A + 0.5), TypeError, "topic numbers .integers., got dtype float64"),
        (lambda: attack().fit(A + 40), ValueError, "in 0 to 39, or -1.*got 40 to 40"),
        (lambda: attack().fit(A - 2), ValueError, "got -2 to -2"),
        (lambda: attack().fit(A, ["a", "b", "a"]), ValueError, "name each user once, got .*a.* 2"),
        (lambda: attack().fit(A, ["a"]), ValueError, "one user id a row, 3 of them"),
        (lambda: attack(noise=2).fit(A), ValueError, r"noise must lie in \[0, 1\], got 2"),
        (lambda: attack(mix=0).fit(A), ValueError, "mix must be positive, got 0"),
        (lambda: attack(block_size=0).fit(A), ValueError, "block_size must be at least 1, got 0"),
        (lambda: attack("persistent").fit(A), TypeError, "world must be a PersistentWorld, got No"),
        (
            lambda: attack("persistent", world=theory.PersistentWorld()).fit(A),
            ValueError,
            "world must have n_topics, top_k and noise",
        ),
        (lambda: attack().fit(A).score(A[:2]), ValueError, "2 rows and the first site 3"),
        (lambda: attack().fit(A).score(A[:, :1]), ValueError, "must have 2 weeks.*got 1"),
        (lambda: attack().fit(A).score(A, [0, 1, 7]), ValueError, "names 1 user.*such as 7"),
        (lambda: attack().fit(A).score(A, [0, 1, 1]), ValueError, "name each user once"),
        (lambda: attack().fit(A).score(A, confidence=2), ValueError, "confidence must lie in"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_scoring_before_fitting_is_an_error():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        attack().score(A)
    with pytest.raises(NotFittedError):
        attack().predict(A)
