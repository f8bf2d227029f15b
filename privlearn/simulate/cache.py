"""Finished cells of a sweep on disk: written whole or not at all, and checked before believed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import struct
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"privlearn sweep cell 1\n"
_DAY = 86_400


class CacheWarning(UserWarning):
    """A cache entry was damaged and is computed again, or could not be written."""


def encode(result: Mapping[str, Any]) -> str:
    """Write a cell's result as JSON from which :func:`decode` gets every bit back.

    Raises
    ------
    TypeError
        If the result is not a mapping from names to real numbers, strings, None or arrays of
        real numbers.

    Examples
    --------
    >>> decode(encode({"risk": 0.1, "n": 3, "nothing": float("nan")}))
    {'risk': 0.1, 'n': 3, 'nothing': nan}
    """
    if not isinstance(result, Mapping):
        raise TypeError(
            f"a cell must return a mapping from names to numbers, got {type(result).__name__}"
        )
    for name in result:
        if not isinstance(name, str):
            raise TypeError(f"a cell's results must be named by strings, got {name!r}")
    return json.dumps({name: _encode_value(name, value) for name, value in result.items()})


def decode(text: str) -> dict[str, Any]:
    """Read what :func:`encode` wrote."""
    return {name: _decode_value(value) for name, value in json.loads(text).items()}


def _encode_value(name: str, value: Any) -> Any:
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind not in "biufU" or (array.dtype.kind == "U" and array.ndim):
            raise TypeError(
                f"result {name!r} must be real, got an array of {array.dtype} (convert it)"
            )
        if array.ndim:
            data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            return {"dtype": array.dtype.str, "shape": array.shape, "data": data}
        value = array.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # JSON numbers keep every bit of a finite float; the others go by their bits.
        return float(value) if math.isfinite(value) else {"bits": struct.pack(">d", value).hex()}
    raise TypeError(
        f"result {name!r} must be a number, a string, None or an array, got {type(value).__name__}"
    )


def _decode_value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "bits" in value:
        return struct.unpack(">d", bytes.fromhex(value["bits"]))[0]
    array = np.frombuffer(base64.b64decode(value["data"]), dtype=np.dtype(value["dtype"]))
    return array.reshape(value["shape"]).copy()


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of finished cells, one file each, safe for any number of processes.

    An entry is a line of text that says what it is, the SHA-256 of the rest, and the rest: JSON
    with the cell's key, what it was called with, and its result. The file of a cell that was
    killed while writing has another name, and is swept away a day later.

    Parameters
    ----------
    folder : Path
        Where the entries lie. :meth:`open` makes it.
    """

    folder: Path

    @classmethod
    def open(cls, cache_dir: str | os.PathLike[str], name: str) -> Store:
        """Make the folder of a cell's entries under ``cache_dir``, and clear old leftovers."""
        folder = Path(cache_dir) / re.sub(r"[^\w.-]+", "_", name)[-100:]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cache_dir must be a folder that can be written to, got {str(cache_dir)!r}: "
                f"{error}"
            ) from error
        for leftover in folder.glob(".*.tmp"):
            try:
                if time.time() - leftover.stat().st_mtime > _DAY:
                    leftover.unlink()
            except FileNotFoundError:  # another sweep was quicker
                continue
        return cls(folder.absolute())

    def path(self, key: str) -> Path:
        """Return the file of the cell with this key."""
        return self.folder / f"{key}.cell"

    def load(self, key: str, *, warn: bool = True) -> str | None:
        """Return the encoded result of a finished cell; None if there is none to be believed.

        Warns
        -----
        CacheWarning
            If there is an entry, but it is not exactly what was written for this key.
        """
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            content, problem = b"", f"cannot be read ({error})"
        else:
            problem = "is damaged"
        head = len(_MAGIC) + 65
        body = content[head:]
        expected = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
        if content and content[:head] == expected:
            entry = json.loads(body)
            if entry["key"] == key:
                return json.dumps(entry["result"])
            problem = "belongs to another cell"
        if warn:
            warnings.warn(f"{path} {problem}; computing it again", CacheWarning, stacklevel=3)
        return None

    def save(self, key: str, result: str, about: Mapping[str, Any]) -> bool:
        """Write the entry of a finished cell, whole or not at all.

        Parameters
        ----------
        key : str
            The cell's key.
        result : str
            What :func:`encode` made of its result.
        about : mapping of str to str or int
            What the cell was called with, for people who look into the file.

        Returns
        -------
        bool
            Whether it was written. A full disk must not end a sweep of many hours.
        """
        body = json.dumps({"key": key, **about, "result": json.loads(result)}).encode()
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path(key))
            temporary = None
            self._settle()
        except OSError as error:
            warnings.warn(
                f"{self.path(key)} could not be written ({error}); the sweep goes on without it",
                CacheWarning,
                stacklevel=2,
            )
            return False
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
        return True

    def _settle(self) -> None:
        """Make the new name survive a power cut, where folders can be synced (not on Windows)."""
        if hasattr(os, "O_DIRECTORY"):
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
