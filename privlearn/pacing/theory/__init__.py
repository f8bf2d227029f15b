"""Closed forms of pacing: kernels, bounds of regret, stability with delay, fluid solutions.

Symbols: rho budget per step; mu price of a unit of budget; g = rho - spend the error of a step;
c = -d(spend) / d(mu) the slope; T the horizon, D the delay in steps. 64-bit NumPy and SciPy.

Source: Balseiro, Lu, Mirrokni, Sivan, "Analysis of Dual-Based PID Controllers through
Convolutional Mirror Descent", arXiv 2202.06152, and Balseiro, Lu, Mirrokni, "The Best of Many
Worlds", arXiv 2011.10124, for the structure; the formulas are re-derived and checked by
simulation (`privlearn check pacing`), because the papers' own constants were not at hand.
"""

from ._convolution import (
    Convolution,
    Gains,
    KernelConstants,
    ema_pid_kernel,
    kernel_constants,
    kernel_to_pid,
    momentum_as_position,
    momentum_kernel,
    optimistic_kernel,
    pid_constants,
    pid_to_kernel,
)
from ._fluid import (
    Fluid,
    first_price_utility,
    roi_multiplier,
    roi_value,
    second_price_utility,
    second_price_value,
    throttled_utility,
    utility_at,
    value_at,
)
from ._regret import (
    AdversarialBound,
    RegretBound,
    adversarial_bound,
    best_step,
    divergence,
    oco_bound,
    pacing_bound,
    strong_convexity,
)
from ._stability import (
    FastestGains,
    Stability,
    characteristic_polynomial,
    delay_margin,
    fastest_gains,
    gain_margin,
    is_schur,
    jury_pid,
    largest_stable_gain,
    noise_response,
    offset_energy,
    spectral_radius,
    stability,
)

__all__ = [
    "AdversarialBound",
    "Convolution",
    "FastestGains",
    "Fluid",
    "Gains",
    "KernelConstants",
    "RegretBound",
    "Stability",
    "adversarial_bound",
    "best_step",
    "characteristic_polynomial",
    "delay_margin",
    "divergence",
    "ema_pid_kernel",
    "fastest_gains",
    "first_price_utility",
    "gain_margin",
    "is_schur",
    "jury_pid",
    "kernel_constants",
    "kernel_to_pid",
    "largest_stable_gain",
    "momentum_as_position",
    "momentum_kernel",
    "noise_response",
    "oco_bound",
    "offset_energy",
    "optimistic_kernel",
    "pacing_bound",
    "pid_constants",
    "pid_to_kernel",
    "roi_multiplier",
    "roi_value",
    "second_price_utility",
    "second_price_value",
    "spectral_radius",
    "stability",
    "strong_convexity",
    "throttled_utility",
    "utility_at",
    "value_at",
]
