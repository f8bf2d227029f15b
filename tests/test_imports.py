"""Importing privlearn is quick and has no effects, and theory can be read without JAX."""

import json
import subprocess
import sys

import pytest

import privlearn

HEAVY = {
    "jax", "jaxlib", "numpy", "scipy", "sklearn", "altair", "pandas", "polars", "pyarrow",
    "narwhals", "opendp", "dp_accounting", "cvxpy", "equinox", "optax", "joblib", "tqdm",
}  # fmt: skip


def fresh(code):
    """Run code in a fresh interpreter; what it puts into ``result`` comes back."""
    code = f"import json, sys\n{code}\nprint('\\n' + json.dumps(result))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_privlearn_imports_nothing_heavy():
    assert HEAVY & set(fresh("import privlearn\nresult = sorted(sys.modules)")) == set()


def test_import_privlearn_takes_less_than_300_ms():
    """Of processor time, the best of three: what else the machine does must not decide."""
    code = (
        "import time\nstart = time.process_time()\nimport privlearn\n"
        "result = time.process_time() - start"
    )
    assert min(fresh(code) for _ in range(3)) < 0.3


def test_import_privlearn_starts_no_thread_and_leaves_randomness_alone():
    code = """
import os, random, threading
before = random.getstate(), dict(os.environ)
import privlearn
result = [threading.active_count(), before == (random.getstate(), dict(os.environ))]
"""
    assert fresh(code) == [1, True]


SUBPACKAGES = sorted({"claims", "datasets", "figures", "privacy", "simulate", *privlearn.TOPICS})


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_importing_a_subpackage_imports_no_jax(name):
    modules = fresh(f"import privlearn.{name}\nresult = sorted(sys.modules)")
    assert {"jax", "jaxlib"} & set(modules) == set()


@pytest.mark.parametrize("topic", privlearn.TOPICS)
def test_theory_can_be_read_without_jax(topic):
    code = f"from privlearn.{topic} import theory\ndir(theory)\nresult = sorted(sys.modules)"
    assert {"jax", "jaxlib"} & set(fresh(code)) == set()


def test_importing_everything_changes_no_jax_setting_and_draws_no_numpy_randomness():
    code = """
import importlib, pkgutil
import jax, numpy as np
before = {k: repr(v) for k, v in jax.config.values.items()}
state = repr(np.random.get_state())
import privlearn
names = []
for module in pkgutil.walk_packages(privlearn.__path__, "privlearn."):
    if module.name.split(".")[-1] != "__main__":
        importlib.import_module(module.name)
        names.append(module.name)
after = {k: repr(v) for k, v in jax.config.values.items()}
changed = {k: [before.get(k), after[k]] for k in after if before.get(k) != after[k]}
result = [changed, state == repr(np.random.get_state()), len(names)]
"""
    changed, same_randomness, count = fresh(code)
    assert changed == {}
    assert same_randomness
    assert count > 20


def test_every_public_name_of_the_package_resolves():
    for name in privlearn.__all__:
        assert getattr(privlearn, name) is not None
