"""Losses on bags: identities to rounding error, unbiasedness by enumeration, shape errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.aggregate import kernels, losses
from privlearn.aggregate.layout import (
    PaddedBags,
    SegmentBags,
    equal_bags,
    leave_own_out_mean,
    member_log_mean_exp,
    member_mean,
    pad_rows,
    segment_bags,
    sizes_of,
)
from privlearn.simulate.precision import float64


@pytest.fixture(autouse=True)
def _sixty_four_bits():
    with float64():
        yield


def random_bags(seed, trailing=()):
    """Unequal bags, rows shuffled: (segments, padded, rows of padded, predictions, ybar)."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(7), rng.permutation([1, 1, 2, 3, 4, 5, 5])))
    predictions = rng.normal(size=(ids.size, *trailing))
    ybar = rng.uniform(size=(7, *trailing))
    if trailing:
        ybar /= ybar.sum(axis=-1, keepdims=True)
    padded = pad_rows(ids)
    return segment_bags(ids), padded.bags, padded.rows, jnp.asarray(predictions), jnp.asarray(ybar)


def as_layout(layout, seed, trailing=()):
    segments, padded, index, predictions, ybar = random_bags(seed, trailing)
    return (
        (segments, predictions, ybar)
        if layout == "segments"
        else (padded, predictions[index], ybar)
    )


LAYOUTS = pytest.mark.parametrize("layout", ["segments", "padded"])
WEIGHTS = pytest.mark.parametrize("weights", ["size", "bag"])


@LAYOUTS
@WEIGHTS
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trailing", [(), (3,)])
def test_instance_loss_is_bag_loss_plus_within_bag_variance(layout, weights, seed, trailing):
    bags, f, ybar = as_layout(layout, seed, trailing)
    bag = losses.bag_loss("squared", ybar, f, bags, weights=weights)
    instance = losses.instance_loss("squared", ybar, f, bags, weights=weights)
    variance = losses.within_bag_variance(f, bags, weights=weights)
    assert abs(instance - bag - variance) < 1e-12
    assert variance > 0.01


@LAYOUTS
@WEIGHTS
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "trailing"), [("logistic", ()), ("poisson", ()), ("softmax", (4,)), ("logistic", (2,))]
)
def test_instance_loss_is_bag_loss_plus_jensen_gap_on_the_link_scale(
    layout, weights, seed, name, trailing
):
    bags, f, ybar = as_layout(layout, seed, trailing)
    bag = losses.bag_loss(name, ybar, f, bags, scale="link", weights=weights)
    instance = losses.instance_loss(name, ybar, f, bags, weights=weights)
    gap = losses.jensen_gap(name, f, bags, weights=weights)
    assert abs(instance - bag - gap) < 1e-12
    assert gap > 1e-3


def test_within_bag_variance_is_the_mean_of_squared_pair_differences():
    bags, f, _ = as_layout("segments", 0)
    by_pairs = 0.0
    for a in range(bags.sizes.shape[0]):
        members = f[bags.ids == a]
        k = members.size
        pairs = ((members[:, None] - members[None, :]) ** 2).sum() / (2 * k**2)
        by_pairs += k / f.size * pairs
    np.testing.assert_allclose(losses.within_bag_variance(f, bags), by_pairs, rtol=1e-12)


def test_on_the_response_scale_the_difference_is_convexity_but_depends_on_the_responses():
    bags, f, ybar = as_layout("segments", 1)
    other = 1 - ybar

    def difference(y):
        bag = losses.bag_loss("logistic", y, f, bags, scale="response")
        return losses.instance_loss("logistic", y, f, bags) - bag

    assert difference(ybar) > 0
    assert difference(other) > 0
    assert abs(difference(ybar) - difference(other)) > 1e-3


@pytest.mark.parametrize("name", ["squared", "logistic", "poisson", "softmax"])
@pytest.mark.parametrize("scale", ["link", "response"])
def test_both_layouts_give_the_same_loss_and_gradient(name, scale):
    segments, padded, index, f, ybar = random_bags(5, (3,) if name == "softmax" else ())

    def with_segments(f, rho):
        return losses.interpolating_loss(name, ybar, f, segments, rho, scale=scale)

    def with_padding(f, rho):
        return losses.interpolating_loss(name, ybar, f[index], padded, rho, scale=scale)

    by_segments = jax.jit(jax.value_and_grad(with_segments))
    by_padding = jax.jit(jax.value_and_grad(with_padding))
    for rho in (0.0, 0.3, 1.0, 2.5):
        one, gradient_one = by_segments(f, rho)
        two, gradient_two = by_padding(f, rho)
        np.testing.assert_allclose(one, two, rtol=1e-12)
        np.testing.assert_allclose(gradient_one, gradient_two, atol=1e-14)


