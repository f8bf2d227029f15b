"""The planner: honest about when clusters help."""

import numpy as np
import pytest

from privlearn.causal import OutcomeGrid, plan, planner, simulation, theory

GRID = OutcomeGrid.of(range(12))
PILOT = planner.discretised_normal(GRID, [[2.0, 3.0], [5.0, 6.0], [8.0, 9.0]], 1.2)
SIZES = [[500, 500]] * 3


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
def test_under_pure_privacy_the_uniform_prior_is_always_best_of_the_family(epsilon):
    found = plan(GRID, SIZES, PILOT, epsilon=epsilon)
    names = ("Cluster-DP", "Cluster-Free-DP")
    assert all(found[name].gap >= found["Uniform-Prior-DP"].gap for name in names)
    assert "Uniform prior is best here" in found.advice


def test_with_enough_delta_clusters_win_and_the_leak_is_said():
    found = plan(GRID, SIZES, PILOT, epsilon=0.2, delta=0.05)
    best = found["Cluster-DP"]
    assert best.gap < 0.45 * found["Uniform-Prior-DP"].gap
    assert best.mechanism.sigma == pytest.approx(10.0)  # the whole epsilon goes to the priors
    assert "About 5 % of the outcomes are then told in clear" in found.advice
    assert "noisy cell means" in found.advice


def test_every_option_keeps_the_budget_and_can_be_run():
    found = plan(GRID, SIZES, PILOT, epsilon=0.7, delta=0.01)
    assert len(found.options) == 7
    y, z, c = np.arange(24) % 12, np.repeat([0, 1], 12), np.zeros(24, int)
    for option in found.options:
        guarantee = option.mechanism.guarantee
        assert guarantee.epsilon <= 0.7 * (1 + 1e-12)
        assert guarantee.delta == option.delta <= 0.01
        assert option.mechanism.privatize(y, z, c).guarantee == guarantee
    assert option.name in str(found)


def test_user_level_competitors_overtake_randomized_response_at_small_epsilon():
    """n = 3500, K = 12, one scale: one bit wins at .5, randomised response at 4."""
    people = simulation.gaussian_mixture(3500, 12, 0.0, seed=0)
    best = [
        plan(people.grid, people.sizes, people.shares, epsilon=e, floors=(0.5,), n_draws=5).best
        for e in (0.5, 4.0)
    ]
    assert [b.name for b in best] == ["one bit per outcome", "Uniform-Prior-DP"]


def test_predictions_agree_with_the_closed_form_without_noise():
    spread, distance = planner.prior_moments(
        PILOT, np.array(SIZES), GRID.array, gamma=0.01, sigma=0.0, pooled=False
    )
    from privlearn.causal.kernels import project_floor

    priors = project_floor(PILOT, 0.01)
    gap = planner.expected_gap(PILOT, np.array(SIZES), GRID.array, 0.5, spread, distance)
    assert gap == pytest.approx(theory.variance_gap(PILOT, priors, GRID.array, 0.5, SIZES))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"pilot": PILOT * 1.1}, "sum to one"),
        ({"pilot": PILOT[..., :5]}, "K = 12"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"sizes": [[0, 5]] * 3}, "arm is missing"),
        ({"floors": (2.0,)}, "floors"),
    ],
)
def test_bad_plans_are_refused(arguments, match):
    base = {"grid": GRID, "sizes": SIZES, "pilot": PILOT, "epsilon": 1.0}
    with pytest.raises(ValueError, match=match):
        plan(**(base | arguments))
    with pytest.raises(KeyError, match="no option"):
        plan(GRID, SIZES, PILOT, epsilon=1.0, floors=(0.5,), n_draws=2)["nothing"]
