"""Exact polynomial attention against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import normalize_heads, polynomial_attention
from privlearn.simulate import float64


def loop(q, k, v, degree, scale, is_causal, mask, segments):
    """One query after the other, as the definition reads; q and k normalised by the caller."""
    out = np.zeros((*q.shape[:3], v.shape[3]))
    group = q.shape[2] // k.shape[2]
    for b, i, h in np.ndindex(*q.shape[:3]):
        total, sum_of_weights = 0.0, 0.0
        for j in range(k.shape[1]):
            if (is_causal and j > i) or not mask[b, j] or segments[i] != segments[j]:
                continue
            weight = (scale * q[b, i, h] @ k[b, j, h // group]) ** degree
            total, sum_of_weights = total + weight * v[b, j, h // group], sum_of_weights + weight
        out[b, i, h] = total / (1 + sum_of_weights)
    return out


@pytest.mark.parametrize(("degree", "is_causal"), [(2, True), (4, False), (6, True)])
def test_the_definition(degree, is_causal):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 7, 4, 6))
    k, v = rng.standard_normal((2, 7, 2, 6)), rng.standard_normal((2, 7, 2, 3))
    mask, segments = rng.random((2, 7)) < 0.7, np.array([0, 0, 0, 1, 1, 2, 2])
    normed = [(x - x.mean(-1, keepdims=True)) for x in (q, k)]
    normed = [x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) for x in normed]
    with float64():
        options = {"is_causal": is_causal, "key_mask": mask, "segment_ids": segments[None]}
        options["segment_ids"] = np.repeat(segments[None], 2, axis=0)
        found = polynomial_attention(q, k, v, degree=degree, **options)
        expected = loop(*normed, v, degree, 6**-0.5, is_causal, mask, segments)
        np.testing.assert_allclose(found, expected, atol=1e-13)
        found = polynomial_attention(q, k, v, degree=degree, normalize=False, scale=0.3, **options)
        expected = loop(q, k, v, degree, 0.3, is_causal, mask, segments)
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_normalised_heads_have_mean_zero_and_square_one():
    x = normalize_heads(5 + 3 * jax.random.normal(jax.random.key(0), (4, 16)))
    np.testing.assert_allclose(x.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose((x**2).mean(-1), 1, atol=1e-4)
    assert normalize_heads(jnp.ones((2, 4), jnp.float16)).dtype == jnp.float32


def test_gradients_at_negative_products_are_finite():
    x = jnp.array([[1.0, -1.0], [-1.0, 1.0]])[:, None]
    grad = jax.grad(lambda q: polynomial_attention(q, x, x, degree=4, is_causal=True).sum())(x)
    assert bool(jnp.all(jnp.isfinite(grad)))


def test_scores_beyond_float16_do_not_overflow():
    x = jnp.full((3, 1, 64), 30.0, jnp.float16)  # <q, k>^4 = 1.1e19, float16 ends at 65504
    out = polynomial_attention(x, x, jnp.ones_like(x), normalize=False, scale=1.0)
    np.testing.assert_array_equal(out, jnp.ones_like(x))


@pytest.mark.parametrize("degree", [0, 3, -2, 2.0, True])
def test_degrees_that_are_not_even_are_refused(degree):
    x = jnp.ones((2, 1, 4))
    with pytest.raises((ValueError, TypeError), match="degree"):
        polynomial_attention(x, x, x, degree=degree)


def test_there_is_no_kernel_of_the_exact_form():
    x = jnp.ones((2, 1, 4))
    with pytest.raises(ValueError, match="impl: 'pallas'"):
        polynomial_attention(x, x, x, impl="pallas")
