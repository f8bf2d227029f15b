"""What the loop counts, on drafts small enough to count by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding import DecodingStatistics, Draft, Topology
from privlearn.decoding.statistics import count_step, empty_tally

LAW = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])


def counted(draft, law, tokens, tau, emitted=None, alive=True):
    tally = count_step(
        empty_tally(1, draft.topology.height),
        draft,
        jnp.asarray(law)[None],
        jnp.array([tokens]),
        jnp.array([tau]),
        jnp.array([tau + 1 if emitted is None else emitted]),
        jnp.array([alive]),
    )
    return DecodingStatistics.of(tally, 1)


def test_chain_counts_positions_that_were_not_reached():
    q = np.array([[0.5, 0.5, 0.0], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    draft = Draft.chain(jnp.array([[0, 1, 2]]), jnp.asarray(q)[None])
    found = counted(draft, LAW, [0, 2, -1, -1], tau=1)
    assert found.tau_histogram.tolist() == [0, 1, 0, 0]
    assert found.reached.tolist() == [[1, 1, 0]]
    assert found.accepted.tolist() == [[1, 0, 0]]
    overlap = [np.minimum(LAW[i], q[i]).sum() for i in (0, 1)]
    assert found.acceptance_rate == pytest.approx(np.mean(overlap))
    assert found.block_efficiency == 2.0
    np.testing.assert_array_equal(found.acceptance_by_position, [1.0, 0.0, np.nan])


def test_tokens_that_were_cut_count_as_emitted():
    draft = Draft.chain(jnp.array([[0, 1]]), jnp.full((1, 2, 3), 1 / 3))
    found = counted(draft, LAW[:3], [0, 1, 2], tau=2, emitted=1)
    assert found.block_efficiency == 1.0
    assert found.tau_histogram.tolist() == [0, 0, 1]


def test_row_that_is_done_is_counted():
    draft = Draft.chain(jnp.array([[0]]), jnp.full((1, 1, 3), 1 / 3))
    found = counted(draft, LAW[:2], [0, 1], tau=1, emitted=0, alive=False)
    assert found.steps.tolist() == found.emitted.tolist() == [0]
    assert np.isnan(found.block_efficiency)
    assert np.isnan(found.acceptance_rate)
    assert found.reached.sum() == found.tau_histogram.sum() == 0


def test_repeated_candidate_counts_twice_or_a_dead_one_counts():
    """Chains 0 1, 0 2, 0 2, 1 0: after 0 the candidates 1 and 2 live; 2 counts once."""
    chains = jnp.array([[[0, 1], [0, 2], [0, 2], [1, 0]]])
    law = np.tile(LAW[1], (9, 1))
    law[0] = LAW[0]
    found = counted(Draft.chains(chains), law, [0, 2, 0], tau=2)
    assert found.overlap[0] == pytest.approx(0.9 + 0.8)
    assert found.reached.tolist() == [[1, 1]]


def test_invalid_draft_counts_as_reached():
    draft = Draft.chain(jnp.array([[0, 1]]), valid=jnp.zeros((1, 2), bool))
    found = counted(draft, LAW[:3], [2, -1, -1], tau=0)
    assert found.reached.sum() == 0
    assert found.block_efficiency == 1.0


def test_overlap_of_a_tree_is_not_that_of_the_visited_nodes():
    """Fan-out (2, 1): children 0 and 2 of the root, one child of each; the path goes by the 2nd."""
    topology = Topology.fan_out((2, 1))
    q = np.array([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.9, 0.1, 0.0], [0.0, 0.9, 0.1]])
    draft = Draft.tree(jnp.array([[0, 2, 1, 1]]), topology, jnp.asarray(q)[None])
    law = np.stack([LAW[0], LAW[1], LAW[2], LAW[3], LAW[3]])
    found = counted(draft, law, [2, 0, -1], tau=1)
    root = np.minimum(LAW[0], q[0]).sum()
    visited = np.minimum(LAW[2], q[3]).sum()
    assert found.overlap[0] == pytest.approx(root + visited)
