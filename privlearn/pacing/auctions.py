"""Repeated auctions: who bids what, who wins, what it costs, and the traffic that comes.

An auction is a small frozen object with pure JAX methods on numbers of one campaign (the
simulation vmaps them); `SecondPrice` needs to know nothing of the other bidders, `FirstPrice`
knows their law or learns it. A `Market` turns uniform numbers into values and competing bids, and
`Worthless`, `PriceWave` and `ValueShift` corrupt it: requests that are independent but not
identical, or as an adversary would have them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from privlearn.pacing.combinations import Combination, bid_multiplier
from privlearn.pacing.controllers import Action

__all__ = [
    "Auction",
    "FirstPrice",
    "Law",
    "LogNormal",
    "Market",
    "PriceWave",
    "SecondPrice",
    "Stress",
    "Uniform",
    "ValueShift",
    "Worthless",
]


# ------------------------------------------------------------------------------- traffic


class Law(Protocol):
    """The law of a positive number, by its quantile function."""

    def quantile(self, u: Array) -> Array:
        """Number below which a share u of the law lies."""

    def cdf(self, x: Array) -> Array:
        """Share of the law at or below x."""


@dataclass(frozen=True)
class Uniform:
    """Numbers spread evenly between ``low`` and ``high``.

    Examples
    --------
    >>> Uniform(1.0, 3.0).quantile(jnp.array(0.5)).item()
    2.0
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high < math.inf:
            raise ValueError(f"need 0 <= low < high, got low={self.low!r}, high={self.high!r}")

    def quantile(self, u: Array) -> Array:
        """Number below which a share u of the law lies."""
        return self.low + (self.high - self.low) * u if (self.low, self.high) != (0, 1) else u

    def cdf(self, x: Array) -> Array:
        """Share of the law at or below x."""
        return jnp.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)


@dataclass(frozen=True)
class LogNormal:
    """The usual fit to bids: median x exp(sigma x standard normal).

    Examples
    --------
    >>> LogNormal(2.0, 0.5).quantile(jnp.array(0.5)).item()
    2.0
    """

    median: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.median < math.inf and 0 < self.sigma < math.inf):
            raise ValueError(
                f"median and sigma must be positive, got {self.median!r} and {self.sigma!r}"
            )

    def quantile(self, u: Array) -> Array:
        """Number below which a share u of the law lies."""
        return self.median * jnp.exp(self.sigma * jax.scipy.special.ndtri(u))

    def cdf(self, x: Array) -> Array:
        """Share of the law at or below x."""
        return jax.scipy.special.ndtr(jnp.log(x / self.median) / self.sigma)


class Stress(Protocol):
    """A change of the traffic over the campaign."""

    def __call__(self, phase: Array, value: Array, price: Array) -> tuple[Array, Array]:
        """Give value and price of opportunities at a phase (share of the horizon, 0 to 1)."""


@dataclass(frozen=True)
class Worthless:
    """From a share of the horizon on, nothing is worth anything: corruption of the end.

    Examples
    --------
    >>> value, _ = Worthless(0.9)(jnp.array([0.5, 0.95]), jnp.ones(2), jnp.ones(2))
    >>> value.tolist()
    [1.0, 0.0]
    """

    after: float

    def __call__(self, phase: Array, value: Array, price: Array) -> tuple[Array, Array]:
        """Give value and price of opportunities at a phase."""
        return jnp.where(phase < self.after, value, 0.0), price


@dataclass(frozen=True)
class PriceWave:
    """Competing bids are multiplied by ``factor`` in the second half of each period.

    Examples
    --------
    >>> _, price = PriceWave(0.5, periods=2)(jnp.array([0.1, 0.3]), jnp.ones(2), jnp.ones(2))
    >>> price.tolist()
    [1.0, 0.5]
    """

    factor: float
    periods: float = 1.0

    def __call__(self, phase: Array, value: Array, price: Array) -> tuple[Array, Array]:
        """Give value and price of opportunities at a phase."""
        late = (phase * self.periods) % 1.0 >= 0.5
        return value, jnp.where(late, self.factor * price, price)


@dataclass(frozen=True)
class ValueShift:
    """Values are multiplied by ``factor`` from a share of the horizon on.

    With factor > 1 the adversary of every online rule: who spent on time bought what was poor;
    with factor < 1, who waited.
    """

    after: float
    factor: float

    def __call__(self, phase: Array, value: Array, price: Array) -> tuple[Array, Array]:
        """Give value and price of opportunities at a phase."""
        return jnp.where(phase < self.after, value, self.factor * value), price


