"""Closed forms of learning rates under distribution shift: recursion, optimum, limits, bounds.

The setting is SGD on a stream whose optimum moves: features N(0, I), responses with noise of
variance `noise`, loss (y - x.theta)^2 / 2, batches of `batch` fresh samples, and a move of length
gamma_t after step t. *Regret* is dynamic: the sum over steps of the excess loss at the parameter
*before* its update. Everything is 64-bit NumPy and SciPy; no JAX.

Source: Fahrbach, Javanmard, Mirrokni, Worah, "Learning Rate Schedules in the Presence of
Distribution Shift", ICML 2023 (PMLR 202:9523-9546), arXiv 2303.15634. The full text was not at
hand: formulas are re-derived and checked by simulation (`privlearn check drift`).
"""

from ._bounds import (
    Contraction,
    convex_bound,
    convex_rate,
    nonconvex_bound,
    nonconvex_rate,
    strongly_convex_schedule,
    strongly_convex_step,
)
from ._hindsight import Tuned, best_constant, best_cosine, best_decay
from ._known import KnownPath, known_path_limit, known_path_schedule
from ._limit import Path, discretised, moment_ode
from ._moments import Moments, gradient_covariance, moments, regret, steady_state
from ._optimal import (
    FixedPoint,
    Schedule,
    fixed_point,
    largest_rate,
    noise_scale_rate,
    optimal_rate,
    optimal_schedule,
)

__all__ = [
    "Contraction",
    "FixedPoint",
    "KnownPath",
    "Moments",
    "Path",
    "Schedule",
    "Tuned",
    "best_constant",
    "best_cosine",
    "best_decay",
    "convex_bound",
    "convex_rate",
    "discretised",
    "fixed_point",
    "gradient_covariance",
    "known_path_limit",
    "known_path_schedule",
    "largest_rate",
    "moment_ode",
    "moments",
    "noise_scale_rate",
    "nonconvex_bound",
    "nonconvex_rate",
    "optimal_rate",
    "optimal_schedule",
    "regret",
    "steady_state",
    "strongly_convex_schedule",
    "strongly_convex_step",
]
