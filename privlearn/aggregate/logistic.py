"""Linear classifiers on bags by L-BFGS: one logit for two classes, a softmax for more.

`objective` is the loss as a pure JAX function of the packed coefficients; `fit_logits` minimises it
in float64 with SciPy's L-BFGS from zero, so the result is deterministic. Features are centred and
scaled inside for the sake of the minimiser only: penalty and result are in the units given.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import minimize

from privlearn.aggregate.layout import SegmentBags
from privlearn.aggregate.losses import (
    LOGISTIC,
    SOFTMAX,
    debiased_square_loss,
    easyllp_loss,
    interpolating_loss,
    proportion_loss,
)
from privlearn.simulate.precision import float64

#: Losses that `objective` knows; bag and instance loss are "interpolate" at rho 0 and 1.
KINDS = ("interpolate", "proportion", "proportion-squared", "easyllp", "debiased")


class LogitData(NamedTuple):
    """What a fit sees. NumPy outside jit, JAX within.

    Attributes
    ----------
    features : array, shape (n, p)
        Centred and scaled.
    shares : array, shape (m,) or (m, n_classes)
        Proportion of the second class, or of every class.
    codes : array of int, shape (n,)
    sizes : array of int, shape (m,)
    weight : array, shape (m,)
        Weight of each bag; 0 leaves a bag out.
    penalty : array, shape (p,)
        Ridge of each scaled coefficient.
    """

    features: Any
    shares: Any
    codes: Any
    sizes: Any
    weight: Any
    penalty: Any


class LogitFit(NamedTuple):
    """A fitted classifier.

    Attributes
    ----------
    coef : ndarray, shape (n_outputs, p)
        n_outputs is 1 for two classes.
    intercept : ndarray, shape (n_outputs,)
    n_iter : int
    converged : bool
    message : str
    """

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: int
    converged: bool
    message: str


class Standard(NamedTuple):
    """Centre and scale of each feature: a change of coordinates for the minimiser."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, fit_intercept: bool) -> Standard:
        """Mean and standard deviation; without an intercept 0 and the root mean square."""
        mean = features.mean(axis=0) if fit_intercept else np.zeros(features.shape[1])
        scale = np.sqrt(((features - mean) ** 2).mean(axis=0))
        flat = scale <= 1e-12 * np.maximum(1.0, np.abs(features).max(axis=0))
        return cls(mean, np.where(flat, 1.0, scale))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Features in the new coordinates."""
        return (features - self.mean) / self.scale


def logits(packed: Array, features: Array, n_outputs: int) -> Array:
    """Logits of each row: (n,) for one output, else (n, n_outputs)."""
    table = packed.reshape(n_outputs, features.shape[1] + 1)
    values = features @ table[:, :-1].T + table[:, -1]
    return values[:, 0] if n_outputs == 1 else values


def objective(
    packed: Array, data: LogitData, rho: Array, kind: str, n_outputs: int, fit_intercept: bool
) -> Array:
    """Loss on bags + ridge, as a function of packed (n_outputs, p + 1) coefficients."""
    table = packed.reshape(n_outputs, -1)
    if not fit_intercept:
        table = table.at[:, -1].set(0.0)
    bags = SegmentBags(data.codes, data.sizes)
    f = logits(table, data.features, n_outputs)
    binary = n_outputs == 1
    weight = data.weight
    if kind == "interpolate":
        family = LOGISTIC if binary else SOFTMAX
        loss = interpolating_loss(family, data.shares, f, bags, rho, weights=weight)
    elif kind in ("proportion", "proportion-squared"):
        loss = proportion_loss(
            data.shares,
            f,
            bags,
            labels="binary" if binary else "classes",
            kind="cross-entropy" if kind == "proportion" else "squared",
            weights=weight,
        )
    elif kind == "easyllp":
        # The losses are linear in the label, so the loss at the pseudo-label is the EasyLLP loss.
        family = LOGISTIC if binary else SOFTMAX
        loss = easyllp_loss(
            family, data.shares, f, bags, labels="response", prior="plug-in", weights=weight
        )
    else:
        chances = jax.nn.sigmoid(f) if binary else jax.nn.softmax(f, axis=-1)
        loss = debiased_square_loss(data.shares, chances, bags, weights=weight)
    return loss + jnp.sum(data.penalty * table[:, :-1] ** 2)


_STATIC = ("kind", "n_outputs", "fit_intercept")
_value_and_gradient = jax.jit(jax.value_and_grad(objective), static_argnames=_STATIC)


@functools.partial(jax.jit, static_argnames="n_outputs")
def _proportion_loss(packed: Array, data: LogitData, n_outputs: int) -> Array:
    return proportion_loss(
        data.shares,
        logits(packed, data.features, n_outputs),
        SegmentBags(data.codes, data.sizes),
        labels="binary" if n_outputs == 1 else "classes",
        weights=data.weight,
    )


class Problem:
    """A fit on fixed rows and bags, for several rhos and bag weights without compiling again.

    Parameters
    ----------
    features : ndarray, shape (n, p)
        In the user's units.
    shares : ndarray, shape (m,) or (m, n_classes)
    codes, sizes : ndarray of int
    kind : str
        One of `KINDS`.
    alpha : float
        Ridge.
    fit_intercept : bool
    """

    def __init__(
        self,
        features: np.ndarray,
        shares: np.ndarray,
        codes: np.ndarray,
        sizes: np.ndarray,
        *,
        kind: str,
        alpha: float,
        fit_intercept: bool,
    ) -> None:
        self.n_outputs = 1 if shares.ndim == 1 else shares.shape[1]
        self.standard = Standard.of(features, fit_intercept)
        self.kind = kind
        self.fit_intercept = fit_intercept
        with float64():
            arrays = (
                self.standard.apply(features),
                shares,
                codes,
                sizes,
                np.ones(len(sizes)),
                alpha / self.standard.scale**2,
            )
            self.data = LogitData(*(jnp.asarray(array) for array in arrays))

    def minimise(
        self,
        weight: np.ndarray,
        rho: float,
        *,
        start: np.ndarray | None = None,
        tol: float,
        max_iter: int,
    ) -> tuple[np.ndarray, Any]:
        """Minimiser, packed and in scaled units, and SciPy's account of it."""
        size = self.n_outputs * (self.data.features.shape[1] + 1)
        with float64():
            data = self.data._replace(weight=jnp.asarray(weight))
            strength = jnp.asarray(float(rho))

            def evaluate(packed: np.ndarray) -> tuple[float, np.ndarray]:
                value, gradient = _value_and_gradient(
                    jnp.asarray(packed),
                    data,
                    strength,
                    kind=self.kind,
                    n_outputs=self.n_outputs,
                    fit_intercept=self.fit_intercept,
                )
                return float(value), np.asarray(gradient)

            found = minimize(
                evaluate,
                np.zeros(size) if start is None else start,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": max_iter, "maxfun": 10 * max_iter, "gtol": tol, "ftol": 0.0},
            )
        return found.x, found

    def proportion_loss(self, packed: np.ndarray, weight: np.ndarray) -> float:
        """Cross-entropy of proportions at mean probabilities, over the bags with a weight."""
        with float64():
            data = self.data._replace(weight=jnp.asarray(weight))
            return float(_proportion_loss(jnp.asarray(packed), data, self.n_outputs))

    def unpack(self, packed: np.ndarray, found: Any, tol: float) -> LogitFit:
        """Coefficients in the user's units."""
        table = packed.reshape(self.n_outputs, -1)
        coef = table[:, :-1] / self.standard.scale
        intercept = table[:, -1] - coef @ self.standard.mean
        if not self.fit_intercept:
            intercept = np.zeros(self.n_outputs)
        # A line search that cannot go on at a gradient this small has arrived.
        arrived = bool(found.success) or float(np.abs(found.jac).max()) <= 100 * tol
        return LogitFit(coef, intercept, int(found.nit), arrived, str(found.message))


def proportion_cross_entropy(shares: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Cross-entropy of each bag: shares (m, c) at predicted mean probabilities (m, c)."""
    floor = np.finfo(float).tiny
    return -np.sum(shares * np.log(np.maximum(chances, floor)), axis=1)
