"""HyperAttention equals its own dense formula, and that formula is what the paper says."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import hyper
from privlearn.attention.arguments import check_inputs
from privlearn.attention.hyper import approximate, hyper_attention, make_plan
from privlearn.attention.hyper_node import Settings
from privlearn.attention.softmax import Shape, attend, softmax_attention, to_rows
from privlearn.simulate import float64


def settings_of(block=4, samples=6, least=8, *, causal=False, pallas=False, scale=0.5):
    return Settings(scale, causal, block, samples, least, pallas)


def draw(seed, B, T, S, N, K, H=4, D=3):
    """Arguments, and cotangents of rows."""
    rng = np.random.default_rng(seed)
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, D), (B * K, N // K, T, D), (B * K, N // K, T)
    return [rng.standard_normal(shape) for shape in shapes]


def node_weights(q_order, k_order, picks, count, b_q, b_k):
    """How often each key counts for each query, (T, S): 1 in the block, n/m a draw outside."""
    T, S = len(q_order), len(k_order)
    q_block, k_block = np.empty(T, int), np.empty(S, int)
    q_block[q_order], k_block[k_order] = np.arange(T) // b_q, np.arange(S) // b_k
    same = q_block[:, None] == k_block[None]
    drawn = np.bincount(k_order[picks], minlength=S) * (count / max(len(picks), 1))
    return np.where(same, 1.0, drawn)


def weights(plan, settings, T, S):
    """The weights of every pair, (R, G, T, S), for the plain and the causal form."""
    plan = jax.tree.map(np.asarray, plan)
    L, R, G, _ = plan.q_order.shape
    if not settings.causal:
        n_blocks = -(-S // settings.block)
        full, nodes = np.zeros((R, G, T, S)), [(0, 0, T, S, 0, 0)]
        sizes = -(-T // n_blocks), settings.block
    else:
        leaf = -(-T // 2**L)
        n_blocks = -(-leaf // settings.block)  # of equal size, so the last leaf may be longer
        sizes = (-(-leaf // n_blocks),) * 2
        leaf = n_blocks * sizes[0]
        n = leaf * 2**L
        full = np.kron(np.eye(2**L), np.tril(np.ones((leaf, leaf)))) * np.ones((R, G, 1, 1))
        nodes = []
        for level in range(L):
            half = n // 2 ** (level + 1)
            for i in range(2**level):
                nodes.append((level, i, half, half, (2 * i + 1) * half, 2 * i * half))
    for level, i, n_q, n_k, q_0, k_0 in nodes:
        for r in range(R):
            for g in range(G):
                full[r, g, q_0 : q_0 + n_q, k_0 : k_0 + n_k] = node_weights(
                    plan.q_order[level, r, g, i * n_q : (i + 1) * n_q] - q_0,
                    plan.k_order[level, r, i * n_k : (i + 1) * n_k] - k_0,
                    plan.picks[level, r, i], plan.n_keys[level, r, i], *sizes,
                )  # fmt: skip
    return full[:, :, :T, :T] if settings.causal else full


def dense(q, k, v, q_ids, k_ids, weight, scale, w, u):
    """The estimator with every pair in memory, and the gradients of sum(out w + sin(lse) u)."""
    seen = weight > 0
    if q_ids is not None:
        seen = seen & (np.asarray(q_ids)[:, None, :, None] == np.asarray(k_ids)[:, None, None])
    s = np.where(seen, scale * np.einsum("rgth,rsh->rgts", q, k), -np.inf)
    top = s.max(-1, keepdims=True)
    top[np.isneginf(top)] = 0
    p = weight * np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    dead = total[..., 0] == 0
    p = p / np.where(total > 0, total, 1)
    out = np.einsum("rgts,rsd->rgtd", p, v)
    lse = np.where(dead, -np.inf, np.log(np.where(total > 0, total, 1))[..., 0] + top[..., 0])
    d_lse = np.where(dead, 0, np.cos(np.where(dead, 0, lse)) * u)
    dp = np.einsum("rgtd,rsd->rgts", w, v)
    ds = scale * p * (dp - (out * w).sum(-1, keepdims=True) + d_lse[..., None])
    return (
        (out, lse),
        (
            np.einsum("rgts,rsh->rgth", ds, k),
            np.einsum("rgts,rgth->rsh", ds, q),
            np.einsum("rgts,rgtd->rsd", p, w),
        ),
    )


def quickly(f):
    """Compiled without LLVM's optimisation, which takes longer than these calls."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def with_gradients(attention, q, k, v, w, u):
    (out, lse), back = jax.vjp(attention, q, k, v)
    d_lse = jnp.where(jnp.isfinite(lse), jnp.cos(lse) * u, 0)
    return (out, lse), back((w, d_lse))


