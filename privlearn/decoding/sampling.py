"""From logits to the law that is sampled: temperature, top-k, top-p, min-p, applied in this order.

Every transformation happens before verification, on target and draft alike: "lossless" means the
law of sampling from the *transformed* target (Leviathan, Kalman, Matias, 2023, arXiv 2211.17192,
section 2.2). Temperature 0 is a one-hot law at the largest logit (the lowest token id among ties),
not a division by a small number. Everything works in float32 at least, in float64 if it is given.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from privlearn.decoding.verifiers.choice import draw as draw_at
from privlearn.decoding.verifiers.choice import likeliest

__all__ = ["SamplingRule", "draw", "law_or_nan", "usable", "wide"]


def wide(values: jax.Array) -> jax.Array:
    """The same values in float32, or in float64 if they were: no softmax in 16 bits."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def usable(logits: jax.Array) -> jax.Array:
    """Whether a vector of logits can be sampled from: no NaN, no +inf, not everywhere -inf.

    Parameters
    ----------
    logits : jax.Array of shape (..., V)

    Returns
    -------
    jax.Array of bool, shape (...)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> usable(jnp.array([[0.0, -jnp.inf], [0.0, jnp.nan]])).tolist()
    [True, False]
    """
    # The maximum is NaN if any entry is, +inf if any entry is, -inf if all are.
    return jnp.isfinite(jnp.max(logits, axis=-1))


class SamplingRule(eqx.Module):
    """Logits in, probabilities out; a pytree whose numbers may change without recompilation.

    Whether a transformation is there at all, and k of top-k, are static; temperature, top-p and
    min-p are ordinary leaves. Build it with `SamplingRule.of`, which checks the values.

    Attributes
    ----------
    temperature : jax.Array or None
        None: greedy, a one-hot law.
    top_k : int or None
        Keep the k largest logits (and whatever ties with the smallest of them).
    top_p : jax.Array or None
        Keep the smallest set of the likeliest tokens whose mass reaches top_p (and ties).
    min_p : jax.Array or None
        Keep the tokens with at least min_p times the largest probability.
    """

    temperature: jax.Array | None
    top_k: int | None = eqx.field(static=True)
    top_p: jax.Array | None
    min_p: jax.Array | None

    @classmethod
    def of(
        cls,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ) -> SamplingRule:
        """Check the parameters and build the rule.

        Parameters
        ----------
        temperature : float, default 1.0
            0 is greedy.
        top_k : int, optional
            At least 1.
        top_p : float in (0, 1], optional
        min_p : float in [0, 1], optional

        Raises
        ------
        ValueError
            If a parameter lies outside its range, or is not finite.

        Examples
        --------
        >>> rule = SamplingRule.of(temperature=0.5, top_k=2)
        >>> [round(float(x), 3) for x in rule(jnp.log(jnp.array([0.6, 0.3, 0.1])))]
        [0.8, 0.2, 0.0]
        >>> SamplingRule.of(temperature=0)(jnp.array([0.0, 2.0, 2.0])).tolist()
        [0.0, 1.0, 0.0]
        """
        _check_number("temperature", temperature, 0.0, math.inf, "use 0 for greedy decoding")
        if top_k is not None and (isinstance(top_k, bool) or int(top_k) != top_k or top_k < 1):
            raise ValueError(f"top_k must be an integer of at least 1 or None, got {top_k!r}.")
        if top_p is not None:
            _check_number("top_p", top_p, 0.0, 1.0, "use None to keep every token", open_left=True)
        if min_p is not None:
            _check_number("min_p", min_p, 0.0, 1.0, "use None to keep every token")
        if temperature == 0:  # the best token survives every truncation
            return cls(temperature=None, top_k=None, top_p=None, min_p=None)
        return cls(
            temperature=jnp.asarray(float(temperature)),
            top_k=None if top_k is None else int(top_k),
            top_p=None if top_p is None else jnp.asarray(float(top_p)),
            min_p=None if min_p is None else jnp.asarray(float(min_p)),
        )

    @property
    def greedy(self) -> bool:
        """Whether the law is one-hot."""
        return self.temperature is None

    def __call__(self, logits: jax.Array) -> jax.Array:
        """Probabilities of shape (..., V) from logits of shape (..., V)."""
        logits = wide(logits)
        if self.temperature is None:
            best = likeliest(logits)
            return jax.nn.one_hot(best, logits.shape[-1], dtype=logits.dtype)
        logits = logits / self.temperature.astype(logits.dtype)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = lax.top_k(logits, self.top_k)[0][..., -1:]
            logits = jnp.where(logits < smallest, -jnp.inf, logits)
        probabilities = jax.nn.softmax(logits, axis=-1)
        if self.top_p is not None:
            probabilities = _keep_mass(probabilities, self.top_p.astype(logits.dtype))
        if self.min_p is not None:
            largest = jnp.max(probabilities, axis=-1, keepdims=True)
            kept = probabilities >= self.min_p.astype(logits.dtype) * largest
            probabilities = _normalised(jnp.where(kept, probabilities, 0.0))
        return probabilities


def law_or_nan(rule: SamplingRule, logits: jax.Array) -> jax.Array:
    """The transformed law (..., V), NaN throughout where the logits cannot be sampled from.

    Also under greedy decoding, where an argmax would hide a NaN: verifiers see that this is no law.

    Examples
    --------
    >>> law_or_nan(SamplingRule.of(0), jnp.array([[0.0, 1.0], [0.0, jnp.nan]])).tolist()
    [[0.0, 1.0], [nan, nan]]
    """
    return jnp.where(usable(logits)[..., None], rule(logits), jnp.nan)


def draw(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """One token by inversion: one uniform number a draw; a token of probability 0 never comes.

    Parameters
    ----------
    key : jax.Array
        A typed JAX key.
    probabilities : jax.Array of shape (V,)
        Need not sum exactly to 1.

    Returns
    -------
    jax.Array of int32, shape ()

    Examples
    --------
    >>> int(draw(jax.random.key(0), jnp.array([0.0, 1.0, 0.0])))
    1
    """
    level = jax.random.uniform(key, (), probabilities.dtype)
    return draw_at(level, probabilities)


def _keep_mass(probabilities: jax.Array, top_p: jax.Array) -> jax.Array:
    """The likeliest tokens until their mass reaches ``top_p``, renormalised."""
    ordered = -jnp.sort(-probabilities, axis=-1)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    kept = before < top_p  # the first one always
    smallest = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    return _normalised(jnp.where(probabilities >= smallest, probabilities, 0.0))


def _normalised(weights: jax.Array) -> jax.Array:
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _check_number(
    name: str, value: Any, low: float, high: float, advice: str, open_left: bool = False
) -> None:
    if isinstance(value, bool) or (
        not isinstance(value, (int, float)) and not hasattr(value, "dtype")
    ):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    number = float(value)
    inside = low < number <= high if open_left else low <= number <= high
    if not (math.isfinite(number) and inside):
        bracket = "(" if open_left else "["
        raise ValueError(
            f"{name} must lie in {bracket}{low:g}, {high:g}], got {value!r}; {advice}."
        )
