"""Stability of a paced campaign: the loop linearised at the price that spends the budget.

Near the right price mu*, spend falls by c for every unit of mu, so that the error is
g = c (mu - mu*). A velocity-form PID whose feedback comes D steps late then obeys

    z^(D+2) (z - 1) + c [(K_I + K_P + K_D) z^2 - (K_P + 2 K_D) z + K_D] = 0

(times z - beta where the integral term is smoothed). The loop is stable if all roots lie inside
the unit circle. Under the entropic mirror the coordinate is log mu: put mu* c for the slope.
All derived here, and checked against eigenvalues and simulation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import number, share, vector, whole
from ._convolution import Gains

#: Roots are taken to lie on the unit circle if they are this close.
_CIRCLE = 1e-6
#: Longest impulse response that is summed.
_LONGEST = 200_000


class Stability(NamedTuple):
    """Where a loop stands.

    Attributes
    ----------
    stable : bool
    radius : float
        Spectral radius: errors shrink by this factor a step, in the long run.
    gain_margin : float
        All gains (or the slope) can grow by this factor until the loop is unstable; 0 if unstable.
    delay_margin : float
        Feedback can be this many steps later yet (fractions as the crossing of the phase says);
        0 if unstable.
    settling : float
        Steps until an error has shrunk to 1 %; infinite if unstable.
    price_noise : float
        Standard deviation of mu for spend noise of standard deviation 1; infinite if unstable.
    step_noise : float
        The same for mu_{t+1} - mu_t: how much bids jump about.
    """

    stable: bool
    radius: float
    gain_margin: float
    delay_margin: float
    settling: float
    price_noise: float
    step_noise: float


def _check(gains: Gains, slope: float, delay: int) -> tuple[Gains, float, int]:
    checked = Gains(
        number("k_i", gains.k_i),
        number("k_p", gains.k_p),
        number("k_d", gains.k_d),
        share("beta", gains.beta),
    )
    return checked, number("slope", slope, above=0.0), whole("delay", delay, 0)


def _loop(gains: Gains, delay: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Open loop: numerator (controller) and denominator (integrator and delay), high power first.

    Common factors z are left out, so that no spurious roots at 0 appear.
    """
    k_i, k_p, k_d, beta = gains
    pole = np.array([1.0, -beta])
    if k_d:
        top = np.array([k_i + k_p + k_d, -(k_p + 2 * k_d), k_d])
        memory = 2
    elif k_p:
        top, memory = np.array([k_i + k_p, -k_p]), 1
    else:
        top, memory = np.array([k_i]), 0
    bottom = np.concatenate([[1.0, -1.0], np.zeros(delay + memory)])
    if not beta:
        return top, bottom
    # K_I (1 - beta) z / (z - beta) in place of K_I.
    rest = np.polysub(top, k_i * np.eye(1, memory + 1).ravel())
    smooth = k_i * (1 - beta) * np.eye(1, memory + 2).ravel()
    return np.polyadd(np.polymul(rest, pole), smooth), np.polymul(bottom, pole)


def characteristic_polynomial(gains: Gains, slope: float, delay: int = 0) -> NDArray[np.floating]:
    """Coefficients of the closed loop, highest power first.

    Parameters
    ----------
    gains : Gains
    slope : float
        c = -d(spend) / d(mu) a step, above 0.
    delay : int
        D, steps by which feedback is late.

    Returns
    -------
    array

    Examples
    --------
    >>> characteristic_polynomial(Gains(0.5), 1.0).tolist()
    [1.0, -0.5]
    """
    checked, c, d = _check(gains, slope, delay)
    top, bottom = _loop(checked, d)
    return np.polyadd(bottom, c * top)


def is_schur(coefficients: ArrayLike) -> bool:
    """Tell whether all roots lie inside the unit circle, by Jury's (Schur and Cohn's) recursion.

    No eigenvalues: p is Schur if |p_0| > |p_n| and p_0 p(z) - p_n p*(z), divided by z, is Schur.

    Parameters
    ----------
    coefficients : array of shape (n + 1,)
        Highest power first.

    Examples
    --------
    >>> is_schur([1.0, -0.5]), is_schur([1.0, -1.5])
    (True, False)
    """
    p = vector("coefficients", coefficients)
    while p.size > 1:
        if not abs(p[0]) > abs(p[-1]):
            return False
        p = (p[0] * p - p[-1] * p[::-1])[:-1]
        p = p / abs(p).max()
    return True


