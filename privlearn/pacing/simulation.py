"""Many campaigns through many auctions: one scan over time, all campaigns side by side.

`simulate_campaigns` runs a `Controller` in a `Market` and gives what a pacing team looks at, with
regret against the offline optimum of the very same requests. Random words are drawn a slot at a
time (see `privlearn.pacing.draws`), so memory does not grow with the horizon unless every auction
is recorded.

The budget is hard. The ledger subtracts with compensation and holds back four units of rounding,
so the charges of a campaign, added up without error, never exceed its budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.pacing import draws, plans
from privlearn.pacing._validation import check_positive, check_whole
from privlearn.pacing.auctions import Auction, FirstPrice, Market, SecondPrice
from privlearn.pacing.controllers import Action, Controller, Feedback
from privlearn.pacing.hindsight import fluid_policy, hindsight, hindsight_roi

__all__ = ["Auctions", "Ledger", "Metrics", "Simulation", "Slots", "pay", "simulate_campaigns"]

#: Units of rounding (relative to the budget) that the ledger holds back; see `pay`.
_HELD_BACK = 4
_MARKET, _AUCTION = Market(), SecondPrice()


# ------------------------------------------------------------------------------- results


class Metrics(NamedTuple):
    """What became of each campaign; arrays of shape (n_campaigns,).

    Attributes
    ----------
    value : Array
        Total reward.
    spend : Array
        Money.
    utilisation : Array
        Spend over budget.
    pacing_error : Array
        Largest |cumulated spend - plan| over budget, at ends of slots.
    mean_pacing_error : Array
        Mean of the same.
    exhausted : Array
        Share of the slots after which less than the mean spend of one auction was left; 1 if that
        never was.
    volatility : Array
        Standard deviation of the change of mu from one auction to the next.
    win_rate : Array
        Auctions won, of those that came.
    roi_violation : Array
        (gamma - value / spend)_+; 0 without an ROI constraint.
    optimum : array or None
        Best that could have been had; None unless asked for.
    regret : array or None
        Optimum less value.
    """

    value: Array
    spend: Array
    utilisation: Array
    pacing_error: Array
    mean_pacing_error: Array
    exhausted: Array
    volatility: Array
    win_rate: Array
    roi_violation: Array
    optimum: np.ndarray | None = None
    regret: np.ndarray | None = None


class Slots(NamedTuple):
    """The course of each campaign; arrays of shape (n_slots, n_campaigns).

    Attributes
    ----------
    spend, value : Array
        In the slot.
    mu, lam : Array
        Prices of the budget and of the ROI constraint at its end.
    auctions : Array
        How many came.
    gone : Array, bool
        Whether less than the mean spend of one auction is left at the end of the slot.
    """

    spend: Array
    value: Array
    mu: Array
    lam: Array
    auctions: Array
    gone: Array


class Auctions(NamedTuple):
    """Every auction; arrays of shape (n_auctions, n_campaigns), in order of time.

    Attributes
    ----------
    value, price : Array
        What came: value of the opportunity and highest competing bid.
    bid : Array
        0 where the campaign took no part.
    charge : Array
        0 where it did not win.
    came : Array
        False in places that no auction filled (traffic varies between slots).
    """

    value: Array
    price: Array
    bid: Array
    charge: Array
    came: Array


class Simulation(NamedTuple):
    """What `simulate_campaigns` gives.

    Attributes
    ----------
    metrics : Metrics
    slots : Slots
    plan : Array of shape (n_slots,)
    budget : Array of shape (n_campaigns,)
    state : pytree
        Of the controller at the end, one leading axis of campaigns: a start for the next day.
    auctions : Auctions or None
        With ``record="auctions"``.
    """

    metrics: Metrics
    slots: Slots
    plan: Array
    budget: Array
    state: Any
    auctions: Auctions | None = None


# ------------------------------------------------------------------------------- the ledger


class Ledger(NamedTuple):
    """Money that is left, and what rounding owes.

    Attributes
    ----------
    remaining : Array
    residue : Array
        Compensation of Kahan summation: added to the next charge.
    """

    remaining: Array
    residue: Array


def open_ledger(budget: Array) -> Ledger:
    """Open a ledger, less what is held back for rounding."""
    unit = jnp.finfo(budget.dtype).eps
    return Ledger(budget * (1 - _HELD_BACK * unit), jnp.zeros_like(budget))


def balance(ledger: Ledger) -> Array:
    """Give what is left, rounding made good."""
    return ledger.remaining - ledger.residue


def pay(ledger: Ledger, charge: Array, wanted: Array, least: Array) -> tuple[Ledger, Array]:
    """Pay a charge where it is wanted and the ledger can stand it.

    Parameters
    ----------
    ledger : Ledger
    charge : Array
    wanted : Array, bool
    least : Array
        What must be left for the purchase to be allowed: the charge, or the bid.

    Returns
    -------
    (Ledger, Array)
        The ledger, and whether it was paid. The sum of all that was paid is at most the budget:
        compensated sums err by at most two units of rounding of their total (Higham 2002, 4.3),
        and four are held back.
    """
    paid = wanted & (jnp.maximum(charge + ledger.residue, least) <= ledger.remaining)
    due = jnp.where(paid, charge, 0.0) + ledger.residue
    remaining = ledger.remaining - due
    # (remaining - before) + due is what this subtraction lost; exact, if not simplified away.
    return Ledger(remaining, (remaining - ledger.remaining) + due), paid


# ------------------------------------------------------------------------------- simulation


class _World(NamedTuple):
    """What is fixed when the program is compiled."""

    controller: Any
    market: Market
    auction: Auction
    n_campaigns: int
    n_slots: int
    length: int
    horizon: int
    by_slot: bool
    cover_bid: bool
    traffic: bool
    throttles: bool
    rounds: int
    record: bool


class _Sums(NamedTuple):
    """Sums over a slot; over the campaign, ``moves`` ends as the volatility."""

    value: Array
    moves: Array
    wins: Array
    came: Array


def simulate_campaigns(
    controller: Controller | Callable[[Any], Controller],
    *,
    key: Array,
    budget: ArrayLike,
    horizon: int | None = None,
    n_campaigns: int = 1,
    market: Market | None = None,
    auction: Auction | None = None,
    plan: ArrayLike | None = None,
    traffic: ArrayLike | None = None,
    n_slots: int | None = None,
    control: Literal["auction", "slot"] = "auction",
    cover: Literal["charge", "bid"] = "charge",
    params: Any = None,
    optimum: bool = False,
    record: Literal["slots", "auctions"] = "slots",
    rounds: Literal[13, 20] = 20,
) -> Simulation:
    """Run campaigns through repeated auctions.

    Parameters
    ----------
    controller : Controller, or callable
        A controller; or a function from one element of ``params`` to a controller, to give each
        campaign its own gains.
    key : Array
        Typed JAX key. Campaigns are independent.
    budget : float or array of shape (n_campaigns,)
        Money for the whole horizon.
    horizon : int, optional
        Auctions of each campaign. Not with ``traffic``.
    n_campaigns : int, default=1
    market : Market, optional
        Values and competing bids, even on [0, 1] if not given.
    auction : Auction, optional
        `SecondPrice` for utility if not given.
    plan : array of shape (n_slots,), optional
        Shares of the budget for each slot; even if not given. See `privlearn.pacing.plans`.
    traffic : array of shape (n_slots,), optional
        Expected auctions in each slot; the number that comes is Poisson.
    n_slots : int, optional
        100 (or less) if neither plan nor traffic says how many.
    control : {"auction", "slot"}
        Whether the controller moves after each auction, on its spend and a target of rho, or
        after each slot, on the sums of the slot.
    cover : {"charge", "bid"}
        What must be left of the budget to win: the charge, or the whole bid.
    params : pytree, optional
        Arrays with a leading axis of n_campaigns, for a callable controller.
    optimum : bool, default=False
        Also give optimum and regret of each campaign, which records every auction on the way. The
        optimum is the offline problem of the same requests (with its ROI constraint if there is
        one). In first-price auctions it is T times the best fixed multiplier that knows the law
        of the competing bids of all campaigns, as bids that know each price are no policy.
    record : {"slots", "auctions"}
        "auctions" also returns every auction: 17 bytes each.
    rounds : {20, 13}
        Rounds of the Threefry generator: 20 as in JAX, 13 is quicker.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        If the budget is not positive, a shape does not fit, or options contradict each other.

    Examples
    --------
    >>> from privlearn.pacing.controllers import dual_mirror_descent, no_pacing
    >>> day = {"budget": 100.0, "horizon": 1_000, "n_campaigns": 20, "optimum": True}
    >>> key = jax.random.key(0)
    >>> paced = simulate_campaigns(dual_mirror_descent(0.3), key=key, **day).metrics
    >>> rushed = simulate_campaigns(no_pacing(), key=key, **day).metrics
    >>> bool((paced.spend <= 100).all()), bool(paced.regret.mean() < 0.1 * rushed.regret.mean())
    (True, True)
    """
    count = check_whole("n_campaigns", n_campaigns, 1)
    market, auction = market or _MARKET, auction or _AUCTION
    _check_options(control, cover, record, rounds, controller, params, count)
    shares, expected, length, total = _clock(plan, traffic, n_slots, horizon)
    money = _budgets(budget, count)
    world = _World(
        controller=controller if params is None else None,
        market=market,
        auction=auction,
        n_campaigns=count,
        n_slots=shares.size,
        length=length,
        horizon=total,
        by_slot=control == "slot",
        cover_bid=cover == "bid",
        traffic=traffic is not None,
        throttles=_throttles(controller, params),
        rounds=rounds,
        record=record == "auctions" or optimum,
    )
    run = _run(
        world, controller if params is not None else None, key, money, params,
        jnp.asarray(shares, money.dtype), jnp.asarray(expected, money.dtype),
    )  # fmt: skip
    metrics, slots, state, auctions = run
    if optimum:
        best = _optimum(auctions, np.asarray(money), auction)
        regret = best - np.asarray(metrics.value, dtype=float)
        metrics = metrics._replace(optimum=best, regret=regret)
    return Simulation(
        metrics, slots, jnp.asarray(shares), money, state,
        auctions if record == "auctions" else None,
    )  # fmt: skip


def _stepper(
    world: _World,
    act: Callable[[Any], Action],
    update: Callable[[Any, Feedback], Any],
    rate: Array,
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Make the step of one auction of all campaigns: act, bid, settle, pay, update."""
    every = partial(jax.vmap, axis_size=world.n_campaigns)

    def one_auction(carry: Any, x: Any) -> tuple[Any, Any]:
        state, learnt, ledger, sums, action, target = carry
        value, price, spare, came = x
        if not world.by_slot:
            action = act(state)
        bid = every(world.auction.bid)(learnt, value, action)
        wanted = bid >= price
        if came is not None:
            wanted &= came
        if spare is not None:
            wanted &= spare < action.participation
        charge, reward = world.auction.settle(value, bid, price)
        before = ledger.remaining
        ledger, won = pay(ledger, charge, wanted, bid if world.cover_bid else charge)
        spent, gained = jnp.where(won, charge, 0.0), jnp.where(won, reward, 0.0)
        left = before >= rate
        seen = left if came is None else left & came
        moves = jnp.zeros_like(spent)
        if not world.by_slot:
            state = update(state, Feedback(spent[:, None], gained, target[:, None], seen))
            moves = act(state).mu[:, 0] - action.mu[:, 0]
        if came is None:
            learnt = every(world.auction.learn)(learnt, bid, price, won)
        else:
            new = every(world.auction.learn)(learnt, bid, price, won)
            learnt = jax.tree.map(partial(_where, came), new, learnt)
        sums = _Sums(
            sums.value + gained,
            sums.moves + moves**2,
            sums.wins + won,
            sums.came if came is None else sums.came + came,
        )
        kept = None
        if world.record:
            there = jnp.ones_like(won) if came is None else came
            took_part = there if spare is None else there & (spare < action.participation)
            kept = Auctions(value, price, jnp.where(took_part, bid, 0.0), spent, there)
        return (state, learnt, ledger, sums, action, target), kept

    return one_auction


