"""Fast exact decoding: drafters propose, verifiers dispose, a certificate says what is exact."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "cost",
        "decoder",
        "drafters",
        "drafts",
        "generation",
        "models",
        "sampling",
        "statistics",
        "theory",
        "verifiers",
    },
    submod_attrs={
        "cost": ["CostCurve", "best_gamma"],
        "decoder": ["Comparison", "Generation", "SpeculativeDecoder"],
        "drafters": ["Lookahead", "ModelDrafter", "MultiDrafter", "NoDrafter", "PromptLookup"],
        "drafts": ["Draft", "Topology"],
        "sampling": ["SamplingRule"],
        "statistics": ["DecodingStatistics"],
    },
)