def jury_pid(gains: Gains, slope: float) -> bool:
    """Jury's conditions for a PID without delay or smoothing, written out.

    I: 0 < c K_I < 2. PI: c K_I > 0, c (K_I + 2 K_P) < 2, |c K_P| < 1. In general, with
    a2 = c (K_I + K_P + K_D) - 1, a1 = -c (K_P + 2 K_D), a0 = c K_D: c K_I > 0,
    c (K_I + 2 K_P + 4 K_D) < 2, |a0| < 1 and |a0^2 - 1| > |a0 a2 - a1|.

    Examples
    --------
    >>> jury_pid(Gains(1.0, 0.4), 1.0), jury_pid(Gains(1.0, 0.6), 1.0)
    (True, False)
    """
    checked, c, _ = _check(gains, slope, 0)
    k_i, k_p, k_d, beta = checked
    if beta:
        raise ValueError(f"gains must have beta = 0 here, got {beta}; use stability(...)")
    a2, a1, a0 = c * (k_i + k_p + k_d) - 1, -c * (k_p + 2 * k_d), c * k_d
    return bool(
        c * k_i > 0
        and c * (k_i + 2 * k_p + 4 * k_d) < 2
        and abs(a0) < 1
        and abs(a0 * a0 - 1) > abs(a0 * a2 - a1)
    )


def spectral_radius(gains: Gains, slope: float, delay: int = 0) -> float:
    """Largest modulus of the roots of the closed loop.

    Examples
    --------
    >>> spectral_radius(Gains(0.5), 1.0)
    0.5
    """
    roots = np.roots(characteristic_polynomial(gains, slope, delay))
    return float(abs(roots).max(initial=0.0))


