"""Shared randomness: one number for each use, found by its name and never by its turn.

Two runs that share a seed must read the same number for the same purpose, although their samples
have, say, different numbers of occupied cells. A sequential generator would fall out of step at the
first data-dependent draw. Here every number is a function of (seed, purpose, integer labels), so
that nothing is consumed. Only integer arithmetic is involved: the numbers are the same on every
platform and with every version of NumPy.
"""

from __future__ import annotations

import hashlib
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))


def check_shared_seed(shared_seed: object) -> int:
    """Return the shared seed as an int; a clear error if it is missing or no integer >= 0.

    Raises
    ------
    ValueError
        If it is None or negative.
    TypeError
        If it is no integer.
    """
    if shared_seed is None:
        raise ValueError(
            "shared_seed is missing: replicability is a promise between runs that share it. Agree "
            "on one integer with whoever clusters another sample, as in shared_seed=20231"
        )
    if isinstance(shared_seed, bool) or not isinstance(shared_seed, Integral):
        raise TypeError(
            f"shared_seed must be an integer >= 0, got {shared_seed!r} "
            f"({type(shared_seed).__name__}); a generator or None would not be the same elsewhere"
        )
    if shared_seed < 0:
        raise ValueError(f"shared_seed must be >= 0, got {shared_seed}")
    return int(shared_seed)


def uniforms(shared_seed: int, purpose: str, *labels: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each combination of labels.

    Parameters
    ----------
    shared_seed : int
        At least 0, of any size.
    purpose : str
        What the number is for; different purposes are independent.
    *labels : int or array of int
        Broadcast together: the level, the cell, the coordinate ...

    Returns
    -------
    ndarray of the labels' common shape (a scalar array without labels)

    Notes
    -----
    A 64-bit key (BLAKE2b of seed and purpose) is mixed with each label by the finaliser of
    SplitMix64 (Steele, Lea, Flood 2014); the upper 53 bits make the number.

    Examples
    --------
    >>> together = uniforms(7, "offset", np.arange(3))
    >>> bool(uniforms(7, "offset", 2) == together[2])
    True
    """
    seed = check_shared_seed(shared_seed)
    state = np.array(_key(seed, purpose), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for label in labels:
            values = np.asarray(label, dtype=np.int64).astype(np.uint64)
            state = _mix(state + _GOLDEN) ^ _mix(values * _GOLDEN + _MULTIPLY[0])
            state = _mix(state)
        state = _mix(state + _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integer_seed(shared_seed: int, purpose: str) -> int:
    """A seed below 2**31 for someone else's generator, such as scikit-learn's ``random_state``."""
    return _key(check_shared_seed(shared_seed), purpose) >> 33


def normals(shared_seed: int, purpose: str, *labels: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers for labels, as `uniforms` (by inversion, so never out of step)."""
    return special.ndtri(uniforms(shared_seed, purpose, *labels) + 2.0**-54)


def _key(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"privlearn.replicable/{seed}/{purpose}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> _SHIFT[0])) * _MULTIPLY[0]
    z = (z ^ (z >> _SHIFT[1])) * _MULTIPLY[1]
    return z ^ (z >> _SHIFT[2])
