"""How often two runs differ: exact laws of rounding and of random thresholds.

Derived here and checked by enumeration and by simulation. The constructions are those of
Impagliazzo, Lei, Pitassi, Sorrell, "Reproducibility in Learning", STOC 2022, arXiv 2201.08430; the
papers give worst-case bounds, from which one would ask for samples many times too large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import signal, special, stats

from . import _arguments as check

FloatArray = NDArray[np.float64]


def binomial_gap(n: int, p: float) -> float:
    """E|v1 - v2| of the frequencies of one event in two independent samples of n rows.

    Equals (2/n) sum over k of F(k)(1 - F(k)), F the binomial distribution function; about
    2 sqrt(p(1-p)/(pi n)).

    Examples
    --------
    >>> round(binomial_gap(2000, 0.3), 6)
    0.011561
    """
    n, p = check.count("n", n), check.proportion("p", p, closed=True)
    counts = _likely_counts(n, p)
    below = special.bdtr(counts, n, p)
    return float(2 * np.sum(below * (1 - below)) / n)


def normal_gap(deviation: ArrayLike) -> FloatArray:
    """E|v1 - v2| = 2 s / sqrt(pi) of two independent normal estimates of standard error s."""
    return 2 * np.asarray(deviation, dtype=np.float64) / np.sqrt(np.pi)


def rounding_differs(n: int, p: float, alpha: float) -> float:
    """P(two frequencies are rounded to different cells of a grid with a uniform shared offset).

    Given the two frequencies it is min(1, |v1 - v2| / alpha) exactly; here its expectation, by
    summing over the binomial law of the difference.

    Parameters
    ----------
    n : int
        Rows of each sample.
    p : float
        Probability of the event.
    alpha : float
        Width of the grid.

    Examples
    --------
    >>> round(rounding_differs(2000, 0.3, 0.1), 6)
    0.115614
    """
    n, p = check.count("n", n), check.proportion("p", p, closed=True)
    alpha = check.positive("alpha", alpha)
    counts = _likely_counts(n, p)
    if alpha * n >= len(counts):
        return binomial_gap(n, p) / alpha
    mass = stats.binom.pmf(counts, n, p)
    difference = signal.fftconvolve(mass, mass[::-1]).clip(min=0)
    gap = np.abs(np.arange(len(difference)) - (len(counts) - 1)) / n
    return float(np.sum(difference * np.minimum(1, gap / alpha)))


def threshold_differs(n: int, p: float, low: float, high: float) -> float:
    """P(one frequency reaches a shared threshold, uniform on [low, high], and the other does not).

    Equals E|clip(v1) - clip(v2)| / (high - low) with clipping to [low, high], by summing the
    binomial distribution function over the steps of the threshold.

    Examples
    --------
    >>> round(threshold_differs(2000, 0.3, 0.25, 0.35), 4)
    0.1156
    """
    n, p = check.count("n", n), check.proportion("p", p, closed=True)
    low, high = check.window(low, high)
    # A frequency reaches the threshold u in (k/n, (k+1)/n] iff the count is at least k + 1.
    first, last = max(int(np.floor(low * n)), 0), min(int(np.ceil(high * n)), n)
    likely = _likely_counts(n, p)
    counts = np.arange(max(first, likely[0]), min(last, likely[-1] + 1))
    if len(counts) == 0:
        return 0.0
    length = np.minimum(high, (counts + 1) / n) - np.maximum(low, counts / n)
    below = special.bdtr(counts, n, p)
    return float(np.sum(length.clip(min=0) * 2 * below * (1 - below)) / (high - low))


def thresholds_differ(
    n: int,
    masses: ArrayLike,
    low: float,
    high: float,
    *,
    resolution: int = 400,
    normal: bool = False,
) -> float:
    """P(two runs select different sets of cells by one shared threshold, uniform on [low, high]).

    Given the threshold, cells are taken as independent (their counts are multinomial, so this
    neglects correlations of order 1/n_cells); cells with similar masses fail for the same
    thresholds, so the result is below the sum of `threshold_differs`.

    Parameters
    ----------
    n : int
        Rows of each sample.
    masses : array of shape (n_cells,)
        Probabilities of the cells.
    low, high : float
        Range of the threshold.
    resolution : int, default=400
        Thresholds at which the integrand is evaluated (midpoint rule).
    normal : bool, default=False
        Use the normal approximation of the counts, which is quick for many cells.

    Examples
    --------
    >>> round(thresholds_differ(2000, [0.3], 0.25, 0.35), 3)
    0.116
    >>> round(thresholds_differ(2000, [0.3, 0.3], 0.25, 0.35), 3)
    0.191
    """
    n = check.count("n", n)
    low, high = check.window(low, high)
    p = np.atleast_1d(np.asarray(masses, dtype=np.float64))
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError("masses must be probabilities in one dimension")
    reach = 7 * np.sqrt(p * (1 - p) / n) + 2 / n
    p = p[(p + reach > low) & (p - reach < high)]
    if len(p) == 0:
        return 0.0
    thresholds = low + (high - low) * (np.arange(resolution) + 0.5) / resolution
    if normal:
        deviation = np.sqrt(np.maximum(p * (1 - p), 1e-300) / n)
        below: NDArray[Any] = special.ndtr((thresholds[:, None] - p) / deviation)
    else:
        counts = np.ceil(thresholds * n) - 1  # the largest count below the threshold
        below = special.bdtr(counts.clip(0, n)[:, None], n, p[None, :])
    return float(1 - np.prod(1 - 2 * below * (1 - below), axis=1).mean())


def masses_differ(n: int, masses: ArrayLike, alpha: float) -> float:
    """Bound on P(some of several rounded masses differs between two runs): the sum of their laws.

    Holds for one shared offset and for one offset each. Normal approximation of each gap.

    Examples
    --------
    >>> round(masses_differ(2000, [0.3, 0.3, 0.4], 0.1), 3)
    0.355
    """
    n, alpha = check.count("n", n), check.positive("alpha", alpha)
    p = np.asarray(masses, dtype=np.float64)
    each = normal_gap(np.sqrt(p * (1 - p) / n)) / alpha
    return float(np.minimum(1, each.sum()))


def jointly_rounded_differ(
    n: int, masses: ArrayLike, alpha: float, *, resolution: int = 200
) -> float:
    """P(some of several masses, rounded on one grid with one shared offset, differs).

    Given the offset, masses are taken as independent and normal. Below the bound of
    `masses_differ`: masses that are alike cross the ends of their cells for the same offsets.

    Examples
    --------
    >>> round(jointly_rounded_differ(2000, [0.3, 0.3, 0.4], 0.1), 2)
    0.25
    """
    n, alpha = check.count("n", n), check.positive("alpha", alpha)
    p = np.asarray(masses, dtype=np.float64)
    p = p[(p > 0) & (p < 1)]
    deviation = np.sqrt(p * (1 - p) / n)
    offsets = alpha * (np.arange(resolution) + 0.5) / resolution
    first = np.floor((p - 7 * deviation) / alpha) - 1
    n_ends = min(int(np.max(14 * deviation / alpha, initial=0)) + 5, 200)
    ends = offsets[:, None, None] + alpha * (first[:, None] + np.arange(n_ends))
    below = special.ndtr((ends - p[:, None]) / deviation[:, None])
    inside = np.diff(below, axis=2, prepend=0.0)
    agree = (inside**2).sum(axis=2) + (1 - below[:, :, -1]) ** 2
    return float(1 - np.prod(agree, axis=1).mean())


def means_differ(n: ArrayLike, deviation: ArrayLike, alpha: ArrayLike) -> float:
    """Bound on P(some of several rounded sample means differs): sum of 2 s / (sqrt(pi n) alpha).

    Parameters
    ----------
    n : array
        Rows behind each mean.
    deviation : array
        Standard deviation of one row, for each mean.
    alpha : float or array
        Width of the grid.

    Examples
    --------
    >>> round(means_differ([1000, 1000], 0.1, 0.05), 4)
    0.1427
    """
    rows = np.asarray(n, dtype=np.float64)
    if (rows < 1).any() or (np.asarray(alpha) <= 0).any():
        raise ValueError("n must be at least 1 and alpha positive")
    each = normal_gap(np.asarray(deviation) / np.sqrt(rows)) / np.asarray(alpha)
    return float(np.minimum(1, each.sum()))


def median_gap(n: int, quantile: Callable[[FloatArray], FloatArray]) -> float:
    """E|m1 - m2| of two sample medians (odd n), from the population's quantile function.

    The rank of a sample median is Beta((n+1)/2, (n+1)/2); the gap is twice the integral of
    B(1 - B) along the quantile function. Divide by the width of a grid for the probability that
    two medians are rounded differently.

    Examples
    --------
    >>> round(median_gap(1001, lambda u: u), 4)   # uniform on [0, 1]: about 1 / sqrt(pi n)
    0.0178
    """
    n = check.count("n", n)
    if n % 2 == 0:
        raise ValueError(f"n must be odd, got {n}: the median is then one of the rows")
    half = (n + 1) / 2
    width = min(0.5, 10 / np.sqrt(n))
    ranks = 0.5 + np.linspace(-width, width, 20_001)[1:-1]
    below = special.betainc(half, half, ranks)
    inner = below * (1 - below)
    values = np.asarray(quantile(ranks), dtype=np.float64)
    return float(2 * np.sum((inner[1:] + inner[:-1]) / 2 * np.diff(values)))


def _likely_counts(n: int, p: float) -> NDArray[np.int64]:
    """Counts within 12 standard deviations: what lies outside changes no result in 16 digits."""
    reach = 12 * np.sqrt(n * p * (1 - p)) + 40
    return np.arange(max(0, int(n * p - reach)), min(n, int(n * p + reach) + 1) + 1)
