"""The replicable coreset: a few weighted points that stand for the population.

Source: Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou 2023 (arXiv 2302.10359): leaves of the
replicable quad tree, their masses by replicable estimation. Representing a leaf by the rounded mean
of its rows rather than by its centre is our addition: still replicable, much cheaper in cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import theory
from .box import given_box
from .primitives import replicable_masses, replicable_round
from .quadtree import MAX_DIM, QuadTree, _flat, grow, route
from .streams import check_shared_seed

FloatArray = NDArray[np.float64]

Representative = Literal["mean", "centre"]


@dataclass(frozen=True, slots=True, eq=False)
class Coreset:
    """Weighted points, equal bit by bit between runs that replicate.

    Attributes
    ----------
    points : ndarray of shape (N, d)
    weights : ndarray of shape (N,)
        At least 0, of sum 1.
    tree : QuadTree
        Whose leaves they stand for, in a box from -1 to 1.
    alpha : float
        Width of the grid of the masses.
    mean_alpha : ndarray of shape (N,)
        Width of the grid of the means of each leaf, in the box from -1 to 1 (inf for centres).
    rows, deviations : ndarray of shape (N,), (N, d)
        Of this sample, not shared: rows routed to each leaf, and their standard deviation.
    """

    points: FloatArray
    weights: FloatArray
    tree: QuadTree = field(repr=False)
    alpha: float
    mean_alpha: FloatArray = field(repr=False)
    rows: NDArray[np.intp] = field(repr=False)
    deviations: FloatArray = field(repr=False)

    @property
    def key(self) -> bytes:
        """What two runs must have in common: the bytes of points and weights."""
        return self.points.tobytes() + self.weights.tobytes()

    @property
    def support(self) -> bytes:
        """The bytes of the leaves alone."""
        return self.tree.level.tobytes() + self.tree.cell.tobytes()

    def __len__(self) -> int:
        return len(self.weights)


def replicable_coreset(
    X: ArrayLike,
    *,
    n_clusters: int,
    epsilon: float,
    opt: float,
    shared_seed: int,
    bounds: Any = (-1.0, 1.0),
    rho: float = 0.3,
    failure_probability: float = 0.01,
    levels: int | None = None,
    skip_levels: int = 1,
    representative: Representative = "mean",
    mass_grid: float | None = None,
    mean_grid: float = 0.25,
    offsets: Literal["shared", "own"] = "shared",
    objective: theory.tree.Objective = "kmeans",
    fresh_samples: bool = True,
) -> Coreset:
    """Coreset for k-means or k-medians in up to 3 dimensions, the same from two samples.

    Parameters
    ----------
    X : array of shape (n, d)
        The sample. Rows outside the bounds count as if they lay on the border.
    n_clusters, epsilon, opt, levels, objective
        As in `theory.schedule`; ``opt`` in squared half-sides of the box (k-medians: half-sides).
    shared_seed : int
        Shared by all runs.
    bounds : (low, high), default=(-1, 1)
        Numbers or one number per feature; shared, not taken from the sample.
    rho, failure_probability : float
        From which, with epsilon, the theorem's grid of masses follows.
    skip_levels : int, default=1
        Levels whose cells are all kept.
    representative : {"mean", "centre"}, default="mean"
        Rounded mean of the rows of a leaf, or the centre of its cell as in the paper.
    mass_grid : float, optional
        Width of the grid of masses; the theorem's if not given.
    mean_grid : float, default=0.25
        Width of the grid of means, in sides of the leaf.
    offsets : {"shared", "own"}, default="shared"
        Of the masses, as in `replicable_masses`.
    fresh_samples : bool, default=True
        Cells from the even rows and masses from the odd ones, as the theorem wants it.

    Returns
    -------
    Coreset

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> two = [rng.choice([-0.6, 0.4], (20_000, 2)) + rng.normal(0, 0.1, (20_000, 2))
    ...     for _ in range(2)]
    >>> a, b = (replicable_coreset(X, n_clusters=3, epsilon=0.99, opt=0.5, levels=3,
    ...     shared_seed=6) for X in two)
    >>> a.key == b.key
    True
    """
    check_shared_seed(shared_seed)
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"X must have shape (n, d) with n >= 2, got {rows.shape}")
    if rows.shape[1] > MAX_DIM:
        raise ValueError(f"X has {rows.shape[1]} features, more than {MAX_DIM}: project it first")
    if not np.isfinite(rows).all():
        raise ValueError("X contains NaN or infinity")
    box = given_box(bounds, rows.shape[1])
    points = box.to_unit(rows).clip(-1, 1)
    plan = theory.schedule(
        n_clusters=n_clusters, epsilon=epsilon, opt=opt, dim=rows.shape[1], objective=objective,
        levels=levels,
    )  # fmt: skip
    if mass_grid is None:
        mass_grid = theory.masses_design(
            n_atoms=1, epsilon=epsilon / 10, rho=rho, failure_probability=failure_probability
        ).alpha
    first, second = (points[::2], points[1::2]) if fresh_samples else (points, points)
    tree = grow(first, plan.levels, shared_seed=shared_seed, skip_levels=skip_levels)
    coreset = summarise(
        second, tree, shared_seed=shared_seed, representative=representative,
        mass_grid=mass_grid, mean_grid=mean_grid, offsets=offsets,
    )  # fmt: skip
    return in_units_of(coreset, box.from_unit(coreset.points))


def summarise(
    points: FloatArray,
    tree: QuadTree,
    *,
    shared_seed: int,
    representative: Representative,
    mass_grid: float,
    mean_grid: float | FloatArray,
    offsets: Literal["shared", "own"] = "shared",
) -> Coreset:
    """Weighted representatives of the leaves, in a box from -1 to 1 (see `replicable_coreset`)."""
    labels = route(points, tree)
    n_leaves, dim = tree.cell.shape
    rows = np.bincount(labels, minlength=n_leaves)
    weights = replicable_masses(rows, alpha=mass_grid, shared_seed=shared_seed, offsets=offsets)
    # Moments about the leaf's centre: no cancellation, whatever the size of the leaf.
    centre, many = tree.centre, np.maximum(rows, 1)
    shift, spread = np.empty((n_leaves, dim)), np.empty((n_leaves, dim))
    for axis in range(dim):
        away = points[:, axis] - centre[labels, axis]
        shift[:, axis] = np.bincount(labels, weights=away, minlength=n_leaves) / many
        squares = np.bincount(labels, weights=away**2, minlength=n_leaves) / many
        spread[:, axis] = np.sqrt(np.maximum(squares - shift[:, axis] ** 2, 0))
    if representative == "centre":
        return Coreset(
            centre, weights, tree, mass_grid, np.full(n_leaves, np.inf), rows, spread
        )  # fmt: skip
    widths = np.broadcast_to(mean_grid, (n_leaves,)) * tree.side
    names = np.array(
        [_flat(c[None], int(i))[0] for i, c in zip(tree.level, tree.cell, strict=True)]
    )
    means = replicable_round(
        shift, alpha=widths[:, None], shared_seed=shared_seed, purpose="means",
        labels=(tree.level[:, None], names[:, None], np.arange(dim)[None, :]),
    )  # fmt: skip
    # A leaf without rows has nothing but its centre.
    stand_in = np.where(rows[:, None] > 0, centre + means, centre).clip(-1, 1)
    return Coreset(stand_in, weights, tree, mass_grid, widths, rows, spread)


def in_units_of(coreset: Coreset, points: FloatArray) -> Coreset:
    """The same coreset with its points in other units."""
    return Coreset(
        points, coreset.weights, coreset.tree, coreset.alpha, coreset.mean_alpha, coreset.rows,
        coreset.deviations,
    )  # fmt: skip
