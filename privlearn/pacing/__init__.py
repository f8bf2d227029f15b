"""Budget pacing: PID control of dual prices, convolutional mirror descent, and what they cost."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "auctions",
        "combinations",
        "controllers",
        "draws",
        "figures",
        "hindsight",
        "kernels",
        "oco",
        "plans",
        "replay",
        "simulation",
        "theory",
        "tuning",
    },
    submod_attrs={
        "auctions": ["FirstPrice", "Market", "SecondPrice"],
        "combinations": ["bid_multiplier"],
        "controllers": ["Action", "Controller", "Feedback"],
        "hindsight": ["HindsightOptimum", "hindsight_lp"],
        "pacer": ["PacingController"],
        "simulation": ["Simulation", "simulate_campaigns"],
        "tuning": ["Tuning", "assess", "gains_for"],
        "warnings": ["PacingWarning"],
    },
)
