"""The table must be readable, the JSON complete or absent, the exit status honest."""

import json
import math
import os

import pytest

from privlearn import claims
from privlearn.claims import Claim, Measurement, report


def make(name, *measured, **changes):
    fields = {
        "name": name,
        "topic": name.split("/")[0],
        "statement": "the risk is one",
        "source": "made up",
        "measure": lambda profile: Measurement(*measured),
        "resolution": 0.01,
    }
    return Claim(**(fields | changes))


GOOD = make("demo/good", 1.0, 1.0001, 1e-4, 100)
WRONG = make("demo/wrong", [1.0, 2.0], [1.0, 2.5], 1e-4, 100)
BROKEN = make("demo/broken", measure=lambda profile: 1 / 0)
LONG = make("demo/" + "-".join(["long"] * 20), -1.234567e-123, -1.234567e-123, 1e-126)
FAR = make("demo/far", -1.0e-100, 1.0e200, 1e-104)


@pytest.fixture
def verdicts():
    return [claims.check_claim(claim) for claim in (GOOD, WRONG, BROKEN, LONG, FAR)]


@pytest.fixture
def registered():
    with claims.isolated():
        for claim in (GOOD, WRONG, BROKEN):
            claims.register(claim)
        claims.register(make("other/one", 1.0, 1.0, 1e-4))
        yield


def test_the_table_names_every_claim_and_fits_100_columns(verdicts):
    text = claims.table(verdicts)
    assert all(len(line) <= 100 for line in text.splitlines()), text
    assert "ok    demo/good" in text
    assert "FAIL  demo/wrong" in text
    assert "ERROR demo/broken" in text
    assert "ZeroDivisionError" in text
    assert "2 of 5 claims hold" in text
    assert "not so: demo/wrong, demo/broken, demo/far" in text


def test_json_holds_every_field_and_every_component(verdicts, tmp_path):
    path = claims.write_json(verdicts, tmp_path / "deep" / "claims.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["passed"] is False
    good, wrong, broken, *_ = content["claims"]
    assert good["name"] == "demo/good"
    assert good["passed"] is True
    assert good["n"] == 100
    assert "values" not in good
    assert wrong["values"]["estimate"] == [1.0, 2.5]
    assert broken["theory"] is None, "nan is not JSON"
    assert math.isfinite(good["resolution"])


def test_json_has_the_permissions_of_any_new_file(verdicts, tmp_path):
    (tmp_path / "plain").touch()
    path = claims.write_json(verdicts, tmp_path / "claims.json")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_that_cannot_be_finished_leaves_the_old_file_and_no_litter(
    verdicts, tmp_path, monkeypatch
):
    path = claims.write_json(verdicts[:1], tmp_path / "claims.json")
    before = path.read_bytes()

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        claims.write_json(verdicts, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["claims.json"]


def test_main_runs_one_topic_and_its_status_tells_of_failure(registered, capsys):
    assert claims.main(topic="demo", argv=[]) == 1
    out = capsys.readouterr().out
    assert "demo/good" in out
    assert "other/one" not in out
    assert claims.main(topic="other", argv=[]) == 0


def test_main_takes_names_profile_and_json(registered, capsys, tmp_path):
    path = tmp_path / "out.json"
    arguments = ["demo/good", "--profile", "paper", "--json", str(path)]
    assert claims.main(topic="demo", argv=arguments) == 0
    (only,) = json.loads(path.read_text())["claims"]
    assert only["profile"] == "paper"


def test_main_lists_without_running(registered, capsys):
    assert claims.main(topic="demo", argv=["--list"]) == 0
    out = capsys.readouterr().out
    assert "demo/broken" in out
    assert "the risk is one [made up]" in out


def test_main_of_an_unknown_name_is_a_usage_error(registered, capsys):
    assert claims.main(topic="demo", argv=["demo/god"]) == 2
    assert "did you mean demo/good" in capsys.readouterr().err


def test_off_is_empty_for_exact_comparisons():
    exact = make("demo/exact", 1.0, 1.0, tolerance=1e-9, resolution=1e-8)
    line = report.row(claims.check_claim(exact))
    assert "se" not in line.split()
