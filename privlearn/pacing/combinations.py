"""From prices to a bid: how the budget's price and the ROI's price make one multiplier.

For second-price auctions a bid is ``kappa x value``. The three ways to serve a budget and a return
constraint at once are those of Balseiro et al., "A Field Guide for Pacing Budget and ROS
Constraints", ICML 2024, arXiv 2302.08530; the formulas are derived here.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.pacing.controllers import Action

Combination = Literal["dual", "minimum", "sequential"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)


def utility_multiplier(mu: ArrayLike) -> Array:
    """Multiplier of a bidder who maximises value - payment under a budget: 1 / (1 + mu).

    Examples
    --------
    >>> utility_multiplier(1.0).item()
    0.5
    """
    return 1.0 / (1.0 + jnp.asarray(mu, dtype=float))


def value_multiplier(mu: ArrayLike, *, cap: ArrayLike = 1e6) -> Array:
    """Multiplier of a bidder who maximises value under a budget: 1 / mu, at most ``cap``.

    Examples
    --------
    >>> value_multiplier(0.5).item(), value_multiplier(0.0, cap=10.0).item()
    (2.0, 10.0)
    """
    return jnp.minimum(1.0 / jnp.maximum(jnp.asarray(mu, dtype=float), 1e-30), cap)


def dual(mu: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Array:
    """Dual-optimal: (1 + lam) / (mu + lam gamma), the argmax of the Lagrangian.

    Examples
    --------
    >>> dual(1.0, 1.0, 3.0).item()
    0.5
    """
    lam = jnp.asarray(lam, dtype=float)
    return (1.0 + lam) / jnp.maximum(jnp.asarray(mu) + lam * jnp.asarray(gamma), 1e-30)


def minimum(mu: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Array:
    """Min-pacing: the lower of the bids that each constraint alone would make.

    Examples
    --------
    >>> minimum(1.0, 1.0, 4.0).item()
    0.5
    """
    lam = jnp.asarray(lam, dtype=float)
    roi = (1.0 + lam) / jnp.maximum(lam * jnp.asarray(gamma), 1e-30)
    return jnp.minimum(1.0 / jnp.maximum(jnp.asarray(mu, dtype=float), 1e-30), roi)


def sequential(mu: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Array:
    """Sequential: the ROI's bid, then shaded for the budget by 1 / (1 + mu).

    The two loops can fight: where the budget binds much harder than the ROI, the ROI loop runs
    away while the budget loop drags, and the campaign mis-paces.

    Examples
    --------
    >>> sequential(1.0, 1.0, 2.0).item()
    0.5
    """
    lam = jnp.asarray(lam, dtype=float)
    roi = (1.0 + lam) / jnp.maximum(lam * jnp.asarray(gamma), 1e-30)
    return roi / (1.0 + jnp.asarray(mu))


_RULES = {"dual": dual, "minimum": minimum, "sequential": sequential}


def bid_multiplier(
    action: Action,
    *,
    objective: Literal["utility", "value"] = "utility",
    gamma: ArrayLike | None = None,
    combination: Combination = "dual",
    cap: ArrayLike = 1e6,
    cost: int = 0,
) -> Array:
    """Second-price bid per unit of value that an action asks for.

    Parameters
    ----------
    action : Action
    objective : {"utility", "value"}
        What the bidder maximises: value - payment, or value.
    gamma : float, optional
        Least return, where there is an ROI constraint (objective "value").
    combination : {"dual", "minimum", "sequential"}
    cap : float
        Most that a multiplier may be: mu -> 0 would otherwise ask for infinite bids.
    cost : int, default=0
        The resource that is money.

    Returns
    -------
    Array of shape ()

    Raises
    ------
    ValueError
        If an option is unknown, or an ROI constraint comes with objective "utility".

    Examples
    --------
    >>> action = Action(jnp.array([1.0]), jnp.array(1.0), jnp.array(1.0))
    >>> bid_multiplier(action).item()
    0.5
    >>> bid_multiplier(action, objective="value", gamma=3.0, combination="sequential").item()
    0.3333333432674408
    """
    mu = action.mu[cost]
    if objective not in ("utility", "value"):
        raise ValueError(f"objective must be 'utility' or 'value', got {objective!r}")
    if combination not in _RULES:
        raise ValueError(f"combination must be one of {COMBINATIONS}, got {combination!r}")
    if gamma is None:
        kappa = utility_multiplier(mu) if objective == "utility" else value_multiplier(mu, cap=cap)
    elif objective == "utility":
        raise ValueError("gamma needs objective='value': an ROI constraint is on value won")
    else:
        kappa = _RULES[combination](mu, action.lam, gamma)
    return jnp.minimum(kappa, cap)
