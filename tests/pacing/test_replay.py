"""Replay of logs: the same answer from every kind of table, and never more than the budget."""

import datetime
import math

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest

from privlearn.datasets import load_open_bandit
from privlearn.pacing import plans
from privlearn.pacing.controllers import (
    dual_mirror_descent,
    fixed_multiplier,
    no_pacing,
    normalised,
    pid,
    throttling,
)
from privlearn.pacing.hindsight import hindsight
from privlearn.pacing.replay import Synthetic, read_log, replay

RNG = np.random.default_rng(3)
N = 3000
TABLE = pl.DataFrame(
    {"when": RNG.permutation(N) * 10, "worth": RNG.random(N), "cpm": RNG.random(N), "x": "a"}
)
CONTROLLER = dual_mirror_descent(0.1)


def duckdb_relation():
    import duckdb

    return duckdb.from_arrow(TABLE.to_arrow())


TABLES = {
    "polars": lambda: TABLE,
    "polars lazy": TABLE.lazy,
    "pandas": lambda: TABLE.to_pandas(),
    "pyarrow": TABLE.to_arrow,
    "duckdb": duckdb_relation,
}


@pytest.fixture(scope="module")
def reference():
    log = read_log(TABLE, time="when", value="worth", price="cpm")
    return replay(log, CONTROLLER, budget=0.1 * N, n_slots=12)


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_every_kind_of_table_gives_the_same_replay(kind, reference):
    log = read_log(TABLES[kind](), time="when", value="worth", price="cpm")
    run = replay(log, CONTROLLER, budget=0.1 * N, n_slots=12)
    np.testing.assert_array_equal(run.slots.spend, reference.slots.spend)
    assert run.metrics.regret == reference.metrics.regret


def test_the_replay_is_the_plain_loop_over_the_sorted_log(reference):
    log = TABLE.sort("when")
    mu, left, value = 0.0, 0.1 * N, 0.0
    for v, d in zip(log["worth"], log["cpm"], strict=True):
        won = v / (1 + mu) >= d and d <= left
        value += (v - d) * won
        seen = left >= 0.1
        left -= d * won
        mu = max(mu - 0.1 * (0.1 - d * won), 0.0) if seen else mu
    assert float(reference.metrics.value[0]) == pytest.approx(value, rel=1e-3)
    assert float(reference.metrics.spend[0]) == pytest.approx(0.1 * N - left, rel=1e-3)
    best = hindsight(log["worth"] - log["cpm"], log["cpm"], 0.1 * N).value
    assert reference.metrics.optimum[0] == pytest.approx(best, rel=1e-12)


def test_datetimes_work_and_windows_hold_every_row_once():
    start = datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC)
    times = [start + datetime.timedelta(seconds=int(s)) for s in TABLE["when"]]
    for table in (TABLE.with_columns(when=pl.Series(times)), pd.DataFrame({"when": times})):
        log = read_log(table, time="when", value=Synthetic(), price=Synthetic(0.4))
        counts = log.counts(7)
        assert counts.sum() == N
        assert counts.max() - counts.min() <= 1


def test_synthetic_columns_do_not_depend_on_the_windows():
    log = read_log(
        TABLE, time="when", value=Synthetic(2.0, 0.5, 1, times="worth"), price=Synthetic(seed=9)
    )
    few, many = (
        [np.concatenate([getattr(w, name) for w in log.windows(k)]) for name in ("value", "price")]
        for k in (2, 50)
    )
    np.testing.assert_array_equal(few, many)
    assert np.median(few[1]) == pytest.approx(1.0, abs=5 * 0.5 * 1.26 / math.sqrt(N))
    assert Synthetic(sigma=0.0).draw(4000, 500).tolist() == [1.0] * 500


def test_a_hard_budget_holds_and_many_gains_go_in_one_pass():
    log = read_log(TABLE, time="when", value="worth", price="cpm")
    gains = np.array([0.0, 0.03, 0.3])
    run = replay(log, dual_mirror_descent, params=gains, n_campaigns=3, budget=50.0, n_slots=12)
    assert (np.asarray(run.metrics.spend) <= 50).all()
    one = replay(log, dual_mirror_descent(0.3), budget=50.0, n_slots=12)
    assert float(run.metrics.value[2]) == pytest.approx(float(one.metrics.value[0]), rel=1e-5)
    assert (run.metrics.regret > 0).all()


def test_real_impressions_are_paced_better_than_not_at_all():
    frame = load_open_bandit().frame
    log = read_log(frame, time="timestamp", value=Synthetic(1.0, 0.5), price=Synthetic(0.6, 0.5, 1))
    assert log.n_rows == 60_000
    plan = plans.proportional(log.counts(168))
    budget = 0.1 * 60_000
    control = {"budget": budget, "plan": plan, "control": "slot"}
    paced = replay(log, normalised(pid(0.3, mu0=1.0)), **control).metrics
    rushed = replay(log, no_pacing(), **control).metrics
    assert paced.spend[0] <= budget
    assert paced.regret[0] < 0.25 * rushed.regret[0]
    assert rushed.exhausted[0] < 0.8
    assert rushed.optimum[0] == paced.optimum[0]


def test_throttling_needs_a_key_and_then_stays_away():
    log = read_log(TABLE, time="when", value="worth", price="cpm")
    with pytest.raises(ValueError, match="give key="):
        replay(log, throttling(), budget=10.0)
    half = throttling(start=0.5, up=1.0001, down=0.9999)
    run = replay(log, half, budget=1e6, n_slots=12, key=jax.random.key(0))
    everything = replay(log, fixed_multiplier(0.0), budget=1e6, n_slots=12)
    ratio = float(run.metrics.spend[0] / everything.metrics.spend[0])
    assert abs(ratio - 0.5) < 5 * math.sqrt(0.5 / N)


def test_bad_logs_are_named():
    with pytest.raises(ValueError, match="no column 'price'; there are: when, worth, cpm, x"):
        read_log(TABLE, time="when", value="worth", price="price")
    with pytest.raises(TypeError, match="value must be a column or Synthetic, got 3"):
        read_log(TABLE, time="when", value=3, price="cpm")
    with pytest.raises(ValueError, match="at least two different times"):
        read_log(TABLE.head(1), time="when", value="worth", price="cpm")
    for bad in (-1.0, float("nan")):
        table = TABLE.with_columns(worth=pl.when(pl.col("when") == 500).then(bad).otherwise(1.0))
        log = read_log(table, time="when", value="worth", price="cpm")
        with pytest.raises(ValueError, match=r"value: column 'worth' .* at when 500"):
            replay(log, CONTROLLER, budget=1.0)
    log = read_log(TABLE, time="when", value="worth", price="cpm")
    with pytest.raises(ValueError, match="budget must be positive"):
        replay(log, CONTROLLER, budget=0.0)
    with pytest.raises(ValueError, match="one number a window"):
        replay(log, CONTROLLER, budget=1.0, n_slots=4, traffic=[1.0, 2.0])
