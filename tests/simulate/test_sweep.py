import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn import simulate
from privlearn.simulate import CacheWarning, SweepError
from privlearn.simulate.cache import encode
from privlearn.simulate.sweep import _bar, _in_notebook


@pytest.fixture(autouse=True)
def _own_thread_pool(monkeypatch):
    """Workers size XLA's pool themselves, where nobody has done it for them."""
    monkeypatch.delenv("NPROC", raising=False)


GRID = {"n": [3, 5], "scale": [0.1, 1.0, 10.0]}


def numbers(seed, n, scale):
    draws = np.random.default_rng(seed).normal(scale=scale, size=n)
    return {"mean": draws.mean(), "draws": draws, "odd": float("nan"), "most": float("-inf")}


def bits(result):
    """Write the records of a sweep so that equal text means equal bits."""
    return [encode(record) for record in result]


def logging(cell, log):
    """Write down which cells are executed (a file: workers are other processes)."""

    def logged(seed, **params):
        with open(log, "a") as file:
            file.write(json.dumps(params) + "\n")
        return cell(seed, **params)

    return logged


def executed(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def entries(folder):
    return sorted(path for path in folder.rglob("*.cell") if path.is_file())


# --- the grid -----------------------------------------------------------------------------------


def test_records_follow_the_grid_and_hold_parameters_then_results():
    result = simulate.sweep(numbers, GRID)
    assert [(r["n"], r["scale"]) for r in result] == [(n, s) for n in (3, 5) for s in (0.1, 1, 10)]
    assert list(result.records[0]) == ["n", "scale", "mean", "draws", "odd", "most"]
    assert repr(result) == "SweepResult(6 cells: 6 computed, 0 from the cache)"


def test_a_list_of_cells_is_a_grid_and_parameters_may_differ():
    result = simulate.sweep(lambda seed, n=0, m=0: {"sum": n + m}, [{"n": 1}, {"m": 2}, {}])
    assert [r["sum"] for r in result] == [1, 2, 0]
    assert result.to_polars()["n"].to_list() == [1, None, None]


def test_numpy_values_name_the_same_cells_as_python_numbers():
    listed = simulate.sweep(numbers, {"n": [3], "scale": [0.0, 0.5, 1.0]})
    spaced = simulate.sweep(numbers, {"n": np.array([3]), "scale": np.linspace(0, 1, 3)})
    assert bits(listed) == bits(spaced)
    assert type(spaced.records[0]["n"]) is int


@given(st.permutations(range(6)), st.integers(0, 2**70))
def test_a_cells_seed_depends_on_its_parameters_alone(order, seed):
    def cell(own, n):
        return {"seed": own}

    def seeds(values):
        return {r["n"]: r["seed"] for r in simulate.sweep(cell, {"n": values}, seed=seed)}

    whole = seeds(list(range(6)))
    assert seeds(order) == whole
    assert seeds(order[:1]) == {order[0]: whole[order[0]]}
    assert len(set(whole.values())) == 6
    assert all(0 <= own < 2**32 for own in whole.values())


def test_another_seed_gives_every_cell_another_seed():
    def cell(own, n):
        return {"seed": own}

    first, second = (simulate.sweep(cell, {"n": range(50)}, seed=s) for s in (0, 1))
    assert not {r["seed"] for r in first} & {r["seed"] for r in second}


def test_table_keeps_numbers_arrays_and_types():
    grid = {"n": [1, 2], "loss": ["bag", "instance"], "option": [(1, 2)], "f": [abs]}
    table = simulate.sweep(
        lambda seed, n, **other: {"x": float("nan"), "v": np.arange(n), "big": n / 3, "ok": n == 1},
        grid,
    ).to_polars()
    assert table.schema == {
        "n": pl.Int64,
        "loss": pl.String,
        "option": pl.List(pl.Int64),
        "f": pl.String,
        "x": pl.Float64,
        "v": pl.List(pl.Int64),
        "big": pl.Float64,
        "ok": pl.Boolean,
    }
    assert table["big"].to_list() == [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    assert table["v"].to_list() == [[0], [0], [0, 1], [0, 1]]


def test_a_column_of_mixed_numbers_loses_none():
    table = simulate.sweep(lambda seed, n: {"x": n}, {"n": [1, 0.5, None]}).to_polars()
    assert table["x"].to_list() == [1.0, 0.5, None]
    mixed = simulate.sweep(lambda seed, n: {"x": n}, {"n": [1, "all"]}).to_polars()
    assert mixed["x"].to_list() == ["1", "all"]


# --- the cache ----------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_gives_the_same_bits(tmp_path):
    log = tmp_path / "log"
    cell = logging(numbers, str(log))
    first = simulate.sweep(cell, GRID, cache_dir=tmp_path / "cache")
    again = simulate.sweep(cell, GRID, cache_dir=tmp_path / "cache")
    assert (again.n_cached, again.n_computed) == (6, 0)
    assert len(executed(log)) == 6
    assert bits(first) == bits(again) == bits(simulate.sweep(numbers, GRID))


def test_a_larger_grid_computes_only_what_is_new(tmp_path):
    simulate.sweep(numbers, GRID, cache_dir=tmp_path)
    result = simulate.sweep(numbers, {**GRID, "n": [7, 5, 3]}, cache_dir=tmp_path)
    assert (result.n_cached, result.n_computed) == (6, 3)


def test_version_seed_and_code_are_part_of_the_key(tmp_path):
    def make(power):
        def cell(seed, n):
            return {"x": n**power}

        return cell

    def computed(cell, **options):
        return simulate.sweep(cell, {"n": [2]}, cache_dir=tmp_path, **options).n_computed

    assert computed(make(2)) == 1
    assert computed(make(2)) == 0
    assert computed(make(3)) == 1
    assert computed(make(2), version="b") == 1
    assert computed(make(2), seed=1) == 1
    assert computed(make(2)) == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda good, other: b"",
        lambda good, other: good[: len(good) // 2],
        lambda good, other: good[:-1],
        lambda good, other: good.replace(b'"mean": ', b'"mean": 1', 1),
        lambda good, other: bytes([good[0] ^ 1]) + good[1:],
        lambda good, other: other,
        lambda good, other: b'{"result": {"mean": 1.0}}',
    ],
    ids=["empty", "half", "one byte short", "edited", "bit flip", "another cell's", "no header"],
)
def test_a_damaged_entry_is_reported_and_computed_again(tmp_path, damage):
    log = tmp_path / "log"
    cell = logging(numbers, str(log))
    first = simulate.sweep(cell, GRID, cache_dir=tmp_path)
    good, other = entries(tmp_path)[:2]
    whole = good.read_bytes()
    broken = damage(whole, other.read_bytes())
    assert broken != whole
    good.write_bytes(broken)
    log.unlink()
    with pytest.warns(CacheWarning, match="computing it again"):
        again = simulate.sweep(cell, GRID, cache_dir=tmp_path)
    assert (again.n_cached, again.n_computed) == (5, 1)
    assert len(executed(log)) == 1
    assert bits(first) == bits(again)
    assert good.read_bytes() == whole


def test_workers_that_do_not_see_the_folder_leave_the_writing_to_the_caller(tmp_path, monkeypatch):
    module = sys.modules["privlearn.simulate.sweep"]
    run_one = module._run_one
    monkeypatch.setattr(
        module, "_run_one", lambda cell, job, store, home: run_one(cell, job, None, home)
    )
    simulate.sweep(numbers, GRID, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 6
    assert simulate.sweep(numbers, GRID, cache_dir=tmp_path).n_computed == 0


def test_a_cell_that_another_sweep_finishes_meanwhile_is_not_computed_again(tmp_path):
    flag, log = str(tmp_path / "flag"), str(tmp_path / "log")

    def cell(seed, n):
        with open(log, "a") as file:
            file.write(f"{n}\n")
        if n == 0 and not os.path.exists(flag):  # the other sweep, while cell 0 is being computed
            open(flag, "w").close()
            assert simulate.sweep(cell, {"n": [1, 2]}, cache_dir=tmp_path).n_computed == 2
        return {"x": n}

    result = simulate.sweep(cell, {"n": [0, 1, 2]}, cache_dir=tmp_path)
    assert (result.n_cached, result.n_computed) == (2, 1)
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "2"]


# --- killed, and started again ------------------------------------------------------------------

SCRIPT = """
import os, sys, time
import numpy as np
from privlearn import simulate
from privlearn.simulate.cache import encode

def cell(seed, i):
    log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{i}\\n".encode())
    time.sleep(float(os.environ["PAUSE"]))
    draws = np.random.default_rng(seed).normal(size=1000)
    return {"mean": draws.mean(), "draws": draws[:50], "nan": float("nan")}

if __name__ == "__main__":
    result = simulate.sweep(
        cell, {"i": range(24)}, seed=5, cache_dir=os.environ.get("CACHE"), n_jobs=int(sys.argv[1])
    )
    print(result.n_cached, result.n_computed)
    for record in result:
        print(encode(record))
"""


def start(folder, n_jobs, cache=True, pause=0.05):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    env = os.environ | {"LOG": str(folder / "log"), "PAUSE": str(pause)}
    if cache:
        env["CACHE"] = str(folder / "cache")
    return subprocess.Popen(
        [sys.executable, str(script), str(n_jobs)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the kill below reaches the workers as well
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    counts, *records = out.splitlines()
    return tuple(map(int, counts.split())), records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    _, records = finish(start(folder, 1, cache=False, pause=0.0))
    return records


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_after_sigkill_only_unfinished_cells_are_computed_and_every_bit_agrees(
    tmp_path, undisturbed, n_jobs
):
    killed = start(tmp_path, n_jobs)
    patience = time.monotonic() + 30
    while len(entries(tmp_path)) < 6 and killed.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    # Whoever was still writing is gone once the group is: count what is really there.
    finished = len(entries(tmp_path))
    begun = (tmp_path / "log").read_text().split()
    assert 6 <= finished < 24
    assert finished <= len(begun) <= finished + n_jobs  # at most the cells in hand were lost

    (tmp_path / "log").unlink()
    counts, records = finish(start(tmp_path, n_jobs, pause=0.0))
    repeated = (tmp_path / "log").read_text().split()
    assert counts == (finished, 24 - finished)
    assert len(repeated) == len(set(repeated)) == 24 - finished
    assert set(begun) | set(repeated) == {str(i) for i in range(24)}
    assert records == undisturbed


def test_two_sweeps_at_once_on_one_cache_both_finish_right(tmp_path, undisturbed):
    both = [start(tmp_path, 1, pause=0.01) for _ in range(2)]
    for (cached, computed), records in map(finish, both):
        assert cached + computed == 24
        assert records == undisturbed
    assert len(entries(tmp_path)) == 24
    assert not list((tmp_path / "cache").rglob(".*"))
    log = (tmp_path / "log").read_text().split()
    assert set(log) == {str(i) for i in range(24)}


# --- workers ------------------------------------------------------------------------------------


def worker_cell(home):
    """Make a cell that says where it ran, once at least two workers have had a chance."""

    def cell(seed, i):
        import jax
        from threadpoolctl import threadpool_info

        time.sleep(0.1)
        # The pool of XLA exists from the first use of a device; count its threads where we can.
        x = float(jax.random.normal(jax.random.key(seed)))
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        return {
            "x": x,
            "draw": np.random.default_rng(seed).normal(size=3),
            "pid": os.getpid(),
            "elsewhere": os.getpid() != home,
            "blas": max((pool["num_threads"] for pool in threadpool_info()), default=1),
            "xla": sum("XLAEigen" in name for name in names),
        }

    return cell


def same_numbers(left, right):
    return [encode({k: r[k] for k in ("i", "x", "draw")}) for r in left] == [
        encode({k: r[k] for k in ("i", "x", "draw")}) for r in right
    ]


@pytest.fixture(scope="module")
def alone():
    result = simulate.sweep(worker_cell(os.getpid()), {"i": range(12)})
    assert not any(r["elsewhere"] for r in result)
    return result


def test_two_processes_give_the_numbers_of_one_and_share_the_cores(tmp_path, alone):
    cell = worker_cell(os.getpid())
    # Two workers on two cores or more: joblib's share, at most half of them.
    result = simulate.sweep(cell, {"i": range(12)}, n_jobs=2, cache_dir=tmp_path)
    assert all(r["elsewhere"] for r in result)
    assert len({r["pid"] for r in result}) == 2
    share = max(1, joblib.cpu_count() // 2)
    assert all(r["blas"] <= share and r["xla"] <= share for r in result)
    assert same_numbers(result, alone)
    assert simulate.sweep(cell, {"i": range(12)}, cache_dir=tmp_path).n_computed == 0


def test_a_dask_cluster_runs_the_sweep_when_joblib_is_told_so(tmp_path, alone):
    distributed = pytest.importorskip("distributed")
    cell = worker_cell(os.getpid())
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        workers = set(client.run(os.getpid).values())
        assert len(workers) == 2
        result = simulate.sweep(cell, {"i": range(12)}, cache_dir=tmp_path)
    assert {r["pid"] for r in result} == workers
    assert all(r["blas"] == 1 and r["xla"] <= 1 for r in result)
    assert same_numbers(result, alone)
    # What the cluster finished is finished for everyone.
    assert simulate.sweep(cell, {"i": range(12)}, cache_dir=tmp_path).n_computed == 0


def test_threads_are_allowed_and_forks_are_not(alone):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        result = simulate.sweep(worker_cell(os.getpid()), {"i": range(12)})
    assert {r["pid"] for r in result} == {os.getpid()}
    assert same_numbers(result, alone)
    with (
        joblib.parallel_config(backend="multiprocessing", n_jobs=2),
        pytest.raises(ValueError, match="forks, and JAX hangs"),
    ):
        simulate.sweep(numbers, GRID)


# --- failures -----------------------------------------------------------------------------------


def failing(log):
    def cell(seed, n):
        if n == 3:
            raise ZeroDivisionError("three is too many")
        with open(log, "a") as file:
            file.write(f"{n}\n")
        return {"x": n}

    return cell


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_failing_cell_is_named_and_the_finished_ones_stay(tmp_path, n_jobs):
    cell = failing(str(tmp_path / "log"))
    with pytest.raises(SweepError, match=r"n=3.*ZeroDivisionError: three is too many") as caught:
        simulate.sweep(cell, {"n": range(6)}, cache_dir=tmp_path, n_jobs=n_jobs)
    assert caught.value.params == {"n": 3}
    assert caught.value.__cause__ is not None
    assert "ZeroDivisionError" in str(caught.value.__cause__) + repr(caught.value.__cause__)
    if n_jobs == 1:
        assert simulate.sweep(cell, {"n": [0, 1, 2]}, cache_dir=tmp_path).n_computed == 0
    kept = len(entries(tmp_path))
    rest = simulate.sweep(cell, {"n": [0, 1, 2, 4, 5]}, cache_dir=tmp_path)
    assert (rest.n_cached, rest.n_computed) == (kept, 5 - kept)


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (3.0, "n=3.*mapping from names to numbers, got float"),
        ({"x": object()}, "n=3.*result 'x' must be a number"),
        ({"n": 1.0}, "n=3.*name of a parameter: n"),
    ],
)
def test_a_result_that_is_no_mapping_of_numbers_is_named_with_its_cell(result, match):
    with pytest.raises(SweepError, match=match):
        simulate.sweep(lambda seed, n: result, {"n": [3]})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"cell": 3}, TypeError, "cell must be a function, got int"),
        ({"grid": {"n": "abc"}}, TypeError, r"grid\['n'\] must be a sequence.*'abc'.*\[value\]"),
        ({"grid": {"n": 3}}, TypeError, r"grid\['n'\] must be a sequence of values, got 3"),
        ({"grid": {"n": []}}, ValueError, r"grid\['n'\] has no values"),
        ({"grid": []}, ValueError, "grid has no cells"),
        ({"grid": "abc"}, TypeError, "grid must be a mapping.*got str"),
        ({"grid": {"seed": [1]}}, ValueError, '"replicate"'),
        ({"grid": {"not a name": [1]}}, TypeError, "identifiers, got 'not a name'"),
        ({"grid": {"n": [1, 2, 1]}}, ValueError, "the cell n=1 twice"),
        ({"grid": {"n": [np.int64(1), 1]}}, ValueError, "the cell n=1 twice"),
        ({"grid": {"n": [object()]}}, TypeError, "grid parameter 'n'.*cannot be hashed"),
        ({"seed": 0.5}, TypeError, "seed must be a whole number, got 0.5"),
        ({"seed": True}, TypeError, "seed must be a whole number, got True"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"n_jobs": "all"}, TypeError, "n_jobs must be a whole number, got 'all'"),
        ({"version": 2}, TypeError, "version must be a string, got 2"),
    ],
)
def test_bad_arguments_are_named(change, error, match):
    arguments = {"cell": numbers, "grid": GRID} | change
    with pytest.raises(error, match=match):
        simulate.sweep(arguments.pop("cell"), arguments.pop("grid"), **arguments)


