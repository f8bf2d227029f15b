"""Polysketch attention against a table of all weights, written anew here in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from privlearn.attention import (
    init_sketch,
    normalize_heads,
    pad_to_block,
    polynomial_attention,
)
from privlearn.attention import polysketch_attention as eager
from privlearn.simulate import float64

STATIC = ("degree", "scale", "normalize", "is_causal", "block", "local_exact", "packed", "impl")
# Compiled as a whole: one operation at a time, JAX would compile each.
polysketch_attention = jax.jit(eager, static_argnames=(*STATIC, "return_state"))

N, BLOCK, HEAD, DEPTH, R = 37, 8, 8, 5, 3
SEGMENTS = np.repeat([4, 1, 9, 1], [3, 14, 1, 19])


def slow(*parameters):
    """A case that compiles much to say what others say nearly as well."""
    return pytest.param(*parameters, marks=pytest.mark.slow)


def arrays(seed=0, rows=2, n=N, heads=2, kv_heads=1, dtype=float, n_keys=None):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((rows, n, heads, HEAD))
    k = rng.standard_normal((rows, n_keys or n, kv_heads, HEAD))
    v = rng.standard_normal((rows, n_keys or n, kv_heads, DEPTH))
    return tuple(jnp.asarray(x, dtype) for x in (q, k, v))


def allowed_pairs(q, k, *, is_causal=True, mask=None, segments=None):
    i, j = np.arange(q.shape[1])[:, None], np.arange(k.shape[1])[None]
    allowed = np.ones((q.shape[0], *np.broadcast(i, j).shape), bool)
    if is_causal:
        allowed &= j <= i
    if mask is not None:
        allowed &= np.asarray(mask)[:, None, :]
    if segments is not None:
        runs = np.cumsum(np.concatenate([[0], np.diff(segments) != 0]))
        allowed &= runs[:, None] == runs[None]
    return allowed


def weighted(xp, exact, sketched, v, allowed, *, block=BLOCK, local_exact=True):
    """Outputs (B, T, H, D) by a table of all weights, xp is NumPy or `jax.numpy`."""
    i, j = np.arange(exact.shape[2])[:, None], np.arange(exact.shape[3])[None]
    weights = xp.where(i // block == j // block, exact, sketched) if local_exact else sketched
    weights = xp.where(allowed[:, None], weights, 0)
    out = xp.einsum("bhij,bjhd->bihd", weights, v)
    return out / (1 + xp.moveaxis(weights.sum(-1), 1, 2)[..., None])


apply = jax.jit(lambda sketch, x: sketch(x))


def table(q, k, v, sketch, *, block=BLOCK, local_exact=True, **seen):
    """The oracle of the values, without JAX but for the sketch."""
    group = q.shape[2] // k.shape[2]
    q, k, v = np.asarray(q), np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)
    allowed = allowed_pairs(q, k, **seen)
    normed = [x - x.mean(-1, keepdims=True) for x in (q, k)]
    normed = [x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * HEAD**-0.25 for x in normed]
    sketched = scores = np.einsum("bihd,bjhd->bhij", *normed)
    if sketch is not None:
        given = (q, k) if sketch.takes_raw else normed
        yq, yk = (np.asarray(apply(sketch, x)) for x in given)
        sketched = np.einsum("bihr,bjhr->bhij", yq, yk)
    exact = scores ** (2 if sketch is None else sketch.degree)
    return weighted(np, exact, sketched**2, v, allowed, block=block, local_exact=local_exact)


def differentiable_table(q, k, v, sketch, allowed, *, local_exact):
    """The oracle of the gradients, of a random sketch."""
    group = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    q, k = (normalize_heads(x) * HEAD**-0.25 for x in (q, k))
    exact = jnp.einsum("bihd,bjhd->bhij", q, k) ** sketch.degree
    sketched = jnp.einsum("bihr,bjhr->bhij", sketch(q), sketch(k)) ** 2
    return weighted(jnp, exact, sketched, v, allowed, local_exact=local_exact)


def sketch_of(degree=4, kind="gaussian", r=R):
    return (
        None if degree == 2 else init_sketch(jax.random.key(3), HEAD, r, degree=degree, kind=kind)
    )


def worst(a, b):
    return float(jnp.max(jnp.abs(a - b)))


# Degree 4 is that of all other tests.
@pytest.mark.slow
@pytest.mark.parametrize(("degree", "local_exact"), [(2, False), (2, True), (8, True)])
def test_blocks_equal_the_table_of_weights(degree, local_exact):
    with float64():
        q, k, v = arrays()
        sketch = sketch_of(degree)
        found = polysketch_attention(
            q, k, v, sketch=sketch, is_causal=True, block=BLOCK, local_exact=local_exact
        )
        assert worst(found, table(q, k, v, sketch, local_exact=local_exact)) < 1e-13


@pytest.mark.parametrize(
    ("options", "local_exact"),
    [
        ({"mask": True, "segments": True}, True),
        slow({"mask": True, "segments": True}, False),
        ({"is_causal": False, "mask": True}, True),
        slow({"is_causal": False, "mask": True}, False),
    ],
)
def test_masks_documents_and_the_form_without_order_equal_the_table(options, local_exact):
    is_causal = options.get("is_causal", True)
    mask = np.random.default_rng(1).random((2, N)) < 0.7 if options.get("mask") else None
    segments = SEGMENTS if options.get("segments") else None
    with float64():
        q, k, v = arrays(heads=4, kv_heads=2)
        sketch = sketch_of()
        found = polysketch_attention(
            q, k, v, sketch=sketch, is_causal=is_causal, block=BLOCK, local_exact=local_exact,
            key_mask=mask, segment_ids=None if segments is None else segments[None],
        )  # fmt: skip
        expected = table(
            q, k, v, sketch, local_exact=local_exact, is_causal=is_causal, mask=mask,
            segments=segments,
        )  # fmt: skip
        assert worst(found, expected) < 1e-13


@pytest.mark.parametrize(
    ("local_exact", "packed", "segments", "r"),
    [
        (True, True, SEGMENTS, 3),
        (False, True, None, 4),  # odd and even sizes pair their features in two ways
        slow(False, False, SEGMENTS, 3),
    ],
)
def test_gradients_equal_those_of_the_table(local_exact, packed, segments, r):
    mask = np.random.default_rng(1).random((2, N)) < 0.8
    with float64():
        q, k, v = arrays()
        sketch = sketch_of(r=r)
        weight = jnp.asarray(np.random.default_rng(2).standard_normal((2, N, 2, DEPTH)))
        allowed = allowed_pairs(q, k, mask=mask, segments=segments)

        def loss(ours, q, k, v, sketch):
            if ours:
                out = polysketch_attention(
                    q, k, v, sketch=sketch, is_causal=True, block=BLOCK, local_exact=local_exact,
                    packed=packed, key_mask=mask,
                    segment_ids=None if segments is None else segments[None],
                )  # fmt: skip
            else:
                out = differentiable_table(q, k, v, sketch, allowed, local_exact=local_exact)
            return jnp.sum(out * weight)

        found, expected = (
            jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)(ours, q, k, v, sketch)
            for ours in (True, False)
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert worst(a, b) < 1e-12 * max(1.0, float(jnp.abs(b).max()))


@pytest.mark.slow
@pytest.mark.parametrize("local_exact", [True, False])
def test_gradient_of_the_form_without_order_equals_that_of_the_table(local_exact):
    with float64():
        q, k, v = arrays(rows=1)
        sketch = sketch_of()
        allowed = allowed_pairs(q, k, is_causal=False)

        def ours(*qkv):
            return polysketch_attention(*qkv, sketch=sketch, block=BLOCK, local_exact=local_exact)

        def dense(*qkv):
            return differentiable_table(*qkv, sketch, allowed, local_exact=local_exact)

        found, expected = (
            jax.jit(jax.grad(lambda *x, f=f: jnp.sum(f(*x) ** 2), argnums=(0, 1, 2)))(q, k, v)
            for f in (ours, dense)
        )
        for a, b in zip(found, expected, strict=True):
            assert worst(a, b) < 1e-12 * max(1.0, float(jnp.abs(b).max()))


@pytest.mark.slow
def test_gradient_agrees_with_finite_differences():
    with float64():
        q, k, v = arrays(rows=1, n=11, heads=1)
        sketch = sketch_of()
        check_grads(
            lambda *x: polysketch_attention(*x, sketch=sketch, is_causal=True, block=4),
            (q, k, v),
            order=1,
            modes=("rev",),
        )


@pytest.mark.slow
def test_the_size_of_a_block_has_no_effect_on_a_pure_sketch():
    with float64():
        q, k, v = arrays(rows=1)
        found = polysketch_attention(
            q, k, v, sketch=sketch_of(), is_causal=True, block=10_000, local_exact=False
        )
        assert worst(found, table(q, k, v, sketch_of(), local_exact=False)) < 1e-13


@pytest.mark.slow
def test_one_block_with_exact_weights_is_exact_attention():
    with float64():
        q, k, v = arrays()
        found = polysketch_attention(q, k, v, sketch=sketch_of(), is_causal=True, block=N)
        assert worst(found, polynomial_attention(q, k, v, is_causal=True)) < 1e-13


@pytest.mark.slow
def test_one_token():
    q, k, v = arrays(n=1, dtype=jnp.float32)
    found = polysketch_attention(q, k, v, sketch=sketch_of(), is_causal=True)
    assert worst(found, table(q, k, v, sketch_of())) < 1e-6


def test_other_numbers_of_keys_than_of_queries():
    with float64():
        q, k, v = arrays(n=13, n_keys=29)
        sketch = sketch_of()
        found = polysketch_attention(q, k, v, sketch=sketch, block=BLOCK, local_exact=False)
        expected = table(q, k, v, sketch, is_causal=False, local_exact=False)
        assert worst(found, expected) < 1e-13


@pytest.mark.slow
def test_later_tokens_change_nothing_before_them():
    q, k, v = arrays(dtype=jnp.float32)
    sketch = sketch_of()
    run = jax.jit(lambda *x: polysketch_attention(*x, sketch=sketch, is_causal=True, block=BLOCK))
    before = run(q, k, v)
    at = 21
    after = run(q.at[:, at:].add(1.0), k.at[:, at:].add(1.0), v.at[:, at:].set(9.0))
    assert jnp.array_equal(before[:, :at], after[:, :at])
    assert not jnp.array_equal(before[:, at:], after[:, at:])


@pytest.mark.slow
def test_a_constant_value_comes_back_shrunk_by_the_sum_of_weights():
    q, k, _ = arrays(rows=1, heads=1, dtype=jnp.float32)
    values = jnp.concatenate([jnp.eye(N), jnp.full((N, 1), 3.0)], axis=1)[None, :, None]
    out = polysketch_attention(q, k, values, sketch=sketch_of(), is_causal=True, block=BLOCK)
    weights = out[0, :, 0, :N]
    assert bool(jnp.all(weights >= 0))
    np.testing.assert_allclose(out[0, :, 0, N], 3.0 * weights.sum(axis=1), rtol=2e-5)
    assert float(weights.sum(axis=1).max()) < 1


@pytest.mark.slow
def test_a_packed_document_comes_out_as_if_alone():
    with float64():
        q, k, v = arrays(rows=1)
        sketch = sketch_of()

        def run(*x, **options):
            return polysketch_attention(*x, sketch=sketch, is_causal=True, block=BLOCK, **options)

        def alone(local_exact):
            parts = [slice(0, 3), slice(3, 17), slice(17, 18), slice(18, 37)]
            out = [table(q[:, s], k[:, s], v[:, s], sketch, local_exact=local_exact) for s in parts]
            return np.concatenate(out, axis=1)

        packed = run(q, k, v, local_exact=False, segment_ids=SEGMENTS[None])
        assert worst(alone(local_exact=False), packed) < 1e-13

        packed = run(q, k, v, segment_ids=SEGMENTS[None])
        # The blocks of the row are not the documents'.
        assert worst(alone(local_exact=True), packed) > 1e-3
        packing = pad_to_block([3, 14, 1, 19], BLOCK)
        laid = [
            jnp.zeros((1, packing.key_mask.size, *x.shape[2:])).at[:, packing.places].set(x)
            for x in (q, k, v)
        ]
        out = run(*laid, key_mask=packing.key_mask, segment_ids=packing.segment_ids)
        assert worst(alone(local_exact=True), out[:, packing.places]) < 1e-13


def test_rows_that_see_nothing_are_zero_and_have_zero_gradients():
    q, k, v = arrays(dtype=jnp.float32)
    mask = np.zeros((2, N), bool)
    mask[1, 5:] = True
    k = k.at[0, 3].set(jnp.nan)  # masked keys may hold anything

    def loss(q, k, v):
        out = eager(q, k, v, sketch=sketch_of(), is_causal=True, block=BLOCK, key_mask=mask)
        return jnp.sum(out**2), out

    grads, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    assert bool(jnp.all(out[0] == 0))
    assert bool(jnp.all(out[1, :5] == 0))
    assert bool(jnp.all(out[1, 5:].any(axis=-1)))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in grads)
    assert bool(jnp.all(grads[1][0] == 0))


@pytest.mark.parametrize("dtype", [slow(jnp.bfloat16), jnp.float16])
def test_half_precision_in_and_float32_inside(dtype):
    q, k, v = arrays(dtype=jnp.float32)
    half = [(100 * x).astype(dtype) for x in (q, k)] + [v.astype(dtype)]
    sketch = sketch_of()
    out = polysketch_attention(*half, sketch=sketch, is_causal=True, block=BLOCK)
    assert out.dtype == dtype
    assert bool(jnp.all(jnp.isfinite(out)))
    full = polysketch_attention(
        *(x.astype(jnp.float32) for x in half), sketch=sketch, is_causal=True, block=BLOCK
    )
    # Only the result was rounded: half an ulp of the output precision.
    assert bool(jnp.all(jnp.abs(out - full) <= float(jnp.finfo(dtype).eps) * jnp.abs(full) + 1e-6))
    # Raw powers of this size exceed float16 (65504) by far: <q, k>^4 of unnormalised heads.
    raw = polysketch_attention(*half, sketch=sketch, is_causal=True, normalize=False, block=BLOCK)
    assert bool(jnp.all(jnp.isfinite(raw)))


def big_axes(jaxpr, found):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            found.append(getattr(variable.aval, "shape", ()))
        for value in equation.params.values():
            for sub in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(sub, "jaxpr", sub)
                if hasattr(inner, "eqns"):
                    big_axes(inner, found)
    return found


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_nothing_as_large_as_all_pairs_or_all_features_is_made(is_causal, backward):
    n, r = 4096, 16
    shape = jax.ShapeDtypeStruct((1, n, 1, 16), jnp.float32)
    sketch = init_sketch(jax.random.key(0), 16, r)

    def run(q, k, v):
        out = polysketch_attention(q, k, v, sketch=sketch, is_causal=is_causal, block=64)
        return jnp.sum(out**2)

    run = jax.grad(run, argnums=(0, 1, 2)) if backward else run
    shapes = big_axes(jax.make_jaxpr(run)(shape, shape, shape).jaxpr, [])
    assert len(shapes) > 100  # the loops were looked into
    largest = max(int(np.prod(s)) for s in shapes)
    assert largest < n * r * r / 2 < n * n


@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_in_proportion_to_the_length(backward):
    sketch = init_sketch(jax.random.key(0), 16, 8)

    def run(q, k, v):
        return jnp.sum(eager(q, k, v, sketch=sketch, is_causal=True, block=64) ** 2)

    def temporaries(n):
        shape = jax.ShapeDtypeStruct((1, n, 1, 16), jnp.float32)
        function = jax.grad(run, argnums=(0, 1, 2)) if backward else run
        compiled = jax.jit(function).lower(shape, shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporaries(4096), temporaries(8192)
    assert large > 4096 * 16 * 4  # it counts at least a copy of the queries
    assert large < 2.2 * small


def test_a_learned_sketch_goes_through_the_same_blocks():
    with float64():
        q, k, v = arrays(rows=1)
        sketch = sketch_of(kind="learned")
        found = polysketch_attention(q, k, v, sketch=sketch, is_causal=True, block=BLOCK)
        assert worst(found, table(q, k, v, sketch)) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 8}, "degree: 8, but the sketch was made for degree 4"),
        ({"block": 0}, "block: 0"),
        ({"block": 2.5}, "block: 2.5"),
        ({"scale": -1.0}, "scale: -1.0"),
        ({"impl": "cuda"}, "impl: 'cuda'"),
        ({"segment_ids": np.zeros((2, N), int)}, "packed documents need is_causal"),
        ({"return_state": True}, "a state needs is_causal"),
        ({"key_mask": np.ones((2, 3), bool)}, "key_mask: shape"),
        ({"is_causal": True, "return_state": True, "packed": False}, "packed: False"),
    ],
)
def test_bad_options_are_refused(options, message):
    q, k, v = arrays(dtype=jnp.float32)
    with pytest.raises((ValueError, TypeError), match=message):
        eager(q, k, v, sketch=sketch_of(), **options)


def test_degree_four_without_a_sketch_is_refused():
    q, k, v = arrays(dtype=jnp.float32)
    with pytest.raises(ValueError, match="only degree 2 needs no sketch"):
        eager(q, k, v, degree=4)


def test_a_sketch_of_another_head_size_is_refused():
    q, k, v = arrays(dtype=jnp.float32)
    with pytest.raises(ValueError, match="made for heads of size 5"):
        eager(q, k, v, sketch=init_sketch(jax.random.key(0), 5))
