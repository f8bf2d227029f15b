"""The kernel, interpreted, computes what the plain step computes."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from privlearn.attention.hyper import hyper_attention
from privlearn.simulate import float64


@pytest.mark.parametrize(
    ("causal", "masked", "samples"),
    [(True, True, 6), pytest.param(False, False, 0, marks=pytest.mark.slow)],
)
def test_kernel_differs_from_plain_step(causal, masked, samples):
    """Values only: there is one backward pass, which sees the same output and log-normaliser."""
    with float64():
        rng = np.random.default_rng(0)
        q, k, v = (rng.standard_normal((1, 21, heads, 4)) for heads in (4, 2, 2))
        mask = rng.random((1, 21)) < 0.7 if masked else None
        run = functools.partial(
            hyper_attention, q, k, v, rng=jax.random.key(2), block=4, samples=samples,
            min_seq_len=8, is_causal=causal, key_mask=mask, return_lse=True,
        )  # fmt: skip
        both = jax.jit(
            lambda: [run(impl=impl) for impl in ("pallas", "xla")],
            compiler_options={"xla_backend_optimization_level": 0},
        )
        results = both()
    for kernel, plain in zip(*results, strict=True):
        np.testing.assert_allclose(kernel, plain, rtol=0, atol=1e-12)
