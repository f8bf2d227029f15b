"""Figures of decoding: certificates, acceptance, block efficiency, walltime, training of drafts."""

from privlearn.decoding.figures import efficiency, exact, lookahead, training

__all__ = ["efficiency", "exact", "lookahead", "training"]
