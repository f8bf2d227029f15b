"""The cache of a causal language model: slots that are written ahead and kept by committing.

A cache is a pytree of arrays ``[B, H, S, D]`` (batch, heads, slots, width) and a length per row.
The slots below ``length`` hold the text so far, in order; what lies above is scratch. `extend` of a
model writes its new tokens at ``length, length + 1, ...`` and leaves ``length`` alone, so a draft
that is rejected needs no undoing: **rollback is not committing**.

The layout is chosen for the CPU: with ``[B, S, H, D]`` XLA transposes the whole cache in every
step, which doubled the time of a step of a small model.

Everything here is pure and has static shapes, so it may be jitted, also inside a `lax.while_loop`.
What a jitted function cannot see (is there room for the new tokens?) is checked when the arrays are
concrete; inside a loop the caller checks the sizes once, before the loop: see `room`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Cache(NamedTuple):
    """What a model remembers of each row.

    Attributes
    ----------
    slots : pytree of Array, each of shape (B, H, S, D)
        Keys and values, or token ids for a model that needs no more; axis 2 is the slot.
    length : Array of int32, shape (B,)
        How many slots hold committed text.
    """

    slots: Any
    length: Array

    @property
    def n_rows(self) -> int:
        """Number of rows, B."""
        return int(self.length.shape[0])

    @property
    def n_slots(self) -> int:
        """Number of slots of each row, S."""
        return int(jax.tree.leaves(self.slots)[0].shape[2])


def _is_concrete(*arrays: Array) -> bool:
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def room(cache: Cache) -> int:
    """How many tokens every row can still take; needs a cache outside ``jit``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import Cache, room
    >>> room(Cache(jnp.zeros((2, 1, 10, 1)), jnp.array([3, 7])))
    3
    """
    return cache.n_slots - int(jnp.max(cache.length))


def check_room(cache: Cache, n_new: int) -> None:
    """Refuse tokens that do not fit: a write beyond the end would be moved onto good slots.

    Raises
    ------
    ValueError
        If ``n_new`` tokens exceed the slots, or, where the lengths are known, what is left of them.
    """
    if n_new > cache.n_slots:
        raise ValueError(
            f"tokens: {n_new} tokens in one step do not fit into a cache of {cache.n_slots} slots; "
            "make the cache with a larger max_len or slack"
        )
    if _is_concrete(cache.length) and n_new > room(cache):
        raise ValueError(
            f"cache overflow: a row holds {int(jnp.max(cache.length))} of {cache.n_slots} slots "
            f"and {n_new} new tokens do not fit; make the cache with a larger max_len or slack"
        )


def write_slots(slots: Array, new: Array, start: Array) -> Array:
    """Write ``new`` (B, H, T, D) into ``slots`` (B, H, S, D) from slot ``start`` (B,) of each."""
    new, zero = new.astype(slots.dtype), jnp.zeros_like(start[0])
    if slots.shape[0] == 1:

        def write(slots: Array) -> Array:
            return jax.lax.dynamic_update_slice(slots, new, (zero, zero, start[0], zero))

        if new.shape[2] > 1:
            return write(slots)
        # A condition that always holds. Without it XLA:CPU (jaxlib 0.10) fuses the write of one
        # token into both its readers, the attention and the loop's state, and then copies the whole
        # cache four times a step.
        return jax.lax.cond(start[0] < slots.shape[2], write, lambda slots: slots, slots)
    return jax.vmap(
        lambda old, block, at: jax.lax.dynamic_update_slice(old, block, (zero, at, zero))
    )(slots, new, start)


def extend_slots(cache: Cache, new: Any) -> Cache:
    """Write new entries behind the committed text of each row; the length stays.

    Parameters
    ----------
    cache : Cache
        With slots of shape (B, H, S, D).
    new : pytree of Array, each of shape (B, H, T, D)
        The same structure as ``cache.slots``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import Cache, extend_slots
    >>> cache = Cache(jnp.zeros((2, 1, 5, 1)), jnp.array([1, 3]))
    >>> extend_slots(cache, jnp.ones((2, 1, 2, 1))).slots[:, 0, :, 0]
    Array([[0., 1., 1., 0., 0.],
           [0., 0., 0., 1., 1.]], dtype=float32)
    """
    slots = jax.tree.map(lambda old, block: write_slots(old, block, cache.length), cache.slots, new)
    return cache._replace(slots=slots)


def commit(cache: Cache, slots: ArrayLike, n: ArrayLike) -> Cache:
    """Keep some of the tokens of the last `extend`: move them together and count them.

    Parameters
    ----------
    cache : Cache
        After an extend by T tokens.
    slots : array of int, shape (B, M)
        Which of the T new tokens, by their place in that extend (0 is the first), in text order.
        Of each row only the first ``n`` are read.
    n : array of int, shape (B,)
        How many to keep, from 0 (the row does not move) to M.

    Returns
    -------
    Cache
        With ``length + n``. For a chain the kept tokens already lie together: `advance` is enough.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import Cache, commit
    >>> cache = Cache(jnp.arange(6.0).reshape(1, 1, 6, 1), jnp.array([2]))
    >>> kept = commit(cache, [[0, 3]], [2])
    >>> kept.slots[0, 0, :, 0], kept.length
    (Array([0., 1., 2., 5., 4., 5.], dtype=float32), Array([4], dtype=int32))
    """
    slots, n = jnp.asarray(slots, jnp.int32), jnp.asarray(n, jnp.int32)
    # Past the n-th the own place is read, so that nothing but the kept tokens moves.
    places = jnp.arange(slots.shape[1], dtype=jnp.int32)
    source = cache.length[:, None] + jnp.where(places < n[:, None], slots, places)

    def compact(leaf: Array) -> Array:
        kept = jnp.take_along_axis(leaf, source[:, None, :, None], axis=2, mode="clip")
        return write_slots(leaf, kept, cache.length)

    return Cache(jax.tree.map(compact, cache.slots), cache.length + n)


def set_length(cache: Cache, n: ArrayLike) -> Cache:
    """Declare the first ``n`` slots (B,) of each row to be the text; moves no data.

    Less than before rewinds, more keeps what an extend wrote.
    """
    return cache._replace(length=jnp.asarray(n, jnp.int32))


def advance(cache: Cache, n: ArrayLike) -> Cache:
    """Keep the first ``n`` (B,) tokens of the last extend where they are; moves no data.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import Cache, advance
    >>> advance(Cache(jnp.zeros((2, 1, 5, 1)), jnp.array([1, 3])), [2, 0]).length
    Array([3, 3], dtype=int32)
    """
    return cache._replace(length=cache.length + jnp.asarray(n, jnp.int32))


def take_rows(cache: Cache, rows: ArrayLike) -> Cache:
    """The cache whose row i is row ``rows[i]`` of this one: a winner copied over its rivals."""
    rows = jnp.asarray(rows, jnp.int32)
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), cache)


def repeat_rows(cache: Cache, n: int) -> Cache:
    """Every row ``n`` times, copies side by side: the cache of n chains per row."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), cache)


