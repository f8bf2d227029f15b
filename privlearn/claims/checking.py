"""Judging a claim: does theory agree with the measurement, and could the check have said no."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from privlearn.claims import discovery, memory, registry
from privlearn.claims.claim import PROFILES, Claim, Measurement

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: ``passed``: agrees, and sharp enough. ``differs``: theory and estimate contradict each other.
#: ``blunt``: agrees, but the check could not have seen an error of the declared size. ``invalid``:
#: what was measured cannot be compared. ``error``: the computation raised.
Status = Literal["passed", "differs", "blunt", "invalid", "error"]

#: The 99 % quantile of the normal law.
Z_99 = 2.3263478740408408


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of checking one claim.

    Where the claim is about several numbers, theory, estimate and stderr are those of the
    component that is furthest from agreement, and the resolution that of the least sharp one.

    Parameters
    ----------
    name, topic, statement, source : str
        Of the claim.
    status : {"passed", "differs", "blunt", "invalid", "error"}
        Agrees and sharp enough; contradicts; not sharp enough; cannot be compared; raised.
    passed : bool
        Whether the status is "passed".
    theory, estimate, stderr : float
        What was compared (nan where nothing was).
    resolution : float
        The smallest relative error of the theory that this check sees with 99 % power (nan where
        unknown).
    declared_resolution, n_sigma, tolerance : float
        As the claim declares them.
    n : int
        Number of trials behind the estimate.
    seconds : float
        Wall-clock time that the measurement took.
    message : str
        What is wrong, and the numbers that say so; empty if it passed.
    profile : str
        "quick" or "paper".
    size : int
        How many numbers were compared.
    measurement : Measurement or None
        All that was measured.
    """

    name: str
    topic: str
    statement: str
    source: str
    status: Status
    passed: bool
    theory: float
    estimate: float
    stderr: float
    resolution: float
    declared_resolution: float
    n_sigma: float
    tolerance: float
    n: int
    seconds: float
    message: str
    profile: str = "quick"
    size: int = 1
    measurement: Measurement | None = field(default=None, repr=False, compare=False)

    @property
    def sigmas(self) -> float:
        """How many standard errors the estimate lies above the theory (nan for exact ones)."""
        return (self.estimate - self.theory) / self.stderr if self.stderr > 0 else float("nan")

    def __bool__(self) -> bool:
        return self.passed


def resolution_of(
    theory: ArrayLike, stderr: ArrayLike, n_sigma: float = 5.0, tolerance: float = 0.0
) -> float:
    r"""Return the smallest relative error of a theory value that a check sees with 99 % power.

    Let the estimate be normal around the truth :math:`\mu` with standard error :math:`s`, and let
    the theory state :math:`T = \mu + \Delta`. The check objects if
    :math:`|\hat\mu - T| > c s + \tau |T|` with c = `n_sigma` and :math:`\tau` = `tolerance`.
    Counting only objections on the side of the error (the other side adds next to nothing),

    .. math:: P(\text{objects}) \ge \Phi\!\left(\frac{|\Delta| - \tau|T|}{s} - c\right),

    which reaches 99 % at :math:`|\Delta| = (c + z_{0.99}) s + \tau |T|` with
    :math:`z_{0.99} = 2.326`. In units of the theory value, the resolution is therefore

    .. math:: r = \frac{(n_\sigma + 2.326)\, s}{|T|} + \tau .

    With several components it is the largest of theirs, so that an error of this size in *any one*
    of them is seen.

    Parameters
    ----------
    theory, stderr : float or array
        As in `Measurement`.
    n_sigma, tolerance : float
        As in `Claim`.

    Returns
    -------
    float
        The resolution.

    Examples
    --------
    >>> resolution_of(theory=2.0, stderr=0.01, n_sigma=5.0).__round__(4)
    0.0366
    """
    scale, error = np.abs(np.asarray(theory, float)), np.asarray(stderr, float)
    return float(np.max((n_sigma + Z_99) * error / scale + tolerance))