CASES = {
    "fewer keys than queries, one sample": ({}, (1, 19, 13, 2, 2), {"samples": 1}),
    "key mask, a row without keys": ({"key_mask": True}, (2, 21, 37, 4, 2), {}),
    "causal, odd": ({"is_causal": True}, (2, 37, 37, 2, 2), {"block": 5}),
    "causal, three levels, key mask, segments": (
        {"is_causal": True, "key_mask": True, "segment_ids": True}, (2, 67, 67, 1, 1), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_value_or_gradient_is_not_that_of_the_estimator(case):
    options, (B, T, S, N, K), changes = CASES[case]
    rng, options = np.random.default_rng(9), dict(options)
    if "key_mask" in options:
        options["key_mask"] = rng.random((B, S)) < np.linspace(0.6, 0, B)[:, None]
    if "segment_ids" in options:
        options["segment_ids"] = np.sort(rng.integers(0, 3, (B, T)), axis=1)
    with float64():
        *arrays, w, u = draw(1, B, T, S, N, K)
        settings = settings_of(causal=options.get("is_causal", False), **changes)
        rows = to_rows(check_inputs(*arrays, **options))

        @quickly
        def estimate(q, k, v, q_ids, k_ids, w, u):
            plan = make_plan(jax.random.key(2), q, k, k_ids, 3, settings)
            given = lambda q, k, v: approximate(q, k, v, q_ids, k_ids, plan, settings)  # noqa: E731
            return plan, with_gradients(given, q, k, v, w, u)

        plan, ours = estimate(*rows, w, u)
    theirs = dense(*rows, weights(plan, settings, T, S), 0.5, w, u)
    for mine, plain in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-12)


@functools.cache
def example():
    """(1, 48, 1, 4) arrays, options of a causal form with two levels, and all of it compiled."""
    arrays = draw(6, 1, 48, 48, 1, 1)[:3]
    options = {"block": 4, "samples": 6, "lsh_projs": 3, "min_seq_len": 8, "scale": 0.5}
    options["is_causal"] = True

    @quickly
    def run(rng):
        rows = to_rows(check_inputs(*arrays, is_causal=True))
        plan = make_plan(rng, rows[0], rows[1], None, 3, settings_of(causal=True))
        return hyper_attention(*arrays, rng=rng, return_lse=True, **options), rows, plan

    return arrays, options, run


def test_public_function_gives_something_else_than_its_parts():
    *_, run = example()
    with float64():
        (out, lse), rows, plan = run(jax.random.key(2))
    settings = settings_of(causal=True)
    weight = weights(plan, settings, 48, 48)
    expected, expected_lse = dense(*rows, weight, 0.5, np.zeros((1, 1, 48, 3)), 0)[0]
    assert out.shape == (1, 48, 1, 3)
    assert lse.shape == (1, 48, 1)
    np.testing.assert_allclose(out[:, :, 0], expected[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(lse[:, :, 0], expected_lse[:, 0], rtol=0, atol=1e-12)


def test_same_key_gives_another_result():
    *_, run = example()
    with float64():
        first, again, other = (run(jax.random.key(i))[0][0] for i in (2, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_future_keys_influence_the_past_or_weights_do_not_sum_to_one():
    (q, k, v), options, _ = example()
    v = np.concatenate([np.ones_like(v[..., :1]), v[..., 1:]], axis=-1)
    run = functools.partial(hyper_attention, rng=jax.random.key(2), **options)
    with float64():

        @quickly
        def of_one(k, v):
            out, back = jax.vjp(lambda k, v: run(q, k, v), k, v)
            return out, *back(jnp.zeros_like(out).at[0, 29].set(1))

        out, dk, dv = map(np.asarray, of_one(k, v))
    assert np.all(dk[0, 30:] == 0)
    assert np.all(dv[0, 30:] == 0)
    assert np.any(dv[0, :24] != 0)  # and the approximate half is reached at all
    np.testing.assert_allclose(out[..., 0], 1, atol=1e-14)
    np.testing.assert_allclose(dv[..., 0].sum(), 1, atol=1e-14)


def test_half_precision_sums_in_half_precision():
    """The same rounded numbers and the same order: only the parts of the output are rounded."""
    settings = settings_of(causal=True)
    half = [jnp.asarray(x, jnp.bfloat16) for x in example()[0]]

    @quickly
    def both(*arrays):
        rows = to_rows(check_inputs(*arrays, is_causal=True))
        plan = make_plan(jax.random.key(2), rows[0], rows[1], None, 3, settings)
        single = (x.astype(jnp.float32) for x in rows[:3])
        return (
            approximate(*rows, plan, settings)[0],
            approximate(*single, *rows[3:], plan, settings)[0],
        )

    rough, fine = both(*half)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(rough, np.float32), fine, rtol=2**-7, atol=2**-8)


def test_sample_of_every_key_once_is_not_exact():
    """A permutation of all keys as the sample, with the own block left out, is all keys once."""
    q, k, v, *_ = draw(4, 1, 24, 24, 1, 1)
    settings = settings_of(samples=24)
    with float64():

        @quickly
        def both(q, k, v):
            rows = to_rows(check_inputs(q, k, v))
            plan = make_plan(jax.random.key(2), rows[0], rows[1], None, 3, settings)
            picks = jnp.asarray(np.random.default_rng(5).permutation(24), jnp.int32)
            plan = plan._replace(picks=picks[None, None, None])
            return approximate(*rows, plan, settings), attend(*rows, Shape(0.5, False, 64, 64))

        ours, exact = both(q, k, v)
    for mine, other in zip(ours, exact, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{"min_seq_len": 25}, {"block": 24}, {"min_seq_len": 13, "is_causal": True}],
)
def test_fallback_is_not_exact(options):
    q, k, v, *_ = draw(5, 1, 24, 24, 2, 1)
    options = {"min_seq_len": 4, "block": 4} | options
    causal = {"is_causal": options.get("is_causal", False)}
    np.testing.assert_allclose(
        hyper_attention(q, k, v, **options), softmax_attention(q, k, v, **causal), atol=1e-6
    )


@pytest.mark.parametrize(
    ("causal", "backward", "arrays"),
    [
        (True, False, 5),
        (True, True, 8),
        pytest.param(False, False, 3, marks=pytest.mark.slow),
        pytest.param(False, True, 4, marks=pytest.mark.slow),
    ],
)
def test_memory_is_not_linear_in_length(causal, backward, arrays):
    """What XLA allocates beside inputs and outputs, for 32k and 64k tokens: no call is made."""
    settings = settings_of(256, 256, 1024, causal=causal)

    def allocated(n):
        like = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
        q, k, of_q = like((1, 1, n, 64)), like((1, n, 64)), like((1, 1, n))
        plan = jax.eval_shape(
            lambda q, k: make_plan(jax.random.key(0), q, k, None, 7, settings), q, k
        )

        @quickly
        def both(q, k, v, plan, out, lse, d_out, d_lse):
            if not backward:
                return hyper._forward(q, k, v, None, None, plan, settings)
            saved = (q, k, v, None, None, plan, out, lse)
            return hyper._backward(settings, saved, (d_out, d_lse))[:3]

        compiled = both.lower(q, k, k, plan, q, of_q, q, of_q).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    n = 2**15
    small, large = allocated(n), allocated(2 * n)
    assert large < 2.2 * small
    assert large < arrays * 2 * n * 64 * 4  # and few arrays as large as the input


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"samples": -1}, ValueError, "samples: -1"),
        ({"block": 0}, ValueError, "block: 0"),
        ({"lsh_projs": 0}, ValueError, "lsh_projs: 0"),
        ({"lsh_projs": 30}, ValueError, "lsh_projs: 30"),
        ({"min_seq_len": 2.5}, TypeError, "min_seq_len: 2.5"),
        ({"rng": None}, ValueError, "rng: None"),
        ({"impl": "cuda"}, ValueError, "impl: 'cuda'"),
    ],
)
def test_bad_argument_is_not_named(options, error, match):
    x = jnp.zeros((1, 16, 1, 4))
    options = {"rng": jax.random.key(0), "min_seq_len": 4, "block": 4} | options
    with pytest.raises(error, match=match):
        hyper_attention(x, x, x, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "recorded"), [(64, 0.130), (0, 0.161)])
def test_digits_are_far_from_the_recorded_error(samples, recorded):
    """Real vectors: mean of 8 seeds within 15 % (seed sd 8 %, so 5 standard errors)."""
    from sklearn.datasets import load_digits

    table = load_digits()
    X = table.data[:1792] - table.data[:1792].mean(axis=0)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    q = (X * 10**0.5 * 64**0.25).astype(np.float32)[:, None]
    v = np.eye(10, dtype=np.float32)[table.target[:1792]][:, None]
    weight = np.exp(10 * X @ X.T)
    exact = (weight / weight.sum(axis=1, keepdims=True)) @ v[:, 0]

    @jax.jit
    def one(rng):
        return hyper_attention(q, q, v, rng=rng, block=64, samples=samples, min_seq_len=1)

    found = [np.asarray(one(rng))[:, 0] for rng in jax.random.split(jax.random.key(0), 8)]
    errors = [np.linalg.norm(x - exact) / np.linalg.norm(exact) for x in found]
    assert np.mean(errors) == pytest.approx(recorded, rel=0.15)
