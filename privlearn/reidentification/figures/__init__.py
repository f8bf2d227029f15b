"""The figures of re-identification risk: exact small worlds, synthetic users, real histories."""

from privlearn.reidentification.figures import exact, real, synthetic

__all__ = ["exact", "real", "synthetic"]
