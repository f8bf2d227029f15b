"""Claims are refused when malformed, found by name, topic or pattern, and loaded once."""

import dataclasses
import math
import subprocess
import sys

import pytest

from privlearn import claims
from privlearn.claims import Claim, Measurement, discovery


def make(name="aggregate/risk", **changes):
    fields = {
        "name": name,
        "topic": name.split("/")[0],
        "statement": "the risk is one",
        "source": "made up",
        "measure": lambda profile: Measurement(1.0, 1.0, 1e-4),
        "resolution": 0.01,
    }
    return Claim(**(fields | changes))


@pytest.fixture
def empty():
    with claims.isolated():
        yield


@pytest.fixture
def three(empty):
    return [claims.register(make(n)) for n in ("aggregate/risk", "aggregate/noise", "pacing/cost")]


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"name": ""}, ValueError, "name"),
        ({"name": "Has Spaces"}, ValueError, "name"),
        ({"name": "star*"}, ValueError, "name"),
        ({"topic": None}, ValueError, "topic"),
        ({"statement": "  "}, ValueError, "statement"),
        ({"source": ""}, ValueError, "source"),
        ({"measure": 0.5}, TypeError, "measure"),
        ({"resolution": 0.0}, ValueError, "resolution"),
        ({"resolution": 1.0}, ValueError, "resolution"),
        ({"resolution": math.nan}, ValueError, "resolution"),
        ({"resolution": "2 %"}, ValueError, "resolution"),
        ({"n_sigma": 0}, ValueError, "n_sigma"),
        ({"n_sigma": math.inf}, ValueError, "n_sigma"),
        ({"tolerance": -1e-9}, ValueError, "tolerance"),
        ({"tolerance": 0.01}, ValueError, "tolerance"),
        ({"tolerance": True}, ValueError, "tolerance"),
    ],
)
def test_a_malformed_claim_is_refused_and_the_argument_named(changes, error, word):
    with pytest.raises(error, match=word):
        make(**changes)


def test_claims_are_values():
    claim = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim.resolution = 0.5


def test_register_returns_the_claim_and_get_finds_it(empty):
    claim = make()
    assert claims.register(claim) is claim
    assert claims.get("aggregate/risk") is claim


def test_a_second_claim_of_the_same_name_is_an_error(three):
    with pytest.raises(ValueError, match="already a claim named 'aggregate/risk'"):
        claims.register(make("aggregate/risk", source="elsewhere"))
    assert len(claims.names()) == 3


def test_only_claims_can_be_registered(empty):
    with pytest.raises(TypeError, match="expects a Claim"):
        claims.register("aggregate/risk")


def test_names_keep_their_order_and_match_by_name_topic_and_glob(three):
    assert claims.names() == ("aggregate/risk", "aggregate/noise", "pacing/cost")
    assert claims.names("aggregate") == ("aggregate/risk", "aggregate/noise")
    assert claims.names("pacing/cost") == ("pacing/cost",)
    assert claims.names(["*/cost", "aggregate/r*"]) == ("aggregate/risk", "pacing/cost")
    assert claims.names(["aggregate", "aggregate/risk"]) == ("aggregate/risk", "aggregate/noise")


@pytest.mark.parametrize("lookup", [claims.get, claims.names, claims.select, claims.run])
def test_an_unknown_name_suggests_close_ones(three, lookup, monkeypatch):
    monkeypatch.setattr(discovery, "discover", lambda: None)
    with pytest.raises(LookupError, match=r"matches 'agregate/risk'; did you mean aggregate/risk"):
        lookup("agregate/risk")
    with pytest.raises(LookupError, match="3 claims on: aggregate, pacing"):
        lookup("zzz")


def test_an_unknown_name_in_an_empty_registry_says_how_to_fill_it(empty):
    with pytest.raises(LookupError, match="discover"):
        claims.get("anything")


def test_a_block_in_isolation_leaves_no_trace():
    before = claims.names()
    with claims.isolated():
        assert claims.names() == ()
        claims.register(make("temporary/claim"))
    assert claims.names() == before


CHECKS = """
from privlearn import claims

claims.register(
    claims.Claim(
        name="{name}", topic="{topic}", statement="one is one", source="arithmetic",
        measure=lambda profile: claims.Measurement(1.0, {estimate}, 1e-4), resolution=0.01,
    )
)
"""


