"""Closed forms about hashing, sampling and cost in HyperAttention.

Han, Jayaram, Karbasi, Mirrokni, Woodruff and Zandieh, "HyperAttention: Long-context Attention in
Near-Linear Time", ICLR 2024, arXiv 2310.05869. What the paper does not state is re-derived here
and checked by simulation; each function says which.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def collision_probability(angle: ArrayLike, n_projs: int, distance: int = 0) -> NDArray:
    """Probability that two vectors' hash codes differ in a given number of bits.

    Each of the r hyperplanes separates vectors at angle t with probability t / pi (Goemans and
    Williamson 1995; Charikar 2002), so the number of differing bits is binomial.

    Parameters
    ----------
    angle : array
        Between the vectors, in [0, pi].
    n_projs : int
        Hyperplanes r.
    distance : int, default 0
        Bits that differ.

    Examples
    --------
    >>> [round(float(collision_probability(0.5, 7, bits)), 3) for bits in (0, 1)]
    [0.297, 0.394]
    """
    angle = np.asarray(angle, float)
    if np.any((angle < 0) | (angle > np.pi)):
        raise ValueError(f"angle: {angle}; must lie in [0, pi]")
    if not 0 <= distance <= n_projs:
        raise ValueError(f"distance: {distance}; must be 0 to n_projs = {n_projs}")
    p = angle / np.pi
    return math.comb(n_projs, distance) * p**distance * (1 - p) ** (n_projs - distance)


def softmax_matrix(q: ArrayLike, k: ArrayLike, scale: float = 1.0) -> tuple[NDArray, NDArray]:
    """The dense softmax matrix P (n, n) and its row sums D before normalisation, for small n."""
    scores = scale * np.asarray(q, float) @ np.asarray(k, float).T
    A = np.exp(scores)
    D = A.sum(axis=1)
    return A / D[:, None], D


def alpha(P: ArrayLike) -> float:
    """The largest squared column norm of a softmax matrix (T, S), times S (section 2 of the paper).

    1 if all weights are equal, S if each key takes all of one query, S T if one key takes all.

    Examples
    --------
    >>> import numpy as np
    >>> alpha(np.full((4, 4), 0.25)), alpha(np.eye(4))
    (1.0, 4.0)
    """
    P = np.asarray(P, float)
    return float(P.shape[1] * (P**2).sum(axis=0).max())


def kappa(A: ArrayLike, M: ArrayLike) -> float:
    """Largest over smallest row sum of A outside the mask M (lemma 1 of the paper)."""
    rest = (np.asarray(A, float) * (1 - np.asarray(M, float))).sum(axis=1)
    return float(rest.max() / rest.min())


def row_sums_counted_twice(A: ArrayLike, M: ArrayLike) -> NDArray:
    """Expected row sums if the sample is *not* masked: D + block mass, so the block counts twice.

    Re-derived. It is what happens where a kernel cannot be told to leave the own block out.
    """
    A = np.asarray(A, float)
    return A.sum(axis=1) + (A * np.asarray(M, float)).sum(axis=1)


def row_sum_variance(A: ArrayLike, M: ArrayLike, m: int) -> NDArray:
    """Variance of the estimated row sums with m uniform draws and the own block left out.

    Re-derived: one draw is n (1 - M_il) A_il with l uniform.
    """
    rest = np.asarray(A, float) * (1 - np.asarray(M, float))
    return (rest.shape[1] * (rest**2).sum(axis=1) - rest.sum(axis=1) ** 2) / m


def product_error(
    P: ArrayLike, V: ArrayLike, m: int, sampling: Literal["norm", "uniform"] = "norm"
) -> float:
    """Expected squared Frobenius error of P S'S V against P V with m sampled columns.

    ``(sum_l |P_l|^2 |V_l|^2 / p_l - ||P V||_F^2) / m`` with column l of P and row l of V (Drineas,
    Kannan and Mahoney 2006); p_l is proportional to |V_l|^2 ("norm", as in the paper) or constant.
    Row norms pay only where they differ: for equal |V_l| uniform sampling is the same.
    """
    P, V = np.asarray(P, float), np.asarray(V, float)
    columns, rows = (P**2).sum(axis=0), (V**2).sum(axis=1)
    if sampling == "norm":
        second = columns.sum() * rows.sum()
    elif sampling == "uniform":
        second = len(rows) * (columns * rows).sum()
    else:
        raise ValueError(f"sampling: {sampling!r}; must be 'norm' or 'uniform'")
    return float((second - ((P @ V) ** 2).sum()) / m)


def output_variance(P: ArrayLike, V: ArrayLike, M: ArrayLike, m: int) -> NDArray:
    """First-order squared error of each output row of the practical algorithm, given the blocks.

    Numerator and denominator share the uniform sample, so the error of output i is to first order
    the mean of m draws of ``n (1 - M_il) P_il (V_l - O_i)``, minus its expectation. Re-derived
    (delta method); exact as m grows, and the m^-1/2 law of the error.

    Parameters
    ----------
    P : array, shape (T, n)
        Softmax weights.
    V : array, shape (n, D)
    M : array, shape (T, n)
        1 within the blocks.
    m : int
        Draws.

    Returns
    -------
    array, shape (T,)
    """
    P, V = np.asarray(P, float), np.asarray(V, float)
    rest, out = P * (1 - np.asarray(M, float)), P @ V
    squared = rest**2
    second = (
        squared @ (V**2).sum(axis=1)
        - 2 * ((squared @ V) * out).sum(axis=1)
        + squared.sum(axis=1) * (out**2).sum(axis=1)
    )
    mean = rest @ V - rest.sum(axis=1)[:, None] * out
    return (P.shape[1] * second - (mean**2).sum(axis=1)) / m


def exact_flops(n: int, d: int, dv: int, *, causal: bool = False) -> float:
    """Multiplications and additions of exact attention, forward, one head."""
    return (1.0 if causal else 2.0) * n**2 * (d + dv)


def hyper_flops(
    n: int, d: int, dv: int, *, block: int = 256, samples: int = 256, lsh_projs: int = 7,
    min_seq_len: int = 4096, causal: bool = False,
) -> float:  # fmt: skip
    """Multiplications and additions of HyperAttention, forward, one head; sorting not counted.

    Examples
    --------
    >>> round(hyper_flops(131_072, 64, 64, lsh_projs=0) / 1e9, 1)
    17.2
    """
    hashing = 4.0 * n * d * lsh_projs
    if not causal:
        return 2.0 * n * (block + samples) * (d + dv) + hashing
    levels = max(0, (n // min_seq_len).bit_length() - 1)
    leaf = n / 2**levels
    return n * leaf * (d + dv) + levels * n * (block + samples) * (d + dv) + hashing
