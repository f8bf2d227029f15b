"""Gains for a paced campaign, with margin, and what they cost."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

from privlearn.pacing import theory
from privlearn.pacing.theory import Gains, Stability
from privlearn.pacing.theory._arguments import number, whole
from privlearn.pacing.warnings import PacingWarning


class Tuning(NamedTuple):
    """Gains and what they cost.

    Attributes
    ----------
    gains : Gains
    stability : Stability
        Radius, margins, settling time, noise, of the loop linearised at the right price.
    reason : str
        What decided the integral gain: "regret", or "delay".
    price_deviation : float
        Standard deviation of mu once settled; nan if ``noise`` was not given.
    volatility : float
        Standard deviation of mu_{t+1} - mu_t once settled; nan if ``noise`` was not given.
    predicted_regret : float
        Second-order estimate of the loss against the right price: c / 2 times the sum of squares
        of mu_t - mu*, from noise and from the way there; nan if ``noise`` was not given. An
        estimate for unbounded prices and budgets, not a bound.
    regret_bound : float
        `theory.pacing_bound` of independent requests; nan if the constants were not given.
    """

    gains: Gains
    stability: Stability
    reason: str
    price_deviation: float
    volatility: float
    predicted_regret: float
    regret_bound: float


def assess(gains: Gains, *, slope: float, delay: int = 0) -> Stability:
    """Stability of given gains; warns with the spectral radius if the loop is unstable.

    Parameters
    ----------
    gains : Gains
    slope : float
        c = -d(spend) / d(mu) of a step, above 0; under the entropic mirror, times mu. For errors
        divided by the target, c divided by the target.
    delay : int, default=0
        Steps by which feedback is late.

    Returns
    -------
    Stability

    Warns
    -----
    PacingWarning
        If the gains are outside the region of stability.

    Examples
    --------
    >>> assess(Gains(0.5), slope=1.0).radius
    0.5
    """
    found = theory.stability(gains, slope, delay)
    if not found.stable:
        limit = theory.largest_stable_gain(slope, delay)
        warnings.warn(
            f"gains {tuple(gains)} are outside the region of stability for slope={slope:g}, "
            f"delay={delay}: spectral radius {found.radius:.4g}; an integral gain alone must be "
            f"above 0 and below {limit:.4g}",
            PacingWarning,
            stacklevel=2,
        )
    return found


def gains_for(
    *,
    slope: float,
    horizon: int,
    rate: float,
    delay: int = 0,
    multiplier: float = 1.0,
    margin: float = 2.0,
    proportional: bool = False,
    noise: float | None = None,
    reward: float | None = None,
    consumption: float | None = None,
) -> Tuning:
    """Choose gains: the step of least regret, kept inside the region of stability with a margin.

    K_I = min(multiplier / (rate sqrt(T)), K_max / margin), where K_max is the largest stable gain
    at this delay. With ``proportional`` and a delay, K_P is added in the ratio of the fastest PI
    loop; it helps against slow disturbances where spend is averaged over slots, and hurts where
    noise dominates. K_D is 0.

    Parameters
    ----------
    slope : float
        c = -d(spend) / d(mu) of a step at the right price. If errors are divided by the target
        (`controllers.normalised`), give c / target and rate=1.
    horizon : int
        T, steps of the campaign.
    rate : float
        rho, planned spend of a step.
    delay : int, default=0
        Steps by which feedback is late.
    multiplier : float, default=1.0
        A typical mu.
    margin : float, default=2.0
        Least gain margin, above 1.
    proportional : bool, default=False
    noise : float, optional
        Standard deviation of the spend of a step at a fixed price, for predictions.
    reward, consumption : float, optional
        The most that one step brings and consumes, for the bound of regret.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> tuning = gains_for(slope=1.55, horizon=288, rate=1.0, delay=12, multiplier=0.3)
    >>> tuning.gains.k_i, tuning.reason, tuning.stability.stable
    (0.0176..., 'regret', True)
    >>> gains_for(slope=1.55, horizon=25, rate=1.0, delay=12, multiplier=0.5).reason
    'delay'
    """
    c, steps = number("slope", slope, above=0.0), whole("horizon", horizon, 1)
    rho, late = number("rate", rate, above=0.0), whole("delay", delay, 0)
    typical, least = number("multiplier", multiplier, above=0.0), number("margin", margin)
    if least <= 1:
        raise ValueError(f"margin must be above 1, got {margin!r}")
    wanted = typical / (rho * math.sqrt(steps))
    limit = theory.largest_stable_gain(c, late) / least
    gains = Gains(min(wanted, limit))
    if proportional and late:
        fastest = theory.fastest_gains(c, late, terms=2).gains
        gains = gains._replace(k_p=gains.k_i * fastest.k_p / fastest.k_i)
        room = theory.gain_margin(gains, c, late)
        if room < least:
            # A margin of 0 says that the gains are unstable as they are: start from the fastest.
            gains = fastest if room == 0 else gains
            room = theory.gain_margin(gains, c, late)
            shrink = min(1.0, room / least)
            gains = Gains(gains.k_i * shrink, gains.k_p * shrink)
    found = theory.stability(gains, c, late)
    deviation = volatility = predicted = math.nan
    if noise is not None:
        sd = number("noise", noise, least=0.0)
        deviation, volatility = sd * found.price_noise, sd * found.step_noise
        way = typical**2 * theory.offset_energy(gains, c, late)
        predicted = c / 2 * (steps * deviation**2 + way)
    return Tuning(
        gains,
        found,
        "regret" if wanted <= limit else "delay",
        deviation,
        volatility,
        predicted,
        _bound(gains, steps, rho, reward, consumption),
    )


def _bound(
    gains: Gains, horizon: int, rate: float, reward: float | None, consumption: float | None
) -> float:
    if (reward is None) != (consumption is None):
        raise ValueError("reward and consumption must be given together, or neither")
    if reward is None or consumption is None:
        return math.nan
    kernel = theory.pid_to_kernel(gains.k_i, gains.k_p, gains.k_d)
    return theory.pacing_bound(
        reward=reward,
        consumption=consumption,
        rate=rate,
        horizon=horizon,
        eta=kernel.eta,
        alpha=kernel.alpha,
        mu_max=number("reward", reward, above=0.0) / rate,
    ).total
