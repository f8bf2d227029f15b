"""Verifiers: exact laws, the compiled step against them, edge cases, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from privlearn.decoding import theory
from privlearn.decoding.certificate import check_lossless
from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.enumeration import AllDrafts, all_drafts
from privlearn.decoding.exact_coins import law_of_uniforms
from privlearn.decoding.exact_laws import emitted_law
from privlearn.decoding.theory import TabularPair
from privlearn.decoding.verifiers import VERIFIERS, emitted_tokens, overlap, verifier
from privlearn.decoding.verifiers.protocol import Row, reachable
from privlearn.simulate.precision import float64

CHAIN = ("token", "block")
SETTINGS = {
    "token": (Topology.chain(2), "independent"),
    "block": (Topology.chain(2), "independent"),
    "kseq": (Topology.chains(2, 2), "independent"),
    "rrs": (Topology.chains(2, 2), "independent"),
    "optimal": (Topology.chains(2, 2), "independent"),
    "match": (Topology.chains(2, 2), "independent"),
    "deterministic": (Topology.chains(2, 2), "deterministic"),
    "rrs_wor": (Topology.fan_out((2, 2)), "without_replacement"),
    "greedy_drafts": (Topology.fan_out((2, 2)), "greedy"),
}


def daily_no(*names):
    """Names whose tests count as slow: a program each, and the same code as those beside them."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def context_free(name, p, q, depth, topology=None, proposal=None, **parameters):
    """Exact law of what a verifier emits with constant laws."""
    world = TabularPair.context_free(p, q, depth)
    topology = topology or Topology.chain(depth)
    drafts = all_drafts(world, topology, proposal or "independent")
    return emitted_law(verifier(name, **parameters), drafts)


def example():
    p = {(): (0.6, 0.4), (0,): (0.1, 0.9), (1,): (0.55, 0.45)}
    q = {(): (0.35, 0.65), (0,): (0.5, 0.5), (1,): (0.75, 0.25)}
    half = (0.5, 0.5)
    return TabularPair.from_functions(lambda x: p.get(x, half), lambda x: q.get(x, half), 2, 2)


# --------------------------------------------------------------------------------- exact laws


# The claims decoding/lossless-* ask the same of each every day, in fewer worlds.
@pytest.mark.parametrize(
    "name", [n if n == "block" else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS]
)
def test_verifier_emits_the_law_of_the_target(name):
    topology, proposal = SETTINGS[name]
    size = 2 if topology.size > 4 else 3
    found = check_lossless(name, topology=topology, proposal=proposal, vocabulary=size)
    assert found.lossless, str(found)
    assert found.largest_error < 1e-12


def test_expected_tau_equals_the_closed_sums():
    world = TabularPair.random(3, 2, 7, zeros=0.2)
    drafts = all_drafts(world, Topology.chain(2), "independent")
    token, block = (emitted_law(verifier(name), drafts) for name in CHAIN)
    np.testing.assert_allclose(token.tau_law, theory.token_tau_law(world, 2), atol=1e-13)
    np.testing.assert_allclose(block.tau_law, theory.block_tau_law(world, 2), atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "k", "tau"), [("kseq", 2, 1.530165), ("rrs", 2, 1.4575)])
def test_multi_draft_anchor(name, k, tau):
    drafts = all_drafts(example(), Topology.chains(k, 2), "independent")
    assert emitted_law(verifier(name), drafts).expected_tau == pytest.approx(tau, abs=1e-6)


def test_block_with_one_token_is_token_verification():
    world = TabularPair.random(3, 1, 3)
    drafts = all_drafts(world, Topology.chain(1), "independent")
    token, block = (emitted_law(verifier(name), drafts) for name in CHAIN)
    for left, right in zip(token.emitted, block.emitted, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-15)


def test_block_gains_nothing_on_drafts_without_probabilities():
    drafts = all_drafts(TabularPair.random(3, 2, 4), Topology.chain(2), "deterministic")
    token, block = (emitted_law(verifier(name), drafts) for name in CHAIN)
    assert token.expected_tau == pytest.approx(block.expected_tau, abs=1e-14)


