"""Equivalences of learners, exactly: convolution kernels, PID forms, momentum, optimism."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from privlearn.pacing import kernels, theory
from privlearn.pacing.oco import run_oco
from privlearn.pacing.warnings import PacingWarning
from privlearn.simulate import float64

T, M = 300, 3
MIRRORS = ("euclidean", "entropic")
K_I, K_P, K_D = 0.05, 0.08, 0.02


def stream(seed=0, scale=1.0):
    """Errors whose sign switches now and then, so that bounds bind at both ends."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(rng.choice([-1.0, 1.0], (T // 30, M)), 30, axis=0)
    return scale * (0.6 * blocks + 0.5 * rng.standard_normal((T, M)))


def path(learner, gradients):
    """All points that a learner visits, one more than there are gradients."""
    step = lambda state, g: (learner.update(state, g), learner.point(state))  # noqa: E731
    last, points = jax.lax.scan(step, learner.init(), jnp.asarray(gradients))
    return np.vstack([points, learner.point(last)[None]])


def paths(left, right, gradients):
    """The paths of two learners, which are made inside the 64-bit context."""
    with float64():
        return path(left(), gradients), path(right(), gradients)


def box(mirror, tight=False):
    start = jnp.array([0.5, 1.0, 0.3])
    options = {"mirror": mirror}
    if tight:
        options |= {"low": 0.1 if mirror == "entropic" else 0.0, "high": 1.5}
    elif mirror == "euclidean":
        options |= {"low": -jnp.inf}
    else:
        options |= {"low": 1e-300}
    return start, options


def clamped(points, mirror):
    low = 0.1 if mirror == "entropic" else 0.0
    return np.isclose(points, low).mean() + np.isclose(points, 1.5).mean()


