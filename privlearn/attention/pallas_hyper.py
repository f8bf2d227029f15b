"""The block step of HyperAttention as a Pallas kernel: own block, then the sample, online softmax.

One program computes some queries of one block. Keys pass by in tiles, first those of the block,
then the sample with its weight and without what lies in the own block. On a GPU the kernel is
compiled; elsewhere it is interpreted, which shows that it is right and says nothing about speed.
The backward pass is the plain one of `privlearn.attention.hyper_node`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from privlearn.attention.arguments import accumulator
from privlearn.attention.softmax import finished, never

if TYPE_CHECKING:
    from privlearn.attention.hyper_node import Blocks

#: Largest tile of queries and of keys.
TILE = 64


def block_step(cut: Blocks, scale: float) -> tuple[Array, Array]:
    """Outputs (R, n_blocks, G bq, D) and log-normalisers (R, n_blocks, G bq) of sorted blocks.

    Parameters
    ----------
    cut : Blocks
        Sorted and cut arrays; see `privlearn.attention.hyper_node`.
    scale : float
        Multiplies inner products.
    """
    R = cut.q.shape[0]
    q, k, v = (x.reshape(R, -1, *x.shape[-2:]) for x in (cut.q, cut.k, cut.v))
    n_blocks, n_q, width = q.shape[1:]
    n_k, out_width = v.shape[2:]
    k_pick, v_pick, place = cut.k_pick, cut.v_pick, cut.pick_block
    q_ids, k_ids, pick_ids = _ids(cut, q, k)
    if k_pick.shape[1] == 0:  # a kernel takes no empty arrays: one key that nobody sees
        k_pick, v_pick = (jnp.zeros((R, 1, x.shape[2]), x.dtype) for x in (k_pick, v_pick))
        place, pick_ids = (jnp.full((R, 1), -1, jnp.int32) for _ in range(2))
    m = k_pick.shape[1]
    t_q, t_k, t_m = _tile(n_q), _tile(n_k), _tile(m)
    exact = accumulator(q.dtype)

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
            jax.ShapeDtypeStruct((R, n_blocks, n_q, out_width), q.dtype),
            jax.ShapeDtypeStruct((R, n_blocks, n_q), exact),
        ],
        interpret=jax.default_backend() != "gpu",
    )(q, k, v, k_pick, v_pick, place, cut.weight[:, None], q_ids, k_ids, pick_ids)  # fmt: skip


def _ids(cut: Blocks, q: Array, k: Array) -> tuple[Array, Array, Array]:
    if cut.q_ids is None or cut.k_ids is None or cut.pick_ids is None:
        return tuple(jnp.zeros(x.shape[:-1], jnp.int32) for x in (q, k, cut.k_pick))  # type: ignore[return-value]
    return cut.q_ids.reshape(q.shape[:-1]), cut.k_ids.reshape(k.shape[:-1]), cut.pick_ids


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
