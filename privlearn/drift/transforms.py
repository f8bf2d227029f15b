"""Optax transformations that set the learning rate from what the stream shows.

Four estimators, one protocol: an `optax.GradientTransformationExtraArgs` whose state is a
`DriftState` (learning rate, estimated squared distance, alarms) and whose ``update`` takes, besides
the gradient, what it needs to know of the batch. They replace plain SGD with a rate; chain momentum
or clipping before them as usual. All work inside jit, scan and vmap.

None of them is in the paper (Fahrbach et al., ICML 2023), where the size of the drift is known.
`privlearn.drift.optimal_schedule` is the paper's answer; it beats all of these, and the figure
``drift-comparison`` shows by how much, and on which streams a constant rate beats them too.

What they need, and where they lose:

=====================  ============================================  ===============================
estimator              needs                                         loses
=====================  ============================================  ===============================
filter                 loss of each batch, noise, d, B               steady or noisy drift: to a
                                                                     tuned constant
average                the same                                      wherever the filter wins
restarts               the same, and an alarm                        drift that is not in bursts
halves                 gradients of two half-batches, largest rate   bursts (slow), small batches
=====================  ============================================  ===============================
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from privlearn.drift import kernels
from privlearn.drift._checks import check
from privlearn.drift.kernels import DriftState


def scale_by_filter(
    *,
    batch: float,
    noise: float | None = None,
    dim: int | None = None,
    start: float = 1.0,
    propagate: bool = False,
    gain: float = 0.3,
    threshold: float = 5.0,
    smallest: float = 8e-4,
    noise_window: int = 200,
) -> optax.GradientTransformationExtraArgs:
    """Descend at the optimal rate for a squared distance that is filtered from batch losses.

    ``update(grads, state, params, value=loss, alarm=False)`` needs the loss of the batch at the
    parameters where the gradient was taken, as the mean of (y - f)^2 / 2.

    Parameters
    ----------
    batch : float
        Samples of a batch.
    noise : float, default=None
        Variance of a response around its mean. None: estimated, as the least value of a long
        running mean of twice the loss, which is too high by the distance that remains; give it
        where it is known (residual variance of a good offline fit).
    dim : int, default=None
        Coordinates; the number of entries of the gradient if not given.
    start : float, default=1
        Guess of the first squared distance.
    propagate : bool, default=False
        Let the estimate shrink after each step as the recursion says: better for rare bursts and
        no drift, worse for permanent drift.
    gain : float, default=0.3
        Gain of the filter in an alarm.
    threshold : float, default=5
        Standard deviations of the smoothed surprise that make an alarm.
    smallest : float, default=8e-4
        Floor of the learning rate, so that the estimate cannot die.
    noise_window : int, default=200
        Steps of the running mean, where the noise is estimated.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state is a `DriftState`.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or ``update`` gets no ``value``.

    Notes
    -----
    An addition, not from the paper. Its constants were chosen on four synthetic streams and then
    frozen. A loss that is not finite leaves the estimate as it was.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from privlearn.drift import scale_by_filter
    >>> sgd = scale_by_filter(batch=8, noise=0.25)
    >>> theta = jnp.zeros(20)
    >>> state = sgd.init(theta)
    >>> grads, loss = 0.1 * jnp.ones(20), 0.6
    >>> updates, state = sgd.update(grads, state, theta, value=loss)
    >>> theta = optax.apply_updates(theta, updates)
    >>> float(state.rate), float(state.second_moment), int(state.alarms)
    (0.2348..., 0.988..., 0)
    """
    check(
        batch=batch, noise=noise, dim=dim, start=start, gain=gain, threshold=threshold,
        smallest=smallest, noise_window=noise_window,
    )  # fmt: skip

    def step(state: DriftState, value: Any, alarm: Any, size: int) -> DriftState:
        return kernels.filter_step(
            state, value, alarm, dim=size, batch=batch, smallest=smallest, gain=gain,
            threshold=threshold, propagate=propagate,
        )  # fmt: skip

    return _from_losses(step, batch, noise, dim, start, noise_window)


def scale_by_loss_average(
    *,
    batch: float,
    noise: float | None = None,
    dim: int | None = None,
    start: float = 1.0,
    decay: float = 0.9,
    smallest: float = 8e-4,
    noise_window: int = 200,
) -> optax.GradientTransformationExtraArgs:
    """Descend at the optimal rate for an exponential average of the excess loss.

    The simplest estimator; parameters as in `scale_by_filter`. An alarm from outside replaces the
    average by the latest excess.

    Parameters
    ----------
    batch, noise, dim, start, smallest, noise_window
        As in `scale_by_filter`.
    decay : float, default=0.9
        Weight of the past in the average.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> sgd = scale_by_loss_average(batch=8, noise=0.25, decay=0.5)
    >>> state = sgd.init(jnp.zeros(20))
    >>> _, state = sgd.update(jnp.ones(20), state, value=0.5)  # excess 2 * 0.5 - 0.25
    >>> float(state.second_moment)
    0.875
    """
    check(
        batch=batch, noise=noise, dim=dim, start=start, decay=decay, smallest=smallest,
        noise_window=noise_window,
    )  # fmt: skip

    def step(state: DriftState, value: Any, alarm: Any, size: int) -> DriftState:
        return kernels.average_step(
            state, value, alarm, dim=size, batch=batch, smallest=smallest, decay=decay
        )

    return _from_losses(step, batch, noise, dim, start, noise_window)


def scale_by_restarts(
    *,
    batch: float,
    noise: float | None = None,
    dim: int | None = None,
    start: float = 1.0,
    drift: float = 0.0,
    decay: float = 0.7,
    smallest: float = 8e-4,
    noise_window: int = 200,
) -> optax.GradientTransformationExtraArgs:
    """Run the optimal schedule forward, and start it again at each alarm.

    ``update(grads, state, params, value=loss, alarm=flag)``: the flag comes from a detector, one
    of `river` (`privlearn.drift.detectors`), `privlearn.drift.kernels.page_hinkley_step` inside of
    jit, or from somebody who knows that prices have just changed.

    Parameters
    ----------
    batch, noise, dim, start, smallest, noise_window
        As in `scale_by_filter`.
    drift : float, default=0
        Length of the move that is expected after every step, between alarms.
    decay : float, default=0.7
        Weight of the past in the average of recent excess losses, from which a restart starts.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> sgd = scale_by_restarts(batch=4, noise=0.25)
    >>> state = sgd.init(jnp.zeros(10))
    >>> rates = []
    >>> for t in range(6):
    ...     _, state = sgd.update(jnp.ones(10), state, value=2.0, alarm=t == 4)
    ...     rates.append(round(float(state.rate), 3))
    >>> rates
    [0.229, 0.219, 0.209, 0.198, 0.254, 0.25]
    """
    check(
        batch=batch, noise=noise, dim=dim, start=start, drift=drift, decay=decay,
        smallest=smallest, noise_window=noise_window,
    )  # fmt: skip

    def step(state: DriftState, value: Any, alarm: Any, size: int) -> DriftState:
        return kernels.restart_step(
            state, value, alarm, dim=size, batch=batch, smallest=smallest, decay=decay, drift=drift
        )

    return _from_losses(step, batch, noise, dim, start, noise_window)


def scale_by_half_batches(
    largest: float = 1.0, *, decay: float = 0.95, start: float = 1.0, start_noise: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Descend at `largest` times signal / (signal + noise) of the gradient, for any model.

    ``update(grads, state, params, halves=(g1, g2))`` needs the gradients of two halves of the
    batch, whose mean is the gradient (`value_and_half_grads` computes all three).

    Parameters
    ----------
    largest : float, default=1
        Rate without noise: 1 for a linear regression on white features, about 1 / smoothness
        elsewhere.
    decay : float, default=0.95
        Weight of the past in both averages.
    start, start_noise : float
        Guesses of the squared norm of the expected gradient and of the variance of the batch
        gradient, ((d + 1) v + d s2) / B in a linear regression.

    Notes
    -----
    With true moments instead of averages it is exactly the optimal rate of the linear regression
    (`theory.noise_scale_rate`); the averages make it slow after a burst.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> sgd = scale_by_half_batches(decay=0.5)
    >>> state = sgd.init(jnp.zeros(2))
    >>> halves = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> updates, state = sgd.update(jnp.array([0.5, 0.5]), state, halves=halves)
    >>> float(state.second_moment), float(state.noise), round(float(state.rate), 4)
    (0.5, 0.25, 0.6667)
    """
    check(largest=largest, decay=decay, start=start, noise=start_noise)

    def init(params: Any) -> DriftState:
        total = jnp.asarray(start, float) + start_noise
        rate = largest * start / jnp.maximum(total, 1e-30)
        return kernels.initial_state(start, rate, start_noise)

    def update(
        updates: Any, state: DriftState, params: Any = None, *, halves: Any = None,
        alarm: Any = False, **extra: Any,
    ) -> tuple[Any, DriftState]:  # fmt: skip
        if halves is None:
            raise ValueError(
                "update needs halves=(g1, g2), the gradients of two halves of the batch; "
                "value_and_half_grads computes them"
            )
        inner, spread = kernels.half_batch_moments(*halves)
        state = kernels.halves_step(state, inner, spread, alarm, largest=largest, decay=decay)
        return _descent(updates, state.rate), state

    return optax.GradientTransformationExtraArgs(init, update)


