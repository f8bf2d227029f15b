"""Softmax attention, rotary positions, and the hook through which other attentions come in."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array


class Attention(eqx.Module):
    """How a block mixes tokens: ``(q, k, v) -> out``, all (B, H, T, D), causal, scale included."""

    @abc.abstractmethod
    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix the values of each head."""


class CausalSoftmax(Attention):
    """Softmax attention in which token t looks at tokens 0..t, scaled by 1/sqrt(D).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.decoding.models import CausalSoftmax
    >>> v = jnp.array([1.0, 3.0])[None, None, :, None]
    >>> CausalSoftmax()(0 * v, 0 * v, v)[0, 0, :, 0]
    Array([1., 2.], dtype=float32)
    """

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix the values of each head."""
        length = q.shape[2]
        causal = jnp.tril(jnp.ones((length, length), bool))
        return attend(q, k, v, jnp.broadcast_to(causal, (q.shape[0], length, length)))


class FunctionAttention(Attention):
    """A plain function as an attention; it is part of the model's structure, not of its weights."""

    function: Callable[[Array, Array, Array], Array] = eqx.field(static=True)

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix the values of each head."""
        return self.function(q, k, v)


class ModuleAttention(Attention):
    """Any equinox module as an attention; its arrays are weights of the model."""

    module: eqx.Module

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix the values of each head."""
        return self.module(q, k, v)  # type: ignore[operator]


def as_attention(attention: Attention | Callable[[Array, Array, Array], Array]) -> Attention:
    """Make an `Attention` of whatever can be called with (q, k, v)."""
    if isinstance(attention, Attention):
        return attention
    if not callable(attention):
        raise TypeError(f"attention: {attention!r}; must be callable with (q, k, v)")
    if isinstance(attention, eqx.Module):
        return ModuleAttention(attention)
    return FunctionAttention(attention)


def attend(q: Array, keys: Array, values: Array, seen: Array) -> Array:
    """Softmax attention of some queries to some slots.

    Parameters
    ----------
    q : Array, shape (B, H, T, D)
    keys, values : Array, shape (B, Hkv, S, D)
        Hkv divides H: query head h looks at head ``h // (H / Hkv)``.
    seen : Array of bool, shape (B, T, S)

    Returns
    -------
    Array, shape (B, H, T, D)
    """
    n_rows, n_heads, n_new, width = q.shape
    group = n_heads // keys.shape[1]
    precise = jnp.promote_types(q.dtype, jnp.float32)
    # Queries of one group side by side: one product for each head of keys.
    grouped = q.reshape(n_rows, keys.shape[1], group * n_new, width) * width**-0.5
    scores = jnp.einsum("bhqd,bhsd->bhqs", grouped, keys, preferred_element_type=precise)
    allowed = jnp.tile(seen, (1, group, 1))[:, None]
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhqs,bhsd->bhqd", weights.astype(values.dtype), values)
    return mixed.reshape(n_rows, n_heads, n_new, width)


def rope_angles(places: Array, width: int, base: float) -> tuple[Array, Array]:
    """Cosines and sines (B, 1, T, D/2) of the rotary angles of positions (B, T).

    Su, Lu, Pan, Murtadha, Wen and Liu, "RoFormer: Enhanced Transformer with Rotary Position
    Embedding", 2021, arXiv 2104.09864, eq. 15.
    """
    frequency = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = places.astype(jnp.float32)[:, None, :, None] * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Array, angles: tuple[Array, Array]) -> Array:
    """Turn the pairs ``(x[i], x[i + D/2])`` of (B, H, T, D): the order of Llama weights."""
    cos, sin = angles
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
