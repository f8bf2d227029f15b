"""Exact softmax attention in blocks: linear memory, own backward pass, log-normaliser on request.

Online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135):
for a block of queries the blocks of keys pass by one after another, and a running maximum keeps
the exponentials in range. No n x n array exists, forward or backward. The causal form skips the
blocks above the diagonal.

Inside, arrays are rows: one row is one head of keys of one batch element, with the G query heads
that share it. Queries (R, G, T, H), keys (R, S, H), values (R, S, D).
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from privlearn.attention.arguments import (
    Implementation,
    Inputs,
    accumulator,
    check_inputs,
    check_scale,
    check_whole,
    choose_implementation,
)

#: Queries and keys of one tile; measured on two cores, float32, head size 64.
BLOCK_Q, BLOCK_K = 2048, 512


class Shape(NamedTuple):
    """What a compiled pass depends on besides the shapes of its arrays.

    Attributes
    ----------
    scale : float
        Multiplies inner products.
    causal : bool
        Query i sees keys 0..i.
    block_q, block_k : int
        Queries and keys of a tile.
    """

    scale: float
    causal: bool
    block_q: int
    block_k: int


@overload
def softmax_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = ...,
    is_causal: bool = ...,
    key_mask: ArrayLike | None = ...,
    segment_ids: ArrayLike | None = ...,
    block_q: int = ...,
    block_k: int = ...,
    return_lse: Literal[False] = ...,
    impl: Implementation = ...,
) -> Array: ...
@overload
def softmax_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = ...,
    is_causal: bool = ...,
    key_mask: ArrayLike | None = ...,
    segment_ids: ArrayLike | None = ...,
    block_q: int = ...,
    block_k: int = ...,
    return_lse: Literal[True],
    impl: Implementation = ...,
) -> tuple[Array, Array]: ...
def softmax_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    block_q: int = BLOCK_Q,
    block_k: int = BLOCK_K,
    return_lse: bool = False,
    impl: Implementation = "auto",
) -> Array | tuple[Array, Array]:
    """Exact softmax attention with memory linear in the length.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
        K divides N.
    value : array, shape (B, S, K, D) or (S, K, D)
    scale : float, optional
        Multiplies the inner products; default 1 / sqrt(H).
    is_causal : bool, default False
        Query i sees keys 0..i; needs T = S.
    key_mask : array of bool, shape (B, S), optional
        True where a key exists.
    segment_ids : array of int, shape (B, T), optional
        Documents packed into one row; runs of equal ids see only themselves.
    block_q, block_k : int
        Queries and keys of a tile; larger than the length means one tile. With several query
        heads for one head of keys, the queries of all of them share a tile.
    return_lse : bool, default False
        Also give the log of the sum of exponentials of each query.
    impl : {"auto", "xla"}
        There is one implementation. On an NVIDIA GPU, `jax.nn.dot_product_attention` with
        ``implementation="cudnn"`` is the faster exact attention.

    Returns
    -------
    out : Array, shape (B, T, N, D) or (T, N, D)
        In the dtype of the query; sums are in float32 for half precision.
    lse : Array, shape (B, T, N) or (T, N)
        Only with `return_lse`. A query that sees no key has out 0 and lse -inf.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together; see `privlearn.attention.arguments`.

    Examples
    --------
    >>> import jax
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 5, 2, 4))
    >>> out, lse = softmax_attention(q, k, v, is_causal=True, return_lse=True)
    >>> out.shape, lse.shape, bool((out[0] == v[0]).all())
    ((5, 2, 4), (5, 2), True)
    """
    if choose_implementation(impl) == "pallas":
        raise ValueError("impl: 'pallas'; softmax_attention has only 'xla' (or 'auto')")
    inputs = check_inputs(
        query, key, value, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids
    )
    shape = Shape(
        check_scale(scale, inputs.query.shape[3] ** -0.5),
        bool(is_causal),
        check_whole("block_q", block_q, 1),
        check_whole("block_k", block_k, 1),
    )
    q, k, v, q_ids, k_ids = to_rows(inputs)
    out, lse = attend(q, k, v, q_ids, k_ids, shape)
    out, lse = from_rows(out, lse, inputs)
    return (out, lse) if return_lse else out


def to_rows(inputs: Inputs) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Arrays as rows, and ids (R, T), (R, S): a query sees the keys of its own id; -1 is no key."""
    q, k, v = inputs.query, inputs.key, inputs.value
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    q = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B * K, N // K, T, H)
    k, v = (x.transpose(0, 2, 1, 3).reshape(B * K, S, -1) for x in (k, v))
    if inputs.key_mask is None and inputs.segments is None:
        return q, k, v, None, None
    q_ids = jnp.zeros((B, T), jnp.int32) if inputs.segments is None else inputs.segments
    k_ids = jnp.zeros((B, S), jnp.int32) if inputs.segments is None else inputs.segments
    if inputs.key_mask is not None:
        k_ids = jnp.where(inputs.key_mask, k_ids, -1)
    return q, k, v, jnp.repeat(q_ids, K, axis=0), jnp.repeat(k_ids, K, axis=0)


