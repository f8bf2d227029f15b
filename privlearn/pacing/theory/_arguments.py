"""Checks of the arguments of closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def number(name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """Return a finite number, at least ``least`` and above ``above``, or raise."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(result) or result < least or result <= above:
        bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        rule = "finite" if least == above == -math.inf else f"finite and {bound}"
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return result


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least ``least``, or raise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def vector(name: str, value: ArrayLike, *, above: float = -math.inf) -> NDArray[np.float64]:
    """Return a finite vector with components above ``above``, or raise."""
    array = np.atleast_1d(np.asarray(value, dtype=float))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector, got shape {array.shape}")
    if not np.isfinite(array).all() or not (array > above).all():
        rule = "finite" if above == -math.inf else f"finite and above {above:g}"
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return array


def share(name: str, value: Any) -> float:
    """Return a number in [0, 1), or raise."""
    result = number(name, value, least=0.0)
    if result >= 1:
        raise ValueError(f"{name} must be below 1, got {value!r}")
    return result
