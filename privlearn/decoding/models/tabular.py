"""Language models that are a table: small enough to enumerate every text, exact in every law."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.decoding.models.cache import (
    Cache,
    check_extend,
    extend_slots,
    new_positions,
    visible_slots,
    write_slots,
)
from privlearn.decoding.models.checks import check_length


class TabularLM(eqx.Module):
    """A Markov chain of order m: the law of the next token is a row of a table.

    The cache holds token ids. A token looks at the last m tokens *that it may see*, in the order of
    their positions, so trees of drafts work as in any model. Where fewer than m are visible the
    missing ones count as the extra token V ("before the text").

    Parameters
    ----------
    log_table : Array, shape (V+1,) * m + (V,)
        Log-probabilities: axes run from the oldest of the m tokens to the newest; -inf is zero
        probability. Its precision is that of the logits. See `from_probabilities`.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM, forward
    >>> model = TabularLM.random(jax.random.key(0), vocab_size=3, order=1)
    >>> model.vocab_size, model.order, model.context
    (3, 1, None)
    >>> bool(abs(jax.nn.softmax(forward(model, [[2]])[0, 0]) - model.law([2])).max() < 1e-6)
    True
    """

    log_table: Array

    def __check_init__(self) -> None:
        shape = self.log_table.shape
        if not shape or any(size != shape[-1] + 1 for size in shape[:-1]):
            raise ValueError(
                f"log_table: shape {shape}; must be (V+1,) * order + (V,), one row for every "
                "context, with V standing for 'before the text'"
            )

    @classmethod
    def from_probabilities(cls, table: ArrayLike) -> TabularLM:
        """A model from probabilities, shape (V+1,) * m + (V,), or (V,) * (m+1) if m is at least 1.

        In the second form the law after a missing token is that of the averaged table.

        Raises
        ------
        ValueError
            If a law has negative or non-finite entries or does not sum to 1 within 1e-5.

        Examples
        --------
        >>> from privlearn.decoding.models import TabularLM
        >>> TabularLM.from_probabilities([0.5, 0.25, 0.25]).order
        0
        >>> TabularLM.from_probabilities([[0.5, 0.5], [1.0, 0.0]]).law([1])
        array([1., 0.], dtype=float32)
        """
        laws = np.asarray(table)
        if not np.all(np.isfinite(laws)) or np.any(laws < 0):
            raise ValueError("table: probabilities must be finite and not negative")
        sums = laws.sum(axis=-1)
        if np.any(np.abs(sums - 1) > 1e-5):
            raise ValueError(
                f"table: a law sums to {float(sums.flat[np.argmax(np.abs(sums - 1))]):.6g}; "
                "each must sum to 1"
            )
        vocab, order = laws.shape[-1], laws.ndim - 1
        if order and laws.shape[:-1] == (vocab,) * order:
            for axis in range(order):
                laws = np.concatenate([laws, laws.mean(axis=axis, keepdims=True)], axis=axis)
        with np.errstate(divide="ignore"):
            return cls(jnp.asarray(np.log(laws)))

    @classmethod
    def random(
        cls,
        key: Array,
        vocab_size: int,
        order: int = 1,
        *,
        concentration: float = 1.0,
        zeros: float = 0.0,
    ) -> TabularLM:
        """A random model: Dirichlet laws, in which each token is impossible with chance ``zeros``.

        One token of each law, drawn at random, always stays possible.

        Examples
        --------
        >>> import jax
        >>> from privlearn.decoding.models import TabularLM
        >>> TabularLM.random(jax.random.key(1), vocab_size=2, order=3, zeros=0.3).log_table.shape
        (3, 3, 3, 2)
        """
        if vocab_size < 1 or order < 0:
            raise ValueError(
                f"vocab_size, order: {vocab_size}, {order}; must be at least 1 and at least 0"
            )
        shape = (vocab_size + 1,) * order + (vocab_size,)
        k_law, k_zero, k_keep = jax.random.split(key, 3)
        weights = jnp.log(jax.random.gamma(k_law, concentration, shape))
        keep = jax.nn.one_hot(jax.random.randint(k_keep, shape[:-1], 0, vocab_size), vocab_size)
        gone = jax.random.bernoulli(k_zero, zeros, shape) & (keep == 0)
        return cls(jax.nn.log_softmax(jnp.where(gone, -jnp.inf, weights), axis=-1))

    @classmethod
    def from_text(
        cls, tokens: ArrayLike, vocab_size: int, order: int = 1, *, smoothing: float = 0.1
    ) -> TabularLM:
        """An n-gram model: counts of ``order + 1`` tokens in a text plus ``smoothing`` everywhere.

        The cheapest draft there is. The law after a missing token is that of the shorter contexts
        summed over the missing ones.

        Examples
        --------
        >>> from privlearn.decoding.models import TabularLM
        >>> bigrams = TabularLM.from_text([0, 1, 0, 1, 0, 0], vocab_size=2, smoothing=0.5)
        >>> bigrams.law([1]).round(3)
        array([0.833, 0.167], dtype=float32)
        """
        ids = np.asarray(tokens)
        if ids.ndim != 1 or len(ids) <= order:
            raise ValueError(
                f"tokens: shape {ids.shape}; need one text of more than {order} tokens"
            )
        if not smoothing > 0:
            raise ValueError(f"smoothing: {smoothing}; must be positive")
        counts = np.zeros((vocab_size + 1,) * order + (vocab_size,), np.float32)
        grams = tuple(ids[i : len(ids) - order + i] for i in range(order + 1))
        np.add.at(counts, grams, 1.0)
        for axis in range(order):
            missing = (slice(None),) * axis + (vocab_size,)
            counts[missing] = counts.sum(axis=axis)
        counts += smoothing
        return cls(jnp.asarray(np.log(counts / counts.sum(axis=-1, keepdims=True))))

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.log_table.shape[-1])

    @property
    def order(self) -> int:
        """How many tokens back the law looks, m."""
        return self.log_table.ndim - 1

    @property
    def context(self) -> None:
        """None: a text may have any length."""
        return None

    def law(self, text: Sequence[int] | ArrayLike) -> np.ndarray:
        """Probabilities (V,) of the token after ``text``: the table's row, for enumeration."""
        recent = (
            [int(token) for token in np.asarray(text, int)[-self.order :]] if self.order else []
        )
        index = (self.vocab_size,) * (self.order - len(recent)) + tuple(recent)
        return np.exp(np.asarray(self.log_table)[index])

    def init_cache(self, batch: int, max_len: int, *, slack: int = 0) -> Cache:
        """An empty cache of token ids; see `CausalLM.init_cache`."""
        n_slots = check_length(max_len, slack, batch, None)
        return Cache(
            jnp.zeros((batch, 1, n_slots, 1), jnp.int32), jnp.zeros(batch, dtype=jnp.int32)
        )

    def extend(
        self,
        cache: Cache,
        tokens: ArrayLike,
        positions: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Cache]:
        """Read new tokens; see `CausalLM.extend`."""
        tokens = check_extend(cache, tokens, mask)
        n_rows, n_new = tokens.shape
        places = new_positions(cache, n_new, positions)
        cache = extend_slots(cache, tokens[:, None, :, None])
        if self.order == 0:
            return jnp.broadcast_to(self.log_table, (n_rows, n_new, self.vocab_size)), cache
        # Committed tokens stand at their own slot, new ones where `positions` says.
        slot = jnp.arange(cache.n_slots, dtype=jnp.int32)
        position = write_slots(
            jnp.broadcast_to(slot, (n_rows, cache.n_slots))[:, None, :, None],
            places[:, None, :, None],
            cache.length,
        )[:, 0, :, 0]
        seen = visible_slots(cache.length, cache.n_slots, n_new, mask)
        ranked = jnp.where(seen, position[:, None, :], -1)
        width = min(self.order, cache.n_slots)
        newest, at = jax.lax.top_k(ranked, width)
        ids = jnp.take_along_axis(cache.slots[:, :, :, 0], at, axis=2)
        ids = jnp.where(newest >= 0, ids, self.vocab_size)
        missing = jnp.full((n_rows, n_new, self.order - width), self.vocab_size)
        ids = jnp.concatenate([ids, missing], axis=-1)
        index = tuple(ids[..., self.order - 1 - i] for i in range(self.order))
        return self.log_table[index], cache
