import json
import os
import signal
import subprocess
import sys
import textwrap

import altair as alt
import polars as pl
import pytest
import vl_convert

from privlearn.figures import build, export, theme


def all_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
            if p.is_file()}  # fmt: skip


def test_every_figure_leaves_data_specification_and_pictures(tmp_path, demo):
    build(["curves"], figures=demo, out=tmp_path, progress=False)
    folder = tmp_path / "curves"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.csv", "curves.parquet", "curves.png", "curves.svg", "curves.vl.json", "figure.json",
    ]  # fmt: skip
    table = demo.get("curves").table("quick")
    assert pl.read_parquet(folder / "curves.parquet").equals(table)
    assert pl.read_csv(folder / "curves.csv").height == table.height
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    spec = json.loads((folder / "curves.vl.json").read_text())
    assert spec["config"]["range"]["category"] == list(theme.PALETTE)


def test_png_has_twice_the_size_of_svg(tmp_path, demo):
    build(["band"], figures=demo, out=tmp_path, progress=False)
    width, height = export.read_record(tmp_path / "band").size
    png = (tmp_path / "band" / "band.png").read_bytes()
    size = [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)]
    assert size == pytest.approx([2 * width, 2 * height], abs=2)


def test_nested_columns_are_left_out_of_csv_only(tmp_path, make_figure):
    table = pl.DataFrame({"x": [1, 2], "draws": [[1.0], [2.0, 3.0]]})
    figure = make_figure(
        compute=lambda n, seed: table,
        draw=lambda t: alt.Chart(t.drop("draws")).mark_point().encode(x="x:Q"),
    )
    written = export.write_files("p", figure.table(), theme.spec(figure.draw(table)), tmp_path)
    assert "csv" not in written["files"]
    assert pl.read_parquet(tmp_path / "p.parquet").equals(table)


def test_the_same_figure_gives_the_same_bytes_whatever_was_drawn_before(tmp_path, demo):
    build(["band", "curves"], figures=demo, out=tmp_path / "a", progress=False)
    build(["curves"], figures=demo, out=tmp_path / "b", progress=False)
    first, second = (all_files(tmp_path / build_ / "curves") for build_ in "ab")
    for files in (first, second):
        files.pop("figure.json")  # holds the run time
    assert first == second


def test_data_from_a_network_is_refused(tmp_path):
    spec = {"layer": [{"data": {"url": "https://example.org/x.csv"}, "mark": "point"}]}
    with pytest.raises(ValueError, match=r"https://example.org/x\.csv"):
        export.write_files("x", pl.DataFrame({"x": [1]}), spec, tmp_path)


def test_a_column_called_data_with_addresses_in_it_is_no_network_access(tmp_path):
    table = pl.DataFrame({"x": [1], "url": ["https://example.org"]})
    spec = theme.spec(alt.Chart(table).mark_point().encode(x="x:Q", tooltip="url:N"))
    assert export.write_files("x", table, spec, tmp_path)["rows"] == 1


@pytest.mark.parametrize("step", ["vegalite_to_svg", "vegalite_to_png"])
def test_an_export_that_fails_half_way_leaves_no_half_figure(tmp_path, demo, monkeypatch, step):
    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(vl_convert, step, fail)
    report = build(["band"], figures=demo, out=tmp_path, progress=False)
    assert not report.ok
    assert report.outcomes[0].error == "OSError: no space left"
    assert sorted(all_files(tmp_path)) == ["band/figure.json", "index.html"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_block_that_raises_leaves_the_folder_as_it_was(tmp_path):
    folder = tmp_path / "risk"
    with export.replacing(folder) as staging:
        (staging / "risk.svg").write_text("old")

    def interrupted():
        with export.replacing(folder) as staging:
            (staging / "risk.svg").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all_files(tmp_path) == {"risk/risk.svg": b"old"}


def test_a_killed_export_leaves_the_folder_as_it_was_and_the_next_one_cleans_up(tmp_path):
    folder = tmp_path / "risk"
    with export.replacing(folder) as staging:
        (staging / "risk.svg").write_text("old")
    script = f"""
        import os, pathlib, signal
        from privlearn.figures import export
        with export.replacing(pathlib.Path({str(folder)!r})) as staging:
            (staging / "risk.svg").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert (folder / "risk.svg").read_text() == "old"
    with export.replacing(folder) as staging:
        (staging / "risk.svg").write_text("new")
    assert all_files(tmp_path) == {"risk/risk.svg": b"new"}


def test_a_text_file_that_cannot_be_written_whole_keeps_its_old_content(tmp_path):
    path = tmp_path / "index.html"
    export.write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        export.write_whole(path, "new \ud800")
    assert all_files(tmp_path) == {"index.html": b"old"}


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path, demo):
    (tmp_path / "band").mkdir()
    (tmp_path / "band" / "thesis.tex").write_text("years of work")
    report = build(["band"], figures=demo, out=tmp_path, progress=False)
    assert "move them away" in report.outcomes[0].error
    assert (tmp_path / "band" / "thesis.tex").read_text() == "years of work"
    assert "move them away" in report.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["remove", "truncate", "alter", "garble", "unknown"])
def test_a_damaged_figure_is_not_read_back(tmp_path, demo, damage):
    build(["band"], figures=demo, out=tmp_path, progress=False)
    folder = tmp_path / "band"
    assert export.read_record(folder).ok
    svg, record = folder / "band.svg", folder / "figure.json"
    if damage == "remove":
        svg.unlink()
    elif damage == "truncate":
        svg.write_bytes(svg.read_bytes()[:100])
    elif damage == "alter":
        svg.write_bytes(svg.read_bytes().replace(b"Risk", b"risk"))
    elif damage == "garble":
        record.write_bytes(record.read_bytes()[:200])
    else:
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 0}))
    assert export.read_record(folder) is None


def test_settings_are_shown_as_a_reader_wants_them():
    import numpy as np

    assert export.shown("a, b") == "a, b"
    assert export.shown((1, np.float64(0.5))) == "[1, 0.5]"
    assert export.shown(np.arange(3)) == "[0, 1, 2]"
    assert export.shown(range(3)) == "[0, 1, 2]"
    assert export.shown(None) == "null"
    assert export.shown({1j}) == '"{1j}"'
