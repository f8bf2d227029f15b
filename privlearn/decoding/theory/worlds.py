"""Tabular pairs of models: worlds small enough to enumerate every text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from privlearn.decoding.theory._arguments import check_count, check_pair


@dataclass(frozen=True, eq=False)
class TabularPair:
    """A target and a draft model, as tables: the law of the next token after every short text.

    Parameters
    ----------
    p : tuple of ndarray
        ``p[d]`` has shape (V^d, V): row c is the target's law after the text of d tokens whose
        code is c (base V, first token most significant).
    q : tuple of ndarray
        The same for the draft.
    name : str
        What the world is for, in reports.

    Examples
    --------
    >>> world = TabularPair.context_free([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], depth=2)
    >>> world.vocabulary, world.depth, world.p[2].shape
    (3, 2, (9, 3))
    """

    p: tuple[np.ndarray, ...]
    q: tuple[np.ndarray, ...]
    name: str = "world"

    def __post_init__(self) -> None:
        """Refuse tables that are no laws or do not fit together."""
        if len(self.p) != len(self.q) or not self.p:
            raise ValueError(
                f"p and q must have as many tables, at least one, got {len(self.p)}, {len(self.q)}"
            )
        for depth, (target, draft) in enumerate(zip(self.p, self.q, strict=True)):
            check_pair(target, draft)
            shape = (self.vocabulary**depth, self.vocabulary)
            if target.shape != shape or draft.shape != shape:
                raise ValueError(
                    f"tables at depth {depth} must have shape {shape}, got {target.shape} "
                    f"and {draft.shape}"
                )

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.p[0].shape[-1]

    @property
    def depth(self) -> int:
        """Length of the longest text with a table: drafts may have up to this many tokens."""
        return len(self.p) - 1

    @classmethod
    def context_free(cls, p: ArrayLike, q: ArrayLike, depth: int, name: str = "") -> TabularPair:
        """Both laws the same after every text."""
        target, draft = check_pair(p, q)
        size = target.shape[-1]
        tables = [
            tuple(np.tile(law, (size**d, 1)) for d in range(check_count("depth", depth, 0) + 1))
            for law in (target, draft)
        ]
        return cls(tables[0], tables[1], name=name or "context free")

    @classmethod
    def from_functions(
        cls,
        p: Callable[[tuple[int, ...]], Sequence[float]],
        q: Callable[[tuple[int, ...]], Sequence[float]],
        vocabulary: int,
        depth: int,
        name: str = "",
    ) -> TabularPair:
        """Tables of two functions from the text (a tuple of tokens) to the law of the next."""
        tables = [
            tuple(
                np.array([f(decode(c, d, vocabulary)) for c in range(vocabulary**d)], dtype=float)
                for d in range(depth + 1)
            )
            for f in (p, q)
        ]
        return cls(tables[0], tables[1], name=name or "from functions")

    @classmethod
    def random(
        cls,
        vocabulary: int,
        depth: int,
        random_state: int | np.random.Generator,
        *,
        concentration: float = 1.0,
        zeros: float = 0.0,
        name: str = "",
    ) -> TabularPair:
        """Independent Dirichlet laws after every text.

        Parameters
        ----------
        vocabulary, depth : int
            V and the longest draft.
        random_state : int or Generator
        concentration : float, default=1.0
            Of the Dirichlet laws; small values give laws near one-hot.
        zeros : float, default=0.0
            Chance that a token is removed from a support (one token always stays).
        name : str
        """
        rng = np.random.default_rng(random_state)

        def table(d: int) -> np.ndarray:
            rows = rng.gamma(concentration, size=(vocabulary**d, vocabulary)) + 1e-12
            keep = rng.random(rows.shape) >= zeros
            keep[np.arange(len(rows)), rng.integers(vocabulary, size=len(rows))] = True
            rows = rows * keep
            return rows / rows.sum(axis=1, keepdims=True)

        tables = [tuple(table(d) for d in range(depth + 1)) for _ in range(2)]
        return cls(tables[0], tables[1], name=name or "random")

    def text_law(self, length: int) -> np.ndarray:
        """Probability of every text of the target, (V^length,)."""
        law = np.ones(1)
        for d in range(length):
            law = (law[:, None] * self.p[d]).ravel()
        return law


def decode(code: int, length: int, vocabulary: int) -> tuple[int, ...]:
    """Tokens of a text from its code."""
    return tuple(int(code // vocabulary ** (length - 1 - i)) % vocabulary for i in range(length))
