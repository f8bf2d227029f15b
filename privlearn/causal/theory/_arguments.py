"""Checks of arguments that the closed forms share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_REAL = (int, float, np.integer, np.floating)


def check_nonnegative(name: str, value: ArrayLike) -> np.ndarray:
    """Return floats, or say that they must be numbers >= 0."""
    array = np.asarray(value, dtype=float)
    if not (array >= 0).all():
        raise ValueError(f"{name} must be >= 0, got {value!r}")
    return array


def check_mixture(lam: ArrayLike, gamma: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return resampling probability and floor, or say what is wrong with them."""
    lam, gamma = np.asarray(lam, dtype=float), np.asarray(gamma, dtype=float)
    if not ((lam >= 0) & (lam <= 1)).all():
        raise ValueError(f"lam must lie in [0, 1], got {lam!r}")
    if not ((gamma > 0) & (gamma <= 0.5)).all():
        raise ValueError(f"gamma must lie in (0, 1/K], K >= 2, got {gamma!r}")
    return lam, gamma


def check_delta(delta: Any) -> float:
    """Return delta, or say that it must lie in [0, 1)."""
    if isinstance(delta, bool) or not isinstance(delta, _REAL) or not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1), got {delta!r}")
    return float(delta)


def check_resampling(lam: Any) -> float:
    """Return lam for variances, which need lam < 1, or say what is wrong with it."""
    if isinstance(lam, bool) or not isinstance(lam, _REAL) or not 0 <= lam < 1:
        raise ValueError(f"lam must lie in [0, 1) for outcomes to be debiased, got {lam!r}")
    return float(lam)


def check_budget(epsilon: Any) -> float:
    """Return epsilon, or say that it must be positive and finite."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, _REAL):
        raise TypeError(f"epsilon must be a number, got {epsilon!r}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be positive and finite, got {epsilon!r}")
    return float(epsilon)


def check_distributions(name: str, p: ArrayLike, k: int | None = None) -> np.ndarray:
    """Return rows of probabilities, or say which do not sum to one or do not fit the grid."""
    rows = np.asarray(p, dtype=float)
    if rows.ndim < 1 or (k is not None and rows.shape[-1] != k):
        raise ValueError(f"{name} must have one probability per value, K = {k}, got {rows.shape}")
    if not (rows >= 0).all():
        raise ValueError(f"{name} must not be negative, smallest is {rows.min()!r}")
    sums = rows.sum(-1)
    if not np.allclose(sums, 1.0, rtol=0, atol=1e-9):
        worst = sums.ravel()[np.argmax(np.abs(sums - 1).ravel())]
        raise ValueError(f"{name} must sum to one in every row, one sums to {worst!r}")
    return rows
