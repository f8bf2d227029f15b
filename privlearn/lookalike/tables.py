"""Columns of the user's table: which ones are meant, their numbers, and putting them back."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from .coordinates import FloatArray

#: Names for sets of columns that clusters may be found on.
CLUSTER_ON = ("sensitive", "other", "all")


def as_frame(X: object) -> nw.DataFrame[Any] | None:
    """A narwhals view of a pandas, polars, pyarrow ... frame; None for anything else.

    Raises
    ------
    TypeError
        For a lazy frame.
    """
    frame = nw.from_native(X, pass_through=True, allow_series=False)
    if isinstance(frame, nw.LazyFrame):
        raise TypeError("clusters need all rows at once: collect() the lazy table first")
    return frame if isinstance(frame, nw.DataFrame) else None


def resolve_columns(
    estimator: Any, X: object, selector: object, parameter: str
) -> NDArray[np.intp]:
    """Column numbers, ascending, that a selector names.

    Parameters
    ----------
    estimator : estimator
        After its input validation (``n_features_in_``, ``feature_names_in_`` if any).
    X : table
        The table, for a callable.
    selector : None, str, int, list of these, boolean mask, slice or callable
        None is all columns. A callable gets the table and returns one of the others, as
        scikit-learn's ``make_column_selector`` does.
    parameter : str
        For the error messages.

    Raises
    ------
    ValueError
        If the selector names no column, or one that does not exist.
    """
    n = int(estimator.n_features_in_)
    names = list(getattr(estimator, "feature_names_in_", ()))
    if callable(selector):
        selector = selector(X)
    if selector is None:
        return np.arange(n)
    if isinstance(selector, slice):
        chosen = list(range(n))[selector]
    else:
        one = isinstance(selector, (str, Integral)) and not isinstance(selector, bool)
        items = [selector] if one else np.asarray(selector, dtype=object).ravel().tolist()
        if items and all(isinstance(item, (bool, np.bool_)) for item in items):
            if len(items) != n:
                raise ValueError(f"{parameter} is a mask of {len(items)}, but X has {n} columns")
            chosen = [i for i, item in enumerate(items) if item]
        else:
            chosen = [_column_number(item, names, n, parameter) for item in items]
    if not chosen:
        raise ValueError(f"{parameter} names no column")
    return np.unique(np.array(chosen, dtype=np.intp))


def _column_number(item: object, names: list[str], n: int, parameter: str) -> int:
    if isinstance(item, str):
        if item in names:
            return names.index(item)
        known = f"the columns are {', '.join(map(str, names[:20]))}" if names else "X has no names"
        raise ValueError(f"{parameter} names column {item!r}, but {known}")
    if isinstance(item, Integral) and not isinstance(item, bool):
        number = int(item)
        if -n <= number < n:
            return number % n
        raise ValueError(f"{parameter} names column {item}, but X has {n} columns")
    raise ValueError(f"{parameter} must name columns by string or integer, got {item!r}")


def numbers_of(frame: nw.DataFrame[Any], columns: NDArray[np.intp], parameter: str) -> FloatArray:
    """The columns as float64, (n, len(columns)).

    Raises
    ------
    ValueError
        If a column is not numeric, or has missing or infinite values.
    """
    out = np.empty((len(frame), len(columns)))
    for place, number in enumerate(columns):
        series = frame[:, int(number)]
        if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
            raise ValueError(
                f"{parameter} column {series.name!r} has type {series.dtype}; an average of it has "
                "no meaning. One-hot encode it first (sklearn.preprocessing.OneHotEncoder, "
                "pandas.get_dummies, polars.DataFrame.to_dummies), or cast it to numbers."
            )
        values = series.cast(nw.Float64).to_numpy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"Input contains NaN, missing or infinite values in {parameter} column "
                f"{series.name!r}: impute or drop these rows first"
            )
        out[:, place] = values
    return out


def replace_columns(frame: nw.DataFrame[Any], columns: NDArray[np.intp], values: FloatArray) -> Any:
    """The native frame, its other columns and its index untouched, with these columns replaced."""
    native = frame.to_native()
    if hasattr(native, "iloc"):  # pandas and its like: by position, so that the index stays
        out = native.copy()
        for number, column in zip(columns, values.T, strict=True):
            out.isetitem(int(number), column)
        return out
    names = frame.columns
    return frame.with_columns(
        nw.new_series(names[number], column, nw.Float64, backend=frame.implementation)
        for number, column in zip(columns, values.T, strict=True)
    ).to_native()
