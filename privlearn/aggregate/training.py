"""Train any differentiable model on bags: optax steps over mini-batches of whole bags.

A model is an equinox module that maps one row of features to a prediction, or a pair
``(init, apply)`` of functions: ``init(key) -> params``, ``apply(params, X) -> predictions``.

* `fit_bags` trains one model, `fit_path` a model for every rho of an array at once (vmapped, with
  the same start and the same batches, so that only rho differs);
* `training_loop` is the pure function under both: no jit, no checks, to be vmapped as you like.

Nothing here draws randomness but from the key that is given. Precision follows JAX: 32 bits unless
called within `privlearn.simulate.float64`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from privlearn.aggregate.bags import index_bags
from privlearn.aggregate.layout import (
    Bags,
    BagWeights,
    PaddedBags,
    SegmentBags,
    pad_rows,
    segment_bags,
    weights_of,
)
from privlearn.aggregate.losses import Family, Scale, family_of, interpolating_loss

Predict: TypeAlias = Callable[[Any, Array], Array]
Objective: TypeAlias = Callable[[Array, Array, Bags, Array], Array]
InitApply: TypeAlias = tuple[Callable[[Array], Any], Predict]

#: The optimizer where none is given: one object, so that compiled code is found again.
ADAM = optax.adam(1e-2)


class BagFit(NamedTuple):
    """A trained model, or, from `fit_path`, one for every rho.

    Attributes
    ----------
    model : pytree
        The equinox module, or the params of an (init, apply) pair. From `fit_path` every array in
        it has a leading axis: rho.
    losses : Array, shape (epochs,) or (len(rhos), epochs)
        Mean training loss of each epoch, before its steps.
    """

    model: Any
    losses: Array


class Rows(NamedTuple):
    """How the loop finds the members of a bag.

    Attributes
    ----------
    members : Array of int, shape (m, k_max), or None
        Rows of X of each bag, when batches are smaller than the data.
    bags : PaddedBags or SegmentBags
        The layout of all bags; segments when every step uses all of them.
    """

    members: Array | None
    bags: Bags


def mlp(
    n_features: int,
    *,
    width: int = 8,
    depth: int = 1,
    n_outputs: int | str = "scalar",
    activation: Callable[[Array], Array] = jnp.tanh,
    key: Array,
) -> eqx.nn.MLP:
    """Multi-layer perceptron for one row of features.

    Parameters
    ----------
    n_features : int
    width, depth : int
        Units of a hidden layer, and number of hidden layers.
    n_outputs : int or "scalar"
        Number of classes for softmax; "scalar" for everything else.
    activation : callable
    key : jax.random.key

    Examples
    --------
    >>> import jax
    >>> network = mlp(3, key=jax.random.key(0))
    >>> network(jax.numpy.ones(3)).shape
    ()
    """
    return eqx.nn.MLP(n_features, n_outputs, width, depth, activation, key=key)  # type: ignore[arg-type]


def predict(model: Callable[[Array], Array], X: ArrayLike) -> Array:
    """Predictions of an equinox module for every row of X."""
    return jax.vmap(model)(jnp.asarray(X, jnp.result_type(float)))


def predict_path(models: Any, X: ArrayLike) -> Array:
    """Predictions of each model from `fit_path` for every row of X: (len(rhos), n, ...)."""
    return eqx.filter_vmap(predict, in_axes=(eqx.if_array(0), None))(
        models, jnp.asarray(X, jnp.result_type(float))
    )


def training_loop(
    predict: Predict,
    objective: Objective,
    params: Any,
    X: Array,
    ybar: Array,
    rows: Rows,
    weights: Array,
    key: Array,
    *,
    epochs: int,
    batch_bags: int | None = None,
    optimizer: optax.GradientTransformation = ADAM,
) -> tuple[Any, Array]:
    """Take the steps of all epochs: pure, so that it can be jitted and vmapped over any argument.

    Parameters
    ----------
    predict : callable
        ``predict(params, X)``, one prediction per row of X, shape (n, ...).
    objective : callable
        ``objective(ybar, predictions, bags, weights)``, a number: the loss of a batch of bags.
    params : pytree of float arrays
    X : Array, shape (n, p)
    ybar : Array, shape (m, ...)
    rows : Rows
    weights : Array, shape (m,)
        Weight of each bag. A batch gets them times m / batch_bags, so its gradient is unbiased for
        bags of any size.
    key : jax.random.key
        Orders the bags in each epoch; unused when every step sees all bags.
    epochs : int
        Passes over the bags.
    batch_bags : int, optional
        Bags of a step; default all. The ``m mod batch_bags`` last bags of an epoch's order wait for
        the next epoch.
    optimizer : optax.GradientTransformation

    Returns
    -------
    params, losses
        losses has shape (epochs,).
    """
    m = ybar.shape[0]

    def whole(params: Any) -> Array:
        return objective(ybar, predict(params, X), rows.bags, weights)

    def batch(params: Any, chosen: Array) -> Array:
        assert rows.members is not None
        assert isinstance(rows.bags, PaddedBags)
        members = rows.members[chosen]
        flat = predict(params, X[members.reshape(-1)])
        predictions = flat.reshape(members.shape + flat.shape[1:])
        scaled = weights[chosen] * (m / chosen.shape[0])
        return objective(ybar[chosen], predictions, PaddedBags(rows.bags.mask[chosen]), scaled)

    def step(state: Any, chosen: Array | None) -> tuple[Any, Array]:
        params, memory = state
        loss = whole if chosen is None else functools.partial(batch, chosen=chosen)
        value, gradient = jax.value_and_grad(loss)(params)
        updates, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    def epoch(state: Any, key: Array) -> tuple[Any, Array]:
        if batch_bags is None:
            return step(state, None)
        per_epoch = m // batch_bags
        order = jax.random.permutation(key, m)[: per_epoch * batch_bags]
        state, values = jax.lax.scan(step, state, order.reshape(per_epoch, batch_bags))
        return state, values.mean()

    keys = jax.random.split(key, epochs)
    (params, _), losses = jax.lax.scan(epoch, (params, optimizer.init(params)), keys)
    return params, losses


def fit_bags(
    model: Any,
    loss: str | Family | Callable[[Array, Array], Array] | None,
    X: ArrayLike,
    ybar: ArrayLike,
    bags: ArrayLike | SegmentBags,
    *,
    key: Array,
    rho: float = 0.0,
    scale: Scale = "link",
    weights: BagWeights = "size",
    objective: Objective | None = None,
    epochs: int = 400,
    batch_bags: int | None = None,
    optimizer: optax.GradientTransformation = ADAM,
) -> BagFit:
    """Train a model on the interpolating loss, or on any objective, of whole bags.

    Parameters
    ----------
    model : equinox.Module or (init, apply)
        A module is trained from its present weights.
    loss : {"squared", "logistic", "poisson", "softmax"}, Family, callable or None
        Loss of one target and one prediction; None with an ``objective``.
    X : array-like, shape (n, p)
    ybar : array-like, shape (m, ...)
        Mean response of each bag, in the sorted order of the bag ids.
    bags : array-like of int or str, shape (n,), or SegmentBags
        Bag of each row.
    key : jax.random.key
    rho : float, default=0
        0 is the bag loss, 1 the instance loss.
    scale : {"link", "response"}
        See `privlearn.aggregate.losses.bag_loss`.
    weights : {"size", "bag"} or array
    objective : callable, optional
        ``objective(ybar, predictions, bags, weights)``, instead of the interpolating loss of
        ``loss``: EasyLLP, proportion matching, or your own. Pass the same function object again to
        use the compiled code again.
    epochs, batch_bags, optimizer
        See `training_loop`. Weight decay belongs to the optimizer (``optax.adamw``).

    Returns
    -------
    BagFit

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or rho, epochs or batch_bags is out of range.
    FloatingPointError
        If the training loss stops being finite.

    Examples
    --------
    >>> import jax, numpy as np
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> bags = np.arange(40) // 4
    >>> ybar = (3 * X[:, 0]).reshape(10, 4).mean(axis=1)
    >>> network = mlp(1, key=jax.random.key(0))
    >>> fit = fit_bags(network, "squared", X, ybar, bags, key=jax.random.key(1))
    >>> bool(fit.losses[-1] < 0.01 * fit.losses[0])
    True
    """
    rho = float(_checked_rhos(rho, ndim=0))
    setup = _Setup(None, loss, scale, objective, epochs, batch_bags, optimizer)
    setup, params, data = _prepare(setup, model, X, ybar, bags, weights, key)
    trained, losses = _fit(setup, params, jnp.asarray(rho, data.ybar.dtype), data)
    return _finished(setup.static, trained, losses)


def fit_path(
    model: Any,
    loss: str | Family | Callable[[Array, Array], Array],
    X: ArrayLike,
    ybar: ArrayLike,
    bags: ArrayLike | SegmentBags,
    *,
    rhos: ArrayLike,
    key: Array,
    scale: Scale = "link",
    weights: BagWeights = "size",
    epochs: int = 400,
    batch_bags: int | None = None,
    optimizer: optax.GradientTransformation = ADAM,
) -> BagFit:
    """Train one model for every rho, all at once, from the same start and on the same batches.

    Parameters
    ----------
    rhos : array-like, shape (r,)
    model, loss, X, ybar, bags, key, scale, weights, epochs, batch_bags, optimizer
        As in `fit_bags`.

    Returns
    -------
    BagFit
        With a leading axis of length r everywhere; `predict_path` evaluates it.
    """
    values = _checked_rhos(rhos, ndim=1)
    setup = _Setup(None, loss, scale, None, epochs, batch_bags, optimizer)
    setup, params, data = _prepare(setup, model, X, ybar, bags, weights, key)
    trained, losses = _fit_path(setup, params, jnp.asarray(values, data.ybar.dtype), data)
    return _finished(setup.static, trained, losses)


class _Data(NamedTuple):
    X: Array
    ybar: Array
    rows: Rows
    weights: Array
    key: Array


class _Setup(NamedTuple):
    """What is fixed at compile time."""

    static: Any
    loss: Any
    scale: Scale
    objective: Objective | None
    epochs: int
    batch_bags: int | None
    optimizer: optax.GradientTransformation


class _Apply(NamedTuple):
    """The static part of an (init, apply) pair."""

    apply: Predict


def _train(setup: _Setup, params: Any, rho: Array, data: _Data) -> tuple[Any, Array]:
    def predict_rows(params: Any, X: Array) -> Array:
        if isinstance(setup.static, _Apply):
            return setup.static.apply(params, X)
        return jax.vmap(eqx.combine(params, setup.static))(X)

    def interpolate(ybar: Array, predictions: Array, bags: Bags, weights: Array) -> Array:
        return interpolating_loss(
            family_of(setup.loss), ybar, predictions, bags, rho, scale=setup.scale, weights=weights
        )

    return training_loop(
        predict_rows,
        setup.objective or interpolate,
        params,
        data.X,
        data.ybar,
        data.rows,
        data.weights,
        data.key,
        epochs=setup.epochs,
        batch_bags=setup.batch_bags,
        optimizer=setup.optimizer,
    )


_fit = eqx.filter_jit(_train)


@eqx.filter_jit
def _fit_path(setup: _Setup, params: Any, rhos: Array, data: _Data) -> tuple[Any, Array]:
    return jax.vmap(lambda rho: _train(setup, params, rho, data))(rhos)


def _prepare(
    setup: _Setup,
    model: Any,
    X: ArrayLike,
    ybar: ArrayLike,
    bags: ArrayLike | SegmentBags,
    weights: BagWeights,
    key: Array,
) -> tuple[_Setup, Any, _Data]:
    """Check everything; the static part of the model goes into the setup."""
    if (setup.loss is None) == (setup.objective is None):
        raise ValueError("give either a loss or an objective, and None for the other")
    if setup.loss is not None:
        family_of(setup.loss)
    features = _finite(X, "X")
    if features.ndim != 2:
        raise ValueError(f"X must have two axes (rows, features), got shape {features.shape}")
    segments, codes = _segments(bags, len(features))
    m = segments.sizes.shape[0]
    means = _finite(ybar, "ybar")
    if means.ndim == 0 or len(means) != m:
        raise ValueError(f"ybar must have one entry per bag ({m}), got shape {means.shape}")
    _positive_integer(setup.epochs, "epochs", None)
    if setup.batch_bags is None:
        rows = Rows(None, segments)
    else:
        _positive_integer(setup.batch_bags, "batch_bags", m)
        padded = pad_rows(codes, m)
        rows = Rows(jnp.asarray(padded.rows), padded.bags)
    of_bags = weights_of(segments, weights)
    if of_bags.shape != (m,):
        raise ValueError(f"weights must have one entry per bag ({m}), got shape {of_bags.shape}")
    start, shuffle = jax.random.split(key)
    static, params = _split_model(model, start)
    as_float = functools.partial(jnp.asarray, dtype=jnp.result_type(float))
    data = _Data(as_float(features), as_float(means), rows, as_float(of_bags), shuffle)
    return setup._replace(static=static), params, data


def _split_model(model: Any, key: Array) -> tuple[Any, Any]:
    """Separate what is fixed at compile time from the weights: (static, params)."""
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        init, apply = model
        return _Apply(apply), init(key)
    if not callable(model):
        raise TypeError(
            f"model must be an equinox module or a pair (init, apply), got {type(model).__name__}"
        )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return static, params


def _finished(static: Any, params: Any, losses: Array) -> BagFit:
    final = np.asarray(losses)
    if not np.isfinite(final).all():
        epoch = int(np.argmax(~np.isfinite(final).reshape(-1, final.shape[-1]).all(axis=0)))
        raise FloatingPointError(
            f"the training loss is not finite from epoch {epoch} on: lower the learning rate of "
            "the optimizer, or scale X and ybar"
        )
    return BagFit(params if isinstance(static, _Apply) else eqx.combine(params, static), losses)


def _segments(bags: ArrayLike | SegmentBags, n_rows: int) -> tuple[SegmentBags, np.ndarray]:
    ids = bags.ids if isinstance(bags, SegmentBags) else bags
    index = index_bags(ids, n_rows)
    if len(index.sizes) < 2:
        raise ValueError("bags must name at least two bags, got one")
    return segment_bags(index.codes), index.codes


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numeric, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return array


def _checked_rhos(rhos: ArrayLike, ndim: int) -> np.ndarray:
    values = np.asarray(rhos, float)
    name = "rho" if ndim == 0 else "rhos"
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"{name} must be finite and >= 0, got {rhos}")
    return values


def _positive_integer(value: Any, name: str, most: int | None) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most the number of bags ({most}), got {value}")
