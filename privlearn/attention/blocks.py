"""Block lower-triangular multiplication: causal sums over weights, linear in time and memory.

Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655), section 3: with features ``f`` of a key,
``weight = f(y_q) . f(y_k)``, a block of b tokens looks at all earlier blocks through one matrix

    Z = sum over earlier keys of f(y_k) [v, 1]^T,      N = f(Y_q) Z + tril(weights) [V, 1],

and at itself through a b times b tile of weights: the square of sketched scores, or a power of
exact ones. The last column of N is the sum of the weights.

Features are those of a symmetric square, r (r + 1) / 2 of them. They have the tokens along the
last axis, so that they are products of whole rows, and so has N: on a CPU XLA makes a wide matrix
about twice as fast as the same as a tall one.

Axes: t blocks of b tokens, M = batch times heads of keys, G queries for each key, r outputs of the
sketch, R features, h the head size, D1 = D + 1 values with the column of ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from privlearn.attention.sketches import pairs


class Spec(NamedTuple):
    """What is fixed when the loop is compiled.

    Attributes
    ----------
    power : int
        Of the exact scores inside a block; 2 where they are sketched.
    packed : bool
        r (r + 1) / 2 features, or all r^2.
    """

    power: int
    packed: bool


class Blocks(NamedTuple):
    """Queries, keys and values cut into blocks.

    Attributes
    ----------
    yq : Array, shape (t, M, r, G b)
        Sketched queries; query g of token i at place ``g b + i``.
    yk : Array, shape (t, M, r, b)
        Sketched keys.
    v1 : Array, shape (t, M, b, D1)
        Values and a 1; a row of zeros where there is no key.
    lq : Array, shape (t, M, G b, h), or None
        Queries of the exact tile; None for a sketched tile.
    lk : Array, shape (t, M, b, h), or None
    """

    yq: Array
    yk: Array
    v1: Array
    lq: Array | None
    lk: Array | None


class Runs(NamedTuple):
    """What tells documents apart, and which keys enter the state.

    Attributes
    ----------
    ids : Array of int32, shape (t, M, b), or None
        Document of each token.
    carried : Array of int32, shape (t, M), or None
        Document of the last token before the block.
    fold : Array, shape (t, M), or None
        0 where the keys of the block stay out of the state, else 1.
    """

    ids: Array | None = None
    carried: Array | None = None
    fold: Array | None = None


def products(y: Array, packed: bool, *, counted: bool = False) -> Array:
    """Features (..., R, n) of (..., r, n), times how often they count if ``counted``.

    One side of an inner product of features is counted, that of the queries.
    """
    r = y.shape[-2]
    if not packed:
        wide = y[..., :, None, :] * y[..., None, :, :]
        return wide.reshape(*y.shape[:-2], r * r, y.shape[-1])
    i, j, times = pairs(r)
    # Rows are picked whole; measured faster than slices and than products with selections.
    made = y[..., i, :] * y[..., j, :]
    return made * jnp.asarray(times[:, None], y.dtype) if counted else made


def products_back(d_features: Array, y: Array, packed: bool, *, counted: bool = False) -> Array:
    """Cotangent (..., r, n) of y from that of its features."""
    r = y.shape[-2]
    if not packed:
        wide = d_features.reshape(*y.shape[:-2], r, r, y.shape[-1])
        return jnp.sum(wide * y[..., None, :, :], -2) + jnp.sum(wide * y[..., :, None, :], -3)
    # Features of one distance around the circle are slices of y times slices of y: their
    # cotangents are too. Measured four times as fast as a product with zeros and ones.
    twice = jnp.concatenate([y, y], -2)
    total = jnp.zeros_like(y)
    for distance in range(1, r // 2 + 1):
        piece = d_features[..., distance * r : (distance + 1) * r, :]
        short = r - piece.shape[-2]  # of an even circle the last distance has half as many pairs
        if short:
            piece = jnp.pad(piece, ((0, 0),) * (y.ndim - 2) + ((0, short), (0, 0)))
        other = piece * y
        total = total + piece * twice[..., distance : distance + r, :]
        total = total + jnp.concatenate([other[..., -distance:, :], other[..., :-distance, :]], -2)
    return 2 * d_features[..., :r, :] * y + (2 * total if counted else total)


def tile_scores(x: Blocks) -> Array:
    """Scores of a block with itself, keys times queries, (M, b, G b)."""
    if x.lq is None:
        return jnp.einsum("mrk,mrq->mkq", x.yk, x.yq)
    return jnp.einsum("mkh,mqh->mkq", x.lk, x.lq)


def tile_seen(x: Blocks, runs: Runs) -> Array:
    """Which keys of its block a query sees, (1 or M, b, G b): not later, same document."""
    block, group = x.yk.shape[-1], x.yq.shape[-1] // x.yk.shape[-1]
    seen = jnp.asarray(np.tile(np.tri(block, dtype=bool).T, (1, group)))[None]
    if runs.ids is not None:
        seen = seen & (runs.ids[:, :, None] == jnp.tile(runs.ids, (1, group))[:, None, :])
    return seen


def _entering(runs: Runs, dtype: jnp.dtype) -> Array | None:
    """1 for keys that enter the state: of the block's last document, of a folded block."""
    found = None
    if runs.ids is not None:
        found = (runs.ids == runs.ids[:, -1:]).astype(dtype)[..., None]
    if runs.fold is None:
        return found
    fold = runs.fold.astype(dtype)[:, None, None]
    return fold if found is None else found * fold


