"""Exact polynomial attention: the definition that sketches approximate, and their oracle.

Kacham, Mirrokni and Zhong, "PolySketchFormer: Fast Transformers via Sketching Polynomial Kernels",
ICML 2024, arXiv 2310.01655, section 2: for an even degree p,

    A_ij = <q_i, k_j>^p / (1 + sum over visible j' of <q_i, k_j'>^p),   out_i = sum_j A_ij v_j.

The weights of a row sum to s / (1 + s), not to 1. This form makes the whole table of T times S
weights: quadratic in time and memory, and differentiated by JAX.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.attention.arguments import (
    Implementation,
    Inputs,
    accumulator,
    check_inputs,
    check_scale,
    check_whole,
    choose_implementation,
    visible,
)

LAYER_NORM_EPS = 1e-5


def check_degree(degree: int) -> int:
    """An even degree; ValueError otherwise, because odd powers make negative weights."""
    degree = check_whole("degree", degree, 2)
    if degree % 2:
        raise ValueError(
            f"degree: {degree}; must be even (2, 4, 8, ...), an odd power makes negative weights"
        )
    return degree


def normalize_heads(x: ArrayLike, eps: float = LAYER_NORM_EPS) -> Array:
    """Layer normalisation over the head size, without gain and bias, in at least float32.

    The squared norm of the result is about the head size h, so an inner product of two may reach h
    and its fourth power h^4: 1.7e7 for h = 64, more than float16 can hold. The attentions here
    multiply inner products by 1 / sqrt(h) unless told otherwise, and compute in float32.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> normalize_heads(jnp.array([1.0, 3.0])).round(3)
    Array([-1.,  1.], dtype=float32)
    """
    z = jnp.asarray(x)
    z = z.astype(accumulator(z.dtype))
    z = z - jnp.mean(z, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + eps)


def scaled_heads(
    inputs: Inputs, *, normalize: bool, scale: float | None
) -> tuple[Array, Array, Array]:
    """Queries, keys and values in the precision of sums; inner products of the first two scaled.

    Keys that the mask hides are replaced by zeros, whatever they hold, and so are their values.
    """
    head_size = inputs.query.shape[3]
    root = check_scale(scale, head_size**-0.5 if normalize else 1.0) ** 0.5
    precise = accumulator(inputs.query.dtype)
    k, v = inputs.key.astype(precise), inputs.value.astype(precise)
    if inputs.key_mask is not None:
        exists = inputs.key_mask[:, :, None, None]
        k, v = jnp.where(exists, k, 0), jnp.where(exists, v, 0)
    q = inputs.query.astype(precise)
    if normalize:
        q, k = normalize_heads(q), normalize_heads(k)
    return q * root, k * root, v


def polynomial_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    degree: int = 4,
    scale: float | None = None,
    normalize: bool = True,
    is_causal: bool = False,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    impl: Implementation = "auto",
) -> Array:
    """Exact polynomial attention of an even degree; the table of weights is made in full.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
        K divides N.
    value : array, shape (B, S, K, D) or (S, K, D)
    degree : int, default 4
        Even.
    scale : float, optional
        Multiplies inner products before the power; 1 / sqrt(H) if ``normalize``, else 1.
    normalize : bool, default True
        Whether to pass queries and keys through `normalize_heads`; if False they are used as given.
    is_causal : bool, default False
    key_mask : array of bool, shape (B, S), optional
        True where a key exists.
    segment_ids : array of int, shape (B, T), optional
        Documents packed into one row; each run of equal ids sees only itself.
    impl : {"auto", "xla", "pallas"}
        There is no Pallas kernel of the exact form: "pallas" raises.

    Returns
    -------
    Array, shape (B, T, N, D) or (T, N, D)
        In the dtype of the query; computed in at least float32. Zeros where no key is visible.

    Raises
    ------
    ValueError
        For an odd degree, a scale that is not positive, or shapes that do not fit.
    TypeError
        For dtypes that do not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.0, 2.0, 1.0])[:, None, None]
    >>> out = polynomial_attention(x, x, jnp.ones_like(x), degree=2, normalize=False)
    >>> [round(float(w), 3) for w in out.ravel()]  # 6 / 7, 24 / 25, 6 / 7
    [0.857, 0.96, 0.857]
    """
    degree = check_degree(degree)
    if choose_implementation(impl) == "pallas":
        raise ValueError("impl: 'pallas'; exact polynomial attention has only the form 'xla'")
    inputs = check_inputs(
        query, key, value, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids
    )
    q, k, v = scaled_heads(inputs, normalize=normalize, scale=scale)
    out = attend_by_weights(inputs, power_weights(inputs, q, k, degree, is_causal), v)
    return inputs.restore(out.astype(inputs.query.dtype))


def grouped(inputs: Inputs, heads: Array) -> Array:
    """Query heads (B, T, N, H) beside the head of keys that they look at: (B, T, K, G, H)."""
    rows, n_queries, _, width = heads.shape
    return heads.reshape(rows, n_queries, inputs.key.shape[2], inputs.group, width)


def power_weights(inputs: Inputs, q: Array, k: Array, power: int, is_causal: bool) -> Array:
    """Weights <q, k>^power before normalisation, (B, K, G, T, S); 0 where a key is not visible."""
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped(inputs, q), k)
    seen = visible(inputs, is_causal=is_causal)
    if seen is not None:
        # Before the power, so that no gradient meets a large number that does not count.
        scores = jnp.where(seen[:, None, None], scores, 0)
    return jax.lax.integer_pow(scores, power)


def attend_by_weights(inputs: Inputs, weights: Array, v: Array) -> Array:
    """Sum the values, divide by 1 plus the sum of the weights; (B, T, N, D)."""
    mixed = jnp.einsum("bkgts,bskd->btkgd", weights, v)
    total = jnp.moveaxis(jnp.sum(weights, axis=-1), 3, 1)[..., None]
    out = mixed / (1 + total)
    return out.reshape(*inputs.query.shape[:3], v.shape[3])
