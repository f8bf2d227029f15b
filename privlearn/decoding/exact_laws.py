"""The exact law of what a verifier of this package emits: coins integrated, nothing sampled.

The functions that compute probabilities here are the verifier's own (``joint_law`` of chains,
``step_law`` of trees): what is integrated is what runs.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.decoding.drafts import Topology
from privlearn.decoding.enumeration import AllDrafts, TextLaw
from privlearn.decoding.verifiers.chain import ChainVerifier
from privlearn.decoding.verifiers.choice import normalised
from privlearn.decoding.verifiers.protocol import Row, Verifier, reachable
from privlearn.decoding.verifiers.walk import WalkVerifier
from privlearn.simulate.precision import float64


def emitted_law(verifier: Verifier, drafts: AllDrafts) -> TextLaw:
    """Law of (accepted tokens, extra token) over all drafts of a world, in float64.

    Raises
    ------
    ValueError
        If the drafts are illegal for the verifier.
    TypeError
        If the verifier is neither a `ChainVerifier` nor a `WalkVerifier`.
    """
    with float64():
        row = Row(
            jnp.asarray(drafts.tokens),
            reachable(jnp.asarray(drafts.valid), drafts.topology),
            None if drafts.q is None else jnp.asarray(drafts.q),
            jnp.asarray(drafts.p),
        )
        if isinstance(verifier, ChainVerifier):
            return _chain_law(verifier, drafts, np.asarray(_joint(verifier)(row)))
        if isinstance(verifier, WalkVerifier):
            return _walk_law(verifier, drafts, row)
    raise TypeError(f"no exact law for {verifier!r}: give check_lossless a function instead")


@lru_cache(maxsize=64)
def _joint(verifier: ChainVerifier):
    return jax.jit(jax.vmap(verifier.joint_law))


@lru_cache(maxsize=64)
def _steps(verifier: WalkVerifier, topology: Topology):
    def law(depth, alive, row):
        weights, nodes, live = verifier.step_law(depth, alive, row, topology)
        return normalised(weights), nodes, live

    over_groups = jax.vmap(law, in_axes=(None, 0, None))
    return jax.jit(jax.vmap(over_groups, in_axes=(None, 0, 0)))


def _codes(tokens: np.ndarray, size: int) -> np.ndarray:
    """Codes of all prefixes of chains, (N, gamma + 1)."""
    codes = np.zeros((len(tokens), tokens.shape[1] + 1), dtype=np.int64)
    for i in range(tokens.shape[1]):
        codes[:, i + 1] = codes[:, i] * size + tokens[:, i]
    return codes


def _chain_law(verifier: ChainVerifier, drafts: AllDrafts, joint: np.ndarray) -> TextLaw:
    size = drafts.p.shape[-1]
    codes = _codes(drafts.tokens, size)
    mass = drafts.weights[:, None, None] * np.where(drafts.weights[:, None, None] > 0, joint, 0)
    emitted = []
    for tau in range(joint.shape[1]):
        table = np.zeros((size**tau, size))
        np.add.at(table, codes[:, tau], mass[:, tau])
        emitted.append(table)
    return TextLaw(tuple(emitted))


def _walk_law(verifier: WalkVerifier, drafts: AllDrafts, row: Row) -> TextLaw:
    topology, size = drafts.topology, drafts.p.shape[-1]
    n, steps = len(drafts.tokens), _steps(verifier, topology)
    codes = np.zeros((n, topology.size + 1), dtype=np.int64)
    for m, before in enumerate(topology.parent):
        codes[:, m + 1] = codes[:, before + 1] * size + drafts.tokens[:, m]
    valid = np.asarray(row.valid)
    width = max((len(level) for level in topology.levels), default=1)
    # A group: all slots of a depth with the same text; known by its first slot.
    group_slots = [0]
    reach = np.ones((n, 1))  # probability that the step gets to each group
    emitted = []
    for depth in range(topology.height + 1):
        slots = np.array(group_slots)
        same = np.zeros((n, len(slots), topology.size + 1), dtype=bool)
        same[:, :, slots] = codes[:, slots][:, :, None] == codes[:, slots][:, None, :]
        if depth > 0:
            same[:, :, slots] &= valid[:, slots - 1][:, None, :]
        # One shape for all depths, so that one program serves them.
        padded = np.zeros((n, width, topology.size + 1), dtype=bool)
        padded[:, : len(slots)] = same
        found = steps(jnp.int32(depth), jnp.asarray(padded), row)
        law, live = np.asarray(found[0])[:, : len(slots)], np.asarray(found[2])
        mass = np.where(reach[:, :, None] > 0, reach[:, :, None] * law, 0)
        mass = np.where(drafts.weights[:, None, None] > 0, mass, 0)
        # Tokens that keep a draft alive go on; the others end the step.
        follows = np.zeros((n, len(slots), size), dtype=bool)
        level = topology.levels[depth] if depth < topology.height else ()
        next_reach = np.zeros((n, len(level)))
        seen = np.zeros((n, len(slots), size), dtype=bool)
        for j, m in enumerate(level):
            token = drafts.tokens[:, m]
            for g in range(len(slots)):
                here = live[:, g, j]
                at = np.arange(n)
                first = here & ~seen[at, g, token]
                # Only the first group of a text carries its probability.
                next_reach[:, j] += np.where(first, mass[at, g, token], 0)
                seen[at, g, token] |= here
                follows[at, g, token] |= here
        table = np.zeros((size**depth, size))
        ended = drafts.weights[:, None, None] * np.where(follows, 0, mass)
        np.add.at(table, codes[:, slots], ended)
        emitted.append(table)
        group_slots, reach = [m + 1 for m in level], next_reach
    return TextLaw(tuple(emitted))