def far_queries(x: Blocks, runs: Runs) -> Array | None:
    """1 for queries that belong to the document of the state, else 0, (M, 1, G b); None: all do."""
    if runs.ids is None or runs.carried is None:
        return None
    group = x.yq.shape[-1] // x.yk.shape[-1]
    same = (runs.ids == runs.carried[:, None]).astype(x.v1.dtype)
    return jnp.tile(same, (1, group))[:, None]


def kept(runs: Runs, dtype: jnp.dtype) -> Array | None:
    """1 where the document of the state goes on behind the block, (M, 1, 1); None: always."""
    if runs.ids is None or runs.carried is None:
        return None
    return (runs.ids[:, -1] == runs.carried).astype(dtype)[:, None, None]


def _times(x: Array, factor: Array | None) -> Array:
    return x if factor is None else x * factor


def contribution(spec: Spec, x: Blocks, runs: Runs) -> Array:
    """What a block adds to the state, (M, R, D1)."""
    rows = _times(x.v1, _entering(runs, x.v1.dtype))
    return jnp.einsum("mrk,mkd->mrd", products(x.yk, spec.packed), rows)


def advance(spec: Spec, x: Blocks, runs: Runs, z: Array) -> Array:
    """The state after a block."""
    return _times(z, kept(runs, z.dtype)) + contribution(spec, x, runs)


def output(spec: Spec, x: Blocks, runs: Runs, z: Array) -> Array:
    """Sums of values and of weights of a block, (M, D1, G b), given the state before it."""
    far = jnp.einsum("mrd,mrq->mdq", z, products(x.yq, spec.packed, counted=True))
    # Masked before the power: no gradient then meets a large number that does not count.
    scores = jnp.where(tile_seen(x, runs), tile_scores(x), 0)
    near = jnp.einsum("mkd,mkq->mdq", x.v1, jax.lax.integer_pow(scores, spec.power))
    return _times(far, far_queries(x, runs)) + near


def co_contribution(spec: Spec, x: Blocks, runs: Runs, dn: Array) -> Array:
    """What a block adds to the cotangent of the state before it, (M, R, D1)."""
    dn = _times(dn, far_queries(x, runs))
    return jnp.einsum("mrq,mdq->mrd", products(x.yq, spec.packed, counted=True), dn)


