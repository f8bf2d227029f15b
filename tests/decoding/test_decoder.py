"""The decoder's face: bad input, parameters, statistics against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone

from privlearn.decoding import (
    Lookahead,
    ModelDrafter,
    MultiDrafter,
    NoDrafter,
    PromptLookup,
    SpeculativeDecoder,
)
from privlearn.decoding.models import TabularLM, TransformerConfig


@pytest.fixture(scope="module")
def models(random_table):
    return random_table(0, 6), random_table(1, 6)


@pytest.fixture(scope="module")
def transformer(random_transformer):
    return random_transformer(0, TransformerConfig(6, 8, 1, n_heads=2, context=16))


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.1}, "top_p"),
        ({"gamma": -1}, "gamma"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"eos": 6}, "eos"),
        ({"eos": [1, -1]}, "eos"),
        ({"verifier": "magic"}, "verifier"),
        ({"drafter": "magic"}, "drafter"),
        ({"drafter": "lookahead"}, "block"),
    ],
)
def test_impossible_parameter_generates(models, parameters, word):
    decoder = SpeculativeDecoder(*models).set_params(**parameters)
    with pytest.raises(ValueError, match=word):
        decoder.generate([[0, 1]])


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"gamma": 2.5}, "gamma"),
        ({"gamma": "many"}, "gamma"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"eos": "stop"}, "eos"),
        ({"target": "gpt"}, "target"),
        ({"drafter": 3}, "drafter"),
    ],
)
def test_parameter_of_a_wrong_type_generates(models, parameters, word):
    decoder = SpeculativeDecoder(*models).set_params(**parameters)
    with pytest.raises(TypeError, match=word):
        decoder.generate([[0, 1]])


@pytest.mark.parametrize("prompts", [[], [[]], [[0, 1], []], [[0]], [[0, 6]], [[0, -1]]])
def test_impossible_prompt_is_continued(models, prompts):
    with pytest.raises(ValueError, match="prompts"):
        SpeculativeDecoder(*models).generate(prompts)


def test_prompt_of_words_is_continued(models):
    with pytest.raises(TypeError, match="prompts"):
        SpeculativeDecoder(*models).generate("once upon a time")


def test_row_ids_that_do_not_fit_are_used(models):
    with pytest.raises(ValueError, match="row_ids"):
        SpeculativeDecoder(*models).generate([[0, 1]], row_ids=[0, 1])


def test_text_beyond_a_context_is_written(models, transformer):
    with pytest.raises(ValueError, match="context"):
        SpeculativeDecoder(transformer, max_new_tokens=9).generate([[0] * 8])
    with pytest.raises(ValueError, match="context of the draft"):
        SpeculativeDecoder(models[0], transformer, max_new_tokens=9).generate([[0] * 8])


def test_draft_with_another_vocabulary_is_used(models, random_table):
    other = random_table(2, 5)
    with pytest.raises(ValueError, match="vocabulary"):
        SpeculativeDecoder(models[0], other).generate([[0, 1]])


def test_tree_passes_a_verifier_for_chains(models):
    target, draft = models
    tree = MultiDrafter.fan_out(draft, (2, 2))
    with pytest.raises(ValueError, match="block"):
        SpeculativeDecoder(target, tree, "block").generate([[0, 1]])
    with pytest.raises(ValueError, match="kseq"):
        SpeculativeDecoder(target, tree, "kseq").generate([[0, 1]])


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
@pytest.mark.parametrize("who", ["target", "draft"])
def test_logit_that_is_no_number_becomes_a_token(who, temperature):
    """Row 0 lives on tokens 0 and 1, row 1 on 2 and 3; what follows 3 is NaN."""
    laws = [[0.4, 0.6, 0, 0], [0.3, 0.7, 0, 0], [0, 0, 0.1, 0.9], [0, 0, 0.5, 0.5]]
    whole = TabularLM.from_probabilities(np.array(laws))
    broken = TabularLM(whole.log_table.at[3, 3].set(jnp.nan))
    models = (broken, whole) if who == "target" else (whole, broken)
    decoder = SpeculativeDecoder(*models, temperature=temperature, max_new_tokens=12)
    with pytest.raises(ValueError, match=r"row 1.*no law"):
        decoder.generate([[0, 1], [2, 2]])


def test_parameters_are_changed_by_generate(models):
    decoder = SpeculativeDecoder(*models, gamma=0, max_new_tokens=5, random_state=4)
    before = decoder.get_params()
    first = decoder.generate([[0, 1]])
    again = clone(decoder).generate([[0, 1]])
    assert decoder.get_params() == before
    np.testing.assert_array_equal(first.sequences[0], again.sequences[0])


@pytest.mark.parametrize("drafter", ["prompt_lookup", None])
def test_drafter_by_name_is_another(models, drafter):
    decoder = SpeculativeDecoder(models[0], drafter, gamma=3, max_new_tokens=5)
    program = decoder._program([[0]])
    assert isinstance(program.drafter, PromptLookup if drafter else NoDrafter)
    assert decoder.gamma_ == (3 if drafter else 0)


def test_gamma_zero_drafts(models):
    result = SpeculativeDecoder(*models, gamma=0, max_new_tokens=7).generate([[0]])
    assert result.block_efficiency_ == 1.0
    assert result.predicted_speedup_ == 1.0
    assert np.isnan(result.acceptance_rate_)


def test_statistics_of_a_context_free_pair_differ_from_closed_forms():
    """p = (1/3, 2/3), q = (2/3, 1/3), gamma = 2, token: E[tau] = 10/9, alpha = 2/3.

    4000 rows, 24 tokens each; 5 standard errors. A tau off by one in 20 calls is seen.
    """
    target = TabularLM.from_probabilities([1 / 3, 2 / 3])
    draft = TabularLM.from_probabilities([2 / 3, 1 / 3])
    decoder = SpeculativeDecoder(
        target, ModelDrafter(draft, 2), "token", max_new_tokens=24, random_state=0
    )
    result = decoder.generate([[0, 1]] * 4000)
    histogram = result.tau_histogram_
    calls = histogram.sum()
    assert calls == result.statistics.steps.sum()
    law = np.array([1 / 3, 2 / 9, 4 / 9])
    stderr = np.sqrt(law * (1 - law) / calls)
    assert np.all(np.abs(histogram / calls - law) < 5 * stderr)
    assert abs(result.acceptance_rate_ - 2 / 3) < 1e-6  # the same at every position
    by_position = result.acceptance_by_position_
    assert np.all(np.abs(by_position - 2 / 3) < 5 * np.sqrt(2 / 9 / calls / 0.6))
    assert result.statistics.emitted.sum() == 4000 * 24
    assert result.block_efficiency_ == pytest.approx(4000 * 24 / calls)
    assert result.straggler_efficiency_ == pytest.approx(24 / result.statistics.iterations)


@pytest.mark.slow
def test_acceptance_of_lookahead_counts_repeated_guesses_twice():
    """A law of one half on two tokens: whatever is guessed, distinct candidates bound the mass."""
    target = TabularLM.from_probabilities([0.5, 0.5])
    drafter = Lookahead(3, 2, 3, pool_from_prompt=True)
    decoder = SpeculativeDecoder(target, drafter, "deterministic", max_new_tokens=40)
    result = decoder.generate([[0, 1, 1, 0, 0, 1]] * 8)
    # After a while both followers of both tokens are in the pool, once each: acceptance 1.
    assert 0.5 <= result.acceptance_rate_ <= 1.0
    assert result.acceptance_rate_ > 0.9
