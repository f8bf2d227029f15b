"""What a drafter hands to a verifier: candidate tokens in a tree, and the laws that drew them.

One structure serves a chain (one draft of gamma tokens), K chains, and trees of any static shape.
The M drafted tokens are the *nodes* 0..M-1; ``parent[m]`` is the node before m, -1 for the pending
token (the last token of the text, which the target has not seen yet). The target reads M + 1
*slots*: slot 0 is the pending token, slot m + 1 is node m. Its law at slot s says what follows
slot s, so ``p[:, 0]`` follows the pending token and ``p[:, m + 1]`` follows node m.

``q[:, m]`` is the draft's law *given the path to the parent of m*: the law of node m before any
sibling is removed. Siblings are in the order in which they were drawn. ``q`` is None for drafts
without probabilities (prompt lookup, n-grams): each token then counts as certain, q = one-hot.

The shape of the tree is static (a hashable `Topology`), so masks and depths are constants of a
compiled program and illegal combinations are refused when the program is traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

#: How the children of a node were chosen. ``independent``: i.i.d. from q.
#: ``without_replacement``: from q, one after another, earlier siblings removed.
#: ``greedy``: the top k - 1 tokens of q, then one sample of q without them.
#: ``deterministic``: fixed candidates without probabilities (q is None).
Proposal = Literal["independent", "without_replacement", "greedy", "deterministic"]
PROPOSALS: tuple[Proposal, ...] = get_args(Proposal)


@dataclass(frozen=True)
class Topology:
    """The shape of a draft: who follows whom.

    Parameters
    ----------
    parent : tuple of int
        ``parent[m]`` is the node before node m, -1 for the pending token. A parent comes before
        its children.

    Raises
    ------
    ValueError
        If a parent does not come before its child, or is below -1.

    Examples
    --------
    >>> Topology.chains(2, 3).parent
    (-1, 0, 1, -1, 3, 4)
    >>> Topology.fan_out((2, 2)).parent
    (-1, -1, 0, 0, 1, 1)
    >>> Topology.fan_out((2, 2)).depth
    (1, 1, 2, 2, 2, 2)
    """

    parent: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a tree whose nodes are out of order."""
        object.__setattr__(self, "parent", tuple(int(at) for at in self.parent))
        for node, before in enumerate(self.parent):
            if not -1 <= before < node:
                raise ValueError(
                    f"parent[{node}] must be -1 (the pending token) or an earlier node, "
                    f"got {before}"
                )

    @classmethod
    def chain(cls, gamma: int) -> Topology:
        """One draft of gamma tokens; gamma = 0 is no draft."""
        return cls.chains(1, gamma)

    @classmethod
    def chains(cls, n_drafts: int, gamma: int) -> Topology:
        """Several drafts of gamma tokens, one after another: chain j holds nodes j gamma + i."""
        if n_drafts < 1 or gamma < 0:
            raise ValueError(
                f"n_drafts must be >= 1 and gamma >= 0, got n_drafts={n_drafts}, gamma={gamma}"
            )
        return cls(
            tuple(
                -1 if i == 0 else j * gamma + i - 1 for j in range(n_drafts) for i in range(gamma)
            )
        )

    @classmethod
    def fan_out(cls, widths: Sequence[int]) -> Topology:
        """Each node at depth d - 1 has ``widths[d - 1]`` children; nodes in level order."""
        parent: list[int] = []
        level = [-1]
        for width in widths:
            if width < 1:
                raise ValueError(f"widths must be >= 1, got {tuple(widths)!r}")
            start = len(parent)
            parent += [before for before in level for _ in range(width)]
            level = list(range(start, len(parent)))
        return cls(tuple(parent))

    @property
    def size(self) -> int:
        """M, the number of drafted tokens."""
        return len(self.parent)

    @cached_property
    def depth(self) -> tuple[int, ...]:
        """Distance from the pending token, 1 for its children: the offset of the position."""
        depth: list[int] = []
        for before in self.parent:
            depth.append(1 if before < 0 else depth[before] + 1)
        return tuple(depth)

    @property
    def height(self) -> int:
        """D, the largest depth: at most D drafted tokens are accepted in one step."""
        return max(self.depth, default=0)

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """Nodes at depth 1, 2, ..., in node order."""
        return tuple(
            tuple(m for m, depth in enumerate(self.depth) if depth == d)
            for d in range(1, self.height + 1)
        )

    @property
    def is_chain(self) -> bool:
        """Whether this is a single draft, each node after the one before."""
        return self.parent == tuple(range(-1, self.size - 1))

    @property
    def is_chains(self) -> bool:
        """Whether only the pending token may have more than one child (K separate drafts)."""
        inner = [before for before in self.parent if before >= 0]
        return len(inner) == len(set(inner))

    @cached_property
    def mask(self) -> np.ndarray:
        """Ancestor-or-self mask over the slots, (M + 1, M + 1): row s may attend to column t."""
        mask = np.zeros((self.size + 1, self.size + 1), dtype=bool)
        mask[0, 0] = True
        for node, before in enumerate(self.parent):
            mask[node + 1] = mask[before + 1]
            mask[node + 1, node + 1] = True
        mask.setflags(write=False)
        return mask

    @cached_property
    def paths(self) -> np.ndarray:
        """Nodes on the way to each node, (M, D), -1 where the path is shorter."""
        paths = np.full((self.size, self.height), -1)
        for node, before in enumerate(self.parent):
            if before >= 0:
                paths[node] = paths[before]
            paths[node, self.depth[node] - 1] = node
        paths.setflags(write=False)
        return paths


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "q", "valid"],
    meta_fields=["topology", "proposal"],
)
@dataclass(frozen=True)
class Draft:
    """Drafted tokens of B rows, the laws that drew them, and the tree that they form.

    A pytree: arrays are leaves, the topology and the proposal are static. Build it with
    :meth:`chain`, :meth:`chains` or :meth:`tree`, which check shapes.

    Parameters
    ----------
    tokens : Array of int, shape (B, M)
    q : Array, shape (B, M, V), or None
        Law of each node given the path to its parent; None: tokens without probabilities.
    valid : Array of bool, shape (B, M)
        False for nodes that a row did not draft. A node after an invalid one is never accepted.
    topology : Topology
        Static.
    proposal : str
        How siblings were chosen, one of `PROPOSALS`. Static.
    """

    tokens: Array
    q: Array | None
    valid: Array
    topology: Topology
    proposal: Proposal

    @classmethod
    def chain(cls, tokens: ArrayLike, q: ArrayLike | None = None, *, valid=None) -> Draft:
        """One draft a row: tokens (B, gamma), q (B, gamma, V) or None, valid (B, gamma).

        Examples
        --------
        >>> Draft.chain(jnp.array([[4, 7, 1]])).local_mask.astype(int)
        array([[1, 0, 0, 0],
               [1, 1, 0, 0],
               [1, 1, 1, 0],
               [1, 1, 1, 1]])
        """
        shape = jnp.shape(tokens)
        if len(shape) != 2:
            raise ValueError(f"tokens must have shape (B, gamma), got {shape}")
        return cls.tree(tokens, Topology.chain(shape[1]), q, valid=valid)

    @classmethod
    def chains(cls, tokens: ArrayLike, q: ArrayLike | None = None, *, valid=None) -> Draft:
        """K separate drafts a row: tokens (B, K, gamma), q (B, K, gamma, V) or None."""
        shape = jnp.shape(tokens)
        if len(shape) != 3:
            raise ValueError(f"tokens must have shape (B, K, gamma), got {shape}")
        rows, n_drafts, gamma = shape
        size = n_drafts * gamma
        if q is not None:
            if jnp.shape(q)[:3] != shape or jnp.ndim(q) != 4:
                raise ValueError(f"q must have shape {(*shape, 'V')}, got {jnp.shape(q)}")
            q = jnp.reshape(jnp.asarray(q), (rows, size, jnp.shape(q)[3]))
        if valid is not None:
            valid = jnp.reshape(jnp.asarray(valid), (rows, size))
        return cls.tree(
            jnp.reshape(jnp.asarray(tokens), (rows, size)),
            Topology.chains(n_drafts, gamma),
            q,
            valid=valid,
        )

    @classmethod
    def tree(
        cls,
        tokens: ArrayLike,
        topology: Topology,
        q: ArrayLike | None = None,
        *,
        proposal: Proposal | None = None,
        valid=None,
    ) -> Draft:
        """A tree of any shape: tokens (B, M), q (B, M, V) or None.

        The proposal defaults to ``independent`` with q and to ``deterministic`` without.

        Raises
        ------
        TypeError
            If tokens are not integers, or the topology is not a `Topology`.
        ValueError
            If shapes do not fit the topology, or the proposal does not fit q.
        """
        if not isinstance(topology, Topology):
            raise TypeError(
                f"topology must be a Topology, got {topology!r}; build it with Topology(parent), "
                "Topology.chains(...) or Topology.fan_out(...)"
            )
        tokens = jnp.asarray(tokens)
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"tokens must be integers, got {tokens.dtype}")
        if tokens.ndim != 2 or tokens.shape[1] != topology.size:
            raise ValueError(
                f"tokens must have shape (B, {topology.size}) for this topology, got {tokens.shape}"
            )
        if q is not None:
            q = jnp.asarray(q)
            if q.ndim != 3 or q.shape[:2] != tokens.shape:
                raise ValueError(f"q must have shape {(*tokens.shape, 'V')}, got {q.shape}")
            if not jnp.issubdtype(q.dtype, jnp.floating):
                raise TypeError(f"q must be floating point, got {q.dtype}")
        if proposal is None:
            proposal = "deterministic" if q is None else "independent"
        if proposal not in PROPOSALS:
            raise ValueError(f"proposal must be one of {PROPOSALS}, got {proposal!r}")
        if (proposal == "deterministic") != (q is None):
            raise ValueError(
                f"proposal {proposal!r} {'needs' if q is None else 'takes no'} q; a draft without "
                "probabilities is 'deterministic', every other proposal needs q of shape (B, M, V)"
            )
        valid = jnp.ones(tokens.shape, bool) if valid is None else jnp.asarray(valid)
        if valid.shape != tokens.shape or valid.dtype != bool:
            raise ValueError(
                f"valid must be bool of shape {tokens.shape}, got {valid.dtype} {valid.shape}"
            )
        return cls(tokens, q, valid, topology, proposal)

    @property
    def parent(self) -> Array:
        """Parents of the nodes, (B, M), -1 for the pending token."""
        return jnp.broadcast_to(jnp.array(self.topology.parent, jnp.int32), self.tokens.shape)

    @property
    def depth(self) -> Array:
        """Depths of the nodes, (B, M): positions are those of the pending token plus depth."""
        return jnp.broadcast_to(jnp.array(self.topology.depth, jnp.int32), self.tokens.shape)

    @property
    def local_mask(self) -> np.ndarray:
        """Ancestor-or-self mask over the M + 1 slots of the target step (a constant)."""
        return self.topology.mask

    @property
    def vocabulary(self) -> int | None:
        """V, or None where the draft has no probabilities."""
        return None if self.q is None else int(self.q.shape[-1])


def ancestor_mask(parent: Array) -> Array:
    """Ancestor-or-self mask over the slots of trees that are only known at run time.

    Parameters
    ----------
    parent : Array of int, shape (..., M)
        -1 for the pending token; parents before children.

    Returns
    -------
    Array of bool, shape (..., M + 1, M + 1)
        Row s may attend to column t. Closure by repeated squaring of the step matrix.

    Examples
    --------
    >>> tree = (-1, -1, 0, 0, 1)
    >>> bool((ancestor_mask(jnp.array(tree)) == Topology(tree).mask).all())
    True
    """
    slots = parent.shape[-1] + 1
    before = jnp.concatenate([jnp.zeros((*parent.shape[:-1], 1), int), parent + 1], axis=-1)
    reach = (before[..., None] == jnp.arange(slots)) | jnp.eye(slots, dtype=bool)
    for _ in range(max(slots - 1, 1).bit_length()):
        reach = jnp.matmul(reach.astype(jnp.float32), reach.astype(jnp.float32)) > 0
    return reach
