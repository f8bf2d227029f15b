"""Figures of campaigns that move after each auction: course, regret, corruption, comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line
from privlearn.pacing import theory
from privlearn.pacing.auctions import Market, PriceWave, Stress, ValueShift, Worthless
from privlearn.pacing.controllers import Controller, multiplicative_pacing, pid, throttling
from privlearn.pacing.simulation import Simulation, simulate_campaigns

SOURCE = "Balseiro, Lu, Mirrokni, Sivan (arXiv 2202.06152)"
WORLD = (
    "Second-price auctions, values and competing bids even on [0, 1], the budget a tenth of a unit "
    "per auction, hard."
)
RATE = 0.1


class Arm(NamedTuple):
    """Gains of a PID controller; an array of each makes a program for many arms at once."""

    k_i: Any
    k_p: Any = 0.0
    k_d: Any = 0.0
    mu0: Any = 0.0


def of_arm(arm: Arm) -> Controller:
    """Controller of one arm (module level, so that all figures share compiled programs)."""
    return pid(arm.k_i, arm.k_p, arm.k_d, mu0=arm.mu0)


def run_arms(
    arms: dict[str, Arm], *, n_seeds: int, horizon: int, seed: int, **settings: Any
) -> Simulation:
    """Run all arms in one program, n_seeds campaigns each, arms one after the other."""
    params = Arm(*(jnp.repeat(jnp.asarray(x, float), n_seeds) for x in zip(*arms.values())))  # noqa: B905
    return simulate_campaigns(
        of_arm, params=params, n_campaigns=len(arms) * n_seeds, key=jax.random.key(seed),
        budget=RATE * horizon, horizon=horizon, **settings,
    )  # fmt: skip


def arms_for(horizon: int) -> dict[str, Arm]:
    """The arms that the figures of regret compare."""
    step, mu = 1 / math.sqrt(horizon), theory.second_price_utility(RATE).mu
    return {
        "tuned step": Arm(step / RATE),
        "step 1 / sqrt T": Arm(step),
        "PI, K_P = 20 K_I": Arm(step / RATE, 20 * step / RATE),
        "PID, small D": Arm(step / RATE, step / RATE, 0.5 * step / RATE),
        "best fixed price": Arm(0.0, mu0=mu),
        "no pacing": Arm(0.0),
    }


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean and standard error."""
    values = np.asarray(values, dtype=float)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))


# ------------------------------------------------------------------------------- course

COURSE = {
    "no pacing": Arm(0.0),
    "slow (0.1 x)": Arm(0.1),
    "tuned": Arm(1.0),
    "hasty (30 x)": Arm(30.0),
}


def course_table(*, horizon: int, seed: int) -> pl.DataFrame:
    """Spend and price of single campaigns."""
    unit = 1 / (RATE * math.sqrt(horizon))
    arms = {name: Arm(arm.k_i * unit) for name, arm in COURSE.items()}
    run = run_arms(arms, n_seeds=1, horizon=horizon, seed=seed)
    spend = np.cumsum(np.asarray(run.slots.spend), axis=0) / (RATE * horizon)
    mu = np.asarray(run.slots.mu)
    n = len(spend)
    return pl.DataFrame(
        {
            "controller": np.repeat(list(arms), n),
            "time": np.tile(np.arange(1, n + 1) / n, len(arms)),
            "spend": spend.T.ravel(),
            "mu": mu.T.ravel(),
            "plan": np.tile(np.arange(1, n + 1) / n, len(arms)),
            "best": np.full(n * len(arms), theory.second_price_utility(RATE).mu),
        }
    )


def draw_course(table: pl.DataFrame) -> Any:
    """Two panels: spend with the plan, price with the fluid optimum."""
    series = Series("controller", title="", order=tuple(COURSE))
    x = alt.X("time:Q", title="Share of the campaign")
    one = table.filter(pl.col("controller") == "tuned")
    panels = []
    for y, theory_of, title in (
        ("spend", "plan", "Spent, share of the budget"),
        ("mu", "best", "Price of the budget"),
    ):
        axis = alt.Y(title=title)
        chart: Any = theory_line(one, x, theory_of, axis=axis, dash=(4, 3))
        chart += theory_line(table, x, y, series=series, axis=axis)
        panels.append(chart.properties(width=270))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="pacing-course",
        topic="pacing",
        title="The same campaign under four gains",
        caption=(
            f"{WORLD} One campaign each. Left, money spent, beside the even plan (dashed); right, "
            "the price mu that divides bids by 1 + mu, beside the price that a fluid campaign "
            "would need (dashed). Without pacing the money is gone at 60 %; a slow loop notices "
            "too late; under a hasty one bids jump, and as the price cannot fall below 0, its "
            "mean is too high: money is left over."
        ),
        source=SOURCE,
        profiles={"quick": {"horizon": 4000, "seed": 1}, "paper": {"horizon": 20_000, "seed": 1}},
        compute=course_table,
        draw=draw_course,
    )
)


