import dataclasses
import functools
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.simulate.identity import fingerprint, function_name

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(SCALARS, inner),
)


def typed(value):
    """Write a value so that equal text means the same value of the same type."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{typed(k)}:{typed(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ",".join(map(typed, value)) + ")"
    return f"{type(value).__name__}:{value!r}"


@given(VALUES, VALUES)
def test_values_share_a_fingerprint_exactly_when_they_are_the_same(left, right):
    assert (fingerprint(left) == fingerprint(right)) == (typed(left) == typed(right))


def test_close_values_that_differ_have_different_fingerprints():
    values = [1, 1.0, True, "1", b"1", (1,), [1], {1}, {1: None}, 1j, np.ones(1), np.ones(1, int)]
    values += [
        0.0,
        -0.0,
        np.nextafter(0.0, 1.0),
        float("nan"),
        float("inf"),
        None,
        ["ab"],
        ["a", "b"],
    ]
    values += [np.ones((1, 2)), np.ones((2, 1)), np.ones(2, np.float32), os, np, int, float]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_numpy_scalars_and_jax_arrays_count_by_content():
    assert fingerprint(np.float64(0.1)) == fingerprint(0.1)
    assert fingerprint(np.int32(3)) == fingerprint(3)
    assert fingerprint(jnp.arange(3, dtype=jnp.int32)) == fingerprint(np.arange(3, dtype=np.int32))


def module(source):
    """Run the source of a module and return its function `cell`."""
    namespace = {"__name__": "some_module"}
    exec(compile(source, "anywhere.py", "exec"), namespace)
    return namespace["cell"]


CELL = """
SCALE = 2.0
def helper(x):
    return SCALE * x
def cell(seed, n=3):
    return {"x": helper(seed) + sum(i in {1, 2, "a", "b"} for i in range(n))}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("helper(seed) +", "helper(seed) -"),
        ('"x"', '"y"'),
        ("n=3", "n=4"),
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("return SCALE * x", "return SCALE + x"),
        ("range(n)", "range(n + 1)"),
    ],
)
def test_a_change_of_code_or_of_what_it_names_in_its_module_is_seen(old, new):
    assert fingerprint(module(CELL)) != fingerprint(module(CELL.replace(old, new)))


def test_comments_lines_and_unrelated_code_do_not_matter():
    other = "\n\n# a comment\nUNRELATED = 1\n" + CELL.replace(
        "    return {", "    # why\n    return {"
    )
    assert fingerprint(module(CELL)) == fingerprint(module(other))


def test_what_a_function_carries_along_is_part_of_it():
    def make(value):
        def cell(seed):
            return {"x": value}

        return cell

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(functools.partial(make, 1)) != fingerprint(functools.partial(make, 2))
    assert function_name(functools.partial(make(1), 3)) == function_name(make(1))
    with pytest.raises(TypeError, match=r"value.*'value'.*is a builtins.object"):
        fingerprint(make(object()))


def test_a_function_that_calls_itself_has_a_fingerprint():
    recursive = "def cell(n):\n    return n and cell(n - 1)\n"
    assert fingerprint(module(recursive)) != fingerprint(module(recursive.replace("- 1", "- 2")))


def test_fingerprints_are_the_same_in_another_process():
    code = (
        "from privlearn.simulate.identity import fingerprint\n"
        f"namespace = {{'__name__': 'some_module'}}\nexec({CELL!r}, namespace)\n"
        "print(fingerprint(namespace['cell']), fingerprint({'a': {1, 'b', 2.5}, 'c': 3}))"
    )
    expected = f"{fingerprint(module(CELL))} {fingerprint({'c': 3, 'a': {2.5, 1, 'b'}})}"
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


@dataclasses.dataclass
class Setting:
    rho: float


def test_dataclasses_count_by_their_fields():
    assert fingerprint(Setting(0.1)) == fingerprint(Setting(0.1)) != fingerprint(Setting(0.2))


@pytest.mark.parametrize("value", [object(), np.array([object()]), iter([1])])
def test_values_without_content_are_refused(value):
    with pytest.raises(TypeError, match=r"grid parameter 'x'.*cannot be hashed"):
        fingerprint(value, "grid parameter 'x'")