class AlarmState(NamedTuple):
    """State of `with_alarm`.

    Attributes
    ----------
    inner : pytree
        State of the transformation that is told.
    test : PageHinkleyState
        State of the test.
    """

    inner: Any
    test: kernels.PageHinkleyState


def with_alarm(
    inner: optax.GradientTransformation,
    *,
    tolerance: float = 0.25,
    threshold: float = 5.0,
    min_instances: int = 30,
) -> optax.GradientTransformationExtraArgs:
    """Tell a transformation of rises of the loss: a Page-Hinkley test inside of jit.

    The test watches the *logarithm* of ``value=``, so that its settings do not depend on the unit
    of the loss; its verdict goes to the inner ``update`` as ``alarm=`` (with one from outside).

    Parameters
    ----------
    inner : optax.GradientTransformation
        Usually `scale_by_restarts`.
    tolerance : float, default=0.25
        Rises of the mean log loss below this one are let pass. The log loss of a batch of B has a
        standard deviation of about sqrt(2 / B).
    threshold : float, default=5
        Sum of rises that makes an alarm.
    min_instances : int, default=30
        Steps after a start or an alarm in which there is none.

    Notes
    -----
    An addition, not from the paper. Detectors of `river` do the same outside of jit
    (`privlearn.drift.detectors`).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> sgd = with_alarm(scale_by_restarts(batch=4, noise=0.25))
    >>> state = sgd.init(jnp.zeros(10))
    >>> for t in range(60):
    ...     loss = 5.0 if t >= 50 else 0.2
    ...     _, state = sgd.update(jnp.ones(10), state, value=loss)
    ...     if drift_state(state).alarm:
    ...         print(t, round(float(drift_state(state).rate), 3))
    51 0.258
    """
    check(drift=tolerance, threshold=threshold, noise_window=min_instances)
    run = optax.with_extra_args_support(inner)

    def init(params: Any) -> AlarmState:
        return AlarmState(run.init(params), kernels.page_hinkley_init())

    def update(
        updates: Any, state: AlarmState, params: Any = None, *, value: Any = None,
        alarm: Any = False, **extra: Any,
    ) -> tuple[Any, AlarmState]:  # fmt: skip
        if value is None:
            raise ValueError("update needs value=loss, the loss of the batch")
        level = jnp.log(jnp.maximum(value, 1e-30))
        new = kernels.page_hinkley_step(
            state.test, level, delta=tolerance, threshold=threshold, min_instances=min_instances
        )
        # A loss that is not finite would stay in the test for ever.
        test = jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(level), a, b), new, state.test)
        alarm = jnp.logical_or(alarm, test.alarm)
        updates, told = run.update(updates, state.inner, params, value=value, alarm=alarm, **extra)
        return updates, AlarmState(told, test)

    return optax.GradientTransformationExtraArgs(init, update)


