import itertools

import altair as alt
import polars as pl
import pytest
import vl_convert

from privlearn.figures import theme

CHART = alt.Chart(pl.DataFrame({"x": [1, 2]})).mark_point().encode(x="x:Q")


def luminance(colour):
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def simulated(colour, deficiency):
    """How a dichromat sees a colour (Vienot, Brettel and Mollon 1999, linear RGB matrices)."""
    matrix = {
        "protan": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
        "deutan": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    }[deficiency]
    linear = [(int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (1, 3, 5)]
    seen = (sum(m * c for m, c in zip(row, linear, strict=True)) for row in matrix)
    return [max(c, 0.0) ** (1 / 2.2) for c in seen]


@pytest.mark.parametrize("deficiency", ["protan", "deutan"])
@pytest.mark.parametrize("palette", [theme.PALETTE, theme.DARK["range"]["category"]])
def test_no_two_of_the_first_five_colours_look_alike_to_the_colour_blind(palette, deficiency):
    seen = [simulated(colour, deficiency) for colour in palette[:5]]
    for one, other in itertools.combinations(seen, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.1


def test_every_colour_stands_out_from_its_ground():
    assert min(contrast(colour, "#ffffff") for colour in theme.PALETTE) > 2
    assert min(contrast(colour, "#16191d") for colour in theme.DARK["range"]["category"]) > 4.5
    for ink in ("labelColor", "titleColor"):
        assert contrast(theme.CONFIG["axis"][ink], "#ffffff") > 4.5
        assert contrast(theme.DARK["axis"][ink], "#16191d") > 4.5


def test_the_callers_altair_is_left_as_it_was():
    before = (alt.theme.active, alt.data_transformers.active, alt.data_transformers.options)
    theme.spec(CHART)
    theme.themed(CHART)
    with pytest.raises(TypeError, match="draw must return an Altair chart, got dict"):
        theme.spec({})
    assert before == (
        alt.theme.active,
        alt.data_transformers.active,
        alt.data_transformers.options,
    )
    assert CHART.to_dict().get("config") != theme.CONFIG


def test_a_themed_chart_carries_the_theme_and_large_data_wherever_it_is_shown():
    table = pl.DataFrame({"x": range(6000)})  # more rows than Altair takes by default
    spec = theme.themed(alt.Chart(table).mark_point().encode(x="x:Q")).to_dict()
    assert spec["config"]["font"] == theme.CONFIG["font"]
    assert [len(rows) for rows in spec["datasets"].values()] == [6000]


def test_a_chart_may_overrule_the_theme():
    spec = theme.spec(CHART.configure_axis(labelFontSize=20))
    assert spec["config"]["axis"]["labelFontSize"] == 20
    assert spec["config"]["axis"]["titleFontSize"] == theme.CONFIG["axis"]["titleFontSize"]


def test_axes_of_small_panels_keep_their_labels(demo):
    """A tick count that depends on the width of the view leaves panels without any."""
    figure = demo.get("facets")
    svg = vl_convert.vegalite_to_svg(theme.spec(figure.draw(figure.table())))
    labels = svg.count("role-axis-label")
    assert labels == 4  # three horizontal axes and a vertical one
    for part in svg.split("role-axis-label")[1:]:
        assert part.split("</g>", 1)[0].count("<text") >= 3


def test_laying_one_dictionary_on_another_changes_neither():
    base, over = {"a": {"x": 1}, "b": 1}, {"a": {"y": 2}, "b": {"z": 3}}
    assert theme.merged(base, over) == {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    assert (base, over) == ({"a": {"x": 1}, "b": 1}, {"a": {"y": 2}, "b": {"z": 3}})


def test_a_value_that_json_cannot_hold_becomes_null_and_the_chart_still_renders():
    table = pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": [1.0, float("nan"), float("inf")]})
    spec = theme.spec(alt.Chart(table).mark_point().encode(x="x:Q", y="y:Q"))
    (rows,) = spec["datasets"].values()
    assert [row["y"] for row in rows] == [1.0, None, None]
    assert vl_convert.vegalite_to_svg(spec).startswith("<svg")
