"""Where claims are kept, and how they are found again by name, topic or pattern."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from privlearn.claims.claim import Claim, Measurement

_claims: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Add a claim to the registry and return it.

    Parameters
    ----------
    claim : Claim
        The claim; its name must be new.

    Returns
    -------
    Claim
        The same claim.

    Raises
    ------
    TypeError
        If it is not a `Claim`.
    ValueError
        If another claim, or a topic, already has its name.
    """
    if not isinstance(claim, Claim):
        raise TypeError(f"register expects a Claim, got {type(claim).__name__}")
    if claim.name in _claims:
        other = _claims[claim.name]
        raise ValueError(
            f"there is already a claim named {claim.name!r} (from {other.source}): "
            "give one of the two another name"
        )
    _claims[claim.name] = claim
    return claim


def registrar(topic: str, **defaults: Any) -> Callable[..., Claim]:
    """Give a short form of `register` for the claims of one topic.

    Parameters
    ----------
    topic : str
        Topic of the claims; their names get it as prefix.
    **defaults
        Fields of `Claim` that most of them share, such as ``source``.

    Returns
    -------
    callable
        ``claim(name, statement, measure, **fields)``, which registers and returns a `Claim`.

    Raises
    ------
    TypeError
        From the callable, for a field that `Claim` does not have or that is missing.

    Examples
    --------
    >>> from privlearn import claims
    >>> claim = claims.registrar("doc", source="folklore", resolution=0.1)
    >>> with claims.isolated():
    ...     claim("coin", "half heads", lambda profile: claims.Measurement(0.5, 0.5, 0.01)).name
    'doc/coin'
    """

    def claim(
        name: str, statement: str, measure: Callable[[str], Measurement], **fields: Any
    ) -> Claim:
        given = {**defaults, **fields}
        return register(Claim(f"{topic}/{name}", topic, statement, measure=measure, **given))

    return claim


def names(patterns: str | Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the registered claims that match, in order of registration.

    Parameters
    ----------
    patterns : str or iterable of str
        Each an exact name, a topic or a glob such as ``"aggregate/*risk*"``. None: all claims.

    Returns
    -------
    tuple of str
        Without repetition.

    Raises
    ------
    LookupError
        If a pattern matches nothing; the message lists what is close to it.
    """
    return tuple(claim.name for claim in select(patterns))


def get(name: str) -> Claim:
    """Return the claim of exactly this name.

    Parameters
    ----------
    name : str
        Name of a registered claim.

    Returns
    -------
    Claim
        The claim.

    Raises
    ------
    LookupError
        If there is none; the message lists what is close to it.
    """
    try:
        return _claims[name]
    except KeyError:
        raise LookupError(unknown(name)) from None


def select(patterns: str | Iterable[str] = ()) -> tuple[Claim, ...]:
    """Return the registered claims that match, in order of registration (see `names`)."""
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not patterns:
        return tuple(_claims.values())
    wanted: set[str] = set()
    for pattern in patterns:
        found = [c.name for c in _claims.values() if matches(pattern, c.name, c.topic)]
        if not found:
            raise LookupError(unknown(pattern))
        wanted.update(found)
    return tuple(claim for claim in _claims.values() if claim.name in wanted)


def matches(pattern: str, name: str, topic: str) -> bool:
    """Tell whether a pattern means this claim: its name, its topic, or a glob of its name."""
    return pattern in (name, topic) or fnmatchcase(name, pattern)


def is_known(pattern: str) -> bool:
    """Tell whether a pattern matches any registered claim."""
    return any(matches(pattern, claim.name, claim.topic) for claim in _claims.values())


def unknown(name: str) -> str:
    """Say that nothing has this name, and what comes close."""
    topics = sorted({claim.topic for claim in _claims.values()})
    close = difflib.get_close_matches(name, [*_claims, *topics], n=4, cutoff=0.5)
    if close:
        hint = f"did you mean {', '.join(close)}?"
    elif topics:
        hint = f"there are {len(_claims)} claims on: {', '.join(topics)}"
    else:
        hint = "no claim is registered yet (privlearn.claims.discover() loads theory_checks/)"
    return f"no claim, topic or pattern matches {name!r}; {hint}"


@contextlib.contextmanager
def all_or_nothing() -> Iterator[None]:
    """Undo the registrations made inside the block if it raises."""
    before = dict(_claims)
    try:
        yield
    except BaseException:
        _claims.clear()
        _claims.update(before)
        raise


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Start from an empty registry inside the block and restore the old one after it."""
    before = dict(_claims)
    _claims.clear()
    try:
        yield
    finally:
        _claims.clear()
        _claims.update(before)
