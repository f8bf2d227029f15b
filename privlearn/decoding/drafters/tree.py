"""A small model drafts several candidates a position: K chains, or trees.

Drafts: K independent chains (Sun, Suresh, Ro, Beirami, Jain, Yu, 2023, arXiv 2310.15141), trees of
children drawn without replacement (Chen et al., 2024, Sequoia, arXiv 2402.12374), trees of the
likeliest k - 1 children and one sample (Hu et al., 2025, arXiv 2502.18779).
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privlearn.decoding.drafters.model import begin, read_prompts
from privlearn.decoding.drafters.protocol import Observation, Plan, check_count, plain_plan
from privlearn.decoding.drafts import Draft, Proposal, Topology
from privlearn.decoding.models import Cache, CausalLM, Prompts, commit
from privlearn.decoding.sampling import SamplingRule, draw, law_or_nan

__all__ = ["MultiDrafter"]


class MultiDrafter(eqx.Module):
    """Draft a tree from one cache per row, level by level.

    Each level is one call of the draft model that reads the tree so far behind the text, with the
    ancestor mask; the accepted path is then committed. So the cache is never copied K-fold, and
    no chain's keys can go stale. ``height`` calls an iteration, on 2, k, 2k, ... tokens.

    Parameters
    ----------
    model : CausalLM
        With the target's vocabulary.
    topology : Topology
        Use `MultiDrafter.chains` or `MultiDrafter.fan_out` to make it.
    proposal : {"independent", "without_replacement", "greedy"}
        How the children of a node are chosen.

    Examples
    --------
    >>> from privlearn.decoding.models import TabularLM
    >>> draft = TabularLM.random(jax.random.key(0), vocab_size=5)
    >>> MultiDrafter.chains(draft, n_drafts=2, gamma=3).topology.size
    6
    >>> MultiDrafter.fan_out(draft, (3, 2), proposal="greedy").topology.size
    9
    """

    model: CausalLM
    topology: Topology = eqx.field(static=True)
    proposal: Proposal = eqx.field(static=True, default="independent")

    def __check_init__(self) -> None:
        if self.topology.size == 0:
            raise ValueError("topology has no node; give at least one drafted token.")
        if self.proposal not in ("independent", "without_replacement", "greedy"):
            raise ValueError(
                "proposal must be 'independent', 'without_replacement' or 'greedy', "
                f"got {self.proposal!r}."
            )

    @classmethod
    def chains(cls, model: CausalLM, n_drafts: int = 4, gamma: int = 4) -> MultiDrafter:
        """K independent chains of gamma tokens."""
        check_count("n_drafts", n_drafts, 1)
        check_count("gamma", gamma, 1)
        return cls(model, Topology.chains(n_drafts, gamma), "independent")

    @classmethod
    def fan_out(
        cls, model: CausalLM, widths: Sequence[int], proposal: Proposal = "without_replacement"
    ) -> MultiDrafter:
        """A tree in which each node at depth d - 1 has ``widths[d - 1]`` children."""
        return cls(model, Topology.fan_out(widths), proposal)

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
    def n_extra(self) -> int:
        """0."""
        return 0

    def init(self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int) -> Cache:
        """The draft model's cache, with the prompts read."""
        slack = self.topology.size + 2
        return read_prompts(self.model, prompts, max_len, slack=slack)

    def propose(
        self, keys: jax.Array, state: Cache, text: jax.Array, length: jax.Array, rule: SamplingRule
    ) -> tuple[Plan, Cache]:
        """Draft one tree a row; the cache then holds all but its last level behind the text."""
        levels, parent = self.topology.levels, np.array(self.topology.parent)
        depth = np.array(self.topology.depth)
        law, cache = begin(self.model, state, text, length, rule)
        tokens = jnp.zeros((text.shape[0], self.topology.size), jnp.int32)
        laws = jnp.zeros((*tokens.shape, law.shape[-1]), law.dtype)
        valid = jnp.zeros(tokens.shape, bool)
        known = np.zeros(0, int)  # the nodes that the draft model has read, in its order
        parent_laws = {-1: law}
        for level in levels:
            for before in dict.fromkeys(parent[list(level)].tolist()):
                children = np.array([m for m in level if parent[m] == before])
                law = parent_laws[before]
                drawn, there = _children(keys, children, law, self.proposal)
                tokens = tokens.at[:, children].set(drawn)
                laws = laws.at[:, children].set(law[:, None])
                valid = valid.at[:, children].set(there)
            if level is levels[-1]:
                break
            known = np.concatenate([known, level]).astype(int)
            slots = known + 1
            logits, cache = self.model.extend(
                cache,
                tokens[:, known],
                length[:, None] - 1 + depth[known],
                self.topology.mask[np.ix_(slots, slots)],
            )
            fresh = {int(node): len(known) - len(level) + i for i, node in enumerate(level)}
            parent_laws = {
                node: law_or_nan(rule, logits[:, place]) for node, place in fresh.items()
            }
        draft = Draft.tree(tokens, self.topology, laws, proposal=self.proposal, valid=valid)
        return plain_plan(draft), cache

    def observe(self, state: Cache, seen: Observation) -> Cache:
        """Commit the accepted path: its keys and values move behind the text."""
        read = [node for level in self.topology.levels[:-1] for node in level]
        if not read:
            return state
        place = np.zeros(self.topology.size + 1, np.int32)
        place[np.array(read) + 1] = np.arange(len(read))
        inner = self.topology.height - 1
        kept = jnp.asarray(place)[seen.path[:, 1 : inner + 1]]
        # The text grew by the accepted tokens and one more; what was cut ends the row anyway.
        return commit(state, kept, jnp.minimum(seen.accepted, inner))


def _children(
    keys: jax.Array, nodes: np.ndarray, law: jax.Array, proposal: Proposal
) -> tuple[jax.Array, jax.Array]:
    """Tokens (B, k) of sibling nodes, and whether there was anything left to draw (B, k)."""

    def row(key: jax.Array, law: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jax.vmap(lambda node: jax.random.fold_in(key, node))(jnp.asarray(nodes))
        if proposal == "independent":
            return jax.vmap(draw, (0, None))(own, law), jnp.ones(len(nodes), bool)
        if proposal == "greedy":
            return _greedy_children(own, law)
        return _distinct_children(own, law)

    return jax.vmap(row)(keys, law)


def _distinct_children(keys: jax.Array, law: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One after another from what is left."""

    def step(left: jax.Array, key: jax.Array):
        token = draw(key, left)
        return left.at[token].set(0.0), (token, jnp.sum(left) > 0)

    return lax.scan(step, law, keys)[1]


def _greedy_children(keys: jax.Array, law: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The likeliest k - 1, the lowest token among ties, then a sample of the others."""
    n_top = min(keys.shape[0] - 1, law.shape[0])
    top = lax.top_k(law, n_top)[1]
    rest = law.at[top].set(0.0)
    missing = keys.shape[0] - 1 - n_top
    tokens = jnp.concatenate(
        [top, jnp.zeros(missing, top.dtype), draw(keys[-1], rest)[None]]
    ).astype(jnp.int32)
    there = jnp.concatenate(
        [jnp.ones(n_top, bool), jnp.zeros(missing, bool), (jnp.sum(rest) > 0)[None]]
    )
    return tokens, there
