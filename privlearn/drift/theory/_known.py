r"""Optimal learning rates when the whole path of the optimum is known, directions included.

Greedy rates are not optimal here: a larger rate now changes the expected lag m, and a drift that
goes on in the same direction punishes lag. Pontryagin's principle gives the optimum through two
costates, and the *discrete* adjoint makes forward and backward sweeps agree with the gradient of
the very recursion that is minimised.

Both problems, the exact recursion of SGD and an Euler scheme of the continuous limit, are

.. math::
    m_{i+1} &= (1 - h \zeta_i) m_i + \delta_i \\
    v_{i+1} &= (1 - 2 h \zeta_i + h \zeta_i^2 \kappa) v_i + h \zeta_i^2 \rho + k_i
        + 2 (1 - \chi \zeta_i) m_i \cdot \delta_i

with :math:`h = \chi = 1`, :math:`k_i = |\delta_i|^2`, :math:`\kappa = 1 + (d + 1) / B` for SGD,
and :math:`\chi = k_i = 0`, :math:`\kappa = (d + 1) / \nu` for the limit. Re-derived and checked
against a general optimiser; the paper (Fahrbach et al., ICML 2023) treats the continuous problem.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from ._arguments import FloatArray, number, path, positive


class KnownPath(NamedTuple):
    """Optimal learning rates for a known path of the optimum.

    Attributes
    ----------
    rates : array of shape (T,)
        Learning rates (those of SGD, or zeta of the limit).
    second : array of shape (T + 1,)
        Expected squared distance before each step and after the last one.
    mean : array of shape (T + 1, d)
        Expected lag.
    cost : float
        What was minimised: half the sum of squared distances after each step (SGD: the regret
        from the second step on, the first one is sunk), or h times their sum (the limit: the
        integral of v).
    sweeps : int
        Forward and backward sweeps, or evaluations of the optimiser.
    """

    rates: FloatArray
    second: FloatArray
    mean: FloatArray
    cost: float
    sweeps: int


class _Problem(NamedTuple):
    """The recursion of the module's docstring, and the bound on its control."""

    moves: FloatArray  # delta_i, of shape (T, d): old minus new optimum
    mean: FloatArray
    second: float
    h: float
    kappa: float
    rho: float
    chi: float
    weight: float
    top: float

    def forward(self, rates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run the recursion."""
        steps, d = self.moves.shape
        mean = np.empty((steps + 1, d))
        mean[0] = self.mean
        for i in range(steps):
            mean[i + 1] = (1 - self.h * rates[i]) * mean[i] + self.moves[i]
        cross = 2 * (1 - self.chi * rates) * (mean[:-1] * self.moves).sum(axis=1)
        add = self.h * rates**2 * self.rho + self.chi * (self.moves**2).sum(axis=1) + cross
        factor = 1 - 2 * self.h * rates + self.h * rates**2 * self.kappa
        second = [self.second]
        for a, b in zip(factor.tolist(), add.tolist(), strict=True):
            second.append(a * second[-1] + b)
        return mean, np.array(second)

    def backward(self, rates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run the costates Q (of v) and P (of m): derivatives of the cost."""
        steps, d = self.moves.shape
        w = self.weight
        factor = 1 - 2 * self.h * rates + self.h * rates**2 * self.kappa
        q = [w]
        for a in factor[:0:-1].tolist():
            q.append(w + a * q[-1])
        costate = np.array(q[::-1])  # Q_1 ... Q_T, the one behind step i at index i
        p = np.zeros((steps, d))
        pull = (2 * (1 - self.chi * rates) * costate)[:, None] * self.moves
        for i in range(steps - 1, 0, -1):
            p[i - 1] = (1 - self.h * rates[i]) * p[i] + pull[i]
        return costate, p

    def control(self, rates: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Give the rate that each step would like best, and the moments of the current ones."""
        mean, second = self.forward(rates)
        q, p = self.backward(rates)
        v, m = second[:-1], mean[:-1]
        want = v + self.chi * (m * self.moves).sum(axis=1) / self.h + (p * m).sum(axis=1) / (2 * q)
        noise = self.kappa * v + self.rho
        rate = np.divide(want, noise, out=np.zeros_like(want), where=noise > 0)
        return np.clip(rate, 0.0, self.top), mean, second

    def cost(self, rates: FloatArray) -> float:
        return float(self.weight * self.forward(rates)[1][1:].sum())

    def gradient(self, rates: FloatArray) -> tuple[float, FloatArray]:
        """Give the cost and its derivative with respect to every rate."""
        mean, second = self.forward(rates)
        q, p = self.backward(rates)
        v, m = second[:-1], mean[:-1]
        by_v = (
            -2 * self.h * v
            + 2 * self.h * rates * (self.kappa * v + self.rho)
            - 2 * self.chi * (m * self.moves).sum(axis=1)
        )
        return float(self.weight * second[1:].sum()), q * by_v - self.h * (p * m).sum(axis=1)


def known_path_schedule(
    displacements: ArrayLike,
    *,
    dim: int,
    noise: float,
    batch: float,
    start_lag: ArrayLike,
    start: float | None = None,
    largest: float = 1.0,
    method: str = "sweep",
) -> KnownPath:
    """Return the learning rates of SGD that minimise regret when the moves are known as vectors.

    Parameters
    ----------
    displacements : array of shape (T, d)
        Moves: new minus old optimum after each step.
    dim, noise, batch
        As in `moments`.
    start_lag : array of shape (d,)
        Expected lag (parameter minus optimum) before the first step.
    start : float, default=None
        Expected squared distance before the first step; that of `start_lag` if not given.
    largest : float, default=1
        Upper end of the rates.
    method : {"sweep", "L-BFGS"}
        Damped forward and backward sweeps, or SciPy's optimiser with the same gradient.

    Returns
    -------
    KnownPath
        The rates and what they lead to.

    Warns
    -----
    RuntimeWarning
        If the sweeps have not settled.

    Notes
    -----
    Re-derived here for the exact recursion (the paper's optimum is one of the continuous limit,
    see `known_path_limit`). With unpredictable moves, m = 0 in effect, it is `optimal_rate`.

    Examples
    --------
    >>> steady = np.tile([0.1, 0.0], (50, 1))  # a drift that goes on in one direction
    >>> lag = [0.0, 0.0]
    >>> best = known_path_schedule(steady, dim=2, noise=0.5, batch=4, start_lag=lag)
    >>> best.rates[:5].round(2)
    array([0.  , 0.14, 0.27, 0.35, 0.39])
    """
    moves = -path("displacements", displacements)
    d, s2, size = number("dim", dim), number("noise", noise), number("batch", batch)
    mean, second = _first_moments(start_lag, start, moves.shape[1], d)
    problem = _Problem(
        moves, mean, second, 1.0, 1 + (d + 1) / size, d * s2 / size, 1.0, 0.5,
        positive("largest", largest),
    )  # fmt: skip
    return _solve(problem, method)


def known_path_limit(
    velocities: ArrayLike,
    *,
    dim: int,
    noise: float,
    batch: float,
    step: float,
    start_lag: ArrayLike,
    start: float | None = None,
    largest: float = 1.0,
    method: str = "sweep",
) -> KnownPath:
    r"""Return the optimal rates of the continuous limit, on an Euler grid.

    Minimises the integral of v in `moment_ode` over :math:`0 \le \zeta \le` `largest`:

    .. math:: \zeta^* = \nu \frac{v + p \cdot m / (2 q)}{(d + 1) v + d s_2}

    with costates :math:`q' = -1 + q (2 \zeta - \zeta^2 (d + 1) / \nu)`,
    :math:`p' = \zeta p + 2 q Y'`, zero at the end.

    Parameters
    ----------
    velocities : array of shape (N, d)
        Velocity Y' of the optimum at the grid's left ends.
    dim, noise
        As in `moments`.
    batch : float
        nu, the batch divided by the small parameter.
    step : float
        Length h of an interval of the grid.
    start_lag, start, largest, method
        As in `known_path_schedule`.

    Returns
    -------
    KnownPath
        ``cost`` is h times the sum of v over the right ends.

    Notes
    -----
    Derived by Pontryagin's principle with the discrete adjoint, checked against L-BFGS. Fahrbach
    et al. (ICML 2023) characterise the optimum of the linear case by differential equations; their
    exact statement was not at hand.

    Examples
    --------
    >>> slow = np.tile([0.2], (100, 1))
    >>> rates = known_path_limit(
    ...     slow, dim=1, noise=0.1, batch=1.0, step=0.02, start_lag=[1.0]
    ... ).rates
    >>> bool(rates[0] > rates[-1])
    True
    """
    h = positive("step", step)
    moves = -h * path("velocities", velocities)
    d, s2, nu = number("dim", dim), number("noise", noise), number("batch", batch)
    mean, second = _first_moments(start_lag, start, moves.shape[1], d)
    problem = _Problem(
        moves, mean, second, h, (d + 1) / nu, d * s2 / nu, 0.0, h, positive("largest", largest)
    )
    return _solve(problem, method)


def _first_moments(
    start_lag: ArrayLike, start: float | None, columns: int, d: float
) -> tuple[FloatArray, float]:
    mean = np.asarray(start_lag, dtype=float)
    if mean.shape != (columns,) or not np.isfinite(mean).all():
        raise ValueError(f"start_lag must be {columns} finite numbers, got {start_lag!r}")
    if columns != d:
        raise ValueError(f"the path has {columns} coordinates, dim is {d:g}")
    least = float(mean @ mean)
    second = least if start is None else number("start", start)
    if second < least - 1e-12:
        raise ValueError(f"start is {second:g}, below |start_lag|^2 = {least:g}")
    return mean, second


def _solve(problem: _Problem, method: str) -> KnownPath:
    if method == "sweep":
        rates, sweeps = _sweep(problem)
    elif method == "L-BFGS":
        rates, sweeps = _quasi_newton(problem)
    else:
        raise ValueError(f'method must be "sweep" or "L-BFGS", got {method!r}')
    mean, second = problem.forward(rates)
    return KnownPath(rates, second, mean, problem.cost(rates), sweeps)


def _sweep(problem: _Problem, damping: float = 0.3, limit: int = 500) -> tuple[FloatArray, int]:
    """Iterate rates <- (1 - damping) rates + damping control; halve the damping on a rise."""
    rates = np.full(len(problem.moves), min(problem.top, 1 / (1 + problem.kappa)))
    least = problem.cost(rates)
    for sweep in range(1, limit + 1):
        want = problem.control(rates)[0]
        if np.abs(want - rates).max() < 1e-10:
            return rates, sweep
        trial = rates + damping * (want - rates)
        cost = problem.cost(trial)
        if cost > least + 1e-12 * abs(least) and damping > 1e-3:
            damping /= 2
            continue
        rates, least = trial, cost
    gap = float(np.abs(problem.control(rates)[0] - rates).max())
    if gap > 1e-6:
        warnings.warn(
            f"{limit} sweeps left a change of {gap:.2g} in a learning rate; compare with "
            'method="L-BFGS"',
            RuntimeWarning,
            stacklevel=4,
        )
    return rates, limit


def _quasi_newton(problem: _Problem) -> tuple[FloatArray, int]:
    first = np.full(len(problem.moves), min(problem.top, 1 / (1 + problem.kappa)))
    found = minimize(
        problem.gradient,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, problem.top)] * first.size,
        options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 30},
    )
    return found.x, int(found.nfev)
