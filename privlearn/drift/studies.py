"""Side by side on one stream: the schedules that know, the tuned ones, and those that estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privlearn import simulate
from privlearn.drift import simulation, theory, transforms
from privlearn.drift.theory import _arguments

#: What is known to each method: "drift" knows the lengths of all moves, "hindsight" was tuned on
#: this very stream, "noise" is told the noise variance and nothing of the drift, "nothing" neither.
KNOWS = {
    "optimal schedule": "drift",
    "restarts, told when": "drift",
    "best constant": "hindsight",
    "best a / (1 + b t)": "hindsight",
    "best cosine restarts": "hindsight",
    "best Adam": "hindsight",
    "filter": "noise",
    "filter, propagating": "noise",
    "loss average": "noise",
    "restarts on alarm": "noise",
    "filter, noise unknown": "nothing",
    "half-batches": "nothing",
}


_TOLD = "restarts, told when"


@dataclass(frozen=True, slots=True)
class Cell:
    """Mean dynamic regret of one method on one stream.

    Parameters
    ----------
    stream, method : str
    knows : str
        "drift", "hindsight", "noise" or "nothing": see `KNOWS`.
    regret, stderr : float
        Mean over streams of its kind; the standard error is 0 where the value is exact.
    parameters : tuple of float
        Of tuned methods: where the minimum is.
    """

    stream: str
    method: str
    knows: str
    regret: float
    stderr: float
    parameters: tuple[float, ...] = ()


def estimators(
    *, dim: int, noise: float, batch: int, start: float = 1.0
) -> dict[str, optax.GradientTransformationExtraArgs]:
    """Return the estimating optimizers of the comparison, all with their default settings.

    Examples
    --------
    >>> list(estimators(dim=20, noise=0.25, batch=8))[:2]
    ['filter', 'filter, propagating']
    """
    known: dict[str, Any] = {"batch": batch, "noise": noise, "start": start}
    first_noise = ((dim + 1) * start + dim * noise) / batch
    return {
        "filter": transforms.scale_by_filter(**known),
        "filter, propagating": transforms.scale_by_filter(**known, propagate=True),
        "loss average": transforms.scale_by_loss_average(**known),
        "restarts on alarm": transforms.with_alarm(transforms.scale_by_restarts(**known)),
        "filter, noise unknown": transforms.scale_by_filter(batch=batch, start=start),
        "half-batches": transforms.scale_by_half_batches(start=start, start_noise=first_noise),
    }


def compare_on_regression(
    streams: Mapping[str, Any],
    *,
    dim: int,
    noise: float,
    batch: int,
    start: float = 1.0,
    key: jax.Array,
    n_trials: int,
    methods: Sequence[str] = tuple(KNOWS),
) -> list[Cell]:
    """Compare methods on streams of linear regression; every cell is reported.

    Schedules that do not look at the data have their exact regret from the recursion, minimised
    over continuous parameters in hindsight where they are tuned. Adam is tuned by simulation. The
    estimators run with their defaults and the true first distance.

    Parameters
    ----------
    streams : mapping of str to array of shape (T,)
        Lengths of the moves after each step; all of one horizon.
    dim, noise, batch, start
        As in `simulation.regression_trial`.
    key : jax.Array
        Typed key.
    n_trials : int
        Simulated streams of each kind, at least 2.
    methods : sequence of str
        Some of `KNOWS`.

    Returns
    -------
    list of Cell

    Examples
    --------
    >>> import jax
    >>> from privlearn.drift import streams
    >>> cells = compare_on_regression(
    ...     {"burst": streams.burst(200, at=[100])}, dim=20, noise=0.25, batch=8,
    ...     key=jax.random.key(0), n_trials=20, methods=["optimal schedule", "best constant"],
    ... )
    >>> [(cell.method, round(cell.regret, 1)) for cell in cells]
    [('optimal schedule', 21.6), ('best constant', 28.8)]
    """
    unknown = [method for method in methods if method not in KNOWS]
    if unknown:
        raise ValueError(f"methods must be some of {', '.join(KNOWS)}, got {unknown[0]!r}")
    model: dict[str, Any] = {"dim": dim, "noise": noise, "batch": batch, "start": start}
    moves = _rectangle(streams)
    found: dict[str, list[tuple[float, float, tuple[float, ...]]]] = {
        method: [_EXACT[method](row, model) for row in moves]
        for method in methods
        if method in _EXACT
    }
    running = {k: v for k, v in estimators(**model).items() if k in methods}
    if _TOLD in methods:
        running[_TOLD] = transforms.scale_by_restarts(
            batch=batch, noise=noise, start=start, decay=0.0
        )
    if running:
        found |= _simulated(running, moves, model, key, n_trials)
    if "best Adam" in methods:
        found["best Adam"] = _adam(moves, model, key, n_trials)
    return [
        Cell(name, method, KNOWS[method], *found[method][k])
        for k, name in enumerate(streams)
        for method in methods
    ]


def _rectangle(streams: Mapping[str, Any]) -> np.ndarray:
    rows = {name: _arguments.per_step("shifts", shifts) for name, shifts in streams.items()}
    lengths = {name: row.size for name, row in rows.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"streams must be of one horizon, got {lengths}")
    return np.stack(list(rows.values()))


def _tuned(search: Any) -> Any:
    def value(moves: Any, model: dict[str, Any]) -> tuple[float, float, tuple[float, ...]]:
        found = search(moves, **model)
        return found.regret, 0.0, found.parameters

    return value


_EXACT: dict[str, Any] = {
    "optimal schedule": lambda moves, model: (
        theory.optimal_schedule(moves, **model).regret, 0.0, (),
    ),
    "best constant": _tuned(theory.best_constant),
    "best a / (1 + b t)": _tuned(theory.best_decay),
    "best cosine restarts": _tuned(theory.best_cosine),
}  # fmt: skip


def _simulated(
    optimizers: dict[str, Any], moves: np.ndarray, model: dict[str, Any], key: Any, n_trials: int
) -> dict[str, list[tuple[float, float, tuple[float, ...]]]]:
    """Run all optimizers on all streams with the same draws, as one program."""
    # The flag comes with the first batch after the move.
    flags = np.pad(moves[:, :-1] > 0, ((0, 0), (1, 0)))

    def trial(key: jax.Array) -> Any:
        def one(shifts: jax.Array, alarms: jax.Array) -> Any:
            run = simulation.regression_trial(
                optimizers, shifts, alarms=alarms, told=(_TOLD,), **model
            )
            return run(key)["regret"]

        return jax.vmap(one)(jnp.asarray(moves, float), jnp.asarray(flags))

    found = simulate.monte_carlo(trial, key=key, n_trials=n_trials, batch_size=min(n_trials, 64))
    return {
        name: [
            (float(mean), float(stderr), ())
            for mean, stderr in zip(found.mean[name], found.stderr[name], strict=True)
        ]
        for name in optimizers
    }


def _adam(
    moves: np.ndarray, model: dict[str, Any], key: Any, n_trials: int
) -> list[tuple[float, float, tuple[float, ...]]]:
    """Adam at the rate that is best in hindsight on each stream, on fresh draws."""

    def trial_of(rates: jax.Array) -> Any:
        def trial(key: jax.Array) -> dict[str, jax.Array]:
            def one(rate: jax.Array, shifts: jax.Array) -> jax.Array:
                run = simulation.regression_trial(optax.adam(rate), shifts, **model)
                return run(key)["regret"]

            return {"regret": jax.vmap(one)(rates, jnp.asarray(moves, float))}

        return trial

    tune_key, run_key = jax.random.split(key)
    rates = simulation.tuned_rates(
        trial_of, tune_key, n_trials=min(n_trials, 8), low=2e-3, high=0.5, size=len(moves), points=7
    )
    found = simulate.monte_carlo(
        trial_of(jnp.asarray(rates, float)), key=run_key, n_trials=n_trials,
        batch_size=min(n_trials, 64),
    )  # fmt: skip
    values = zip(found.mean["regret"], found.stderr["regret"], rates, strict=True)
    return [(float(mean), float(stderr), (float(rate),)) for mean, stderr, rate in values]


#: Families on the logistic streams: an optimizer for a rate and a horizon, and the search.
LOGISTIC: Mapping[str, tuple[Any, float, float]] = {
    "best constant": (lambda rate, steps: optax.sgd(rate), 0.03, 8.0),
    "best a / (1 + 10 t / T)": (
        lambda rate, steps: optax.sgd(lambda t: rate / (1 + 10 * t / steps)), 0.03, 8.0,
    ),
    "best cosine, 5 cycles": (
        lambda rate, steps: optax.sgd(
            lambda t: rate * (1 + jnp.cos(jnp.pi * (t % (steps / 5)) / (steps / 5))) / 2
        ),
        0.03, 8.0,
    ),
    "best Adam": (lambda rate, steps: optax.adam(rate), 1e-3, 0.5),
    "half-batches, best largest rate": (
        lambda rate, steps: transforms.scale_by_half_batches(rate, start=0.1, start_noise=0.5),
        0.3, 30.0,
    ),
    "half-batches, largest rate 4": (
        lambda rate, steps: transforms.scale_by_half_batches(rate, start=0.1, start_noise=0.5),
        4.0, 4.0,
    ),
}  # fmt: skip


def compare_on_logistic(
    streams: Mapping[str, Any],
    *,
    dim: int,
    batch: int,
    key: jax.Array,
    n_trials: int,
    radius: float = 2.0,
    start: float = 1.0,
    methods: Sequence[str] = tuple(LOGISTIC),
    points: int = 7,
) -> list[Cell]:
    """Compare methods on streams of logistic regression; tuned ones by simulation, in hindsight.

    The estimators that read losses assume squared error, so only half-batches take part. Its
    largest rate is 1 / smoothness = 4 where nothing is tuned. A sudden move has the length that is
    given, then theta* is put back onto its sphere.

    Parameters
    ----------
    streams : mapping of str to array of shape (T,)
    dim, batch, radius, start
        As in `simulation.logistic_trial`.
    key : jax.Array
    n_trials : int
    methods : sequence of str
        Some of `LOGISTIC`.
    points : int, default=7
        Grid points of each of three rounds.

    Returns
    -------
    list of Cell
        ``knows`` is "hindsight", or "nothing" for what was not tuned.
    """
    unknown = [method for method in methods if method not in LOGISTIC]
    if unknown:
        raise ValueError(f"methods must be some of {', '.join(LOGISTIC)}, got {unknown[0]!r}")
    moves = _rectangle(streams)
    shape = len(methods), len(moves)
    rows = jnp.asarray(moves, float)

    def trial_of(rates: jax.Array) -> Any:
        """All methods and streams in one program, with the same draws."""

        def one(own: jax.Array, shifts: jax.Array, key: jax.Array) -> jax.Array:
            optimizers = {
                method: LOGISTIC[method][0](own[k], moves.shape[1])
                for k, method in enumerate(methods)
            }
            run = simulation.logistic_trial(
                optimizers, shifts, dim=dim, batch=batch, radius=radius, start=start
            )
            regret = run(key)["regret"]
            return jnp.stack([regret[method] for method in methods])

        def trial(key: jax.Array) -> dict[str, jax.Array]:
            found = jax.vmap(one, (1, 0, None), 1)(rates.reshape(shape), rows, key)
            return {"regret": found.reshape(-1)}

        return trial

    ends = np.array([LOGISTIC[method][1:] for method in methods]).repeat(len(moves), axis=0)
    tune_key, run_key = jax.random.split(key)
    rates = simulation.tuned_rates(
        trial_of, tune_key, n_trials=min(n_trials, 8), low=ends[:, 0], high=ends[:, 1],
        size=len(ends), points=points,
    )  # fmt: skip
    found = simulate.monte_carlo(
        trial_of(jnp.asarray(rates, float)), key=run_key, n_trials=n_trials,
        batch_size=min(n_trials, 64),
    )  # fmt: skip
    values = zip(found.mean["regret"], found.stderr["regret"], rates, ends, strict=True)
    names = [(stream, method) for method in methods for stream in streams]
    return [
        Cell(
            stream, method, "hindsight" if high > low else "nothing", float(mean), float(stderr),
            (float(rate),),
        )
        for (stream, method), (mean, stderr, rate, (low, high)) in zip(names, values, strict=True)
    ]  # fmt: skip
