"""A kept measurement is the one that was made, and only where that was asked for."""

import dataclasses

import numpy as np
import pytest

from privlearn import claims
from privlearn.claims import memory


@pytest.fixture
def claim():
    claims.discover()
    return claims.select(())[0]


@pytest.fixture
def counted(claim, monkeypatch):
    """The claim with a measurement that counts its calls, taken for one of theory_checks."""
    calls = []

    def measure(profile):
        calls.append(profile)
        return claims.Measurement(np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.001, len(calls))

    monkeypatch.setattr(memory, "_is_ours", lambda claim: True)
    return dataclasses.replace(claim, measure=measure), calls


def test_without_the_variable_nothing_is_kept(counted, monkeypatch):
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    claim, _calls = counted
    assert [memory.measure(claim, "quick").n for _ in range(2)] == [1, 2]


def test_a_second_process_would_read_what_the_first_one_measured(counted, monkeypatch, tmp_path):
    monkeypatch.setenv(memory.VARIABLE, str(tmp_path))
    claim, calls = counted
    first, second = (memory.measure(claim, "quick") for _ in range(2))
    assert calls == ["quick"]
    assert second.n == 1
    np.testing.assert_array_equal(first.theory, second.theory)
    memory.measure(claim, "paper")
    assert calls == ["quick", "paper"]


def test_changed_code_forgets_everything(counted, monkeypatch, tmp_path):
    monkeypatch.setenv(memory.VARIABLE, str(tmp_path))
    claim, calls = counted
    memory.measure(claim, "quick")
    monkeypatch.setattr(memory, "_code", lambda: "other code")
    memory.measure(claim, "quick")
    assert len(calls) == 2


def test_a_claim_from_elsewhere_is_never_kept(claim, monkeypatch, tmp_path):
    monkeypatch.setenv(memory.VARIABLE, str(tmp_path))
    own = dataclasses.replace(claim, measure=lambda profile: claims.Measurement(1.0, 1.0, 0.1))
    memory.measure(own, "quick")
    assert not list(tmp_path.iterdir())


def test_every_claim_of_the_theory_checks_can_be_kept():
    claims.discover()
    assert [claim.name for claim in claims.select(()) if not memory._is_ours(claim)] == []
