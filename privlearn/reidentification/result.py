"""What an attack achieved: rates with intervals, risk of each user, and always the population."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from privlearn.reidentification.theory._arguments import real, whole

__all__ = ["AttackResult", "Rate", "wilson"]


class Rate(NamedTuple):
    """A rate with a confidence interval.

    Attributes
    ----------
    value, lower, upper : float
        In [0, 1].
    """

    value: float
    lower: float
    upper: float


def wilson(hits: float, n: int, confidence: float = 0.95) -> Rate:
    """Wilson's score interval for a share of `n` trials.

    Fractional hits, the expected number under random tie-breaking, are fine: their variance is
    at most that of whole hits, so the interval is on the safe side.

    Parameters
    ----------
    hits : float
        Between 0 and n.
    n : int
        At least 1.
    confidence : float, default=0.95

    Examples
    --------
    >>> [round(x, 4) for x in wilson(0, 10)]
    [0.0, 0.0, 0.2775]
    """
    n = whole("n", n, 1)
    share = real("hits", hits, 0.0, n) / n
    z = float(special.ndtri(0.5 + real("confidence", confidence, 0.0, 1.0) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Rate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Success of one attack, for a stated population.

    Attributes
    ----------
    population : int
        Number of users among whom the attack had to choose. A success rate means nothing without
        it: it falls as the population grows.
    method : str
        The attack.
    n_weeks : int
        Weeks (or slices) per user that both sites saw.
    users : ndarray of shape (q,)
        Ids of the users that were looked for.
    better, tied : ndarray of shape (q,)
        How many users scored better than the true one, and how many equal to it, itself included.
    risk : ndarray of shape (q,)
        Chance that each user is found at first rank, ties broken at random.
    confidence : float
        Level of the intervals.
    """

    population: int
    method: str
    n_weeks: int
    users: np.ndarray
    better: np.ndarray
    tied: np.ndarray
    risk: np.ndarray
    confidence: float = 0.95

    @property
    def success(self) -> Rate:
        """Share of users found at first rank."""
        return wilson(float(self.risk.sum()), len(self.risk), self.confidence)

    def success_at(self, rank: int) -> Rate:
        """Share of users whose true match is among the first `rank`.

        Raises
        ------
        ValueError
            If rank is not between 1 and the population.
        """
        k = whole("rank", rank, 1)
        if k > self.population:
            raise ValueError(f"rank must be at most the population {self.population}, got {k}")
        if k == 1:
            return self.success
        hits = np.clip((k - self.better) / self.tied, 0.0, 1.0)
        return wilson(float(hits.sum()), len(hits), self.confidence)

    @property
    def unique(self) -> Rate:
        """Share of users whose true match scored better than everyone else's."""
        alone = (self.better == 0) & (self.tied == 1)
        return wilson(float(alone.sum()), len(alone), self.confidence)

    @property
    def lift(self) -> float:
        """Success relative to guessing, 1 / population."""
        return self.success.value * self.population

    def __float__(self) -> float:
        return self.success.value

    def __str__(self) -> str:
        rate = self.success
        return (
            f"{self.method}: {rate.value:.2%} of {len(self.users):,} users found "
            f"({rate.lower:.2%} to {rate.upper:.2%}) among {self.population:,}, "
            f"{self.n_weeks} week(s); guessing finds {1 / self.population:.2%}"
        )

    def table(self) -> Any:
        """One row a user: id, risk, better, tied (polars)."""
        import polars as pl

        return pl.DataFrame(
            {"user": self.users, "risk": self.risk, "better": self.better, "tied": self.tied}
        )
