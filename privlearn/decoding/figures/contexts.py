"""Laws of the trained family in real contexts: what most figures of this topic are computed from.

Target and draft read the same text in one forward pass, so a figure needs no decoding loop, and the
only sampling error left is that of the contexts.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.decoding.distill import sample_texts
from privlearn.decoding.family import load_model, sample_prompts
from privlearn.decoding.models import Prompts, TransformerLM

#: Rows of one forward pass: one shape, so one program a model.
BATCH = 64
PROMPT = 32
#: Lengths of texts that are read are padded to multiples of this.
STEP = 40


class Mean(NamedTuple):
    """A mean over contexts and its standard error."""

    mean: float
    stderr: float


def mean_of(values: np.ndarray) -> Mean:
    """Mean over the first axis of one value a context; contexts are drawn independently."""
    values = np.asarray(values, float)
    return Mean(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def ratio_of(top: np.ndarray, bottom: np.ndarray) -> Mean:
    """Ratio of two means over contexts, with the standard error of the ratio."""
    ratio = top.mean() / bottom.mean()
    rest = (top - ratio * bottom) / bottom.mean()
    return Mean(float(ratio), float(rest.std(ddof=1) / np.sqrt(len(rest))))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Laws in float64; a one-hot law at temperature 0."""
    logits = np.asarray(logits, float)
    if temperature == 0:
        return np.eye(logits.shape[-1])[logits.argmax(axis=-1)]
    weights = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=-1, keepdims=True)


@functools.cache
def model(size: str) -> TransformerLM:
    """One model of the family, read once."""
    return load_model(size)


@functools.cache
def next_logits(size: str, n: int, seed: int, domain: str | None = None) -> np.ndarray:
    """Logits (n, V) after n held-out windows of 32 tokens."""
    prompts = sample_prompts(n, PROMPT, seed=seed, domain=domain)
    return read(model(size), prompts)[:, -1]


class Drafted(NamedTuple):
    """Drafts from one model after held-out windows, and what both models say along them.

    Attributes
    ----------
    tokens : ndarray of int, shape (n, K, gamma)
    q : ndarray, shape (n, K, gamma, V)
        Laws that drew the tokens.
    p : ndarray, shape (n, K, gamma + 1, V)
        Laws of the target after 0 .. gamma drafted tokens.
    """

    tokens: np.ndarray
    q: np.ndarray
    p: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """P / q of the drafted tokens, (n, K, gamma)."""
        at = self.tokens[..., None]
        p, q = (np.take_along_axis(law, at, axis=-1)[..., 0] for law in (self.p[:, :, :-1], self.q))
        return p / q

    @property
    def overlaps(self) -> np.ndarray:
        """Sum of min(p, q) at each drafted place, (n, K, gamma)."""
        return np.minimum(self.p[:, :, :-1], self.q).sum(axis=-1)


@functools.lru_cache(maxsize=4)
def drafted(
    draft: str, *, n: int, gamma: int, seed: int, n_drafts: int = 1, temperature: float = 1.0,
    target: str = "target",
) -> Drafted:  # fmt: skip
    """Draw K drafts of gamma tokens after each of n held-out windows."""
    prompts = np.repeat(sample_prompts(n, PROMPT, seed=seed), n_drafts, axis=0)
    keys = jax.random.split(jax.random.key(seed), len(prompts))
    lengths = jnp.full(BATCH, PROMPT, jnp.int32)
    texts = []
    for at in range(0, len(prompts), BATCH):
        rows = np.arange(at, at + BATCH) % len(prompts)
        found = sample_texts(
            model(draft),
            Prompts(jnp.asarray(prompts[rows]), lengths),
            keys[rows],
            gamma,
            jnp.asarray(temperature),  # type: ignore[arg-type]  # an array: one program for all
        )
        texts.append(np.asarray(found.tokens))
    tokens = np.concatenate(texts)[: len(prompts)]
    shape = (n, n_drafts)
    q, p = (
        softmax(read(model(size), tokens)[:, PROMPT - 1 :], temperature) for size in (draft, target)
    )
    return Drafted(
        tokens[:, PROMPT:].reshape(*shape, gamma),
        q[:, :-1].reshape(*shape, gamma, -1),
        p.reshape(*shape, gamma + 1, -1),
    )


def expected_taus(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accepted tokens of token and of block verification given a path, (..., gamma) each.

    Coins integrated: entry g - 1 is E[tau | path] of a draft of g tokens. Token: sum over l of
    prod min(r_i, 1); block: sum over l of P_l, P_l = min(P_(l-1) r_l, 1).
    """
    token = np.cumprod(np.minimum(ratios, 1), axis=-1)
    block = np.empty_like(ratios)
    joint = np.ones(ratios.shape[:-1])
    for i in range(ratios.shape[-1]):
        joint = np.minimum(joint * ratios[..., i], 1)
        block[..., i] = joint
    return np.cumsum(token, axis=-1), np.cumsum(block, axis=-1)


def acceptance_rate(paths: Drafted) -> Mean:
    """Mean overlap of places whose prefix was accepted (token verification, coins integrated)."""
    accepted = np.minimum(paths.ratios, 1)
    reach = np.cumprod(np.concatenate([np.ones_like(accepted[..., :1]), accepted], axis=-1), -1)
    reach = reach[..., :-1]
    top, bottom = (x.sum(axis=(1, 2)) for x in (reach * paths.overlaps, reach))
    return ratio_of(top, bottom)


@jax.jit
def _logits(reader: TransformerLM, tokens: jax.Array) -> jax.Array:
    return reader(tokens)


def read(reader: TransformerLM, tokens: np.ndarray) -> np.ndarray:
    """Logits (n, T, V), in batches of few shapes: texts are padded, which no logit before sees."""
    n, length = tokens.shape
    tokens = np.pad(tokens, ((0, 0), (0, -length % STEP)))
    parts = []
    for at in range(0, len(tokens), BATCH):
        rows = np.arange(at, at + BATCH) % len(tokens)
        parts.append(np.asarray(_logits(reader, jnp.asarray(tokens[rows])))[:, :length])
    return np.concatenate(parts)[:n]
