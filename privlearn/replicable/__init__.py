"""Replicable clustering: the same partition from two samples of the same population."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "estimators",
        "figures",
        "primitives",
        "quadtree",
        "simulation",
        "streams",
        "theory",
    },
    submod_attrs={
        "coreset": ["Coreset", "replicable_coreset"],
        "estimators": ["ReplicableKMeans", "ReplicableKMedians"],
        "forecast": ["Forecast"],
        "k_centers": ["ReplicableKCenters"],
        "oracles": ["WeightedKMedians"],
        "primitives": [
            "replicable_heavy_hitters",
            "replicable_masses",
            "replicable_mean",
            "replicable_median",
            "replicable_round",
            "replicable_threshold",
        ],
        "report": ["ReplicabilityReport", "replicability_report"],
        "warnings": ["ReplicabilityWarning"],
    },
)
