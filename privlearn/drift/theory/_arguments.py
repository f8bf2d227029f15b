"""Checks of arguments that several closed forms share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# name: (what it must be, lower bound, lower bound allowed, infinity allowed)
_RULES: dict[str, tuple[str, float, bool, bool]] = {
    "batch": ("positive (samples of a step)", 0.0, False, True),
    "decay": ("at least 0 and finite", 0.0, True, False),
    "diameter": ("positive and finite", 0.0, False, False),
    "dim": ("at least 1 and finite (coordinates)", 1.0, True, False),
    "drift": ("at least 0 and finite", 0.0, True, False),
    "gap": ("at least 0 and finite", 0.0, True, False),
    "gradient": ("at least 0 and finite (a squared norm)", 0.0, True, False),
    "modulus": ("positive and finite (strong convexity)", 0.0, False, False),
    "noise": ("at least 0 and finite (a variance)", 0.0, True, False),
    "rates": ("at least 0 and finite (learning rates)", 0.0, True, False),
    "second_moment": ("at least 0 (a squared distance)", 0.0, True, True),
    "shifts": ("at least 0 and finite (a drift is a length)", 0.0, True, False),
    "smoothness": ("positive and finite", 0.0, False, False),
    "start": ("at least 0 and finite (a squared distance)", 0.0, True, False),
    "window": ("at least 1 and finite (steps)", 1.0, True, False),
}


def number(name: str, value: object) -> float:
    """Return one number that obeys the rule of its name, or say what was wrong with it."""
    array = numbers(name, value)  # type: ignore[arg-type]
    if array.ndim:
        raise TypeError(f"{name} must be one number, got an array of shape {array.shape}")
    return float(array)


def numbers(name: str, value: ArrayLike) -> FloatArray:
    """Return an array of numbers that obey the rule of their name."""
    text, low, closed, infinite = _RULES[name]
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}") from None
    good = array >= low if closed else array > low
    if not infinite:
        good = good & np.isfinite(array)
    if not good.all():
        bad = float(array[~good].flat[0]) if array.ndim else float(array)
        where = f" at step {int(np.argmin(good.reshape(-1)))}" if array.ndim == 1 else ""
        raise ValueError(f"{name} must be {text}, got {bad:g}{where}")
    return array


def per_step(name: str, value: ArrayLike, steps: int | None = None) -> FloatArray:
    """Return one value a step: a sequence of the right length, or one number for all steps."""
    array = numbers(name, value)
    if array.ndim == 0 and steps is not None:
        return np.full(steps, float(array))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a sequence with one value a step, shape {array.shape}")
    if steps is not None and array.size != steps:
        raise ValueError(
            f"{name} has {array.size} steps, the horizon is {steps}: give one value a step, or "
            "one number for all"
        )
    return array


def path(name: str, value: ArrayLike, steps: int | None = None) -> FloatArray:
    """Return a matrix of finite displacements: one row a step, one column a coordinate."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a matrix of numbers, got {value!r}") from None
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must have shape (steps, coordinates), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]:g}")
    if steps is not None and len(array) != steps:
        raise ValueError(f"{name} has {len(array)} steps, the horizon is {steps}")
    return array


def positive(name: str, value: object, *, infinite: bool = False) -> float:
    """Return a number above 0 whose name has no rule of its own."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not (result > 0 and (infinite or math.isfinite(result))):
        raise ValueError(f"{name} must be positive{'' if infinite else ' and finite'}: {value!r}")
    return result
