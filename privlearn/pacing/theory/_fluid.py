"""Fluid solutions in closed form: values and competing bids independent and uniform on [0, 1]."""

from __future__ import annotations

import math
from typing import NamedTuple

from ._arguments import number


class Fluid(NamedTuple):
    """The best stationary policy of infinitely many auctions.

    Attributes
    ----------
    multiplier : float
        Bid per unit of value, kappa.
    mu : float
        Price of the budget; 0 where it does not bind.
    spend : float
        Spend per auction.
    reward : float
        Utility or value per auction, whichever is the objective.
    win_rate : float
    slope : float
        c = -d(spend) / d(mu): what the stability of a loop depends on.
    """

    multiplier: float
    mu: float
    spend: float
    reward: float
    win_rate: float
    slope: float


def utility_at(mu: float) -> Fluid:
    """Second price, utility: bid v / k with k = 1 + mu spends 1 / (6 k^2).

    Win rate 1 / (2k), utility 1 / (3k) - 1 / (6 k^2), slope 1 / (3 k^3).

    Examples
    --------
    >>> utility_at(1.0).spend == 1 / 24
    True
    """
    price = number("mu", mu, least=0.0)
    k = 1 + price
    reward = 1 / (3 * k) - 1 / (6 * k**2)
    return Fluid(1 / k, price, 1 / (6 * k**2), reward, 1 / (2 * k), 1 / (3 * k**3))


def second_price_utility(rate: float) -> Fluid:
    """Utility maximiser under a budget ``rate`` per second-price auction: k = 1 / sqrt(6 rho).

    Examples
    --------
    >>> round(second_price_utility(0.1).reward, 7)
    0.1581989
    """
    rho = number("rate", rate, above=0.0)
    return utility_at(max(1 / math.sqrt(6 * rho) - 1, 0.0))


def first_price_utility(rate: float) -> Fluid:
    """Utility maximiser in first-price auctions who knows the law of d: bid v / (2 (1 + mu)).

    Spend 1 / (12 k^2), utility 1 / (6k) - 1 / (12 k^2), k = 1 / sqrt(12 rho), slope 1 / (6 k^3).

    Examples
    --------
    >>> round(first_price_utility(0.05).reward, 7)
    0.0790994
    """
    rho = number("rate", rate, above=0.0)
    k = max(1 / math.sqrt(12 * rho), 1.0)
    reward = 1 / (6 * k) - 1 / (12 * k**2)
    return Fluid(1 / (2 * k), k - 1, 1 / (12 * k**2), reward, 1 / (4 * k), 1 / (6 * k**3))


def value_at(kappa: float) -> Fluid:
    """Second price, value: bid kappa v.

    kappa <= 1: spend kappa^2 / 6, value kappa / 3; above 1: spend 1/2 - 1 / (3 kappa), value
    1/2 - 1 / (6 kappa^2). As a price, mu = 1 / kappa.

    Examples
    --------
    >>> value_at(1.0).reward == 1 / 3
    True
    """
    k = number("kappa", kappa, above=0.0)
    mu = 1 / k
    if k <= 1:
        return Fluid(k, mu, k**2 / 6, k / 3, k / 2, k**3 / 3)
    return Fluid(k, mu, 0.5 - mu / 3, 0.5 - mu**2 / 6, 1 - mu / 2, 1 / 3)


#: What a bidder without limits wins: everything, at the mean price.
_ALL = Fluid(math.inf, 0.0, 0.5, 0.5, 1.0, 1 / 3)


def second_price_value(rate: float) -> Fluid:
    """Value maximiser under a budget: kappa = sqrt(6 rho), or 1 / (3/2 - 3 rho) above rho = 1/6.

    Examples
    --------
    >>> round(second_price_value(0.1).reward, 7)
    0.2581989
    """
    rho = number("rate", rate, above=0.0)
    if rho >= 0.5:
        return _ALL
    return value_at(math.sqrt(6 * rho) if rho <= 1 / 6 else 1 / (1.5 - 3 * rho))


def roi_multiplier(gamma: float) -> float:
    """Bid per unit of value at which value = gamma x spend; infinite for gamma <= 1.

    2 / gamma for gamma >= 2, else the larger root of 3 (gamma - 1) k^2 - 2 gamma k + 1 = 0.

    Examples
    --------
    >>> roi_multiplier(4.0), roi_multiplier(2.0)
    (0.5, 1.0)
    """
    g = number("gamma", gamma, above=0.0)
    if g >= 2:
        return 2 / g
    if g <= 1:
        return math.inf
    return (g + math.sqrt(g * g - 3 * (g - 1))) / (3 * (g - 1))


def roi_value(rate: float, gamma: float) -> Fluid:
    """Value maximiser under a budget and value >= gamma x spend: the lower of the two multipliers.

    ``mu`` is 1 / multiplier of the binding constraint: the price that paces alone.

    Examples
    --------
    >>> roi_value(0.12, 4.0).multiplier
    0.5
    """
    kappa = min(second_price_value(rate).multiplier, roi_multiplier(gamma))
    return _ALL if math.isinf(kappa) else value_at(kappa)


def throttled_utility(rate: float) -> Fluid:
    """Truthful bids in a random share 6 rho of the auctions: utility rho, bought at the mean price.

    The slope is with respect to the share that is left out.

    Examples
    --------
    >>> round(throttled_utility(0.1).reward, 12)
    0.1
    """
    rho = number("rate", rate, above=0.0)
    share = min(6 * rho, 1.0)
    return Fluid(1.0, 0.0, share / 6, share / 6, share / 2, 1 / 6)
