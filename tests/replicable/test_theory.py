"""Laws against enumeration and simulation; designs against the published numbers."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from privlearn.replicable import theory


def pairs_of_frequencies(n, p):
    """All pairs of counts of two samples with their probabilities: the law by enumeration."""
    mass = stats.binom.pmf(np.arange(n + 1), n, p)
    v = np.arange(n + 1) / n
    return v[:, None], v[None, :], mass[:, None] * mass[None, :]


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (7, 0.5), (40, 0.02), (40, 1.0)])
def test_binomial_gap_is_the_mean_gap_over_all_pairs_of_counts(n, p):
    one, two, mass = pairs_of_frequencies(n, p)
    assert theory.binomial_gap(n, p) == pytest.approx((mass * abs(one - two)).sum(), abs=1e-14)


@pytest.mark.parametrize("alpha", [0.01, 0.08, 0.5, 3.0])
def test_rounding_law_is_min_of_one_and_gap_over_alpha_over_all_pairs(alpha):
    one, two, mass = pairs_of_frequencies(30, 0.4)
    exact = (mass * np.minimum(1, abs(one - two) / alpha)).sum()
    assert theory.rounding_differs(30, 0.4, alpha) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 0.9), (0.35, 0.45), (0.401, 0.402), (0, 2), (0.9, 1)]
)
def test_threshold_law_is_the_clipped_gap_over_all_pairs(low, high):
    one, two, mass = pairs_of_frequencies(30, 0.4)
    gap = abs(one.clip(low, high) - two.clip(low, high)) / (high - low)
    assert theory.threshold_differs(30, 0.4, low, high) == pytest.approx(
        (mass * gap).sum(), abs=1e-13
    )


def test_rounding_and_threshold_of_the_published_example():
    assert theory.rounding_differs(2000, 0.3, 0.1) == pytest.approx(0.115614, abs=5e-7)
    # Clipping 5 standard deviations away changes nothing, and never makes the gap larger.
    assert theory.threshold_differs(2000, 0.3, 0.25, 0.35) == pytest.approx(0.115614, abs=1e-6)


def test_stat_query_design_of_the_example_and_its_exact_law():
    design = theory.stat_query_design(tau=0.05, rho=0.1, failure_probability=0.01)
    assert design.n == 193_124
    assert design.alpha == pytest.approx(0.0926, abs=5e-5)
    assert design.estimate_accuracy == pytest.approx(0.003704, abs=5e-7)
    assert theory.rounding_differs(design.n, 0.5, design.alpha) == pytest.approx(0.0139, abs=5e-5)


def test_heavy_hitters_design_of_the_example():
    common = {"mass": 0.4, "slack": 0.1, "rho": 0.1, "failure_probability": 0.01, "constant": 1}
    literal = theory.heavy_hitters_design(n_values=22, **common)
    assert (literal.n_candidates, literal.n_frequencies) == (22, 212_408)
    assert (literal.low, literal.high) == pytest.approx((0.4 - 0.2 / 3, 0.4 - 0.1 / 3))
    assert theory.heavy_hitters_design(**{**common, "constant": 648}).n_frequencies > 600 * 212_408


def test_masses_bound_of_the_example():
    p = [0.3, 0.3, 0.4]
    assert theory.masses_differ(2000, p, 0.1) == pytest.approx(0.355, abs=5e-4)
    assert theory.masses_differ(20_000, p, 0.1) == pytest.approx(0.112, abs=5e-4)
    assert theory.jointly_rounded_differ(2000, p, 0.1) < theory.masses_differ(2000, p, 0.1)


def test_several_cells_reduce_to_one_and_stay_below_the_union_bound():
    one = theory.threshold_differs(500, 0.3, 0.25, 0.35)
    assert theory.thresholds_differ(500, [0.3], 0.25, 0.35) == pytest.approx(one, rel=2e-3)
    assert theory.thresholds_differ(500, [0.3], 0.25, 0.35, normal=True) == pytest.approx(
        one, rel=0.01
    )
    three = theory.thresholds_differ(500, [0.3, 0.3, 0.28], 0.25, 0.35)
    assert one < three < 2 * one + theory.threshold_differs(500, 0.28, 0.25, 0.35)
    assert theory.thresholds_differ(500, [0.01, 0.9], 0.25, 0.35) == 0


def test_failure_falls_like_one_over_the_root_of_n():
    for law in (
        lambda n: theory.rounding_differs(n, 0.3, 0.1),
        lambda n: theory.threshold_differs(n, 0.3, 0.25, 0.35),
        lambda n: theory.jointly_rounded_differ(n, [0.25] * 4, 0.1),
    ):
        assert law(10_000) / law(1_000_000) == pytest.approx(10, rel=0.02)


def test_schedule_of_the_authors_experiments():
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    assert plan.gamma == pytest.approx(0.0269527, abs=5e-8)
    assert [level.mass for level in plan.levels] == pytest.approx(
        [0.0539, 0.2156, 0.8625], abs=5e-5
    )
    assert plan.levels[1][3:] == pytest.approx((0.1437, 0.1797), abs=5e-5)
    assert plan.levels[2][3:] == pytest.approx((0.575, 0.719), abs=5e-4)
    by_rule = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2)
    assert (by_rule.n_levels, len(by_rule.levels)) == (4, 3)
    assert by_rule.gamma == pytest.approx(0.0202145, abs=1e-7)


def test_schedule_stops_before_the_rule_of_the_paper():
    for opt, dim, objective in itertools.product((0.01, 0.3), (1, 2, 3), ("kmeans", "kmedians")):
        plan = theory.schedule(n_clusters=4, epsilon=0.8, opt=opt, dim=dim, objective=objective)
        power = 2 if objective == "kmeans" else 1
        for level in plan.levels:
            assert (2.0 ** (1 - level.level) * np.sqrt(dim)) ** power > 0.8 * opt / 5
            assert level.low == pytest.approx(level.mass * 2 / 3)
        assert len(plan.levels) < plan.n_levels + 1


def test_sample_sizes_order_and_grow_as_rho_shrinks():
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3)
    sizes = [
        theory.sample_sizes(plan, dim=2, epsilon=0.99, rho=rho, failure_probability=0.01)
        for rho in (0.3, 0.1)
    ]
    assert sizes[0].theorem > 100 * sizes[0].experiments
    assert all(b > 5 * a for a, b in zip(*sizes, strict=True))


def test_calibrated_window_rows_hold_the_failure_below_rho_for_the_worst_masses():
    rows = theory.calibrated_window_rows(low=0.1437, high=0.1797, rho=0.1)
    for mass in (0.15, 0.16, 0.1666):
        assert 6 * theory.threshold_differs(rows, mass, 0.1437, 0.1797) < 0.1


def test_k_centers_bound_is_never_violated_by_the_grid_and_greedy():
    from privlearn.replicable.oracles import farthest_first

    rng = np.random.default_rng(0)
    tightest = 0.0
    for _ in range(300):
        k, side = int(rng.integers(1, 4)), rng.uniform(0.05, 0.6)
        x = np.sort(rng.random(int(rng.integers(k, 9))))
        cuts = itertools.combinations(range(1, len(x)), k - 1)
        opt = min(max((part[-1] - part[0]) / 2 for part in np.split(x, list(cut))) for cut in cuts)
        shift = rng.uniform(0, side)
        cells = np.unique((np.floor((x - shift) / side) + 0.5) * side + shift)[:, None]
        centres = cells[farthest_first(cells, k)]
        radius = abs(x[:, None] - centres.T).min(axis=1).max()
        bound = theory.k_centers_bound(opt=opt, side=side, dim=1)
        assert radius <= bound + 1e-12
        tightest = max(tightest, radius / bound)
    assert tightest > 0.6  # the bound is not vacuous


def test_median_gap_of_an_exponential_agrees_with_simulation():
    rng = np.random.default_rng(1)
    gap = np.abs(np.diff(np.median(rng.exponential(size=(2, 20_000, 51)), axis=2), axis=0)).ravel()
    stderr = gap.std() / np.sqrt(len(gap))
    predicted = theory.median_gap(51, lambda u: -np.log1p(-u))
    assert abs(gap.mean() - predicted) < 5 * stderr
    assert 12 * stderr < 0.1 * predicted  # an error of 10 % would show


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.rounding_differs(10, 1.2, 0.1), "p must lie in"),
        (lambda: theory.rounding_differs(10, 0.2, 0.0), "alpha must be positive"),
        (lambda: theory.rounding_differs(0, 0.2, 0.1), "n must be at least 1"),
        (lambda: theory.threshold_differs(10, 0.2, 0.4, 0.4), "low < high"),
        (lambda: theory.stat_query_design(tau=0.1, rho=1.0, failure_probability=0.1), "rho must"),
        (lambda: theory.stat_query_design(tau=0.1, rho=0.1, failure_probability=0.05), "rho / 3"),
        (lambda: theory.threshold_window(0.1, 0.1), "slack must be below"),
        (lambda: theory.schedule(n_clusters=3, epsilon=1.0, opt=1, dim=2), "epsilon must lie"),
        (lambda: theory.schedule(n_clusters=3, epsilon=0.5, opt=0, dim=2), "opt must be positive"),
        (lambda: theory.median_gap(10, lambda u: u), "odd"),
        (lambda: theory.thresholds_differ(10, [1.5], 0.1, 0.2), "probabilities"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_theory_and_estimators_load_without_jax():
    code = (
        "import sys; from privlearn.replicable import theory, ReplicableKMeans; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
