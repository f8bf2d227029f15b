"""Figures of the loop by slots: gains and stability, delay, day-parting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line
from privlearn.pacing import plans, theory
from privlearn.pacing.auctions import Market, PriceWave
from privlearn.pacing.controllers import Controller, delayed, normalised, pid
from privlearn.pacing.figures.regret import RATE, mean_and_error
from privlearn.pacing.simulation import simulate_campaigns

WORLD = (
    "200 slots of auctions, values and competing bids even on [0, 1], competing bids at 60 % in "
    "half of the slots; the controller moves once a slot on the error relative to the slot's "
    "target."
)
_FLUID = theory.second_price_utility(RATE)
#: Slope of relative spend in mu at the optimum.
SLOPE = _FLUID.slope / RATE
_MARKET = Market(stress=(PriceWave(0.6, periods=4),))


def _by_delay(delay: int) -> Any:
    """Controller of gains (k_i, k_p), feedback ``delay`` slots late."""

    def make(gains: Any) -> Controller:
        return delayed(normalised(pid(gains[0], gains[1], mu0=_FLUID.mu)), delay)

    return make


def slot_errors(
    gains: np.ndarray, *, delay: int, n_seeds: int, per_slot: int, seed: int
) -> np.ndarray:
    """Mean squared relative error of the slots, shape (len(gains), n_seeds)."""
    count = len(gains) * n_seeds
    run = simulate_campaigns(
        _by_delay(delay), params=jnp.repeat(jnp.asarray(gains, float), n_seeds, axis=0),
        n_campaigns=count, key=jax.random.key(seed), budget=RATE * 200 * per_slot,
        horizon=200 * per_slot, n_slots=200, control="slot", market=_MARKET,
    )  # fmt: skip
    error = np.asarray(run.slots.spend) / (RATE * per_slot) - 1
    return (error**2).mean(axis=0).reshape(len(gains), n_seeds)


# ------------------------------------------------------------------------------- gains


def gains_table(
    *, delay: int, k_i: Sequence[float], k_p: Sequence[float], n_seeds: int, per_slot: int,
    seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Simulated error and the spectral radius of the loop on a grid of gains."""
    grid = np.array([(i, p) for i in k_i for p in k_p])
    errors = slot_errors(grid, delay=delay, n_seeds=n_seeds, per_slot=per_slot, seed=seed)
    radius = [
        theory.spectral_radius(theory.Gains(float(i), float(p), 0.0), SLOPE, delay) for i, p in grid
    ]
    means, stderrs = zip(*(mean_and_error(e) for e in errors), strict=True)
    return pl.DataFrame(
        {
            "k_i": grid[:, 0], "k_p": grid[:, 1], "error": means, "stderr": stderrs,
            "radius": radius, "stable": [r < 1 for r in radius],
        }
    )  # fmt: skip


def draw_gains(table: pl.DataFrame) -> Any:
    """Heat map of the error; crosses where theory says unstable; second panel the radius."""
    shown = table.with_columns(
        pl.col("k_i", "k_p").round(3), capped=pl.col("error").clip(upper_bound=1.0)
    )
    base = alt.Chart(shown).encode(
        x=alt.X("k_i:O", title="K_I").axis(labelAngle=0, format=".2g"),
        y=alt.Y("k_p:O", title="K_P", sort="descending").axis(format=".2g"),
        tooltip=["k_i", "k_p", "error", "stderr", "radius", "stable"],
    )
    crosses = base.transform_filter("!datum.stable").mark_text(text="×", color="white", fontSize=16)
    panels = []
    for field, title in (("capped", "Mean squared error"), ("radius", "Spectral radius")):
        color = alt.Color(f"{field}:Q", title=title).scale(scheme="viridis", reverse=True)
        heat = base.mark_rect().encode(color=color)
        panels.append((heat + crosses).properties(width=260, height=220, title=title))
    return alt.hconcat(*panels).resolve_scale(color="independent")


