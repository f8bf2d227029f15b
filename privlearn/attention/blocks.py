"""Block lower-triangular multiplication: causal sums over weights, linear in time and memory.

Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655), section 3: with features ``f`` of a key,
``weight = f(y_q) . f(y_k)``, a block of b tokens looks at all earlier blocks through one matrix

    Z = sum over earlier keys of f(y_k) [v, 1]^T,      N = f(Y_q) Z + tril(weights) [V, 1],

and at itself through a b times b tile of weights: the square of sketched scores, or a power of
exact ones. The last column of N is the sum of the weights.

Features are those of a symmetric square, r (r + 1) / 2 of them, and are kept with the tokens along
the last axis: their construction is then a product of whole rows.

Axes: t blocks of b tokens, M = batch times heads of keys, G queries for each key, r outputs of the
sketch, R features, h the head size, D1 = D + 1 values with the column of ones.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

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
    fold : Array, shape (t,), or None
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
    i, j, times = pairs(r)
    # To y_i from y_j and back, summed by a product with zeros and ones: as fast as no sum at all.
    weights = times[:, None] if counted else 1.0
    to_i, to_j = (jnp.asarray(np.eye(r)[side] * weights, y.dtype) for side in (i, j))
    first = jnp.einsum("fr,...fn->...rn", to_i, d_features * y[..., j, :])
    return first + jnp.einsum("fr,...fn->...rn", to_j, d_features * y[..., i, :])


def tile_scores(x: Blocks) -> Array:
    """Scores of a block with itself, (M, G b, b)."""
    if x.lq is None:
        return jnp.einsum("mrq,mrk->mqk", x.yq, x.yk)
    return jnp.einsum("mqh,mkh->mqk", x.lq, x.lk)


def tile_seen(x: Blocks, runs: Runs) -> Array:
    """Which keys of its block a query sees, (1 or M, G b, b): not later, same document."""
    block, group = x.yk.shape[-1], x.yq.shape[-1] // x.yk.shape[-1]
    seen = jnp.asarray(np.tile(np.tri(block, dtype=bool), (group, 1)))[None]
    if runs.ids is not None:
        seen = seen & (jnp.tile(runs.ids, (1, group))[:, :, None] == runs.ids[:, None, :])
    return seen


def entering(x: Blocks, runs: Runs) -> Array:
    """Rows of [V, 1] that enter the state: of the block's last document, of a folded block."""
    v1 = x.v1
    if runs.ids is not None:
        v1 = v1 * (runs.ids == runs.ids[:, -1:])[..., None]
    return v1 if runs.fold is None else v1 * runs.fold


def far_queries(x: Blocks, runs: Runs) -> Array | None:
    """1 for queries that belong to the document of the state, else 0, (M, G b, 1); None: all do."""
    if runs.ids is None or runs.carried is None:
        return None
    group = x.yq.shape[-1] // x.yk.shape[-1]
    same = (runs.ids == runs.carried[:, None]).astype(x.v1.dtype)
    return jnp.tile(same, (1, group))[..., None]


def kept(runs: Runs, dtype: jnp.dtype) -> Array | None:
    """1 where the document of the state goes on behind the block, (M, 1, 1); None: always."""
    if runs.ids is None or runs.carried is None:
        return None
    return (runs.ids[:, -1] == runs.carried).astype(dtype)[:, None, None]


def contribution(spec: Spec, x: Blocks, runs: Runs) -> Array:
    """What a block adds to the state, (M, R, D1)."""
    return jnp.einsum("mrk,mkd->mrd", products(x.yk, spec.packed), entering(x, runs))


def output(spec: Spec, x: Blocks, runs: Runs, z: Array) -> Array:
    """Sums of values and of weights of a block, (M, G b, D1), given the state before it."""
    far = jnp.einsum("mrq,mrd->mqd", products(x.yq, spec.packed, counted=True), z)
    mine = far_queries(x, runs)
    far = far if mine is None else far * mine
    # Masked before the power: no gradient then meets a large number that does not count.
    scores = jnp.where(tile_seen(x, runs), tile_scores(x), 0)
    return far + jnp.einsum("mqk,mkd->mqd", jax.lax.integer_pow(scores, spec.power), x.v1)


def co_contribution(spec: Spec, x: Blocks, runs: Runs, dn: Array) -> Array:
    """What a block adds to the cotangent of the state before it, (M, R, D1)."""
    mine = far_queries(x, runs)
    dn = dn if mine is None else dn * mine
    return jnp.einsum("mrq,mqd->mrd", products(x.yq, spec.packed, counted=True), dn)


