"""Closed forms of private randomised experiments: privacy, variance, cluster quality, baselines.

Setting: n units in public clusters; in every cluster n_1c units are treated, all choices equally
likely; outcomes take K public values. Inside each cell (cluster and arm) an outcome is replaced,
with probability ``lam``, by a draw from the cell's released prior: its histogram with noise of
scale ``sigma`` on the counts, moved to a floor ``gamma``.

Neighbours differ in one outcome; arms, clusters and the grid of values are public.

Source: Javanmard, Mirrokni, Pouget-Abadie, ICML 2025, arXiv 2308.00957. What is derived here says
so; everything is checked by enumeration or simulation (`privlearn check causal`).
"""

from ._baselines import (
    discrete_laplace_variance,
    laplace_outcome_gap,
    noisy_histogram_gap,
    noisy_mean_gap,
    one_bit_gap,
    one_bit_variance,
    warner_variance,
)
from ._privacy import (
    boundary_delta,
    composed_delta,
    composed_epsilon,
    label_dp_delta,
    label_dp_epsilon,
    leaked_share,
    outcomes_only_epsilon,
    prior_epsilon,
    privacy_losses,
    resampling_probability,
    second_stage_delta,
    second_stage_epsilon,
)
from ._variance import (
    cell_excess,
    cell_gap,
    cell_weights,
    cluster_quality,
    debiased_score,
    excess_bound,
    gap_bound,
    gap_factor,
    ideal_gap,
    inverse_response_matrix,
    neyman_variance,
    response_matrix,
    rounding_variance,
    score_variance,
    variance_gap,
)

__all__ = [
    "boundary_delta",
    "cell_excess",
    "cell_gap",
    "cell_weights",
    "cluster_quality",
    "composed_delta",
    "composed_epsilon",
    "debiased_score",
    "discrete_laplace_variance",
    "excess_bound",
    "gap_bound",
    "gap_factor",
    "ideal_gap",
    "inverse_response_matrix",
    "label_dp_delta",
    "label_dp_epsilon",
    "laplace_outcome_gap",
    "leaked_share",
    "neyman_variance",
    "noisy_histogram_gap",
    "noisy_mean_gap",
    "one_bit_gap",
    "one_bit_variance",
    "outcomes_only_epsilon",
    "prior_epsilon",
    "privacy_losses",
    "resampling_probability",
    "response_matrix",
    "rounding_variance",
    "score_variance",
    "second_stage_delta",
    "second_stage_epsilon",
    "variance_gap",
    "warner_variance",
]
