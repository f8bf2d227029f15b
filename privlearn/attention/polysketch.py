"""Polysketch attention: polynomial attention through a sketch, linear in time and memory.

Kacham, Mirrokni and Zhong, "PolySketchFormer: Fast Transformers via Sketching Polynomial Kernels",
ICML 2024, arXiv 2310.01655. The weight of a key is the square of the inner product of two sketches
(`privlearn.attention.sketches`), computed exactly for keys of the query's own block if
``local_exact``. It is another attention than softmax: a model must be trained with it.

Here and not in the authors' code: features at half their number (symmetry), any length, masks,
packed documents, grouped heads, a state for decoding, and a backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.attention.arguments import (
    Implementation,
    Inputs,
    check_inputs,
    check_whole,
    choose_implementation,
)
from privlearn.attention.blocks import Blocks, Runs, Spec, causal, everywhere
from privlearn.attention.decoding import PolysketchState, check_state, scaled_keys, sketched
from privlearn.attention.polynomial import scaled_heads
from privlearn.attention.sketches import Sketch, check_sketch


def polysketch_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    sketch: Sketch | None = None,
    degree: int | None = None,
    scale: float | None = None,
    normalize: bool = True,
    is_causal: bool = False,
    block: int = 256,
    local_exact: bool = True,
    packed: bool = True,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    initial_state: PolysketchState | None = None,
    return_state: bool = False,
    impl: Implementation = "auto",
) -> Any:
    """Polynomial attention of an even degree through a sketch; O(n) time and memory.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
        K divides N.
    value : array, shape (B, S, K, D) or (S, K, D)
    sketch : Sketch, optional
        From `init_sketch`. None is degree 2, which is exact: the "sketch" of degree 1 is x itself.
    degree : int, optional
        Only checked against the sketch, so that a mix-up is found.
    scale : float, optional
        Multiplies inner products before the power; 1 / sqrt(H) if ``normalize``, else 1. A learned
        sketch has its own norms: the scale has effect on exact blocks only.
    normalize : bool, default True
        Pass queries and keys through `normalize_heads` (layer normalisation without gain or bias).
    is_causal : bool, default False
        Needs S = T.
    block : int, default 256
        Tokens computed together; at most the length is used. Without exact blocks it only changes
        the time. With them it changes the result: blocks are fixed, not sliding.
    local_exact : bool, default True
        Exact polynomial weights for keys of the query's own block, as in the paper's best models.
        Without `is_causal` this is our extension, and needs S = T.
    packed : bool, default True
        r (r + 1) / 2 features; False takes all r^2, at twice the cost, to compare.
    key_mask : array of bool, shape (B, S), optional
        True where a key exists. Masked keys have no effect, whatever they hold.
    segment_ids : array of int, shape (B, T), optional
        Documents packed into one row, causal only. Each run of equal ids sees only itself. Without
        exact blocks a packed document comes out as if alone; with them only if it begins at a
        multiple of ``block`` (see `pad_to_block`), because the blocks are those of the row.
    initial_state : PolysketchState, optional
        What an earlier part of the text left; causal only, not with segments.
    return_state : bool, default False
        Whether to return the state too; causal only. With segments it is that of the last one.
    impl : {"auto", "xla", "pallas"}
        "auto" is "xla", a loop over blocks. "pallas" is a form in two passes, all blocks at once,
        for GPUs; elsewhere its kernels are interpreted, slowly.

    Returns
    -------
    out : Array, shape (B, T, N, D) or (T, N, D)
        In the dtype of the query, computed in at least float32 (so that float16 inputs do not
        overflow inside). Zeros where a query sees no key.
    state : PolysketchState
        If ``return_state``.

    Raises
    ------
    ValueError
        For shapes, sketch, degree or options that do not fit together.
    TypeError
        For dtypes that do not fit.

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import init_sketch, polysketch_attention
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 40, 2, 8))
    >>> sketch = init_sketch(jax.random.key(1), head_size=8, r=4)
    >>> polysketch_attention(q, k, v, sketch=sketch, is_causal=True, block=16).shape
    (1, 40, 2, 8)
    """
    degree = check_sketch(sketch, degree)
    inputs = check_inputs(
        query, key, value, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids
    )
    with_state = return_state or initial_state is not None
    _check_options(inputs, is_causal, local_exact, segment_ids, initial_state, with_state)
    block = check_whole("block", block, 1)
    if not (with_state and local_exact):
        block = min(block, max(inputs.query.shape[1], inputs.key.shape[1]))
    chosen = choose_implementation(impl)
    rows = _rows(inputs, sketch, normalize, scale, local_exact)
    spec = Spec(degree if local_exact else 2, packed)
    if not is_causal:
        if chosen == "pallas":
            raise ValueError("impl: 'pallas'; the kernels are causal, use 'xla' or is_causal=True")
        n_queries = inputs.query.shape[1]
        sums = everywhere(spec, _cut(rows, block))
        return inputs.restore(_divided(inputs, sums[: -(-n_queries // block)]))
    if initial_state is not None:
        r, depth = rows.yk.shape[3], inputs.value.shape[3]
        n_rows, _, n_kv_heads, width = inputs.key.shape
        shape = (n_rows, n_kv_heads, width, depth)
        check_state(initial_state, shape, r, block if local_exact else None)
    if with_state and not packed:
        raise ValueError("packed: False; states hold packed features, leave packed=True")
    out, state = _causal(
        inputs, rows, spec, block, initial_state, with_state, chosen,
        sketch=sketch, normalize=normalize, scale=scale,
    )  # fmt: skip
    out = inputs.restore(out)
    return (out, state) if return_state else out


def _check_options(
    inputs: Inputs,
    is_causal: bool,
    local_exact: bool,
    segment_ids: ArrayLike | None,
    initial_state: PolysketchState | None,
    with_state: bool,
) -> None:
    if not is_causal and segment_ids is not None:
        raise ValueError(
            "segment_ids: given without is_causal; packed documents need is_causal=True"
        )
    if not is_causal and with_state:
        raise ValueError("initial_state, return_state: a state needs is_causal=True")
    if initial_state is not None and segment_ids is not None:
        raise ValueError(
            "initial_state: given with segment_ids; a state belongs to one document, go on with "
            "that document alone"
        )
    if not is_causal and local_exact and inputs.query.shape[1] != inputs.key.shape[1]:
        raise ValueError(
            f"local_exact: {inputs.query.shape[1]} queries and {inputs.key.shape[1]} keys share no "
            "blocks; set local_exact=False"
        )


class _Rows(NamedTuple):
    """Sketched and exact queries and keys, token after token: (B, T, heads, size).

    Attributes
    ----------
    raw : Array, shape (B, T, K, H)
        Keys as they came, for the state.
    """

    yq: Array
    yk: Array
    v1: Array
    lq: Array | None
    lk: Array | None
    raw: Array


def _rows(
    inputs: Inputs, sketch: Sketch | None, normalize: bool, scale: float | None, local_exact: bool
) -> _Rows:
    lq, lk, v = scaled_heads(inputs, normalize=normalize, scale=scale)
    raw_q, raw_k = inputs.query.astype(v.dtype), inputs.key.astype(v.dtype)
    one = jnp.ones((*v.shape[:3], 1), v.dtype)
    if inputs.key_mask is not None:
        exists = inputs.key_mask[:, :, None, None]
        raw_k, one = jnp.where(exists, raw_k, 0), jnp.where(exists, one, 0)
    yq, yk = sketched(sketch, raw_q, lq), sketched(sketch, raw_k, lk)
    v1 = jnp.concatenate([v, one], axis=-1)
    return _Rows(yq, yk, v1, lq if local_exact else None, lk if local_exact else None, raw_k)


def _padded(x: Array, block: int) -> Array:
    """Zeros behind the last token, up to a whole number of blocks."""
    n = x.shape[1]
    return jnp.pad(x, ((0, 0), (0, -n % block)) + ((0, 0),) * (x.ndim - 2))


def _cut_queries(x: Array, n_kv_heads: int, block: int, *, last: bool) -> Array:
    """(B, T, N, F) -> (t, B K, F, G b) if the tokens come last, else (t, B K, G b, F)."""
    x = _padded(x, block)
    rows, n, heads, width = x.shape
    group = heads // n_kv_heads
    x = x.reshape(rows, n // block, block, n_kv_heads, group, width)
    x = x.transpose((1, 0, 3, 5, 4, 2) if last else (1, 0, 3, 4, 2, 5))
    tail = (width, group * block) if last else (group * block, width)
    return x.reshape(n // block, rows * n_kv_heads, *tail)


def _cut(rows: _Rows, block: int) -> Blocks:
    """Cut into blocks, grouped by heads of keys; what is padded has no key."""
    n_kv_heads = rows.yk.shape[2]

    def cut(x: Array, *, last: bool = False) -> Array:
        return _cut_queries(x, n_kv_heads, block, last=last)

    return Blocks(
        yq=cut(rows.yq, last=True),
        yk=cut(rows.yk, last=True),
        v1=cut(rows.v1),
        lq=None if rows.lq is None else cut(rows.lq),
        lk=None if rows.lk is None else cut(rows.lk),
    )


def _runs(inputs: Inputs, block: int, fold: Array | None) -> Runs:
    """Document ids of each block; a padded tail belongs to the last document."""
    if inputs.segments is None:
        return Runs(fold=fold)
    ids, n = inputs.segments, inputs.segments.shape[1]
    ids = jnp.pad(ids, ((0, 0), (0, -n % block)), mode="edge")
    ids = ids.reshape(len(ids), -1, block).swapaxes(0, 1)
    ids = jnp.repeat(ids, inputs.key.shape[2], axis=1)
    # Before the first block there is no document, and the state is zero.
    carried = jnp.concatenate([ids[:1, :, 0], ids[:-1, :, -1]])
    return Runs(ids, carried, fold)


def _divided(inputs: Inputs, sums: Array, first: ArrayLike = 0) -> Array:
    """Sums (t, B K, D1, G b) of all blocks -> outputs (B, T, N, D) from token `first` on."""
    rows, n, heads, _ = inputs.query.shape
    out = sums[:, :, :-1] / (1 + sums[:, :, -1:])
    t, _, depth, _ = out.shape
    group = inputs.group
    out = out.reshape(t, rows, heads // group, depth, group, -1).transpose(1, 0, 5, 2, 4, 3)
    out = out.reshape(rows, -1, heads, depth)
    return jax.lax.dynamic_slice_in_dim(out, first, n, axis=1).astype(inputs.query.dtype)


def _causal(
    inputs: Inputs,
    rows: _Rows,
    spec: Spec,
    block: int,
    initial: PolysketchState | None,
    with_state: bool,
    chosen: str,
    **how: Any,
) -> tuple[Array, PolysketchState | None]:
    """Outputs, and the state behind the last token; `how` is what makes rows of held keys."""
    n, mixed = inputs.query.shape[1], rows.lq is not None
    length = jnp.zeros((), jnp.int32) if initial is None else initial.length
    held: Any = 0  # tokens of the block under way
    fold = None
    if mixed and with_state:
        if initial is not None:
            held = length % block
            rows = _behind(rows, initial, held, **how)
        n_blocks = -(-rows.yk.shape[1] // block)
        full = (jnp.arange(n_blocks) + 1) * block <= held + n
        n_rows, _, n_kv_heads, _ = rows.yk.shape
        fold = jnp.tile(full.astype(rows.v1.dtype)[:, None], (1, n_rows * n_kv_heads))
    blocks, runs = _cut(rows, block), _runs(inputs, block, fold)
    r, depth = blocks.yk.shape[2], blocks.v1.shape[3]
    n_features = r * (r + 1) // 2 if spec.packed else r * r
    shape = (blocks.yk.shape[1], n_features, depth)
    z = jnp.zeros(shape, blocks.v1.dtype)
    if initial is not None:
        z = initial.memory.reshape(shape).astype(blocks.v1.dtype)
    if chosen == "pallas":
        from privlearn.attention.pallas_polysketch import causal_in_two_passes

        sums, z = causal_in_two_passes(spec, blocks, runs, z)
    else:
        sums, z = causal(spec, blocks, runs, z)
    out = _divided(inputs, sums, held)
    if not with_state:
        return out, None
    memory = z.reshape(inputs.key.shape[0], inputs.key.shape[2], *shape[1:])
    keys, values = _under_way(inputs, rows, block, held) if mixed else (None, None)
    return out, PolysketchState(memory, keys, values, length + n)


def _behind(
    rows: _Rows,
    state: PolysketchState,
    held: Array,
    sketch: Sketch | None,
    normalize: bool,
    scale: float | None,
) -> _Rows:
    """Put new rows behind those of the block under way, so that the grid of blocks goes on.

    Held keys have no queries: those were answered before. Places behind the new rows have no value.
    """
    if state.keys is None or state.values is None:
        raise ValueError("initial_state: holds no block of keys; make it with local_exact=True")
    keys, values = jnp.swapaxes(state.keys, 1, 2), jnp.swapaxes(state.values, 1, 2)
    keys, values = keys.astype(rows.v1.dtype), values.astype(rows.v1.dtype)
    block, n = keys.shape[1], rows.v1.shape[1]
    scaled = scaled_keys(keys, scale, normalize)

    def join(new: Array | None, old: Array | None) -> Any:
        if new is None:
            return None
        row = jnp.zeros((new.shape[0], block + n, *new.shape[2:]), new.dtype)
        row = row if old is None else row.at[:, :block].set(old)
        return jax.lax.dynamic_update_slice_in_dim(row, new, held, axis=1)

    return _Rows(
        yq=join(rows.yq, None),
        yk=join(rows.yk, sketched(sketch, keys, scaled)),
        v1=join(rows.v1, values),
        lq=join(rows.lq, None),
        lk=join(rows.lk, scaled),
        raw=join(rows.raw, keys),
    )


def _under_way(inputs: Inputs, rows: _Rows, block: int, held: Any) -> tuple[Array, Array]:
    """Keys and values of the last block, if it is not full: (B, K, b, H) and (B, K, b, D1)."""
    n = inputs.query.shape[1]
    raw, v1 = jnp.swapaxes(rows.raw, 1, 2), jnp.swapaxes(rows.v1, 1, 2)
    if inputs.segments is not None:
        # Earlier documents of the row are over.
        alive = inputs.segments == inputs.segments[:, -1:]
        v1 = v1 * alive[:, None, :, None]
    start = (held + n) // block * block
    after = ((0, 0), (0, 0), (0, block), (0, 0))
    keys = jax.lax.dynamic_slice_in_dim(jnp.pad(raw, after), start, block, axis=2)
    values = jax.lax.dynamic_slice_in_dim(jnp.pad(v1, after), start, block, axis=2)
    return keys, values


class Packing(NamedTuple):
    """Where documents lie in one row.

    Attributes
    ----------
    places : array of int, shape (sum of lengths,)
        Place in the row of each token of the documents, one document behind the other.
    segment_ids : array of int32, shape (1, T)
    key_mask : array of bool, shape (1, T)
        False between documents.
    """

    places: np.ndarray
    segment_ids: np.ndarray
    key_mask: np.ndarray


def pad_to_block(lengths: Sequence[int], block: int = 256) -> Packing:
    """Lay documents out so that each begins at a multiple of ``block``.

    With exact blocks (``local_exact``) a packed document then comes out as if it were alone.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each document.
    block : int, default 256
        The same as in `polysketch_attention`.

    Examples
    --------
    >>> packing = pad_to_block([3, 2], block=4)
    >>> packing.places, packing.segment_ids[0], packing.key_mask[0].astype(int)
    (array([0, 1, 2, 4, 5]), array([0, 0, 0, 0, 1, 1, 1, 1]), array([1, 1, 1, 0, 1, 1, 0, 0]))
    """
    sizes = [check_whole(f"lengths[{i}]", size, 1) for i, size in enumerate(lengths)]
    block = check_whole("block", block, 1)
    if not sizes:
        raise ValueError("lengths: none given; give the length of at least one document")
    room = [-(-size // block) * block for size in sizes]
    starts = np.cumsum([0, *room[:-1]])
    places = np.concatenate([at + np.arange(n) for at, n in zip(starts, sizes, strict=True)])
    exists = np.zeros(sum(room), bool)
    exists[places] = True
    return Packing(places, np.repeat(np.arange(len(sizes)), room)[None], exists[None])
