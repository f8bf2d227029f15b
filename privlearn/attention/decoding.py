"""Decoding with a state of constant size: what a text leaves behind, and one token at a time.

Without exact blocks the state is one matrix for each head of keys, ``sum of f(y_k) [v, 1]^T``.
With exact blocks the keys and values of the block under way are kept too, and enter the matrix when
the block is full, after its last token has been answered.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from privlearn.attention.arguments import accumulator, check_inputs, check_scale, check_whole
from privlearn.attention.blocks import products
from privlearn.attention.polynomial import normalize_heads, scaled_heads
from privlearn.attention.sketches import Sketch, check_sketch, pairs


class PolysketchState(NamedTuple):
    """What polysketch attention remembers of a text.

    Attributes
    ----------
    memory : Array, shape (B, K, R, D + 1)
        Sum over keys of features times values, and in the last column of features alone. Features
        ``y_i y_j``, i <= j, in the order of `privlearn.attention.sketches.pairs`.
    keys : Array, shape (B, K, b, H), or None
        Keys of the block under way, as they came; None without exact blocks.
    values : Array, shape (B, K, b, D + 1), or None
        Their values and a 1; zeros where there is no key.
    length : Array of int32, shape ()
        Tokens so far, masked ones included. The block under way holds ``length % b`` of them.
    """

    memory: Array
    keys: Array | None
    values: Array | None
    length: Array

    @property
    def n_bytes(self) -> int:
        """Bytes of the state, whatever the length of the text."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def init_state(
    batch: int,
    n_kv_heads: int,
    head_size: int,
    value_size: int | None = None,
    *,
    sketch: Sketch | None,
    block: int = 256,
    local_exact: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> PolysketchState:
    """The state of an empty text.

    Parameters
    ----------
    batch, n_kv_heads, head_size : int
        B, K, H.
    value_size : int, optional
        D; as head_size if None.
    sketch : Sketch or None
        As in `polysketch_attention`.
    block : int, default 256
    local_exact : bool, default True
    dtype : dtype, default float32
        Half precision is raised to float32: sums over a long text drift otherwise.

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import init_sketch, init_state
    >>> sketch = init_sketch(jax.random.key(0), 64, r=32)
    >>> init_state(1, 4, 64, sketch=sketch, local_exact=False).memory.shape
    (1, 4, 528, 65)
    """
    check_sketch(sketch, None)
    for name, size in (("batch", batch), ("n_kv_heads", n_kv_heads), ("block", block)):
        check_whole(name, size, 1)
    width = check_whole("head_size", head_size, 1)
    depth = width if value_size is None else check_whole("value_size", value_size, 1)
    r = width if sketch is None else sketch.size(width)
    precise, rows = accumulator(dtype), (batch, n_kv_heads)
    return PolysketchState(
        memory=jnp.zeros((*rows, r * (r + 1) // 2, depth + 1), precise),
        keys=jnp.zeros((*rows, block, width), precise) if local_exact else None,
        values=jnp.zeros((*rows, block, depth + 1), precise) if local_exact else None,
        length=jnp.zeros((), jnp.int32),
    )


def check_state(
    state: PolysketchState, shape: tuple[int, int, int, int], r: int, block: int | None
) -> None:
    """Refuse a state that was made for other sizes; ``shape`` is (B, K, H, D)."""
    rows, n_heads, width, depth = shape
    expected = (rows, n_heads, r * (r + 1) // 2, depth + 1)
    if state.memory.shape != expected:
        raise ValueError(
            f"state: memory of shape {state.memory.shape}, but the arguments need {expected} "
            "(batch, heads of keys, features, values + 1)"
        )
    held = None if state.keys is None else state.keys.shape
    needed = None if block is None else (rows, n_heads, block, width)
    if held != needed:
        raise ValueError(
            f"state: a block of keys of shape {held}, but the arguments need {needed}; make the "
            "state with the same block and local_exact"
        )


def polysketch_step(
    state: PolysketchState,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    sketch: Sketch | None,
    scale: float | None = None,
    normalize: bool = True,
    key_mask: ArrayLike | None = None,
) -> tuple[Array, PolysketchState]:
    """One more token of each row: its output, and the state with its key.

    Parameters
    ----------
    state : PolysketchState
        From `init_state`, `polysketch_attention` with ``return_state``, or the step before.
    query : array, shape (B, 1, N, H) or (1, N, H)
    key : array, shape (B, 1, K, H) or (1, K, H)
    value : array, shape (B, 1, K, D) or (1, K, D)
    sketch : Sketch or None
        The same as for the text before.
    scale : float, optional
    normalize : bool, default True
        As in `polysketch_attention`.
    key_mask : array of bool, shape (B, 1), optional
        False for rows whose text has ended: their state takes no key.

    Returns
    -------
    out : Array, shape (B, 1, N, D) or (1, N, D)
    state : PolysketchState

    Raises
    ------
    ValueError
        For more than one token, or a state of other sizes.

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import init_sketch, init_state, polysketch_step
    >>> sketch = init_sketch(jax.random.key(0), 8, r=4)
    >>> state = init_state(1, 1, 8, sketch=sketch, block=16)
    >>> q, k, v = jax.random.normal(jax.random.key(1), (3, 1, 1, 1, 8))
    >>> out, state = polysketch_step(state, q, k, v, sketch=sketch)
    >>> out.shape, int(state.length)
    ((1, 1, 1, 8), 1)
    """
    degree = check_sketch(sketch, None)
    inputs = check_inputs(query, key, value, is_causal=True, key_mask=key_mask)
    if inputs.query.shape[1] != 1:
        raise ValueError(
            f"query: {inputs.query.shape[1]} tokens; a step takes one, for more call "
            "polysketch_attention with initial_state"
        )
    rows, _, n_heads, width = inputs.key.shape
    r = width if sketch is None else sketch.size(width)
    block = None if state.keys is None else state.keys.shape[2]
    check_state(state, (rows, n_heads, width, inputs.value.shape[3]), r, block)

    lq, lk, v = scaled_heads(inputs, normalize=normalize, scale=scale)
    state = jax.tree.map(lambda x: x if x.ndim == 0 else x.astype(v.dtype), state)
    raw = inputs.key.astype(v.dtype)
    exists = jnp.ones((rows, 1), bool) if inputs.key_mask is None else inputs.key_mask
    one = jnp.broadcast_to(exists[:, :, None, None], (*v.shape[:3], 1)).astype(v.dtype)
    v1 = jnp.moveaxis(jnp.concatenate([v, one], axis=-1), 1, 2)  # (B, K, 1, D1)
    raw = jnp.where(exists[:, None, :, None], jnp.moveaxis(raw, 1, 2), 0)
    q = lq[:, 0].reshape(rows, n_heads, inputs.group, width)

    yq = sketched(sketch, inputs.query.astype(v.dtype), lq)[:, 0]
    yq = yq.reshape(rows, n_heads, inputs.group, r)
    times = jnp.asarray(pairs(r)[2], v.dtype)
    looking = products(jnp.swapaxes(yq, -1, -2), packed=True)  # (B, K, R, G)
    if state.keys is None or state.values is None:
        entering = _features_of_keys(sketch, raw, jnp.moveaxis(lk, 1, 2))
        memory = state.memory + jnp.einsum("bkrs,bksd->bkrd", entering, v1)
        sums = jnp.einsum("bkrg,r,bkrd->bkgd", looking, times, memory)
        new = PolysketchState(memory, None, None, state.length + 1)
    else:
        sums = jnp.einsum("bkrg,r,bkrd->bkgd", looking, times, state.memory)
        new, near = _step_in_block(state, sketch, degree, (q, raw, v1), scale, normalize)
        sums = sums + near
    out = (sums[..., :-1] / (1 + sums[..., -1:])).reshape(rows, 1, -1, v.shape[3])
    return inputs.restore(out.astype(inputs.query.dtype)), new


def sketched(sketch: Sketch | None, raw: Array, scaled: Array) -> Array:
    """Give a sketch what it takes: heads as they came, or normalised and scaled."""
    if sketch is None:
        return scaled
    return sketch(raw if sketch.takes_raw else scaled)


def _features_of_keys(sketch: Sketch | None, raw: Array, scaled: Array) -> Array:
    """Features (B, K, R, s) of keys (B, K, s, H)."""
    return products(jnp.swapaxes(sketched(sketch, raw, scaled), -1, -2), packed=True)


def _step_in_block(
    state: PolysketchState,
    sketch: Sketch | None,
    degree: int,
    token: tuple[Array, Array, Array],
    scale: float | None,
    normalize: bool,
) -> tuple[PolysketchState, Array]:
    """Write the token into the block under way, look at the block, fold it if it is full."""
    q, raw, v1 = token
    if state.keys is None or state.values is None:
        raise ValueError("state: holds no block of keys; make it with local_exact=True")
    block = state.keys.shape[2]
    place = state.length % block
    keys = jax.lax.dynamic_update_slice_in_dim(state.keys, raw, place, axis=2)
    values = jax.lax.dynamic_update_slice_in_dim(state.values, v1, place, axis=2)
    scaled = scaled_keys(keys, scale, normalize)
    weights = jax.lax.integer_pow(jnp.einsum("bkgh,bksh->bkgs", q, scaled), degree)
    near = jnp.einsum("bkgs,bksd->bkgd", weights, values)

    def fold(held: tuple[Array, Array]) -> tuple[Array, Array]:
        memory, values = held
        entering = _features_of_keys(sketch, keys, scaled)
        memory = memory + jnp.einsum("bkrs,bksd->bkrd", entering, values)
        return memory, jnp.zeros_like(values)

    full = place == block - 1
    memory, values = jax.lax.cond(full, fold, lambda held: held, (state.memory, values))
    return PolysketchState(memory, keys, values, state.length + 1), near


def scaled_keys(keys: Array, scale: float | None, normalize: bool) -> Array:
    """Keys of the block under way as `scaled_heads` makes them."""
    root = check_scale(scale, keys.shape[-1] ** -0.5 if normalize else 1.0) ** 0.5
    return (normalize_heads(keys) if normalize else keys) * root
