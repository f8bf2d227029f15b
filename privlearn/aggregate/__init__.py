"""Learning from aggregate responses: features are seen one by one, responses only as bag means."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"kernels", "simulation", "theory"},
)
