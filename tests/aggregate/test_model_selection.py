"""Choosing rho and cutting folds: bags stay whole, the bag loss decides, theory plugs in."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut

from privlearn.aggregate import theory
from privlearn.aggregate.estimators import AggregateRegressor, BagKFold
from privlearn.aggregate.linear import BagData, fit_linear, fold_losses
from privlearn.aggregate.model_selection import choose_rho, held_out_bags, plug_in


def linear_data(seed=0, m=60, k=4, p=8, signal=2.0, noise=0.5, sizes=None):
    rng = np.random.default_rng(seed)
    sizes = np.full(m, k) if sizes is None else np.asarray(sizes)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.normal(size=(codes.size, p))
    theta = rng.normal(size=p)
    theta *= np.sqrt(signal) / np.linalg.norm(theta)
    y = X @ theta + np.sqrt(noise) * rng.normal(size=codes.size)
    return BagData(X, np.bincount(codes, y) / sizes, codes, sizes), theta


@pytest.mark.parametrize("shuffle", [False, True])
def test_no_bag_is_on_both_sides_and_every_bag_is_held_out_once(shuffle):
    data, _ = linear_data(sizes=[1, 5, 2, 2, 7, 1, 3, 3, 2, 1, 4])
    folds = BagKFold(4, shuffle=shuffle, random_state=0 if shuffle else None)
    seen = []
    for train, test in folds.split(data.features, bags=data.codes):
        assert not set(data.codes[train]) & set(data.codes[test])
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(len(data.codes)))
        seen += sorted(set(data.codes[test]))
    assert sorted(seen) == list(range(11))
    assert folds.get_n_splits() == 4


def test_shuffled_folds_repeat_with_the_seed_and_differ_without():
    one, two, other = (
        BagKFold(5, shuffle=True, random_state=seed).held_out(40) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_folds_take_bags_under_either_name_but_not_both():
    data, _ = linear_data(m=6)
    by_bags = list(BagKFold(3).split(data.features, bags=data.codes))
    by_groups = list(BagKFold(3).split(data.features, groups=data.codes))
    for (_, one), (_, two) in zip(by_bags, by_groups, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="groups and bags"):
        next(BagKFold(3).split(data.features, None, data.codes, data.codes))


def test_fold_losses_are_those_of_fits_on_the_other_bags():
    data, _ = linear_data(m=12, sizes=[1, 5, 2, 2, 7, 1, 3, 3, 2, 1, 4, 9], p=3)
    rhos = np.array([0.0, 0.1, 1.0])
    held_out = BagKFold(3).held_out(12)
    for weights in ("size", "bag"):
        losses = fold_losses(data, held_out, rhos, alpha=0.01, weights=weights)
        for i, out in enumerate(held_out):
            rows = ~out[data.codes]
            _, codes = np.unique(data.codes[rows], return_inverse=True)
            train = BagData(data.features[rows], data.means[~out], codes, data.sizes[~out])
            path = fit_linear(train, rhos, alpha=0.01, weights=weights)
            f = data.features @ path.coef.T + path.intercept
            gaps = np.stack([np.bincount(data.codes, column) for column in f.T]) / data.sizes
            gaps = (data.means - gaps) ** 2
            weight = data.sizes[out] if weights == "size" else None
            by_hand = np.average(gaps[:, out], axis=1, weights=weight)
            np.testing.assert_allclose(losses[i], by_hand, rtol=1e-8)


def test_folds_with_fewer_bags_than_features_are_validated_with_the_least_norm_solution():
    data, _ = linear_data(m=12, k=4, p=20)
    out = np.zeros((1, 12), bool)
    out[0, :4] = True
    losses = fold_losses(data, out, [0.0, 0.2])
    rows = data.codes >= 4
    train = BagData(data.features[rows], data.means[4:], data.codes[rows] - 4, data.sizes[4:])
    path = fit_linear(train, [0.0, 0.2], solver="rows")
    f = (data.features @ path.coef.T + path.intercept).reshape(12, 4, 2).mean(axis=1)
    by_hand = ((data.means[:4, None] - f[:4]) ** 2).mean(axis=0)
    np.testing.assert_allclose(losses[0], by_hand, rtol=1e-6)


@pytest.mark.parametrize("p", [40, 120])
def test_searches_of_many_rhos_do_not_wait_for_each_other_forever(p):
    """Two batched decompositions in one program deadlock jaxlib's CPU pool (0.10, two cores)."""
    data, _ = linear_data(m=200, k=4, p=p)
    held_out = BagKFold(3).held_out(200)
    for _ in range(3):
        assert np.isfinite(fold_losses(data, held_out, np.logspace(-3, 1, 14))).all()


