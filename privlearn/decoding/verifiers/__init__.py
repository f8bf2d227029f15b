"""Verifiers: which drafted tokens to keep, and what to emit after them.

Every verifier has the same face (`Verifier`): ``verify(key, draft, p) -> Verified``, a pure
function that jit and vmap understand, one key a row. `verifier` builds one from its name.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "blockwise",
        "chain",
        "choice",
        "greedy_drafts",
        "kseq",
        "lenient",
        "matching",
        "optimal",
        "protocol",
        "recursive",
        "registry",
        "tokenwise",
        "walk",
    },
    submod_attrs={
        "blockwise": ["BlockVerifier"],
        "greedy_drafts": ["GreedyDraftsVerifier"],
        "kseq": ["KSeqVerifier"],
        "lenient": ["EnsembleVerifier", "LenientVerifier"],
        "matching": ["DeterministicVerifier", "MatchVerifier"],
        "optimal": ["OptimalVerifier"],
        "protocol": ["Verified", "Verifier", "emitted_tokens", "overlap", "row_keys"],
        "recursive": ["RecursiveVerifier", "RecursiveWithoutReplacementVerifier"],
        "registry": ["VERIFIERS", "verifier"],
        "tokenwise": ["TokenVerifier"],
    },
)
