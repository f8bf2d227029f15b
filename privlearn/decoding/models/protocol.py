"""What a causal language model must offer to be decoded: two methods, and two facts.

A model is a pytree of its weights with pure methods (an equinox module), so it goes through
`jax.jit`, `jax.grad` and `jax.vmap` as an argument. A step of decoding is::

    logits, cache = model.extend(cache, tokens, positions, mask)   # writes, keeps nothing
    cache = commit(cache, slots, n)                                # keeps n of the written tokens

The invariant that avoids most bugs: **exactly one emitted token of each row is pending**, the last
of the text, not yet in the cache. `prefill` leaves the last token of the prompt pending; each step
feeds the pending token first, so the logits at place 0 are the law of the next token.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.decoding.models.cache import Cache, set_length


@runtime_checkable
class CausalLM(Protocol):
    """A causal language model with a cache.

    Attributes
    ----------
    vocab_size : int
        V: tokens are 0 .. V-1.
    context : int or None
        The longest text that the model can read; None if there is no limit.
    """

    @property
    def vocab_size(self) -> int:
        """V: tokens are 0 .. V-1."""
        ...

    @property
    def context(self) -> int | None:
        """The longest text that the model can read; None if there is no limit."""
        ...

    def init_cache(self, batch: int, max_len: int, *, slack: int = 0) -> Cache:
        """An empty cache for ``batch`` texts of at most ``max_len`` tokens.

        ``slack`` more slots hold drafts in flight: at least the widest step. Raises ValueError if
        ``max_len`` exceeds the context.
        """
        ...

    def extend(
        self,
        cache: Cache,
        tokens: ArrayLike,
        positions: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Cache]:
        """Read T new tokens behind the committed text of each row.

        Parameters
        ----------
        cache : Cache
        tokens : array of int, shape (B, T)
        positions : array of int, shape (T,) or (B, T), optional
            Place of each token in its text; ``length + 0..T-1`` if None. In a tree of drafts a
            token's position is that of its parent plus one.
        mask : array of bool, shape (T, T) or (B, T, T), optional
            Ancestor-or-self: ``mask[t, s]`` says that new token t looks at new token s. Causal if
            None. All committed tokens are seen by all.

        Returns
        -------
        logits : Array, shape (B, T, V)
            ``logits[:, t]`` is the law of what follows token t; -inf where impossible.
        cache : Cache
            With the tokens written at slots ``length .. length+T-1`` and the length unchanged.
        """
        ...


Model = TypeVar("Model", bound=CausalLM)


def prefill(model: CausalLM, cache: Cache, tokens: ArrayLike, lengths: ArrayLike) -> Cache:
    """Read the prompts, all but their last token, which stays pending.

    Call it under ``jit``: the logits are then never computed.

    Parameters
    ----------
    model : CausalLM
    cache : Cache
        Empty, of B rows.
    tokens : array of int, shape (B, P)
        Prompts padded on the right with any valid token.
    lengths : array of int, shape (B,)
        True length of each prompt, at least 1.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM, prefill
    >>> model = TabularLM.random(jax.random.key(0), vocab_size=3, order=2)
    >>> prefill(model, model.init_cache(2, 8), [[0, 1, 2], [2, 0, 0]], [3, 1]).length
    Array([2, 0], dtype=int32)
    """
    _, cache = model.extend(cache, tokens)
    return set_length(cache, jnp.asarray(lengths, jnp.int32) - 1)


def forward(model: CausalLM, tokens: ArrayLike) -> Array:
    """Logits (B, T, V) of whole texts (B, T), through an empty cache: the slow, plain reference.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM, forward
    >>> model = TabularLM.random(jax.random.key(0), vocab_size=3, order=2)
    >>> forward(model, [[0, 1, 2, 0]]).shape
    (1, 4, 3)
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2:
        raise ValueError(f"tokens: shape {tokens.shape}; whole texts must be (B, T)")
    return model.extend(model.init_cache(*tokens.shape), tokens)[0]
