"""privlearn: privacy-aware learning, where every published claim can be run, checked and plotted.

Importing this package is quick and has no effects: subpackages load when first used (SPEC 1),
JAX included.

Examples
--------
>>> import privlearn
>>> privlearn.aggregate.theory.risk(gamma=0.25, k=2, rho=0.3, signal=2.0, noise=0.5).total.round(3)
np.float64(0.463)
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

#: The topic packages, in the order in which reports show them. None imports another (figures may).
TOPICS = (
    "aggregate",
    "lookalike",
    "replicable",
    "causal",
    "reidentification",
    "pacing",
    "drift",
    "decoding",
    "attention",
)

__getattr__, __dir__, _ = _lazy.attach(
    __name__,
    submodules={
        "claims",
        "datasets",
        "figures",
        "privacy",
        "simulate",
        *TOPICS,
    },
)
__version__ = _version("privlearn")
__all__ = [
    "TOPICS",
    "__version__",
    "aggregate",
    "attention",
    "causal",
    "claims",
    "datasets",
    "decoding",
    "drift",
    "figures",
    "lookalike",
    "pacing",
    "privacy",
    "reidentification",
    "replicable",
    "simulate",
]
