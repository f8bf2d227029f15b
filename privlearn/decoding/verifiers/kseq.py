"""K-SEQ: the practical coupling of several i.i.d. drafts.

Sun, Suresh, Ro, Beirami, Jain and Yu, "SpecTr: Fast Speculative Decoding via Optimal Transport",
NeurIPS 2023, arXiv 2310.15141, algorithm 2 and theorem 2 (there p is the draft, q the target).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from privlearn.decoding.drafts import Proposal
from privlearn.decoding.verifiers.choice import normalised, ratio
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier, first_accepted

#: Halvings of [1, K]: 2^-30 of the interval, below the resolution of float32.
_HALVINGS = 30


class Division(NamedTuple):
    """The division factor of K-SEQ and what follows from it."""

    rho: Array  #: upper end of the bracket of rho*: the residual stays >= 0
    beta: Array  #: chance that one candidate passes
    acceptance: Array  #: chance that any of K passes


@dataclass(frozen=True)
class KSeqVerifier(WalkVerifier):
    """Accept candidate i with probability ``min(1, p(X_i) / (rho q(X_i)))``, at the best rho.

    ``rho*`` solves ``1 - (1 - beta)^K = rho beta`` with ``beta = sum min(q, p / rho)``; at each
    depth K is the number of drafts that still agree with the text, and rho* is found anew.
    Accepts at least ``1 - (1 - 1/K)^K`` of what any coupling can.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = division(jnp.array([0.1, 0.2, 0.7]), jnp.array([0.5, 0.3, 0.2]), 2)
    >>> [round(float(x), 4) for x in (found.rho, found.acceptance)]
    [1.6141, 0.6228]
    """

    name: ClassVar[str] = "kseq"
    proposals: ClassVar[tuple[Proposal, ...]] = ("independent", "deterministic")

    def selection(self, at: Candidates) -> Array:
        """Law of the next token given the candidates."""
        found = division(at.p, at.q, jnp.maximum(at.live.sum(), 1))
        accept = jnp.minimum(ratio(at.p, found.rho * at.q)[at.tokens], 1)
        return first_accepted(accept, at, kseq_residual(at.p, at.q, found))


def division(p: Array, q: Array, n_drafts: Array | int) -> Division:
    """rho* by bisection on [1, K]; K may be traced.

    ``1 - (1 - beta(rho))^K - rho beta(rho)`` does not increase in rho, is >= 0 at 1 and <= 0 at K.
    The upper end is returned, where the rule is exact whatever the number of halvings.
    """
    n = jnp.asarray(n_drafts, p.dtype)

    def passes(rho: Array) -> tuple[Array, Array]:
        beta = jnp.minimum(jnp.minimum(q, p / rho).sum(), 1)
        return beta, -jnp.expm1(n * jnp.log1p(-beta))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        beta, acceptance = passes(middle)
        above = acceptance <= middle * beta
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    one = jnp.ones((), p.dtype)
    rho = lax.fori_loop(0, _HALVINGS, halve, (one, n))[1]
    beta, acceptance = passes(rho)
    return Division(rho, beta, acceptance)


def kseq_residual(p: Array, q: Array, found: Division) -> Array:
    """Law of the token after K refusals, (V,); p where a refusal has probability 0."""
    share = found.acceptance / jnp.where(found.beta > 0, found.beta, 1)
    rest = jnp.maximum(p - jnp.minimum(q, p / found.rho) * share, 0)
    return jnp.where(rest.sum() > 0, normalised(rest), p)
