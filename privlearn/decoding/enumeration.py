"""Every draft that a tabular world can produce, and the law of the text that comes of it.

What an exactness certificate needs: enumerate the drafts with their probabilities, add up what the
verifier emits, let the target complete the text, and compare with the target. NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from privlearn.decoding.drafts import Proposal, Topology
from privlearn.decoding.theory.worlds import TabularPair, decode


@dataclass(frozen=True, eq=False)
class AllDrafts:
    """All V^M drafts of a world, impossible ones with weight 0 (so shapes do not depend on it)."""

    topology: Topology
    tokens: np.ndarray  #: (N, M)
    valid: np.ndarray  #: (N, M)
    weights: np.ndarray  #: (N,) probability of each draft
    q: np.ndarray | None  #: (N, M, V)
    p: np.ndarray  #: (N, M + 1, V)


def all_drafts(
    world: TabularPair,
    topology: Topology,
    proposal: Proposal,
    candidates: np.ndarray | None = None,
) -> AllDrafts:
    """Enumerate the drafts of a world.

    Parameters
    ----------
    world : TabularPair
    topology : Topology
        Its height is at most the depth of the world.
    proposal : str
        How siblings are chosen.
    candidates : ndarray, shape (N, M), optional
        The fixed candidates of ``deterministic`` drafts; every draft alone is then a case.
        Default: all V^M, with equal weights.

    Returns
    -------
    AllDrafts
    """
    size, n_nodes = world.vocabulary, topology.size
    if topology.height > world.depth:
        raise ValueError(
            f"drafts of height {topology.height} need tables up to that depth, "
            f"world {world.name!r} has depth {world.depth}"
        )
    tokens = (
        np.array(list(itertools.product(range(size), repeat=n_nodes)), dtype=np.int64)
        if candidates is None
        else np.asarray(candidates, dtype=np.int64)
    )
    tokens = tokens.reshape(-1, n_nodes) if n_nodes else np.zeros((1, 0), dtype=np.int64)
    n = len(tokens)
    codes = np.zeros((n, n_nodes + 1), dtype=np.int64)  # code of the text at every slot
    laws = np.zeros((n, n_nodes, size))
    valid = np.ones((n, n_nodes), dtype=bool)
    weights = np.ones(n)
    for m, before in enumerate(topology.parent):
        depth = topology.depth[m] - 1
        laws[:, m] = world.q[depth][codes[:, before + 1]]
        codes[:, m + 1] = codes[:, before + 1] * size + tokens[:, m]
        siblings = [s for s in range(m) if topology.parent[s] == before]
        last = all(topology.parent[s] != before for s in range(m + 1, n_nodes))
        chance, exists = _chance(proposal, laws[:, m], tokens, m, siblings, last)
        valid[:, m] = exists & (valid[:, before] if before >= 0 else True)
        weights *= chance
    if proposal == "deterministic":
        weights = np.full(n, 1 / n)
    p = np.stack(
        [world.p[0 if s == 0 else topology.depth[s - 1]][codes[:, s]] for s in range(n_nodes + 1)],
        axis=1,
    )
    return AllDrafts(
        topology, tokens, valid, weights, None if proposal == "deterministic" else laws, p
    )


def _chance(
    proposal: Proposal,
    q: np.ndarray,
    tokens: np.ndarray,
    node: int,
    siblings: list[int],
    last: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of a node's token given its siblings, and whether the node exists.

    A node that does not exist (the support of q is exhausted) carries token 0.
    """
    n, at = len(tokens), np.arange(len(tokens))
    token = tokens[:, node]
    everywhere = np.ones(n, dtype=bool)
    if proposal == "independent":
        return q[at, token], everywhere
    if proposal == "deterministic":
        return np.ones(n), everywhere
    if proposal == "greedy" and not last:
        # The next of the top tokens, ties to the lowest: a stable sort of -q.
        return (np.argsort(-q, axis=1, kind="stable")[:, len(siblings)] == token) * 1.0, everywhere
    left = q.copy()
    for s in siblings:
        left[at, tokens[:, s]] = 0
    total = left.sum(axis=1)
    exists = total > 0
    chance = np.where(exists, left[at, token] / np.where(exists, total, 1), token == 0)
    return chance, exists


@dataclass(frozen=True, eq=False)
class TextLaw:
    """Law of the first tokens of the text that speculative decoding emits in a world.

    Parameters
    ----------
    emitted : tuple of ndarray
        ``emitted[d]``, shape (V^d, V): probability that the step emits d accepted tokens with this
        code and then this extra token.
    """

    emitted: tuple[np.ndarray, ...]

    @property
    def expected_tau(self) -> float:
        """Expected number of accepted tokens."""
        return float(sum(d * mass.sum() for d, mass in enumerate(self.emitted)))

    @property
    def tau_law(self) -> np.ndarray:
        """Law of the number of accepted tokens."""
        return np.array([mass.sum() for mass in self.emitted])

    def completed(self, world: TabularPair) -> np.ndarray:
        """Law of the text of full length when the target completes it, (V^(D + 1),)."""
        law = np.zeros(1)
        for depth, mass in enumerate(self.emitted):
            law = (law[:, None] * world.p[depth] + mass).ravel()
        return law


@dataclass(frozen=True, eq=False)
class WrongContext:
    """The shortest text after which the emitted law is not the target's."""

    context: tuple[int, ...]  #: tokens of the text
    emitted: np.ndarray  #: (V,) law of the next token as emitted
    target: np.ndarray  #: (V,) law of the next token of the target
    draft: np.ndarray  #: (V,) law of the draft there
    error: float  #: largest difference of the joint probabilities


def compare(
    text: np.ndarray, world: TabularPair, allowed: Callable[[np.ndarray], np.ndarray | float]
) -> tuple[float, WrongContext | None]:
    """Largest difference between a law of texts and the target's, and the first wrong context.

    Joint probabilities of all texts up to this length are compared, shortest contexts first, so
    that a mistake is reported where it is made and not where it is inherited. `allowed` maps the
    exact probabilities to the differences that pass.
    """
    size = world.vocabulary
    length = round(np.log(len(text)) / np.log(size)) if size > 1 else 1
    largest, first = 0.0, None
    for depth in range(length):
        found = text.reshape(size ** (depth + 1), -1).sum(axis=1).reshape(-1, size)
        exact = world.text_law(depth + 1).reshape(-1, size)
        errors = np.abs(found - exact)
        errors = np.where(np.isnan(errors), np.inf, errors)
        largest = max(largest, float(errors.max()))
        wrong = (errors > allowed(exact)).any(axis=1)
        if first is None and wrong.any():
            code = int(np.argmax(wrong))
            mass = found[code].sum()
            first = WrongContext(
                decode(code, depth, size),
                found[code] / mass if mass > 0 else found[code],
                world.p[depth][code],
                world.q[depth][code],
                float(errors[code].max()),
            )
    return largest, first
