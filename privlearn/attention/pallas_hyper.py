"""The block step of HyperAttention as a Pallas kernel: own block, then the sample, online softmax.

One program computes some queries of one block. Keys pass by in tiles, first those of the block,
then the sample with its weight and without what lies in the own block. On a GPU the kernel is
compiled; elsewhere it is interpreted, which shows that it is right and says nothing about speed.
The backward pass is the plain one of `privlearn.attention.hyper_node`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from privlearn.attention.arguments import accumulator
from privlearn.attention.hyper_node import Layout, Tables, merged, rows_at
from privlearn.attention.softmax import finished, never

#: Largest tile of queries and of keys.
TILE = 64


class Blocks(NamedTuple):
    """The sorted arrays of one level; one row for each of its nodes, R of them.

    Attributes
    ----------
    q : Array, shape (R, n_blocks, G bq, H)
    k, v : Array, shape (R, n_blocks, b, H or D)
    k_pick, v_pick : Array, shape (R, m, H or D)
    weight : Array, shape (R,)
        log(keys / sample), what each drawn key counts for.
    pick_block : Array of int32, shape (R, m)
    q_ids, k_ids, pick_ids : Array of int32
        Shapes of q, k, k_pick without the last axis; -1 is no key.
    """

    q: Array
    k: Array
    v: Array
    k_pick: Array
    v_pick: Array
    weight: Array
    pick_block: Array
    q_ids: Array
    k_ids: Array
    pick_ids: Array


def level_blocks(x: Tables, level: int) -> Blocks:
    """Gather a level as a whole."""
    R, n_blocks = x.q_at.shape[1:3]
    nodes = 2**level
    q_at, k_at = (
        y[level].reshape(R * nodes, n_blocks // nodes, y.shape[-1]) for y in (x.q_at, x.k_at)
    )
    of_node = (y[level, :, :nodes] for y in (x.pick_at, x.weight, x.pick_block))
    pick_at, weight, pick_block = (y.reshape(R * nodes, *y.shape[2:]) for y in of_node)

    def ids(table: Array | None, at: Array) -> Array:
        if table is None:
            return jnp.zeros(at.shape, jnp.int32)
        return table.at[at].get(mode="fill", fill_value=-1)

    return Blocks(
        rows_at(x.q, q_at),
        rows_at(x.k, k_at),
        rows_at(x.v, k_at),
        rows_at(x.k, pick_at),
        rows_at(x.v, pick_at),
        weight,
        pick_block,
        ids(x.q_ids, q_at),
        ids(x.k_ids, k_at),
        ids(x.k_ids, pick_at),
    )


def add_levels(out: Array, lse: Array, x: Tables, lay: Layout, scale: float) -> tuple[Array, Array]:
    """As `privlearn.attention.hyper_node.add_levels`; one kernel for each level."""
    del lay
    for level in range(x.q_at.shape[0]):
        o, top = block_step(level_blocks(x, level), scale)
        part = o.reshape(-1, o.shape[-1]).astype(out.dtype), top.reshape(-1), jnp.ones(top.size)
        at = x.q_at[level].reshape(-1)
        new, new_lse = merged(rows_at(out, at), rows_at(lse, at), *part)
        place: Any = {"mode": "drop", "unique_indices": True}
        out, lse = out.at[at].set(new, **place), lse.at[at].set(new_lse, **place)
    return out, lse


def block_step(cut: Blocks, scale: float) -> tuple[Array, Array]:
    """Outputs (R, n_blocks, G bq, D) and log-normalisers (R, n_blocks, G bq) of sorted blocks.

    Parameters
    ----------
    cut : Blocks
        What `level_blocks` gathered.
    scale : float
        Multiplies inner products.
    """
    R, n_blocks, n_q, width = cut.q.shape
    n_k, out_width = cut.v.shape[2:]
    k_pick, v_pick, place, pick_ids = cut.k_pick, cut.v_pick, cut.pick_block, cut.pick_ids
    if k_pick.shape[1] == 0:  # a kernel takes no empty arrays: one key that nobody sees
        k_pick, v_pick = (jnp.zeros((R, 1, x.shape[2]), x.dtype) for x in (k_pick, v_pick))
        place, pick_ids = (jnp.full((R, 1), -1, jnp.int32) for _ in range(2))
    m = k_pick.shape[1]
    t_q, t_k, t_m = _tile(n_q), _tile(n_k), _tile(m)
    exact = accumulator(cut.q.dtype)

    def one(*sizes: int) -> Any:  # a tile of queries of a block
        return pl.BlockSpec((None, None, *sizes), lambda r, i, t: (r, i, t, 0)[: 2 + len(sizes)])

    def block(*sizes: int) -> Any:  # the whole block of keys
        return pl.BlockSpec((None, None, *sizes), lambda r, i, t: (r, i, 0, 0)[: 2 + len(sizes)])

    def row(*sizes: int) -> Any:  # what all blocks of a row share
        return pl.BlockSpec((None, *sizes), lambda r, i, t: (r, 0, 0)[: 1 + len(sizes)])

    kernel = functools.partial(_kernel, scale=scale, t_k=t_k, t_m=t_m, exact=exact)
    return pl.pallas_call(
        kernel,
        grid=(R, n_blocks, n_q // t_q),
        in_specs=[
            one(t_q, width), block(n_k, width), block(n_k, out_width),
            row(m, width), row(m, out_width), row(m), row(1),
            one(t_q), block(n_k), row(m),
        ],
        out_specs=[one(t_q, out_width), one(t_q)],
        out_shape=[
            jax.ShapeDtypeStruct((R, n_blocks, n_q, out_width), cut.q.dtype),
            jax.ShapeDtypeStruct((R, n_blocks, n_q), exact),
        ],
        interpret=jax.default_backend() != "gpu",
    )(
        cut.q, cut.k, cut.v, k_pick, v_pick, place, cut.weight[:, None],
        cut.q_ids, cut.k_ids, pick_ids,
    )  # fmt: skip


def _tile(size: int) -> int:
    """The largest divisor up to `TILE`."""
    return next(t for t in range(min(size, TILE), 0, -1) if size % t == 0)


def _kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, kp_ref: Any, vp_ref: Any, place_ref: Any, weight_ref: Any,
    q_id_ref: Any, k_id_ref: Any, p_id_ref: Any, out_ref: Any, lse_ref: Any,
    *, scale: float, t_k: int, t_m: int, exact: Any,
) -> None:  # fmt: skip
    q, q_ids = q_ref[...], q_id_ref[...]
    here, weight = pl.program_id(1), weight_ref[0]

    def add(carry: Any, k: Array, v: Array, seen: Array, bias: Array | float) -> Any:
        o, top, total = carry
        s = jnp.dot(q, k.T, preferred_element_type=exact) * scale + bias
        s = jnp.where(seen, s, never(exact))
        new = jnp.maximum(top, s.max(axis=1))
        p, shrink = jnp.exp(s - new[:, None]), jnp.exp(top - new)
        o = o * shrink[:, None] + jnp.dot(p.astype(v.dtype), v, preferred_element_type=exact)
        return o, new, total * shrink + p.sum(axis=1)

    def of_block(j: Any, carry: Any) -> Any:
        at = pl.ds(j * t_k, t_k)
        seen = q_ids[:, None] == k_id_ref[at][None]
        return add(carry, k_ref[at, :], v_ref[at, :], seen, 0.0)

    def of_sample(j: Any, carry: Any) -> Any:
        at = pl.ds(j * t_m, t_m)
        seen = (q_ids[:, None] == p_id_ref[at][None]) & (place_ref[at] != here)[None]
        return add(carry, kp_ref[at, :], vp_ref[at, :], seen, weight)

    n_q, width = q.shape[0], v_ref.shape[1]
    carry = (
        jnp.zeros((n_q, width), exact),
        jnp.full((n_q,), never(exact), exact),
        jnp.zeros((n_q,), exact),
    )
    carry = lax.fori_loop(0, k_ref.shape[0] // t_k, of_block, carry)
    carry = lax.fori_loop(0, kp_ref.shape[0] // t_m, of_sample, carry)
    o, top, total = carry
    out_ref[...], lse_ref[...] = finished(o, top, total, out_ref.dtype)