def gradients(spec: Spec, x: Blocks, runs: Runs, z: Array, dz: Array, dn: Array) -> Blocks:
    """Cotangents of a block.

    Parameters
    ----------
    z : Array, shape (M, R, D1)
        The state before the block.
    dz : Array, shape (M, R, D1)
        Cotangent of the state after it.
    dn : Array, shape (M, G b, D1)
        Cotangent of the sums.
    """
    seen = tile_seen(x, runs)
    scores = jnp.where(seen, tile_scores(x), 0)
    d_weights = jnp.einsum("mqd,mkd->mqk", dn, x.v1)
    d_scores = spec.power * jax.lax.integer_pow(scores, spec.power - 1) * d_weights
    dv1 = jnp.einsum("mqk,mqd->mkd", jax.lax.integer_pow(scores, spec.power), dn)

    mine, rows = far_queries(x, runs), entering(x, runs)
    far = dn if mine is None else dn * mine
    d_looking = jnp.einsum("mrd,mqd->mrq", z, far)
    dyq = products_back(d_looking, x.yq, spec.packed, counted=True)
    dyk = products_back(jnp.einsum("mrd,mkd->mrk", dz, rows), x.yk, spec.packed)
    through = jnp.einsum("mrk,mrd->mkd", products(x.yk, spec.packed), dz)
    if runs.ids is not None:
        through = through * (runs.ids == runs.ids[:, -1:])[..., None]
    dv1 = dv1 + (through if runs.fold is None else through * runs.fold)
    if x.lq is None or x.lk is None:
        dyq = dyq + jnp.einsum("mrk,mqk->mrq", x.yk, d_scores)
        dyk = dyk + jnp.einsum("mrq,mqk->mrk", x.yq, d_scores)
        return Blocks(dyq, dyk, dv1, None, None)
    dlq = jnp.einsum("mqk,mkh->mqh", d_scores, x.lk)
    dlk = jnp.einsum("mqk,mqh->mkh", d_scores, x.lq)
    return Blocks(dyq, dyk, dv1, dlq, dlk)


def advance(spec: Spec, x: Blocks, runs: Runs, z: Array) -> Array:
    """The state after a block."""
    keep = kept(runs, z.dtype)
    return (z if keep is None else keep * z) + contribution(spec, x, runs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def causal(spec: Spec, blocks: Blocks, runs: Runs, z: Array) -> tuple[Array, Array]:
    """Sums (t, M, G b, D1) of all blocks one after the other, and the state after the last.

    Parameters
    ----------
    spec : Spec
    blocks : Blocks
    runs : Runs
    z : Array, shape (M, R, D1)
        The state before the first block.

    Notes
    -----
    The gradient is not that of the loop: the backward pass keeps the state before each block, goes
    through the blocks from the last to the first with the cotangent of the state, and computes
    features and tiles again.
    """

    def step(z: Array, part: tuple[Blocks, Runs]) -> tuple[Array, Array]:
        return advance(spec, *part, z), output(spec, *part, z)

    z, sums = jax.lax.scan(step, z, (blocks, runs))
    return sums, z


def _causal_forward(spec: Spec, blocks: Blocks, runs: Runs, z: Array):
    def step(z: Array, part: tuple[Blocks, Runs]) -> tuple[Array, tuple[Array, Array]]:
        return advance(spec, *part, z), (output(spec, *part, z), z)

    z, (sums, states) = jax.lax.scan(step, z, (blocks, runs))
    return (sums, z), (blocks, runs, states)


def _causal_backward(spec: Spec, saved, cotangents):
    blocks, runs, states = saved
    d_sums, dz = cotangents

    def step(dz: Array, part):
        x, run, z, dn = part
        found = gradients(spec, x, run, z, dz, dn)
        keep = kept(run, dz.dtype)
        back = (dz if keep is None else keep * dz) + co_contribution(spec, x, run, dn)
        return back, found

    dz, d_blocks = jax.lax.scan(step, dz, (blocks, runs, states, d_sums), reverse=True)
    return d_blocks, Runs(), dz


causal.defvjp(_causal_forward, _causal_backward)


def everywhere(spec: Spec, blocks: Blocks) -> Array:
    """Sums of the form that is not causal, (tq, M, G b, D1): each query sees all keys.

    Blocks of queries and of keys may differ in number. With exact tiles, block i of the queries
    sees block i of the keys exactly and all others sketched (our extension of the paper's causal
    form): the sketched weights of the tile are taken out of the sum over all keys.
    """
    z0 = jnp.zeros_like(contribution(spec, jax.tree.map(lambda a: a[0], blocks), Runs()))

    @jax.checkpoint
    def add(z: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        yk, v1 = part
        return z + jnp.einsum("mrk,mkd->mrd", products(yk, spec.packed), v1), None

    z, _ = jax.lax.scan(add, z0, (blocks.yk, blocks.v1))

    @jax.checkpoint
    def look(part: Blocks) -> Array:
        far = jnp.einsum("mrq,mrd->mqd", products(part.yq, spec.packed, counted=True), z)
        if part.lq is None:
            return far
        sketched = jnp.einsum("mrq,mrk->mqk", part.yq, part.yk)
        exact = jax.lax.integer_pow(tile_scores(part), spec.power)
        return far + jnp.einsum("mqk,mkd->mqd", exact - sketched * sketched, part.v1)

    if blocks.lq is None:
        # Keys are out of the loop over queries, of which there may be another number.
        return jax.lax.map(lambda yq: look(Blocks(yq, yq, yq, None, None)), blocks.yq)
    return jax.lax.map(look, blocks)
