"""The one face of all verifiers, and what every one of them does before and after its rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.decoding.drafts import Draft, Proposal, Topology

#: How far from 1 the sum of a law may be (a bfloat16 softmax over 50k tokens: about 0.004).
SUM_TOLERANCE = 0.02


class Verified(NamedTuple):
    """What one step decided for each of B rows; the tree has height D.

    The row emits its accepted tokens and then `extra_token`: `emitted_tokens` lists them.
    """

    #: (B, D + 1) int32: slots to commit, slot 0 (the pending token) first, then the accepted
    #: nodes' slots (node + 1). Entries after ``n_accepted`` are 0.
    path_slots: Array
    n_accepted: Array  #: (B,) int32: tau, drafted tokens that the row keeps.
    extra_token: Array  #: (B,) int32: the token after them (correction or bonus); -1 if not ok.
    #: (B,) bool: False where p (or q) of a valid slot was not a law: not finite, negative, or not
    #: summing to one. Such a row accepts nothing and its extra token is -1.
    ok: Array


class Row(NamedTuple):
    """One row of a draft with the target's laws: what a rule sees."""

    tokens: Array  #: (M,)
    valid: Array  #: (M,) bool, False also after an invalid ancestor
    q: Array | None  #: (M, V)
    p: Array  #: (M + 1, V)


class Decision(NamedTuple):
    """What a rule decides about a row."""

    last_node: Array  #: int: the deepest accepted node, -1 for none
    extra_token: Array  #: int


@dataclass(frozen=True)
class Verifier(ABC):
    """A rule for keeping drafted tokens.

    Subclasses say which drafts they may see (`chain_only`, `proposals`) and implement
    :meth:`n_coins` and :meth:`decide`; :meth:`verify` is what callers use. Objects are frozen and
    hashable, so they can be static arguments of a compiled function.
    """

    name: ClassVar[str]
    #: Whether only a single chain is legal.
    chain_only: ClassVar[bool] = False
    #: Proposals that are legal where a node has several children.
    proposals: ClassVar[tuple[Proposal, ...]] = ()

    @property
    def lossless(self) -> bool:
        """Whether the emitted text follows the target's law exactly."""
        return True

    @abstractmethod
    def n_coins(self, topology: Topology) -> int:
        """How many uniforms the rule consumes a row."""

    @abstractmethod
    def decide(self, coins: Array, row: Row, topology: Topology) -> Decision:
        """Apply the rule to one row: a deterministic function of its coins, uniforms on [0, 1)."""

    def check(self, draft: Draft, p: Array) -> None:
        """Refuse a draft that this rule must not see, or laws of the wrong shape.

        Raises
        ------
        TypeError
            If draft is not a `Draft` or p is not floating point.
        ValueError
            If the draft's shape or proposal is illegal for this verifier, or shapes disagree.
        """
        if not isinstance(draft, Draft):
            raise TypeError(
                f"draft must be a Draft, got {type(draft).__name__}; build one with Draft.chain, "
                "Draft.chains or Draft.tree"
            )
        self.check_shape(draft)
        rows, size = draft.tokens.shape
        if not jnp.issubdtype(p.dtype, jnp.floating):
            raise TypeError(f"p must be floating point probabilities, got {p.dtype}")
        if p.ndim != 3 or p.shape[:2] != (rows, size + 1):
            raise ValueError(
                f"p must have shape {(rows, size + 1, 'V')}: one law for the pending token and one "
                f"for each drafted token, got {p.shape}"
            )
        if draft.q is not None and draft.q.shape[2] != p.shape[2]:
            raise ValueError(
                f"draft and target must share a vocabulary: q has {draft.q.shape[2]} tokens, "
                f"p has {p.shape[2]}"
            )

    def check_shape(self, draft: Draft) -> None:
        """Refuse an illegal pair of tree and proposal (the legality matrix)."""
        topology, proposal = draft.topology, draft.proposal
        if topology.is_chain:
            if proposal in ("independent", "deterministic"):
                return  # one candidate a node: every proposal with q is the same thing
        elif self.chain_only:
            raise ValueError(
                f"verifier {self.name!r} verifies one chain, got a tree of {topology.size} nodes "
                f"and height {topology.height}; use 'kseq', 'rrs' or 'match' for several drafts"
            )
        if not self.chain_only and proposal not in self.proposals:
            raise ValueError(
                f"verifier {self.name!r} is exact for candidates that are "
                f"{' or '.join(self.proposals)}, this draft's are {proposal!r}: its output would "
                f"not follow the target; verifiers for them: {_legal_for(proposal)}"
            )

    def verify(self, key: Array, draft: Draft, p: ArrayLike) -> Verified:
        """Decide which drafted tokens each row keeps, and draw the token after them.

        Parameters
        ----------
        key : Array
            Typed JAX keys, one a row, shape (B,); or one key, folded with the row's number. A
            row's result depends on its own key and laws only, never on its batch mates.
        draft : Draft
        p : array, shape (B, M + 1, V)
            Laws of the target (after temperature, top-k and so on; one-hot for greedy decoding)
            at the pending token and at every node. Computed in float32 or above.

        Returns
        -------
        Verified

        Raises
        ------
        TypeError, ValueError
            See :meth:`check`; raised while tracing under jit.
        """
        p = jnp.asarray(p)
        self.check(draft, p)
        dtype = jnp.promote_types(p.dtype, jnp.float32)
        rows = Row(
            draft.tokens,
            reachable(draft.valid, draft.topology),
            None if draft.q is None else draft.q.astype(dtype),
            p.astype(dtype),
        )
        keys = row_keys(key, draft.tokens.shape[0])

        def one(row_key: Array, row: Row) -> Verified:
            coins = jax.random.uniform(row_key, (self.n_coins(draft.topology),), dtype)
            return _finish(self.decide(coins, row, draft.topology), row, draft.topology)

        return jax.vmap(one)(keys, rows)


