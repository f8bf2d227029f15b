"""Children of a node follow the law that their proposal promises."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privlearn.decoding import ModelDrafter, MultiDrafter, NoDrafter, SamplingRule, Topology
from privlearn.decoding.drafters import RecordingDrafter
from privlearn.decoding.models import Prompts, TabularLM

LAW = np.array([0.5, 0.3, 0.0, 0.2])
ROWS = 10_000


@pytest.fixture(scope="module")
def model():
    return TabularLM.from_probabilities(LAW)


def drafted(drafter, rule=None):
    prompts = Prompts(jnp.zeros((ROWS, 2), jnp.int32), jnp.full(ROWS, 2, jnp.int32))
    keys = jax.random.split(jax.random.key(3), ROWS)
    state = drafter.init(keys, prompts, 2, 4)
    text = jnp.zeros((ROWS, 4), jnp.int32)
    rule = SamplingRule.of() if rule is None else rule
    propose = eqx.filter_jit(type(drafter).propose)
    plan, _ = propose(drafter, keys, state, text, prompts.lengths, rule)
    return plan.draft


def assert_law(pairs, law):
    """Chi-square at 1e-7 for pairs of tokens against a 4 x 4 law; impossible pairs never."""
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(np.asarray(pairs).T), 1)
    assert counts[law == 0].sum() == 0
    expected, observed = ROWS * law[law > 0], counts[law > 0]
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert statistic < stats.chi2.isf(1e-7, expected.size - 1)


@pytest.mark.slow
def test_independent_siblings_are_not(model):
    draft = drafted(MultiDrafter.fan_out(model, (2,), "independent"))
    assert_law(draft.tokens, np.outer(LAW, LAW))


def test_siblings_without_replacement_have_another_law(model):
    draft = drafted(MultiDrafter.fan_out(model, (2,)))
    law = np.array(
        [[LAW[i] * LAW[j] / (1 - LAW[i]) if i != j else 0 for j in range(4)] for i in range(4)]
    )
    assert_law(draft.tokens, law)


@pytest.mark.slow
def test_draw_from_an_exhausted_support_counts_as_drafted(model):
    draft = drafted(MultiDrafter.fan_out(model, (4,)))
    assert draft.valid[:, :3].all()
    assert not draft.valid[:, 3].any()
    assert set(np.sort(np.asarray(draft.tokens[:, :3]), axis=1)[0].tolist()) == {0, 1, 3}


@pytest.mark.slow
def test_greedy_siblings_are_not_the_likeliest_and_one_sample(model):
    draft = drafted(MultiDrafter.fan_out(model, (2,), "greedy"))
    law = np.zeros((4, 4))
    law[0] = [0, 0.6, 0, 0.4]
    assert_law(draft.tokens, law)
    one_hot = drafted(MultiDrafter.fan_out(model, (3,), "greedy"), SamplingRule.of(0))
    # The law is one-hot at token 0: ties among zeros go to the lowest id; nothing is left to draw.
    assert (np.asarray(one_hot.tokens[:, :2]) == [0, 1]).all()
    assert not one_hot.valid[:, 2].any()


@pytest.mark.slow
def test_chains_share_their_randomness(model):
    draft = drafted(MultiDrafter.chains(model, 2, 2))
    assert_law(draft.tokens[:, jnp.array([0, 2])], np.outer(LAW, LAW))
    assert_law(draft.tokens[:, jnp.array([1, 2])], np.outer(LAW, LAW))


def test_impossible_drafters_are_built(model):
    with pytest.raises(ValueError, match="gamma"):
        ModelDrafter(model, 0)
    with pytest.raises(TypeError, match="gamma"):
        ModelDrafter(model, 2.5)
    with pytest.raises(ValueError, match="topology"):
        MultiDrafter(model, Topology(()))
    with pytest.raises(ValueError, match="proposal"):
        MultiDrafter.fan_out(model, (2,), "deterministic")
    with pytest.raises(ValueError, match="chains"):
        RecordingDrafter(MultiDrafter.chains(model, 2, 2), 4)
    assert NoDrafter().topology.size == 0
