"""Advice on bag sizes: the known table, and an honest baseline beside it."""

import numpy as np
import pytest

from privlearn.aggregate.bag_size import advise_bag_size

SETTING = {"n": 1000, "p": 50, "bounds": (-3.0, 3.0), "signal": 1.0, "noise": 0.25}


@pytest.mark.parametrize(
    ("epsilon", "rho", "k", "risk"),
    [
        (0.5, 1.0, 17, 0.9420),
        (1.0, 1.0, 5, 0.8026),
        (2.0, 1.0, 2, 0.5066),
        (4.0, 1.0, 1, 0.2500),
        (0.5, "best", 5, 0.9398),
        (1.0, "best", 3, 0.7999),
        (4.0, "best", 2, 0.2172),
        (8.0, "best", 1, 0.0724),
    ],
)
def test_known_sizes_and_risks(epsilon, rho, k, risk):
    # From a grid of 60 sizes and 400 values of rho, computed independently.
    advice = advise_bag_size(epsilon, **SETTING, rho=rho)
    assert advice.k == k
    assert advice.risk == pytest.approx(risk, abs=6e-5)


@pytest.mark.parametrize(("epsilon", "risk"), [(0.5, 0.9353), (2.0, 0.4837), (8.0, 0.0673)])
def test_individual_noise_and_ridge_are_not_beaten(epsilon, risk):
    advice = advise_bag_size(epsilon, **SETTING)
    assert advice.ridge_individual_risk == pytest.approx(risk, abs=6e-5)
    assert advice.ridge_individual_risk <= advice.table["risk"].min()
    assert "do not beat" in str(advice)


def test_only_the_width_of_the_bounds_matters():
    shifted = advise_bag_size(1.0, **(SETTING | {"bounds": (47.0, 53.0)}))
    assert shifted.risk == advise_bag_size(1.0, **SETTING).risk


def test_the_table_has_every_size_and_the_advice_is_its_best_row():
    advice = advise_bag_size(1.0, **SETTING, sizes=[10, 2, 4])
    assert advice.table["k"].to_list() == [10, 2, 4]
    assert advice.risk == advice.table["risk"].min()
    assert advice.k in (2, 4)


def test_clipping_costs_something_when_bounds_are_tight():
    tight = SETTING | {"bounds": (-0.5, 0.5)}
    free, clipped = (advise_bag_size(4.0, **tight, sizes=[1], clipping=c) for c in (False, True))
    assert clipped.risk > 1.2 * free.risk


def test_sizes_stay_below_the_number_of_rows():
    assert advise_bag_size(1.0, **(SETTING | {"n": 20, "p": 2})).table["k"].max() == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": np.inf}, "epsilon"),
        ({"bounds": (3.0, -3.0)}, "bounds must increase"),
        ({"n": 0}, "n must be an integer"),
        ({"p": 2.5}, "p must be an integer"),
        ({"signal": -1.0}, "signal"),
        ({"noise": np.nan}, "noise"),
        ({"sizes": []}, "sizes must name"),
        ({"sizes": [0]}, "k must"),
        ({"rho": -0.1}, "rho"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    arguments = {"epsilon": 1.0} | SETTING | changes
    with pytest.raises(ValueError, match=message):
        advise_bag_size(**arguments)
