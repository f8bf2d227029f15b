"""Finding ``theory_checks/*.py``, in a source tree or inside a wheel, and loading each once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import privlearn
from privlearn.claims import registry

#: The files are loaded as ``privlearn_theory_checks.<file>``, so that they can be unpickled.
_PACKAGE = "privlearn_theory_checks"
_loaded: set[Path] = set()
_failures: dict[Path, Exception] = {}


def folder() -> Path:
    """Return the folder of theory checks: beside the package, or inside it when installed.

    Returns
    -------
    Path
        ``theory_checks`` of the repository, or ``privlearn/theory_checks`` of the wheel.

    Raises
    ------
    FileNotFoundError
        If neither exists.
    """
    package = Path(privlearn.__file__).resolve().parent
    candidates = (package / "theory_checks", package.parent / "theory_checks")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no theory checks found in {' or '.join(map(str, candidates))}")


def discover(path: Path | None = None) -> tuple[str, ...]:
    """Load every theory check once, which registers its claims.

    A file that cannot be loaded registers nothing and does not stop the others: `run` reports it
    as a failed check, and `failures` holds its error.

    Parameters
    ----------
    path : Path, optional
        The folder to load ``*.py`` from (names beginning with ``_`` are left out); by default
        the one that came with privlearn.

    Returns
    -------
    tuple of str
        The names of all claims now registered.
    """
    for file in sorted((path or folder()).glob("*.py")):
        file = file.resolve()
        if file.stem.startswith("_") or file in _loaded or _is_imported(file):
            continue
        _failures.pop(file, None)
        try:
            with registry.all_or_nothing():
                _load(file)
        except Exception as error:
            _failures[file] = error
        else:
            _loaded.add(file)
    return registry.names()


def failures() -> dict[Path, Exception]:
    """Return the files that could not be loaded, each with its error."""
    return dict(_failures)


def _load(file: Path) -> None:
    name = f"{_PACKAGE}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _is_imported(file: Path) -> bool:
    """Whether the file is already a module, under its own name or as the script that is running."""
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and Path(origin).name == file.name:
            try:
                if Path(origin).resolve() == file:
                    return True
            except OSError:
                continue
    return False