def check_claim(claim: Claim, profile: str = "quick", theory_factor: float = 1.0) -> Verdict:
    """Measure a claim and judge it; whatever goes wrong inside it becomes a failed verdict.

    Parameters
    ----------
    claim : Claim
        What to check.
    profile : {"quick", "paper"}
        How much work to do.
    theory_factor : float, default=1.0
        Multiplies the theory value, to see whether the check notices.

    Returns
    -------
    Verdict
        Never raises for what the claim does; only for an unknown profile.

    Examples
    --------
    >>> claim = Claim(
    ...     name="doc/half", topic="doc", statement="a fair coin shows heads half the time",
    ...     source="folklore", measure=lambda profile: Measurement(0.5, 0.503, 0.005, 10_000),
    ...     resolution=0.1,
    ... )
    >>> check_claim(claim).status, check_claim(claim, theory_factor=1.1).status
    ('passed', 'differs')
    """
    check_profile(profile)
    start = time.perf_counter()
    try:
        measurement = memory.measure(claim, profile)
    except Exception as error:
        seconds = time.perf_counter() - start
        return _verdict(claim, profile, "error", seconds, message=_describe(error))
    seconds = time.perf_counter() - start
    return judge(claim, measurement, profile, theory_factor=theory_factor, seconds=seconds)


def judge(
    claim: Claim,
    measurement: Measurement,
    profile: str = "quick",
    *,
    theory_factor: float = 1.0,
    seconds: float = 0.0,
) -> Verdict:
    """Judge a measurement that has been made already (see `check_claim`).

    Parameters
    ----------
    claim : Claim
        What it is a measurement of.
    measurement : Measurement
        What was found.
    profile : {"quick", "paper"}
        The profile it was made in.
    theory_factor : float, default=1.0
        Multiplies the theory value. The resolution is that of the unchanged theory.
    seconds : float, default=0.0
        How long it took.

    Returns
    -------
    Verdict
        The judgement.
    """
    try:
        theory, estimate, stderr = _comparable(measurement, claim)
    except (TypeError, ValueError) as error:
        return _verdict(
            claim, profile, "invalid", seconds, message=str(error), measurement=measurement
        )
    resolution = resolution_of(theory, stderr, claim.n_sigma, claim.tolerance)
    stated = theory * theory_factor
    # The allowance belongs to the check, not to the value that is being doubted.
    allowed = claim.n_sigma * stderr + claim.tolerance * np.abs(theory)
    gap = np.abs(estimate - stated)
    worst = int(np.argmax(gap / allowed))
    status: Status
    if gap[worst] > allowed[worst]:
        status = "differs"
        message = (
            f"theory {stated[worst]:.6g} and estimate {estimate[worst]:.6g} differ by "
            f"{gap[worst]:.3g}, more than the allowed {allowed[worst]:.3g} = {claim.n_sigma:g} "
            f"standard errors of {stderr[worst]:.3g}"
        )
        if claim.tolerance:
            message += f" + {claim.tolerance:g} of the theory"
        if stated.size > 1:
            count = int((gap > allowed).sum())
            message += f" (component {worst}; {count} of {stated.size} differ)"
    elif resolution > claim.resolution:
        status = "blunt"
        message = (
            f"the check sees relative errors of {resolution:.3g} and more, but declares "
            f"{claim.resolution:.3g}: use more trials, or declare what it can do"
        )
    else:
        status, message = "passed", ""
    return _verdict(
        claim,
        profile,
        status,
        seconds,
        message=message,
        theory=float(stated[worst]),
        estimate=float(estimate[worst]),
        stderr=float(stderr[worst]),
        resolution=resolution,
        n=int(measurement.n),
        size=int(stated.size),
        measurement=measurement,
    )


