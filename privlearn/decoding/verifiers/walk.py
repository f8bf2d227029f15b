"""What verifiers of trees share: at each depth draw the next token, follow the drafts that have it.

SpecTr's sequence-level rule (Sun et al., NeurIPS 2023, arXiv 2310.15141): the candidates of a depth
are the next tokens of all drafts that agree with the text so far; a selection rule draws a token Y
whose law is exactly the target's; the drafts with token Y survive. The step ends when none does.
A token drawn from a residual that happens to equal a candidate keeps that candidate alive:
membership counts, not which coin said yes.

A selection rule is written as the law of Y *given the candidates* (`WalkVerifier.selection`). The
step draws from that law with one uniform instead of tossing the rule's coins one by one: the same
law with less randomness, and what an exact enumeration integrates is what runs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from privlearn.decoding.drafts import Topology
from privlearn.decoding.verifiers.choice import draw, or_else
from privlearn.decoding.verifiers.protocol import Decision, Row, Verifier


class Candidates(NamedTuple):
    """What a selection rule sees at one node of the tree."""

    p: Array  #: (V,) law of the target
    q: Array  #: (V,) law of the draft
    tokens: Array  #: (W,) candidates in the order in which they were drawn
    live: Array  #: (W,) bool: which of them are there
    last: Array  #: (W,) bool: whether it is the last sibling of its node


@dataclass(frozen=True)
class WalkVerifier(Verifier):
    """A verifier that descends a tree by a selection rule."""

    @abstractmethod
    def selection(self, at: Candidates) -> Array:
        """Weights (V,) of the next token given the candidates, at least one of them live."""

    def n_coins(self, topology: Topology) -> int:
        """One draw a depth and one after the last."""
        return topology.height + 1

    def decide(self, coins: Array, row: Row, topology: Topology) -> Decision:
        """Descend until no draft has the drawn token."""

        def open_ended(state: tuple[Array, Array, Array, Array]) -> Array:
            return state[1].any()

        def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            depth, alive, _, _ = state
            last = (jnp.argmax(alive) - 1).astype(jnp.int32)
            weights, nodes, live = self.step_law(depth, alive, row, topology)
            token = draw(coins[depth], weights)
            follows = live & (row.tokens[nodes] == token) if row.tokens.shape[0] else live
            alive = jnp.zeros_like(alive).at[nodes + 1].max(follows)
            return depth + 1, alive, last, token

        slots = jnp.zeros(topology.size + 1, bool).at[0].set(True)
        start = jnp.int32(0), slots, jnp.int32(-1), jnp.int32(0)
        _, _, last, token = lax.while_loop(open_ended, step, start)
        return Decision(last, token)

    def step_law(
        self, depth: Array, alive: Array, row: Row, topology: Topology
    ) -> tuple[Array, Array, Array]:
        """Weights (V,) of the token after the alive slots, and the candidates that it may match.

        Parameters
        ----------
        depth : int
            0 at the pending token.
        alive : Array of bool, shape (M + 1,)
            Slots whose path is the text so far; all at this depth, at least one.

        Returns
        -------
        weights : Array, shape (V,)
        nodes : Array of int, shape (W,)
            Nodes of the next depth (0 where there is none).
        live : Array of bool, shape (W,)
            Which of them are candidates.
        """
        table, last_sibling = _level_table(topology)
        nodes, exists = jnp.asarray(np.maximum(table, 0))[depth], jnp.asarray(table >= 0)[depth]
        p = row.p[jnp.argmax(alive)]
        if topology.size == 0:
            return p, nodes, exists
        before = jnp.asarray(np.array(topology.parent) + 1)[nodes]
        live = exists & alive[before] & row.valid[nodes]
        if row.q is None:
            # Fixed candidates: accept t with probability p(t), else p without t, the next one.
            # Whatever the order, the emitted token has law p.
            return p, nodes, live
        q = row.q[nodes[jnp.argmax(live)]]
        found = Candidates(p, q, row.tokens[nodes], live, jnp.asarray(last_sibling)[nodes])
        weights = jnp.where(live.any(), or_else(self.selection(found), p), p)
        return weights, nodes, live


def _level_table(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    """Nodes by depth with an empty level below, (D + 1, W), -1 for none; and last siblings."""
    width = max((len(level) for level in topology.levels), default=1)
    table = np.full((topology.height + 1, width), -1)
    for depth, level in enumerate(topology.levels):
        table[depth, : len(level)] = level
    final = {before: node for node, before in enumerate(topology.parent)}
    last = np.array([final[b] == m for m, b in enumerate(topology.parent)] or [True])
    return table, last


def first_accepted(accept: Array, at: Candidates, residual: Array) -> Array:
    """Law (V,) of the first candidate whose coin says yes, or of a draw from the residual.

    Parameters
    ----------
    accept : Array, shape (W,)
        Chance that each candidate's coin says yes; ignored where it is not live.
    at : Candidates
    residual : Array, shape (V,)
        Law of the token if all coins say no.
    """
    accept = jnp.where(at.live, accept, 0)
    refused = jnp.cumprod(1 - accept)
    reached = jnp.concatenate([jnp.ones(1, accept.dtype), refused[:-1]])
    return (refused[-1] * residual).at[at.tokens].add(reached * accept)