# ------------------------------------------------------------------------------- regret


def regret_table(*, horizons: Sequence[int], n_seeds: int, seed: int) -> pl.DataFrame:
    """Mean regret of each arm at each horizon."""
    rows = []
    for horizon in horizons:
        arms = arms_for(horizon)
        run = run_arms(arms, n_seeds=n_seeds, horizon=horizon, seed=seed, optimum=True)
        assert run.metrics.regret is not None
        for name, values in zip(arms, run.metrics.regret.reshape(len(arms), -1), strict=True):
            mean, stderr = mean_and_error(values)
            rows.append({"T": float(horizon), "controller": name, "mean": mean, "stderr": stderr})
    loss = theory.second_price_utility(RATE).reward - RATE
    for horizon in np.geomspace(min(horizons), max(horizons), 20):
        rows.append({
            "T": float(horizon), "controller": "no pacing", "slope": loss * horizon,
        })  # fmt: skip
        rows.append({
            "T": float(horizon), "controller": "step 1 / sqrt T", "slope": 0.37 * horizon**0.5,
        })  # fmt: skip
    return pl.from_dicts(rows, infer_schema_length=None).with_columns(pl.col("T").cast(pl.Float64))


def draw_regret(table: pl.DataFrame) -> Any:
    """Log-log, lines of slope one half and one."""
    series = Series("controller", title="", order=tuple(arms_for(100)))
    x = alt.X("T:Q", title="Auctions T").scale(type="log", nice=False)
    axis = alt.Y(title="Regret").scale(type="log")
    chart = (
        theory_line(table, x, "slope", series=series, axis=axis, dash=(5, 3))
        + error_bars(table, x, "mean", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "mean", series=series, axis=axis)
    )
    return pick_in_legend(chart, series)


register(
    Figure(
        name="pacing-regret",
        topic="pacing",
        title="Regret grows as the square root of T, and the constant is in the step",
        caption=(
            f"{WORLD} Regret is against the offline optimum of the very same auctions; bars are "
            "two standard errors. Dashed: the linear loss of no pacing, which buys at the average "
            "price (fluid theory), and a line of slope one half, 0.37 sqrt T, the constant of the "
            "step 1 / sqrt T (measured, not derived). The tuned step 1 / (rho sqrt T) is "
            "level with the best fixed price, which nobody knows, or better. A proportional "
            "term adds noise here: there is no delay for it to make good."
        ),
        source=SOURCE + "; step sweep and constants measured here",
        profiles={
            "quick": {"horizons": (1000, 4000), "n_seeds": 30, "seed": 2},
            "paper": {"horizons": (1000, 2000, 4000, 8000, 16_000), "n_seeds": 200, "seed": 2},
        },
        compute=regret_table,
        draw=draw_regret,
        claims=("pacing/regret-bound-*",),
    )
)


# ------------------------------------------------------------------------------- corruption


def corruption_table(
    *, horizon: int, shares: Sequence[float], n_seeds: int, seed: int
) -> pl.DataFrame:
    """Regret and utilisation where the last share of requests is worthless."""
    step = 1 / math.sqrt(horizon)
    arms = {"step 1 / sqrt T": Arm(step), "tuned step": Arm(step / RATE)}
    rows = []
    for share in shares:
        market = Market(stress=(Worthless(1 - share),) if share else ())
        run = run_arms(
            arms, n_seeds=n_seeds, horizon=horizon, seed=seed, market=market, optimum=True
        )
        assert run.metrics.regret is not None
        both = (run.metrics.regret, np.asarray(run.metrics.utilisation))
        for i, name in enumerate(arms):
            part = slice(i * n_seeds, (i + 1) * n_seeds)
            for what, values in zip(("regret", "utilisation"), both, strict=True):
                mean, stderr = mean_and_error(values[part])
                rows.append({
                    "share": share, "controller": name, "what": what, "mean": mean,
                    "stderr": stderr,
                })  # fmt: skip
    return pl.DataFrame(rows)


