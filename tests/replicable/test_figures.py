"""Every figure of the topic is registered, and draws from a small table."""

import numpy as np
import pytest

from privlearn.figures import registry, theme
from privlearn.replicable import real_data, simulation

registry.discover(["replicable"])
SMALL = {
    "replicable-two-runs-mixture": {"n": 2000, "n_grid": 8},
    "replicable-two-runs-moons": {"n": 2000, "n_grid": 8},
    "replicable-laws": {"n_dots": 3, "n_trials": 500},
    "replicable-threshold-band": {"ns": (500,), "n_samples": 3},
    "replicable-rate": {"ns": (500, 1000), "n_pairs": (5, 5)},
    "replicable-comparison": {"settings": (("mixture", 3),), "n": 500, "n_pairs": 4},
    "replicable-frontier": {"settings": (("moons", 3),), "n": 500, "n_pairs": 4},
    "replicable-real-data": {"tables": ("digits",), "n_most": 300, "n_pairs": 4},
}


@pytest.mark.parametrize("name", registry.REGISTRY.names("replicable"))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::privlearn.replicable.ReplicabilityWarning")
def test_figure_computes_and_draws(name):
    figure = registry.REGISTRY.get(name)
    table = figure.compute(**{**figure.settings("quick"), **SMALL[name]})
    assert not table.is_empty()
    assert theme.spec(figure.draw(table))["$schema"]


def test_samplers_have_the_moments_of_their_laws():
    """5 sigma of 40,000 rows."""
    rng = np.random.default_rng(0)
    mixture = simulation.truncated_mixture(40_000, rng)
    assert np.abs(mixture).max() <= 1
    assert np.abs(mixture.mean(axis=0) + 0.1).max() < 5 * 0.51 / 200
    assert mixture.var(axis=0) == pytest.approx([0.26, 0.26], abs=0.005)
    moons = simulation.two_moons(40_000, rng)
    assert np.abs(moons).max() < 1
    assert np.abs(moons.mean(axis=0) - [0, 0.05]).max() < 5 * 0.51 / 200
    from sklearn.datasets import make_moons

    theirs = (make_moons(40_000, noise=0.02, random_state=0)[0] - [0.5, 0.2]) / [2, 1]
    assert np.cov(moons.T) == pytest.approx(np.cov(theirs.T), abs=0.01)


def test_real_tables_have_the_stated_rows():
    assert real_data.diamonds().shape == (53_940, 2)
    flights = real_data.flight_destinations()
    assert flights.shape == (329_174, 2)
    assert (flights.min(axis=0) > [-180, 15]).all()
