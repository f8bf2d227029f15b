"""The examples of the README run as they stand."""

import re
from pathlib import Path

import pytest

_README = Path(__file__).parents[1] / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```", _README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_readme_has_an_example_for_each_kind_of_reader():
    assert len(_BLOCKS) >= 4


@pytest.mark.parametrize("code", _BLOCKS, ids=[block.split("\n")[0] for block in _BLOCKS])
def test_example_of_the_readme_runs(code):
    names: dict = {}
    exec(compile(code, str(_README), "exec"), names)
    assert set(names) - {"__builtins__"}
