"""K-SEQ: the practical coupling of several i.i.d. drafts.

Sun, Suresh, Ro, Beirami, Jain and Yu, "SpecTr: Fast Speculative Decoding via Optimal Transport",
NeurIPS 2023, arXiv 2310.15141, algorithm 2 and theorem 2 (there p is the draft, q the target).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array, lax

from privlearn.decoding.drafts import Proposal
from privlearn.decoding.verifiers.choice import normalised, ratio
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier, first_accepted

#: Most passes over the vocabulary in search of rho*; five are usual.
_PASSES = 16


#: Pass, next rho, bracket of rho*, whether the upper end is close enough.
_Search: TypeAlias = tuple[Array, Array, Array, Array, Array]


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
    """rho* on [1, K] by Newton steps within a bracket; K may be traced.

    ``f(rho) = 1 - (1 - beta(rho))^K - rho beta(rho)`` does not increase in rho, is >= 0 at 1 and
    <= 0 at K. Between two values of p / q it is smooth, and one pass over the vocabulary gives it
    with its slope; about five passes from rho = K on reach rounding. What is returned is the
    smallest rho at which f <= 0 was seen: there the rule is exact, however far Newton came.
    """
    n = jnp.asarray(n_drafts, p.dtype)
    one = jnp.ones((), p.dtype)
    resolution = 4 * jnp.finfo(p.dtype).eps

    def step(state: _Search) -> _Search:
        i, x, low, high, _ = state
        tight = x * q < p
        kept = jnp.where(tight, q, 0).sum()  # what q passes whatever its draw
        shared = jnp.where(tight, 0, p).sum() / x
        beta = jnp.minimum(kept + shared, 1)
        refused = jnp.log1p(-beta)
        excess = -jnp.expm1(n * refused) - x * beta
        slope = -n * jnp.exp((n - 1) * refused) * shared / x - kept
        root = jnp.where(slope < 0, x - excess / jnp.where(slope < 0, slope, 1), x)
        exact = excess <= 0
        low, high = jnp.where(exact, low, x), jnp.where(exact, x, high)
        # Aim a little above the root, further with every pass: rounding must not keep us below it.
        slack = resolution * x * 2.0**i
        aim = root + slack
        inside = (low < aim) & (aim < high)
        done = exact & (x - root <= 2 * slack)
        return i + 1, jnp.where(inside, aim, (low + high) / 2), low, high, done

    def more(state: _Search) -> Array:
        return (state[0] < _PASSES) & ~state[-1]

    start: _Search = (jnp.zeros((), p.dtype), n, one, n, n <= 1)
    rho = lax.while_loop(more, step, start)[3]
    beta = jnp.minimum(jnp.minimum(q, p / rho).sum(), 1)
    return Division(rho, beta, -jnp.expm1(n * jnp.log1p(-beta)))


def kseq_residual(p: Array, q: Array, found: Division) -> Array:
    """Law of the token after K refusals, (V,); p where a refusal has probability 0."""
    share = found.acceptance / jnp.where(found.beta > 0, found.beta, 1)
    rest = jnp.maximum(p - jnp.minimum(q, p / found.rho) * share, 0)
    return jnp.where(rest.sum() > 0, normalised(rest), p)