def test_padding_is_ignored_even_when_it_is_not_a_number():
    _, padded, index, f, ybar = random_bags(6)
    clean = f[index]
    dirty = jnp.where(padded.mask, clean, jnp.nan)

    def loss(f):
        return losses.interpolating_loss("logistic", ybar, f, padded, 0.3, scale="response")

    np.testing.assert_allclose(loss(dirty), loss(clean), rtol=1e-12)
    gradient = jax.grad(loss)(dirty)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~np.asarray(padded.mask)] == 0).all()


def test_equal_bags_agree_with_the_kernels_that_the_simulation_uses():
    rng = np.random.default_rng(0)
    f, ybar = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=6))
    bags = equal_bags(6, 4)
    pairs = [
        (losses.bag_loss("squared", ybar, f, bags), kernels.bag_loss(f, ybar)),
        (losses.instance_loss("squared", ybar, f, bags), kernels.instance_loss(f, ybar)),
        (losses.within_bag_variance(f, bags), kernels.within_bag_variance(f)),
        (
            losses.interpolating_loss("squared", ybar, f, bags, 0.3),
            kernels.interpolating_loss(f, ybar, 0.3),
        ),
    ]
    for general, special in pairs:
        np.testing.assert_allclose(general, special, rtol=1e-13)
    # The two weightings coincide for equal bags.
    by_bag = losses.bag_loss("squared", ybar, f, bags, weights="bag")
    np.testing.assert_allclose(by_bag, pairs[0][0], rtol=1e-13)


def test_weights_by_size_and_by_bag_differ_for_unequal_bags_and_an_array_is_used_as_it_is():
    bags, f, ybar = as_layout("segments", 2)
    by_size = losses.bag_loss("squared", ybar, f, bags, weights="size")
    by_bag = losses.bag_loss("squared", ybar, f, bags, weights="bag")
    assert abs(by_size - by_bag) > 1e-4
    given = losses.bag_loss("squared", ybar, f, bags, weights=2.0 * bags.sizes / f.size)
    np.testing.assert_allclose(given, 2 * by_size, rtol=1e-12)


def test_rho_interpolates_linearly_between_bag_and_instance_loss():
    bags, f, ybar = as_layout("padded", 3)
    bag = losses.bag_loss("logistic", ybar, f, bags)
    instance = losses.instance_loss("logistic", ybar, f, bags)
    for rho in (0.0, 0.25, 1.0, 3.0):
        value = losses.interpolating_loss("logistic", ybar, f, bags, rho)
        np.testing.assert_allclose(value, (1 - rho) * bag + rho * instance, rtol=1e-12)


