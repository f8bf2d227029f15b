"""The command line: ``privlearn figures | check | notebooks | bench | info``.

Each command imports what it needs when it runs, so that ``privlearn --help`` is quick.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

import privlearn

#: Where figures go unless told otherwise, relative to the current folder.
FIGURES = Path("build/figures")

#: The exit status for a name that means nothing, or a place that cannot be written to.
USAGE_ERROR = 2


def _examples(*lines: str) -> str:
    """Lay out command lines for the end of a help page."""
    return "\n".join(["Examples:", "", *(f"    $ {line}" for line in lines)])


app = App(
    name="privlearn",
    version=privlearn.__version__,
    help=(
        "Privacy-aware learning, where every published claim can be run, checked and plotted.\n\n"
        "NAMES may be exact names, a topic such as `aggregate`, or patterns such as `'*risk*'` "
        "(quote them from the shell); without any, everything is done. The exit status is 0 if "
        "all went well, 1 if something failed, 2 if a name means nothing."
    ),
    help_format="markdown",
)

Profile = Annotated[
    Literal["quick", "paper"],
    Parameter(help="quick: minutes on two cores. paper: the published sizes, up to hours."),
]
List = Annotated[bool, Parameter(name="--list", negative="", help="Print the names, do nothing.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Raises
    ------
    SystemExit
        Always.
    """
    from privlearn.environment import widen_xla_pool

    widen_xla_pool()
    sys.exit(app(argv))


@app.command(
    help_epilogue=_examples(
        "privlearn figures --list",
        "privlearn figures aggregate --out somewhere/else",
        "privlearn figures 'aggregate-*' --profile paper --no-checks",
    )
)
def figures(
    *names: str,
    profile: Profile = "quick",
    out: Path = FIGURES,
    list_: List = False,
    checks: bool = True,
) -> int:
    """Regenerate the figures of the papers, and one page that shows them all.

    Writes for every figure its data (Parquet), its Vega-Lite specification, SVG and PNG, and
    `index.html`, which works offline. A figure that fails is shown as failed and does not stop
    the others.

    Parameters
    ----------
    names
        Figures, topics or patterns; all figures if none is given.
    out
        Folder of the page.
    checks
        Run the theory checks that certify each figure, and show their verdicts beside it.
    """
    from privlearn.figures import registry, report

    def show(outcome: Any) -> None:
        print(outcome, flush=True)

    try:
        if list_:
            registry.discover()
            for figure in registry.select(names):
                print(f"{figure.name}\n    {figure.title} [{figure.source}]")
            return 0
        # A bar where someone watches, a line per figure in a log.
        progress = True if sys.stderr.isatty() else show
        built = report.build(names, profile=profile, out=out, checks=checks, progress=progress)
    except (LookupError, OSError) as error:
        return _refuse(error)
    lines = str(built).splitlines()
    print("\n".join(lines if progress is True else lines[-1:]))
    return 0 if built.ok and built.outcomes else 1


@app.command(
    help_epilogue=_examples(
        "privlearn check --list aggregate",
        "privlearn check aggregate --json verdicts.json",
        "privlearn check '*risk*' --profile paper",
    )
)
def check(
    *names: str,
    profile: Profile = "quick",
    json: Path | None = None,
    list_: List = False,
) -> int:
    """Check whether published theory agrees with simulation, in checks that could have failed.

    A claim fails if theory and estimate differ by more than sampling error allows, and also if
    the check is too blunt to have noticed an error of the declared size. In the table, `off` is
    the difference in standard errors, `sees` the smallest relative error of the theory that the
    check notices with 99 % power, `asked` the one that it must.

    Parameters
    ----------
    names
        Claims, topics or patterns; all claims if none is given.
    json
        Also write the verdicts to this file.
    """
    from privlearn import claims
    from privlearn.claims import report

    shown: list[claims.Verdict] = []

    def show(verdict: claims.Verdict) -> None:
        if not shown:
            print(report.header())
        print(report.row(verdict), flush=True)
        shown.append(verdict)

    try:
        if list_:
            claims.discover()
            print(claims.listing(claims.select(names)))
            return 1 if claims.failures() else 0
        verdicts = claims.run(names, profile, on_verdict=show)
        print(report.summary(verdicts))
        if json is not None:
            claims.write_json(verdicts, json)
    except (LookupError, OSError) as error:
        return _refuse(error)
    return 0 if verdicts and all(verdicts) else 1


@app.command(
    help_epilogue=_examples(
        "privlearn notebooks",
        "privlearn notebooks aggregate --timeout 1200",
    )
)
def notebooks(
    *names: str,
    folder: Path | None = None,
    timeout: Annotated[int, Parameter(help="Seconds that one cell may take.")] = 600,
    list_: List = False,
) -> int:
    """Execute the notebooks, to see that they run from top to bottom.

    Runs in a temporary copy and with this Python: the notebooks stay as they are, without
    outputs.

    Parameters
    ----------
    names
        Notebooks by file name without `.ipynb`, or patterns; all if none is given.
    folder
        Where the notebooks are; by default those of the repository, or `./notebooks`.
    """
    try:
        files = _files(folder or _beside("notebooks"), "*.ipynb", names)
    except (LookupError, OSError) as error:
        return _refuse(error)
    if list_:
        print("\n".join(file.stem for file in files))
        return 0
    failed = []
    for file in files:
        start = time.perf_counter()
        trouble = _execute(file, timeout)
        seconds = time.perf_counter() - start
        print(f"{'FAIL' if trouble else 'ok':5} {file.stem:40} {seconds:7.1f} s", flush=True)
        if trouble:
            failed.append(file.stem)
            print(f"\n{trouble}\n", flush=True)
    print(_tally(len(files), failed, "notebooks run"))
    return 1 if failed else 0


