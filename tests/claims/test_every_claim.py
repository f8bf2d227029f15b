"""Every claim holds, and would have failed had its theory been off by its declared resolution."""

import pytest

from privlearn import claims

NAMES = claims.discover()


def test_every_theory_check_file_can_be_loaded():
    assert claims.failures() == {}
    assert NAMES


# One test a claim and not three, so that its estimate is computed once, whatever the workers.
@pytest.mark.parametrize("name", NAMES)
def test_claim_holds_and_would_fail_if_its_theory_were_off_by_its_declared_resolution(name):
    claim = claims.get(name)
    verdict = claims.check_claim(claim)
    assert verdict.passed, verdict.message
    for factor in (1 + claim.resolution, 1 - claim.resolution):
        doubted = claims.judge(claim, verdict.measurement, theory_factor=factor)
        assert doubted.status == "differs", f"theory times {factor:g} went unnoticed: {doubted}"