def gradients(spec: Spec, x: Blocks, runs: Runs, z: Array, dz: Array, dn: Array) -> Blocks:
    """Cotangents of a block.

    Parameters
    ----------
    z : Array, shape (M, R, D1)
        The state before the block.
    dz : Array, shape (M, R, D1)
        Cotangent of the state after it.
    dn : Array, shape (M, D1, G b)
        Cotangent of the sums.
    """
    scores = jnp.where(tile_seen(x, runs), tile_scores(x), 0)
    d_weights = jnp.einsum("mkd,mdq->mkq", x.v1, dn)
    d_scores = spec.power * jax.lax.integer_pow(scores, spec.power - 1) * d_weights
    dv1 = jnp.einsum("mdq,mkq->mdk", dn, jax.lax.integer_pow(scores, spec.power))

    into = _entering(runs, x.v1.dtype)
    d_looking = jnp.einsum("mrd,mdq->mrq", z, _times(dn, far_queries(x, runs)))
    d_entering = jnp.einsum("mrd,mkd->mrk", dz, _times(x.v1, into))
    through = jnp.einsum("mrd,mrk->mdk", dz, products(x.yk, spec.packed))
    dyq = products_back(d_looking, x.yq, spec.packed, counted=True)
    dyk = products_back(d_entering, x.yk, spec.packed)
    dv1 = jnp.swapaxes(dv1, 1, 2) + _times(jnp.swapaxes(through, 1, 2), into)
    if x.lq is None or x.lk is None:
        dyq = dyq + jnp.einsum("mrk,mkq->mrq", x.yk, d_scores)
        dyk = dyk + jnp.einsum("mrq,mkq->mrk", x.yq, d_scores)
        return Blocks(dyq, dyk, dv1, None, None)
    dlq = jnp.einsum("mkq,mkh->mqh", d_scores, x.lk)
    dlk = jnp.einsum("mkq,mqh->mkh", d_scores, x.lq)
    return Blocks(dyq, dyk, dv1, dlq, dlk)


#: Blocks times heads of keys that go through one turn of the loop: enough work for all cores, and
#: little enough memory that features stay in the cache.
TOGETHER = 4


