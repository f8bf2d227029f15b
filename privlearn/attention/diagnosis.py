"""Does HyperAttention suit a model? Measured on its own queries, keys and values.

The theory of Han et al. (ICLR 2024, arXiv 2310.05869) speaks through two numbers: alpha, how much
attention the most attended key draws, and kappa, how unequal the row sums are once the blocks are
taken out. Beside them stands what a user wants to know: the share of attention that the hash
blocks catch, and the relative error of the output to expect from a given sample, by the first-order
variance of the estimator (re-derived; see `privlearn.attention.theory.hyper.output_variance`).

This costs about as much as one exact attention, in memory linear in the length.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpy.typing import NDArray

from privlearn.attention.arguments import accumulator, check_inputs, check_scale, check_whole
from privlearn.attention.lsh import bucket_places, draw_projections, inverse_order, stable_order
from privlearn.attention.softmax import to_rows

#: Scores in memory at a time.
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was measured, for each row of the batch and head of queries: arrays (B, N).

    Attributes
    ----------
    alpha : ndarray
        Largest squared column norm of the softmax matrix times the number of keys: 1 if all keys
        are equal, the number of keys if each query has a key of its own. The theory wants it small.
    kappa : ndarray
        Largest over smallest row sum outside the blocks. The theory wants it small.
    block_share : ndarray
        Mean share of the attention that falls into the blocks of the hash.
    error : ndarray
        Relative Frobenius error of the output to expect with `samples` draws, given the blocks.
        First order: above 0.5 or so only an order of magnitude.
    n_keys, block, samples : int
        The setting.
    """

    alpha: NDArray
    kappa: NDArray
    block_share: NDArray
    error: NDArray
    n_keys: int
    block: int
    samples: int

    def samples_for(self, error: float) -> NDArray:
        """Draws that bring the expected relative error down to `error`, by the m^-1/2 law."""
        if not error > 0:
            raise ValueError(f"error: {error}; must be positive")
        return np.ceil(self.samples * (self.error / error) ** 2)

    def suits(self, error: float = 0.1) -> NDArray:
        """Heads in which the expected relative error is at most `error`."""
        return self.error <= error

    def __str__(self) -> str:
        rows = [f"{self.n_keys} keys, blocks of {self.block}, {self.samples} samples"]
        for name in ("alpha", "kappa", "block_share", "error"):
            x = getattr(self, name)
            rows.append(f"{name:>12}  median {np.median(x):.3g}  worst {_worst(name, x):.3g}")
        return "\n".join(rows)


def _worst(name: str, x: NDArray) -> float:
    return float(x.min() if name == "block_share" else x.max())


