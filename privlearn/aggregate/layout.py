"""Two layouts of bags of any size, and the sums over members that every loss needs.

* `PaddedBags`: member arrays have shape (m, k_max, ...), short bags are filled up and masked. The
  layout for mini-batches of whole bags: the leading axis is the batch.
* `SegmentBags`: member arrays have shape (n, ...), rows in any order, with the bag of each row.
  Nothing is wasted when sizes differ much.

Both are NamedTuples of arrays, so they pass through jit, vmap and scan. The functions below are
pure JAX and take either; `pad_rows` builds the padded layout from the other, outside jit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.aggregate import kernels


class PaddedBags(NamedTuple):
    """Bags side by side.

    Attributes
    ----------
    mask : Array of bool, shape (m, k_max)
        True where a member is real. No row may be all False (a bag of size 0).
    """

    mask: Array


class SegmentBags(NamedTuple):
    """Rows with the number of their bag.

    Attributes
    ----------
    ids : Array of int, shape (n,)
        Bag of each row, 0..m-1.
    sizes : Array of int, shape (m,)
        Number of members of each bag, all at least 1.
    """

    ids: Array
    sizes: Array


Bags: TypeAlias = PaddedBags | SegmentBags
BagWeights: TypeAlias = Literal["size", "bag"] | Array


class PaddedRows(NamedTuple):
    """Where each row goes in the padded layout (NumPy, made outside jit).

    Attributes
    ----------
    rows : numpy.ndarray of int, shape (m, k_max)
        ``values[rows]`` is the padded array. Padding repeats the first member of the bag, so that
        a model is never evaluated on an invented row.
    bags : PaddedBags
    """

    rows: np.ndarray
    bags: PaddedBags


def equal_bags(m: int, k: int) -> PaddedBags:
    """M bags of exactly k members: the mask is all True."""
    return PaddedBags(jnp.ones((m, k), bool))


def segment_bags(ids: ArrayLike, n_bags: int | None = None) -> SegmentBags:
    """Rows with integer bag numbers 0..n_bags-1, sizes counted here.

    Raises
    ------
    ValueError
        If an id is negative, beyond n_bags - 1, or a bag has no row (all outside jit).

    Examples
    --------
    >>> segment_bags([0, 1, 1]).sizes.tolist()
    [1, 2]
    """
    numbers = np.asarray(ids)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"ids must be a vector of integers, got shape {numbers.shape}, dtype {numbers.dtype}"
        )
    if numbers.size and numbers.min() < 0:
        raise ValueError(f"ids must be numbered from 0, got {numbers.min()}")
    m = int(numbers.max()) + 1 if n_bags is None else n_bags
    if numbers.size and numbers.max() >= m:
        raise ValueError(f"ids must be below n_bags = {m}, got {numbers.max()}")
    if m > numbers.size:
        raise ValueError(f"ids: {m} bags but {numbers.size} rows, so some bag has size 0")
    counts = np.bincount(numbers, minlength=m)
    if (counts == 0).any():
        raise ValueError(f"ids: bag {int(np.argmin(counts))} has no rows (a bag of size 0)")
    return SegmentBags(jnp.asarray(numbers), jnp.asarray(counts))


def pad_rows(ids: ArrayLike, n_bags: int | None = None) -> PaddedRows:
    """Find the padded layout of rows with bag numbers 0..n_bags-1.

    Examples
    --------
    >>> padded = pad_rows([1, 0, 1])
    >>> padded.rows.tolist(), padded.bags.mask.tolist()
    ([[1, 1], [0, 2]], [[True, False], [True, True]])
    """
    numbers = np.asarray(ids)
    sizes = np.asarray(segment_bags(numbers, n_bags).sizes)
    order = np.argsort(numbers, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    slots = np.arange(sizes.max())
    mask = slots < sizes[:, None]
    index = order[starts[:, None] + np.where(mask, slots, 0)]
    return PaddedRows(index, PaddedBags(jnp.asarray(mask)))


def sizes_of(bags: Bags) -> Array:
    """Members of each bag, shape (m,)."""
    return bags.mask.sum(axis=1) if isinstance(bags, PaddedBags) else bags.sizes


def member_ndim(bags: Bags) -> int:
    """Leading axes of a member array: 2 when padded, 1 for segments."""
    return 2 if isinstance(bags, PaddedBags) else 1


def weights_of(bags: Bags, weights: BagWeights = "size") -> Array:
    """Weight of each bag, shape (m,): see `kernels.bag_weights`; an array is used as it is."""
    if isinstance(weights, str):
        return kernels.bag_weights(sizes_of(bags), weights)
    return jnp.asarray(weights)


def member_mean(values: Array, bags: Bags) -> Array:
    """Mean over the members of each bag: shape (m, ...)."""
    if isinstance(bags, SegmentBags):
        sums = jax.ops.segment_sum(values, bags.ids, bags.sizes.shape[0])
        return sums / _trailing(bags.sizes, sums.ndim).astype(sums.dtype)
    mask = _trailing(bags.mask, values.ndim)
    sums = jnp.where(mask, values, 0).sum(axis=1)
    return sums / _trailing(sizes_of(bags), sums.ndim).astype(sums.dtype)


def member_log_mean_exp(values: Array, bags: Bags) -> Array:
    """Log of the mean of exp(values) over each bag, without overflow."""
    values = jax.lax.select(_real(values, bags), values, jnp.full_like(values, -jnp.inf))
    if isinstance(bags, SegmentBags):
        top = jax.ops.segment_max(values, bags.ids, bags.sizes.shape[0])
    else:
        top = values.max(axis=1)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    return top + jnp.log(member_mean(jnp.exp(values - spread(top, bags)), bags))


def spread(bag_values: Array, bags: Bags) -> Array:
    """Give each member the value of its bag: the inverse of the mean for constant bags."""
    if isinstance(bags, SegmentBags):
        return bag_values[bags.ids]
    shape = (*bags.mask.shape, *bag_values.shape[1:])
    return jnp.broadcast_to(bag_values[:, None], shape)


def replace_padding(values: Array, bags: Bags) -> Array:
    """Put the (constant) bag mean where members are padding, so that losses stay finite there."""
    if isinstance(bags, SegmentBags):
        return values
    means = jax.lax.stop_gradient(member_mean(values, bags))
    return jnp.where(_trailing(bags.mask, values.ndim), values, spread(means, bags))


def leave_own_out_mean(bag_values: Array, sizes: Array) -> Array:
    """For each bag, the mean of ``bag_values`` over the members of all *other* bags.

    Needs at least two bags: with one the answer is not a number.
    """
    bag_values = jnp.asarray(bag_values)
    sizes = _trailing(sizes, bag_values.ndim).astype(bag_values.dtype)
    sums = sizes * bag_values
    return (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)


def _real(values: Array, bags: Bags) -> Array:
    if isinstance(bags, SegmentBags):
        return jnp.ones(values.shape, bool)
    return jnp.broadcast_to(_trailing(bags.mask, values.ndim), values.shape)


def _trailing(values: Array, ndim: int) -> Array:
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))
