"""Decoder-only transformers in the GPT-2 and the Llama manner, as pure equinox modules.

One class covers both: `TransformerConfig` says which norm, positions, feed-forward and head. Every
leaf of a `TransformerLM` is an array, so a model goes through plain `jax.jit` as an argument.

Precision: weights and cache are in one dtype (float32, bfloat16, float16; float64 within
`privlearn.simulate.float64`); norms, softmax and logits are computed in at least float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from privlearn.decoding.models.attention import (
    Attention,
    CausalSoftmax,
    as_attention,
    attend,
    rope_angles,
    rotate,
)
from privlearn.decoding.models.cache import (
    Cache,
    check_extend,
    new_positions,
    visible_slots,
    write_slots,
)
from privlearn.decoding.models.checks import check_length

Style: TypeAlias = Literal["llama", "gpt2"]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The shape of a transformer.

    Parameters
    ----------
    vocab_size, d_model, n_layers, n_heads : int
    d_ff : int, optional
        Width of the feed-forward layer; 4 d_model (gpt2) or 8/3 d_model rounded up to 16 (llama).
    n_kv_heads : int, optional
        Heads of keys and values, a divisor of n_heads; as many as n_heads if None.
    d_head : int, optional
        Width of a head; d_model / n_heads if None.
    context : int, default 1024
        Longest text.
    style : {"llama", "gpt2"}
        llama: rotary positions, RMSNorm, SwiGLU, no biases. gpt2: learned positions, LayerNorm,
        tanh-GELU, biases.
    tied : bool, default True
        Whether the head is the transposed embedding.
    norm_eps, rope_base : float

    Examples
    --------
    >>> from privlearn.decoding.models import TransformerConfig
    >>> TransformerConfig(vocab_size=256, d_model=64, n_layers=2, n_heads=4).d_head
    16
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int = 0
    n_kv_heads: int = 0
    d_head: int = 0
    context: int = 1024
    style: Style = "llama"
    tied: bool = True
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        if self.style not in ("llama", "gpt2"):
            raise ValueError(f"style: {self.style!r}; must be 'llama' or 'gpt2'")
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; must be at least 1")
        d_ff = 4 * self.d_model if self.style == "gpt2" else -(-self.d_model // 6) * 16
        # Frozen: what was left open is filled in once, here.
        object.__setattr__(self, "d_ff", self.d_ff or d_ff)
        object.__setattr__(self, "n_kv_heads", self.n_kv_heads or self.n_heads)
        object.__setattr__(self, "d_head", self.d_head or self.d_model // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads: {self.n_kv_heads} does not divide n_heads {self.n_heads}"
            )
        if self.style == "llama" and self.d_head % 2:
            raise ValueError(f"d_head: {self.d_head}; rotary positions need an even width")
        if self.style == "gpt2" and (self.n_kv_heads, self.d_head * self.n_heads) != (
            self.n_heads,
            self.d_model,
        ):
            raise ValueError(
                "n_kv_heads, d_head: the gpt2 style has as many heads of keys as of queries, "
                f"and n_heads * d_head = d_model = {self.d_model}"
            )


class Linear(eqx.Module):
    """``x @ weight + bias`` with the weight stored (in, out)."""

    weight: Array
    bias: Array | None = None

    def __call__(self, x: Array) -> Array:
        """Apply to (..., in)."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Norm(eqx.Module):
    """LayerNorm if it has a bias, else RMSNorm; computed in at least float32."""

    weight: Array
    bias: Array | None = None
    eps: float = eqx.field(static=True, default=1e-5)

    def __call__(self, x: Array) -> Array:
        """Normalise the last axis."""
        z = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.bias is not None:
            z = z - jnp.mean(z, axis=-1, keepdims=True)
        z = z * jax.lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + self.eps)
        z = z * self.weight
        return (z if self.bias is None else z + self.bias).astype(x.dtype)


