"""Exact theory of learning from aggregate responses: risk, best rho, best bag size, best clip.

Model: x ~ N(0, I_p), y = <x, theta0> + noise; n instances in random bags of k; only the mean
response of each bag is seen. ``gamma`` = p / n, ``signal`` = ||theta0||^2, ``noise`` = variance of
one response given x, both in squared units of the response. Risk means ||theta_hat - theta0||^2,
the excess squared error of a prediction for a new x.

Everything takes floats or arrays, which broadcast, and uses NumPy and SciPy only.

Source: Javanmard, Chen, Mirrokni, Badanidiyuru, Fu, "Learning from Aggregate Responses: Instance
Level versus Bag Level Loss Functions", ICLR 2024, arXiv 2401.11081. The formulas are re-derived
and checked by simulation (`privlearn check aggregate`); the numbers F1 to F5 are ours, not the
paper's.
"""

from ._best import BestRho, best_rho, snr_threshold
from ._cgmt import CgmtRisk, risk_cgmt
from ._easyllp import best_multiplier, easyllp_risk
from ._finite import easyllp_risk_finite, exact_risk_finite
from ._planning import BestBagSize, BestClip, best_bag_size, best_clip
from ._private import clip_moments, effective_noise, ridge_private_risk, risk_private
from ._risk import Risk, risk, risk_correlated, signal_strength

__all__ = [
    "BestBagSize",
    "BestClip",
    "BestRho",
    "CgmtRisk",
    "Risk",
    "best_bag_size",
    "best_clip",
    "best_multiplier",
    "best_rho",
    "clip_moments",
    "easyllp_risk",
    "easyllp_risk_finite",
    "effective_noise",
    "exact_risk_finite",
    "ridge_private_risk",
    "risk",
    "risk_cgmt",
    "risk_correlated",
    "risk_private",
    "signal_strength",
    "snr_threshold",
]
