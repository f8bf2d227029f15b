"""Populations to draw from, and how often two samples give the same coreset.

The two planar distributions are those of the experiments of Esfandiari et al. 2023
(arXiv 2302.10359); the authors show two executions, the rate over many is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .coreset import replicable_coreset

FloatArray = NDArray[np.float64]
#: ``sampler(n, rng)`` gives n independent rows.
Sampler = Callable[[int, np.random.Generator], FloatArray]

#: Settings of the authors' experiments.
PAPER_SETTINGS: Mapping[str, Any] = {
    "n_clusters": 3, "epsilon": 0.99, "rho": 0.3, "failure_probability": 0.01, "opt": 0.5,
    "levels": 3, "bounds": (-1.0, 1.0), "representative": "centre",
}  # fmt: skip


def truncated_mixture(n: int, rng: np.random.Generator) -> FloatArray:
    """Four equal blobs: each coordinate is N(-.6, .1^2) or N(.4, .1^2), truncated to [-1, 1].

    Examples
    --------
    >>> truncated_mixture(3, np.random.default_rng(0)).shape
    (3, 2)
    """
    centres = np.where(rng.random((n, 2)) < 0.5, -0.6, 0.4)
    noise = rng.normal(0, 0.1, (n, 2))
    # Beyond 4 (6) standard deviations: draw those again until none is left.
    while (outside := np.abs(centres + noise) > 1).any():
        noise[outside] = rng.normal(0, 0.1, int(outside.sum()))
    return centres + noise


def two_moons(n: int, rng: np.random.Generator) -> FloatArray:
    """Two interleaved half circles with noise .02, moved into [-1, 1]^2.

    Rows are independent: angles are drawn, where `sklearn.datasets.make_moons` spaces them evenly
    (which would make samples more alike than independent ones are).
    """
    angle = np.pi * rng.random(n)
    lower = rng.random(n) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    noise = rng.normal(0, 0.02, (n, 2))
    return np.stack([(x + noise[:, 0] - 0.5) / 2, y + noise[:, 1] - 0.2], axis=1)


SAMPLERS: Mapping[str, Sampler] = {"mixture": truncated_mixture, "moons": two_moons}


class CoresetAgreement(NamedTuple):
    """How many of ``n_pairs`` pairs of samples agreed."""

    n_pairs: int
    same_leaves: int
    same_coreset: int


def coreset_agreement(
    sampler: Sampler, n: int, n_pairs: int, *, seed: int, **settings: Any
) -> CoresetAgreement:
    """Draw pairs of samples, a fresh shared seed for each pair, and compare coresets bit by bit.

    Equal coresets give equal partitions, whatever deterministic solver follows.

    Parameters
    ----------
    sampler : callable
        ``sampler(n, rng)``.
    n : int
        Rows of each sample.
    n_pairs : int
    seed : int
        Of the samples; pair number i has the shared seed ``seed * 1_000_003 + i``.
    **settings
        For `replicable_coreset`; `PAPER_SETTINGS` where nothing else is said.

    Examples
    --------
    >>> coreset_agreement(lambda n, rng: np.zeros((n, 2)), 50, 3, seed=0).same_coreset
    3
    """
    options = {**PAPER_SETTINGS, **settings}
    leaves = coresets = 0
    for pair in range(n_pairs):
        rng = np.random.default_rng([seed, pair])
        one, two = (
            replicable_coreset(sampler(n, rng), shared_seed=seed * 1_000_003 + pair, **options)
            for _ in range(2)
        )
        leaves += one.support == two.support
        coresets += one.key == two.key
    return CoresetAgreement(n_pairs, leaves, coresets)
