"""Budget pacing: PID control of dual prices, convolutional mirror descent, and what they cost."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "combinations",
        "controllers",
        "hindsight",
        "kernels",
        "oco",
        "plans",
        "theory",
        "tuning",
    },
    submod_attrs={
        "combinations": ["bid_multiplier"],
        "controllers": ["Action", "Controller", "Feedback"],
        "pacer": ["PacingController"],
        "tuning": ["Tuning", "assess", "gains_for"],
        "warnings": ["PacingWarning"],
    },
)
