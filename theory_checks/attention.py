"""What is known of polynomial sketches and of the algorithm that uses them, beside simulations.

Every simulation draws sketches with the public `init_sketch`. Sixth and eighth powers of normal
variables have heavy tails, so errors of squared errors are claimed to some per cent only, from
many draws; what is algebra is claimed to rounding.
"""

import functools

from privlearn import claims

PAPER = "Kacham, Mirrokni, Zhong 2024, arXiv 2310.01655, section 2"
DERIVED = "re-derived and checked by simulation, for " + PAPER
COSINES = (0.0, 0.6, 1.0)
DRAWS = {"quick": 30_000, "paper": 1_000_000}
MANY = {"quick": 120_000, "paper": 4_000_000}


def pair(c):
    """Unit vectors with cosine c. The law of a Gaussian sketch depends on nothing else."""
    import numpy as np

    return np.array([1.0, 0.0]), np.array([c, np.sqrt(1 - c * c)])


def turned(x, h):
    """The same vector seen from other axes, in h dimensions: signs treat coordinates unequally."""
    import numpy as np

    basis = np.linalg.qr(np.random.default_rng(5).standard_normal((h, h)))[0]
    return basis[:, :2] @ x


def kernel_values(vectors, r, n, seed, *, degree=4, kind="gaussian", legacy_scale=False):
    """<S x, S y> for pairs (x, y), n independent sketches: (n, number of pairs) of float64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from privlearn.attention import init_sketch

    x, y = (jnp.asarray(np.array(side), jnp.float32) for side in zip(*vectors, strict=True))

    def one(key):
        sketch = init_sketch(
            key, x.shape[1], r, degree=degree, kind=kind, legacy_scale=legacy_scale
        )
        return jnp.sum(sketch(x) * sketch(y), axis=-1)

    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=1000))
    return np.asarray(run(jax.random.split(jax.random.key(seed), n)), float)


def mean_of(theory, values):
    import numpy as np

    n = len(values)
    return claims.Measurement(theory, values.mean(axis=0), values.std(axis=0) / np.sqrt(n), n)


@functools.cache
def of_degree_two(profile):
    """Draws that several claims about the sketch of degree 2 share; r = 32."""
    return kernel_values([pair(c) for c in COSINES], 32, MANY[profile], seed=1)


@functools.cache
def of_degree_four(profile):
    """Draws that the claims about the sketch of degree 4 share; r = 32."""
    return kernel_values([pair(c) for c in COSINES], 32, DRAWS[profile], seed=2, degree=8)


def measure_mean(profile):
    return mean_of([c**2 for c in COSINES[1:]], of_degree_two(profile)[:, 1:])


def measure_mean_degree_four(profile):
    return mean_of([c**4 for c in COSINES[1:]], of_degree_four(profile)[:, 1:])


def measure_variance(profile):
    import numpy as np

    from privlearn.attention import theory

    errors = (of_degree_two(profile) - np.square(COSINES)) ** 2
    return mean_of(theory.sketch_variance(COSINES, 32), errors)


def measure_variance_of_signs(profile):
    import numpy as np

    from privlearn.attention import theory

    vectors = [tuple(turned(x, 4) for x in pair(c)) for c in COSINES]
    shared = np.array([theory.overlap(x, y) for x, y in vectors])
    values = kernel_values(vectors, 32, DRAWS[profile], seed=4, kind="rademacher")
    expected = theory.sketch_variance(COSINES, 32, overlap=shared)
    return mean_of(expected, (values - np.square(COSINES)) ** 2)


def measure_variance_of_srht(profile):
    """Columns share one diagonal of signs, which the formula neglects."""
    import numpy as np

    from privlearn.attention import theory

    vectors = [tuple(turned(x, 32) for x in pair(c)) for c in (0.5, 1.0)]
    shared = np.array([theory.overlap(x, y) for x, y in vectors])
    values = kernel_values(vectors, 16, DRAWS[profile] // 2, seed=5, kind="srht")
    expected = theory.sketch_variance([0.5, 1.0], 16, overlap=shared)
    return mean_of(expected, (values - np.array([0.25, 1.0])) ** 2)


def measure_weight(profile):
    from privlearn.attention import theory

    return mean_of(theory.sketch_second_moment(COSINES, 32), of_degree_two(profile) ** 2)


def measure_weight_degree_eight(profile):
    from privlearn.attention import theory

    weights = of_degree_four(profile)[:, :2] ** 2
    return mean_of(theory.sketch_second_moment(COSINES[:2], 32, degree=4), weights)


def measure_error(profile):
    """At c = 1 the tails are too heavy for a standard error to mean anything."""
    import numpy as np

    from privlearn.attention import theory

    errors = (of_degree_two(profile)[:, :2] ** 2 - np.array(COSINES[:2]) ** 4) ** 2
    return mean_of(theory.weight_rms(COSINES[:2], 32) ** 2, errors)


def measure_frobenius(profile):
    """Theorem 1.1 in the mean over sketches: all pairs of iid directions, h = 64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from privlearn.attention import init_sketch, theory

    n_sketches = claims.by_profile(profile, 400, 4_000)
    rng = np.random.default_rng(9)
    q, k = rng.standard_normal((2, 64, 64))
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    one, other = (jnp.asarray(x, jnp.float32) for x in (q, k))
    exact = (one @ other.T) ** 4

    def trial(key):
        sketch = init_sketch(key, 64, 32)
        return jnp.mean(((sketch(one) @ sketch(other).T) ** 2 - exact) ** 2)

    run = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))
    found = np.asarray(run(jax.random.split(jax.random.key(9), n_sketches)), float)
    return mean_of(theory.frobenius_error(q @ k.T, 32) ** 2, found)


