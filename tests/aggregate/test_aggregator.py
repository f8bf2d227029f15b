"""The label-private release as a transformer of bag ids."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.utils.estimator_checks import check_estimator

from privlearn.aggregate.aggregator import LabelDPAggregator
from privlearn.aggregate.bags import label_sorted_bags, random_bags

NAMES = np.array(["b", "a", "b", "c"])
Y = np.array([0.0, 1.0, 0.5, 9.0])


def aggregator(**changes):
    return LabelDPAggregator(**({"bounds": (0, 1), "epsilon": 1e7} | changes))


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_scikit_learn_finds_nothing_to_complain_about():
    # Its checks end where input is not a matrix of numbers; what they would cover is below.
    check_estimator(aggregator())


def test_each_row_gets_the_clipped_mean_of_its_bag():
    model = aggregator().fit(NAMES, Y)
    assert model.bags_.tolist() == ["a", "b", "c"]
    assert model.sizes_.tolist() == [1, 2, 1]
    assert model.means_ == pytest.approx([1.0, 0.25, 1.0], abs=1e-4)
    assert model.transform(["c", "b", "b"]) == pytest.approx([1.0, 0.25, 0.25], abs=1e-4)


def test_output_is_constant_within_bags_and_the_same_on_every_transform():
    bags, y = random_bags(60, 7, 0), np.random.default_rng(0).random(60)
    model = aggregator(epsilon=0.5).fit(bags, y)
    noisy = model.transform(bags)
    assert np.array_equal(noisy, model.transform(bags))  # the release is drawn once
    assert np.array_equal(noisy, model.means_[bags])


def test_every_fit_draws_new_noise():
    model = aggregator(epsilon=0.5)
    first, second = model.fit(NAMES, Y).means_, clone(model).fit(NAMES, Y).means_
    assert (first != second).all()


def test_a_column_gives_a_column_so_that_column_transformers_work():
    frame = pd.DataFrame({"campaign": NAMES, "age": [1.0, 2.0, 3.0, 4.0]})
    encoded = make_column_transformer(
        (aggregator(), ["campaign"]), remainder="passthrough"
    ).fit_transform(frame, Y)
    assert encoded[:, 0] == pytest.approx([0.25, 1.0, 0.25, 1.0], abs=1e-4)
    assert encoded[:, 1].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_parameters_are_stored_untouched_and_checked_in_fit():
    model = LabelDPAggregator(bounds=(1, 0), epsilon=-1.0)
    assert model.get_params()["bounds"] == (1, 0)
    with pytest.raises(ValueError, match="bounds must increase"):
        model.fit(NAMES, Y)


def test_clamp_and_noise_level():
    bags = np.arange(200)
    model = aggregator(epsilon=1.0, clamp=True).fit(bags, np.zeros(200))
    assert ((model.means_ >= 0) & (model.means_ <= 1)).all()
    assert model.noise_sd_ == pytest.approx(np.sqrt(2), rel=1e-6)
    assert aggregator(epsilon=1.0).fit(bags, np.zeros(200)).means_.min() < 0


def test_guarantee_is_that_of_one_fit():
    assert aggregator(epsilon=0.5).fit(NAMES, Y).guarantee_.epsilon == 0.5


def test_bags_built_from_labels_are_refused():
    bags = label_sorted_bags(Y, 2)
    with pytest.raises(ValueError, match="label-sorted bags depend on the labels"):
        aggregator().fit(bags, Y)
    with pytest.raises(ValueError, match="depend on the labels"):
        aggregator().fit(bags[:, None], Y)
    assert not aggregator(accept_label_leak=True).fit(bags, Y).guarantee_.is_private


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (NAMES, [0.0, np.nan, 1.0, 1.0], ValueError, "y contains NaN"),
        (NAMES, [0.0, np.inf, 1.0, 1.0], ValueError, "y contains infinity"),
        (NAMES, Y[:3], ValueError, "inconsistent numbers of samples"),
        ([0.5, 1.5, 2.5, 3.5], Y, TypeError, "bags must be integers or strings"),
        (np.zeros((4, 2), int), Y, ValueError, r"one column of bag ids, got shape \(4, 2\)"),
        ([], [], ValueError, "at least one row"),
    ],
)
def test_bad_input_is_named(X, y, error, message):
    with pytest.raises(error, match=message):
        aggregator().fit(X, y)


@pytest.mark.parametrize("ids", [["a", "zz"], [1, 2]])
def test_unknown_bags_are_refused(ids):
    model = aggregator().fit(NAMES, Y)
    with pytest.raises(ValueError, match=r"unknown bag ids, such as"):
        model.transform(ids)
