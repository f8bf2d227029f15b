"""Sketches: unbiased, with the stated variance, never a negative weight; features are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import init_sketch, theory
from privlearn.attention.sketches import CHUNK, features, pairs
from privlearn.simulate import float64

TRIALS = 20_000


def kernel_values(x, y, r, *, degree=4, kind="gaussian", n=TRIALS, seed=0, legacy_scale=False):
    """<S x, S y> of many independent sketches."""

    def one(key):
        sketch = init_sketch(key, x.size, r, degree=degree, kind=kind, legacy_scale=legacy_scale)
        return sketch(x) @ sketch(y)

    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))
    return np.asarray(run(jax.random.split(jax.random.key(seed), n)), float)


def at_angle(c, h=4):
    x, y = np.zeros(h), np.zeros(h)
    x[0], y[0], y[1] = 1, c, np.sqrt(1 - c * c)
    # Away from the axes, where signs would be exact.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((h, h)))[0]
    return jnp.asarray(turn @ x, jnp.float32), jnp.asarray(turn @ y, jnp.float32)


@pytest.mark.parametrize(
    "kind", ["gaussian", pytest.param("rademacher", marks=pytest.mark.slow), "srht"]
)
def test_the_mean_is_the_power_and_the_spread_is_the_formula(kind):
    # 5 standard errors: false alarm 6e-7. They are 0.002 of the mean, 0.03 of the variance.
    x, y = at_angle(0.6)
    z = kernel_values(x, y, 8, kind=kind)
    assert abs(z.mean() - 0.36) < 5 * z.std() / np.sqrt(TRIALS)
    shared = 0.0 if kind == "gaussian" else theory.overlap(x, y)
    expected = theory.sketch_variance(0.6, 8, overlap=shared)
    squares = (z - 0.36) ** 2
    allowed = 5 * squares.std() / np.sqrt(TRIALS)
    if kind == "srht":  # columns share their signs: the formula holds to a fifth at h = 4
        allowed += 0.2 * expected
    assert abs(squares.mean() - expected) < allowed
    assert allowed < 0.5 * expected


@pytest.mark.slow
def test_a_sketch_of_degree_four_has_the_second_moment_of_the_formula():
    x, y = at_angle(0.5)
    z = kernel_values(x, y, 16, degree=8)
    for values, expected in ((z, 0.5**4), (z**2, theory.sketch_second_moment(0.5, 16, degree=4))):
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(TRIALS)


@pytest.mark.slow
def test_legacy_scale_shrinks_by_r_and_by_its_powers():
    x, y = at_angle(0.5)
    for degree in (4, 8):
        sketches = [
            init_sketch(jax.random.key(0), 4, 8, degree=degree, legacy_scale=old)
            for old in (True, False)
        ]
        old, new = ((s(x) @ s(y)) ** 2 for s in sketches)
        np.testing.assert_allclose(old / new, theory.legacy_shrinkage(8, degree=degree), rtol=1e-4)


@pytest.mark.slow
def test_the_error_falls_as_the_root_of_r():
    # Relative standard error of each mean square: below 3 %; 5 of them for the ratio: 0.2.
    x, y = at_angle(0.3)
    small, large = (
        np.mean((kernel_values(x, y, r, n=n) - 0.09) ** 2) for r, n in ((16, TRIALS), (256, 4000))
    )
    assert abs(small / large / 16 - 1) < 0.25


def test_weights_are_never_negative_also_in_half_precision():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((64, 8)), jnp.bfloat16)
    sketch = init_sketch(jax.random.key(0), 8, 4, degree=8)
    y = sketch(x)
    assert y.dtype == jnp.bfloat16
    assert float(jnp.min((y @ y.T) ** 2)) >= 0


@pytest.mark.parametrize("packed", [True, False])
def test_features_are_the_square_of_the_kernel(packed):
    with float64():
        a, b = jax.random.normal(jax.random.key(0), (2, 7, 5), float)
        made = features(a, packed=packed) @ features(b, packed=packed).T
        np.testing.assert_allclose(made, (a @ b.T) ** 2, rtol=1e-12, atol=1e-12)
        assert features(a, packed=packed).shape[1] == (15 if packed else 25)
    assert pairs(5)[2].sum() == 25


def test_srht_columns_are_signed_columns_of_the_hadamard_matrix():
    sketch = init_sketch(jax.random.key(0), 8, 6, kind="srht")
    for leaf in np.asarray(sketch.leaves):
        assert set(np.unique(leaf)) == {-1.0, 1.0}
        gram = leaf.T @ leaf  # one diagonal of signs for all: columns equal or orthogonal
        assert set(np.unique(gram)) <= {0.0, 8.0}


@pytest.mark.slow
def test_srht_pads_head_sizes_that_are_no_power_of_two():
    sketch = init_sketch(jax.random.key(0), 6, 5, kind="srht")
    assert sketch(jnp.ones((2, 6))).shape == (2, 5)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(6), jnp.float32)
    x = x / jnp.linalg.norm(x)
    z = kernel_values(x, x, 4, kind="srht", n=4000)
    assert abs(z.mean() - 1) < 5 * z.std() / np.sqrt(4000)


def test_the_learned_sketch_is_the_formula_and_its_chunks_change_nothing():
    def norm(z, gain, bias):
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        return z * gain + bias

    def gelu(z):
        return z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    rng = np.random.default_rng(0)
    x = rng.standard_normal((CHUNK + 5, 6))
    with float64():
        sketch = init_sketch(jax.random.key(0), 6, 3, kind="learned")
        sketch = jax.tree.map(lambda w: w + 0.1 * rng.standard_normal(w.shape), sketch)
        nets = []
        for f in range(2):
            w = jax.tree.map(lambda leaf, f=f: np.asarray(leaf[f]), sketch)
            hidden = gelu(norm(x, w.gain_1, w.bias_1) @ w.up_1) @ w.down_1
            nets.append(gelu(norm(hidden, w.gain_2, w.bias_2) @ w.up_2) @ w.down_2)
        expected = np.sqrt(3) * np.tanh(nets[0] * nets[1] / np.sqrt(3))
        found = jax.jit(lambda sketch, x: sketch(x))(sketch, jnp.asarray(x))
        np.testing.assert_allclose(found, expected, atol=1e-11)
    count = sum(leaf.size for leaf in jax.tree.leaves(sketch))
    assert count == theory.learned_parameters(6, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 3}, "an odd power"),
        ({"degree": 6}, "no sketch has this degree"),
        ({"kind": "normal"}, "kind: 'normal'"),
        ({"kind": "learned", "degree": 8}, "learnable sketch has degree 4"),
        ({"r": 0}, "r: 0"),
        ({"head_size": 1.5}, "head_size: 1.5"),
    ],
)
def test_sketches_that_do_not_exist_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        init_sketch(jax.random.key(0), **{"head_size": 8, **options})


def test_degree_two_needs_no_randomness():
    sketch = init_sketch(jax.random.key(0), 8, degree=2)
    x = jnp.arange(8.0)
    np.testing.assert_array_equal(sketch(x), x)
    assert sketch.size(8) == 8
