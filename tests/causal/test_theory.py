"""Closed forms against numbers known by hand, by inversion, or by OpenDP."""

import numpy as np
import opendp.prelude as dp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.causal import theory
from privlearn.privacy import RandomizedResponse

Y0, Y1 = [0.0, 1, 1, 2, 1, 2, 3, 3], [1.0, 1, 2, 2, 2, 2, 3, 3]
CLUSTERS, TREATED = [0, 0, 0, 0, 1, 1, 1, 1], [2, 2]


def test_qualities_of_the_tiny_world_are_those_worked_out_by_hand():
    phi = [theory.cluster_quality(y, CLUSTERS, [2, 2]) for y in (Y0, Y1)]
    np.testing.assert_allclose(phi, [0.197917, 0.083333], atol=1e-6)
    assert theory.neyman_variance(Y0, Y1, CLUSTERS, TREATED) == pytest.approx(0.244792, abs=1e-6)


def test_ideal_gap_of_the_tiny_world_is_half_of_the_published_upper_bound():
    ideal = theory.ideal_gap(Y0, Y1, CLUSTERS, TREATED, 0.4)
    assert ideal == pytest.approx(0.25, abs=1e-12)
    assert theory.gap_factor(0.4) * 0.28125 == pytest.approx(0.5)


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=2, max_size=9),
    lam=st.floats(0, 0.99),
)
def test_inverse_and_columns_of_the_response_matrix(weights, lam):
    prior = np.array(weights) / sum(weights)
    channel = theory.response_matrix(prior, lam)
    np.testing.assert_allclose(channel.sum(0), 1)
    inverse = theory.inverse_response_matrix(prior, lam)
    np.testing.assert_allclose(inverse @ channel, np.eye(len(prior)), atol=1e-10)


def test_uniform_prior_is_the_randomized_response_that_opendp_certifies():
    lam = float(theory.resampling_probability(2.0, 1 / 12))
    keep = 1 - lam + lam / 12
    assert (round(lam, 6), round(keep, 6)) == (0.652562, 0.401818)
    assert keep == pytest.approx(RandomizedResponse(n_categories=12, epsilon=2.0).keep_probability)
    # The certificate of OpenDP is read through its own constructor; "contrib" is put back.
    enabled = "contrib" in dp.GLOBAL_FEATURES
    dp.enable_features("contrib")
    try:
        response = dp.m.make_randomized_response(list(range(12)), prob=keep)
    finally:
        if not enabled:
            dp.disable_features("contrib")
    assert response.map(1) == pytest.approx(2.0, abs=1e-9)


def test_warner_and_score_variance_agree_for_two_values():
    assert theory.warner_variance(1.0) == pytest.approx(0.920674, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.001, 0.05, 0.2])
def test_delta_and_epsilon_are_inverse_to_each_other(gamma):
    for delta in (0.0, 0.01, 0.3):
        epsilon = theory.label_dp_epsilon(0.5, gamma, 4.0, delta=delta)
        assert float(theory.label_dp_delta(epsilon, 0.5, gamma, 4.0)) == pytest.approx(delta)
        lam = theory.resampling_probability(epsilon - 0.5, gamma, delta)
        assert float(lam) == pytest.approx(0.5)


def test_nothing_is_promised_below_what_the_priors_cost():
    assert theory.label_dp_delta([0.0, 0.19, 0.2], 0.95, 0.01, 10.0).tolist()[:2] == [1, 1]
    assert float(theory.label_dp_delta(0.2, 0.95, 0.01, 10.0)) == pytest.approx(0.05)


def test_at_delta_below_the_boundary_the_sensitivity_is_two_not_one():
    assert float(theory.prior_epsilon(10.0)) == 0.2
    assert float(theory.label_dp_epsilon(0.5, 0.1, 10.0, sensitivity=1)) < float(
        theory.label_dp_epsilon(0.5, 0.1, 10.0)
    )