@pytest.mark.slow
def test_every_tree_rule_with_one_draft_accepts_like_token_verification():
    world = TabularPair.random(3, 2, 8)
    drafts = all_drafts(world, Topology.chain(2), "independent")
    exact = theory.token_expected_tau(world, 2)
    for name in ("kseq", "rrs", "rrs_wor", "greedy_drafts", "optimal"):
        found = emitted_law(verifier(name), drafts).expected_tau
        assert found == pytest.approx(exact, abs=1e-8), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("kseq", lambda p, q: theory.kseq(p, q, 2).acceptance),
        ("rrs", lambda p, q: theory.rrs_acceptance(p, q, 2)),
        ("optimal", lambda p, q: theory.optimal_acceptance(p, q, 2)),
        ("rrs_wor", lambda p, q: theory.rrs_without_replacement_acceptance(p, q, 2)),
        ("greedy_drafts", lambda p, q: theory.greedy_drafts_acceptance(p, q, 2)),
    ],
)
def test_acceptance_of_two_candidates_is_the_closed_form(name, exact):
    p, q = [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]
    proposal = SETTINGS[name][1]
    found = context_free(name, p, q, 1, Topology.chains(2, 1), proposal)
    assert found.expected_tau == pytest.approx(exact(p, q), abs=1e-8)


def test_identical_candidates_do_not_raise_the_acceptance():
    world = TabularPair.context_free([0.3, 0.7], [0.5, 0.5], 1)
    twice = all_drafts(world, Topology.chains(2, 1), "deterministic", np.array([[0, 0]]))
    assert emitted_law(verifier("deterministic"), twice).expected_tau == pytest.approx(0.3)


@pytest.mark.parametrize("function", ["linear", "squared", "exponential"])
@pytest.mark.parametrize(
    "eps", [0.5, *(pytest.param(eps, marks=pytest.mark.slow) for eps in (1.0, 0.1))]
)
def test_lenient_law_is_the_closed_form(function, eps):
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    found = context_free("lenient", p, q, 1, function=function, eps=eps)
    exact = theory.lenience_law(p, q, eps, function)
    world = TabularPair.context_free(p, q, 1)
    first = found.completed(world).reshape(3, 3).sum(axis=1)
    np.testing.assert_allclose(first, exact.law, atol=1e-14)
    assert found.expected_tau == pytest.approx(exact.acceptance, abs=1e-14)
    assert verifier("lenient", eps=eps).lossless == (eps == 1)


def test_ensemble_emits_the_mixture():
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    found = context_free("ensemble", p, q, 1, weight=0.4)
    first = found.completed(TabularPair.context_free(p, q, 1)).reshape(3, 3).sum(axis=1)
    exact = theory.ensemble_law(p, q, 0.4)
    np.testing.assert_allclose(first, exact.law, atol=1e-14)
    assert found.expected_tau == pytest.approx(exact.acceptance, abs=1e-14)


def test_shorter_drafts_in_a_batch_are_verified_as_if_alone():
    world = TabularPair.random(3, 2, 9)
    long = all_drafts(world, Topology.chain(2), "independent")
    short = all_drafts(world, Topology.chain(1), "independent")
    cut = AllDrafts(long.topology, long.tokens, long.valid & [[True, False]], long.weights,
                    long.q, long.p)  # fmt: skip
    for name in (*CHAIN, "kseq"):
        found, alone = (emitted_law(verifier(name), d) for d in (cut, short))
        for tau in range(2):
            np.testing.assert_allclose(found.emitted[tau], alone.emitted[tau], atol=1e-14)
        assert found.emitted[2].sum() == 0


# --------------------------------------------------------- the compiled step has the exact law