@partial(jax.jit, static_argnums=(0, 1))
def _run(
    world: _World,
    make: Callable[[Any], Controller] | None,
    key: Array,
    money: Array,
    params: Any,
    shares: Array,
    expected: Array,
) -> tuple[Metrics, Slots, Any, Auctions | None]:
    """Scan over slots; within a slot, draw everything at once and scan over its auctions."""
    start, act, update = _batched(world, make, params)
    every = partial(jax.vmap, axis_size=world.n_campaigns)
    shape = (world.length, world.n_campaigns)
    rate = money / (expected.sum() if world.traffic else world.horizon)
    one_auction = _stepper(world, act, update, rate)

    def one_slot(carry: Any, x: Any) -> tuple[Any, Any]:
        state, learnt, ledger, moved = carry
        slot, slot_key, share, mean = x
        draw_key, count_key = jax.random.split(slot_key)
        first, second = draws.words(draw_key, shape, world.rounds)
        position = slot * world.length + jnp.arange(world.length)
        phase = ((position + 0.5) / (world.n_slots * world.length)).astype(money.dtype)
        value, price = world.market.requests(
            draws.uniform(first), draws.uniform(second), phase[:, None]
        )
        spare = draws.spare_uniform(first, second) if world.throttles else None
        came, target = None, share * money / world.length
        if world.traffic:
            n = jax.random.poisson(count_key, mean, (world.n_campaigns,))
            came = jnp.arange(world.length)[:, None] < n
            target = share * money / jnp.maximum(mean, 1e-30)
        elif world.n_slots * world.length > world.horizon:
            came = jnp.broadcast_to((position < world.horizon)[:, None], shape)
        learnt = every(world.auction.refresh)(learnt)
        zero = jnp.zeros_like(money)
        n_came = jnp.full_like(money, world.length) if came is None else zero
        sums = _Sums(zero, zero, zero, n_came)
        before, opening = act(state), ledger
        inner = (state, learnt, ledger, sums, before, target)
        inner, kept = jax.lax.scan(one_auction, inner, (value, price, spare, came))
        state, learnt, ledger, sums = inner[:4]
        spent = balance(opening) - balance(ledger)
        if world.by_slot:
            seen = opening.remaining >= rate
            planned = share * money
            state = update(state, Feedback(spent[:, None], sums.value, planned[:, None], seen))
            moves = act(state).mu[:, 0] - before.mu[:, 0]
            sums = sums._replace(moves=moves**2)
        moved = (moved[0] + sums.moves, moved[1] + sums.wins)
        after = act(state)
        slots = Slots(
            spent, sums.value, after.mu[:, 0], after.lam, sums.came, ledger.remaining < rate
        )
        return (state, learnt, ledger, moved), (slots, kept)

    state = start()
    first_mu = act(state).mu[:, 0]
    learnt = jax.vmap(lambda _: world.auction.init())(jnp.arange(world.n_campaigns))
    zero = jnp.zeros_like(money)
    carry = (state, learnt, open_ledger(money), (zero, zero))
    keys = jax.random.split(key, world.n_slots)
    carry, (slots, kept) = jax.lax.scan(
        one_slot, carry, (jnp.arange(world.n_slots), keys, shares, expected)
    )
    state, _, _, (moves, wins) = carry
    came = slots.auctions.sum(axis=0)
    steps = jnp.full_like(money, world.n_slots) if world.by_slot else came
    drift = (slots.mu[-1] - first_mu) / steps
    variance = jnp.maximum(moves / steps - drift**2, 0.0)
    sums = _Sums(zero, jnp.sqrt(variance), wins, came)
    if kept is not None:
        kept = jax.tree.map(lambda a: a.reshape(-1, world.n_campaigns), kept)
    return _metrics(slots, sums, money, shares, world.auction), slots, state, kept


