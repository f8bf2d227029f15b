"""Models in GGUF files, the format of llama.cpp: weights dequantised, names and rows put back.

A GGUF file of a Llama model stores the rows of the query and key projections in another order, made
for rotary angles that turn neighbouring pairs ``(x[2i], x[2i+1])``. Reading undoes it, so that the
pairs are ``(x[i], x[i + D/2])`` as everywhere else here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from privlearn.decoding.models import TransformerLM
from privlearn.decoding.weights.layouts import Config, Tensors, from_tensors
from privlearn.decoding.weights.tensor_file import check_finite

#: Names inside a block, GGUF's and Hugging Face's.
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def open_gguf(path: str | Path) -> Any:
    """A `gguf.GGUFReader` of a file.

    Raises
    ------
    ImportError
        If the package ``gguf`` is missing.
    FileNotFoundError, ValueError
        If there is no such file, or it is damaged or of another kind.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "reading GGUF files needs the package gguf: pip install 'privlearn[smollm]'"
        ) from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return gguf.GGUFReader(str(path))
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: not a readable GGUF file ({error})") from error


def field(reader: Any, name: str) -> Any:
    """The value of a metadata field; ValueError if the file has none of that name."""
    if name not in reader.fields:
        raise ValueError(f"the GGUF file has no field {name!r}")
    return reader.fields[name].contents()


def half_split_rows(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key projection (out, in) from interleaved to half-split rotary pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from privlearn.decoding.weights.gguf_file import half_split_rows
    >>> half_split_rows(np.arange(8)[:, None], n_heads=2)[:, 0]
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    pairs = weight.reshape(n_heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def gguf_config(reader: Any) -> Config:
    """The metadata of a Llama GGUF file as a Hugging Face config.

    Raises
    ------
    ValueError
        For another architecture, or scaled rotary angles.
    """
    kind = field(reader, "general.architecture")
    if kind != "llama":
        raise ValueError(f"general.architecture: {kind!r}; only 'llama' can be read")
    if any(name.startswith("llama.rope.scaling") for name in reader.fields):
        raise ValueError("llama.rope.scaling: scaled rotary angles are not supported")
    shape = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
        "rope_theta": "rope.freq_base",
    }
    config = {ours: field(reader, f"llama.{theirs}") for ours, theirs in shape.items()}
    if "llama.attention.key_length" in reader.fields:
        config["head_dim"] = field(reader, "llama.attention.key_length")
    names = {tensor.name for tensor in reader.tensors}
    return config | {
        "model_type": "llama",
        "vocab_size": len(field(reader, "tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in names,
    }


def _hf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    _, number, part = stem.split(".") if stem.count(".") == 2 else ("", "", stem)
    if part not in PARTS:
        raise ValueError(f"tensors: {name!r} is unknown to the Llama layout")
    return f"model.layers.{number}.{PARTS[part]}.{kind}"


def gguf_tensors(reader: Any, config: Config) -> Tensors:
    """The dequantised float32 tensors of a Llama GGUF file, under Hugging Face's names."""
    import gguf

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors: Tensors = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        values = values.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        for part, n_heads in heads.items():
            if f".{part}." in tensor.name:
                values = half_split_rows(values, n_heads)
        tensors[_hf_name(tensor.name)] = values
    return tensors


def load_gguf(path: str | Path, *, dtype: DTypeLike = jnp.float32) -> TransformerLM:
    """Read a Llama model from a GGUF file.

    Parameters
    ----------
    path : path
    dtype : dtype, default float32
        What the weights become; quantised weights are dequantised.

    Raises
    ------
    ImportError
        Without the package ``gguf`` (the extra ``smollm``).
    FileNotFoundError, ValueError
        If there is no such file, or it is damaged, or holds another kind of model.
    """
    reader = open_gguf(path)
    config = gguf_config(reader)
    tensors = gguf_tensors(reader, config)
    check_finite(tensors, path)
    return from_tensors(config, tensors, dtype=dtype)