@pytest.mark.parametrize("mirror", MIRRORS)
@pytest.mark.parametrize("lazy", [False, True])
def test_kernel_of_one_weight_is_mirror_descent(mirror, lazy):
    start, options = box(mirror, tight=True)
    a, b = paths(
        lambda: kernels.convolutional_mirror_descent([1.0], 0.1, start, lazy=lazy, **options),
        lambda: kernels.mirror_descent(0.1, start, lazy=lazy, **options),
        stream(),
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    assert clamped(a, mirror) > 0.1


@pytest.mark.parametrize("mirror", MIRRORS)
def test_kernel_2_minus_1_is_optimistic_and_is_equal_gains(mirror):
    start, options = box(mirror, tight=True)
    a, b = paths(
        lambda: kernels.convolutional_mirror_descent(
            theory.optimistic_kernel(), 0.1, start, **options
        ),
        lambda: kernels.optimistic(0.1, start, **options),
        stream(),
    )
    _, c = paths(
        lambda: kernels.optimistic(0.1, start, **options),
        lambda: kernels.pid_learner(0.1, 0.1, start=start, **options),
        stream(),
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    np.testing.assert_allclose(a, c, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mirror", MIRRORS)
def test_geometric_kernel_is_momentum(mirror):
    start, options = box(mirror, tight=True)
    alpha = theory.momentum_kernel(0.7)
    alpha = alpha / alpha.sum()
    a, b = paths(
        lambda: kernels.convolutional_mirror_descent(alpha, 0.1, start, **options),
        lambda: kernels.momentum(0.7, 0.1, start, **options),
        stream(),
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mirror", MIRRORS)
@pytest.mark.parametrize("tight", [False, True])
def test_velocity_pid_is_agile_convolution_and_position_pid_is_lazy(mirror, tight):
    start, options = box(mirror, tight)
    eta, alpha = theory.pid_to_kernel(K_I, K_P, K_D)
    for lazy, form in ((False, "velocity"), (True, "position")):
        a, b = paths(
            lambda lazy=lazy: kernels.convolutional_mirror_descent(
                alpha, eta, start, lazy=lazy, **options
            ),
            lambda form=form: kernels.pid_learner(K_I, K_P, K_D, start=start, form=form, **options),
            stream(),
        )
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        assert clamped(a, mirror) > 0.1 or not tight


@pytest.mark.parametrize("mirror", MIRRORS)
def test_position_with_anti_windup_is_velocity_however_often_bounds_bind(mirror):
    start, options = box(mirror, tight=True)
    a, b = paths(
        lambda: kernels.pid_learner(K_I, K_P, K_D, start=start, **options),
        lambda: kernels.pid_learner(
            K_I, K_P, K_D, start=start, form="position", anti_windup=True, **options
        ),
        stream(),
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert clamped(a, mirror) > 0.1


@pytest.mark.parametrize("mirror", MIRRORS)
def test_position_is_velocity_without_active_bounds_and_differs_with_them(mirror):
    for tight in (False, True):
        start, options = box(mirror, tight)
        a, b = paths(
            lambda start=start, options=options: kernels.pid_learner(
                K_I, K_P, K_D, start=start, **options
            ),
            lambda start=start, options=options: kernels.pid_learner(
                K_I, K_P, K_D, start=start, form="position", **options
            ),
            stream(),
        )
        if tight:
            assert abs(a - b).max() > 0.1
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_position_form_winds_up_where_velocity_form_does_not():
    g = np.repeat([0.1, -0.1], 100)[:, None]
    a, b = paths(
        lambda: kernels.pid_learner(0.05, start=0.0),
        lambda: kernels.pid_learner(0.05, start=0.0, form="position"),
        g,
    )
    np.testing.assert_allclose([a[-1, 0], b[-1, 0]], [0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose([a[151, 0], b[151, 0]], [0.255, 0.0], atol=1e-12)


@pytest.mark.parametrize("mirror", MIRRORS)
def test_ema_pid_is_its_kernel_and_smoothed_pid_is_a_case_of_it(mirror):
    start, options = box(mirror, tight=True)
    eta, alpha = theory.ema_pid_kernel(0.4, 0.6, 0.3, 0.8, eta=0.1)
    a, b = paths(
        lambda: kernels.convolutional_mirror_descent(alpha, eta, start, **options),
        lambda: kernels.ema_pid_learner(0.4, 0.6, 0.3, 0.8, 0.1, start, **options),
        stream(),
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    c, d = paths(
        lambda: kernels.pid_learner(0.1, 0.05, start=start, beta=0.8, **options),
        lambda: kernels.ema_pid_learner(0.0, 1.0, 0.5, 0.8, 0.1, start, **options),
        stream(),
    )
    np.testing.assert_allclose(c, d, rtol=0, atol=1e-12)


def test_momentum_is_integral_of_the_raw_error_and_negative_gain_on_the_smoothed_one():
    g, beta, k_i = stream()[:, :1], 0.7, 0.05
    gains = theory.momentum_as_position(k_i, beta)
    with float64():
        visited = path(kernels.momentum(beta, k_i, 0.5, low=-jnp.inf), g)[1:, 0]
    smooth = np.zeros(T)
    for t in range(T):
        smooth[t] = (beta * smooth[t - 1] if t else 0.0) + (1 - beta) * g[t, 0]
    stated = 0.5 - (gains.k_i * np.cumsum(g[:, 0]) + gains.k_p * smooth)
    np.testing.assert_allclose(visited, stated, rtol=0, atol=1e-12)
    both_smoothed = 0.5 - (gains.k_i * np.cumsum(smooth) + gains.k_p * smooth)
    assert abs(visited - both_smoothed).max() > 1e-2


def test_momentum_without_bounds_is_that_of_optax():
    g = stream()
    optimizer = optax.sgd(0.1 * (1 - 0.7), momentum=0.7)
    with float64():
        visited = path(kernels.momentum(0.7, 0.1, jnp.zeros(M), low=-jnp.inf), g)
        w, state = jnp.zeros(M), optimizer.init(jnp.zeros(M))
        for row in g[:40]:
            step, state = optimizer.update(jnp.asarray(row), state)
            w = optax.apply_updates(w, step)
    np.testing.assert_allclose(visited[40], w, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mirror", MIRRORS)
def test_step_is_the_argmin_of_the_linearised_loss_plus_divergence(mirror):
    g, eta = np.array([0.9, -1.4, 0.2]), 0.8
    start, options = box(mirror, tight=True)
    with float64():
        learner = kernels.mirror_descent(eta, start, **options)
        found = np.asarray(learner.point(learner.update(learner.init(), jnp.asarray(g))))
    low = 0.1 if mirror == "entropic" else 0.0
    best = minimize(
        lambda w: w @ g + theory.divergence(mirror, w, np.asarray(start)) / eta,
        np.full(M, 0.7),
        bounds=[(low, 1.5)] * M,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    np.testing.assert_allclose(found, best.x, atol=1e-6)


def test_gains_may_be_traced_and_differ_between_campaigns():
    gains = jnp.array([[0.1, 0.0, 0.0], [0.2, 0.1, 0.05]])
    g = jnp.asarray(stream()[:50])

    def last(k):
        learner = kernels.pid_learner(k[0], k[1], k[2], start=jnp.full(M, 0.5), high=1.5)
        return jax.lax.scan(lambda s, x: (learner.update(s, x), None), learner.init(), g)[0].theta

    together = jax.vmap(last)(gains)
    for one, k in zip(together, gains, strict=True):
        plain = kernels.pid_learner(*map(float, k), start=jnp.full(M, 0.5), high=1.5)
        np.testing.assert_allclose(one, path(plain, g)[-1], atol=1e-5)


def test_gains_may_differ_between_resources():
    g = stream()
    eta = np.array([0.1, 0.2, 0.3])
    with float64():
        together = path(kernels.mirror_descent(eta, 0.5), g)
        alone = path(kernels.mirror_descent(0.2, 0.5), g[:, 1:2])
    np.testing.assert_allclose(together[:, 1], alone[:, 0], atol=1e-14)


def test_maps_between_gains_and_kernels_invert_each_other():
    for gains in ((0.3, 0.2, 0.1), (0.3, 0.0, 0.0), (0.1, -0.05, 0.02)):
        eta, alpha = theory.pid_to_kernel(*gains)
        assert alpha.sum() == pytest.approx(1, abs=1e-13)
        np.testing.assert_allclose(theory.kernel_to_pid(eta, alpha)[:3], gains, atol=1e-14)
    with pytest.raises(ValueError, match="at most 3 weights"):
        theory.kernel_to_pid(0.1, [0.25, 0.25, 0.25, 0.25])
    with pytest.raises(ValueError, match="positive sum"):
        theory.kernel_to_pid(0.1, [1.0, -1.0])


def test_kernel_constants_in_closed_form():
    for gains in ((0.3, 0.2, 0.1), (0.3, -0.1, 0.0), (1.0, 3.0, -0.4)):
        np.testing.assert_allclose(
            theory.pid_constants(*gains),
            theory.kernel_constants(theory.pid_to_kernel(*gains).alpha),
            rtol=1e-12,
        )
    mass, lag, tail = theory.kernel_constants(theory.momentum_kernel(0.6))
    np.testing.assert_allclose([mass, lag, tail], [1, 1.5, 1.5], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kernels.mirror_descent(-0.1, 1.0), "eta must be positive.*-0.1"),
        (lambda: kernels.mirror_descent(0.1, 0.0, mirror="entropic"), "start must be positive"),
        (lambda: kernels.mirror_descent(0.1, 2.0, high=1.0), "start must lie between"),
        (lambda: kernels.mirror_descent(0.1, 1.0, mirror="log"), "mirror must be 'euclidean'"),
        (lambda: kernels.mirror_descent(0.1, float("nan")), "start must be finite"),
        (lambda: kernels.convolutional_mirror_descent([0.5], 0.1, 0.0), "kernel must sum to 1"),
        (lambda: kernels.convolutional_mirror_descent([], 0.1, 0.0), "kernel must have shape"),
        (lambda: kernels.momentum(1.0, 0.1, 0.0), "beta must be at least 0 and below 1"),
        (lambda: kernels.pid_learner(-1.0, start=0.0), "k_i must be at least 0"),
        (lambda: kernels.pid_learner(1.0, float("nan"), start=0.0), "k_p must be finite"),
        (lambda: kernels.pid_learner(1.0, start=0.0, form="speed"), "form must be"),
        (lambda: kernels.pid_learner(1.0, start=0.0, anti_windup=True), "anti_windup is for"),
    ],
)
def test_bad_input_names_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("form", ["velocity", "position"])
def test_a_price_for_each_resource_is_asked_for(form):
    learner = kernels.pid_learner(0.1, start=0.0, form=form)
    with pytest.raises(ValueError, match=r"must have the shape \(1,\) of the start, got \(4,\)"):
        learner.update(learner.init(), jnp.zeros(4))


def test_gains_without_integral_or_below_0_warn():
    with pytest.warns(PacingWarning, match="k_i=0 leaves a steady-state error"):
        kernels.pid_learner(0.0, 0.5, start=0.0)
    with pytest.warns(PacingWarning, match="k_p=-0.1 is negative"):
        kernels.pid_learner(0.5, -0.1, start=0.0)


def test_losses_that_are_not_convex_are_reported_and_convex_ones_are_not(recwarn):
    learner = kernels.mirror_descent(0.2, 1.0, low=-5.0, high=5.0)
    run_oco(learner, lambda t, w: 2 * (w - jnp.sin(t)), 50)
    assert not recwarn.list
    with pytest.warns(PacingWarning, match="not monotone at step"):
        run_oco(learner, lambda t, w: -0.5 * w, 20)
    with pytest.raises(ValueError, match="gradient must be finite"):
        run_oco(learner, lambda t, w: jnp.log(w - 2), 5)
    with pytest.raises(ValueError, match="gradient must return shape"):
        run_oco(learner, lambda t, w: jnp.zeros(4), 5)
