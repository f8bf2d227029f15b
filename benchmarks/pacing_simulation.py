"""1,000 campaigns x 10,000 auctions: ours beside a NumPy loop and two numba loops; the optimum.

1. Simulation. Second price, values and prices even on [0, 1], rho = 0.1, dual descent with step
   1 / (rho sqrt T) from mu = 0, hard budget. Every side gives the same results: value, spend, wins
   and the volatility of mu of each campaign, spend and mu at the end of each of 100 slots, and
   when the budget was gone. With draws, and with draws given (ours then costs its difference to
   drawing alone, which a line of its own shows). All in 32 bits, each with its own generator:
   ours Threefry with 20 or 13 rounds, NumPy SFC64 (its quickest), numba its own Mersenne twister,
   or xoroshiro128+ written into the loop, one thread a core.
2. Why a scan is slow or quick: drawing inside each step, `jax.random.uniform` a slot at a time,
   both words of each block, and fewer rounds; the same minimal loop in all.
3. `PacingController`: time of one decision (bid and observe).
4. The offline optimum at T = 1e6: linear-time selection beside a sort and HiGHS.

Runs alternate between the sides; a ratio is peer seconds over ours, pair by pair: median (least to
most). Compilation is timed apart. `--reduced` is a quick functional run whose times mean nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.pacing import draws
from privlearn.pacing.controllers import dual_mirror_descent
from privlearn.pacing.hindsight import hindsight, hindsight_lp
from privlearn.pacing.simulation import simulate_campaigns

RHO = 0.1
SLOTS = 100


def numpy_loop(n: int, horizon: int, given: tuple | None = None) -> dict[str, np.ndarray]:
    """One step of all campaigns at a time, arrays in place where that helps."""
    rng = np.random.Generator(np.random.SFC64(0))
    eta, rho = np.float32(1 / (RHO * math.sqrt(horizon))), np.float32(RHO)
    mu, left = np.zeros(n, np.float32), np.full(n, RHO * horizon, np.float32)
    value, wins, moves = (np.zeros(n, np.float32) for _ in range(3))
    gone = np.full(n, horizon, np.int32)
    length = horizon // SLOTS
    spend_at, mu_at = (np.empty((SLOTS, n), np.float32) for _ in range(2))
    for t in range(horizon):
        if t % length == 0 and given is None:
            v, d = rng.random((2, length, n), dtype=np.float32)
        elif t % length == 0 and given is not None:
            v, d = given[0][t : t + length], given[1][t : t + length]
        vt, dt = v[t % length], d[t % length]
        won = vt >= dt * (1 + mu)
        won &= dt <= left
        seen = left >= rho
        np.minimum(gone, np.where(seen, horizon, t), out=gone)
        spend = dt * won
        left -= spend
        value += (vt - dt) * won
        wins += won
        new = np.where(seen, np.maximum(mu - eta * (rho - spend), 0), mu)
        moves += (new - mu) ** 2
        mu = new
        if t % length == length - 1:
            spend_at[t // length] = RHO * horizon - left
            mu_at[t // length] = mu
    volatility = np.sqrt(moves / horizon - (mu / horizon) ** 2)
    return {
        "value": value, "spend": RHO * horizon - left, "wins": wins, "volatility": volatility,
        "exhausted": gone / horizon, "spend_at": spend_at, "mu_at": mu_at,
    }  # fmt: skip


def numba_loops() -> dict[str, Callable]:
    """One campaign at a time in registers, campaigns spread over threads."""
    import numba

    @numba.njit(inline="always")
    def rotl(x, k):
        return (x << np.uint64(k)) | (x >> np.uint64(64 - k))

    def make(generator: str) -> Callable:
        twister, given = generator == "twister", generator == "given"

        @numba.njit(parallel=True, fastmath=False)
        def loop(n, horizon, values, prices):
            length = horizon // 100
            rho, eta = np.float32(0.1), np.float32(1 / (0.1 * math.sqrt(horizon)))
            totals = np.empty((n, 5), np.float32)
            spend_at, mu_at = np.empty((n, 100), np.float32), np.empty((n, 100), np.float32)
            for i in numba.prange(n):
                s0 = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
                s1 = s0 ^ np.uint64(0xBF58476D1CE4E5B9)
                budget = rho * np.float32(horizon)
                mu, left, value = np.float32(0), budget, np.float32(0)
                wins, moves, gone = np.float32(0), np.float32(0), horizon
                for t in range(horizon):
                    if twister:
                        v = np.float32(np.random.random())  # noqa: NPY002
                        d = np.float32(np.random.random())  # noqa: NPY002
                    elif given:
                        v, d = values[t, i], prices[t, i]
                    else:
                        word = s0 + s1
                        s1 ^= s0
                        s0 = rotl(s0, 24) ^ s1 ^ (s1 << np.uint64(16))
                        s1 = rotl(s1, 37)
                        scale = np.float32(2.0**-24)
                        v = np.float32(word >> np.uint64(40)) * scale
                        d = np.float32((word >> np.uint64(16)) & np.uint64(0xFFFFFF)) * scale
                    seen = left >= rho
                    if not seen and t < gone:
                        gone = t
                    spend = np.float32(0)
                    if v >= d * (np.float32(1) + mu) and d <= left:
                        spend = d
                        left -= d
                        value += v - d
                        wins += np.float32(1)
                    if seen:
                        new = max(mu - eta * (rho - spend), np.float32(0))
                        moves += (new - mu) * (new - mu)
                        mu = new
                    if t % length == length - 1:
                        spend_at[i, t // length] = budget - left
                        mu_at[i, t // length] = mu
                totals[i, 0], totals[i, 1], totals[i, 2] = value, budget - left, wins
                totals[i, 3] = math.sqrt(moves / horizon - (mu / horizon) ** 2)
                totals[i, 4] = gone / horizon
            return totals, spend_at, mu_at

        return loop

    return {name: make(name) for name in ("twister", "xoroshiro", "given")}


def minimal(n: int, horizon: int, kind: str) -> Callable:
    """The least that a simulation does, with one way of drawing."""
    eta, length = 1 / (RHO * math.sqrt(horizon)), horizon // SLOTS

    def step(carry: Any, x: Any) -> tuple[Any, None]:
        mu, left, value = carry
        v, d = x
        won = (v >= d * (1 + mu)) & (d <= left)
        spend = jnp.where(won, d, 0.0)
        mu = jnp.maximum(mu - eta * (RHO - spend), 0.0)
        return (mu, left - spend, value + jnp.where(won, v - d, 0.0)), None

    def within(carry: Any, key: Any) -> tuple[Any, None]:
        v, d = jax.random.uniform(key, (2, n))
        return step(carry, (v, d))

    def slot(carry: Any, key: Any) -> tuple[Any, None]:
        if kind == "uniform":
            v, d = jax.random.uniform(key, (2, length, n))
        else:
            first, second = draws.words(key, (length, n), int(kind))
            v, d = draws.uniform(first), draws.uniform(second)
        return jax.lax.scan(step, carry, (v, d))[0], None

    @jax.jit
    def run(key: Any) -> Any:
        start = (jnp.zeros(n), jnp.full(n, RHO * horizon), jnp.zeros(n))
        if kind == "inside":
            return jax.lax.scan(within, start, jax.random.split(key, horizon))[0]
        return jax.lax.scan(slot, start, jax.random.split(key, SLOTS))[0]

    return run


def drawing_alone(n: int, horizon: int, rounds: int) -> Callable:
    @jax.jit
    def run(key: Any) -> Any:
        def slot(carry: Any, k: Any) -> tuple[Any, None]:
            first, second = draws.words(k, (horizon // SLOTS, n), rounds)
            # Every number is used: draws that nobody reads are not made.
            return carry + draws.uniform(first).sum(0) + draws.uniform(second).sum(0), None

        return jax.lax.scan(slot, jnp.zeros(n), jax.random.split(key, SLOTS))[0]

    return run


def alternate(sides: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, sides interleaved, after one that is timed as the first call."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        start = time.perf_counter()
        jax.block_until_ready(side())
        print(f"  first call {name:34} {time.perf_counter() - start:8.3f} s", flush=True)
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            jax.block_until_ready(side())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def show(sides: dict[str, Callable], repeats: int, against: str) -> dict[str, list[float]]:
    seconds = alternate(sides, repeats)
    for name, runs in seconds.items():
        ratios = sorted(a / b for a, b in zip(runs, seconds[against], strict=True))
        print(
            f"  {name:45} {1e3 * statistics.median(runs):10.3f} ms ({1e3 * min(runs):.3f} to "
            f"{1e3 * max(runs):.3f})  x {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
    return seconds


def simulations(n: int, horizon: int, repeats: int) -> None:
    print(f"-- 1. {n} campaigns x {horizon} auctions; x: seconds over ours (13 rounds)")
    controller = dual_mirror_descent(1 / (RHO * math.sqrt(horizon)))

    def ours(rounds: Any) -> Callable:
        return lambda: simulate_campaigns(
            controller, key=jax.random.key(0), budget=RHO * horizon, horizon=horizon,
            n_campaigns=n, n_slots=SLOTS, rounds=rounds,
        )  # fmt: skip

    given = np.random.default_rng(0).random((2, horizon, n), dtype=np.float32)
    loops, none = numba_loops(), np.empty((1, 1), np.float32)
    sides = {
        "ours, 13 rounds": ours(13),
        "ours, 20 rounds": ours(20),
        "ours, drawing alone, 13 rounds": partial(drawing_alone(n, horizon, 13), jax.random.key(0)),
        "NumPy": lambda: numpy_loop(n, horizon),
        "NumPy, draws given": lambda: numpy_loop(n, horizon, (given[0], given[1])),
        "numba, Mersenne twister": lambda: loops["twister"](n, horizon, none, none),
        "numba, xoroshiro in the loop": lambda: loops["xoroshiro"](n, horizon, none, none),
        "numba, draws given": lambda: loops["given"](n, horizon, given[0], given[1]),
    }
    show(sides, repeats, "ours, 13 rounds")
    found = ours(20)().metrics
    theirs, totals = numpy_loop(n, horizon), loops["xoroshiro"](n, horizon, none, none)[0]
    print(
        "  same law, mean value of a campaign: "
        f"{float(found.value.mean()):.2f} ours, {theirs['value'].mean():.2f} NumPy, "
        f"{totals[:, 0].mean():.2f} numba (standard error "
        f"{theirs['value'].std() / math.sqrt(n):.2f})"
    )
    # Additions, multiplications, comparisons and selections of 10 bytes or so of state in cache.
    print(
        f"  roofline: {2 * n * horizon:,} draws and {n * horizon:,} updates; at about 90 (13 "
        f"rounds) and 30 operations and 8 lanes x 2 a cycle: "
        f"{n * horizon * 120 / 16 / 2.5e9 * 1e3:.0f} ms on a core at 2.5 GHz"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes, one repeat")
    reduced = parser.parse_args().reduced
    n, horizon, repeats = (50, 1_000, 1) if reduced else (1_000, 10_000, 9)
    simulations(n, horizon, repeats)

    print("-- 2. the minimal loop, by way of drawing; x: seconds over 13 rounds")
    kinds = {
        "13": "a slot at a time, both words, 13 rounds",
        "20": "a slot at a time, both words, 20 rounds",
        "uniform": "a slot at a time, jax.random.uniform",
        "inside": "inside each step, jax.random.uniform",
    }
    runs = {title: minimal(n, horizon, kind) for kind, title in kinds.items()}
    key = jax.random.key(0)
    show({t: (lambda r=r: r(key)) for t, r in runs.items()}, repeats, kinds["13"])

    print("-- 3. one decision of PacingController, bid and observe")
    decisions(1_000 if reduced else 100_000)

    size = 20_000 if reduced else 1_000_000
    print(f"-- 4. offline optimum, T = {size:,}; x: seconds over ours")
    f, b = np.random.default_rng(0).random((2, size))
    f = f - b
    sides = {
        "hindsight (selection)": lambda: hindsight(f, b, RHO * size).value,
        "sort and cumulate": lambda: sorted_knapsack(f, b, RHO * size),
    }
    show(sides, repeats, "hindsight (selection)")
    start = time.perf_counter()
    lp = hindsight_lp(f, b[:, None], [RHO * size])
    seconds = time.perf_counter() - start
    value = hindsight(f, b, RHO * size).value
    print(
        f"  HiGHS through cvxpy {seconds:.2f} s, once; relative difference of the optima "
        f"{abs(value / lp.value - 1):.1e}"
    )


def sorted_knapsack(f: np.ndarray, b: np.ndarray, budget: float) -> float:
    """The textbook way, for the value alone."""
    order = np.argsort(-f / b)
    f, b = f[order], b[order]
    spent = np.cumsum(b)
    k = int(np.searchsorted(spent, budget))
    k = min(k, int((f > 0).sum()))
    left = budget - (spent[k - 1] if k else 0.0)
    part = f[k] * min(left / b[k], 1.0) if k < f.size and f[k] > 0 else 0.0
    return float(f[:k].sum() + part)


def decisions(count: int) -> None:
    from privlearn.pacing import PacingController

    rng = np.random.default_rng(0)
    values, prices = rng.random((2, count)).tolist()
    controller = PacingController(budget=RHO * count, horizon=count)
    start = time.perf_counter()
    for value, price in zip(values, prices, strict=True):
        bid = controller.bid(value)
        controller.observe(price if bid >= price else 0.0)
    seconds = time.perf_counter() - start
    print(f"  {1e6 * seconds / count:.2f} microseconds")


if __name__ == "__main__":
    main()