def _where(condition: Array, new: Array, old: Array) -> Array:
    """Select campaigns: the condition has the leading axis of both."""
    return jnp.where(condition.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _batched(
    world: _World, make: Callable[[Any], Controller] | None, params: Any
) -> tuple[Callable[[], Any], Callable[[Any], Action], Callable[[Any, Feedback], Any]]:
    """Init, act and update of all campaigns at once."""
    size = world.n_campaigns
    if make is None:
        rule: Controller = world.controller
        over = partial(jax.vmap, axis_size=size)
        first = jax.vmap(lambda _: rule.init())(jnp.arange(size))
        return (lambda: first), over(rule.act), over(rule.update)
    return (
        lambda: jax.vmap(lambda p: make(p).init())(params),
        lambda state: jax.vmap(lambda p, s: make(p).act(s))(params, state),
        lambda state, seen: jax.vmap(lambda p, s, f: make(p).update(s, f))(params, state, seen),
    )


def _throttles(controller: Any, params: Any) -> bool:
    """Whether a controller may ever stay away."""
    shapes = [(np.shape(leaf)[1:], jnp.result_type(leaf)) for leaf in jax.tree.leaves(params)]
    return _stays_away(controller, tuple(shapes), jax.tree.structure(params))


@lru_cache(maxsize=256)
def _stays_away(controller: Any, shapes: tuple[Any, ...], structure: Any) -> bool:
    """Read it off the controller's program, so that the others pay nothing for it."""
    from jax.extend.core import Literal as Constant
    from jax.extend.core import jaxpr_as_fun

    def participation(p: Any, state: Any) -> Array:
        rule = controller if isinstance(controller, Controller) else controller(p)
        return rule.act(state).participation

    one = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    start = controller.init if isinstance(controller, Controller) else None
    state = jax.eval_shape(lambda p: start() if start else controller(p).init(), one)
    program = jax.make_jaxpr(participation)(one, state)
    varying = set(program.jaxpr.invars)
    for step in program.jaxpr.eqns:
        if any(not isinstance(x, Constant) and x in varying for x in step.invars):
            varying.update(step.outvars)
    (out,) = program.jaxpr.outvars
    if not isinstance(out, Constant) and out in varying:
        return True
    blank = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in program.jaxpr.invars]
    return bool((jaxpr_as_fun(program)(*blank)[0] < 1).any())


