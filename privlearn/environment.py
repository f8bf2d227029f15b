"""What privlearn runs on: the facts that a bug report or a timing cannot do without."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: XLA threads with which programs of ours are known not to starve each other.
_ENOUGH_THREADS = 4


def widen_xla_pool() -> None:
    """Give XLA's CPU pool at least four threads, in a process that is ours to configure.

    With jax 0.10 a program that runs two independent batched factorisations (eigh, svd or cholesky
    under vmap) can wait for ever where the pool has two threads: each blocks one thread until a
    free one has done its share. XLA reads ``NPROC`` when its backend starts; a value that is set
    already is left alone. Called by the command line and the tests, never by an import.
    """
    os.environ.setdefault("NPROC", str(max(_ENOUGH_THREADS, usable_cores())))


def facts(figures: Path) -> Iterator[tuple[str, str]]:
    """Yield what runs here, one named fact after another; imports JAX and starts its backend.

    Parameters
    ----------
    figures : Path
        The folder that figures would go to.

    Yields
    ------
    tuple of str
        A name and what is so.
    """
    import jax
    import numpy as np

    import privlearn
    from privlearn import claims, datasets

    yield "privlearn", f"{privlearn.__version__} in {Path(privlearn.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for package in ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "polars", "opendp"):
        yield package, importlib.metadata.version(package)
    yield "blas", _blas(np.show_config(mode="dicts"))
    devices = jax.devices()
    yield "jax devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    yield "jax 64 bit", str(jax.config.read("jax_enable_x64"))
    yield "cores", f"{usable_cores()} usable of {os.cpu_count()}"
    yield "memory", memory()
    for name, missing in extras().items():
        yield f"extra {name}", f"lacks {', '.join(missing)}" if missing else "installed"
    loadable = sum(card.installed for card in datasets.CARDS)
    yield "data sets", f"{loadable} of {len(datasets.CARDS)} can be loaded"
    yield "theory checks", str(claims.folder())
    yield "figures go to", str(figures.resolve())


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> str:
    """Return the memory of the machine and how much of it is free, as far as it can be known."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # Windows and macOS name some of these otherwise
        return "unknown"
    return f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB unused"


def extras() -> dict[str, list[str]]:
    """Return, for each optional extra of privlearn, which of its packages are not installed.

    Returns
    -------
    dict of str to list of str
        An empty list for an extra that is complete.

    Examples
    --------
    >>> sorted(extras())[:3]
    ['bench', 'cluster', 'data']
    """
    from packaging.requirements import Requirement  # Altair depends on it

    distribution = importlib.metadata.distribution("privlearn")
    found: dict[str, list[str]] = {
        name: [] for name in distribution.metadata.get_all("Provides-Extra") or []
    }
    for line in distribution.requires or []:
        requirement = Requirement(line)
        for name, missing in found.items():
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                continue
            if marker.evaluate({"extra": name}) and not _installed(requirement.name):
                missing.append(requirement.name)
    return found


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _blas(config: Mapping[str, Any]) -> str:
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')} (NumPy's)".replace("  ", " ")