@dataclass(frozen=True)
class Market:
    """Laws of the value and of the highest competing bid.

    Parameters
    ----------
    value, price : Law
    correlation : float, default=0
        Of a Gaussian copula between value and price: what is dear is often good.
    stress : tuple of Stress, default=()
        Changes over the campaign, applied in order.

    Examples
    --------
    >>> market = Market(price=LogNormal(0.3, 0.8), stress=(Worthless(0.5),))
    >>> value, price = market.requests(jnp.array(0.6), jnp.array(0.5), jnp.array(0.4))
    >>> value.item(), round(price.item(), 1)
    (0.6000000238418579, 0.3)
    """

    value: Law = Uniform()
    price: Law = Uniform()
    correlation: float = 0.0
    stress: tuple[Stress, ...] = ()

    def __post_init__(self) -> None:
        if not -1 < self.correlation < 1:
            raise ValueError(f"correlation must be above -1 and below 1, got {self.correlation!r}")
        if not isinstance(self.stress, tuple):
            raise TypeError(f"stress must be a tuple, got {self.stress!r}")

    def requests(self, first: Array, second: Array, phase: Array) -> tuple[Array, Array]:
        """Turn two uniform numbers into value and price, at a phase of the campaign."""
        if self.correlation:
            normal, inverse = jax.scipy.special.ndtr, jax.scipy.special.ndtri
            part = math.sqrt(1 - self.correlation**2)
            second = normal(self.correlation * inverse(first) + part * inverse(second))
        value, price = self.value.quantile(first), self.price.quantile(second)
        for change in self.stress:
            value, price = change(phase, value, price)
        return value, price


# ------------------------------------------------------------------------------- auctions


class Auction(Protocol):
    """What a campaign does in an auction. All methods are pure and speak of one campaign."""

    def init(self) -> Any:
        """State of what is learnt of the others."""

    def refresh(self, state: Any) -> Any:
        """Recompute, at the start of a slot, what bids are based on."""

    def bid(self, state: Any, value: Array, action: Action) -> Array:
        """Bid for a value under the prices of an action."""

    def settle(self, value: Array, bid: Array, price: Array) -> tuple[Array, Array]:
        """Charge and reward, if the auction is won."""

    def learn(self, state: Any, bid: Array, price: Array, won: Array) -> Any:
        """State after an auction."""


