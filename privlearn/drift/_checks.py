"""Checks of parameters that are known before compilation; traced values pass."""

from __future__ import annotations

from typing import Any

import jax

from privlearn.drift.theory import _arguments

_SHARED = {"batch", "dim", "drift", "noise", "shifts", "start"}
# name: (what it must be, least, least allowed, most, most allowed)
_RULES: dict[str, tuple[str, float, bool, float, bool]] = {
    "decay": ("in [0, 1)", 0.0, True, 1.0, False),
    "gain": ("in (0, 1]", 0.0, False, 1.0, True),
    "largest": ("positive and finite", 0.0, False, float("inf"), False),
    "noise_window": ("at least 1 and finite", 1.0, True, float("inf"), False),
    "smallest": ("in (0, 1)", 0.0, False, 1.0, False),
    "threshold": ("positive", 0.0, False, float("inf"), True),
}


def traced(value: Any) -> bool:
    """Whether a value is known only when the compiled program runs."""
    return isinstance(value, jax.core.Tracer)


def check(**parameters: Any) -> None:
    """Check each parameter by the rule of its name; None and traced values pass.

    Raises
    ------
    ValueError, TypeError
        Naming the parameter, what it must be and what it was.
    """
    for name, value in parameters.items():
        if value is None or traced(value):
            continue
        if name in _SHARED:
            _arguments.number(name, value)
            continue
        text, low, low_in, high, high_in = _RULES[name]
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a number, got {value!r}") from None
        above = number >= low if low_in else number > low
        below = number <= high if high_in else number < high
        if not (above and below):
            raise ValueError(f"{name} must be {text}, got {value!r}")
