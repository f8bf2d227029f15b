"""Releases for figures: the code that real releases run, with a seed in place of entropy.

A figure must come out the same twice; a release must not. What differs is only where the random
bits come from: the seeded faces of the mechanisms, which the tests hold to the same distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from privlearn.causal import entropy, kernels
from privlearn.causal.baselines import LaplaceOutcome, NoisyCellMeans, NoisyHistogram, OneBitOutcome
from privlearn.causal.cells import Cells
from privlearn.causal.mechanism import NoDP
from privlearn.causal.outcomes import OutcomeGrid
from privlearn.causal.release import OutcomeRelease, ScoreRelease


def seeded_codes(grid: OutcomeGrid, y: np.ndarray, *, seed: int) -> np.ndarray:
    """Value codes of outcomes, with seeded instead of secret rounding where the grid rounds."""
    if grid.rule != "round":
        return grid.encode(y)
    below, share = grid.neighbours(y)
    return (below + (np.random.default_rng(seed).random(len(below)) < share)).astype(np.int32)


def seeded_release(mechanism: Any, codes: np.ndarray, cells: Cells, *, seed: int) -> Any:
    """One release of any mechanism; see `seeded_releases`."""
    return next(seeded_releases(mechanism, codes, cells, 1, seed=seed))


def seeded_releases(
    mechanism: Any, codes: np.ndarray, cells: Cells, n: int, *, seed: int
) -> Iterator[Any]:
    """Draw n releases that promise nothing, because their noise can be drawn again.

    Parameters
    ----------
    mechanism : mechanism or baseline of `privlearn.causal`
    codes : ndarray of shape (units,)
        Value codes.
    cells : Cells
    n : int
    seed : int
    """
    if isinstance(mechanism, NoDP):
        yield from (mechanism.release_codes(codes, cells) for _ in range(n))
    elif isinstance(mechanism, (LaplaceOutcome, OneBitOutcome, NoisyCellMeans, NoisyHistogram)):
        for key in jax.random.split(jax.random.key(seed), n):
            yield _baseline(mechanism, key, codes, cells)
    else:
        yield from _resampled(mechanism, codes, cells, n, seed)


def _baseline(mechanism: Any, key: jax.Array, codes: np.ndarray, cells: Cells) -> Any:
    drawn = np.asarray(mechanism.simulate(key, codes, cells.codes, cells.n_clusters))
    if isinstance(mechanism, NoisyHistogram):
        return mechanism.assemble(drawn, cells)
    if isinstance(mechanism, NoisyCellMeans):
        scale = mechanism.grid.width / mechanism.epsilon
        return mechanism.assemble(drawn.astype(float), scale, cells)
    nothing = NoDP(mechanism.grid).guarantee
    return ScoreRelease(drawn.astype(float), cells, nothing, mechanism.name)


def _resampled(
    mechanism: Any, codes: np.ndarray, cells: Cells, n: int, seed: int
) -> Iterator[OutcomeRelease]:
    """Cluster-DP and its relatives: seeded noise on counts, then seeded coins and tables."""
    rng = np.random.default_rng(seed)
    where = mechanism.prior_of_cell(cells.n_clusters)
    rows = cells.codes if mechanism.priors == "cell" else where[cells.codes]
    for weights in _weights(mechanism, codes, cells, n, seed):
        table = entropy.alias_table(weights)
        outcomes = entropy.resample(
            codes, rows, table, entropy.coin_weight(mechanism.exact_lam), rng.bytes
        )
        yield OutcomeRelease(
            outcomes=outcomes,
            cells=cells,
            guarantee=NoDP(mechanism.grid).guarantee,
            mechanism=mechanism.name,
            grid=mechanism.grid,
            lam=mechanism.exact_lam,
            weights=weights,
            prior_of_cell=where,
        )


def _weights(
    mechanism: Any, codes: np.ndarray, cells: Cells, n: int, seed: int
) -> Iterator[np.ndarray]:
    if not mechanism.uses_data:
        yield from (mechanism.prior_weights(codes, cells) for _ in range(n))
        return
    k = mechanism.grid.k
    counts = kernels.count_cells(codes, cells.codes, 2 * cells.n_clusters, k)
    if mechanism.priors == "arm":
        counts = counts.reshape(-1, 2, k).sum(0)
    stack = np.broadcast_to(counts, (n, *counts.shape))
    noisy = np.asarray(mechanism.noise.simulate(jax.random.key(seed), stack))
    for each in noisy:
        yield mechanism.weights_from_counts(each, counts.sum(1))
