"""A cell at every point of a parameter grid: on all cores or a cluster, resumable after a kill."""

from __future__ import annotations

import itertools
import operator
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from privlearn.simulate.cache import Store, decode, encode
from privlearn.simulate.identity import fingerprint, function_name

if TYPE_CHECKING:
    import polars as pl

# joblib, polars and tqdm are imported where they are needed: importing the package stays quick.


class SweepError(RuntimeError):
    """A cell of a sweep failed; ``params`` are those that it was called with.

    The exception that the cell raised is its cause, or is told in the text of its cause where it
    was raised in another process.
    """

    def __init__(self, message: str, params: Mapping[str, Any]) -> None:
        super().__init__(message, params)
        self.message = message
        self.params = dict(params)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """What a sweep found, in the order of the grid.

    Attributes
    ----------
    records : tuple of dict
        For each cell its parameters, then its results.
    n_cached : int
        Cells that were read from the cache.
    n_computed : int
        Cells that were computed by this call.
    """

    records: tuple[dict[str, Any], ...]
    n_cached: int
    n_computed: int

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __repr__(self) -> str:
        return (
            f"SweepResult({len(self)} cells: "
            f"{self.n_computed} computed, {self.n_cached} from the cache)"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return a table with a row for each cell and a column for each parameter and result.

        Arrays become lists; a name that a cell lacks is null; a parameter that is no number,
        string or sequence of them is written as text.
        """
        import polars as pl

        names = dict.fromkeys(name for record in self.records for name in record)
        return pl.DataFrame(
            [pl.Series(name, _column([r.get(name) for r in self.records])) for name in names]
        )


def sweep(
    cell: Callable[..., Mapping[str, Any]],
    grid: Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Any]],
    *,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
    version: str = "",
) -> SweepResult:
    """Call a function at every point of a grid, in parallel, and remember what is finished.

    Parameters
    ----------
    cell : callable
        ``cell(seed, **params)`` returns a mapping from names to numbers (arrays of real numbers,
        strings and None will do). ``seed`` is an int in [0, 2**32) that depends on the sweep's
        seed and on the cell's parameters, not on the rest of the grid or its order:
        ``jax.random.key(seed)`` and ``numpy.random.default_rng(seed)`` take it.
    grid : mapping or sequence of mappings
        Either the values of each parameter, for all their combinations (the last name varies
        fastest), or the parameters of each cell. Numpy scalars are passed on as Python numbers.
    seed : int, default=0
        Seed of the sweep.
    cache_dir : path, optional
        Where finished cells are kept. Several sweeps may share it at the same time.
    n_jobs : int, optional
        Worker processes, or threads where ``joblib.parallel_config`` says so. By default what
        ``joblib.parallel_config`` says, and this process alone if it says nothing.
    progress : bool, optional
        Whether to show a progress bar; by default in a terminal and in a notebook, but not where
        the environment variable ``CI`` is set.
    version : str, default=""
        Change it when something changed that the cache cannot see (below).

    Returns
    -------
    SweepResult
        Records in the order of the grid, and how many were read and computed.

    Raises
    ------
    SweepError
        If a cell fails; the message names its parameters. Cells finished by then stay cached.
    TypeError, ValueError
        If an argument is not as described, or a cell occurs twice.

    Notes
    -----
    A cached cell is used if its key is the same: SHA-256 of the cell's qualified name, its
    compiled code, default arguments and closure, the functions and plain constants of its own
    module that it names (and so on through those functions), ``version``, the parameters, the
    seed, and the version of privlearn. Not in the key: code imported from other modules,
    other packages' versions, data files. Comments, line numbers and formatting do not matter;
    another minor version of Python compiles to other code, and computes again.

    Each entry carries a checksum and its key; one that is truncated, altered or in the wrong place
    is reported (:class:`~privlearn.simulate.cache.CacheWarning`) and computed again. Entries are
    written by the worker as soon as a cell is done, to a temporary file that is renamed, so a
    sweep that is killed loses the cells that were being computed and no others. Where workers do
    not see ``cache_dir`` (a cluster without a shared disk) this process writes them.

    A cell that depends on its arguments alone gives the same bits whether computed or read, and
    in any order. How many threads a worker has may still change how a linear-algebra library
    rounds; a worker process gets one, or what ``OMP_NUM_THREADS`` says there (joblib sets it to
    its share of the cores), for BLAS, OpenMP and XLA alike.

    Processes are started by loky, never by forking: JAX hangs in a forked process. On a cluster:
    ``with joblib.parallel_config(backend="dask"): sweep(...)``.

    Examples
    --------
    >>> import numpy as np
    >>> from privlearn import simulate
    >>> def cell(seed, n, scale):
    ...     draws = np.random.default_rng(seed).normal(scale=scale, size=n)
    ...     return {"mean": draws.mean(), "spread": draws.std()}
    >>> result = simulate.sweep(cell, {"n": [10, 1_000], "scale": [1.0, 2.0]})
    >>> result
    SweepResult(4 cells: 4 computed, 0 from the cache)
    >>> result.to_polars().columns
    ['n', 'scale', 'mean', 'spread']
    >>> result.records[2]["n"], round(result.records[2]["spread"], 1)
    (1000, 1.0)
    """
    if not callable(cell):
        raise TypeError(f"cell must be a function, got {type(cell).__name__}")
    if not isinstance(version, str):
        raise TypeError(f"version must be a string, got {version!r}")
    jobs = _jobs(cell, _cells(grid), _whole("seed", seed), version, cached=cache_dir is not None)
    store = None if cache_dir is None else Store.open(cache_dir, function_name(cell))
    results: dict[int, dict[str, Any]] = {}
    if store is not None:
        for job in jobs:
            found = store.load(job.key)
            if found is not None:
                results[job.number] = decode(found)
    todo = [job for job in jobs if job.number not in results]
    n_computed = 0
    if todo:
        for number, result, computed in _run_all(
            cell, todo, store, n_jobs, _bar(progress, len(jobs), len(results))
        ):
            results[number] = result
            n_computed += computed
    return SweepResult(
        records=tuple({**job.params, **results[job.number]} for job in jobs),
        n_cached=len(jobs) - n_computed,
        n_computed=n_computed,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """One cell to compute: its place in the grid, its key in the cache, and its arguments."""

    number: int
    key: str
    seed: int
    params: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        return {"seed": self.seed, "params": _shown(self.params)}


def _run_all(
    cell: Callable[..., Mapping[str, Any]],
    jobs: list[_Job],
    store: Store | None,
    n_jobs: int | None,
    bar: Any,
) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yield (number, result, whether computed) as the cells finish."""
    import joblib
    from joblib.parallel import get_active_backend

    if type(get_active_backend()[0]).__name__ == "MultiprocessingBackend":
        raise ValueError(
            'joblib\'s backend "multiprocessing" forks, and JAX hangs in a forked process: use '
            '"loky" (the default), "threading" or "dask"'
        )
    if n_jobs is not None and _whole("n_jobs", n_jobs) == 0:
        raise ValueError("n_jobs must not be 0: give a number of workers, or -1 for all cores")
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    home = _process()
    outcomes = parallel(joblib.delayed(_run_one)(cell, job, store, home) for job in jobs)
    by_number = {job.number: job for job in jobs}
    with bar, closing(outcomes):
        for number, text, computed in outcomes:
            job = by_number[number]
            if store is not None and computed and not store.path(job.key).exists():
                store.save(job.key, text, job.about)
            yield number, decode(text), computed
            bar.update()


def _run_one(
    cell: Callable[..., Mapping[str, Any]], job: _Job, store: Store | None, home: tuple[str, int]
) -> tuple[int, str, bool]:
    """Compute a cell, in whatever process this is, and put it in the cache at once."""
    # A worker on another machine may not have the folder; whoever started the sweep writes then.
    reachable = store is not None and store.folder.is_dir()
    if store is not None and reachable:
        found = store.load(job.key, warn=False)  # by a sweep that runs at the same time
        if found is not None:
            return job.number, found, False
    try:
        with nullcontext() if _process() == home else _few_threads():
            result = cell(job.seed, **job.params)
        text = encode(result)
        if clash := sorted(set(result) & set(job.params)):
            raise ValueError(f"a result has the name of a parameter: {', '.join(clash)}")
    except Exception as error:  # raised again, with the parameters that it happened at
        raise SweepError(
            f"the cell {_shown(job.params)} (seed {job.seed}) failed with "
            f"{type(error).__name__}: {error}",
            job.params,
        ) from error
    if store is not None and reachable:
        store.save(job.key, text, job.about)
    return job.number, text, True


def _process() -> tuple[str, int]:
    """Say which process this is, among all machines."""
    return platform.node(), os.getpid()


def _few_threads() -> AbstractContextManager[Any]:
    """Limit the threads of a worker process: several workers share the cores."""
    from threadpoolctl import threadpool_limits

    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = int(given) if given.isdigit() and int(given) else 1
    # XLA's CPU client takes the size of its pool from NPROC when it is first used.
    os.environ.setdefault("NPROC", str(threads))
    return threadpool_limits(threads)


def _cells(grid: Any) -> list[dict[str, Any]]:
    """Return the parameters of each cell, in order."""
    if isinstance(grid, Mapping):
        axes = {}
        for name, values in grid.items():
            if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
                raise TypeError(
                    f"grid[{name!r}] must be a sequence of values, got {values!r}: "
                    "write [value] for a single one"
                )
            axes[name] = list(values)
            if not axes[name]:
                raise ValueError(f"grid[{name!r}] has no values, so the grid has no cells")
        cells = [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
    elif isinstance(grid, Sequence) and all(isinstance(params, Mapping) for params in grid):
        cells = [dict(params) for params in grid]
        if not cells:
            raise ValueError("grid has no cells")
    else:
        raise TypeError(
            "grid must be a mapping from names to values, or a sequence of mappings, "
            f"got {type(grid).__name__}"
        )
    for name in {name for params in cells for name in params}:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"grid must name parameters by identifiers, got {name!r}")
        if name == "seed":
            raise ValueError(
                'grid has a parameter "seed", which sweep gives each cell itself: give the '
                'sweep another seed, or name the parameter "replicate"'
            )
    return [{name: _python(value) for name, value in params.items()} for params in cells]


def _jobs(
    cell: Any, cells: list[dict[str, Any]], seed: int, version: str, *, cached: bool
) -> list[_Job]:
    """Give each cell its seed and its key; refuse a cell that occurs twice."""
    from privlearn import __version__

    code = fingerprint(cell, "cell") if cached else ""
    jobs: list[_Job] = []
    seen: dict[str, int] = {}
    for number, params in enumerate(cells):
        for name, value in params.items():
            fingerprint(value, f"grid parameter {name!r}")
        content = fingerprint(params, "grid")
        if content in seen:
            raise ValueError(f"grid has the cell {_shown(params)} twice")
        seen[content] = number
        own_seed = int(fingerprint(["seed", seed, content])[:8], 16)
        key = fingerprint(["cell", __version__, code, version, seed, content])
        jobs.append(_Job(number, key, own_seed, params))
    return jobs


def _python(value: Any) -> Any:
    """Turn a numpy or JAX scalar into a Python number: the same cell, however it was listed."""
    if hasattr(value, "__array__") and getattr(value, "ndim", None) == 0:
        return np.asarray(value).item()
    return value


def _shown(params: Mapping[str, Any]) -> str:
    """Write parameters for people: as in a call, long ones cut."""
    words = (f"{name}={value!r}" for name, value in params.items())
    return ", ".join(w if len(w) <= 80 else w[:77] + "..." for w in words) or "(no parameters)"


def _whole(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None


def _bar(progress: bool | None, total: int, done: int) -> Any:
    """Return a progress bar for a terminal or a notebook, or one that shows nothing."""
    from tqdm.auto import tqdm

    if progress is None:
        progress = not os.environ.get("CI") and (sys.stderr.isatty() or _in_notebook())
    return tqdm(total=total, initial=done, unit="cell", disable=not progress)


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _column(values: list[Any]) -> list[Any]:
    """Make the values of one column into what polars takes, without losing any of them."""

    def plain(value: Any) -> Any:
        if hasattr(value, "__array__"):
            return np.asarray(value).tolist()
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return str(value)

    column = [plain(value) for value in values]
    kinds = {type(value) for value in column if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in column]
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in column]
    return column
