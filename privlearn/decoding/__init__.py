"""Fast exact decoding: drafters propose, verifiers dispose, a certificate says what is exact."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "cost",
        "decoder",
        "distill",
        "drafters",
        "drafts",
        "generation",
        "models",
        "online",
        "sampling",
        "statistics",
        "streams",
        "theory",
        "verifiers",
    },
    submod_attrs={
        "cost": ["CostCurve", "best_gamma"],
        "decoder": ["Comparison", "Generation", "SpeculativeDecoder"],
        "distill": ["DistillSpec"],
        "drafters": ["Lookahead", "ModelDrafter", "MultiDrafter", "NoDrafter", "PromptLookup"],
        "drafts": ["Draft", "Topology"],
        "online": ["OnlineSpeculative", "moving_average"],
        "sampling": ["SamplingRule"],
        "statistics": ["DecodingStatistics"],
        "streams": ["drift_stream"],
    },
)