def _grouped(x: Any, turns: int) -> Any:
    """(t, ...) -> (turns, t / turns, ...), with zeros behind the last block."""

    def group(leaf: Array) -> Array:
        t = len(leaf)
        each = -(-t // turns)
        leaf = jnp.pad(leaf, ((0, turns * each - t),) + ((0, 0),) * (leaf.ndim - 1))
        return leaf.reshape(turns, each, *leaf.shape[1:])

    return jax.tree.map(group, x)


def _flat(x: Any) -> Any:
    """Blocks side by side as if they were heads: (c, M, ...) -> (c M, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), x)


def _prefix(z: Array, added: Array, keep: Array | None) -> tuple[Array, Array]:
    """State before each of c blocks, (c M, R, D1) as `added`, and behind the last, (M, R, D1)."""
    m = len(z)
    added = added.reshape(-1, *z.shape)
    keep = None if keep is None else keep.reshape(-1, m, 1, 1)
    before = []
    for i in range(len(added)):
        before.append(z)
        z = (z if keep is None else keep[i] * z) + added[i]
    return jnp.concatenate(before), z


def causal(spec: Spec, blocks: Blocks, runs: Runs, z: Array) -> tuple[Array, Array]:
    """Sums (t, M, D1, G b) of all blocks, and the state after the last.

    Parameters
    ----------
    spec : Spec
    blocks : Blocks
    runs : Runs
    z : Array, shape (M, R, D1)
        The state before the first block.

    Notes
    -----
    A few blocks at a time: what each adds to the state, a sum over those before it, and then the
    outputs, all as products of a batch. One block at a time would leave cores without work.

    The gradient is not that of the loop: the backward pass keeps the state before each block, goes
    through the blocks from the last to the first with the cotangent of the state, and computes
    features and tiles again.
    """
    t, m = blocks.yk.shape[:2]
    turns = -(-t // max(1, TOGETHER // m))
    sums, z = _loop(spec, _grouped(blocks, turns), _grouped(runs, turns), z)
    return sums.reshape(-1, m, *sums.shape[2:])[:t], z


def _turn(spec: Spec, z: Array, part: tuple[Blocks, Runs]) -> tuple[Array, tuple[Array, Array]]:
    """State behind c blocks, their sums (c M, D1, G b), and the state before each (c M, R, D1)."""
    x, run = _flat(part[0]), _flat(part[1])
    before, z = _prefix(z, contribution(spec, x, run), kept(run, z.dtype))
    return z, (output(spec, x, run, before), before)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loop(spec: Spec, blocks: Blocks, runs: Runs, z: Array) -> tuple[Array, Array]:
    """The loop over turns of c blocks each: arrays (turns, c, M, ...), z (M, R, D1)."""

    def step(z: Array, part: tuple[Blocks, Runs]) -> tuple[Array, Array]:
        z, (sums, _) = _turn(spec, z, part)
        return z, sums

    z, sums = jax.lax.scan(step, z, (blocks, runs))
    return sums, z


def _loop_forward(spec: Spec, blocks: Blocks, runs: Runs, z: Array):
    z, (sums, states) = jax.lax.scan(partial(_turn, spec), z, (blocks, runs))
    return (sums, z), (blocks, runs, states)


def _loop_backward(spec: Spec, saved, cotangents):
    blocks, runs, states = saved
    d_sums, dz = cotangents

    def step(dz: Array, part: tuple[Blocks, Runs, Array, Array]) -> tuple[Array, Blocks]:
        x, run, (z, dn) = _flat(part[0]), _flat(part[1]), part[2:]
        added, keep, m = co_contribution(spec, x, run, dn), kept(run, dz.dtype), len(dz)
        behind, dz = _prefix(dz, _turned(added, m), None if keep is None else _turned(keep, m))
        found = gradients(spec, x, run, z, _turned(behind, m), dn)
        return dz, jax.tree.map(lambda leaf: leaf.reshape(-1, m, *leaf.shape[1:]), found)

    dz, d_blocks = jax.lax.scan(step, dz, (blocks, runs, states, d_sums), reverse=True)
    return d_blocks, Runs(), dz


def _turned(x: Array, m: int) -> Array:
    """The last block first: (c M, ...)."""
    return x.reshape(-1, m, *x.shape[1:])[::-1].reshape(x.shape)


_loop.defvjp(_loop_forward, _loop_backward)


def everywhere(spec: Spec, blocks: Blocks) -> Array:
    """Sums of the form that is not causal, (tq, M, D1, G b): each query sees all keys.

    Blocks of queries and of keys may differ in number. With exact tiles, block i of the queries
    sees block i of the keys exactly and all others sketched (our extension of the paper's causal
    form): the sketched weights of the tile are taken out of the sum over all keys.
    """
    z0 = jnp.zeros_like(contribution(spec, jax.tree.map(lambda a: a[0], blocks), Runs()))

    @jax.checkpoint
    def add(z: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        yk, v1 = part
        return advance(spec, Blocks(yk, yk, v1, None, None), Runs(), z), None

    z, _ = jax.lax.scan(add, z0, (blocks.yk, blocks.v1))

    @jax.checkpoint
    def look(part: Blocks) -> Array:
        far = jnp.einsum("mrd,mrq->mdq", z, products(part.yq, spec.packed, counted=True))
        if part.lq is None:
            return far
        sketched = jnp.einsum("mrk,mrq->mkq", part.yk, part.yq)
        exact = jax.lax.integer_pow(tile_scores(part), spec.power)
        return far + jnp.einsum("mkd,mkq->mdq", part.v1, exact - sketched * sketched)

    if blocks.lq is None:
        # Keys are out of the loop over queries, of which there may be another number.
        return jax.lax.map(lambda yq: look(Blocks(yq, yq, yq, None, None)), blocks.yq)
    return jax.lax.map(look, blocks)
