"""A ledger of privacy: what has been spent, and the refusal to overspend.

Three ways to add up:

- basic: epsilons and deltas of releases about the same people add;
- parallel: releases about disjoint parts of the data cost the largest part, not the sum. The
  caller declares it (``partition=``, ``part=``), as no ledger can see it;
- tight: privacy loss distributions of the mechanisms are convolved by Google's dp-accounting.

Sharp edges
-----------
- Parallel composition needs parts that a neighbour cannot change. Under "replace one" that means
  membership decided by public facts; where a replaced record may move to another part, two parts
  change and parallel composition is wrong. The total says so in its `condition`.
- Tight composition works on a grid of privacy losses: no coarser than a 48th of the smallest loss,
  unless that takes more than 2^19 points for the composed loss, which is the cap on memory (a
  million compositions peak near 1 GB). Every rounding is
  pessimistic, and the basic sum is used where it is smaller. (A fixed grid has taken 75 GB.)
- Spend before you release: a refused ``spend`` then means that nothing has leaked.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

from privlearn.privacy.guarantee import Guarantee

Composition = Literal["basic", "tight"]

#: Rounding, not privacy: 0.1 + 0.1 + 0.1 must fit into 0.3.
_RELATIVE_ROUNDING = 1e-12
_GRID_POINTS_MOST = 2**19
_GRID_POINTS_GOOD = 2**14
_STEPS_PER_LOSS = 48
_COMBINATIONS_MOST = 64
#: Losses beyond this overflow exp() in dp-accounting; nothing is gained by tightness there.
_LOSS_MOST = 500.0


class BudgetExceededError(RuntimeError):
    """A spend would have exceeded the budget; nothing was recorded."""


class MixedGuaranteesError(ValueError):
    """A guarantee protects another unit, or has other neighbours, than the ledger."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Parameters
    ----------
    label : str
        What was released.
    guarantee : Guarantee
        What one release promises.
    count : int
        How many such releases.
    partition : str
        Name of the split into disjoint parts, or "" for all the data.
    part : Hashable
        Which part of it.
    mechanism : object
        The mechanism, if known, for tight composition.
    """

    label: str
    guarantee: Guarantee
    count: int = 1
    partition: str = ""
    part: Hashable = None
    mechanism: Any = None

    @property
    def source(self) -> Any:
        """What decides the privacy loss: the mechanism if known, else the guarantee."""
        return self.guarantee if self.mechanism is None else self.mechanism


class Ledger:
    """Budget for releases about one population, and what has been spent of it.

    Parameters
    ----------
    epsilon : float
        Budget, > 0.
    delta : float, default=0.0
        Budget, in [0, 1).
    unit, neighbours : str
        What all guarantees in this ledger must protect.
    composition : {"basic", "tight"}
        How entries about the same people add up. "tight" needs delta > 0 to gain anything.

    Examples
    --------
    >>> ledger = Ledger(epsilon=1.0, unit="one response")
    >>> each = Guarantee(0.6, unit="one response")
    >>> _ = ledger.spend(each, label="means, region A", partition="region", part="A")
    >>> _ = ledger.spend(each, label="means, region B", partition="region", part="B")
    >>> ledger.total().epsilon
    0.6
    >>> ledger.spend(each, label="all again")
    Traceback (most recent call last):
    ...
    privlearn.privacy.ledger.BudgetExceededError: 'all again' would bring the total to \
