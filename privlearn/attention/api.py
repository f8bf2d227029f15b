"""One function in place of `jax.nn.dot_product_attention`, with the attention chosen by name."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.attention.arguments import Implementation, check_inputs

Method: TypeAlias = Literal["softmax", "polynomial", "polysketch", "hyper"]
METHODS: tuple[Method, ...] = get_args(Method)


def dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    method: Method = "softmax",
    scale: float | None = None,
    is_causal: bool = False,
    key_value_seq_lengths: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    impl: Implementation = "auto",
    **options: Any,
) -> Array:
    """Attention by one of the methods of this package, called as `jax.nn.dot_product_attention`.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
        K divides N.
    value : array, shape (B, S, K, D) or (S, K, D)
    mask : array of bool, shape (B or 1, 1, 1, S), optional
        A mask of keys, the same for all queries; nothing else is linear in memory.
    method : {"softmax", "polynomial", "polysketch", "hyper"}
        See `softmax_attention`, `polynomial_attention`, `polysketch_attention`, `hyper_attention`.
    scale : float, optional
        Multiplies the inner products; the default is the method's own.
    is_causal : bool, default False
    key_value_seq_lengths : array of int, shape (B,), optional
        Keys at or behind this place do not count.
    key_mask : array of bool, shape (B, S), optional
        True where a key exists.
    segment_ids : array of int, shape (B, T), optional
        Documents packed into one row; see `privlearn.attention.arguments`.
    impl : {"auto", "xla", "pallas"}
    **options
        Further arguments of the method.

    Returns
    -------
    Array, shape (B, T, N, D) or (T, N, D)
        In the dtype of the query.

    Raises
    ------
    ValueError
        For an unknown method, or a mask that depends on the query.

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import dot_product_attention
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 8, 2, 4))
    >>> dot_product_attention(q, k, v, method="polynomial", degree=4, is_causal=True).shape
    (1, 8, 2, 4)
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r}; must be one of {', '.join(METHODS)}")
    inputs = check_inputs(
        query, key, value, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids
    )
    exists = _joined_masks(inputs.key_mask, mask, key_value_seq_lengths, inputs.key.shape[:2])
    out = _function(method)(
        inputs.query,
        inputs.key,
        inputs.value,
        scale=scale,
        is_causal=is_causal,
        key_mask=exists,
        segment_ids=inputs.segments,
        impl=impl,
        **options,
    )
    return inputs.restore(out)


def _function(method: str) -> Any:
    """The function of a method; imported here, so that one method does not load the others."""
    if method == "softmax":
        from privlearn.attention.softmax import softmax_attention

        return softmax_attention
    if method == "hyper":
        from privlearn.attention.hyper import hyper_attention

        return hyper_attention
    if method == "polynomial":
        from privlearn.attention.polynomial import polynomial_attention

        return polynomial_attention
    from privlearn.attention.polysketch import polysketch_attention

    return polysketch_attention


def _joined_masks(
    key_mask: Array | None,
    mask: ArrayLike | None,
    lengths: ArrayLike | None,
    shape: tuple[int, ...],
) -> Array | None:
    """All that says which keys exist, as one mask (B, S)."""
    rows, n_keys = shape
    found = [] if key_mask is None else [key_mask]
    if mask is not None:
        table = jnp.asarray(mask)
        if table.dtype != jnp.bool_:
            raise TypeError(f"mask: dtype {table.dtype}; give booleans, True where a key exists")
        if table.ndim != 4 or table.shape[1:] != (1, 1, n_keys) or table.shape[0] not in (1, rows):
            raise ValueError(
                f"mask: shape {table.shape}; only masks of keys, ({rows}, 1, 1, {n_keys}), are "
                "linear in memory: use is_causal and segment_ids for what depends on the query"
            )
        found.append(jnp.broadcast_to(table[:, 0, 0], shape))
    if lengths is not None:
        length = jnp.asarray(lengths)
        if not jnp.issubdtype(length.dtype, jnp.integer) or length.shape not in ((), (1,), (rows,)):
            raise ValueError(
                f"key_value_seq_lengths: shape {length.shape}, dtype {length.dtype}; give one "
                f"integer for each of {rows} rows"
            )
        found.append(jnp.arange(n_keys) < jnp.broadcast_to(length, (rows,))[:, None])
    if not found:
        return None
    joined = found[0]
    for other in found[1:]:
        joined = joined & other
    return joined
