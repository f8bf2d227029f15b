"""What all attentions of this package are given, and the rules it must satisfy.

Shapes are those of `jax.nn.dot_product_attention`: queries (B, T, N, H), keys (B, S, K, H), values
(B, S, K, D), where K divides N and query head h looks at head ``h // (N / K)`` of the keys. Arrays
without the batch axis are taken too, and the result has none then.

Which pairs count is said by `is_causal`, by ``key_mask`` (B, S), True where a key exists, and by
``segment_ids`` (B, T): documents packed into one row, each of which sees only itself. **Segments
are runs**: an id that returns after another one is a new document, so ids need not be sorted.
A query that sees no key gives zeros, never NaN.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

#: How to compute: plain JAX, a Pallas kernel, or whichever is faster on the device.
Implementation: TypeAlias = Literal["auto", "xla", "pallas"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)


class Inputs(NamedTuple):
    """Arguments that have passed the checks.

    Attributes
    ----------
    query : Array, shape (B, T, N, H)
    key : Array, shape (B, S, K, H)
    value : Array, shape (B, S, K, D)
    key_mask : Array of bool, shape (B, S), or None
    segments : Array of int32, shape (B, T), or None
        Runs of equal ids, numbered 0, 1, 2, ... along the row.
    batched : bool
        Whether the caller's arrays had the batch axis.
    """

    query: Array
    key: Array
    value: Array
    key_mask: Array | None
    segments: Array | None
    batched: bool

    @property
    def group(self) -> int:
        """Query heads for each head of keys, N / K."""
        return self.query.shape[2] // self.key.shape[2]

    def restore(self, out: Array) -> Array:
        """Drop the batch axis of a result again if the caller had none."""
        return out if self.batched else out[0]


def accumulator(dtype: DTypeLike) -> Any:
    """The precision of sums: float32 for half precision, else the precision of the inputs."""
    # Canonical first: Python's float is a weak type, which would lose to float32.
    return jnp.promote_types(jax.dtypes.canonicalize_dtype(dtype), jnp.float32)


def check_inputs(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    is_causal: bool = False,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> Inputs:
    """Check queries, keys, values and masks of any attention of this package.

    Raises
    ------
    TypeError
        For arrays that are not of one floating dtype, a mask that is not boolean, or segment ids
        that are not integers.
    ValueError
        For shapes that do not fit together; a causal form needs T = S, and so do segments.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> q, k = jnp.zeros((5, 4, 8)), jnp.zeros((5, 2, 8))
    >>> inputs = check_inputs(q, k, k, segment_ids=jnp.array([7, 7, 3, 3, 7]))
    >>> inputs.query.shape, inputs.group, inputs.segments
    ((1, 5, 4, 8), 2, Array([[0, 0, 1, 1, 2]], dtype=int32))
    """
    arrays = {"query": jnp.asarray(query), "key": jnp.asarray(key), "value": jnp.asarray(value)}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: dtype {array.dtype}; attention needs floating point arrays")
    if len({array.dtype for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"query, key, value: dtypes differ ({found}); cast them to one dtype")
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    q, k, v = arrays.values()
    if q.ndim not in (3, 4) or {k.ndim, v.ndim} != {q.ndim}:
        raise ValueError(
            f"query, key, value: shapes {shapes}; give query (B, T, N, H), key (B, S, K, H) and "
            "value (B, S, K, D), all with or all without B"
        )
    batched = q.ndim == 4
    if not batched:
        q, k, v = q[None], k[None], v[None]
    _check_shapes(q, k, v, shapes, is_causal)
    rows, n_keys = k.shape[:2]
    return Inputs(
        q,
        k,
        v,
        None if key_mask is None else _checked_mask(key_mask, rows, n_keys, batched),
        None if segment_ids is None else _checked_segments(segment_ids, q, n_keys, batched),
        batched,
    )


def _check_shapes(q: Array, k: Array, v: Array, shapes: str, is_causal: bool) -> None:
    if q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3]:
        raise ValueError(
            f"query, key, value: shapes {shapes}; rows (B), places of keys and values (S) and "
            "their heads (K) must agree"
        )
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"query, key: head sizes {q.shape[3]} and {k.shape[3]}; must be equal")
    if min(*q.shape, *k.shape, *v.shape) == 0:
        raise ValueError(f"query, key, value: shapes {shapes}; no axis may be empty")
    if q.shape[2] % k.shape[2]:
        raise ValueError(
            f"query, key: {q.shape[2]} heads of queries and {k.shape[2]} of keys; the heads of "
            "keys must divide those of queries"
        )
    if is_causal and q.shape[1] != k.shape[1]:
        raise ValueError(
            f"is_causal: {q.shape[1]} queries and {k.shape[1]} keys; the causal form needs as many "
            "keys as queries (to go on behind a prefix, use a state)"
        )


def _checked_mask(key_mask: ArrayLike, rows: int, n_keys: int, batched: bool) -> Array:
    mask = jnp.asarray(key_mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"key_mask: dtype {mask.dtype}; give booleans, True where a key exists")
    if not batched and mask.ndim == 1:
        mask = mask[None]
    if mask.shape not in ((rows, n_keys), (1, n_keys)):
        raise ValueError(
            f"key_mask: shape {jnp.shape(key_mask)}; must be {(rows, n_keys)}, one entry for each "
            "key of each row"
        )
    return jnp.broadcast_to(mask, (rows, n_keys))


def _checked_segments(segment_ids: ArrayLike, q: Array, n_keys: int, batched: bool) -> Array:
    rows, n_queries = q.shape[:2]
    ids = jnp.asarray(segment_ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"segment_ids: dtype {ids.dtype}; give integers")
    if n_queries != n_keys:
        raise ValueError(
            f"segment_ids: {n_queries} queries and {n_keys} keys; documents packed into one row "
            "need as many keys as queries"
        )
    if not batched and ids.ndim == 1:
        ids = ids[None]
    if ids.shape not in ((rows, n_queries), (1, n_queries)):
        raise ValueError(
            f"segment_ids: shape {jnp.shape(segment_ids)}; must be {(rows, n_queries)}, one id for "
            "each place of each row"
        )
    return number_runs(jnp.broadcast_to(ids, (rows, n_queries)))


def number_runs(ids: Array) -> Array:
    """Number the runs of equal ids along the last axis: 0, 1, 2, ...

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> number_runs(jnp.array([5, 5, 1, 5]))
    Array([0, 0, 1, 2], dtype=int32)
    """
    changes = (ids[..., 1:] != ids[..., :-1]).astype(jnp.int32)
    start = jnp.zeros((*ids.shape[:-1], 1), jnp.int32)
    return jnp.concatenate([start, jnp.cumsum(changes, axis=-1, dtype=jnp.int32)], axis=-1)


def check_whole(name: str, value: int, least: int) -> int:
    """A whole number that is at least `least`; ValueError or TypeError naming it otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: {value!r}; must be a whole number, at least {least}")
    if value < least:
        raise ValueError(f"{name}: {value}; must be at least {least}")
    return int(value)


