"""What a privacy guarantee is: four facts that only mean something together."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guarantee:
    """An (epsilon, delta) differential-privacy guarantee, and what it is a guarantee about.

    Parameters
    ----------
    epsilon : float
        Privacy loss, in nats; at least 0. ``math.inf`` states that nothing is promised.
    delta : float, default=0.0
        Probability mass that escapes epsilon, in [0, 1).
    unit : str
        What one neighbour differs in: "one response", "one user", ...
    neighbours : str
        The neighbouring relation, as in "replace one" or "add or remove one".
    condition : str
        What must hold for the guarantee, if anything ("bags do not overlap").

    Raises
    ------
    ValueError
        If epsilon is negative or not a number, or delta lies outside [0, 1), or unit or
        neighbours is empty.

    Examples
    --------
    >>> print(Guarantee(epsilon=1.0, unit="one response"))
    epsilon = 1, delta = 0, unit: one response, neighbours: replace one
    """

    epsilon: float
    delta: float = 0.0
    unit: str = "one record"
    neighbours: str = "replace one"
    condition: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers and words that state no guarantee."""
        if not (isinstance(self.epsilon, (int, float)) and self.epsilon >= 0):
            raise ValueError(f"epsilon must be a number >= 0, got {self.epsilon!r}")
        if not (isinstance(self.delta, (int, float)) and 0 <= self.delta < 1):
            raise ValueError(f"delta must lie in [0, 1), got {self.delta!r}")
        for name in ("unit", "neighbours"):
            if not getattr(self, name):
                raise ValueError(f"{name} must say what is protected, got an empty string")

    @property
    def is_pure(self) -> bool:
        """Whether delta is 0."""
        return self.delta == 0

    @property
    def is_private(self) -> bool:
        """Whether anything is promised at all (epsilon is finite)."""
        return math.isfinite(self.epsilon)

    def __str__(self) -> str:
        text = (
            f"epsilon = {self.epsilon:.6g}, delta = {self.delta:.6g}, "
            f"unit: {self.unit}, neighbours: {self.neighbours}"
        )
        return f"{text}, given: {self.condition}" if self.condition else text
