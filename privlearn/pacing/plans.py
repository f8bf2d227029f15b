"""Spending plans: which share of the budget each slot of the day should spend.

A plan is an array of shares, one a slot, that sum to 1. Traffic has hours; a campaign that spends
at an even rate buys what is dear at night and runs after what it missed by day, whatever its
gains. NumPy only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_plan", "day_curve", "even", "from_times", "planned", "proportional", "rebin"]

Shares = NDArray[np.float64]


def even(n_slots: int) -> Shares:
    """Spend the same in each slot.

    Examples
    --------
    >>> even(4).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    if n_slots < 1:
        raise ValueError(f"n_slots must be at least 1, got {n_slots!r}")
    return np.full(n_slots, 1.0 / n_slots)


def day_curve(
    n_slots: int, *, mean: float = 1.0, swing: float = 0.8, shift: float = -1.2, days: float = 1.0
) -> NDArray[np.float64]:
    """Give a smooth traffic curve: mean (1 + swing sin(2 pi days s / n_slots + shift)).

    Parameters
    ----------
    n_slots : int
    mean : float
        Opportunities per slot on average (over whole days).
    swing : float
        0 (flat) to 1 (no traffic at the worst hour).
    shift : float
        Phase in radians; with the default, the night comes first and the evening is busy.
    days : float
        Periods over all slots.

    Examples
    --------
    >>> curve = day_curve(24)
    >>> int(curve.argmin()), int(curve.argmax())
    (23, 11)
    """
    even(n_slots)
    if not 0 <= swing <= 1:
        raise ValueError(f"swing must be between 0 and 1, got {swing!r}")
    if not (math.isfinite(mean) and mean > 0):
        raise ValueError(f"mean must be positive, got {mean!r}")
    slot = np.arange(n_slots)
    return mean * (1 + swing * np.sin(2 * math.pi * days * slot / n_slots + shift))


def proportional(forecast: ArrayLike, *, floor: float = 0.0) -> Shares:
    """Spend in proportion to forecast traffic.

    Parameters
    ----------
    forecast : array of shape (n_slots,)
        Expected opportunities, or their expected cost, per slot; any unit.
    floor : float, default=0
        Mixes the plan with an even one: against forecasts that say 0 where there is traffic.

    Raises
    ------
    ValueError
        If the forecast has a negative or missing number, or is 0 throughout.

    Examples
    --------
    >>> proportional([1.0, 3.0]).tolist(), proportional([0.0, 1.0], floor=0.5).tolist()
    ([0.25, 0.75], [0.25, 0.75])
    """
    weight = np.asarray(forecast, dtype=float)
    if weight.ndim != 1 or weight.size == 0:
        raise ValueError(f"forecast must be one number a slot, got shape {weight.shape}")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
        bad = weight[~(np.isfinite(weight) & (weight >= 0))]
        raise ValueError(
            "forecast must be at least 0, finite, and positive somewhere, got "
            + (str(bad[0]) if bad.size else "only zeros")
        )
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be between 0 and 1, got {floor!r}")
    return (1 - floor) * weight / weight.sum() + floor / weight.size


def from_times(
    times: ArrayLike, n_slots: int, *, start: float, end: float, floor: float = 0.05
) -> Shares:
    """Plan by the times of last week's opportunities.

    Parameters
    ----------
    times : array of shape (n,)
        Numbers on the same clock as start and end; times outside are left out.
    n_slots : int
    start, end : float
    floor : float, default=0.05
        As in `proportional`: a log is a sample.

    Examples
    --------
    >>> from_times([0.1, 0.6, 0.7, 0.9], 2, start=0.0, end=1.0, floor=0.0).tolist()
    [0.25, 0.75]
    """
    even(n_slots)
    if not end > start:
        raise ValueError(f"end must be after start, got start={start!r}, end={end!r}")
    counts, _ = np.histogram(np.asarray(times, dtype=float), n_slots, (start, end))
    return proportional(counts, floor=floor)


def planned(plan: ArrayLike, elapsed: ArrayLike) -> NDArray[np.float64]:
    """Give the share of the budget that the plan has spent when a share of the time is over.

    Examples
    --------
    >>> planned([0.25, 0.75], [0.25, 0.5, 1.0]).tolist()
    [0.125, 0.25, 1.0]
    """
    shares = check_plan(plan)
    edges = np.linspace(0.0, 1.0, shares.size + 1)
    return np.interp(
        np.asarray(elapsed, dtype=float), edges, np.append(0.0, np.cumsum(shares) / shares.sum())
    )


def rebin(plan: ArrayLike, n_slots: int) -> Shares:
    """Bring a plan to another number of slots: what it spends by any time stays the same.

    Examples
    --------
    >>> rebin([0.25, 0.75], 4).tolist()
    [0.125, 0.125, 0.375, 0.375]
    """
    even(n_slots)
    return np.diff(planned(plan, np.linspace(0.0, 1.0, n_slots + 1)))


def check_plan(plan: ArrayLike, n_slots: int | None = None) -> Shares:
    """Return a plan as an array, or raise ValueError that says what is wrong with it.

    Examples
    --------
    >>> check_plan([0.5, 0.5], n_slots=2).tolist()
    [0.5, 0.5]
    """
    shares = np.asarray(plan, dtype=float)
    if shares.ndim != 1 or shares.size == 0:
        raise ValueError(f"plan must be one share a slot, got shape {shares.shape}")
    if not (np.isfinite(shares).all() and (shares >= 0).all()):
        raise ValueError(f"plan must have shares of at least 0, got {shares.min()!r}")
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"plan must have shares that sum to 1, got a sum of {shares.sum():.6g}; "
            "plans.proportional makes a plan of any forecast"
        )
    if n_slots is not None and shares.size != n_slots:
        raise ValueError(
            f"plan has {shares.size} slots where {n_slots} are needed; plans.rebin changes them"
        )
    return shares
