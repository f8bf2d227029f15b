"""Many small clusters: exact risk at finite n, and a plan for the minimum cluster size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from privlearn.lookalike.theory.asymptotic import Risk


def risk_m_anonymity(
    *,
    n: int,
    p: int,
    q: int,
    min_size: int,
    signal_sensitive: float,
    noise: float,
    centred: bool = True,
) -> Risk:
    """Exact risk at finite n when every cluster has ``min_size`` members.

    Isotropic Gaussian features, clusters of equal size formed independently of the data, averages
    of the members as centres, least squares (minimum norm in the sensitive block). There is a
    second interpolation peak where the number of clusters meets the number of sensitive features.
    Beyond the paper; derived here and checked by simulation.

    Parameters
    ----------
    n, p, q : int
        Training rows, sensitive features, public features.
    min_size : int
        Members of each cluster, m. The number of clusters is n / m (real-valued if m does not
        divide n: an interpolation).
    signal_sensitive : float
        ``|theta_s|^2``.
    noise : float
        Variance of the response noise.
    centred : bool, default=True
        Whether features and response are centred on the training rows, which costs one degree of
        freedom in rows and in clusters.

    Returns
    -------
    Risk
        ``bulk`` is the error of the public, ``structured`` of the sensitive coefficients. NaN
        where no exact formula holds (within one of the peak) or no mean exists.

    Examples
    --------
    >>> round(risk_m_anonymity(n=300, p=30, q=40, min_size=3, signal_sensitive=0.8,
    ...     noise=0.25, centred=False).structured, 3)
    0.173
    """
    for name, value in (("n", n), ("min_size", min_size)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    if p < 0 or q < 0:
        raise ValueError(f"p and q must be >= 0, got {p!r} and {q!r}")
    if min_size > n:
        raise ValueError(f"min_size must be at most n = {n}, got {min_size!r}")
    rows, clusters = n - centred, n / min_size - centred
    inflated = noise + signal_sensitive
    nothing = Risk(noise, np.nan, np.nan, np.nan)
    if p < clusters - 1 and p + q < rows - 1:
        bulk = (
            q * ((clusters - p) * noise + (rows - clusters) * inflated)
            / ((rows - p) * (rows - p - q - 1))
        )  # fmt: skip
        structured = p / (clusters - p - 1) * (noise + bulk)
    elif p > clusters + 1 and q < rows - clusters - 1:
        bulk = q * inflated / (rows - clusters - q - 1)
        structured = signal_sensitive * (1 - clusters / p) + clusters / (p - clusters - 1) * (
            noise + bulk
        )
    else:
        return nothing
    return Risk(noise, bulk, structured, noise + bulk + structured)


class PlanRow(NamedTuple):
    """Predicted risk at one minimum cluster size."""

    min_size: int
    n_clusters: int
    risk: float
    change_percent: float


@dataclass(frozen=True)
class Plan:
    """What anonymity of each degree is predicted to cost (see :func:`plan_min_size`).

    Attributes
    ----------
    rows : tuple of PlanRow
        One a candidate m; ``risk`` is NaN where no exact prediction holds (at the peak).
    base_risk : float
        Risk of training on the features themselves.
    drop_risk : float
        Risk of training without the sensitive features.
    best : PlanRow
        Least predicted risk among the candidates.
    danger : tuple of int
        Candidates with between half and twice as many clusters as sensitive features, where
        unpenalised training is erratic.
    """

    rows: tuple[PlanRow, ...]
    base_risk: float
    drop_risk: float
    best: PlanRow
    danger: tuple[int, ...]


def plan_min_size(
    *,
    n: int,
    p: int,
    q: int,
    signal_sensitive: float,
    noise: float,
    min_sizes: Sequence[int] = (2, 3, 5, 10, 20, 50),
    centred: bool = True,
) -> Plan:
    """Predict the test risk against the minimum cluster size, from public moments.

    Uses :func:`risk_m_anonymity`: unpenalised least squares, features whitened, clusters that do
    not depend on the data. Clusters found on the sensitive features keep more of them than that,
    so on structured data the prediction is pessimistic; it is right about where the peak is.

    Parameters
    ----------
    n, p, q : int
        Training rows, sensitive and public features.
    signal_sensitive, noise : float
        Response variance explained by the sensitive features, and unexplained by all.
    min_sizes : sequence of int
        Candidates for m.
    centred : bool, default=True
        As in :func:`risk_m_anonymity`.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If there is no candidate with a finite prediction.

    Examples
    --------
    >>> plan = plan_min_size(n=300, p=30, q=40, signal_sensitive=0.1, noise=1.0,
    ...     min_sizes=(2, 5, 10, 60))
    >>> plan.best.min_size, plan.danger
    (60, (10,))
    """
    if not len(min_sizes):
        raise ValueError("min_sizes must hold at least one candidate")
    common: dict[str, Any] = {
        "n": n,
        "signal_sensitive": signal_sensitive,
        "noise": noise,
        "centred": centred,
    }
    base = risk_m_anonymity(p=p, q=q, min_size=1, **common).total
    rows_left = n - centred - q - 1
    drop = (noise + signal_sensitive) * (1 + q / rows_left) if rows_left > 0 else np.nan
    rows = []
    for m in min_sizes:
        total = risk_m_anonymity(p=p, q=q, min_size=m, **common).total
        rows.append(PlanRow(int(m), n // int(m), total, 100 * (total / base - 1)))
    finite = [row for row in rows if np.isfinite(row.risk)]
    if not finite:
        raise ValueError(
            f"min_sizes {tuple(min_sizes)} all fall where no exact prediction holds "
            f"(n / m within one of p = {p}, or q too large)"
        )
    danger = tuple(row.min_size for row in rows if p and 0.5 < row.n_clusters / p < 2)
    return Plan(tuple(rows), base, drop, min(finite, key=lambda row: row.risk), danger)
