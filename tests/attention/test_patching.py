"""Chosen layers of a model get another attention, and nothing else changes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.patching import (
    attention_hook,
    collect_heads,
    losses_by_layers,
    patch_with_hyper,
    text_losses,
)
from privlearn.attention.softmax import softmax_attention


@dataclasses.dataclass(frozen=True)
class Toy:
    """A language model of nothing but attention: each layer adds its mix of the values."""

    hooks: tuple

    def with_attention(self, attention, layers=None):
        chosen = range(len(self.hooks)) if layers is None else layers
        hooks = tuple(attention if i in chosen else h for i, h in enumerate(self.hooks))
        return dataclasses.replace(self, hooks=hooks)

    def __call__(self, tokens):
        x = jax.nn.one_hot(tokens, 8)[:, None]  # one head, (B, 1, T, 8)
        for hook in self.hooks:
            x = x + hook(x, jnp.roll(x, 1, axis=-1), x)
        return x[:, 0]


def toy(n_layers=2):
    return Toy((attention_hook(softmax_attention),) * n_layers)


TOKENS = jax.random.randint(jax.random.key(0), (2, 32), 0, 8)
OPTIONS = {"block": 4, "samples": 4, "lsh_projs": 2, "min_seq_len": 8}


def test_unpatched_layers_change_or_patched_ones_do_not():
    model = toy()
    patched = patch_with_hyper(model, [1], rng=jax.random.key(1), **OPTIONS)
    assert patched.hooks[0] is model.hooks[0]
    assert patched.hooks[1] is not model.hooks[1]
    assert not np.allclose(patched(TOKENS), model(TOKENS))


def test_exact_patch_changes_the_model():
    patched = patch_with_hyper(toy(), [0, 1], rng=jax.random.key(1), min_seq_len=64)
    np.testing.assert_allclose(patched(TOKENS), toy()(TOKENS), atol=1e-6)


def test_hooks_of_one_shape_are_compiled_each():
    traced = []

    def attention(q, k, v, *, is_causal, rng):
        traced.append(is_causal)
        return softmax_attention(q, k, v, is_causal=is_causal)

    model = toy(3)
    for layer in range(3):
        hook = attention_hook(attention, rng=jax.random.key(layer))
        model = model.with_attention(hook, layers=[layer])
    np.testing.assert_allclose(model(TOKENS), toy(3)(TOKENS), atol=1e-6)
    assert traced == [True]


def test_losses_by_layers_are_not_those_of_the_patched_models():
    rng = jax.random.key(1)
    found = losses_by_layers(toy(), TOKENS, [1, 0], rng=rng, counts=[0, 2], **OPTIONS)
    assert [one.n_layers for one in found] == [0, 2]
    logits = jax.nn.log_softmax(patch_with_hyper(toy(), [1, 0], rng=rng, **OPTIONS)(TOKENS))
    each = -np.take_along_axis(np.asarray(logits)[:, :-1], np.asarray(TOKENS)[:, 1:, None], -1)
    # Texts are scored one at a time, so each draws the sample of a batch of one.
    alone = text_losses(patch_with_hyper(toy(), [1, 0], rng=rng, **OPTIONS), TOKENS)
    np.testing.assert_allclose(found[1].loss, np.mean(alone), rtol=1e-6)
    np.testing.assert_allclose(found[0].loss, text_losses(toy(), TOKENS).mean(), rtol=1e-6)
    assert found[1].perplexity == pytest.approx(np.exp(found[1].loss))
    assert abs(found[1].loss - each.mean()) < 0.5


def test_collected_heads_are_not_those_of_the_layers():
    (first, second), n = collect_heads(toy(), TOKENS, 2), TOKENS.shape
    x = jax.nn.one_hot(TOKENS, 8)[:, :, None]
    assert first[0].shape == (*n, 1, 8)
    np.testing.assert_allclose(first[0], x)
    np.testing.assert_allclose(first[1], jnp.roll(x, 1, axis=-1))
    mixed = softmax_attention(*first, is_causal=True)
    np.testing.assert_allclose(second[2], x + mixed, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: patch_with_hyper(len, [0], rng=None), TypeError, "no method with_attention"),
        (lambda: patch_with_hyper(toy(), [0, 0], rng=None), ValueError, "layers: "),
        (lambda: losses_by_layers(toy(), TOKENS[0], [0], rng=None), ValueError, "tokens: shape"),
        (
            lambda: losses_by_layers(toy(), TOKENS, [0], rng=None, counts=[2]),
            ValueError,
            r"counts: \[2\]",
        ),
    ],
)
def test_bad_argument_is_not_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
