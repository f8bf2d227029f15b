"""Private sums and means over disjoint bags.

Means of bags of unequal size have unequal sensitivities, (hi - lo) / size. Their sums all have the
same one, hi - lo, so we noise the sums and divide by the public sizes afterwards: every mean gets
Laplace noise of scale (hi - lo) / (size epsilon), in one call of the sampler, under one guarantee
(one response moves one sum), and the division is post-processing, rounding included.

Sums of floats depend on the order of summation in their last digits, and so may differ between
neighbours by more than hi - lo (Casacuberta, Shoemate, Vadhan and Wagaman, "Widespread
underestimation of sensitivity in differentially private libraries and how to fix it", 2022).
`SumGrid` removes that: multiples of a power of two that stay below 2^53 of them add up exactly,
whatever the engine and the order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from privlearn.privacy.mechanisms import LaplaceMechanism

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike


@dataclass(frozen=True)
class SumGrid:
    """Grid on which float64 sums of up to `count` clipped values are exact.

    Parameters
    ----------
    lower, upper : float
        Clip bounds, from public knowledge and not from the data.
    count : int
        Most values in one sum.

    Examples
    --------
    >>> grid = SumGrid(lower=0.0, upper=50.0, count=1_000_000)
    >>> grid.spacing, grid.sensitivity
    (1.4901161193847656e-08, 50.0)
    >>> grid.snap([-1.0, 1 / 3, 99.0])
    array([ 0.        ,  0.33333333, 50.        ])
    """

    lower: float
    upper: float
    count: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper)):
            raise ValueError(f"bounds must be finite, got ({self.lower!r}, {self.upper!r})")
        if not self.lower < self.upper:
            raise ValueError(f"bounds must increase, got ({self.lower!r}, {self.upper!r})")
        if isinstance(self.count, bool) or not isinstance(self.count, Integral) or self.count < 1:
            raise ValueError(f"count must be a positive integer, got {self.count!r}")
        if self.spacing > (self.upper - self.lower) / 2:
            raise ValueError(f"count is too large for exact sums within bounds, got {self.count}")

    @property
    def spacing(self) -> float:
        """Power of two such that `count` values of the largest size stay below 2^53 of it."""
        largest = max(abs(self.lower), abs(self.upper))
        return 2.0 ** (math.ceil(math.log2(largest) + 1e-9) + math.ceil(math.log2(self.count)) - 52)

    def _round(self, value: Any) -> Any:
        return np.round(np.asarray(value, dtype=np.float64) / self.spacing) * self.spacing

    @property
    def sensitivity(self) -> float:
        """Exact change of a sum when one value changes: distance of the rounded bounds."""
        return float(self._round(self.upper) - self._round(self.lower))

    def snap(self, values: Any) -> np.ndarray:
        """Clip to the bounds and round to the grid (rounding keeps order, so bounds hold)."""
        array = np.asarray(values, dtype=np.float64)
        if np.isnan(array).any():
            raise ValueError("values must be numbers, got NaN")
        return self._round(np.clip(array, self.lower, self.upper))


def _check_sizes(sums: np.ndarray, sizes: Any) -> np.ndarray:
    array = np.asarray(sizes)
    if array.dtype.kind not in "iu":
        raise ValueError(f"sizes must be integers, got dtype {array.dtype}")
    if array.shape != sums.shape:
        raise ValueError(f"sizes must match sums, got shapes {array.shape} and {sums.shape}")
    if array.size and array.min() < 1:
        raise ValueError("sizes must be at least 1")
    return array


def release_means(mechanism: LaplaceMechanism, sums: Any, sizes: Any) -> np.ndarray:
    """Release the means of disjoint bags: ``mechanism.release(sums) / sizes``.

    Parameters
    ----------
    mechanism : LaplaceMechanism
        Its sensitivity is that of the sums, hi - lo, for all bags together, as a response is in
        one bag only. Its guarantee is that of the result.
    sums, sizes : array_like
        Sum and number of the clipped responses of each bag; sizes are public.

    Examples
    --------
    >>> mechanism = LaplaceMechanism(sensitivity=1.0, epsilon=1.0, unit="one response")
    >>> release_means(mechanism, sums=[3.0, 40.0], sizes=[10, 100]).shape
    (2,)
    """
    array = np.asarray(sums)
    public = _check_sizes(array, sizes)
    return mechanism.release(array) / public


def simulate_means(
    mechanism: LaplaceMechanism, key: jax.Array, sums: ArrayLike, sizes: ArrayLike
) -> jax.Array:
    """Pure JAX face of :func:`release_means`, for simulation.

    Examples
    --------
    >>> import jax
    >>> mechanism = LaplaceMechanism(sensitivity=1.0, epsilon=1.0)
    >>> simulate_means(mechanism, jax.random.key(0), jax.numpy.ones(2), jax.numpy.ones(2)).shape
    (2,)
    """
    import jax.numpy as jnp

    return mechanism.simulate(key, sums) / jnp.asarray(sizes)
