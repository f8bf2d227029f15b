"""Attentions as modules: on their own, and in the transformer of another topic through its hook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import (
    PolynomialAttention,
    PolysketchAttention,
    polynomial_attention,
    polysketch_attention,
)


def heads(n=11, kv_heads=2):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 2, n, 8))
    return q, k[:, :kv_heads], v[:, :kv_heads]


def module(**options):
    return PolysketchAttention.init(jax.random.key(1), 8, r=4, block=4, **options)


def test_modules_are_the_functions_with_heads_first():
    q, k, v = heads(kv_heads=1)
    tokens_first = [jnp.swapaxes(x, 1, 2) for x in (q, k, v)]
    ours = module()
    expected = polysketch_attention(*tokens_first, sketch=ours.sketch, is_causal=True, block=4)
    np.testing.assert_array_equal(ours(q, k, v), jnp.swapaxes(expected, 1, 2))
    expected = polynomial_attention(*tokens_first, degree=2, is_causal=True)
    found = PolynomialAttention(degree=2)(q, k, v)
    np.testing.assert_array_equal(found, jnp.swapaxes(expected, 1, 2))


def test_prefill_and_step_of_a_module_equal_its_call():
    q, k, v = heads()
    ours = module()
    whole = ours(q, k, v)
    first, state = ours.prefill(*(x[:, :, :10] for x in (q, k, v)))
    last, _ = ours.step(state, *(x[:, :, 10:] for x in (q, k, v)))
    np.testing.assert_allclose(jnp.concatenate([first, last], axis=2), whole, atol=1e-6)
    alone, _ = ours.step(ours.init_state(1, 2, 8), *(x[:, :, :1] for x in (q, k, v)))
    np.testing.assert_allclose(alone, whole[:, :, :1], atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "learned"])
def test_only_a_learned_sketch_is_trained(kind):
    q, k, v = heads()
    grads = jax.grad(lambda m: jnp.sum(m(q, k, v) ** 2))(module(kind=kind))
    moved = [bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads)]
    assert moved
    assert all(m == (kind == "learned") for m in moved)


def test_modules_fit_into_a_transformer_by_its_hook():
    models = pytest.importorskip("privlearn.decoding.models")
    config = models.TransformerConfig(
        vocab_size=16, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, context=16
    )
    model = models.TransformerLM.init(jax.random.key(0), config)
    patched = model.with_attention(module(kind="learned"), layers=[1])
    tokens = jnp.arange(12)[None] % 16
    run = jax.jit(lambda model, tokens: model(tokens))
    before, after = run(patched, tokens), run(patched, tokens.at[0, 7:].set(1))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert not np.allclose(before, run(model, tokens))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(patched))


def test_an_odd_degree_or_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="degree: 3"):
        PolynomialAttention(degree=3)
    with pytest.raises(ValueError, match="block: 0"):
        PolysketchAttention.init(jax.random.key(0), 8, block=0)
