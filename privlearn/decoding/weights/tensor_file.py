"""Named arrays in a safetensors file, with errors that say what is wrong with the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a safetensors file.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np
    >>> from privlearn.decoding.weights import read_tensors, write_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "a.safetensors"
    ...     write_tensors(file, {"a": np.arange(3.0)})
    ...     read_tensors(file)
    {'a': array([0., 1., 2.])}
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # The entry by which readers of PyTorch models know the order of axes.
    save_file(contiguous, str(path), metadata={"format": "pt"})


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of a safetensors file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is cut short, or no safetensors file, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); it may be cut short, or of "
            "another kind"
        ) from error
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Refuse weights that are NaN or infinite: they would become logits that mean nothing."""
    for name, array in tensors.items():
        # A sum is not finite if any term is not, and needs no second copy of the array.
        if not np.isfinite(np.sum(np.abs(array), dtype=np.float64)):
            raise ValueError(f"{path}: tensor {name!r} holds NaN or infinite weights")