def test_a_users_loss_works_on_both_scales():
    bags, f, ybar = as_layout("segments", 4)

    def huber(y, eta):
        return jnp.where(jnp.abs(y - eta) < 1, 0.5 * (y - eta) ** 2, jnp.abs(y - eta) - 0.5)

    bag = losses.bag_loss(huber, ybar, f, bags)
    by_hand = sum(
        size / f.size * huber(y, f[bags.ids == a].mean())
        for a, (size, y) in enumerate(zip(bags.sizes, ybar, strict=True))
    )
    np.testing.assert_allclose(bag, by_hand, rtol=1e-12)
    probit = losses.custom_family(
        lambda y, eta: (
            -(y * jax.scipy.stats.norm.logcdf(eta) + (1 - y) * jax.scipy.stats.norm.logsf(eta))
        ),
        inverse_link=jax.scipy.stats.norm.cdf,
        response_loss=lambda y, p: -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p)),
        name="probit",
    )
    pooled = losses.bag_prediction(f, bags, probit, scale="response")
    expected = jnp.sum(
        bags.sizes / f.size * -(ybar * jnp.log(pooled) + (1 - ybar) * jnp.log1p(-pooled))
    )
    value = losses.bag_loss(probit, ybar, f, bags, scale="response")
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_the_response_scale_averages_probabilities_and_survives_large_logits():
    bags, f, ybar = as_layout("padded", 7)
    mean = losses.bag_prediction(f, bags, "logistic", scale="response")
    by_hand = member_mean(jax.nn.sigmoid(f), bags)
    np.testing.assert_allclose(mean, by_hand, rtol=1e-13)
    value = losses.proportion_loss(ybar, f, bags)
    weight = sizes_of(bags) / sizes_of(bags).sum()
    cross = -(ybar * jnp.log(by_hand) + (1 - ybar) * jnp.log1p(-by_hand))
    np.testing.assert_allclose(value, jnp.sum(weight * cross), rtol=1e-12)
    huge, gradient = jax.value_and_grad(lambda f: losses.proportion_loss(ybar, f, bags))(f * 1e4)
    assert np.isfinite(huge)
    assert np.isfinite(gradient).all()
    squared = losses.proportion_loss(ybar, f, bags, kind="squared")
    np.testing.assert_allclose(squared, jnp.sum(weight * (ybar - by_hand) ** 2), rtol=1e-12)


def test_two_class_softmax_is_the_logistic_loss_for_every_aggregate_loss():
    bags, f, ybar = as_layout("padded", 8)
    logits = jnp.stack([jnp.zeros_like(f), f], axis=-1)
    shares = jnp.stack([1 - ybar, ybar], axis=-1)
    pairs = [
        (
            losses.proportion_loss(ybar, f, bags),
            losses.proportion_loss(shares, logits, bags, labels="classes"),
        ),
        (
            losses.interpolating_loss("logistic", ybar, f, bags, 0.4),
            losses.interpolating_loss("softmax", shares, logits, bags, 0.4),
        ),
        (
            losses.easyllp_loss("logistic", ybar, f, bags),
            losses.easyllp_loss("softmax", shares, logits, bags, labels="classes"),
        ),
        (
            losses.easyllp_loss("logistic", ybar, f, bags, control_variate=0.3, prior=0.4),
            losses.easyllp_loss(
                "softmax",
                shares,
                logits,
                bags,
                labels="classes",
                prior=jnp.array([0.6, 0.4]),
                control_variate=jnp.array([0.0, 0.3]),
            ),
        ),
    ]
    for binary, classes in pairs:
        np.testing.assert_allclose(binary, classes, rtol=1e-11)


def test_easyllp_for_canonical_losses_is_the_loss_at_the_pseudo_label():
    bags, f, ybar = as_layout("segments", 9)
    binary = losses.easyllp_loss("logistic", ybar, f, bags, labels="binary")
    response = losses.easyllp_loss("logistic", ybar, f, bags, labels="response")
    np.testing.assert_allclose(binary, response, rtol=1e-12)


# --------------------------------------------------------------------- unbiasedness, by enumeration

P = np.array([0.2, 0.5, 0.3])
P_ONE = np.array([0.1, 0.6, 0.9])
LOGITS = np.array([-1.0, 0.4, 2.0])
PRIOR = float(P @ P_ONE)
OUTCOMES = [(x, y) for x in range(3) for y in range(2)]
CHANCE = np.array([P[x] * (P_ONE[x] if y else 1 - P_ONE[x]) for x, y in OUTCOMES])


def all_bags(k):
    """Every bag of k independent draws: features, responses, probability."""
    draws = list(itertools.product(range(len(OUTCOMES)), repeat=k))
    x = np.array([[OUTCOMES[i][0] for i in draw] for draw in draws])
    y = np.array([[OUTCOMES[i][1] for i in draw] for draw in draws])
    return x, y, np.array([CHANCE[list(draw)].prod() for draw in draws])


def per_bag(function, f, ybar):
    """Value of a loss for each bag alone."""
    return np.asarray(
        jax.vmap(lambda f, y: function(y[None], f[None], PaddedBags(jnp.ones((1, f.size), bool))))(
            jnp.asarray(f), jnp.asarray(ybar)
        )
    )


