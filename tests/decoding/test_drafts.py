"""Drafts: trees, masks, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.decoding.drafts import Draft, Topology, ancestor_mask


@st.composite
def trees(draw):
    size = draw(st.integers(0, 9))
    return Topology(tuple(draw(st.integers(-1, m - 1)) for m in range(size)))


@given(trees())
def test_mask_shows_each_slot_exactly_its_ancestors(tree):
    for node in range(tree.size):
        seen, at = {0, node + 1}, node
        while tree.parent[at] >= 0:
            at = tree.parent[at]
            seen.add(at + 1)
        assert set(np.flatnonzero(tree.mask[node + 1])) == seen
    assert set(np.flatnonzero(tree.mask[0])) == {0}


@given(trees())
def test_paths_and_levels_agree_with_parents(tree):
    for node in range(tree.size):
        path = [m for m in tree.paths[node] if m >= 0]
        assert path[-1] == node
        assert len(path) == tree.depth[node]
        assert [tree.parent[m] for m in path] == [-1, *path[:-1]]
    assert sorted(m for level in tree.levels for m in level) == list(range(tree.size))


def test_mask_at_run_time_equals_the_static_one():
    trees = [(-1, 0, 1, 2), (-1, -1, -1, -1), (-1, 0, 0, 1), (-1, 0, -1, 2)]
    found = ancestor_mask(jnp.array(trees))
    for tree, mask in zip(trees, found, strict=True):
        np.testing.assert_array_equal(mask, Topology(tree).mask)


def test_shapes_of_chains():
    assert Topology.chain(3).is_chain
    assert Topology.chain(0).height == 0
    assert not Topology.chains(2, 3).is_chain
    assert Topology.chains(2, 3).is_chains
    assert not Topology.fan_out((2, 2)).is_chains
    assert Topology.fan_out((3, 1)) == Topology((-1, -1, -1, 0, 1, 2))


def test_chains_keep_tokens_and_laws_together():
    tokens = jnp.arange(12).reshape(1, 2, 6)[:, :, :3]
    q = jax.nn.one_hot(tokens, 20)
    draft = Draft.chains(tokens, q)
    np.testing.assert_array_equal(draft.q.argmax(-1), draft.tokens)
    assert draft.parent.tolist() == [[-1, 0, 1, -1, 3, 4]]
    assert draft.depth.tolist() == [[1, 2, 3, 1, 2, 3]]


def test_draft_is_a_pytree_with_a_static_shape():
    draft = Draft.chain(jnp.zeros((2, 3), int), jnp.ones((2, 3, 4)) / 4)
    assert len(jax.tree.leaves(draft)) == 3
    out = jax.jit(lambda d: d)(draft)
    assert out.topology == draft.topology
    assert out.proposal == "independent"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Topology((0,)), ValueError, r"parent\[0\]"),
        (lambda: Topology((-1, 5)), ValueError, "earlier node"),
        (lambda: Topology.fan_out((2, 0)), ValueError, "widths"),
        (lambda: Topology.chains(0, 3), ValueError, "n_drafts"),
        (lambda: Draft.chain(jnp.zeros((2, 3))), TypeError, "integers"),
        (lambda: Draft.chain(jnp.zeros(3, int)), ValueError, "tokens must have shape"),
        (
            lambda: Draft.chain(jnp.zeros((2, 3), int), jnp.ones((2, 2, 4))),
            ValueError,
            "q must have shape",
        ),
        (
            lambda: Draft.chain(jnp.zeros((1, 2), int), valid=jnp.ones((1, 2))),
            ValueError,
            "valid must be bool",
        ),
        (
            lambda: Draft.tree(jnp.zeros((1, 2), int), Topology.chain(2), proposal="greedy"),
            ValueError,
            "needs q",
        ),
        (
            lambda: Draft.tree(
                jnp.zeros((1, 1), int),
                Topology.chain(1),
                jnp.ones((1, 1, 2)),
                proposal="deterministic",
            ),
            ValueError,
            "takes no q",
        ),
        (lambda: Draft.tree(jnp.zeros((1, 2), int), (-1, 0)), TypeError, "Topology"),
    ],
)
def test_malformed_drafts_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