@given(
    lam=st.floats(0.05, 0.999),
    gamma=st.floats(1e-5, 0.5),
    sigma=st.floats(0.1, 100),
    over=st.floats(0, 5),
)
def test_composed_delta_is_never_above_the_sum_of_the_stages(lam, gamma, sigma, over):
    epsilon = 2 / sigma + over
    composed = float(theory.composed_delta(epsilon, lam, gamma, sigma))
    assert composed <= float(theory.label_dp_delta(epsilon, lam, gamma, sigma)) + 1e-12


def test_composed_epsilon_inverts_composed_delta():
    epsilon = theory.composed_epsilon(0.95, 0.01, 10.0, delta=0.045)
    assert float(theory.composed_delta(epsilon, 0.95, 0.01, 10.0)) == pytest.approx(0.045)
    assert theory.composed_epsilon(0.95, 0.01, 10.0, delta=0.9) == 0
    pure = theory.composed_epsilon(0.5, 0.1, 10.0)
    assert pure == pytest.approx(float(theory.label_dp_epsilon(0.5, 0.1, 10.0)), rel=1e-9)


@given(st.floats(-50, 50), st.floats(0.1, 20))
def test_gap_scales_with_the_square_of_the_values_and_forgets_their_origin(shift, scale):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), (2, 3, 2))
    v = np.array([0.0, 1, 3, 4])
    sizes = [[5, 7], [9, 9], [4, 3]]
    base = theory.variance_gap(p, q, v, 0.3, sizes)
    moved = theory.variance_gap(p, q, shift + scale * v, 0.3, sizes)
    assert moved == pytest.approx(scale**2 * base, rel=1e-6)


def test_user_level_baselines_have_the_variances_found_by_simulation():
    found = theory.one_bit_variance([0, 2, 3], (0.0, 3.0), 1.3)
    np.testing.assert_allclose(found, [4.635, 6.635, 4.635], atol=5e-4)


def test_aggregate_baselines_have_the_variances_found_by_simulation():
    """The numbers of one cell mean: n = 8 of one cell is half of a gap with two equal cells."""
    v = [0.0, 1, 2, 3]
    sizes = [[8, 8]]
    assert theory.noisy_mean_gap(3, 1.3, sizes) / 2 == pytest.approx(0.1664, abs=5e-5)
    kinds = [(False, 1.0355), (True, 0.370)]
    for centred, expected in kinds:
        gap = theory.noisy_histogram_gap(v, 1.3, sizes, centred=centred, integer=False) / 2
        assert gap == pytest.approx(expected, abs=5e-4)


def test_integer_noise_has_the_variance_of_its_probabilities():
    x = np.arange(-400, 401)
    for scale in (0.3, 1.0, 7.0):
        p = np.exp(-np.abs(x) / scale)
        exact = (p / p.sum()) @ x**2
        assert float(theory.discrete_laplace_variance(scale)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.label_dp_delta(1.0, 0.5, 0.1, -1.0), "sigma"),
        (lambda: theory.label_dp_delta(-1.0, 0.5, 0.1), "epsilon"),
        (lambda: theory.second_stage_delta(1.0, 1.5, 0.1), "lam"),
        (lambda: theory.second_stage_delta(1.0, 0.5, 0.0), "gamma"),
        (lambda: theory.label_dp_epsilon(0.5, 0.1, delta=1.0), "delta"),
        (lambda: theory.response_matrix([0.5, 0.4], 0.5), "sum to one"),
        (lambda: theory.response_matrix([1.5, -0.5], 0.5), "negative"),
        (lambda: theory.inverse_response_matrix([0.5, 0.5], 1.0), "lam"),
        (lambda: theory.variance_gap([[[1.0]]], [[[1.0]]], [0, 1], 0.5, [[1, 1]]), "K = 2"),
        (lambda: theory.cell_weights([[0, 3]]), "arm is missing"),
        (lambda: theory.cluster_quality([1.0, 2.0], [0, 1], [1, 1]), "two units"),
        (lambda: theory.warner_variance(0.0), "epsilon"),
        (lambda: theory.composed_delta(1.0, 0.5, 0.1, 0.0), "sigma"),
    ],
)
def test_bad_arguments_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
