"""Checks of arguments that the closed forms share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def check_law(name: str, law: ArrayLike) -> np.ndarray:
    """Return probabilities (..., V), or say what is wrong with them."""
    rows = np.asarray(law, dtype=float)
    if rows.ndim < 1 or rows.shape[-1] < 1:
        raise ValueError(f"{name} must have probabilities on its last axis, got shape {rows.shape}")
    if not (rows >= 0).all():
        raise ValueError(f"{name} must be >= 0 and finite, smallest entry is {rows.min()!r}")
    sums = rows.sum(axis=-1)
    if not np.allclose(sums, 1, rtol=0, atol=1e-9):
        worst = sums.ravel()[np.argmax(np.abs(sums - 1))]
        raise ValueError(f"{name} must sum to one, got a sum of {worst!r}")
    return rows


def check_pair(p: ArrayLike, q: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return two laws on the same vocabulary."""
    target, draft = check_law("p", p), check_law("q", q)
    if target.shape[-1] != draft.shape[-1]:
        raise ValueError(
            f"p and q must share a vocabulary, got {target.shape[-1]} and {draft.shape[-1]} tokens"
        )
    return target, draft


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer, or say that it must be one that is large enough."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value!r}")
    return int(value)


def check_range(name: str, value: ArrayLike, low: float, high: float) -> np.ndarray:
    """Return floats in [low, high], or say that they must be."""
    array = np.asarray(value, dtype=float)
    if not ((array >= low) & (array <= high)).all():
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
    return array
