"""Prompt lookup against a search written as loops."""

import equinox as eqx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.decoding import PromptLookup, SamplingRule


def search(text, gamma, n_max, n_min, prefer):
    """Longest match first; None where nothing of at least n_min tokens matches."""
    for n in range(n_max, n_min - 1, -1):
        ends = [
            end for end in range(n, len(text)) if text[end - n : end] == text[-n:] and n < len(text)
        ]
        if ends:
            end = max(ends) if prefer == "recent" else min(ends)
            follow = text[end:]
            return [follow[i % len(follow)] for i in range(gamma)]
    return None


@pytest.mark.parametrize(("n_min", "prefer"), [(1, "recent"), (2, "first")])
def test_draft_is_not_what_followed_the_match(n_min, prefer):
    drafter = PromptLookup(4, n_max=3, n_min=n_min, prefer=prefer)

    @eqx.filter_jit
    def propose(padded, length):
        return drafter.propose(None, (), padded, length, SamplingRule.of(0))[0]

    @given(st.lists(st.integers(0, 2), min_size=1, max_size=14))
    def check(text):
        padded = np.full((1, 16), 9, np.int32)
        padded[0, : len(text)] = text
        plan = propose(padded, np.array([len(text)]))
        expected = search(text, 4, 3, n_min, prefer)
        assert bool(plan.draft.valid.all()) == (expected is not None)
        if expected is not None:
            assert plan.draft.tokens[0].tolist() == expected

    check()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"gamma": 0}, "gamma"),
        ({"n_min": 0}, "n_min"),
        ({"n_min": 3, "n_max": 2}, "n_max"),
        ({"prefer": "best"}, "prefer"),
    ],
)
def test_impossible_lookup_is_built(arguments, word):
    with pytest.raises(ValueError, match=word):
        PromptLookup(**arguments)