def from_rows(out: Array, lse: Array, inputs: Inputs) -> tuple[Array, Array]:
    """Results in rows, (R, G, T, D) and (R, G, T), in the layout of the caller."""
    B, T, N, _ = inputs.query.shape
    out = out.reshape(B, N, T, -1).transpose(0, 2, 1, 3)
    lse = lse.reshape(B, N, T).transpose(0, 2, 1)
    return inputs.restore(out), inputs.restore(lse)


def never(dtype: Any) -> float:
    """A finite stand-in for -inf: differences of two of them are 0, not NaN."""
    return float(-0.5 * np.asarray(jnp.finfo(dtype).max, np.float64))


def finished(o: Array, m: Array, l: Array, dtype: Any) -> tuple[Array, Array]:
    """Output and log-normaliser of sums relative to a maximum; 0 and -inf where nothing counted."""
    alive = m > 0.5 * never(m.dtype)
    out = jnp.where(alive[..., None], o / l[..., None], 0).astype(dtype)
    return out, jnp.where(alive, m + jnp.log(l), -jnp.inf)


class _Tiles(NamedTuple):
    """How queries and keys are cut: tiles of (G block_q) queries and block_k keys."""

    q: int  # queries of a head in one tile
    k: int
    n_q: int  # tiles
    n_k: int
    rows: int  # rows side by side in one step, so that short sequences fill the cores too


