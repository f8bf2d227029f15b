"""What a figure leaves on disk: a folder that is complete, or is not there.

``OUT/<name>/`` holds the data (Parquet, and CSV where the columns allow it), the Vega-Lite
specification, SVG, PNG and ``figure.json``: the record of how they were made, with the SHA-256 of
each. The page is made from these records alone, so figures of earlier builds stay on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

RECORD = "figure.json"
_FORMAT = 1
_PNG_SCALE = 2


@dataclass(frozen=True, slots=True)
class Record:
    """All that the page says about one figure, as plain values.

    Parameters
    ----------
    name, topic, title, caption, source : str
        Of the figure.
    profile : str
        "quick" or "paper".
    settings : dict of str to str
        The settings of that profile, as shown.
    status : {"made", "failed"}
    seconds : float
        Wall-clock time of computing, drawing and writing it; its claims not included.
    error, traceback : str
        What went wrong, if it failed.
    rows : int
        Rows of its table.
    files : dict of str to (str, str)
        For "parquet", "csv", "spec", "svg" and "png": name of the file and its SHA-256.
    size : (int, int)
        Width and height of the SVG, in pixels.
    checked : bool
        Whether its claims were run.
    claims : tuple of str
        The names of its claims.
    verdicts : list of dict
        What came of them, as `privlearn.claims.to_dict` gives it.
    versions : dict of str to str
        Versions of the packages that made it.
    """

    name: str
    topic: str
    title: str
    caption: str
    source: str
    profile: str
    settings: dict[str, str] = field(default_factory=dict)
    status: str = "failed"
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""
    rows: int = 0
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    checked: bool = False
    claims: tuple[str, ...] = ()
    verdicts: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the figure was made and none of its claims failed."""
        return self.status == "made" and all(verdict["passed"] for verdict in self.verdicts)


def write_files(name: str, table: pl.DataFrame, spec: dict[str, Any], into: Path) -> dict[str, Any]:
    """Write data, specification, SVG and PNG of a figure; gives those fields of its `Record`.

    Raises
    ------
    ValueError
        If the specification fetches data from elsewhere: the page must work offline.
    """
    import vl_convert

    for address in _addresses(spec):
        raise ValueError(f"draw refers to data at {address!r}; put the data into the table")
    data = {"parquet": into / f"{name}.parquet"}
    table.write_parquet(data["parquet"])
    if not any(dtype.is_nested() for dtype in table.dtypes):
        data["csv"] = into / f"{name}.csv"
        table.write_csv(data["csv"])
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    svg = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    png = vl_convert.vegalite_to_png(text, scale=_PNG_SCALE, allowed_base_urls=[])
    charts: dict[str, tuple[str, bytes]] = {
        "spec": ("vl.json", text.encode()),
        "svg": ("svg", svg.encode()),
        "png": ("png", png),
    }
    paths = {role: into / f"{name}.{suffix}" for role, (suffix, _) in charts.items()}
    for role, (_, content) in charts.items():
        paths[role].write_bytes(content)
    files = {role: (path.name, _sha256(path)) for role, path in (data | paths).items()}
    return {"rows": table.height, "files": files, "size": _size_of_svg(svg)}


def write_record(record: Record, into: Path) -> None:
    """Write the record beside the files that it describes."""
    text = json.dumps({"format": _FORMAT, **asdict(record)}, indent=1, ensure_ascii=False)
    (into / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """Read a figure back; None if anything of it is missing, corrupt or of another format."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT or set(content) != {f.name for f in fields(Record)}:
            return None
        record = Record(**content)
        intact = all(_sha256(folder / path) == digest for path, digest in record.files.values())
        complete = record.status == "failed" or {"parquet", "spec", "svg", "png"} <= {*record.files}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if intact and complete and record.name == folder.name else None


def is_ours(folder: Path) -> bool:
    """Whether nothing is in the way there: no file, and no folder that holds other things."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name == RECORD or path.name.startswith(f"{folder.name}.") for path in folder.iterdir()
    )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Fill a new folder beside `folder`, which takes its place at the end of the block.

    If the block raises, or the process dies in it, `folder` is what it was.

    Raises
    ------
    FileExistsError
        If `folder` holds anything but an earlier version of the figure.
    """
    if not is_ours(folder):
        raise FileExistsError(f"{folder} holds files that no figure wrote: move them away")
    staging, old = (folder.with_name(f".{folder.name}.{part}") for part in ("new", "old"))
    for leftover in (staging, old):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.new")
    try:
        staging.write_text(text, encoding="utf-8")
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def shown(value: Any) -> str:
    """Write a setting as a reader wants to see it: words as they are, arrays as lists."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays, and ranges, as Python has them; anything else by its repr."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, range) else repr(value)


def _addresses(part: Any) -> Iterator[str]:
    """Addresses that a specification would fetch data from."""
    if isinstance(part, list):
        for item in part:
            yield from _addresses(item)
    elif isinstance(part, dict):
        data = part.get("data")
        if isinstance(data, dict) and "url" in data:
            yield str(data["url"])
        for key, item in part.items():
            if key not in ("datasets", "values"):
                yield from _addresses(item)


def _size_of_svg(svg: str) -> tuple[int, int]:
    import xml.etree.ElementTree as ET

    root = ET.fromstring(svg)
    return round(float(root.attrib["width"])), round(float(root.attrib["height"]))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
