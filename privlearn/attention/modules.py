"""Attentions as equinox modules ``(q, k, v) -> out`` on heads first, (B, N, T, H).

They fit wherever a model takes such a callable; `privlearn.decoding`'s `TransformerLM` does::

    model = model.with_attention(PolysketchAttention.init(key, head_size=16), layers=[0, 2])

Every leaf is an array, so that a model with such a module goes through `jax.jit` as before. One
module given to several layers is several copies of the same weights; for a layer of its own each,
call once for each layer with its own key.

The normalisation of heads has no gain or bias here. A random sketch is a constant: no gradient
reaches it, so an optimiser leaves it as it is. A learned sketch is trained.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from privlearn.attention.arguments import Implementation, check_whole
from privlearn.attention.decoding import PolysketchState, init_state, polysketch_step
from privlearn.attention.polynomial import check_degree, polynomial_attention
from privlearn.attention.polysketch import polysketch_attention
from privlearn.attention.sketches import Kind, RandomSketch, Sketch, init_sketch


def _tokens_first(*arrays: Array) -> list[Array]:
    return [jnp.swapaxes(x, 1, 2) for x in arrays]


class PolynomialAttention(eqx.Module):
    """Exact causal polynomial attention, quadratic in the length.

    Parameters
    ----------
    degree : int, default 4
        Even.
    scale : float, optional
        1 / sqrt(H) if None.

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import PolynomialAttention
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 2, 10, 8))
    >>> PolynomialAttention(degree=4)(q, k, v).shape
    (1, 2, 10, 8)
    """

    degree: int = eqx.field(static=True, default=4)
    scale: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_degree(self.degree)

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix values (B, N, T, D) causally."""
        q, k, v = _tokens_first(q, k, v)
        out = polynomial_attention(q, k, v, degree=self.degree, scale=self.scale, is_causal=True)
        return jnp.swapaxes(out, 1, 2)


class PolysketchAttention(eqx.Module):
    """Causal polysketch attention with a sketch of its own; make one with `init`.

    Attributes
    ----------
    sketch : Sketch or None
        None is degree 2.
    block : int
    local_exact : bool
    scale : float or None
        See `polysketch_attention`.
    impl : {"auto", "xla", "pallas"}

    Examples
    --------
    >>> import jax
    >>> from privlearn.attention import PolysketchAttention
    >>> attention = PolysketchAttention.init(jax.random.key(0), head_size=8, r=4, block=16)
    >>> q, k, v = jax.random.normal(jax.random.key(1), (3, 1, 2, 40, 8))
    >>> attention(q, k, v).shape
    (1, 2, 40, 8)
    """

    sketch: Sketch | None
    block: int = eqx.field(static=True, default=256)
    local_exact: bool = eqx.field(static=True, default=True)
    scale: float | None = eqx.field(static=True, default=None)
    impl: Implementation = eqx.field(static=True, default="auto")

    def __check_init__(self) -> None:
        check_whole("block", self.block, 1)

    @classmethod
    def init(
        cls,
        key: Array,
        head_size: int,
        *,
        r: int = 32,
        degree: int = 4,
        kind: Kind = "gaussian",
        block: int = 256,
        local_exact: bool = True,
        scale: float | None = None,
        impl: Implementation = "auto",
    ) -> PolysketchAttention:
        """Draw the sketch; see `init_sketch` and `polysketch_attention` for the parameters."""
        sketch = init_sketch(key, head_size, r, degree=degree, kind=kind)
        return cls(sketch, block, local_exact, scale, impl)

    def _fixed(self) -> Sketch | None:
        if isinstance(self.sketch, RandomSketch):
            return jax.tree.map(jax.lax.stop_gradient, self.sketch)
        return self.sketch

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix values (B, N, T, D) causally; keys may have fewer heads than queries."""
        q, k, v = _tokens_first(q, k, v)
        out = polysketch_attention(
            q, k, v, sketch=self._fixed(), is_causal=True, block=self.block,
            local_exact=self.local_exact, scale=self.scale, impl=self.impl,
        )  # fmt: skip
        return jnp.swapaxes(out, 1, 2)

    def prefill(
        self, q: Array, k: Array, v: Array, state: PolysketchState | None = None
    ) -> tuple[Array, PolysketchState]:
        """The same, and what the text leaves behind for `step`."""
        q, k, v = _tokens_first(q, k, v)
        out, state = polysketch_attention(
            q, k, v, sketch=self._fixed(), is_causal=True, block=self.block,
            local_exact=self.local_exact, scale=self.scale, impl=self.impl,
            initial_state=state, return_state=True,
        )  # fmt: skip
        return jnp.swapaxes(out, 1, 2), state

    def init_state(
        self, batch: int, n_kv_heads: int, head_size: int, value_size: int | None = None
    ) -> PolysketchState:
        """The state of an empty text."""
        return init_state(
            batch, n_kv_heads, head_size, value_size, sketch=self.sketch, block=self.block,
            local_exact=self.local_exact,
        )  # fmt: skip

    def step(
        self, state: PolysketchState, q: Array, k: Array, v: Array
    ) -> tuple[Array, PolysketchState]:
        """One more token of each row: q, k, v of shape (B, N, 1, H)."""
        q, k, v = _tokens_first(q, k, v)
        out, state = polysketch_step(state, q, k, v, sketch=self._fixed(), scale=self.scale)
        return jnp.swapaxes(out, 1, 2), state
