"""What a claim is: a published statement, and how to measure whether it holds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: How much work a check may do: ``quick`` for every commit, ``paper`` for the numbers we publish.
Profile = Literal["quick", "paper"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9]+(?:[-_./][a-z0-9]+)*")


def by_profile(profile: str, quick: T, paper: T) -> T:
    """Choose between the two amounts of work.

    Parameters
    ----------
    profile : {"quick", "paper"}
    quick, paper
        What to give for each.

    Returns
    -------
    One of the two.

    Raises
    ------
    ValueError
        For any other profile.

    Examples
    --------
    >>> by_profile("quick", 200, 5_000)
    200
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return quick if profile == "quick" else paper


@dataclass(frozen=True, slots=True)
class Measurement:
    """What theory says and what was observed, with the error of the observation.

    Parameters
    ----------
    theory : float or array
        The value that the theory states; not 0, because errors are counted relative to it
        (state such a claim about ``1 + value``, or about a ratio).
    estimate : float or array
        The observed value, of the same shape.
    stderr : float or array
        Standard error of the estimate (0 for an exact computation). A single number holds for
        every component.
    n : int, default=1
        Number of independent trials behind the estimate. The standard error should come from at
        least 50 or so: a smaller number makes it too noisy for the normal law that the check uses.

    Examples
    --------
    >>> Measurement(theory=0.5, estimate=0.498, stderr=0.002, n=4000)
    Measurement(theory=0.5, estimate=0.498, stderr=0.002, n=4000)
    """

    theory: ArrayLike
    estimate: ArrayLike
    stderr: ArrayLike = 0.0
    n: int = 1

    @classmethod
    def of(cls, theory: ArrayLike, estimate: Any) -> Measurement:
        """Pair a theory value with an estimate that has ``mean``, ``stderr`` and ``n``.

        Parameters
        ----------
        theory : float or array
            The value that the theory states.
        estimate : object
            Anything with attributes ``mean``, ``stderr`` and ``n``, such as the estimates that
            `privlearn.simulate` returns.

        Returns
        -------
        Measurement
            The two side by side.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> Measurement.of(1.0, SimpleNamespace(mean=1.01, stderr=0.01, n=100)).estimate
        1.01
        """
        return cls(theory, estimate.mean, estimate.stderr, int(estimate.n))


@dataclass(frozen=True, slots=True)
class Claim:
    """A published statement that a computation can contradict.

    The check passes if, for every component,

        |estimate - theory| <= n_sigma * stderr + tolerance * |theory|

    and if it was sharp enough to mean something: its measured resolution (see `resolution_of`)
    must not exceed the declared one.

    Parameters
    ----------
    name : str
        Unique name, lower case: ``"aggregate/bag-loss-risk"``.
    topic : str
        The topic package that it belongs to: ``"aggregate"``.
    statement : str
        What is claimed, in a sentence or a formula.
    source : str
        Where it was published, or derived: ``"arXiv 2401.11081, theorem 4.2"``.
    measure : callable
        ``measure(profile) -> Measurement``; pure, with its own fixed key or seed.
    resolution : float
        The declared resolution: the largest relative error of the theory value, in (0, 1), that
        may still escape the check with a probability above 1 %.
    n_sigma : float, default=5.0
        How many standard errors apart is a contradiction. At 5 a true claim about one number
        fails with probability 6e-7; about m numbers, with at most m times that.
    tolerance : float, default=0.0
        Allowed relative difference beyond sampling error: rounding, or a finite-size effect that
        the statement says it neglects. An exact comparison (stderr 0) must declare one.

    Raises
    ------
    ValueError
        If a name, topic, statement or source is empty or malformed, or a number out of range.
    TypeError
        If measure is not callable.

    Examples
    --------
    >>> import math
    >>> claim = Claim(
    ...     name="arithmetic/basel",
    ...     topic="arithmetic",
    ...     statement="sum over i of 1 / i^2 = pi^2 / 6",
    ...     source="Euler 1735",
    ...     measure=lambda profile: Measurement(
    ...         math.pi**2 / 6, sum(1 / i**2 for i in range(1, 100_001))
    ...     ),
    ...     tolerance=1e-4,
    ...     resolution=2e-4,
    ... )
    >>> claim.name
    'arithmetic/basel'
    """

    name: str
    topic: str
    statement: str
    source: str
    measure: Callable[[str], Measurement]
    resolution: float
    n_sigma: float = 5.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a claim that could not be named, cited or contradicted."""
        for field in ("name", "topic"):
            value = getattr(self, field)
            if not (isinstance(value, str) and _NAME.fullmatch(value)):
                raise ValueError(
                    f"{field} must be lower-case words joined by one of - _ . /, got {value!r}"
                )
        for field in ("statement", "source"):
            value = getattr(self, field)
            if not (isinstance(value, str) and value.strip()):
                raise ValueError(
                    f"{field} of claim {self.name!r} must be a sentence, got {value!r}"
                )
        if not callable(self.measure):
            raise TypeError(
                f"measure of claim {self.name!r} must be a function of the profile, "
                f"got {self.measure!r}"
            )
        if not (_is_number(self.resolution) and 0 < self.resolution < 1):
            raise ValueError(
                f"resolution of claim {self.name!r} must lie in (0, 1), got {self.resolution!r}"
            )
        if not (_is_number(self.n_sigma) and self.n_sigma > 0):
            raise ValueError(f"n_sigma of claim {self.name!r} must be > 0, got {self.n_sigma!r}")
        if not (_is_number(self.tolerance) and 0 <= self.tolerance < self.resolution):
            raise ValueError(
                f"tolerance of claim {self.name!r} must be >= 0 and below its resolution "
                f"{self.resolution!r}, got {self.tolerance!r}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
