"""The paper's route to the risk: the scalar problem of the convex Gaussian min-max theorem."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from privlearn.lookalike.theory.asymptotic import _check_ratios, _moments, _setup
from privlearn.lookalike.theory.mixture import GaussianMixtureModel


def risk_cgmt(model: GaussianMixtureModel, *, psi_d: float, psi_p: float, ridge: float) -> float:
    """The same risk for known centres by the paper's route, a scalar saddle problem.

    The convex Gaussian min-max theorem reduces training to a convex problem in the coefficients
    along the centres and two scalars. It shares no algebra with :func:`risk` and serves as its
    independent check. Needs ridge > 0 (the minimum-norm solution is its limit).

    Parameters
    ----------
    model, psi_d, psi_p, ridge
        As in :func:`risk`.

    Returns
    -------
    float
        Test risk on individual features.

    Examples
    --------
    >>> from privlearn.lookalike.theory import risk
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=2, norm=2.0, alignment=0.5,
    ...     signal_sensitive=1.0, signal_public=1.0, noise=0.25)
    >>> closed = risk(model, psi_d=0.8, psi_p=0.3, ridge=0.2, estimator="known").total
    >>> abs(risk_cgmt(model, psi_d=0.8, psi_p=0.3, ridge=0.2) / closed - 1) < 1e-6
    True
    """
    _check_ratios(psi_d, psi_p, ridge)
    if ridge == 0:
        raise ValueError("ridge must be > 0 here; risk() covers the minimum-norm limit")
    s = _setup(model, psi_d, psi_p, "known", None)
    second, _, _ = _moments(s)
    xi0 = np.concatenate([s.theta_s, s.theta_n])
    r = np.sqrt(max(s.signal_n - float(s.theta_n @ s.theta_n), 0.0))
    root_psi = np.sqrt(s.psi)
    dim = len(xi0)

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        xi, a, b = z[:dim], z[dim], z[dim + 1]
        miss = second @ (xi - xi0)
        total = np.sqrt(s.noise_train + (xi - xi0) @ miss + a**2 + b**2)
        gap = max(total - b * root_psi, 0.0)
        value = gap**2 + ridge * (xi @ xi + (r + a) ** 2 + b**2)
        grad = np.empty_like(z)
        grad[:dim] = 2 * gap * miss / total + 2 * ridge * xi
        grad[dim] = 2 * gap * a / total + 2 * ridge * (r + a)
        grad[dim + 1] = 2 * gap * (b / total - root_psi) + 2 * ridge * b
        return value, grad

    start = np.concatenate([xi0 / 2, [-r / 2, 1.0]])
    bounds = [(None, None)] * (dim + 1) + [(0.0, None)]
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-12},
    )  # fmt: skip
    xi, a, b = found.x[:dim], found.x[dim], found.x[dim + 1]
    miss = xi - xi0
    r_s = len(s.theta_s)
    # The test person carries her own sensitive features, hence the last two terms.
    return float(
        model.noise
        + a**2
        + b**2
        + miss @ second @ miss
        + s.signal_s
        - s.theta_s @ s.theta_s
        + np.sum(miss[:r_s] ** 2)
    )
