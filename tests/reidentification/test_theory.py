"""The exact tables and the bounds: published numbers, oracles, limits, bad input."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from privlearn.reidentification import theory
from privlearn.reidentification.theory import PersistentWorld

UNIFORM = PersistentWorld(4, 2, 0.2)
SKEWED = PersistentWorld(4, 2, 0.2, (6, 3, 2, 1, 0.5, 0.5))


def random_channel(rng, users=None):
    users = users or int(rng.integers(2, 7))
    return rng.dirichlet(np.full(rng.integers(2, 8), rng.choice([0.1, 0.5, 2.0])), users)


@pytest.mark.parametrize(
    ("weeks", "method", "expected"),
    [
        (1, "optimal", (0.58, 0.426667, 0.2875)),
        (2, "optimal", (0.6882, 0.537313, 0.379435)),
        (3, "optimal", (0.751883, 0.612820, 0.453443)),
        (1, "hamming", (0.58, 0.426667, 0.2875)),
        (2, "hamming", (0.6236, 0.470809, 0.323174)),
        (3, "hamming", (0.653595, 0.502081, 0.351478)),
    ],
)
def test_exact_success_of_equally_likely_top_sets(weeks, method, expected):
    found = [theory.exact_success(UNIFORM, weeks, n, method) for n in (2, 3, 5)]
    assert found == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(
    ("weeks", "expected"),
    [
        (1, (0.416954, 0.416954, 0.406748, 0.406357, 0.406357)),
        (2, (0.503494, 0.464922, 0.421171, 0.449997, 0.440426)),
        (3, (0.563173, 0.494050, 0.429047, 0.480199, 0.464690)),
    ],
)
def test_exact_success_of_unequal_top_sets(weeks, expected):
    methods = ("optimal", "weekly", "conditional", "asymmetric", "hamming")
    found = [theory.exact_success(SKEWED, weeks, 3, method) for method in methods]
    assert found == pytest.approx(expected, abs=6e-7)
    assert SKEWED.inclusion == pytest.approx((0.84615, 0.57692, 0.34615, 0.23077), abs=5e-6)


@pytest.mark.parametrize(("world", "weeks", "n"), [(UNIFORM, 1, 3), (SKEWED, 1, 3), (SKEWED, 2, 2)])
@pytest.mark.parametrize("method", ["optimal", "asymmetric", "hamming"])
def test_score_groups_agree_with_enumeration_of_all_targets(world, weeks, n, method):
    grouped = theory.exact_success(world, weeks, n, method)
    assert grouped == pytest.approx(theory.brute_force_success(world, weeks, n, method), rel=1e-11)


def test_no_score_beats_the_likelihood_ratio():
    rng = np.random.default_rng(0)
    for weeks in (1, 2):
        joint, best = SKEWED.joint(weeks), theory.exact_success(SKEWED, weeks, 4)
        for _ in range(50):
            scores = rng.standard_normal(joint.shape)
            assert theory.expected_success(joint, scores, 4) <= best + 1e-12


def test_the_weekly_ratio_is_the_whole_ratio_with_one_week():
    assert np.allclose(SKEWED.scores(1, "weekly"), SKEWED.scores(1, "optimal"), atol=1e-12)


def test_limits_all_noise_no_noise_no_weeks_one_user():
    for n in (2, 7, 1000):
        noise_only = PersistentWorld(4, 2, 1.0, (6, 3, 2, 1, 0.5, 0.5))
        assert theory.exact_success(noise_only, 2, n) == pytest.approx(1 / n, rel=1e-9)
        assert theory.exact_success(SKEWED, 0, n) == pytest.approx(1 / n, rel=1e-9)
    assert theory.exact_success(SKEWED, 1, 1) == pytest.approx(1)
    sets = np.arange(5)[:, None]
    assert theory.known_profiles_success(sets, 1, 5, 0.0) == pytest.approx(1)


def test_success_falls_with_noise_and_population_and_grows_with_weeks():
    by_noise = [theory.exact_success(PersistentWorld(4, 2, p), 2, 4) for p in (0.05, 0.2, 0.5, 1)]
    by_n = [theory.exact_success(SKEWED, 2, n) for n in (2, 3, 10, 10**3, 10**9)]
    by_week = [theory.exact_success(SKEWED, weeks, 4) for weeks in range(5)]
    assert (np.diff(by_noise) < 0).all()
    assert (np.diff(by_n) < 0).all()
    assert (np.diff(by_week) > 0).all()


@pytest.mark.parametrize("n", [10**6, 10**9])
def test_large_populations_reach_the_limit_of_the_capacity(n):
    """The success of a large population is the number of distinguishable pairs over n."""
    joint, scores = SKEWED.joint(1), SKEWED.scores(1)
    best = sum(
        joint[x, scores[x] > scores[x].max() - 1e-9].sum()
        / joint.sum(axis=0)[scores[x] > scores[x].max() - 1e-9].sum()
        for x in range(4)
    )
    assert theory.expected_success(joint, scores, n) * n == pytest.approx(best, rel=1e-4)


def test_matching_two_tables_published_numbers():
    assert theory.matching_success(UNIFORM, 3) == pytest.approx(
        (0.434000, 0.445669, 0.434000, 0.271297), abs=6e-7
    )
    assert theory.matching_success(SKEWED, 3) == pytest.approx(
        (0.418246, 0.427797, 0.418246, 0.254045), abs=6e-7
    )
    assert theory.matching_success(UNIFORM, 2)[0] == pytest.approx(0.611467, abs=6e-7)


def test_known_profiles_and_capacity():
    sets = [[0, 1], [0, 2], [2, 3]]
    assert theory.known_profiles_success(sets, 1, 4, 0.2) == pytest.approx(0.6)
    assert theory.known_profiles_success(sets, 2, 4, 0.2) == pytest.approx(0.72)
    assert theory.capacity_bound(3, 1, 4, 2, 0.2) == pytest.approx(0.6)
    assert theory.capacity_bound(3, 2, 4, 2, 0.2) == 1  # 1.08, capped


def test_topics_constants():
    inside, outside = theory.topic_probabilities()
    assert (inside, outside) == pytest.approx((0.190143, 1.43266e-4), rel=4e-6)
    inside, outside = theory.topic_probabilities(469)
    assert (inside, outside) == pytest.approx((0.190107, 1.06610e-4), rel=4e-6)
    assert theory.topics_epsilon(n_weeks=3) == pytest.approx(3 * 7.1908, abs=2e-4)
    assert theory.topics_epsilon(469) == pytest.approx(7.4862, abs=5e-5)
    assert theory.topics_epsilon(noise=0.0) == np.inf
    assert theory.topics_epsilon(5, 5, 0.0) == 0
    assert theory.topics_capacity() == pytest.approx(66.36, abs=5e-3)
    assert theory.topics_capacity(469) == pytest.approx(89.16, abs=5e-3)
    assert theory.same_topic_probability() == pytest.approx(0.180779, abs=6e-7)
    assert theory.same_topic_probability(469) == pytest.approx(0.180708, abs=6e-7)
    found = [theory.capacity_bound(10**7, weeks) for weeks in (1, 2, 3)]
    assert found == pytest.approx((6.6e-6, 4.4e-4, 0.0292), rel=0.01)


def test_the_gaussian_simplex_published_numbers():
    cases = [(10, 1, 0.34094, 0.44836), (10, 2, 0.67365, 0.79590)]
    cases += [(1000, 2, 0.12029, 0.34938), (1000, 3, 0.41160, 0.77023)]
    for n, a, exact, bound in cases:
        assert theory.gaussian_simplex_success(n, a) == pytest.approx(exact, abs=6e-6)
        assert theory.gaussian_simplex_bound(n, a) == pytest.approx(bound, abs=6e-6)
    assert theory.gaussian_simplex_bound(1000, 2, "fano") == pytest.approx(0.390, abs=5e-4)
    assert theory.gaussian_simplex_bound(1000, 3, "sharp_fano") == pytest.approx(0.735, abs=5e-4)
    assert theory.gaussian_simplex_success(10**6, 0.0) == pytest.approx(1e-6)


def test_the_symmetric_channel_published_numbers():
    found = theory.bounds(np.full((4, 4), 0.1) + 0.6 * np.eye(4))
    assert found.fano == pytest.approx(0.8216, abs=5e-5)
    others = (found.sharp_fano, found.chi_square, found.tv_mean, found.pure_dp, found.test_curve)
    assert others == pytest.approx([0.7] * 5, abs=1e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=150)
def test_no_bound_is_below_the_exact_success(seed):
    matrix = random_channel(np.random.default_rng(seed))
    found, exact = theory.bounds(matrix), theory.bayes_success(matrix)
    assert min(found) >= exact - 1e-12
    assert found.best >= exact - 1e-12
    assert found.sharp_fano <= found.fano + 1e-12
    assert found.test_curve <= min(found.tv_max, found.pure_dp, found.approximate_dp) + 1e-12
    assert max(found) <= 1


def test_the_plain_maximum_of_pair_curves_is_no_bound_but_its_hull_is():
    """With the maximum instead of the hull some channel of these exceeds its "bound" by > .01."""
    rng, worst = np.random.default_rng(1), 0.0
    for _ in range(400):
        matrix = random_channel(rng)
        n, exact = len(matrix), theory.bayes_success(matrix)
        curves = [theory.pair_curve(p, q) for p, q in itertools.permutations(matrix, 2)]
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            power = max(float(curve((1 - middle) / (n - 1))) for curve in curves)
            low, high = (middle, high) if power >= middle else (low, middle)
        worst = max(worst, exact - high)
        assert theory.curve_bound(n, theory.pairwise_curve(matrix)) >= exact - 1e-12
    assert worst > 0.01


def test_pair_curve_is_the_best_of_all_deterministic_tests():
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(5), 2)
    curve = theory.pair_curve(p, q)
    for size in range(6):
        for chosen in itertools.combinations(range(5), size):
            level = q[list(chosen)].sum()
            assert p[list(chosen)].sum() <= curve(level) + 1e-12
    assert (np.diff(np.diff(curve.power) / np.diff(curve.level)) < 0).all()


def test_targeted_curve_tests_against_the_average_of_the_others():
    matrix = random_channel(np.random.default_rng(3), users=4)
    curve = theory.targeted_curve(matrix, 2)
    same = theory.pair_curve(matrix[2], matrix[[0, 1, 3]].mean(axis=0))
    assert np.array_equal(curve.power, same.power)
    with pytest.raises(ValueError, match="user must be a row of the channel, below 4, got 4"):
        theory.targeted_curve(matrix, 4)


def test_the_linear_program_agrees_with_the_maximum():
    rng = np.random.default_rng(4)
    for _ in range(20):
        matrix = random_channel(rng, users=3)
        exact = theory.bayes_success(matrix)
        assert theory.bayes_success_lp(matrix) == pytest.approx(exact, abs=1e-6)
        assert theory.capacity(matrix) == pytest.approx(3 * exact)


def test_pairwise_bounds_can_be_left_out():
    found = theory.bounds(random_channel(np.random.default_rng(5)), pairwise=False)
    assert np.isnan([found.tv_base, found.tv_max, found.pure_dp, found.test_curve]).all()
    assert np.isfinite(found.best)


def test_relabelling_topics_changes_nothing():
    weights = np.array([6, 3, 2, 1, 0.5, 0.5])
    sets = UNIFORM.sets
    order = np.array([2, 0, 3, 1])
    moved = np.empty(6)
    for weight, one in zip(weights, np.sort(order[sets], axis=1), strict=True):
        moved[(sets == one).all(axis=1).argmax()] = weight
    other = PersistentWorld(4, 2, 0.2, tuple(moved))
    for method in ("optimal", "hamming", "asymmetric"):
        assert theory.exact_success(other, 2, 3, method) == pytest.approx(
            theory.exact_success(SKEWED, 2, 3, method), rel=1e-12
        )


def test_unseen_topics_get_the_floor_and_finite_weights():
    share = theory.inclusion_from_frequency([0.0, 0.01, 1.0])
    assert share == pytest.approx([1e-6, 0.0519, 1.0], abs=1e-3)
    for weights in theory.asymmetric_weights(share):
        assert np.isfinite(weights).all()
    assert np.isfinite(theory.likelihood_weights(share)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.bounds([[0.5, 0.6], [0.5, 0.5]]), "channel must sum to one"),
        (lambda: theory.bounds([[0.5, 0.5]]), "at least two users"),
        (lambda: theory.bounds([[1.5, -0.5], [0.5, 0.5]]), "channel must hold probabilities"),
        (lambda: theory.pair_curve([1.0], [0.5, 0.5]), "must have one length, got 1 and 2"),
        (lambda: theory.fano_bound(1, 0.5), "n_users must be at least 2, got 1"),
        (lambda: theory.approximate_dp_bound(5, 1.0, 1.5), r"delta must lie in \[0, 1\], got 1.5"),
        (lambda: theory.topic_probabilities(4, 5), "top_k must be at most n_topics = 4, got 5"),
        (lambda: theory.topic_probabilities(noise=1.1), r"noise must lie in \[0, 1\], got 1.1"),
        (lambda: PersistentWorld(4, 2, 0.2, (1.0,)), "one entry for each of the 6 top sets, got 1"),
        (lambda: theory.exact_success(UNIFORM, 9, 3), "at most 4096 sequences"),
        (lambda: theory.exact_success(UNIFORM, 1, 3, "guess"), "method must be one of"),
        (lambda: theory.known_profiles_success([[0, 9]], 1, 4, 0.1), "must lie in 0 to 3"),
        (lambda: theory.matching_success(UNIFORM, 6), "at most 300,000 pairs"),
        (lambda: theory.gaussian_simplex_bound(5, 1.0, "x"), "kind must be test_curve"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match=r"n_users must be a whole number, got 2\.5"):
        theory.fano_bound(2.5, 0.1)
