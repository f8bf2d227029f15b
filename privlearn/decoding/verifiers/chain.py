"""What verifiers of a single chain share: coins, where they stop, and what is left to draw from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from privlearn.decoding.drafts import Topology
from privlearn.decoding.verifiers.choice import draw, normalised, or_else
from privlearn.decoding.verifiers.protocol import Decision, Row, Verifier


class Coins(NamedTuple):
    """Probabilities of the coins of a drafted chain."""

    accept: Array  #: (gamma,): chance that coin i says yes; 0 at invalid positions
    scale: Array  #: (gamma + 1,): weight of p in the residual if the step stops there


@dataclass(frozen=True)
class ChainVerifier(Verifier):
    """A verifier of one chain: gamma independent coins decide where to stop, one draw follows."""

    chain_only: ClassVar[bool] = True

    @abstractmethod
    def coins(self, row: Row) -> Coins:
        """Probabilities of the coins, given the drafted path."""

    @abstractmethod
    def stop(self, says_yes: Array) -> Array:
        """Tau from the coins' outcomes, (gamma,) bool."""

    @abstractmethod
    def stop_law(self, accept: Array) -> Array:
        """Law of tau, (gamma + 1,), from the coins' probabilities."""

    def leftover(self, row: Row, scale: Array, tau: Array) -> Array:
        """Weights (V,) of the token after tau accepted ones: ``max(scale p - q, 0)``.

        After a fully accepted draft there is no q to subtract: the target itself.
        """
        p = row.p[tau]
        if row.tokens.shape[0] == 0:
            return p
        at = jnp.minimum(tau, row.tokens.shape[0] - 1)
        drafted = (tau < row.tokens.shape[0]) & row.valid[at]
        residual = or_else(minus_draft(row, scale[tau], p, at), p)
        return jnp.where(drafted, residual, p)

    def n_coins(self, topology: Topology) -> int:
        """One coin a drafted token and one for the token after them."""
        return topology.size + 1

    def decide(self, coins: Array, row: Row, topology: Topology) -> Decision:
        """Toss the coins, stop, and draw from what is left."""
        chances = self.coins(row)
        tau = self.stop(coins[:-1] < chances.accept)
        return Decision(tau - 1, draw(coins[-1], self.leftover(row, chances.scale, tau)))

    def joint_law(self, row: Row) -> Array:
        """Law of (tau, extra token) given the drafted chain, (gamma + 1, V), coins integrated."""
        chances = self.coins(row)
        at = jnp.arange(row.tokens.shape[0] + 1)
        leftovers = jax.vmap(lambda tau: self.leftover(row, chances.scale, tau))(at)
        return self.stop_law(chances.accept)[:, None] * normalised(leftovers)


def at_token(laws: Array, tokens: Array) -> Array:
    """``laws[i, tokens[i]]``."""
    return jnp.take_along_axis(laws, tokens[:, None], axis=1)[:, 0]


def minus_draft(row: Row, scale: Array, p: Array, at: Array) -> Array:
    """``max(scale p - q_at, 0)``, with the one-hot q of a draft without probabilities."""
    if row.q is None:
        return jnp.where(jnp.arange(p.shape[0]) == row.tokens[at], 0, scale * p)
    return jnp.maximum(scale * p - row.q[at], 0)


def first_failure(says_yes: Array) -> Array:
    """Number of coins before the first that says no."""
    return jnp.cumprod(says_yes.astype(jnp.int32)).sum()


def first_failure_law(accept: Array) -> Array:
    """Law of `first_failure` for independent coins, (gamma + 1,)."""
    reached = jnp.concatenate([jnp.ones(1, accept.dtype), jnp.cumprod(accept)])
    return reached * jnp.concatenate([1 - accept, jnp.ones(1, accept.dtype)])


def last_success(says_yes: Array) -> Array:
    """Position (from 1) of the last coin that says yes, 0 for none."""
    return jnp.max(jnp.where(says_yes, jnp.arange(1, says_yes.shape[0] + 1), 0), initial=0)


def last_success_law(accept: Array) -> Array:
    """Law of `last_success` for independent coins, (gamma + 1,)."""
    later = jnp.concatenate([jnp.cumprod((1 - accept)[::-1])[::-1], jnp.ones(1, accept.dtype)])
    return later * jnp.concatenate([jnp.ones(1, accept.dtype), accept])
