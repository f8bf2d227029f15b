"""The guarantee: exact on small cells, audited on releases, added up in a ledger."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from privlearn.causal import (
    ClusterDP,
    ClusterFreeDP,
    LaplaceOutcome,
    NoDP,
    NoisyCellMeans,
    NoisyHistogram,
    OneBitOutcome,
    OutcomeGrid,
    UniformPriorDP,
    auditing,
    oracles,
    theory,
)
from privlearn.privacy import Guarantee, Ledger, audit_epsilon

BINARY, TERNARY = OutcomeGrid.of([0, 1]), OutcomeGrid.of([0, 1, 2])
#: False-alarm rate of each audit.
RISK = 1e-7


@pytest.mark.parametrize("normalize", ["project", "affine"])
@pytest.mark.parametrize(
    ("grid", "m", "sigma", "gamma", "reach"),
    [(BINARY, 1, 1.0, 0.1, 30), (BINARY, 3, 1.5, 0.3, 40), (TERNARY, 2, 0.7, 0.05, 12)],
)
def test_no_neighbour_of_a_whole_release_exceeds_the_guarantee(
    grid, m, sigma, gamma, reach, normalize
):
    """Exact likelihood ratios of (priors, outcomes) through the code that releases run."""
    mechanism = ClusterDP(grid, lam=0.5, gamma=gamma, sigma=sigma, normalize=normalize)
    epsilons = np.array([0.0, 0.5, 2 / sigma, 2 / sigma + 0.4, mechanism.guarantee.epsilon])
    worst = oracles.worst_delta(mechanism, m, epsilons, reach)
    tail = grid.k * np.exp(-reach / sigma)
    assert (worst <= mechanism.delta_at(epsilons) + tail).all()
    composed = theory.composed_delta(epsilons, mechanism.exact_lam, mechanism.exact_gamma, sigma)
    assert (worst <= composed + tail).all()
    # The enumeration is no formality: most of the promise is used by some neighbour.
    assert worst[0] > 0.5 * composed[0]


def test_the_reading_with_one_over_sigma_is_refuted_by_an_exact_ratio():
    mechanism = ClusterDP(TERNARY, lam=0.5, gamma=0.001, sigma=2.0)
    left = np.repeat([0, 1, 2], 5)
    right = left.copy()
    right[0] = 1
    ratio = oracles.prior_log_ratio(mechanism, left, right, reach=14)
    assert 1.5 / 2.0 < ratio <= 2 / 2.0


def test_clipping_and_renormalising_would_break_the_floor_that_epsilon_needs():
    q = np.clip(np.array([1.0, 1, 1, 1, 1, 0]), 0.05, 1)
    assert (q / q.sum()).min() == pytest.approx(0.0099, abs=1e-4)
    grid = OutcomeGrid.of(range(6))
    for normalize in ("project", "affine"):
        mechanism = ClusterDP(grid, lam=0.5, gamma=0.05, sigma=1.0, normalize=normalize)
        weights = mechanism.weights_from_counts(np.array([[9, 9, 9, 9, 9, -4]]), np.array([9]))
        assert weights.min() / weights.sum() >= 0.05


@pytest.mark.parametrize(
    ("m", "k", "lam", "gamma"), list(itertools.product((2, 5), (2, 3), (0.3, 0.95), (0.02, 0.2)))
)
def test_withheld_priors_without_noise_keep_their_bound(m, k, lam, gamma):
    for normalize in ("project", "affine"):
        worst = oracles.outcomes_only_worst(m, k, lam, gamma, normalize)
        assert worst <= float(theory.outcomes_only_epsilon(lam, gamma))


release_outputs = auditing.release_outputs


LOCAL = [
    UniformPriorDP.for_budget(TERNARY, 1.0),
    LaplaceOutcome(BINARY, 1.0),
    OneBitOutcome(BINARY, 1.0),
    NoisyCellMeans(BINARY, 1.0),
    NoisyHistogram(BINARY, 1.0),
]


@pytest.mark.parametrize("mechanism", LOCAL, ids=lambda m: m.name)
def test_releases_keep_their_epsilon_and_the_audit_would_see_half_of_it(mechanism):
    found = audit_epsilon(
        release_outputs(mechanism), [0, 0], [1, 0], n=40_000, batched=True, confidence=1 - RISK
    )
    assert not found.contradicts(mechanism.guarantee)
    assert found.contradicts(Guarantee(0.5))


@pytest.mark.parametrize(("share", "delta"), [(0.5, 0.0), (1.0, 0.1)])
def test_cluster_dp_keeps_its_guarantee_and_the_audit_sees_a_good_part_of_it(share, delta):
    mechanism = ClusterDP.for_budget(BINARY, 2.0, delta, gamma=0.2, prior_share=share)
    found = audit_epsilon(
        release_outputs(mechanism),
        [0, 0],
        [1, 0],
        n=40_000,
        delta=delta,
        batched=True,
        confidence=1 - RISK,
    )
    assert not found.contradicts(mechanism.guarantee)
    assert found.epsilon_lower > 0.4


def test_pooled_priors_keep_their_guarantee():
    """Cluster-Free-DP: all clusters share the priors, so runs are whole experiments."""
    mechanism = ClusterFreeDP.for_budget(BINARY, 2.0, gamma=0.2)
    cells = np.array([0, 0, 1, 1, 2, 2, 3, 3])

    def run(key, values):
        draw = mechanism.simulate(key, values, cells, 2)
        return jax.numpy.concatenate([draw.priors[1], draw.outcomes[2:4]])

    left = np.array([0, 0, 0, 0, 0, 0, 0, 0])
    right = np.array([0, 0, 1, 0, 0, 0, 0, 0])
    found = audit_epsilon(run, left, right, n=40_000, key=jax.random.key(1), confidence=1 - RISK)
    assert not found.contradicts(mechanism.guarantee)
    assert found.epsilon_lower > 0.4


def test_an_audit_catches_priors_whose_noise_is_too_small():
    """Power: a release that claims the epsilon of four times its noise is refuted."""
    honest = ClusterDP(BINARY, lam=0.9, gamma=0.2, sigma=1.0)
    claimed = ClusterDP(BINARY, lam=0.9, gamma=0.2, sigma=4.0)
    found = audit_epsilon(
        release_outputs(honest), [0, 0], [1, 1], n=40_000, batched=True, confidence=1 - RISK
    )
    assert found.contradicts(claimed.guarantee)


@pytest.mark.parametrize("normalize", ["project", "affine"])
def test_release_and_simulation_have_one_law(normalize):
    """Chi-square over (binned prior, outcomes), false-alarm rate 1e-7 each."""
    mechanism = ClusterDP(TERNARY, lam=0.6, gamma=0.1, sigma=1.5, normalize=normalize)
    values, n = np.array([0, 1, 2, 2]), 20_000
    real = release_outputs(mechanism)(values, n)
    codes = np.concatenate([np.zeros(4, int), values])
    cells = np.array([0, 0, 0, 0, 1, 1, 1, 1])

    @jax.jit
    @jax.vmap
    def simulated(key):
        draw = mechanism.simulate(key, codes, cells, 1)
        return jax.numpy.concatenate([draw.priors[1], draw.outcomes[4:]])

    fake = np.asarray(simulated(jax.random.split(jax.random.key(2), n)))

    def labels(outputs):
        prior = np.floor(outputs[:, :2] * 6.003).astype(int)  # no prior of this cell sits on a cut
        outcomes = outputs[:, 3:].astype(int) @ [1, 3, 9, 27]
        return prior[:, 0] * 7 + prior[:, 1], outcomes

    for a, b in zip(labels(real), labels(fake), strict=True):
        table = np.stack([np.bincount(x, minlength=81) for x in (a, b)])
        table = table[:, table.sum(0) > 20]
        assert stats.chi2_contingency(table).pvalue > 1e-7


def test_the_guarantee_names_unit_neighbours_and_what_is_public():
    guarantee = ClusterDP(BINARY, lam=0.5, gamma=0.1, sigma=10.0).guarantee
    assert (guarantee.unit, guarantee.neighbours) == ("one outcome", "replace one")
    for word in ("arms", "clusters", "grid", "public"):
        assert word in guarantee.condition


def test_no_dp_promises_nothing():
    assert NoDP(BINARY).guarantee.epsilon == np.inf


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_budgets_are_kept_to_the_last_digit_and_used_up(share, delta):
    for epsilon, floor in itertools.product((0.1, 1.0, 5.0), (0.01, 0.5, 1.0)):
        grid = OutcomeGrid.of(range(7))
        mechanism = ClusterDP.for_budget(grid, epsilon, delta, gamma=floor / 7, prior_share=share)
        found = mechanism.guarantee
        assert found.delta == delta
        assert found.epsilon <= epsilon * (1 + 1e-12)
        assert found.epsilon == pytest.approx(epsilon, rel=1e-5)


def test_a_ledger_adds_experiments_up_and_refuses_the_one_too_many():
    mechanism = ClusterDP.for_budget(BINARY, 0.5, gamma=0.2)
    ledger = Ledger(epsilon=1.0, unit="one outcome")
    for week in range(2):
        ledger.spend(mechanism, label=f"week {week}")
    with pytest.raises(RuntimeError, match="would bring the total"):
        ledger.spend(mechanism, label="week 3")
    apart = Ledger(epsilon=0.5, unit="one outcome")
    for country in ("A", "B", "C"):
        apart.spend(mechanism, partition="country", part=country)
    assert apart.total().epsilon == pytest.approx(0.5, rel=1e-6)


def test_tight_composition_of_many_experiments_is_below_the_sum_and_above_the_exact_value():
    mechanism = ClusterDP.for_budget(BINARY, 0.2, 0.001, gamma=0.3)
    ledger = Ledger(epsilon=20.0, delta=0.05, unit="one outcome", composition="tight")
    ledger.spend(mechanism, count=30)
    assert ledger.total().epsilon < 0.6 * 30 * 0.2
    one = Ledger(epsilon=20.0, delta=0.05, unit="one outcome", composition="tight")
    one.spend(mechanism)
    exact = theory.composed_epsilon(
        mechanism.exact_lam, mechanism.exact_gamma, mechanism.sigma, delta=0.01
    )
    assert exact <= one.tight_epsilon(0.01) <= exact * 1.02 + 1e-3


def test_a_mechanism_with_pooled_priors_is_not_audited_as_if_its_runs_were_independent():
    with pytest.raises(ValueError, match="must not pool its priors"):
        auditing.release_outputs(ClusterFreeDP(BINARY, 0.5, 0.1, 5.0))


def test_outputs_for_an_audit_have_a_row_a_run_and_all_that_is_released():
    widths = {ClusterDP(BINARY, 0.5, 0.1, 5.0): 4, NoisyHistogram(BINARY, 1.0): 2}
    for mechanism, width in widths.items():
        assert auditing.release_outputs(mechanism)([0, 1], 7).shape == (7, width)
