"""Measurements that are kept on disk, so that one run of everything takes each of them once.

Off unless the environment variable ``PRIVLEARN_CLAIMS_CACHE`` names a folder. Tests, ``privlearn
check`` and the verdicts beside the figures all measure the same claims; with the variable set they
judge the same measurement. A measurement is a pure function of the code, so it is filed under a
hash of every file of the package and of the theory checks, and of the versions it ran with: any
change of code or of data that ships with it forgets everything.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from privlearn.claims import discovery
from privlearn.claims.claim import Claim, Measurement

VARIABLE = "PRIVLEARN_CLAIMS_CACHE"
_LIBRARIES = ("numpy", "scipy", "jax", "jaxlib", "scikit-learn", "opendp", "cvxpy")


def measure(claim: Claim, profile: str) -> Measurement:
    """Measure a claim, or read what an earlier process measured with the same code.

    Only claims of ``theory_checks/`` are kept; whatever a claim raises is raised.
    """
    cache = os.environ.get(VARIABLE)
    if not cache or not _is_ours(claim):
        return claim.measure(profile)
    path = Path(cache) / f"{_key(claim.name, profile)}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Measurement(
                stored["theory"], stored["estimate"], stored["stderr"], int(stored["n"])
            )
    measurement = claim.measure(profile)
    if isinstance(measurement, Measurement):
        _write(path, measurement)
    return measurement


def _write(path: Path, measurement: Measurement) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file appears whole or not at all: another process may look for it at any time.
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    with os.fdopen(handle, "wb") as file:
        np.savez(
            file,
            theory=np.asarray(measurement.theory),
            estimate=np.asarray(measurement.estimate),
            stderr=np.asarray(measurement.stderr),
            n=measurement.n,
        )
    os.replace(partial, path)


def _is_ours(claim: Claim) -> bool:
    module = inspect.getmodule(inspect.unwrap(getattr(claim.measure, "func", claim.measure)))
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().parent == discovery.folder()


def _key(name: str, profile: str) -> str:
    return hashlib.sha256(f"{_code()}\n{name}\n{profile}".encode()).hexdigest()


@functools.cache
def _code() -> str:
    """Hash what a measurement depends on: our code, and the versions that it runs with."""
    digest = hashlib.sha256(f"{platform.python_version()} {platform.machine()}".encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    package = Path(__file__).resolve().parents[1]
    for root in (package, discovery.folder()):
        # Tables and weights that ship with the package count as code.
        files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
        for file in sorted(files):
            digest.update(f"{file.relative_to(root)}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
