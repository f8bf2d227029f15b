"""Bounds of regret as inequalities, over random and adaptive adversaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.pacing import kernels, theory
from privlearn.simulate import float64

T, HIGH, LOW = 600, 2.0, 0.05
LENGTH = 40


def padded(alpha):
    alpha = np.asarray(alpha, dtype=float)[:LENGTH]
    return np.concatenate([alpha, np.zeros(LENGTH - alpha.size)]) / alpha.sum()


KERNELS = {
    "mirror descent": padded([1.0]),
    "optimistic": padded([2.0, -1.0]),
    "momentum": padded(theory.momentum_kernel(0.5)),
    "pid": padded(theory.pid_to_kernel(1.0, 1.0, 0.5).alpha),
    "negative gain": padded(theory.pid_to_kernel(1.0, -0.4).alpha),
    "lag": padded([0.0, 0.0, 0.0, 1.0]),
    "signed": padded([0.9, -0.7, 1.1, -0.3]),
}
ETAS = np.array([1e-3, 1e-2, 0.05, 0.3])
STYLES = 6


def adversary(style, t, w, noise):
    """Gradients in [-1, 1]: noise, blocks, square waves, and three that look at w."""
    middle = (HIGH + LOW) / 2
    return jnp.stack(
        [
            jnp.sign(noise),
            jnp.where((t // 50) % 2 == 0, 1.0, -1.0),
            jnp.where((t // 3) % 2 == 0, 1.0, -0.8),
            jnp.clip(noise, -1, 1),
            jnp.where(w > middle, 1.0, -1.0),
            jnp.where(w < middle, 1.0, -1.0),
        ]
    )[style]


@pytest.fixture(scope="module", params=[(m, z) for m in ("euclidean", "entropic") for z in (0, 1)])
def ratios(request):
    """Regret / bound for all kernels, steps and adversaries, with the lag and with the tail."""
    mirror, lazy = request.param
    with float64():
        noise = jnp.asarray(np.random.default_rng(7).standard_normal(T))

        def regret(alpha, eta, style):
            learner = kernels.convolutional_mirror_descent(
                alpha, eta, 1.0, mirror=mirror, low=LOW, high=HIGH, lazy=bool(lazy)
            )

            def step(state, inputs):
                t, z = inputs
                w = learner.point(state)[0]
                g = adversary(style, t, w, z)
                return learner.update(state, g[None]), (w, g)

            _, (w, g) = jax.lax.scan(step, learner.init(), (jnp.arange(T), noise))
            best = jnp.where(g.sum() > 0, LOW, HIGH)
            return (g * (w - best)).sum(), best

        grid = jax.vmap(
            jax.vmap(jax.vmap(regret, (None, None, 0)), (None, 0, None)), (0, None, None)
        )
        found, best = jax.jit(grid)(
            jnp.asarray(np.array(list(KERNELS.values()))), jnp.asarray(ETAS), jnp.arange(STYLES)
        )
    found, best = np.asarray(found), np.asarray(best)
    out = np.zeros_like(found)
    for k, alpha in enumerate(KERNELS.values()):
        for e, eta in enumerate(ETAS):
            for s in range(STYLES):
                out[k, e, s] = (
                    found[k, e, s]
                    / theory.oco_bound(
                        eta=float(eta),
                        horizon=T,
                        gradient=1.0,
                        distance=theory.divergence(mirror, best[k, e, s], 1.0),
                        diameter=HIGH - LOW,
                        alpha=alpha,
                        sigma=theory.strong_convexity(mirror, HIGH),
                    ).total
                )
    return out


def test_no_adversary_beats_the_bound(ratios):
    assert ratios.max() <= 1 + 1e-9


def test_the_bound_is_not_empty(ratios):
    """Some adversary comes near it for plain mirror descent, and to a tenth for every kernel."""
    assert ratios[0].max() > 0.4
    assert (ratios.max(axis=(1, 2)) > 0.02).all()


def test_bound_is_attained_by_plain_gradient_descent_on_a_constant_gradient():
    eta, steps, g = 0.01, 50, 1.0
    w = 10 - eta * g * np.arange(steps)
    comparator = 10 - eta * g * steps
    bound = theory.oco_bound(
        eta=eta, horizon=steps, gradient=g, distance=(10 - comparator) ** 2 / 2, diameter=0.0
    )
    assert (g * (w - comparator)).sum() == pytest.approx(bound.total, rel=1e-12)


def test_best_step_is_the_least_of_the_bound():
    alpha = KERNELS["pid"]
    options = {"horizon": 500, "gradient": 2.0, "distance": 3.0, "alpha": alpha, "sigma": 0.5}
    best = theory.best_step(**options)
    at = [theory.oco_bound(eta=best * f, diameter=1.0, **options).total for f in (0.9, 1, 1.1)]
    assert at[1] < min(at[0], at[2])


def allocation(seed, iid, steps=400, m=2, n_actions=4, rate=0.25, spoiled=0):
    """Dual mirror descent on random requests: reward, and the value of the linear relaxation."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    f, b = rng.random((steps, n_actions)), rng.random((steps, n_actions, m))
    if not iid:
        f = f * (0.5 + 0.5 * np.sign(np.sin(np.arange(steps) / 40)))[:, None]
    if spoiled:
        f[-spoiled:] = 0.0
    eta, mu, left, total = 0.2, np.zeros(m), np.full(m, rate * steps), 0.0
    for t in range(steps):
        worth = f[t] - b[t] @ mu
        x = int(np.argmax(worth))
        used = np.zeros(m)
        if worth[x] > 0 and (b[t, x] <= left).all():
            used, total = b[t, x], total + f[t, x]
        left = left - used
        mu = np.clip(mu - eta * (rate - used), 0, 1 / rate)
    rows = np.kron(np.eye(steps), np.ones(n_actions))
    optimum = -linprog(
        -f.ravel(),
        A_ub=np.vstack([rows, b.reshape(-1, m).T]),
        b_ub=np.concatenate([np.ones(steps), np.full(m, rate * steps)]),
        bounds=(0, 1),
    ).fun
    constants = {
        "reward": 1.0,
        "consumption": 1.0,
        "rate": np.full(m, rate),
        "horizon": steps,
        "eta": eta,
        "mu_max": 1 / rate,
    }
    return total, optimum, constants


