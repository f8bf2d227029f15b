"""No draft: one token a step, the plain loop in the same frame as all others."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from privlearn.decoding.drafters.protocol import Observation, Plan, plain_plan
from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.models import Prompts
from privlearn.decoding.sampling import SamplingRule

__all__ = ["NoDrafter"]


class NoDrafter(eqx.Module):
    """Plain autoregressive decoding: what ``gamma="auto"`` falls back to.

    Examples
    --------
    >>> NoDrafter().topology.size
    0
    """

    @property
    def vocab_size(self) -> None:
        """None: there is no model."""
        return None

    @property
    def context(self) -> None:
        """None: there is no limit."""
        return None

    @property
    def min_prompt(self) -> int:
        """A prompt of one token suffices."""
        return 1

    @property
    def topology(self) -> Topology:
        """The empty chain."""
        return Topology.chain(0)

    @property
    def n_extra(self) -> int:
        """0."""
        return 0

    def init(self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int) -> tuple:
        """Nothing to remember."""
        return ()

    def propose(
        self, keys: jax.Array, state: tuple, text: jax.Array, length: jax.Array, rule: SamplingRule
    ) -> tuple[Plan, tuple]:
        """An empty draft."""
        return plain_plan(Draft.chain(jnp.zeros((text.shape[0], 0), jnp.int32))), state

    def observe(self, state: tuple, seen: Observation) -> tuple:
        """Nothing to learn."""
        return state
