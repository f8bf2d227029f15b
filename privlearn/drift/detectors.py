"""Drift detectors outside of jit: any object with ``update(x)`` and ``drift_detected``.

The detectors of `river` (ADWIN, Page-Hinkley, KSWIN) see one number at a time in Python; feed them
the loss of each batch and give their verdict to the next update as ``alarm=``. Inside of jit use
`privlearn.drift.kernels.page_hinkley_step`, the same arithmetic as river's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Detector(Protocol):
    """What is asked of a detector: river's protocol."""

    drift_detected: bool

    def update(self, x: float) -> Any:
        """Take in a value."""


def adwin(**settings: Any) -> Any:
    """Return ``river.drift.ADWIN``: adaptive windows, two-sided.

    It also fires when a loss *falls*, which after a shift is good news; `Trigger` silences that.

    Raises
    ------
    ImportError
        If river is not installed.

    Examples
    --------
    >>> detector = adwin(delta=0.01)
    >>> alarms(detector, [0.0] * 200 + [5.0] * 50).tolist()[:1]
    [223]
    """
    return _river().ADWIN(**settings)


def page_hinkley(**settings: Any) -> Any:
    """Return ``river.drift.PageHinkley``, one-sided (increase of the mean) unless told otherwise.

    Raises
    ------
    ImportError
        If river is not installed.

    Examples
    --------
    >>> alarms(page_hinkley(threshold=20.0), [0.0] * 30 + [10.0] * 10).tolist()
    [32]
    """
    return _river().PageHinkley(**({"mode": "up"} | settings))


class Trigger:
    """Turn the loss of each batch into an alarm that counts only if the loss went up.

    Parameters
    ----------
    detector : object
        With a method ``update(x)`` and an attribute ``drift_detected``.
    memory : int, default=20
        Losses whose mean is compared with the mean of all since the latest alarm, to tell a rise
        from a fall.

    Raises
    ------
    TypeError
        If the detector lacks one of the two.

    Examples
    --------
    >>> trigger = Trigger(page_hinkley(threshold=20.0))
    >>> flags = [trigger(loss) for loss in [1.0] * 40 + [12.0] * 10]
    >>> flags.index(True)
    41
    >>> trigger.count
    1
    """

    def __init__(self, detector: Any, *, memory: int = 20) -> None:
        if not (
            callable(getattr(detector, "update", None)) and hasattr(detector, "drift_detected")
        ):
            raise TypeError(
                "detector must have update(x) and drift_detected, as those of river.drift, got "
                f"{type(detector).__name__}"
            )
        if memory < 1:
            raise ValueError(f"memory must be at least 1, got {memory}")
        self.detector = detector
        self.memory = memory
        self.count = 0
        self._seen: list[float] = []

    def __call__(self, value: float) -> bool:
        """Take in the loss of a batch; whether its level has just risen.

        A loss that is not finite is an alarm of its own kind: ValueError, before it enters the
        detector and stays there.
        """
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"value must be a finite loss, got {value}")
        self._seen.append(value)
        self.detector.update(value)
        if not self.detector.drift_detected:
            return False
        recent = self._seen[-min(self.memory, max(1, len(self._seen) // 2)) :]
        risen = float(np.mean(recent)) >= float(np.mean(self._seen))
        self._seen = []
        self.count += risen
        return risen


def alarms(detector: Detector, values: Iterable[float]) -> NDArray[np.int64]:
    """Return the positions at which a detector fires on a sequence.

    Examples
    --------
    >>> alarms(page_hinkley(threshold=20.0), [1.0] * 50).tolist()
    []
    """
    found = []
    for t, value in enumerate(values):
        detector.update(float(value))
        if detector.drift_detected:
            found.append(t)
    return np.array(found, dtype=np.int64)


def _river() -> Any:
    try:
        from river import drift
    except ImportError as error:
        raise ImportError(
            'detectors of river need it installed: pip install "privlearn[stream]"', name="river"
        ) from error
    return drift
