"""Recursive rejection sampling: test the candidates one after another against a shrinking target.

With replacement: SpecInfer (Miao et al., ASPLOS 2024, arXiv 2305.09781). Without replacement:
Sequoia (Chen et al., 2024, arXiv 2402.12374), also used with EAGLE's trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from privlearn.decoding.drafts import Proposal
from privlearn.decoding.verifiers.choice import normalised, or_else, ratio
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier


@dataclass(frozen=True)
class RecursiveVerifier(WalkVerifier):
    """Accept candidate i with probability ``min(1, p_i(X_i) / q(X_i))``.

    After a refusal ``p_{i+1}`` is ``max(p_i - q, 0)``, renormalised. For candidates drawn
    independently from q.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> at = Candidates(jnp.array([0.1, 0.2, 0.7]), jnp.array([0.5, 0.3, 0.2]),
    ...                 jnp.array([0, 1]), jnp.ones(2, bool), jnp.array([False, True]))
    >>> RecursiveVerifier().selection(at).tolist()
    [0.200..., 0.0, 0.800...]
    """

    name: ClassVar[str] = "rrs"
    proposals: ClassVar[tuple[Proposal, ...]] = ("independent", "deterministic")

    def selection(self, at: Candidates) -> Array:
        """Law of the next token given the candidates."""
        return recursive_law(at, replace=True)


@dataclass(frozen=True)
class RecursiveWithoutReplacementVerifier(WalkVerifier):
    """Recursive rejection for siblings drawn without replacement.

    Candidate i was drawn from q without the earlier ones, renormalised; it is tested against that
    law, which also leaves the target. Needs a tree whose nodes draw their own children; several
    separate chains drawn without replacement at their first token would be biased later.
    """

    name: ClassVar[str] = "rrs_wor"
    proposals: ClassVar[tuple[Proposal, ...]] = ("without_replacement",)

    def selection(self, at: Candidates) -> Array:
        """Law of the next token given the candidates."""
        return recursive_law(at, replace=False)


def recursive_law(at: Candidates, *, replace: bool) -> Array:
    """Law (V,) of the emitted token given the candidates, coins integrated."""
    order = jnp.argsort(~at.live, stable=True)

    def test(i: Array, state: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        law, reached, p, q = state
        token = at.tokens[order[i]]
        accept = jnp.minimum(ratio(p[token], q[token]), 1)
        law = law.at[token].add(reached * accept)
        p = normalised(or_else(jnp.maximum(p - q, 0), p))
        if not replace:
            q = normalised(q.at[token].set(0))
        return law, reached * (1 - accept), p, q

    start = jnp.zeros_like(at.p), jnp.ones((), at.p.dtype), at.p, at.q
    law, reached, p, _ = lax.fori_loop(0, at.live.sum(), test, start)
    return law + reached * p
