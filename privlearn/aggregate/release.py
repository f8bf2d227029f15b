"""Label-private bag means from a table: any eager frame, or a lazy one that stays lazy.

The pass over the rows (clip, round to steps, group, add up) is written once as narwhals
expressions and runs in the engine that holds the table; only the bag table, one row per bag,
comes here to be noised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import ArrayLike

from privlearn.aggregate.bags import BagAssignment, index_bags
from privlearn.aggregate.mechanism import BagMeanMechanism, ResponseGrid
from privlearn.privacy import Guarantee

__all__ = ["BagRelease", "release_bags"]

#: Names inside the query; features are f0, f1, ... with counts g0, g1, ...
_BAG, _STEPS, _VALID, _SIZE = "bag", "steps", "valid", "size"


@dataclass(frozen=True, eq=False)
class BagRelease:
    """A label-private bag table and what it promises.

    Attributes
    ----------
    table : frame
        One row per bag in the order of the ids: the id, ``size``, ``mean_<response>`` (noisy) and
        ``mean_<feature>`` (exact, public). The same kind of frame that came in.
    guarantee : Guarantee
        The promise, its unit, and the condition under which it holds.
    bag, size, mean : str
        Names of the columns with the id, the number of rows, and the noisy mean.
    feature_means : tuple of str
        Names of the columns with feature means.
    noise_sd : ndarray of shape (m,)
        Standard deviation of the noise in each mean, in the order of the table: public, and good
        for weighting bags.
    clamped : bool
        Whether noisy means were cut off at the bounds.
    """

    table: Any
    guarantee: Guarantee
    bag: str
    size: str
    mean: str
    feature_means: tuple[str, ...]
    noise_sd: np.ndarray
    clamped: bool

    def __str__(self) -> str:
        return f"bag means of {self.mean.removeprefix('mean_')!r} by {self.bag!r}\n{self.guarantee}"


def release_bags(
    table: Any,
    *,
    bag: str | ArrayLike,
    response: str,
    bounds: tuple[float, float],
    epsilon: float,
    features: Sequence[str] = (),
    clamp: bool = False,
    accept_label_leak: bool = False,
) -> BagRelease:
    """Release the mean response of every bag under label differential privacy.

    Each response is clipped to ``bounds``; sums per bag are exact whole numbers (see
    `privlearn.aggregate.mechanism`); each mean gets Laplace noise of scale
    (hi - lo) / (rows in the bag x epsilon), from OpenDP's exact sampler and the operating system's
    entropy. There is no seed: a second call draws new noise and spends epsilon again.

    Parameters
    ----------
    table : frame
        What narwhals accepts: pandas, polars, pyarrow; lazily a polars LazyFrame, a DuckDB
        relation or a Dask frame. A lazy table is aggregated by its engine; only bag rows are
        collected.
    bag : str or array-like of shape (n,)
        Column with the bag of each row (integers, strings, categories or dates), or, for eager
        tables, the ids themselves, such as a `BagAssignment`.
    response : str
        Numeric or boolean column with the private responses.
    bounds : (float, float)
        Range to which responses are clipped. Public knowledge: bounds read off the data would
        leak the data, and there is no default.
    epsilon : float
        Privacy loss of the whole release; positive and finite.
    features : sequence of str, optional
        Numeric columns whose exact bag means go into the table. They are **public**: nothing
        protects them, and a column computed from the responses must not be among them.
    clamp : bool, default=False
        Cut noisy means off at the bounds. That costs no privacy and makes each mean look
        plausible, but biases means near the bounds, so regressions do better without.
    accept_label_leak : bool, default=False
        Accept bags that were built from the labels. No epsilon can then be promised, and the
        guarantee says so (epsilon = inf).

    Returns
    -------
    BagRelease

    Raises
    ------
    TypeError
        If the table is not one, or a column has a type that cannot serve.
    ValueError
        If a column is missing; bags or responses are missing, NaN or infinite (the message names
        the column and counts them); the table is empty; bounds or epsilon make no sense; or the
        bags were built from the labels.

    Notes
    -----
    Errors are raised before anything is released, but *that* a table has a NaN among its
    responses is itself a fact about them: keep error messages as private as the data.

    Examples
    --------
    >>> import polars as pl
    >>> clicks = pl.LazyFrame({"campaign": ["b", "a", "b"], "converted": [1, 0, 1]})
    >>> release = release_bags(
    ...     clicks, bag="campaign", response="converted", bounds=(0, 1), epsilon=1.0
    ... )
    >>> release.table.select("campaign", "size").collect().rows()
    [('a', 1), ('b', 2)]
    >>> release.guarantee.epsilon, release.guarantee.unit
    (1.0, 'one response')
    """
    mechanism = BagMeanMechanism(bounds=bounds, epsilon=epsilon)
    frame = nw.from_native(table)
    names = _feature_names(features)
    guarantee = mechanism.guarantee
    if isinstance(bag, str):
        source = bag
    else:
        guarantee = check_label_private(bag, guarantee, accept_label_leak)
        frame = _attach(frame, bag, taken={response, *names})
        source = _BAG
    _check_columns(frame, source, response, names)
    outputs = _output_names(source, response, names)
    bags = _aggregate(frame.lazy(), source, response, names, mechanism.grid).collect()
    _check_values(bags, source, response, names)

    means = mechanism.release_sums(bags[_STEPS].to_numpy(), bags[_SIZE].to_numpy())
    if clamp:
        means = means.clip(mechanism.grid.lower, mechanism.grid.upper)
    noisy = nw.new_series("mean", means, nw.Float64, backend=bags.implementation)
    kept = bags.select(
        nw.col(_BAG).alias(outputs[0]),
        nw.col(_SIZE).cast(nw.Int64).alias(outputs[1]),
        noisy.alias(outputs[2]),
        *(nw.col(f"f{i}").alias(name) for i, name in enumerate(outputs[3:])),
    )
    return BagRelease(
        table=_like(table, kept),
        guarantee=guarantee,
        bag=outputs[0],
        size=outputs[1],
        mean=outputs[2],
        feature_means=tuple(outputs[3:]),
        noise_sd=mechanism.noise_sd(bags[_SIZE].to_numpy()),
        clamped=clamp,
    )


def check_label_private(bags: Any, guarantee: Guarantee, accept_label_leak: bool) -> Guarantee:
    """Return what can be promised for these bags, or refuse bags that were built from labels.

    Only a `BagAssignment` knows where it comes from; any other ids are taken at the word of the
    guarantee's condition.
    """
    if not isinstance(bags, BagAssignment) or bags.label_private:
        return guarantee
    if not accept_label_leak:
        raise ValueError(
            f"bags: {bags.method} bags depend on the labels, so who shares a bag leaks labels "
            "whatever noise is added. Build bags from public features (random_bags, "
            "feature_clustered_bags, prediction_sorted_bags(..., scores_use_labels=False)), or "
            "pass accept_label_leak=True to go on without a guarantee."
        )
    return Guarantee(
        np.inf, 0.0, guarantee.unit, guarantee.neighbours, "bags were built from the responses"
    )


def _aggregate(
    frame: nw.LazyFrame[Any],
    bag: str,
    response: str,
    features: Sequence[str],
    grid: ResponseGrid,
) -> nw.LazyFrame[Any]:
    """Sum the steps of each bag: one lazy pass, sorted by bag id, nothing noisy yet."""
    schema = frame.collect_schema()
    columns = {_BAG: nw.col(bag), _STEPS: grid.steps(_finite(schema, response), nw.Expr.floor)}
    columns |= {f"f{i}": _finite(schema, name) for i, name in enumerate(features)}
    counted = [
        expression
        for i in range(len(features))
        for expression in (nw.col(f"f{i}").mean(), nw.col(f"f{i}").count().alias(f"g{i}"))
    ]
    return (
        frame.select(**columns)
        .group_by(_BAG, drop_null_keys=False)
        .agg(
            nw.col(_STEPS).sum(),
            nw.col(_STEPS).count().alias(_VALID),
            nw.len().alias(_SIZE),
            *counted,
        )
        .sort(_BAG)
    )


def _finite(schema: Any, name: str) -> nw.Expr:
    """Column ``name`` as float64, with NaN and infinities as missing values."""
    dtype, column = schema[name], nw.col(name)
    if not dtype.is_float():
        return column.cast(nw.Float64)
    wide = column if dtype == nw.Float64 else column.cast(nw.Float64)
    return nw.when(wide.is_finite()).then(wide)


def _feature_names(features: Sequence[str]) -> tuple[str, ...]:
    """Feature names as a tuple; a lone string is one name, not its letters."""
    names = (features,) if isinstance(features, str) else tuple(features)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"features must be column names, got {features!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"features must be distinct, got {list(names)}")
    return names


def _output_names(bag: str, response: str, features: Sequence[str]) -> list[str]:
    """Column names of the bag table, which must not collide."""
    names = [bag, "size", f"mean_{response}", *(f"mean_{name}" for name in features)]
    if len(set(names)) < len(names):
        raise ValueError(f"rename the bag column {bag!r}: the bag table has columns {names[1:]}")
    return names


def _attach(frame: Any, bag: ArrayLike, taken: set[str]) -> nw.DataFrame[Any]:
    """Add an array of bag ids to an eager frame as the column "bag"."""
    if isinstance(frame, nw.LazyFrame):
        raise TypeError("bag must name a column: the rows of a lazy table have no order to go by")
    if _BAG in taken:
        raise ValueError(f"rename the column {_BAG!r}: the ids given as an array take this name")
    index = index_bags(bag, len(frame))
    return frame.with_columns(
        nw.new_series(_BAG, index.labels[index.codes], backend=frame.implementation)
    )


def _check_columns(frame: Any, bag: str, response: str, features: Sequence[str]) -> None:
    """Check that the columns exist, are different, and have types that can serve."""
    schema = frame.collect_schema()
    numbers = [("response", response), *(("features", name) for name in features)]
    for argument, name in [("bag", bag), *numbers]:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be a column name, got {name!r}")
        if name not in schema:
            raise ValueError(f"{argument}: no column {name!r} among {list(schema)}")
    if bag == response:
        raise ValueError(f"bag and response must be different columns, got {bag!r} for both")
    if response in features:
        raise ValueError(f"features must not contain the response {response!r}: it is private")
    for argument, name in numbers:
        if not (schema[name].is_numeric() or schema[name] == nw.Boolean):
            raise TypeError(f"{argument}: column {name!r} must be numeric, got {schema[name]}")
    dtype = schema[bag]
    if dtype.is_float() or dtype.is_nested() or dtype in (nw.Object, nw.Unknown):
        hint = " (missing integers turn a pandas column to floats)" if dtype.is_float() else ""
        raise TypeError(
            f"bag: column {bag!r} must hold integers, strings, categories or dates, "
            f"got {dtype}{hint}"
        )


def _check_values(
    bags: nw.DataFrame[Any], bag: str, response: str, features: Sequence[str]
) -> None:
    """Refuse missing ids and anything but finite responses and features, with counts."""

    def total(column: str) -> int:
        return int(bags[column].to_numpy().sum(dtype=np.int64))  # engines count in 32 bits

    rows = total(_SIZE)
    if rows == 0:
        raise ValueError("table has no rows")
    homeless = int(bags[_SIZE].to_numpy()[bags[_BAG].is_null().to_numpy()].sum())
    if homeless:
        raise ValueError(f"bag: column {bag!r} is missing in {homeless} of {rows} rows")
    counts = [("response", response, _VALID)]
    counts += [("features", name, f"g{i}") for i, name in enumerate(features)]
    for argument, name, count in counts:
        bad = rows - total(count)
        if bad:
            raise ValueError(
                f"{argument}: column {name!r} is missing, NaN or infinite in {bad} of {rows} rows"
            )


def _like(table: Any, bags: nw.DataFrame[Any]) -> Any:
    """Turn the bag table into the kind of frame that ``table`` is."""
    if isinstance(table, nw.DataFrame):
        return bags
    if isinstance(table, nw.LazyFrame):
        return nw.from_native(_like(table.to_native(), bags))
    frame = nw.from_native(table)
    if isinstance(frame, nw.DataFrame):
        return bags.to_native()
    if frame.implementation.is_duckdb():
        # The query runs in the connection that the table belongs to and finds the arrow table
        # by the name of the local variable.
        bag_table = bags.to_native()  # noqa: F841
        return table.query("_", "SELECT * FROM bag_table")
    session = table.sparkSession if frame.implementation.is_spark_like() else None
    return bags.lazy(frame.implementation, session=session).to_native()