_METHODS: dict[str, Any] = {
    "filter": scale_by_filter,
    "average": scale_by_loss_average,
    "restarts": scale_by_restarts,
    "halves": scale_by_half_batches,
}


def drift_aware_sgd(
    method: str = "filter", *, momentum: float | None = None, **settings: Any
) -> optax.GradientTransformationExtraArgs:
    """Return SGD whose learning rate follows the drift: one of four estimators by its name.

    Parameters
    ----------
    method : {"filter", "average", "restarts", "halves"}, default="filter"
        `scale_by_filter`, `scale_by_loss_average`, `scale_by_restarts`, `scale_by_half_batches`.
    momentum : float, default=None
        Decay of an exponential average of gradients before the step. No theory here covers it.
    **settings
        Of the estimator.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        `drift_state` finds the `DriftState` in its state.

    Raises
    ------
    ValueError
        If the method is unknown or a setting is out of its range.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> optimizer = drift_aware_sgd(batch=8, noise=0.25, momentum=0.9)
    >>> theta = jnp.zeros(3)
    >>> state = optimizer.init(theta)
    >>> loss, grads = jax.value_and_grad(lambda w: jnp.sum((w - 1) ** 2) / 2)(theta)
    >>> updates, state = optimizer.update(grads, state, theta, value=loss)
    >>> round(float(drift_state(state).rate), 3)
    0.645

    The same through `optax.inject_hyperparams`, where an optimizer cannot be exchanged but its
    rate can be written:

    >>> watcher = drift_aware_sgd(batch=8, noise=0.25)
    >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    >>> watched, state = watcher.init(theta), optimizer.init(theta)
    >>> _, watched = watcher.update(grads, watched, value=loss)
    >>> state.hyperparams["learning_rate"] = watched.rate
    >>> updates, state = optimizer.update(grads, state, theta)
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    scale = _METHODS[method](**settings)
    if momentum is None:
        return scale
    check(decay=momentum)
    return optax.with_extra_args_support(optax.chain(optax.ema(momentum, debias=True), scale))


def drift_state(state: Any) -> DriftState:
    """Find the `DriftState` inside the state of any optax optimizer that holds one.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, DriftState))
    found = [leaf for leaf in leaves if isinstance(leaf, DriftState)]
    if len(found) != 1:
        raise ValueError(f"the optimizer's state holds {len(found)} DriftState, expected one")
    return found[0]


