"""Greedy drafts: the top K - 1 tokens of the draft as certain candidates, and one sample.

Hu et al., "Towards Optimal Multi-Draft Speculative Decoding", ICLR 2025, arXiv 2502.18779.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from privlearn.decoding.drafts import Proposal
from privlearn.decoding.verifiers.choice import normalised, or_else, ratio
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier


@dataclass(frozen=True)
class GreedyDraftsVerifier(WalkVerifier):
    """The optimal rule for greedy drafts.

    Siblings are the top K - 1 tokens T of q (ties: lowest token) and, last, one sample X of
    ``q~``, q without T renormalised. X is accepted with probability ``min(1, p(X) / q~(X))``; else
    the token comes from p on T and ``max(p - q~, 0)`` off T. A token of T counts as accepted, so
    the acceptance is ``p(T) + sum of min(p, q~) off T``, the optimum for these candidates. Where q
    has no mass off T the last sibling must be marked invalid; the token then comes from p.
    """

    name: ClassVar[str] = "greedy_drafts"
    proposals: ClassVar[tuple[Proposal, ...]] = ("greedy",)

    def selection(self, at: Candidates) -> Array:
        """Law of the next token given the candidates."""
        top = jnp.zeros(at.p.shape[0], bool).at[at.tokens].max(at.live & ~at.last)
        sampled = at.live & at.last
        token = at.tokens[jnp.argmax(sampled)]
        rest = normalised(jnp.where(top, 0, at.q))
        accept = jnp.minimum(ratio(at.p[token], rest[token]), 1)
        residual = jnp.where(top, at.p, jnp.maximum(at.p - rest, 0))
        law = ((1 - accept) * normalised(or_else(residual, at.p))).at[token].add(accept)
        return jnp.where(sampled.any(), law, at.p)
