"""Decoding with a state: prefill and steps against one parallel call."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import init_sketch, init_state, polysketch_attention, polysketch_step
from privlearn.attention.theory import state_floats
from privlearn.simulate import float64

N, BLOCK, HEAD, R = 37, 8, 8, 3

parallel = jax.jit(
    polysketch_attention,
    static_argnames=("is_causal", "block", "local_exact", "return_state", "normalize", "scale"),
)
step = jax.jit(polysketch_step, static_argnames=("normalize", "scale"))


def arrays(n=N, dtype=float):
    rng = np.random.default_rng(0)
    shapes = [(2, n, 2, HEAD), (2, n, 1, HEAD), (2, n, 1, 5)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def sketch_of(kind):
    return None if kind == "square" else init_sketch(jax.random.key(1), HEAD, R, kind=kind)


def steps(state, q, k, v, sketch, mask=None, **how):
    out = []
    for t in range(q.shape[1]):
        token = slice(t, t + 1)
        here = None if mask is None else mask[:, token]
        one, state = step(
            state, q[:, token], k[:, token], v[:, token], sketch=sketch, key_mask=here, **how
        )
        out.append(one)
    return jnp.concatenate(out, axis=1), state


def worst(a, b):
    return float(jnp.max(jnp.abs(a - b)))


@pytest.mark.parametrize(
    ("kind", "local_exact", "prefix"),
    [
        ("gaussian", True, 21),
        ("learned", True, 0),
        pytest.param("gaussian", False, 21, marks=pytest.mark.slow),
        pytest.param("gaussian", True, 0, marks=pytest.mark.slow),
        pytest.param("square", True, 0, marks=pytest.mark.slow),
    ],
)
def test_prefill_and_steps_equal_one_parallel_call(kind, local_exact, prefix):
    mask = np.random.default_rng(1).random((2, N)) < 0.8
    with float64():
        q, k, v = arrays()
        sketch = sketch_of(kind)
        run = partial(parallel, sketch=sketch, is_causal=True, block=BLOCK, local_exact=local_exact)
        whole, last = run(q, k, v, key_mask=mask, return_state=True)
        if prefix:
            head = [x[:, :prefix] for x in (q, k, v)]
            before, state = run(*head, key_mask=mask[:, :prefix], return_state=True)
        else:
            before = whole[:, :0]
            state = init_state(
                2, 1, HEAD, 5, sketch=sketch, block=BLOCK, local_exact=local_exact, dtype=float
            )
        tail = [x[:, prefix:] for x in (q, k, v)]
        after, end = steps(state, *tail, sketch, mask[:, prefix:])
        assert worst(jnp.concatenate([before, after], axis=1), whole) < 1e-13
        assert worst(end.memory, last.memory) < 1e-12
        assert int(end.length) == int(last.length) == N


@pytest.mark.parametrize(
    ("local_exact", "cuts"),
    [
        (True, (3, 5)),
        pytest.param(False, (21,), marks=pytest.mark.slow),
        pytest.param(True, (16,), marks=pytest.mark.slow),
    ],
)
def test_a_text_read_in_parts_equals_the_whole(local_exact, cuts):
    with float64():
        q, k, v = arrays()
        sketch = sketch_of("gaussian")
        run = partial(parallel, sketch=sketch, is_causal=True, block=BLOCK, local_exact=local_exact)
        whole, last = run(q, k, v, return_state=True)
        out, state = [], None
        for start, stop in zip((0, *cuts), (*cuts, N), strict=True):
            part = [x[:, start:stop] for x in (q, k, v)]
            one, state = run(*part, initial_state=state, return_state=True)
            out.append(one)
        assert worst(jnp.concatenate(out, axis=1), whole) < 1e-13
        assert worst(state.memory, last.memory) < 1e-12
        again, _ = step(state, q[:, :1], k[:, :1], v[:, :1], sketch=sketch)
        once, _ = step(last, q[:, :1], k[:, :1], v[:, :1], sketch=sketch)
        assert worst(again, once) < 1e-13


@pytest.mark.slow
def test_the_gradient_reaches_the_first_state():
    with float64():
        q, k, v = arrays(12)
        sketch = sketch_of("gaussian")
        run = partial(parallel, sketch=sketch, is_causal=True, block=4, local_exact=False)

        def in_parts(k):
            _, state = run(q[:, :5], k[:, :5], v[:, :5], return_state=True)
            return jnp.sum(run(q[:, 5:], k[:, 5:], v[:, 5:], initial_state=state) ** 2)

        def whole(k):
            return jnp.sum(run(q, k, v)[:, 5:] ** 2)

        assert worst(jax.jit(jax.grad(in_parts))(k), jax.jit(jax.grad(whole))(k)) < 1e-12


@pytest.mark.parametrize("n", [8, 80])
@pytest.mark.parametrize("local_exact", [False, True])
def test_the_state_is_as_large_as_announced_however_long_the_text(n, local_exact):
    sketch = init_sketch(jax.random.key(0), 16, 8)
    x = jax.ShapeDtypeStruct((1, n, 1, 16), jnp.float32)
    run = partial(
        polysketch_attention, sketch=sketch, is_causal=True, block=8, local_exact=local_exact,
        return_state=True,
    )  # fmt: skip
    _, state = jax.eval_shape(run, x, x, x)
    found = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    floats = state_floats(8, head_size=16, value_size=16, block=8, local_exact=local_exact)
    assert found == 4 * floats + 4  # and 4 bytes of the length
    empty = init_state(1, 1, 16, sketch=sketch, block=8, local_exact=local_exact)
    assert empty.n_bytes == found


def test_a_half_precision_text_keeps_a_float32_state():
    q, k, v = arrays(dtype=jnp.bfloat16)
    sketch = sketch_of("gaussian")
    out, state = parallel(q, k, v, sketch=sketch, is_causal=True, block=BLOCK, return_state=True)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in (state.memory, state.keys)} == {jnp.dtype("float32")}
    assert init_state(1, 1, HEAD, sketch=sketch, dtype=jnp.bfloat16).memory.dtype == jnp.float32


def test_states_that_do_not_fit_are_refused():
    q, k, v = arrays(dtype=jnp.float32)
    sketch = sketch_of("gaussian")
    state = init_state(2, 1, HEAD, 5, sketch=sketch, block=16)
    with pytest.raises(ValueError, match="a block of keys of shape"):
        polysketch_attention(
            q, k, v, sketch=sketch, is_causal=True, block=BLOCK, initial_state=state
        )
    with pytest.raises(ValueError, match="memory of shape"):
        polysketch_step(state, q[:1, :1], k[:1, :1], v[:1, :1], sketch=sketch)
    with pytest.raises(ValueError, match="a step takes one"):
        polysketch_step(state, q, k, v, sketch=sketch)
    with pytest.raises(ValueError, match="belongs to one document"):
        polysketch_attention(
            q, k, v, sketch=sketch, is_causal=True, block=16, initial_state=state,
            segment_ids=np.zeros((2, N), int),
        )  # fmt: skip