def value_and_half_grads(loss: Any) -> Any:
    """Turn a mean loss ``loss(params, batch)`` into one that gives both half-batch gradients.

    Parameters
    ----------
    loss : callable
        ``loss(params, batch)``: the mean over a batch, a pytree of arrays whose first axis counts
        samples.

    Returns
    -------
    callable
        ``(params, batch) -> (value, gradient, (g1, g2))``, the halves being even and odd samples;
        a batch of odd size is a ValueError.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> def loss(w, batch):
    ...     x, y = batch
    ...     return jnp.mean((y - x * w) ** 2) / 2
    >>> batch = jnp.ones(4), jnp.array([1.0, 0.0, 1.0, 0.0])
    >>> value, gradient, halves = value_and_half_grads(loss)(0.0, batch)
    >>> float(value), float(gradient), [float(g) for g in halves]
    (0.25, -0.5, [-1.0, 0.0])
    """

    def evaluate(params: Any, batch: Any) -> tuple[Any, Any, tuple[Any, Any]]:
        size = jax.tree.leaves(batch)[0].shape[0]
        if size < 2 or size % 2:
            raise ValueError(f"half-batches need an even number of samples, got {size}")
        halves = jax.tree.map(lambda a: jnp.stack([a[0::2], a[1::2]]), batch)
        values, grads = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))(params, halves)
        first, second = (jax.tree.map(lambda g, k=k: g[k], grads) for k in (0, 1))
        mean = jax.tree.map(lambda g: (g[0] + g[1]) / 2, grads)
        return values.mean(), mean, (first, second)

    return evaluate


def _from_losses(
    step: Any, batch: float, noise: float | None, dim: int | None, start: float, window: int
) -> optax.GradientTransformationExtraArgs:
    """Cover an estimator that reads losses as an optax transformation."""

    def init(params: Any) -> DriftState:
        size = _count(params) if dim is None else dim
        known = 0.0 if noise is None else noise
        rate = kernels.optimal_rate(jnp.asarray(start, float), size, known, batch)
        return kernels.initial_state(start, rate, known)

    def update(
        updates: Any, state: DriftState, params: Any = None, *, value: Any = None,
        alarm: Any = False, noise_now: Any = None, **extra: Any,
    ) -> tuple[Any, DriftState]:  # fmt: skip
        if value is None:
            raise ValueError("update needs value=loss, the mean of (y - f)^2 / 2 over the batch")
        if noise_now is not None:
            state = state._replace(noise=jnp.asarray(noise_now, state.noise.dtype))
        elif noise is None:
            state = kernels.update_noise(state, value, window)
        size = _count(updates) if dim is None else dim
        state = step(state, value, alarm, size)
        return _descent(updates, state.rate), state

    return optax.GradientTransformationExtraArgs(init, update)


def _count(tree: Any) -> int:
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


def _descent(updates: Any, rate: jax.Array) -> Any:
    return jax.tree.map(lambda g: -rate.astype(jnp.result_type(g)) * g, updates)
