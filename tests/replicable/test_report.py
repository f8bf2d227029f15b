"""The report measures what it says, for anyone's clusterer."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import DBSCAN, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privlearn.replicable import ReplicableKMeans, replicability_report, simulation
from privlearn.replicable.report import clopper_pearson, disagreement, same_partition


class FixedLine(ClusterMixin, BaseEstimator):
    """Splits at a shared number, or with probability 1 - rate at one of its own."""

    def __init__(self, rate=1.0, shared_seed=None):
        self.rate = rate
        self.shared_seed = shared_seed

    def fit(self, X, y=None):
        own = np.random.default_rng(abs(int(X[0, 0] * 2**40)))
        self.at_ = 0.5 if own.random() < self.rate else own.random()
        return self

    def predict(self, X):
        return (np.asarray(X)[:, 0] > self.at_).astype(int)


def uniform(n, rng):
    return rng.random((n, 1))


def test_a_partition_that_never_moves_has_rate_one():
    report = replicability_report(FixedLine(), uniform, n_samples=10, n_pairs=30, n_cost_pairs=0)
    assert (report.n_equal, report.rate) == (30, 1.0)
    assert report.interval[0] == pytest.approx(0.025 ** (1 / 30))
    assert report.disagreement == 0


def test_the_rate_of_a_known_process_is_found():
    """Both runs keep the line with probability .8 each: rate .64; 5 sigma of 400 pairs."""
    report = replicability_report(
        FixedLine(0.8), uniform, n_samples=10, n_pairs=400, n_cost_pairs=0, n_evaluation=500
    )
    assert abs(report.rate - 0.64) < 5 * np.sqrt(0.64 * 0.36 / 400) + 1e-3
    assert report.interval[0] < report.rate < report.interval[1]
    assert report.compared.startswith("labels of")


def test_k_means_never_agrees_although_it_hardly_moves():
    report = replicability_report(
        KMeans(4, n_init=1), simulation.truncated_mixture, n_samples=2000, n_pairs=10
    )
    assert report.n_equal == 0
    assert report.compared == "centres"
    assert np.isnan(report.forecast)


def test_costs_forecast_and_seconds_are_reported():
    report = replicability_report(
        ReplicableKMeans(3, bounds=(-1.01, 1.01), opt=0.5), simulation.truncated_mixture,
        n_samples=1000, n_pairs=6, n_evaluation=2000,
    )  # fmt: skip
    assert 0.9 < report.cost_ratio < 2
    assert 0 <= report.forecast <= 1
    assert report.seconds > 0
    text = str(report)
    assert f"{report.n_equal} of 6 pairs" in text
    assert "cost over that of k-means" in text


def test_seeds_are_equal_within_a_pair_and_fresh_between_pairs():
    seen = []

    class Spy(FixedLine):
        def fit(self, X, y=None):
            seen.append(self.shared_seed)
            return super().fit(X)

    replicability_report(Spy(), uniform, n_samples=5, n_pairs=8, n_cost_pairs=0)
    assert all(a == b for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert len(set(seen)) == 8


def test_pipelines_and_models_without_centres_are_compared_by_labels():
    pipeline = make_pipeline(StandardScaler(), ReplicableKMeans(3))
    for model in (pipeline, GaussianMixture(2)):
        report = replicability_report(
            model, simulation.two_moons, n_samples=300, n_pairs=3, n_cost_pairs=1, n_evaluation=300
        )
        assert "reference rows" in report.compared
        assert report.n_pairs > 0.5


def test_halves_of_a_table_are_disjoint_and_bootstraps_are_not():
    table = np.arange(40.0)[:, None]
    seen = []

    class Spy(FixedLine):
        def fit(self, X, y=None):
            seen.append(set(X.ravel()))
            return super().fit(X)

    halves = replicability_report(Spy(), table, n_pairs=3, n_cost_pairs=0)
    assert halves.n_samples == 20
    assert all(not a & b for a, b in zip(seen[::2], seen[1::2], strict=True))
    seen.clear()
    replicability_report(Spy(), table, n_pairs=3, n_cost_pairs=0, split="bootstrap")
    assert any(a & b for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_frames_of_any_kind_are_tables():
    frame = pl.DataFrame(np.random.default_rng(0).random((60, 2)), schema=["a", "b"])
    same = [
        replicability_report(KMeans(2, n_init=1), kind, n_pairs=2).disagreement
        for kind in (frame, frame.to_pandas(), frame.lazy(), frame.to_numpy())
    ]
    assert len(set(same)) == 1


def test_the_same_seed_gives_the_same_report():
    one, two = (
        replicability_report(KMeans(2, n_init=1), uniform, n_samples=50, n_pairs=3)
        for _ in range(2)
    )
    assert (one.disagreement, one.cost_ratio) == (two.disagreement, two.cost_ratio)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"estimator": DBSCAN()}, TypeError, "no predict"),
        ({"n_samples": None}, ValueError, "n_samples must be given"),
        ({"n_pairs": 0}, ValueError, "n_pairs"),
        ({"split": "thirds"}, ValueError, "split must be"),
        ({"compare": "colours"}, ValueError, "compare must be"),
        ({"confidence": 1.0}, ValueError, "confidence"),
        ({"data": np.zeros((10, 1)), "n_samples": 6}, ValueError, "disjoint parts of 10 rows"),
        ({"estimator": GaussianMixture(), "compare": "centres"}, ValueError, "no cluster_centers_"),
        ({"data": np.full((10, 1), np.nan)}, ValueError, "NaN"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    options = {"estimator": KMeans(2, n_init=1), "data": uniform, "n_samples": 5, "n_pairs": 2}
    if "data" in arguments and "n_samples" not in arguments:
        options["n_samples"] = None
    with pytest.raises(error, match=words):
        replicability_report(**{**options, **arguments})


labels = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(labels, st.permutations(range(5)))
def test_names_of_labels_do_not_matter(found, names):
    renamed = [names[label] for label in found]
    assert same_partition(found, renamed)
    assert disagreement(found, renamed) == pytest.approx(0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_partitions_are_equal_exactly_if_nothing_disagrees(pairs):
    one, two = zip(*pairs, strict=True)
    assert same_partition(one, two) == (disagreement(one, two) < 1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (7, 20)])
def test_clopper_pearson_has_its_tails(hits, n):
    from scipy import stats

    low, high = clopper_pearson(hits, n)
    if hits:
        assert stats.binom.sf(hits - 1, n, low) == pytest.approx(0.025)
    if hits < n:
        assert stats.binom.cdf(hits, n, high) == pytest.approx(0.025)