def measure_legacy(profile):
    values = kernel_values([pair(c) for c in (0.5, 1.0)], 32, DRAWS[profile], 10, legacy_scale=True)
    return mean_of([0.25 / 32, 1 / 32], values)


def measure_packing(profile):
    import numpy as np

    from privlearn.attention.sketches import features
    from privlearn.simulate import float64

    x, y = np.random.default_rng(11).standard_normal((2, 200, 16))
    with float64():
        found = np.sum(np.asarray(features(x)) * np.asarray(features(y)), axis=1)
    return claims.Measurement(np.sum(x * y, axis=1) ** 2, found)


def measure_decoding(profile):
    """Token by token with the state against the parallel form, both with exact blocks."""
    import jax
    import numpy as np

    from privlearn.attention import init_sketch, init_state, polysketch_attention, polysketch_step
    from privlearn.simulate import float64

    rng = np.random.default_rng(12)
    with float64():
        q, k, v = rng.standard_normal((3, 1, 37, 1, 8))
        v = v + 3  # away from 0: errors are counted relative to the values
        sketch = init_sketch(jax.random.key(12), 8, 5)
        step = jax.jit(lambda state, *token: polysketch_step(state, *token, sketch=sketch))
        state, out = init_state(1, 1, 8, sketch=sketch, block=8, dtype=float), []
        for t in range(37):
            one, state = step(state, *(x[:, t : t + 1] for x in (q, k, v)))
            out.append(np.asarray(one))
        whole = polysketch_attention(q, k, v, sketch=sketch, is_causal=True, block=8)
        return claims.Measurement(np.asarray(whole), np.concatenate(out, axis=1))


