"""What one fit foresees: the probability that another sample would have given something else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import theory
from .coreset import Coreset
from .quadtree import QuadTree


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast probability that another run with the same seed and rows gives another partition.

    Plug-in: the exact laws of `theory`, with this sample's frequencies in place of the unknown
    probabilities. A forecast, not a certificate: it comes from one sample.

    Attributes
    ----------
    total : float
        1 - product of (1 - part).
    box, opt, cells, masses, means : float
        Parts: the box, the guess of the cost, the tree, the masses and the means of its leaves; 0
        for what was given.
    n_samples : int
        Rows of this run.
    rho : float
        What was asked for.
    required_samples : int
        Least rows at which the forecast meets rho on this distribution.
    """

    total: float
    box: float
    opt: float
    cells: float
    masses: float
    means: float
    n_samples: int
    rho: float
    required_samples: int

    @property
    def enough(self) -> bool:
        """Whether the forecast meets rho."""
        return self.total <= self.rho

    def __str__(self) -> str:
        """Readable lines for a notebook or a log."""
        parts = {
            "box": self.box, "guess of the cost": self.opt, "cells": self.cells,
            "masses": self.masses, "means": self.means,
        }  # fmt: skip
        told = ", ".join(f"{name} {value:.3f}" for name, value in parts.items() if value > 0)
        verdict = "enough" if self.enough else f"needs about {self.required_samples:,} rows"
        return (
            f"another sample of {self.n_samples:,} rows: different with probability "
            f"{self.total:.3f} (asked: {self.rho:g}; {verdict})\n  by part: {told or 'none'}"
        )


def forecast_tree(
    trees: Sequence[QuadTree],
    coreset: Coreset,
    *,
    n_samples: int,
    n_cells: int,
    rho: float,
    box_failure: float,
    opt_failure: float,
) -> Forecast:
    """Forecast of a fit by quad tree and coreset.

    Parameters
    ----------
    trees, coreset
        Of this sample: the tree in use last, before it those that had too few leaves.
    n_samples, n_cells : int
        Rows of the run, and of the part that made the cells.
    rho : float
        What was asked for.
    box_failure, opt_failure : float
        Forecasts of the earlier steps at this n; they fall like 1 / sqrt(n).
    """
    tested = [
        [level for level in tree.levels if level.threshold == level.threshold] for tree in trees
    ]
    rows = coreset.rows
    held = rows > 0
    n_masses = int(rows.sum())
    masses = rows / n_masses
    finite = np.isfinite(coreset.mean_alpha) & held

    def parts(factor: float) -> tuple[float, float, float, float, float]:
        n = max(1, round(n_cells * factor))
        agree = 1.0
        for level in itertools.chain(*tested):
            agree *= 1 - theory.thresholds_differ(
                n, level.masses, level.low, level.high, resolution=100, normal=True
            )
        n = max(1, round(n_masses * factor))
        weights = theory.jointly_rounded_differ(n, masses, coreset.alpha, resolution=60)
        gaps = theory.normal_gap(
            coreset.deviations[finite] / np.sqrt(rows[finite] * factor)[:, None]
        )
        means = 1 - np.prod(1 - np.minimum(1, gaps / coreset.mean_alpha[finite][:, None]))
        root = np.sqrt(factor)
        return (
            min(1.0, box_failure / root), min(1.0, opt_failure / root),
            1 - agree, weights, float(means),
        )  # fmt: skip

    return make_forecast(parts, n_samples=n_samples, rho=rho)


def make_forecast(
    parts: Callable[[float], tuple[float, float, float, float, float]],
    *,
    n_samples: int,
    rho: float,
) -> Forecast:
    """Assemble a forecast from its parts as a function of a factor on the number of rows."""

    def total(factor: float) -> float:
        return float(1 - np.prod(1 - np.asarray(parts(factor))))

    box, opt, cells, masses, means = parts(1.0)
    return Forecast(
        total(1.0), box, opt, cells, masses, means, n_samples, rho,
        _least_rows(total, n_samples, rho),
    )  # fmt: skip


def _least_rows(total: Callable[[float], float], n_samples: int, rho: float) -> int:
    """Least rows with total <= rho, to 1 %, by doubling and bisection (about monotone in rows)."""
    low, high = 1.0, 1.0
    if total(1.0) <= rho:
        while total(low) <= rho and low * n_samples > 2:
            low /= 2
        high = low * 2
    else:
        while total(high) > rho and high < 2.0**40:
            high *= 2
        low = high / 2
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if total(middle) <= rho else (middle, high)
    return max(1, int(np.ceil(high * n_samples)))
