"""The report page: one HTML file that needs no network, made from the records in a folder."""

from __future__ import annotations

import functools
import json
import math
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import privlearn
from privlearn.figures import export, theme
from privlearn.figures.export import Record
from privlearn.figures.registry import Registry

_PAGE = "index.html"
#: By this a page of ours is told from somebody else's.
_GENERATOR = f'<meta name="generator" content="{__name__}">'
_FILES = {"parquet": "Parquet", "csv": "CSV", "svg": "SVG", "png": "PNG", "spec": "Vega-Lite"}


@dataclass(frozen=True, slots=True)
class _Section:
    """One topic on the page."""

    topic: str
    title: str
    records: tuple[Record, ...]
    error: str = ""
    traceback: str = ""


def check_place(out: Path) -> None:
    """Refuse to build where something else lives.

    Raises
    ------
    NotADirectoryError
        If `out` is a file.
    FileExistsError
        If it holds an index.html that this package did not write.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"out must be a folder, {out} is a file")
    page = out / _PAGE
    if page.exists() and _GENERATOR not in page.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(f"{page} is another page: choose another folder, or move it away")


def write(
    out: Path,
    register: Registry,
    records: Iterable[Record] = (),
    broken: Mapping[str, Exception] | None = None,
) -> Path:
    """Write the page for all figures of a register that have records in `out`.

    Parameters
    ----------
    out : Path
        The folder of the build.
    register : Registry
        Says which figures there are, and in which order.
    records : iterable of Record
        What the present build made; counts only where it could not be written to `out`.
    broken : mapping of str to Exception, optional
        Topics that could not be imported.

    Returns
    -------
    Path
        The page.
    """
    fresh = {record.name: record for record in records}
    found = [export.read_record(out / name) or fresh.get(name) for name in register.names()]
    sections = _sections([record for record in found if record is not None], broken or {})
    page = out / _PAGE
    export.write_whole(page, _render(sections, out))
    return page


def _sections(records: list[Record], broken: Mapping[str, Exception]) -> list[_Section]:
    """Group records by topic, in the order in which the package lists topics."""
    topics = dict.fromkeys([*privlearn.TOPICS, *(record.topic for record in records)])
    sections = []
    for topic in topics:
        mine = tuple(record for record in records if record.topic == topic)
        error = broken.get(topic)
        if error is not None:
            words = "".join(traceback.format_exception_only(error)).strip()
            text = "".join(traceback.format_exception(error))
            sections.append(_Section(topic, _topic_title(topic), mine, words, text))
        elif mine:
            sections.append(_Section(topic, _topic_title(topic), mine))
    return sections


def _topic_title(topic: str) -> str:
    """Take the first line of the topic package's docstring, if it is loaded and has one."""
    module = sys.modules.get(f"privlearn.{topic}")
    doc = ((module and module.__doc__) or "").strip()
    title = doc.split("\n", 1)[0].split(":", 1)[0].rstrip(".")
    return title or topic.replace("_", " ").capitalize()


def _render(sections: list[_Section], out: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("privlearn.figures", "template"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=_number, percent=_percent, seconds=_seconds)
    records = [record for section in sections for record in section.records]
    made = [record for record in records if record.status == "made"]
    verdicts = {v["name"]: v["passed"] for record in records for v in record.verdicts}
    return environment.get_template("page.html.jinja").render(
        generator=Markup(_GENERATOR),
        sections=sections,
        n_figures=len(records),
        n_failed=len(records) - len(made) + sum(bool(section.error) for section in sections),
        n_checks=len(verdicts),
        n_passed=sum(verdicts.values()),
        profiles=sorted({record.profile for record in records}),
        specs={record.name: _spec(out, record) for record in made},
        files=_FILES,
        dark=_script_json(theme.DARK),
        version=privlearn.__version__,
        style=Markup(_source("page.css")),
        errors=_script("errors.js"),
        vega=_vega(),
        script=_script("page.js"),
    )


@functools.cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script with nothing left to fetch."""
    import vl_convert

    return _safe_script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _spec(out: Path, record: Record) -> Markup:
    path = out / record.name / record.files["spec"][0]
    return _script_json(json.loads(path.read_text(encoding="utf-8")))


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, nor start a comment there."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _source(name: str) -> str:
    return (Path(__file__).parent / "template" / name).read_text(encoding="utf-8")


def _script(name: str) -> Markup:
    return _safe_script(_source(name))


def _safe_script(text: str) -> Markup:
    """Keep strings of a script from ending its element."""
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.5g}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.2g} %"


def _seconds(value: float) -> str:
    if value < 0.1:
        return "under 0.1 s"
    return f"{value:.1f} s" if value < 90 else f"{value / 60:.1f} min"
