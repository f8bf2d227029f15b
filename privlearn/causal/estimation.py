"""The analyst's side: the effect, its interval and its parts, from a release alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from privlearn.causal.release import AggregateRelease, OutcomeRelease, ScoreRelease

__all__ = ["ClusterEffect", "EffectEstimator"]

_KINDS = (OutcomeRelease, ScoreRelease, AggregateRelease)


class ClusterEffect(NamedTuple):
    """Effect in one cluster, with its standard error and interval; in units of the outcome."""

    cluster: str
    n_control: int
    n_treated: int
    effect: float
    stderr: float
    lower: float
    upper: float


class EffectEstimator(BaseEstimator):
    """Average effect of the treatment, from private outcomes.

    Unbiased for the stratified difference in means of the true outcomes, whatever the mechanism:
    scores are debiased with the released priors. The interval counts both the assignment and the
    privacy noise; it is conservative by how much effects vary within clusters.

    Parameters
    ----------
    level : float, default=0.95
        Nominal coverage of intervals, in (0, 1).
    stratify : bool, default=True
        Weight clusters by their size. False throws all clusters together, which is right only
        where treatment was assigned without regard to clusters (else it is biased where the share
        of treated units differs between clusters).

    Attributes
    ----------
    tau_ : float
        Estimated effect, in units of the outcome.
    stderr_ : float
        Its estimated standard error.
    interval_ : tuple of float
        Interval at `level`, from the normal approximation.
    clusters_ : list of ClusterEffect
        Effect in each cluster, each with its own interval at `level`.
    guarantee_ : Guarantee
        What the release promised; estimation costs nothing more.
    release_ : release
        What was fitted.

    Examples
    --------
    >>> from privlearn.causal import NoDP, OutcomeGrid
    >>> release = NoDP(OutcomeGrid.of([0, 1])).privatize([0, 1, 1, 1], [0, 0, 1, 1], [7, 7, 7, 7])
    >>> estimator = EffectEstimator().fit(release)
    >>> estimator.tau_, tuple(round(end, 2) for end in estimator.interval_)
    (0.5, (-0.48, 1.48))
    """

    def __init__(self, level: float = 0.95, stratify: bool = True) -> None:
        self.level = level
        self.stratify = stratify

    def fit(self, release: Any) -> EffectEstimator:
        """Estimate from what a mechanism released.

        Raises
        ------
        TypeError
            If this is not a release: true outcomes have no way in.
        ValueError
            If level is not in (0, 1), or a cell has one unit only, so that no interval exists.
        """
        if not isinstance(release, _KINDS):
            raise TypeError(
                f"release must come from a mechanism's privatize, got {type(release).__name__}"
            )
        if isinstance(self.level, bool) or not 0 < self.level < 1:
            raise ValueError(f"level must lie in (0, 1), got {self.level!r}")
        sizes = release.cells.sizes
        smallest = int((sizes if self.stratify else sizes.sum(0)).min())
        if smallest < 2:
            raise ValueError(
                "release: cells need two units each for an interval, the smallest has "
                f"{smallest}; privatize with min_cell=2 and small='merge' or 'drop'"
            )
        tau, variance = release.effect(bool(self.stratify))
        self.release_ = release
        self.guarantee_ = release.guarantee
        self.tau_ = tau
        self.stderr_ = float(np.sqrt(variance))
        half = self._quantile * self.stderr_
        self.interval_ = (tau - half, tau + half)
        return self

    @property
    def _quantile(self) -> float:
        return float(stats.norm.ppf((1 + self.level) / 2))

    @property
    def clusters_(self) -> list[ClusterEffect]:
        """Effect in each cluster."""
        check_is_fitted(self, "tau_")
        size, mean, variance = self.release_.cell_estimates()
        effect = mean[:, 1] - mean[:, 0]
        stderr = np.sqrt(variance.sum(1))
        half = self._quantile * stderr
        return [
            ClusterEffect(label, *map(int, n), *map(float, (e, s, e - h, e + h)))
            for label, n, e, s, h in zip(
                self.release_.cells.labels, size, effect, stderr, half, strict=True
            )
        ]

    def response_matrix(self, cluster: int, arm: int) -> np.ndarray:
        """P(private = row | true = column) in one cell, for releases on a grid, shape (K, K).

        Raises
        ------
        TypeError
            If the release has no response matrices.
        """
        check_is_fitted(self, "tau_")
        if not isinstance(self.release_, OutcomeRelease):
            raise TypeError(f"{self.release_.mechanism} has no response matrices")
        return self.release_.response_matrix(cluster, arm)

    def summary(self, most: int = 10) -> str:
        """Return a table in plain text: the effect, what was promised, and the first clusters.

        Examples
        --------
        >>> from privlearn.causal import NoDP, OutcomeGrid
        >>> mechanism = NoDP(OutcomeGrid.of([0, 1]))
        >>> release = mechanism.privatize([0, 1, 1, 1], [0, 0, 1, 1], list("aaaa"))
        >>> print(EffectEstimator().fit(release).summary())  # doctest: +ELLIPSIS
        effect   0.5 (95% interval -0.48 to 1.48), standard error 0.5
        release  No-DP, 4 units in 1 clusters
        promise  epsilon = inf, ...
        cluster  control  treated  effect  stderr
        a              2        2     0.5     0.5
        """
        check_is_fitted(self, "tau_")
        release, (low, high) = self.release_, self.interval_
        lines = [
            f"effect   {self.tau_:.4g} ({100 * self.level:.4g}% interval {low:.4g} to {high:.4g}), "
            f"standard error {self.stderr_:.4g}",
            f"release  {release.mechanism}, {release.cells.n} units in "
            f"{release.cells.n_clusters} clusters",
            f"promise  {self.guarantee_}",
        ]
        rows = [("cluster", "control", "treated", "effect", "stderr")]
        for c in self.clusters_[:most]:
            rows.append(
                (
                    c.cluster,
                    str(c.n_control),
                    str(c.n_treated),
                    f"{c.effect:.4g}",
                    f"{c.stderr:.4g}",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        for row in rows:
            first = row[0].ljust(widths[0])
            rest = [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([first, *rest]))
        left = release.cells.n_clusters - most
        return "\n".join(lines + ([f"... and {left} more clusters"] if left > 0 else []))
