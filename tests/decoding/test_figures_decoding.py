"""What the figures of decoding compute for themselves agrees with the theory of the package."""

import numpy as np
import pytest

from privlearn.decoding import theory
from privlearn.decoding.certificate import check_lossless
from privlearn.decoding.family import load_tokenizer
from privlearn.decoding.figures.contexts import Drafted, acceptance_rate, expected_taus, softmax
from privlearn.decoding.figures.exact import _lenient_laws, without_replacement
from privlearn.decoding.figures.mistakes import MISTAKES, block, token
from privlearn.decoding.figures.training import shifting, split_files, windows
from privlearn.decoding.streams import domain_texts
from privlearn.decoding.theory.worlds import TabularPair, decode


def every_path(world: TabularPair, gamma: int) -> tuple[np.ndarray, Drafted]:
    """All drafts of a world with their probabilities, as if drawn after one context each."""
    size = world.vocabulary
    tokens = np.array([decode(c, gamma, size) for c in range(size**gamma)])
    weights, q, p = np.ones(len(tokens)), [], []
    codes = np.zeros(len(tokens), int)
    for depth in range(gamma + 1):
        p.append(world.p[depth][codes])
        if depth < gamma:
            q.append(world.q[depth][codes])
            weights = weights * q[-1][np.arange(len(tokens)), tokens[:, depth]]
            codes = codes * size + tokens[:, depth]
    laws = (np.stack(part, axis=1)[:, None] for part in (q, p))
    return weights, Drafted(tokens[:, None], *laws)


def test_path_estimators_average_to_the_exact_sums():
    world = TabularPair.random(3, 3, 7)
    weights, paths = every_path(world, 3)
    token_tau, block_tau = (weights @ tau[:, 0] for tau in expected_taus(paths.ratios))
    for gamma in (1, 2, 3):
        exact = theory.token_expected_tau(world, gamma), theory.block_expected_tau(world, gamma)
        np.testing.assert_allclose((token_tau[gamma - 1], block_tau[gamma - 1]), exact, atol=1e-12)


def test_acceptance_rate_counts_places_whose_prefix_was_accepted_only():
    p, q = np.array([[0.6, 0.4]]), np.array([[0.2, 0.8]])
    paths = Drafted(
        np.array([[[1, 0]], [[1, 1]]]),
        np.broadcast_to(q, (2, 1, 2, 2)),
        np.broadcast_to(p, (2, 1, 3, 2)),
    )
    assert acceptance_rate(paths).mean == pytest.approx(0.6)  # the same overlap everywhere
    # A perfect second place counts half: the first place accepts token 1 with chance 1/2.
    q_second = paths.q.copy()
    q_second[:, :, 1] = p
    found = acceptance_rate(Drafted(paths.tokens, q_second, paths.p)).mean
    assert found == pytest.approx((0.6 + 0.5) / 1.5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_drawn_candidates_without_replacement_are_unbiased(k):
    p, q = np.array([0.1, 0.2, 0.4, 0.3]), np.array([0.5, 0.25, 0.15, 0.1])
    n = 40_000
    found = without_replacement(
        np.tile(p, (n, 1)), np.tile(q, (n, 1)), k, np.random.default_rng(0)
    )[:, k - 1]
    exact = theory.rrs_without_replacement_acceptance(p, q, k)
    # Five standard errors: false alarm below 1e-6; the error is below 0.01, so a bias shows.
    assert abs(found.mean() - exact) <= 5 * found.std() / np.sqrt(n) + 1e-12
    assert 5 * found.std() / np.sqrt(n) < 0.01


@pytest.mark.parametrize("rule", ["linear", "squared", "exponential", "ensemble"])
def test_lenient_laws_of_many_contexts_are_those_of_the_theory(rule):
    p, q = np.random.default_rng(1).dirichlet(np.ones(5), size=(2, 6))
    accepted, law = _lenient_laws(p, q, rule, 0.4)
    for i in range(len(p)):
        exact = (
            theory.ensemble_law(p[i], q[i], 0.4)
            if rule == "ensemble"
            else theory.lenience_law(p[i], q[i], 0.4, rule)
        )
        np.testing.assert_allclose([accepted[i], *law[i]], [exact.acceptance, *exact.law])
        # The caption's claim: a point of acceptance costs a point of total variation.
        cost = 0.5 * np.abs(law[i] - p[i]).sum()
        assert accepted[i] - theory.acceptance(p[i], q[i]) == pytest.approx(cost)


def test_softmax_at_temperature_zero_is_greedy():
    assert softmax(np.array([[0.0, 2.0, 1.0]]), 0.0).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("verifier", [token, block])
def test_verifiers_written_for_the_figure_are_right_without_a_mistake(verifier):
    assert check_lossless(verifier).lossless


@pytest.mark.parametrize("name", list(MISTAKES))
def test_every_mistake_of_the_figure_is_one(name):
    wrong, n_drafts, gamma = MISTAKES[name]
    assert not check_lossless(wrong, n_drafts=n_drafts, gamma=gamma).lossless


@pytest.mark.parametrize("domain", ["docs", "code", "rst"])
def test_file_that_trains_or_chooses_is_reported(domain):
    parts = split_files(domain)
    texts = [text for part in parts.values() for text in part]
    assert sorted(texts) == sorted(domain_texts(domain))
    assert len(texts) == len(set(texts))
    assert min(map(len, parts.values())) >= 1


def test_windows_are_not_of_the_texts_given():
    texts = ["abc" * 200, "xyz" * 300, "short"]
    found = windows(texts, 40, 100, np.random.default_rng(0))
    tokenizer = load_tokenizer()
    assert found.shape == (40, 100)
    decoded = [tokenizer.decode(window) for window in found]
    assert all(text in texts[0] or text in texts[1] for text in decoded)
    assert len({text[0] in "abc" for text in decoded}) == 2


def test_stream_leaves_the_parts_it_was_given():
    stream = shifting(("rst", "docs"), 5, parts=("choose",), seed=1)
    assert len(stream) == 10
    tokenizer = load_tokenizer()
    for domain, part in (("rst", stream[:5]), ("docs", stream[5:])):
        texts = split_files(domain)["choose"]
        assert all(any(tokenizer.decode(w[1:-1]) in text for text in texts) for w in part)