# ------------------------------------------------------------------------------- afterwards


def _metrics(slots: Slots, sums: _Sums, money: Array, shares: Array, auction: Auction) -> Metrics:
    """Metrics of the course of the campaigns."""
    spend, value = slots.spend.sum(axis=0), slots.value.sum(axis=0)
    plan = jnp.cumsum(shares)[:, None]
    error = jnp.abs(jnp.cumsum(slots.spend, axis=0) / money - plan)
    gamma = getattr(auction, "gamma", None)
    short = jnp.zeros_like(spend)
    if gamma is not None:
        short = jnp.maximum(gamma - value / jnp.where(spend > 0, spend, 1.0), 0.0)
        short = jnp.where(spend > 0, short, 0.0)
    return Metrics(
        value=value,
        spend=spend,
        utilisation=spend / money,
        pacing_error=error.max(axis=0),
        mean_pacing_error=error.mean(axis=0),
        exhausted=jnp.minimum((~slots.gone).sum(axis=0) + 1, len(plan)) / len(plan),
        volatility=sums.moves,
        win_rate=sums.wins / jnp.maximum(sums.came, 1.0),
        roi_violation=short,
    )


def _optimum(auctions: Auctions | None, money: np.ndarray, auction: Auction) -> np.ndarray:
    """Best that each campaign could have had of the requests that came."""
    assert auctions is not None
    value, price = (np.asarray(a, dtype=float).T.copy() for a in auctions[:2])
    came = np.asarray(auctions.came).T
    if isinstance(auction, FirstPrice):
        total = came.sum(axis=1)
        best: list[float] = []
        for i, budget in enumerate(money):
            rate = budget / total[i]
            same = [j for j in range(i) if money[j] / total[j] == rate]
            # One law for all: campaigns of one rate share their policy.
            each = (
                best[same[0]] / total[same[0]]
                if same
                else fluid_policy(value[came], price[came], rate, auction="first").value
            )
            best.append(each * total[i])
        return np.array(best)
    if not isinstance(auction, SecondPrice):
        raise ValueError(f"optimum is known of SecondPrice and FirstPrice, not of {auction!r}")
    best = []
    for v, d, there, budget in zip(value, price, came, money, strict=True):
        v, d = v[there], d[there]
        if auction.gamma is not None:
            best.append(hindsight_roi(v, d, float(budget), auction.gamma).value)
        else:
            reward = v - d if auction.objective == "utility" else v
            best.append(hindsight(reward, d, float(budget)).value)
    return np.array(best)


