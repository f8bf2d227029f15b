"""The loop against a slow greedy loop, enumerated laws, single rows, and fresh forward passes."""

import itertools
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privlearn.decoding import (
    Lookahead,
    ModelDrafter,
    MultiDrafter,
    NoDrafter,
    PromptLookup,
    SpeculativeDecoder,
)
from privlearn.decoding.generation import compiled_run, step_keys
from privlearn.decoding.models import TabularLM, TransformerConfig
from privlearn.decoding.verifiers import LenientVerifier, TokenVerifier
from privlearn.simulate import float64

PROMPTS = [[1, 2, 3], [4, 0], [5, 5, 2, 1, 0, 3, 1]]
NEW = 24


@pytest.fixture
def double_precision():
    """For transformers, where a near-tie of logits could break otherwise; tables are exact."""
    with float64():
        yield


def greedy_text(target, prompt, n):
    """One token after another, each by a fresh pass over the whole text."""
    text = np.zeros((1, 48), np.int32)  # one shape, one program: what comes later is not seen
    text[0, : len(prompt)] = prompt
    for at in range(len(prompt), len(prompt) + n):
        text[0, at] = int(np.argmax(fresh_logits(target, text)[0, at - 1]))
    return text[0, : len(prompt) + n]


@eqx.filter_jit
def _forward(model, text):
    return model.extend(model.init_cache(*text.shape), text)[0]


def fresh_logits(model, text):
    return np.asarray(_forward(model, jnp.asarray(text)))


@pytest.fixture(scope="module")
def tables(random_table):
    target, other = random_table(0, 6, 3, 0.5), random_table(9, 6, 3, 0.5)
    mixed = 0.6 * jnp.exp(target.log_table) + 0.4 * jnp.exp(other.log_table)
    return target, TabularLM(jnp.log(mixed))  # often, not always, of the same opinion


@pytest.fixture(scope="module")
def transformers(random_transformer):
    with float64():
        return tuple(
            random_transformer(
                seed, TransformerConfig(6, width, 1, n_heads=2, context=48), jnp.float64, 0.7
            )
            for seed, width in ((0, 16), (1, 8))
        )


def every_pair(draft):
    """Each drafter with the verifiers that are legal for it."""
    yield NoDrafter(), ["block"]
    yield ModelDrafter(draft, 3), ["token", "block", "kseq", "match"]
    yield ModelDrafter(draft, 1), ["block"]
    yield MultiDrafter.chains(draft, 3, 3), ["kseq", "rrs"]
    yield MultiDrafter.fan_out(draft, (2, 2)), ["rrs_wor"]
    yield MultiDrafter.fan_out(draft, (3, 2), "greedy"), ["greedy_drafts", "match"]
    yield PromptLookup(3), ["block", "deterministic"]
    yield PromptLookup(2, prefer="first"), ["token"]
    yield Lookahead(5, 2, 3), ["deterministic"]
    yield Lookahead(1, 3, 2), ["deterministic"]
    yield Lookahead(3, 3, 0), ["deterministic"]
    yield Lookahead(3, 4, 3, pool_from_prompt=True), ["match"]


CASES = [
    (i, name) for i, (_, names) in enumerate(every_pair(TabularLM(jnp.zeros(6)))) for name in names
]


@pytest.mark.slow  # every day: a chain and a tree with transformers, below
@pytest.mark.parametrize(("which", "verifier"), CASES)
def test_greedy_text_differs_from_the_plain_greedy_loop(tables, which, verifier):
    target, draft = tables
    drafter = list(every_pair(draft))[which][0]
    decoder = SpeculativeDecoder(target, drafter, verifier, temperature=0, max_new_tokens=NEW)
    result = decoder.generate(PROMPTS)
    for prompt, sequence in zip(PROMPTS, result.sequences, strict=True):
        np.testing.assert_array_equal(sequence, greedy_text(target, prompt, NEW))
    if which == 10:  # no pool, no guesses
        assert result.block_efficiency_ == 1.0
    elif which in (1, 3, 4, 5):  # both fates came, or the test tests little
        assert result.tau_histogram_[0] > 0
        assert result.tau_histogram_[-1] > 0


