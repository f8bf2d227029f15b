"""A small world of figures and claims that never touches the real registers."""

import altair as alt
import numpy as np
import polars as pl
import pytest

from privlearn import claims
from privlearn.figures import Figure, Registry, marks

HOSTILE = "</script><script>alert('x')</script> & <b>bold</b> <!-- \u2028 \"quoted\""


def make_figure(name="parabola", **changes):
    """A figure that works, but for the changes."""
    fields = {
        "name": name,
        "topic": "demo",
        "title": f"The {name}",
        "caption": "Dots and a line.\n\nBars are two standard errors to either side.",
        "source": "Euclid, figure 1",
        "profiles": {"quick": {"n": 8, "seed": 0}, "paper": {"n": 80, "seed": 0}},
        "compute": compute_curves,
        "draw": draw_curves,
        "claims": (),
    }
    return Figure(**(fields | changes))


def compute_curves(n, seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(0.1, 3.0, n)
    frames = [
        pl.DataFrame({"x": x, "k": k, "theory": k * x**2, "se": 0.1 + 0.1 * x}).with_columns(
            mean=pl.col("theory") + pl.Series(rng.normal(size=n)) * pl.col("se")
        )
        for k in (1, 2, 4)
    ]
    return pl.concat(frames)


def draw_curves(table):
    return marks.theory_and_simulation(
        table,
        x=alt.X("x:Q", title="Samples per parameter"),
        theory="theory",
        mean="mean",
        stderr="se",
        series=marks.Series("k", title="Bag size"),
        axis=alt.Y(title="Risk"),
    ) + marks.reference(x=1.0, label="threshold")


def draw_facets(table):
    lines = alt.Chart(table).mark_line().encode(x="x:Q", y="theory:Q")
    return lines.properties(width=180, height=140).facet("k:N", columns=3)


def draw_band(table):
    one = table.filter(pl.col("k") == 2)
    band = marks.band(one, "x:Q", "mean", stderr="se")
    return band + marks.theory_line(one, "x:Q", "theory", axis=alt.Y(title="Risk"))


def draw_heatmap(table):
    return alt.Chart(table).mark_rect().encode(x="x:O", y="k:O", color="mean:Q")


@pytest.fixture
def demo_claims():
    """Two claims in place of the real ones: one that holds, one that does not."""
    with claims.isolated():
        for name, theory in (("demo/true", 1.0), ("demo/false", 2.0)):
            claims.register(
                claims.Claim(
                    name=name,
                    topic="demo",
                    statement="one is one",
                    source="Peano",
                    measure=lambda profile, t=theory: claims.Measurement(t, 1.001, 0.001, 1000),
                    resolution=0.01,
                )
            )
        yield


@pytest.fixture
def demo():
    """Four figures of two topics: layered, faceted, a band, a heat map with hostile texts."""
    return Registry(
        [
            make_figure("curves", claims=("demo/true",)),
            make_figure("facets", draw=draw_facets),
            make_figure("band", draw=draw_band, topic="other"),
            make_figure(
                "hostile",
                topic="other",
                draw=draw_heatmap,
                title=f"Title {HOSTILE}",
                caption=f"Caption {HOSTILE}",
                source=f"Source {HOSTILE}",
                profiles={"quick": {"n": 8, "text": HOSTILE}, "paper": {"n": 9, "text": HOSTILE}},
                compute=lambda n, text: compute_curves(n, 1).with_columns(word=pl.lit(text)),
            ),
        ]
    )
