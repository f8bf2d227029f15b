"""Which figures there are: one value per figure, and the register that finds them by name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

#: The two scales at which every figure can be made: minutes on two cores, and as published.
PROFILES = ("quick", "paper")

_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TOPIC = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One figure of the report: where it comes from, what to compute, how to draw it.

    Parameters
    ----------
    name : str
        Kebab case, unique, starting with a letter: ``"aggregate-risk-curves"``.
    topic : str
        The topic package that it belongs to: ``"aggregate"``.
    title : str
        A short heading.
    caption : str
        What the figure shows and how to read it, error bars included, in plain words.
        Blank lines separate paragraphs.
    source : str
        What it regenerates: paper and figure number, or the equation.
    profiles : mapping from "quick" and "paper" to settings
        Keyword arguments of `compute`, seeds included. Numbers, strings, tuples: they are shown.
    compute : callable
        ``compute(**settings)`` gives the table to plot: polars, or any frame narwhals reads.
    draw : callable
        ``draw(table)`` gives the Altair chart of that table (a polars frame), with no data of
        its own from elsewhere.
    claims : tuple of str, default=()
        Names, or globs, of the theory checks (`privlearn.claims`) that certify what is shown.

    Raises
    ------
    ValueError
        If a name or text is unusable, a profile is missing, or settings do not fit `compute`.
    TypeError
        If `compute` or `draw` cannot be called, or `claims` is one string.

    Examples
    --------
    >>> import altair as alt, polars as pl
    >>> parabola = Figure(
    ...     name="parabola",
    ...     topic="demo",
    ...     title="A parabola",
    ...     caption="The square of x.",
    ...     source="Euclid",
    ...     profiles={"quick": {"n": 3}, "paper": {"n": 100}},
    ...     compute=lambda n: pl.DataFrame({"x": range(n), "y": [x * x for x in range(n)]}),
    ...     draw=lambda table: alt.Chart(table).mark_line().encode(x="x:Q", y="y:Q"),
    ... )
    >>> parabola.table("quick")["y"].to_list()
    [0, 1, 4]
    """

    name: str
    topic: str
    title: str
    caption: str
    source: str
    profiles: Mapping[str, Mapping[str, Any]]
    compute: Callable[..., Any]
    draw: Callable[..., Any]
    claims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse at definition what would fail at the end of a long build."""
        if not (isinstance(self.name, str) and _KEBAB.fullmatch(self.name)):
            raise ValueError(
                f"name must be kebab case and start with a letter, as in 'aggregate-risk', "
                f"got {self.name!r}"
            )
        if not (isinstance(self.topic, str) and _TOPIC.fullmatch(self.topic)):
            raise ValueError(f"figure {self.name!r}: topic must be a package name: {self.topic!r}")
        for text in ("title", "caption", "source"):
            value = getattr(self, text)
            if not (isinstance(value, str) and value.strip()):
                raise ValueError(f"figure {self.name!r}: {text} must not be empty")
        for function in ("compute", "draw"):
            if not callable(getattr(self, function)):
                raise TypeError(f"figure {self.name!r}: {function} must be callable")
        if isinstance(self.claims, str):
            raise TypeError(f"figure {self.name!r}: claims must be a tuple of names, not one str")
        object.__setattr__(self, "claims", tuple(self.claims))
        object.__setattr__(self, "profiles", _checked_profiles(self))

    def settings(self, profile: str = "quick") -> Mapping[str, Any]:
        """Give the settings of one profile; ValueError if there is no such profile."""
        return self.profiles[checked_profile(profile)]

    def table(self, profile: str = "quick") -> pl.DataFrame:
        """Compute the table of this figure.

        Raises
        ------
        TypeError
            If `compute` gave something that is no table.
        ValueError
            If it gave a table without rows.
        """
        import narwhals as nw

        native = self.compute(**self.settings(profile))
        frame = nw.from_native(native, pass_through=True)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect()
        if not isinstance(frame, nw.DataFrame):
            raise TypeError(
                f"figure {self.name!r}: compute must return a table, got {type(native).__name__}"
            )
        table = frame.to_polars()
        if table.is_empty():
            raise ValueError(f"figure {self.name!r}: compute returned a table without rows")
        return table

    def chart(self, profile: str = "quick") -> alt.TopLevelMixin:
        """Compute, draw and theme this figure, ready for a notebook."""
        from privlearn.figures.theme import themed

        return themed(self.draw(self.table(profile)))


def checked_profile(profile: str) -> str:
    """Return `profile` if it is one; ValueError that lists them otherwise."""
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return profile


def _checked_profiles(figure: Figure) -> Mapping[str, Mapping[str, Any]]:
    """Read-only copy of the figure's profiles, each of which fits its compute function."""
    if set(figure.profiles) != set(PROFILES):
        raise ValueError(
            f"figure {figure.name!r}: profiles must be exactly {', '.join(PROFILES)}, "
            f"got {', '.join(map(str, figure.profiles)) or 'none'}"
        )
    for profile, settings in figure.profiles.items():
        try:
            inspect.signature(figure.compute).bind(**settings)
        except TypeError as error:
            raise ValueError(
                f"figure {figure.name!r}: settings of profile {profile!r} do not fit compute: "
                f"{error}"
            ) from error
    return MappingProxyType({p: MappingProxyType(dict(figure.profiles[p])) for p in PROFILES})


