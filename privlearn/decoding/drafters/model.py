"""A small model drafts one chain (Leviathan et al., 2023; Chen et al., 2023)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from privlearn.decoding.drafters.protocol import Observation, Plan, check_count, plain_plan
from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.models import Cache, CausalLM, Prompts, advance, set_length
from privlearn.decoding.sampling import SamplingRule, law_or_nan
from privlearn.decoding.verifiers.choice import draw

__all__ = ["ModelDrafter", "begin", "read_prompts"]


class ModelDrafter(eqx.Module):
    """Sample gamma tokens from a draft model, one after another.

    The draft's cache may lag one token behind (after full acceptance it has not seen the last
    drafted token), so each iteration begins with two tokens, the last two of the text; what was
    there is written again, identically, and shapes stay static. gamma calls of the draft model an
    iteration. Prompts need two tokens.

    Parameters
    ----------
    model : CausalLM
        With the target's vocabulary.
    gamma : int, default 4
        Draft length.

    Examples
    --------
    >>> from privlearn.decoding.models import TabularLM
    >>> draft = TabularLM.random(jax.random.key(0), vocab_size=5)
    >>> ModelDrafter(draft, gamma=3).topology.parent
    (-1, 0, 1)
    """

    model: CausalLM
    gamma: int = eqx.field(static=True, default=4)

    def __check_init__(self) -> None:
        check_count("gamma", self.gamma, 1)

    @property
    def vocab_size(self) -> int:
        """That of the draft model."""
        return self.model.vocab_size

    @property
    def context(self) -> int | None:
        """That of the draft model."""
        return self.model.context

    @property
    def min_prompt(self) -> int:
        """Two: drafting begins with the last two tokens."""
        return 2

    @property
    def topology(self) -> Topology:
        """A chain of gamma tokens."""
        return Topology.chain(self.gamma)

    @property
    def n_extra(self) -> int:
        """0."""
        return 0

    def with_gamma(self, gamma: int) -> ModelDrafter:
        """The same model with another draft length."""
        return ModelDrafter(self.model, gamma)

    def init(self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int) -> Cache:
        """The draft model's cache, with the prompts read."""
        return read_prompts(self.model, prompts, max_len, slack=self.gamma + 2)

    def propose(
        self, keys: jax.Array, state: Cache, text: jax.Array, length: jax.Array, rule: SamplingRule
    ) -> tuple[Plan, Cache]:
        """Draft one chain; the cache comes back with gamma - 1 drafted tokens behind the text."""
        law, cache = begin(self.model, state, text, length, rule)
        coins = jax.vmap(lambda key: jax.random.uniform(key, (self.gamma,), law.dtype))(keys)
        token = jax.vmap(draw)(coins[:, 0], law)

        def step(carry, coins):
            cache, token = carry
            logits, cache = self.model.extend(cache, token[:, None])
            law = law_or_nan(rule, logits[:, 0])
            drawn = jax.vmap(draw)(coins, law)
            return (advance(cache, jnp.ones_like(length)), drawn), (drawn, law)

        (cache, _), (tokens, laws) = lax.scan(step, (cache, token), coins[:, 1:].T)
        tokens = jnp.concatenate([token[:, None], tokens.T], axis=1)
        laws = jnp.concatenate([law[:, None], jnp.moveaxis(laws, 0, 1)], axis=1)
        return plain_plan(Draft.chain(tokens, laws)), cache

    def observe(self, state: Cache, seen: Observation) -> Cache:
        """Nothing moves: the next iteration rewinds to the last two tokens."""
        return state


def read_prompts(model: CausalLM, prompts: Prompts, max_len: int, slack: int) -> Cache:
    """A cache in which the prompts have been read."""
    cache = model.init_cache(prompts.tokens.shape[0], max_len, slack=slack)
    _, cache = model.extend(cache, prompts.tokens)
    return set_length(cache, prompts.lengths)


def begin(
    model: CausalLM, cache: Cache, text: jax.Array, length: jax.Array, rule: SamplingRule
) -> tuple[jax.Array, Cache]:
    """Read the last two tokens of the text; the law (B, V) that follows it, and the cache."""
    last = jnp.take_along_axis(text, length[:, None] + jnp.arange(-2, 0), axis=1)
    logits, cache = model.extend(set_length(cache, length - 2), last)
    return law_or_nan(rule, logits[:, 1]), set_length(cache, length)