@dataclass(frozen=True)
class SecondPrice:
    """Second-price auctions: the winner pays the highest competing bid.

    Parameters
    ----------
    objective : {"utility", "value"}
        The reward: value - payment, or value.
    gamma : float, optional
        Least return, value per unit of money; with objective "value". A target cost c per
        conversion is value = c x conversions and gamma = 1.
    combination : {"dual", "minimum", "sequential"}
        How the two prices make one bid.
    cap : float, default=1e6
        Most that the bid per unit of value may be.

    Examples
    --------
    >>> action = Action(jnp.array([1.0]), jnp.array(0.0), jnp.array(1.0))
    >>> SecondPrice().bid((), jnp.array(0.8), action).item()
    0.4000000059604645
    """

    objective: Literal["utility", "value"] = "utility"
    gamma: float | None = None
    combination: Combination = "dual"
    cap: float = 1e6

    def __post_init__(self) -> None:
        if self.gamma is not None and not (math.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be positive, got {self.gamma!r}")
        one = jax.ShapeDtypeStruct((1,), "float32")
        none = jax.ShapeDtypeStruct((), "float32")
        jax.eval_shape(self._factor, Action(one, none, none))  # type: ignore[arg-type]

    def _factor(self, action: Action) -> Array:
        return bid_multiplier(
            action,
            objective=self.objective,
            gamma=self.gamma,
            combination=self.combination,
            cap=self.cap,
        )

    def init(self) -> tuple[()]:
        """Nothing is learnt."""
        return ()

    def refresh(self, state: tuple[()]) -> tuple[()]:
        """Nothing is learnt."""
        return state

    def bid(self, state: tuple[()], value: Array, action: Action) -> Array:
        """Value times the multiplier of the action: the best bid whatever the others do."""
        return value * self._factor(action)

    def settle(self, value: Array, bid: Array, price: Array) -> tuple[Array, Array]:
        """Charge: the competing bid."""
        return price, value - price if self.objective == "utility" else value

    def learn(self, state: tuple[()], bid: Array, price: Array, won: Array) -> tuple[()]:
        """Nothing is learnt."""
        return state


class Survival(NamedTuple):
    """Product-limit estimate of the law of competing bids on a grid of bids.

    Attributes
    ----------
    events : Array of shape (G,)
        Competing bids seen in each cell (above the bid before, up to this one).
    at_risk : Array of shape (G,)
        Auctions in which a competing bid in that cell would have been seen.
    wins : Array of shape (G,)
        Estimated probability to win with each bid, as of the last refresh.
    """

    events: Array
    at_risk: Array
    wins: Array


@dataclass(frozen=True)
class FirstPrice:
    """First-price auctions: the winner pays the bid; utility, value - bid, is the reward.

    The bid maximises (v - (1 + mu) b) F(b), which takes the law F of competing bids.

    Parameters
    ----------
    prices : Law or {"revealed", "censored"}
        The law, if it is known; or what an auction shows of the highest competing bid:
        always (then F is its empirical law), or to the winner only (then F is the product-limit
        estimate of Kaplan and Meier, in which lost bids are censored). Censored losses say
        nothing of prices above the highest bid so far, and nothing here explores: some
        campaigns settle for bids that are too low and leave budget unspent.
    top : float, default=1.0
        Largest bid.
    n_bids : int, default=101
        Bids that are considered: an even grid from 0 to top. Estimates begin with one
        pseudo-observation spread evenly over it.

    Examples
    --------
    >>> action = Action(jnp.array([1.0]), jnp.array(0.0), jnp.array(1.0))
    >>> known = FirstPrice(Uniform())  # v / (2 (1 + mu))
    >>> known.bid(known.init(), jnp.array(0.8), action).item()
    0.20000000298023224
    """

    prices: Law | Literal["revealed", "censored"] = "revealed"
    top: float = 1.0
    n_bids: int = 101

    def __post_init__(self) -> None:
        if isinstance(self.prices, str) and self.prices not in ("revealed", "censored"):
            raise ValueError(f'prices must be a law, "revealed" or "censored", got {self.prices!r}')
        if not (math.isfinite(self.top) and self.top > 0):
            raise ValueError(f"top must be positive, got {self.top!r}")
        if not self.n_bids >= 2:
            raise ValueError(f"n_bids must be at least 2, got {self.n_bids!r}")

    @property
    def grid(self) -> Array:
        """The bids that are considered."""
        return jnp.linspace(0.0, self.top, self.n_bids)

    def init(self) -> Survival | tuple[()]:
        """One pseudo-observation spread evenly, or nothing if the law is known."""
        if not isinstance(self.prices, str):
            return ()
        events = jnp.ones(self.n_bids).at[0].set(0.0) / (self.n_bids - 1)
        at_risk = jnp.cumsum(events[::-1])[::-1]
        return self.refresh(Survival(events, at_risk, events))

    def refresh(self, state: Any) -> Any:
        """Recompute the probabilities to win."""
        if not isinstance(self.prices, str):
            return state
        hazard = state.events / jnp.maximum(state.at_risk, 1e-30)
        survival = jnp.cumprod(1.0 - jnp.clip(hazard, 0.0, 1.0))
        return state._replace(wins=1.0 - survival)

    def bid(self, state: Any, value: Array, action: Action) -> Array:
        """Best bid of the grid, or v / (2 (1 + mu)) where F is known to be even from 0 on."""
        shaded = 1.0 + action.mu[0]
        if isinstance(self.prices, Uniform) and self.prices.low == 0:
            return jnp.minimum(value / (2.0 * shaded), self.prices.high)
        grid = self.grid
        wins = state.wins if isinstance(self.prices, str) else self.prices.cdf(grid)
        return grid[jnp.argmax((value - shaded * grid) * wins)]

    def settle(self, value: Array, bid: Array, price: Array) -> tuple[Array, Array]:
        """Charge: the bid."""
        return bid, value - bid

    def learn(self, state: Any, bid: Array, price: Array, won: Array) -> Any:
        """Count the auction in the cells in which a competing bid would have been seen."""
        if not isinstance(self.prices, str):
            return state
        seen = won if self.prices == "censored" else jnp.ones_like(won)
        # Seen: at risk up to its own cell. Censored: up to the bid that lost.
        reached = jnp.where(seen, price, bid) * ((self.n_bids - 1) / self.top)
        rounding = 1e-5 * self.n_bids  # so that a bid of the grid lies in its own cell
        cell = jnp.ceil(reached - rounding)
        index = jnp.arange(self.n_bids)
        at_risk = state.at_risk + (index <= cell)
        events = state.events + jnp.where(seen, index == cell, False)
        return state._replace(events=events, at_risk=at_risk)
