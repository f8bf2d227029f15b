"""Folders as Hugging Face writes them: ``config.json`` beside ``model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from privlearn.decoding.models import TransformerLM
from privlearn.decoding.weights.layouts import from_tensors, to_tensors
from privlearn.decoding.weights.tensor_file import read_tensors, write_tensors

WEIGHTS = "model.safetensors"


def save_pretrained(
    model: TransformerLM, folder: str | Path, *, dtype: DTypeLike | None = None
) -> Path:
    """Write a model so that `load_pretrained`, and Hugging Face's transformers, can read it.

    Parameters
    ----------
    model : TransformerLM
    folder : path
        Made if it does not exist.
    dtype : dtype, optional
        Of the stored weights; that of the model if None.

    Returns
    -------
    Path
        The folder.

    Examples
    --------
    >>> import tempfile, jax
    >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
    >>> from privlearn.decoding.weights import load_pretrained, save_pretrained
    >>> config = TransformerConfig(vocab_size=16, d_model=8, n_layers=1, n_heads=2, style="gpt2")
    >>> model = TransformerLM.init(jax.random.key(0), config)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = load_pretrained(save_pretrained(model, folder))
    >>> again.config == config, bool((again.embedding == model.embedding).all())
    (True, True)
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, tensors = to_tensors(model, dtype=dtype)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_tensors(folder / WEIGHTS, tensors)
    return folder


def load_pretrained(folder: str | Path, *, dtype: DTypeLike = jnp.float32) -> TransformerLM:
    """Read a Llama or GPT-2 model from a folder on this machine; nothing is downloaded.

    Parameters
    ----------
    folder : path
        With ``config.json`` and ``model.safetensors``, or the parts of a divided file and their
        ``model.safetensors.index.json``.
    dtype : dtype, default float32
        Of the weights; on a CPU float32 is by far the fastest.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a file is damaged, or the weights are not those that the config describes.
    """
    folder = Path(folder)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    try:
        return from_tensors(config, _all_tensors(folder), dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _all_tensors(folder: Path) -> dict[str, np.ndarray]:
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return read_tensors(folder / WEIGHTS)
    parts = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    tensors: dict[str, np.ndarray] = {}
    for part in parts:
        tensors |= read_tensors(folder / part)
    return tensors
