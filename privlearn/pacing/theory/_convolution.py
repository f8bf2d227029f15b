"""PID gains and convolution kernels: the same controllers in two languages, and back."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import number, share, vector


class Gains(NamedTuple):
    """Gains of a PID controller of the dual price, in units of mu per unit of spend.

    Attributes
    ----------
    k_i, k_p, k_d : float
        Integral, proportional and derivative gain.
    beta : float
        Forgetting of the moving average in the integral term; 0 for none.
    """

    k_i: float
    k_p: float = 0.0
    k_d: float = 0.0
    beta: float = 0.0


class Convolution(NamedTuple):
    """Convolutional mirror descent: a step, and weights of past gradients that sum to 1.

    Attributes
    ----------
    eta : float
    alpha : array of shape (J,)
        alpha_j weighs the gradient of j steps ago.
    """

    eta: float
    alpha: NDArray[np.floating]


class KernelConstants(NamedTuple):
    """What the regret of convolutional mirror descent needs to know about a kernel.

    Attributes
    ----------
    mass : float
        Sum of |alpha_j|.
    lag : float
        M1 = sum of j |alpha_j|.
    tail : float
        Sum over k of |sum over j > k of alpha_j|; at most ``lag``.
    """

    mass: float
    lag: float
    tail: float


def pid_to_kernel(k_i: float, k_p: float = 0.0, k_d: float = 0.0) -> Convolution:
    """Kernel with which convolutional mirror descent is velocity-form PID.

    eta = K_I and alpha = (1 + (K_P + K_D) / K_I, -(K_P + 2 K_D) / K_I, K_D / K_I). Under a lazy
    mirror step it is position-form PID. Re-derived; exact under any separable mirror and box.

    Parameters
    ----------
    k_i : float
        Above 0: a kernel of K_I = 0 sums to 0, and has no counterpart.
    k_p, k_d : float

    Returns
    -------
    Convolution

    Examples
    --------
    >>> pid_to_kernel(0.5, k_p=0.5).alpha.tolist()
    [2.0, -1.0, 0.0]
    """
    i = number("k_i", k_i, above=0.0)
    p, d = number("k_p", k_p), number("k_d", k_d)
    return Convolution(i, np.array([1 + (p + d) / i, -(p + 2 * d) / i, d / i]))


def kernel_to_pid(eta: float, alpha: ArrayLike) -> Gains:
    """Gains of the velocity-form PID that a kernel of at most three weights is.

    Parameters
    ----------
    eta : float
    alpha : array of shape (J,), J <= 3
        Any sum but 0: K_I = eta x sum.

    Returns
    -------
    Gains

    Raises
    ------
    ValueError
        If the kernel is longer than three weights, or does not have a positive sum.

    Examples
    --------
    >>> kernel_to_pid(0.5, [2.0, -1.0])
    Gains(k_i=0.5, k_p=0.5, k_d=0.0, beta=0.0)
    """
    step = number("eta", eta, above=0.0)
    weights = vector("alpha", alpha)
    if np.any(weights[3:] != 0):
        raise ValueError(
            f"alpha must have at most 3 weights that are not 0, got {weights.size}: a longer "
            "memory is no PID; see ema_pid_kernel for geometric tails"
        )
    a0, a1, a2 = np.concatenate([weights[:3], np.zeros(max(0, 3 - weights.size))])
    if a0 + a1 + a2 <= 0:
        raise ValueError(f"alpha must have a positive sum, got {a0 + a1 + a2}")
    return Gains(float(step * (a0 + a1 + a2)), float(-step * (a1 + 2 * a2)), float(step * a2))


def momentum_kernel(beta: float, *, cut: float = 1e-16) -> NDArray[np.floating]:
    """Weights of momentum, (1 - beta) beta^j, cut where beta^j < cut.

    Examples
    --------
    >>> momentum_kernel(0.5, cut=0.2).tolist()
    [0.5, 0.25, 0.125]
    """
    b = share("beta", beta)
    length = 1 if b == 0 else math.ceil(math.log(cut) / math.log(b))
    return (1 - b) * b ** np.arange(max(length, 1))


def optimistic_kernel() -> NDArray[np.float64]:
    """Weights of optimistic mirror descent, whose hint is the last gradient.

    Examples
    --------
    >>> optimistic_kernel().tolist()
    [2.0, -1.0]
    """
    return np.array([2.0, -1.0])


def ema_pid_kernel(
    a_p: float, a_i: float, a_d: float, beta: float, eta: float = 1.0, *, cut: float = 1e-16
) -> Convolution:
    """Kernel of PID with a forgetting integral: eta (a_P g + a_I EMA(g) + a_D (g_t - g_{t-1})).

    alpha_j = a_I (1 - beta) beta^j + (a_P + a_D) [j = 0] - a_D [j = 1], divided by its sum
    a_P + a_I, which goes into the step.

    Examples
    --------
    >>> ema_pid_kernel(0.0, 1.0, 0.0, beta=0.5, cut=0.2).alpha.tolist()
    [0.5, 0.25, 0.125]
    """
    p, i = number("a_p", a_p, least=0.0), number("a_i", a_i, least=0.0)
    d, step = number("a_d", a_d), number("eta", eta, above=0.0)
    if p + i == 0:
        raise ValueError("a_p + a_i must be above 0: the kernel would sum to 0")
    weights = i * momentum_kernel(beta, cut=cut)
    alpha = np.concatenate([weights, np.zeros(max(0, 2 - weights.size))])
    alpha[0] += p + d
    alpha[1] -= d
    return Convolution(step * (p + i), alpha / (p + i))


def momentum_as_position(k_i: float, beta: float) -> Gains:
    """Momentum as PI control in position form: the proportional gain is negative.

    Without active bounds mu_{t+1} = mu_t - K_I m_t, m_t = beta m_{t-1} + (1 - beta) g_t, is
    mu_1 - [K_I (sum of g) + K_P m_t] with K_P = -K_I beta / (1 - beta), on the *smoothed* error.

    Examples
    --------
    >>> momentum_as_position(0.1, 0.5).k_p
    -0.1
    """
    i, b = number("k_i", k_i, above=0.0), share("beta", beta)
    return Gains(i, -i * b / (1 - b), 0.0, b)


def kernel_constants(alpha: ArrayLike) -> KernelConstants:
    """Mass, lag and tail of a kernel.

    Mirror descent: (1, 0, 0). Optimistic: (3, 1, 1). Momentum: (1, lag, lag) with
    lag = beta / (1 - beta).

    Examples
    --------
    >>> kernel_constants([2.0, -1.0])
    KernelConstants(mass=3.0, lag=1.0, tail=1.0)
    """
    weights = vector("alpha", alpha)
    later = np.cumsum(weights[::-1])[::-1][1:]
    return KernelConstants(
        float(abs(weights).sum()),
        float((np.arange(weights.size) * abs(weights)).sum()),
        float(abs(later).sum()),
    )


def pid_constants(k_i: float, k_p: float = 0.0, k_d: float = 0.0) -> KernelConstants:
    """Mass, lag and tail of the kernel of a PID, in closed form.

    With gains that are not negative: mass 1 + 2 K_P / K_I + 4 K_D / K_I and
    lag (K_P + 4 K_D) / K_I; tail (K_P + 2 K_D) / K_I: K_P and K_D should be O(K_I).

    Examples
    --------
    >>> pid_constants(1.0, 1.0)
    KernelConstants(mass=3.0, lag=1.0, tail=1.0)
    """
    i = number("k_i", k_i, above=0.0)
    p, d = number("k_p", k_p) / i, number("k_d", k_d) / i
    return KernelConstants(
        abs(1 + p + d) + abs(p + 2 * d) + abs(d), abs(p + 2 * d) + 2 * abs(d), abs(p + d) + abs(d)
    )