def row_keys(key: Array, n_rows: int) -> Array:
    """One key a row: the keys themselves if there are as many, or one key folded with the row."""
    if not jnp.issubdtype(getattr(key, "dtype", jnp.float32), jax.dtypes.prng_key):
        raise TypeError(f"key must be a typed key such as jax.random.key(0), got {key!r}")
    if key.shape == ():
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n_rows))
    if key.shape != (n_rows,):
        raise ValueError(f"key must be one key or {n_rows} keys (one a row), got {key.shape}")
    return key


def reachable(valid: Array, topology: Topology) -> Array:
    """Nodes that are valid and have only valid ancestors, (B, M)."""
    if topology.size == 0:
        return valid
    blocked = ~valid @ jnp.asarray(topology.mask[1:, 1:].T)
    return ~blocked


def emitted_tokens(draft: Draft, verified: Verified) -> Array:
    """Tokens that each row emits, (B, D + 1): accepted, then the extra one, then -1.

    Examples
    --------
    >>> from privlearn.decoding.verifiers import TokenVerifier
    >>> draft = Draft.chain(jnp.array([[2, 0]]))
    >>> p = jnp.array([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    >>> emitted_tokens(draft, TokenVerifier().verify(jax.random.key(0), draft, p)).tolist()
    [[2, 1, -1]]
    """
    nodes = jnp.concatenate([verified.path_slots[:, 1:] - 1, verified.path_slots[:, :1]], axis=1)
    padded = jnp.pad(draft.tokens, ((0, 0), (0, 1)))
    tokens = jnp.take_along_axis(padded, jnp.maximum(nodes, 0), axis=1)
    at = jnp.arange(nodes.shape[1])
    n = verified.n_accepted[:, None]
    tokens = jnp.where(at < n, tokens, jnp.where(at == n, verified.extra_token[:, None], -1))
    return tokens.astype(jnp.int32)


def overlap(draft: Draft, p: Array) -> Array:
    """``sum over x of min(p(x), q(x))`` at each node, (B, M): the acceptance rate of one token.

    One-hot drafts: p of the drafted token. Average it over the positions whose prefix was
    accepted (the first ``min(tau + 1, gamma)`` of a chain) to estimate alpha.
    """
    before = jnp.array([at + 1 for at in draft.topology.parent], jnp.int32)
    laws = p[:, before]
    if draft.q is None:
        return jnp.take_along_axis(laws, draft.tokens[..., None], axis=-1)[..., 0]
    return jnp.minimum(laws, draft.q).sum(axis=-1)


def is_law(row: Row) -> Array:
    """Whether every law that the row may consult is one: finite, >= 0, summing to about one."""

    def fine(laws: Array, needed: Array) -> Array:
        good = (jnp.abs(laws.sum(axis=-1) - 1) <= SUM_TOLERANCE) & (laws.min(axis=-1) >= 0)
        return (good | ~needed).all()

    good = fine(row.p, jnp.concatenate([jnp.ones(1, bool), row.valid]))
    return good if row.q is None else good & fine(row.q, row.valid)


def _finish(decision: Decision, row: Row, topology: Topology) -> Verified:
    ok = is_law(row)
    last = jnp.where(ok, decision.last_node, -1)
    root = jnp.zeros(1, jnp.int32)
    if topology.size == 0:
        path, n = root, jnp.int32(0)
    else:
        nodes = jnp.where(last >= 0, jnp.asarray(topology.paths, jnp.int32)[last], -1)
        path = jnp.concatenate([root, nodes + 1])
        n = jnp.where(last >= 0, jnp.asarray(topology.depth, jnp.int32)[last], 0)
    extra = jnp.where(ok, decision.extra_token, -1)
    return Verified(path, n.astype(jnp.int32), extra.astype(jnp.int32), ok)


def _legal_for(proposal: Proposal) -> str:
    names = {
        "independent": "'kseq', 'rrs', 'optimal', 'match'",
        "without_replacement": "'rrs_wor', 'match'",
        "greedy": "'greedy_drafts', 'match'",
        "deterministic": "'deterministic', 'match'",
    }
    return names[proposal]
