"""Tables of events as arrays: slices of each user's history, and their top sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import narwhals as nw
import numpy as np

from privlearn.reidentification.theory._arguments import whole

__all__ = ["Classes", "Histories", "Slicing", "equivalence_classes", "read_histories"]

Slicing = Literal["events", "time"]
_USER, _TIME, _ITEM = "user", "time", "item"


@dataclass(frozen=True, eq=False)
class Histories:
    """Events of all users as arrays, sorted by user and time.

    Attributes
    ----------
    users : ndarray of shape (n,)
        Ids, sorted; those without events included.
    items : ndarray of shape (m,)
        Distinct items, sorted.
    user, item, part : ndarrays of shape (events,)
        Numbers of the user, the item and the slice of each event.
    n_slices : int
        T.
    """

    users: np.ndarray
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    part: np.ndarray
    n_slices: int

    @property
    def without_history(self) -> int:
        """Number of users without any event."""
        return len(self.users) - len(np.unique(self.user))

    def top_sets(self, top_k: int, random_state: np.random.Generator | int) -> np.ndarray:
        """Most frequent items of each user and slice; ties at random, padded at random.

        Parameters
        ----------
        top_k : int
            At most the number of items.
        random_state : numpy.random.Generator or int

        Returns
        -------
        ndarray of shape (n, T, k), int32
            Numbers of items. Slices of fewer than k distinct items are filled up with distinct
            uniformly random ones, as browsers do.
        """
        k, m = whole("top_k", top_k, 1), len(self.items)
        if k > m:
            raise ValueError(f"top_k must be at most the number of items, {m}, got {k}")
        rng = np.random.default_rng(random_state)
        place = self.user.astype(np.int64) * self.n_slices + self.part
        cell, count = np.unique(place * m + self.item, return_counts=True)
        row, item = np.divmod(cell, m)
        order = np.lexsort((rng.random(len(row)), -count, row))
        row, item = row[order], item[order]
        first = np.searchsorted(row, row)
        rank = np.arange(len(row)) - first
        kept = rank < k
        sets = np.full((len(self.users) * self.n_slices, k), -1, np.int32)
        sets[row[kept], rank[kept]] = item[kept]
        for column in range(k):
            # Rejection: draw again what the row already has.
            empty = np.flatnonzero(sets[:, column] < 0)
            while len(empty):
                drawn = rng.integers(0, m, len(empty))
                taken = (sets[empty] == drawn[:, None]).any(axis=1)
                sets[empty[~taken], column] = drawn[~taken]
                empty = empty[taken]
        return sets.reshape(len(self.users), self.n_slices, k)

    def unicity(
        self, n_known: int, *, n_draws: int = 500, random_state: np.random.Generator | int
    ) -> float:
        """Share of users whom a few of their items, drawn at random, single out.

        Parameters
        ----------
        n_known : int
            Distinct items that the attacker knows of a user; users with fewer are left out.
        n_draws : int, default=500
            Users drawn, with replacement.
        random_state : numpy.random.Generator or int

        Returns
        -------
        float
            nan if no user has that many items.

        Notes
        -----
        The unicity of de Montjoye et al., Scientific Reports 3, 1376 (2013).
        """
        known = whole("n_known", n_known, 1)
        rng = np.random.default_rng(random_state)
        pairs = np.unique(self.user.astype(np.int64) * len(self.items) + self.item)
        user, item = np.divmod(pairs, len(self.items))
        start = np.searchsorted(user, np.arange(len(self.users) + 1))
        able = np.flatnonzero(np.diff(start) >= known)
        if not len(able):
            return float("nan")
        order = np.argsort(item, kind="stable")
        owners = np.split(user[order], np.searchsorted(item[order], np.arange(1, len(self.items))))
        alone = 0
        for u in rng.choice(able, n_draws):
            mine = rng.choice(item[start[u] : start[u + 1]], known, replace=False)
            hits = np.bincount(np.concatenate([owners[i] for i in mine]))
            alone += int((hits == known).sum() == 1)
        return alone / n_draws


@dataclass(frozen=True, eq=False)
class Classes:
    """Groups of users who share all quasi-identifiers.

    Attributes
    ----------
    columns : tuple of str
        The quasi-identifiers.
    population : int
        Number of users.
    sizes : ndarray of shape (classes,)
        Users in each class, ascending.
    """

    columns: tuple[str, ...]
    population: int
    sizes: np.ndarray

    @property
    def k_anonymity(self) -> int:
        """Size of the smallest class."""
        return int(self.sizes.min())

    @property
    def unique(self) -> float:
        """Share of users who are alone in their class."""
        return float((self.sizes == 1).sum() / self.population)

    @property
    def success(self) -> float:
        """Chance that an attacker who knows the quasi-identifiers names the right user.

        Exactly classes / users: the release is no draw, so its Bayes capacity is the number of
        classes, and the best attacker attains it.
        """
        return len(self.sizes) / self.population

    def within(self, k: int) -> float:
        """Share of users in classes of fewer than `k`."""
        return float(self.sizes[self.sizes < whole("k", k, 1)].sum() / self.population)


def read_histories(
    table: Any,
    *,
    user: str,
    time: str,
    item: str,
    n_slices: int = 4,
    slicing: Slicing = "events",
) -> Histories:
    """Read events from a table and cut each user's history into slices.

    Three columns come here as arrays; a lazy table is asked for them alone.

    Parameters
    ----------
    table : frame
        What narwhals accepts: pandas, polars, pyarrow; lazily polars, DuckDB, Dask. One row an
        event; a row without time and item names a user without history.
    user, time, item : str
        Columns.
    n_slices : int, default=4
        T.
    slicing : {"events", "time"}, default="events"
        "events": each user's history in T parts of equally many events; "time": the whole period
        in T parts of equal length, the same for all.

    Raises
    ------
    TypeError, ValueError
        If the table or its columns cannot serve, or it has fewer than two users.
    """
    parts = whole("n_slices", n_slices, 1)
    if slicing not in ("events", "time"):
        raise ValueError(f'slicing must be "events" or "time", got {slicing!r}')
    frame = _frame(table)
    _check_columns(frame, {"user": user, "time": time, "item": item})
    data = _eager(
        frame.select(
            nw.col(user).alias(_USER), nw.col(time).alias(_TIME), nw.col(item).alias(_ITEM)
        )
    )
    who = data[_USER]
    if len(data) == 0:
        raise ValueError("table must hold events, got no rows")
    if who.null_count():
        raise ValueError(f"user: column {user!r} has {who.null_count()} missing value(s)")
    users = np.unique(who.to_numpy())
    if len(users) < 2:
        raise ValueError("table must hold at least 2 users: one alone is always found, got 1")
    empty = data[_TIME].is_null() & data[_ITEM].is_null()
    events = data.filter(~empty)
    for name, column in ((_TIME, time), (_ITEM, item)):
        if events[name].null_count():
            raise ValueError(
                f"{name}: column {column!r} has {events[name].null_count()} missing value(s) in "
                "rows that have the other of time and item"
            )
    if len(events) == 0:
        raise ValueError(f"item: column {item!r} must hold items, got none")
    number = np.searchsorted(users, events[_USER].to_numpy())
    items, code = np.unique(events[_ITEM].to_numpy(), return_inverse=True)
    when = events[_TIME].to_numpy()
    order = np.lexsort((when, number))
    number, code, when = number[order], code[order], when[order]
    return Histories(users, items, number, code, _slices(number, when, parts, slicing), parts)


def equivalence_classes(table: Any, *, user: str, quasi_identifiers: list[str]) -> Classes:
    """Group users by their quasi-identifiers, in the engine that holds the table.

    Parameters
    ----------
    table : frame
        As in `read_histories`; a user may have many rows, all with the same quasi-identifiers.
    user : str
        Column of ids.
    quasi_identifiers : list of str
        Columns that an attacker may know from elsewhere. Missing values are a value of their own.

    Raises
    ------
    ValueError
        If a user has rows that disagree.
    """
    names = list(quasi_identifiers)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"quasi_identifiers must be column names, got {quasi_identifiers!r}")
    if len({user, *names}) < len(names) + 1:
        raise ValueError(
            f"quasi_identifiers must be distinct, and other than the user, got {names}"
        )
    frame = _frame(table)
    _check_columns(frame, {"user": user} | {f"quasi_identifiers {name}": name for name in names})
    people = frame.lazy().select(user, *names).unique()
    found = people.group_by(names, drop_null_keys=False).agg(nw.len().alias("size")).collect()
    sizes = np.sort(found["size"].to_numpy().astype(np.int64))
    population = int(people.select(nw.col(user)).unique().collect().shape[0])
    if sizes.sum() != population:
        twice = people.group_by(user).agg(nw.len().alias("rows")).filter(nw.col("rows") > 1)
        example = twice.sort(user).collect()
        raise ValueError(
            f"{len(example)} user(s), such as {example[user][0]!r}, have rows with different "
            f"{', '.join(names)}: give each user one value"
        )
    return Classes(tuple(names), population, sizes)


def _frame(table: Any) -> Any:
    try:
        return nw.from_native(table)
    except TypeError as error:
        raise TypeError(
            f"table must be a frame that narwhals reads, got {type(table).__name__}"
        ) from error


def _eager(frame: Any) -> nw.DataFrame[Any]:
    return frame.collect() if isinstance(frame, nw.LazyFrame) else frame


def _check_columns(frame: Any, columns: dict[str, str]) -> None:
    """Check that columns are names, exist, and hold single values."""
    schema = frame.collect_schema()
    for argument, name in columns.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be a column name, got {name!r}")
        if name not in schema:
            raise ValueError(f"{argument}: no column {name!r} among {list(schema)}")
        if schema[name].is_nested():
            raise TypeError(
                f"{argument}: column {name!r} holds lists or structures, got {schema[name]}; "
                "explode it to one value a row"
            )


def _slices(user: np.ndarray, when: np.ndarray, parts: int, slicing: Slicing) -> np.ndarray:
    """Slice of each event; events are sorted by user and time."""
    if slicing == "events":
        first = np.searchsorted(user, user)
        count = np.bincount(user)[user]
        return (np.arange(len(user)) - first) * parts // count
    distinct = np.unique(when)
    low, high = distinct[0], distinct[-1]
    if low == high:
        return np.zeros(len(user), np.int64)
    share = (when - low) / (high - low)
    return np.minimum((np.asarray(share, dtype=float) * parts).astype(np.int64), parts - 1)
