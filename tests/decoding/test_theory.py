"""Closed forms beside published numbers, linear programs, brute force and each other."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import linprog

from privlearn.decoding import theory

P, Q = [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]
LENIENT_P, LENIENT_Q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]


@pytest.fixture
def example():
    """Two tokens, laws that depend on the text."""
    p = {(): (0.6, 0.4), (0,): (0.1, 0.9), (1,): (0.55, 0.45)}
    q = {(): (0.35, 0.65), (0,): (0.5, 0.5), (1,): (0.75, 0.25)}
    half = (0.5, 0.5)
    return theory.TabularPair.from_functions(
        lambda x: p.get(x, half), lambda x: q.get(x, half), vocabulary=2, depth=2
    )


@pytest.fixture
def bernoulli():
    return theory.TabularPair.context_free([1 / 3, 2 / 3], [2 / 3, 1 / 3], depth=3)


def pairs(n, seed, sizes=range(2, 9)):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        size = rng.choice(list(sizes))
        laws = rng.dirichlet(np.full(size, rng.choice([0.1, 0.5, 1.0, 5.0])), size=2)
        laws = np.where(rng.random(laws.shape) < 0.15, 0, laws) + 0.0
        laws[:, 0] += 1e-3
        yield laws / laws.sum(axis=1, keepdims=True)


def test_theory_imports_without_jax():
    code = (
        "import sys; from privlearn.decoding import theory; theory.block_efficiency(0.5, 2); "
        "theory.kseq_expected_tau; theory.TabularPair; assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize(
    ("k", "rho", "kseq", "rrs", "wor", "optimum"),
    [
        (1, 1.0, 0.5, 0.5, 0.5, 0.5),
        (2, 1.614143, 0.622829, 0.6, 0.688571, 0.66),
        (3, 2.086906, 0.717381, 0.68, 1.0, 0.788),
        (4, 2.447139, 0.789428, 0.744, 1.0, 0.8904),
    ],
)
def test_reference_table_of_the_rules(k, rho, kseq, rrs, wor, optimum):
    found = theory.kseq(P, Q, k)
    np.testing.assert_allclose([found.rho, found.acceptance], [rho, kseq], atol=1e-6)
    np.testing.assert_allclose(theory.rrs_acceptance(P, Q, k), rrs, atol=1e-12)
    np.testing.assert_allclose(theory.rrs_without_replacement_acceptance(P, Q, k), wor, atol=1e-6)
    np.testing.assert_allclose(theory.optimal_acceptance(P, Q, k), optimum, atol=1e-12)


def test_optimum_is_the_minimum_over_all_sets():
    for p, q in pairs(60, 0, range(2, 7)):
        for k in (1, 2, 3):
            best = min(
                p[list(h)].sum() - q[list(h)].sum() ** k
                for r in range(len(p) + 1)
                for h in itertools.combinations(range(len(p)), r)
            )
            assert abs(theory.optimal_acceptance(p, q, k) - 1 - best) < 1e-12


def test_rules_stay_between_the_guarantee_and_the_optimum():
    for p, q in pairs(300, 1):
        for k in (1, 2, 4, 8):
            best = theory.optimal_acceptance(p, q, k)
            kseq = theory.kseq(p, q, k).acceptance
            assert theory.kseq_bound(k) * best - 1e-9 <= kseq <= best + 1e-9
            assert theory.rrs_acceptance(p, q, k) <= kseq + 1e-9


def test_one_candidate_is_one_minus_total_variation_for_every_rule():
    for p, q in pairs(50, 2):
        alpha = 1 - theory.tvd(p, q)
        rules = [
            theory.acceptance(p, q),
            theory.kseq(p, q, 1).acceptance,
            theory.rrs_acceptance(p, q, 1),
            theory.rrs_without_replacement_acceptance(p, q, 1),
            theory.greedy_drafts_acceptance(p, q, 1),
            theory.optimal_acceptance(p, q, 1),
        ]
        np.testing.assert_allclose(rules, alpha, atol=1e-12)


@pytest.mark.parametrize(("size", "k"), [(5, 2), (10, 4), (7, 7)])
def test_uniform_draft_of_a_certain_target(size, k):
    p, q = np.eye(size)[2], np.full(size, 1 / size)
    special = theory.kseq_uniform(size, k)
    np.testing.assert_allclose(theory.kseq(p, q, k), special, rtol=1e-9)
    np.testing.assert_allclose(theory.optimal_acceptance(p, q, k), special.acceptance, rtol=1e-12)


def test_edges_of_kseq():
    assert theory.kseq(P, P, 3).acceptance == pytest.approx(1)
    assert theory.kseq([1.0, 0.0], [0.0, 1.0], 3).acceptance == 0


# ------------------------------------------------------------------------------------- exact tau


def test_exact_sums_of_the_context_dependent_example(example):
    assert theory.token_expected_tau(example, 2) == pytest.approx(1.28)
    assert theory.block_expected_tau(example, 2) == pytest.approx(1.3425)
    np.testing.assert_allclose(theory.token_tau_law(example, 2), [0.25, 0.22, 0.53])
    np.testing.assert_allclose(theory.block_tau_law(example, 2), [0.25, 0.1575, 0.5925])
    kseq = [theory.kseq_expected_tau(example, 2, k) for k in (1, 2, 3)]
    rrs = [theory.rrs_expected_tau(example, 2, k) for k in (1, 2, 3)]
    np.testing.assert_allclose(kseq, [1.28, 1.530165, 1.685199], atol=1e-6)
    np.testing.assert_allclose(rrs, [1.28, 1.4575, 1.585725], atol=1e-12)


def test_tau_laws_of_the_bernoulli_example(bernoulli):
    np.testing.assert_allclose(theory.token_tau_law(bernoulli, 3), [1 / 3, 2 / 9, 4 / 27, 8 / 27])
    np.testing.assert_allclose(theory.block_tau_law(bernoulli, 3), [1 / 3, 1 / 9, 1 / 9, 4 / 9])
    assert theory.full_information_expected_tau(bernoulli, 3) == pytest.approx(50 / 27)


def test_block_is_between_token_and_full_information():
    for seed in range(30):
        world = theory.TabularPair.random(3, 3, seed, zeros=0.2)
        token, block, full = (
            f(world, 3)
            for f in (
                theory.token_expected_tau,
                theory.block_expected_tau,
                theory.full_information_expected_tau,
            )
        )
        assert token <= block + 1e-12
        assert block <= full + 1e-12


def test_no_verifier_beats_block_verification():
    """Linear program over all verification kernels at V = 2, gamma = 2 (context dependent)."""
    for seed in range(3):
        world = theory.TabularPair.random(2, 2, seed)
        best = _best_kernel(world)
        assert best == pytest.approx(theory.block_expected_tau(world, 2), abs=1e-7)


def _best_kernel(world):
    """Largest E[tau] of kernels (x^2) -> (tau, y) whose text, completed by p, follows p."""
    outcomes = [(x, tau, y) for x in itertools.product(range(2), repeat=2) for tau in range(3)
                for y in range(2)]  # fmt: skip
    drafts = list(itertools.product(range(2), repeat=2))

    def chain(laws, text):
        chance, code = 1.0, 0
        for depth, token in enumerate(text):
            chance *= laws[depth][code, token]
            code = code * 2 + token
        return chance

    texts = list(itertools.product(range(2), repeat=3))
    rows, right = [], []
    for x in drafts:
        rows.append([1.0 if o[0] == x else 0.0 for o in outcomes])
        right.append(chain(world.q, x))
    for text in texts:
        row = []
        for x, tau, y in outcomes:
            begun = (*x[:tau], y)
            same = text[: tau + 1] == begun
            rest = chain(world.p, text) / chain(world.p, begun) if same else 0.0
            row.append(rest)
        rows.append(row)
        right.append(chain(world.p, text))
    # The last equation follows from the others; equalities of floats upset solvers.
    found = linprog([-float(o[1]) for o in outcomes], A_eq=rows[:-1], b_eq=right[:-1])
    assert found.success, found.message
    return -found.fun


# -------------------------------------------------------------------------------------- walltime


def test_walltime_anchors():
    gammas = [1, 3, 5, 7, 10]
    np.testing.assert_allclose(
        theory.block_efficiency(0.8, gammas), [1.8, 2.952, 3.689, 4.161, 4.571], atol=6e-4
    )
    np.testing.assert_allclose(
        theory.walltime_improvement(0.8, gammas, 0.05),
        [1.714, 2.567, 2.951, 3.082, 3.047],
        atol=6e-4,
    )
    assert theory.best_gamma(0.8, 0.05) == 8
    assert theory.walltime_improvement(0.8, 8, 0.05) == pytest.approx(3.092, abs=6e-4)
    assert theory.walltime_improvement(0.8, 7, 0.05) == pytest.approx(3.0823, abs=6e-5)


def test_speculation_gains_exactly_if_alpha_exceeds_c():
    for alpha, c in itertools.product((0.1, 0.3, 0.5, 0.9), (0.05, 0.2, 0.4, 0.8)):
        assert (theory.best_gamma(alpha, c) > 0) == (alpha > c)
    assert theory.walltime_improvement(0.6, 1, 0.2) == pytest.approx(1.6 / 1.2)


def test_online_paper_speedups():
    found = theory.walltime_improvement([0.5, 0.75], 5, 0.1)
    np.testing.assert_allclose(found, [1.313, 2.192], atol=6e-4)


def test_context_free_tau_agrees_with_block_efficiency(bernoulli):
    assert theory.token_expected_tau(bernoulli, 3) + 1 == pytest.approx(
        float(theory.block_efficiency(2 / 3, 3))
    )


def test_wide_steps_that_cost_turn_speculation_off():
    assert theory.best_gamma(0.5, 0.1, step_cost=lambda width: float(width)) == 0
    assert float(theory.speedup(1.0, 2, 0.1, 1.6)) == pytest.approx(2 / 1.8)


def test_operations_grow_while_walltime_falls():
    assert float(theory.operations_factor(0.8, 5, 0.1)) == pytest.approx(0.2 * 6.5 / (1 - 0.8**6))
    assert float(theory.block_efficiency(1.0, 4)) == 5.0


# ------------------------------------------------------------------------- lenience, distillation


@pytest.mark.parametrize(
    ("function", "eps", "accepted", "law", "ratio"),
    [
        ("linear", 1.0, 0.6, (0.6, 0.3, 0.1), 1.0),
        ("linear", 0.5, 0.7, (0.5, 0.3, 0.2), 2.0),
        ("squared", 0.5, 0.9, (0.3, 0.3, 0.4), 4.0),
        ("exponential", 0.5, 0.8162, (0.3838, 0.3, 0.3162), 3.162),
        ("linear", 0.1, 1.0, (0.2, 0.3, 0.5), 5.0),
        ("squared", 0.1, 1.0, (0.2, 0.3, 0.5), 5.0),
        ("exponential", 0.1, 1.0, (0.2, 0.3, 0.5), 5.0),
    ],
)
def test_lenience_table(function, eps, accepted, law, ratio):
    found = theory.lenience_law(LENIENT_P, LENIENT_Q, eps, function)
    np.testing.assert_allclose(found.acceptance, accepted, atol=5e-5)
    np.testing.assert_allclose(found.law, law, atol=5e-5)
    np.testing.assert_allclose(found.largest_ratio, ratio, atol=5e-4)


def test_linear_lenience_never_exceeds_its_promise():
    for p, q in pairs(100, 3):
        for eps in (0.2, 0.5, 0.9):
            assert (theory.lenience_law(p, q, eps).law <= p / eps + 1e-12).all()


def test_divergences_of_the_anchor():
    p, q = LENIENT_P, LENIENT_Q
    found = [float(theory.divergence(name, p, q)) for name in theory.DIVERGENCES]
    np.testing.assert_allclose(found, [0.498224, 0.584996, 0.125101, 0.4], atol=1e-6)
    assert float(theory.jsd(p, q, 0.001) / 0.001) == pytest.approx(0.497664, abs=1e-6)
    assert float(theory.jsd(p, q, 0.999) / 0.001) == pytest.approx(0.584064, abs=1e-6)


@pytest.mark.parametrize("name", theory.DIVERGENCES)
def test_gradients_agree_with_central_differences(name):
    rng = np.random.default_rng(4)
    for _ in range(10):
        p, z, step = rng.dirichlet(np.ones(5)), rng.normal(size=5), 1e-5

        def value(z, p=p):
            q = np.exp(z - z.max())
            return float(theory.divergence(name, p, q / q.sum(), 0.3))

        q = np.exp(z) / np.exp(z).sum()
        for i in range(5):
            move = step * np.eye(5)[i]
            slope = (value(z + move) - value(z - move)) / (2 * step)
            assert slope == pytest.approx(theory.divergence_gradient(name, p, q, 0.3)[i], abs=1e-8)


def test_small_divergence_means_large_acceptance():
    for p, q in pairs(200, 5):
        q = (q + 1e-3) / (q + 1e-3).sum()
        p = (p + 1e-3) / (p + 1e-3).sum()
        for kl in (theory.fkl(p, q), theory.rkl(p, q)):
            for bound in theory.acceptance_bounds(kl):
                assert bound <= theory.acceptance(p, q) + 1e-12


def test_student_data_control_the_teacher_process():
    """sum_t E_p TVD_t <= sum_t sum_{s <= t} e_s with e_s measured on the student's texts."""
    for seed in range(20):
        world = theory.TabularPair.random(3, 3, seed)
        reach_p = reach_q = np.ones(1)
        on_teacher, on_student = [], []
        for depth in range(4):
            gap = theory.tvd(world.p[depth], world.q[depth])
            on_teacher.append((reach_p * gap).sum())
            on_student.append((reach_q * gap).sum())
            reach_p = (reach_p[:, None] * world.p[depth]).ravel()
            reach_q = (reach_q[:, None] * world.q[depth]).ravel()
        assert sum(on_teacher) <= np.cumsum(on_student).sum() + 1e-12


