"""Block verification: joint ratios of the drafted path, the longest accepted prefix wins.

Sun, Mendlovic, Leviathan, Aharoni, Ro, Beirami and Suresh, "Block Verification Accelerates
Speculative Decoding", ICLR 2025, arXiv 2403.10444, algorithm 2. Same inputs and cost as token
verification, and never fewer accepted tokens in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from privlearn.decoding.verifiers.chain import (
    ChainVerifier,
    Coins,
    at_token,
    last_success,
    last_success_law,
)
from privlearn.decoding.verifiers.choice import ratio
from privlearn.decoding.verifiers.protocol import Row


@dataclass(frozen=True)
class BlockVerifier(ChainVerifier):
    """Toss a coin for each prefix of the draft and keep the longest that says yes.

    With ``P_0 = 1``, ``P_i = min(P_{i-1} p_i(X_i) / q_i(X_i), 1)`` and
    ``S_i = sum over x of max(P_i p_{i+1}(x) - q_{i+1}(x), 0)``, coin i says yes with probability
    ``S_i / (S_i + 1 - P_i)`` (``P_gamma`` for the last), and after tau accepted tokens the next is
    drawn from ``max(P_tau p_{tau+1} - q_{tau+1}, 0)``, renormalised (from p after full acceptance).
    All coins count: stopping at the first that says no is a known mistake and biased.

    A draft without probabilities is legal and gives the same number of accepted tokens in
    expectation as token verification: its ratios never exceed one.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from privlearn.decoding.drafts import Draft
    >>> p, q = jnp.array([1 / 3, 2 / 3]), jnp.array([2 / 3, 1 / 3])
    >>> tokens = jax.random.categorical(jax.random.key(1), jnp.log(q), shape=(10_000, 2))
    >>> draft = Draft.chain(tokens, jnp.tile(q, (10_000, 2, 1)))
    >>> out = BlockVerifier().verify(jax.random.key(0), draft, jnp.tile(p, (10_000, 3, 1)))
    >>> bool(abs(out.n_accepted.mean() - 11 / 9) < 0.04)
    True
    """

    name: ClassVar[str] = "block"

    def coins(self, row: Row) -> Coins:
        """``h_i`` and ``P_i``."""
        gamma = row.tokens.shape[0]
        found = at_token(row.p[:-1], row.tokens)
        drafted = jnp.ones_like(found) if row.q is None else at_token(row.q, row.tokens)
        joint = running_ratio(jnp.log(ratio(found, drafted)))
        if gamma == 0:
            return Coins(found, jnp.ones(1, found.dtype))
        surplus = residual_mass(row, jnp.exp(joint))
        below = -jnp.expm1(joint[:-1])
        total = surplus + below
        accept = jnp.where(total > 0, surplus / jnp.where(total > 0, total, 1), 1)
        accept = jnp.append(accept, jnp.exp(joint[-1]))
        # The last token that a row drafted has no next q: its coin is P itself.
        final = row.valid & ~jnp.append(row.valid[1:], False)
        accept = jnp.where(final, jnp.exp(joint), accept)
        scale = jnp.concatenate([jnp.ones(1, found.dtype), jnp.exp(joint)])
        return Coins(jnp.where(row.valid, accept, 0), scale)

    def stop(self, says_yes: Array) -> Array:
        """The longest prefix whose coin says yes."""
        return last_success(says_yes)

    def stop_law(self, accept: Array) -> Array:
        """Law of the last success."""
        return last_success_law(accept)


def running_ratio(log_ratios: Array) -> Array:
    """``log P_i`` with ``P_i = min(P_{i-1} r_i, 1)``, from ``log r_i``; -inf stays -inf."""

    def step(before: Array, log_ratio: Array) -> tuple[Array, Array]:
        after = jnp.where(jnp.isneginf(before), before, jnp.minimum(before + log_ratio, 0))
        return after, after

    return lax.scan(step, jnp.zeros((), log_ratios.dtype), log_ratios)[1]


def residual_mass(row: Row, joint: Array) -> Array:
    """``S_i`` for i = 1..gamma - 1: what ``P_i`` times the *next* p has above the *next* q."""
    scale = joint[:-1, None]
    if row.q is None:
        # P p(x) <= 1 = q at the next drafted token, and q = 0 elsewhere.
        following = at_token(row.p[1:-1], row.tokens[1:])
        return joint[:-1] * (row.p[1:-1].sum(axis=-1) - following)
    return jnp.maximum(scale * row.p[1:-1] - row.q[1:], 0).sum(axis=-1)
