import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

import privlearn
from privlearn.figures import Registry, build, export


def test_a_failing_figure_is_reported_and_takes_no_other_with_it(tmp_path, demo, make_figure):
    figures = Registry(
        [
            make_figure("dividing", compute=lambda n, seed: 1 / 0),
            make_figure("no-chart", draw=lambda table: "a picture"),
            make_figure("bad-column", draw=lambda table: table["missing"]),
            *demo,
        ]
    )
    seen = []
    report = build(figures=figures, out=tmp_path, checks=False, progress=seen.append)
    assert not report.ok
    assert [outcome.status for outcome in report.outcomes] == ["failed"] * 3 + ["made"] * 4
    assert report.outcomes[0].error == "ZeroDivisionError: division by zero"
    assert report.outcomes[1].error == "TypeError: draw must return an Altair chart, got str"
    assert "missing" in report.outcomes[2].error
    assert seen == list(report.outcomes)
    assert [outcome.name for outcome in report.failed] == ["dividing", "no-chart", "bad-column"]
    assert "4 of 7 figures are well" in str(report)
    html = report.page.read_text(encoding="utf-8")
    assert "ZeroDivisionError: division by zero" in html
    assert "Traceback (most recent call last)" in html
    assert 'data-spec="spec-dividing"' not in html
    assert 'data-spec="spec-curves"' in html


def test_a_build_in_which_all_is_well_is_ok(tmp_path, demo, demo_claims):
    report = build(figures=demo, out=tmp_path, progress=False)
    assert report.ok
    assert report.failed == ()
    assert report.page == tmp_path / "index.html"
    html = report.page.read_text(encoding="utf-8")
    assert "1 of 1 theory checks hold" in html
    assert "1.001 ± 0.001" in html


def test_a_claim_that_fails_is_shown_with_its_numbers_and_counts_as_not_well(
    tmp_path, demo_claims, make_figure
):
    figures = Registry([make_figure(claims=("demo/true", "demo/false", "demo/absent"))])
    report = build(figures=figures, out=tmp_path, progress=False)
    assert not report.ok
    assert report.outcomes[0].status == "made"
    assert report.outcomes[0].failed_claims == ("demo/false", "demo/absent")
    html = report.page.read_text(encoding="utf-8")
    for words in ("2 of 3 theory checks fail", "✗ differs", "✓ holds", "999.0 s.e. apart",
                  "demo/absent"):  # fmt: skip
        assert words in html


def test_claims_are_not_run_where_checks_are_declined_and_the_page_says_so(
    tmp_path, demo_claims, make_figure
):
    figures = Registry([make_figure(claims=("demo/false",))])
    report = build(figures=figures, out=tmp_path, checks=False, progress=False)
    assert report.ok
    assert "theory checks not run" in report.page.read_text(encoding="utf-8")


def test_a_claim_that_several_figures_share_is_run_once(tmp_path, make_figure):
    from privlearn import claims

    runs = []

    def measure(profile):
        runs.append(profile)
        return claims.Measurement(1.0, 1.001, 0.001, 1000)

    with claims.isolated():
        claims.register(
            claims.Claim("demo/counted", "demo", "one is one", "Peano", measure, resolution=0.01)
        )
        patterns = {"one": ("demo/counted", "demo/*"), "two": ("demo/c*",), "three": ("demo",)}
        figures = Registry([make_figure(name, claims=patterns[name]) for name in patterns])
        assert build(figures=figures, profile="paper", out=tmp_path, progress=False).ok
    assert runs == ["paper"]
    assert "3 figures" in re.sub("<.*?>", "", (tmp_path / "index.html").read_text())
    for name in patterns:
        assert len(export.read_record(tmp_path / name).verdicts) == 1


def test_rebuilding_one_figure_keeps_the_others_on_the_page(tmp_path, demo):
    build(figures=demo, out=tmp_path, checks=False, progress=False)
    svg = (tmp_path / "facets" / "facets.svg").stat().st_mtime_ns
    report = build(["curves"], profile="paper", figures=demo, out=tmp_path, checks=False,
                   progress=False)  # fmt: skip
    assert [outcome.name for outcome in report.outcomes] == ["curves"]
    assert (tmp_path / "facets" / "facets.svg").stat().st_mtime_ns == svg
    html = report.page.read_text(encoding="utf-8")
    for name in demo.names():
        assert f'data-spec="spec-{name}"' in html
    assert html.count("paper profile,") == 1
    assert html.count("quick profile,") == 3


def test_a_figure_whose_files_are_gone_or_corrupt_is_dropped_from_the_page(tmp_path, demo):
    build(figures=demo, out=tmp_path, checks=False, progress=False)
    (tmp_path / "facets" / "facets.png").unlink()
    (tmp_path / "band" / "band.svg").write_text("<svg")
    page = build(["curves"], figures=demo, out=tmp_path, checks=False, progress=False).page
    html = page.read_text(encoding="utf-8")
    assert [name for name in demo.names() if f'id="{name}"' in html] == ["curves", "hostile"]
    build(["facets", "band"], figures=demo, out=tmp_path, checks=False, progress=False)
    html = page.read_text(encoding="utf-8")
    assert all(f'id="{name}"' in html for name in demo.names())