def _on_circle(polynomial: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    """Roots on the upper unit circle, without z = 1 (the integrator)."""
    roots = np.roots(np.trim_zeros(polynomial, "b"))
    near = roots[(abs(abs(roots) - 1) < _CIRCLE) & (abs(roots - 1) > 1e-4) & (roots.imag > -1e-9)]
    return near / abs(near)


def _reciprocal(p: NDArray[np.floating], degree: int) -> NDArray[np.floating]:
    """z^degree p(1 / z), highest power first."""
    return np.concatenate([p[::-1], np.zeros(degree + 1 - p.size)])


def gain_margin(gains: Gains, slope: float, delay: int = 0) -> float:
    """Factor by which all gains can grow until the loop is unstable; 0 if it is.

    At the margin s a root lies on the unit circle, where bottom + s c top = 0 and the same of the
    conjugate: bottom(z) top*(z) = top(z) bottom*(z), with p*(z) = z^n p(1 / z).

    Examples
    --------
    >>> round(gain_margin(Gains(0.5), 1.0), 9)
    4.0
    """
    checked, c, d = _check(gains, slope, delay)
    top, bottom = _loop(checked, d)
    if not is_schur(np.polyadd(bottom, c * top)):
        return 0.0
    n = bottom.size - 1
    meet: NDArray[np.floating] = np.polysub(
        np.polymul(bottom, _reciprocal(top, n)), np.polymul(top, _reciprocal(bottom, n))
    )
    z = _on_circle(np.trim_zeros(meet, "f"))
    ratio = -np.polyval(bottom, z) / (c * np.polyval(top, z))
    factors = ratio.real[(abs(ratio.imag) < 1e-6 * abs(ratio)) & (ratio.real > 1)]
    return float(factors.min(initial=math.inf))


def delay_margin(gains: Gains, slope: float, delay: int = 0) -> float:
    """Steps by which feedback can be later yet until the loop is unstable; 0 if it is.

    Where |open loop| = 1 at z = exp(i w), more delay turns its phase by w a step; the loop
    is stable for every whole delay below the margin, which is at most 1 if the open loop exceeds
    1 at z = -1. For an integral gain alone the total is
    pi / (4 asin(c K_I / 2)) - 1/2.

    Examples
    --------
    >>> round(delay_margin(Gains(2 * math.sin(math.pi / 10)), 1.0), 6)
    2.0
    """
    checked, c, d = _check(gains, slope, delay)
    top, bottom = _loop(checked, d)
    if not is_schur(np.polyadd(bottom, c * top)):
        return 0.0
    n = bottom.size - 1
    size = np.polysub(
        np.polymul(bottom, _reciprocal(bottom, n)),
        c * c * np.polymul(top, _reciprocal(top, n)),
    )
    z = _on_circle(np.trim_zeros(size, "f"))
    turn = np.angle(z)
    phase = np.angle(-c * np.polyval(top, z) / np.polyval(bottom, z)) % (2 * np.pi)
    turn = abs(turn)
    margin = float((phase / turn).min(initial=math.inf))
    # Where the open loop exceeds 1 at z = -1, one step more turns its sign there: unstable.
    fast = abs(c * np.polyval(top, -1.0)) >= abs(np.polyval(bottom, -1.0))
    return min(margin, 1.0) if fast else margin


def noise_response(gains: Gains, slope: float, delay: int = 0) -> tuple[float, float]:
    """Standard deviations of mu and of mu_{t+1} - mu_t for white spend noise of deviation 1.

    Sums of squares of the impulse response -top / (bottom + c top). For an integral gain alone,
    K_I / sqrt(c K_I (2 - c K_I)) and K_I sqrt(2 / (2 - c K_I)). Infinite if unstable.

    Examples
    --------
    >>> round(noise_response(Gains(0.5), 1.0)[0] ** 2, 9) == round(1 / 3, 9)
    True
    """
    checked, c, d = _check(gains, slope, delay)
    top, bottom = _loop(checked, d)
    response = _impulse(top, np.polyadd(bottom, c * top))
    if response is None:
        return math.inf, math.inf
    steps = np.diff(response, prepend=0.0)
    return float(np.sqrt((response**2).sum())), float(np.sqrt((steps**2).sum()))


def offset_energy(gains: Gains, slope: float, delay: int = 0) -> float:
    """Sum over all steps of (mu_t - mu*)^2, from mu_1 - mu* = 1, without noise or bounds.

    For an integral gain alone, 1 / (c K_I (2 - c K_I)). Infinite if unstable.

    Examples
    --------
    >>> round(offset_energy(Gains(0.5), 1.0), 9) == round(4 / 3, 9)
    True
    """
    checked, c, d = _check(gains, slope, delay)
    top, bottom = _loop(checked, d)
    without_integrator, _ = np.polydiv(bottom, np.array([1.0, -1.0]))
    response = _impulse(without_integrator, np.polyadd(bottom, c * top))
    return math.inf if response is None else float((response**2).sum())


def _impulse(
    numerator: NDArray[np.floating], closed: NDArray[np.floating]
) -> NDArray[np.floating] | None:
    """Impulse response of numerator / closed until it has died out; None if it does not."""
    from scipy.signal import lfilter

    if not is_schur(closed):
        return None
    radius = float(abs(np.roots(closed)).max(initial=0.0))
    length = _LONGEST
    if radius < 1:
        need = 2 * closed.size + 40 / -math.log(max(radius, 1e-12))
        length = int(min(need, _LONGEST))
    pulse = np.zeros(length)
    pulse[0] = 1.0
    padded = np.concatenate([np.zeros(closed.size - numerator.size), numerator])
    response: NDArray[np.floating] = lfilter(padded, closed, pulse)
    return response


def stability(gains: Gains, slope: float, delay: int = 0) -> Stability:
    """Spectral radius, margins, settling time and noise of a loop.

    Parameters
    ----------
    gains : Gains
    slope : float
        c = -d(spend) / d(mu) a step, above 0; for errors divided by the target, divide c by it.
    delay : int, default=0

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If a gain is not finite, the slope not positive, or the delay negative.

    Examples
    --------
    >>> loop = stability(Gains(0.5), slope=1.0)
    >>> loop.stable, loop.radius, round(loop.gain_margin, 6)
    (True, 0.5, 4.0)
    """
    radius = spectral_radius(gains, slope, delay)
    if not is_schur(characteristic_polynomial(gains, slope, delay)):
        return Stability(False, radius, 0.0, 0.0, math.inf, math.inf, math.inf)
    settling = math.inf if radius >= 1 else math.log(0.01) / math.log(max(radius, 1e-12))
    return Stability(
        True,
        radius,
        gain_margin(gains, slope, delay),
        delay_margin(gains, slope, delay),
        max(settling, float(delay + 1)),
        *noise_response(gains, slope, delay),
    )


def largest_stable_gain(slope: float, delay: int = 0) -> float:
    """Integral gain below which a loop without P and D is stable: 2 sin(pi / (2 (2D + 1))) / c.

    Examples
    --------
    >>> [round(largest_stable_gain(1.0, d), 5) for d in (0, 1, 2)]
    [2.0, 1.0, 0.61803]
    """
    c, d = number("slope", slope, above=0.0), whole("delay", delay, 0)
    return 2 * math.sin(math.pi / (2 * (2 * d + 1))) / c


class FastestGains(NamedTuple):
    """Gains with the least spectral radius, and that radius."""

    gains: Gains
    radius: float


def fastest_gains(slope: float, delay: int = 0, terms: int = 1) -> FastestGains:
    """Gains with the least spectral radius: a multiple root that no other root exceeds.

    I: radius D / (D + 1), c K_I = D^D / (D + 1)^(D + 1), a double root. PI: r = D / (D + 2),
    c K_P = r^(D + 2), c K_I = r^D - r^(D + 2), a triple root. Without delay both are c K_I = 1.
    (The quadruple root D / (D + 3) of a PID is exceeded by others from D = 2 on: no closed form.)
    Noise is not considered: it makes P worth less, or harmful.

    Parameters
    ----------
    slope : float
    delay : int, default=0
    terms : {1, 2}
        I or PI.

    Examples
    --------
    >>> fastest_gains(1.0, delay=1).gains.k_i, round(fastest_gains(1.0, 1, terms=2).radius, 4)
    (0.25, 0.3333)
    """
    c, d = number("slope", slope, above=0.0), whole("delay", delay, 0)
    if terms not in (1, 2):
        raise ValueError(f"terms must be 1 (I) or 2 (PI), got {terms!r}")
    r = d / (d + terms)
    if d == 0:
        return FastestGains(Gains(1 / c), 0.0)
    if terms == 1:
        return FastestGains(Gains(r**d / (d + 1) / c), r)
    return FastestGains(Gains((r**d - r ** (d + 2)) / c, r ** (d + 2) / c), r)
