"""Private randomised experiments: outcomes stay private, the effect is estimated without bias.

Two parts that never share more than a release: a *mechanism* that the holder of the data runs
(`ClusterDP` and its family, ``privatize``), and an *estimator* that the analyst runs on the release
alone (`EffectEstimator`).

Examples
--------
>>> from privlearn.causal import ClusterDP, EffectEstimator, OutcomeGrid
>>> mechanism = ClusterDP(OutcomeGrid.of([0, 1]), lam=0.5, gamma=0.1, sigma=10.0)
>>> y, z, village = [0, 1, 1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0, 1, 1], list("aaaabbbb")
>>> release = mechanism.privatize(y, z, village)
>>> round(release.guarantee.epsilon, 3), release.guarantee.unit
(2.598, 'one outcome')
>>> bool(-4 < EffectEstimator().fit(release).tau_ < 4)
True
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "auditing",
        "baselines",
        "cells",
        "entropy",
        "estimation",
        "figures",
        "kernels",
        "mechanism",
        "oracles",
        "outcomes",
        "planner",
        "release",
        "simulation",
        "tables",
        "theory",
    },
    submod_attrs={
        "baselines": ["LaplaceOutcome", "NoisyCellMeans", "NoisyHistogram", "OneBitOutcome"],
        "cells": ["Cells", "build_cells"],
        "estimation": ["EffectEstimator"],
        "mechanism": ["ClusterDP", "ClusterFreeDP", "NoDP", "UniformPriorDP"],
        "outcomes": ["OutcomeGrid"],
        "planner": ["Plan", "plan"],
        "release": ["AggregateRelease", "OutcomeRelease", "ScoreRelease"],
        "tables": ["release_experiment"],
    },
)