# ------------------------------------------------------------------------------- checks


def _check_options(
    control: str, cover: str, record: str, rounds: int, controller: Any, params: Any, count: int
) -> None:
    """Raise an error that names the option that is wrong."""
    for name, value, known in (
        ("control", control, ("auction", "slot")),
        ("cover", cover, ("charge", "bid")),
        ("record", record, ("slots", "auctions")),
        ("rounds", rounds, (20, 13)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")
    if params is None:
        if not isinstance(controller, Controller):
            raise TypeError(
                "controller must be a Controller (or a function of params, with params=...), "
                f"got {type(controller).__name__}"
            )
        return
    if isinstance(controller, Controller) or not callable(controller):
        raise TypeError("with params, controller must be a function that makes a Controller")
    for leaf in jax.tree.leaves(params):
        if np.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"params must have a leading axis of n_campaigns={count}, got {np.shape(leaf)}"
            )


def _budgets(budget: ArrayLike, count: int) -> Array:
    """Budgets as an array, or an error that says what is wrong with them."""
    check_positive("budget", budget)
    money = jnp.asarray(budget, dtype=float)
    if money.ndim > 1 or money.size not in (1, count):
        raise ValueError(
            f"budget must be one number or one a campaign ({count}), got shape {money.shape}"
        )
    return jnp.broadcast_to(money, (count,))


def _clock(
    plan: ArrayLike | None, traffic: ArrayLike | None, n_slots: int | None, horizon: int | None
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Shares and expected auctions of each slot, places in a slot, and auctions in all."""
    if (horizon is None) == (traffic is None):
        raise ValueError("give either horizon (a number of auctions) or traffic (expected by slot)")
    sizes = {np.size(x) for x in (plan, traffic) if x is not None}
    sizes |= {n_slots} if n_slots is not None else set()
    if len(sizes) > 1:
        raise ValueError(
            f"plan, traffic and n_slots disagree on the number of slots: {sorted(sizes)}; "
            "plans.rebin changes that of a plan"
        )
    if horizon is not None:
        total = check_whole("horizon", horizon, 1)
        slots = check_whole("n_slots", sizes.pop() if sizes else min(100, total), 1)
        if slots > total:
            raise ValueError(f"horizon must be at least the number of slots {slots}, got {total}")
        length = math.ceil(total / slots)
        # The last slots are short where the horizon is no multiple of their number.
        expected = np.diff(np.minimum(np.arange(slots + 1) * length, total)).astype(float)
        shares = expected / total if plan is None else plans.check_plan(plan, slots)
        return shares, expected, length, total
    expected = np.asarray(traffic, dtype=float)
    plans.proportional(expected)  # checks it
    shares = plans.even(expected.size) if plan is None else plans.check_plan(plan, expected.size)
    length = math.ceil(expected.max() + 6 * math.sqrt(expected.max()) + 6)
    return shares, expected, length, expected.size * length