def test_a_figure_that_fails_now_does_not_show_what_it_was_before(tmp_path, demo, make_figure):
    build(["curves"], figures=demo, out=tmp_path, checks=False, progress=False)
    broken = Registry([make_figure("curves", compute=lambda n, seed: 1 / 0)])
    build(figures=broken, out=tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "curves").iterdir()] == ["figure.json"]


def test_a_figure_that_no_longer_exists_leaves_the_page(tmp_path, demo):
    build(figures=demo, out=tmp_path, checks=False, progress=False)
    fewer = Registry([demo.get("curves")])
    html = build(figures=fewer, out=tmp_path, checks=False, progress=False).page.read_text()
    assert 'id="curves"' in html
    assert 'id="facets"' not in html


def test_an_interrupted_build_shows_what_it_had_made(tmp_path, demo, make_figure):
    def interrupt(n, seed):
        raise KeyboardInterrupt

    figures = Registry([demo.get("band"), make_figure("slow", compute=interrupt)])
    with pytest.raises(KeyboardInterrupt):
        build(figures=figures, out=tmp_path, progress=False)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'id="band"' in html
    assert 'id="slow"' not in html


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"names": ["curvs"]}, LookupError, "did you mean curves"),
        ({"profile": "fast"}, ValueError, "one of quick, paper, got 'fast'"),
    ],
)
def test_a_request_that_makes_no_sense_writes_nothing(tmp_path, demo, arguments, error, words):
    with pytest.raises(error, match=words):
        build(**arguments, figures=demo, out=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_a_place_that_is_taken_is_refused_before_any_work(tmp_path, make_figure):
    def never(n, seed):
        raise AssertionError("computed")

    figures = Registry([make_figure(compute=never)])
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        build(figures=figures, out=file, progress=False)
    (tmp_path / "index.html").write_text("<p>my home page</p>")
    with pytest.raises(FileExistsError, match="is another page"):
        build(figures=figures, out=tmp_path, progress=False)
    assert (tmp_path / "index.html").read_text() == "<p>my home page</p>"


def test_a_topic_that_cannot_be_imported_is_shown_as_failed(tmp_path, make_topic):
    make_topic("raise RuntimeError('no such paper')")
    report = build(out=tmp_path, progress=False)
    assert not report.ok
    assert [str(outcome) for outcome in report.outcomes] == [
        "stand_in: failed in 0.0 s: RuntimeError: no such paper"
    ]
    html = report.page.read_text(encoding="utf-8")
    assert "The figures of this topic could not be imported." in html
    assert "RuntimeError: no such paper" in html
    assert not build(["stand_in"], out=tmp_path, progress=False).ok
    with pytest.raises(LookupError) as caught:
        build(["stand-in-risk"], out=tmp_path, progress=False)
    assert "no such paper" in caught.value.__notes__[0]


def test_figures_of_topics_are_built_under_the_title_of_their_package(tmp_path, make_topic):
    make_topic(
        "import privlearn.figures.registry as r\n"
        "from stand_in import make_figure\n"
        "r.register(make_figure('found', topic='stand_in'))\n"
    )
    report = build(["stand_in"], out=tmp_path, progress=False)
    assert [outcome.name for outcome in report.outcomes if outcome.topic == "stand_in"] == ["found"]
    assert '<h2 id="topic-stand_in">Stand-in</h2>' in report.page.read_text(encoding="utf-8")


def test_a_killed_build_can_be_finished(tmp_path):
    """SIGKILL in the second figure: the first is complete, the second is not there."""
    script = """
        import os, pathlib, signal, sys
        import altair as alt, polars as pl
        from privlearn.figures import Figure, Registry, build

        def compute(kill):
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return pl.DataFrame({"x": [1, 2]})

        def figure(name, kill):
            return Figure(
                name, "demo", "T", "C", "S", {"quick": {"kill": kill}, "paper": {"kill": kill}},
                compute, lambda table: alt.Chart(table).mark_point().encode(x="x:Q"),
            )

        figures = Registry([figure("one", False), figure("two", sys.argv[2] == "kill")])
        raise SystemExit(not build(figures=figures, out=sys.argv[1], progress=False).ok)
    """

    def run(what):
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), what]
        return subprocess.run(command, env=dict(os.environ), check=False).returncode

    assert run("kill") == -signal.SIGKILL
    assert export.read_record(tmp_path / "one").ok
    assert not (tmp_path / "two").exists()
    assert not (tmp_path / "index.html").exists()
    assert run("finish") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "one", "two"]


def test_importing_the_package_and_its_register_imports_neither_jax_nor_altair():
    script = (
        "import sys, privlearn.figures as f; f.Figure; f.register; f.build;"
        "sys.exit(bool({'jax', 'altair', 'polars', 'jinja2'} & set(sys.modules)))"
    )
    assert privlearn.figures
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
