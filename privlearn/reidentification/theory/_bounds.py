"""Upper bounds on the success of any attacker, and the Bayes attacker's exact success."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, sparse

from ._arguments import channel, real, whole
from ._curves import curve_bound, pairwise_curve


class Bounds(NamedTuple):
    """Upper bounds on the success of any attacker on a uniformly drawn user, each capped at 1.

    Attributes
    ----------
    fano, sharp_fano : float
        From the mutual information; the sharp one inverts the binary divergence.
    chi_square : float
        From the mean chi-square divergence of a user to the average release.
    tv_mean : float
        From the mean total variation of a user to the average release.
    tv_base, tv_max : float
        From total variations of pairs: to the best base user, and the largest of all.
    pure_dp, approximate_dp : float
        From the smallest epsilon at which all pairs are indistinguishable, and from the best
        (epsilon, delta).
    test_curve : float
        From the power of the best test between two users; never worse than tv_max, pure_dp and
        approximate_dp, which it contains.
    capacity : float
        From the Bayes capacity; equal to the exact success, since users are drawn uniformly.
    """

    fano: float
    sharp_fano: float
    chi_square: float
    tv_mean: float
    tv_base: float
    tv_max: float
    pure_dp: float
    approximate_dp: float
    test_curve: float
    capacity: float

    @property
    def best(self) -> float:
        """The least of the bounds, those left out (nan) aside."""
        return float(np.nanmin(self))


def bayes_success(matrix: ArrayLike) -> float:
    """Success of the best attacker: (1 / n) sum over releases of the largest probability.

    Examples
    --------
    >>> round(bayes_success([[0.7, 0.1, 0.2], [0.2, 0.7, 0.1]]), 3)
    0.8
    """
    rows = channel(matrix)
    return float(rows.max(axis=0).sum() / len(rows))


def bayes_success_lp(matrix: ArrayLike) -> float:
    """Success of the best attacker as a linear program over all randomised attackers.

    Maximise (1 / n) sum over x, u of A(u | x) P_u(x) over stochastic A. An independent way to
    `bayes_success`, and the place to add constraints on the attacker.

    Examples
    --------
    >>> round(bayes_success_lp([[0.7, 0.1, 0.2], [0.2, 0.7, 0.1]]), 3)
    0.8
    """
    rows = channel(matrix)
    n, size = rows.shape
    # Variables A(u | x) in the order (x, u); for each x they sum to one.
    one_guess = sparse.kron(sparse.identity(size), np.ones((1, n)), format="csr")
    solved = optimize.milp(
        -rows.T.ravel() / n,
        constraints=optimize.LinearConstraint(one_guess, 1.0, 1.0),
        bounds=optimize.Bounds(0.0, 1.0),
    )
    if solved.status != 0:
        raise RuntimeError(f"the linear program was not solved: {solved.message}")
    return float(-solved.fun)


def capacity(matrix: ArrayLike) -> float:
    """Bayes capacity: sum over releases of the largest probability, between 1 and n."""
    return float(channel(matrix).max(axis=0).sum())


def mutual_information(matrix: ArrayLike) -> float:
    """Mutual information in nats between a uniformly drawn user and the release.

    Examples
    --------
    >>> round(mutual_information(np.eye(4)) - math.log(4), 12)
    0.0
    """
    rows = channel(matrix)
    mean = rows.mean(axis=0)
    ratio = np.divide(rows, mean, out=np.ones_like(rows), where=rows > 0)
    return max(0.0, float((rows * np.log(ratio)).sum() / len(rows)))


def fano_bound(n_users: int, information: float) -> float:
    """Fano: S <= (I + log 2) / log n.

    Examples
    --------
    >>> round(fano_bound(1000, 2.0), 3)
    0.39
    """
    n = whole("n_users", n_users, 2)
    nats = real("information", information, 0.0, math.inf)
    return min(1.0, (nats + math.log(2)) / math.log(n))


def sharp_fano_bound(n_users: int, information: float) -> float:
    """Fano without slack: the largest S with kl(S || 1 / n) <= I, by root search.

    kl(a || b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)). Never worse than `fano_bound`.

    Examples
    --------
    >>> round(sharp_fano_bound(1000, 4.5), 3)
    0.735
    """
    n = whole("n_users", n_users, 2)
    nats = real("information", information, 0.0, math.inf)

    def excess(success: float) -> float:
        rest = 1 - success
        inner = success * math.log(success * n)
        return inner + (rest * math.log(rest * n / (n - 1)) if rest > 0 else 0.0) - nats

    if excess(1.0) <= 0:
        return 1.0
    if nats == 0:
        return 1 / n
    return float(optimize.brentq(excess, 1 / n, 1.0, xtol=1e-15, rtol=1e-14))


def chi_square_bound(n_users: int, divergence: float) -> float:
    """S <= 1 / n + sqrt(D (1 / n) (1 - 1 / n)), D the mean chi-square divergence to the average.

    Examples
    --------
    >>> chi_square_bound(4, 0.0)
    0.25
    """
    n = whole("n_users", n_users, 2)
    value = real("divergence", divergence, 0.0, math.inf)
    return min(1.0, 1 / n + math.sqrt(value * (1 / n) * (1 - 1 / n)))


def pure_dp_bound(n_users: int, epsilon: float) -> float:
    """S <= e^epsilon / (n - 1 + e^epsilon), if every pair of users is epsilon-indistinguishable.

    Examples
    --------
    >>> round(pure_dp_bound(4, math.log(7)), 3)
    0.7
    """
    return approximate_dp_bound(n_users, epsilon, 0.0)


def approximate_dp_bound(n_users: int, epsilon: float, delta: float) -> float:
    """S <= (e^epsilon + (n - 1) delta) / (n - 1 + e^epsilon).

    Examples
    --------
    >>> approximate_dp_bound(11, 0.0, 0.0) == 1 / 11
    True
    """
    n = whole("n_users", n_users, 2)
    loss = real("epsilon", epsilon, 0.0, math.inf)
    slack = real("delta", delta, 0.0, 1.0)
    shrunk = math.exp(-loss)
    return min(1.0, (1 + (n - 1) * slack * shrunk) / (1 + (n - 1) * shrunk))


def bounds(matrix: ArrayLike, *, pairwise: bool = True) -> Bounds:
    """All upper bounds on the success of any attacker on this channel.

    Parameters
    ----------
    matrix : array-like of shape (n, s)
        Row u: probabilities of the s possible releases about user u.
    pairwise : bool, default=True
        Also compute the bounds that look at all n (n - 1) pairs of users, which take about
        n^2 s log s steps; without them these fields are nan.

    Returns
    -------
    Bounds

    Raises
    ------
    ValueError
        If the matrix is no channel with at least two users.

    Examples
    --------
    >>> symmetric = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    >>> found = bounds(symmetric)
    >>> round(found.fano, 4), round(found.sharp_fano, 4), round(found.test_curve, 4)
    (0.8216, 0.7, 0.7)
    """
    rows = channel(matrix)
    n = len(rows)
    mean = rows.mean(axis=0)
    nats = mutual_information(rows)
    chi = np.divide(rows**2, mean, out=np.zeros_like(rows), where=mean > 0).sum() / n - 1
    if pairwise:
        to_base = [0.5 * np.abs(rows - base).sum(axis=1) for base in rows]
        base = min(1.0, (1 + min(float(tv.sum()) for tv in to_base)) / n)
        largest = 1 / n + (1 - 1 / n) * max(float(tv.max()) for tv in to_base)
        pure, approximate = _indistinguishability(rows)
        curve = curve_bound(n, pairwise_curve(rows))
    else:
        base = largest = pure = approximate = curve = math.nan
    return Bounds(
        fano=fano_bound(n, nats),
        sharp_fano=sharp_fano_bound(n, nats),
        chi_square=chi_square_bound(n, max(0.0, float(chi))),
        tv_mean=min(1.0, float(1 / n + 0.5 * np.abs(rows - mean).sum() / n)),
        tv_base=base,
        tv_max=largest,
        pure_dp=pure,
        approximate_dp=approximate,
        test_curve=curve,
        capacity=min(1.0, bayes_success(rows)),
    )


def _indistinguishability(rows: np.ndarray) -> tuple[float, float]:
    """Bounds by the smallest epsilon of all pairs, and by the best of a grid of epsilons.

    Every (epsilon, delta) that holds gives a valid bound, so a grid loses tightness, not truth.
    """
    n = len(rows)
    seen = rows[:, rows.max(axis=0) > 0]
    least = seen.min(axis=0)
    worst = math.inf if (least == 0).any() else float(np.log(seen.max(axis=0) / least).max())
    # No likelihood ratio lies outside these, so delta is linear in e^epsilon beyond them.
    finite = np.log(seen.max(axis=0)) - np.log(np.where(least > 0, least, seen.max(axis=0)))
    grid = np.linspace(0.0, max(float(finite.max()), math.log(n)), 33)
    best = pure_dp_bound(n, worst)
    for epsilon in grid:
        factor = math.exp(epsilon)
        delta = max(float(np.maximum(seen - factor * other, 0).sum(axis=1).max()) for other in seen)
        best = min(best, approximate_dp_bound(n, float(epsilon), min(1.0, delta)))
    return pure_dp_bound(n, worst), best