def check_scale(scale: float | None, default: float) -> float:
    """A positive number that multiplies the inner products; `default` if None."""
    if scale is None:
        return default
    if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number)):
        raise TypeError(f"scale: {scale!r}; must be a positive number, or None for {default}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: {scale}; must be positive and finite, or None for {default}")
    return float(scale)


def choose_implementation(impl: Implementation, *, pallas_devices: tuple[str, ...] = ()) -> str:
    """Turn ``impl`` into ``"xla"`` or ``"pallas"``.

    Parameters
    ----------
    impl : {"auto", "xla", "pallas"}
        "pallas" runs the kernel wherever it is asked for: compiled on a GPU, else interpreted,
        which is slow and meant for tests.
    pallas_devices : tuple of str, default ()
        Platforms on which "auto" prefers the kernel.

    Raises
    ------
    ValueError
        For any other word.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: {impl!r}; must be one of {', '.join(IMPLEMENTATIONS)}")
    if impl == "auto":
        return "pallas" if jax.default_backend() in pallas_devices else "xla"
    return impl


def visible(
    inputs: Inputs, *, is_causal: bool, queries: slice = slice(None), keys: slice = slice(None)
) -> Array | None:
    """Which keys each query may look at, (B, T, S) or (1, T, S); None if all. For dense oracles.

    Parameters
    ----------
    inputs : Inputs
    is_causal : bool
    queries, keys : slice
        A part of the table only.
    """
    n_queries, n_keys = inputs.query.shape[1], inputs.key.shape[1]
    seen = None
    if is_causal:
        seen = (jnp.arange(n_keys)[keys][None] <= jnp.arange(n_queries)[queries][:, None])[None]
    if inputs.segments is not None:
        same = inputs.segments[:, queries, None] == inputs.segments[:, None, keys]
        seen = same if seen is None else seen & same
    if inputs.key_mask is not None:
        exists = inputs.key_mask[:, None, keys]
        rows = (inputs.key.shape[0], inputs.query[0, queries].shape[0], exists.shape[2])
        seen = jnp.broadcast_to(exists if seen is None else seen & exists, rows)
    return seen
