"""Closed special cases, independent of the general formula."""

from __future__ import annotations

import numpy as np

from privlearn.lookalike.theory.mixture import GaussianMixtureModel


def risk_base_underparametrised(psi_d: float, noise: float) -> float:
    """Risk of least squares on all features, d < n: ``noise / (1 - psi_d)``, whatever the clusters.

    Examples
    --------
    >>> risk_base_underparametrised(0.5, 0.25)
    0.5
    """
    if not 0 <= psi_d < 1:
        raise ValueError(f"psi_d must lie in [0, 1), got {psi_d!r}")
    return noise / (1 - psi_d)


def risk_known_underparametrised(model: GaussianMixtureModel, psi: float) -> float:
    """Risk with known centres, minimum norm, q < n, centres linearly independent.

    Parameters
    ----------
    model : GaussianMixtureModel
    psi : float
        Public features per sample, q / n, in [0, 1).
    """
    if not 0 <= psi < 1:
        raise ValueError(f"psi = q / n must lie in [0, 1), got {psi!r}")
    inside = float(
        model.align_sensitive @ np.linalg.pinv(model.gram_sensitive) @ model.align_sensitive
    )
    inflated = model.noise + model.signal_sensitive
    return model.noise + model.signal_sensitive - inside + inflated * psi / (1 - psi)


def risk_empirical_underparametrised(
    model: GaussianMixtureModel, psi: float, psi_p: float
) -> float:
    """Risk with averages of the members as centres, minimum norm, q < n.

    Parameters
    ----------
    model : GaussianMixtureModel
    psi : float
        Public features per sample, q / n, in [0, 1).
    psi_p : float
        Sensitive features per sample, p / n: what estimating the centres costs.
    """
    if not 0 <= psi < 1:
        raise ValueError(f"psi = q / n must lie in [0, 1), got {psi!r}")
    spread = np.diag(psi_p / model.weights)
    solved = np.linalg.solve(model.gram_sensitive + spread, model.align_sensitive)
    missed = spread @ solved
    inflated = model.noise + model.signal_sensitive
    return float(
        inflated
        - model.align_sensitive @ solved
        + model.weights @ missed**2
        + inflated * psi / (1 - psi)
    )
