"""What replicable estimation costs: exact laws, sample sizes, thresholds.

Sources: Impagliazzo, Lei, Pitassi, Sorrell, "Reproducibility in Learning", STOC 2022,
arXiv 2201.08430; Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou, "Replicable Clustering",
NeurIPS 2023, arXiv 2302.10359. The exact laws are derived here and checked by simulation.
"""

from privlearn.replicable.theory.designs import (
    HeavyHittersDesign,
    MassesDesign,
    StatQueryDesign,
    calibrated_mass_grid,
    calibrated_mean_grid,
    calibrated_window_rows,
    heavy_hitters_design,
    masses_design,
    stat_query_design,
    threshold_window,
)
from privlearn.replicable.theory.laws import (
    binomial_gap,
    jointly_rounded_differ,
    masses_differ,
    means_differ,
    median_gap,
    normal_gap,
    rounding_differs,
    threshold_differs,
    thresholds_differ,
)
from privlearn.replicable.theory.tree import (
    Level,
    SampleSizes,
    Schedule,
    jl_dimension,
    k_centers_bound,
    sample_sizes,
    schedule,
)

__all__ = [
    "HeavyHittersDesign",
    "Level",
    "MassesDesign",
    "SampleSizes",
    "Schedule",
    "StatQueryDesign",
    "binomial_gap",
    "calibrated_mass_grid",
    "calibrated_mean_grid",
    "calibrated_window_rows",
    "heavy_hitters_design",
    "jl_dimension",
    "jointly_rounded_differ",
    "k_centers_bound",
    "masses_design",
    "masses_differ",
    "means_differ",
    "median_gap",
    "normal_gap",
    "rounding_differs",
    "sample_sizes",
    "schedule",
    "stat_query_design",
    "threshold_differs",
    "threshold_window",
    "thresholds_differ",
]
