"""Bounds for channels that are no matrix: posteriors of a fitted model, or a sampler.

`theory.bounds` takes a matrix. Here the releases are too many to list: either a model gives the
probability of each user for a release, or there is only a way to draw releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from privlearn.reidentification import theory
from privlearn.reidentification.theory._arguments import probabilities, real, whole

__all__ = [
    "SampledBounds",
    "bounds_from_model",
    "bounds_from_posterior",
    "bounds_from_sampler",
]


@dataclass(frozen=True)
class SampledBounds:
    """Success of the best attacker and bounds on it, estimated from draws of the channel.

    Attributes
    ----------
    n_users, n_draws : int
        Population, and number of releases drawn.
    success, success_stderr : float
        The best attacker's success, with the standard error of the estimate.
    information : float
        Mutual information between user and release, in nats.
    fano, sharp_fano, chi_square, tv_mean : float
        Bounds at the estimated divergences.
    upper : dict of str to float
        The same, each at the upper end of its divergence's one-sided interval.
    confidence : float
        Level of these ends.
    """

    n_users: int
    n_draws: int
    success: float
    success_stderr: float
    information: float
    fano: float
    sharp_fano: float
    chi_square: float
    tv_mean: float
    upper: dict[str, float]
    confidence: float


def bounds_from_posterior(posterior: ArrayLike, *, confidence: float = 0.95) -> SampledBounds:
    """Bounds from the posterior of the user, at releases of uniformly drawn users.

    Every quantity is a mean over releases x of a function of the posterior p(u | x): success of
    max p, information of log n + sum p log p, chi-square of n sum p^2 - 1, total variation of
    sum |p - 1/n| / 2.

    Parameters
    ----------
    posterior : array-like of shape (draws, n)
        Row i: probability of each user given release i, under a uniform prior. Releases must be
        drawn from uniformly drawn users.
    confidence : float, default=0.95
        One-sided level of the upper ends.

    Returns
    -------
    SampledBounds
        What it says holds for the channel whose posterior this is. If a fitted model gave it, that
        is the model, not the world.

    Examples
    --------
    >>> found = bounds_from_posterior(np.full((10, 4), 0.25))
    >>> found.success, round(found.sharp_fano, 6)
    (0.25, 0.25)
    """
    p = probabilities("posterior", posterior, 2)
    draws, n = p.shape
    if n < 2 or draws < 2:
        raise ValueError(f"posterior must have at least 2 users and 2 draws, got {n} and {draws}")
    z = float(special.ndtri(real("confidence", confidence, 0.5, 1.0)))
    values = {
        "success": p.max(axis=1),
        "information": math.log(n) + special.xlogy(p, p).sum(axis=1),
        "chi_square": n * (p * p).sum(axis=1) - 1,
        "tv_mean": np.abs(p - 1 / n).sum(axis=1) / 2,
    }
    mean = {name: max(0.0, float(value.mean())) for name, value in values.items()}
    stderr = {name: float(value.std(ddof=1)) / math.sqrt(draws) for name, value in values.items()}
    high = {name: mean[name] + z * stderr[name] for name in mean}

    def at(point: dict[str, float]) -> dict[str, float]:
        return {
            "fano": theory.fano_bound(n, point["information"]),
            "sharp_fano": theory.sharp_fano_bound(n, point["information"]),
            "chi_square": theory.chi_square_bound(n, point["chi_square"]),
            "tv_mean": min(1.0, 1 / n + point["tv_mean"]),
        }

    return SampledBounds(
        n_users=n,
        n_draws=draws,
        success=mean["success"],
        success_stderr=stderr["success"],
        information=mean["information"],
        upper=at(high) | {"success": min(1.0, high["success"])},
        confidence=confidence,
        **at(mean),
    )


def bounds_from_model(model: Any, X: Any, *, confidence: float = 0.95) -> SampledBounds:
    """Bounds from a fitted classifier of users: one class a user, one row a release.

    Parameters
    ----------
    model : fitted classifier
        With ``predict_proba`` and ``classes_``, trained on equally many releases of each user.
    X : array-like or frame of shape (draws, features)
        Releases of uniformly drawn users that the model was not trained on.
    confidence : float, default=0.95

    Returns
    -------
    SampledBounds
        It holds as far as the model's probabilities are right: check their calibration. An
        overconfident model overstates the risk, a blunt one hides it.
    """
    for name in ("predict_proba", "classes_"):
        if not hasattr(model, name):
            raise TypeError(
                f"model must be a fitted classifier with {name}, got {type(model).__name__}"
            )
    return bounds_from_posterior(model.predict_proba(X), confidence=confidence)


def bounds_from_sampler(
    sampler: Callable[[int, int, np.random.Generator], ArrayLike],
    *,
    n_users: int,
    n_draws: int,
    random_state: int | np.random.Generator,
) -> theory.Bounds:
    """Bounds from a way to draw releases, by the frequencies of what was drawn.

    Every bound here is a convex function of the channel, so frequencies overstate it on average:
    it errs on the safe side, by much if there are more possible releases than draws. Bounds that
    look at single likelihood ratios are left out (nan).

    Parameters
    ----------
    sampler : callable
        ``sampler(user, size, rng)`` gives `size` releases: an array whose first axis is the draws,
        of anything discrete.
    n_users : int
        Users are numbered from 0.
    n_draws : int
        Releases drawn of each user.
    random_state : int or numpy.random.Generator

    Returns
    -------
    theory.Bounds

    Examples
    --------
    >>> found = bounds_from_sampler(
    ...     lambda user, size, rng: np.full(size, user), n_users=3, n_draws=5, random_state=0
    ... )
    >>> found.capacity
    1.0
    """
    n, size = whole("n_users", n_users, 2), whole("n_draws", n_draws, 1)
    if not callable(sampler):
        raise TypeError(f"sampler must be a function, got {type(sampler).__name__}")
    rng = np.random.default_rng(random_state)
    drawn = []
    for user in range(n):
        releases = np.asarray(sampler(user, size, rng))
        if len(releases) != size:
            raise ValueError(f"sampler must return {size} releases, got {len(releases)}")
        drawn.append(releases.reshape(size, -1))
    _, code = np.unique(np.concatenate(drawn), axis=0, return_inverse=True)
    code = code.reshape(n, size)
    matrix = np.zeros((n, int(code.max()) + 1))
    np.add.at(matrix, (np.arange(n)[:, None], code), 1 / size)
    return theory.bounds(matrix, pairwise=False)
