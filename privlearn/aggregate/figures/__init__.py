"""The figures of learning from aggregate responses: synthetic, private, and on real tables."""

from privlearn.aggregate.figures import private, real, synthetic

__all__ = ["private", "real", "synthetic"]
