"""The optimal coupling of i.i.d. candidates, by linear programming: a reference at tiny V.

Sun et al., "SpecTr", NeurIPS 2023, arXiv 2310.15141, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
from jax import Array

from privlearn.decoding import transport
from privlearn.decoding.drafts import Proposal
from privlearn.decoding.verifiers.walk import Candidates, WalkVerifier


@dataclass(frozen=True)
class OptimalVerifier(WalkVerifier):
    """Draw the next token from an optimal coupling of the candidates and the target.

    Accepts with the largest probability that any rule can reach for i.i.d. candidates. Each step
    calls back to the host and solves a linear program over the sets of candidates: for tests and
    figures at V up to about 10, not for serving.
    """

    name: ClassVar[str] = "optimal"
    proposals: ClassVar[tuple[Proposal, ...]] = ("independent",)

    def selection(self, at: Candidates) -> Array:
        """Law of the next token given the candidates, row of the optimal plan."""
        shape = jax.ShapeDtypeStruct(at.p.shape, at.p.dtype)
        return jax.pure_callback(
            _plan_row, shape, at.p, at.q, at.tokens, at.live, vmap_method="sequential"
        )


def _plan_row(p: Array, q: Array, tokens: Array, live: Array) -> np.ndarray:
    drafted = np.asarray(tokens)[np.asarray(live)]
    law, draft_law = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    if drafted.size == 0 or not (np.isfinite(law).all() and np.isfinite(draft_law).all()):
        return np.asarray(p)
    plan = transport.optimal_coupling(
        tuple(law / law.sum()), tuple(draft_law / draft_law.sum()), int(drafted.size)
    )
    if tuple(sorted(set(drafted.tolist()))) not in plan.sets:
        return np.asarray(p)  # candidates that this draft cannot propose
    return plan.given(drafted).astype(np.asarray(p).dtype)