def draw_corruption(table: pl.DataFrame) -> Any:
    """Two panels: regret, utilisation."""
    series = Series("controller", title="", order=("step 1 / sqrt T", "tuned step"))
    x = alt.X("share:Q", title="Worthless share at the end").axis(format="%")
    panels = []
    for what, title in (("regret", "Regret"), ("utilisation", "Budget spent")):
        part, axis = table.filter(pl.col("what") == what), alt.Y(title=title)
        panels.append(
            (
                theory_line(part, x, "mean", series=series, axis=axis)
                + error_bars(part, x, "mean", stderr="stderr", series=series, axis=axis)
                + dots(part, x, "mean", series=series, axis=axis)
            ).properties(width=260)
        )
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="pacing-corruption",
        topic="pacing",
        title="When the traffic at the end is worthless",
        caption=(
            f"{WORLD} The last part of all requests has value 0. The controller saves for traffic "
            "that never comes: regret grows in proportion to the corruption, as the bound says, "
            "far below its constant. A small step happens to lose less at mild corruption: from a "
            "price of 0 it overspends early, which is right here by luck. Bars: two standard "
            "errors."
        ),
        source="Balseiro, Lu, Mirrokni (arXiv 2011.10124), adversarial corruption",
        profiles={
            "quick": {"horizon": 2000, "shares": (0.0, 0.1, 0.3), "n_seeds": 30, "seed": 3},
            "paper": {
                "horizon": 8000, "shares": (0.0, 0.05, 0.1, 0.2, 0.4), "n_seeds": 100, "seed": 3,
            },
        },
        compute=corruption_table,
        draw=draw_corruption,
    )
)  # fmt: skip


# ------------------------------------------------------------------------------- comparison

MARKETS: dict[str, tuple[Stress, ...]] = {
    "steady": (),
    "prices in waves": (PriceWave(0.6, periods=4),),
    "values triple at 60 %": (ValueShift(0.6, 3.0),),
}
PACERS = (
    "tuned step", "PI, K_P = 20 K_I", "PID, small D", "step 1 / sqrt T", "best fixed price",
    "multiplicative", "throttling", "no pacing",
)  # fmt: skip


def comparison_table(
    *, horizon: int, markets: Sequence[str], n_seeds: int, seed: int
) -> pl.DataFrame:
    """Share of the offline optimum of every controller in every market."""
    step = 3 / (RATE * math.sqrt(horizon))
    others = {
        "multiplicative": multiplicative_pacing(step, mu0=0.3),
        "throttling": throttling(),
    }
    rows = []
    for market in markets:
        world: dict[str, Any] = {"market": Market(stress=MARKETS[market]), "optimum": True}
        arms = arms_for(horizon)
        run = run_arms(arms, n_seeds=n_seeds, horizon=horizon, seed=seed, **world)
        found = {
            name: (np.asarray(run.metrics.value) / run.metrics.optimum)[
                i * n_seeds : (i + 1) * n_seeds
            ]
            for i, name in enumerate(arms)
        }
        for name, controller in others.items():
            metrics = simulate_campaigns(
                controller, key=jax.random.key(seed), budget=RATE * horizon, horizon=horizon,
                n_campaigns=n_seeds, **world,
            ).metrics  # fmt: skip
            found[name] = np.asarray(metrics.value) / metrics.optimum
        for name, values in found.items():
            mean, stderr = mean_and_error(values)
            rows.append({
                "market": market, "controller": name, "mean": mean, "stderr": stderr,
            })  # fmt: skip
    return pl.DataFrame(rows)


def draw_comparison(table: pl.DataFrame) -> Any:
    """One row a controller, one colour a market."""
    markets = table["market"].unique(maintain_order=True).to_list()
    series = Series("market", title="", order=tuple(markets))
    x = alt.X("controller:N", title=None, sort=list(PACERS)).axis(
        labelAngle=-30, labelOverlap=False, labelLimit=200
    )
    axis = alt.Y(title="Share of the optimum").scale(zero=False).axis(format="%")
    bars = error_bars(table, x, "mean", stderr="stderr", series=series, axis=axis)
    chart = bars + dots(table, x, "mean", series=series, axis=axis)
    return pick_in_legend(chart.properties(width=480), series)


register(
    Figure(
        name="pacing-comparison",
        topic="pacing",
        title="All controllers, also where ours lose",
        caption=(
            f"{WORLD} Share of the offline optimum; bars: two standard errors. Steady: the tuned "
            "step is level with the best fixed price, throttling buys at the average price. When "
            "values triple late, every rule that spends on time loses a fifth to one that would "
            "have waited; no online rule can know. There the tuned step loses to a noisier PI and "
            "to multiplicative pacing (which starts at the right price), and the fixed price of "
            "the steady market loses half. At full size also prices in waves."
        ),
        source=SOURCE + "; throttling and other baselines as practitioners run them",
        profiles={
            "quick": {
                "horizon": 2000, "markets": ("steady", "values triple at 60 %"), "n_seeds": 30,
                "seed": 4,
            },
            "paper": {
                "horizon": 8000, "markets": tuple(MARKETS), "n_seeds": 100, "seed": 4,
            },
        },
        compute=comparison_table,
        draw=draw_comparison,
    )
)  # fmt: skip
