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
    submodules={
        "detectors", "kernels", "real_data", "schedules", "simulation", "streams", "studies",
        "theory", "transforms",
    },
    submod_attrs={
        "detectors": ["Trigger"],
        "schedules": [
            "OptimalSchedule", "convex_schedule", "nonconvex_schedule", "optimal_schedule",
            "restart_schedule", "schedule_from_rates",
        ],
        "transforms": [
            "DriftState", "drift_aware_sgd", "drift_state", "scale_by_filter",
            "scale_by_half_batches", "scale_by_loss_average", "scale_by_restarts",
            "value_and_half_grads", "with_alarm",
        ],
    },
)  # fmt: skip
