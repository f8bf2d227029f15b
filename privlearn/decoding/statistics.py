"""What a decoding loop counts, and what the counts say.

Block efficiency and acceptance rate as Leviathan, Kalman and Matias (2023, arXiv 2211.17192)
define them; exact bookkeeping below, since several different averages go by these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.decoding.drafts import Draft

__all__ = ["DecodingStatistics", "Tally", "count_step", "empty_tally", "pooled"]


class Tally(NamedTuple):
    """Counts per row, kept inside the loop.

    Attributes
    ----------
    steps : (B,) int32
        Target calls while the row was alive.
    emitted : (B,) int32
        Tokens that are in the text: what end-of-text or the limit cut off does not count.
    tau : (B, D+1) int32
        Histogram of accepted draft tokens per call, before any cut.
    reached, accepted : (B, D) int32
        Calls that came to verify a drafted token at depth d, and that accepted one there.
    overlap : (B,) float32
        Sum over reached positions of the chance that a token there is accepted.
    """

    steps: jax.Array
    emitted: jax.Array
    tau: jax.Array
    reached: jax.Array
    accepted: jax.Array
    overlap: jax.Array


def empty_tally(rows: int, height: int) -> Tally:
    """Nothing counted yet."""
    return Tally(
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros((rows, height + 1), jnp.int32),
        jnp.zeros((rows, height), jnp.int32),
        jnp.zeros((rows, height), jnp.int32),
        jnp.zeros(rows, jnp.float32),
    )


def count_step(
    tally: Tally,
    draft: Draft,
    law: jax.Array,
    tokens: jax.Array,
    tau: jax.Array,
    emitted: jax.Array,
    alive: jax.Array,
) -> Tally:
    """Count one iteration.

    Parameters
    ----------
    tally : Tally
    draft : Draft
    law : jax.Array, shape (B, M+1, V)
        Target laws that the draft was verified against.
    tokens : jax.Array of int32, shape (B, D+1)
        Accepted tokens and the one after them.
    tau, emitted : jax.Array of int32, shape (B,)
    alive : jax.Array of bool, shape (B,)
        Rows that were not done before this iteration.
    """
    height = draft.topology.height
    depths = jnp.arange(height)
    accepted = alive[:, None] & (depths < tau[:, None])
    reached, overlap = _reached_overlap(draft, law, tokens, tau)
    reached = alive[:, None] & reached
    one_hot = tau[:, None] == jnp.arange(height + 1)
    return Tally(
        tally.steps + alive,
        tally.emitted + emitted,
        tally.tau + (alive[:, None] & one_hot),
        tally.reached + reached,
        tally.accepted + accepted,
        tally.overlap + jnp.sum(jnp.where(reached, overlap, 0), axis=1).astype(jnp.float32),
    )


def _reached_overlap(
    draft: Draft, law: jax.Array, tokens: jax.Array, tau: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether a draft stood at each depth behind the accepted text, and its overlap: (B, D) each.

    With draft laws: sum over x of min(p, q). Without: the target's mass on the distinct candidates.
    """
    topology = draft.topology
    rows, height = tau.shape[0], topology.height
    if height == 0:
        return jnp.zeros((rows, 0), bool), jnp.zeros((rows, 0))
    depth = np.array(topology.depth)
    paths = topology.paths  # (M, D)
    # Node m is a candidate at its depth if the tokens before it are those that were accepted.
    before = np.maximum(paths, 0)
    agree = draft.tokens[:, before] == tokens[:, None, :height]
    there = draft.valid[:, before] & agree
    inner = np.arange(height)[None, :] < depth[:, None] - 1
    candidate = draft.valid & jnp.all(there | ~inner, axis=2) & (depth - 1 <= tau[:, None])
    if topology.is_chain and draft.q is not None:  # nothing to look up, the common case
        return candidate, jnp.sum(jnp.minimum(law[:, :-1], draft.q), axis=-1)
    at_depth = candidate[:, None, :] & (depth == np.arange(1, height + 1)[:, None])  # (B, D, M)
    parents = np.array(topology.parent) + 1
    first = jnp.argmax(at_depth, axis=2)  # (B, D)
    target = jnp.take_along_axis(law, jnp.asarray(parents)[first][..., None], axis=1)
    if draft.q is not None:
        q = jnp.take_along_axis(draft.q, first[..., None], axis=1)
        overlap = jnp.sum(jnp.minimum(target, q), axis=-1)
    else:
        same = draft.tokens[:, :, None] == draft.tokens[:, None, :]
        earlier = np.tril(np.ones((topology.size, topology.size), bool), -1)
        repeated = jnp.any(same[:, None] & earlier & at_depth[:, :, None, :], axis=3)
        mass = jnp.take_along_axis(
            target, jnp.broadcast_to(draft.tokens[:, None], at_depth.shape), axis=2
        )
        overlap = jnp.sum(jnp.where(at_depth & ~repeated, mass, 0), axis=2)
    return jnp.any(at_depth, axis=2), overlap


@dataclass(frozen=True)
class DecodingStatistics:
    """What was counted, per row, and the rates that follow; all arrays are NumPy's.

    Attributes
    ----------
    steps : array of int, shape (B,)
        Target calls of each row while it was alive; the reading of the prompt does not count.
    emitted : array of int, shape (B,)
        New tokens of each row.
    tau : array of int, shape (B, D+1)
        Calls by the number of accepted draft tokens.
    reached, accepted : array of int, shape (B, D)
        Calls that verified, and that accepted, a token at draft position d = 1 .. D.
    overlap : array of float, shape (B,)
        Sum of acceptance chances over reached positions.
    iterations : int
        Iterations of the batch: the steps of its slowest row.
    """

    steps: np.ndarray
    emitted: np.ndarray
    tau: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray
    overlap: np.ndarray
    iterations: int

    @classmethod
    def of(cls, tally: Tally, iterations: int) -> DecodingStatistics:
        """From the loop's counts."""
        return cls(
            **{name: np.asarray(part) for name, part in tally._asdict().items()},
            iterations=int(iterations),
        )

    @property
    def block_efficiency(self) -> float:
        """New tokens per target call, over all rows; NaN if nothing was emitted."""
        return _rate(self.emitted.sum(), self.steps.sum())

    @property
    def acceptance_rate(self) -> float:
        """Mean chance of acceptance, over positions whose prefix was accepted.

        For a chain: the mean of sum_x min(p_i(x), q_i(x)) over i = 1 .. min(tau + 1, gamma).
        Averaging over all gamma positions, also the unreached, would be another, biased number.
        NaN if nothing was drafted.
        """
        return _rate(self.overlap.sum(), self.reached.sum())

    @property
    def acceptance_by_position(self) -> np.ndarray:
        """Share of reached draft positions 1 .. D that were accepted; NaN where none was."""
        reached = self.reached.sum(axis=0)
        accepted = self.accepted.sum(axis=0)
        return np.where(reached > 0, accepted / np.maximum(reached, 1), np.nan)

    @property
    def tau_histogram(self) -> np.ndarray:
        """Target calls by accepted draft tokens, 0 .. D, summed over rows."""
        return self.tau.sum(axis=0)

    @property
    def straggler_efficiency(self) -> float:
        """New tokens per row and iteration: what the batch gets, as rows wait for the slowest."""
        return _rate(self.emitted.sum(), len(self.emitted) * self.iterations)


def pooled(parts: Sequence[DecodingStatistics]) -> DecodingStatistics:
    """Several runs of drafts of one shape as one: their rows one after another."""
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Tally._fields
    }
    return DecodingStatistics(**joined, iterations=sum(part.iterations for part in parts))


def _rate(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
