"""The trained family as it lies in the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from privlearn.decoding.models import TransformerLM
from privlearn.decoding.text import BytePairTokenizer
from privlearn.decoding.weights import load_pretrained

Size: TypeAlias = Literal["target", "middle", "draft"]
SIZE_NAMES: tuple[Size, ...] = ("target", "middle", "draft")
FOLDER = Path(__file__).parent / "trained"


class Family(NamedTuple):
    """Three models of one vocabulary, and its tokenizer.

    Attributes
    ----------
    target : TransformerLM
        4 layers, 1.32 million weights.
    middle : TransformerLM
        2 layers, 0.27 million.
    draft : TransformerLM
        1 layer, 0.08 million.
    tokenizer : BytePairTokenizer
        512 tokens, about 2.2 bytes each.
    """

    target: TransformerLM
    middle: TransformerLM
    draft: TransformerLM
    tokenizer: BytePairTokenizer


def load_model(size: Size, *, dtype: DTypeLike = jnp.float32) -> TransformerLM:
    """One model of the family; its weights are stored in float16.

    Parameters
    ----------
    size : {"target", "middle", "draft"}
    dtype : dtype, default float32

    Examples
    --------
    >>> from privlearn.decoding.family import load_model
    >>> load_model("draft").n_parameters
    80064
    """
    if size not in SIZE_NAMES:
        raise ValueError(f"size: {size!r}; must be one of {SIZE_NAMES}")
    return load_pretrained(FOLDER / size, dtype=dtype)


def load_tokenizer() -> BytePairTokenizer:
    """The tokenizer that all sizes share.

    Examples
    --------
    >>> from privlearn.decoding.family import load_tokenizer
    >>> load_tokenizer().decode(load_tokenizer().encode("def decode(self):"))
    'def decode(self):'
    """
    return BytePairTokenizer.load(FOLDER / "tokenizer.json")


def load_family(*, dtype: DTypeLike = jnp.float32) -> Family:
    """All three sizes and the tokenizer.

    Examples
    --------
    >>> from privlearn.decoding.family import load_family
    >>> family = load_family()
    >>> family.target.vocab_size == family.draft.vocab_size == family.tokenizer.vocab_size
    True
    """
    target, middle, draft = (load_model(size, dtype=dtype) for size in SIZE_NAMES)
    return Family(target, middle, draft, load_tokenizer())


def load_card() -> dict[str, Any]:
    """What the training script wrote down: corpus, split, recipe, held-out loss, acceptance.

    Examples
    --------
    >>> from privlearn.decoding.family import load_card
    >>> sorted(load_card())
    ['acceptance', 'corpus', 'models', 'seed', 'tokenizer']
    """
    return json.loads((FOLDER / "card.json").read_text("utf-8"))


def load_held_out() -> dict[str, dict[str, str]]:
    """Excerpts of held-out files, by domain and file name; the same on every machine.

    Their licence lies beside them (NOTICE.txt).

    Examples
    --------
    >>> from privlearn.decoding.family import load_held_out
    >>> sorted(load_held_out())
    ['code', 'docs']
    """
    return json.loads((FOLDER / "held_out.json").read_text("utf-8"))


def sample_prompts(
    n: int, length: int = 32, *, domain: str | None = None, seed: int = 0
) -> np.ndarray:
    """Windows of the held-out excerpts to prompt the family with.

    Parameters
    ----------
    n, length : int
        How many, and how many tokens each.
    domain : {"docs", "code"}, optional
        Where from; both in turn if None.
    seed : int, default 0

    Returns
    -------
    ndarray of int32, shape (n, length)

    Examples
    --------
    >>> from privlearn.decoding.family import sample_prompts
    >>> sample_prompts(4, 16, domain="code").shape
    (4, 16)
    """
    held_out = load_held_out()
    domains = sorted(held_out) if domain is None else [domain]
    if not set(domains) <= set(held_out):
        raise ValueError(f"domain: {domain!r}; must be one of {sorted(held_out)}")
    tokenizer, rng = load_tokenizer(), np.random.default_rng(seed)
    texts = {
        name: [ids for ids in map(tokenizer.encode, held_out[name].values()) if len(ids) >= length]
        for name in domains
    }
    if not all(texts.values()):
        raise ValueError(f"length: {length} tokens; no held-out excerpt is that long")
    prompts = []
    for i in range(n):
        files = texts[domains[i % len(domains)]]
        ids = files[rng.integers(len(files))]
        start = rng.integers(len(ids) - length + 1)
        prompts.append(ids[start : start + length])
    return np.array(prompts, np.int32).reshape(n, length)
