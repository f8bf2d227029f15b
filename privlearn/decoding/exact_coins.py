"""Randomness that is integrated instead of drawn, for verifiers written by others.

Two ways to run foreign code under every outcome of its random numbers:

- `enumerate_runs`: the code asks an `ExactCoins` for uniforms and choices. A uniform has no value;
  comparing it with a number splits the run in two, and both are followed. Exact for any code whose
  uniforms end in comparisons (``u <= p / q``, ``searchsorted(cdf, u)``, ``log(u) < ...``).
- `law_of_uniforms`: the code is a function of an array of uniforms, compiled or not. Its outcomes
  are constant on boxes; the faces of the boxes are found by bisection to the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: Chances below this are rounding of a sum of probabilities and not followed.
_NEGLIGIBLE = 1e-15

#: Outcomes that one run may ask for before it is taken for an endless loop.
_MAX_SPLITS = 500


class ExactUniform:
    """A uniform on [0, 1) that is only ever compared.

    Comparisons with numbers work, also after adding or multiplying by constants, negation and
    logarithm. Anything that needs its value raises TypeError.
    """

    # NumPy and torch then leave comparisons to the methods below.
    __array_ufunc__ = None
    __slots__ = ("_inverse", "_source", "_up")

    def __init__(self, source: _Source, inverse: Callable[[float], float], up: bool):
        self._source, self._inverse, self._up = source, inverse, up

    def _below(self, bound: Any) -> bool:
        """Whether this is below the bound: splits the run."""
        at = self._inverse(float(bound))
        return self._source.below(at) if self._up else not self._source.below(at)

    def __lt__(self, bound: Any) -> bool:
        return bound is not self and self._below(bound)

    def __le__(self, bound: Any) -> bool:
        return bound is self or self._below(bound)

    def __gt__(self, bound: Any) -> bool:
        return bound is not self and not self._below(bound)

    def __ge__(self, bound: Any) -> bool:
        return bound is self or not self._below(bound)

    def _then(self, inverse: Callable[[float], float], up: bool = True) -> ExactUniform:
        before = self._inverse
        return ExactUniform(self._source, lambda y: before(inverse(y)), self._up == up)

    def __add__(self, other: Any) -> ExactUniform:
        shift = float(other)
        return self._then(lambda y: y - shift)

    def __sub__(self, other: Any) -> ExactUniform:
        return self + -float(other)

    def __neg__(self) -> ExactUniform:
        return self._then(lambda y: -y, up=False)

    def __rsub__(self, other: Any) -> ExactUniform:
        return -self + float(other)

    def __mul__(self, other: Any) -> ExactUniform:
        scale = float(other)
        if scale == 0:
            raise TypeError("an exact uniform times 0 is no uniform; compare the uniform itself")
        return self._then(lambda y: y / scale, up=scale > 0)

    def __truediv__(self, other: Any) -> ExactUniform:
        return self * (1 / float(other))

    __radd__, __rmul__ = __add__, __mul__

    def log(self) -> ExactUniform:
        """Natural logarithm (also through ``np.log`` of an object array)."""
        return self._then(lambda y: math.exp(min(y, 1.0)))

    def __float__(self) -> float:
        raise TypeError(
            "an exact uniform has no value: compare it (u <= h), or use coins.choice; for code "
            "that needs numbers, pass randomness='uniforms' or randomness='seed'"
        )

    __bool__ = __float__


@dataclass
class _Source:
    """What is known about one uniform in this run."""

    coins: ExactCoins
    low: float = 0.0
    high: float = 1.0

    def below(self, at: float) -> bool:
        if math.isnan(at):
            return False
        if at <= self.low:
            return False
        if at >= self.high:
            return True
        width = self.high - self.low
        if self.coins.branch([(at - self.low) / width, (self.high - at) / width]) == 0:
            self.high = at
            return True
        self.low = at
        return False


class ExactCoins:
    """Stands in for a NumPy generator: every random outcome splits the run, and all are followed.

    Only what verifiers need: :meth:`random`, :meth:`uniform`, :meth:`choice`.
    """

    def __init__(self, script: list[int]):
        self._script, self._at = script, 0
        self.probability = 1.0
        self.untried: list[list[int]] = []

    def branch(self, chances: list[float]) -> int:
        """Which of several outcomes this run follows; the others are noted for later."""
        possible = [i for i, chance in enumerate(chances) if chance > _NEGLIGIBLE]
        if self._at >= _MAX_SPLITS:
            raise RuntimeError(
                f"more than {_MAX_SPLITS} random outcomes in one run: does the verifier loop until "
                "a draw is accepted? Use randomness='seed'"
            )
        if self._at < len(self._script):
            taken = self._script[self._at]
        else:
            taken = possible[0]
            self.untried += [[*self._script, i] for i in possible[1:]]
            self._script = [*self._script, taken]
        self._at += 1
        self.probability *= float(chances[taken])
        return taken

    def random(self, size: int | tuple[int, ...] | None = None) -> Any:
        """One exact uniform, or an object array of independent ones."""
        if size is None:
            return ExactUniform(_Source(self), lambda y: y, True)
        out = np.empty(size, dtype=object)
        for index in np.ndindex(out.shape):
            out[index] = self.random()
        return out

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        """Uniform on [low, high)."""
        return self.random(size) * (high - low) + low

    def choice(self, a: int | ArrayLike, p: ArrayLike | None = None) -> Any:
        """An element of a (or of range(a)) with probabilities p (default: equal).

        Raises
        ------
        ValueError
            If p is no law: negative, not finite, or not summing to one within 1e-8.
        """
        pool = np.arange(a) if isinstance(a, (int, np.integer)) else np.asarray(a)
        law = np.full(len(pool), 1 / len(pool)) if p is None else np.asarray(p, dtype=float)
        if law.shape != (len(pool),) or not (law >= 0).all() or abs(law.sum() - 1) > 1e-8:
            raise ValueError(f"p must be {len(pool)} probabilities that sum to one, got {law!r}")
        return pool[self.branch(list(law))]


def enumerate_runs(
    function: Callable[[ExactCoins], Any], max_runs: int = 100_000
) -> Iterator[tuple[float, Any]]:
    """Probability and result of every run of a function of coins.

    Raises
    ------
    RuntimeError
        If there are more runs than allowed, or one does not end (a loop of rejections).

    Examples
    --------
    >>> def first_below_half(coins):
    ...     return 0 if coins.random() <= 0.25 else int(coins.choice(2, p=[0.5, 0.5]))
    >>> list(enumerate_runs(first_below_half))
    [(0.25, 0), (0.375, 0), (0.375, 1)]
    """
    pending: list[list[int]] = [[]]
    for _ in range(max_runs):
        if not pending:
            return
        coins = ExactCoins(pending.pop())
        result = function(coins)
        pending += coins.untried
        yield coins.probability, result
    if pending:
        raise RuntimeError(
            f"more than {max_runs} outcomes for one draft; use a smaller gamma or vocabulary, or "
            "randomness='seed'"
        )


def law_of_uniforms(
    function: Callable[[np.ndarray], np.ndarray],
    n_uniforms: int,
    *,
    random_state: int = 0,
    n_lines: int = 48,
    n_probes: int = 65,
    n_checks: int = 512,
) -> list[tuple[float, np.ndarray]]:
    """Probability of every outcome of a function of uniforms that is constant on boxes.

    Along random lines parallel to each axis, changes of the outcome are located by bisection; the
    product of all breakpoints found cuts the cube into boxes. Outcomes at fresh random points must
    then agree with their boxes.

    Parameters
    ----------
    function : callable
        Uniforms (N, n_uniforms) to outcomes (N, width) of integers.
    n_uniforms : int
    random_state : int, default=0
        Seed of the lines and the check.
    n_lines, n_probes, n_checks : int
        Lines an axis, points a line, random points of the final check. A box whose side is below
        ``1 / n_probes`` on every line may be missed; the check sees it with its probability.

    Returns
    -------
    list of (probability, outcome)

    Raises
    ------
    ValueError
        If the check finds an outcome that is not its box's.

    Examples
    --------
    >>> def token(u):
    ...     return np.where(u[:, :1] < 0.3, 7, np.where(u[:, 1:] < 0.5, 1, 2))
    >>> sorted((round(w, 12), int(out[0])) for w, out in law_of_uniforms(token, 2))
    [(0.3, 7), (0.35, 1), (0.35, 2)]
    """
    rng = np.random.default_rng(random_state)
    cuts = [np.empty(0) for _ in range(n_uniforms)]
    # First lines through random points, then through random boxes of those found so far: a
    # threshold that matters only in a small box is on no random line.
    for _ in range(6):
        found = [
            _breakpoints(function, axis, _stratified(cuts, n_lines, rng), n_probes)
            for axis in range(n_uniforms)
        ]
        merged = [_merged(old, new) for old, new in zip(cuts, found, strict=True)]
        grown = any(len(new) > len(old) for old, new in zip(cuts, merged, strict=True))
        cuts = merged
        if not grown:
            break
    n_boxes = math.prod(len(c) + 1 for c in cuts)
    if n_boxes > 2_000_000:
        raise ValueError(f"{n_boxes} boxes: too many uniforms for this vocabulary and gamma")
    edges = [np.concatenate([[0.0], c, [1.0]]) for c in cuts]
    middles = [(e[:-1] + e[1:]) / 2 for e in edges]
    points = np.array(list(itertools.product(*middles))).reshape(n_boxes, n_uniforms)
    volumes = np.array([math.prod(v) for v in itertools.product(*(np.diff(e) for e in edges))])
    outcomes = np.asarray(function(points))
    check = np.concatenate([rng.random((n_checks, n_uniforms)), _stratified(cuts, n_checks, rng)])
    n_checks = len(check)
    box = np.zeros(n_checks, dtype=int)
    for axis, edge in enumerate(edges):
        inside = np.clip(np.searchsorted(edge, check[:, axis], side="right") - 1, 0, len(edge) - 2)
        box = box * (len(edge) - 1) + inside
    wrong = (np.asarray(function(check)) != outcomes[box]).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"outcomes are not constant on boxes of the uniforms: {wrong.sum()} of {n_checks} "
            "random points disagree (a Gumbel or rejection sampler?); use randomness='coins' or "
            "randomness='seed'"
        )
    distinct, which = np.unique(outcomes, axis=0, return_inverse=True)
    weights = np.bincount(which.ravel(), weights=volumes, minlength=len(distinct))
    return list(zip(weights.tolist(), distinct, strict=True))


def _stratified(cuts: list[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """Random points (n, axes), every interval between breakpoints of an axis equally likely."""
    points = np.empty((n, len(cuts)))
    for axis, cut in enumerate(cuts):
        edges = np.concatenate([[0.0], cut, [1.0]])
        at = rng.integers(len(edges) - 1, size=n)
        points[:, axis] = edges[at] + rng.random(n) * (edges[at + 1] - edges[at])
    return np.minimum(points, 1 - 2.0**-53)


def _merged(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Sorted breakpoints; the same threshold found twice may differ in its last bits."""
    values = np.unique(np.concatenate([old, new]))
    keep = np.concatenate([[True], np.diff(values) > 1e-14])[: len(values)]
    return values[keep & (values > 0) & (values < 1)]


