"""The mechanism of a label-DP release: clip, add up exactly, discrete Laplace noise, divide.

With bounds (lo, hi) and neighbours that differ in one response, a bag mean of n_a clipped
responses moves by at most (hi - lo) / n_a, and Laplace noise of scale (hi - lo) / (n_a epsilon) on
every bag mean is epsilon-label-DP, because the bags do not overlap (Javanmard, Chen, Mirrokni,
Badanidiyuru and Fu, "Learning from Aggregate Responses", ICLR 2024, arXiv 2401.11081; constants
re-derived for "replace one").

Sums of floats would break that proof in their last digits: they round, they depend on the order
of the rows, and so they may move by more than hi - lo (Casacuberta, Shoemate, Vadhan and Wagaman
2022). Here every clipped response is first rounded to a whole number of steps above lo. The step
is a power of two, about 2^-24 of the range, and at most 2^28 responses share a bag, so every sum is
a whole number below 2^53: exact in float64 in any engine and any order. Such a sum moves by at
most a known whole number of steps, the noise is a whole number of steps too, and what comes after
(step size, division by the public bag size, + lo) is post-processing. Rounding moves a mean by at
most half a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from privlearn.privacy import DiscreteLaplaceMechanism, Guarantee, SumGrid

__all__ = ["BagMeanMechanism", "ResponseGrid", "simulate_release"]

#: Most responses in one bag. With it, a step is about 2^-24 of the range of the responses.
MOST_IN_A_BAG = 2**28
_LARGEST_SCALE = 2.0**56  # of the noise, in steps: beyond it the noise would not fit in int64
_CONDITION = (
    "bags do not overlap, and features, bag sizes and bag membership are public "
    "and do not depend on the responses"
)


@dataclass(frozen=True)
class ResponseGrid:
    """Whole steps between public bounds, on which bag sums are exact.

    Parameters
    ----------
    lower, upper : float
        Bounds of a response, finite and increasing; from public knowledge, never from the data.

    Examples
    --------
    >>> grid = ResponseGrid(0.0, 50.0)
    >>> grid.steps_per_response * grid.step
    50.0
    >>> (grid.steps(np.array([-3.0, 20.0, 99.0])) * grid.step).tolist()
    [0.0, 20.0, 50.0]
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        # Steps are 2^24 times finer than the range, and their reciprocal must be a float too.
        if not self.width > 1e-290:
            raise ValueError(f"bounds are too close for float64, got ({self.lower}, {self.upper})")

    @classmethod
    def of(cls, bounds: Any) -> ResponseGrid:
        """Check a pair of bounds and build their grid.

        Raises
        ------
        TypeError
            If bounds is not a pair of numbers.
        ValueError
            If a bound is not finite or they do not increase.
        """
        try:
            lower, upper = bounds
        except (TypeError, ValueError):
            raise TypeError(f"bounds must be a pair (lowest, highest), got {bounds!r}") from None
        for bound in (lower, upper):
            if isinstance(bound, (bool, np.bool_)) or not isinstance(bound, Real):
                raise TypeError(f"bounds must be two numbers, got {bounds!r}")
        lower, upper = float(lower), float(upper)
        if not (math.isfinite(lower) and math.isfinite(upper) and math.isfinite(upper - lower)):
            raise ValueError(f"bounds must be finite, got ({lower}, {upper})")
        if not lower < upper:
            raise ValueError(f"bounds must increase (lowest, highest), got ({lower}, {upper})")
        return cls(lower, upper)

    @property
    def width(self) -> float:
        """Upper minus lower bound."""
        return self.upper - self.lower

    @cached_property
    def step(self) -> float:
        """Size of a step, a power of two, in units of the response."""
        return SumGrid(0.0, self.width, MOST_IN_A_BAG).spacing

    @cached_property
    def steps_per_response(self) -> int:
        """Steps from the lower to the upper bound: by how much one response can move a sum."""
        return int(self.steps(np.float64(self.upper)))

    def steps(self, values: Any, floor: Callable[[Any], Any] = np.floor) -> Any:
        """Clip and round to whole steps above the lower bound, kept in the type of ``values``.

        Every operation is monotone, rounding included, so the result of any number lies between
        those of the bounds: 0 and `steps_per_response`. NumPy arrays, JAX arrays (``floor`` is
        then ``jax.numpy.floor``) and narwhals expressions (``narwhals.Expr.floor``) all take this
        one path. NaN stays NaN.
        """
        return floor((values.clip(self.lower, self.upper) - self.lower) * (1 / self.step) + 0.5)

    def means(self, sums: ArrayLike, sizes: ArrayLike) -> np.ndarray:
        """Bag means, in units of the response, from sums of steps."""
        return self.lower + np.asarray(sums, np.float64) * self.step / np.asarray(sizes)