@pytest.mark.slow
def test_greedy_lenience_compares_one_hot_laws(tables):
    """At 1 it is greedy decoding; at 0.2 it accepts tokens that the greedy rule refuses."""
    target, draft = tables
    efficiency = []
    for eps in (1.0, 0.2):
        decoder = SpeculativeDecoder(
            target,
            ModelDrafter(draft, 3),
            LenientVerifier(eps=eps, greedy=True),
            temperature=0,
            max_new_tokens=NEW,
        )
        result = decoder.generate(PROMPTS)
        efficiency.append(result.block_efficiency_)
        texts = [greedy_text(target, prompt, NEW).tolist() for prompt in PROMPTS]
        assert ([s.tolist() for s in result.sequences] == texts) == (eps == 1)
    assert efficiency[1] > efficiency[0]


TRANSFORMER_DRAFTERS = {
    "model": (lambda draft: ModelDrafter(draft, 3), "block"),
    "chains": (lambda draft: MultiDrafter.chains(draft, 2, 3), "kseq"),
    "tree": (lambda draft: MultiDrafter.fan_out(draft, (2, 2, 1)), "rrs_wor"),
    "lookahead": (lambda draft: Lookahead(3, 4, 3), "deterministic"),
}


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def greedy_transformer_texts(transformers):
    with float64():
        return [greedy_text(transformers[0], prompt, NEW) for prompt in PROMPTS]


@pytest.mark.parametrize("name", [slow("model"), slow("chains"), "tree", slow("lookahead")])
def test_transformer_cache_or_mask_corrupts_greedy_text(
    double_precision, transformers, greedy_transformer_texts, name
):
    target, draft = transformers
    make, verifier = TRANSFORMER_DRAFTERS[name]
    decoder = SpeculativeDecoder(target, make(draft), verifier, temperature=0, max_new_tokens=NEW)
    result = decoder.generate(PROMPTS)
    for sequence, expected in zip(result.sequences, greedy_transformer_texts, strict=True):
        np.testing.assert_array_equal(sequence, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "chains", "tree"])
def test_draft_law_is_stale_in_some_iteration(double_precision, transformers, name):
    """After every iteration: the laws of the next draft equal a fresh pass over the same text."""
    target, draft = transformers
    drafter = TRANSFORMER_DRAFTERS[name][0](draft)
    decoder = SpeculativeDecoder(
        target, drafter, TRANSFORMER_DRAFTERS[name][1], max_new_tokens=NEW, random_state=3
    )
    program = decoder._program(PROMPTS)
    state = decoder._start(program, decoder._pack(PROMPTS, program))
    propose = eqx.filter_jit(type(drafter).propose)
    seen_tau = set()
    for step in range(7):
        length, text = np.asarray(state.length), np.asarray(state.text)
        keys, _, _ = step_keys(state)
        plan, _ = propose(drafter, keys, state.drafter, state.text, state.length, program.rule)
        tokens, laws = np.asarray(plan.draft.tokens), np.asarray(plan.draft.q)
        rows, size = tokens.shape
        known, behind = np.zeros((rows * size, 48), np.int32), []
        for i, (row, node) in enumerate(itertools.product(range(rows), range(size))):
            path = [m for m in plan.draft.topology.paths[node] if m >= 0][:-1]
            known[i, : length[row]] = text[row, : length[row]]
            known[i, length[row] : length[row] + len(path)] = tokens[row, path]
            behind.append(length[row] - 1 + len(path))
        logits = fresh_logits(draft, known)[np.arange(rows * size), behind]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = weights / weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(laws.reshape(rows * size, -1), expected, atol=1e-10)
        state = compiled_run(program, state, step + 1)
        seen_tau |= set(np.flatnonzero(np.asarray(state.tally.tau).sum(axis=0)))
    assert {0, drafter.topology.height} <= seen_tau  # rejections and full acceptance both came


def enumerated(target, prompt, n, transform):
    """Law of the next n tokens, flat; each token by the transformed law."""
    law = np.ones(1)
    texts = [list(prompt)]
    for _ in range(n):
        rows = [transform(target.law(text)) for text in texts]
        law = np.concatenate([weight * row for weight, row in zip(law, rows, strict=True)])
        texts = [[*text, token] for text in texts for token in range(len(rows[0]))]
    return law