def diagnose(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    rng: Array,
    block: int = 256,
    samples: int = 256,
    lsh_projs: int = 7,
    scale: float | None = None,
    is_causal: bool = False,
    key_mask: ArrayLike | None = None,
) -> Diagnosis:
    """Measure alpha, kappa, the share of the blocks and the error to expect.

    Parameters
    ----------
    query : array, shape (B, T, N, H) or (T, N, H)
    key : array, shape (B, S, K, H) or (S, K, H)
    value : array, shape (B, S, K, D) or (S, K, D)
        As `hyper_attention` takes them: from a forward pass of the user's model.
    rng : Array
        A typed JAX key, for the hyperplanes.
    block, samples, lsh_projs, scale
        As in `hyper_attention`.
    is_causal : bool, default False
        Measure what the first step of the causal recursion approximates: the second half of the
        queries looking at the first half of the keys.
    key_mask : array of bool, shape (B, S), optional
        True where a key exists.

    Returns
    -------
    Diagnosis

    Examples
    --------
    >>> import jax
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 64, 2, 8))
    >>> found = diagnose(q, k, v, rng=jax.random.key(1), block=16, samples=16)
    >>> found.alpha.shape, bool((found.alpha >= 1).all())
    ((1, 2), True)
    """
    inputs = check_inputs(query, key, value, is_causal=is_causal, key_mask=key_mask)
    scale = check_scale(scale, inputs.query.shape[3] ** -0.5)
    check_whole("block", block, 1)
    check_whole("samples", samples, 1)
    q, k, v, _, ids = to_rows(inputs)
    exists = jnp.ones(k.shape[:2], bool) if ids is None else ids >= 0
    if is_causal:
        half = q.shape[2] // 2
        if half == 0:
            raise ValueError("query: one token; a causal diagnosis needs two or more")
        q, k, v, exists = q[:, :, -half:], k[:, :half], v[:, :half], exists[:, :half]
    if not bool(exists.any(axis=1).all()):
        raise ValueError("key_mask: a row without any key; there is nothing to measure in it")
    exact = accumulator(q.dtype)
    projections = draw_projections(rng, q.shape[-1], lsh_projs, exact)
    q, k, v = (x.astype(exact) for x in (q, k, v))
    measured = _measure(q, k, v, exists, projections, scale, block, _CHUNK)
    shape = (inputs.query.shape[0], inputs.query.shape[2])
    alpha, kappa, share, error = (np.asarray(x, float).reshape(shape) for x in measured)
    error = error / samples**0.5
    return Diagnosis(alpha, kappa, share, error, k.shape[1], block, samples)


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _measure(
    q: Array,
    k: Array,
    v: Array,
    exists: Array,
    projections: Array,
    scale: float,
    block: int,
    scores: int,
) -> tuple[Array, ...]:
    """The four numbers, the error that of one draw, for R rows and G heads of queries: (R, G)."""
    R, G, T, _ = q.shape
    S, n_places = k.shape[1], 2 ** projections.shape[1]
    n_blocks = -(-S // block)
    b_q = -(-T // n_blocks)
    k_place = jnp.where(exists, bucket_places(k, projections), n_places)
    k_block = inverse_order(stable_order(k_place, n_places + 1)) // block
    q_block = inverse_order(stable_order(bucket_places(q, projections), n_places)) // b_q
    size = min(T, max(1, scores // S))
    n_chunks = -(-T // size)

    def head(index: Array) -> tuple[Array, ...]:
        r, g = index // G, index % G
        count = exists[r].sum()
        squared_v = (v[r] ** 2).sum(axis=1)

        def chunk(carry: Any, i: Array) -> Any:
            columns, high, low, share, errors, total = carry
            place = i * size + jnp.arange(size)
            at, real = jnp.minimum(place, T - 1), place < T
            s = jnp.where(exists[r], scale * q[r, g, at] @ k[r].T, -jnp.inf)
            lse = jax.nn.logsumexp(s, axis=1)
            P = jnp.where(real[:, None], jnp.exp(s - lse[:, None]), 0)
            own = q_block[r, g, at][:, None] == k_block[r]
            rest, out = jnp.where(own, 0, P), P @ v[r]
            squared, mass = rest**2, rest.sum(axis=1)
            second = (
                squared @ squared_v
                - 2 * ((squared @ v[r]) * out).sum(axis=1)
                + squared.sum(axis=1) * (out**2).sum(axis=1)
            )
            mean = rest @ v[r] - mass[:, None] * out
            variance = count * second - (mean**2).sum(axis=1)
            unmasked = jnp.log(mass) + lse
            carry = (
                columns + (P**2).sum(axis=0),
                jnp.maximum(high, jnp.where(real, unmasked, -jnp.inf).max()),
                jnp.minimum(low, jnp.where(real, unmasked, jnp.inf).min()),
                share + jnp.where(own, P, 0).sum(),
                errors + jnp.maximum(variance, 0).sum(),
                total + (out**2).sum(),
            )
            return carry, None

        zero, inf = jnp.zeros((), q.dtype), jnp.asarray(jnp.inf, q.dtype)
        start = (jnp.zeros(S, q.dtype), -inf, inf, zero, zero, zero)
        (columns, high, low, share, errors, total), _ = lax.scan(chunk, start, jnp.arange(n_chunks))
        # Nothing outside the blocks anywhere: all row sums are equal (to 0), and nothing is drawn.
        kappa = jnp.where(jnp.isneginf(high), 1, jnp.exp(high - low))
        return count * columns.max(), kappa, share / T, jnp.sqrt(errors / total)

    measured = lax.map(head, jnp.arange(R * G))
    return tuple(x.reshape(R, G) for x in measured)
