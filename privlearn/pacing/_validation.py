"""Checks of arguments that are numbers now; values that JAX traces are let through."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from privlearn.pacing.warnings import PacingWarning


def known(value: Any) -> np.ndarray | None:
    """Return the numbers of a value, or None where it is traced (under jit, vmap or grad)."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value, dtype=float)


def is_zero(value: Any) -> bool:
    """Tell whether a value is a plain Python 0, so that its term can be left out of the program."""
    return isinstance(value, int | float) and value == 0


def check_finite(name: str, value: Any) -> None:
    """Raise ValueError naming the argument unless all numbers are finite."""
    numbers = known(value)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError naming the argument unless all numbers are finite and above 0."""
    numbers = known(value)
    if numbers is not None and not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")


def check_nonnegative(name: str, value: Any) -> None:
    """Raise ValueError naming the argument unless all numbers are finite and at least 0."""
    numbers = known(value)
    if numbers is not None and not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")


def check_share(name: str, value: Any) -> None:
    """Raise ValueError naming the argument unless all numbers are in [0, 1)."""
    numbers = known(value)
    if numbers is not None and not ((numbers >= 0) & (numbers < 1)).all():
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")


def check_whole(name: str, value: Any, least: int) -> int:
    """Return a whole number, or raise an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_gains(k_i: Any, k_p: Any, k_d: Any) -> None:
    """Refuse a negative integral gain; warn of gains that no bound of regret covers well."""
    check_nonnegative("k_i", k_i)
    for name, value in (("k_p", k_p), ("k_d", k_d)):
        check_finite(name, value)
        numbers = known(value)
        if numbers is not None and (numbers < 0).any():
            warnings.warn(
                f"{name}={value!r} is negative: this acts as momentum and slows the loop; "
                "if a smoothed error is meant, use beta",
                PacingWarning,
                stacklevel=4,
            )
    numbers = known(k_i)
    if numbers is not None and (numbers == 0).any():
        warnings.warn(
            "k_i=0 leaves a steady-state error: regret grows linearly; use k_i > 0",
            PacingWarning,
            stacklevel=4,
        )


def check_domain(mirror: str, start: Any, low: Any, high: Any) -> None:
    """Check that the starting point lies in the domain of the mirror map."""
    if mirror not in ("euclidean", "entropic"):
        raise ValueError(f"mirror must be 'euclidean' or 'entropic', got {mirror!r}")
    first, bottom, top = known(start), known(low), known(high)
    if first is not None:
        check_finite("start", start)
        if mirror == "entropic" and (first <= 0).any():
            raise ValueError(
                "start must be positive for the entropic mirror, which never leaves 0, "
                f"got {start!r}"
            )
    if bottom is not None and mirror == "entropic" and (bottom <= 0).any():
        raise ValueError(f"low must be positive for the entropic mirror, got {low!r}")
    if bottom is not None and top is not None and not (bottom < top).all():
        raise ValueError(f"low must be below high, got low={low!r}, high={high!r}")
    if first is None or bottom is None or top is None:
        return
    if not ((first >= bottom) & (first <= top)).all():
        raise ValueError(
            f"start must lie between low and high, got {start!r}, low={low!r}, high={high!r}"
        )
