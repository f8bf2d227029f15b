"""Byte-pair encoding over bytes: any text has an encoding, and decoding gives it back.

Gage, "A New Algorithm for Data Compression", The C Users Journal, 1994; as a vocabulary of language
models: Sennrich, Haddow and Birch, 2016, arXiv 1508.07909. Tokens 0..255 are the bytes; token
``256 + i`` is the i-th merge.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

#: Merges stay inside these pieces: a line break with its indent, a word, digits, signs, blanks.
PIECES = re.compile(r"\n *| ?[^\W\d]+| ?\d+| ?[^\w\s]+| +|\s")


def _merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


class BytePairTokenizer:
    """A tokenizer given by its merges; with none, one token a byte.

    Parameters
    ----------
    merges : sequence of pairs of int, default ()
        In order of priority; a pair joins two tokens that exist before it.

    Raises
    ------
    ValueError
        If a merge joins tokens that do not exist yet.

    Examples
    --------
    >>> from privlearn.decoding.text import BytePairTokenizer
    >>> tokenizer = BytePairTokenizer([(ord("a"), ord("b")), (256, ord("c"))])
    >>> tokenizer.encode("abcab").tolist()
    [257, 256]
    >>> tokenizer.decode([257, 256]), tokenizer.vocab_size
    ('abcab', 258)
    """

    def __init__(self, merges: Sequence[tuple[int, int]] = ()) -> None:
        self.merges = tuple((int(a), int(b)) for a, b in merges)
        pieces = [bytes([byte]) for byte in range(256)]
        for i, (a, b) in enumerate(self.merges):
            if not (0 <= a < len(pieces) and 0 <= b < len(pieces)):
                raise ValueError(f"merges[{i}]: {(a, b)}; only tokens 0..{len(pieces) - 1} exist")
            pieces.append(pieces[a] + pieces[b])
        self._pieces = pieces
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        self._encode_piece = functools.lru_cache(maxsize=1 << 16)(self._encode_piece_slowly)

    @property
    def vocab_size(self) -> int:
        """256 plus the number of merges."""
        return len(self._pieces)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.merges)} merges>)"

    def _encode_piece_slowly(self, piece: str) -> tuple[int, ...]:
        ids = list(piece.encode())
        while len(ids) > 1:
            pairs = set(itertools.pairwise(ids))
            best = min(pairs, key=lambda pair: self._rank.get(pair, len(self.merges)))
            if best not in self._rank:
                break
            ids = _merge(ids, best, 256 + self._rank[best])
        return tuple(ids)

    def encode(self, text: str) -> np.ndarray:
        """Token ids (int32) of a text."""
        ids = [i for piece in PIECES.findall(text) for i in self._encode_piece(piece)]
        return np.array(ids, np.int32)

    def decode_bytes(self, ids: ArrayLike) -> bytes:
        """The bytes that ids stand for; they may end inside a character."""
        flat = np.asarray(ids, int).ravel()
        bad = (flat < 0) | (flat >= self.vocab_size)
        if bad.any():
            raise ValueError(f"ids: {int(flat[bad][0])} is outside 0..{self.vocab_size - 1}")
        return b"".join(self._pieces[i] for i in flat)

    def decode(self, ids: ArrayLike) -> str:
        """The text that ids stand for; bytes that are no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> None:
        """Write the merges as JSON."""
        Path(path).write_text(json.dumps({"merges": self.merges}) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> BytePairTokenizer:
        """Read what `save` wrote."""
        return cls(json.loads(Path(path).read_text())["merges"])


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> BytePairTokenizer:
    """Learn the merges of a text: again and again the most frequent pair, ties by token id.

    Parameters
    ----------
    texts : iterable of str
    vocab_size : int
        256 or more; fewer merges come out if the text has no pair left that occurs twice.

    Examples
    --------
    >>> from privlearn.decoding.text import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat, the dog, the end"], vocab_size=259)
    >>> tokenizer.encode("the").size, tokenizer.vocab_size
    (1, 259)
    """
    if vocab_size < 256:
        raise ValueError(f"vocab_size: {vocab_size}; the 256 bytes are always in it")
    counts = collections.Counter(piece for text in texts for piece in PIECES.findall(text))
    words = [(list(piece.encode()), n) for piece, n in sorted(counts.items())]
    merges: list[tuple[int, int]] = []
    pairs: collections.Counter[tuple[int, int]] = collections.Counter()
    for ids, n in words:
        for pair in itertools.pairwise(ids):
            pairs[pair] += n
    while len(merges) < vocab_size - 256 and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        new = 256 + len(merges)
        merges.append(best)
        for i, (ids, n) in enumerate(words):
            if best[0] not in ids or best not in itertools.pairwise(ids):
                continue
            merged = _merge(ids, best, new)
            for pair in itertools.pairwise(ids):
                pairs[pair] -= n
            for pair in itertools.pairwise(merged):
                pairs[pair] += n
            words[i] = (merged, n)
        del pairs[best]
    return BytePairTokenizer(merges)