@pytest.mark.parametrize("cv", [5, BagKFold(5), GroupKFold(5), LeaveOneGroupOut()])
def test_any_splitter_that_keeps_bags_whole_will_do(cv):
    data, _ = linear_data(m=10)
    out = held_out_bags(cv, data)
    np.testing.assert_array_equal(out.sum(axis=0), np.ones(10))


def test_explicit_splits_are_taken_as_they_are():
    data, _ = linear_data(m=10)
    splits = list(BagKFold(2).split(data.features, bags=data.codes))
    np.testing.assert_array_equal(held_out_bags(splits, data), BagKFold(2).held_out(10))


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (KFold(3), "cv must keep bags whole"),
        ([(np.arange(8), np.arange(8, 8))], "cv must leave bags on both sides"),
        ([(np.arange(4, 16), np.arange(4))], "cv must train on every bag"),
        (1, "cv must be at least 2"),
        (None, "cv must be an int"),
        ("loo", "cv must be an int"),
    ],
)
def test_splits_that_cut_or_lose_bags_are_refused(cv, message):
    data, _ = linear_data(m=10)
    with pytest.raises(ValueError, match=message):
        held_out_bags(cv, data)


def test_the_rho_of_least_loss_is_chosen_and_the_1se_rule_takes_the_largest_near_it():
    rhos = np.array([1.0, 0.0, 0.1, 10.0])
    losses = np.array([[1.03, 1.2, 1.0, 3.0], [0.95, 1.0, 0.9, 2.0], [1.1, 1.1, 1.05, 2.5]])
    least = choose_rho(rhos, losses)
    assert least.rho == 0.1
    np.testing.assert_allclose(least.stderr, losses.std(axis=0, ddof=1) / np.sqrt(3))
    assert choose_rho(rhos, losses, "1se").rho == 1.0
    ties = choose_rho([1.0, 0.0, 2.0], np.ones((2, 3)))
    assert ties.rho == 0.0


def test_cross_validation_with_many_bags_finds_a_rho_nearly_as_good_as_the_best():
    """gamma = .1, k = 4, SNR = 1: best risk .364, bag .667, instance .611."""
    risks, best = [], []
    for seed in range(4):
        data, theta = linear_data(seed, m=200, k=4, p=80, signal=1.0, noise=1.0)
        y = data.means[data.codes]
        model = AggregateRegressor(rho="cv", fit_intercept=False).fit(
            data.features, y, bags=data.codes
        )
        risks.append(((model.coef_ - theta) ** 2).sum())
        best.append(((model.rho_path_.coef - theta) ** 2).sum(axis=1).min())
        assert 0.01 <= model.rho_ <= 1
    assert np.mean(risks) < 1.1 * np.mean(best)
    assert np.mean(risks) < 0.45


def test_the_instance_loss_would_have_chosen_too_large_a_rho():
    data, _ = linear_data(3, m=300, k=4, p=120, signal=2.0, noise=0.5)
    held_out = BagKFold(5).held_out(300)
    rhos = np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    by_bag = rhos[fold_losses(data, held_out, rhos).mean(axis=0).argmin()]
    instance = np.zeros(len(rhos))
    for out in held_out:
        rows = ~out[data.codes]
        _, codes = np.unique(data.codes[rows], return_inverse=True)
        train = BagData(data.features[rows], data.means[~out], codes, data.sizes[~out])
        path = fit_linear(train, rhos)
        f = data.features[~rows] @ path.coef.T + path.intercept
        instance += ((data.means[data.codes[~rows]][:, None] - f) ** 2).mean(axis=0)
    assert rhos[instance.argmin()] > 3 * by_bag


