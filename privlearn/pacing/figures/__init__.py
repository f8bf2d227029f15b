"""The figures of budget pacing: single campaigns, regret, loops, stress, a real log."""

from privlearn.pacing.figures import loops, real, regret

__all__ = ["loops", "real", "regret"]
