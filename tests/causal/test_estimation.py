"""The analyst's side: unbiased, with intervals that cover, from the release alone."""

import numpy as np
import pytest

from privlearn.causal import (
    ClusterDP,
    ClusterFreeDP,
    EffectEstimator,
    LaplaceOutcome,
    NoDP,
    NoisyCellMeans,
    NoisyHistogram,
    OneBitOutcome,
    OutcomeGrid,
    UniformPriorDP,
    simulation,
    theory,
)

PEOPLE = simulation.gaussian_mixture(600, 5, 2.0, seed=1)
Z = PEOPLE.assign(seed=2)
CODES = np.where(Z == 1, PEOPLE.y1, PEOPLE.y0)
CELLS = PEOPLE.cells(Z)
GRID = PEOPLE.grid
PLAIN = EffectEstimator().fit(NoDP(GRID).release_codes(CODES, CELLS))

MECHANISMS = [
    ClusterDP(GRID, lam=0.6, gamma=0.02, sigma=5.0),
    ClusterDP(GRID, lam=0.6, gamma=0.02, sigma=5.0, normalize="affine"),
    ClusterFreeDP(GRID, lam=0.6, gamma=0.02, sigma=5.0),
    UniformPriorDP(GRID, lam=0.6),
    LaplaceOutcome(GRID, 2.0),
    OneBitOutcome(GRID, 2.0),
    NoisyCellMeans(GRID, 2.0),
    NoisyHistogram(GRID, 2.0),
]


def predicted_gap(mechanism, release):
    """Closed form of the variance that privacy adds, for these data and this release."""
    v, sizes = GRID.array, CELLS.sizes
    shares = np.bincount(CELLS.codes * 5 + CODES, minlength=sizes.size * 5).reshape(-1, 2, 5)
    shares = shares / sizes[..., None]
    if isinstance(mechanism, LaplaceOutcome):
        return theory.laplace_outcome_gap(GRID.width, 2.0, sizes)
    if isinstance(mechanism, OneBitOutcome):
        return theory.one_bit_gap(shares, v, 2.0, sizes)
    if isinstance(mechanism, NoisyCellMeans):
        return theory.noisy_mean_gap(GRID.width, 2.0, sizes)
    if isinstance(mechanism, NoisyHistogram):
        return theory.noisy_histogram_gap(v, 2.0, sizes)
    return theory.variance_gap(shares, release.priors, v, release.lam, sizes)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.name)
def test_releases_are_unbiased_and_as_noisy_as_predicted(mechanism):
    """300 releases of one experiment; mean and variance at 5.5 sigma (4e-8 each).

    The naive difference of private outcomes, and a variance off by half, fail.
    """
    releases = [mechanism.release_codes(CODES, CELLS) for _ in range(300)]
    taus = np.array([EffectEstimator().fit(r).tau_ for r in releases])
    gaps = np.array([predicted_gap(mechanism, r) for r in releases])
    z = (taus - PLAIN.tau_) / np.sqrt(gaps)
    assert abs(z.mean()) < 5.5 / 300**0.5
    kurtosis = 6.0 if isinstance(mechanism, (NoisyCellMeans, NoisyHistogram)) else 3.3
    assert abs((z**2).mean() - 1) < 5.5 * ((kurtosis - 1) / 300) ** 0.5


def test_debiasing_matters_where_priors_are_flat():
    """Power of the test above: the difference of private means is off by lam = 60 %."""
    releases = [UniformPriorDP(GRID, lam=0.6).release_codes(CODES, CELLS) for _ in range(100)]
    naive = np.mean([EffectEstimator().fit(NoDP(GRID).release_codes(r.outcomes, CELLS)).tau_
                     for r in releases])  # fmt: skip
    assert naive == pytest.approx(0.4 * PLAIN.tau_, abs=0.1)


