"""Prompt lookup: copy what followed the last tokens the last time they came.

Saxena (2023), "Prompt Lookup Decoding"; the drafter that servers call n-gram speculation. No model,
no probabilities: each drafted token counts as certain.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from privlearn.decoding.drafters.protocol import Observation, Plan, check_count, plain_plan
from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.models import Prompts
from privlearn.decoding.sampling import SamplingRule

__all__ = ["PromptLookup"]


class PromptLookup(eqx.Module):
    """Find the last n tokens earlier in the text, longest n first, and draft what followed.

    Where the text ends before gamma tokens have followed, the copy goes on with the copied tokens
    themselves: a text that repeats with a short period is drafted at full length.

    Parameters
    ----------
    gamma : int, default 4
        Draft length.
    n_max : int, default 3
        Longest match that is looked for.
    n_min : int, default 1
        Shortest match that is good enough; without one the row drafts nothing.
    prefer : {"recent", "first"}, default "recent"
        Which of several longest matches.

    Examples
    --------
    >>> from privlearn.decoding.sampling import SamplingRule
    >>> drafter = PromptLookup(gamma=3)
    >>> text = jnp.array([[7, 1, 2, 9, 1, 2, 0, 0]])
    >>> plan, _ = drafter.propose(None, (), text, jnp.array([6]), SamplingRule.of(0))
    >>> plan.draft.tokens.tolist()
    [[9, 1, 2]]
    """

    gamma: int = eqx.field(static=True, default=4)
    n_max: int = eqx.field(static=True, default=3)
    n_min: int = eqx.field(static=True, default=1)
    prefer: Literal["recent", "first"] = eqx.field(static=True, default="recent")

    def __check_init__(self) -> None:
        check_count("gamma", self.gamma, 1)
        check_count("n_min", self.n_min, 1)
        check_count("n_max", self.n_max, self.n_min)
        if self.prefer not in ("recent", "first"):
            raise ValueError(f"prefer must be 'recent' or 'first', got {self.prefer!r}.")

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
        """A chain of gamma tokens."""
        return Topology.chain(self.gamma)

    @property
    def n_extra(self) -> int:
        """0."""
        return 0

    def with_gamma(self, gamma: int) -> PromptLookup:
        """The same rule with another draft length."""
        return PromptLookup(gamma, self.n_max, self.n_min, self.prefer)

    def init(self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int) -> tuple:
        """The text is all that is needed."""
        return ()

    def propose(
        self, keys: jax.Array, state: tuple, text: jax.Array, length: jax.Array, rule: SamplingRule
    ) -> tuple[Plan, tuple]:
        """Draft for every row; a row without a match has no valid token."""
        tokens, found = jax.vmap(self._copy)(text, length)
        valid = jnp.broadcast_to(found[:, None], tokens.shape)
        return plain_plan(Draft.chain(tokens, valid=valid)), state

    def observe(self, state: tuple, seen: Observation) -> tuple:
        """Nothing to learn."""
        return state

    def _copy(self, text: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens (gamma,) after the best match in one text (S,), and whether there is a match."""
        place = jnp.arange(text.shape[0])  # of the last token of a match
        matching = place < length - 1
        n_matched = jnp.zeros_like(place)
        for back in range(self.n_max):
            wanted = text[jnp.maximum(length - 1 - back, 0)]
            same = (jnp.roll(text, back) == wanted) & (place >= back) & (length - 1 >= back)
            matching = matching & same
            n_matched = n_matched + matching
        order = place if self.prefer == "recent" else text.shape[0] - 1 - place
        best = jnp.argmax(n_matched * text.shape[0] + order)
        begin = best + 1
        period = jnp.maximum(length - begin, 1)
        tokens = text[begin + jnp.arange(self.gamma) % period]
        return tokens, n_matched[best] >= self.n_min
