"""Label-private bag means of a large table, beside the engine's own hand-written group-by.

    python benchmarks/aggregate_release.py [--rows 10_000_000] [--bags 1_000_000] [--repeats 7]

One process, everything warmed, repeats interleaved. The peer is what one would write by hand for
the same aggregates without privacy: clip, sum, count of valid values, rows, by bag, in order. Ours
is timed whole (`release_bags`) and in parts: the group-by, the noise, and the rest (checks,
assembly of the table). Ratios are medians of per-repeat ratios, with their range.
"""

import argparse
import os
import time

import duckdb
import narwhals as nw
import numpy as np
import polars as pl

from privlearn.aggregate.mechanism import BagMeanMechanism
from privlearn.aggregate.release import _aggregate, release_bags

BOUNDS, EPSILON = (0.0, 1.0), 1.0
SQL = """
    SELECT campaign, sum(greatest(least(spent, 1.0::DOUBLE), 0.0::DOUBLE)) AS total,
           count(spent) AS valid, count(*) AS size
    FROM clicks GROUP BY campaign ORDER BY campaign
"""


def by_hand_polars(table):
    spent = pl.col("spent")
    return (
        table.lazy()
        .group_by("campaign")
        .agg(spent.clip(0.0, 1.0).sum().alias("total"), spent.count().alias("valid"), pl.len())
        .sort("campaign")
        .collect()
    )


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(name, table, by_hand, repeats):
    mechanism = BagMeanMechanism(bounds=BOUNDS, epsilon=EPSILON)

    def group_by():
        frame = nw.from_native(table).lazy()
        return _aggregate(frame, "campaign", "spent", (), mechanism.grid).collect()

    def release():
        bag_table = release_bags(
            table, bag="campaign", response="spent", bounds=BOUNDS, epsilon=EPSILON
        ).table
        return bag_table.to_arrow_table() if name == "DuckDB" else bag_table

    bags = group_by()
    sums, sizes = bags["steps"].to_numpy(), bags["size"].to_numpy()

    def noise():
        return mechanism.release_sums(sums, sizes)

    steps = {"by hand": by_hand, "group-by": group_by, "noise": noise, "whole release": release}
    for step in steps.values():
        step()
    times = {step: np.empty(repeats) for step in steps}
    for repeat in range(repeats):
        for step, function in steps.items():
            times[step][repeat] = seconds(function)

    print(f"\n{name}: {len(sizes):,} bags, {int(sizes.sum()):,} rows, {repeats} repeats")
    hand = times["by hand"]
    for step, spent in times.items():
        ratios = spent / hand
        print(
            f"  {step:14s} {np.median(spent):8.3f} s   "
            f"{np.median(ratios):6.2f}x by hand ({ratios.min():.2f} to {ratios.max():.2f})"
        )
    whole, parts = times["whole release"], times["group-by"] + times["noise"]
    shares = [times["group-by"] / whole, times["noise"] / whole, (whole - parts) / whole]
    print(
        "  share of the whole: group-by {:.0%}, noise {:.0%}, rest {:.0%}".format(
            *(np.median(share) for share in shares)
        )
    )
    draw = np.median(times["noise"]) / len(sizes) * 1e6
    print(f"  noise: {draw:.2f} microseconds a bag, {os.cpu_count()} cores in threads")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--bags", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    clicks = pl.DataFrame(
        {
            "campaign": rng.integers(0, arguments.bags, arguments.rows),
            "spent": rng.random(arguments.rows),
        }
    )
    print(
        f"aggregate and noise {arguments.rows:,} rows, epsilon = {EPSILON:g}; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"DuckDB {duckdb.__version__}, polars {pl.__version__}"
    )
    compare("polars", clicks, lambda: by_hand_polars(clicks), arguments.repeats)
    connection = duckdb.connect()
    connection.register("arrow_clicks", clicks.to_arrow())
    connection.execute("CREATE TABLE clicks AS SELECT * FROM arrow_clicks")
    connection.unregister("arrow_clicks")
    table = connection.table("clicks")
    compare("DuckDB", table, lambda: connection.sql(SQL).to_arrow_table(), arguments.repeats)


if __name__ == "__main__":
    main()