@pytest.fixture
def checks(tmp_path, empty, monkeypatch):
    """A folder of two sound theory-check files, one that is broken half-way, and one private."""
    for name in ("_loaded", "_failures"):
        monkeypatch.setattr(discovery, name, type(getattr(discovery, name))())
    monkeypatch.setattr(discovery, "folder", lambda: tmp_path)
    text = CHECKS.format(name="one/holds", topic="one", estimate=1.0)
    (tmp_path / "one.py").write_text(text)
    text = CHECKS.format(name="two/does-not", topic="two", estimate=1.5)
    (tmp_path / "two.py").write_text(text)
    text = CHECKS.format(name="broken/half", topic="broken", estimate=1.0)
    (tmp_path / "broken.py").write_text(text + "raise RuntimeError('no more')\n")
    (tmp_path / "_helper.py").write_text("raise RuntimeError('never loaded')\n")
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("privlearn_theory_checks.")]:
        if str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_discover_loads_each_file_once_and_under_a_stable_name(checks):
    assert claims.discover() == ("one/holds", "two/does-not")
    assert claims.discover() == ("one/holds", "two/does-not")
    assert sys.modules["privlearn_theory_checks.one"].__file__ == str(checks / "one.py")


def test_a_file_that_cannot_be_loaded_registers_nothing_and_is_reported(checks):
    claims.discover()
    assert "broken/half" not in claims.names()
    (path,) = claims.failures()
    assert path.name == "broken.py"


def test_a_file_that_was_repaired_is_loaded_by_the_next_discover(checks):
    claims.discover()
    text = CHECKS.format(name="broken/half", topic="broken", estimate=1.0)
    (checks / "broken.py").write_text(text)
    assert "broken/half" in claims.discover()
    assert not claims.failures()


def test_run_reports_all_and_is_not_stopped_by_a_failure(checks):
    started, done = [], []
    verdicts = claims.run(on_start=started.append, on_verdict=done.append)
    assert {v.name: v.status for v in verdicts} == {
        "broken.py": "error",
        "one/holds": "passed",
        "two/does-not": "differs",
    }
    assert done == verdicts
    assert [claim.name for claim in started] == ["one/holds", "two/does-not"]
    assert "no more" in verdicts[0].message


def test_run_of_some_names_runs_only_those(checks):
    assert [v.name for v in claims.run(["one"])] == ["one/holds"]
    assert [v.name for v in claims.run("*/does-not")] == ["two/does-not"]


def test_run_of_a_topic_whose_file_is_broken_fails_instead_of_not_knowing_it(checks):
    (verdict,) = claims.run("broken")
    assert not verdict.passed
    with pytest.raises(LookupError, match="zzz"):
        claims.run(["broken", "zzz"])


def test_a_file_already_imported_is_not_loaded_again(checks, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("somewhere.one", checks / "one.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "somewhere.one", module)
    spec.loader.exec_module(module)
    assert claims.discover() == ("one/holds", "two/does-not")
    assert "privlearn_theory_checks.one" not in sys.modules


def test_the_folder_of_theory_checks_is_found_beside_the_package():
    assert discovery.folder().name == "theory_checks"
    assert discovery.folder().is_dir()


def test_the_folder_inside_an_installed_package_is_found_too(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "privlearn"
    (package / "theory_checks").mkdir(parents=True)
    monkeypatch.setattr("privlearn.__file__", str(package / "__init__.py"))
    assert discovery.folder() == package / "theory_checks"
    (package / "theory_checks").rmdir()
    with pytest.raises(FileNotFoundError, match="no theory checks"):
        discovery.folder()


def test_claims_load_without_jax():
    code = "import privlearn.claims, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_registrar_fills_in_what_the_claims_of_a_topic_share():
    claim = claims.registrar("demo", source="a book", resolution=0.2)
    with claims.isolated():
        made = claim("coin", "half heads", lambda profile: None, tolerance=0.01, resolution=0.1)
        assert claims.get("demo/coin") is made
    assert (made.topic, made.source, made.resolution) == ("demo", "a book", 0.1)
    assert made.tolerance == 0.01


def test_registrar_refuses_a_field_that_claims_do_not_have():
    with claims.isolated(), pytest.raises(TypeError, match="colour"):
        claims.registrar("demo", source="a book")("x", "y", lambda profile: None, colour="red")


def test_a_profile_that_does_not_exist_is_named():
    assert claims.by_profile("paper", 1, 2) == 2
    with pytest.raises(ValueError, match="fast"):
        claims.by_profile("fast", 1, 2)
