"""HyperAttention: what hashing, sampling and merging should give beside what the code gives.

Run alone with ``python -m theory_checks.attention_hyper``. Formulas are those of
`privlearn.attention.theory.hyper`: setting of Han, Jayaram, Karbasi, Mirrokni, Woodruff and
Zandieh, "HyperAttention: Long-context Attention in Near-Linear Time", ICLR 2024, arXiv 2310.05869.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privlearn import claims
from privlearn.attention.approxd import sampled_product
from privlearn.attention.hyper import (
    Plan,
    approximate,
    hyper_attention,
    make_plan,
    merge,
)
from privlearn.attention.hyper_node import Settings
from privlearn.attention.lsh import draw_projections, gray_place, hash_codes
from privlearn.attention.softmax import softmax_attention
from privlearn.attention.theory import hyper as theory
from privlearn.claims import Measurement, by_profile
from privlearn.simulate import float64

PAPER = "Han et al., ICLR 2024, arXiv 2310.05869"
OURS = f"re-derived, for the algorithms of {PAPER}"

N, WIDTH, BLOCK, SCALE = 256, 16, 32, 0.25


_claim = claims.registrar("attention")


def _mean(samples: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and standard error over the first axis."""
    x = np.asarray(samples, float)
    return x.mean(axis=0), x.std(axis=0, ddof=1) / len(x) ** 0.5, len(x)


