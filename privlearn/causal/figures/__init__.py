"""The figures of private experiments: synthetic, privacy, and on real trials."""

from privlearn.causal.figures import privacy, real, synthetic

__all__ = ["privacy", "real", "synthetic"]
