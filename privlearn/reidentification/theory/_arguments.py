"""Checks of arguments that several closed forms share."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import ArrayLike


def whole(name: str, value: object, least: int) -> int:
    """Return a whole number of at least `least`, or say what was wrong with it."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real(name: str, value: object, low: float, high: float) -> float:
    """Return a number in [low, high], or say what was wrong with it."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if math.isnan(number) or not low <= number <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {number:g}")
    return number


def probabilities(name: str, values: ArrayLike, ndim: int) -> np.ndarray:
    """Return an array whose last axis sums to one, or say which row does not."""
    array = np.asarray(values, dtype=float)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{name} must hold probabilities, got a least value of {array.min()}")
    sums = array.sum(axis=-1)
    worst = np.abs(sums - 1).max()
    if worst > 1e-8:
        row = np.abs(sums - 1).argmax()
        where = f" (row {row} sums to {np.ravel(sums)[row]:.6g})" if ndim > 1 else ""
        raise ValueError(f"{name} must sum to one, is off by {worst:.3g}{where}")
    return array


def channel(matrix: ArrayLike) -> np.ndarray:
    """Return the matrix of a channel with at least two users."""
    rows = probabilities("channel", matrix, 2)
    if len(rows) < 2:
        raise ValueError("channel must have at least two users (rows), got one")
    return rows