# ------------------------------------------------------------------------------------------- theory


@pytest.mark.parametrize("sizes", [None, [1, 2, 3, 4, 10] * 400])
def test_plug_in_estimates_signal_and_noise_from_bag_means_alone(sizes):
    """2000 bags: the relative standard error of either is about 5 %; 8 of them are allowed."""
    data, _ = linear_data(1, m=2000, k=4, p=20, signal=2.0, noise=0.5, sizes=sizes)
    found = plug_in(data)
    assert found.noise == pytest.approx(0.5, rel=0.3)
    assert found.signal == pytest.approx(2.0, rel=0.4)
    assert found.gamma == 20 / len(data.codes)
    assert found.k == len(data.codes) / 2000
    best = theory.best_rho(gamma=found.gamma, k=found.k, signal=found.signal, noise=found.noise)
    assert found.rho == best.rho


def test_rho_by_theory_meets_the_best_risk():
    data, theta = linear_data(5, m=300, k=4, p=120, signal=1.0, noise=1.0)
    model = AggregateRegressor(rho="theory", fit_intercept=False)
    model.fit(data.features, data.means[data.codes], bags=data.codes)
    assert model.rho_ == model.plug_in_.rho
    assert 0.02 < model.rho_ < 1.0  # theory at the truth: .1345
    best = ((model.coef_ - theta) ** 2).sum()
    for rho in (0.0, 1.0):
        other = AggregateRegressor(rho=rho, fit_intercept=False)
        other.fit(data.features, data.means[data.codes], bags=data.codes)
        assert best < ((other.coef_ - theta) ** 2).sum()


def test_too_few_bags_for_the_theory_is_an_error_that_says_so():
    data, _ = linear_data(m=9, p=8)
    with pytest.raises(ValueError, match="rho='theory' needs more bags than coefficients"):
        AggregateRegressor(rho="theory").fit(data.features, data.means[data.codes], bags=data.codes)


def test_no_visible_signal_is_an_error_that_says_so():
    data, _ = linear_data(2, m=40, p=20, signal=1e-12, noise=1.0)
    messages = []
    for seed in range(20):
        noise_only = data._replace(means=np.random.default_rng(seed).normal(size=40))
        try:
            plug_in(noise_only)
        except ValueError as error:
            messages.append(str(error))
    assert messages  # about half the time
    assert all("rho='theory' estimates a signal variance of" in text for text in messages)


def test_rho_is_not_searched_when_every_row_is_its_own_bag():
    data, _ = linear_data()
    model = AggregateRegressor(rho="cv").fit(data.features, data.features[:, 0])
    assert model.rho_ == 0.0
    assert not hasattr(model, "cv_results_")
    assert AggregateRegressor(rho="theory").fit(data.features, data.features[:, 0]).rho_ == 0.0


@pytest.mark.parametrize("splits", [1, 2.5, "5"])
def test_bad_numbers_of_folds_are_refused(splits):
    with pytest.raises(ValueError, match="n_splits must be an integer"):
        BagKFold(splits)


def test_more_folds_than_bags_are_refused_by_the_splitter_and_reduced_by_the_estimator():
    data, _ = linear_data(m=3, p=1)
    with pytest.raises(ValueError, match="folds need as many bags"):
        next(BagKFold(5).split(data.features, bags=data.codes))
    model = AggregateRegressor(rho="cv", cv=5)
    model.fit(data.features, data.means[data.codes], bags=data.codes)
    assert model.cv_results_.losses.shape[0] == 3


def test_a_seed_without_shuffling_is_refused():
    with pytest.raises(ValueError, match="random_state has no effect"):
        BagKFold(5, random_state=0)
