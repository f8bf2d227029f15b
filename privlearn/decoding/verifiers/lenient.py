"""Verifiers that trade exactness for speed, with a law that is known.

Lenience: Leviathan et al., ICML 2023, arXiv 2211.17192, appendix A.5, and Zhou et al.,
"DistillSpec", ICLR 2024, arXiv 2310.08461. Ensemble: the knob ``assistant_ensemble_weight`` of
transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax.numpy as jnp
from jax import Array

from privlearn.decoding.verifiers.chain import Coins, at_token
from privlearn.decoding.verifiers.choice import ratio
from privlearn.decoding.verifiers.protocol import Row
from privlearn.decoding.verifiers.tokenwise import TokenVerifier

#: Lenience functions: p / eps, p / eps^2, p^eps.
Lenience = Literal["linear", "squared", "exponential"]
LENIENCES: tuple[Lenience, ...] = get_args(Lenience)


@dataclass(frozen=True)
class LenientVerifier(TokenVerifier):
    """Token verification with coin ``min(1, f(p(X)) / q(X))``, f >= p; lossy below eps = 1.

    Only the coin changes: after a rejection the token comes from ``max(p - q, 0)``, after full
    acceptance from p. With ``linear`` no token is ever emitted with more than ``p(x) / eps``
    (derived for this residual and checked by simulation).

    Parameters
    ----------
    function : {"linear", "squared", "exponential"}, default="linear"
        f(p) = p / eps, p / eps^2 or p^eps.
    eps : float, default=0.5
        In (0, 1]; 1 is lossless.
    greedy : bool, default=False
        The form for greedy decoding: accept X where ``p(X) >= eps max p`` with p the *untempered*
        target, and emit the argmax of p after a rejection and at the end. eps = 1 is greedy
        decoding; `function` must be "linear".

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    name: ClassVar[str] = "lenient"
    function: Lenience = "linear"
    eps: float = 0.5
    greedy: bool = False

    def __post_init__(self) -> None:
        """Refuse a lenience that is not one."""
        if self.function not in LENIENCES:
            raise ValueError(f"function must be one of {LENIENCES}, got {self.function!r}")
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps must lie in (0, 1], got {self.eps!r}")
        if self.greedy and self.function != "linear":
            raise ValueError(
                f"greedy lenience compares p(X) with eps max p: function must be 'linear', "
                f"got {self.function!r}"
            )

    @property
    def lossless(self) -> bool:
        """Only without lenience, and not against the untempered p of the greedy form."""
        return self.eps == 1 and not self.greedy

    def favour(self, p: Array, q: Array) -> Array:
        """``f(p) / q``."""
        if self.function == "exponential":
            return ratio(p**self.eps, q)
        return ratio(p / (self.eps if self.function == "linear" else self.eps**2), q)

    def coins(self, row: Row) -> Coins:
        """The lenient coins; certain ones in the greedy form."""
        if not self.greedy:
            return super().coins(row)
        close = at_token(row.p[:-1], row.tokens) >= self.eps * row.p[:-1].max(axis=-1)
        accept = jnp.where(row.valid & close, 1.0, 0.0).astype(row.p.dtype)
        return Coins(accept, jnp.ones(row.p.shape[0], row.p.dtype))

    def leftover(self, row: Row, scale: Array, tau: Array) -> Array:
        """The residual of token verification; the argmax of p in the greedy form."""
        if not self.greedy:
            return super().leftover(row, scale, tau)
        p = row.p[tau]
        return (jnp.arange(p.shape[0]) == jnp.argmax(p)).astype(p.dtype)


@dataclass(frozen=True)
class EnsembleVerifier(TokenVerifier):
    """Token verification against ``weight p + (1 - weight) q``: lossy below weight = 1.

    The emitted token follows exactly that mixture at drafted positions (p after full acceptance),
    and is accepted with probability ``1 - weight TV(p, q)``. Needs a draft with probabilities.

    Parameters
    ----------
    weight : float, default=1.0
        Weight of the target, in [0, 1].
    """

    name: ClassVar[str] = "ensemble"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is not one."""
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {self.weight!r}")

    @property
    def lossless(self) -> bool:
        """Only if the draft has no weight."""
        return self.weight == 1

    def check_shape(self, draft) -> None:
        """Refuse drafts that have no law to mix with."""
        super().check_shape(draft)
        if draft.q is None:
            raise ValueError("verifier 'ensemble' mixes with the draft's law: the draft needs q")

    def coins(self, row: Row) -> Coins:
        """Coins of the mixture."""
        return super().coins(self._mixed(row))

    def leftover(self, row: Row, scale: Array, tau: Array) -> Array:
        """Residual of the mixture."""
        return super().leftover(self._mixed(row), scale, tau)

    def _mixed(self, row: Row) -> Row:
        assert row.q is not None
        mixed = self.weight * row.p[:-1] + (1 - self.weight) * row.q
        drafted = row.valid[:, None]
        return row._replace(p=row.p.at[:-1].set(jnp.where(drafted, mixed, row.p[:-1])))
