"""One draw from unnormalised weights with one uniform, safe in float32 and at large V.

Inverse transform rather than Gumbel: one random number instead of V. Comparisons are strict
(``u < h`` with u in [0, 1)), so an event of probability 0 cannot happen: with ``u <= h``, the
uniform 0, which float32 generators return once in 2^23 draws, would accept a token that the
target forbids.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

#: Entries summed per block where the vocabulary is large.
_BLOCK = 256


def first_above(threshold: Array, weights: Array) -> Array:
    """First index where the running sum exceeds the threshold, among positive weights.

    Where rounding leaves no such index: the last positive weight (the last of all if there is
    none).
    """
    places = jnp.arange(weights.shape[0])
    positive = weights > 0
    hit = (jnp.cumsum(weights) > threshold) & positive
    # Least and largest index, not argmax: on a CPU only plain minima become vector instructions.
    first = jnp.min(jnp.where(hit, places, weights.shape[0]))
    last = jnp.max(jnp.where(positive, places, -1))
    return jnp.where(first < weights.shape[0], first, last % weights.shape[0])


def likeliest(weights: Array) -> Array:
    """Index of the largest entry over the last axis, the lowest among ties.

    What `jax.numpy.argmax` gives, many times faster on a CPU where V is large. Where there is a
    NaN: the last index.

    Examples
    --------
    >>> likeliest(jnp.array([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])).tolist()
    [1, 0]
    """
    size = weights.shape[-1]
    largest = jnp.max(weights, axis=-1, keepdims=True)
    places = jnp.arange(size, dtype=jnp.int32)
    return jnp.min(jnp.where(weights == largest, places, size - 1), axis=-1)


def draw(u: Array, weights: Array) -> Array:
    """Index drawn in proportion to the weights by one uniform; a zero weight is never drawn.

    Parameters
    ----------
    u : Array, shape ()
        Uniform on [0, 1).
    weights : Array, shape (V,)
        Non-negative, finite, not all zero.

    Examples
    --------
    >>> [int(draw(jnp.float32(u), jnp.array([0.0, 0.5, 0.0, 1.5]))) for u in (0.0, 0.2, 0.3, 0.999)]
    [1, 1, 3, 3]
    """
    size = weights.shape[0]
    if size <= 2 * _BLOCK:
        return first_above(u * weights.sum(), weights).astype(jnp.int32)
    # Sums of blocks first: short running sums are more precise, and a long one is slow.
    n_blocks = -(-size // _BLOCK)
    blocks = jnp.pad(weights, (0, n_blocks * _BLOCK - size)).reshape(n_blocks, _BLOCK)
    sums = blocks.sum(axis=1)
    ends = jnp.cumsum(sums)
    target = u * ends[-1]
    at = first_above(target, sums)
    within = target - jnp.where(at > 0, ends[at - 1], 0)
    return (at * _BLOCK + first_above(jnp.maximum(within, 0), blocks[at])).astype(jnp.int32)


def or_else(weights: Array, law: Array) -> Array:
    """The weights, or the law where they have no mass left.

    A residual without mass means p == q, where a rejection has probability 0; rounding can land
    there all the same, and then the target itself is right.
    """
    return jnp.where(weights.sum() > 0, weights, law)


def normalised(weights: Array) -> Array:
    """Weights over their sum (at the last axis); zeros where there is no mass."""
    total = weights.sum(axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def ratio(p: Array, q: Array) -> Array:
    """``p / q`` with ``0 / 0 = 0`` and ``p / 0 = inf``: how much more the target likes a token."""
    return jnp.where(q > 0, p / jnp.where(q > 0, q, 1), jnp.where(p > 0, jnp.inf, 0))
