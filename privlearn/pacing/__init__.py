"""Budget pacing: PID control of dual prices, convolutional mirror descent, and what they cost."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"combinations", "controllers", "kernels", "theory"},
    submod_attrs={
        "_validation": ["PacingWarning"],
        "controllers": [
            "Action",
            "Controller",
            "Feedback",
        ],
    },
)
