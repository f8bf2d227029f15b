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


def risk_known_finite(model: GaussianMixtureModel, n: int, q: int) -> float:
    """Risk with known centres at finite n, minimum norm, q + K + 1 < n, right to first order.

    The limit `risk_known_underparametrised` has psi / (1 - psi); here stands
    (q + K + tr[H^-1]) / (n - q - K - 1), H the second moment of the look-alike table given the
    public features. Given that table, least squares is a correct regression on its q + K features
    with noise + |theta_s|^2 as noise; the mean of an inverse Wishart matrix and the second moment
    of a new person's own features give the trace. Derived here, and checked by simulation (claim
    ``lookalike/finite-n-correction``).

    Parameters
    ----------
    model : GaussianMixtureModel
        With linearly independent centres.
    n : int
        Samples.
    q : int
        Public features.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If n is not above q + K + 1.

    Examples
    --------
    >>> model = GaussianMixtureModel.orthogonal(
    ...     n_clusters=3, norm=2.0, alignment=0.8, signal_sensitive=0.25, signal_public=1.0,
    ...     noise=0.25,
    ... )
    >>> round(risk_known_underparametrised(model, psi=0.3), 3)
    0.554
    >>> round(risk_known_finite(model, n=300, q=90), 3)
    0.578
    >>> round(risk_known_finite(model, 300_000, 90_000), 3)
    0.554
    """
    table, theta = model._coordinates("sensitive")
    public, _ = model._coordinates("public")
    k = len(theta)
    if not (n > q + k + 1 and q >= 0):
        raise ValueError(f"n must exceed q + K + 1 = {q + k + 1}, got n = {n!r}")
    second = (table * model.weights) @ table.T
    cross = (table * model.weights) @ public.T
    others = (public * model.weights) @ public.T + np.eye(len(public))
    schur = second - cross @ np.linalg.solve(others, cross.T)
    trace = q + k + np.trace(np.linalg.inv(schur))
    inflated = model.noise + model.signal_sensitive
    return inflated - float(theta @ theta) + inflated * float(trace) / (n - q - k - 1)


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
