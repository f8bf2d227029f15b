"""The kernel, interpreted, computes what the plain step computes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.hyper import hyper_attention
from privlearn.simulate import float64


@pytest.mark.parametrize(
    ("causal", "masked", "samples"), [(False, True, 6), (True, False, 6), (False, False, 0)]
)
def test_kernel_differs_from_plain_step(causal, masked, samples):
    with float64():
        q, k, v = (
            jax.random.normal(key, (1, 21, heads, 4))
            for key, heads in zip(jax.random.split(jax.random.key(0), 3), (4, 2, 2), strict=True)
        )
        mask = jax.random.bernoulli(jax.random.key(1), 0.7, (1, 21)) if masked else None
        run = functools.partial(
            hyper_attention, rng=jax.random.key(2), block=4, samples=samples, min_seq_len=8,
            is_causal=causal, key_mask=mask, return_lse=True,
        )  # fmt: skip

        def both(impl):
            def total(q, k, v):
                out, lse = run(q, k, v, impl=impl)
                return jnp.sin(out).sum(), (out, lse)

            return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)

        results = [both(impl) for impl in ("pallas", "xla")]
    for kernel, plain in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(kernel, plain, rtol=0, atol=1e-12)
