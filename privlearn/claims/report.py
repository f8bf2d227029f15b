"""What a person and a program read about the verdicts: a table, a JSON file, an exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import privlearn
from privlearn.claims import checking, registry
from privlearn.claims.checking import Verdict
from privlearn.claims.claim import PROFILES, Claim

_WIDTH = 98
_MARK = {"passed": "ok", "differs": "FAIL", "blunt": "BLUNT", "invalid": "FAIL", "error": "ERROR"}


def header() -> str:
    """Return the two lines that name the columns of `row`."""
    line = (
        f"{'':5} {'claim':36} {'theory':>11} {'estimate':>11} {'off':>7} "
        f"{'sees':>8} {'asked':>6} {'time':>7}"
    )
    return f"{line}\n{'-' * len(line)}"


def row(verdict: Verdict) -> str:
    """Return one verdict as a line of the table, and what is wrong, if anything, below it.

    Parameters
    ----------
    verdict : Verdict
        What came of a claim.

    Returns
    -------
    str
        At most 98 columns wide. "off" counts standard errors (for exact comparisons it is
        empty); "sees" is the measured resolution, "asked" the declared one, in percent.
    """
    name = verdict.name if len(verdict.name) <= 36 else verdict.name[:35] + "…"
    line = (
        f"{_MARK[verdict.status]:5} {name:36} {_number(verdict.theory):>11} "
        f"{_number(verdict.estimate):>11} {_sigmas(verdict.sigmas):>7} "
        f"{_percent(verdict.resolution):>8} {_percent(verdict.declared_resolution):>6} "
        f"{verdict.seconds:>5.1f} s"
    )
    if verdict.passed:
        return line
    notes = textwrap.wrap(verdict.message, _WIDTH - 8) + textwrap.wrap(
        f"claim: {verdict.statement} [{verdict.source}]", _WIDTH - 8
    )
    return "\n".join([line, *(f"      {note}" for note in notes)])


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return the closing line: how many passed, which did not."""
    failed = [verdict.name for verdict in verdicts if not verdict.passed]
    seconds = sum(verdict.seconds for verdict in verdicts)
    text = f"{len(verdicts) - len(failed)} of {len(verdicts)} claims hold ({seconds:.1f} s)"
    return f"{text}; not so: {', '.join(failed)}" if failed else text


def table(verdicts: Sequence[Verdict]) -> str:
    """Return all verdicts as a table of at most 100 columns.

    Parameters
    ----------
    verdicts : sequence of Verdict
        What `run` returned.

    Returns
    -------
    str
        Header, one line a claim, and a summary.
    """
    return "\n".join([header(), *map(row, verdicts), summary(verdicts)])


def listing(claims: Iterable[Claim]) -> str:
    """Return the claims with their statements, without checking any."""
    lines = []
    for claim in claims:
        lines.append(claim.name)
        lines += textwrap.wrap(
            f"{claim.statement} [{claim.source}]",
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    return "\n".join(lines)


def write_json(verdicts: Sequence[Verdict], path: str | os.PathLike[str]) -> Path:
    """Write verdicts as JSON; the file appears complete or not at all.

    Parameters
    ----------
    verdicts : sequence of Verdict
        What `run` returned.
    path : path
        Where to; missing folders are made.

    Returns
    -------
    Path
        Where it was written. What is not finite is null.
    """
    path = Path(path)
    content = {
        "privlearn": privlearn.__version__,
        "passed": all(verdict.passed for verdict in verdicts),
        "claims": [to_dict(verdict) for verdict in verdicts],
    }
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain values that JSON can hold, all components included.

    Parameters
    ----------
    verdict : Verdict
        What came of a claim.

    Returns
    -------
    dict
        The fields of the verdict; ``values`` holds the components if there are several.
    """
    fields = {
        f.name: _plain(getattr(verdict, f.name))
        for f in dataclasses.fields(verdict)
        if f.name != "measurement"
    }
    if verdict.size > 1 and verdict.measurement is not None:
        fields["values"] = {
            part: _plain(np.asarray(getattr(verdict.measurement, part), float).tolist())
            for part in ("theory", "estimate", "stderr")
        }
    return fields


def main(topic: str | None = None, argv: Sequence[str] | None = None) -> int:
    """Run the claims of one theory-check file, as ``python theory_checks/aggregate.py`` does.

    Parameters
    ----------
    topic : str, optional
        Only the claims of this topic.
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 if all claims hold, 1 if one does not, 2 for a name that matches nothing.
    """
    parser = argparse.ArgumentParser(
        description=f"Check what was published about {topic or 'every topic'}."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claim names or globs; none: all")
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--json", metavar="FILE", help="also write the verdicts there")
    parser.add_argument("--list", action="store_true", help="print the claims, check none")
    options = parser.parse_args(argv)
    try:
        claims = registry.select(options.names or (topic or ()))
    except LookupError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    if options.list:
        print(listing(claims))
        return 0
    print(header(), flush=True)
    verdicts = []
    for claim in claims:
        verdicts.append(checking.check_claim(claim, options.profile))
        print(row(verdicts[-1]), flush=True)
    print(summary(verdicts))
    if options.json:
        write_json(verdicts, options.json)
    return 0 if verdicts and all(verdicts) else 1


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _sigmas(value: float) -> str:
    if not math.isfinite(value):
        return ""
    if abs(value) >= 1000:
        return f"{'+' if value > 0 else '-'}>1k se"
    return f"{value:+.{1 if abs(value) < 10 else 0}f} se"


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:.2g} %"