def test_values_may_be_moved_and_scaled():
    """Effect a v + b is a times the effect: b cancels only because priors sum to one."""
    release = ClusterDP(GRID, lam=0.6, gamma=0.02, sigma=5.0).release_codes(CODES, CELLS)
    moved = OutcomeGrid.of(3 * GRID.array + 100)
    twin = type(release)(**(vars(release) | {"grid": moved}))
    a, b = EffectEstimator().fit(release), EffectEstimator().fit(twin)
    assert b.tau_ == pytest.approx(3 * a.tau_)
    assert b.stderr_ == pytest.approx(3 * a.stderr_)


def test_scores_average_to_the_estimate():
    release = ClusterDP(GRID, lam=0.6, gamma=0.02, sigma=5.0).release_codes(CODES, CELLS)
    by_hand = 0.0
    for c, n_c in enumerate(CELLS.sizes.sum(1)):
        inside = CELLS.clusters == c
        treated, control = (release.scores()[inside & (a == Z)].mean() for a in (1, 0))
        by_hand += n_c / len(Z) * (treated - control)
    estimator = EffectEstimator().fit(release)
    assert estimator.tau_ == pytest.approx(by_hand)
    weights = CELLS.sizes.sum(1) / len(Z)
    assert weights @ [c.effect for c in estimator.clusters_] == pytest.approx(by_hand)
    inverse = np.linalg.inv(estimator.response_matrix(1, 0))
    unit = int(np.flatnonzero(CELLS.codes == 2)[0])
    score = GRID.array @ inverse[:, release.outcomes[unit]]
    assert score == pytest.approx(release.scores()[unit])


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.name)
def test_interval_summary_and_clusters_of_every_release(mechanism):
    estimator = EffectEstimator(level=0.9).fit(mechanism.release_codes(CODES, CELLS))
    low, high = estimator.interval_
    assert low < estimator.tau_ < high
    assert high - low == pytest.approx(2 * 1.6449 * estimator.stderr_, rel=1e-4)
    assert len(estimator.clusters_) == 3
    text = estimator.summary(most=2)
    assert mechanism.name in text
    assert "90% interval" in text
    assert "and 1 more clusters" in text


def test_unstratified_is_the_plain_difference_in_means():
    estimator = EffectEstimator(stratify=False).fit(NoDP(GRID).release_codes(CODES, CELLS))
    v = GRID.array[CODES]
    assert estimator.tau_ == pytest.approx(v[Z == 1].mean() - v[Z == 0].mean())
    expected = sum(v[a == Z].var(ddof=1) / (a == Z).sum() for a in (0, 1))
    assert estimator.stderr_ == pytest.approx(expected**0.5)
    pooled = EffectEstimator(stratify=False).fit(
        NoisyCellMeans(GRID, 1e5).release_codes(CODES, CELLS)
    )
    assert pooled.tau_ == pytest.approx(estimator.tau_, abs=1e-3)


@pytest.mark.parametrize(
    ("estimator", "release", "error", "match"),
    [
        (EffectEstimator(), CODES, TypeError, "privatize"),
        (EffectEstimator(level=95), NoDP(GRID).release_codes(CODES, CELLS), ValueError, "level"),
        (
            EffectEstimator(),
            NoDP(GRID).privatize(GRID.array[[0, 1]], [0, 1], [3, 3], min_cell=1),
            ValueError,
            "two units",
        ),
    ],
)
def test_bad_input_is_refused(estimator, release, error, match):
    with pytest.raises(error, match=match):
        estimator.fit(release)


def test_only_releases_on_a_grid_have_response_matrices():
    estimator = EffectEstimator().fit(OneBitOutcome(GRID, 1.0).release_codes(CODES, CELLS))
    with pytest.raises(TypeError, match="no response matrices"):
        estimator.response_matrix(0, 0)
    estimator.fit(NoDP(GRID).release_codes(CODES, CELLS))
    with pytest.raises(ValueError, match="cluster must be"):
        estimator.response_matrix(3, 0)