def measure_flops(profile):
    """Products of matrices that XLA counts in a compiled block, against the formula."""
    import jax
    import jax.numpy as jnp

    from privlearn.attention import theory
    from privlearn.attention.blocks import Blocks, Runs, Spec, advance, output

    block, r, h, d = 256, 32, 64, 64
    n_features = theory.n_features(r)
    shapes = [(1, r, block), (1, r, block), (1, block, d + 1), (1, block, h), (1, block, h)]
    x = Blocks(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    z = jax.ShapeDtypeStruct((1, n_features, d + 1), jnp.float32)
    spec = Spec(4, packed=True)
    compiled = jax.jit(
        lambda x, z: (output(spec, x, Runs(), z), advance(spec, x, Runs(), z))
    ).lower(x, z)
    counted = compiled.compile().cost_analysis()["flops"] / block
    own = theory.polysketch_flops(r, head_size=h, value_size=d, block=block) - 8 * h * r
    return claims.Measurement(own, counted)


claim = claims.registrar("attention")


claim(
    "sketch-unbiased",
    "E <Sx, Sy> = <x, y>^2 for the sketch of degree 2, Gaussian, r = 32",
    measure_mean,
    source=PAPER + ".2",
    resolution=0.05,
)
claim(
    "sketch-unbiased-degree-four",
    "E <Sx, Sy> = <x, y>^4 for the recursive sketch of degree 4, Gaussian, r = 32",
    measure_mean_degree_four,
    source=PAPER + ".2",
    resolution=0.2,
)
claim(
    "sketch-variance",
    "Var <Sx, Sy> = [(1 + 2 c^2)^2 - c^4] / r for unit vectors with cosine c, degree 2, Gaussian",
    measure_variance,
    source=DERIVED,
    resolution=0.2,
)
claim(
    "sketch-variance-signs",
    "For independent signs 1 + 2 c^2 becomes 1 + 2 c^2 - 2 sum x_i^2 y_i^2 in the variance",
    measure_variance_of_signs,
    source=DERIVED,
    resolution=0.2,
)
claim(
    "sketch-variance-srht",
    "The variance of independent signs holds for SRHT to a few per cent, h = 32",
    measure_variance_of_srht,
    source=DERIVED,
    # Columns of one leaf share their signs: measured within 5 % at h = 32.
    tolerance=0.06,
    resolution=0.3,
)
claim(
    "weight-biased-upwards",
    "E <Sx, Sy>^2 = c^4 + [(1 + 2 c^2)^2 - c^4] / r: orthogonal keys get weight 1 / r",
    measure_weight,
    source=DERIVED,
    resolution=0.2,
)
claim(
    "weight-degree-eight",
    "E <Sx, Sy>^2 = (P + 2 S)^2 / r + (1 - 1 / r) S^2 for attention of degree 8",
    measure_weight_degree_eight,
    source=DERIVED,
    resolution=0.5,
)
claim(
    "weight-mean-squared-error",
    "Mean squared error of a sketched weight of degree 4 at c = 0 and 0.6, Gaussian, r = 32",
    measure_error,
    source=DERIVED,
    resolution=0.4,
)
claim(
    "frobenius-error",
    "The mean over sketches of the squared error of theorem 1.1 is that of the formula, pair by "
    "pair, for iid directions at h = 64, r = 32",
    measure_frobenius,
    source="theorem 1.1 of arXiv 2310.01655; value " + DERIVED,
    resolution=0.4,
)
claim(
    "legacy-scale",
    "Dividing by r instead of sqrt(r), as the authors' published code does, gives E = c^2 / r",
    measure_legacy,
    source="the authors' code, read; " + DERIVED,
    resolution=0.06,
)
claim(
    "packed-features-exact",
    "r (r + 1) / 2 features give <x, y>^2 exactly",
    measure_packing,
    source="algebra of a symmetric square",
    tolerance=1e-9,  # rounding where <x, y> is near 0
    resolution=1e-8,
)
claim(
    "decoding-equals-parallel",
    "Tokens one by one with a state of constant size give the parallel result, exact blocks too",
    measure_decoding,
    source=PAPER + ".4 and section 3, the state as derived here",
    tolerance=1e-11,  # float64 rounding, relative to each value
    resolution=1e-10,
)
claim(
    "operations-per-token",
    "2 b (h + d + 1) + 4 R (d + 1) operations for each token, products of matrices",
    measure_flops,
    source="derived for this implementation",
    # XLA counts the products of features, powers and sums as well.
    tolerance=0.12,
    resolution=0.15,
)

if __name__ == "__main__":
    raise SystemExit(claims.main(topic="attention"))
