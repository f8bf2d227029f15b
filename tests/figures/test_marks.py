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


def test_bars_given_by_their_ends_and_a_floor_stay_above_it_on_a_logarithmic_scale():
    table = TABLE.with_columns(low=pl.col("mean") - 5, high=pl.col("mean") + 5)
    axis = alt.Y(title="Risk", scale=alt.Scale(type="log"))
    chart = marks.error_bars(table, "x:Q", "mean", stderr=("low", "high"), axis=axis, floor=0.01)
    (bars,) = plotted(chart)["rule"]
    assert all(0 <= end <= 320 for bar in bars for end in (bar["y"], bar["y2"]))


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
