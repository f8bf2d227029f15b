"""What a drafter is to the decoding loop: three pure functions and a few constants.

Order within an iteration: ``propose`` (before the target's step), target step, verification,
emission, ``observe`` (after it). A drafter is a pytree of its weights, as a model is, so a weight
may change between two calls without recompilation; its state is a pytree of its own choosing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.models import Prompts
from privlearn.decoding.sampling import SamplingRule

__all__ = ["Drafter", "Observation", "Plan", "plain_plan"]


class Plan(NamedTuple):
    """What the target is to read in one step: the pending token, the draft, and perhaps more.

    Attributes
    ----------
    draft : Draft
        Verified and perhaps accepted: slots 1 .. M of the step.
    extra : jax.Array of int32, shape (B, E)
        Tokens that are read in the same step for the drafter's own use, never emitted (the window
        of lookahead decoding): slots M+1 .. M+E.
    extra_offset : np.ndarray of int, shape (E,)
        Their positions, counted from the pending token's.
    mask : np.ndarray of bool, shape (1+M+E, 1+M+E)
        Who sees whom, ancestor or self.
    """

    draft: Draft
    extra: jax.Array
    extra_offset: np.ndarray
    mask: np.ndarray


class Observation(NamedTuple):
    """What came of an iteration, for the drafter to learn from.

    Attributes
    ----------
    keys : jax.Array of keys, shape (B,)
        Fresh ones, a key per row.
    text : jax.Array of int32, shape (B, S)
        After emission.
    before : jax.Array of int32, shape (B,)
        Length of the text when the draft was made.
    emitted : jax.Array of int32, shape (B,)
        Tokens that were added; 0 for rows that are done.
    draft : Draft
    path : jax.Array of int32, shape (B, D+1)
        Accepted slots, beginning with 0.
    accepted : jax.Array of int32, shape (B,)
        tau, before the cut at an end-of-text token or at the length limit.
    law : jax.Array, shape (B, 1+M, V)
        The transformed target laws that were verified against.
    logits : jax.Array, shape (B, 1+M+E, V)
        Raw logits of the target's step.
    eos : jax.Array of int32, shape (n,)
        End-of-text tokens.
    """

    keys: jax.Array
    text: jax.Array
    before: jax.Array
    emitted: jax.Array
    draft: Draft
    path: jax.Array
    accepted: jax.Array
    law: jax.Array
    logits: jax.Array
    eos: jax.Array


class Drafter(Protocol):
    """The protocol. All methods are pure and batched; row b depends on row b alone.

    Attributes
    ----------
    vocab_size, context : int or None
        Of the draft's model; None where there is none, or no limit.
    min_prompt : int
        Shortest prompt that can be continued.
    topology : Topology
        Of every draft; static.
    n_extra : int
        E of `Plan`.
    """

    @property
    def vocab_size(self) -> int | None:
        """Of the draft's model."""
        ...

    @property
    def context(self) -> int | None:
        """Longest text that the draft's model can read."""
        ...

    @property
    def min_prompt(self) -> int:
        """Shortest prompt that can be continued."""
        ...

    @property
    def topology(self) -> Topology:
        """Of every draft."""
        ...

    @property
    def n_extra(self) -> int:
        """Tokens that are read for the drafter's own use."""
        ...

    def init(self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int) -> Any:
        """State for texts that begin with ``prompts`` and never exceed ``max_len`` tokens.

        ``vocab_size`` is the target's; ``keys`` has one key per row.
        """
        ...

    def propose(
        self, keys: jax.Array, state: Any, text: jax.Array, length: jax.Array, rule: SamplingRule
    ) -> tuple[Plan, Any]:
        """Draft for every row. ``text[b, length[b] - 1]`` is the pending token."""
        ...

    def observe(self, state: Any, seen: Observation) -> Any:
        """The state for the next iteration."""
        ...


def plain_plan(draft: Draft) -> Plan:
    """A plan with nothing but the draft."""
    rows = draft.tokens.shape[0]
    return Plan(
        draft,
        jnp.zeros((rows, 0), jnp.int32),
        np.zeros(0, np.int32),
        draft.topology.mask,
    )


def check_count(name: str, value: int, least: int) -> int:
    """Check a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    return int(value)
