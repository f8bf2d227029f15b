"""Figure of a real log: a week of impressions of a fashion shop, replayed."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from privlearn import datasets
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, pick_in_legend, theory_line
from privlearn.pacing import plans
from privlearn.pacing.controllers import Controller, normalised, pid
from privlearn.pacing.replay import Synthetic, read_log, replay

#: Arms: name, gain on the relative error of a window, plan.
ARMS = (
    ("no pacing", 0.0, "even"),
    ("PI, even plan", 0.3, "even"),
    ("PI, plan of the days before", 0.3, "traffic"),
)


def _gain(gain: Any) -> Controller:
    return normalised(pid(gain, 0.3 * gain))


def replay_table(*, n_rows: int, share: float, seed: int) -> pl.DataFrame:
    """Spend of each arm over the hours of the log."""
    frame = datasets.load_open_bandit().frame
    half = frame["timestamp"].min() + (frame["timestamp"].max() - frame["timestamp"].min()) * 3 / 7
    before, after = frame[frame["timestamp"] < half], frame[frame["timestamp"] >= half]
    log = read_log(
        after.iloc[:n_rows], time="timestamp", value=Synthetic(1.0, 0.6, seed),
        price=Synthetic(0.6, 0.6, seed + 1),
    )  # fmt: skip
    hours = round((log.end - log.start) / 3.6e9)
    day = np.histogram(before["timestamp"] % 86_400_000_000, 24, (0, 86_400_000_000))[0]
    first = int(log.start // 3_600_000_000) % 24
    by_hour = plans.proportional(day[(first + np.arange(hours)) % 24], floor=0.05)
    budget = share * log.n_rows
    tables = []
    for plan in ("even", "traffic"):
        shares = plans.even(hours) if plan == "even" else by_hour
        arms = [(name, gain) for name, gain, kind in ARMS if kind == plan]
        gains = np.array([*(gain for _, gain in arms), 0.0][:2])  # one shape, one program
        run = replay(
            log, _gain, params=gains, n_campaigns=2, budget=budget, plan=shares, control="slot"
        )
        assert run.metrics.optimum is not None
        for i, (name, _) in enumerate(arms):
            reached = float(run.metrics.value[i]) / run.metrics.optimum[i]
            tables.append(
                pl.DataFrame(
                    {
                        "arm": [f"{name}: {100 * reached:.0f} % of the optimum"] * hours,
                        "hour": np.arange(1, hours + 1),
                        "spend": np.cumsum(np.asarray(run.slots.spend)[:, i]) / budget,
                        "mu": np.asarray(run.slots.mu)[:, i],
                        "plan": np.cumsum(shares),
                        "share": [reached] * hours,
                        "impressions": np.asarray(run.slots.auctions)[:, i],
                    }
                )
            )
    return pl.concat(tables)


def draw_replay(table: pl.DataFrame) -> Any:
    """Spend, price, and the traffic below."""
    series = Series("arm", title="")
    x = alt.X("hour:Q", title="Hours since the start")
    axis = alt.Y(title="Spent, of the budget")
    spend: Any = theory_line(table, x, "spend", series=series, axis=axis)
    spend += theory_line(table, x, "plan", series=series, axis=axis, dash=(3, 3))
    mu: Any = theory_line(table, x, "mu", series=series, axis=alt.Y(title="Price of the budget"))
    one = table.filter(pl.col("arm") == table["arm"][0])
    traffic = alt.Chart(one).mark_area(opacity=0.5, interpolate="step").encode(
        x=x, y=alt.Y("impressions:Q", title="Impressions")
    )  # fmt: skip
    size: dict[str, Any] = {"width": 180, "height": 200}
    panels = (chart.properties(**size) for chart in (spend, mu, traffic))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="pacing-replay",
        topic="pacing",
        title="A real log: four days of impressions, replayed",
        caption=(
            "Impressions of the Open Bandit log in order of time (right: how many came each hour); "
            "values and competing bids are drawn, log-normal, so this is semi-synthetic. The plan "
            "by traffic comes from the three days before. Left: money spent and its plan (dashed); "
            "middle: the price of the budget. Percentages are of the offline optimum of the same "
            "impressions. Both plans come out level; the plan by traffic has the steadier price. "
            "One replay each: there is no sampling error to show."
        ),
        source="Open Bandit Dataset (Saito et al. 2021), pip package obp",
        profiles={
            "quick": {"n_rows": 40_000, "share": 0.1, "seed": 8},
            "paper": {"n_rows": 60_000, "share": 0.1, "seed": 8},
        },
        compute=replay_table,
        draw=draw_replay,
    )
)
