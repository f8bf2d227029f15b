"""Angular hashing, and the order of its buckets in which neighbours differ by one hyperplane.

sortLSH of Han, Jayaram, Karbasi, Mirrokni, Woodruff and Zandieh, "HyperAttention: Long-context
Attention in Near-Linear Time", ICLR 2024, arXiv 2310.05869, algorithm 1: r random hyperplanes give
each vector an r-bit code, and tokens are sorted by the place of their code on a Gray cycle. The
place is the *inverse* Gray code of the code; sorting by the Gray code itself, as public code does,
leaves neighbours that differ by several bits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

#: Most hyperplanes: places are whole numbers below 2**MAX_PROJECTIONS.
MAX_PROJECTIONS = 24


def draw_projections(
    rng: Array, head_dim: int, n_projs: int, dtype: DTypeLike = jnp.float32
) -> Array:
    """Normals of the hyperplanes, (head_dim, n_projs), independent standard normal.

    Examples
    --------
    >>> import jax
    >>> draw_projections(jax.random.key(0), 4, 3).shape
    (4, 3)
    """
    if not 1 <= n_projs <= MAX_PROJECTIONS:
        raise ValueError(f"n_projs: {n_projs}; must be 1 to {MAX_PROJECTIONS}")
    return jax.random.normal(rng, (head_dim, n_projs), dtype)


def hash_codes(x: Array, projections: Array) -> Array:
    """Codes of vectors (..., H): bit t is whether x lies on the positive side of hyperplane t.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> hash_codes(jnp.array([[1.0, -1.0], [1.0, 1.0]]), jnp.eye(2))
    Array([1, 3], dtype=int32)
    """
    bits = (x @ projections.astype(x.dtype) > 0).astype(jnp.int32)
    weights = jnp.left_shift(jnp.int32(1), jnp.arange(projections.shape[1], dtype=jnp.int32))
    return (bits * weights).sum(axis=-1, dtype=jnp.int32)


def gray_code(place: Array) -> Array:
    """The code at a place of the binary-reflected Gray cycle."""
    return place ^ (place >> 1)


def gray_place(code: Array) -> Array:
    """The place of a code on the Gray cycle: the inverse of `gray_code`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> gray_place(gray_code(jnp.arange(8)))
    Array([0, 1, 2, 3, 4, 5, 6, 7], dtype=int32)
    """
    for shift in (1, 2, 4, 8, 16):
        code = code ^ (code >> shift)
    return code


def bucket_places(x: Array, projections: Array) -> Array:
    """Place of each vector's bucket on the Gray cycle, 0 .. 2**r - 1."""
    return gray_place(hash_codes(x, projections))


def stable_order(places: Array, n_places: int) -> Array:
    """The stable sorting order along the last axis of whole numbers in [0, n_places).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> stable_order(jnp.array([2, 0, 2, 1]), 3)
    Array([1, 3, 0, 2], dtype=int32)
    """
    n = places.shape[-1]
    if n_places * n >= 2**31:
        return jnp.argsort(places, axis=-1, stable=True).astype(jnp.int32)
    # Place and index in one number: a sort of single integers needs no comparison of pairs.
    index = jnp.arange(n, dtype=jnp.int32)
    return jnp.sort(places.astype(jnp.int32) * n + index, axis=-1, stable=False) % n


def inverse_order(order: Array) -> Array:
    """Where each element went: ``x[order][inverse_order(order)] == x``, along the last axis."""
    flat = order.reshape(-1, order.shape[-1])
    rows = jnp.arange(flat.shape[0], dtype=jnp.int32)[:, None]
    places = jnp.broadcast_to(jnp.arange(flat.shape[1], dtype=jnp.int32), flat.shape)
    return jnp.zeros_like(flat).at[rows, flat].set(places, unique_indices=True).reshape(order.shape)