def test_pacing_bounds_hold_on_requests_of_a_law_of_a_corrupted_law_and_of_an_adversary():
    reward, optimum, constants = allocation(1, iid=True)
    assert 0 < optimum - reward < theory.pacing_bound(**constants).total
    reward, optimum, _ = allocation(2, iid=True, spoiled=100)
    assert optimum - reward < theory.pacing_bound(corruption=2 * 100 * 0.75, **constants).total
    reward, optimum, _ = allocation(3, iid=False)
    ratio, total = theory.adversarial_bound(**constants)
    assert ratio == 4
    assert optimum - ratio * reward < total


def test_corruption_adds_its_share_and_the_floor_its_own():
    constants = {
        "reward": 2.0,
        "consumption": 1.0,
        "rate": 0.5,
        "horizon": 100,
        "eta": 0.1,
        "mu_max": 4.0,
        "mu0": 1.0,
    }
    clean = theory.pacing_bound(**constants)
    wrong = theory.pacing_bound(corruption=3.0, **constants)
    assert wrong.total - clean.total == pytest.approx(6.0)
    assert sum(clean[:4]) == pytest.approx(clean.total)
    low, high = (
        theory.pacing_bound(mirror="entropic", floor=floor, **constants) for floor in (1e-6, 1e-3)
    )
    assert high.extra - low.extra == pytest.approx((1e-3 - 1e-6) * 100 * 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta must be finite and above 0"),
        ({"rate": 0.0}, "rate must be finite and above 0"),
        ({"mu_max": 1.0}, "mu_max must be at least"),
        ({"mu0": 99.0}, "mu0 must lie in"),
        ({"alpha": [0.5]}, "alpha must sum to 1"),
        ({"corruption": -1.0}, "corruption must be"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"mirror": "entropic"}, "start must be positive"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    good = {
        "reward": 1.0,
        "consumption": 1.0,
        "rate": 0.1,
        "horizon": 10,
        "eta": 0.1,
        "mu_max": 10.0,
    }
    with pytest.raises(ValueError, match=message):
        theory.pacing_bound(**{**good, **change})
