"""How well a model reads a text, and how often one model's draft would pass another's check."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from privlearn.decoding.models import TransformerLM, check_same_vocabulary
from privlearn.decoding.text import BytePairTokenizer

#: Windows read at once.
BATCH = 8


class Score(NamedTuple):
    """A mean over the windows of a text.

    Attributes
    ----------
    mean : float
    stderr : float
        Standard error, from the spread between windows.
    n_windows : int
    """

    mean: float
    stderr: float
    n_windows: int


def windows_of(tokens: ArrayLike, window: int) -> np.ndarray:
    """A text cut into pieces (n, window + 1) that share no scored token; the rest is dropped."""
    flat = np.asarray(tokens, np.int32)
    n = (len(flat) - 1) // window
    if n < 1:
        raise ValueError(f"tokens: {len(flat)}; one window needs {window + 1}")
    return flat[np.arange(n)[:, None] * window + np.arange(window + 1)]


def _ratio(tops: np.ndarray, bottoms: np.ndarray) -> Score:
    mean = tops.sum() / bottoms.sum()
    spread = np.sqrt(np.sum((tops - mean * bottoms) ** 2)) / bottoms.sum()
    return Score(float(mean), float(spread), len(tops))


def _batched(score: Callable[[Array], Array], windows: np.ndarray) -> np.ndarray:
    """The score of each window, a few at a time, in one shape however long the text is."""
    n = len(windows)
    padded = np.concatenate([windows, np.repeat(windows[:1], -n % BATCH, axis=0)])
    batches = padded.reshape(-1, BATCH, windows.shape[1])
    return np.concatenate([np.asarray(score(jnp.asarray(b)), float) for b in batches])[:n]


@jax.jit
def _window_nats(model: TransformerLM, windows: Array) -> Array:
    laws = jax.nn.log_softmax(model(windows[:, :-1]))
    return -jnp.take_along_axis(laws, windows[:, 1:, None], axis=2).sum((1, 2))


def nats_per_byte(
    model: TransformerLM, tokenizer: BytePairTokenizer, text: str, *, window: int = 128
) -> Score:
    """Cross-entropy of a text in nats a byte, in windows that start afresh.

    Every window of ``window`` tokens is read without what came before it, so early tokens know
    little and the figure is higher than with a long context.

    Examples
    --------
    >>> from privlearn.decoding.family import load_family, nats_per_byte
    >>> family = load_family()
    >>> score = nats_per_byte(family.draft, family.tokenizer, "the value of the object. " * 50)
    >>> 0 < score.mean < 3
    True
    """
    windows = windows_of(tokenizer.encode(text), window)
    sizes = np.array([len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)])
    nats = _batched(functools.partial(_window_nats, model), windows)
    return _ratio(nats, sizes[windows[:, 1:]].sum(axis=1))


@jax.jit
def _window_overlap(target: TransformerLM, draft: TransformerLM, windows: Array) -> Array:
    p, q = (jax.nn.softmax(model(windows[:, :-1])) for model in (target, draft))
    return jnp.minimum(p, q).sum((1, 2))


def agreement(
    target: TransformerLM, draft: TransformerLM, tokens: ArrayLike, *, window: int = 128
) -> Score:
    """Teacher-forced acceptance: the mean of ``sum_x min(p(x), q(x))`` along a given text.

    The chance that one drafted token is accepted (Leviathan, Kalman and Matias, 2023, arXiv
    2211.17192, theorem 3.5), averaged over the places of a text that neither model wrote, at
    temperature 1. Along the target's own text it differs.

    Examples
    --------
    >>> from privlearn.decoding.family import agreement, load_family
    >>> family = load_family()
    >>> tokens = family.tokenizer.encode("the value of the object. " * 50)
    >>> round(agreement(family.target, family.target, tokens).mean, 5)
    1.0
    """
    check_same_vocabulary(target, draft)
    windows = windows_of(tokens, window)
    overlaps = _batched(functools.partial(_window_overlap, target, draft), windows)
    return _ratio(overlaps, np.full(len(windows), float(window)))
