"""The linear solution for any rho, against other people's least squares; invariances; losses."""

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from privlearn.aggregate import kernels
from privlearn.simulate import float64

CASES = [(20, 3, 8, 0.37), (20, 3, 8, 0.0), (20, 3, 8, 2.5), (30, 1, 4, 0.3)]


@pytest.fixture(autouse=True)
def _double_precision():
    with float64():
        yield


def _data(m, k, p, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, k, p)), rng.standard_normal(m)


def _unequal(sizes, p, seed=0):
    """Features, means and shuffled bag numbers."""
    rng = np.random.default_rng(seed)
    bags = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.standard_normal((len(bags), p)), rng.standard_normal(len(sizes)), bags


def _reference(x, means, bags, rho, ridge=0.0, weights="size"):
    """The same minimiser from augmented rows in plain NumPy."""
    n, p = x.shape
    rows, targets = [], []
    for a, mean in enumerate(means):
        part = x[bags == a]
        w = len(part) / n if weights == "size" else 1 / len(means)
        centre = part.mean(axis=0)
        rows.append(np.sqrt(w) * centre[None])
        targets.append([np.sqrt(w) * mean])
        rows.append(np.sqrt(rho * w / len(part)) * (part - centre))
        targets.append(np.zeros(len(part)))
    rows.append(np.sqrt(ridge) * np.eye(p))
    targets.append(np.zeros(p))
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]


@pytest.mark.parametrize(("m", "k", "p", "rho"), CASES)
@pytest.mark.parametrize(("method", "ridge"), [("pinv", 0.0), ("pinv", 0.05), ("cholesky", 0.05)])
def test_solution_differs_from_least_squares_on_augmented_rows(m, k, p, rho, method, ridge):
    x, means = _data(m, k, p)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    expected = _reference(x.reshape(-1, p), means, np.repeat(np.arange(m), k), rho, ridge)
    got = kernels.solve(stats, rho, ridge, method=method)
    np.testing.assert_allclose(got, expected, atol=1e-11)
    by_rows = kernels.solve_rows(jnp.asarray(x), jnp.asarray(means), rho, ridge)
    np.testing.assert_allclose(by_rows, expected, atol=1e-11)


@pytest.mark.parametrize("weights", ["size", "bag"])
@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_solution_for_unequal_bags_differs_from_augmented_rows(weights, rho):
    x, means, bags = _unequal([1, 5, 2, 7, 3, 3, 4, 1, 6], p=4)
    arrays = jnp.asarray(x), jnp.asarray(means), jnp.asarray(bags)
    expected = _reference(x, means, bags, rho, 0.01, weights)
    stats = kernels.gram_statistics_segments(*arrays, weights)
    np.testing.assert_allclose(kernels.solve(stats, rho, 0.01), expected, atol=1e-11)
    rows = kernels.solve_rows(*arrays[:2], rho, 0.01, bags=arrays[2], weights=weights)
    np.testing.assert_allclose(rows, expected, atol=1e-11)


@pytest.mark.parametrize("weights", ["size", "bag"])
def test_solution_does_not_minimise_the_loss_according_to_cvxpy(weights):
    x, means, bags = _unequal([3, 2, 4, 1, 5, 3, 2], p=3)
    theta, rho = cvxpy.Variable(3), 0.37
    terms = []
    for a, mean in enumerate(means):
        part = x[bags == a]
        w = len(part) / len(x) if weights == "size" else 1 / len(means)
        bag = cvxpy.square(mean - cvxpy.sum(part @ theta) / len(part))
        instance = cvxpy.sum_squares(mean - part @ theta) / len(part)
        terms.append(w * ((1 - rho) * bag + rho * instance))
    cvxpy.Problem(cvxpy.Minimize(sum(terms))).solve(solver=cvxpy.CLARABEL)
    stats = kernels.gram_statistics_segments(
        jnp.asarray(x), jnp.asarray(means), jnp.asarray(bags), weights
    )
    np.testing.assert_allclose(kernels.solve(stats, rho), theta.value, atol=1e-6)


def test_solution_for_bags_of_one_is_not_linear_regression_or_depends_on_rho():
    x, means = _data(30, 1, 4)
    expected = LinearRegression(fit_intercept=False).fit(x[:, 0], means).coef_
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    for rho in (0.0, 0.5, 7.0):
        np.testing.assert_allclose(kernels.solve(stats, rho), expected, atol=1e-12)