register(
    Figure(
        name="pacing-gains",
        topic="pacing",
        title="Which gains hold: simulation beside the stability region",
        caption=(
            f"{WORLD} Feedback is two slots late. Left: mean squared error of slots (1 and more in "
            "one colour); right: spectral radius of the linearised loop, "
            f"slope c = {SLOPE:.2f}. Crosses: theory says unstable (radius at least 1). Errors "
            "grow fast where the crosses are; inside, the radius is no guide to the best gains, "
            "because noise of single slots asks for smaller ones."
        ),
        source="Jury's conditions on the linearised loop; re-derived and checked by simulation",
        profiles={
            "quick": {
                "delay": 2, "k_i": (0.05, 0.1, 0.2, 0.3, 0.4, 0.6), "k_p": (0.0, 0.1, 0.2, 0.3),
                "n_seeds": 3, "per_slot": 50, "seed": 5,
            },
            "paper": {
                "delay": 2, "k_i": tuple(np.round(np.linspace(0.025, 0.7, 28), 3).tolist()),
                "k_p": tuple(np.round(np.linspace(-0.1, 0.6, 15), 3).tolist()),
                "n_seeds": 10, "per_slot": 400, "seed": 5,
            },
        },
        compute=gains_table,
        draw=draw_gains,
        claims=("pacing/jury-conditions", "pacing/delay-limit"),
    )
)  # fmt: skip


# ------------------------------------------------------------------------------- delay


def delay_table(
    *, delays: Sequence[int], k_i: Sequence[float], n_seeds: int, per_slot: int, seed: int
) -> pl.DataFrame:
    """Error of I control against its gain, for each delay, with the limit of stability."""
    rows: list[dict[str, Any]] = []
    grid = np.array([(i, 0.0) for i in k_i])
    for delay in delays:
        errors = slot_errors(grid, delay=delay, n_seeds=n_seeds, per_slot=per_slot, seed=seed)
        for gain, values in zip(k_i, errors, strict=True):
            mean, stderr = mean_and_error(values)
            rows.append({
                "delay": f"{delay} slots late", "k_i": gain, "mean": mean, "stderr": stderr,
            })  # fmt: skip
        rows.append({
            "delay": f"{delay} slots late", "limit": theory.largest_stable_gain(SLOPE, delay),
        })  # fmt: skip
    return pl.from_dicts(rows, infer_schema_length=None)


def draw_delay(table: pl.DataFrame) -> Any:
    """One colour a delay; a vertical rule at its limit."""
    series = Series("delay", title="")
    low, high = (float(v) for v in (table["k_i"].min(), table["k_i"].max()))  # type: ignore[arg-type]
    x = alt.X("k_i:Q", title="K_I").scale(type="log", domain=[low, high], nice=False, clamp=True)
    errors = table["mean"].drop_nulls().to_numpy()
    ends = [0.8 * float(errors.min()), 1.2 * float(errors.max())]
    axis = alt.Y(title="Mean squared error of slots").scale(type="log", domain=ends, nice=False)
    inside = table.filter(pl.col("limit").is_between(low, high))
    rules = (
        alt.Chart(inside)
        .mark_rule(strokeDash=[4, 3])
        .encode(
            x=alt.X("limit:Q"), color=series.color(table), opacity=series.opacity(),
            tooltip=["delay", "limit"],
        )
    )  # fmt: skip
    chart = (
        rules
        + theory_line(table, x, "mean", series=series, axis=axis)
        + error_bars(table, x, "mean", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "mean", series=series, axis=axis)
    )
    return pick_in_legend(chart, series)


