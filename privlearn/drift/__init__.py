"""Learning rates that follow the drift: schedules and optax transformations for moving targets.

Three ways in:

* `optimal_schedule`: how far the target moves is known; the exact best learning rates.
* `drift_aware_sgd`: it is not known; an optax transformation that estimates it as it goes.
* `theory`: recursion, fixed points, continuous limit, bounds, known paths.

Source: Fahrbach, Javanmard, Mirrokni, Worah, "Learning Rate Schedules in the Presence of
Distribution Shift", ICML 2023, arXiv 2303.15634. The estimating transformations are not in the
paper: they are additions of this package, measured beside it.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"theory"},
)
