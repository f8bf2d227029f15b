"""Fast exact draws for simulations: standard normals, chi variables, Bartlett factors. Pure JAX.

Drawing normals dominates a Monte-Carlo trial on a CPU. Two remedies, both exact:

* `normal` runs the generator that JAX uses (Threefry-2x32, 20 rounds: the same bits for the same
  key and counters) in one fused loop with the Box-Muller transform. JAX runs the rounds as a loop
  over arrays in memory on a CPU, and that is what takes its time.
* `bartlett` draws the triangular factor of a Wishart matrix from about p^2 / 2 numbers, where the
  rows behind it would need df * p.

In 64-bit mode the normals have the resolution of float32 (spacing about 1e-7 of their value) and a
range of 6.7 standard deviations, which no simulation of a risk can tell. In 32-bit mode the draws
are those of `jax.random`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

#: The long arrays are made in this many pieces, inside a loop that XLA may not fuse into what
#: follows: a fusion would compute each pair of normals twice.
_PIECES = 4


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normals, float64 in 64-bit mode and float32 otherwise.

    Parameters
    ----------
    key : Array
        One typed key, from ``jax.random.key``.
    shape : tuple of int

    Examples
    --------
    >>> import jax
    >>> normal(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    if jnp.result_type(float) != jnp.float64:
        return jax.random.normal(key, shape)
    size = math.prod(shape)
    piece = -(-size // (2 * _PIECES))
    word = jax.random.bits(key, (2,), jnp.uint32)
    steps = jnp.arange(piece, dtype=jnp.uint32)
    starts = jnp.arange(_PIECES, dtype=jnp.uint32) * np.uint32(piece)
    packed = jax.lax.map(lambda start: _normal_pair(word, start + steps), starts).reshape(-1)
    halves = [_float32(packed), _float32(packed >> np.uint64(32))]
    return jnp.concatenate(halves)[:size].reshape(shape).astype(jnp.float64)


def chi_square(key: Array, df: np.ndarray) -> Array:
    """Chi-square variables with the given degrees of freedom, each a positive integer.

    Marsaglia and Tsang's rejection for gamma variables ("A simple method for generating gamma
    variables", ACM TOMS 26, 2000), all at once; about 3 rounds are enough.

    Parameters
    ----------
    key : Array
    df : numpy.ndarray of int
        Known when the trial is traced.
    """
    shape = np.shape(df)
    # One degree of freedom is a squared normal; the rejection starts from two.
    d = np.maximum(np.asarray(df), 2) / 2 - 1 / 3
    c = 1 / np.sqrt(9 * d)

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        round_, value, missing = state
        normals, uniforms = jax.random.split(jax.random.fold_in(key, round_))
        z = jax.random.normal(normals, shape)  # few numbers: the quicker one to compile
        cube = (1 + c * z) ** 3
        log_u = jnp.log1p(-jax.random.uniform(uniforms, shape))
        log_cube = jnp.log(jnp.where(cube > 0, cube, 1.0))
        good = (cube > 0) & (log_u < z**2 / 2 + d - d * cube + d * log_cube)
        return round_ + 1, jnp.where(missing & good, 2 * d * cube, value), missing & ~good

    start = (jnp.uint32(1), jnp.zeros(shape), jnp.ones(shape, bool))
    _, value, _ = jax.lax.while_loop(lambda state: state[2].any(), attempt, start)
    if (np.asarray(df) == 1).any():
        z = jax.random.normal(jax.random.fold_in(key, 0), shape)
        value = jnp.where(df == 1, z**2, value)
    return value


def bartlett(key: Array, p: int, dfs: tuple[int, ...]) -> tuple[Array, ...]:
    """Lower-trapezoidal L of shape (p, min(p, df)) for each df, with L L' ~ Wishart_p(df).

    L L' has the law of Z' Z for a df x p matrix Z of standard normals (Bartlett 1933); it is
    singular when df < p. The factors are independent; df = 0 gives shape (p, 0).
    """
    widths = [min(p, df) for df in dfs]
    places = [np.tril_indices(p, -1, width) for width in widths]
    cuts = np.cumsum([len(rows) for rows, _ in places])[:-1]
    below_key, diagonal_key = jax.random.split(key)
    below = jnp.split(normal(below_key, (sum(len(rows) for rows, _ in places),)), cuts)
    freedoms = np.concatenate(
        [df - np.arange(width) for df, width in zip(dfs, widths, strict=True)]
    )
    diagonal = jnp.split(jnp.sqrt(chi_square(diagonal_key, freedoms)), np.cumsum(widths)[:-1])
    factors = []
    for width, (rows, columns), lower, spread in zip(widths, places, below, diagonal, strict=True):
        factor = jnp.zeros((p, width), lower.dtype).at[rows, columns].set(lower)
        factors.append(factor.at[np.arange(width), np.arange(width)].set(spread))
    return tuple(factors)


def _normal_pair(word: Array, counters: Array) -> Array:
    """Two float32 normals for each counter, side by side in a uint64."""
    first, second = threefry(word, counters, jnp.zeros_like(counters))
    # (i + 1/2) / 2^32: float32 keeps its relative precision near 0, where the tails come from.
    uniform = (first.astype(jnp.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    radius = jnp.sqrt(np.float32(-2) * jnp.log(uniform))
    cosine, sine = _cosine_sine(second)
    low, high = (
        jax.lax.bitcast_convert_type(radius * part, jnp.uint32).astype(jnp.uint64)
        for part in (cosine, sine)
    )
    return low | (high << np.uint64(32))


def threefry(word: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), unrolled so that XLA fuses it.

    Parameters
    ----------
    word : Array of uint32, shape (2,)
        The key.
    first, second : Array of uint32
        The two halves of the counters.
    """
    keys = (word[0], word[1], word[0] ^ word[1] ^ np.uint32(0x1BD11BDA))
    first, second = first + keys[0], second + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            first = first + second
            second = (second << np.uint32(turn)) | (second >> np.uint32(32 - turn))
            second = second ^ first
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def _cosine_sine(angle: Array) -> tuple[Array, Array]:
    """Cosine and sine of 2 pi angle / 2^32, float32, by Taylor series within an eighth of a turn.

    Turns are counted from the nearest quarter; XLA's own sine and cosine are not vectorised on a
    CPU.
    """
    quadrant = (angle + np.uint32(2**29)) >> np.uint32(30)
    within = (angle << np.uint32(2)).astype(jnp.int32).astype(jnp.float32)
    t = within * np.float32(2.0**-32 * np.pi / 2)
    s = t * t
    sine = jnp.full_like(t, 1 / 362880)
    for coefficient in (-1 / 5040, 1 / 120, -1 / 6, 1.0):
        sine = sine * s + np.float32(coefficient)
    sine = sine * t
    cosine = jnp.full_like(t, -1 / 3628800)
    for coefficient in (1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0):
        cosine = cosine * s + np.float32(coefficient)
    odd = (quadrant & np.uint32(1)) == 1
    turned_sine, turned_cosine = jnp.where(odd, cosine, sine), jnp.where(odd, -sine, cosine)
    sign = jnp.where(quadrant >= np.uint32(2), np.float32(-1), np.float32(1))
    return turned_cosine * sign, turned_sine * sign


def _float32(packed: Array) -> Array:
    """Read the lower half of each uint64 as a float32."""
    return jax.lax.bitcast_convert_type(packed.astype(jnp.uint32), jnp.float32)
