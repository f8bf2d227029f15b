"""Streams of prompts whose domain changes, from texts that every machine with this package has.

English reference text (the help topics of CPython), Python source (its standard library),
reStructuredText (the descriptions of scikit-learn's data sets). Held-out files where the shipped
models were trained on the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from privlearn.decoding.text import load_corpus, split_by_file

__all__ = ["DriftStream", "StreamDomain", "domain_texts", "drift_stream"]

StreamDomain = Literal["docs", "code", "rst"]


class Encoder(Protocol):
    """Anything that turns text into token ids."""

    def encode(self, text: str) -> Sequence[int]:
        """Token ids."""
        ...


class DriftStream(NamedTuple):
    """Prompts in order of arrival.

    Attributes
    ----------
    prompts : ndarray of int32, shape (n, length)
    domains : tuple of str, length n
    """

    prompts: np.ndarray
    domains: tuple[str, ...]


def domain_texts(domain: StreamDomain) -> list[str]:
    """The texts of a domain, one per file.

    Examples
    --------
    >>> any("Iris" in text for text in domain_texts("rst"))
    True
    """
    if domain in ("docs", "code"):
        return list(split_by_file(load_corpus(domain)).held_out.values())
    if domain == "rst":
        folder = resources.files("sklearn.datasets.descr")
        files = sorted(f.name for f in folder.iterdir() if f.name.endswith(".rst"))
        return [folder.joinpath(name).read_text("utf-8") for name in files]
    raise ValueError(f"domain must be one of {get_args(StreamDomain)}, got {domain!r}.")


def drift_stream(
    tokenizer: Encoder,
    domains: Sequence[StreamDomain] = ("docs", "code", "rst"),
    *,
    per_domain: int = 150,
    length: int = 32,
    seed: int = 0,
) -> DriftStream:
    """Sharp shifts: all prompts of one domain, then all of the next.

    Parameters
    ----------
    tokenizer : object with ``encode``
        Of the models to come.
    domains : sequence of {"docs", "code", "rst"}
    per_domain : int, default 150
    length : int, default 32
        Tokens per prompt: windows at random places of random files.
    seed : int, default 0

    Examples
    --------
    >>> class Bytes:
    ...     encode = staticmethod(lambda text: list(text.encode()))
    >>> stream = drift_stream(Bytes(), ("rst", "docs"), per_domain=2, length=8)
    >>> stream.prompts.shape, stream.domains
    ((4, 8), ('rst', 'rst', 'docs', 'docs'))
    """
    if per_domain < 1 or length < 1:
        raise ValueError(f"per_domain and length must be at least 1, got {per_domain}, {length}.")
    rng = np.random.default_rng(seed)
    prompts, labels = [], []
    for domain in domains:
        files = [np.asarray(tokenizer.encode(text), np.int32) for text in domain_texts(domain)]
        files = [ids for ids in files if len(ids) > length]
        if not files:
            raise ValueError(f"length must be less than {length}: no file of {domain!r} is longer.")
        sizes = np.array([len(ids) - length for ids in files], float)
        for _ in range(per_domain):
            ids = files[rng.choice(len(files), p=sizes / sizes.sum())]
            at = rng.integers(len(ids) - length)
            prompts.append(ids[at : at + length])
            labels.append(str(domain))
    return DriftStream(np.stack(prompts), tuple(labels))
