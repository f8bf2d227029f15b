"""Drafters: what proposes tokens to the target. One protocol, one file each; see `protocol`."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"lookahead", "lookup", "model", "none", "protocol", "recording", "tree"},
    submod_attrs={
        "lookahead": ["Lookahead"],
        "lookup": ["PromptLookup"],
        "model": ["ModelDrafter"],
        "none": ["NoDrafter"],
        "protocol": ["Drafter", "Observation", "Plan"],
        "recording": ["RecordingDrafter"],
        "tree": ["MultiDrafter"],
    },
)