def chi_square_excess(
    target, drafter, verifier, rows=10_000, n=3, transform=lambda law: law, **settings
):
    """Chi-square of the first n sampled tokens over its 1e-8 quantile: above 1 is a wrong law."""
    prompt = [0, 1, 0, 1, 2]
    decoder = SpeculativeDecoder(
        target, drafter, verifier, max_new_tokens=n, random_state=11, **settings
    )
    result = decoder.generate([prompt] * rows)
    digits = np.stack(result.new_tokens)
    cells = np.zeros(rows, int)
    for column in digits.T:
        cells = cells * target.vocab_size + column
    law = enumerated(target, prompt, n, transform) * rows
    counts = np.bincount(cells, minlength=len(law))
    assert counts[law == 0].sum() == 0
    large = law >= 5  # the rest in one cell
    expected = np.append(law[large], law[~large].sum())
    observed = np.append(counts[large], counts[~large].sum())
    expected, observed = expected[expected > 0], observed[expected > 0]
    statistic = np.sum((observed - expected) ** 2 / expected)
    return statistic / stats.chi2.isf(1e-8, len(expected) - 1)


@pytest.fixture(scope="module")
def small_tables(random_table):
    return random_table(5, 3, 2, zeros=0.1), random_table(6, 3, 1)


SAMPLED = {
    "plain": (lambda draft: NoDrafter(), "block"),
    "token": (lambda draft: ModelDrafter(draft, 2), "token"),
    "block": (lambda draft: ModelDrafter(draft, 3), "block"),
    "kseq": (lambda draft: MultiDrafter.chains(draft, 3, 2), "kseq"),
    "rrs": (lambda draft: MultiDrafter.fan_out(draft, (2, 2), "independent"), "rrs"),
    "rrs_wor": (lambda draft: MultiDrafter.fan_out(draft, (2, 2)), "rrs_wor"),
    "greedy_drafts": (lambda draft: MultiDrafter.fan_out(draft, (2, 2), "greedy"), "greedy_drafts"),
    "lookup": (lambda draft: PromptLookup(3), "block"),
    "lookahead": (lambda draft: Lookahead(3, 3, 3, pool_from_prompt=True), "deterministic"),
}


@pytest.mark.slow  # every day: "block" with a temperature, below
@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_text_follows_another_law_than_the_target(small_tables, name):
    """9 chi-square tests at 1e-8 each; a test below shows the power."""
    target, draft = small_tables
    make, verifier = SAMPLED[name]
    assert chi_square_excess(target, make(draft), verifier) < 1


def test_tempered_and_truncated_text_follows_another_law(small_tables):
    """Temperature 0.7, then the two likeliest: before verification, on target and draft alike."""
    target, draft = small_tables

    def transform(law):
        law = np.where(law >= np.sort(law)[-2], law ** (1 / 0.7), 0)
        return law / law.sum()

    drafter, settings = ModelDrafter(draft, 2), {"temperature": 0.7, "top_k": 2}
    assert chi_square_excess(target, drafter, "block", transform=transform, **settings) < 1
    assert chi_square_excess(target, drafter, "block", **settings) > 1.5


@dataclass(frozen=True)
class ResampleFromTarget(TokenVerifier):
    """The well-known mistake: after a rejection sample from p, not from the residual."""

    def decide(self, coins, row, topology):
        good = super().decide(coins, row, topology)
        law = row.p[good.last_node + 1]
        token = jnp.sum(jnp.cumsum(law) <= coins[-1])
        return good._replace(extra_token=jnp.minimum(token, law.shape[0] - 1).astype(jnp.int32))


@pytest.mark.slow
def test_wrong_verifier_passes_the_test_of_laws(small_tables):
    target, draft = small_tables
    assert chi_square_excess(target, ModelDrafter(draft, 2), ResampleFromTarget()) > 1.5


