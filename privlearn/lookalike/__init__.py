"""Look-alike clustering: train on cluster averages of the sensitive features."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "clustering",
        "estimators",
        "figures",
        "kernels",
        "regression",
        "simulation",
        "theory",
    },
    submod_attrs={
        "clustering": ["MDAV", "MinSizeKMeans"],
        "estimators": ["LookAlikeClustering", "LookAlikeReport"],
        "flow": ["Assignment", "min_size_assignment"],
        "regression": ["LookAlikeRegression"],
        "univariate": ["UnivariatePartition", "univariate_microaggregation"],
    },
)
