"""Pieces of charts that every topic draws with: theory lines, simulated dots, error bars, bands.

Each function takes the table and names of its columns and gives one layer; layers are added with
``+``, and `pick_in_legend` finishes a chart whose layers have a `Series`. Rows in which the
plotted column is missing or not finite are left out of that layer only, so one table can hold a
fine grid for theory and a coarse one for simulation. Columns want plain names (letters, digits,
underscores), as Vega-Lite gives dots, brackets and quotes a meaning.

Examples
--------
>>> import polars as pl
>>> table = pl.DataFrame(
...     {"x": [1, 2], "k": [2, 2], "theory": [1.0, 2.0], "mean": [1.1, 1.9], "se": [0.1, 0.1]}
... )
>>> bags = Series("k", title="Bag size")
>>> chart = theory_and_simulation(
...     table, x="x:Q", theory="theory", mean="mean", stderr="se", series=bags
... )
>>> len(chart.layer)
3
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

_FADED = 0.12  # opacity of what the reader did not pick in the legend, relative to the rest
_LETTER, _ENTRY = 7, 36  # pixels: a letter of a legend, and what stands around the letters


@dataclass(frozen=True, slots=True)
class Series:
    """The column that tells one curve from another: its colour, shape and clickable legend.

    Parameters
    ----------
    field : str
        Name of the column.
    title : str, default=None
        Title of the legend; the name of the column if not given.
    order : sequence, default=()
        The values in the order of colours; if not given, numbers ascend and words come as in the
        table. Give it where another figure shows only some of the values, so that a colour means
        the same in both.
    """

    field: str
    title: str | None = None
    order: Sequence[Any] = ()

    def color(self, table: pl.DataFrame) -> alt.Color:
        """Colour by this column, with a legend."""
        return alt.Color(f"{self.field}:N", **self._look(table))

    def shape(self, table: pl.DataFrame) -> alt.Shape:
        """Shape by this column: the second cue beside colour, in the same legend."""
        return alt.Shape(f"{self.field}:N", **self._look(table))

    @property
    def picked(self) -> alt.Parameter:
        """The selection: what the reader clicked in the legend (shift-click for more)."""
        return alt.selection_point(name=f"picked_{self.field}", fields=[self.field], bind="legend")

    def opacity(self, full: float = 1.0) -> Any:
        """Fade what the reader did not pick."""
        return alt.when(self.picked).then(alt.value(full)).otherwise(alt.value(full * _FADED))

    def _look(self, table: pl.DataFrame) -> dict[str, Any]:
        """Title and domain; said in full, because legends merge only if their domains agree."""
        order = list(self.order)
        if not order:
            values = table[self.field].drop_nulls()
            order = values.unique(maintain_order=True).to_list()
            order = sorted(order) if values.dtype.is_numeric() else order
        entry = _ENTRY + _LETTER * max((len(str(value)) for value in order), default=0)
        columns = alt.ExprRef(f"width > 0 ? max(1, floor(width / {entry})) : {len(order) or 1}")
        return {
            "title": self.field if self.title is None else self.title,
            "scale": alt.Scale(domain=order),
            "legend": alt.Legend(columns=columns),  # as many as fit the width of the chart
        }


def theory_line(
    table: pl.DataFrame,
    x: str | alt.X,
    y: str,
    *,
    series: Series | None = None,
    axis: alt.Y | None = None,
    dash: Sequence[int] | None = None,
) -> alt.Chart:
    """Draw the theory value as a line: in the ink of the page, or in the colour of its series.

    Parameters
    ----------
    table : polars.DataFrame
    x : str or altair.X
        Column with its type (``"gamma:Q"``), or a whole channel with title and scale.
    y : str
        Column of the values.
    series : Series, default=None
        One line per value of this column.
    axis : altair.Y, default=None
        Title, scale and axis of the vertical channel; its column is `y`. With a logarithmic
        scale, rows whose value is not positive are left out.
    dash : sequence of int, default=None
        Lengths of dashes and gaps, for a second theory curve.
    """
    look: dict[str, Any] = {} if series else {"style": "theory"}
    if dash is not None:
        look["strokeDash"] = list(dash)
    chart = _rows_with(table, y, axis).mark_line(**look).encode(x=x, y=_vertical(y, axis))
    return _in_series(chart, table, series)


def dots(
    table: pl.DataFrame,
    x: str | alt.X,
    y: str,
    *,
    series: Series | None = None,
    axis: alt.Y | None = None,
    tooltip: Sequence[alt.Tooltip] | None = None,
) -> alt.Chart:
    """Draw estimates as dots with a tooltip of all columns; parameters as in `theory_line`."""
    if tooltip is None:
        tooltip = tooltips(table.filter(pl.col(y).is_finite()))
    chart = _rows_with(table, y, axis).mark_point()
    chart = chart.encode(x=x, y=_vertical(y, axis), tooltip=list(tooltip))
    return _in_series(chart, table, series, shape=True)


def error_bars(
    table: pl.DataFrame,
    x: str | alt.X,
    y: str,
    *,
    stderr: str | tuple[str, str],
    n_sigma: float = 2.0,
    series: Series | None = None,
    axis: alt.Y | None = None,
    floor: float | None = None,
) -> alt.Chart:
    """Draw vertical error bars; parameters as in `theory_line`.

    Parameters
    ----------
    stderr : str or (str, str)
        Column of standard errors, or the two columns of lower and upper ends.
    n_sigma : float, default=2.0
        Standard errors to either side. Say it in the caption.
    floor : float, default=None
        Where bars end below. On a logarithmic axis, bars that reach 0 end at half the smallest
        value unless this says otherwise.
    """
    bars = _ends(table, y, stderr, n_sigma, axis, floor).mark_rule(tooltip=None)
    chart = bars.encode(x=x, y=_vertical("bar_lower", axis, y), y2="bar_upper:Q")
    return _in_series(chart, table, series)


def band(
    table: pl.DataFrame,
    x: str | alt.X,
    y: str,
    *,
    stderr: str | tuple[str, str],
    n_sigma: float = 2.0,
    series: Series | None = None,
    axis: alt.Y | None = None,
    floor: float | None = None,
) -> alt.Chart:
    """Draw sampling error as a band around a curve; parameters as in `error_bars`."""
    area = _ends(table, y, stderr, n_sigma, axis, floor).mark_area(tooltip=None, opacity=0.2)
    chart = area.encode(x=x, y=_vertical("bar_lower", axis, y), y2="bar_upper:Q")
    return _in_series(chart, table, series, opacity=0.2)


def theory_and_simulation(
    table: pl.DataFrame,
    *,
    x: str | alt.X,
    theory: str,
    mean: str,
    stderr: str | tuple[str, str],
    n_sigma: float = 2.0,
    series: Series | None = None,
    axis: alt.Y | None = None,
    floor: float | None = None,
) -> alt.LayerChart:
    """Draw the figure that most papers have: theory as lines, simulation as dots with error bars.

    Parameters are those of `theory_line` and `error_bars`; `theory` and `mean` are columns.
    """
    axis = alt.Y(title=mean) if axis is None else axis
    return pick_in_legend(
        theory_line(table, x, theory, series=series, axis=axis)
        + error_bars(
            table, x, mean, stderr=stderr, n_sigma=n_sigma, series=series, axis=axis, floor=floor
        )
        + dots(table, x, mean, series=series, axis=axis),
        series,
    )


def reference(
    *, x: float | None = None, y: float | None = None, label: str = ""
) -> alt.Chart | alt.LayerChart:
    """Draw a dashed line at a value of x or of y, with a label: a threshold, a nominal level."""
    if (x is None) == (y is None):
        raise ValueError("reference takes either x or y")
    channel, value = ("x", x) if y is None else ("y", y)
    base = alt.Chart(pl.DataFrame({"at": [value], "label": [label]}))
    rule = base.mark_rule(style="reference", tooltip=None).encode(**{channel: "at:Q"})
    if not label:
        return rule
    place: dict[str, Any] = (
        {"align": "left", "dx": 5, "baseline": "top"}
        if channel == "x"
        else {"baseline": "bottom", "dy": -4}
    )
    edge = {"y": alt.value(2)} if channel == "x" else {"x": alt.value("width")}
    if channel == "y":
        place["align"] = "right"
    text = base.mark_text(style="note", tooltip=None, **place)
    return rule + text.encode(**{channel: "at:Q"}, **edge, text="label:N")


def pick_in_legend(chart: Any, series: Series | None) -> Any:
    """Let the reader click an entry of the legend to bring its series out.

    Panels side by side share their legend: finish the whole chart, not each panel.
    """
    if series is None:
        return chart
    for panels in ("hconcat", "vconcat", "concat"):
        if getattr(chart, panels, alt.Undefined) is not alt.Undefined:
            # The selection is global once it is declared; declared in each panel it would be
            # declared twice, which Altair mends with a warning.
            chart = chart.copy()
            first, *others = chart[panels]
            chart[panels] = [first.add_params(series.picked), *others]
            return chart
    return chart.add_params(series.picked)


def tooltips(table: pl.DataFrame, *columns: str, digits: int = 4) -> list[alt.Tooltip]:
    """Tooltip of some columns (if none is named, of all that are not empty everywhere).

    Numbers are rounded to `digits` significant digits.
    """
    shown = columns or [name for name in table.columns if table[name].count()]
    return [
        alt.Tooltip(f"{name}:Q", format=f".{digits}g")
        if dtype.is_float() or dtype.is_decimal()
        else alt.Tooltip(f"{name}:N")
        for name, dtype in table.select(shown).schema.items()
    ]


def _is_log(axis: alt.Y | None) -> bool:
    """Whether a vertical channel has a logarithmic scale."""
    channel = None if axis is None else axis.to_dict()
    return isinstance(channel, dict) and (channel.get("scale") or {}).get("type") == "log"


def _rows_with(table: pl.DataFrame, column: str, axis: alt.Y | None) -> alt.Chart:
    """Chart of the rows in which a column is a number that the axis can show.

    One number below 0 on a logarithmic axis would bend the scale for all the others.
    """
    value = f"datum[{json.dumps(column)}]"
    shown = f"isValid({value}) && isFinite({value})"
    return alt.Chart(table).transform_filter(f"{shown} && {value} > 0" if _is_log(axis) else shown)


def _vertical(column: str, axis: alt.Y | None, title: str | None = None) -> alt.Y:
    """Give the channel of a column, with everything else from `axis`."""
    channel = alt.Y(title=title or column) if axis is None else axis.copy(deep=False)
    channel.shorthand = f"{column}:Q"
    return channel


def _ends(
    table: pl.DataFrame,
    y: str,
    stderr: str | tuple[str, str],
    n_sigma: float,
    axis: alt.Y | None,
    floor: float | None,
) -> alt.Chart:
    """Chart of the rows with a value, and the two ends of their error bars."""
    if isinstance(stderr, str):
        value, half = f"datum[{json.dumps(y)}]", f"{n_sigma!r} * datum[{json.dumps(stderr)}]"
        lower, upper = f"({value} - {half})", f"({value} + {half})"
    else:
        lower, upper = (f"datum[{json.dumps(end)}]" for end in stderr)
    if floor is not None:
        lower, upper = f"max({lower}, {floor!r})", f"max({upper}, {floor!r})"
    elif _is_log(axis):
        positive = [v for v in table[y].cast(pl.Float64).drop_nulls() if 0 < v < math.inf]
        lower = f"{lower} > 0 ? {lower} : {min(positive, default=1.0) / 2!r}"
    chart = _rows_with(table, y, axis)
    return chart.transform_calculate(bar_lower=lower, bar_upper=upper)


def _in_series(
    chart: alt.Chart,
    table: pl.DataFrame,
    series: Series | None,
    *,
    shape: bool = False,
    opacity: float = 1.0,
) -> alt.Chart:
    """Colour a layer by its series (and shape it, if dots), faded when another one is picked."""
    if series is None:
        return chart
    chart = chart.encode(color=series.color(table), opacity=series.opacity(opacity))
    return chart.encode(shape=series.shape(table)) if shape else chart
