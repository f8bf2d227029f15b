"""Remember where the target corrected the draft, and what it would have said: labels for free.

Used by online speculative decoding (Liu, Hu, Bailis, Cheung, Deng, Stoica, Zhang, 2024, arXiv
2310.07177): at each first rejected position the target's law is known, whatever comes of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from privlearn.decoding.drafters.protocol import Drafter, Observation, Plan
from privlearn.decoding.drafts import Topology
from privlearn.decoding.models import Prompts
from privlearn.decoding.sampling import SamplingRule

__all__ = ["Record", "RecordingDrafter"]


class Record(NamedTuple):
    """Rejected positions of each row, in order.

    Attributes
    ----------
    position : jax.Array of int32, shape (B, R)
        Place in the text of the token that was rejected; the law is that of this token.
    law : jax.Array, shape (B, R, V)
        The target's transformed law there.
    n : jax.Array of int32, shape (B,)
        How many of the R there are.
    """

    position: jax.Array
    law: jax.Array
    n: jax.Array


class RecordingDrafter(eqx.Module):
    """Any chain drafter, with a record of its rejections; drafts are those of ``inner``.

    Parameters
    ----------
    inner : Drafter
    capacity : int
        R: rejections that are kept of a text; at most one comes with each new token.
    """

    inner: Drafter
    capacity: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.inner.topology.is_chain:
            raise ValueError("inner must draft chains: a tree has no one rejected position.")

    @property
    def vocab_size(self) -> int | None:
        """That of the inner drafter."""
        return self.inner.vocab_size

    @property
    def context(self) -> int | None:
        """That of the inner drafter."""
        return self.inner.context

    @property
    def min_prompt(self) -> int:
        """That of the inner drafter."""
        return self.inner.min_prompt

    @property
    def topology(self) -> Topology:
        """That of the inner drafter."""
        return self.inner.topology

    @property
    def n_extra(self) -> int:
        """That of the inner drafter."""
        return self.inner.n_extra

    def init(
        self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int
    ) -> tuple[Any, Record]:
        """The inner state and an empty record."""
        rows = prompts.tokens.shape[0]
        record = Record(
            jnp.zeros((rows, self.capacity), jnp.int32),
            jnp.zeros((rows, self.capacity, vocab_size)),
            jnp.zeros(rows, jnp.int32),
        )
        return self.inner.init(keys, prompts, max_len, vocab_size), record

    def propose(
        self,
        keys: jax.Array,
        state: tuple[Any, Record],
        text: jax.Array,
        length: jax.Array,
        rule: SamplingRule,
    ) -> tuple[Plan, tuple[Any, Record]]:
        """The inner draft."""
        plan, inner = self.inner.propose(keys, state[0], text, length, rule)
        return plan, (inner, state[1])

    def observe(self, state: tuple[Any, Record], seen: Observation) -> tuple[Any, Record]:
        """Record the rejection, if there was one and the corrected token is in the text."""
        inner, record = state
        tau, gamma = seen.accepted, self.topology.size
        drafted = jnp.take_along_axis(
            seen.draft.valid, jnp.minimum(tau, gamma - 1)[:, None], axis=1
        )[:, 0]
        rejected = (tau < gamma) & drafted & (seen.emitted == tau + 1)
        rejected = rejected & (record.n < self.capacity)
        law = jnp.take_along_axis(seen.law, tau[:, None, None], axis=1)[:, 0]

        def row(position, laws, count, here, place, law):
            at = jnp.minimum(count, self.capacity - 1)
            return (
                position.at[at].set(jnp.where(here, place, position[at])),
                laws.at[at].set(jnp.where(here, law, laws[at])),
                count + here,
            )

        new = jax.vmap(row)(*record, rejected, seen.before + tau, law)
        return self.inner.observe(inner, seen), Record(*new)