epsilon = 1.2, delta = 0; the budget is epsilon = 1, delta = 0. Nothing was recorded.
    """

    def __init__(
        self,
        epsilon: float,
        delta: float = 0.0,
        *,
        unit: str = "one record",
        neighbours: str = "replace one",
        composition: Composition = "basic",
    ) -> None:
        self.budget = Guarantee(epsilon, delta, unit, neighbours)
        if epsilon == 0:
            raise ValueError("epsilon must be positive, got 0")
        if composition not in ("basic", "tight"):
            raise ValueError(f"composition must be 'basic' or 'tight', got {composition!r}")
        self.composition = composition
        self._entries: tuple[Entry, ...] = ()
        self._lock = threading.Lock()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What has been recorded, in order."""
        return self._entries

    def spend(
        self,
        what: Any,
        *,
        label: str = "",
        count: int = 1,
        partition: str = "",
        part: Hashable = None,
    ) -> Guarantee:
        """Record `count` releases, or refuse and record nothing.

        Parameters
        ----------
        what : Guarantee or object with a `guarantee`
            A mechanism of this package makes tight composition tighter than its guarantee does.
        label : str
            What is released.
        count : int
            How many independent releases.
        partition, part : str, Hashable
            Declares that this concerns only `part` of the named split into disjoint parts.

        Returns
        -------
        Guarantee
            The total after this spend.

        Raises
        ------
        BudgetExceededError
            If the total would exceed the budget.
        MixedGuaranteesError
            If unit or neighbours differ from the ledger's.
        """
        entry = self._entry(what, label, count, partition, part)
        with self._lock:
            entries = (*self._entries, entry)
            total = self._total(entries)
            if not self._fits(total):
                name = repr(label) if label else "this release"
                raise BudgetExceededError(
                    f"{name} would bring the total to epsilon = {total.epsilon:.6g}, "
                    f"delta = {total.delta:.6g}; the budget is epsilon = "
                    f"{self.budget.epsilon:.6g}, delta = {self.budget.delta:.6g}. "
                    "Nothing was recorded."
                )
            self._entries = entries
        return total

    def total(self) -> Guarantee:
        """Return what has been spent, composed as the ledger composes."""
        return self._total(self._entries)

    def remaining(self) -> tuple[float, float]:
        """Return the epsilon and delta that are left, at least 0 each."""
        total = self.total()
        return (
            max(self.budget.epsilon - total.epsilon, 0.0),
            max(self.budget.delta - total.delta, 0.0),
        )

    def tight_epsilon(self, delta: float) -> float:
        """Smallest epsilon at `delta` that dp-accounting certifies for all entries together.

        An upper bound on the truth, and at most the basic sum where that has delta to spare.

        Examples
        --------
        >>> from privlearn.privacy import GaussianMechanism
        >>> ledger = Ledger(epsilon=10.0, delta=1e-5, composition="tight")
        >>> mechanism = GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=1e-6)
        >>> _ = ledger.spend(mechanism, count=10)
        >>> round(ledger.tight_epsilon(1e-5), 2)
        3.14
        """
        if not 0 <= delta < 1:
            raise ValueError(f"delta must lie in [0, 1), got {delta!r}")
        return _tight_epsilon(self._entries, delta)

    def _entry(self, what: Any, label: str, count: int, partition: str, part: Hashable) -> Entry:
        guarantee = what if isinstance(what, Guarantee) else getattr(what, "guarantee", None)
        if not isinstance(guarantee, Guarantee):
            raise ValueError(f"what must be a Guarantee or have one, got {type(what).__name__}")
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"count must be a positive integer, got {count!r}")
        if (part is None) != (not partition):
            raise ValueError("partition and part must be given together")
        for name in ("unit", "neighbours"):
            mine, other = getattr(self.budget, name), getattr(guarantee, name)
            if mine != other:
                raise MixedGuaranteesError(
                    f"{name} of the guarantee is {other!r}, of the ledger {mine!r}: "
                    "they cannot be added up"
                )
        mechanism = what if hasattr(what, "privacy_loss") else None
        return Entry(label, guarantee, int(count), partition, part, mechanism)

    def _total(self, entries: tuple[Entry, ...]) -> Guarantee:
        if self.composition == "tight" and entries:
            # All of the budget's delta is used: the same curve, read at another point.
            delta = self.budget.delta
            epsilon = _tight_epsilon(entries, delta)
        else:
            epsilon, delta = _basic(entries)
        conditions = dict.fromkeys(e.guarantee.condition for e in entries if e.guarantee.condition)
        for name in dict.fromkeys(e.partition for e in entries if e.partition):
            conditions[f"parts of {name!r} are disjoint and who is in which is public"] = None
        return replace(self.budget, epsilon=epsilon, delta=delta, condition="; ".join(conditions))

    def _fits(self, total: Guarantee) -> bool:
        room = 1 + _RELATIVE_ROUNDING
        return (
            total.epsilon <= self.budget.epsilon * room and total.delta <= self.budget.delta * room
        )

    def __str__(self) -> str:
        total = self.total()
        rows = [("release", "count", "part", "epsilon", "delta")]
        for entry in self._entries:
            part = f"{entry.partition} = {entry.part}" if entry.partition else "all"
            each = entry.guarantee
            rows.append(
                (entry.label or "-", str(entry.count), part,
                 f"{each.epsilon:.6g}", f"{each.delta:.6g}")
            )  # fmt: skip
        rows.append(("total", "", self.composition, f"{total.epsilon:.6g}", f"{total.delta:.6g}"))
        budget = self.budget
        rows.append(("budget", "", "", f"{budget.epsilon:.6g}", f"{budget.delta:.6g}"))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(-2, lines[1])
        lines.append(f"unit: {budget.unit}, neighbours: {budget.neighbours}")
        if total.condition:
            lines.append(f"given: {total.condition}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"Ledger(epsilon={self.budget.epsilon!r}, delta={self.budget.delta!r}, "
            f"unit={self.budget.unit!r}, neighbours={self.budget.neighbours!r}, "
            f"composition={self.composition!r}, entries={len(self._entries)})"
        )


def _basic(entries: tuple[Entry, ...]) -> tuple[float, float]:
    """Sum over releases; within a partition, the largest part. Epsilon and delta each."""

    def summed(name: str) -> float:
        whole = [getattr(e.guarantee, name) * e.count for e in entries if not e.partition]
        parts: dict[tuple[str, Hashable], list[float]] = {}
        for e in entries:
            if e.partition:
                cost = getattr(e.guarantee, name) * e.count
                parts.setdefault((e.partition, e.part), []).append(cost)
        largest: dict[str, float] = {}
        for (partition, _), costs in parts.items():
            largest[partition] = max(largest.get(partition, 0.0), math.fsum(costs))
        return math.fsum([*whole, *largest.values()])

    return summed("epsilon"), min(summed("delta"), math.nextafter(1.0, 0.0))


def _worst_people(entries: tuple[Entry, ...]) -> list[Counter]:
    """Return, for every kind of person, which losses they bear and how often.

    A person is in one part of every partition. Parts that bear the same are one kind. Where
    there are too many kinds, one person is made up who bears at least what each of them does.
    """
    whole: Counter = Counter()
    parts: dict[str, dict[Hashable, Counter]] = {}
    for e in entries:
        bag = (
            parts.setdefault(e.partition, {}).setdefault(e.part, Counter())
            if e.partition
            else whole
        )
        bag[e.source] += e.count
    choices = []
    for partition in parts.values():
        distinct: list[Counter] = []
        for bag in sorted(partition.values(), key=lambda c: -c.total()):
            if not any(bag <= other for other in distinct):
                distinct.append(bag)
        choices.append(distinct)
    if math.prod(len(c) for c in choices) > _COMBINATIONS_MOST:
        choices = [[_union(bags)] for bags in choices]
    return [sum(picked, Counter(whole)) for picked in itertools.product(*choices)]


def _union(bags: list[Counter]) -> Counter:
    union: Counter = Counter()
    for bag in bags:
        union |= bag
    return union


def _loss_width(source: Any) -> float:
    return float(source.epsilon if isinstance(source, Guarantee) else source.loss_width)


def _grid(borne: Counter) -> float:
    """Grid of privacy losses for dp-accounting, see the module's sharp edges."""
    widths = {source: _loss_width(source) for source in borne}
    total = math.fsum(widths[s] * n for s, n in borne.items())
    spread = 20 * math.sqrt(math.fsum(widths[s] ** 2 * n for s, n in borne.items()))
    drift = math.fsum(min(widths[s], widths[s] ** 2) * n for s, n in borne.items())
    width = max(min(total, spread + drift), *widths.values())
    smallest = min(w for w in widths.values() if w > 0)
    good = min(width / _GRID_POINTS_GOOD, smallest / _STEPS_PER_LOSS)
    return max(good, width / _GRID_POINTS_MOST)


def _tight_epsilon(entries: tuple[Entry, ...], delta: float) -> float:
    if not entries:
        return 0.0
    worst = 0.0
    basic_epsilon, basic_delta = _basic(entries)
    ceiling = basic_epsilon if basic_delta <= delta * (1 + _RELATIVE_ROUNDING) else math.inf
    for borne in _worst_people(entries):
        worst = max(worst, min(_composed_epsilon(borne, delta), ceiling))
    return worst


def _composed_epsilon(borne: Counter, delta: float) -> float:
    from privlearn.privacy.mechanisms import guarantee_privacy_loss

    largest = max(_loss_width(source) for source in borne)
    if largest > _LOSS_MOST:
        return math.inf
    if largest == 0:
        return 0.0 if sum(s.delta * n for s, n in borne.items()) <= delta else math.inf
    grid = _grid(borne)
    composed = None
    for source, count in borne.items():
        if isinstance(source, Guarantee):
            loss = guarantee_privacy_loss(source, grid)
        else:
            loss = source.privacy_loss(grid)
        loss = loss.self_compose(count) if count > 1 else loss
        composed = loss if composed is None else composed.compose(loss)
    assert composed is not None
    return float(composed.get_epsilon_for_delta(delta))