@dataclass(frozen=True, kw_only=True)
class BagMeanMechanism:
    """Private means of disjoint bags.

    Parameters
    ----------
    bounds : (float, float)
        Responses are clipped to this range. Public knowledge, never taken from the data.
    epsilon : float
        Privacy loss of the whole release.

    Raises
    ------
    TypeError, ValueError
        If bounds are not two finite, increasing numbers, or epsilon is not a positive, finite
        number, or is below about 2e-10, where the noise would leave 64-bit integers.

    Examples
    --------
    >>> mechanism = BagMeanMechanism(bounds=(0, 1), epsilon=2.0)
    >>> print(mechanism.guarantee)  # doctest: +ELLIPSIS
    epsilon = 2, delta = 0, unit: one response, neighbours: replace one, given: bags do not ...
    >>> mechanism.noise_sd([1, 100]).round(4)  # sqrt(2) / (size * epsilon)
    array([0.7071, 0.0071])
    """

    bounds: tuple[float, float]
    epsilon: float

    def __post_init__(self) -> None:
        if self.noise.scale > _LARGEST_SCALE:
            least = self.grid.steps_per_response / _LARGEST_SCALE
            raise ValueError(f"epsilon must be at least {least:.2g}, got {self.epsilon!r}")

    @cached_property
    def grid(self) -> ResponseGrid:
        """The steps on which responses are added up."""
        return ResponseGrid.of(self.bounds)

    @cached_property
    def noise(self) -> DiscreteLaplaceMechanism:
        """The noise on the sums of steps, all bags together."""
        return DiscreteLaplaceMechanism(
            sensitivity=self.grid.steps_per_response,
            epsilon=self.epsilon,
            unit="one response",
            neighbours="replace one",
            condition=_CONDITION,
        )

    @property
    def guarantee(self) -> Guarantee:
        """What one release promises."""
        return self.noise.guarantee

    def noise_sd(self, sizes: ArrayLike) -> np.ndarray:
        """Standard deviation of the noise on the mean of a bag of each size.

        sqrt(2) (hi - lo) / (size epsilon), up to one part in 2^24: a public number, good for
        weighting bags.
        """
        in_steps = 1 / (math.sqrt(2) * math.sinh(1 / (2 * self.noise.scale)))
        return in_steps * self.grid.step / np.asarray(sizes)

    def release_sums(self, sums: ArrayLike, sizes: ArrayLike) -> np.ndarray:
        """Noise exact sums of steps and return the bag means, with operating-system entropy.

        Parameters
        ----------
        sums : array-like of shape (m,)
            For each bag, the sum of ``grid.steps(response)``.
        sizes : array-like of shape (m,)
            Responses in each bag.

        Returns
        -------
        ndarray of shape (m,)
            In units of the response; they may lie outside the bounds.

        Raises
        ------
        ValueError
            If a bag is empty or too large for exact sums, or a sum is none that responses have.
        """
        counts = np.asarray(sizes).astype(np.int64)  # the products below need 64 bits
        if counts.size and not (counts.min() >= 1 and counts.max() <= MOST_IN_A_BAG):
            raise ValueError(
                f"bags must have 1 to 2**28 rows, got sizes {counts.min()} to {counts.max()}"
            )
        steps = np.asarray(sums)
        if not ((steps >= 0) & (steps <= counts * self.grid.steps_per_response)).all():
            raise ValueError("sums must lie between those of the bounds: were responses clipped?")
        return self.grid.means(self.noise.release(steps.astype(np.int64)), counts)

    def release(self, y: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Release the mean of each bag from responses and bag numbers 0, ..., m - 1.

        Examples
        --------
        >>> mechanism = BagMeanMechanism(bounds=(0, 1), epsilon=1e6)
        >>> y, bags = np.array([0.0, 1.0, 5.0]), np.array([0, 0, 1])
        >>> mechanism.release(y, bags, sizes=np.array([2, 1])).round(2)
        array([0.5, 1. ])
        """
        steps = self.grid.steps(np.asarray(y, np.float64))
        return self.release_sums(np.bincount(codes, weights=steps, minlength=len(sizes)), sizes)


def simulate_release(
    key: Any, y: Any, codes: Any, n_bags: int, *, bounds: Any, epsilon: Any
) -> Any:
    """Pure JAX face of the release, for simulation: reproducible, and not private.

    Clips and rounds by the same `ResponseGrid.steps`, and adds continuous Laplace noise, which
    differs from the discrete noise of a release by about epsilon / 2^24 in total variation. jit
    and vmap work over ``key``, ``y``, ``codes`` and ``epsilon``. Precision follows ``y``: float32
    resolves about one step.

    Parameters
    ----------
    key : jax key
    y : array of shape (n,)
        Responses.
    codes : array of shape (n,)
        Bag of each response, 0, ..., n_bags - 1, each at least once.
    n_bags : int
        Number of bags.
    bounds : (float, float)
        Public bounds; concrete numbers, not traced.
    epsilon : float or array
        Privacy loss; may be traced.

    Returns
    -------
    Array of shape (n_bags,)
        Noisy bag means.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> y, bags = jnp.array([0.2, 0.4, 9.0]), jnp.array([0, 0, 1])
    >>> means = simulate_release(jax.random.key(0), y, bags, 2, bounds=(0, 1), epsilon=1e6)
    >>> [f"{mean:.2f}" for mean in means]
    ['0.30', '1.00']
    """
    import jax.numpy as jnp

    from privlearn.aggregate.kernels import segment_means, segment_sizes
    from privlearn.privacy import kernels

    grid = ResponseGrid.of(bounds)
    means = grid.lower + grid.step * segment_means(grid.steps(y, jnp.floor), codes, n_bags)
    width = grid.steps_per_response * grid.step
    return kernels.laplace(key, means, width / (segment_sizes(codes, n_bags) * epsilon))
