"""Figures of drift: exact schedules and limits, comparisons by simulation, a real stream."""

from privlearn.drift.figures import comparison, exact, real

__all__ = ["comparison", "exact", "real"]
