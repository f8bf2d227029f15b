"""Random words for simulations: Threefry counters, both words of each block used.

Drawing is most of the cost of simulating auctions. `jax.random.uniform` computes a whole Threefry
block of two words for each number; an auction needs two numbers, and one block has both. The block
is that of JAX's default generator (20 rounds), or with 13 rounds, for speed.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry(key: Array, counter: tuple[Array, Array], rounds: int = 20) -> tuple[Array, Array]:
    """Encrypt counters with Threefry-2x32.

    Parameters
    ----------
    key : Array of shape (2,), uint32
    counter : two Arrays of one shape, uint32
    rounds : int, default=20

    Returns
    -------
    two Arrays of that shape, uint32

    Examples
    --------
    >>> zero = jnp.zeros((), jnp.uint32)
    >>> [hex(word) for word in threefry(jnp.zeros(2, jnp.uint32), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for i in range(rounds):
        turn = _ROTATIONS[i % 8]
        x = x + y
        y = ((y << turn) | (y >> (32 - turn))) ^ x
        if i % 4 == 3:
            group = i // 4 + 1
            x = x + keys[group % 3]
            y = y + keys[(group + 1) % 3] + jnp.uint32(group)
    return x, y


def words(key: Array, shape: tuple[int, ...], rounds: int = 20) -> tuple[Array, Array]:
    """Give two independent arrays of random words of a shape.

    Parameters
    ----------
    key : Array
        One typed JAX key of any implementation.
    shape : tuple of int
        Of at most 2**32 elements.
    rounds : int, default=20
        20, as JAX has, or 13.
    """
    size = 1
    for length in shape:
        size *= length
    count = jax.lax.iota(jnp.uint32, size).reshape(shape)
    pair = jax.random.bits(key, (2,), jnp.uint32)
    return threefry(pair, (count, jnp.zeros_like(count)), rounds)


def uniform(word: Array) -> Array:
    """Give the midpoint of one of 2^23 equal cells of (0, 1), by the upper 23 bits of a word."""
    return ((word >> 9).astype(float) + 0.5) * 2.0**-23


def spare_uniform(first: Array, second: Array) -> Array:
    """Give a number in [0, 1) from the 18 bits of two words that `uniform` does not use."""
    low = ((first & 511) << 9) | (second & 511)
    return low.astype(float) * 2.0**-18
