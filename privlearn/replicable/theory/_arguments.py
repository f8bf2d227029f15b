"""Checks that the functions of the theory make of their arguments."""

from __future__ import annotations

import math
from numbers import Integral, Real


def count(name: str, value: object, low: int = 1) -> int:
    """Return an integer >= low, or say what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value!r}")
    return int(value)


def positive(name: str, value: object) -> float:
    """Return a finite number > 0, or say what is wrong with it."""
    number = _number(name, value)
    if not (0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def proportion(name: str, value: object, *, closed: bool = False) -> float:
    """Return a number in (0, 1), or in [0, 1] if closed, or say what is wrong with it."""
    number = _number(name, value)
    inside = 0 <= number <= 1 if closed else 0 < number < 1
    if not inside:
        raise ValueError(f"{name} must lie in {'[0, 1]' if closed else '(0, 1)'}, got {value!r}")
    return number


def budget(rho: object, failure_probability: object) -> tuple[float, float]:
    """Check rho in (0, 1) and the failure probability in (0, rho / 3)."""
    r, f = proportion("rho", rho), proportion("failure_probability", failure_probability)
    if not f < r / 3:
        raise ValueError(
            f"failure_probability must be below rho / 3 = {r / 3:.4g}, got {failure_probability!r}"
        )
    return r, f


def window(low: object, high: object) -> tuple[float, float]:
    """Check 0 <= low < high."""
    a, b = _number("low", low), _number("high", high)
    if not 0 <= a < b < math.inf:
        raise ValueError(f"a threshold needs 0 <= low < high, got low={low!r}, high={high!r}")
    return a, b


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"{name} must not be NaN")
    return number
