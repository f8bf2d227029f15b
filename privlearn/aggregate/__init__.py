"""Learning from aggregate responses: features are seen one by one, responses only as bag means."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "bag_building",
        "bags",
        "draws",
        "estimators",
        "figures",
        "kernels",
        "layout",
        "losses",
        "mechanism",
        "model_selection",
        "release",
        "simulation",
        "studies",
        "theory",
        "training",
    },
    submod_attrs={
        "aggregator": ["LabelDPAggregator"],
        "bag_size": ["BagSizeAdvice", "advise_bag_size"],
        "bags": [
            "BagAssignment",
            "feature_clustered_bags",
            "label_sorted_bags",
            "prediction_sorted_bags",
            "random_bags",
        ],
        "classification": ["AggregateClassifier"],
        "mechanism": ["BagMeanMechanism", "simulate_release"],
        "model_selection": ["BagKFold"],
        "regression": ["AggregateRegressor"],
        "release": ["BagRelease", "release_bags"],
        "training": ["fit_bags", "fit_path"],
    },
)
