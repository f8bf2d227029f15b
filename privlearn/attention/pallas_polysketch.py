"""The causal form in two passes, all blocks at once, with the heavy steps as Pallas kernels.

A loop over blocks leaves a GPU idle when there are few rows and heads. Here

1. a kernel computes what every block adds to the state,
2. a prefix sum over blocks gives the state before each,
3. a kernel computes the sums of every block from its state;

and backwards the same with the cotangent of the state and a prefix sum from the end. A program of
a kernel is one block of one head. The n features of a block never leave the kernel.

Features are made by two small matrix products with matrices of zeros and ones: kernels on a GPU
have no gather, and the products run on its matrix units. Sizes must suit the device; here they are
padded to multiples of 16. Where there is no GPU the kernels are interpreted, which is for tests.
The kernels have been run in interpret mode only: nothing is claimed of their speed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl

from privlearn.attention.blocks import Blocks, Runs, Spec
from privlearn.attention.sketches import pairs

_TILE = 16


def _interpret() -> bool:
    return jax.default_backend() != "gpu"


def selectors(r: int, packed: bool, dtype: Any) -> tuple[Array, Array, Array]:
    """Matrices that pick y_i and y_j of each feature, (R', r), and its count (R', 1).

    R' is the number of features rounded up; the rows added count 0 times.
    """
    if packed:
        i, j, times = pairs(r)
    else:
        i, j = (x.ravel() for x in np.divmod(np.arange(r * r), r))
        times = np.ones(r * r)
    n = -(-len(i) // _TILE) * _TILE
    one, two, count = np.zeros((n, r)), np.zeros((n, r)), np.zeros((n, 1))
    rows = np.arange(len(i))
    one[rows, i], two[rows, j], count[rows, 0] = 1, 1, times
    return tuple(jnp.asarray(x, dtype) for x in (one, two, count))  # type: ignore[return-value]


def _dot(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Contract one axis of each of two matrices; sums in the precision of the inputs."""
    return jax.lax.dot_general(
        a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=a.dtype
    )


def _features(one: Array, two: Array, y: Array) -> Array:
    return _dot(one, y, (1, 0)) * _dot(two, y, (1, 0))


def _features_back(one: Array, two: Array, y: Array, d_features: Array) -> Array:
    first = _dot(one, d_features * _dot(two, y, (1, 0)), (0, 0))
    return first + _dot(two, d_features * _dot(one, y, (1, 0)), (0, 0))


def _add_kernel(one, two, yk, rows, out):
    """What a block adds to the state."""
    out[...] = _dot(_features(one[...], two[...], yk[...]), rows[...], (1, 0))


def _add_back_kernel(one, two, count, yq, dn, out):
    """What a block adds to the cotangent of the state before it."""
    looking = _features(one[...], two[...], yq[...]) * count[...]
    out[...] = _dot(looking, dn[...], (1, 0))


def _scores(yq, yk, lq, lk, seen):
    scores = _dot(yq[...], yk[...], (0, 0)) if lq is None else _dot(lq[...], lk[...], (1, 1))
    return jnp.where(seen[...] != 0, scores, 0)


def _output_kernel(power, exact, one, two, count, yq, yk, v1, seen, mine, z, *rest):
    """Sums of a block from the state before it."""
    lq, lk, out = rest if exact else (None, None, *rest)
    looking = _features(one[...], two[...], yq[...])
    far = _dot(looking, z[...] * count[...], (0, 0)) * mine[...]
    weights = jax.lax.integer_pow(_scores(yq, yk, lq, lk, seen), power)
    out[...] = far + _dot(weights, v1[...], (1, 0))


def _gradient_kernel(power, exact, one, two, count, yq, yk, v1, seen, mine, into, z, dz, dn, *rest):
    """Cotangents of a block; the same formulas as `privlearn.attention.blocks.gradients`."""
    if exact:
        lq, lk, dyq, dyk, dv1, dlq, dlk = rest
    else:
        lq, lk = None, None
        dyq, dyk, dv1 = rest
    first, second, times = one[...], two[...], count[...]
    scores = _scores(yq, yk, lq, lk, seen)
    d_weights = _dot(dn[...], v1[...], (1, 1))
    d_scores = power * jax.lax.integer_pow(scores, power - 1) * d_weights
    far = dn[...] * mine[...]
    d_looking = _dot(z[...] * times, far, (1, 1))
    d_entering = _dot(dz[...], v1[...] * into[...], (1, 1))
    gq = _features_back(first, second, yq[...], d_looking)
    gk = _features_back(first, second, yk[...], d_entering)
    through = _dot(_features(first, second, yk[...]), dz[...], (0, 0))
    tile = _dot(jax.lax.integer_pow(scores, power), dn[...], (0, 0))
    dv1[...] = tile + through * into[...]
    if exact:
        dyq[...], dyk[...] = gq, gk
        dlq[...] = _dot(d_scores, lk[...], (1, 0))
        dlk[...] = _dot(d_scores, lq[...], (0, 0))
    else:
        dyq[...] = gq + _dot(yk[...], d_scores, (1, 1))
        dyk[...] = gk + _dot(yq[...], d_scores, (1, 0))