def _breakpoints(
    function: Callable[[np.ndarray], np.ndarray], axis: int, base: np.ndarray, n_probes: int
) -> np.ndarray:
    """Where the outcome changes along an axis, on lines through base points, to the last bit."""
    n_lines = len(base)
    grid = (np.arange(n_probes) + 0.5) / n_probes
    grid = np.concatenate([[0.0], grid, [1 - 2.0**-53]])
    points = np.repeat(base, len(grid), axis=0)
    points[:, axis] = np.tile(grid, n_lines)
    found = np.asarray(function(points)).reshape(n_lines, len(grid), -1)
    line, at = np.nonzero((found[:, 1:] != found[:, :-1]).any(axis=2))
    low, high = grid[at], grid[at + 1]
    left = found[line, at]
    # Several changes may hide between two probes: bisection finds one; split what remains.
    cuts: list[np.ndarray] = []
    for _ in range(8):
        if len(low) == 0:
            break
        right_end = high.copy()
        for _ in range(60):
            middle = (low + high) / 2
            probe = base[line].copy()
            probe[:, axis] = middle
            same = (np.asarray(function(probe)) == left).all(axis=1)
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        cuts.append(high)
        probe = base[line].copy()
        probe[:, axis] = high
        after = np.asarray(function(probe))
        probe[:, axis] = right_end
        more = (after != np.asarray(function(probe))).any(axis=1)
        low, high, line, left = high[more], right_end[more], line[more], after[more]
    if not cuts:
        return np.empty(0)
    return np.concatenate(cuts)
