"""Online convex optimisation: run a learner on a stream of losses, and count its regret."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from privlearn.pacing._validation import check_whole
from privlearn.pacing.kernels import Learner
from privlearn.pacing.warnings import PacingWarning


class OCORun(NamedTuple):
    """Where a learner went, and what it was told.

    Attributes
    ----------
    points : Array of shape (T, m)
        w_1, ..., w_T.
    gradients : Array of shape (T, m)
        Gradients of the losses at those points.
    monotone : Array of shape (T,)
        <grad f_t(w_t) - grad f_t(w_{t-1}), w_t - w_{t-1}>: negative means that f_t is not convex.
    """

    points: Array
    gradients: Array
    monotone: Array

    def regret(self, comparator: Array) -> Array:
        """Sum of <g_t, w_t - w>: at least the regret against w, if the losses are convex."""
        return (self.gradients * (self.points - jnp.asarray(comparator))).sum()


def run_oco(
    learner: Learner,
    gradient: Callable[[Array, Array], Array],
    horizon: int,
    *,
    check_convexity: bool = True,
) -> OCORun:
    """Run a learner for T steps; losses may depend on where it stands (adaptive adversaries).

    Parameters
    ----------
    learner : Learner
    gradient : callable
        (t, w) -> gradient of f_t at w, shape (m,); pure JAX; t counts from 0.
    horizon : int
        T.
    check_convexity : bool, default=True
        Compare gradients of one loss at two points, which of a convex loss are monotone. One more
        gradient a step; cannot be used under jit or vmap.

    Returns
    -------
    OCORun

    Raises
    ------
    ValueError
        If gradients are not finite, or of the wrong shape.

    Warns
    -----
    PacingWarning
        If a loss is found not to be convex: bounds of regret are then void.

    Examples
    --------
    >>> from privlearn.pacing.kernels import mirror_descent
    >>> run = run_oco(mirror_descent(0.5, start=1.0), lambda t, w: 2 * (w - 0.25), 3)
    >>> run.points[:, 0].tolist()
    [1.0, 0.25, 0.25]
    """
    steps = check_whole("horizon", horizon, 1)
    first = learner.init()
    shape = learner.point(first).shape
    told = jax.eval_shape(gradient, jnp.zeros((), jnp.int32), learner.point(first)).shape
    if told != shape:
        raise ValueError(f"gradient must return shape {shape}, got {told}")

    def step(carry: tuple[object, Array], t: Array) -> tuple[tuple[object, Array], OCORun]:
        state, last = carry
        w = learner.point(state)
        g = gradient(t, w)
        change = (g - gradient(t, last)) @ (w - last) if check_convexity else jnp.zeros(())
        return (learner.update(state, g), w), OCORun(w, g, change)

    _, run = jax.lax.scan(step, (first, learner.point(first)), jnp.arange(steps))
    if not check_convexity:
        return run
    if not np.isfinite(run.gradients).all():
        bad = int(np.argmin(np.isfinite(run.gradients).all(axis=1)))
        raise ValueError(f"gradient must be finite, got {run.gradients[bad]} at step {bad}")
    scale = float(abs(run.gradients).max() * abs(run.points).max())
    slack = 1e-5 if run.points.dtype == jnp.float32 else 1e-12
    if float(run.monotone.min()) < -slack * max(scale, 1e-30):
        bad = int(np.argmin(run.monotone))
        warnings.warn(
            f"gradient is not monotone at step {bad} (product {float(run.monotone[bad]):.3g}): the "
            "loss is not convex, and bounds of regret do not hold",
            PacingWarning,
            stacklevel=2,
        )
    return run
