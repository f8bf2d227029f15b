"""The clusterers: scikit-learn's contract, replication, bad input, scale."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.cluster import DBSCAN, BisectingKMeans, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from privlearn.replicable import (
    ReplicabilityWarning,
    ReplicableKCenters,
    ReplicableKMeans,
    ReplicableKMedians,
    WeightedKMedians,
    replicability_report,
    simulation,
    theory,
)
from privlearn.replicable.baselines import RoundedKMeans
from privlearn.replicable.k_centers import _distinct
from privlearn.replicable.oracles import nearest

pytestmark = [
    pytest.mark.filterwarnings("ignore::privlearn.replicable.ReplicabilityWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
CLUSTERERS = (ReplicableKMeans, ReplicableKMedians, ReplicableKCenters)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    return [simulation.truncated_mixture(20_000, rng) for _ in range(2)]


@parametrize_with_checks(
    [
        ReplicableKMeans(shared_seed=0, n_components=3),
        ReplicableKMedians(shared_seed=0, n_components=2),
        ReplicableKCenters(shared_seed=0, n_components=3),
        WeightedKMedians(),
        RoundedKMeans(shared_seed=0),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("Clusterer", CLUSTERERS)
@pytest.mark.parametrize("seed", [None, -1, 0.5, True, np.random.RandomState(0)])
def test_a_missing_or_useless_shared_seed_is_an_error(Clusterer, seed):
    with pytest.raises((TypeError, ValueError), match="shared_seed"):
        Clusterer(2, shared_seed=seed).fit(np.random.default_rng(0).random((50, 2)))


@pytest.mark.parametrize("Clusterer", CLUSTERERS)
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rho": 0.0}, "rho must lie"),
        ({"rho": 1.0}, "rho must lie"),
        ({"n_clusters": 0}, "n_clusters must be >= 1"),
        ({"n_components": 4}, "n_components must be 1, 2 or 3"),
        ({"bounds": (1, 0)}, "bounds must be finite with low < high"),
        ({"bounds": (0, np.nan)}, "bounds must be finite"),
        ({"bounds": (0, (1, 1, 1))}, "bounds must hold"),
        ({"bounds": 3}, "bounds must be"),
    ],
)
def test_parameters_out_of_range_are_named(Clusterer, parameters, words):
    with pytest.raises(ValueError, match=words):
        Clusterer(shared_seed=0).set_params(**parameters).fit(
            np.random.default_rng(0).random((50, 2))
        )


@pytest.mark.parametrize("Clusterer", CLUSTERERS[:2])
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"epsilon": 0.0}, "epsilon must lie"),
        ({"epsilon": 1.0}, "epsilon must lie"),
        ({"failure_probability": 0.2}, "rho / 3"),
        ({"representative": "median"}, "representative must be"),
        ({"opt": -1.0}, "opt must be positive"),
        ({"sample_size": 1}, "sample_size must be at least 2"),
        ({"skip_levels": -1}, "skip_levels must be at least 0"),
        ({"oracle": KMeans(random_state=np.random.RandomState(0))}, "random_state of the oracle"),
    ],
)
def test_tree_parameters_out_of_range_are_named(Clusterer, parameters, words, blobs):
    with pytest.raises(ValueError, match=words):
        Clusterer(shared_seed=0).set_params(**parameters).fit(blobs[0][:2000])


def test_four_features_need_a_projection():
    X = np.random.default_rng(0).random((50, 4))
    for Clusterer in CLUSTERERS:
        with pytest.raises(ValueError, match="n_components=2 or 3"):
            Clusterer(shared_seed=0).fit(X)


def test_an_oracle_without_weights_is_refused(blobs):
    with pytest.raises(TypeError, match="sample_weight"):
        ReplicableKMeans(shared_seed=0, oracle=RoundedKMeans()).fit(blobs[0])
    with pytest.raises(TypeError, match="cluster_centers_"):
        ReplicableKMeans(shared_seed=0, oracle=DBSCAN()).fit(blobs[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_and_infinite_values_are_refused(bad):
    X = np.ones((20, 2))
    X[3, 1] = bad
    for Clusterer in CLUSTERERS:
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            Clusterer(shared_seed=0).fit(X)


@pytest.mark.parametrize("Clusterer", CLUSTERERS)
def test_the_same_sample_and_seed_give_the_same_bits(Clusterer, blobs):
    one, two = (Clusterer(3, shared_seed=5).fit(blobs[0]) for _ in range(2))
    assert np.array_equal(one.cluster_centers_, two.cluster_centers_)
    assert np.array_equal(one.labels_, one.predict(blobs[0]))
    assert np.array_equal(one.labels_, clone(one).fit_predict(blobs[0]))


@pytest.mark.parametrize(
    "model",
    [
        ReplicableKMeans(3, bounds=(-1.01, 1.01), opt=0.5, sample_size=20_000),
        ReplicableKMedians(3, bounds=(-1.01, 1.01), opt=0.8, sample_size=20_000),
        ReplicableKCenters(4, cell=0.5, min_mass=0.05),
    ],
)
def test_two_samples_give_the_identical_partition_for_most_seeds(model, blobs):
    """At least 8 of 20 seeds; k-means gives 0. P(fewer than 8) < 1e-6 at a rate of .8."""
    equal = 0
    for seed in range(20):
        fits = [clone(model).set_params(shared_seed=seed).fit(X) for X in blobs]
        same = np.array_equal(*[fit.cluster_centers_ for fit in fits])
        equal += same
        if same:
            grid = np.random.default_rng(1).uniform(-2, 2, (2000, 2))
            assert np.array_equal(*[fit.predict(grid) for fit in fits])
    assert equal >= 8
    plain = [KMeans(3, n_init=1, random_state=0).fit(X).cluster_centers_ for X in blobs]
    assert not np.array_equal(*plain)


def test_equal_coresets_give_equal_centres_and_different_ones_are_told_apart(blobs):
    for seed in range(10):
        one, two = (
            ReplicableKMeans(3, shared_seed=seed, bounds=(-1.01, 1.01), opt=0.5).fit(X)
            for X in blobs
        )
        if one.coreset_.key == two.coreset_.key:
            assert np.array_equal(one.cluster_centers_, two.cluster_centers_)


def test_forecast_agrees_with_the_measured_rate():
    """100 pairs, 5 sigma with .05 for the plug-in: a forecast off by .3 would show."""
    model = ReplicableKMeans(3, bounds=(-1.01, 1.01), opt=0.5, epsilon=0.99)
    report = replicability_report(
        model,
        simulation.truncated_mixture,
        n_samples=4000,
        n_pairs=100,
        n_cost_pairs=0,
        n_evaluation=100,
    )
    assert (
        abs(report.rate - report.forecast)
        < 5 * np.sqrt(report.rate * (1 - report.rate) / 100) + 0.05
    )


def test_forecast_falls_with_rows_and_the_warning_says_how_many(blobs):
    model = ReplicableKMeans(3, shared_seed=1, bounds=(-1.01, 1.01), opt=0.5)
    with pytest.warns(ReplicabilityWarning, match="rows needed"):
        small = clone(model).fit(blobs[0][:500])
    large = clone(model).fit(blobs[0])
    assert large.forecast_.total < small.forecast_.total
    assert small.required_samples_ > 500
    assert small.forecast_.rho < small.forecast_.total
    assert "asked: 0.3" in str(small.forecast_)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplicabilityWarning)
        wide = clone(model).set_params(rho=0.9, failure_probability=0.2).fit(blobs[0])
    assert wide.required_samples_ <= 20_000


def test_means_cost_little_and_cell_centres_much(blobs):
    costs = {}
    for kind in ("mean", "centre"):
        model = ReplicableKMeans(
            4, shared_seed=2, bounds=(-1.01, 1.01), opt=0.5, representative=kind
        ).fit(blobs[0])
        costs[kind] = model.inertia_ / KMeans(4, n_init=3, random_state=0).fit(blobs[0]).inertia_
    assert costs["mean"] < 1.3 < 2.5 < costs["centre"]  # published: 1.09 and 3.16


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("Clusterer", CLUSTERERS)
def test_huge_and_tiny_units_only_rescale_a_given_box(Clusterer, scale, blobs):
    X = blobs[0][:3000]
    if Clusterer is ReplicableKCenters:
        one, two = (Clusterer(3, shared_seed=1, cell=0.3 * s).fit(X * s) for s in (1, scale))
    else:
        one, two = (
            Clusterer(3, shared_seed=1, bounds=(-1.01 * s, 1.01 * s)).fit(X * s) for s in (1, scale)
        )
    assert np.allclose(two.cluster_centers_ / scale, one.cluster_centers_, rtol=1e-9, atol=1e-9)
    free = Clusterer(3, shared_seed=1).fit(X * scale)
    assert len(np.unique(free.labels_)) == 3
    assert np.isfinite(free.cluster_centers_).all()


@pytest.mark.parametrize("Clusterer", CLUSTERERS)
def test_fewer_distinct_rows_than_clusters_give_fewer_clusters_and_a_warning(Clusterer):
    X = np.repeat([[0.1, 0.2], [0.8, 0.9]], 200, axis=0)
    with pytest.warns(ConvergenceWarning, match="n_clusters=5"):
        model = Clusterer(5, shared_seed=0).fit(X)
    assert 1 <= len(model.cluster_centers_) <= 4 + (Clusterer is not ReplicableKCenters)
    assert set(model.labels_) <= set(range(len(model.cluster_centers_)))


@pytest.mark.parametrize("Clusterer", CLUSTERERS)
def test_constant_rows_and_one_feature_work(Clusterer):
    constant = Clusterer(2, shared_seed=0).fit(np.full((30, 2), 7.0))
    assert set(constant.labels_) == {constant.labels_[0]}
    rng = np.random.default_rng(0)
    line = np.concatenate([rng.normal(0, 0.1, 2000), rng.normal(5, 0.1, 2000)])[:, None]
    model = Clusterer(2, shared_seed=0).fit(line)
    assert len(set(model.labels_[:2000])) == len(set(model.labels_[2000:])) == 1
    assert model.labels_[0] != model.labels_[-1]


def test_rows_outside_the_bounds_count_as_on_the_border_and_are_reported(blobs):
    X = blobs[0].copy()
    X[:7] = 50.0
    with pytest.warns(ReplicabilityWarning, match="7 of 20000 rows lie outside"):
        model = ReplicableKMeans(3, shared_seed=0, bounds=(-1.01, 1.01), opt=0.5).fit(X)
    assert model.n_outside_ == 7
    assert (np.abs(model.cluster_centers_) <= 1.01).all()


def test_projection_is_shared_and_gives_labels_instead_of_centres():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 4, (3, 20))
    draw = lambda: centres[rng.integers(3, size=8000)] + rng.normal(0, 0.3, (8000, 20))  # noqa: E731
    equal = 0
    for seed in range(10):
        one, two = (
            ReplicableKMeans(3, shared_seed=seed, n_components=2).fit(draw()) for _ in range(2)
        )
        assert np.array_equal(one.projection_, two.projection_)
        assert not hasattr(one, "cluster_centers_")
        assert one.projected_centers_.shape == (3, 2)
        assert one.transform(centres).shape == (3, 3)
        equal += np.array_equal(one.projected_centers_, two.projected_centers_)
    assert equal >= 2
    lengths = np.linalg.norm(rng.normal(size=(200, 20)) @ one.projection_, axis=1) ** 2 / 20
    assert 0.3 < lengths.mean() < 3
    refit = one.set_params(n_components=None).fit(draw()[:, :2])
    assert refit.cluster_centers_.shape[1] == 2
    refit.set_params(n_components=1).fit(draw())
    assert not hasattr(refit, "cluster_centers_")


def test_given_bounds_of_projected_features_hold_the_rows():
    X = np.random.default_rng(0).uniform(0, 1, (2000, 12))
    model = ReplicableKMeans(3, shared_seed=3, n_components=3, bounds=(0, 1)).fit(X)
    assert model.n_outside_ < 20


def test_any_weighted_clusterer_serves_as_oracle(blobs):
    for oracle in (BisectingKMeans(), KMeans(n_init=2, random_state=7)):
        model = ReplicableKMeans(3, shared_seed=0, bounds=(-1.01, 1.01), oracle=oracle).fit(
            blobs[0]
        )
        assert model.cluster_centers_.shape == (3, 2)
        assert not hasattr(oracle, "cluster_centers_")


def test_one_cluster_is_the_weighted_mean_of_the_coreset(blobs):
    model = ReplicableKMeans(1, shared_seed=0, bounds=(-1.01, 1.01), opt=0.5).fit(blobs[0])
    mean = model.coreset_.weights @ model.coreset_.points
    assert model.cluster_centers_[0] == pytest.approx(mean)


def test_calibrated_grids_depend_on_what_is_shared_and_meet_rho():
    """Masses and means at the calibrated grids: forecast at most 3/4 of rho on the mixture."""
    X = simulation.truncated_mixture(30_000, np.random.default_rng(0))
    model = ReplicableKMeans(4, shared_seed=8, bounds=(-1.01, 1.01), opt=0.5, sample_size=30_000)
    fit = model.fit(X)
    assert fit.forecast_.masses + fit.forecast_.means < 0.75 * 0.3
    other = clone(model).fit(X[:29_000])
    assert other.coreset_.alpha == fit.coreset_.alpha
    assert np.array_equal(other.coreset_.mean_alpha, fit.coreset_.mean_alpha)


def test_k_centers_ignores_outliers_and_keeps_its_bound(blobs):
    X = np.concatenate([blobs[0], [[30.0, 30.0]]])
    model = ReplicableKCenters(4, shared_seed=0, cell=0.2, min_mass=0.01).fit(X)
    assert (model.cluster_centers_ < 2).all()
    assert 0 < model.tail_share_ < 0.3
    # An upper bound of the optimum: the blobs' own centres.
    opt = np.linalg.norm(blobs[0] - np.where(blobs[0] < -0.1, -0.6, 0.4), axis=1).max()
    assert model.radius_ <= theory.k_centers_bound(opt=opt, side=0.2, dim=2)


def test_k_centers_lowers_the_mass_until_there_are_enough_cells():
    X = np.repeat([[0.0], [10.0], [20.0]], [980, 15, 5], axis=0)
    model = ReplicableKCenters(3, shared_seed=0, cell=1.0, min_mass=0.5).fit(X)
    assert len(model.levels_) > 3
    assert len(model.cluster_centers_) == 3


def test_k_centers_agrees_as_often_as_published():
    """Published .85 at n = 2,000 (200 pairs, SE .025); 150 pairs, 5 sigma of the difference."""
    report = replicability_report(
        ReplicableKCenters(4, cell=0.5, min_mass=0.05), simulation.truncated_mixture,
        n_samples=2000, n_pairs=150, n_cost_pairs=0, n_evaluation=100,
    )  # fmt: skip
    assert abs(report.rate - 0.85) < 5 * np.sqrt(0.85 * 0.15 * (1 / 150 + 1 / 200))


def test_names_and_frames_pass_through():
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(0).random((500, 2)), columns=["lon", "lat"])
    model = ReplicableKMeans(3, shared_seed=0).fit(frame)
    assert model.feature_names_in_.tolist() == ["lon", "lat"]
    assert model.get_feature_names_out().tolist() == [f"replicablekmeans{i}" for i in range(3)]
    distances = model.set_output(transform="pandas").transform(frame)
    assert distances.columns.tolist() == model.get_feature_names_out().tolist()


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-9, 9)),
    st.integers(1, 5),
)
def test_nearest_is_the_first_centre_at_least_distance(points, k):
    centres = points[:k]
    distance = ((points[:, None] - centres) ** 2).sum(axis=2)
    assert nearest(points, centres).tolist() == distance.argmin(axis=1).tolist()


def test_cells_far_apart_are_told_apart_like_cells_nearby():
    near = np.array([[3.0, 1.0], [0.0, 2.0], [3.0, 1.0]])
    far = near * 2.0**40
    for index in (near, far):
        cells, where, counts = _distinct(index)
        assert np.array_equal(cells[where], index)
        assert counts.tolist() == [1, 2]
        assert cells[0, 0] == 0
