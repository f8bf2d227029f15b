"""The kernels, interpreted, against the loop over blocks, which has its own oracle."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import init_sketch, polysketch_attention
from privlearn.attention.pallas_polysketch import selectors
from privlearn.attention.sketches import features
from privlearn.simulate import float64

N, BLOCK, HEAD, R = 21, 8, 4, 3
SEGMENTS = np.repeat([0, 1, 2], [5, 4, 12])[None]


def arrays():
    rng = np.random.default_rng(0)
    shapes = [(1, N, 2, HEAD), (1, N, 1, HEAD), (1, N, 1, 5)]
    return [jnp.asarray(rng.standard_normal(shape), float) for shape in shapes]


@pytest.mark.parametrize("local_exact", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_kernels_and_their_gradients_equal_the_loop(local_exact):
    mask = np.random.default_rng(1).random((1, N)) < 0.8
    with float64():
        q, k, v = arrays()
        sketch = init_sketch(jax.random.key(0), HEAD, R)

        def loss(q, k, v, sketch, impl):
            out, state = polysketch_attention(
                q, k, v, sketch=sketch, is_causal=True, block=BLOCK, local_exact=local_exact,
                key_mask=mask, segment_ids=SEGMENTS, return_state=True, impl=impl,
            )  # fmt: skip
            return jnp.sum(out**3) + jnp.sum(state.memory**2), (out, state.memory)

        run = {
            impl: jax.jit(
                jax.value_and_grad(partial(loss, impl=impl), argnums=(0, 1, 2, 3), has_aux=True)
            )(q, k, v, sketch)
            for impl in ("xla", "pallas")
        }
        for a, b in zip(jax.tree.leaves(run["pallas"]), jax.tree.leaves(run["xla"]), strict=True):
            scale = max(1.0, float(jnp.abs(b).max()))
            assert float(jnp.abs(a - b).max()) < 1e-12 * scale


@pytest.mark.slow
def test_float32_kernels_are_as_good_as_the_loop():
    q, k, v = (x.astype(jnp.float32) for x in arrays())
    sketch = init_sketch(jax.random.key(0), HEAD, R)
    one, other = (
        jax.jit(partial(polysketch_attention, is_causal=True, block=BLOCK, impl=impl))(
            q, k, v, sketch=sketch
        )
        for impl in ("xla", "pallas")
    )
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_selectors_make_the_features(packed):
    one, two, count = selectors(R, packed, jnp.float32)
    y = jnp.asarray(np.random.default_rng(0).standard_normal(R), jnp.float32)
    made = jnp.sqrt(count[:, 0]) * (one @ y) * (two @ y)
    expected = features(y, packed=packed)
    np.testing.assert_allclose(made[: len(expected)], expected, rtol=1e-5, atol=1e-7)
    assert not made[len(expected) :].any()
    assert len(one) % 16 == 0


def test_the_form_without_order_has_no_kernel_and_says_so():
    q, k, v = (x.astype(jnp.float32) for x in arrays())
    sketch = init_sketch(jax.random.key(0), HEAD, R)
    with pytest.raises(ValueError, match="the kernels are causal"):
        polysketch_attention(q, k, v, sketch=sketch, impl="pallas")
