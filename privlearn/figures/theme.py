"""The one look of all charts: colour-blind safe, readable, laid on a chart and never global."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

#: Okabe and Ito's colours that keep a contrast of 2:1 on white, most different ones first.
#: (Black is the ink, yellow is too pale for lines.)
PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#767676",  # grey
)

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def _inks(*, ink: str, muted: str, grid: str, background: str) -> dict[str, Any]:
    """Every colour that depends on whether the page is light or dark, and nothing else."""
    return {
        "background": background,
        "title": {"color": ink, "subtitleColor": muted},
        "axis": {
            "labelColor": muted,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": muted,
            "tickColor": muted,
        },
        "legend": {"labelColor": ink, "titleColor": muted},
        "header": {"labelColor": ink, "titleColor": ink},
        "text": {"color": ink},
        "rule": {"color": ink},
        "style": {
            "theory": {"color": ink},
            "reference": {"color": muted},
            "note": {"color": muted},
        },
    }


_LIGHT = _inks(ink="#1f2328", muted="#59636e", grid="#e7e9ec", background="white")

_DARK_PALETTE = ("#4aa3df", "#f07f3c", "#2fc298", "#dd94bd", "#f0b429", "#8fd0f5", "#a0a0a0")

#: What a dark page lays over the theme: the same colours, for a dark ground.
DARK: dict[str, Any] = {
    **_inks(ink="#e6e8eb", muted="#a3abb5", grid="#33383f", background="transparent"),
    "mark": {"color": _DARK_PALETTE[0]},
    "range": {"category": list(_DARK_PALETTE)},
}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay nested dictionary `over` on `base`, key by key; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            value = merged(known, value)
        result[key] = value
    return result


CONFIG: dict[str, Any] = merged(
    {
        "font": _FONT,
        "padding": 8,
        "view": {"continuousWidth": 560, "continuousHeight": 320, "stroke": None},
        "title": {"anchor": "start", "fontSize": 15, "fontWeight": 600, "offset": 12},
        "axis": {
            "labelFontSize": 12,
            "titleFontSize": 13,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelPadding": 5,
            "tickSize": 4,
            "labelOverlap": "greedy",
            "labelSeparation": 4,
            "labelFlush": False,
        },
        "axisX": {"tickCount": 8},
        "axisY": {"tickCount": 6},
        "facet": {"spacing": 28},
        "concat": {"spacing": 28},
        "legend": {
            "orient": "top",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 320,
            "symbolSize": 90,
            "symbolStrokeWidth": 2,
            "columnPadding": 16,
        },
        "header": {"labelFontSize": 13, "titleFontSize": 13, "titleFontWeight": "normal"},
        "range": {
            "category": list(PALETTE),
            "ordinal": {"scheme": "viridis"},
            "ramp": {"scheme": "viridis"},
            "heatmap": {"scheme": "viridis"},
            "diverging": {"scheme": "blueorange"},
        },
        "mark": {"color": PALETTE[0], "tooltip": {"content": "encoding"}},
        "line": {"strokeWidth": 2, "strokeCap": "round"},
        "point": {"filled": True, "size": 55},
        "rule": {"strokeWidth": 1.5},
        "area": {"line": False},
        "text": {"fontSize": 12},
        "style": {
            "reference": {"strokeDash": [4, 4], "strokeWidth": 1.2},
            "note": {"fontSize": 12},
        },
    },
    _LIGHT,
)


@alt.theme.register("privlearn", enable=False)
def _theme() -> Any:
    return {"config": CONFIG}


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Vega-Lite specification of a chart in this theme, its data within.

    The theme and the data handling of the caller's Altair stay as they are, and have no say:
    the same chart gives the same specification in any session.

    Raises
    ------
    TypeError
        If `chart` is no Altair chart.
    ValueError
        If it depends on a selection that it does not have.
    """
    if not isinstance(chart, alt.TopLevelMixin):
        raise TypeError(f"draw must return an Altair chart, got {type(chart).__name__}")
    with (
        alt.theme.enable("privlearn"),
        alt.data_transformers.enable("default", consolidate_datasets=True, max_rows=None),
    ):
        result = _without_nonfinite(chart.to_dict())
    for name in sorted(_named(result, "param") - _named(result, "name")):
        raise ValueError(
            f"the chart depends on the selection {name!r} and has none of that name: finish it "
            "with marks.pick_in_legend(chart, series), or with add_params"
        )
    return result


def _without_nonfinite(part: Any) -> Any:
    """Null in place of every NaN and infinity: JSON has neither, and the marks leave out nulls."""
    if isinstance(part, dict):
        return {name: _without_nonfinite(item) for name, item in part.items()}
    if isinstance(part, list):
        return [_without_nonfinite(item) for item in part]
    if isinstance(part, float) and not math.isfinite(part):
        return None
    return part


def _named(part: Any, key: str) -> set[str]:
    """All strings that stand under a key anywhere in a specification but its data."""
    if isinstance(part, list):
        return set().union(*(_named(item, key) for item in part))
    if not isinstance(part, dict):
        return set()
    found = {value for name, value in part.items() if name == key and isinstance(value, str)}
    inner = (item for name, item in part.items() if name not in ("datasets", "values"))
    return found.union(*(_named(item, key) for item in inner))


def themed(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """Give a copy of a chart that carries this theme and its data wherever it is shown."""
    return alt.Chart.from_dict(spec(chart))
