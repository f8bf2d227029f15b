"""Verifiers by name."""

from __future__ import annotations

from privlearn.decoding.verifiers.blockwise import BlockVerifier
from privlearn.decoding.verifiers.greedy_drafts import GreedyDraftsVerifier
from privlearn.decoding.verifiers.kseq import KSeqVerifier
from privlearn.decoding.verifiers.lenient import EnsembleVerifier, LenientVerifier
from privlearn.decoding.verifiers.matching import DeterministicVerifier, MatchVerifier
from privlearn.decoding.verifiers.optimal import OptimalVerifier
from privlearn.decoding.verifiers.protocol import Verifier
from privlearn.decoding.verifiers.recursive import (
    RecursiveVerifier,
    RecursiveWithoutReplacementVerifier,
)
from privlearn.decoding.verifiers.tokenwise import TokenVerifier

#: Name -> class, in the order of the documentation.
VERIFIERS: dict[str, type[Verifier]] = {
    cls.name: cls
    for cls in (
        TokenVerifier,
        BlockVerifier,
        KSeqVerifier,
        RecursiveVerifier,
        RecursiveWithoutReplacementVerifier,
        GreedyDraftsVerifier,
        OptimalVerifier,
        MatchVerifier,
        DeterministicVerifier,
        LenientVerifier,
        EnsembleVerifier,
    )
}


def verifier(name: str | Verifier, **parameters: object) -> Verifier:
    """Build a verifier from its name; an object passes through.

    Raises
    ------
    ValueError
        If the name is unknown, or parameters accompany an object.

    Examples
    --------
    >>> verifier("block")
    BlockVerifier()
    >>> verifier("lenient", eps=0.8)
    LenientVerifier(function='linear', eps=0.8, greedy=False)
    """
    if isinstance(name, Verifier):
        if parameters:
            raise ValueError(f"parameters {sorted(parameters)} need a name, got {name!r}")
        return name
    if name not in VERIFIERS:
        raise ValueError(f"verifier must be one of {list(VERIFIERS)}, got {name!r}")
    return VERIFIERS[name](**parameters)
