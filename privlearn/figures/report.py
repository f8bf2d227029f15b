"""Making figures: each on its own, so that one which fails takes nothing with it."""

from __future__ import annotations

import importlib.metadata
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privlearn.figures import export, registry
from privlearn.figures.export import Record
from privlearn.figures.registry import Figure, Registry

#: The packages whose versions decide what a figure looks like.
_PACKAGES = (
    "privlearn",
    "jax",
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "altair",
    "vl-convert-python",
)

#: The verdict on a claim that does not exist.
_NOT_RUN: dict[str, Any] = {
    "source": "",
    "status": "error",
    "passed": False,
    "theory": None,
    "estimate": None,
    "stderr": None,
    "resolution": None,
    "declared_resolution": None,
    "n_sigma": None,
    "seconds": 0.0,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one figure.

    Parameters
    ----------
    name, topic : str
        Of the figure. Where a whole topic could not be imported, both are the topic.
    status : {"made", "failed"}
    seconds : float
        Wall-clock time, its claims not included.
    error : str
        What went wrong ("" if made); the page has the traceback.
    failed_claims : tuple of str
        Names of its claims that did not hold.
    """

    name: str
    topic: str
    status: str
    seconds: float
    error: str = ""
    failed_claims: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the figure was made and none of its claims failed."""
        return self.status == "made" and not self.failed_claims

    def __str__(self) -> str:
        text = f"{self.name}: {self.status} in {self.seconds:.1f} s"
        if self.error:
            text += f": {self.error}"
        if self.failed_claims:
            text += f"; failed claims: {', '.join(self.failed_claims)}"
        return text


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came of a build.

    Parameters
    ----------
    page : Path
        The report page.
    profile : str
        "quick" or "paper".
    outcomes : tuple of Outcome
        One per figure that this build was asked for, in the order of the page.
    """

    page: Path
    profile: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether every figure was made and every claim that was run holds."""
        return all(outcome.ok for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes that are not well."""
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    def __str__(self) -> str:
        lines = [*map(str, self.outcomes), f"{len(self.outcomes) - len(self.failed)} of "]
        lines[-1] += f"{len(self.outcomes)} figures are well; see {self.page}"
        return "\n".join(lines)


def build(
    names: Iterable[str] = (),
    *,
    profile: str = "quick",
    out: str | Path = "build/figures",
    checks: bool = True,
    progress: bool | Callable[[Outcome], None] = True,
    figures: Registry | None = None,
) -> BuildReport:
    """Make figures and the page that shows them.

    Parameters
    ----------
    names : iterable of str, default=()
        Figures, topics or globs; all figures if none is given.
    profile : {"quick", "paper"}
        Which settings to use.
    out : path, default="build/figures"
        Where the page goes, and beside it a folder per figure. Figures that an earlier build left
        there stay on the page, if their files are still what was written.
    checks : bool, default=True
        Whether to run the claims that certify each figure.
    progress : bool or callable, default=True
        Show a progress bar; or call this with the `Outcome` of each figure when it is done.
    figures : Registry, default=None
        The register to build from; that of the topic packages if not given.

    Returns
    -------
    BuildReport
        Its ``ok`` is False if a figure failed or a claim did not hold.

    Raises
    ------
    LookupError
        If a name means no figure.
    ValueError
        If there is no such profile.
    OSError
        If `out` cannot be written to, or holds another page.
    """
    from privlearn.figures import page

    registry.checked_profile(profile)
    out = Path(out)
    page.check_place(out)
    broken = {} if figures is not None else _discover()
    register = registry.REGISTRY if figures is None else figures
    chosen = _choose(register, names, broken)
    outcomes = [
        Outcome(topic, topic, "failed", 0.0, _words(error)) for topic, error in broken.items()
    ]
    claims = _Claims(profile) if checks else None
    records: list[Record] = []
    try:
        for figure in _with_bar(chosen, progress is True):
            records.append(make(figure, profile, out, claims))
            outcomes.append(_outcome(records[-1]))
            if callable(progress):
                progress(outcomes[-1])
    finally:  # what was made before an interruption is shown, too
        place = page.write(out, register, records, broken)
    return BuildReport(page=place, profile=profile, outcomes=tuple(outcomes))


def make(figure: Figure, profile: str, out: Path, claims: _Claims | None) -> Record:
    """Make one figure into its folder in `out`; an error becomes part of the record."""
    from privlearn.figures import theme

    record = Record(
        name=figure.name,
        topic=figure.topic,
        title=figure.title,
        caption=figure.caption,
        source=figure.source,
        profile=profile,
        settings={key: export.shown(value) for key, value in figure.settings(profile).items()},
        claims=figure.claims,
        versions=versions(),
    )
    folder = out / figure.name
    start = time.perf_counter()
    try:
        with export.replacing(folder) as staging:
            table = figure.table(profile)
            spec = theme.spec(figure.draw(table))
            spec.setdefault("description", figure.title)
            written = export.write_files(figure.name, table, spec, staging)
            seconds = time.perf_counter() - start
            record = replace(record, **written, status="made", seconds=seconds)
            if claims is not None:
                record = replace(record, checked=True, verdicts=claims.verdicts(figure.claims))
            export.write_record(record, staging)
    except Exception as error:  # whatever a figure raises is its own affair, shown on the page
        seconds = time.perf_counter() - start
        failed: dict[str, Any] = {"status": "failed", "rows": 0, "files": {}, "size": (0, 0)}
        text = "".join(traceback.format_exception(error))
        record = replace(record, **failed, seconds=seconds, error=_words(error), traceback=text)
        if export.is_ours(folder):
            with export.replacing(folder) as staging:
                export.write_record(record, staging)
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on, none of them imported."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Claims:
    """Verdicts on claims, each run once however many figures lean on it."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._known: dict[str, tuple[dict[str, Any], ...]] = {}

    def verdicts(self, patterns: Iterable[str]) -> tuple[dict[str, Any], ...]:
        """Give the verdicts on all claims that some names or globs mean, each once."""
        found: dict[str, dict[str, Any]] = {}
        for name in (name for pattern in patterns for name in self._names(pattern)):
            if name not in self._known:
                self._known[name] = self._run(name)
            found.update((verdict["name"], verdict) for verdict in self._known[name])
        return tuple(found.values())

    def _names(self, pattern: str) -> tuple[str, ...]:
        from privlearn import claims

        claims.discover()
        try:
            return claims.names((pattern,))
        except LookupError:  # `run` knows whether a file that could not be loaded is to blame
            return (pattern,)

    def _run(self, name: str) -> tuple[dict[str, Any], ...]:
        from privlearn import claims

        try:
            return tuple(map(claims.to_dict, claims.run((name,), profile=self._profile)))
        except LookupError as error:  # a claim that does not exist has not been met
            return ({**_NOT_RUN, "name": name, "statement": name, "message": str(error)},)


def _discover() -> dict[str, Exception]:
    """Import the figures of every topic; gives the errors of those that cannot be imported."""
    import privlearn

    broken = {}
    for topic in privlearn.TOPICS:
        try:
            registry.discover((topic,))
        except Exception as error:  # a topic that cannot be imported leaves the others alone
            broken[topic] = error
    return broken


def _choose(
    register: Registry, names: Iterable[str], broken: dict[str, Exception]
) -> tuple[Figure, ...]:
    """Select figures; a topic that could not be imported is known, though it has none."""
    names = (names,) if isinstance(names, str) else tuple(names)
    left = tuple(name for name in names if name not in broken)
    try:
        return register.select(left) if left or not names else ()
    except LookupError as error:
        for topic, cause in broken.items():
            error.add_note(f"The figures of {topic} could not be imported: {_words(cause)}")
        raise


def _with_bar(figures: tuple[Figure, ...], shown: bool) -> Iterator[Figure]:
    if not shown:
        yield from figures
        return
    from tqdm.auto import tqdm

    with tqdm(figures, unit="figure") as bar:
        for figure in bar:
            bar.set_description(figure.name)
            yield figure


def _outcome(record: Record) -> Outcome:
    failed = tuple(verdict["name"] for verdict in record.verdicts if not verdict["passed"])
    return Outcome(record.name, record.topic, record.status, record.seconds, record.error, failed)


def _words(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()
