"""The tiny world, enumerated: the numbers that everything else is checked against."""

import numpy as np
import pytest

from privlearn.causal import oracles

TINY = {
    "y0": [0, 1, 1, 2, 1, 2, 3, 3],
    "y1": [1, 1, 2, 2, 2, 2, 3, 3],
    "clusters": [0, 0, 0, 0, 1, 1, 1, 1],
    "n_treated": [2, 2],
    "values": [0.0, 1.0, 2.0, 3.0],
}


@pytest.mark.parametrize(("gamma", "gap"), [(0.05, 0.418333), (0.25, 0.986111)])
def test_enumerated_effect_and_variances_are_the_known_ones(gamma, gap):
    found = oracles.exact_moments(**TINY, lam=0.4, gamma=gamma)
    assert found.mean == pytest.approx(0.375, abs=1e-12)
    assert found.sampling_variance == pytest.approx(0.244792, abs=1e-6)
    assert found.variance - found.sampling_variance == pytest.approx(gap, abs=1e-6)


def test_there_are_as_many_assignments_and_neighbours_as_there_should_be():
    clusters = np.array(TINY["clusters"])
    found = np.array(list(oracles.assignments(clusters, [2, 2])))
    assert len(np.unique(found, axis=0)) == 36
    assert (found[:, :4].sum(1) == 2).all()
    for left, right in oracles.neighbours(3, 3):
        assert (left != right).sum() == 1


def test_withheld_priors_have_the_known_worst_cases():
    assert oracles.outcomes_only_worst(8, 2, 0.95, 0.2) == pytest.approx(3.256, abs=5e-4)
    assert oracles.outcomes_only_worst(6, 2, 0.9, 0.05) == pytest.approx(7.735, abs=5e-4)