def test_solution_at_rho_one_is_not_least_squares_on_repeated_means():
    x, means = _data(20, 3, 5)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    expected = np.linalg.lstsq(x.reshape(-1, 5), np.repeat(means, 3), rcond=None)[0]
    np.testing.assert_allclose(kernels.solve(stats, 1.0), expected, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_singular_problem_is_not_solved_with_least_norm(rho):
    x, means = _data(6, 3, 40)
    p = x.shape[-1]
    expected = _reference(x.reshape(-1, p), means, np.repeat(np.arange(6), 3), rho)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    np.testing.assert_allclose(kernels.solve(stats, rho), expected, atol=1e-9)
    rows = kernels.solve_rows(jnp.asarray(x), jnp.asarray(means), rho)
    np.testing.assert_allclose(rows, expected, atol=1e-11)


def test_rho_matters_when_features_outnumber_instances():
    x, means = _data(5, 3, 40)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    few, many = kernels.solve_path(stats, jnp.array([0.1, 10.0]))
    np.testing.assert_allclose(few, many, atol=1e-8)


def test_solution_does_not_vanish_as_rho_grows():
    x, means = _data(10, 4, 5)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    assert np.abs(kernels.solve(stats, 1e9)).max() < 1e-8


def test_rows_lose_a_direction_that_is_a_billion_times_smaller():
    x, means = _data(20, 2, 3)
    x[..., 2] *= 1e-9
    arrays = jnp.asarray(x), jnp.asarray(means)
    expected = kernels.solve_rows(arrays[0] * jnp.array([1, 1, 1e9]), arrays[1], 0.3)
    got = kernels.solve_rows(*arrays, 0.3) * jnp.array([1, 1, 1e-9])
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert kernels.solve(kernels.gram_statistics(*arrays), 0.3)[2] == pytest.approx(0, abs=1e-3)


def test_path_differs_from_single_solutions_or_gradients_and_jit_fail():
    x, means = _data(20, 3, 5)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    rhos = jnp.array([0.0, 0.1, 1.0, 4.0])
    path = jax.jit(kernels.solve_path)(stats, rhos)
    for rho, theta in zip(rhos, path, strict=True):
        np.testing.assert_allclose(kernels.solve(stats, rho), theta, atol=1e-12)
    slope = jax.grad(lambda rho: kernels.solve(stats, rho, method="cholesky").sum())(0.3)
    step = 1e-6
    high, low = (kernels.solve(stats, 0.3 + s).sum() for s in (step, -step))
    assert slope == pytest.approx(float(high - low) / (2 * step), rel=1e-5)


def test_unknown_words_are_accepted():
    x, means = _data(5, 2, 2)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    with pytest.raises(ValueError, match="method"):
        kernels.solve(stats, 1.0, method="qr")
    with pytest.raises(ValueError, match="weights"):
        kernels.bag_weights(jnp.array([1, 2]), "rows")


# -------------------------------------------------------------------------------------- invariances


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), rho=st.floats(0, 5))
def test_order_of_bags_or_of_members_matters(seed, rho):
    x, means = _data(9, 3, 4, seed)
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(x, axis=1) if seed % 2 else x[:, rng.permutation(3)]
    order = rng.permutation(9)
    a = kernels.solve(kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means)), rho)
    members = np.stack([bag[rng.permutation(3)] for bag in x])
    b = kernels.solve(
        kernels.gram_statistics(jnp.asarray(members[order]), jnp.asarray(means[order])), rho
    )
    np.testing.assert_allclose(a, b, atol=1e-9)
    # permuting columns independently is no relabelling of members, and must change the answer
    if seed % 2:
        c = kernels.solve(kernels.gram_statistics(jnp.asarray(shuffled), jnp.asarray(means)), rho)
        if rho > 0.01:
            assert np.abs(np.asarray(a) - np.asarray(c)).max() > 1e-12


def test_moving_members_between_bags_changes_nothing():
    x, means = _data(9, 3, 4)
    moved = x.copy()
    moved[[0, 1], 0] = moved[[1, 0], 0]
    a, b = (
        kernels.solve(kernels.gram_statistics(jnp.asarray(z), jnp.asarray(means)), 0.3)
        for z in (x, moved)
    )
    assert np.abs(np.asarray(a - b)).max() > 1e-3


@settings(max_examples=20)
@given(k=st.sampled_from([1, 4]), seed=st.integers(0, 1000))  # each k is compiled anew
def test_segments_of_equal_bags_differ_from_the_equal_layout(k, seed):
    x, means = _data(5, k, 3, seed)
    bags = np.repeat(np.arange(5), k)
    order = np.random.default_rng(seed).permutation(5 * k)
    equal = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(means))
    for weights in ("size", "bag"):
        segments = kernels.gram_statistics_segments(
            jnp.asarray(x.reshape(-1, 3)[order]),
            jnp.asarray(means),
            jnp.asarray(bags[order]),
            weights,
        )
        for one, other in zip(equal, segments, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), rho=st.floats(0, 4))
