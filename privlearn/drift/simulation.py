"""Streams whose optimum moves, and trials that run any optax optimizer on them.

A trial is a pure function from a key to numbers, for `privlearn.simulate`. What it runs is the
optax optimizer itself, the object that a user trains with; batches of fresh samples are drawn
inside of a scan, so that memory does not grow with the horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privlearn.drift._checks import traced
from privlearn.drift.theory import _arguments
from privlearn.drift.transforms import DriftState, value_and_half_grads

Trial = Callable[[jax.Array], dict[str, Any]]
Optimizer = Any  # optax.GradientTransformation, or several by name


def regression_trial(
    optimizer: Optimizer,
    shifts: Any,
    *,
    dim: int,
    noise: float,
    batch: int,
    start: float = 1.0,
    alarms: Any = None,
    told: Collection[str] | None = None,
    path: bool = False,
) -> Trial:
    """Return a trial of linear regression whose optimum moves in fresh random directions.

    Parameters
    ----------
    optimizer : optax.GradientTransformation, or mapping of str to such
        Any; several at once see the same draws, so that differences between them are paired, and
        results are dictionaries by name. Each is offered ``value=`` (loss of the batch),
        ``halves=`` (half-batch gradients, where the batch is even) and ``alarm=``.
    shifts : array of shape (T,)
        Lengths of the moves after each step; may be traced.
    dim, noise, batch, start
        Coordinates d, variance s2, samples B, first squared distance.
    alarms : array of shape (T,), default=None
        Flags for ``alarm=``, for somebody who knows when the shifts come.
    told : collection of str, default=None
        Names of the optimizers that get them; all if not given.
    path : bool, default=False
        Also give learning rates and squared distances step by step (where the optimizer has a
        `DriftState`).

    Returns
    -------
    callable
        ``trial(key) -> {"regret": sum of |lag|^2 / 2 before each update}`` and, with ``path``,
        ``"second"`` and ``"rates"`` of shape (T,).

    Examples
    --------
    >>> import jax, optax
    >>> from privlearn import simulate
    >>> from privlearn.drift import simulation, streams, theory
    >>> problem = dict(dim=5, noise=0.25, batch=4)
    >>> shifts = streams.burst(60, at=[30], size=2.0)
    >>> trial = simulation.regression_trial(optax.sgd(0.2), shifts, **problem)
    >>> found = simulate.monte_carlo(trial, key=jax.random.key(0), n_trials=200)
    >>> exact = theory.regret([0.2] * 60, shifts=shifts, **problem)
    >>> bool(abs(found.mean["regret"] - exact) < 5 * found.stderr["regret"])
    True
    """
    s2, size = _arguments.number("noise", noise), _whole("batch", batch)
    first = _arguments.number("start", start)

    def sample(key: jax.Array, optimum: jax.Array) -> tuple[jax.Array, jax.Array]:
        draw = jax.random.normal(key, (size, dim + 1))
        x = draw[:, :dim]
        return x, x @ optimum + jnp.sqrt(s2) * draw[:, dim]

    def loss(theta: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        return jnp.mean((y - x @ theta) ** 2) / 2

    def excess(theta: jax.Array, optimum: jax.Array) -> jax.Array:
        return jnp.sum((theta - optimum) ** 2) / 2

    def move(optimum: jax.Array, step: jax.Array) -> jax.Array:
        return optimum + step

    def begin(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros(dim), jnp.sqrt(first) * _direction(key, dim)

    model = _Model(_whole("dim", dim), size, begin, sample, loss, excess, move)
    return _trial(model, optimizer, shifts, alarms, told, path)


def logistic_trial(
    optimizer: Optimizer,
    shifts: Any,
    *,
    dim: int,
    batch: int,
    radius: float = 2.0,
    start: float = 1.0,
    alarms: Any = None,
    told: Collection[str] | None = None,
    path: bool = False,
) -> Trial:
    """Return a trial of logistic regression whose optimum wanders on a sphere.

    Features are N(0, I), labels Bernoulli with logit x.theta*, and |theta*| = `radius` throughout:
    after each step theta* moves by a random vector of the given length and is put back onto the
    sphere. The regret is exact given the parameters: the expected divergence of two Bernoulli laws
    whose logits are jointly normal, by Gauss-Hermite quadrature.

    Parameters
    ----------
    optimizer, shifts, dim, batch, start, alarms, told, path
        As in `regression_trial`. The batch loss is offered as ``value=``; the estimators that read
        losses assume squared error and do not fit here, `scale_by_half_batches` does.
    radius : float, default=2
        Length of theta*.

    Returns
    -------
    callable
        ``trial(key) -> {"regret": ...}``, in nats.
    """
    size, scale = _whole("batch", batch), _arguments.positive("radius", radius)
    first = _arguments.number("start", start)
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    grid_a, grid_b = (jnp.asarray(g.ravel()) for g in np.meshgrid(nodes, nodes))
    mass = jnp.asarray(np.outer(weights, weights).ravel() / (2 * np.pi))

    def sample(key: jax.Array, optimum: jax.Array) -> tuple[jax.Array, jax.Array]:
        features, labels = jax.random.split(key)
        x = jax.random.normal(features, (size, dim))
        return x, jax.random.bernoulli(labels, jax.nn.sigmoid(x @ optimum)).astype(x.dtype)

    def loss(theta: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        logits = x @ theta
        return jnp.mean(jax.nn.softplus(logits) - y * logits)

    def excess(theta: jax.Array, optimum: jax.Array) -> jax.Array:
        length = jnp.sqrt(jnp.sum(optimum**2))
        along = theta @ optimum / length
        across = jnp.sqrt(jnp.maximum(jnp.sum(theta**2) - along**2, 0.0))
        truth, guess = length * grid_a, along * grid_a + across * grid_b
        p = jax.nn.sigmoid(truth)
        gap = jax.nn.softplus(guess) - jax.nn.softplus(truth) - p * (guess - truth)
        return jnp.sum(mass * gap)

    def move(optimum: jax.Array, step: jax.Array) -> jax.Array:
        moved = optimum + step
        return scale * moved / jnp.sqrt(jnp.sum(moved**2))

    def begin(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        one, two = jax.random.split(key)
        optimum = scale * _direction(one, dim)
        return optimum + jnp.sqrt(first) * _direction(two, dim), optimum

    model = _Model(_whole("dim", dim), size, begin, sample, loss, excess, move)
    return _trial(model, optimizer, shifts, alarms, told, path)


def diffusion_trial(
    *, rate: Callable[[Any], Any], steps: int, end: float, dim: int, noise: float, batch: float
) -> Trial:
    """Return a trial of the stochastic differential equation, the optimum being at rest.

    Euler-Maruyama for dX = -zeta X dtau + zeta nu^(-1/2) [(|X|^2 + s2) I + X X']^(1/2) dW, whose
    matrix root acts in closed form. Starts at the first unit vector.

    Parameters
    ----------
    rate : callable
        zeta as a function of time, in JAX.
    steps : int
        Steps of the scheme.
    end : float
        Last time.
    dim, noise
        As in `regression_trial`.
    batch : float
        nu.

    Returns
    -------
    callable
        ``trial(key) -> {"second": |X|^2 at the end}``.

    Examples
    --------
    >>> import jax
    >>> trial = diffusion_trial(
    ...     rate=lambda t: 0.5, steps=50, end=1.0, dim=2, noise=0.0, batch=1e9
    ... )
    >>> float(trial(jax.random.key(0))["second"])  # exp(-1) in the limit
    0.36...
    """
    h = _arguments.positive("end", end) / _whole("steps", steps)

    def trial(key: jax.Array) -> dict[str, jax.Array]:
        draws = jax.random.normal(key, (steps, dim))

        def step(x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
            time, z = inputs
            zeta, square = rate(time), x @ x
            even = jnp.sqrt(square + noise)
            along = (jnp.sqrt(2 * square + noise) - even) * (x @ z) / jnp.maximum(square, 1e-30)
            kick = even * z + along * x
            return x - h * zeta * x + zeta * jnp.sqrt(h / batch) * kick, None

        x, _ = jax.lax.scan(step, jnp.eye(dim)[0], (h * jnp.arange(steps), draws))
        return {"second": x @ x}

    return trial


def tuned_rates(
    trial_of: Callable[[jax.Array], Trial],
    key: jax.Array,
    *,
    n_trials: int,
    low: Any,
    high: Any,
    size: int = 1,
    points: int = 9,
    rounds: int = 3,
) -> np.ndarray:
    """Return the parameters with the least mean regret in hindsight, by simulation.

    A logarithmic grid, then ever finer ones between the neighbours of the best point, always with
    the same draws; one program, compiled once. Comparators tuned like this are favoured: they
    have seen the stream.

    Parameters
    ----------
    trial_of : callable
        ``trial_of(rates)`` with a traced array of shape (size,) gives a trial whose ``"regret"``
        has shape (size,) too: one for each problem that is tuned.
    key : jax.Array
        Typed key.
    n_trials : int
        Trials of each evaluation.
    low, high : float or array of shape (size,)
        Ends of the search, positive; nothing is tuned where they are equal.
    size : int, default=1
        Problems.
    points, rounds : int
        Grid points of each round; the last spacing is about (2 / (points - 1))^(rounds - 1) of the
        first one, in logarithms.

    Returns
    -------
    array of shape (size,)

    Examples
    --------
    >>> import jax
    >>> best = tuned_rates(
    ...     lambda rates: lambda key: {"regret": (rates - 0.1) ** 2},
    ...     jax.random.key(0), n_trials=2, low=0.001, high=1.0, rounds=6,
    ... )
    >>> best.round(3)
    array([0.1])
    """
    if not (np.all(np.asarray(low) > 0) and np.all(np.asarray(low) <= np.asarray(high))):
        raise ValueError(f"the search needs 0 < low <= high, got {low!r} and {high!r}")
    keys = jax.random.split(key, n_trials)

    @jax.jit
    def mean(rates: jax.Array) -> jax.Array:
        def one(row: jax.Array) -> jax.Array:
            regret = jax.vmap(lambda k: trial_of(row)(k)["regret"])(keys)
            return jnp.mean(jnp.where(jnp.isfinite(regret), regret, 1e30), axis=0)

        return jax.vmap(one)(rates)

    down, up = (np.broadcast_to(np.log(end), size).astype(float) for end in (low, high))
    for _ in range(rounds):
        grid = np.linspace(down, up, points)
        values = np.asarray(mean(jnp.asarray(np.exp(grid), float))).reshape(points, size)
        best, each = values.argmin(axis=0), np.arange(size)
        down = grid[np.maximum(best - 1, 0), each]
        up = grid[np.minimum(best + 1, points - 1), each]
    return np.exp(grid[best, each])


class _Model(NamedTuple):
    """What distinguishes one kind of stream from another."""

    dim: int
    batch: int
    begin: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    sample: Callable[[jax.Array, jax.Array], Any]
    loss: Callable[[jax.Array, Any], jax.Array]
    excess: Callable[[jax.Array, jax.Array], jax.Array]
    move: Callable[[jax.Array, jax.Array], jax.Array]


def _trial(
    model: _Model, optimizers: Any, shifts: Any, alarms: Any, told: Any, path: bool
) -> Trial:
    """Build a trial from the pieces of a model; all optimizers see the same draws."""
    if not traced(shifts):
        shifts = _arguments.per_step("shifts", shifts)
    steps = len(shifts)
    flags = jnp.zeros(steps, bool) if alarms is None else jnp.asarray(alarms)
    if flags.shape != (steps,):
        raise ValueError(f"alarms has shape {flags.shape}, the horizon is {steps}")
    single = not isinstance(optimizers, Mapping)
    named = {"": optimizers} if single else dict(optimizers)
    runs = {name: optax.with_extra_args_support(o) for name, o in named.items()}
    halved = value_and_half_grads(model.loss)

    def evaluate(theta: jax.Array, data: Any) -> tuple[Any, Any, Any]:
        if model.batch % 2 == 0:
            return halved(theta, data)
        value, gradient = jax.value_and_grad(model.loss)(theta, data)
        return value, gradient, None

    def trial(key: jax.Array) -> dict[str, Any]:
        start_key, walk_key = jax.random.split(key)
        first, optimum = model.begin(start_key)

        def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
            optimum, thetas, states, regrets = carry
            time, length, flag = inputs
            data_key, move_key = jax.random.split(jax.random.fold_in(walk_key, time))
            data = model.sample(data_key, optimum)
            new: tuple[dict, dict, dict] = ({}, {}, {})
            out = {}
            for name, run in runs.items():
                theta = thetas[name]
                paid = model.excess(theta, optimum)
                value, gradient, halves = evaluate(theta, data)
                alarm = flag if told is None or name in told else False
                updates, state = run.update(
                    gradient, states[name], theta, value=value, halves=halves, alarm=alarm
                )
                new[0][name] = optax.apply_updates(theta, updates)
                new[1][name] = state
                new[2][name] = regrets[name] + paid
                out[name] = (2 * paid, _rate(state)) if path else None
            optimum = model.move(optimum, length * _direction(move_key, model.dim))
            return (optimum, *new), out

        inputs = jnp.arange(steps), jnp.asarray(shifts, first.dtype), flags
        zero = jnp.zeros((), first.dtype)
        thetas = dict.fromkeys(runs, first)
        states = {name: run.init(first) for name, run in runs.items()}
        carry = optimum, thetas, states, dict.fromkeys(runs, zero)
        (_, _, _, regrets), out = jax.lax.scan(step, carry, inputs)
        result: dict[str, Any] = {"regret": regrets[""] if single else regrets}
        if path:
            second, rates = ({name: out[name][k] for name in runs} for k in (0, 1))
            result |= {"second": second[""] if single else second}
            result |= {"rates": rates[""] if single else rates}
        return result

    return trial


def _rate(state: Any) -> jax.Array:
    """Give the rate of the first `DriftState` in an optimizer's state, 0 if it has none."""
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, DriftState))
    return next((leaf.rate for leaf in leaves if isinstance(leaf, DriftState)), jnp.zeros(()))


def _direction(key: jax.Array, dim: int) -> jax.Array:
    draw = jax.random.normal(key, (dim,))
    return draw / jnp.sqrt(jnp.sum(draw**2))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)
