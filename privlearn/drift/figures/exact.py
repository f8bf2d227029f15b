"""Figures that need little or no simulation: schedules, continuous limit, known paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn import simulate
from privlearn.drift import simulation, streams, theory, transforms
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, band, dots, pick_in_legend, theory_line

PAPER = "Fahrbach, Javanmard, Mirrokni, Worah, ICML 2023 (arXiv 2303.15634)"
_STREAMS = ("burst", "gradual", "periodic", "none")
_SCHEDULES = ("optimal schedule", "best constant", "best a / (1 + b t)", "filter")


def schedules_table(
    *, dim: int, noise: float, batch: int, steps: int, n_trials: int, every: int, seed: int
) -> pl.DataFrame:
    """Learning rate and cumulative regret along the four streams."""
    model: dict[str, Any] = {"dim": dim, "noise": noise, "batch": batch}
    shifts = streams.named(steps)
    kept = np.unique(np.append(np.arange(0, steps, every), steps - 1))
    stack = jax.numpy.asarray(np.stack(list(shifts.values())), float)
    optimizer = transforms.scale_by_filter(batch=batch, noise=noise)

    def trial(key: jax.Array) -> dict[str, Any]:
        def one(row: jax.Array) -> Any:
            run = simulation.regression_trial(optimizer, row, path=True, **model)(key)
            paid = jax.numpy.cumsum(run["second"]) / 2
            return {"rate": run["rates"][kept], "regret": paid[kept]}

        return jax.vmap(one)(stack)

    found = simulate.monte_carlo(
        trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=min(n_trials, 32)
    )
    parts = []
    for k, (name, moves) in enumerate(shifts.items()):
        exact = {
            "optimal schedule": theory.optimal_schedule(moves, **model).rates,
            "best constant": theory.best_constant(moves, **model).rates,
            "best a / (1 + b t)": theory.best_decay(moves, **model).rates,
        }
        columns = {
            schedule: (rates, theory.moments(rates, shifts=moves, **model).second[:-1].cumsum() / 2)
            for schedule, rates in exact.items()
        }
        for schedule, (rates, paid) in columns.items():
            parts.append(_part(name, schedule, kept, rates[kept], paid[kept]))
        parts.append(
            _part(
                name, "filter", kept, found.mean["rate"][k], found.mean["regret"][k],
                found.stderr["rate"][k], found.stderr["regret"][k],
            )
        )  # fmt: skip
    return pl.concat(parts)


def _part(
    stream: str, schedule: str, steps: Any, rate: Any, regret: Any, *errors: Any
) -> pl.DataFrame:
    zero = np.zeros(len(steps))
    rate_se, regret_se = errors or (zero, zero)
    return pl.DataFrame(
        {
            "stream": [stream] * len(steps),
            "schedule": [schedule] * len(steps),
            "step": steps,
            "rate": rate,
            "rate_se": rate_se,
            "regret": regret,
            "regret_se": regret_se,
        }
    )


def _panels(table: pl.DataFrame, column: str, title: str) -> Any:
    series = Series("schedule", title="", order=_SCHEDULES)
    panels = []
    for name in _STREAMS:
        part = table.filter(pl.col("stream") == name)
        x = alt.X("step:Q", title="Step")
        axis = alt.Y(title=title)
        drawn = theory_line(part, x, column, series=series, axis=axis) + band(
            part, x, column, stderr=f"{column}_se", series=series, axis=axis, floor=0.0
        )
        panels.append(drawn.properties(width=270, height=170, title=name))
    return pick_in_legend(alt.concat(*panels, columns=2), series)


def draw_rates(table: pl.DataFrame) -> Any:
    """Learning rates, one panel a stream."""
    return _panels(table, "rate", "Learning rate")


def draw_regret(table: pl.DataFrame) -> Any:
    """Cumulative regret, one panel a stream."""
    return _panels(table, "regret", "Cumulative regret")


_PROFILES = {
    "quick": {
        "dim": 20, "noise": 0.25, "batch": 8, "steps": 750, "n_trials": 16, "every": 5, "seed": 1,
    },
    "paper": {
        "dim": 20, "noise": 0.25, "batch": 8, "steps": 1500, "n_trials": 400, "every": 5,
        "seed": 1,
    },
}  # fmt: skip

register(
    Figure(
        name="drift-schedules",
        topic="drift",
        title="The best learning rate jumps at a shift, and decays like 1 / t until the next",
        caption=(
            "Learning rates for linear regression whose optimum moves: three sudden moves, small "
            "moves at every step, moves that come and go, none. Lines are exact: the optimal "
            "schedule, which knows how far the optimum moves but not where to, and the best "
            "constant and the best a / (1 + b t) in hindsight. The filter knows only the losses of "
            "its batches and the noise: mean over simulated streams, with a band of two standard "
            "errors.\n\n"
            "Notice that the filter jumps a few steps late, and that under gradual drift the best "
            "constant is nearly what the optimal schedule settles to."
        ),
        source=f"{PAPER}: learning rates under drift in linear regression",
        profiles=_PROFILES,
        compute=schedules_table,
        draw=draw_rates,
        claims=("drift/greedy-is-global", "drift/fixed-point", "drift/one-over-t"),
    )
)
register(
    Figure(
        name="drift-regret",
        topic="drift",
        title="What a learning rate costs, step by step",
        caption=(
            "Cumulative regret of the same schedules on the same streams: excess loss summed over "
            "steps, paid before each update. Lines are exact expectations; the filter is a mean "
            "over simulated streams with a band of two standard errors.\n\n"
            "Notice where the filter loses: under gradual drift a constant rate that was tuned in "
            "hindsight costs less than the filter, and without drift a tuned a / (1 + b t) does."
        ),
        source=f"{PAPER}: cumulative regret under drift in linear regression",
        profiles=_PROFILES,
        compute=schedules_table,
        draw=draw_regret,
        claims=("drift/recursion", "drift/no-schedule-is-better", "drift/filter-between"),
    )
)


def limit_table(*, epsilons: Sequence[float], n_trials: int, steps: int, seed: int) -> pl.DataFrame:
    """Second moment of the recursion for several epsilon, of the equation, and of its paths."""
    problem: dict[str, Any] = {
        "end": 3.0, "dim": 5, "noise": 0.5, "batch": 2.0, "start_lag": [1, 0, 0, 0, 0],
    }  # fmt: skip

    def rate(t: float) -> float:
        return 0.3 + 0.2 * float(np.sin(t))

    exact = theory.moment_ode(rate, None, **problem)
    rows = [
        {"kind": "differential equation", "time": t, "value": v, "se": 0.0}
        for t, v in zip(exact.time.tolist(), exact.second.tolist(), strict=True)
    ]
    for eps in epsilons:
        run = theory.discretised(rate, None, epsilon=eps, **problem)
        keep = max(1, len(run.time) // 30)
        rows += [
            {"kind": f"SGD, eps = {eps:g}", "time": t, "value": v, "se": 0.0}
            for t, v in zip(run.time[::keep].tolist(), run.second[::keep].tolist(), strict=True)
        ]
    for end in (1.0, 2.0, 3.0):
        trial = simulation.diffusion_trial(
            rate=lambda t: 0.3 + 0.2 * jax.numpy.sin(t), steps=steps, end=end, dim=5, noise=0.5,
            batch=2.0,
        )  # fmt: skip
        found = simulate.monte_carlo(
            trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=min(n_trials, 10_000)
        )
        rows.append(
            {
                "kind": "diffusion, simulated",
                "time": end,
                "value": float(found.mean["second"]),
                "se": float(found.stderr["second"]),
            }
        )
    return pl.DataFrame(rows)


def draw_limit(table: pl.DataFrame) -> Any:
    """Lines for recursion and equation, dots with bars for simulated paths."""
    from privlearn.figures.marks import error_bars

    series = Series("kind", title="")
    x, axis = alt.X("time:Q", title="Time"), alt.Y(title="Expected squared distance")
    axis = axis.scale(zero=False)
    paths = table.filter(pl.col("kind") == "diffusion, simulated")
    lines = table.filter(pl.col("kind") != "diffusion, simulated")
    kinds = Series("kind", title="", order=table["kind"].unique(maintain_order=True).to_list())
    drawn = (
        theory_line(lines, x, "value", series=kinds, axis=axis)
        + error_bars(paths, x, "value", stderr="se", series=kinds, axis=axis)
        + dots(paths, x, "value", series=kinds, axis=axis)
    )
    return pick_in_legend(drawn, series)


register(
    Figure(
        name="drift-limit",
        topic="drift",
        title="Small steps become a differential equation",
        caption=(
            "Expected squared distance to a resting optimum under the rate .3 + .2 sin(time), with "
            "learning rates eps zeta and batches eps nu. Lines: the exact recursion of SGD for "
            "several eps, and the equation of its limit. Dots: the stochastic differential "
            "equation itself, simulated, with two standard errors.\n\n"
            "Notice that the gap to the limit shrinks in proportion to eps."
        ),
        source=f"{PAPER}: continuous limit; this form re-derived",
        profiles={
            "quick": {"epsilons": (0.5, 0.1, 0.02), "n_trials": 8_000, "steps": 100, "seed": 2},
            "paper": {
                "epsilons": (0.5, 0.1, 0.02, 0.004), "n_trials": 400_000, "steps": 600, "seed": 2,
            },
        },
        compute=limit_table,
        draw=draw_limit,
        claims=("drift/differential-equation", "drift/diffusion"),
    )
)  # fmt: skip


def known_table(*, steps: int, speed: float, dim: int, noise: float, batch: int) -> pl.DataFrame:
    """Rates and squared distances for a path that first goes on, then turns back and forth."""
    time = np.arange(steps)
    onward = np.where(time < steps // 2, 1.0, np.where(time % 2 == 0, 1.0, -1.0))
    moves = np.zeros((steps, dim))
    moves[:, 0] = speed * onward
    lag = np.eye(dim)[0]
    model: dict[str, Any] = {"dim": dim, "noise": noise, "batch": batch}
    known = theory.known_path_schedule(moves, start_lag=lag, **model)
    lengths = theory.optimal_schedule(np.abs(moves[:, 0]), **model).rates
    curves = {"knows the path": known.rates, "knows the lengths": lengths}
    rates = np.linspace(0.01, 0.5, 99)
    paid = [
        theory.moments([r] * steps, displacements=moves, start_lag=lag, **model).regret
        for r in rates
    ]
    curves["best constant"] = np.full(steps, rates[int(np.argmin(paid))])
    parts = []
    for name, rate in curves.items():
        run = theory.moments(rate, displacements=moves, start_lag=lag, **model)
        parts.append(
            pl.DataFrame(
                {
                    "schedule": [f"{name}: regret {run.regret:.1f}"] * steps,
                    "step": time,
                    "rate": rate,
                    "second": run.second[:-1],
                }
            )
        )
    return pl.concat(parts)


def draw_known(table: pl.DataFrame) -> Any:
    """Rates above, squared distances below."""
    series = Series("schedule", title="")
    x = alt.X("step:Q", title="Step")
    top = theory_line(table, x, "rate", series=series, axis=alt.Y(title="Learning rate"))
    low = theory_line(table, x, "second", series=series, axis=alt.Y(title="Squared distance"))
    rows = [part.properties(width=560, height=170) for part in (top, low)]
    return pick_in_legend(alt.vconcat(*rows), series)


register(
    Figure(
        name="drift-known-path",
        topic="drift",
        title="Who knows where the optimum goes learns faster while it goes on",
        caption=(
            "The optimum moves by equal lengths: first always the same way, then back and forth. "
            "All lines are exact. The schedule that knows only the lengths is optimal when "
            "directions are random; they are not here. The optimum for the known path comes from "
            "forward and backward sweeps with costates.\n\n"
            "Notice that it is above the other while the drift goes on, since lag adds up, and "
            "well below once moves cancel, where it is best to stand still in the middle."
        ),
        source=f"{PAPER}: optimal rate of the linear case; the discrete optimum derived here",
        profiles={
            "quick": {"steps": 160, "speed": 0.15, "dim": 10, "noise": 0.25, "batch": 4},
            "paper": {"steps": 400, "speed": 0.15, "dim": 10, "noise": 0.25, "batch": 4},
        },
        compute=known_table,
        draw=draw_known,
        claims=("drift/known-path",),
    )
)
