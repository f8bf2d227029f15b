"""Draws have the law that they claim.

Each Kolmogorov-Smirnov test rejects at 1e-7, with a fixed seed; the power check shows that a
normal that is 1 % too wide is rejected.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as generators
from scipy import stats

from privlearn.aggregate import draws
from privlearn.simulate import float64

LEVEL = 1e-7


@pytest.fixture(autouse=True)
def _double_precision():
    with float64():
        yield


def test_generator_gives_other_bits_than_the_one_in_jax():
    word = jnp.array([0x13198A2E, 0x03707344], jnp.uint32)
    first = jnp.arange(1000, dtype=jnp.uint32) * jnp.uint32(2654435761)
    second = first ^ jnp.uint32(0xDEADBEEF)
    ours = jnp.concatenate(draws.threefry(word, first, second))
    theirs = generators.threefry_2x32(word, jnp.concatenate([first, second]))
    np.testing.assert_array_equal(ours, theirs)


def test_normals_are_not_normal_or_the_test_has_no_power():
    z = np.asarray(draws.normal(jax.random.key(1), (1_000_000,)))
    assert z.dtype == np.float64
    assert stats.kstest(z, "norm").pvalue > LEVEL
    assert stats.kstest(1.01 * z, "norm").pvalue < LEVEL
    assert abs(z.mean()) < 5.4e-3
    assert abs(z.var() - 1) < 5.4 * np.sqrt(2 / z.size)
    assert abs((z**4).mean() - 3) < 5.4 * np.sqrt(96 / z.size)
    halves = z.reshape(2, -1)
    assert abs(np.corrcoef(halves)[0, 1]) < 5.4 / np.sqrt(halves.shape[1])
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 5.4 / np.sqrt(z.size)
    # cosine and sine of one pair share a radius; their squares must not be correlated
    assert abs(np.corrcoef(halves**2)[0, 1]) < 5.4 / np.sqrt(halves.shape[1])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 2), (8, 1)])
def test_normals_have_the_wrong_shape_or_repeat(shape):
    z = np.asarray(draws.normal(jax.random.key(2), shape))
    assert z.shape == shape
    assert len(np.unique(z)) == z.size
    other = np.asarray(draws.normal(jax.random.key(3), shape))
    assert not np.intersect1d(z, other).size


def test_normals_in_single_precision_are_not_those_of_jax():
    with jax.enable_x64(False):
        key = jax.random.key(0)
        z = draws.normal(key, (5,))
        assert z.dtype == jnp.float32
        np.testing.assert_array_equal(z, jax.random.normal(key, (5,)))


def test_cosine_and_sine_are_off_by_more_than_rounding():
    angle = np.arange(0, 2**32, 99_991, dtype=np.uint64)
    cosine, sine = draws._cosine_sine(jnp.asarray(angle, jnp.uint32))
    turn = 2 * np.pi * angle / 2**32
    np.testing.assert_allclose(cosine, np.cos(turn), atol=2e-7)
    np.testing.assert_allclose(sine, np.sin(turn), atol=2e-7)


@pytest.mark.parametrize("df", [1, 2, 3, 10, 300])
def test_chi_squares_are_not_chi_square(df):
    values = np.asarray(draws.chi_square(jax.random.key(df), np.full(100_000, df)))
    assert stats.kstest(values, stats.chi2(df).cdf).pvalue > LEVEL
    assert stats.kstest(values, stats.chi2(1.1 * df).cdf).pvalue < LEVEL


def test_chi_squares_mix_up_their_degrees_of_freedom():
    draw = jax.jit(jax.vmap(lambda key: draws.chi_square(key, np.array([1, 5, 50]))))
    values = draw(jax.random.split(jax.random.key(0), 20_000))
    error = np.sqrt(2 * np.array([1, 5, 50]) / 20_000)
    assert (abs(values.mean(axis=0) - np.array([1, 5, 50])) < 5.4 * error).all()


@pytest.mark.parametrize(("p", "df"), [(4, 9), (4, 4), (5, 3)])
def test_bartlett_factors_do_not_make_wishart_matrices(p, df):
    n = 20_000
    (factors,) = jax.jit(jax.vmap(lambda key: draws.bartlett(key, p, (df,))))(
        jax.random.split(jax.random.key(4), n)
    )
    assert factors.shape == (n, p, min(p, df))
    got = np.asarray(factors @ factors.transpose(0, 2, 1))
    rows = np.random.default_rng(0).standard_normal((n, df, p))
    literal = rows.transpose(0, 2, 1) @ rows
    # In any direction the form is chi-square; in the last coordinates too, which fill up last.
    direction = np.linspace(1, 2, p) / np.linalg.norm(np.linspace(1, 2, p))
    for v in (direction, np.eye(p)[-1]):
        form = np.einsum("i,nij,j->n", v, got, v)
        assert stats.kstest(form, stats.chi2(df).cdf).pvalue > LEVEL
    for summary in (lambda w: np.linalg.eigvalsh(w)[:, -1], lambda w: w[:, 0, 1]):
        assert stats.ks_2samp(summary(got), summary(literal)).pvalue > LEVEL
    if df >= p:
        for summary in (np.linalg.det, lambda w: np.linalg.inv(w)[:, 0, 0]):
            assert stats.ks_2samp(summary(got), summary(literal)).pvalue > LEVEL


def test_bartlett_factors_of_one_call_depend_on_each_other():
    draw = jax.jit(jax.vmap(lambda key: draws.bartlett(key, 3, (5, 2, 0))))
    first, second, none = draw(jax.random.split(jax.random.key(5), 20_000))
    assert first.shape[1:] == (3, 3)
    assert second.shape[1:] == (3, 2)
    assert none.shape[1:] == (3, 0)
    columns = np.concatenate([np.asarray(a).reshape(20_000, -1) for a in (first, second)], axis=1)
    columns = columns[:, columns.std(axis=0) > 0]
    correlation = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(20_000)
