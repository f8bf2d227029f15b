"""Replay of a real log: what a controller would have won and spent on the impressions that came.

The log is the user's table: pandas, polars, pyarrow, or lazy polars, DuckDB and whatever else
narwhals reads, with the user's own names of columns. It is queried a window of time at a time, so
a lazy log is never held in memory as a whole.

A replay assumes that the others would have bid the same and that winning one impression changes
no other. Where a log has no values or no competing bids, `Synthetic` draws them; the result is
then semi-synthetic, and should be called so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.pacing import plans
from privlearn.pacing._validation import check_nonnegative, check_positive, check_whole
from privlearn.pacing.auctions import Auction, Market, SecondPrice
from privlearn.pacing.controllers import Controller, Feedback
from privlearn.pacing.simulation import (
    Auctions,
    Metrics,
    Simulation,
    Slots,
    _batched,
    _budgets,
    _check_options,
    _metrics,
    _optimum,
    _stepper,
    _Sums,
    _throttles,
    _World,
    balance,
    open_ledger,
)

if TYPE_CHECKING:
    from narwhals.typing import IntoFrame

__all__ = ["Log", "Synthetic", "read_log", "replay"]


@dataclass(frozen=True)
class Synthetic:
    """Log-normal numbers in place of a column that the log lacks.

    The number of a row depends on the seed and on its place in the order of time alone, so it is
    the same however the log is read.

    Parameters
    ----------
    median, sigma : float
        median x exp(sigma x standard normal).
    seed : int
    times : str, optional
        A column to multiply with: a bid per click times clicks.
    """

    median: float = 1.0
    sigma: float = 0.5
    seed: int = 0
    times: str | None = None

    def __post_init__(self) -> None:
        check_positive("median", self.median)
        check_nonnegative("sigma", self.sigma)
        check_whole("seed", self.seed, 0)

    def draw(self, first_row: int, n_rows: int) -> np.ndarray:
        """Numbers of rows first_row, first_row + 1, ... of the log."""
        block = 1 << 12
        start, stop = first_row // block, -(-(first_row + n_rows) // block)
        parts = [
            np.random.default_rng([self.seed, i]).standard_normal(block) for i in range(start, stop)
        ]
        normal = np.concatenate([*parts, np.empty(0)])[first_row - start * block :][:n_rows]
        return self.median * np.exp(self.sigma * normal)


class Window(NamedTuple):
    """Impressions of one window of time, in order of time.

    Attributes
    ----------
    number : int
        0, 1, ...
    value, price : array of shape (n,)
    """

    number: int
    value: np.ndarray
    price: np.ndarray


@dataclass(frozen=True)
class Log:
    """A log that is ready to be replayed; see `read_log`.

    Parameters
    ----------
    frame : narwhals frame
    time : str
    value, price : str or Synthetic
    start, end : object
        First and last time.
    n_rows : int
    """

    frame: Any
    time: str
    value: str | Synthetic
    price: str | Synthetic
    start: Any
    end: Any
    n_rows: int

    def windows(self, n_slots: int) -> Iterator[Window]:
        """Give the impressions of each of n_slots equal windows of time, one query each."""
        import narwhals as nw

        first_row, at = 0, nw.col(self.time)
        for slot in range(n_slots):
            low = self.start + (self.end - self.start) * (slot / n_slots)
            high = self.start + (self.end - self.start) * ((slot + 1) / n_slots)
            inside = at >= low if slot == n_slots - 1 else (at >= low) & (at < high)
            part = self.frame.filter(inside)
            if isinstance(part, nw.LazyFrame):
                part = part.collect()
            part = part.sort(self.time)
            n = len(part)
            value = self._numbers(part, self.value, "value", first_row, n)
            price = self._numbers(part, self.price, "price", first_row, n)
            first_row += n
            yield Window(slot, value, price)

    def counts(self, n_slots: int) -> np.ndarray:
        """Impressions in each window: what `plans.proportional` makes a plan of."""
        return np.array([window.value.size for window in self.windows(n_slots)])

    def _numbers(
        self, part: Any, source: str | Synthetic, name: str, first_row: int, n: int
    ) -> np.ndarray:
        column = source.times if isinstance(source, Synthetic) else source
        numbers = np.ones(n)
        if column is not None:
            numbers = np.asarray(part[column].to_numpy(), dtype=float)
            bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
            if bad.size:
                when = part[self.time][int(bad[0])]
                raise ValueError(
                    f"{name}: column {column!r} must be at least 0 and finite, got "
                    f"{numbers[bad[0]]} at {self.time} {when}; drop or mend such rows"
                )
        if isinstance(source, Synthetic):
            numbers = numbers * source.draw(first_row, n)
        return numbers


def read_log(
    table: IntoFrame,
    *,
    time: str,
    value: str | Synthetic,
    price: str | Synthetic,
) -> Log:
    """Say which columns of a table are what; nothing but the range of times is read.

    Parameters
    ----------
    table : any frame that narwhals reads, eager or lazy
    time : str
        Column of numbers or datetimes; need not be sorted.
    value : str or Synthetic
        Column of what winning an impression is worth, in money.
    price : str or Synthetic
        Column of the highest competing bid (or of what was paid, where that is all there is).

    Raises
    ------
    TypeError
        If it is no table that narwhals reads.
    ValueError
        If a column is missing, or times are, or are all the same.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.LazyFrame({"ts": [3, 1, 2], "worth": [1.0, 2.0, 3.0], "cpm": [0.5, 0.5, 4.0]})
    >>> log = read_log(table, time="ts", value="worth", price="cpm")
    >>> log.n_rows, [w.value.tolist() for w in log.windows(2)]
    (3, [[2.0], [3.0, 1.0]])
    """
    import narwhals as nw

    frame = nw.from_native(table)
    wanted = [time]
    for name, source in (("value", value), ("price", price)):
        if not isinstance(source, str | Synthetic):
            raise TypeError(f"{name} must be a column or Synthetic, got {source!r}")
        column = source.times if isinstance(source, Synthetic) else source
        wanted += [column] if column is not None else []
    wanted = list(dict.fromkeys(wanted))
    names = frame.collect_schema().names()
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"the log has no column {missing[0]!r}; there are: {', '.join(names)}")
    frame = frame.select(*wanted)
    at = nw.col(time)
    range_of = frame.select(
        start=at.min(), end=at.max(), rows=nw.len(), gaps=at.is_null().sum()
    )  # fmt: skip
    if isinstance(range_of, nw.LazyFrame):
        range_of = range_of.collect()
    start, end, rows, gaps = range_of.row(0)
    if gaps or rows < 2 or not end > start:
        raise ValueError(
            f"time: column {time!r} needs at least two different times and none missing, got "
            f"{rows} rows from {start} to {end}, {gaps} missing"
        )
    return Log(frame, time, value, price, start, end, int(rows))


def replay(
    log: Log,
    controller: Controller | Callable[[Any], Controller],
    *,
    budget: ArrayLike,
    plan: ArrayLike | None = None,
    n_slots: int = 168,
    control: str = "auction",
    traffic: ArrayLike | None = None,
    auction: Auction | None = None,
    key: Array | None = None,
    n_campaigns: int = 1,
    params: Any = None,
    optimum: bool = True,
) -> Simulation:
    """Replay a log under a controller, or under many at once.

    Parameters
    ----------
    log : Log
    controller : Controller, or callable
        As in `simulate_campaigns`, with ``params`` and ``n_campaigns`` to try many gains on one
        pass over the log.
    budget : float or array of shape (n_campaigns,)
    plan : array of shape (n_slots,), optional
        Shares of the budget by window; even if not given. Make it of another week's log.
    n_slots : int, default=168
        Windows of equal length in time, if there is no plan: 24 hours x 7 days.
    control : {"auction", "slot"}
        Whether the controller moves after each impression, or after each window, whose target
        is then its share of the budget.
    traffic : array of shape (n_slots,), optional
        Forecast of the impressions of each window, for control by impression: the target of one
        is share x budget / forecast. If not given, traffic is taken to follow the plan, and the
        target is budget / n_rows throughout.
    auction : Auction, optional
        `SecondPrice` for utility if not given.
    key : Array, optional
        For controllers that throttle.
    optimum : bool, default=True
        Also give regret against the offline optimum; keeps 16 bytes an impression.

    Returns
    -------
    Simulation
        Without ``auctions``.

    Examples
    --------
    >>> import polars as pl
    >>> from privlearn.pacing.controllers import dual_mirror_descent
    >>> rng = np.random.default_rng(0)
    >>> table = pl.DataFrame({"t": rng.random(5_000), "v": rng.random(5_000)})
    >>> log = read_log(table, time="t", value="v", price=Synthetic(0.4, 0.6))
    >>> run = replay(log, dual_mirror_descent(0.1), budget=500.0, n_slots=24)
    >>> bool(run.metrics.spend[0] <= 500), bool(run.metrics.value[0] > 0.9 * run.metrics.optimum[0])
    (True, True)
    """
    count = check_whole("n_campaigns", n_campaigns, 1)
    _check_options(control, "charge", "slots", 20, controller, params, count)
    if plan is None:
        shares = plans.even(check_whole("n_slots", n_slots, 1))
    else:
        shares = plans.check_plan(plan)
    auction = auction or SecondPrice()
    money = _budgets(budget, count)
    per_auction = np.full(shares.size, 1 / log.n_rows)
    if traffic is not None:
        if np.shape(traffic) != shares.shape:
            raise ValueError(
                f"traffic must have one number a window ({shares.size}), got {np.shape(traffic)}"
            )
        plans.proportional(traffic)  # checks it
        per_auction = shares / np.maximum(np.asarray(traffic, dtype=float), 1.0)
    throttles = _throttles(controller, params)
    if throttles and key is None:
        raise ValueError("this controller stays away at random: give key=jax.random.key(...)")
    # Few lengths, so that few programs are compiled: windows are padded to a power of two.
    world = _World(
        controller=controller if params is None else None,
        market=Market(),
        auction=auction,
        n_campaigns=count,
        n_slots=shares.size,
        length=0,
        horizon=log.n_rows,
        by_slot=control == "slot",
        cover_bid=False,
        traffic=True,
        throttles=throttles,
        rounds=20,
        record=False,
    )
    maker = controller if params is not None else None
    carry = _start(world, maker, money, params)
    first_mu = carry[-1]
    course, kept = [], []
    for window, *plan_of in zip(log.windows(shares.size), shares, per_auction, strict=True):
        carry, slot = _window(
            world, maker, carry, *_padded(window, money.dtype), money, params,
            jnp.asarray(plan_of, money.dtype), window.number, key,
        )  # fmt: skip
        course.append(slot)
        if optimum:
            kept.append((window.value, window.price))
    slots = jax.tree.map(lambda *parts: jnp.stack(parts), *course)
    sums = carry[3]
    steps = shares.size if world.by_slot else log.n_rows
    drift = (slots.mu[-1] - first_mu) / steps
    deviation = jnp.sqrt(jnp.maximum(sums.moves / steps - drift**2, 0.0))
    metrics = _metrics(slots, sums._replace(moves=deviation), money, jnp.asarray(shares), auction)
    if optimum:
        metrics = _with_optimum(metrics, kept, money, auction)
    return Simulation(metrics, slots, jnp.asarray(shares), money, carry[0], None)


def _with_optimum(metrics: Metrics, kept: list[Any], money: Array, auction: Auction) -> Metrics:
    value, price = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    budgets, where = np.unique(np.asarray(money), return_inverse=True)
    same = [np.broadcast_to(a[:, None], (a.size, budgets.size)) for a in (value, price)]
    all_came = np.ones((value.size, budgets.size), bool)
    requests = Auctions(same[0], same[1], same[0], same[0], all_came)  # type: ignore[arg-type]
    best = _optimum(requests, budgets, auction)[where]
    return metrics._replace(optimum=best, regret=best - np.asarray(metrics.value, dtype=float))


def _padded(window: Window, dtype: Any) -> tuple[Array, Array, Array]:
    """Values, prices, and which of them are real, padded to a power of two."""
    n = window.value.size
    length = max(64, 1 << (max(n, 1) - 1).bit_length())
    pad = np.zeros(length - n)
    value, price = (
        jnp.asarray(np.concatenate([a, pad]), dtype) for a in (window.value, window.price)
    )
    return value, price, jnp.arange(length) < n


@partial(jax.jit, static_argnums=(0, 1))
def _start(world: _World, make: Any, money: Array, params: Any) -> Any:
    """State of everything before the first impression; last the multiplier."""
    start, act, _ = _batched(world, make, params)
    state = start()
    learnt = jax.vmap(lambda _: world.auction.init())(jnp.arange(world.n_campaigns))
    zero = jnp.zeros_like(money)
    sums = _Sums(zero, zero, zero, zero)
    return state, learnt, open_ledger(money), sums, act(state).mu[:, 0]


@partial(jax.jit, static_argnums=(0, 1))
def _window(
    world: _World,
    make: Any,
    carry: Any,
    value: Array,
    price: Array,
    came: Array,
    money: Array,
    params: Any,
    plan_of: Array,
    slot: Array,
    key: Array | None,
) -> tuple[Any, Slots]:
    """Run the impressions of one window."""
    _, act, update = _batched(world, make, params)
    every = partial(jax.vmap, axis_size=world.n_campaigns)
    rate = money / world.horizon
    one_auction = _stepper(world, act, update, rate)
    state, learnt, ledger, total, mu = carry
    shape = (value.size, world.n_campaigns)
    value, price, came = (jnp.broadcast_to(a[:, None], shape) for a in (value, price, came))
    spare = None
    if world.throttles and key is not None:
        spare = jax.random.uniform(jax.random.fold_in(key, slot), shape)
    zero = jnp.zeros_like(money)
    sums = _Sums(zero, zero, zero, zero)
    learnt = every(world.auction.refresh)(learnt)
    before = act(state)
    share, per_auction = plan_of
    target = per_auction * money
    inner, opening = (state, learnt, ledger, sums, before, target), ledger
    xs = (value, price, spare, came)
    (state, learnt, ledger, sums, _, _), _ = jax.lax.scan(one_auction, inner, xs)
    spent = balance(opening) - balance(ledger)
    if world.by_slot:
        seen = opening.remaining >= rate
        told = Feedback(spent[:, None], sums.value, (share * money)[:, None], seen)
        state = update(state, told)
        sums = sums._replace(moves=(act(state).mu[:, 0] - before.mu[:, 0]) ** 2)
    after = act(state)
    slots = Slots(spent, sums.value, after.mu[:, 0], after.lam, sums.came, ledger.remaining < rate)
    total = _Sums(zero, total.moves + sums.moves, total.wins + sums.wins, total.came + sums.came)
    return (state, learnt, ledger, total, mu), slots