def _call(
    kernel: Callable[..., None], shared: tuple[Array, ...], parts: tuple[Array, ...], outs: Any
) -> Any:
    """Run a kernel once for each block of each head.

    ``shared`` are whole matrices, ``parts`` have two leading axes (t, M), ``outs`` are the shapes
    of what a block gives.
    """
    t, m = parts[0].shape[:2]
    dtype = parts[0].dtype

    def whole(x: Array) -> pl.BlockSpec:
        zeros = (0,) * x.ndim
        return pl.BlockSpec(x.shape, lambda i, j: zeros)

    def own(shape: tuple[int, ...]) -> pl.BlockSpec:
        zeros = (0,) * len(shape)
        return pl.BlockSpec((None, None, *shape), lambda i, j: (i, j, *zeros))

    return pl.pallas_call(
        kernel,
        grid=(t, m),
        in_specs=[*(whole(x) for x in shared), *(own(x.shape[2:]) for x in parts)],
        out_specs=[own(shape) for shape in outs],
        out_shape=[jax.ShapeDtypeStruct((t, m, *shape), dtype) for shape in outs],
        interpret=_interpret(),
    )(*shared, *parts)


def _tables(blocks: Blocks, runs: Runs) -> tuple[Array, Array, Array, Array]:
    """What is seen in each tile, which queries see the state, which keys enter it, what is kept."""
    t, m, _, block = blocks.yk.shape
    group, dtype = blocks.yq.shape[-1] // block, blocks.yk.dtype
    seen = jnp.asarray(np.tile(np.tri(block), (group, 1)), dtype)[None, None]
    mine = jnp.ones((t, m, group * block, 1), dtype)
    into = jnp.ones((t, m, block, 1), dtype)
    keep = jnp.ones((t, m, 1, 1), dtype)
    if runs.ids is not None and runs.carried is not None:
        rows = jnp.tile(runs.ids, (1, 1, group))
        seen = seen * (rows[..., :, None] == runs.ids[..., None, :])
        mine = (rows == runs.carried[..., None]).astype(dtype)[..., None]
        into = (runs.ids == runs.ids[..., -1:]).astype(dtype)[..., None]
        keep = (runs.ids[..., -1] == runs.carried).astype(dtype)[..., None, None]
    if runs.fold is not None:
        into = into * runs.fold[:, :, None, None]
    seen = jnp.broadcast_to(seen, (t, m, *seen.shape[2:]))
    return seen, mine, into, keep


def _states(keep: Array, added: Array, first: Array) -> tuple[Array, Array]:
    """State before each block, and behind the last: a prefix sum that a new document restarts."""

    def join(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] * b[0], a[1] * b[0] + b[1]

    kept, sums = jax.lax.associative_scan(join, (keep, added))
    after = kept * first + sums
    return jnp.concatenate([first[None], after[:-1]]), after[-1]


def causal_in_two_passes(spec: Spec, blocks: Blocks, runs: Runs, z: Array) -> tuple[Array, Array]:
    """The same sums and state as `privlearn.attention.blocks.causal`, all blocks at once."""
    sums, z = _two_passes(spec, blocks, runs, z)
    return jnp.swapaxes(sums, 2, 3), z  # the kernels write sums token after token


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _two_passes(spec: Spec, blocks: Blocks, runs: Runs, z: Array) -> tuple[Array, Array]:
    return _forward(spec, blocks, runs, z)[0]


def _forward(spec: Spec, blocks: Blocks, runs: Runs, z: Array):
    r, dtype = blocks.yk.shape[2], blocks.yk.dtype
    one, two, count = selectors(r, spec.packed, dtype)
    seen, mine, into, keep = _tables(blocks, runs)
    depth, n_features = blocks.v1.shape[3], z.shape[1]
    padded = jnp.pad(z, ((0, 0), (0, len(one) - n_features), (0, 0)))
    (added,) = _call(_add_kernel, (one, two), (blocks.yk, blocks.v1 * into), [(len(one), depth)])
    states, last = _states(keep, added, padded)
    exact = blocks.lq is not None
    parts = (blocks.yq, blocks.yk, blocks.v1, seen, mine, states)
    (sums,) = _call(
        partial(_output_kernel, spec.power, exact),
        (one, two, count),
        (*parts, *_local(blocks)),
        [(blocks.yq.shape[3], depth)],
    )
    return (sums, last[:, :n_features]), (blocks, runs, states)


def _local(blocks: Blocks) -> tuple[Array, ...]:
    return () if blocks.lq is None or blocks.lk is None else (blocks.lq, blocks.lk)


def _backward(spec: Spec, saved, cotangents):
    blocks, runs, states = saved
    dn, dz = cotangents
    one, two, count = selectors(blocks.yk.shape[2], spec.packed, blocks.yk.dtype)
    seen, mine, into, keep = _tables(blocks, runs)
    n_features, depth = dz.shape[1], dn.shape[3]
    last = jnp.pad(dz, ((0, 0), (0, len(one) - n_features), (0, 0)))
    (added,) = _call(
        _add_back_kernel, (one, two, count), (blocks.yq, dn * mine), [(len(one), depth)]
    )
    # From the end: cotangent of the state behind each block, and of the first state.
    behind, first = _states(keep[::-1], added[::-1], last)
    behind = behind[::-1]
    local = _local(blocks)
    outs = [x.shape[2:] for x in (blocks.yq, blocks.yk, blocks.v1, *local)]
    parts = (blocks.yq, blocks.yk, blocks.v1, seen, mine, into, states, behind, dn)
    found = _call(
        partial(_gradient_kernel, spec.power, bool(local)),
        (one, two, count),
        (*parts, *local),
        outs,
    )
    d_blocks = Blocks(*found[:3], *(found[3:] if local else (None, None)))
    return d_blocks, Runs(), first[:, :n_features]


_two_passes.defvjp(_forward, _backward)