def test_text_of_a_row_depends_on_its_batch_mates_or_on_streaming(double_precision, transformers):
    target, draft = transformers
    decoder = SpeculativeDecoder(
        target, ModelDrafter(draft, 3), "block", max_new_tokens=NEW, random_state=1
    )
    together = decoder.generate(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        # The same row at another place, between others.
        mates = [[2, 2], prompt, [3, 1, 4, 1, 5]]
        again = decoder.generate(mates, row_ids=[7, row, 8])
        np.testing.assert_array_equal(again.sequences[1], together.sequences[row])
        assert again.statistics.steps[1] == together.statistics.steps[row]
    parts = {0: [], 1: [], 2: []}
    streamed = decoder.generate(
        PROMPTS, on_tokens=lambda row, tokens: parts[row].append(tokens), stream_every=2
    )
    for row in range(3):
        assert len(parts[row]) > 1
        np.testing.assert_array_equal(np.concatenate(parts[row]), together.new_tokens[row])
        np.testing.assert_array_equal(streamed.sequences[row], together.sequences[row])
    # Three rows with the same prompt and different ids write different texts.
    same = decoder.generate([PROMPTS[0]] * 3)
    assert len({tuple(sequence) for sequence in same.sequences}) == 3


@pytest.fixture(scope="module")
def cycle():
    """0 1 2 3 4 0 1 ..., with certainty; 5 never comes."""
    return TabularLM.from_probabilities(np.eye(6)[[1, 2, 3, 4, 0, 0]])


def test_tokens_after_the_end_of_text_are_emitted(cycle):
    decoder = SpeculativeDecoder(cycle, ModelDrafter(cycle, 4), eos=3, max_new_tokens=20)
    result = decoder.generate([[0, 1], [4, 0], [0, 3]])
    assert [s.tolist() for s in result.sequences] == [
        [0, 1, 2, 3],
        [4, 0, 1, 2, 3],
        [0, 3, 4, 0, 1, 2, 3],
    ]
    assert result.finish_reasons == ["eos", "eos", "eos"]
    assert result.statistics.emitted.tolist() == [2, 3, 5]
    assert result.statistics.steps.tolist() == [1, 1, 1]


def test_finished_row_is_overwritten_while_others_go_on(cycle):
    no_end = TabularLM.from_probabilities(np.eye(6))  # repeats its last token for ever
    mixed = TabularLM.from_probabilities(np.eye(6)[[1, 2, 3, 4, 4, 0]])
    decoder = SpeculativeDecoder(mixed, ModelDrafter(no_end, 4), eos=[3], max_new_tokens=23)
    result = decoder.generate([[0, 1], [4, 4], [2, 2]])
    assert result.sequences[0].tolist() == [0, 1, 2, 3]
    assert result.sequences[1].tolist() == [4] * 25
    assert result.sequences[2].tolist() == [2, 2, 3]
    assert result.finish_reasons == ["eos", "length", "eos"]


@pytest.mark.parametrize("new", [1, 7])
def test_text_exceeds_its_limit(cycle, new):
    decoder = SpeculativeDecoder(cycle, ModelDrafter(cycle, 4), eos=5, max_new_tokens=new)
    result = decoder.generate([[0, 1], [3, 4, 0], [1, 2]])
    assert [len(s) for s in result.sequences] == [2 + new, 3 + new, 2 + new]
    assert result.statistics.emitted.tolist() == [new] * 3
    assert result.finish_reasons == ["length"] * 3


@pytest.mark.slow
def test_greedy_text_up_to_the_end_of_the_context_is_wrong(double_precision, transformers):
    target, draft = transformers
    decoder = SpeculativeDecoder(
        target, ModelDrafter(draft, 3), "block", temperature=0, max_new_tokens=40
    )
    longest = [1, 2, 3, 4, 5, 0, 1, 2]  # 8 + 40 = the context
    result = decoder.generate([longest, *PROMPTS[:2]])
    for prompt, sequence in zip([longest, *PROMPTS[:2]], result.sequences, strict=True):
        np.testing.assert_array_equal(sequence, greedy_text(target, prompt, 40))
    # Rows differ in what they accept, and both fates came.
    assert result.tau_histogram_[0] > 0
    assert result.tau_histogram_[-1] > 0
