"""A small world of figures and claims that never touches the real registers."""

import contextlib
import sys
import types

import altair as alt
import numpy as np
import polars as pl
import pytest

import privlearn
from privlearn import claims
from privlearn.figures import Figure, Registry, build, marks, registry

HOSTILE = "</script><script>alert('x')</script> & <b>bold</b> <!-- \u2028 \"quoted\""


def _figure(name="parabola", **changes):
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
    axis = alt.Y(title="Risk")
    band = marks.band(one, "x:Q", "mean", stderr="se", axis=axis)
    return band + marks.theory_line(one, "x:Q", "theory", axis=axis)


def draw_heatmap(table):
    return alt.Chart(table).mark_rect().encode(x="x:O", y="k:O", color="mean:Q")


@contextlib.contextmanager
def _demo_claims():
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
def demo_claims():
    """Two claims in place of the real ones: one that holds, one that does not."""
    with _demo_claims():
        yield


@pytest.fixture(scope="session")
def demo():
    """Four figures of two topics: layered, faceted, a band, a heat map with hostile texts."""
    return Registry(
        [
            _figure("curves", claims=("demo/true",)),
            _figure("facets", draw=draw_facets),
            _figure("band", draw=draw_band, topic="other"),
            _figure(
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


@pytest.fixture
def make_figure():
    """Make a figure that works, but for the fields given."""
    return _figure


@pytest.fixture(scope="session")
def demo_page(demo, tmp_path_factory):
    """The page of the four figures, built once; tests that change it work on a copy."""
    with _demo_claims():
        return build(figures=demo, out=tmp_path_factory.mktemp("demo"), progress=False).page


@pytest.fixture
def hostile():
    """Text that would break out of HTML, of an attribute and of a script."""
    return HOSTILE


@pytest.fixture
def make_topic(tmp_path, monkeypatch):
    """Add a topic package `privlearn.stand_in` whose figures.py has this source."""
    before = dict(registry.REGISTRY._figures)
    # Whatever other tests have discovered is no part of a build of the stand-in.
    registry.REGISTRY._figures = {}
    folder = tmp_path / "topics" / "stand_in"
    folder.mkdir(parents=True)
    monkeypatch.setattr(privlearn, "__path__", [*privlearn.__path__, str(folder.parent)])
    monkeypatch.setattr(privlearn, "TOPICS", ("stand_in",))
    helper = types.ModuleType("stand_in")
    helper.make_figure = _figure
    monkeypatch.setitem(sys.modules, "stand_in", helper)

    def make(source):
        (folder / "__init__.py").write_text('"""Stand-in: a topic for tests."""')
        if source is not None:
            (folder / "figures.py").write_text(source)

    yield make
    registry.REGISTRY._figures = before
    for module in ("privlearn.stand_in.figures", "privlearn.stand_in"):
        sys.modules.pop(module, None)
    vars(privlearn).pop("stand_in", None)
