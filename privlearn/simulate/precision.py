"""64-bit JAX where theory is checked, without touching the global flag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def float64() -> Iterator[None]:
    """Let JAX make 64-bit arrays inside a ``with`` block, in this thread only.

    The global flag ``jax_enable_x64`` is never written: code outside the block, and other threads,
    keep the precision that they had. Arrays made inside keep their 64 bits outside, but operations
    on them outside the block may round to 32 bits, so finish the computation inside.

    Functions compiled with ``jax.jit`` are traced anew inside the block (JAX keys its cache on the
    precision), so the same function serves both.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.simulate import float64
    >>> with float64():
    ...     inside = jnp.linspace(0.0, 1.0, 3).dtype
    >>> inside, jnp.linspace(0.0, 1.0, 3).dtype
    (dtype('float64'), dtype('float32'))
    """
    import jax

    # The one spelling that jax 0.8 and later share; jax.experimental.enable_x64 is gone in 0.10.
    with jax.enable_x64(True):
        yield
