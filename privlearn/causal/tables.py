"""Releases from tables: pandas, polars, pyarrow, or what narwhals can collect."""

from __future__ import annotations

from typing import Any

import narwhals as nw

from privlearn.causal.cells import Small

__all__ = ["release_experiment", "release_table"]


def release_experiment(
    table: Any,
    mechanism: Any,
    *,
    outcome: str,
    arm: str,
    cluster: str,
    min_cell: int = 2,
    small: Small = "raise",
) -> Any:
    """Run a mechanism on three columns of a table.

    Parameters
    ----------
    table : frame
        What narwhals reads. A lazy table is collected, these three columns only: every unit gets
        its own draw, so there is nothing to aggregate first.
    mechanism : ClusterDP, NoisyHistogram, ...
        What the data holder runs.
    outcome, arm, cluster : str
        Columns: private outcome; 0/1 or boolean arm; integers, strings or categories.
    min_cell, small : int, str
        See `build_cells`.

    Returns
    -------
    OutcomeRelease, ScoreRelease or AggregateRelease

    Raises
    ------
    TypeError, ValueError
        If columns are missing, the same, or cannot serve.

    Examples
    --------
    >>> import polars as pl
    >>> from privlearn.causal import OutcomeGrid, UniformPriorDP
    >>> people = pl.DataFrame({"got": [0, 1, 1, 1], "cash": [0, 0, 1, 1], "village": list("aaaa")})
    >>> mechanism = UniformPriorDP.for_budget(OutcomeGrid.of([0, 1]), epsilon=1.0)
    >>> release = release_experiment(
    ...     people, mechanism, outcome="got", arm="cash", cluster="village"
    ... )
    >>> release_table(release, like=people).columns
    ['cluster', 'arm', 'outcome']
    """
    names = {"outcome": outcome, "arm": arm, "cluster": cluster}
    frame = nw.from_native(table)
    present = frame.collect_schema()
    for argument, name in names.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be a column name, got {name!r}")
        if name not in present:
            raise ValueError(f"{argument}: no column {name!r} among {list(present)}")
    if len(set(names.values())) < 3:
        raise ValueError(f"outcome, arm and cluster must be three columns, got {names}")
    kept = frame.select(*names.values())
    eager = kept.collect() if isinstance(kept, nw.LazyFrame) else kept
    for argument, name in names.items():
        missing = int(eager[name].null_count())
        if missing:
            raise ValueError(f"{argument}: column {name!r} is missing in {missing} rows")
    labels = eager[cluster]
    if isinstance(labels.dtype, (nw.Categorical, nw.Enum)):
        labels = labels.cast(nw.String)
    return mechanism.privatize(
        eager[outcome].to_numpy(),
        eager[arm].to_numpy(),
        labels.to_numpy(),
        min_cell=min_cell,
        small=small,
    )


def release_table(release: Any, like: Any = None) -> Any:
    """Give the table of a release with one row per unit: cluster, arm, private outcome.

    Parameters
    ----------
    release : OutcomeRelease or ScoreRelease
    like : frame, optional
        Which kind of frame to make; polars if not given, or if `like` is lazy.

    Raises
    ------
    TypeError
        If the release has no rows for units.
    """
    columns = getattr(release, "columns", None)
    if columns is None:
        raise TypeError(f"{type(release).__name__} has no rows for single units")
    backend: Any = "polars"
    if like is not None:
        frame = nw.from_native(like)
        backend = frame.implementation if isinstance(frame, nw.DataFrame) else "polars"
    return nw.from_dict(columns(), backend=backend).to_native()
