"""Advice on the bag size of a label-private release, from public quantities only."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from privlearn.aggregate import theory
from privlearn.aggregate.mechanism import BagMeanMechanism

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BagSizeAdvice", "advise_bag_size"]


class BagSizeAdvice(NamedTuple):
    """The best random bags, and what they are up against.

    Attributes
    ----------
    k : int
        Rows per bag with the least risk.
    rho : float
        Knob of the interpolating loss to go with it.
    risk : float
        Expected squared error of the predictions above the noise, in squared units of the
        response.
    ridge_individual_risk : float
        The same for noise on every single response (k = 1) and ridge regression with the best
        penalty: the fair baseline, which random bags do not beat in this model.
    table : polars.DataFrame
        k, rho, risk for every size that was compared.
    """

    k: int
    rho: float
    risk: float
    ridge_individual_risk: float
    table: pl.DataFrame

    def __str__(self) -> str:
        return (
            f"random bags of {self.k} with rho = {self.rho:.3g}: risk {self.risk:.4g}\n"
            f"no bags, ridge regression on noisy responses: risk {self.ridge_individual_risk:.4g}\n"
            "Random bags do not beat the second line in this model. Bags pay off when they are "
            "all that is available, or when public, predictive features are clustered into them "
            "(feature_clustered_bags)."
        )


def advise_bag_size(
    epsilon: float,
    *,
    n: int,
    p: int,
    bounds: tuple[float, float],
    signal: float,
    noise: float,
    rho: float | Literal["best"] = "best",
    sizes: Iterable[int] | None = None,
    clipping: bool = False,
) -> BagSizeAdvice:
    """Advise on the size of random bags for a linear model under label-DP.

    Nothing here may be computed from the private responses: ``signal`` and ``noise`` are guesses
    from other data, from experience, or from an earlier private release.

    Parameters
    ----------
    epsilon : float
        Privacy loss of the release.
    n, p : int
        Rows and features.
    bounds : (float, float)
        Range to which responses will be clipped.
    signal : float
        Variance of the response that the features explain.
    noise : float
        Variance of the response that is left.
    rho : float or "best", default="best"
        Knob of the loss, or the best one for each size.
    sizes : iterable of int, optional
        Sizes to compare; 1 to 60, or to n / 2 if that is less, by default.
    clipping : bool, default=False
        Whether responses are Gaussian and leave the bounds, centred on their mean, so that
        clipping costs something. Right for bounds within 3.5 standard deviations of an unbounded
        response; wrong for one that never leaves them, such as a conversion.

    Returns
    -------
    BagSizeAdvice

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Notes
    -----
    Asymptotic risk in the proportional regime (`privlearn.aggregate.theory`) for random, equal
    bags and Gaussian features. The question is that of Javanmard et al., arXiv 2401.11081, the
    baseline that of its reviewers; the formulas were re-derived and checked by simulation.

    Examples
    --------
    >>> advice = advise_bag_size(2.0, n=1000, p=50, bounds=(-3, 3), signal=1.0, noise=0.25)
    >>> advice.k, round(advice.risk, 4), round(advice.ridge_individual_risk, 4)
    (2, 0.5065, 0.4837)
    """
    grid = BagMeanMechanism(bounds=bounds, epsilon=epsilon).grid  # checks both
    for name, value in (("n", n), ("p", p)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    ks = list(range(1, max(min(60, n // 2), 1) + 1) if sizes is None else sizes)
    if not ks:
        raise ValueError("sizes must name at least one bag size")
    setting: dict[str, Any] = {
        "gamma": p / n,
        "signal": signal,
        "noise": noise,
        "clip": grid.width / 2,
        "clipping": clipping,
    }
    rows = [theory.best_bag_size(epsilon, **setting, rho=rho, sizes=[k]) for k in ks]
    best = min(rows, key=lambda row: float(row.risk))
    ridge = theory.ridge_private_risk(epsilon=epsilon, **setting)
    import polars as pl

    table = pl.DataFrame(
        {
            "k": ks,
            "rho": [float(row.rho) for row in rows],
            "risk": [float(row.risk) for row in rows],
        }
    )
    return BagSizeAdvice(int(best.k), float(best.rho), float(best.risk), float(ridge.total), table)
