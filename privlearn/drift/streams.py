"""Synthetic drifts: how far the optimum moves after each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from privlearn.drift.theory import _arguments


def burst(
    steps: int, at: Sequence[int] = (300, 700, 1100), size: float = 3.0
) -> NDArray[np.float64]:
    """Return rests with sudden moves of one size after the given steps, which count from 0.

    Examples
    --------
    >>> burst(5, at=[2], size=1.5)
    array([0. , 0. , 1.5, 0. , 0. ])
    """
    steps = _steps(steps)
    outside = [t for t in at if not 0 <= t < steps]
    if outside:
        raise ValueError(f"at must lie in [0, {steps}), the horizon, got {outside[0]}")
    shifts = np.zeros(steps)
    shifts[list(at)] = _arguments.number("shifts", size)
    return shifts


def gradual(steps: int, size: float = 0.05) -> NDArray[np.float64]:
    """Return moves of one size after every step.

    Examples
    --------
    >>> gradual(3)
    array([0.05, 0.05, 0.05])
    """
    return np.full(_steps(steps), _arguments.number("shifts", size))


def periodic(steps: int, size: float = 0.12, period: float = 300.0) -> NDArray[np.float64]:
    """Return moves that come and go: size * max(0, sin(2 pi t / period)).

    Examples
    --------
    >>> periodic(4, size=1.0, period=4).round(2)
    array([0., 1., 0., 0.])
    """
    phase = 2 * np.pi * np.arange(_steps(steps)) / _arguments.positive("period", period)
    return _arguments.number("shifts", size) * np.maximum(0.0, np.sin(phase))


def still(steps: int) -> NDArray[np.float64]:
    """Return no moves at all.

    Examples
    --------
    >>> still(2)
    array([0., 0.])
    """
    return np.zeros(_steps(steps))


def named(steps: int = 1500) -> dict[str, NDArray[np.float64]]:
    """Return the four streams of the comparison: burst, gradual, periodic, none.

    Bursts come at 20 %, 47 % and 73 % of the horizon, the period is a fifth of it.

    Examples
    --------
    >>> {name: round(float(shifts.sum()), 1) for name, shifts in named().items()}
    {'burst': 9.0, 'gradual': 75.0, 'periodic': 57.3, 'none': 0.0}
    """
    at = [round(steps * share / 15) for share in (3, 7, 11)]
    return {
        "burst": burst(steps, at),
        "gradual": gradual(steps),
        "periodic": periodic(steps, period=steps / 5),
        "none": still(steps),
    }


def _steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"steps must be a whole number, got {steps!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return int(steps)
