"""Training on whole bags: meets closed forms, batches of bags are unbiased, rho vmaps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mlxtend.data import boston_housing_data

from privlearn.aggregate import kernels
from privlearn.aggregate.layout import pad_rows, segment_bags
from privlearn.aggregate.losses import easyllp_loss, interpolating_loss, proportion_loss
from privlearn.aggregate.training import (
    BagFit,
    Rows,
    fit_bags,
    fit_path,
    mlp,
    predict,
    predict_path,
    training_loop,
)
from privlearn.simulate.precision import float64

RNG = np.random.default_rng(0)
IDS = RNG.permutation(np.repeat(np.arange(12), RNG.integers(1, 6, 12)))
X = RNG.normal(size=(IDS.size, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=IDS.size)
YBAR = np.bincount(IDS, Y) / np.bincount(IDS)

KEY = jax.random.key(0)
LINEAR = (lambda key: jnp.zeros(3), lambda theta, X: X @ theta)
QUICK = optax.adam(0.05)


def closed_form(rho):
    arrays = (jnp.asarray(values) for values in (X, YBAR, IDS))
    return kernels.solve(kernels.gram_statistics_segments(*arrays), rho)


def proportion_objective(ybar, predictions, bags, weights):
    return proportion_loss(ybar, predictions, bags, weights=weights)


def easyllp_objective(ybar, predictions, bags, weights):
    return easyllp_loss("squared", ybar, predictions, bags, labels="response", weights=weights)


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_a_linear_model_reaches_the_closed_form_for_unequal_bags(rho):
    with float64():
        fit = fit_bags(
            LINEAR,
            "squared",
            X,
            YBAR,
            IDS,
            key=jax.random.key(0),
            rho=rho,
            epochs=3000,
            optimizer=QUICK,
        )
        stats = kernels.gram_statistics_segments(
            jnp.asarray(X), jnp.asarray(YBAR), jnp.asarray(IDS)
        )
        np.testing.assert_allclose(fit.model, kernels.solve(stats, rho), atol=1e-6)


def test_mini_batches_of_whole_bags_lead_to_the_same_solution_when_steps_shrink():
    with float64():
        schedule = optax.exponential_decay(0.05, 400, 0.5)
        fit = fit_bags(
            LINEAR,
            "squared",
            X,
            YBAR,
            IDS,
            key=jax.random.key(0),
            rho=0.3,
            epochs=2000,
            batch_bags=4,
            optimizer=optax.adam(schedule),
        )
        stats = kernels.gram_statistics_segments(
            jnp.asarray(X), jnp.asarray(YBAR), jnp.asarray(IDS)
        )
        np.testing.assert_allclose(fit.model, kernels.solve(stats, 0.3), atol=0.02)


def test_the_gradient_of_a_batch_of_unequal_bags_is_unbiased():
    """Average over all batches of one bag = the gradient of the whole loss, by enumeration."""
    with float64():
        theta = jnp.array([0.2, 0.1, -0.4])
        bags = segment_bags(IDS)
        weights = bags.sizes / IDS.size
        padded = pad_rows(IDS)

        def whole(theta):
            return interpolating_loss("squared", YBAR, X @ theta, bags, 0.4)

        def one_step(order):
            step, _ = training_loop(
                LINEAR[1],
                lambda y, f, b, w: interpolating_loss("squared", y, f, b, 0.4, weights=w),
                theta,
                jnp.asarray(X)[order],
                jnp.asarray(YBAR),
                Rows(jnp.asarray(padded.rows), padded.bags),
                weights,
                jax.random.key(0),
                epochs=1,
                batch_bags=1,
                optimizer=optax.sgd(1e-6),
            )
            return (theta - step) / 1e-6

        # An epoch of batches of one bag sees every bag once; with a tiny step its sum is the mean
        # gradient times the number of bags.
        total = one_step(jnp.arange(IDS.size))
        np.testing.assert_allclose(total / 12, jax.grad(whole)(theta), rtol=1e-4)


def test_full_batches_by_segments_and_by_padding_take_the_same_steps():
    with float64():
        key, network = jax.random.key(1), mlp(3, key=jax.random.key(0))
        common = {"key": key, "rho": 0.2, "epochs": 20, "optimizer": QUICK}
        one = fit_bags(network, "squared", X, YBAR, IDS, **common)
        two = fit_bags(network, "squared", X, YBAR, IDS, batch_bags=12, **common)
        np.testing.assert_allclose(one.losses, two.losses, rtol=1e-9)
        np.testing.assert_allclose(predict(one.model, X), predict(two.model, X), rtol=1e-9)


def test_the_path_is_the_same_as_training_one_rho_after_the_other():
    with float64():
        network, rhos = mlp(3, key=jax.random.key(0)), np.array([0.0, 0.1, 1.0])
        common = {"key": jax.random.key(1), "epochs": 30, "batch_bags": 5, "optimizer": QUICK}
        path = fit_path(network, "squared", X, YBAR, IDS, rhos=rhos, **common)
        assert path.losses.shape == (3, 30)
        together = predict_path(path.model, X)
        for i, rho in enumerate(rhos):
            alone = fit_bags(network, "squared", X, YBAR, IDS, rho=float(rho), **common)
            np.testing.assert_allclose(together[i], predict(alone.model, X), rtol=1e-8)
        assert np.abs(together[0] - together[2]).max() > 1e-3


def test_the_same_key_gives_the_same_bits_and_another_key_other_batches():
    network = mlp(3, key=jax.random.key(0))

    def train(seed):
        return fit_bags(
            network, "squared", X, YBAR, IDS, key=jax.random.key(seed), epochs=5, batch_bags=3
        )

    np.testing.assert_array_equal(train(0).losses, train(0).losses)
    assert np.abs(train(0).losses - train(1).losses).max() > 0


def test_any_objective_and_any_loss_can_be_trained():
    network = mlp(3, key=jax.random.key(0))
    shares = jax.nn.sigmoid(YBAR)
    key = jax.random.key(1)
    matched = fit_bags(network, None, X, shares, IDS, key=key, objective=proportion_objective)
    easy = fit_bags(network, None, X, YBAR, IDS, key=key, objective=easyllp_objective)
    absolute = fit_bags(network, lambda y, f: jnp.abs(y - f), X, YBAR, IDS, key=key, rho=0.1)
    for fit in (matched, easy, absolute):
        assert isinstance(fit, BagFit)
        assert fit.losses[-1] < fit.losses[0]


def test_softmax_networks_train_on_proportions_of_classes():
    shares = RNG.dirichlet(np.ones(3), size=12)
    network = mlp(3, n_outputs=3, key=jax.random.key(0))
    fit = fit_bags(network, "softmax", X, shares, IDS, key=jax.random.key(1), scale="response")
    assert fit.losses[-1] < fit.losses[0]
    assert predict(fit.model, X).shape == (IDS.size, 3)


def test_string_ids_mean_the_same_as_numbers_in_their_sorted_order():
    network = mlp(3, key=jax.random.key(0))
    names = np.array([f"bag {i:02d}" for i in IDS])
    one = fit_bags(network, "squared", X, YBAR, IDS, key=jax.random.key(1), epochs=5)
    two = fit_bags(network, "squared", X, YBAR, names, key=jax.random.key(1), epochs=5)
    np.testing.assert_array_equal(one.losses, two.losses)


def boston_splits(k, n_splits=3):
    features, response = boston_housing_data()
    features = (features - features.mean(0)) / features.std(0)
    response = (response - response.mean()) / response.std()
    rng = np.random.default_rng(7)
    for _ in range(n_splits):
        order = rng.permutation(len(response))
        train, test = order[:400], order[400:]
        yield features[train], response[train], np.arange(400) // k, features[test], response[test]


def test_boston_mlp_meets_the_rho_path_of_an_independent_implementation():
    """150 steps, no decay, k = 5: separate code found .24 at rho = 0, .33 at .1, .65 at 1."""
    network = mlp(13, key=jax.random.key(0))
    errors = []
    for X, y, ids, X_test, y_test in boston_splits(5):
        ybar = y.reshape(-1, 5).mean(axis=1)
        path = fit_path(
            network,
            "squared",
            X,
            ybar,
            ids,
            rhos=[0.0, 0.1, 1.0],
            key=jax.random.key(0),
            epochs=150,
        )
        errors.append(((predict_path(path.model, X_test) - y_test) ** 2).mean(axis=1))
    bag, between, instance = np.mean(errors, axis=0)
    # Seeds differ by about .05 (3 splits); a wrong regulariser shifts rho = 1 by .3 or more.
    assert abs(bag - 0.241) < 0.12
    assert abs(between - 0.325) < 0.12
    assert abs(instance - 0.649) < 0.15


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rho": -0.1}, ValueError, "rho must be finite and >= 0"),
        ({"rho": float("nan")}, ValueError, "rho must be finite"),
        ({"rho": [0.1, 0.2]}, ValueError, "rho must have 0 axes"),
        ({"epochs": 0}, ValueError, "epochs must be an integer"),
        ({"batch_bags": 13}, ValueError, "batch_bags must be at most the number of bags"),
        ({"batch_bags": 2.0}, ValueError, "batch_bags must be an integer"),
        ({"ybar": YBAR[:-1]}, ValueError, "ybar must have one entry per bag"),
        ({"ybar": np.where(np.arange(12) == 3, np.nan, YBAR)}, ValueError, "ybar must be finite"),
        ({"X": np.where(X > 2, np.inf, X)}, ValueError, "X must be finite"),
        ({"X": X.astype(str)}, TypeError, "X must be numeric"),
        ({"X": X[:, 0]}, ValueError, "X must have two axes"),
        ({"bags": IDS[:-1]}, ValueError, "bags must have one id per row"),
        ({"bags": np.zeros(IDS.size, int)}, ValueError, "at least two bags"),
        ({"bags": IDS + 0.5}, TypeError, "bags must be integers or strings"),
        ({"weights": np.ones(3)}, ValueError, "weights must have one entry per bag"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"loss": None}, ValueError, "either a loss or an objective"),
        ({"model": 3}, TypeError, "model must be"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"model": LINEAR, "loss": "squared", "X": X, "ybar": YBAR, "bags": IDS, **change}
    with pytest.raises(error, match=message):
        fit_bags(**arguments, key=jax.random.key(0))


def test_training_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match="not finite from epoch"):
        fit_bags(LINEAR, "squared", X, YBAR, IDS, key=jax.random.key(0), optimizer=optax.sgd(1e6))


def test_models_are_not_changed_in_place():
    network = mlp(3, key=jax.random.key(0))
    before = predict(network, X)
    fit_bags(network, "squared", X, YBAR, IDS, key=jax.random.key(1), epochs=3)
    np.testing.assert_array_equal(before, predict(network, X))
    assert isinstance(network, eqx.Module)
