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


def heads(n=11, kv_heads=1):
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, n, 8)).astype(np.float32)
    return q, k[:, :kv_heads], v[:, :kv_heads]


def module(**options):
    return PolysketchAttention.init(jax.random.key(1), 8, r=4, block=4, **options)


call = jax.jit(lambda module, *heads: module(*heads))  # shared: compiled once for each structure


def test_modules_are_the_functions_with_heads_first():
    q, k, v = heads()
    tokens_first = [jnp.swapaxes(x, 1, 2) for x in (q, k, v)]
    ours, exact = module(), PolynomialAttention(degree=2)

    @jax.jit
    def functions(sketch, q, k, v):
        sketched = polysketch_attention(q, k, v, sketch=sketch, is_causal=True, block=4)
        return sketched, polynomial_attention(q, k, v, degree=2, is_causal=True)

    expected = functions(ours.sketch, *tokens_first)
    for one, other in zip((ours, exact), expected, strict=True):
        np.testing.assert_allclose(call(one, q, k, v), jnp.swapaxes(other, 1, 2), atol=1e-6)


def test_prefill_and_step_of_a_module_equal_its_call():
    q, k, v = heads()
    ours = module()
    whole = call(ours, q, k, v)
    step = jax.jit(lambda state, *token: ours.step(state, *token))
    first, state = jax.jit(lambda *text: ours.prefill(*text))(*(x[:, :, :10] for x in (q, k, v)))
    last, _ = step(state, *(x[:, :, 10:] for x in (q, k, v)))
    np.testing.assert_allclose(jnp.concatenate([first, last], axis=2), whole, atol=1e-6)
    alone, _ = step(ours.init_state(1, 1, 8), *(x[:, :, :1] for x in (q, k, v)))
    np.testing.assert_allclose(alone, whole[:, :, :1], atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "learned"])
def test_only_a_learned_sketch_is_trained(kind):
    q, k, v = heads(n=5)
    grads = jax.jit(jax.grad(lambda m: jnp.sum(m(q, k, v) ** 2)))(module(kind=kind))
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
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(patched))
    assert patched.n_parameters > model.n_parameters
    patched = model.with_attention(PolynomialAttention(degree=2), layers=[1])
    tokens = jnp.arange(12)[None] % 16
    run = jax.jit(lambda model, tokens: model(tokens))
    before, after = run(patched, tokens), run(patched, tokens.at[0, 7:].set(1))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert not np.allclose(before, run(model, tokens))


def test_an_odd_degree_or_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="degree: 3"):
        PolynomialAttention(degree=3)
    with pytest.raises(ValueError, match="block: 0"):
        PolysketchAttention.init(jax.random.key(0), 8, block=0)
