"""The figures of look-alike clustering: theory beside simulation, cluster sizes, real tables."""

from privlearn.lookalike.figures import clusters, real, synthetic

__all__ = ["clusters", "real", "synthetic"]
