"""What other private releases add to the variance of the stratified estimate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import check_budget, check_nonnegative
from ._variance import cell_weights


def warner_variance(epsilon: float) -> float:
    """Variance of the score of binary randomised response, p (1 - p) / (2p - 1)^2 (Warner 1965).

    Examples
    --------
    >>> round(warner_variance(1.0), 6)
    0.920674
    """
    p = 1 / (1 + np.exp(-check_budget(epsilon)))
    return float(p * (1 - p) / (2 * p - 1) ** 2)


def discrete_laplace_variance(scale: ArrayLike) -> np.ndarray:
    """Variance of integer noise with probabilities proportional to exp(-|x| / scale).

    1 / (2 sinh^2(1 / (2 scale))), a little below the 2 scale^2 of continuous Laplace noise.

    Examples
    --------
    >>> discrete_laplace_variance([0.5, 10.0]).round(3)
    array([  0.362, 199.833])
    """
    scale = check_nonnegative("scale", scale)
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / (2 * np.sinh(1 / (2 * scale)) ** 2)


def laplace_outcome_gap(width: float, epsilon: float, sizes: ArrayLike) -> float:
    """Gap of Laplace noise of scale width / epsilon on every outcome: 2 (width/epsilon)^2 a unit.

    Examples
    --------
    >>> laplace_outcome_gap(1.0, 1.0, [[10, 10]])
    0.4
    """
    each = 2 * (width / check_budget(epsilon)) ** 2
    return float(each * cell_weights(sizes).weights.sum())


def one_bit_variance(y: ArrayLike, bounds: tuple[float, float], epsilon: float) -> np.ndarray:
    """Variance of the one-bit outcome given the true one (Duchi, Jordan and Wainwright 2018).

    h^2 ((e^eps + 1) / (e^eps - 1))^2 - (y - m)^2, h half the range and m its middle.

    Examples
    --------
    >>> one_bit_variance([0.0, 2.0, 3.0], (0.0, 3.0), 1.3).round(3)
    array([4.635, 6.635, 4.635])
    """
    low, high = bounds
    half, middle = (high - low) / 2, (high + low) / 2
    return (half / np.tanh(check_budget(epsilon) / 2)) ** 2 - (np.asarray(y) - middle) ** 2


def one_bit_gap(p: ArrayLike, values: ArrayLike, epsilon: float, sizes: ArrayLike) -> float:
    """Gap of one-bit outcomes, from the shares p (C, 2, K) of the values in each cell.

    Examples
    --------
    >>> round(one_bit_gap(np.full((1, 2, 2), 0.5), [0.0, 1.0], 1.0, [[10, 10]]), 6)
    0.184135
    """
    v = np.asarray(values, dtype=float)
    each = one_bit_variance(v, (float(v.min()), float(v.max())), epsilon)
    return float((cell_weights(sizes).weights * (np.asarray(p, float) @ each)).sum())


def noisy_mean_gap(width: float, epsilon: float, sizes: ArrayLike) -> float:
    """Gap of cell means with Laplace noise of scale width / (n_ac epsilon).

    Examples
    --------
    >>> noisy_mean_gap(1.0, 1.0, [[10, 10]])
    0.04
    """
    shape = cell_weights(sizes)
    return float((2 * (width / check_budget(epsilon)) ** 2 * shape.weights / shape.sizes).sum())


def noisy_histogram_gap(
    values: ArrayLike, epsilon: float, sizes: ArrayLike, *, centred: bool = True, integer=True
) -> float:
    """Gap of cell means read off counts with noise of scale 2 / epsilon each.

    The means are m + sum_k (v_k - m) (noisy count)_k / n_ac. Centring (m = mean of the values; 0
    otherwise) is free and makes the gap smallest.

    Parameters
    ----------
    values : array-like of shape (K,)
    epsilon : float
    sizes : array-like of shape (C, 2)
    centred : bool, default=True
    integer : bool, default=True
        Integer noise, as releases have; False for continuous Laplace noise, 8 / epsilon^2.

    Examples
    --------
    >>> round(noisy_histogram_gap([0.0, 1.0], 1.0, [[10, 10]], integer=False), 6)
    0.08
    """
    v = np.asarray(values, dtype=float)
    scale = 2 / check_budget(epsilon)
    noise = float(discrete_laplace_variance(scale)) if integer else 2 * scale**2
    spread = (v - v.mean() if centred else v) ** 2
    shape = cell_weights(sizes)
    return float(noise * spread.sum() * (shape.weights / shape.sizes).sum())
