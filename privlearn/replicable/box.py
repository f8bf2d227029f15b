"""The bounding cube: from public knowledge, or replicably from the sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .primitives import replicable_round
from .theory import normal_gap

FloatArray = NDArray[np.float64]

_TAIL = 0.05  # the box is laid around the quantiles of this level and its complement
_CENTRE_GRID = 0.25  # width of the grid of centres, in half-sides


class Box(NamedTuple):
    """A cube; points are measured in it from -1 to 1 along each axis."""

    centre: FloatArray  #: (d,), in the user's units
    half_side: float  #: in the user's units
    failure: float = 0.0  #: forecast of P(two runs lay different boxes); 0 for a given box

    def to_unit(self, points: FloatArray) -> FloatArray:
        """Coordinates in the box; beyond -1 and 1 outside of it."""
        return (points - self.centre) / self.half_side

    def from_unit(self, points: FloatArray) -> FloatArray:
        """Back to the user's units."""
        return self.centre + self.half_side * points


def given_box(bounds: Any, dim: int) -> Box:
    """Box of bounds ``(low, high)``, each a number or one number per feature.

    The cube has the centre of the bounds, and the half-side of the widest of them.
    """
    low, high = _bounds(bounds, dim)
    centre = low + (high - low) / 2
    return Box(centre, float((high - low).max() / 2))


def projected_box(bounds: Any, matrix: FloatArray) -> Box:
    """Box of projected points, from bounds on the features before the projection.

    Reaches three standard deviations of a point that is uniform within the bounds.
    """
    low, high = _bounds(bounds, matrix.shape[0])
    centre = (low + (high - low) / 2) @ matrix
    spread = np.sqrt((((high - low) / 2) ** 2 / 3) @ matrix**2)
    return Box(centre, float(3 * spread.max()))


def replicable_box(points: FloatArray, shared_seed: int) -> Box:
    """Lay a box around the bulk of a sample, the same for two samples with high probability.

    The half-side is a power of 2 on a randomly shifted scale, one to two times the widest range
    between the 5 % and 95 % quantiles; the centre lies on a randomly shifted grid.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    shared_seed : int

    Returns
    -------
    Box
        ``failure`` is a plug-in forecast from the sampling error of the quantiles.
    """
    ends, errors = _quantiles(points)
    ranges = ends[1] - ends[0]
    widest = int(np.argmax(ranges))
    width = float(ranges[widest])
    if width == 0:
        # An atom holds nearly everything: fall back on the standard deviation, then on 1.
        deviation = float((points - points[0]).std(axis=0).max())
        width = deviation if deviation > 0 else 1.0
    error_of_log = float(np.hypot(*errors[:, widest]) / width / np.log(2))
    rounded = replicable_round(np.log2(width), alpha=1.0, shared_seed=shared_seed, purpose="scale")
    half_side = float(2.0 ** (rounded + 0.5))
    middle = ends[0] + ranges / 2
    centre = replicable_round(
        middle / half_side,
        alpha=_CENTRE_GRID,
        shared_seed=shared_seed,
        purpose="centre",
        labels=np.arange(points.shape[1]),
    )
    error_of_centre = np.hypot(errors[0], errors[1]) / 2 / half_side / _CENTRE_GRID
    failure = float(normal_gap(error_of_log) + normal_gap(error_of_centre).sum())
    return Box(centre * half_side, half_side, min(1.0, failure))


def _quantiles(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The two outer quantiles of each column, and their standard errors (by order statistics)."""
    error = np.sqrt(_TAIL * (1 - _TAIL) / len(points))
    levels = np.array([[p - error, p, p + error] for p in (_TAIL, 1 - _TAIL)]).clip(0, 1)
    found = np.quantile(points, levels.ravel(), axis=0).reshape(2, 3, -1)
    return found[:, 1], (found[:, 2] - found[:, 0]) / 2


def _bounds(bounds: Any, dim: int) -> tuple[FloatArray, FloatArray]:
    try:
        low, high = bounds
        ends = [np.asarray(end, dtype=np.float64) for end in (low, high)]
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds must be (low, high), two numbers or two rows of {dim} numbers, got {bounds!r}"
        ) from None
    for end in ends:
        if end.ndim > 1 or (end.ndim == 1 and len(end) != dim):
            raise ValueError(
                f"bounds must hold numbers or rows of {dim} numbers, got shape {end.shape}"
            )
    low, high = (np.broadcast_to(end, (dim,)) for end in ends)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"bounds must be finite with low < high everywhere, got {bounds!r}")
    return low, high
