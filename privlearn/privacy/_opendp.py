"""The only place that talks to OpenDP.

OpenDP asks for ``enable_features("contrib")``, which sets a process-wide flag that its
constructors (not its measurements) read. We raise the flag only while we construct and put it
back as it was, under a lock. The one thing this cannot protect: another thread that enables
"contrib" itself in those microseconds sees it withdrawn.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

Kind = Literal["laplace", "gaussian", "discrete_laplace"]

_LOCK = threading.Lock()
#: Values per call to OpenDP; calls run in threads (OpenDP releases the interpreter lock).
_CHUNK = 16_384
#: OpenDP noises floats on the grid of multiples of 2^k. k is chosen so that rounding a vector to
#: the grid adds less than this fraction of the sensitivity to the distance that OpenDP certifies.
ROUNDING = 2.0**-44


@contextmanager
def _contrib() -> Iterator[Any]:
    """Import OpenDP with its "contrib" feature enabled for the duration of the block."""
    import opendp.mod as mod
    import opendp.prelude as dp

    with _LOCK:
        missing = "contrib" not in mod.GLOBAL_FEATURES
        if missing:
            mod.enable_features("contrib")
        try:
            yield dp
        finally:
            if missing:
                mod.disable_features("contrib")


def grid_exponent(sensitivity: float, size: int) -> int:
    """Return k, where noise for `size` floats lives on multiples of 2^k."""
    k = math.floor(math.log2(sensitivity) + math.log2(ROUNDING)) - math.ceil(
        math.log2(max(size, 1))
    )
    if k < -1074:
        raise ValueError(f"sensitivity is too small for float64 noise, got {sensitivity!r}")
    return k


def measurement(kind: Kind, scale: float, size: int, k: int | None = None) -> Any:
    """Build OpenDP's vector measurement of the given noise for `size` values."""
    with _contrib() as dp:
        if kind == "discrete_laplace":
            space = dp.vector_domain(dp.atom_domain(T="i64"), size=size), dp.l1_distance(T="i64")
            return dp.m.make_laplace(*space, scale=scale)
        domain = dp.vector_domain(dp.atom_domain(T=float, nan=False), size=size)
        if kind == "laplace":
            return dp.m.make_laplace(domain, dp.l1_distance(T=float), scale=scale, k=k)
        return dp.m.make_gaussian(domain, dp.l2_distance(T=float), scale=scale, k=k)


def add_noise(kind: Kind, values: np.ndarray, scale: float, k: int | None = None) -> np.ndarray:
    """Noise every entry of `values` (flattened in chunks over the cores), keeping its shape."""
    flat = values.ravel()
    chunks = [flat[i : i + _CHUNK] for i in range(0, flat.size, _CHUNK)]

    def noise(chunk: np.ndarray) -> np.ndarray:
        released = measurement(kind, scale, chunk.size, k)(chunk.tolist())
        return np.asarray(released, dtype=values.dtype)

    if len(chunks) <= 1:
        parts = [noise(chunk) for chunk in chunks]
    else:
        with ThreadPoolExecutor(min(len(chunks), os.cpu_count() or 1)) as pool:
            parts = list(pool.map(noise, chunks))
    return np.concatenate(parts).reshape(values.shape) if parts else values.copy()


def coin_flips(probability: float, size: int) -> np.ndarray:
    """Return independent booleans, true with exactly `probability`, from OpenDP's sampler.

    OpenDP's bit-vector randomised response flips each bit with probability f/2 <= 1/2, exactly
    for the float f. Rarer sides are drawn directly, likelier ones as complements.
    """
    rare = probability <= 0.5
    f = 2 * (probability if rare else 1 - probability)  # exact: doubling, and Sterbenz's lemma
    with _contrib() as dp:
        flip = dp.m.make_randomized_response_bitvec(
            dp.bitvector_domain(max_weight=1), dp.discrete_distance(), f=f
        )
    bits = np.unpackbits(np.frombuffer(flip(bytes(-(-size // 8))), dtype=np.uint8))[:size]
    return bits.astype(bool) if rare else ~bits.astype(bool)


def uniform_integers(high: int, size: int) -> np.ndarray:
    """Return exactly uniform integers in 0..high-1 from operating-system entropy, by rejection."""
    limit = (1 << 64) - (1 << 64) % high
    kept: list[np.ndarray] = []
    missing = size
    while missing > 0:
        words = np.frombuffer(os.urandom(8 * missing), dtype=np.uint64)
        words = words[words <= np.uint64(limit - 1)]
        kept.append(words % np.uint64(high))
        missing -= words.size
    return np.concatenate(kept).astype(np.int64) if kept else np.empty(0, np.int64)


def randomized_response_loss(keep: float, n_categories: int) -> float:
    """Epsilon that OpenDP certifies for k-ary randomised response."""
    with _contrib() as dp:
        # The certificate depends on the number of categories alone, not on what they are.
        response = dp.m.make_randomized_response(list(range(n_categories)), prob=keep)
    return float(response.map(1))
