"""Exact draws for releases, in integers, from the operating system's entropy.

Probabilities are whole numbers over 2^32 (coins) or over K 2^j (categories), and every draw has
exactly that probability: no floating-point number takes part, so nothing can be read off roundings.
Draws go through memory in blocks and through the cores in threads (``os.urandom`` and NumPy let
other threads run).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

#: Coins fall with probability weight / COIN.
COIN = 1 << 32
_BLOCK = 1 << 18

#: Number of bytes -> that many random bytes.
Source = Callable[[int], bytes]


class AliasTable(NamedTuple):
    """Walker's tables for P distributions over K codes with weights summing to K 2^j.

    Attributes
    ----------
    threshold : ndarray of shape (P, K), int64
        Of the 2^j sides of column k, this many say k, ...
    alias : ndarray of shape (P, K), int32
        ... and the rest say this.
    bits : int
        j.
    """

    threshold: np.ndarray
    alias: np.ndarray
    bits: int


def total_weight(k: int) -> int:
    """Largest K 2^j that is at most 2^32: the denominator of all probabilities of K codes.

    Examples
    --------
    >>> total_weight(2) == 2**32, total_weight(12) == 12 * 2**28
    (True, True)
    """
    return k << (32 - max(k - 1, 0).bit_length())


def integer_weights(priors: np.ndarray, gamma: float) -> np.ndarray:
    """Round distributions to weights that sum to `total_weight` and keep the floor exactly.

    Parameters
    ----------
    priors : ndarray of shape (P, K)
        Rows that sum to one with entries of at least gamma, up to rounding.
    gamma : float
        Floor, at most 1/K.

    Returns
    -------
    ndarray of shape (P, K), int64
        Every weight is at least `floor_weight`.

    Examples
    --------
    >>> (integer_weights(np.array([[0.5, 0.25, 0.25]]), 0.25) / total_weight(3)).round(6)
    array([[0.5 , 0.25, 0.25]])
    """
    k = priors.shape[1]
    floor = floor_weight(gamma, k)
    free = total_weight(k) - k * floor
    above = np.maximum(priors - gamma, 0.0)
    total = above.sum(1, keepdims=True)
    share = np.divide(above, total, out=np.full_like(above, 1 / k), where=total > 0)
    weights = np.floor(share * free).astype(np.int64)  # sums to at most free: K ulps are far off 1
    weights[np.arange(len(weights)), np.argmax(weights, axis=1)] += free - weights.sum(1)
    return weights + floor


def floor_weight(gamma: float, k: int) -> int:
    """Smallest whole number over `total_weight` that is at least gamma; exactly 1/K for uniform.

    Examples
    --------
    >>> floor_weight(1 / 12, 12) * 12 == total_weight(12)
    True
    """
    total = total_weight(k)
    if is_uniform(gamma, k):
        return total // k
    return min(max(math.ceil(gamma * total), 1), total // k)


def is_uniform(gamma: float, k: int) -> bool:
    """Whether gamma is 1/K, up to rounding: the prior is then uniform and needs no data."""
    return gamma * k >= 1 - 1e-12


def coin_weight(lam: float) -> int:
    """Smallest weight over 2^32 that is at least lam: rounding up makes a release more private.

    Examples
    --------
    >>> coin_weight(0.5) == 2**31
    True
    """
    return min(math.ceil(lam * COIN), COIN)


def alias_table(weights: np.ndarray) -> AliasTable:
    """Build alias tables, exactly: each step fills the smallest column from the largest.

    Examples
    --------
    >>> table = alias_table(np.array([[2**32 // 4 * 3, 2**32 // 4]]))
    >>> table.threshold / 2**table.bits, table.alias
    (array([[1. , 0.5]]), array([[0, 0]], dtype=int32))
    """
    p, k = weights.shape
    bits = int(total_weight(k) // k).bit_length() - 1
    side = 1 << bits
    if not ((weights >= 0).all() and (weights.sum(1) == k * side).all()):
        raise ValueError(f"weights must be >= 0 and sum to {k * side} in every row")
    left = weights.astype(np.int64)
    threshold = np.full((p, k), side, np.int64)
    alias = np.tile(np.arange(k, dtype=np.int32), (p, 1))
    active = np.ones((p, k), bool)
    rows = np.arange(p)
    for _ in range(k - 1):
        small = np.where(active, left, np.iinfo(np.int64).max).argmin(1)
        large = np.where(active, left, -1).argmax(1)
        threshold[rows, small] = left[rows, small]
        alias[rows, small] = large
        active[rows, small] = False
        # Where all active columns are full, small is large or equal to it, and nothing moves.
        left[rows, large] -= side - left[rows, small]
    return AliasTable(threshold, alias, bits)


def uniform(high: int, size: int, source: Source = os.urandom) -> np.ndarray:
    """Exactly uniform int64 in 0, ..., high - 1 with high <= 2^32, by rejection from 32 bits.

    Examples
    --------
    >>> bool((uniform(3, 100) < 3).all())
    True
    """
    limit = COIN - COIN % high
    kept: list[np.ndarray] = []
    missing = size
    while missing > 0:
        words = np.frombuffer(source(4 * missing), dtype=np.uint32)
        words = words if limit == COIN else words[words < np.uint32(limit)]
        kept.append(words)
        missing -= len(words)
    words = kept[0] if len(kept) == 1 else np.concatenate(kept or [np.empty(0, np.uint32)])
    if high < COIN:
        words = words % np.uint32(high)
    return words.astype(np.int64)


def coins(weights: int | np.ndarray, size: int, source: Source = os.urandom) -> np.ndarray:
    """Booleans that are true with probability weight / 2^32 exactly.

    Examples
    --------
    >>> coins(COIN, 2), coins(0, 2)
    (array([ True,  True]), array([False, False]))
    """
    out = np.empty(size, bool)

    def fill(block: slice) -> None:
        words = np.frombuffer(source(4 * (block.stop - block.start)), dtype=np.uint32)
        each = weights[block] if isinstance(weights, np.ndarray) else weights
        np.less(words.astype(np.int64), each, out=out[block])

    _over_blocks(fill, size)
    return out


def resample(
    codes: np.ndarray, rows: np.ndarray, table: AliasTable, coin: int, source: Source = os.urandom
) -> np.ndarray:
    """Replace each code, with probability coin / 2^32, by a draw from its row of the table.

    Parameters
    ----------
    codes, rows : integer arrays of shape (n,)
        Code and row of the table of each unit.
    table : AliasTable
    coin : int
    source : callable, default=os.urandom

    Returns
    -------
    ndarray of shape (n,), of the dtype of codes

    Examples
    --------
    >>> table = alias_table(np.array([[2**32, 0]]))
    >>> resample(np.array([1, 0, 1]), np.zeros(3, int), table, COIN)
    array([0, 0, 0])
    """
    out = codes.copy()
    k = table.threshold.shape[1]
    threshold, alias = table.threshold.ravel(), table.alias.ravel()
    mask = (1 << table.bits) - 1

    def fill(block: slice) -> None:
        words = np.frombuffer(source(4 * (block.stop - block.start)), dtype=np.uint32)
        who = np.flatnonzero(words.astype(np.int64) < coin)
        draw = uniform(k << table.bits, len(who), source)
        column = draw >> table.bits
        at = rows[block][who] * k + column
        out[block][who] = np.where((draw & mask) < threshold[at], column, alias[at])

    _over_blocks(fill, len(codes))
    return out


def _over_blocks(fill: Callable[[slice], None], size: int) -> None:
    def blocks() -> Iterator[slice]:
        for start in range(0, size, _BLOCK):
            yield slice(start, min(start + _BLOCK, size))

    if size <= _BLOCK:
        for block in blocks():
            fill(block)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, -(-size // _BLOCK))) as pool:
        for _ in pool.map(fill, blocks()):
            pass
