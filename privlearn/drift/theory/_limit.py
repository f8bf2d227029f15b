"""The continuous limit: small learning rates, small batches, slow time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from ._arguments import FloatArray, number, positive
from ._moments import moments


class Path(NamedTuple):
    """Moments along continuous time.

    Attributes
    ----------
    time : array of shape (n,)
    mean : array of shape (n, d)
        Expected lag.
    second : array of shape (n,)
        Expected squared distance.
    """

    time: FloatArray
    mean: FloatArray
    second: FloatArray


def moment_ode(
    rate: Callable[[float], float],
    velocity: Callable[[float], ArrayLike] | None,
    *,
    end: float,
    dim: int,
    noise: float,
    batch: float,
    start_lag: ArrayLike,
    start: float | None = None,
    points: int = 101,
) -> Path:
    r"""Solve the differential equations of the lag's moments.

    With learning rate :math:`\epsilon \zeta(\tau)`, batch :math:`\epsilon \nu` and time
    :math:`\tau = \epsilon t`, as :math:`\epsilon \to 0`,

    .. math::
        m' &= -\zeta m - Y' \\
        v' &= -2 \zeta v + \frac{\zeta^2}{\nu} ((d + 1) v + d s_2) - 2 m \cdot Y' ,

    the moments of :math:`dX = -\zeta (X - Y) d\tau + \zeta \nu^{-1/2}
    [(|X - Y|^2 + s_2) I + (X - Y)(X - Y)^\top]^{1/2} dW`.

    Parameters
    ----------
    rate : callable
        zeta as a function of time.
    velocity : callable or None
        Y' as a function of time; None if the optimum rests.
    end : float
        Last time.
    dim, noise
        As in `moments`.
    batch : float
        nu.
    start_lag : array of shape (d,)
        Expected lag at time 0.
    start : float, default=None
        Expected squared distance at time 0; that of `start_lag` if not given.
    points : int, default=101
        Times at which the solution is given, both ends included.

    Returns
    -------
    Path
        ``time``, ``mean``, ``second``.

    Notes
    -----
    The route of Fahrbach et al. (ICML 2023, arXiv 2303.15634); this form re-derived, and checked
    against the discrete recursion.

    Examples
    --------
    >>> rest = moment_ode(
    ...     lambda t: 0.3 + 0.2 * np.sin(t), None,
    ...     end=3.0, dim=5, noise=0.5, batch=2.0, start_lag=[1, 0, 0, 0, 0],
    ... )
    >>> rest.second[-1].round(4)
    np.float64(0.8906)
    """
    d, s2, nu = number("dim", dim), number("noise", noise), number("batch", batch)
    mean = np.asarray(start_lag, dtype=float)
    if mean.shape != (int(d),) or not np.isfinite(mean).all():
        raise ValueError(f"start_lag must be {int(d)} finite numbers, got {start_lag!r}")
    second = float(mean @ mean) if start is None else number("start", start)

    def slope(time: float, state: FloatArray) -> FloatArray:
        zeta = float(rate(time))
        move = np.zeros(int(d)) if velocity is None else np.asarray(velocity(time), dtype=float)
        lag, v = state[:-1], state[-1]
        down = -2 * zeta * v + zeta**2 / nu * ((d + 1) * v + d * s2) - 2 * lag @ move
        return np.append(-zeta * lag - move, down)

    time = np.linspace(0.0, positive("end", end), points)
    found = solve_ivp(
        slope, (0.0, time[-1]), np.append(mean, second), t_eval=time, rtol=1e-9, atol=1e-11
    )
    return Path(time, found.y[:-1].T, found.y[-1])


def discretised(
    rate: Callable[[float], float],
    velocity: Callable[[float], ArrayLike] | None,
    *,
    epsilon: float,
    end: float,
    dim: int,
    noise: float,
    batch: float,
    start_lag: ArrayLike,
    start: float | None = None,
) -> Path:
    """Run the exact recursion of SGD with learning rate eps zeta and batch eps nu.

    It converges to `moment_ode` at rate eps. A batch below 1 is one of the recursion only.

    Parameters
    ----------
    rate, velocity, end, dim, noise, batch, start_lag, start
        As in `moment_ode`; values are taken at the left end of each step.
    epsilon : float
        The small parameter.

    Examples
    --------
    >>> coarse = discretised(
    ...     lambda t: 0.3 + 0.2 * np.sin(t), None, epsilon=0.5,
    ...     end=3.0, dim=5, noise=0.5, batch=2.0, start_lag=[1, 0, 0, 0, 0],
    ... )
    >>> coarse.second[-1].round(4)
    np.float64(1.1073)
    """
    eps = positive("epsilon", epsilon)
    steps = max(1, round(positive("end", end) / eps))
    time: FloatArray = eps * np.arange(steps + 1, dtype=np.float64)
    moves = np.zeros((steps, int(dim)))
    if velocity is not None:
        moves = np.array([eps * np.asarray(velocity(t), dtype=float) for t in time[:-1]])
    found = moments(
        eps * np.array([float(rate(t)) for t in time[:-1]]),
        dim=dim, noise=noise, batch=eps * number("batch", batch),
        start=start, displacements=moves, start_lag=start_lag,
    )  # fmt: skip
    return Path(time, found.mean, found.second)
