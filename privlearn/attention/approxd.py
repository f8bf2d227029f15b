"""The estimators that the theory of HyperAttention is about: ApproxD and sampled products.

Han et al., ICLR 2024, arXiv 2310.05869, algorithms 2 and 3. ApproxD estimates the row sums of
``A = exp(scale Q K')`` from a heavy mask, a uniform sample, a cap on single terms and a floor; the
product A V is estimated from columns drawn by the norms of the rows of V. The practical algorithm,
`hyper_attention`, uses neither cap, floor nor norms. Constants hidden in the paper's algorithm are
explicit here (`cap_constant`) and their choice matters: with constant 1 the cap cuts off most of
what a small sample can see. The structure follows the paper; the constants are a reconstruction.

Functions take one head: q (T, H), k (S, H), v (S, D). Row sums are plain sums of exponentials:
inner products beyond 80 overflow in float32.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from privlearn.attention.arguments import check_scale, check_whole
from privlearn.attention.lsh import bucket_places, draw_projections, inverse_order, stable_order


class BlockMask(NamedTuple):
    """A heavy mask as blocks: M_ij = 1 where the block of query i is the block of key j.

    Attributes
    ----------
    q_block : Array of int32, shape (T,)
    k_block : Array of int32, shape (S,)
    q_members, k_members : Array of int32, shape (n_blocks, size)
        Who is in each block; T or S where a block is not full.
    """

    q_block: Array
    k_block: Array
    q_members: Array
    k_members: Array

    def dense(self) -> Array:
        """The mask as a table of booleans (T, S); for small sizes."""
        return self.q_block[:, None] == self.k_block[None]


class RowSums(NamedTuple):
    """What ApproxD found.

    Attributes
    ----------
    total : Array, shape (T,)
        Estimated row sums of A.
    in_mask : Array, shape (T,)
        The exact part within the mask.
    tau : Array
        Largest unmasked row sum among the rows looked at in full.
    kappa : Array
        Ratio of largest to smallest, as given or as measured on those rows.
    capped : Array
        Share of the sampled terms that the cap cut.
    """

    total: Array
    in_mask: Array
    tau: Array
    kappa: Array
    capped: Array


def sort_lsh_mask(
    rng: Array, q: Array, k: Array, *, block: int = 256, lsh_projs: int = 7
) -> BlockMask:
    """The mask of algorithm 1: sort both by hash bucket, pair the blocks.

    Examples
    --------
    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (8, 4))
    >>> mask = sort_lsh_mask(jax.random.key(1), x, x, block=2)
    >>> int(mask.dense().sum())
    16
    """
    check_whole("block", block, 1)
    projections = draw_projections(rng, q.shape[1], lsh_projs, q.dtype)
    n_blocks = -(-k.shape[0] // block)
    b_q = -(-q.shape[0] // n_blocks)
    orders = [stable_order(bucket_places(x, projections), 2**lsh_projs) for x in (q, k)]
    members = [
        jnp.pad(order, (0, n_blocks * size - len(order)), constant_values=len(order))
        for order, size in zip(orders, (b_q, block), strict=True)
    ]
    return BlockMask(
        inverse_order(orders[0]) // b_q,
        inverse_order(orders[1]) // block,
        members[0].reshape(n_blocks, b_q),
        members[1].reshape(n_blocks, block),
    )


def approximate_row_sums(
    rng: Array,
    q: Array,
    k: Array,
    mask: BlockMask,
    *,
    samples: int,
    scale: float | None = None,
    kappa: float | None = None,
    epsilon: float = 0.5,
    cap_constant: float | None = None,
) -> RowSums:
    """ApproxD, algorithm 2: row sums of exp(scale Q K') in time O((T + S) samples H).

    Parameters
    ----------
    rng : Array
        A typed JAX key.
    q : Array, shape (T, H)
    k : Array, shape (S, H)
    mask : BlockMask
    samples : int
        Rows looked at in full for tau, and keys drawn for all rows.
    scale : float, optional
        Default 1 / sqrt(H).
    kappa : float, optional
        Bound on the ratio of unmasked row sums; measured on the rows looked at if None.
    epsilon : float, default 0.5
        The accuracy that the cap is made for.
    cap_constant : float, optional
        The constant of the cap, ``constant epsilon^2 m / (n log n) (in_mask + tau / kappa)``. None
        leaves single terms as they are: then the sampled part is unbiased. With a cap it is not.

    Returns
    -------
    RowSums
    """
    check_whole("samples", samples, 1)
    scale = check_scale(scale, q.shape[1] ** -0.5)
    if kappa is not None and not kappa >= 1:
        raise ValueError(f"kappa: {kappa}; a ratio of largest to smallest is at least 1")
    if cap_constant is not None and not cap_constant > 0:
        raise ValueError(f"cap_constant: {cap_constant}; must be positive, or None for no cap")
    T, S = q.shape[0], k.shape[0]
    rng_rows, rng_keys = jax.random.split(rng)
    rows = jax.random.permutation(rng_rows, T)[: min(samples, T)]
    full = jnp.exp(scale * q[rows] @ k.T)
    rest = jnp.where(mask.q_block[rows][:, None] == mask.k_block, 0, full).sum(axis=1)
    tau = rest.max()
    ratio = tau / rest.min() if kappa is None else jnp.asarray(kappa, q.dtype)
    in_mask = masked_row_sums(q, k, mask, scale=scale)
    drawn = jax.random.randint(rng_keys, (samples,), 0, S)
    terms = jnp.exp(scale * q @ k[drawn].T)
    outside = mask.q_block[:, None] != mask.k_block[drawn]
    if cap_constant is None:
        kept = terms
    else:
        factor = cap_constant * epsilon**2 * samples / (S * jnp.log(S))
        kept = jnp.minimum(terms, factor * (in_mask + tau / ratio)[:, None])
    sampled = S / samples * jnp.where(outside, kept, 0).sum(axis=1)
    total = in_mask + jnp.maximum(sampled, tau / ratio)
    capped = ((kept < terms) & outside).sum() / jnp.maximum(outside.sum(), 1)
    return RowSums(total, in_mask, tau, ratio, capped)


def masked_row_sums(q: Array, k: Array, mask: BlockMask, *, scale: float) -> Array:
    """Exact row sums within the mask, (T,), one block at a time: time T H block."""

    def one(members: tuple[Array, Array]) -> Array:
        rows, keys = members
        terms = jnp.exp(scale * q.at[rows].get(mode="clip") @ k.at[keys].get(mode="clip").T)
        return jnp.where(keys < k.shape[0], terms, 0).sum(axis=1)

    sums = jax.lax.map(one, (mask.q_members, mask.k_members))
    return jnp.zeros(q.shape[0], q.dtype).at[mask.q_members].set(sums, mode="drop")


def sampled_product(
    rng: Array,
    q: Array,
    k: Array,
    v: Array,
    row_sums: Array,
    *,
    samples: int,
    sampling: Literal["norm", "uniform"] = "norm",
    scale: float | None = None,
) -> Array:
    """The product D^-1 A V from sampled columns, given row sums: (T, D).

    Key l is drawn with probability proportional to |v_l|^2 ("norm", lemma 2 of the paper) or
    uniformly; its term is divided by ``samples`` times its probability.
    """
    check_whole("samples", samples, 1)
    scale = check_scale(scale, q.shape[1] ** -0.5)
    if sampling == "norm":
        norms = (v**2).sum(axis=1)
        p = norms / norms.sum()
    elif sampling == "uniform":
        p = jnp.full(v.shape[0], 1 / v.shape[0], v.dtype)
    else:
        raise ValueError(f"sampling: {sampling!r}; must be 'norm' or 'uniform'")
    drawn = jax.random.choice(rng, v.shape[0], (samples,), p=p)
    A = jnp.exp(scale * q @ k[drawn].T) / row_sums[:, None]
    return A @ (v[drawn] / (samples * p[drawn])[:, None])
