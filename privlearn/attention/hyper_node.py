"""The steps of HyperAttention: sorted blocks and one sample, forward and backward.

Rows as in `privlearn.attention.softmax`. All levels of the causal recursion have the same number
of blocks (n / 2 queries and keys each), so one loop runs over all levels, rows and chunks of
blocks. A step gathers its queries and keys from where they stand, computes the scores within the
blocks and to the sample, and adds its share to the output or to the gradients in place: no sorted
copy of anything exists. The plain form is one level with all queries and keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from privlearn.attention.arguments import accumulator
from privlearn.attention.softmax import never

#: Queries of a step, about: enough to fill the cores, few enough for the cache.
STEP = 1024


class Settings(NamedTuple):
    """What a compiled pass depends on besides the shapes of its arrays.

    Attributes
    ----------
    scale : float
    causal : bool
    block : int
        Keys of a block, at most.
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


class Plan(NamedTuple):
    """All that is random: orders and samples. L levels, R rows, G query heads of a row.

    Attributes
    ----------
    q_order : Array of int32, shape (L, R, G, n)
        Places of queries, sorted by bucket within each node, node after node. Level l of the
        causal form has 2**l nodes: the second halves of as many parts of the sequence.
    k_order : Array of int32, shape (L, R, n')
        The same for keys; those of the first halves. Keys that do not exist come last in a node.
    picks : Array of int32, shape (L, R, N, m)
        The sample of each node: places in its sorted order. Only the first 2**l of N count.
    n_keys : Array of int32, shape (L, R, N)
        Keys of each node that exist.
    """

    q_order: Array
    k_order: Array
    picks: Array
    n_keys: Array


class Layout(NamedTuple):
    """How a level is cut: ``n_steps`` steps of ``c`` blocks of ``b_q`` queries, ``b_k`` keys."""

    n_blocks: int
    b_q: int
    b_k: int
    c: int

    @property
    def n_steps(self) -> int:
        """Steps of a level, for one row."""
        return self.n_blocks // self.c


