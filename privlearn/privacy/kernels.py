"""The mechanisms as pure JAX functions, for simulation only.

`jit`, `vmap` and (in `values` and `scale`) `grad` work on all of them. Floating-point noise from
a seeded generator is NOT private: releases of real data go through ``Mechanism.release``.
Precision follows the dtype of `values`; integers give JAX's default float where noise is
continuous. In float32 the uniforms behind the noise have 2^-23 resolution, so tails end near 16
scales; use the local ``privlearn.simulate.precision.float64()`` where that matters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def _shape_and_dtype(values, scale):
    dtype = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.result_type(float)
    return jnp.broadcast_shapes(values.shape, jnp.shape(scale)), dtype


def laplace(key: jax.Array, values: ArrayLike, scale: ArrayLike) -> jax.Array:
    """Add Laplace noise of density exp(-|x| / scale) / (2 scale); `scale` may be an array.

    Examples
    --------
    >>> laplace(jax.random.key(0), jnp.zeros(3), 1.0).shape
    (3,)
    """
    values = jnp.asarray(values)
    shape, dtype = _shape_and_dtype(values, scale)
    return values + jnp.asarray(scale, dtype) * jax.random.laplace(key, shape, dtype)


def gaussian(key: jax.Array, values: ArrayLike, scale: ArrayLike) -> jax.Array:
    """Add normal noise of standard deviation `scale`, which may be an array.

    Examples
    --------
    >>> gaussian(jax.random.key(0), jnp.zeros(3), 1.0).shape
    (3,)
    """
    values = jnp.asarray(values)
    shape, dtype = _shape_and_dtype(values, scale)
    return values + jnp.asarray(scale, dtype) * jax.random.normal(key, shape, dtype)


def discrete_laplace(key: jax.Array, values: ArrayLike, scale: ArrayLike) -> jax.Array:
    """Add integer noise with probabilities proportional to exp(-|x| / scale).

    The difference of two geometric variables, each the floor of an exponential of mean `scale`.

    Examples
    --------
    >>> discrete_laplace(jax.random.key(0), jnp.zeros(3, int), 2.0).dtype.kind
    'i'
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"values must be integers, got dtype {values.dtype}")
    shape = jnp.broadcast_shapes(values.shape, jnp.shape(scale))
    dtype = jnp.result_type(float)
    draws = jax.random.exponential(key, (2, *shape), dtype) * jnp.asarray(scale, dtype)
    up, down = jnp.floor(draws).astype(values.dtype)
    return values + up - down


def randomized_response(
    key: jax.Array, values: ArrayLike, keep: ArrayLike, n_categories: int
) -> jax.Array:
    """Keep each code in 0..n_categories-1 with probability `keep`, else move it to another one.

    All other codes are equally likely.

    Examples
    --------
    >>> bool((randomized_response(jax.random.key(0), jnp.arange(4), 0.5, 4) < 4).all())
    True
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"values must be integer codes, got dtype {values.dtype}")
    key_lie, key_shift = jax.random.split(key)
    lie = ~jax.random.bernoulli(key_lie, keep, values.shape)
    shift = jax.random.randint(key_shift, values.shape, 1, n_categories, dtype=values.dtype)
    return jnp.where(lie, (values + shift) % n_categories, values)