@pytest.mark.parametrize(
    "name",
    [
        "block",
        *daily_no("token", "kseq", "match", "rrs_wor", "greedy_drafts"),
    ],
)
def test_compiled_step_has_the_enumerated_law(name):
    """Coins of the step that runs, integrated by breakpoints, for one draft."""
    topology, proposal = SETTINGS[name]
    rule, world = verifier(name), TabularPair.random(2, 2, 11)
    drafts = all_drafts(world, topology, proposal)
    n = rule.n_coins(topology)
    with float64():
        step = jax.jit(jax.vmap(lambda u, row: rule.decide(u, row, topology), in_axes=(0, None)))
    for at in np.flatnonzero(drafts.weights > 0)[-1:]:
        row_of = [a[at : at + 1] for a in (drafts.tokens, drafts.valid, drafts.q, drafts.p)]

        def outcomes(u, row_of=row_of):
            padded = np.zeros((-(-len(u) // 1024) * 1024, n))
            padded[: len(u)] = u
            with float64():
                tokens, valid, q, p = map(jnp.asarray, row_of)
                row = Row(tokens[0], reachable(valid, topology)[0], q[0], p[0])
                parts = [step(jnp.asarray(b), row) for b in np.split(padded, len(padded) // 1024)]
            node = np.concatenate([np.asarray(part.last_node) for part in parts])
            extra = np.concatenate([np.asarray(part.extra_token) for part in parts])
            return np.stack([node, extra], axis=1)[: len(u)]

        alone = AllDrafts(topology, row_of[0], row_of[1], np.ones(1), row_of[2], row_of[3])
        exact = emitted_law(rule, alone)
        found = [np.zeros_like(table) for table in exact.emitted]
        for chance, (node, extra) in law_of_uniforms(outcomes, n):
            path = [m for m in topology.paths[node] if m >= 0] if node >= 0 else []
            code = 0
            for m in path:
                code = code * 2 + row_of[0][0, m]
            found[len(path)][code, extra] += chance
        for left, right in zip(found, exact.emitted, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-12)


@pytest.mark.slow
def test_large_vocabulary_in_float32_follows_the_target():
    """chi-square over all tokens; false alarm 1e-7, detects a total variation of about .06."""
    size, rows = 700, 3000
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(size, 0.3), size=2).astype(np.float32)
    rule = verifier("token")

    @jax.jit
    def first_tokens(key):
        drawing, verifying = jax.random.split(key)
        tokens = jax.random.choice(drawing, size, (rows, 1), p=q)
        draft = Draft.chain(tokens, jnp.tile(q, (rows, 1, 1)))
        return emitted_tokens(draft, rule.verify(verifying, draft, jnp.tile(p, (rows, 2, 1))))[:, 0]

    found = np.concatenate([first_tokens(jax.random.key(i)) for i in range(8)])
    counts, expected = np.bincount(found, minlength=size), p.astype(float) * len(found)
    order = np.argsort(expected)
    bins = np.minimum(np.cumsum(expected[order]) // 20, 10_000).astype(int)
    _, bins = np.unique(bins, return_inverse=True)
    c, e = (np.bincount(bins, weights=x[order]) for x in (counts, expected))
    statistic = ((c - e) ** 2 / e).sum()
    assert chi2.sf(statistic, len(e) - 1) > 1e-7


# -------------------------------------------------------------------------------- edge cases


@functools.cache
def run(name):
    """The compiled step, one a name: the cases below have one shape a name."""
    return jax.jit(verifier(name).verify)


@functools.cache
def row_keys():
    return jax.random.split(jax.random.key(5), 16)


def random_case(name, rows=16, size=6, seed=0):
    topology, proposal = SETTINGS[name]
    rng = np.random.default_rng(seed)
    tokens = rng.integers(size, size=(rows, topology.size))
    if proposal in ("without_replacement", "greedy"):  # siblings differ
        tokens = (tokens[:, :1] + np.arange(topology.size)) % size
    q = jnp.asarray(rng.dirichlet(np.ones(size), (rows, topology.size)), jnp.float32)
    draft = Draft.tree(
        jnp.asarray(tokens), topology, None if proposal == "deterministic" else q, proposal=proposal
    )
    p = rng.dirichlet(np.ones(size), (rows, topology.size + 1))
    return draft, jnp.asarray(p, jnp.float32)


@pytest.mark.parametrize("name", ["block", "kseq", "rrs_wor", *daily_no("token", "match")])
def test_result_of_a_row_does_not_depend_on_its_batch_mates(name):
    draft, p = random_case(name)
    together = run(name)(row_keys(), draft, p)

    def first_eight(mine, other):
        return jnp.concatenate([mine[:8], other[8:]])

    mates = random_case(name, seed=9)
    mixed = jax.tree.map(first_eight, (draft, p), mates)
    for left, right in zip(together, run(name)(row_keys(), *mixed), strict=True):
        np.testing.assert_array_equal(left[:8], right[:8])
    turned = jax.tree.map(lambda a: jnp.roll(a, 3, axis=0), (draft, p))
    keys = row_keys()[np.roll(np.arange(16), 3)]
    for left, right in zip(together, run(name)(keys, *turned), strict=True):
        np.testing.assert_array_equal(np.roll(left, 3, axis=0), right)


@pytest.mark.parametrize("name", ["block", "kseq", "rrs_wor", *daily_no("token", "rrs", "match")])
def test_greedy_target_keeps_the_longest_match(name):
    draft, _ = random_case(name, seed=3)
    draft = dataclasses.replace(draft, tokens=draft.tokens % 3)
    rng = np.random.default_rng(1)
    topology = draft.topology
    # The target's choice must agree among nodes with the same text: let it depend on depth.
    depth = np.array([0, *topology.depth])
    choice = rng.integers(3, size=(16, topology.height + 1))[:, depth]
    out = run(name)(row_keys(), draft, jax.nn.one_hot(choice, 6))
    emitted = np.asarray(emitted_tokens(draft, out))
    for row in range(16):
        text = [int(choice[row, list(depth).index(d)]) for d in range(topology.height + 1)]
        best = 0
        for node in range(topology.size):
            path = [m for m in topology.paths[node] if m >= 0]
            if [int(draft.tokens[row, m]) for m in path] == text[: len(path)]:
                best = max(best, len(path))
        assert out.n_accepted[row] == best
        assert emitted[row].tolist() == text[: best + 1] + [-1] * (topology.height - best)


@pytest.mark.parametrize("name", ["block", "kseq", *daily_no("token", "rrs")])
def test_equal_models_keep_everything_and_disjoint_ones_nothing(name):
    draft, p = random_case(name)
    before = jnp.array([at + 1 for at in draft.topology.parent])
    law = p[:, :1]
    same = Draft.tree(draft.tokens, draft.topology, jnp.tile(law, (1, draft.topology.size, 1)))
    assert before.shape == (draft.topology.size,)
    out = run(name)(row_keys(), same, jnp.tile(law, (1, p.shape[1], 1)))
    assert (out.n_accepted == draft.topology.height).all()
    low = jnp.array([0.5, 0.5, 0, 0, 0, 0])
    apart = Draft.tree(
        draft.tokens % 2, draft.topology, jnp.tile(low, (16, draft.topology.size, 1))
    )
    out = run(name)(row_keys(), apart, jnp.tile(low[::-1], (16, p.shape[1], 1)))
    assert (out.n_accepted == 0).all()
    assert (out.extra_token >= 4).all()


@pytest.mark.parametrize("name", ["block", "kseq"])
def test_empty_draft_is_plain_sampling(name):
    draft = Draft.chain(jnp.zeros((3, 0), int))
    out = run(name)(jax.random.key(0), draft, jax.nn.one_hot(jnp.array([[1], [2], [0]]), 3))
    assert out.extra_token.tolist() == [1, 2, 0]
    assert out.path_slots.tolist() == [[0]] * 3


@pytest.mark.parametrize("name", ["block", "kseq", "rrs_wor", *daily_no("token", "match")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5, 3.0])
def test_row_without_a_law_emits_nothing_and_hurts_no_other(name, bad):
    draft, p = random_case(name)
    fine = run(name)(row_keys(), draft, p)
    out = run(name)(row_keys(), draft, p.at[1, 1, 2].set(bad))
    assert out.ok.tolist() == [row != 1 for row in range(16)]
    assert out.extra_token[1] == -1
    assert out.n_accepted[1] == 0
    for left, right in zip(fine, out, strict=True):
        np.testing.assert_array_equal(np.delete(left, 1, axis=0), np.delete(right, 1, axis=0))


def test_forbidden_token_is_never_accepted_even_by_the_uniform_zero():
    p = jnp.array([[0.0, 1.0], [0.5, 0.5]])
    row = Row(jnp.array([0]), jnp.array([True]), jnp.array([[1.0, 0.0]]), p)
    for name in CHAIN:
        decide = jax.jit(verifier(name).decide, static_argnums=2)
        out = decide(jnp.zeros(2), row, Topology.chain(1))
        assert (int(out.last_node), int(out.extra_token)) == (-1, 1)


def test_residual_without_mass_falls_back_to_the_target():
    p = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    row = Row(jnp.array([0]), jnp.array([True]), p[:1], p)
    left = verifier("token").leftover(row, jnp.ones(2), jnp.int32(0))
    np.testing.assert_array_equal(left, p[0])


def test_path_leads_to_the_accepted_node_and_overlap_to_its_acceptance():
    draft = Draft.tree(jnp.array([[0, 1, 2, 3, 4, 5]]), Topology.fan_out((2, 2)))
    choice = jax.nn.one_hot(jnp.array([[1, 9, 5, 9, 9, 9, 7]]), 10)
    out = run("match")(jax.random.key(0), draft, choice)
    assert out.path_slots.tolist() == [[0, 2, 6]]
    assert emitted_tokens(draft, out).tolist() == [[1, 5, 7]]
    assert overlap(draft, choice).tolist() == [[0, 1, 0, 0, 0, 1]]


def test_greedy_lenience_keeps_what_is_nearly_the_best():
    p = jnp.array([[[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]])
    draft = Draft.chain(jnp.array([[1, 0]]))
    rule = verifier("lenient", eps=0.5, greedy=True)
    out = jax.jit(rule.verify)(jax.random.key(0), draft, p)
    assert emitted_tokens(draft, out).tolist() == [[1, 1, -1]]
    assert not rule.lossless


# ---------------------------------------------------------------------------------- refusals


def case(tokens=(2, 3), q=True, topology=None, proposal=None, size=4, **changes):
    topology = topology or Topology.chain(tokens[1])
    laws = jnp.full((tokens[0], topology.size, size), 1 / size) if q else None
    draft = Draft.tree(
        jnp.zeros((tokens[0], topology.size), int), topology, laws, proposal=proposal
    )
    p = jnp.full((tokens[0], topology.size + 1, changes.get("p_size", size)), 1 / size)
    return draft, p


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("token", {"topology": Topology.chains(2, 2)}, "verifies one chain"),
        ("block", {"topology": Topology.fan_out((2,))}, "verifies one chain"),
        ("kseq", {"topology": Topology.fan_out((2,)), "proposal": "without_replacement"}, "kseq"),
        ("rrs", {"topology": Topology.fan_out((2,)), "proposal": "greedy"}, "greedy_drafts"),
        ("rrs_wor", {"topology": Topology.chains(2, 2)}, "without_replacement"),
        ("greedy_drafts", {"topology": Topology.chains(2, 2)}, "greedy"),
        ("optimal", {"topology": Topology.chains(2, 2), "q": False}, "independent"),
        ("deterministic", {"q": True}, "without probabilities"),
        ("ensemble", {"q": False}, "needs q"),
        ("token", {"p_size": 5}, "share a vocabulary"),
    ],
)
def test_illegal_drafts_are_refused_also_under_jit(name, arguments, words):
    draft, p = case(**arguments)
    for run in (verifier(name).verify, jax.jit(verifier(name).verify)):
        with pytest.raises(ValueError, match=words):
            run(jax.random.key(0), draft, p)


def test_wrong_shapes_and_types_are_refused():
    draft, p = case()
    rule = verifier("token")
    with pytest.raises(ValueError, match="p must have shape"):
        rule.verify(jax.random.key(0), draft, p[:, :-1])
    with pytest.raises(TypeError, match="floating point"):
        rule.verify(jax.random.key(0), draft, jnp.zeros((2, 4, 4), int))
    with pytest.raises(TypeError, match="draft must be a Draft"):
        rule.verify(jax.random.key(0), draft.tokens, p)
    with pytest.raises(TypeError, match="typed key"):
        rule.verify(jnp.zeros(2), draft, p)
    with pytest.raises(ValueError, match="one key or 2 keys"):
        rule.verify(jax.random.split(jax.random.key(0), 3), draft, p)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("best", {}, "verifier must be one of"),
        ("lenient", {"eps": 0.0}, "eps"),
        ("lenient", {"function": "cubic"}, "function"),
        ("lenient", {"function": "squared", "greedy": True}, "linear"),
        ("ensemble", {"weight": 1.5}, "weight"),
        (VERIFIERS["token"](), {"eps": 1.0}, "need a name"),
    ],
)
def test_bad_parameters_name_themselves(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        verifier(name, **parameters)
