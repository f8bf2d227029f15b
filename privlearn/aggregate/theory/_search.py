"""Minimisation of many one-dimensional functions at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_GOLD = (np.sqrt(5) - 1) / 2


def golden(
    function: Callable[[Any], Any], low: ArrayLike, high: ArrayLike, *, grid: int = 61
) -> Any:
    """Minimise element by element on [low, high]: a grid, then golden section.

    The function is called with arrays of the shape of the bounds. Finds the global minimum as long
    as it is the lowest at the grid's resolution; exact to about 1e-8 of the range.
    """
    low, high = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))
    steps = np.linspace(0.0, 1.0, grid)
    values = np.stack([function(low + s * (high - low)) for s in steps])
    best = np.argmin(np.where(np.isnan(values), np.inf, values), axis=0)
    left = low + steps[np.maximum(best - 1, 0)] * (high - low)
    right = low + steps[np.minimum(best + 1, grid - 1)] * (high - low)
    inner, outer = right - _GOLD * (right - left), left + _GOLD * (right - left)
    f_inner, f_outer = function(inner), function(outer)
    for _ in range(30):
        smaller = f_inner < f_outer
        right, left = np.where(smaller, outer, right), np.where(smaller, left, inner)
        fresh = np.where(smaller, right - _GOLD * (right - left), left + _GOLD * (right - left))
        f_fresh = function(fresh)
        inner, outer = np.where(smaller, fresh, outer), np.where(smaller, inner, fresh)
        f_inner, f_outer = np.where(smaller, f_fresh, f_outer), np.where(smaller, f_inner, f_fresh)
    return (left + right) / 2
