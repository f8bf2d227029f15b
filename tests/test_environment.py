"""pyproject.toml, environment.yml and the lock describe one environment."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# The same project under another name on conda-forge.
CONDA_NAMES = {"python-duckdb": "duckdb"}


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    return {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, lines)}


def conda() -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lines = [e for e in entries if isinstance(e, str)]
    lines += next(e["pip"] for e in entries if isinstance(e, dict))
    found = {}
    for line in lines:
        if line.startswith("-e") or line in {"pip", "python>=3.11"}:
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = str(requirement.specifier)
    return found


def locked() -> dict[str, list[str]]:
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip(" \\"))
            version = str(requirement.specifier).removeprefix("==")
            pins.setdefault(canonicalize_name(requirement.name), []).append(version)
    return pins


def test_conda_users_get_the_same_requirements_as_pip_users():
    assert conda() == declared()


def test_lock_pins_every_requirement_within_its_bounds():
    pins = locked()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(line)
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock: run `make lock`"
        assert all(requirement.specifier.contains(v) for v in versions)


@pytest.mark.parametrize("name", ["", "-data", "-smollm"])
def test_lock_has_a_hash_for_every_pin_and_names_no_host(name):
    text = (ROOT / f"requirements{name}.lock").read_text()
    for block in re.split(r"\n(?=[a-z0-9])", text.strip(), flags=re.IGNORECASE):
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert not re.search(r"https?:|index-url|find-links|@ ", text)
