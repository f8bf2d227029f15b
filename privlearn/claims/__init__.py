"""Theory checks: every published statement that the package relies on, beside a measurement of it.

A claim fails if theory and measurement contradict each other, and also if the measurement is too
blunt to have contradicted it: a check that cannot fail is a failure.

The claims themselves live in ``theory_checks/``; ``privlearn check`` runs them.

Examples
--------
>>> from privlearn import claims
>>> coin = claims.Claim(
...     name="doc/coin",
...     topic="doc",
...     statement="a fair coin shows heads half the time",
...     source="folklore",
...     measure=lambda profile: claims.Measurement(0.5, 0.503, 0.005, n=10_000),
...     resolution=0.1,
... )
>>> verdict = claims.check_claim(coin)
>>> verdict.passed, round(verdict.resolution, 3)
(True, 0.073)
"""

from privlearn.claims.checking import Verdict, check_claim, judge, resolution_of, run
from privlearn.claims.claim import PROFILES, Claim, Measurement, by_profile
from privlearn.claims.discovery import discover, failures, folder
from privlearn.claims.registry import get, isolated, names, register, registrar, select
from privlearn.claims.report import listing, main, table, to_dict, write_json

__all__ = [
    "PROFILES",
    "Claim",
    "Measurement",
    "Verdict",
    "by_profile",
    "check_claim",
    "discover",
    "failures",
    "folder",
    "get",
    "isolated",
    "judge",
    "listing",
    "main",
    "names",
    "register",
    "registrar",
    "resolution_of",
    "run",
    "select",
    "table",
    "to_dict",
    "write_json",
]
