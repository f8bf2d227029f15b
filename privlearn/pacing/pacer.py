"""A pacing controller for people who are not in JAX: plain Python floats, one object a campaign.

The law is that of `privlearn.pacing.controllers.pid` in velocity form; the same feedback gives the
same path. What is added is what a bidder in production needs: money that is promised and not yet
charged, clocks that jump, results that never come, budgets that change, and JSON.
"""

from __future__ import annotations

import json
import math
import warnings
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from privlearn.pacing.pacer_settings import Combination, Objective, checked_settings, number
from privlearn.pacing.warnings import PacingWarning

_INF = math.inf
_VERSION = 1


class PacingController:
    """Pace one campaign: ``bid(value)`` before an auction, ``observe(spend)`` after it.

    **The hard budget.** Every bid reserves its full amount until its result is observed, because
    neither a first- nor a second-price auction charges more than the bid. A bid is at most
    budget - spent - reserved, so spend never exceeds the budget as long as no charge exceeds its
    bid. Reservations end by `observe`, `forget` or `reconcile`, never by themselves. (Spend is
    summed in double precision.)

    **The clock.** With ``horizon``, time is the number of observed auctions. With ``start`` and
    ``end``, pass ``now`` in the same unit. A clock that goes backwards is held where it was; a gap
    of more than ``max_gap`` does not move the price, and the money not spent in it is spread over
    the rest of the plan. After ``end`` bids are 0.

    **What moves the price.** Each observation is a step with target = the plan's spend since the
    last one. Bids that the budget cut short do not move the price: they say nothing about demand.

    Parameters
    ----------
    budget : float
        Money for the whole campaign, at least 0.
    horizon : int, optional
        Expected number of auctions; time is then counted in auctions.
    start, end : float, optional
        The campaign's time, in the unit of ``now``; instead of ``horizon``.
    plan : sequence of float, optional
        Shares of the budget for equal slots of the campaign (day-parting); normalised. Even if
        not given.
    k_i, k_p, k_d : float
        Gains, in mu per unit of money. ``k_i`` is mu_scale sqrt(n) / budget unless given, n being
        ``horizon`` or ``expected_auctions``: that is mu_scale / (rho sqrt(n)).
    beta : float, default=0
        Smoothing of the integral term's error, in [0, 1).
    mu_scale : float, default=1
        A typical price, for the default gain.
    expected_auctions : int, optional
        For the default gain, where time is a clock.
    mirror : {"euclidean", "entropic"}
    objective : {"utility", "value"}
        bid = value / (1 + mu), for second-price auctions and value - payment; or value / mu.
    mu0, mu_min, mu_max : float, optional
        First, least and largest price. ``mu0`` is 0 (1 under the entropic mirror or for
        objective "value"); ``mu_min`` 0 (1e-6 under the entropic mirror).
    max_bid : float, optional
        No bid exceeds it.
    gamma, eta_roi, lam0 : float, optional
        A least return, value won >= gamma x spend (objective "value"), the step of its price
        (entropic), and its first price.
    combination : {"dual", "minimum", "sequential"}
        How both prices make a bid, see `privlearn.pacing.combinations`.
    max_gap : float, optional
        Longest time without observations that is taken for quiet rather than for an outage;
        a tenth of the campaign unless given. Clock time only.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    Warns
    -----
    PacingWarning
        If the budget is 0: every bid will be 0. If k_p or k_d is negative.

    Examples
    --------
    >>> pacer = PacingController(100.0, horizon=1000)
    >>> pacer.bid(0.8)
    0.8
    >>> pacer.observe(0.5)
    >>> round(pacer.mu, 4), pacer.spent, pacer.reserved
    (0.1265, 0.5, 0.0)
    """

    __slots__ = (
        "_average",
        "_before",
        "_beta",
        "_clock",
        "_config",
        "_edges",
        "_end",
        "_entropic",
        "_gain",
        "_gamma",
        "_high",
        "_k_d",
        "_k_p",
        "_last_error",
        "_low",
        "_max_bid",
        "_max_gap",
        "_now",
        "_open",
        "_rate",
        "_rates",
        "_reserved",
        "_scale",
        "_theta",
        "_until",
        "_utility",
        "budget",
        "gaps",
        "lam",
        "mu",
        "skews",
        "spent",
        "ticket",
    )

    def __init__(
        self,
        budget: float,
        *,
        horizon: int | None = None,
        start: float | None = None,
        end: float | None = None,
        plan: Sequence[float] | None = None,
        k_i: float | None = None,
        k_p: float = 0.0,
        k_d: float = 0.0,
        beta: float = 0.0,
        mu_scale: float = 1.0,
        expected_auctions: int | None = None,
        mirror: Literal["euclidean", "entropic"] = "euclidean",
        objective: Objective = "utility",
        mu0: float | None = None,
        mu_min: float | None = None,
        mu_max: float | None = None,
        max_bid: float | None = None,
        gamma: float | None = None,
        eta_roi: float | None = None,
        lam0: float = 1.0,
        combination: Combination = "dual",
        max_gap: float | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "budget")}
        self._config = checked_settings(given)
        self.budget = number("budget", budget, "finite and at least 0", 0.0)
        if self.budget == 0:
            warnings.warn("budget is 0: every bid will be 0", PacingWarning, stacklevel=2)
        config = self._config
        for name in ("k_p", "k_d"):
            if config[name] < 0:
                warnings.warn(
                    f"{name}={config[name]:g} is negative: it works against the error that it sees",
                    PacingWarning,
                    stacklevel=2,
                )
        self._clock, self._end = config["clock"], config["end"]
        self._max_gap = config["max_gap"]
        self._k_p, self._k_d, self._beta = config["k_p"], config["k_d"], config["beta"]
        self._gamma = config["gamma"]
        self._utility = self._gamma is None and config["objective"] == "utility"
        self._max_bid = _INF if config["max_bid"] is None else config["max_bid"]
        self._set_gain()
        shares = config["plan"]
        first, last = config["start"], config["end"]
        width = (last - first) / len(shares)
        self._edges = [first + width * i for i in range(1, len(shares))]
        self._rates = [share / width for share in shares]
        self._entropic = entropic = config["mirror"] == "entropic"
        self.mu = config["mu0"]
        self._theta = math.log(self.mu) if entropic else self.mu
        self._low = math.log(config["mu_min"]) if entropic else config["mu_min"]
        top = _INF if config["mu_max"] is None else config["mu_max"]
        self._high = math.log(top) if entropic and top < _INF else top
        self.lam = config["lam0"] if config["gamma"] is not None else 0.0
        self.spent = self._reserved = 0.0
        self._average = self._last_error = self._before = 0.0
        self._scale = self.budget
        self._now = first
        self._find_slot()
        self._open: OrderedDict[int, tuple[float, bool]] = OrderedDict()
        self.ticket = 0
        self.skews = self.gaps = 0

    # ------------------------------------------------------------------ what one asks

    @property
    def reserved(self) -> float:
        """Money promised by bids whose result is not known."""
        return self._reserved if self._open else 0.0

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Tickets of bids whose result is not known, oldest first."""
        return tuple(self._open)

    @property
    def remaining(self) -> float:
        """Money that is neither spent nor promised."""
        return max(self.budget - self.spent - self.reserved, 0.0)

    @property
    def k_i(self) -> float:
        """Integral gain in force."""
        return self._gain

    def planned(self, now: float | None = None) -> float:
        """Share of the plan, in [0, 1], that lies before ``now`` (before the last observation)."""
        first = self._config["start"]
        time = self._now if now is None else number("now", now, "finite", -_INF)
        return self._share_between(first, max(time, first))

    def __repr__(self) -> str:
        return (
            f"PacingController(budget={self.budget:g}, spent={self.spent:g}, "
            f"reserved={self.reserved:g}, mu={self.mu:.6g})"
        )

    # ------------------------------------------------------------------ the two calls of a bidder

    def bid(self, value: float, now: float | None = None) -> float:
        """Bid for an auction; the amount is reserved until its result is observed.

        Parameters
        ----------
        value : float
            What winning is worth, at least 0.
        now : float, optional
            The time; only tells whether the campaign is over.

        Returns
        -------
        float
            At most budget - spent - reserved. `ticket` then holds the number of this bid.

        Examples
        --------
        >>> pacer = PacingController(1.0, horizon=10)
        >>> pacer.bid(0.8), pacer.bid(0.8) == 1.0 - 0.8, pacer.bid(0.8)
        (0.8, True, 0.0)
        """
        try:
            valid = 0.0 <= value < _INF
        except TypeError:
            valid = False
        if not valid:
            number("value", value, "finite and at least 0", 0.0)
        if self._utility:
            amount = value / (1.0 + self.mu)
        elif self._gamma is not None:
            amount = value * self._roi_multiplier()
        else:
            amount = value / self.mu if self.mu > 0 else (_INF if value else 0.0)
        if amount > self._max_bid:
            amount = self._max_bid
        over = now is not None and self._clock and now >= self._end
        cut = False
        # A margin well above rounding: near the edge the reservations are summed afresh.
        if over or amount >= (self.budget - self.spent - self._reserved) * (1 - 1e-9):
            amount, cut = self._cut(0.0 if over else amount)
        self.ticket += 1
        self._open[self.ticket] = (amount, cut or over)
        self._reserved += amount
        return float(amount)

    def observe(
        self,
        spend: float,
        *,
        value: float = 0.0,
        ticket: int | None = None,
        now: float | None = None,
    ) -> None:
        """Tell what an auction cost: 0 if it was lost.

        Parameters
        ----------
        spend : float
            The charge, at least 0.
        value : float, default=0
            Value won; needed where there is a least return.
        ticket : int, optional
            Which bid; the oldest without a result unless given.
        now : float, optional
            The time; needed where time is a clock.

        Raises
        ------
        ValueError
            If a number is negative or not finite, or the ticket has had its result already: a
            result that comes twice is counted once.

        Warns
        -----
        PacingWarning
            If the charge exceeds the bid (it is counted all the same).
        """
        try:
            valid = 0.0 <= spend < _INF and 0.0 <= value < _INF
        except TypeError:
            valid = False
        if not valid:
            number("spend", spend, "finite and at least 0", 0.0)
            number("value", value, "finite and at least 0", 0.0)
        time = self._now + 1.0
        if self._clock:
            if now is None:
                raise ValueError("now must be given: the campaign was made with start and end")
            time = number("now", now, "finite", -_INF)
        amount, cut = self._close(ticket)
        if spend > amount * (1 + 1e-9):
            warnings.warn(
                f"spend={spend!r} exceeds the bid of {amount!r}: the budget cannot be guarded "
                "against such charges",
                PacingWarning,
                stacklevel=2,
            )
        self.spent += spend
        before = self._now
        if time < before:
            self.skews += 1
            time = before
        self._now = time
        if time <= self._until:
            share = self._rate * (time - before)
        else:
            share = self._share_between(before, time)
            self._find_slot()
        if time - before > self._max_gap:
            self.gaps += 1
            self._spread()
        elif not cut:
            self._step(self._scale * share, spend, value)

    # ------------------------------------------------------------------ what else happens

    def forget(self, ticket: int | None = None, *, charged: bool = True) -> None:
        """Give up waiting for a result; the price stays.

        Parameters
        ----------
        ticket : int, optional
            Which bid; the oldest unless given.
        charged : bool, default=True
            Count the whole bid as spent, which is safe. False only if no charge can come.

        Examples
        --------
        >>> pacer = PacingController(1.0, horizon=10)
        >>> amount = pacer.bid(0.25)
        >>> pacer.forget()
        >>> pacer.spent, pacer.reserved
        (0.25, 0.0)
        """
        amount, _ = self._close(ticket)
        if charged:
            self.spent += amount

    def reconcile(self, spent: float, *, keep_outstanding: bool = True) -> None:
        """Take over the total of the billing system.

        Parameters
        ----------
        spent : float
            Money spent since the start of the campaign, of bids with a result.
        keep_outstanding : bool, default=True
            False if the total covers the bids without a result too: their reservations end.
        """
        self.spent = number("spent", spent, "finite and at least 0", 0.0)
        if not keep_outstanding:
            self._open.clear()
            self._reserved = 0.0

    def set_budget(self, budget: float, now: float | None = None) -> None:
        """Change the total budget; what is left of it is spread over the rest of the plan.

        Parameters
        ----------
        budget : float
            The new total since the start, at least 0. Below what is spent, bids become 0.
        now : float, optional
            The time of the change.

        Examples
        --------
        >>> pacer = PacingController(100.0, horizon=1000)
        >>> pacer.set_budget(50.0)
        >>> pacer.remaining
        50.0
        """
        total = number("budget", budget, "finite and at least 0", 0.0)
        if now is not None and self._clock:
            self._now = max(self._now, number("now", now, "finite", -_INF))
            self._find_slot()
        self.budget = total
        self._set_gain()
        if total < self.spent + self.reserved:
            warnings.warn(
                f"budget={total:g} is below what is spent and promised "
                f"({self.spent + self.reserved:g}): every bid will be 0",
                PacingWarning,
                stacklevel=2,
            )
        self._spread()

    # ------------------------------------------------------------------ JSON

    def to_json(self) -> str:
        """Everything, as strict JSON: `from_json` goes on where this object stands.

        Examples
        --------
        >>> pacer = PacingController(10.0, horizon=100)
        >>> amount = pacer.bid(0.5)
        >>> PacingController.from_json(pacer.to_json()).outstanding
        (1,)
        """
        config = {k: v for k, v in self._config.items() if k != "clock"}
        if not self._clock:
            config["start"] = config["end"] = None
            config["max_gap"] = None
        state = {name: getattr(self, name) for name in _STATE}
        state["open"] = [[t, amount, cut] for t, (amount, cut) in self._open.items()]
        body = {"version": _VERSION, "config": config, "state": state}
        return json.dumps(body, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PacingController:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not that of a pacing controller, or of another version.
        """
        body = json.loads(text)
        if not isinstance(body, dict) or body.get("version") != _VERSION:
            raise ValueError(
                f"text must be what to_json wrote (version {_VERSION}), got {text[:60]!r}"
            )
        config, state = body["config"], body["state"]
        missing = [name for name in (*_STATE, "open") if name not in state]
        if missing:
            raise ValueError(f"text lacks the state {missing}")
        # The budget comes with the state: a budget that went to 0 is no reason to warn again.
        pacer = cls(1.0, **config)
        for name in _STATE:
            setattr(pacer, name, state[name])
        pacer._set_gain()
        pacer._find_slot()
        pacer._open = OrderedDict((int(t), (amount, bool(cut))) for t, amount, cut in state["open"])
        return pacer

    # ------------------------------------------------------------------ inside

    def _cut(self, amount: float) -> tuple[float, bool]:
        """Lower a bid to what is left, with reservations summed afresh."""
        self._reserved = math.fsum(money for money, _ in self._open.values())
        free = max(self.budget - self.spent - self._reserved, 0.0)
        if amount <= free and self.spent + (self._reserved + amount) <= self.budget:
            return amount, False
        amount = min(amount, free)
        while amount > 0 and self.spent + (self._reserved + amount) > self.budget:
            amount = math.nextafter(amount, 0.0)
        return amount, True

    def _close(self, ticket: int | None) -> tuple[float, bool]:
        if not self._open:
            raise ValueError(
                "no bid is without a result: call bid first, or reconcile for other charges"
            )
        if ticket is None:
            _, (amount, cut) = self._open.popitem(last=False)
        elif ticket in self._open:
            amount, cut = self._open.pop(ticket)
        else:
            raise ValueError(
                f"ticket must be one of the bids without a result {self.outstanding[:5]}, "
                f"got {ticket!r}"
            )
        self._reserved = self._reserved - amount if self._open else 0.0
        return amount, cut

    def _share_between(self, a: float, b: float) -> float:
        """Share of the plan between two times, b >= a."""
        edges, rates = self._edges, self._rates
        if not edges:
            return rates[0] * max(min(b, self._end) - a, 0.0)
        b = min(b, self._end)
        i, j = bisect_right(edges, a), bisect_right(edges, b)
        if i >= j:
            return rates[i] * max(b - a, 0.0)
        whole = sum(rates[s] * (edges[s] - edges[s - 1]) for s in range(i + 1, j))
        return rates[i] * (edges[i] - a) + whole + rates[j] * (b - edges[j - 1])

    def _find_slot(self) -> None:
        """Remember the plan's rate now, and until when it holds."""
        slot = bisect_right(self._edges, self._now)
        self._rate = self._rates[slot] if self._now < self._end else 0.0
        later = self._end if self._now < self._end else _INF
        self._until = self._edges[slot] if slot < len(self._edges) else later

    def _set_gain(self) -> None:
        """Integral gain: as given, or mu_scale / (rho sqrt(n)) for the budget in force."""
        config = self._config
        if config["k_i"] is not None:
            self._gain = config["k_i"]
        else:
            root = math.sqrt(config["expected_auctions"])
            self._gain = config["mu_scale"] * root / self.budget if self.budget else 0.0

    def _spread(self) -> None:
        """Spread the money that is left over the rest of the plan."""
        rest = self._share_between(self._now, self._end)
        left = max(self.budget - self.spent, 0.0)
        self._scale = left / rest if rest > 1e-12 else 0.0

    def _step(self, target: float, spend: float, value: float) -> None:
        """One step of the law: velocity-form PID on target - spend; the ROI's price beside it."""
        g = target - spend
        error = g
        if self._beta:
            error = self._average = self._beta * self._average + (1 - self._beta) * g
        last = self._last_error
        u = self._gain * error + self._k_p * (g - last)
        if self._k_d:
            u += self._k_d * (g - 2 * last + self._before)
        self._before, self._last_error = last, g
        theta = self._theta - u
        if theta < self._low:
            theta = self._low
        elif theta > self._high:
            theta = self._high
        self._theta = theta
        self.mu = math.exp(theta) if self._entropic else theta
        if self._gamma is not None:
            slack = value - self._gamma * spend
            moved = math.log(self.lam) - self._config["eta_roi"] * slack
            self.lam = math.exp(min(max(moved, _LOG_FLOOR), -_LOG_FLOOR))

    def _roi_multiplier(self) -> float:
        mu, lam, gamma = self.mu, self.lam, self._gamma
        rule = self._config["combination"]
        if rule == "dual":
            return (1 + lam) / (mu + lam * gamma)
        roi = (1 + lam) / (lam * gamma)
        if rule == "sequential":
            return roi / (1 + mu)
        return min(1 / mu, roi) if mu > 0 else roi


_LOG_FLOOR = math.log(1e-6)
_STATE = (
    "budget",
    "spent",
    "mu",
    "lam",
    "ticket",
    "skews",
    "gaps",
    "_theta",
    "_average",
    "_last_error",
    "_before",
    "_now",
    "_scale",
    "_reserved",
)
