"""What makes two cells of a sweep the same cell: a hash of values and of code.

The hash is the same in every process, on every machine, and whatever ``PYTHONHASHSEED`` is.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import struct
import types
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def fingerprint(value: Any, where: str = "value") -> str:
    """Hash a value by its content: exact for floats, by type, independent of the process.

    Parameters
    ----------
    value : object
        None, numbers, strings, bytes, paths, numpy or JAX arrays, enum members, functions,
        classes, modules, and lists, tuples, sets, mappings and dataclasses of these.
    where : str
        What the value is, for the error.

    Returns
    -------
    str
        64 hexadecimal digits (SHA-256).

    Raises
    ------
    TypeError
        If the value, or something in it, has no content that could be hashed.

    Examples
    --------
    >>> fingerprint({"n": 3, "rho": 0.1}) == fingerprint({"rho": 0.1, "n": 3})
    True
    >>> fingerprint(1) == fingerprint(1.0)
    False
    """
    return hashlib.sha256(_encode(value, where, {})).hexdigest()


def function_name(function: Any) -> str:
    """Return the qualified name of a function, looking through ``functools.partial`` and jit."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__qualname__"):
        raise TypeError(f"expected a function, got an instance of {type(function).__qualname__}")
    return f"{function.__module__}.{function.__qualname__}"


def _parts(tag: str, *parts: bytes) -> bytes:
    """Join parts so that no two different lists of parts give the same bytes."""
    sized = b"".join(struct.pack("<Q", len(part)) + part for part in parts)
    return tag.encode() + b"(" + sized + b")"


def _encode(value: Any, where: str, seen: dict[int, int]) -> bytes:
    """Write a value as bytes that say its type and content."""

    def inner(part: Any, label: str = "") -> bytes:
        return _encode(part, f"{where}{label}", seen)

    if value is None or value is Ellipsis:
        return _parts(repr(value))
    if isinstance(value, enum.Enum):
        return _parts("enum", function_name(type(value)).encode(), value.name.encode())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int)):
        return _parts(type(value).__name__, str(int(value)).encode())
    if isinstance(value, float):
        return _parts("float", b"nan" if value != value else struct.pack("<d", value))
    if isinstance(value, complex):
        return _parts("complex", inner(value.real), inner(value.imag))
    if isinstance(value, str):
        return _parts("str", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bytes, bytearray)):
        return _parts("bytes", bytes(value))
    if isinstance(value, os.PathLike):
        return _parts("path", os.fsencode(value))
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return _parts(kind, *(inner(part, f"[{i}]") for i, part in enumerate(value)))
    if isinstance(value, (set, frozenset)):
        return _parts("set", *sorted(inner(part) for part in value))
    if isinstance(value, (dict, types.MappingProxyType)):
        items = [(inner(key), inner(part, f"[{key!r}]")) for key, part in value.items()]
        return _parts("dict", *(part for item in sorted(items) for part in item))
    if isinstance(value, slice):
        return _parts("slice", inner((value.start, value.stop, value.step)))
    if isinstance(value, types.ModuleType):
        return _parts("module", value.__name__.encode())
    if isinstance(value, type):
        return _parts("class", function_name(value).encode())
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _parts("dataclass", function_name(type(value)).encode(), inner(fields))
    if hasattr(value, "__array__"):
        return _encode_array(value, where)
    return _encode_callable(value, where, seen)


def _encode_array(value: Any, where: str) -> bytes:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{where} is an array of Python objects, which cannot be hashed")
    shape = str(array.shape).encode()
    return _parts("array", array.dtype.str.encode(), shape, np.ascontiguousarray(array).tobytes())


def _encode_callable(value: Any, where: str, seen: dict[int, int]) -> bytes:
    """Write a function as its name, its compiled code, and the values that it carries along."""
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return _parts("partial", *(_encode(part, where, seen) for part in parts))
    if isinstance(value, types.BuiltinFunctionType) and isinstance(
        value.__self__, (types.ModuleType, type(None))
    ):
        return _parts("builtin", f"{value.__module__}.{value.__qualname__}".encode())
    function = inspect.unwrap(value) if callable(value) else value
    if not isinstance(function, types.FunctionType):
        raise TypeError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, whose content "
            "cannot be hashed; use numbers, strings, arrays, functions or dataclasses of them"
        )
    if id(function) in seen:
        return _parts("again", str(seen[id(function)]).encode())
    seen[id(function)] = len(seen)
    carried = {
        "defaults": function.__defaults__,
        "keyword defaults": function.__kwdefaults__,
        "closure": _closure(function),
        "globals": _globals(function),
    }
    return _parts(
        "function",
        function_name(function).encode(),
        _encode_code(function.__code__, seen),
        _encode(carried, f"{where}: {function.__qualname__}", seen),
    )


def _encode_code(code: types.CodeType, seen: dict[int, int]) -> bytes:
    """Write what a code object does, without the file and the lines that it came from."""
    constants = [
        _encode_code(part, seen)
        if isinstance(part, types.CodeType)
        else _encode(part, "a constant", seen)
        for part in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    # co_code is the code as compiled, without what the interpreter specialised since.
    return _parts(
        "code",
        code.co_code,
        code.co_exceptiontable,
        _encode((names, shape), "code", seen),
        *constants,
    )


def _closure(function: types.FunctionType) -> dict[str, Any]:
    """Return the variables of enclosing functions that a function uses, where they are set."""
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return values


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """Return the functions and plain constants of its own module that a function names.

    Code imported from elsewhere is left out: it changes with its package's version.
    """
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(part for part in code.co_consts if isinstance(part, types.CodeType))
    found = {}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if _is_plain(value):
            found[name] = value
        elif callable(value) and not isinstance(value, (type, functools.partial)):
            unwrapped = inspect.unwrap(value)
            if (
                isinstance(unwrapped, types.FunctionType)
                and unwrapped.__globals__ is function.__globals__
            ):
                found[name] = unwrapped
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(part) for part in value)
    return isinstance(value, _PLAIN)