def test_easyllp_is_exactly_unbiased_and_the_control_variate_keeps_the_mean():
    x, y, chance = all_bags(3)
    f, ybar = LOGITS[x], y.mean(axis=1)
    true = sum(
        c * losses.logistic_loss(float(l), LOGITS[i])
        for c, (i, l) in zip(CHANCE, OUTCOMES, strict=True)
    )

    def plain(ybar, f, bags):
        return losses.easyllp_loss("logistic", ybar, f, bags, prior=PRIOR)

    difference = losses.logistic_loss(1.0, LOGITS) - losses.logistic_loss(0.0, LOGITS)

    def steadied(ybar, f, bags):
        control = P @ np.asarray(difference)
        return losses.easyllp_loss("logistic", ybar, f, bags, prior=PRIOR, control_variate=control)

    assert abs(true - 0.51723836702) < 1e-11
    for function, variance in ((plain, 0.4806), (steadied, 0.2847)):
        values = per_bag(function, f, ybar)
        assert abs(chance @ values - true) < 1e-12
        assert abs(chance @ values**2 - true**2 - variance) < 1e-4


def test_an_instance_loss_with_the_bag_mean_is_biased_where_easyllp_is_not():
    x, y, chance = all_bags(3)
    values = per_bag(
        lambda ybar, f, bags: losses.instance_loss("logistic", ybar, f, bags),
        LOGITS[x],
        y.mean(axis=1),
    )
    assert abs(chance @ values - 0.51723836702) > 0.02


def test_easyllp_with_the_prior_of_the_other_bags_is_exactly_unbiased():
    x, y, chance = all_bags(2)
    pairs = np.array(list(itertools.product(range(len(chance)), repeat=2)))
    f, ybar = LOGITS[x[pairs]], y.mean(axis=1)[pairs]
    weight = chance[pairs].prod(axis=1)

    def expected(prior):
        values = jax.vmap(
            lambda f, ybar: losses.easyllp_loss("logistic", ybar, f, equal_bags(2, 2), prior=prior)
        )(jnp.asarray(f), jnp.asarray(ybar))
        return float(weight @ np.asarray(values))

    assert abs(expected("leave-own-bag-out") - 0.51723836702) < 1e-11
    assert abs(expected("plug-in") - 0.51723836702) > 1e-3


def test_debiased_square_loss_is_exactly_unbiased():
    x, y, chance = all_bags(3)
    f = np.array([0.3, 0.5, 0.8])
    true = sum(c * (l - f[i]) ** 2 for c, (i, l) in zip(CHANCE, OUTCOMES, strict=True))
    mean_f = float(P @ f)

    def debiased(ybar, f, bags):
        return losses.debiased_square_loss(ybar, f, bags, prior=PRIOR, mean_prediction=mean_f)

    values = per_bag(debiased, f[x], y.mean(axis=1))
    assert abs(true - 0.181) < 1e-12
    assert abs(chance @ values - true) < 1e-12


def test_debiased_square_loss_without_known_means_is_exactly_unbiased_too():
    x, y, chance = all_bags(2)
    f = np.array([0.3, 0.5, 0.8])
    pairs = np.array(list(itertools.product(range(len(chance)), repeat=2)))
    weight = chance[pairs].prod(axis=1)
    values = jax.vmap(lambda f, ybar: losses.debiased_square_loss(ybar, f, equal_bags(2, 2)))(
        jnp.asarray(f[x[pairs]]), jnp.asarray(y.mean(axis=1)[pairs])
    )
    assert abs(weight @ np.asarray(values) - 0.181) < 1e-12


# ------------------------------------------------------------------------------ invariances, layout


LOSS = jax.jit(functools.partial(losses.interpolating_loss, "squared"))


@given(seed=st.integers(0, 10_000), rho=st.floats(0, 3))
def test_renaming_bags_and_permuting_rows_changes_nothing(seed, rho):
    with float64():
        segments, _, _, f, ybar = random_bags(seed)
        rng = np.random.default_rng(seed)
        names, rows = rng.permutation(len(ybar)), rng.permutation(f.size)
        other = segment_bags(names[np.asarray(segments.ids)][rows])
        renamed = np.empty_like(ybar)
        renamed[names] = ybar
        one = LOSS(ybar, f, segments, rho)
        two = LOSS(renamed, f[rows], other, rho)
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_pad_rows_and_segments_agree_on_means_sizes_and_log_means():
    segments, padded, index, f, _ = random_bags(11)
    np.testing.assert_array_equal(sizes_of(segments), sizes_of(padded))
    np.testing.assert_allclose(member_mean(f, segments), member_mean(f[index], padded), rtol=1e-13)
    one = member_log_mean_exp(f, segments)
    np.testing.assert_allclose(one, member_log_mean_exp(f[index], padded), rtol=1e-13)
    np.testing.assert_allclose(one, jnp.log(member_mean(jnp.exp(f), segments)), rtol=1e-12)


