"""Sketches of polynomial kernels: maps S with E <S x, S y> = <x, y>^q, squared to be non-negative.

Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655), section 2.2, after the recursive tensor sketch
of Ahle et al. 2020 (arXiv 1909.01410): a sketch of degree 2q is the elementwise product of two
independent sketches of degree q, each followed by a random matrix. For attention of degree p a
sketch of degree p / 2 gives ``y``, and the weight of a key is ``<y_q, y_k>^2``, never negative.

`features` writes that weight as an inner product of r (r + 1) / 2 numbers (a square has equal
entries on both sides of its diagonal: half of them do).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from jax.typing import ArrayLike

from privlearn.attention.arguments import check_whole

Kind: TypeAlias = Literal["gaussian", "rademacher", "srht", "learned"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SKETCHED_DEGREES = (2, 4, 8, 16)


class Sketch(eqx.Module):
    """A map of heads x (..., h) to y (..., r); the weight of a key is ``<y_q, y_k>^2``.

    Attributes
    ----------
    degree : int
        The degree of the attention that it serves.
    """

    degree: int = eqx.field(static=True, kw_only=True)

    @property
    def takes_raw(self) -> bool:
        """Whether the map is given queries and keys as they come, or normalised and scaled."""
        return False

    def size(self, head_size: int) -> int:
        """Number r of outputs for heads of that size."""
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        """Map (..., h) to (..., r)."""
        raise NotImplementedError


class RandomSketch(Sketch):
    """A random sketch of degree ``degree / 2``; make one with `init_sketch`.

    Attributes
    ----------
    leaves : Array, shape (q, h, r)
        The matrices that meet the input, q = degree / 2; (0, h, h) for degree 2, where y = x.
    inner : tuple of Array, each of shape (m, r, r)
        The matrices between levels, from the leaves upwards.
    degree : int
    legacy_scale : bool
        Divide each product by r instead of sqrt(r), as the authors' published code does: the
        weights are then 1 / r^2 times as large (degree 4). Only for comparison.
    """

    leaves: Array
    inner: tuple[Array, ...]
    legacy_scale: bool = eqx.field(static=True, kw_only=True, default=False)

    def size(self, head_size: int) -> int:
        """Number r of outputs."""
        return head_size if self.degree == 2 else self.leaves.shape[2]

    def __call__(self, x: Array) -> Array:
        """Map (..., h) to (..., r)."""
        if self.degree == 2:
            return x
        n_leaves, head_size, r = self.leaves.shape
        if x.shape[-1] != head_size:
            raise ValueError(
                f"sketch: made for heads of size {head_size}, but query and key have size "
                f"{x.shape[-1]}; make it with init_sketch(key, {x.shape[-1]})"
            )
        # One product with all leaves side by side.
        flat = jnp.moveaxis(self.leaves, 0, 1).reshape(head_size, n_leaves * r).astype(x.dtype)
        parts = (x @ flat).reshape(*x.shape[:-1], n_leaves, r)
        for level in range(int(math.log2(n_leaves))):
            if level:
                parts = jnp.einsum("...mi,mij->...mj", parts, self.inner[level - 1].astype(x.dtype))
            shrink = r if self.legacy_scale else math.sqrt(r)
            parts = parts[..., 0::2, :] * parts[..., 1::2, :] / shrink
        return parts[..., 0, :]


class LearnedSketch(Sketch):
    """The learnable sketch of degree 4: y = sqrt(r) tanh(f1(x) f2(x) / sqrt(r)).

    f1 and f2 are two nets, each of two units LayerNorm, Dense(8 r), GELU, Dense(r) without biases,
    shared by queries, keys and all heads of a layer. They take queries and keys before the
    normalisation of heads (section 2.3 of the paper, and the authors' code).

    Attributes
    ----------
    gain_1, bias_1 : Array, shape (2, h)
    up_1 : Array, shape (2, h, 8 r)
    down_1 : Array, shape (2, 8 r, r)
    gain_2, bias_2 : Array, shape (2, r)
    up_2 : Array, shape (2, r, 8 r)
    down_2 : Array, shape (2, 8 r, r)
        The first axis tells the two nets.
    """

    gain_1: Array
    bias_1: Array
    up_1: Array
    down_1: Array
    gain_2: Array
    bias_2: Array
    up_2: Array
    down_2: Array

    @property
    def takes_raw(self) -> bool:
        """The nets begin with a normalisation of their own."""
        return True

    def size(self, head_size: int) -> int:
        """Number r of outputs."""
        return self.down_2.shape[2]

    def __call__(self, x: Array) -> Array:
        """Map (..., h) to (..., r)."""
        if x.shape[-1] != self.gain_1.shape[1]:
            raise ValueError(
                f"sketch: made for heads of size {self.gain_1.shape[1]}, but query and key have "
                f"size {x.shape[-1]}; make it with init_sketch(key, {x.shape[-1]})"
            )
        rows = x.reshape(-1, x.shape[-1])
        return _in_chunks(self._rows, rows).reshape(*x.shape[:-1], -1)

    def _rows(self, x: Array) -> Array:
        """Map (n, h) to (n, r); gains and biases of a norm go into the matrix behind it."""
        r = self.down_2.shape[2]
        weights = jax.tree.map(lambda w: w.astype(x.dtype), self)
        first = jnp.moveaxis(weights.gain_1[:, :, None] * weights.up_1, 0, 1)
        shift = jnp.einsum("fh,fhw->fw", weights.bias_1, weights.up_1)
        # Both nets see the same normalised input: one product for the two.
        hidden = _standardized(x) @ first.reshape(x.shape[1], -1) + shift.reshape(-1)
        hidden = jax.nn.gelu(hidden, approximate=True).reshape(len(x), 2, 8 * r)
        middle = _standardized(jnp.einsum("nfw,fwr->fnr", hidden, weights.down_1))
        middle = middle * weights.gain_2[:, None] + weights.bias_2[:, None]
        hidden = jax.nn.gelu(middle @ weights.up_2, approximate=True)
        one, two = hidden @ weights.down_2
        return math.sqrt(r) * jnp.tanh(one * two / math.sqrt(r))


#: Rows that go through the nets together: their hidden layers then stay in the cache.
CHUNK = 1024


def _in_chunks(function, rows: Array) -> Array:
    """Apply a function of rows to at most `CHUNK` at a time; it is computed again in the backward.

    Without this the hidden layers, 16 times as wide as the result, would all be kept.
    """
    n = len(rows)
    if n <= CHUNK:
        return function(rows)
    n_chunks = -(-n // CHUNK)
    padded = jnp.pad(rows, ((0, n_chunks * CHUNK - n), (0, 0)))
    out = jax.lax.map(jax.checkpoint(lambda x: function(x)), padded.reshape(n_chunks, CHUNK, -1))
    return out.reshape(n_chunks * CHUNK, -1)[:n]


def _standardized(x: Array, eps: float = 1e-5) -> Array:
    z = x - jnp.mean(x, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + eps)


def init_sketch(
    key: Array,
    head_size: int,
    r: int = 32,
    *,
    degree: int = 4,
    kind: Kind = "gaussian",
    legacy_scale: bool = False,
) -> RandomSketch | LearnedSketch:
    """Draw a sketch for attention of an even degree.

    Parameters
    ----------
    key : Array
        A typed JAX key. Draw a new sketch for each layer; all heads of a layer share it.
    head_size : int
        h, the size of a head of queries and keys.
    r : int, default 32
        Size of the sketch; the features of a key are r (r + 1) / 2 numbers.
    degree : {2, 4, 8, 16}
        Degree of the attention. Degree 2 needs no sketch: y = x, and r and kind have no effect.
    kind : {"gaussian", "rademacher", "srht", "learned"}
        Entries of the matrices that meet the input; those between levels are Gaussian. "srht" is
        a diagonal of random signs and r columns of the Hadamard matrix drawn with replacement; a
        head size that is no power of two is padded by zeros to the next. "learned" makes a
        `LearnedSketch` (degree 4 only).
    legacy_scale : bool, default False
        See `RandomSketch`.

    Raises
    ------
    ValueError
        For an odd or unsupported degree, an unknown kind, or sizes below 1.

    Examples
    --------
    >>> import jax
    >>> sketch = init_sketch(jax.random.key(0), 64, r=16)
    >>> sketch(jax.numpy.ones((3, 64))).shape
    (3, 16)
    """
    head_size, r = check_whole("head_size", head_size, 1), check_whole("r", r, 1)
    if degree not in SKETCHED_DEGREES:
        odd = "an odd power makes negative weights" if degree % 2 else "no sketch has this degree"
        raise ValueError(f"degree: {degree}; must be one of 2, 4, 8, 16 ({odd})")
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r}; must be one of {', '.join(KINDS)}")
    if kind == "learned":
        if degree != 4 or legacy_scale:
            raise ValueError(
                f"kind: 'learned' with degree {degree}, legacy_scale {legacy_scale}; the learnable "
                "sketch has degree 4 and its own scale"
            )
        return _init_learned(key, head_size, r)
    if degree == 2:
        return RandomSketch(
            jnp.zeros((0, head_size, head_size)), (), degree=2, legacy_scale=legacy_scale
        )
    q = degree // 2
    leaf_key, *inner_keys = jax.random.split(key, int(math.log2(q)))
    leaves = jax.vmap(lambda k: _leaf(k, head_size, r, kind))(jax.random.split(leaf_key, q))
    inner = tuple(
        jax.random.normal(k, (q >> (level + 1), r, r)) for level, k in enumerate(inner_keys)
    )
    return RandomSketch(leaves, inner, degree=degree, legacy_scale=legacy_scale)


def _leaf(key: Array, head_size: int, r: int, kind: str) -> Array:
    if kind == "gaussian":
        return jax.random.normal(key, (head_size, r))
    if kind == "rademacher":
        return jax.random.rademacher(key, (head_size, r), dtype=jnp.result_type(float))
    padded = 1 << (head_size - 1).bit_length()
    signs_key, columns_key = jax.random.split(key)
    signs = jax.random.rademacher(signs_key, (head_size, 1), dtype=jnp.result_type(float))
    columns = jax.random.randint(columns_key, (r,), 0, padded)
    # Zeros that pad the input meet only the rows that are left out here.
    return signs * jnp.asarray(scipy.linalg.hadamard(padded)[:head_size])[:, columns]


def _init_learned(key: Array, head_size: int, r: int) -> LearnedSketch:
    draw = jax.nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
    shapes = ((head_size, 8 * r), (8 * r, r), (r, 8 * r), (8 * r, r))
    matrices = [
        draw(k, (2, *shape), jnp.result_type(float))
        for k, shape in zip(jax.random.split(key, 4), shapes, strict=True)
    ]
    ones, zeros = jnp.ones((2, head_size)), jnp.zeros((2, head_size))
    return LearnedSketch(
        ones, zeros, matrices[0], matrices[1], ones[:, :1] * jnp.ones(r), jnp.zeros((2, r)),
        matrices[2], matrices[3], degree=4,
    )  # fmt: skip


def check_sketch(sketch: Sketch | None, degree: int | None) -> int:
    """The degree of the attention; ValueError if there is no sketch for it, or they disagree."""
    if sketch is None:
        if degree not in (None, 2):
            raise ValueError(
                f"sketch: None with degree {degree}; only degree 2 needs no sketch, make one with "
                "init_sketch(key, head_size, degree=...)"
            )
        return 2
    if not isinstance(sketch, Sketch):
        raise TypeError(f"sketch: {type(sketch).__name__}; make one with init_sketch")
    if degree not in (None, sketch.degree):
        raise ValueError(f"degree: {degree}, but the sketch was made for degree {sketch.degree}")
    return sketch.degree


def pairs(r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices i, j of the r (r + 1) / 2 features y_i y_j, and how often each one counts (1, 2).

    In the order of the distance from i to j around a circle: all (i, i), then all (i, i + 1), ...
    Features of one distance are then a product of two pieces of y that lie together in memory.

    Examples
    --------
    >>> pairs(3)
    (array([0, 1, 2, 0, 1, 2]), array([0, 1, 2, 1, 2, 0]), array([1., 1., 1., 2., 2., 2.]))
    """
    places = np.arange(r * (r + 1) // 2)
    i, distance = places % r, places // r
    return i, (i + distance) % r, np.where(distance == 0, 1.0, 2.0)


def features(y: ArrayLike, *, packed: bool = True) -> Array:
    """Numbers whose inner product is ``<y, y'>^2``: what the state of the attention is made of.

    Parameters
    ----------
    y : array, shape (..., r)
        What a sketch gives.
    packed : bool, default True
        r (r + 1) / 2 features, those off the diagonal times sqrt(2); else all r^2 products.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 0.0, 1.0])
    >>> round(float(features(x) @ features(y)), 3), float((x @ y) ** 2)
    (25.0, 25.0)
    """
    y = jnp.asarray(y)
    r = y.shape[-1]
    if not packed:
        return (y[..., :, None] * y[..., None, :]).reshape(*y.shape[:-1], r * r)
    i, j, times = pairs(r)
    return y[..., i] * y[..., j] * jnp.asarray(np.sqrt(times), y.dtype)