# ------------------------------------------------------------------------------------- lookahead


@pytest.mark.parametrize(
    ("a", "g", "b", "tokens"), [(0.7, 4, 1, 2.7731), (0.7, 4, 5, 4.587269), (0.7, 6, 15, 6.7656)]
)
def test_lookahead_chain_model(a, g, b, tokens):
    assert float(theory.lookahead_tokens(a, g, b)) == pytest.approx(tokens, abs=6e-5)


def test_lookahead_simulated():
    """Five sigma (false alarm 6e-7); detects errors above 0.02 tokens."""
    rng, n = np.random.default_rng(0), 40_000
    matched = np.minimum.accumulate(rng.random((n, 3, 4)) < 0.6, axis=2).sum(axis=2).max(axis=1)
    tokens = matched + 1.0
    error = 5 * tokens.std() / math.sqrt(n)
    assert abs(tokens.mean() - theory.lookahead_tokens(0.6, 4, 3)) < error < 0.05


def test_lookahead_needs_no_guess_to_emit_one_token():
    assert float(theory.lookahead_tokens(0.5, 4, 0)) == 1.0
    assert theory.lookahead_width(7, 5, 7) == 56
    assert float(theory.lookahead_compression(0.5, 4, 5, 1)) == pytest.approx(
        float(theory.lookahead_tokens(0.5, 4, 5))
    )


# ------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.acceptance([0.5, 0.6], [0.5, 0.5]), "p must sum to one"),
        (lambda: theory.acceptance([0.5, 0.5], [1.0]), "share a vocabulary"),
        (lambda: theory.kseq(P, Q, 0), "n_drafts must be >= 1"),
        (lambda: theory.block_efficiency(1.5, 2), "alpha must lie in"),
        (lambda: theory.block_efficiency(0.5, 1.5), "gamma must be integers"),
        (lambda: theory.walltime_improvement(0.5, 2, -1.0), "c must be >= 0"),
        (lambda: theory.lenience_law(P, Q, 0.0), "eps must be > 0"),
        (lambda: theory.divergence("kl", P, Q), "name must be one of"),
        (lambda: theory.kseq_uniform(2, 3), "vocabulary must be >= n_drafts"),
    ],
)
def test_bad_arguments_name_themselves(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_gamma_beyond_the_world_is_refused(example):
    with pytest.raises(ValueError, match="gamma must be <= the depth"):
        theory.token_expected_tau(example, 3)