class Registry:
    """Figures by name, in the order in which they were registered."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self._figures: dict[str, Figure] = {}
        for figure in figures:
            self.register(figure)

    def __iter__(self):
        return iter(self._figures.values())

    def __len__(self) -> int:
        return len(self._figures)

    def register(self, figure: Figure) -> Figure:
        """Add a figure and return it; ValueError if another one has its name."""
        if not isinstance(figure, Figure):
            raise TypeError(f"register takes a Figure, got {type(figure).__name__}")
        known = self._figures.setdefault(figure.name, figure)
        if known is not figure:
            raise ValueError(
                f"there are two figures named {figure.name!r}: one of topic {known.topic!r} "
                f"(compute in {known.compute.__module__}) and one of topic {figure.topic!r} "
                f"(compute in {figure.compute.__module__}); rename one"
            )
        return figure

    def get(self, name: str) -> Figure:
        """Return the figure of that exact name; LookupError with close matches otherwise."""
        if name not in self._figures:
            raise _unknown(name, self)
        return self._figures[name]

    def names(self, topic: str | None = None) -> tuple[str, ...]:
        """Names of all figures, or of those of one topic."""
        return tuple(f.name for f in self if topic is None or f.topic == topic)

    def select(self, patterns: Iterable[str] = ()) -> tuple[Figure, ...]:
        """Return the figures meant by exact names, topic names and globs; all if none is given.

        Each figure comes once, in the order of the register. LookupError if a pattern means none.
        """
        if isinstance(patterns, str):
            patterns = (patterns,)
        patterns = tuple(patterns)
        for pattern in patterns:
            if not any(_means(pattern, figure) for figure in self):
                raise _unknown(pattern, self)
        return tuple(f for f in self if not patterns or any(_means(p, f) for p in patterns))


def _means(pattern: str, figure: Figure) -> bool:
    return pattern in (figure.name, figure.topic) or fnmatchcase(figure.name, pattern)


def _unknown(name: str, registry: Registry) -> LookupError:
    """Say that nothing is called `name`, and what its author may have meant."""
    known = dict.fromkeys([*(f.topic for f in registry), *registry.names()])
    if not known:
        return LookupError(f"no figure {name!r}: no figures are registered")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}"
    return LookupError(f"no figure, topic or pattern {name!r}; {hint}")


#: The register that topic packages fill and that the report is built from.
REGISTRY = Registry()


def register(figure: Figure) -> Figure:
    """Add a figure to the report; the last line of every definition in a topic's `figures.py`."""
    return REGISTRY.register(figure)


def discover(topics: Iterable[str] | None = None) -> None:
    """Import ``privlearn.<topic>.figures`` of every topic that has one.

    A module that fails on import leaves none of its figures behind, and its error is raised.
    """
    import privlearn

    for topic in privlearn.TOPICS if topics is None else topics:
        module = f"privlearn.{topic}.figures"
        if importlib.util.find_spec(module) is None:
            continue
        before = dict(REGISTRY._figures)
        try:
            importlib.import_module(module)
        except BaseException:
            REGISTRY._figures = before
            raise


def get(name: str) -> Figure:
    """Return the figure of that exact name; LookupError with close matches otherwise."""
    discover()
    return REGISTRY.get(name)


def names(topic: str | None = None) -> tuple[str, ...]:
    """Names of all figures, or of those of one topic."""
    discover()
    return REGISTRY.names(topic)


def select(patterns: Iterable[str] = ()) -> tuple[Figure, ...]:
    """Return the figures meant by exact names, topic names and globs; all if none is given."""
    discover()
    return REGISTRY.select(patterns)
