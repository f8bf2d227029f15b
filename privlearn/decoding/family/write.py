"""Write a trained family: weights, tokenizer, excerpts of held-out files, and the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from privlearn.decoding.family.evaluate import Score, agreement, nats_per_byte
from privlearn.decoding.family.train import Plan, Trained
from privlearn.decoding.models import TransformerLM
from privlearn.decoding.text import BytePairTokenizer, Split
from privlearn.decoding.weights import load_pretrained, save_pretrained

#: Characters of each domain in the excerpts.
EXCERPT = 16_000
GAP = "\n\n"

NOTICE = """\
held_out.json holds excerpts of CPython: parts of help topics (pydoc_data/topics.py) and of modules
of the standard library, unchanged but for being cut. The weights in the folders beside it
were trained on other such files. CPython is

Copyright (c) 2001-{year} Python Software Foundation; All Rights Reserved

and is used under the PSF License Agreement, which follows.

"""


def excerpts(held_out: Mapping[str, str], size: int = EXCERPT) -> dict[str, str]:
    r"""The middles of files, whole lines, in equal shares of ``size`` characters in all.

    Not their beginnings, where comments and imports are. What short files leave over is not given
    to the others.

    Examples
    --------
    >>> from privlearn.decoding.family.write import excerpts
    >>> excerpts({"a": "one\ntwo\nthree\nfour\nfive\n", "b": "six\n"}, size=30)
    {'a': 'two\nthree\nfour\n', 'b': 'six\n'}
    """
    share = size // len(held_out)
    return {name: _middle(text, share) for name, text in held_out.items()}


def _middle(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    first = (len(text) - size) // 2
    start = text.find("\n", max(first - 1, 0)) + 1
    return text[start : text.rfind("\n", 0, first + size) + 1]


def _scores(model: TransformerLM, tokenizer: BytePairTokenizer, texts: Any) -> dict[str, Any]:
    return {
        domain: _plain(nats_per_byte(model, tokenizer, GAP.join(files.values())))
        for domain, files in texts.items()
    }


def _plain(score: Score) -> dict[str, float]:
    return {"mean": round(score.mean, 5), "stderr": round(score.stderr, 5)}


def _described(split: Split) -> dict[str, Any]:
    def digest(files: Mapping[str, str]) -> str:
        return hashlib.sha256("\0".join(files.values()).encode()).hexdigest()

    return {
        part: {
            "files": sorted(files),
            "bytes": sum(len(text.encode()) for text in files.values()),
            "sha256": digest(files),
        }
        for part, files in split._asdict().items()
    }


def write_family(
    folder: str | Path,
    trained: Mapping[str, Trained],
    tokenizer: BytePairTokenizer,
    splits: Mapping[str, Split],
    plans: Mapping[str, Sequence[Plan]],
    seed: int,
) -> dict[str, Any]:
    """Write everything that `privlearn.decoding.family` reads; returns the card.

    The scores in the card are those of the weights as stored, rounded to float16.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    held_out = {domain: excerpts(split.held_out) for domain, split in splits.items()}
    (folder / "held_out.json").write_text(json.dumps(held_out, indent=0) + "\n", "utf-8")
    models = {}
    for name, fit in trained.items():
        save_pretrained(fit.model, folder / name, dtype=jnp.float16)
        models[name] = load_pretrained(folder / name)
    whole = {domain: split.held_out for domain, split in splits.items()}
    streams = {d: tokenizer.encode(GAP.join(files.values())) for d, files in whole.items()}
    shares = {d: len(GAP.join(f.values()).encode()) / len(streams[d]) for d, f in whole.items()}
    card = {
        "seed": seed,
        "corpus": {
            "source": f"CPython {platform.python_version()}: pydoc_data.topics and the standard "
            "library, split by file (held out where a hash of the file name divides by 8)",
            "domains": {domain: _described(split) for domain, split in splits.items()},
        },
        "tokenizer": {"vocab_size": tokenizer.vocab_size, "held_out_bytes_per_token": shares},
        "models": {
            name: {
                "parameters": model.n_parameters,
                "rounds": [dataclasses.asdict(plan) for plan in plans[name]],
                "seconds": round(trained[name].seconds, 1),
                "last_training_nats_per_token": round(float(trained[name].losses[-50:].mean()), 4),
                "held_out_nats_per_byte": _scores(model, tokenizer, whole),
                "excerpt_nats_per_byte": _scores(model, tokenizer, held_out),
            }
            for name, model in models.items()
        },
        "acceptance": {
            f"{small} for {large}": {
                domain: _plain(agreement(models[large], models[small], stream))
                for domain, stream in streams.items()
            }
            for large, small in (("target", "middle"), ("target", "draft"), ("middle", "draft"))
        },
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card
