"""Exact blocked attention equals the dense formula, whatever the tiles, masks and groups."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from privlearn.attention.arguments import check_inputs
from privlearn.attention.softmax import Shape, attend, softmax_attention, to_rows
from privlearn.simulate import float64


def dense(q, k, v, q_ids, k_ids, causal, scale, w, u):
    """The formula with every score in memory; and gradients of sum(out w + sin(lse) u)."""
    seen = np.tril(np.ones((q.shape[2], k.shape[1]), bool)) if causal else np.array(True)
    if q_ids is not None:
        seen = seen & (np.asarray(q_ids)[:, None, :, None] == np.asarray(k_ids)[:, None, None])
    s = np.where(seen, scale * np.einsum("rgth,rsh->rgts", q, k), -np.inf)
    top = s.max(-1, keepdims=True)
    top[np.isneginf(top)] = 0
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    dead = total[..., 0] == 0
    p, total = p / np.where(total > 0, total, 1), np.where(dead, 1, total[..., 0])
    out, lse = (
        np.einsum("rgts,rsd->rgtd", p, v),
        np.where(dead, -np.inf, np.log(total) + top[..., 0]),
    )
    d_lse = np.where(dead, 0, np.cos(np.where(dead, 0, lse)) * u)
    dp = np.einsum("rgtd,rsd->rgts", w, v)
    ds = scale * p * (dp - (out * w).sum(-1, keepdims=True) + d_lse[..., None])
    to_k = np.einsum("rgts,rgth->rsh", ds, q), np.einsum("rgts,rgtd->rsd", p, w)
    return (out, lse), (np.einsum("rgts,rsh->rgth", ds, k), *to_k)


def draw(seed, B, T, S, N, K, H, D):
    """Arguments, and cotangents of rows."""
    rng = np.random.default_rng(seed)
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, D), (B * K, N // K, T, D), (B * K, N // K, T)
    return [rng.standard_normal(shape) for shape in shapes]


def quickly(f):
    """Compiled without LLVM's optimisation, which takes longer than these calls."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def with_gradients(rows, shape, w, u):
    """Output and log-normaliser, and gradients through both."""

    @quickly
    def both(q, k, v, q_ids, k_ids, w, u):
        (out, lse), back = jax.vjp(lambda q, k, v: attend(q, k, v, q_ids, k_ids, shape), q, k, v)
        d_lse = jnp.where(jnp.isfinite(lse), jnp.cos(lse) * u, 0)
        return (out, lse), back((w, d_lse))

    return both(*rows, w, u)


CASES = {
    "ragged": ({}, (2, 21, 37, 2, 2), (8, 16)),
    "causal, heads share keys": ({"is_causal": True}, (1, 37, 37, 4, 2), (16, 4)),
    "causal, keys in larger tiles": ({"is_causal": True}, (2, 33, 33, 2, 2), (4, 32)),
    "one token": ({"is_causal": True}, (1, 1, 1, 2, 1), (512, 512)),
    "causal key mask": ({"key_mask": True, "is_causal": True}, (2, 23, 23, 4, 2), (16, 8)),
    "segments both ways, a row without keys": (
        {"segment_ids": True, "key_mask": True}, (2, 23, 23, 2, 1), (8, 8),
    ),
}  # fmt: skip


SLOW = ("causal, keys in larger tiles", "causal key mask")


@pytest.mark.parametrize(
    "case", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in CASES]
)
def test_values_and_gradients_differ_from_dense(case):
    options, (B, T, S, N, K), (block_q, block_k) = CASES[case]
    rng, options = np.random.default_rng(9), dict(options)
    causal = options.get("is_causal", False)
    if "key_mask" in options:
        options["key_mask"] = rng.random((B, S)) < np.linspace(0.6, 0, B)[:, None]
    if "segment_ids" in options:
        options["segment_ids"] = -np.sort(rng.integers(0, 4, (B, T)), axis=1)
    with float64():
        *arrays, w, u = draw(1, B, T, S, N, K, 4, 3)
        rows = to_rows(check_inputs(*arrays, **options))
        ours = with_gradients(rows, Shape(0.5, causal, block_q, block_k), w, u)
    theirs = dense(*rows, causal, 0.5, w, u)
    for mine, plain in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert not np.any(np.isnan(mine))
        np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-12)


def test_large_scores_overflow():
    with float64():
        q, k, v, w, u = draw(3, 1, 6, 40, 1, 1, 4, 2)
        out = softmax_attention(1e4 * q, k, v, block_k=8)
        rows = to_rows(check_inputs(1e4 * q, k, v))
    plain = dense(*rows, False, 0.5, w, u)[0][0]
    np.testing.assert_allclose(out[0, :, 0], plain[0, 0], rtol=0, atol=1e-9)
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision_sums_in_half_precision(dtype):
    q, k, v, *_ = (jnp.asarray(x, dtype) for x in draw(4, 1, 8, 2000, 1, 1, 4, 2))
    out = softmax_attention(q, k, jnp.ones_like(v), block_k=500)
    assert out.dtype == dtype
    # 2,000 weights of about 1/2000 each: summed in bfloat16 they would stop growing at 256 terms.
    np.testing.assert_allclose(out.astype(jnp.float32), 1, rtol=0, atol=0.005)


def test_agrees_with_jax_in_float32_and_without_batch_axis():
    q, k, v, *_ = (x.astype(np.float32) for x in draw(5, 2, 24, 24, 4, 2, 8, 8))
    w = np.cos(np.arange(q.size, dtype=np.float32).reshape(q.shape))

    @quickly
    def all_of(q, k, v):
        theirs, back = jax.vjp(
            functools.partial(jax.nn.dot_product_attention, is_causal=True), q, k, v
        )
        run = functools.partial(softmax_attention, is_causal=True, block_q=8, block_k=8)
        ours, own_back = jax.vjp(run, q, k, v)
        single = softmax_attention(q[0], k[0], v[0], is_causal=True)
        return (ours, *own_back(w), single), (theirs, *back(w), theirs[0])

    for mine, other in zip(*all_of(q, k, v), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=5e-6)


def _largest(jaxpr) -> int:
    """Numbers in the largest array of a program, those inside loops included."""
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    inner = [_largest(j) for eqn in jaxpr.eqns for j in jaxprs_in_params(eqn.params)]
    return max(sizes + inner, default=0)


def test_some_array_is_quadratic_in_length():
    n = 4096
    arrays = [jax.ShapeDtypeStruct((1, n, 1, 8), jnp.float32)] * 3

    def both(q, k, v):
        return jax.grad(lambda *a: softmax_attention(*a, is_causal=True).sum(), (0, 1, 2))(q, k, v)

    assert _largest(jax.make_jaxpr(both)(*arrays).jaxpr) <= 2048 * 512


@pytest.mark.parametrize("causal", [pytest.param(False, marks=pytest.mark.slow), True])
def test_memory_is_not_linear_in_length(causal):
    """What XLA allocates for a call and its gradient, for 16k and 32k tokens: no call is made."""

    def both(q, k, v):
        out, back = jax.vjp(functools.partial(softmax_attention, is_causal=causal), q, k, v)
        return out, back(out)

    def allocated(n):
        inputs = [jax.ShapeDtypeStruct((1, n, 1, 64), jnp.float32)] * 3
        compiled = quickly(both).lower(*inputs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    n = 2**14
    small, large = allocated(n), allocated(2 * n)
    assert large < 2.2 * small
    assert large < 6 * 2 * n * 64 * 4  # and few arrays as large as the input


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
