"""Asymptotic test risk of every estimator, ridge and minimum norm."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.optimize

from privlearn.lookalike.theory.mixture import GaussianMixtureModel

Estimator = Literal["base", "known", "empirical", "misclustered", "drop"]
ESTIMATORS: tuple[Estimator, ...] = ("base", "known", "empirical", "misclustered", "drop")


class Risk(NamedTuple):
    """Asymptotic test risk and its parts; ``total`` is their sum.

    Attributes
    ----------
    noise : float
        Variance of the response given all features; no method goes below it.
    bulk : float
        Error in the public directions that carry no cluster structure.
    structured : float
        Error in the directions of the cluster centres, and what averaging removed.
    total : float
        The risk.
    """

    noise: float
    bulk: float
    structured: float
    total: float


class _Structured(NamedTuple):
    """The low-dimensional regression of one estimator (see :func:`risk`)."""

    psi: float  # unstructured features per sample
    table: np.ndarray  # (rs, K) what the table holds in place of the sensitive block
    truth: np.ndarray  # (rs, K) true means in the coordinates of `table`
    theta_s: np.ndarray  # (rs,)
    public: np.ndarray  # (r, K) public means
    theta_n: np.ndarray  # (r,)
    signal_n: float
    signal_s: float
    response: np.ndarray  # (K,) contribution mu_s' theta_s of the cluster to the response
    noise_train: float  # noise plus what the removed sensitive detail adds
    confusion: np.ndarray  # (K, K)


def _setup(
    model: GaussianMixtureModel,
    psi_d: float,
    psi_p: float,
    estimator: Estimator,
    confusion: np.ndarray | None,
) -> _Structured:
    k = len(model.weights)
    joint = np.diag(model.weights)
    empty = np.zeros((0, k))
    if estimator == "base":
        means, theta, signal = model._everything_public()
        return _Structured(
            psi_d, empty, empty, np.zeros(0), means, theta, signal, 0.0, np.zeros(k),
            model.noise, joint,
        )  # fmt: skip
    public, theta_n = model._coordinates("public")
    noise_train = model.noise + model.signal_sensitive
    table = truth = empty
    theta_s = np.zeros(0)
    if estimator in ("known", "misclustered"):
        table, theta_s = model._coordinates("sensitive")
        truth = table
        if estimator == "misclustered":
            joint = _check_confusion(confusion, model.weights)
    elif estimator == "empirical":
        gram = model.gram_sensitive + np.diag(psi_p / model.weights)
        if psi_p > 0:
            factor = np.linalg.cholesky(gram)
            table = factor.T
            theta_s = np.linalg.solve(factor, model.align_sensitive)
            truth = np.linalg.solve(factor, model.gram_sensitive)
    return _Structured(
        psi_d - psi_p, table, truth, theta_s, public, theta_n, model.signal_public,
        model.signal_sensitive, model.align_sensitive, noise_train, joint,
    )  # fmt: skip


def _check_confusion(confusion: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    if confusion is None:
        raise ValueError("confusion is needed for estimator='misclustered': the (K, K) joint law")
    joint = np.asarray(confusion, float)
    if joint.shape != (len(weights),) * 2 or np.any(joint < 0):
        raise ValueError(f"confusion must be a non-negative (K, K) matrix, got shape {joint.shape}")
    if not np.allclose(joint.sum(axis=1), weights, atol=1e-8):
        raise ValueError(
            f"confusion[l, l'] = P(true l, used l') must have row sums equal to weights "
            f"{weights}, got {joint.sum(axis=1)}"
        )
    return joint


def _moments(s: _Structured) -> tuple[np.ndarray, np.ndarray, float]:
    """E[w w'], E[w s] and E[s^2] of structured features w and structured response s."""
    r_s, r_n = s.table.shape[0], s.public.shape[0]
    weights = s.confusion.sum(axis=1)
    level = s.response + s.public.T @ s.theta_n  # per true cluster
    second = np.zeros((r_s + r_n,) * 2)
    used = s.confusion.sum(axis=0)
    second[:r_s, :r_s] = (s.table * used) @ s.table.T
    second[r_s:, r_s:] = (s.public * weights) @ s.public.T + np.eye(r_n)
    second[r_s:, :r_s] = s.public @ s.confusion @ s.table.T
    second[:r_s, r_s:] = second[r_s:, :r_s].T
    cross = np.concatenate(
        [s.table @ (s.confusion.T @ level), s.public @ (weights * level) + s.theta_n]
    )
    return second, cross, float(weights @ level**2 + s.theta_n @ s.theta_n)


def _check_ratios(psi_d: float, psi_p: float, ridge: float) -> None:
    if not (np.isfinite(psi_d) and psi_d > 0):
        raise ValueError(f"psi_d = d / n must be a finite number > 0, got {psi_d!r}")
    if not 0 <= psi_p <= psi_d:
        raise ValueError(f"psi_p = p / n must lie in [0, psi_d = {psi_d}], got {psi_p!r}")
    if not (np.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge must be a finite number >= 0, got {ridge!r}")


def risk(
    model: GaussianMixtureModel,
    *,
    psi_d: float,
    psi_p: float,
    estimator: Estimator = "empirical",
    ridge: float = 0.0,
    confusion: np.ndarray | None = None,
    test_features: Literal["individual", "anonymised"] = "individual",
) -> Risk:
    """Asymptotic test risk of ridge or minimum-norm least squares, for every estimator.

    Parameters
    ----------
    model : GaussianMixtureModel
        The population.
    psi_d : float
        Features per training sample, d / n.
    psi_p : float
        Sensitive features per training sample, p / n, at most psi_d.
    estimator : {"base", "known", "empirical", "misclustered", "drop"}
        "base" trains on the features themselves; "known" on true cluster centres; "empirical" on
        the average of the cluster's members; "misclustered" on the centre of a wrong cluster with
        the joint law ``confusion``; "drop" without the sensitive block.
    ridge : float, default=0.0
        Penalty lam in ``(1/n)|y - X theta|^2 + lam |theta|^2``; 0 is the minimum-norm solution.
    confusion : ndarray of shape (K, K), optional
        ``confusion[l, l'] = P(true cluster l, used centre l')``, for "misclustered".
    test_features : {"individual", "anonymised"}
        Whether a new person arrives with her own sensitive features or with a cluster's centre.

    Returns
    -------
    Risk
        Infinite at the interpolation peak (ridge 0 and as many unstructured features as samples).

    Raises
    ------
    ValueError
        If a ratio, the ridge, the estimator or the confusion matrix is not admissible.

    Notes
    -----
    With psi the unstructured features per sample, kappa solves
    ``kappa = ridge + psi kappa / (1 + kappa)``; the centre directions see a ridge of strength
    kappa; the bulk error is ``(kappa^2 b2 + psi tau2) / ((1 + kappa)^2 - psi)`` with b2 the public
    signal outside the centres and tau2 the residual variance of the structured regression.
    Setting: Javanmard & Mirrokni 2023 (arXiv 2310.04015); formula re-derived and checked by
    simulation.

    Examples
    --------
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=3, norm=2.0, alignment=0.5,
    ...     signal_sensitive=0.09, signal_public=1.0, noise=0.25)
    >>> round(risk(model, psi_d=0.95, psi_p=0.3, estimator="base").total, 3)
    5.0
    >>> round(risk(model, psi_d=0.95, psi_p=0.3, estimator="known").total, 3)
    0.949
    """
    _check_ratios(psi_d, psi_p, ridge)
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    if test_features not in ("individual", "anonymised"):
        raise ValueError(
            f"test_features must be 'individual' or 'anonymised', got {test_features!r}"
        )
    s = _setup(model, psi_d, psi_p, estimator, confusion)
    shift = ridge + s.psi - 1
    kappa = (shift + np.sqrt(shift**2 + 4 * ridge)) / 2 if ridge else max(shift, 0.0)
    if ridge == 0 and abs(s.psi - 1) < 1e-12:
        return Risk(model.noise, np.inf, np.nan, np.inf)
    second, cross, energy = _moments(s)
    system = second + kappa * np.eye(len(cross))
    xi = np.linalg.lstsq(system, cross, rcond=1e-12)[0]
    tau2 = s.noise_train + energy - 2 * cross @ xi + xi @ second @ xi
    outside = max(s.signal_n - float(s.theta_n @ s.theta_n), 0.0)
    bulk = float((kappa**2 * outside + s.psi * tau2) / ((1 + kappa) ** 2 - s.psi))
    if test_features == "anonymised":
        return Risk(model.noise, bulk, float(tau2) - model.noise, float(tau2) + bulk)
    r_s = s.table.shape[0]
    xi_s, slack = xi[:r_s], xi[r_s:] - s.theta_n
    per_cluster = s.truth.T @ xi_s - s.response + s.public.T @ slack
    structured = float(
        s.signal_s
        - s.theta_s @ s.theta_s
        + np.sum((xi_s - s.theta_s) ** 2)
        + slack @ slack
        + model.weights @ per_cluster**2
    )
    return Risk(model.noise, bulk, structured, model.noise + bulk + structured)


def best_ridge(
    model: GaussianMixtureModel,
    *,
    psi_d: float,
    psi_p: float,
    estimator: Estimator = "empirical",
    bounds: tuple[float, float] = (1e-6, 1e4),
) -> tuple[float, Risk]:
    """Ridge penalty of least asymptotic risk, and that risk.

    Parameters
    ----------
    model, psi_d, psi_p, estimator
        As in :func:`risk`.
    bounds : tuple of float
        Interval that is searched, on a logarithmic grid refined by Brent's method.

    Returns
    -------
    ridge : float
    risk : Risk
    """
    low, high = bounds
    if not 0 < low < high:
        raise ValueError(f"bounds must satisfy 0 < low < high, got {bounds!r}")

    def total(log_ridge: float) -> float:
        ridge = float(np.exp(log_ridge))
        return risk(model, psi_d=psi_d, psi_p=psi_p, estimator=estimator, ridge=ridge).total

    grid = np.linspace(np.log(low), np.log(high), 121)
    values = [total(g) for g in grid]
    at = int(np.argmin(values))
    left, right = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(
        total, bounds=(left, right), method="bounded", options={"xatol": 1e-10}
    )
    ridge = float(np.exp(found.x if found.fun <= values[at] else grid[at]))
    return ridge, risk(model, psi_d=psi_d, psi_p=psi_p, estimator=estimator, ridge=ridge)


def gain_percent(risk_base: float, risk_lookalike: float) -> float:
    """Reduction of risk by look-alike training, ``100 (base - lookalike) / lookalike``.

    Positive where training on centres is better. The normalisation by the look-alike risk is our
    reading of the paper's figures.

    Examples
    --------
    >>> round(gain_percent(5.0, 0.949))
    427
    """
    return 100.0 * (risk_base - risk_lookalike) / risk_lookalike
