"""Detectors from outside: river's, or anything with its two names."""

import numpy as np
import pytest

from privlearn.drift import Trigger, detectors


class Threshold:
    """A detector of somebody else."""

    def __init__(self, level):
        self.level, self.drift_detected = level, False

    def update(self, x):
        self.drift_detected = x > self.level


def test_any_object_with_the_two_names_is_a_detector():
    trigger = Trigger(Threshold(3.0))
    assert [trigger(x) for x in (1.0, 2.0, 5.0, 1.0)] == [False, False, True, False]
    assert trigger.count == 1
    assert isinstance(Threshold(1.0), detectors.Detector)


def test_a_detector_of_river_alarms_soon_after_a_rise_and_not_after_a_fall():
    pytest.importorskip("river")
    rng = np.random.default_rng(0)
    losses = rng.chisquare(8, 900) / 8 * np.repeat([0.2, 2.0, 0.2], 300)
    raw = detectors.alarms(detectors.adwin(), losses)
    trigger = Trigger(detectors.adwin())
    told = np.flatnonzero([trigger(x) for x in losses])
    assert any(300 < t < 400 for t in told)
    assert any(600 < t < 700 for t in raw), "ADWIN itself fires on the fall"
    assert not any(t >= 600 for t in told)


def test_what_is_no_detector_or_no_loss_is_refused():
    with pytest.raises(TypeError, match="must have update"):
        Trigger(object())
    with pytest.raises(ValueError, match="memory must be at least 1"):
        Trigger(Threshold(1.0), memory=0)
    with pytest.raises(ValueError, match="finite loss, got nan"):
        Trigger(Threshold(1.0))(float("nan"))


def test_without_river_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(ImportError, match=r"privlearn\[stream\]"):
        detectors.adwin()