def _tiles(q: Array, k: Array, shape: Shape) -> _Tiles:
    R, G, T, _ = q.shape
    S = k.shape[1]
    want_q = max(16, shape.block_q // G) if shape.block_q >= 16 else shape.block_q
    n_q = -(-T // want_q)
    b_q = _even(-(-T // n_q), n_q)
    if shape.causal:  # whole tiles of keys in a tile of queries: only the diagonal is cut
        per = -(-b_q // shape.block_k)
        b_k = _even(-(-b_q // per), n_q * per)
        b_q, n_k = per * b_k, n_q * per
    else:
        n_k = -(-S // shape.block_k)
        b_k = _even(-(-S // n_k), n_k)
    most = max(1, shape.block_q * shape.block_k // (G * b_q * b_k))
    rows = next(c for c in range(min(most, R), 0, -1) if R % c == 0)
    return _Tiles(b_q, b_k, n_q, n_k, rows)


def _even(size: int, tiles: int) -> int:
    """A whole number of vectors if there is more than one tile."""
    return size if tiles == 1 or size < 64 else -(-size // 16) * 16


def _padded(x: Array, size: int, axis: int, fill: int = 0) -> Array:
    extra = size - x.shape[axis]
    if extra == 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, extra)
    return jnp.pad(x, widths, constant_values=fill)


def _cut_queries(x: Array, t: _Tiles) -> Array:
    """(R, G, T, ...) as (n_q, R / rows, rows, G q, ...)."""
    R, G = x.shape[:2]
    x = _padded(x, t.n_q * t.q, 2).reshape(R // t.rows, t.rows, G, t.n_q, t.q, *x.shape[3:])
    x = jnp.moveaxis(x, 3, 0)
    return x.reshape(t.n_q, R // t.rows, t.rows, G * t.q, *x.shape[5:])


def _join_queries(x: Array, t: _Tiles, like: Array) -> Array:
    """The inverse: (n_q, R / rows, rows, G q, ...) as (R, G, T, ...)."""
    R, G, T = like.shape[:3]
    x = x.reshape(t.n_q, R // t.rows, t.rows, G, t.q, *x.shape[4:])
    x = jnp.moveaxis(x, 0, 3)
    return x.reshape(R, G, t.n_q * t.q, *x.shape[5:])[:, :, :T]


def _cut_keys(x: Array, t: _Tiles, fill: int = 0) -> Array:
    """(R, S, ...) as (R / rows, rows, n_k k, ...)."""
    x = _padded(x, t.n_k * t.k, 1, fill)
    return x.reshape(x.shape[0] // t.rows, t.rows, *x.shape[1:])


def _from(x: Array, start: int, group: int) -> Array:
    """The queries of a tile (rows, G q, ...) from one on, in each head."""
    if start == 0:
        return x
    x = x.reshape(x.shape[0], group, -1, *x.shape[2:])[:, :, start:]
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _put(x: Array, part: Array, start: int, group: int) -> Array:
    """Write what `_from` reads."""
    if start == 0:
        return part
    whole = x.reshape(x.shape[0], group, -1, *x.shape[2:])
    part = part.reshape(x.shape[0], group, -1, *x.shape[2:])
    return jnp.concatenate([whole[:, :, :start], part], axis=2).reshape(x.shape)


class _Masks(NamedTuple):
    """Which pairs of a tile count: places, ids, and the number of keys that are no padding."""

    tiles: _Tiles
    shape: Shape
    group: int
    n_keys: int
    q_ids: Array | None  # (n_q, R / rows, rows, G q)
    k_ids: Array | None  # (R / rows, rows, n_k k)

    @property
    def ragged(self) -> bool:
        """Whether the last tile of keys is partly padding that no rule hides otherwise."""
        full = self.tiles.n_k * self.tiles.k == self.n_keys
        return not (full or self.shape.causal or self.k_ids is not None)

    def seen(self, i: Any, r: Any, j: Any, start: int = 0, *, causal: bool) -> Array:
        """Which pairs of tile (i, j) of rows r count: (rows or 1, G (q - start) or 1, k)."""
        t = self.tiles
        seen, k_place = jnp.ones((1, 1, t.k), bool), j * t.k + jnp.arange(t.k)
        if causal:
            q_place = i * t.q + jnp.tile(jnp.arange(start, t.q), self.group)
            seen = seen & (k_place <= q_place[:, None])
        if self.ragged:
            seen = seen & (k_place < self.n_keys)
        if self.q_ids is not None and self.k_ids is not None:
            k_ids = lax.dynamic_slice_in_dim(self.k_ids[r], j * t.k, t.k, axis=1)
            q_ids = _from(self.q_ids[i, r], start, self.group)
            seen = seen & (q_ids[:, :, None] == k_ids[:, None])
        return seen


def _masks(q: Array, k: Array, q_ids: Any, k_ids: Any, t: _Tiles, shape: Shape) -> _Masks:
    G = q.shape[1]
    if q_ids is None:
        return _Masks(t, shape, G, k.shape[1], None, None)
    spread = jnp.broadcast_to(q_ids[:, None], (q_ids.shape[0], G, q_ids.shape[1]))
    return _Masks(t, shape, G, k.shape[1], _cut_queries(spread, t), _cut_keys(k_ids, t, -1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(
    q: Array, k: Array, v: Array, q_ids: Array | None, k_ids: Array | None, shape: Shape
) -> tuple[Array, Array]:
    """Exact attention of rows.

    Parameters
    ----------
    q : Array, shape (R, G, T, H)
    k : Array, shape (R, S, H)
    v : Array, shape (R, S, D)
    q_ids, k_ids : Array of int32, shapes (R, T) and (R, S), or both None
        A query sees the keys of its own id; keys with -1 do not exist.
    shape : Shape

    Returns
    -------
    out : Array, shape (R, G, T, D)
    lse : Array, shape (R, G, T)
    """
    return _forward(q, k, v, q_ids, k_ids, shape)


@functools.partial(jax.jit, static_argnums=5)
def _forward(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, shape: Shape
) -> tuple[Array, Array]:
    t, exact, G = _tiles(q, k, shape), accumulator(q.dtype), q.shape[1]
    masks = _masks(q, k, q_ids, k_ids, t, shape)
    qs, ks, vs = _cut_queries(q, t), _cut_keys(k, t), _cut_keys(v, t)
    n_rows, size = ks.shape[0], qs.shape[3]

    def tile(index: Array) -> tuple[Array, Array]:
        i, r = index // n_rows, index % n_rows
        qi = qs[i, r].astype(exact) * shape.scale

        def step(j: Any, carry: Any, masked: bool, causal: bool = False, start: int = 0) -> Any:
            o, m, l = (_from(x, start, G) for x in carry)
            kj, vj = (
                lax.dynamic_slice_in_dim(x[r], j * t.k, t.k, axis=1).astype(exact) for x in (ks, vs)
            )
            s = jnp.einsum("rqd,rkd->rqk", _from(qi, start, G), kj)
            if masked:
                s = jnp.where(masks.seen(i, r, j, start, causal=causal), s, never(exact))
            top = jnp.maximum(m, s.max(axis=-1))
            p, shrink = jnp.exp(s - top[..., None]), jnp.exp(m - top)
            o = o * shrink[..., None] + jnp.einsum("rqk,rkd->rqd", p, vj)
            new = (o, top, l * shrink + p.sum(axis=-1))
            return tuple(_put(x, y, start, G) for x, y in zip(carry, new, strict=True))

        carry: Any = (
            jnp.zeros((t.rows, size, v.shape[-1]), exact),
            jnp.full((t.rows, size), never(exact), exact),
            jnp.zeros((t.rows, size), exact),
        )
        free, stop = _key_range(masks, i)
        known = functools.partial(step, masked=masks.k_ids is not None)
        carry = lax.fori_loop(0, free, known, carry)
        if shape.causal:  # on the diagonal: a tile of keys meets the queries behind its first
            for part in range(t.q // t.k):
                carry = step(free + part, carry, True, True, part * t.k)
        else:
            carry = lax.fori_loop(free, stop, functools.partial(step, masked=True), carry)
        o, top, total = carry
        return finished(o, top, total, q.dtype)

    out, lse = lax.map(tile, jnp.arange(t.n_q * n_rows))
    out, lse = (x.reshape(t.n_q, n_rows, *x.shape[1:]) for x in (out, lse))
    return _join_queries(out, t, q), _join_queries(lse, t, q)


def _key_range(masks: _Masks, i: Any) -> tuple[Any, int]:
    """Tiles of keys [0, free) whose pairs with tile i of queries all count, but for ids."""
    t = masks.tiles
    if masks.shape.causal:
        return i * (t.q // t.k), t.n_k
    return (t.n_k - 1 if masks.ragged else t.n_k), t.n_k


def _backward_shape(shape: Shape) -> Shape:
    """Tiles of the backward pass: nearer to squares, and squares in the causal form.

    It cuts the diagonal tiles no further, and works on two arrays of scores at once.
    """
    q, k = max(1, shape.block_q // 2), shape.block_k * 2
    if shape.causal:
        q = k = max(1, max(q, k) // 2)
    return shape._replace(block_q=q, block_k=k)


def _saved(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, shape: Shape
) -> tuple[tuple[Array, Array], Any]:
    out, lse = _forward(q, k, v, q_ids, k_ids, shape)
    return (out, lse), (q, k, v, q_ids, k_ids, out, lse)


@functools.partial(jax.jit, static_argnums=0)
def _backward(shape: Shape, saved: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    q, k, v, q_ids, k_ids, out, lse = saved
    d_out, d_lse = cotangents
    exact = accumulator(q.dtype)
    delta = (out.astype(exact) * d_out.astype(exact)).sum(axis=-1) - d_lse
    grads = gradients(q, k, v, q_ids, k_ids, d_out, lse, delta, shape)
    return (*(g.astype(x.dtype) for g, x in zip(grads, (q, k, v), strict=True)), None, None)


@functools.partial(jax.jit, static_argnums=8)
def gradients(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Array | None,
    k_ids: Array | None,
    d_out: Array,
    lse: Array,
    delta: Array,
    shape: Shape,
) -> tuple[Array, Array, Array]:
    """What these keys contribute to the gradients of q, k, v.

    With P = exp(score - lse), dS = P (d_out v^T - delta). The log-normaliser may be that of a
    larger set of keys than the ones given: a sum over parts of the keys gives the whole gradient.

    Parameters
    ----------
    q, k, v, q_ids, k_ids, shape
        As in `attend`.
    d_out : Array, shape (R, G, T, D)
    lse, delta : Array, shape (R, G, T)
        delta is the inner product of the output and its cotangent, minus the cotangent of lse.

    Returns
    -------
    dq, dk, dv : Array
        In the precision of sums.
    """
    shape = _backward_shape(shape)
    t, exact = _tiles(q, k, shape), accumulator(q.dtype)
    masks = _masks(q, k, q_ids, k_ids, t, shape)
    # A query without keys has P = 0 below; no NaN may come in through what it was given.
    alive = jnp.isfinite(lse)
    lse, delta = jnp.where(alive, lse, 0), jnp.where(alive, delta, 0)
    qs, ds, ls, es = (_cut_queries(x, t) for x in (q, d_out, lse, delta))
    ks, vs = _cut_keys(k, t), _cut_keys(v, t)

    def rows(dq: Array, r: Array) -> tuple[Array, tuple[Array, Array]]:
        def keys(dq: Array, j: Array) -> tuple[Array, tuple[Array, Array]]:
            kj, vj = (
                lax.dynamic_slice_in_dim(x[r], j * t.k, t.k, axis=1).astype(exact) for x in (ks, vs)
            )
            k_down = jnp.swapaxes(kj, 1, 2)

            def step(i: Any, carry: tuple[Array, Array, Array], masked: bool, causal: bool) -> Any:
                # Scores stand on their side, (rows, k, G q), and so does dq: then no product
                # below has to transpose a large array.
                dq, dk, dv = carry
                qi, di = qs[i, r].astype(exact) * shape.scale, ds[i, r].astype(exact)
                s = jnp.einsum("rkd,rqd->rkq", kj, qi)
                if masked:
                    seen = jnp.swapaxes(masks.seen(i, r, j, causal=causal), 1, 2)
                    s = jnp.where(seen, s, never(exact))
                p = jnp.exp(s - ls[i, r][:, None])
                dv = dv + jnp.einsum("rkq,rqd->rkd", p, di)
                dp = jnp.einsum("rkd,rqd->rkq", vj, di)
                g = p * (dp - es[i, r][:, None])
                dk = dk + jnp.einsum("rkq,rqd->rkd", g, qi)
                add = jnp.einsum("rdk,rkq->rdq", k_down, g) * shape.scale
                return dq.at[i, r].add(add), dk, dv

            carry = (dq, jnp.zeros_like(kj), jnp.zeros_like(vj))
            start = j // (t.q // t.k) if shape.causal else 0
            hidden = masks.k_ids is not None or masks.ragged
            if shape.causal:
                carry = step(start, carry, True, True)
                start = start + 1
            of_rest = functools.partial(step, masked=hidden, causal=False)
            carry = lax.fori_loop(start, t.n_q, of_rest, carry)
            return carry[0], carry[1:]

        return lax.scan(keys, dq, jnp.arange(t.n_k))

    lying = jnp.zeros((*qs.shape[:3], qs.shape[4], qs.shape[3]), exact)
    dq, (dk, dv) = lax.scan(rows, lying, jnp.arange(ks.shape[0]))
    # (R / rows, n_k, rows, k, H) -> (R, S, H)
    dk, dv = (
        jnp.moveaxis(x, 1, 2).reshape(k.shape[0], t.n_k * t.k, -1)[:, : k.shape[1]]
        for x in (dk, dv)
    )
    return _join_queries(jnp.swapaxes(dq, 3, 4), t, q), dk, dv


attend.defvjp(_saved, _backward)
