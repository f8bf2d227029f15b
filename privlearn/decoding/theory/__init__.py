"""Closed forms and exact sums for fast decoding: acceptance, block efficiency, walltime, lenience.

Letters: p is the target, q the draft (SpecTr swaps them), gamma the draft length, K the number of
drafts, tau the number of accepted tokens, c the ratio of the times of a draft and a target step.
Block efficiency is ``E[tau] + 1``, tokens per target step.

NumPy and SciPy only; nothing here imports JAX.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "distillation",
        "drafts",
        "lenience",
        "lookahead",
        "selection",
        "walltime",
        "worlds",
    ],
    submod_attrs={
        "selection": [
            "KSeq",
            "acceptance",
            "deterministic_acceptance",
            "greedy_drafts_acceptance",
            "kseq",
            "kseq_bound",
            "kseq_uniform",
            "optimal_acceptance",
            "optimal_acceptance_without_replacement",
            "rrs_acceptance",
            "rrs_without_replacement_acceptance",
        ],
        "distillation": [
            "AcceptanceBounds",
            "DIVERGENCES",
            "acceptance_bounds",
            "divergence",
            "divergence_gradient",
            "fkl",
            "jsd",
            "rkl",
            "tvd",
        ],
        "drafts": [
            "block_expected_tau",
            "block_tau_law",
            "full_information_expected_tau",
            "kseq_expected_tau",
            "rrs_expected_tau",
            "token_expected_tau",
            "token_tau_law",
        ],
        "lenience": ["LenienceLaw", "ensemble_law", "lenience_law"],
        "lookahead": ["lookahead_compression", "lookahead_tokens", "lookahead_width"],
        "walltime": [
            "best_gamma",
            "block_efficiency",
            "operations_factor",
            "speedup",
            "walltime_improvement",
        ],
        "worlds": ["TabularPair"],
    },
)
