"""What training on cluster averages of sensitive features does to the test risk.

Setting (Javanmard & Mirrokni, "Anonymous Learning via Look-Alike Clustering", NeurIPS 2023,
arXiv 2310.04015). A sample has d = p + q features, p of them sensitive. Features follow a Gaussian
mixture of K clusters with identity covariance, the response is linear, and training replaces the
sensitive block of each row by a cluster centre. n, p and q grow in proportion while K and all
inner products stay of order one.

The closed forms here were re-derived (a random-matrix argument for the bulk of the public
directions, a small regression for the directions of the centres) and checked against simulation
and against the paper's own route, the scalar problem of the convex Gaussian min-max theorem
(:func:`risk_cgmt`).

Risks are expected squared prediction errors of a new response, its noise included.
"""

from privlearn.lookalike.theory.anonymity import Plan, PlanRow, plan_min_size, risk_m_anonymity
from privlearn.lookalike.theory.asymptotic import ESTIMATORS, Risk, best_ridge, gain_percent, risk
from privlearn.lookalike.theory.cgmt import risk_cgmt
from privlearn.lookalike.theory.mixture import GaussianMixtureModel
from privlearn.lookalike.theory.special import (
    risk_base_underparametrised,
    risk_empirical_underparametrised,
    risk_known_finite,
    risk_known_underparametrised,
)

__all__ = [
    "ESTIMATORS",
    "GaussianMixtureModel",
    "Plan",
    "PlanRow",
    "Risk",
    "best_ridge",
    "gain_percent",
    "plan_min_size",
    "risk",
    "risk_base_underparametrised",
    "risk_cgmt",
    "risk_empirical_underparametrised",
    "risk_known_finite",
    "risk_known_underparametrised",
    "risk_m_anonymity",
]