def run(
    names: str | Iterable[str] = (),
    profile: str = "quick",
    *,
    on_start: Callable[[Claim], None] | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> list[Verdict]:
    """Check claims one after another; a failing one does not stop the others.

    Parameters
    ----------
    names : str or iterable of str
        Names, topics or globs (see `privlearn.claims.names`). None: every claim of
        ``theory_checks/``, which is loaded by this call.
    profile : {"quick", "paper"}
        How much work to do.
    on_start : callable, optional
        Called with each claim before it is measured.
    on_verdict : callable, optional
        Called with each verdict as soon as it is known.

    Returns
    -------
    list of Verdict
        In order of registration. A theory-check file that could not be loaded counts as a failed
        claim of its own.

    Raises
    ------
    LookupError
        If a name matches nothing.
    ValueError
        If the profile is unknown.
    """
    check_profile(profile)
    patterns = (names,) if isinstance(names, str) else tuple(names)
    discovery.discover()
    broken = [
        _broken_file(path, error, profile)
        for path, error in discovery.failures().items()
        if not patterns or any(registry.matches(p, path.name, path.stem) for p in patterns)
    ]
    # A pattern that only a broken file answers to is not unknown, its claims are just not there.
    patterns_left = tuple(
        p
        for p in patterns
        if registry.is_known(p) or not any(registry.matches(p, v.name, v.topic) for v in broken)
    )
    claims = registry.select(patterns_left) if patterns_left or not patterns else ()
    verdicts = []
    items: tuple[Verdict | Claim, ...] = (*broken, *claims)
    for item in items:
        if isinstance(item, Claim):
            if on_start:
                on_start(item)
            verdict = check_claim(item, profile)
        else:
            verdict = item
        verdicts.append(verdict)
        if on_verdict:
            on_verdict(verdict)
    return verdicts


def check_profile(profile: str) -> None:
    """Refuse an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")


def _comparable(
    measurement: Measurement, claim: Claim
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return theory, estimate and standard error as flat arrays, or say why they are not."""
    if not isinstance(measurement, Measurement):
        raise TypeError(f"measure returned {type(measurement).__name__}, not a Measurement")
    parts = {}
    for part in ("theory", "estimate", "stderr"):
        raw = np.asarray(getattr(measurement, part))
        if raw.dtype.kind not in "iuf" and raw.dtype.name != "bfloat16":
            raise TypeError(f"{part} must be real numbers, got dtype {raw.dtype}")
        parts[part] = raw.astype(float)
    theory, estimate, stderr = parts.values()
    if theory.size == 0:
        raise ValueError("theory is empty: nothing was compared")
    if theory.shape != estimate.shape or stderr.shape not in ((), theory.shape):
        raise ValueError(
            f"shapes differ: theory {theory.shape}, estimate {estimate.shape}, "
            f"stderr {stderr.shape}"
        )
    for part, array in parts.items():
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{part} is not finite in {bad} of {array.size} places")
    if (stderr < 0).any():
        raise ValueError(f"stderr is negative: {stderr.min():.6g}")
    if (theory == 0).any():
        raise ValueError(
            "theory is 0, which has no relative error: state the claim about 1 + value or a ratio"
        )
    stderr = np.broadcast_to(stderr, theory.shape)
    if claim.tolerance == 0 and (stderr == 0).any():
        raise ValueError(
            "stderr is 0 and tolerance is 0: an exact comparison must declare a tolerance > 0"
        )
    if isinstance(measurement.n, bool) or int(measurement.n) != measurement.n or measurement.n < 1:
        raise ValueError(f"n must be a whole number >= 1, got {measurement.n!r}")
    return theory.ravel(), estimate.ravel(), stderr.ravel()


def _verdict(
    claim: Claim,
    profile: str,
    status: Status,
    seconds: float,
    *,
    message: str,
    theory: float = float("nan"),
    estimate: float = float("nan"),
    stderr: float = float("nan"),
    resolution: float = float("nan"),
    n: int = 0,
    size: int = 0,
    measurement: Measurement | None = None,
) -> Verdict:
    return Verdict(
        name=claim.name,
        topic=claim.topic,
        statement=claim.statement,
        source=claim.source,
        status=status,
        passed=status == "passed",
        theory=theory,
        estimate=estimate,
        stderr=stderr,
        resolution=resolution,
        declared_resolution=claim.resolution,
        n_sigma=claim.n_sigma,
        tolerance=claim.tolerance,
        n=n,
        seconds=seconds,
        message=message,
        profile=profile,
        size=size,
        measurement=measurement,
    )


def _describe(error: Exception) -> str:
    """Say what was raised, and where in the claim."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = "".join(traceback.format_exception_only(error)).strip()
    return f"{text} ({Path(where.filename).name}, line {where.lineno})"


def _broken_file(path: Path, error: Exception, profile: str) -> Verdict:
    nan = float("nan")
    return Verdict(
        name=path.name,
        topic=path.stem,
        statement=f"the theory checks of {path.name} can be loaded",
        source=str(path),
        status="error",
        passed=False,
        theory=nan,
        estimate=nan,
        stderr=nan,
        resolution=nan,
        declared_resolution=nan,
        n_sigma=nan,
        tolerance=nan,
        n=0,
        seconds=0.0,
        message=f"cannot be loaded: {_describe(error)}",
        profile=profile,
        size=0,
    )
