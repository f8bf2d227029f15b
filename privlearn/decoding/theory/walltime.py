"""Block efficiency, walltime and operations of speculative decoding with i.i.d. acceptance.

Leviathan, Kalman and Matias, ICML 2023, arXiv 2211.17192, section 3. Acceptance of successive
tokens as independent coins of probability alpha is a model; `TabularPair` worlds have exact sums.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from privlearn.decoding.theory._arguments import check_count, check_range


def block_efficiency(alpha: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """Expected tokens per target step, ``(1 - alpha^(gamma+1)) / (1 - alpha)``.

    Parameters
    ----------
    alpha : float or array
        Acceptance rate of a token, in [0, 1].
    gamma : int or array
        Draft length, >= 0.

    Examples
    --------
    >>> block_efficiency(0.8, [1, 3, 5, 7, 10]).round(3).tolist()
    [1.8, 2.952, 3.689, 4.161, 4.571]
    """
    alpha, gamma = np.broadcast_arrays(check_range("alpha", alpha, 0, 1), _lengths(gamma))
    below = np.where(alpha < 1, alpha, 0.5)
    return np.where(alpha < 1, (1 - below ** (gamma + 1)) / (1 - below), gamma + 1.0)


def walltime_improvement(alpha: ArrayLike, gamma: ArrayLike, c: ArrayLike) -> np.ndarray:
    """Speed relative to plain decoding where verifying gamma + 1 tokens costs one target step.

    ``block efficiency / (gamma c + 1)``; above one for some gamma exactly if alpha > c.

    Parameters
    ----------
    alpha, gamma : float, int or array
    c : float or array
        Time of a draft step over that of a target step, >= 0.

    Examples
    --------
    >>> walltime_improvement(0.8, [1, 3, 5, 7, 10], 0.05).round(3).tolist()
    [1.714, 2.567, 2.951, 3.082, 3.047]
    """
    return block_efficiency(alpha, gamma) / (_lengths(gamma) * _ratio("c", c) + 1)


def operations_factor(alpha: ArrayLike, gamma: ArrayLike, c_hat: ArrayLike) -> np.ndarray:
    """Arithmetic per emitted token relative to plain decoding.

    ``(1 - alpha)(gamma c_hat + gamma + 1) / (1 - alpha^(gamma+1))``, c_hat the ratio of operations
    per token of draft and target.

    Examples
    --------
    >>> float(operations_factor(0.8, 5, 0.05).round(4))
    1.6941
    """
    gamma = _lengths(gamma)
    work = gamma * _ratio("c_hat", c_hat) + gamma + 1
    return work / block_efficiency(alpha, gamma)


def speedup(tau: ArrayLike, gamma: ArrayLike, c: ArrayLike, step_cost: ArrayLike) -> np.ndarray:
    """Speed relative to plain decoding with the measured cost of a wide target step.

    ``(E[tau] + 1) / (gamma c + t(gamma + 1) / t(1))``. On a processor whose decode step is not
    bound by memory t(gamma + 1) exceeds t(1), and speculation may lose.

    Parameters
    ----------
    tau : float or array
        Expected accepted tokens per step.
    gamma : int or array
    c : float or array
        Draft step over target step of one token.
    step_cost : float or array
        ``t(gamma + 1) / t(1)`` of the target.
    """
    return (_ratio("tau", tau) + 1) / (
        _lengths(gamma) * _ratio("c", c) + _ratio("step_cost", step_cost)
    )


def best_gamma(
    alpha: float,
    c: float,
    *,
    max_gamma: int = 64,
    step_cost: Callable[[int], float] | None = None,
) -> int:
    """Draft length with the largest walltime improvement; 0 means plain decoding.

    Parameters
    ----------
    alpha, c : float
    max_gamma : int, default=64
    step_cost : callable, optional
        T -> t(T) / t(1), cost of a target step on T tokens. Default: 1 for all T.

    Examples
    --------
    >>> [best_gamma(0.6, c) for c in (0.01, 0.02, 0.05, 0.1)]
    [7, 6, 4, 3]
    >>> best_gamma(0.3, 0.4)
    0
    """
    gammas = np.arange(check_count("max_gamma", max_gamma, 0) + 1)
    cost = np.array([1.0 if step_cost is None else step_cost(int(g) + 1) for g in gammas])
    gain = speedup(block_efficiency(alpha, gammas) - 1, gammas, c, cost)
    return int(np.argmax(gain > gain.max() * (1 - 1e-12)))


def _lengths(gamma: ArrayLike) -> np.ndarray:
    array = np.asarray(gamma)
    if not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
        raise ValueError(f"gamma must be integers >= 0, got {gamma!r}")
    return array


def _ratio(name: str, value: ArrayLike) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    if not ((array >= 0) & np.isfinite(array)).all():
        raise ValueError(f"{name} must be >= 0 and finite, got {value!r}")
    return array