@app.command(
    help_epilogue=_examples(
        "privlearn bench --list",
        "privlearn bench monte_carlo",
    )
)
def bench(*names: str, folder: Path | None = None, list_: List = False) -> int:
    """Measure privlearn beside its peers; each benchmark prints a table.

    Benchmarks run one by one, each in a fresh process, so that none warms up or slows down the
    next. Leave the machine alone meanwhile.

    Parameters
    ----------
    names
        Benchmarks by file name without `.py`, or patterns; all if none is given.
    folder
        Where the benchmarks are; by default those of the repository, or `./benchmarks`.
    """
    try:
        files = _files(folder or _beside("benchmarks"), "*.py", names)
    except (LookupError, OSError) as error:
        return _refuse(error)
    if list_:
        print("\n".join(file.stem for file in files))
        return 0
    failed = []
    for file in files:
        print(f"== {file.stem}", flush=True)
        start = time.perf_counter()
        status = subprocess.run([sys.executable, str(file)], check=False).returncode
        print(f"== {file.stem}: status {status}, {time.perf_counter() - start:.1f} s\n", flush=True)
        if status:
            failed.append(file.stem)
    print(_tally(len(files), failed, "benchmarks run"))
    return 1 if failed else 0


@app.command
def info() -> int:
    """Say what runs here: versions, devices, cores, memory, installed extras, folders.

    Put its output into a report of a bug or of a timing.
    """
    from privlearn import environment

    for name, value in environment.facts(FIGURES):
        print(f"{name:16} {value}")
    return 0


def _refuse(error: Exception) -> int:
    print(f"privlearn: {error}", file=sys.stderr)
    return USAGE_ERROR


def _tally(total: int, failed: Sequence[str], what: str) -> str:
    text = f"{total - len(failed)} of {total} {what}"
    return f"{text}; not so: {', '.join(failed)}" if failed else text


def _beside(name: str) -> Path:
    """Return a folder of the repository that privlearn is used from, else of the current one."""
    repository = Path(privlearn.__file__).resolve().parent.parent / name
    return repository if repository.is_dir() else Path(name)


def _files(folder: Path, pattern: str, names: Iterable[str]) -> list[Path]:
    """Return the files that are meant; LookupError if there are none or a name means none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; say where with --folder")
    files = [file for file in sorted(folder.glob(pattern)) if file.stem[0] not in "._"]
    if not files:
        raise LookupError(f"there is no {pattern} in {folder}")
    wanted = set()
    for name in names:
        found = [f for f in files if name in (f.stem, f.name) or fnmatchcase(f.stem, name)]
        if not found:
            there = ", ".join(file.stem for file in files)
            raise LookupError(f"nothing in {folder} matches {name!r}; there are: {there}")
        wanted.update(found)
    return [file for file in files if not wanted or file in wanted]


def _execute(file: Path, timeout: int) -> str:
    """Run a notebook in a temporary copy of its folder; return what went wrong, or ""."""
    with tempfile.TemporaryDirectory(prefix="privlearn-notebooks-") as scratch:
        copy = Path(scratch) / "notebooks"
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        shutil.copytree(file.parent, copy, ignore=ignored)
        return _execute_in_place(copy / file.name, Path(scratch), timeout)


def _execute_in_place(file: Path, scratch: Path, timeout: int) -> str:
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    # A kernel of our own, because a "python3" that the user once installed may be another Python.
    kernels = scratch / "kernels"
    (kernels / "privlearn").mkdir(parents=True)
    (kernels / "privlearn" / "kernel.json").write_text(_kernel_spec(), encoding="utf-8")
    manager = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    notebook = nbformat.read(file, as_version=4)
    current: dict[str, Any] = {}
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name="privlearn", kernel_spec_manager=manager),
        timeout=timeout,
        resources={"metadata": {"path": str(file.parent)}},
        on_cell_start=lambda cell, cell_index: current.update(cell=cell, index=cell_index),
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return _describe_failure(error, current, timeout)
    return ""


def _kernel_spec() -> str:
    import json

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return json.dumps({"argv": argv, "display_name": "privlearn", "language": "python"})


def _describe_failure(error: Exception, current: dict[str, Any], timeout: int) -> str:
    """Say which cell failed, what it says, and how it failed."""
    cell = current.get("cell", {})
    source = cell.get("source", "(before the first cell)")
    reasons = [
        "\n".join(output["traceback"]) if output.get("traceback") else str(output["evalue"])
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    if not reasons:
        name = type(error).__name__
        reasons = [
            f"the cell took more than {timeout} s"
            if name == "CellTimeoutError"
            else f"{name}: {error}"
        ]
    lines = [f"cell {current.get('index', 0) + 1}:", *(f"    {x}" for x in source.splitlines())]
    # Colours are for terminals, this may go to a log.
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(reasons))
    return "\n".join([*lines, "", text])


if __name__ == "__main__":
    main()
