"""HyperAttention: softmax attention in near-linear time, from sorted hash blocks and a sample.

Han, Jayaram, Karbasi, Mirrokni, Woodruff and Zandieh, "HyperAttention: Long-context Attention in
Near-Linear Time", ICLR 2024, arXiv 2310.05869. Queries and keys are sorted by an angular hash and
cut into blocks; attention inside a block is exact (the heavy entries, if hashing finds them); all
other keys are represented by one uniform sample with weights n / m. What lies in the own block is
left out of the sample, on every path, so no key counts twice. The causal form splits the
sequence in halves: the diagonal halves recursively, the lower left one by the above.

It *approximates* the softmax attention of a trained model, and the error depends on the data: see
`privlearn.attention.diagnosis`. The gradient is that of the estimator, its sample and its order
held fixed. What is computed once: the hyperplanes are shared by all heads, samples are drawn for
each head of keys and each node of the recursion.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.attention.arguments import (
    Implementation,
    accumulator,
    check_inputs,
    check_scale,
    check_whole,
    choose_implementation,
)
from privlearn.attention.hyper_node import (
    Plan,
    Settings,
    add_gradients,
    add_levels,
    layout,
    merged,
    padded_length,
    tables,
)
from privlearn.attention.lsh import MAX_PROJECTIONS, bucket_places, draw_projections, stable_order
from privlearn.attention.softmax import (
    BLOCK_K,
    BLOCK_Q,
    Shape,
    attend,
    from_rows,
    gradients,
    to_rows,
)

#: Keys of a tile in the leaves, which are little more than a diagonal: small tiles cut it closer.
LEAF_K = 256


def hyper_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    rng: Array | None = None,
    block: int = 256,
    samples: int = 256,
    lsh_projs: int = 7,
    min_seq_len: int = 4096,
    scale: float | None = None,
    is_causal: bool = False,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    return_lse: bool = False,
    impl: Implementation = "auto",
) -> Any:
    """Approximate softmax attention in near-linear time and linear memory.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
        K divides N.
    value : array, shape (B, S, K, D) or (S, K, D)
    rng : Array
        A typed JAX key; needed as soon as anything is approximated. The same key gives the same
        result.
    block : int, default 256
        Keys of a block, at most: the causal form cuts its halves into equal blocks. One block
        (``block >= S``) is exact.
    samples : int, default 256
        Keys drawn, with replacement, for all that is outside the blocks; 0 leaves it out.
    lsh_projs : int, default 7
        Hyperplanes of the hash, 1 to 24.
    min_seq_len : int, default 4096
        Fewer queries than this are computed exactly (so is a decoding step). The causal form is
        exact within leaves of ``min_seq_len`` to ``2 min_seq_len - 1`` tokens.
    scale : float, optional
        Multiplies the inner products; default 1 / sqrt(H).
    is_causal : bool, default False
        Query i sees keys 0..i; needs T = S.
    key_mask : array of bool, shape (B, S), optional
        True where a key exists.
    segment_ids : array of int, shape (B, T), optional
        Documents packed into one row. Hashing and sampling do not know them, so many short
        documents in one row leave each of them with few sampled keys: the estimate stays centred
        but its error grows. Give long documents a row of their own.
    return_lse : bool, default False
        Also give the log of the (estimated) sum of exponentials.
    impl : {"auto", "xla", "pallas"}
        "pallas" computes the blocks of the forward pass by a kernel; interpreted without a GPU.

    Returns
    -------
    out : Array, shape (B, T, N, D) or (T, N, D)
    lse : Array, shape (B, T, N) or (T, N)
        Only with `return_lse`. A query that sees no key has out 0 and lse -inf; with documents or
        masks this can befall a query whose keys were neither in its block nor drawn.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, or a missing `rng`.

    Examples
    --------
    >>> import jax
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 64, 1, 8))
    >>> out = hyper_attention(q, k, v, rng=jax.random.key(1), block=16, samples=16, min_seq_len=32)
    >>> out.shape
    (64, 1, 8)
    """
    inputs = check_inputs(
        query, key, value, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids
    )
    settings = Settings(
        check_scale(scale, inputs.query.shape[3] ** -0.5),
        bool(is_causal),
        check_whole("block", block, 1),
        check_whole("samples", samples, 0),
        check_whole("min_seq_len", min_seq_len, 1),
        choose_implementation(impl) == "pallas",
    )
    if check_whole("lsh_projs", lsh_projs, 1) > MAX_PROJECTIONS:
        raise ValueError(f"lsh_projs: {lsh_projs}; must be 1 to {MAX_PROJECTIONS}")
    q, k, v, q_ids, k_ids = to_rows(inputs)
    if is_exact(q.shape[2], k.shape[1], settings):
        out, lse = attend(q, k, v, q_ids, k_ids, exact_shape(settings))
    else:
        if rng is None:
            raise ValueError(
                f"rng: None; {q.shape[2]} queries are approximated (min_seq_len {min_seq_len}), "
                "which needs a key such as jax.random.key(0)"
            )
        plan = make_plan(rng, q, k, k_ids, lsh_projs, settings)
        out, lse = approximate(q, k, v, q_ids, k_ids, plan, settings)
    out, lse = from_rows(out, lse, inputs)
    return (out, lse) if return_lse else out


def exact_shape(settings: Settings, block_k: int = BLOCK_K) -> Shape:
    """The exact attention that stands in for the approximation."""
    return Shape(settings.scale, settings.causal, BLOCK_Q, block_k)


def is_exact(n_queries: int, n_keys: int, settings: Settings) -> bool:
    """Whether nothing is approximated: too short, or all keys in one block."""
    if settings.causal:
        return depth(n_queries, settings) == 0
    return n_queries < settings.min_seq_len or n_keys <= settings.block


def depth(n: int, settings: Settings) -> int:
    """Levels of the causal recursion: halves have at least `min_seq_len` tokens, and 2 blocks."""
    least = max(settings.min_seq_len, settings.block + 1)
    return max(0, (n // least).bit_length() - 1)


@functools.partial(jax.jit, static_argnums=(4, 5))
def make_plan(
    rng: Array, q: Array, k: Array, k_ids: Array | None, lsh_projs: int, settings: Settings
) -> Plan:
    """Hash, sort and draw for rows (R, G, T, H), (R, S, H)."""
    rng_hash, rng_draw = jax.random.split(rng)
    exact = accumulator(q.dtype)
    projections = draw_projections(rng_hash, q.shape[-1], lsh_projs, exact)
    # Nothing random or sorted has a gradient.
    q_place = bucket_places(jax.lax.stop_gradient(q).astype(exact), projections)
    k_place = bucket_places(jax.lax.stop_gradient(k).astype(exact), projections)
    n_places = 2**lsh_projs
    if k_ids is not None:
        k_place = jnp.where(k_ids >= 0, k_place, n_places)  # keys that do not exist come last
    R, S = k_place.shape
    exists = jnp.ones((R, S), bool) if k_ids is None else k_ids >= 0
    if not settings.causal:
        orders = stable_order(q_place, n_places)[None], stable_order(k_place, n_places + 1)[None]
        count = exists.sum(-1, dtype=jnp.int32)[None, :, None]
    else:
        levels = depth(S, settings)
        n = padded_length(S, levels, settings.block)
        q_place, k_place = _pad_to(q_place, n, 2), _pad_to(k_place, n, 1)
        # A key behind the end counts, as it may be drawn, but no query in use ever meets it.
        exists = _pad_to(exists, n, 1, k_ids is None)
        orders = (
            _level_orders(q_place, 1, levels, n_places + 1),
            _level_orders(k_place, 0, levels, n_places + 1),
        )
        count = _level_counts(exists, levels)
    shape = (*count.shape, settings.samples)
    draws = jax.random.uniform(rng_draw, (math.prod(shape),)).reshape(shape)
    picks = jnp.minimum((draws * count[..., None]).astype(jnp.int32), count[..., None] - 1)
    return Plan(*orders, jnp.maximum(picks, 0), count)


def _level_orders(place: Array, which: int, levels: int, n_places: int) -> Array:
    """Orders (L, ..., n / 2) of one half of each node, node after node; buckets (..., n)."""
    n = place.shape[-1]
    at = jnp.arange(n // 2, dtype=jnp.int32)
    half = jnp.right_shift(n // 2, jnp.arange(levels, dtype=jnp.int32))[:, None]
    node, token = at // half, at + (at // half + which) * half
    bucket = jnp.moveaxis(place[..., token], -2, 0)  # (L, ..., n / 2)
    half, node, token = (
        x.reshape(x.shape[0], *[1] * (place.ndim - 1), x.shape[1]) for x in (half, node, token)
    )
    bucket = bucket + n_places * node
    if n_places * (n // 2) >= 2**31:
        order = jnp.argsort(bucket, axis=-1, stable=True).astype(jnp.int32)
        return jnp.take_along_axis(jnp.broadcast_to(token, order.shape), order, axis=-1)
    # Node, bucket and place in the node in one number: sorting numbers needs no pairs.
    order = jnp.sort(bucket * half + at % half, axis=-1, stable=False)
    return order % half + (2 * node + which) * half


def _level_counts(exists: Array, levels: int) -> Array:
    """Keys in the first half of each node, (L, R, 2**(L - 1)); zeros behind the last node."""
    R, n = exists.shape
    counts = []
    for level in range(levels):
        halves = exists.reshape(R, 2**level, 2, n // 2 ** (level + 1))[:, :, 0]
        counts.append(_pad_to(halves.sum(-1, dtype=jnp.int32), 2 ** (levels - 1), 1))
    return jnp.stack(counts)


def _pad_to(x: Array, n: int, axis: int, fill: int = 0) -> Array:
    if x.shape[axis] == n:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, n - x.shape[axis])
    return jnp.pad(x, widths, constant_values=fill)


def _leaves(x: Array, levels: int) -> Array:
    """(R, G, n, ...) as (R 2**levels, G, leaf, ...)."""
    R, G, n = x.shape[:3]
    x = x.reshape(R, G, 2**levels, n // 2**levels, *x.shape[3:])
    return jnp.moveaxis(x, 2, 1).reshape(R * 2**levels, G, *x.shape[3:])


def _unleaved(x: Array, levels: int) -> Array:
    x = jnp.moveaxis(x.reshape(-1, 2**levels, *x.shape[1:]), 1, 2)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def approximate(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Array | None,
    k_ids: Array | None,
    plan: Plan,
    settings: Settings,
) -> tuple[Array, Array]:
    """The estimator of rows, given its plan; output (R, G, T, D) and log-normaliser (R, G, T)."""
    return _forward(q, k, v, q_ids, k_ids, plan, settings)


@functools.partial(jax.jit, static_argnums=6)
def _forward(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, plan: Plan, settings: Settings
) -> tuple[Array, Array]:
    T, exact = q.shape[2], accumulator(q.dtype)
    levels = _levels(plan, settings)
    q, k, v, q_ids, k_ids = _padded_rows(q, k, v, q_ids, k_ids, levels, settings)
    R, G, n, _ = q.shape
    lay = layout(n, k.shape[1], G, levels, settings)
    x = tables(q, k, v, q_ids, k_ids, plan, lay, settings)
    if levels:
        leaves = _leaf_arrays(q, k, v, q_ids, k_ids, levels)
        out, lse = (_unleaved(y, levels) for y in attend(*leaves, exact_shape(settings, LEAF_K)))
    else:
        out, lse = jnp.zeros((R, G, n, v.shape[-1])), jnp.full((R, G, n), -jnp.inf)
    out, lse = (y.astype(exact) for y in (out, lse))
    if settings.pallas:
        from privlearn.attention.pallas_hyper import add_levels as add
    else:
        add = add_levels
    out, lse = add(out.reshape(R * G * n, -1), lse.reshape(-1), x, lay, settings.scale)
    out, lse = out.reshape(R, G, n, -1), lse.reshape(R, G, n)
    return out[:, :, :T].astype(q.dtype), lse[:, :, :T]


def _levels(plan: Plan, settings: Settings) -> int:
    """Levels of the causal recursion; 0 for the plain form."""
    return plan.q_order.shape[0] if settings.causal else 0


def merge(out_1: Array, lse_1: Array, out_2: Array, lse_2: Array) -> tuple[Array, Array]:
    """Attention to the union of two disjoint sets of keys, from that to each.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> merge(jnp.ones((1, 2)), jnp.zeros(1), jnp.zeros((1, 2)), jnp.full(1, -jnp.inf))
    (Array([[1., 1.]], dtype=float32), Array([0.], dtype=float32))
    """
    return merged(out_1, lse_1, out_2, lse_2, jnp.ones_like(lse_2))


def _padded_rows(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, levels: int, settings: Settings
) -> Any:
    if levels == 0:
        return q, k, v, q_ids, k_ids
    n = padded_length(q.shape[2], levels, settings.block)
    q, k, v = _pad_to(q, n, 2), _pad_to(k, n, 1), _pad_to(v, n, 1)
    if q_ids is not None:
        q_ids, k_ids = _pad_to(q_ids, n, 1, -2), _pad_to(k_ids, n, 1, -1)
    return q, k, v, q_ids, k_ids


def _leaf_arrays(q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, levels: int) -> Any:
    single = (
        None if x is None else _leaves(x[:, None], levels)[:, 0] for x in (k, v, q_ids, k_ids)
    )
    return (_leaves(q, levels), *single)


def _saved(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, plan: Plan, settings: Settings
) -> tuple[tuple[Array, Array], Any]:
    out, lse = _forward(q, k, v, q_ids, k_ids, plan, settings)
    return (out, lse), (q, k, v, q_ids, k_ids, plan, out, lse)


@functools.partial(jax.jit, static_argnums=0)
def _backward(settings: Settings, saved: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    q, k, v, q_ids, k_ids, plan, out, lse = saved
    d_out, d_lse = cotangents
    exact = accumulator(q.dtype)
    delta = (out.astype(exact) * d_out.astype(exact)).sum(axis=-1) - d_lse
    alive = jnp.isfinite(lse)
    lse, delta = jnp.where(alive, lse, 0), jnp.where(alive, delta, 0)
    grads = _gradients(q, k, v, q_ids, k_ids, plan, d_out, lse, delta, settings)
    grads = (g.astype(x.dtype) for g, x in zip(grads, (q, k, v), strict=True))
    return (*grads, None, None, None)


@functools.partial(jax.jit, static_argnums=9)
def _gradients(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Any,
    k_ids: Any,
    plan: Plan,
    d_out: Array,
    lse: Array,
    delta: Array,
    settings: Settings,
) -> tuple[Array, Array, Array]:
    """One log-normaliser and one delta for all parts: their contributions simply add up."""
    T, S, exact = q.shape[2], k.shape[1], accumulator(q.dtype)
    levels = _levels(plan, settings)
    q, k, v, q_ids, k_ids = _padded_rows(q, k, v, q_ids, k_ids, levels, settings)
    R, G, n, _ = q.shape
    lay = layout(n, k.shape[1], G, levels, settings)
    x = tables(q, k, v, q_ids, k_ids, plan, lay, settings)
    if levels:
        d_out, lse, delta = (_pad_to(y, n, 2) for y in (d_out, lse, delta))
        per_query = (_leaves(y, levels) for y in (d_out, lse, delta))
        leaves = _leaf_arrays(q, k, v, q_ids, k_ids, levels)
        dq, dk, dv = gradients(*leaves, *per_query, exact_shape(settings, LEAF_K))
        grads = tuple(_unleaved(y, levels) for y in (dq, dk[:, None], dv[:, None]))
    else:
        grads = tuple(jnp.zeros(y.shape) for y in (q, k, v))
    flat = tuple(g.astype(exact).reshape(-1, g.shape[-1]) for g in grads)
    of_q = (d_out.reshape(R * G * n, -1), lse.reshape(-1), delta.reshape(-1))
    dq, dk, dv = add_gradients(flat, x, lay, settings.scale, *of_q)  # type: ignore[arg-type]
    return (
        dq.reshape(q.shape)[:, :, :T],
        dk.reshape(k.shape)[:, :S],
        dv.reshape(v.shape)[:, :S],
    )


approximate.defvjp(_saved, _backward)
