"""Exact blocked attention equals the dense formula, whatever the tiles, masks and groups."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.arguments import check_inputs, visible
from privlearn.attention.softmax import softmax_attention
from privlearn.simulate import float64


def dense(q, k, v, *, scale=None, is_causal=False, key_mask=None, segment_ids=None):
    """The formula, with every score in memory; zeros for a query that sees no key."""
    inputs = check_inputs(q, k, v, is_causal=is_causal, key_mask=key_mask, segment_ids=segment_ids)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = (jnp.repeat(x, inputs.group, axis=2) for x in (inputs.key, inputs.value))
    s = scale * jnp.einsum("btnh,bsnh->bnts", inputs.query, k)
    seen = visible(inputs, is_causal=is_causal)
    seen = jnp.ones((1, 1, 1), bool) if seen is None else seen
    s = jnp.where(seen[:, None], s, -jnp.inf)
    lse = jax.scipy.special.logsumexp(s, axis=-1)
    p = jnp.where(seen[:, None], jnp.exp(s - jnp.where(jnp.isfinite(lse), lse, 0)[..., None]), 0)
    return jnp.einsum("bnts,bsnd->btnd", p, v), lse.transpose(0, 2, 1)


def draw(seed, B, T, S, N, K, H, D, dtype=jnp.float64):
    a, b, c, d, e = jax.random.split(jax.random.key(seed), 5)
    return (
        jax.random.normal(a, (B, T, N, H), dtype),
        jax.random.normal(b, (B, S, K, H), dtype),
        jax.random.normal(c, (B, S, K, D), dtype),
        jax.random.normal(d, (B, T, N, D), dtype),
        jax.random.normal(e, (B, T, N), dtype),
    )


def loss(attention, q, k, v, w, u):
    """A function of output and log-normaliser, so that both cotangents are tried."""
    out, lse = attention(q, k, v)
    return (out * w).sum() + (jnp.where(jnp.isfinite(lse), jnp.sin(lse), 0) * u).sum(), (out, lse)


CASES = {
    "ragged": ({}, (2, 21, 37, 2, 2), (8, 16)),
    "causal": ({"is_causal": True}, (1, 37, 37, 4, 2), (8, 4)),
    "causal, keys in larger tiles": ({"is_causal": True}, (2, 33, 33, 2, 2), (4, 32)),
    "one token": ({"is_causal": True}, (1, 1, 1, 2, 1), (512, 512)),
    "key mask": ({"key_mask": 3}, (2, 19, 23, 4, 1), (8, 8)),
    "causal key mask": ({"key_mask": 5, "is_causal": True}, (2, 23, 23, 4, 2), (64, 8)),
    "segments": ({"segment_ids": True, "is_causal": True}, (2, 23, 23, 2, 2), (8, 8)),
    "segments both ways": ({"segment_ids": True, "key_mask": 7}, (2, 23, 23, 2, 1), (8, 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_differ_from_dense(case):
    options, (B, T, S, N, K), (block_q, block_k) = CASES[case]
    with float64():
        options = dict(options)
        if "key_mask" in options:
            options["key_mask"] = jax.random.bernoulli(jax.random.key(9), 0.6, (B, S))
        if "segment_ids" in options:
            options["segment_ids"] = jnp.sort(
                jax.random.randint(jax.random.key(8), (B, T), 0, 4), axis=1
            )[:, ::-1]
        arrays = draw(1, B, T, S, N, K, 4, 3)
        blocked = functools.partial(
            softmax_attention, return_lse=True, block_q=block_q, block_k=block_k, **options
        )
        plain = functools.partial(dense, **options)
        results = [
            jax.jit(
                jax.value_and_grad(functools.partial(loss, f), argnums=(0, 1, 2), has_aux=True)
            )(*arrays)
            for f in (blocked, plain)
        ]
    for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_queries_without_keys_are_not_zero_or_have_nan_gradients():
    with float64():
        q, k, v, w, u = draw(2, 2, 5, 6, 2, 1, 4, 3)
        mask = jnp.array([[True] * 6, [False] * 6])
        attention = functools.partial(softmax_attention, key_mask=mask, return_lse=True)
        both = jax.value_and_grad(
            functools.partial(loss, attention), argnums=(0, 1, 2), has_aux=True
        )
        (_, (out, lse)), grads = jax.jit(both)(q, k, v, w, u)
    assert np.all(out[1] == 0)
    assert np.all(np.isneginf(lse[1]))
    for grad in grads:
        assert np.all(grad[1] == 0)
        assert np.all(np.isfinite(grad))


def test_large_scores_overflow():
    with float64():
        q, k, v, *_ = draw(3, 1, 6, 40, 1, 1, 4, 2)
        out = softmax_attention(1e4 * q, k, v, block_k=8)
        np.testing.assert_allclose(out, dense(1e4 * q, k, v)[0], rtol=0, atol=1e-9)
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_half_precision(dtype):
    q, k, v, *_ = draw(4, 1, 8, 2000, 1, 1, 4, 2, jnp.float32)
    ones = jnp.ones_like(v, dtype)
    out = softmax_attention(q.astype(dtype), k.astype(dtype), ones, block_k=500)
    assert out.dtype == dtype
    # 2,000 weights of about 1/2000 each: summed in bfloat16 they would stop growing at 256 terms.
    np.testing.assert_allclose(out.astype(jnp.float32), 1, rtol=0, atol=0.005)


def test_agrees_with_jax_in_float32_and_without_batch_axis():
    q, k, v, *_ = draw(5, 2, 24, 24, 4, 2, 8, 8, jnp.float32)
    theirs = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    ours = softmax_attention(q, k, v, is_causal=True, block_q=8, block_k=8)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    single = softmax_attention(q[0], k[0], v[0], is_causal=True)
    np.testing.assert_allclose(single, theirs[0], rtol=0, atol=2e-6)


def _largest(jaxpr) -> int:
    """Numbers in the largest array of a program, those inside loops included."""
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    inner = [_largest(j) for eqn in jaxpr.eqns for j in jax.core.jaxprs_in_params(eqn.params)]
    return max(sizes + inner, default=0)


def test_some_array_is_quadratic_in_length():
    n = 4096
    arrays = [jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)] * 3

    def both(q, k, v):
        return jax.grad(lambda *a: softmax_attention(*a, is_causal=True).sum(), (0, 1, 2))(q, k, v)

    assert _largest(jax.make_jaxpr(both)(*arrays).jaxpr) <= 512 * 512


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"heads": 3}, ValueError, "3 heads of queries and 2 of keys"),
        ({"block_q": 0}, ValueError, "block_q: 0"),
        ({"block_k": 1.5}, TypeError, "block_k: 1.5"),
        ({"scale": -1.0}, ValueError, "scale: -1.0"),
        ({"impl": "pallas"}, ValueError, "pallas"),
        ({"is_causal": True, "keys": 5}, ValueError, "4 queries and 5 keys"),
    ],
)
def test_bad_argument_is_not_named(arguments, error, match):
    arguments = dict(arguments)
    q = jnp.zeros((1, 4, arguments.pop("heads", 2), 4))
    k = jnp.zeros((1, arguments.pop("keys", 4), 2, 4))
    with pytest.raises(error, match=match):
        softmax_attention(q, k, k, **arguments)