def test_a_cell_that_has_no_name_and_code_cannot_be_cached(tmp_path):
    class Callable:
        def __call__(self, seed, n):
            return {"x": n}

    assert simulate.sweep(Callable(), {"n": [1]}).n_computed == 1
    with pytest.raises(TypeError, match=r"cell is a .*Callable"):
        simulate.sweep(Callable(), {"n": [1]}, cache_dir=tmp_path)


# --- progress -----------------------------------------------------------------------------------


def test_progress_is_shown_when_asked_and_counts_cached_cells(tmp_path, capsys):
    simulate.sweep(numbers, GRID, cache_dir=tmp_path, progress=True)
    assert "6/6" in capsys.readouterr().err
    simulate.sweep(numbers, {**GRID, "n": [3, 5, 7]}, cache_dir=tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "6/9" in shown
    assert "9/9" in shown


@pytest.mark.parametrize(
    ("ci", "tty", "shown"), [("", True, True), ("", False, False), ("true", True, False)]
)
def test_progress_is_for_terminals_but_not_for_ci(monkeypatch, ci, tty, shown):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    with _bar(None, 2, 0) as bar:
        assert bar.disable is not shown


def test_a_notebook_is_told_from_a_terminal(monkeypatch):
    class Shell:
        kernel = object()

    class IPython:
        get_ipython = staticmethod(Shell)

    assert not _in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert _in_notebook()
    monkeypatch.setattr(Shell, "kernel", None)
    assert not _in_notebook()


def test_results_survive_being_sent_to_another_process():
    import pickle

    result = simulate.sweep(numbers, GRID)
    assert bits(pickle.loads(pickle.dumps(result))) == bits(result)
    error = pickle.loads(pickle.dumps(SweepError("n=3 failed", {"n": 3})))
    assert (str(error), error.params) == ("n=3 failed", {"n": 3})