register(
    Figure(
        name="pacing-delay",
        topic="pacing",
        title="Late feedback: the gain that was right is a disaster",
        caption=(
            f"{WORLD} I control. Dashed: the gain at which the linearised loop becomes unstable, "
            "2 sin(pi / (4 D + 2)) / c at a delay of D slots (outside of the axis without "
            "delay). The best gain lies below it; with more delay it is smaller, and the error "
            "that is left is larger. Bars: two standard errors."
        ),
        source="Stability of an integrator with delay; re-derived and checked by simulation",
        profiles={
            "quick": {
                "delays": (0, 5), "k_i": (0.03, 0.06, 0.12, 0.25, 0.5, 0.8), "n_seeds": 5,
                "per_slot": 50, "seed": 6,
            },
            "paper": {
                "delays": (0, 1, 2, 5, 10),
                "k_i": tuple(np.round(np.geomspace(0.02, 1.0, 16), 4).tolist()),
                "n_seeds": 20, "per_slot": 400, "seed": 6,
            },
        },
        compute=delay_table,
        draw=draw_delay,
        claims=("pacing/delay-limit",),
    )
)  # fmt: skip


# ------------------------------------------------------------------------------- day-parting

ARMS = (("even plan", 0.05), ("plan by traffic", 0.05), ("plan by traffic", 0.5))


def _gain(gain: Any) -> Controller:
    return normalised(pid(gain, mu0=_FLUID.mu))


def day_table(*, n_slots: int, mean: float, n_seeds: int, seed: int) -> pl.DataFrame:
    """Spend by hour under an even plan and one by traffic."""
    traffic = plans.day_curve(n_slots, mean=mean)
    rows = []
    for plan, gains in (("even plan", (0.05,)), ("plan by traffic", (0.05, 0.5))):
        shares = plans.even(n_slots) if plan == "even plan" else plans.proportional(traffic)
        repeated = np.repeat([*gains, *gains][:2], n_seeds)
        run = simulate_campaigns(
            _gain, params=jnp.asarray(repeated), n_campaigns=2 * n_seeds, key=jax.random.key(seed),
            budget=RATE * traffic.sum(), traffic=traffic, plan=shares, control="slot", optimum=True,
        )  # fmt: skip
        budget = RATE * traffic.sum()
        share = np.asarray(run.metrics.value) / run.metrics.optimum
        for i, gain in enumerate(gains):
            part = slice(i * n_seeds, (i + 1) * n_seeds)
            reached, error = mean_and_error(share[part])
            name = f"{plan}, K_I = {gain:g}: {100 * reached:.1f} % of the optimum"
            spend = np.cumsum(np.asarray(run.slots.spend)[:, part], axis=0).mean(axis=1) / budget
            mu = np.asarray(run.slots.mu)[:, i * n_seeds]
            for s in range(n_slots):
                rows.append({
                    "arm": name, "hour": 24 * (s + 1) / n_slots, "spend": float(spend[s]),
                    "mu": float(mu[s]), "plan": float(shares[: s + 1].sum()), "share": reached,
                    "stderr": error,
                })  # fmt: skip
    return pl.DataFrame(rows)


def draw_day(table: pl.DataFrame) -> Any:
    """Spend against plan, and the price."""
    series = Series("arm", title="")
    x = alt.X("hour:Q", title="Hour")
    panels = []
    for y, title in (("spend", "Spent, share of the budget"), ("mu", "Price of the budget")):
        axis = alt.Y(title=title)
        chart: Any = theory_line(table, x, y, series=series, axis=axis)
        if y == "spend":
            chart = theory_line(table, x, "plan", series=series, axis=axis, dash=(3, 3)) + chart
        panels.append(chart.properties(width=270))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="pacing-day",
        topic="pacing",
        title="The plan matters more than the gains",
        caption=(
            "Traffic swings by 80 % around its mean over the day, arrivals are Poisson. Left: "
            "money spent (mean over campaigns) beside its plan (dashed); right: the price of the "
            "budget in one campaign. An even plan bids too much by night, at a price of 0, and "
            "too little by day, and money is left. With the plan by traffic a low "
            "gain is enough; ten times it follows noise: the price jumps, for nothing."
        ),
        source="Day-parting as platforms run it; numbers measured here",
        profiles={
            "quick": {"n_slots": 96, "mean": 40.0, "n_seeds": 8, "seed": 7},
            "paper": {"n_slots": 288, "mean": 100.0, "n_seeds": 50, "seed": 7},
        },
        compute=day_table,
        draw=draw_day,
    )
)
