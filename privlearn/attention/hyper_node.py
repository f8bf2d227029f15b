"""One node of HyperAttention: sorted blocks and one sample, forward and backward.

Rows as in `privlearn.attention.softmax`. Queries (R, G, T, H) are sorted for each query head,
keys (R, S, H) once. Both are cut into the same number of blocks; a step handles some blocks of one
row at a time: scores within the blocks, scores to the sample, and one softmax over both.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from privlearn.attention.arguments import accumulator
from privlearn.attention.lsh import inverse_order
from privlearn.attention.softmax import finished, never

#: Queries of a step, about: enough to fill the cores, few enough for the cache.
_STEP = 1024


class Settings(NamedTuple):
    """What a compiled pass depends on besides the shapes of its arrays.

    Attributes
    ----------
    scale : float
    causal : bool
    block : int
        Keys of a block.
    samples : int
        Keys drawn for the rest.
    min_seq_len : int
        Shorter is exact.
    pallas : bool
        Whether the forward step is the kernel of `privlearn.attention.pallas_hyper`.
    """

    scale: float
    causal: bool
    block: int
    samples: int
    min_seq_len: int
    pallas: bool = False


class Node(NamedTuple):
    """Order and sample of one node.

    Attributes
    ----------
    q_order : Array of int32, shape (R, G, T)
    k_order : Array of int32, shape (R, S)
        Keys that do not exist come last.
    picks : Array of int32, shape (R, m)
        Places of the sample in the sorted order of the keys.
    n_keys : Array of int32, shape (R,)
        Keys that exist.
    """

    q_order: Array
    k_order: Array
    picks: Array
    n_keys: Array


class Blocks(NamedTuple):
    """Sorted arrays, cut: ``n_steps`` steps of ``c`` blocks.

    Attributes
    ----------
    q : Array, shape (R, n_steps, c, G bq, H)
    k, v : Array, shape (R, n_steps, c, b, H or D)
    k_pick, v_pick : Array, shape (R, m, H or D)
    weight : Array, shape (R,)
        log(keys / sample), what each drawn key counts for.
    pick_block : Array of int32, shape (R, m)
    q_ids, k_ids, pick_ids : Array of int32, or None
        Shapes of q, k, k_pick without the last axis; -1 is no key.
    """

    q: Array
    k: Array
    v: Array
    k_pick: Array
    v_pick: Array
    weight: Array
    pick_block: Array
    q_ids: Array | None
    k_ids: Array | None
    pick_ids: Array | None


class _Layout(NamedTuple):
    """Numbers of blocks and sizes."""

    n_blocks: int
    b_q: int
    b_k: int
    c: int  # blocks of a step

    @property
    def n_steps(self) -> int:
        return self.n_blocks // self.c


def _layout(n_queries: int, n_keys: int, group: int, block: int) -> _Layout:
    n_blocks = -(-n_keys // block)
    b_q = -(-n_queries // n_blocks)
    most = max(1, _STEP // (group * b_q))
    c = next(c for c in range(min(most, n_blocks), 0, -1) if n_blocks % c == 0)
    return _Layout(n_blocks, b_q, min(block, n_keys), c)


def take_rows(x: Array, order: Array) -> Array:
    """Elements of axis 1 of (R, n, ...) in an order (R, n'), as one flat gather."""
    n = x.shape[1]
    index = order + n * jnp.arange(x.shape[0], dtype=order.dtype)[:, None]
    flat = x.reshape(-1, *x.shape[2:])
    return flat.at[index].get(mode="promise_in_bounds")


def _full(order: Array, size: int) -> Array:
    """An order, padded by its own first element; the padding is masked or dropped later."""
    extra = size - order.shape[-1]
    if extra == 0:
        return order
    pad = jnp.broadcast_to(order[..., :1], (*order.shape[:-1], extra))
    return jnp.concatenate([order, pad], axis=-1)


def _sorted_queries(x: Array, order: Array, lay: _Layout) -> Array:
    """(R, G, T, ...) sorted and cut: (R, n_steps, c, G bq, ...)."""
    R, G, T = x.shape[:3]
    full = _full(order, lay.n_blocks * lay.b_q).reshape(R * G, -1)
    x = take_rows(x.reshape(R * G, T, *x.shape[3:]), full)
    x = x.reshape(R, G, lay.n_steps, lay.c, lay.b_q, *x.shape[2:])
    x = jnp.moveaxis(x, 1, 3)
    return x.reshape(R, lay.n_steps, lay.c, G * lay.b_q, *x.shape[5:])


def _unsorted_queries(x: Array, order: Array, lay: _Layout) -> Array:
    """The inverse of `_sorted_queries`, with the last axis spelled out: (R, G, T, -1)."""
    R, G, T = order.shape
    x = x.reshape(R, lay.n_blocks, G, lay.b_q, -1)
    x = jnp.moveaxis(x, 2, 1).reshape(R * G, lay.n_blocks * lay.b_q, -1)
    back = inverse_order(order).reshape(R * G, T)
    return take_rows(x, back).reshape(R, G, T, -1)


def _cut(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Any,
    k_ids: Any,
    node: Node,
    lay: _Layout,
    settings: Settings,
) -> Blocks:
    """Sort and cut everything."""
    R, G = q.shape[:2]
    S = k.shape[1]
    order = _full(node.k_order, lay.n_blocks * lay.b_k)
    k_sorted, v_sorted = take_rows(k, order), take_rows(v, order)
    use = settings.samples > 0 and lay.n_blocks > 1
    picks = node.picks if use else node.picks[:, :0]
    if k_ids is None and order.shape[1] > S:  # the padding must be hidden
        q_ids, k_ids = jnp.zeros((R, q.shape[2]), jnp.int32), jnp.zeros((R, S), jnp.int32)
    ids: tuple[Any, Any, Any] = (None, None, None)
    if k_ids is not None:
        real = jnp.arange(order.shape[1]) < S
        sorted_ids = jnp.where(real, take_rows(k_ids, order), -1)
        spread = jnp.broadcast_to(q_ids[:, None], (R, G, q.shape[2]))
        ids = (
            _sorted_queries(spread, node.q_order, lay),
            sorted_ids.reshape(R, lay.n_steps, lay.c, lay.b_k),
            take_rows(sorted_ids, picks),
        )
    exact = accumulator(q.dtype)
    weight = jnp.log(jnp.maximum(node.n_keys, 1).astype(exact) / max(settings.samples, 1))
    return Blocks(
        _sorted_queries(q, node.q_order, lay),
        k_sorted.reshape(R, lay.n_steps, lay.c, lay.b_k, -1),
        v_sorted.reshape(R, lay.n_steps, lay.c, lay.b_k, -1),
        take_rows(k_sorted, picks),
        take_rows(v_sorted, picks),
        weight,
        picks // lay.b_k,
        *ids,
    )


class _Step(NamedTuple):
    """The arrays of one step, in the precision of sums, and its scores."""

    q: Array  # (c, Q, H), scaled
    k: Array  # (c, b, H)
    v: Array  # (c, b, D)
    k_pick: Array  # (m, H)
    v_pick: Array  # (m, D)
    s: Array  # (c, Q, b)
    s_pick: Array  # (c, Q, m)


def _scores(cut: Blocks, r: Any, step: Any, scale: float, exact: Any) -> _Step:
    """Scores of one step: within the blocks, and to the sample outside the own block."""
    q = cut.q[r, step].astype(exact) * scale
    k, v = cut.k[r, step].astype(exact), cut.v[r, step].astype(exact)
    k_pick, v_pick = cut.k_pick[r].astype(exact), cut.v_pick[r].astype(exact)
    s = jnp.einsum("cqd,ckd->cqk", q, k)
    c, n_q = q.shape[:2]
    own = cut.pick_block[r] == step * c + jnp.arange(c)[:, None]
    bias = jnp.where(own, never(exact), cut.weight[r])
    s_pick = (q.reshape(c * n_q, -1) @ k_pick.T).reshape(c, n_q, -1) + bias[:, None]
    if cut.q_ids is not None and cut.k_ids is not None and cut.pick_ids is not None:
        q_ids = cut.q_ids[r, step][:, :, None]
        s = jnp.where(q_ids == cut.k_ids[r, step][:, None], s, never(exact))
        s_pick = jnp.where(q_ids == cut.pick_ids[r], s_pick, never(exact))
    return _Step(q, k, v, k_pick, v_pick, s, s_pick)


def node_forward(
    q: Array, k: Array, v: Array, q_ids: Any, k_ids: Any, node: Node, settings: Settings
) -> tuple[Array, Array]:
    """Output (R, G, T, D) and log-normaliser (R, G, T) of all keys, given order and sample."""
    exact = accumulator(q.dtype)
    lay = _layout(q.shape[2], k.shape[1], q.shape[1], settings.block)
    cut = _cut(q, k, v, q_ids, k_ids, node, lay, settings)
    if settings.pallas:
        from privlearn.attention.pallas_hyper import block_step

        out, lse = block_step(cut, settings.scale)
    else:

        def step(index: Array) -> tuple[Array, Array]:
            x = _scores(cut, index // lay.n_steps, index % lay.n_steps, settings.scale, exact)
            top = x.s.max(axis=-1)
            if x.s_pick.shape[-1]:
                top = jnp.maximum(top, x.s_pick.max(axis=-1))
            p, p_pick = jnp.exp(x.s - top[..., None]), jnp.exp(x.s_pick - top[..., None])
            total = p.sum(axis=-1) + p_pick.sum(axis=-1)
            o = jnp.einsum("cqk,ckd->cqd", p, x.v)
            c, n_q, m = p_pick.shape
            o = o + (p_pick.reshape(c * n_q, m) @ x.v_pick).reshape(c, n_q, -1)
            return finished(o, top, total, q.dtype)

        out, lse = lax.map(step, jnp.arange(q.shape[0] * lay.n_steps))
    out = _unsorted_queries(out, node.q_order, lay)
    return out, _unsorted_queries(lse, node.q_order, lay)[..., 0]


def node_gradients(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Any,
    k_ids: Any,
    node: Node,
    d_out: Array,
    lse: Array,
    delta: Array,
    settings: Settings,
) -> tuple[Array, Array, Array]:
    """What this node contributes to dq, dk, dv, in the precision of sums.

    ``lse`` and ``delta`` (R, G, T) may be those of a larger set of keys; finite.
    """
    exact = accumulator(q.dtype)
    lay = _layout(q.shape[2], k.shape[1], q.shape[1], settings.block)
    cut = _cut(q, k, v, q_ids, k_ids, node, lay, settings)
    ds, ls, es = (_sorted_queries(x, node.q_order, lay) for x in (d_out, lse, delta))
    if lay.n_blocks * lay.b_q > q.shape[2]:  # padded queries must add nothing
        place = jnp.arange(lay.n_blocks)[:, None] * lay.b_q + jnp.arange(lay.b_q)
        keep = jnp.tile(place < q.shape[2], q.shape[1]).reshape(lay.n_steps, lay.c, -1)
        ds, es = jnp.where(keep[..., None], ds, 0), jnp.where(keep, es, 0)

    def row(_: None, r: Array) -> tuple[None, tuple[Array, ...]]:
        def step(carry: tuple[Array, Array], i: Array) -> Any:
            dk_pick, dv_pick = carry
            x = _scores(cut, r, i, settings.scale, exact)
            d, l, e = ds[r, i].astype(exact), ls[r, i][..., None], es[r, i][..., None]
            p, p_pick = jnp.exp(x.s - l), jnp.exp(x.s_pick - l)
            c, n_q, m = p_pick.shape
            g = p * (jnp.einsum("cqd,ckd->cqk", d, x.v) - e)
            flat = d.reshape(c * n_q, -1)
            g_pick = p_pick * ((flat @ x.v_pick.T).reshape(c, n_q, m) - e)
            g_flat = g_pick.reshape(c * n_q, m)
            dq = jnp.einsum("cqk,ckd->cqd", g, x.k) + (g_flat @ x.k_pick).reshape(c, n_q, -1)
            dk, dv = jnp.einsum("cqk,cqd->ckd", g, x.q), jnp.einsum("cqk,cqd->ckd", p, d)
            dk_pick = dk_pick + g_flat.T @ x.q.reshape(c * n_q, -1)
            dv_pick = dv_pick + p_pick.reshape(c * n_q, m).T @ flat
            return (dk_pick, dv_pick), (dq * settings.scale, dk, dv)

        start = (
            jnp.zeros(cut.k_pick.shape[1:], exact),
            jnp.zeros(cut.v_pick.shape[1:], exact),
        )
        picked, parts = lax.scan(step, start, jnp.arange(lay.n_steps))
        return None, (*parts, *picked)

    _, (dq, dk, dv, dk_pick, dv_pick) = lax.scan(row, None, jnp.arange(q.shape[0]))
    picks = node.picks[:, : cut.k_pick.shape[1]]
    back = inverse_order(node.k_order)
    finish = functools.partial(_unsorted_keys, back=back, picks=picks)
    return _unsorted_queries(dq, node.q_order, lay), finish(dk, dk_pick), finish(dv, dv_pick)


def _unsorted_keys(x: Array, picked: Array, back: Array, picks: Array) -> Array:
    """Gradients of sorted keys (R, n_steps, c, b, H), plus those of the sample, in first order."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    if picks.shape[1]:
        x = x.at[jnp.arange(x.shape[0])[:, None], picks].add(picked)
    return take_rows(x, back)
