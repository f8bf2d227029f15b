"""Another attention in chosen layers of a trained language model, and what it does to perplexity.

The experiment of Han et al. (ICLR 2024, arXiv 2310.05869, figure 3): replace the attention of some
layers of a trained model and watch the perplexity. A model takes part by a method
``with_attention(function, layers)``, where ``function(q, k, v) -> out`` works on (B, H, T, D),
causal, scale included; nothing else of the model is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from privlearn.attention.hyper import hyper_attention
from privlearn.attention.softmax import softmax_attention

#: What mixes the tokens of a layer: queries, keys and values (B, H, T, D) to outputs (B, H, T, D).
Hook: TypeAlias = Callable[[Array, Array, Array], Array]

M = TypeVar("M", bound="Patchable")


class Patchable(Protocol):
    """A language model whose layers can be given another attention."""

    def with_attention(self: M, attention: Any, layers: Iterable[int] | None = None) -> M:
        """The same model with another attention in some layers."""
        ...

    def __call__(self, tokens: ArrayLike) -> Array:
        """Logits (B, T, V) of texts (B, T)."""
        ...


def attention_hook(attention: Callable[..., Array], **options: Any) -> Hook:
    """Turn an attention of this package, on (B, T, H, D), into a hook of a causal model.

    Parameters
    ----------
    attention : callable
        ``attention(q, k, v, is_causal=True, **options)``.
    **options
        Passed on to it.

    Returns
    -------
    callable
        ``hook(q, k, v) -> out`` on (B, H, T, D), compiled once for each shape and setting.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.attention import softmax_attention
    >>> hook = attention_hook(softmax_attention)
    >>> v = jnp.array([1.0, 3.0])[None, None, :, None]
    >>> hook(0 * v, 0 * v, v)[0, 0, :, 0]
    Array([1., 2.], dtype=float32)
    """

    def hook(q: Array, k: Array, v: Array) -> Array:
        return _heads_first(attention, options, q, k, v)

    return hook


@eqx.filter_jit  # one program for all layers, seeds and models of one shape: keys are arguments
def _heads_first(
    attention: Callable[..., Array], options: dict[str, Any], q: Array, k: Array, v: Array
) -> Array:
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    return attention(q, k, v, is_causal=True, **options).transpose(0, 2, 1, 3)


def patch_with_hyper(model: M, layers: Sequence[int], *, rng: Array, **options: Any) -> M:
    """Give some layers of a model causal `hyper_attention`, each with randomness of its own.

    Parameters
    ----------
    model : Patchable
        Such as a `privlearn.decoding` transformer.
    layers : sequence of int
        Which layers.
    rng : Array
        A typed JAX key; layer i uses ``jax.random.fold_in(rng, i)``.
    **options
        Of `hyper_attention`. Note its ``min_seq_len``: a text shorter than twice of it is exact.

    Raises
    ------
    TypeError
        If the model has no method ``with_attention``.
    ValueError
        If a layer is named twice.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
    >>> config = TransformerConfig(vocab_size=16, d_model=16, n_layers=2, n_heads=2)
    >>> model = TransformerLM.init(jax.random.key(0), config)
    >>> patched = patch_with_hyper(
    ...     model, [1], rng=jax.random.key(1), block=8, samples=8, min_seq_len=16
    ... )
    >>> patched(jax.numpy.zeros((1, 40), int)).shape
    (1, 40, 16)
    """
    if not callable(getattr(model, "with_attention", None)):
        raise TypeError(
            f"model: {type(model).__name__} has no method with_attention(function, layers)"
        )
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers: {list(layers)}; each layer can be replaced once")
    for layer in layers:
        of_layer = jax.random.fold_in(rng, layer)
        model = model.with_attention(
            attention_hook(hyper_attention, rng=of_layer, **options), layers=[layer]
        )
    return model


@dataclasses.dataclass(frozen=True)
class PatchedLoss:
    """How well a patched model predicts.

    Attributes
    ----------
    n_layers : int
        Layers with the other attention.
    by_text : ndarray, shape (B,)
        Mean negative log-likelihood of a token in each text, in nats.
    """

    n_layers: int
    by_text: NDArray

    @property
    def loss(self) -> float:
        """Mean over texts, in nats per token."""
        return float(self.by_text.mean())

    @property
    def perplexity(self) -> float:
        """``exp(loss)``."""
        return float(np.exp(self.loss))


def collect_heads(
    model: Patchable, tokens: ArrayLike, n_layers: int
) -> list[tuple[Array, Array, Array]]:
    """Queries, keys and values of every layer, (B, T, H, D), as a model makes them of texts.

    For `privlearn.attention.diagnosis.diagnose`. The model is run as it is, not compiled.

    Parameters
    ----------
    model : Patchable
    tokens : array of int, shape (B, T)
    n_layers : int
        How many layers the model has.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
    >>> config = TransformerConfig(vocab_size=16, d_model=16, n_layers=2, n_heads=2)
    >>> model = TransformerLM.init(jax.random.key(0), config)
    >>> heads = collect_heads(model, jax.numpy.zeros((1, 10), int), n_layers=2)
    >>> len(heads), heads[0][0].shape
    (2, (1, 10, 2, 8))
    """
    found: list[tuple[Array, Array, Array]] = []
    exact = attention_hook(softmax_attention)

    def hook(q: Array, k: Array, v: Array) -> Array:
        found.append((q.transpose(0, 2, 1, 3), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)))
        return exact(q, k, v)

    model.with_attention(hook, layers=range(n_layers))(jnp.asarray(tokens))
    return found


def losses_by_layers(
    model: Patchable,
    tokens: ArrayLike,
    layers: Sequence[int],
    *,
    rng: Array,
    counts: Sequence[int] | None = None,
    **options: Any,
) -> list[PatchedLoss]:
    """Loss of a model with the first 0, 1, 2, ... of the given layers replaced.

    Parameters
    ----------
    model : Patchable
    tokens : array of int, shape (B, T)
        Texts; each token but the first is predicted from those before it.
    layers : sequence of int
        In the order in which they are replaced. The paper replaces the last ones first:
        ``range(n - 1, -1, -1)``.
    rng : Array
    counts : sequence of int, optional
        How many layers to replace; 0 .. len(layers) if None.
    **options
        Of `hyper_attention`.
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"tokens: shape {tokens.shape}; must be (B, T) with T at least 2")
    counts = range(len(layers) + 1) if counts is None else counts
    wrong = [c for c in counts if not 0 <= c <= len(layers)]
    if wrong:
        raise ValueError(f"counts: {wrong}; there are {len(layers)} layers to replace")
    found = []
    for count in counts:
        patched = patch_with_hyper(model, list(layers)[:count], rng=rng, **options)
        found.append(PatchedLoss(count, np.asarray(text_losses(patched, tokens), float)))
    return found


def text_losses(model: Callable[[Array], Array], tokens: ArrayLike) -> Array:
    """Mean negative log-likelihood of the tokens of each text, (B,), in nats.

    Texts are read one by one. The model is called as it is: compiling the whole of it anew for
    each set of patched layers would cost more than the few texts of a comparison; pass
    ``jax.jit(model)`` to score many texts with one model.

    Parameters
    ----------
    model : callable
        Logits (1, T, V) of a text (1, T).
    tokens : array of int, shape (B, T)

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> uniform = lambda tokens: jnp.zeros((*tokens.shape, 8))
    >>> round(float(text_losses(uniform, jnp.ones((1, 5), int))[0]), 4)  # log 8
    2.0794
    """
    return jnp.stack([_mean_loss(model(text[None]), text) for text in jnp.asarray(tokens)])


@jax.jit
def _mean_loss(logits: Array, text: Array) -> Array:
    logits = logits[0, :-1].astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, text[1:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(logits, axis=1) - chosen).mean()