def visible_slots(length: Array, n_slots: int, n_new: int, mask: ArrayLike | None = None) -> Array:
    """Which slots each new token may look at.

    Parameters
    ----------
    length : Array of int, shape (B,)
        Committed slots; all of them are visible.
    n_slots, n_new : int
        S and T.
    mask : array of bool, shape (T, T) or (B, T, T), optional
        ``mask[t, s]``: may new token t look at new token s (itself included)? Causal if None.

    Returns
    -------
    Array of bool, shape (B, T, S)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import visible_slots
    >>> visible_slots(jnp.array([1]), 4, 2, jnp.eye(2, dtype=bool)).astype(int)
    Array([[[1, 1, 0, 0],
            [1, 0, 1, 0]]], dtype=int32)
    """
    slot = jnp.arange(n_slots, dtype=jnp.int32)
    if mask is None:
        last = length[:, None] + jnp.arange(n_new, dtype=jnp.int32)
        return slot <= last[:, :, None]
    local = jnp.broadcast_to(jnp.asarray(mask, bool), (length.shape[0], n_new, n_new))
    relative = slot - length[:, None]
    place = jnp.clip(relative, 0, n_new - 1)
    seen = jnp.take_along_axis(local, place[:, None, :], axis=2)
    inside = (relative >= 0) & (relative < n_new)
    return (relative < 0)[:, None, :] | (inside[:, None, :] & seen)


def new_positions(cache: Cache, n_new: int, positions: ArrayLike | None) -> Array:
    """Positions (B, T) of new tokens: as given, or following the committed text."""
    shape = (cache.n_rows, n_new)
    if positions is None:
        return cache.length[:, None] + jnp.arange(n_new, dtype=jnp.int32)
    positions = jnp.asarray(positions, jnp.int32)
    if positions.ndim > 2 or positions.shape[-1:] != (n_new,):
        raise ValueError(
            f"positions: shape {positions.shape}, but the tokens have shape {shape}; give one "
            "position for each new token"
        )
    return jnp.broadcast_to(positions, shape)


def check_extend(cache: Cache, tokens: ArrayLike, mask: ArrayLike | None) -> Array:
    """Check what every `extend` is given; returns the tokens as int32 (B, T).

    Raises
    ------
    ValueError
        For tokens that are not (B, T), a mask that is neither (T, T) nor (B, T, T), or no room.
    """
    tokens = jnp.asarray(tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"tokens: dtype {tokens.dtype}; token ids are integers")
    if tokens.ndim != 2 or tokens.shape[0] != cache.n_rows or tokens.shape[1] == 0:
        raise ValueError(
            f"tokens: shape {tokens.shape}, but the cache has {cache.n_rows} rows; "
            f"tokens must be ({cache.n_rows}, T) with T >= 1"
        )
    n_new = tokens.shape[1]
    if mask is not None and np.shape(mask) not in (
        (n_new, n_new),
        (1, n_new, n_new),
        (cache.n_rows, n_new, n_new),
    ):
        raise ValueError(
            f"mask: shape {np.shape(mask)}; for tokens of shape {tokens.shape} it must be "
            f"({n_new}, {n_new}) or ({cache.n_rows}, {n_new}, {n_new})"
        )
    check_room(cache, n_new)
    return tokens.astype(jnp.int32)
