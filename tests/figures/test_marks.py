import math

import altair as alt
import polars as pl
import pytest
import vl_convert

from privlearn.figures import marks, theme

TABLE = pl.DataFrame(
    {
        "x": [1.0, 2.0, 3.0, 1.0, 3.0],
        "k": [10, 10, 10, 9, 9],
        "theory": [1.0, 2.0, 3.0, 4.0, None],
        "mean": [1.5, None, float("nan"), 4.0, 4.5],
        "se": [0.5, 0.5, 0.5, 0.5, 0.5],
        "empty": [None] * 5,
    },
    schema_overrides={"empty": pl.Float64},
)


def plotted(chart):
    """The compiled chart: its marks by kind, as lists of items."""
    graph = vl_convert.vegalite_to_scenegraph(theme.spec(chart))["scenegraph"]
    found = {}

    def walk(item):
        if (
            item.get("marktype") in ("rule", "symbol", "line", "area")
            and item.get("role") == "mark"
        ):
            found.setdefault(item["marktype"], []).append(item["items"])
        for child in item.get("items", []):
            walk(child)

    walk(graph)
    return found


def combined(series=None, **options):
    return marks.theory_and_simulation(
        TABLE, x="x:Q", theory="theory", mean="mean", stderr="se", series=series, **options
    )


def test_rows_without_a_value_are_left_out_of_that_layer_only():
    found = plotted(combined())
    assert len(found["symbol"][0]) == 3
    assert len(found["rule"][0]) == 3
    assert len(found["line"][0]) == 4


def test_error_bars_reach_the_stated_number_of_standard_errors():
    (bars,) = plotted(marks.error_bars(TABLE, "x:Q", "mean", stderr="se", n_sigma=3.0))["rule"]
    (dots,) = plotted(
        marks.error_bars(TABLE, "x:Q", "mean", stderr="se", n_sigma=3.0)
        + marks.dots(TABLE, "x:Q", "mean")
    )["symbol"]
    # Means 1.5, 4, 4.5 lie 2.5 and 0.5 apart, which gives the scale: a half bar is 1.5.
    unit = (dots[0]["y"] - dots[1]["y"]) / 2.5
    for bar, dot in zip(bars, dots, strict=True):
        low, high = sorted((bar["y"], bar["y2"]))
        assert high - dot["y"] == pytest.approx(1.5 * unit)
        assert dot["y"] - low == pytest.approx(1.5 * unit)


def test_a_logarithmic_axis_shows_what_is_positive_and_is_not_bent_by_the_rest():
    table = TABLE.with_columns(
        mean=pl.Series([10.0, -1.0, 0.0, 100.0, 1.0]), se=pl.Series([1.0, 1.0, 1.0, 80.0, 0.1])
    )
    axis = alt.Y(title="Risk", scale=alt.Scale(type="log"))
    found = plotted(
        marks.error_bars(table, "x:Q", "mean", stderr="se", axis=axis)
        + marks.dots(table, "x:Q", "mean", axis=axis)
    )
    ten, hundred, one = (dot["y"] for dot in found["symbol"][0])
    assert one - ten == pytest.approx(ten - hundred)
    assert one > ten
    assert len(found["rule"][0]) == 3
    assert all(0 <= end <= 320 for bar in found["rule"][0] for end in (bar["y"], bar["y2"]))
    # The bar of 100 would reach -60: it ends at half the smallest value.
    decade = one - ten
    assert max(found["rule"][0][1][end] for end in ("y", "y2")) == pytest.approx(
        one + decade * math.log10(2)
    )


def test_bars_given_by_their_ends_end_at_the_stated_floor():
    table = TABLE.with_columns(low=pl.col("mean") - 5, high=pl.col("mean") + 5)
    chart = marks.error_bars(table, "x:Q", "mean", stderr=("low", "high"), floor=0.0)
    (bars,) = plotted(chart + marks.dots(table, "x:Q", "mean"))["rule"]
    assert len({max(bar["y"], bar["y2"]) for bar in bars}) == 1
    assert len({min(bar["y"], bar["y2"]) for bar in bars}) == 3


@pytest.mark.parametrize(("width", "rows"), [(200, 3), (560, 2), (900, 1)])
def test_a_legend_of_long_names_takes_as_many_rows_as_it_needs(width, rows):
    names = [f"{letter}: a method with quite a long name" for letter in "abc"]
    table = pl.DataFrame({"x": [1.0, 2.0, 3.0], "method": names})
    series = marks.Series("method")
    chart = marks.pick_in_legend(marks.dots(table, "x:Q", "x", series=series), series)
    graph = vl_convert.vegalite_to_scenegraph(theme.spec(chart.properties(width=width)))
    heights = []

    def walk(item, in_legend=False):
        in_legend = in_legend or item.get("role") == "legend-entry"
        if in_legend and item.get("role") == "scope":
            heights.extend(entry.get("y", 0) for entry in item["items"])
        for child in item.get("items", []):
            walk(child, in_legend)

    walk(graph["scenegraph"])
    assert len(heights) == 3
    assert len(set(heights)) == rows


def test_colour_and_shape_share_one_legend():
    svg = vl_convert.vegalite_to_svg(theme.spec(combined(marks.Series("k", title="Bag size"))))
    assert svg.count("role-legend-title") == 1


def test_series_keep_their_colours_in_a_stated_order_and_numbers_ascend():
    def colours(series):
        lines = plotted(combined(series))["line"]
        return {items[0]["stroke"]: len(items) for items in lines}

    blue, vermillion = theme.PALETTE[:2]
    assert colours(marks.Series("k")) == {blue: 1, vermillion: 3}
    assert colours(marks.Series("k", order=(10, 9))) == {vermillion: 1, blue: 3}


def test_the_legend_can_be_clicked():
    spec = theme.spec(combined(marks.Series("k")))
    (param,) = spec["params"]
    assert (param["name"], param["bind"]) == ("picked_k", "legend")
    assert all(
        layer["encoding"]["opacity"]["condition"][0]["param"] == "picked_k"
        for layer in spec["layer"]
    )
    assert "params" not in theme.spec(combined())


def test_a_series_without_its_legend_selection_says_what_is_missing():
    chart = marks.dots(TABLE, "x:Q", "mean", series=marks.Series("k"))
    with pytest.raises(ValueError, match=r"'picked_k'.*pick_in_legend"):
        theme.spec(chart)


def test_tooltips_round_numbers_and_leave_out_empty_columns():
    found = {tip.shorthand: tip.to_dict().get("format") for tip in marks.tooltips(TABLE)}
    assert "empty:Q" not in found
    assert (found["mean:Q"], found["k:N"]) == (".4g", None)
    assert [tip.shorthand for tip in marks.tooltips(TABLE, "k", "x")] == ["k:N", "x:Q"]


def test_a_reference_line_is_at_one_value_of_one_axis():
    for value in ({}, {"x": 1.0, "y": 2.0}):
        with pytest.raises(ValueError, match="either x or y"):
            marks.reference(**value)
    (rule,) = plotted(marks.dots(TABLE, "x:Q", "mean") + marks.reference(y=3.0, label="nominal"))[
        "rule"
    ]
    assert len(rule) == 1