class Block(eqx.Module):
    """Attention, then feed-forward, each behind a norm and added to its input.

    Attributes
    ----------
    qkv : Linear, (d_model, (n_heads + 2 n_kv_heads) d_head)
        Queries, keys and values side by side: one product instead of three.
    up : Linear, (d_model, d_ff) or (d_model, 2 d_ff)
        In the llama style gate and up side by side.
    attention : Attention
        The hook: what the forward pass without a cache uses to mix tokens. Any module or function
        ``(q, k, v) -> out`` on (B, H, T, D) that is causal; see `TransformerLM.with_attention`.
    """

    norm_1: Norm
    qkv: Linear
    out: Linear
    norm_2: Norm
    up: Linear
    down: Linear
    attention: Attention
    config: TransformerConfig = eqx.field(static=True)

    def heads(self, x: Array, angles: tuple[Array, Array] | None) -> tuple[Array, Array, Array]:
        """Queries (B, H, T, D), keys and values (B, Hkv, T, D) of the residual stream."""
        c = self.config
        y = self.qkv(self.norm_1(x)).reshape(*x.shape[:2], -1, c.d_head).transpose(0, 2, 1, 3)
        q, k, v = jnp.split(y, (c.n_heads, c.n_heads + c.n_kv_heads), axis=1)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return q, k, v

    def rest(self, x: Array, mixed: Array) -> Array:
        """What follows the attention: output projection and feed-forward."""
        x = x + self.out(mixed.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))
        y = self.up(self.norm_2(x))
        if self.config.style == "llama":
            gate, up = jnp.split(y, 2, axis=-1)
            return x + self.down(jax.nn.silu(gate) * up)
        return x + self.down(jax.nn.gelu(y, approximate=True))

    def __call__(self, x: Array, angles: tuple[Array, Array] | None) -> Array:
        """Whole texts (B, T, d_model) without a cache, through the attention hook."""
        q, k, v = self.heads(x, angles)
        group = self.config.n_heads // self.config.n_kv_heads
        if group > 1:
            k, v = jnp.repeat(k, group, axis=1), jnp.repeat(v, group, axis=1)
        return self.rest(x, self.attention(q, k, v))

    def extend(
        self,
        x: Array,
        angles: tuple[Array, Array] | None,
        slots: tuple[Array, Array],
        start: Array,
        seen: Array,
    ) -> tuple[Array, tuple[Array, Array]]:
        """New tokens only: write their keys and values, look at what may be seen of the cache."""
        q, k, v = self.heads(x, angles)
        keys, values = write_slots(slots[0], k, start), write_slots(slots[1], v, start)
        return self.rest(x, attend(q, keys, values, seen)), (keys, values)


