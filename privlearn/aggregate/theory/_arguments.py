"""Checks that every function of the theory makes of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# name: (what it must be, lower bound, lower bound allowed, infinity allowed)
_RULES: dict[str, tuple[str, float, bool, bool]] = {
    "gamma": ("positive and finite (p / n)", 0.0, False, False),
    "k": ("at least 1 and finite (members of a bag)", 1.0, True, False),
    "rho": ("at least 0 (0: bag loss, 1: instance loss; inf is allowed)", 0.0, True, True),
    "signal": ("at least 0 and finite (||theta0||^2)", 0.0, True, False),
    "noise": ("at least 0 and finite (variance of one response)", 0.0, True, False),
    "epsilon": ("positive (inf: no privacy)", 0.0, False, True),
    "clip": ("positive and finite (responses are clipped to [-clip, clip])", 0.0, False, False),
    "multiplier": ("at least 0 and finite", 0.0, True, False),
    "ridge": ("at least 0 and finite", 0.0, True, False),
    "n": ("at least 1 and finite (instances)", 1.0, True, False),
    "p": ("at least 1 and finite (features)", 1.0, True, False),
}


def checked(**arguments: ArrayLike) -> tuple[FloatArray, ...]:
    """Check each argument against the rule of its name, and broadcast all to one shape."""
    arrays = []
    for name, value in arguments.items():
        text, low, closed, infinite = _RULES[name]
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must be a number or an array of numbers, got {value!r}"
            ) from None
        good = array >= low if closed else array > low
        if not infinite:
            good = good & np.isfinite(array)
        if not good.all():
            raise ValueError(f"{name} must be {text}, got {_first_bad(array, good)}")
        arrays.append(array)
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError:
        shapes = ", ".join(f"{n} {a.shape}" for n, a in zip(arguments, arrays, strict=True))
        raise ValueError(f"the arguments' shapes do not broadcast: {shapes}") from None


def _first_bad(array: FloatArray, good: Any) -> float:
    return float(array[~good].flat[0]) if array.ndim else float(array)


def plain(array: Any) -> Any:
    """Turn a zero-dimensional array into a NumPy scalar; leave the others alone."""
    return np.asarray(array)[()]
