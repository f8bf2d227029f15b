"""Token verification: one coin a drafted token, stop at the first that fails.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding",
ICML 2023, arXiv 2211.17192, algorithm 1; Chen et al., "Accelerating Large Language Model Decoding
with Speculative Sampling", 2023, arXiv 2302.01318, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from privlearn.decoding.verifiers.chain import (
    ChainVerifier,
    Coins,
    at_token,
    first_failure,
    first_failure_law,
)
from privlearn.decoding.verifiers.choice import ratio
from privlearn.decoding.verifiers.protocol import Row


@dataclass(frozen=True)
class TokenVerifier(ChainVerifier):
    """Accept token i with probability ``min(1, p_i(X_i) / q_i(X_i))``, stop at the first failure.

    After a rejection the next token is drawn from ``max(p - q, 0)``, renormalised; after full
    acceptance from p. A draft without probabilities counts as certain: accept with probability
    ``p_i(X_i)``, then p without ``X_i``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from privlearn.decoding.drafts import Draft
    >>> p, q = jnp.array([0.1, 0.2, 0.7]), jnp.array([0.1, 0.2, 0.7])
    >>> draft = Draft.chain(jnp.array([[2, 2]]), jnp.tile(q, (1, 2, 1)))
    >>> out = TokenVerifier().verify(jax.random.key(0), draft, jnp.tile(p, (1, 3, 1)))
    >>> out.n_accepted.tolist(), out.path_slots.tolist()
    ([2], [[0, 1, 2]])
    """

    name: ClassVar[str] = "token"

    def coins(self, row: Row) -> Coins:
        """``min(1, p_i(X_i) / q_i(X_i))``."""
        found = at_token(row.p[:-1], row.tokens)
        drafted = jnp.ones_like(found) if row.q is None else at_token(row.q, row.tokens)
        accept = jnp.minimum(self.favour(found, drafted), 1)
        return Coins(jnp.where(row.valid, accept, 0), jnp.ones(row.p.shape[0], row.p.dtype))

    def favour(self, p: Array, q: Array) -> Array:
        """What the coin compares with: the ratio of the two laws at the drafted token."""
        return ratio(p, q)

    def stop(self, says_yes: Array) -> Array:
        """Stop at the first failure."""
        return first_failure(says_yes)

    def stop_law(self, accept: Array) -> Array:
        """Law of the number of successes before the first failure."""
        return first_failure_law(accept)