def test_losses_break_the_identity_or_the_two_layouts_disagree(seed, rho):
    rng = np.random.default_rng(seed)
    f, means = jnp.asarray(rng.standard_normal((6, 4))), jnp.asarray(rng.standard_normal(6))
    bag, instance = kernels.bag_loss(f, means), kernels.instance_loss(f, means)
    assert float(bag + kernels.within_bag_variance(f)) == pytest.approx(float(instance), abs=1e-13)
    loss = kernels.interpolating_loss(f, means, rho)
    assert float(loss) == pytest.approx(float((1 - rho) * bag + rho * instance), abs=1e-12)
    flat = kernels.interpolating_loss_segments(
        f.reshape(-1), means, jnp.repeat(jnp.arange(6), 4), rho
    )
    assert float(flat) == pytest.approx(float(loss), abs=1e-12)


def test_solution_is_not_a_minimum_of_the_loss():
    x, means, bags = (jnp.asarray(a) for a in _unequal([3, 1, 4, 2, 5], p=2))
    for weights in ("size", "bag"):
        stats = kernels.gram_statistics_segments(x, means, bags, weights)
        theta = kernels.solve(stats, 0.4)
        slope = jax.grad(
            lambda t, w=weights: kernels.interpolating_loss_segments(x @ t, means, bags, 0.4, w)
        )(theta)
        np.testing.assert_allclose(slope, 0, atol=1e-12)


# ------------------------------------------------------------------------------- EasyLLP, given X


def test_easyllp_is_not_least_squares_on_its_pseudo_labels():
    x, means = _data(20, 3, 4)
    cx, cm, mean_x, mean_y = kernels.centre(jnp.asarray(x), jnp.asarray(means))
    labels = kernels.easyllp_pseudo_labels(jnp.asarray(means), 3, mean_y)
    expected = LinearRegression().fit(x.reshape(-1, 4), np.repeat(np.asarray(labels), 3)).coef_
    got = kernels.easyllp_solution(kernels.gram_statistics(cx, cm), 3)
    np.testing.assert_allclose(got, expected, atol=1e-11)
    np.testing.assert_allclose(mean_x, x.mean(axis=(0, 1)))


def test_centre_of_unequal_bags_does_not_weigh_by_size():
    x, means, bags = _unequal([1, 5, 3], p=2)
    _, _, mean_x, mean_y = kernels.centre(jnp.asarray(x), jnp.asarray(means), jnp.asarray(bags))
    assert float(mean_y) == pytest.approx(np.average(means, weights=[1, 5, 3]))
    np.testing.assert_allclose(mean_x, x.mean(axis=0))


@pytest.mark.parametrize(("m", "p", "rho"), [(20, 5, 0.3), (20, 5, 0.0), (4, 9, 0.0), (4, 20, 1.0)])
def test_conditional_risk_differs_from_the_moments_of_the_solution(m, p, rho):
    """Exact: the solution is linear in y, so its mean and covariance come from unit vectors."""
    x, _ = _data(m, 3, p)
    noise, theta0 = 0.7, np.linspace(-1, 1, p)

    def solve(y):
        stats = kernels.gram_statistics(jnp.asarray(x), jnp.asarray(y).reshape(m, 3).mean(axis=1))
        return np.asarray(kernels.solve(stats, rho))

    linear = np.stack([solve(unit) for unit in np.eye(3 * m)], axis=1)
    mean = linear @ (x.reshape(-1, p) @ theta0)
    stats = kernels.gram_statistics(jnp.asarray(x), jnp.zeros(m))
    got = kernels.conditional_risk(stats, rho, noise, theta0=jnp.asarray(theta0))
    assert float(got.bias) == pytest.approx(((mean - theta0) ** 2).sum(), abs=1e-9)
    assert float(got.variance) == pytest.approx(noise * (linear**2).sum(), rel=1e-9)
    assert float(got.shrinkage) == pytest.approx(mean @ theta0 / (theta0 @ theta0), rel=1e-9)
    averaged = kernels.conditional_risk(stats, rho, noise, signal=2.0)
    directions = [
        kernels.conditional_risk(stats, rho, noise, theta0=jnp.sqrt(2.0) * unit)
        for unit in jnp.eye(p)
    ]
    assert float(averaged.bias) == pytest.approx(np.mean([d.bias for d in directions]), abs=1e-9)
    assert float(averaged.shrinkage) == pytest.approx(np.mean([d.shrinkage for d in directions]))