def test_leave_own_out_mean_leaves_the_own_bag_out():
    values, sizes = jnp.array([1.0, 2.0, 5.0]), jnp.array([1, 2, 3])
    np.testing.assert_allclose(
        leave_own_out_mean(values, sizes), [(4 + 15) / 5, (1 + 15) / 4, (1 + 4) / 3]
    )


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 2], "ids: 3 bags but 2 rows"),
        ([0, 0, 2, 2], "bag 1 has no rows"),
        ([-1, 0], "ids must be numbered from 0"),
        ([0.5, 1.0], "ids must be a vector of integers"),
        ([[0], [1]], "ids must be a vector of integers"),
    ],
)
def test_bad_bag_numbers_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        segment_bags(ids)


def test_ids_beyond_n_bags_are_refused():
    with pytest.raises(ValueError, match="below n_bags = 2"):
        segment_bags([0, 1, 2], 2)


@pytest.mark.parametrize("name", ["squared", "logistic"])
def test_an_extra_axis_in_predictions_is_an_error_not_a_broadcast(name):
    bags = equal_bags(4, 4)
    with pytest.raises(ValueError, match="predictions do not fit ybar"):
        losses.bag_loss(name, jnp.zeros(4), jnp.zeros((4, 4, 1)), bags)
    with pytest.raises((ValueError, TypeError)):
        losses.instance_loss(name, jnp.zeros(4), jnp.zeros((4, 4, 1)), bags)
    with pytest.raises(ValueError, match="predictions"):
        losses.easyllp_loss(name, jnp.zeros(4), jnp.zeros((4, 4, 1)), bags)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda b, f, y: losses.bag_loss("squared", y[:-1], f, b),
            "ybar must have one entry per bag",
        ),
        (lambda b, f, y: losses.bag_loss("squared", y, f[:-1], b), "predictions must have leading"),
        (lambda b, f, y: losses.interpolating_loss("squared", y, f, b, -0.1), "rho must be"),
        (
            lambda b, f, y: losses.interpolating_loss("squared", y, f, b, float("nan")),
            "rho must be",
        ),
        (lambda b, f, y: losses.bag_loss("hinge", y, f, b), "loss must be one of"),
        (lambda b, f, y: losses.bag_loss("squared", y, f, b, scale="logit"), "scale must be"),
        (lambda b, f, y: losses.bag_loss("squared", y, f, b, weights="row"), "weights must be"),
        (lambda b, f, y: losses.bag_loss(jnp.hypot, y, f, b, scale="response"), "inverse_link"),
        (lambda b, f, y: losses.jensen_gap("squared", f, b), "loss must be canonical"),
        (lambda b, f, y: losses.easyllp_loss("logistic", y, f, b, labels="soft"), "labels must be"),
        (lambda b, f, y: losses.easyllp_loss("logistic", y, f, b, prior="mean"), "prior must be"),
        (
            lambda b, f, y: losses.easyllp_loss("logistic", y, f, b, control_variate="own"),
            "control_variate must be",
        ),
        (lambda b, f, y: losses.proportion_loss(y, f, b, kind="hinge"), "kind must be"),
        (lambda b, f, y: losses.debiased_square_loss(y, f, b, prior=0.5), "mean_prediction"),
    ],
)
def test_bad_arguments_are_named(call, message):
    bags, f, ybar = as_layout("segments", 0)
    with pytest.raises(ValueError, match=message):
        call(bags, f, ybar)


def test_one_bag_has_no_other_bags_to_estimate_the_prior_from():
    bags = SegmentBags(jnp.zeros(3, int), jnp.array([3]))
    with pytest.raises(ValueError, match="at least two bags"):
        losses.easyllp_loss("logistic", jnp.array([0.5]), jnp.zeros(3), bags)