def layout(n_queries: int, n_keys: int, group: int, levels: int, settings: Settings) -> Layout:
    """Layout of the plain form (``levels = 0``) or of each level; lengths of whole rows."""
    if levels:
        n_queries = n_keys = n_keys // 2**levels
    of_node = -(-n_keys // settings.block)
    b_q = -(-n_queries // of_node)
    b_k = -(-n_keys // of_node) if levels else min(settings.block, n_keys)
    most = max(1, STEP * 3 // 2 // (group * b_q))  # a leaf of 5 or 6 blocks is one step too
    c = next(c for c in range(min(most, of_node), 0, -1) if of_node % c == 0)
    return Layout(of_node * 2 ** max(levels - 1, 0), b_q, b_k, c)


def padded_length(n: int, levels: int, block: int) -> int:
    """The next length that can be halved `levels` times into leaves of equal blocks.

    The rows appended are seen by no other: whenever a half of keys reaches into them, the half of
    queries behind it lies in them altogether.
    """
    leaf = -(-n // 2**levels)
    n_blocks = -(-leaf // block)
    return 2**levels * n_blocks * -(-leaf // n_blocks)


class Tables(NamedTuple):
    """What a step looks up; rows of queries and keys are numbered through.

    Attributes
    ----------
    q : Array, shape (R G T, H)
    k, v : Array, shape (R S, H or D)
    q_at : Array of int32, shape (L, R, n_blocks, G b_q)
        Queries of each block; R G T is padding.
    k_at : Array of int32, shape (L, R, n_blocks, b_k)
        Keys of each block; R S is padding.
    pick_at : Array of int32, shape (L, R, N, m)
        Keys of each sample.
    pick_block : Array of int32, shape (L, R, N, m)
        Their blocks, counted within the node.
    weight : Array, shape (L, R, N)
        log(keys / sample), what each drawn key counts for.
    q_ids, k_ids : Array of int32, shapes (R G T,) and (R S,), or None
        -1 is no key.
    """

    q: Array
    k: Array
    v: Array
    q_at: Array
    k_at: Array
    pick_at: Array
    pick_block: Array
    weight: Array
    q_ids: Array | None
    k_ids: Array | None


def tables(
    q: Array,
    k: Array,
    v: Array,
    q_ids: Any,
    k_ids: Any,
    plan: Plan,
    lay: Layout,
    settings: Settings,
) -> Tables:
    """Number everything through."""
    R, G, T = q.shape[:3]
    S = k.shape[1]
    L, _, N, m = plan.picks.shape
    rows = jnp.arange(R, dtype=jnp.int32)
    heads = jnp.arange(R * G, dtype=jnp.int32).reshape(R, G, 1)
    q_at = _filled(plan.q_order + T * heads, lay.n_blocks * lay.b_q, R * G * T)
    q_at = jnp.moveaxis(q_at.reshape(L, R, G, lay.n_blocks, lay.b_q), 2, 3)
    sorted_keys = plan.k_order + S * rows[:, None]
    k_at = _filled(sorted_keys, lay.n_blocks * lay.b_k, R * S)
    # Level l has 2**l nodes of equal length; what lies behind them is looked up by no step.
    n = plan.k_order.shape[-1]
    length = jnp.right_shift(n, jnp.arange(L, dtype=jnp.int32))[:, None, None, None]
    place = jnp.arange(N, dtype=jnp.int32)[:, None] * length + plan.picks
    place = jnp.minimum(place, n - 1).reshape(L, R, N * m)
    pick_at = jnp.take_along_axis(sorted_keys, place, axis=-1).reshape(L, R, N, m)
    if k_ids is None and n < lay.n_blocks * lay.b_k:  # the padding must be hidden
        q_ids, k_ids = jnp.zeros((R, T), jnp.int32), jnp.zeros((R, S), jnp.int32)
    if k_ids is not None:
        q_ids = jnp.broadcast_to(q_ids[:, None], (R, G, T)).reshape(-1)
        k_ids = k_ids.reshape(-1)
    count = jnp.maximum(plan.n_keys, 1).astype(accumulator(q.dtype))
    return Tables(
        q.reshape(R * G * T, -1),
        k.reshape(R * S, -1),
        v.reshape(R * S, -1),
        q_at.reshape(L, R, lay.n_blocks, G * lay.b_q),
        k_at.reshape(L, R, lay.n_blocks, lay.b_k),
        pick_at,
        plan.picks // lay.b_k,
        jnp.log(count / max(settings.samples, 1)),
        q_ids,
        k_ids,
    )


def _filled(places: Array, size: int, fill: int) -> Array:
    extra = size - places.shape[-1]
    if extra == 0:
        return places
    widths = [(0, 0)] * (places.ndim - 1) + [(0, extra)]
    return jnp.pad(places, widths, constant_values=fill)


def rows_at(x: Array, at: Array) -> Array:
    """Rows of a table; zeros for padding."""
    return x.at[at].get(mode="fill", fill_value=0)


class _Step(NamedTuple):
    """The arrays of one step, in the precision of sums: c blocks of Q queries, K keys in sight."""

    q_at: Array  # (c Q,)
    k_at: Array  # (c b,)
    pick_at: Array  # (m,)
    q: Array  # (c, Q, H), scaled
    k: Array  # (c, K, H), those of the block and the sample
    v: Array  # (c, K, D)
    bias: Array  # (c, K)
    seen: Array | None  # (c, Q, K)


def _step(x: Tables, lay: Layout, index: Any, scale: float, exact: Any) -> _Step:
    """Gather what step ``index`` of all levels, rows and chunks needs."""
    L, R, n_blocks, _ = x.q_at.shape
    level, rest = index // (R * lay.n_steps), index % (R * lay.n_steps)
    r, s = rest // lay.n_steps, rest % lay.n_steps
    of_node = jnp.right_shift(n_blocks, level) if L > 1 else n_blocks
    node = (s * lay.c) // of_node
    c, m = lay.c, x.pick_at.shape[-1]
    q_at, k_at = (lax.dynamic_slice_in_dim(t[level, r], s * c, c) for t in (x.q_at, x.k_at))
    pick_at = x.pick_at[level, r, node]
    in_sight = jnp.concatenate([k_at, jnp.broadcast_to(pick_at, (c, m))], axis=1)
    own = x.pick_block[level, r, node] == s * c - node * of_node + jnp.arange(c)[:, None]
    of_pick = jnp.where(own, never(exact), x.weight[level, r, node])
    bias = jnp.concatenate([jnp.zeros((c, lay.b_k), exact), of_pick], axis=1)
    seen = None
    if x.q_ids is not None and x.k_ids is not None:
        of_k = x.k_ids.at[in_sight].get(mode="fill", fill_value=-1)
        seen = rows_at(x.q_ids, q_at)[:, :, None] == of_k[:, None]
    return _Step(
        q_at.reshape(-1),
        k_at.reshape(-1),
        pick_at,
        rows_at(x.q, q_at).astype(exact) * scale,
        rows_at(x.k, in_sight).astype(exact),
        rows_at(x.v, in_sight).astype(exact),
        bias,
        seen,
    )


def add_levels(out: Array, lse: Array, x: Tables, lay: Layout, scale: float) -> tuple[Array, Array]:
    """Merge what all levels see into an output (R G T, D) and log-normaliser (R G T,).

    Both in the precision of sums; 0 and -inf to begin with, if there is nothing else.
    """
    exact = out.dtype

    def body(index: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        out, lse = carry
        t = _step(x, lay, index, scale, exact)
        # Bias before the maximum: added within the exponential it makes all 1.7 times as slow.
        s = jnp.einsum("cqd,ckd->cqk", t.q, t.k) + t.bias[:, None]
        s = s if t.seen is None else jnp.where(t.seen, s, never(exact))
        top = s.max(axis=-1)
        p = jnp.exp(s - top[..., None])
        o = jnp.einsum("cqk,ckd->cqd", p, t.v)
        part = (y.reshape(-1, *y.shape[2:]) for y in (o, top, p.sum(axis=-1)))
        new, new_lse = merged(rows_at(out, t.q_at), rows_at(lse, t.q_at), *part)
        place: Any = {"mode": "drop", "unique_indices": True}
        return out.at[t.q_at].set(new, **place), lse.at[t.q_at].set(new_lse, **place)

    L, R = x.q_at.shape[:2]
    return lax.fori_loop(0, L * R * lay.n_steps, body, (out, lse))


def merged(out: Array, lse: Array, o: Array, top: Array, total: Array) -> tuple[Array, Array]:
    """Attention to two disjoint sets of keys: one finished, one as sums relative to a maximum."""
    alive = top > 0.5 * never(top.dtype)
    new = jnp.logaddexp(lse, jnp.where(alive, top + jnp.log(total), -jnp.inf))
    safe = jnp.where(jnp.isfinite(new), new, 0)
    share_1, share_2 = jnp.exp(lse - safe), jnp.where(alive, jnp.exp(top - safe), 0)
    return share_1[..., None] * out + share_2[..., None] * o, new


def add_gradients(
    grads: tuple[Array, Array, Array],
    x: Tables,
    lay: Layout,
    scale: float,
    d_out: Array,
    lse: Array,
    delta: Array,
) -> tuple[Array, Array, Array]:
    """Add what all levels contribute to dq (R G T, H), dk (R S, H) and dv (R S, D).

    ``d_out`` (R G T, D), ``lse`` and ``delta`` (R G T,) are those of all keys together; finite.
    """
    exact = grads[0].dtype

    def body(index: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        dq, dk, dv = carry
        t = _step(x, lay, index, scale, exact)
        c, n_q = t.q.shape[:2]
        d = rows_at(d_out, t.q_at).astype(exact).reshape(c, n_q, -1)
        # Scores stand on their side, (c, K, Q): two of the three products below need no transpose.
        l, e = (rows_at(y, t.q_at).reshape(c, 1, n_q) for y in (lse, delta))
        s = jnp.einsum("ckd,cqd->ckq", t.k, t.q) + t.bias[..., None]
        s = s if t.seen is None else jnp.where(jnp.swapaxes(t.seen, 1, 2), s, never(exact))
        p = jnp.exp(s - l)
        g = p * (jnp.einsum("ckd,cqd->ckq", t.v, d) - e)
        to_q = jnp.einsum("ckq,ckd->cqd", g, t.k) * scale
        dq = dq.at[t.q_at].add(to_q.reshape(c * n_q, -1), mode="drop", unique_indices=True)
        dk = _spread(dk, jnp.einsum("ckq,cqd->ckd", g, t.q), t, lay)
        dv = _spread(dv, jnp.einsum("ckq,cqd->ckd", p, d), t, lay)
        return dq, dk, dv

    L, R = x.q_at.shape[:2]
    return lax.fori_loop(0, L * R * lay.n_steps, body, grads)


def _spread(total: Array, part: Array, t: _Step, lay: Layout) -> Array:
    """Add gradients (c, K, H) of the keys of a step, of which the last m are the sample."""
    of_block = part[:, : lay.b_k].reshape(-1, part.shape[-1])
    total = total.at[t.k_at].add(of_block, mode="drop", unique_indices=True)
    if part.shape[1] == lay.b_k:
        return total
    return total.at[t.pick_at].add(part[:, lay.b_k :].sum(axis=0), mode="drop")
