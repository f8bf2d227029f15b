"""Match verification: draw the next token from the target, keep the draft that guessed it.

The rule that servers use for drafts without probabilities. It is exact for any tree whatever chose
its tokens, at the price of a smaller acceptance than the couplings: for a sampled draft ``sum p q``
instead of ``sum min(p, q)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from privlearn.decoding.drafts import PROPOSALS, Proposal
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier


@dataclass(frozen=True)
class MatchVerifier(WalkVerifier):
    """Draw ``Z ~ p``; while a child of the current node is Z, go there; emit the last Z.

    Legal for every draft: the text is drawn from the target itself, the draft only decides how much
    of it one step yields.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from privlearn.decoding.drafts import Draft
    >>> draft = Draft.chains(jnp.array([[[0, 1], [2, 2]]]))
    >>> greedy = jax.nn.one_hot(jnp.array([[2, 0, 0, 2, 1]]), 3)
    >>> out = MatchVerifier().verify(jax.random.key(0), draft, greedy)
    >>> out.path_slots.tolist(), out.extra_token.tolist()
    ([[0, 3, 4]], [1])
    """

    name: ClassVar[str] = "match"
    proposals: ClassVar[tuple[Proposal, ...]] = PROPOSALS

    def selection(self, at: Candidates) -> Array:
        """The target's own law."""
        return at.p


@dataclass(frozen=True)
class DeterministicVerifier(MatchVerifier):
    """For fixed candidates: accept candidate t with probability p(t), else p without t, next one.

    Given the candidates the emitted token has law p, so one draw from p decides all coins at once;
    the acceptance, ``sum of p over the distinct candidates``, is the largest possible. This is the
    sampling verification of lookahead decoding (Fu et al., ICML 2024, arXiv 2402.02057).

    Raises
    ------
    ValueError
        On a draft with probabilities, where couplings accept more: use 'token', 'block' or 'kseq'.
    """

    name: ClassVar[str] = "deterministic"
    proposals: ClassVar[tuple[Proposal, ...]] = ("deterministic",)

    def check_shape(self, draft) -> None:
        """Refuse probabilities too: they would be ignored."""
        super().check_shape(draft)
        if draft.q is not None:
            raise ValueError(
                "verifier 'deterministic' expects candidates without probabilities, got a draft "
                "with q; use 'token' or 'block' for a chain, 'kseq' for several, or drop q"
            )
