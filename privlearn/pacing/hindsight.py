"""The best that could have been done, knowing the whole day: the yardstick of every regret.

The offline problem: choose shares x_t in [0, 1] of opportunities with rewards f_t and costs b_t,

    maximise sum_t f_t x_t   subject to   sum_t b_t x_t <= B.

`hindsight_lp` solves it for any number of budgets with cvxpy. With one budget it is a fractional
knapsack, and `hindsight` finds its exact optimum in linear time by selecting the critical ratio
f_t / b_t, which is also the dual price of the budget. `hindsight_roi` adds a constraint on return.
`fluid_policy` is the best fixed multiplier on a sample of traffic: a start for next week's
campaign, and the benchmark in first-price auctions, where bids that know each price would be no
policy at all.

NumPy, in 64 bits; no JAX.

Source: fractional knapsack by Dantzig (1957); as a benchmark Balseiro, Lu and Mirrokni,
arXiv 2011.10124.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FluidPolicy",
    "HindsightOptimum",
    "fluid_policy",
    "hindsight",
    "hindsight_lp",
    "hindsight_roi",
]

#: Below this many candidates a sort is quicker than another round of selection.
_SORT_BELOW = 4096


@dataclass(frozen=True, slots=True, eq=False)
class HindsightOptimum:
    """The optimum of the offline problem.

    Parameters
    ----------
    value : float
        Optimum when opportunities may be taken in part: no algorithm does better.
    price : array of shape (m,)
        Dual price of each constraint: reward per further unit of it (the multiplier mu that hits
        the optimum; 0 where a budget does not bind).
    shares : array of shape (T,) or (T, A)
        What to take: 0, 1, or in between for at most m opportunities at a vertex.
    spend : array of shape (m,)
        Consumption.
    whole_value : float
        Reward of the opportunities that are taken whole: a feasible plan without parts.
    n_fractional : int
        Opportunities that are taken in part. The best plan without parts lies between
        ``whole_value`` and ``value``.
    """

    value: float
    price: NDArray[np.float64]
    shares: NDArray[np.float64]
    spend: NDArray[np.float64]
    whole_value: float
    n_fractional: int

    def __repr__(self) -> str:
        price = ", ".join(f"{p:.4g}" for p in self.price)
        return (
            f"HindsightOptimum(value={self.value:.6g}, price=[{price}], "
            f"n_fractional={self.n_fractional}, whole_value={self.whole_value:.6g})"
        )


def hindsight(rewards: ArrayLike, costs: ArrayLike, budget: float) -> HindsightOptimum:
    """Solve the offline problem of one budget, exactly and in linear time.

    Opportunities with f_t <= 0 are left, free ones with f_t > 0 taken; the others are taken in the
    order of f_t / b_t until the budget is spent. The ratio at which that happens is found by
    repeated median selection, O(T) operations, without sorting. Among opportunities of exactly
    the critical ratio the first come first, so that one opportunity at most is taken in part.

    Parameters
    ----------
    rewards : array of shape (T,)
        f_t; in a second-price auction value - price, or value for a value maximiser.
    costs : array of shape (T,)
        b_t >= 0.
    budget : float
        B > 0.

    Returns
    -------
    HindsightOptimum

    Raises
    ------
    ValueError
        If an input is not finite, a cost is negative, shapes differ, or the budget is not positive.

    Examples
    --------
    >>> best = hindsight(rewards=[6.0, 5.0, 1.0, -1.0], costs=[2.0, 4.0, 1.0, 1.0], budget=4.0)
    >>> best
    HindsightOptimum(value=8.5, price=[1.25], n_fractional=1, whole_value=6)
    >>> best.shares.tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    f, b, limit = _checked(rewards, costs, budget)
    shares = np.zeros(f.size)
    shares[(f > 0) & (b == 0)] = 1.0
    paid = np.flatnonzero((f > 0) & (b > 0))
    fp, bp = f[paid], b[paid]
    with np.errstate(over="ignore", under="ignore"):
        ratio = fp / bp
    price, full, room = _critical_ratio(ratio, bp, limit)
    chosen = ratio > price if price is not None else np.ones(paid.size, bool)
    shares[paid[chosen]] = 1.0
    if not full:
        tied = np.flatnonzero(ratio == price)
        cumulated = np.cumsum(bp[tied])
        n_whole = int(np.searchsorted(cumulated, room, side="right"))
        shares[paid[tied[:n_whole]]] = 1.0
        left = room - (cumulated[n_whole - 1] if n_whole else 0.0)
        if n_whole < tied.size and left > 0:
            shares[paid[tied[n_whole]]] = left / bp[tied[n_whole]]
    whole = shares == 1.0
    return HindsightOptimum(
        value=float(f @ shares),
        price=np.array([0.0 if full or price is None else price]),
        shares=shares,
        spend=np.array([b @ shares]),
        whole_value=float(f[whole].sum()),
        n_fractional=int(((shares > 0) & ~whole).sum()),
    )


