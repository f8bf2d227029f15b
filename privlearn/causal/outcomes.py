"""The public grid of outcome values, and how real outcomes get onto it.

The grid is public: it is chosen without looking at the outcomes, or it leaks them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from privlearn.causal import entropy

Rule = Literal["exact", "round", "bin"]
_RULES = ("exact", "round", "bin")
#: Most values of a grid: each is a category of the randomised response.
MOST_VALUES = 4096


@dataclass(frozen=True)
class OutcomeGrid:
    """Values that an outcome can take, and the rule that takes raw outcomes to them.

    Parameters
    ----------
    values : tuple of float
        At least two increasing, finite numbers.
    rule : {"exact", "round", "bin"}
        "exact": outcomes must be among the values. "round": to one of the two nearest values at
        random, so that the mean is the raw outcome (within 2^-32 of a step): the effect on the raw
        outcome is estimated without bias, and each unit's variance grows by at most a quarter of
        the squared step. "bin": to the nearest value; the estimand becomes the effect on the binned
        outcome, off by at most one bin width (`bias_bound`).
    edges : (float, float), optional
        Public bounds to which raw outcomes are clipped first ("round" and "bin").

    Raises
    ------
    TypeError, ValueError
        If values are not at least two increasing finite numbers, or the rule is unknown.

    Examples
    --------
    >>> OutcomeGrid.of([0, 1]).k
    2
    >>> OutcomeGrid.bins((0, 10), 5).values
    (1.0, 3.0, 5.0, 7.0, 9.0)
    >>> OutcomeGrid.rounding((0, 10), 5).values
    (0.0, 2.5, 5.0, 7.5, 10.0)
    """

    values: tuple[float, ...]
    rule: Rule = "exact"
    edges: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise ValueError(f"rule must be one of {_RULES}, got {self.rule!r}")
        v = self.values
        if not (isinstance(v, tuple) and all(type(x) is float for x in v)):
            raise TypeError("values must be a tuple of floats: use OutcomeGrid.of(values)")
        if not 2 <= len(v) <= MOST_VALUES:
            raise ValueError(f"values must be 2 to {MOST_VALUES} numbers, got {len(v)}")
        if not all(math.isfinite(x) for x in v):
            raise ValueError("values must be finite")
        if not all(a < b for a, b in itertools.pairwise(v)):
            raise ValueError("values must increase, without repeats")

    @classmethod
    def of(cls, values: Iterable[float]) -> OutcomeGrid:
        """Grid of exactly these values.

        Examples
        --------
        >>> OutcomeGrid.of(range(4)).values
        (0.0, 1.0, 2.0, 3.0)
        """
        try:
            floats = tuple(float(v) for v in values)
        except (TypeError, ValueError):
            raise TypeError(f"values must be numbers, got {values!r}") from None
        return cls(floats)

    @classmethod
    def bins(cls, bounds: tuple[float, float], n_bins: int) -> OutcomeGrid:
        """Midpoints of `n_bins` equal bins between public bounds; outcomes are binned."""
        low, high = _bounds(bounds)
        k = _count("n_bins", n_bins)
        middles = low + (np.arange(k) + 0.5) * ((high - low) / k)
        return cls(tuple(middles.tolist()), "bin", (low, high))

    @classmethod
    def rounding(cls, bounds: tuple[float, float], n_points: int) -> OutcomeGrid:
        """`n_points` equally spaced values from bound to bound; outcomes are rounded at random."""
        low, high = _bounds(bounds)
        points = np.linspace(low, high, _count("n_points", n_points))
        return cls(tuple(points.tolist()), "round", (low, high))

    @property
    def k(self) -> int:
        """Number of values."""
        return len(self.values)

    @cached_property
    def array(self) -> np.ndarray:
        """The values as an array of shape (K,)."""
        array = np.array(self.values)
        array.setflags(write=False)
        return array

    @property
    def width(self) -> float:
        """Largest minus smallest value."""
        return self.values[-1] - self.values[0]

    @property
    def bias_bound(self) -> float:
        """How far the effect on the grid can be from that on the (clipped) raw outcome."""
        if self.rule != "bin" or self.edges is None:
            return 0.0
        return float((self.edges[1] - self.edges[0]) / self.k)

    def encode(self, y: ArrayLike) -> np.ndarray:
        """Value codes 0, ..., K-1 of raw outcomes; random for "round", with system entropy.

        Raises
        ------
        TypeError
            If y is not numeric.
        ValueError
            If y is not one-dimensional, has missing or infinite values, or, with the rule "exact",
            values off the grid. (That there are such is a fact about private data: keep the message
            as private as they are.)

        Examples
        --------
        >>> OutcomeGrid.of([0, 1, 5]).encode([5, 0, 1])
        array([2, 0, 1], dtype=int32)
        """
        raw = np.asarray(y)
        if raw.ndim != 1:
            raise ValueError(f"y must have one axis, got shape {raw.shape}")
        if raw.dtype.kind not in "biuf":
            raise TypeError(f"y must be numeric, got dtype {raw.dtype}")
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            bad = int(len(raw) - np.isfinite(raw).sum())
            raise ValueError(f"y must be finite, {bad} of {len(raw)} are missing or infinite")
        if self.rule == "exact":
            return self._exact(raw)
        low, high = self.edges or (self.values[0], self.values[-1])
        clipped = np.clip(raw.astype(np.float64), low, high)
        if self.rule == "bin":
            middles = (self.array[1:] + self.array[:-1]) / 2
            return np.searchsorted(middles, clipped, side="right").astype(np.int32)
        below, share = self.neighbours(clipped)
        weights = np.floor(share * entropy.COIN).astype(np.int64)
        return (below + entropy.coins(weights, len(raw), os.urandom)).astype(np.int32)

    def neighbours(self, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Code of the value below each (clipped) outcome, and the probability to round up.

        Examples
        --------
        >>> OutcomeGrid.rounding((0, 2), 3).neighbours([0.25, 2.0])
        (array([0, 1]), array([0.25, 1.  ]))
        """
        v = self.array
        y = np.clip(np.asarray(y, dtype=np.float64), v[0], v[-1])
        below = np.clip(np.searchsorted(v, y, side="right") - 1, 0, self.k - 2)
        return below, (y - v[below]) / (v[below + 1] - v[below])

    def _exact(self, raw: np.ndarray) -> np.ndarray:
        if self._is_range and raw.dtype.kind in "biu":
            codes = raw.astype(np.int64) - int(self.values[0])
            bad = (codes < 0) | (codes >= self.k)
        else:
            codes = np.clip(np.searchsorted(self.array, raw), 0, self.k - 1)
            bad = self.array[codes] != raw
        if bad.any():
            raise ValueError(
                f"y: {int(bad.sum())} of {len(raw)} outcomes are not among the {self.k} values "
                f"{self.values[0]:g} ... {self.values[-1]:g} of the grid; declare them, or use "
                "OutcomeGrid.rounding or OutcomeGrid.bins, which clip to public bounds"
            )
        return codes.astype(np.int32)

    @cached_property
    def _is_range(self) -> bool:
        """Whether the values are consecutive whole numbers, so that codes need no search."""
        first = self.values[0]
        return abs(first) < 2**31 and self.values == tuple(map(float, _range(first, self.k)))


def _range(first: float, k: int) -> range:
    return range(int(first), int(first) + k)


def _bounds(bounds: Any) -> tuple[float, float]:
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be a pair (lowest, highest), got {bounds!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite and increase, got {bounds!r}")
    return low, high


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    count = int(value)
    if not 2 <= count <= MOST_VALUES:
        raise ValueError(f"{name} must lie in 2 ... {MOST_VALUES}, got {count}")
    return count
