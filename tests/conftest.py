"""What holds for all tests: one hypothesis profile, and enough threads for XLA."""

import re
from pathlib import Path

import hypothesis
import pytest

import privlearn
from privlearn.environment import widen_xla_pool

# Compilation by JAX takes longer than a deadline allows.
hypothesis.settings.register_profile("privlearn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("privlearn")
widen_xla_pool()

_PACKAGE = Path(privlearn.__file__).parent
#: Topics that are still being built: the tree has them, `privlearn.TOPICS` and the report do not.
UNFINISHED = {theory.parent.name for theory in _PACKAGE.glob("*/theory")} - set(privlearn.TOPICS)


def pytest_collection_modifyitems(items):
    """Count every test of an unfinished topic among the slow ones, its claims included."""
    for item in items:
        # The name of a claim ("topic/...") or of a figure ("topic-...").
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        named = re.split("[/-]", str(parameters.get("name", "")))[0]
        if UNFINISHED & {named, *item.path.parts[-4:]}:
            item.add_marker(pytest.mark.slow)
