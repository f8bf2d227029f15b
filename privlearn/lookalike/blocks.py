"""Cut a large table into blocks of near rows, so that quadratic methods stay linear in n."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .coordinates import FloatArray


def blocks(Z: FloatArray, min_size: int, block_size: int) -> list[NDArray[np.intp]]:
    """Split the rows by a k-d tree into blocks of at most ``block_size``, and of m at least.

    Every cut halves the widest coordinate (by variance) of its block, at a multiple of
    ``min_size`` rows, so that only the last block holds a remainder. Ties go by row.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    min_size : int
    block_size : int
        At least 2 * min_size, or it is raised to that.

    Returns
    -------
    list of ndarray
        Row numbers of the blocks, ascending in each; together every row once.
    """
    block_size = max(block_size, 2 * min_size)
    done: list[NDArray[np.intp]] = []
    todo = [np.arange(len(Z), dtype=np.intp)]
    while todo:
        rows = todo.pop()
        if len(rows) <= block_size:
            done.append(rows)
            continue
        widest = int(Z[rows].var(axis=0).argmax())
        order = rows[np.argsort(Z[rows, widest], kind="stable")]
        cut = len(rows) // (2 * min_size) * min_size
        todo += [np.sort(order[cut:]), np.sort(order[:cut])]
    return done


def default_block_size(min_size: int, work: int) -> int:
    """Rows B of a block for which B rows against B / m clusters make ``work`` distances."""
    return max(2 * min_size, math.isqrt(work * min_size))