@functools.cache
def _problem() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries and keys in 8 clusters, values of unequal size: (N, WIDTH) each."""
    with float64():
        keys = jax.random.split(jax.random.key(0), 7)
        centres = jax.random.normal(keys[0], (8, WIDTH))
        q, k = (
            centres[jax.random.randint(keys[i], (N,), 0, 8)]
            + 0.5 * jax.random.normal(keys[i + 1], (N, WIDTH))
            for i in (1, 3)
        )
        size = jnp.exp(0.5 * jax.random.normal(keys[5], (N, 1)))
        v = 1 + size * jax.random.normal(keys[6], (N, WIDTH))
    return q, k, v


@functools.cache
def _softmax() -> tuple[np.ndarray, np.ndarray]:
    q, k, _ = _problem()
    return theory.softmax_matrix(q, k, SCALE)


@functools.cache
def _blocks() -> tuple[Plan, np.ndarray]:
    """One hash of the problem: its plan, and the mask of its blocks."""
    q, k, _ = _problem()
    with float64():
        settings = Settings(SCALE, False, BLOCK, 64, 1)
        plan = make_plan(jax.random.key(5), q[None, None], k[None], None, 7, settings)
    blocks = [np.empty(N, int), np.empty(N, int)]
    for block, order in zip(blocks, (plan.q_order[0, 0, 0], plan.k_order[0, 0]), strict=True):
        block[np.asarray(order)] = np.arange(N) // BLOCK
    return plan, (blocks[0][:, None] == blocks[1]).astype(float)


def _angles(profile: str) -> Measurement:
    """Shares of hashes in which two vectors differ by 0 and by 1 bit, at two angles."""
    n, r, angles = by_profile(profile, 20_000, 400_000), 7, np.array([0.5, 0.9])
    x = np.zeros((3, 2), np.float32)
    x[0, 0] = 1
    x[1:] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    codes = jax.jit(jax.vmap(lambda key: hash_codes(jnp.asarray(x), draw_projections(key, 2, r))))(
        jax.random.split(jax.random.key(1), n)
    )
    codes = np.asarray(codes)
    bits = np.array([int(c).bit_count() for c in range(2**r)])[codes[:, :1] ^ codes[:, 1:]]
    found = np.stack([bits == 0, bits == 1], axis=1).astype(float)
    exact = np.stack([theory.collision_probability(angles, r, b) for b in (0, 1)])
    mean, stderr, _ = _mean(found)
    return Measurement(exact, mean, stderr, n)


_claim(
    "hyper-hash-collisions",
    "Codes of r hyperplanes agree with probability (1 - t/pi)^r at angle t, and differ in "
    "one bit with probability r (t/pi) (1 - t/pi)^(r-1)",
    _angles,
    source=f"Charikar, STOC 2002; {PAPER}, definition 1",
    resolution=0.2,
)


def _neighbours(profile: str) -> Measurement:
    found = []
    for r in (3, 5, 7, 12):
        codes = np.argsort(np.asarray(gray_place(jnp.arange(2**r))))
        steps = [int(a).bit_count() for a in codes[1:] ^ codes[:-1]]
        found.append(max(steps))
    return Measurement(np.ones(4), np.array(found, float))


_claim(
    "hyper-neighbouring-buckets",
    "Sorted by inverse Gray code, neighbouring buckets differ in exactly one bit",
    _neighbours,
    source=f"{PAPER}, section 2.1",
    tolerance=1e-9,
    resolution=1e-6,
)


def _merge(profile: str) -> Measurement:
    """Three parts of the keys, merged by their log-normalisers."""
    q, k, v = _problem()
    with float64():
        q, k, v = (x[:, None] for x in (q, k, v))
        run = functools.partial(softmax_attention, q, scale=SCALE, return_lse=True)
        parts = [run(k[a:b], v[a:b]) for a, b in ((0, 40), (40, 41), (41, N))]
        out, lse = functools.reduce(lambda a, b: merge(*a, *b), parts)
        exact, exact_lse = run(k, v)
    return Measurement(
        np.concatenate([np.ravel(exact), np.ravel(exact_lse)]),
        np.concatenate([np.ravel(out), np.ravel(lse)]),
    )


_claim(
    "hyper-merge",
    "Attention to disjoint sets of keys, merged by log-normalisers, is exact",
    _merge,
    source=f"{PAPER}, section 3; Milakov and Gimelshein 2018, arXiv 1805.02867",
    tolerance=1e-10,  # rounding, relative to outputs that may lie near 0
    resolution=1e-9,
)


def _row_sums(profile: str) -> Measurement:
    """Mean over queries of estimated over exact row sum, hash and sample drawn anew each time."""
    n = by_profile(profile, 1000, 20_000)
    q, k, v = _problem()
    _, D = _softmax()
    with float64():

        def trial(rng: jax.Array) -> jax.Array:
            _, lse = hyper_attention(
                q[:, None], k[:, None], v[:, None], rng=rng, block=BLOCK, samples=64,
                min_seq_len=1, scale=SCALE, return_lse=True,
            )  # fmt: skip
            return (jnp.exp(lse[:, 0]) / D).mean()

        found = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))(
            jax.random.split(jax.random.key(2), n)
        )
    return Measurement(1.0, *_mean(found))


_claim(
    "hyper-row-sums",
    "The row sums that hyper_attention normalises by are unbiased",
    _row_sums,
    source=f"{PAPER}, lemma 1 without cap and floor; {OURS}",
    resolution=0.03,
)


@functools.cache
def _sampled_sums(profile: str) -> tuple[np.ndarray, np.ndarray]:
    """Row sums of a few queries over draws, own block left out of the sample, and not."""
    P, D = _softmax()
    _, M = _blocks()
    A = (P * D[:, None])[::32]
    rest, inside = A * (1 - M[::32]), (A * M[::32]).sum(axis=1)
    drawn = np.random.default_rng(3).integers(0, N, (by_profile(profile, 10_000, 200_000), 64))
    return tuple(inside + N * table[:, drawn].mean(axis=2).T for table in (rest, A))  # type: ignore[return-value]


def _twice(profile: str) -> Measurement:
    P, D = _softmax()
    _, M = _blocks()
    expected = theory.row_sums_counted_twice(P * D[:, None], M)[::32]
    return Measurement(expected, *_mean(_sampled_sums(profile)[1]))


_claim(
    "hyper-block-counted-twice",
    "If the sample may hit the own block, the expected row sum is D plus the block's mass",
    _twice,
    source=OURS,
    resolution=0.05,
)


def _variance(profile: str) -> Measurement:
    P, D = _softmax()
    _, M = _blocks()
    expected = theory.row_sum_variance(P * D[:, None], M, 64)[::32]
    found = _sampled_sums(profile)[0]
    return Measurement(expected, *_mean((found - D[::32]) ** 2))


_claim(
    "hyper-row-sum-variance",
    "Variance of a row sum: (n sum A^2 - (sum A)^2) / m over keys outside the block",
    _variance,
    source=OURS,
    resolution=0.35,
)


@functools.cache
def _outputs(profile: str, m: int) -> np.ndarray:
    """Squared errors of the output of each query, over draws of the sample; blocks fixed."""
    n = by_profile(profile, 400, 10_000)
    q, k, v = _problem()
    plan, _ = _blocks()
    P, _ = _softmax()
    exact = P @ np.asarray(v)
    settings = Settings(SCALE, False, BLOCK, m, 1)
    with float64():

        def trial(rng: jax.Array) -> jax.Array:
            picks = jax.random.randint(rng, (1, 1, 1, m), 0, N, jnp.int32)
            drawn = plan._replace(picks=picks)
            out, _ = approximate(q[None, None], k[None], v[None], None, None, drawn, settings)
            return ((out[0, 0] - exact) ** 2).sum(axis=-1)

        found = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=20))(
            jax.random.split(jax.random.key(4), n)
        )
    return np.asarray(found)


def _output_error(profile: str) -> Measurement:
    """All queries together: errors of single queries are correlated through the common sample."""
    P, _ = _softmax()
    _, M = _blocks()
    m = 1024
    expected = theory.output_variance(P, _problem()[2], M, m).sum()
    return Measurement(expected, *_mean(_outputs(profile, m).sum(axis=1)))


_claim(
    "hyper-output-error",
    "Squared error of the output, given the blocks: (1/m) variance of "
    "n (1 - M_il) P_il (V_l - O_i) over uniform l, to first order in 1/m",
    _output_error,
    source=OURS,
    tolerance=0.03,  # the next order in 1/m, at m = 1024
    resolution=0.15,
)


def _product(profile: str) -> Measurement:
    """Norm and uniform sampling, 16 and 64 draws."""
    q, k, v = _problem()
    P, D = _softmax()
    exact, parts = P @ np.asarray(v), []
    n = by_profile(profile, 1000, 20_000)
    with float64():
        for sampling in ("norm", "uniform"):

            def trial(rng: jax.Array, sampling: Any = sampling) -> jax.Array:
                out = sampled_product(
                    rng, q, k, v, jnp.asarray(D), samples=32, sampling=sampling, scale=SCALE
                )
                return ((out - exact) ** 2).sum()

            keys = jax.random.split(jax.random.key(6), n)
            found = jax.jit(lambda keys, t=trial: jax.lax.map(t, keys, batch_size=50))(keys)
            parts.append((theory.product_error(P, v, 32, sampling), *_mean(found)[:2]))
    return Measurement(*(np.array(column) for column in zip(*parts, strict=True)), n=n)


_claim(
    "hyper-sampled-product",
    "Squared error of a product from m sampled columns: "
    "(sum_l |P_l|^2 |V_l|^2 / p_l - |P V|^2) / m, for norm and uniform sampling",
    _product,
    source=f"{PAPER}, lemma 2; Drineas, Kannan and Mahoney 2006",
    resolution=0.15,
)


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="attention"))