class TransformerLM(eqx.Module):
    """A decoder-only transformer; a `CausalLM`.

    Make one with `TransformerLM.init`, read one with `privlearn.decoding.weights`, or take a
    trained one from `privlearn.decoding.family`.

    Attributes
    ----------
    embedding : Array, shape (V, d_model)
    positions : Array, shape (context, d_model), or None
        Learned positions of the gpt2 style.
    blocks : tuple of Block
    norm : Norm
    head : Array, shape (d_model, V), or None
        None where the head is the transposed embedding (tied).
    config : TransformerConfig

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
    >>> config = TransformerConfig(vocab_size=256, d_model=32, n_layers=2, n_heads=2, context=64)
    >>> model = TransformerLM.init(jax.random.key(0), config)
    >>> tokens = jax.random.randint(jax.random.key(1), (1, 5), 0, 256)
    >>> model(tokens).shape
    (1, 5, 256)
    >>> cache = model.init_cache(batch=1, max_len=10)
    >>> logits, cache = model.extend(cache, tokens)
    >>> bool(abs(logits - model(tokens)).max() < 1e-5)
    True
    """

    embedding: Array
    positions: Array | None
    blocks: tuple[Block, ...]
    norm: Norm
    head: Array | None
    config: TransformerConfig = eqx.field(static=True)

    @classmethod
    def init(
        cls, key: Array, config: TransformerConfig, *, dtype: DTypeLike = jnp.float32
    ) -> TransformerLM:
        """Random weights: normal of deviation 0.02, less in the projections that add to the stream.

        Parameters
        ----------
        key : Array
            A typed JAX key.
        config : TransformerConfig
        dtype : dtype, default float32
        """
        c, gpt2 = config, config.style == "gpt2"
        residual_scale = 0.02 / (2 * c.n_layers) ** 0.5
        keys = iter(jax.random.split(key, 3 + 4 * c.n_layers))

        def matrix(rows: int, columns: int, scale: float = 0.02) -> Array:
            return (scale * jax.random.normal(next(keys), (rows, columns))).astype(dtype)

        def linear(n_in: int, n_out: int, scale: float = 0.02) -> Linear:
            bias = jnp.zeros(n_out, dtype) if gpt2 else None
            return Linear(matrix(n_in, n_out, scale), bias)

        def norm() -> Norm:
            bias = jnp.zeros(c.d_model, dtype) if gpt2 else None
            return Norm(jnp.ones(c.d_model, dtype), bias, c.norm_eps)

        def block() -> Block:
            return Block(
                norm_1=norm(),
                qkv=linear(c.d_model, (c.n_heads + 2 * c.n_kv_heads) * c.d_head),
                out=linear(c.n_heads * c.d_head, c.d_model, residual_scale),
                norm_2=norm(),
                up=linear(c.d_model, c.d_ff if gpt2 else 2 * c.d_ff),
                down=linear(c.d_ff, c.d_model, residual_scale),
                attention=CausalSoftmax(),
                config=c,
            )

        return cls(
            embedding=matrix(c.vocab_size, c.d_model),
            positions=matrix(c.context, c.d_model) if gpt2 else None,
            head=None if c.tied else matrix(c.d_model, c.vocab_size),
            blocks=tuple(block() for _ in range(c.n_layers)),
            norm=norm(),
            config=c,
        )

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.config.vocab_size

    @property
    def context(self) -> int:
        """Longest text that the model can read."""
        return self.config.context

    @property
    def dtype(self) -> jnp.dtype:
        """Precision of the weights."""
        return self.embedding.dtype

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(leaf.size for leaf in jax.tree.leaves(self))

    def astype(self, dtype: DTypeLike) -> TransformerLM:
        """The same model with its weights in another precision."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self)

    def untied(self) -> TransformerLM:
        """The same model with a head of its own, a transposed copy of the embedding.

        For decoding a model with a large vocabulary on a CPU: the product with a head stored
        (d_model, V) is about a quarter faster than that with the embedding, for the price of its
        memory. The gradient would no longer tie the two.
        """
        if self.head is not None:
            return self
        config = dataclasses.replace(self.config, tied=False)
        return dataclasses.replace(self, head=self.embedding.T.copy(), config=config)

    def first_layers(self, n: int) -> TransformerLM:
        """The model cut after ``n`` blocks, with the same embedding and head: a draft to distil."""
        if not 1 <= n <= self.config.n_layers:
            raise ValueError(f"n: {n}; the model has {self.config.n_layers} layers")
        config = dataclasses.replace(self.config, n_layers=n)
        return dataclasses.replace(self, blocks=self.blocks[:n], config=config)

    def with_attention(
        self,
        attention: Attention | Callable[[Array, Array, Array], Array],
        layers: Iterable[int] | None = None,
    ) -> TransformerLM:
        """The same model with another way to mix tokens in some layers, or in all.

        Parameters
        ----------
        attention : callable
            ``attention(q, k, v) -> out``, all (B, H, T, D), causal, scaling included. An equinox
            module may hold weights of its own; a plain function is wrapped.
        layers : iterable of int, optional
            Which blocks; all if None.

        Notes
        -----
        Only the forward pass without a cache, ``model(tokens)``, goes through the hook: `extend`
        knows no other attention than softmax and refuses the model.

        Examples
        --------
        >>> import jax, jax.numpy as jnp
        >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
        >>> config = TransformerConfig(vocab_size=16, d_model=8, n_layers=2, n_heads=2)
        >>> def mean_of_past(q, k, v):
        ...     return jnp.cumsum(v, axis=2) / jnp.arange(1, v.shape[2] + 1)[:, None]
        >>> model = TransformerLM.init(jax.random.key(0), config)
        >>> model.with_attention(mean_of_past, layers=[1])(jnp.zeros((1, 4), int)).shape
        (1, 4, 16)
        """
        chosen = set(range(self.config.n_layers) if layers is None else layers)
        wrong = chosen - set(range(self.config.n_layers))
        if wrong:
            raise ValueError(
                f"layers: {sorted(wrong)}; the model has layers 0..{self.config.n_layers - 1}"
            )
        hook = as_attention(attention)
        blocks = tuple(
            dataclasses.replace(block, attention=hook) if i in chosen else block
            for i, block in enumerate(self.blocks)
        )
        return dataclasses.replace(self, blocks=blocks)

    def __call__(self, tokens: ArrayLike) -> Array:
        """Logits (B, T, V) of whole texts (B, T), without a cache: for training and scoring."""
        tokens = jnp.asarray(tokens)
        if tokens.ndim != 2:
            raise ValueError(f"tokens: shape {tokens.shape}; whole texts must be (B, T)")
        if tokens.shape[1] > self.context:
            raise ValueError(
                f"tokens: texts of {tokens.shape[1]} tokens exceed the context, {self.context}"
            )
        x, angles = self._embed(tokens, jnp.arange(tokens.shape[1])[None])
        for block in self.blocks:
            x = block(x, angles)
        return self._logits(x)

    def init_cache(self, batch: int, max_len: int, *, slack: int = 0) -> Cache:
        """An empty cache; see `CausalLM.init_cache`."""
        c = self.config
        n_slots = check_length(max_len, slack, batch, c.context)
        shape = (batch, c.n_kv_heads, n_slots, c.d_head)
        slots = tuple(
            (jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in self.blocks
        )
        return Cache(slots, jnp.zeros(batch, dtype=jnp.int32))

    def extend(
        self,
        cache: Cache,
        tokens: ArrayLike,
        positions: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Cache]:
        """Read new tokens; see `CausalLM.extend`."""
        other = [i for i, b in enumerate(self.blocks) if not isinstance(b.attention, CausalSoftmax)]
        if other:
            raise ValueError(
                f"attention: layers {other} do not use softmax attention, which is all that a "
                "cache serves; call model(tokens) on whole texts"
            )
        tokens = check_extend(cache, tokens, mask)
        places = new_positions(cache, tokens.shape[1], positions)
        seen = visible_slots(cache.length, cache.n_slots, tokens.shape[1], mask)
        x, angles = self._embed(tokens, places)
        slots = []
        for block, old in zip(self.blocks, cache.slots, strict=True):
            x, new = block.extend(x, angles, old, cache.length, seen)
            slots.append(new)
        return self._logits(x), cache._replace(slots=tuple(slots))

    def _embed(self, tokens: Array, places: Array) -> tuple[Array, tuple[Array, Array] | None]:
        x = jnp.take(self.embedding, tokens, axis=0, mode="clip")
        if self.positions is None:
            return x, rope_angles(places, self.config.d_head, self.config.rope_base)
        # Drafts may reach past the context; what they predict there is never emitted.
        return x + jnp.take(self.positions, places, axis=0, mode="clip"), None

    def _logits(self, x: Array) -> Array:
        precise = jnp.promote_types(x.dtype, jnp.float32)
        if self.head is not None:
            return jnp.matmul(self.norm(x), self.head, preferred_element_type=precise)
        return jnp.einsum(
            "btd,vd->btv", self.norm(x), self.embedding, preferred_element_type=precise
        )