def _critical_ratio(
    ratio: NDArray[np.float64], cost: NDArray[np.float64], budget: float
) -> tuple[float | None, bool, float]:
    """Give the ratio at which the budget runs out, whether it never does, and what is left there.

    Everything above the ratio fits; the returned room is the budget less the cost of that.
    """
    room = budget
    while ratio.size > _SORT_BELOW:
        pivot = np.partition(ratio, ratio.size // 2)[ratio.size // 2]
        above = ratio > pivot
        cost_above = float(cost[above].sum())
        if cost_above > room:
            ratio, cost = ratio[above], cost[above]
            continue
        cost_tied = float(cost[ratio == pivot].sum())
        if cost_above + cost_tied > room:
            return float(pivot), False, room - cost_above
        room -= cost_above + cost_tied
        below = ratio < pivot
        ratio, cost = ratio[below], cost[below]
    order = np.argsort(-ratio, kind="stable")
    cumulated = np.cumsum(cost[order])
    first = int(np.searchsorted(cumulated, room, side="right"))
    if first == ratio.size:
        return None, True, room
    price = float(ratio[order[first]])
    return price, False, room - float(cost[ratio > price].sum())


def hindsight_lp(rewards: ArrayLike, costs: ArrayLike, budgets: ArrayLike) -> HindsightOptimum:
    """Solve the offline problem of any number of budgets with cvxpy and HiGHS.

    Parameters
    ----------
    rewards : array of shape (T,) or (T, A)
        f_t, or f_t of each of A actions of which one at most (in parts: a share of each) is taken.
    costs : array of shape (T, m) or (T, A, m)
        Consumption of each of m resources. A column may have either sign: a constraint on return,
        sum of value >= gamma x sum of spend, is a column gamma x spend - value with budget 0.
    budgets : array of shape (m,)
        Non-negative.

    Returns
    -------
    HindsightOptimum

    Raises
    ------
    ValueError
        If shapes do not fit, or an input is not finite, or a budget is negative.
    ArithmeticError
        If the solver fails.

    Examples
    --------
    >>> best = hindsight_lp([6.0, 5.0, 1.0], [[2.0, 1.0], [4.0, 0.0], [1.0, 1.0]], [4.0, 9.0])
    >>> round(best.value, 6), best.price.round(6).tolist()
    (8.5, [1.25, 0.0])
    """
    import cvxpy as cp
    from scipy import sparse

    f = np.asarray(rewards, dtype=float)
    b = np.asarray(costs, dtype=float)
    limit = np.atleast_1d(np.asarray(budgets, dtype=float))
    if b.shape != (*f.shape, limit.size) or f.ndim not in (1, 2) or f.size == 0:
        raise ValueError(
            "costs must have the shape of rewards and one more axis, one entry a budget: "
            f"got rewards {f.shape}, costs {b.shape}, budgets {limit.shape}"
        )
    for name, array in (("rewards", f), ("costs", b), ("budgets", limit)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    if (limit < 0).any():
        raise ValueError(f"budgets must be at least 0, got {budgets!r}")
    x = cp.Variable(f.size, nonneg=True)
    within = b.reshape(f.size, -1).T @ x <= limit
    constraints = [within]
    if f.ndim == 1:
        constraints.append(x <= 1)
    else:
        one = sparse.kron(sparse.eye(len(f)), np.ones((1, f.shape[1])), format="csr")
        constraints.append(one @ x <= 1)
    problem = cp.Problem(cp.Maximize(f.ravel() @ x), constraints)
    problem.solve(solver=cp.HIGHS)
    if problem.status != cp.OPTIMAL:
        raise ArithmeticError(f"HiGHS did not solve the offline problem: {problem.status}")
    assert x.value is not None
    shares = np.clip(x.value, 0.0, 1.0).reshape(f.shape)
    whole = shares > 1 - 1e-9
    parts = (shares > 1e-9) & ~whole
    return HindsightOptimum(
        value=float(problem.value),
        price=np.atleast_1d(np.asarray(within.dual_value, dtype=float)),
        shares=shares,
        spend=b.reshape(f.size, -1).T @ shares.ravel(),
        whole_value=float(f[whole].sum()),
        n_fractional=int(parts.sum()),
    )


def hindsight_roi(
    values: ArrayLike, costs: ArrayLike, budget: float, gamma: float, *, rounds: int = 80
) -> HindsightOptimum:
    """Solve the offline problem of a value maximiser with a budget and a least return.

    Maximises the sum of v_t x_t subject to sum b_t x_t <= B and sum v_t x_t >= gamma sum b_t x_t.
    For a price lam of the return the problem is a knapsack of rewards v + lam (v - gamma b); its
    value is convex in lam, and bisection on its slope finds the least, which by strong duality is
    the optimum.

    Parameters
    ----------
    values, costs : array of shape (T,)
        v_t >= 0 and b_t >= 0.
    budget : float
    gamma : float
        Least value per unit of money, positive.
    rounds : int, default=80
        Bisections; each halves what is unknown of lam.

    Returns
    -------
    HindsightOptimum
        ``price`` is (mu, lam). ``shares`` mix the two plans on either side of lam so that both
        constraints hold, hence more than two may lie in between.

    Examples
    --------
    >>> best = hindsight_roi([4.0, 3.0, 2.0], [1.0, 2.0, 2.0], budget=10.0, gamma=2.0)
    >>> round(best.value, 6), best.shares.round(6).tolist()
    (8.0, [1.0, 1.0, 0.5])
    """
    v, b, limit = _checked(values, costs, budget)
    if (v < 0).any():
        raise ValueError(f"values must be at least 0, got {v.min()}")
    if not (np.isfinite(gamma) and gamma > 0):
        raise ValueError(f"gamma must be positive, got {gamma!r}")
    slack = v - gamma * b

    def solve(lam: float) -> tuple[HindsightOptimum, float]:
        best = hindsight(v + lam * slack, b, limit)
        return best, float(slack @ best.shares)

    best, room = solve(0.0)
    if room >= 0:
        price = np.array([best.price[0], 0.0])
        return HindsightOptimum(
            best.value, price, best.shares, best.spend, best.whole_value, best.n_fractional
        )
    short, short_room, low, high = best, room, 0.0, 1.0
    met, met_room = solve(high)
    while met_room < 0 and high < 1e12:
        short, short_room, low, high = met, met_room, high, 2 * high
        met, met_room = solve(high)
    for _ in range(rounds):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        found, room = solve(middle)
        if room < 0:
            short, short_room, low = found, room, middle
        else:
            met, met_room, high = found, room, middle
    weight = met_room / (met_room - short_room) if met_room > short_room else 0.0
    shares = (1 - weight) * met.shares + weight * short.shares
    whole = shares == 1.0
    return HindsightOptimum(
        value=float(v @ shares),
        price=np.array([met.price[0], high]),
        shares=shares,
        spend=np.array([b @ shares]),
        whole_value=float(v[met.shares == 1.0].sum()),
        n_fractional=int(((shares > 0) & ~whole).sum()),
    )


@dataclass(frozen=True, slots=True)
class FluidPolicy:
    """The best fixed multiplier on a sample of traffic.

    Parameters
    ----------
    multiplier : float
        mu >= 0.
    value : float
        Reward per opportunity.
    spend : float
        Money per opportunity.
    """

    multiplier: float
    value: float
    spend: float


def fluid_policy(
    values: ArrayLike,
    prices: ArrayLike,
    rate: float,
    *,
    auction: Literal["second", "first"] = "second",
    objective: Literal["utility", "value"] = "utility",
    bids: ArrayLike | None = None,
) -> FluidPolicy:
    """Find the multiplier that spends a rate on a sample of values and competing bids.

    Second price: the knapsack of the sample, so ties are split. First price: values and
    prices are taken for independent; a bid maximises (v - (1 + mu) b) F(b) over a grid, F the
    empirical law of the prices, and mu is found by bisection.

    Parameters
    ----------
    values, prices : array of shape (n,)
        Last week's, or those of the first hour.
    rate : float
        Money per opportunity, positive.
    auction : {"second", "first"}
    objective : {"utility", "value"}
        "value" only in second-price auctions; its multiplier is that of bid = v / mu.
    bids : array, optional
        Bids that are considered in a first-price auction; by default 257 quantiles of the prices.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values, prices = rng.random((2, 40_000))
    >>> round(fluid_policy(values, prices, 0.1).multiplier, 1)  # in theory 0.291
    0.3
    >>> round(fluid_policy(values, prices, 0.05, auction="first").value, 2)  # in theory 0.0791
    0.08
    """
    v, d, _ = _checked(values, prices, rate)
    if auction not in ("second", "first"):
        raise ValueError(f'auction must be "second" or "first", got {auction!r}')
    if objective not in ("utility", "value"):
        raise ValueError(f'objective must be "utility" or "value", got {objective!r}')
    if auction == "second":
        best = hindsight(v - d if objective == "utility" else v, d, rate * v.size)
        return FluidPolicy(float(best.price[0]), best.value / v.size, float(best.spend[0] / v.size))
    if objective == "value":
        raise ValueError('objective="value" needs auction="second"')
    grid = np.quantile(d, np.linspace(0, 1, 257)) if bids is None else np.sort(np.asarray(bids))
    wins = np.searchsorted(np.sort(d), grid, side="right") / d.size

    def policy(mu: float) -> FluidPolicy:
        # The best bid of a value v is on the upper envelope of the lines v F - (1 + mu) b F.
        ordered = np.sort(v)
        chosen = _envelope(wins, (1 + mu) * grid * wins, ordered)
        at = np.append(0.0, wins)[chosen], np.append(0.0, grid)[chosen]
        spend = at[0] * at[1]
        return FluidPolicy(mu, float((ordered * at[0] - spend).mean()), float(spend.mean()))

    free = policy(0.0)
    if free.spend <= rate:
        return free
    low, high = 0.0, 1.0
    while policy(high).spend > rate:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if policy(middle).spend > rate else (low, middle)
    return policy(high)


def _envelope(
    slopes: NDArray[np.float64], costs: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Give the line of largest slope x v - cost for each v in ascending `at`; 0 means none."""
    slopes, costs = np.append(0.0, slopes), np.append(0.0, costs)
    hull: list[int] = [0]
    starts: list[float] = [-np.inf]
    for line in range(1, slopes.size):
        if slopes[line] <= slopes[hull[-1]]:
            continue
        while True:
            top = hull[-1]
            start = (costs[line] - costs[top]) / (slopes[line] - slopes[top])
            if start > starts[-1]:
                break
            hull.pop()
            starts.pop()
        hull.append(line)
        starts.append(start)
    return np.asarray(hull)[np.searchsorted(starts, at, side="right") - 1]


def _checked(
    rewards: ArrayLike, costs: ArrayLike, budget: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Rewards, costs and budget as float64, or an error that says what is wrong with them."""
    f = np.asarray(rewards, dtype=float)
    b = np.asarray(costs, dtype=float)
    if f.ndim != 1 or f.shape != b.shape or f.size == 0:
        raise ValueError(
            "rewards (values) and costs (prices) must be two series of one length, at least 1: "
            f"got shapes {f.shape} and {b.shape}"
        )
    for name, array in (("rewards (values)", f), ("costs (prices)", b)):
        if not np.isfinite(array).all():
            where = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(f"{name} must be finite, got {array[where]} at {where}; drop that row")
    if (b < 0).any():
        where = int(np.flatnonzero(b < 0)[0])
        raise ValueError(f"costs (prices) must be at least 0, got {b[where]} at {where}")
    if not (np.isfinite(budget) and budget > 0):
        raise ValueError(f"budget (or rate) must be positive and finite, got {budget!r}")
    return f, b, float(budget)
