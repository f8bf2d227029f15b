"""Optimal couplings: marginals, values, and what cannot be coupled."""

import itertools

import cvxpy
import numpy as np
import pytest

from privlearn.decoding import theory, transport


def laws(n, seed, sizes=(2, 3, 4)):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.dirichlet(np.full(rng.choice(sizes), 0.7), size=2)


def test_set_law_is_the_law_of_all_tuples():
    for _, q in laws(10, 0):
        for k in (1, 2, 3):
            counted: dict = {}
            for t in itertools.product(range(len(q)), repeat=k):
                key = tuple(sorted(set(t)))
                counted[key] = counted.get(key, 0) + np.prod(q[list(t)])
            found = transport.set_law(tuple(q), k)
            assert found.keys() == counted.keys()
            np.testing.assert_allclose([found[s] for s in counted], list(counted.values()))


def test_coupling_has_exact_marginals_and_the_closed_form_value():
    for p, q in laws(25, 1):
        for k in (1, 2, 3):
            plan = transport.optimal_coupling(tuple(p), tuple(q), k)
            np.testing.assert_allclose(plan.plan.sum(axis=1), plan.weights, atol=1e-15)
            np.testing.assert_allclose(plan.plan.sum(axis=0), p, atol=1e-15)
            assert plan.acceptance == pytest.approx(theory.optimal_acceptance(p, q, k), abs=1e-9)


def test_sets_of_candidates_lose_something_that_tuples_have():
    """The program as in the paper, over tuples and with equalities, stated in CVXPY."""
    for p, q in laws(6, 5, sizes=(2, 3)):
        for k in (1, 2, 3):
            tuples = list(itertools.product(range(len(q)), repeat=k))
            weights = np.prod(q[np.array(tuples)], axis=1)
            member = np.array([[y in t for y in range(len(q))] for t in tuples], float)
            plan = cvxpy.Variable(member.shape, nonneg=True)
            program = cvxpy.Problem(
                cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(member, plan))),
                [cvxpy.sum(plan, axis=1) == weights, cvxpy.sum(plan, axis=0) == p],
            )
            program.solve(solver=cvxpy.CLARABEL)
            found = transport.optimal_coupling(tuple(p), tuple(q), k)
            assert found.acceptance == pytest.approx(program.value, abs=1e-6)


def test_optimum_without_replacement_is_the_linear_program():
    for p, q in laws(15, 2):
        for k in (2, 3):
            sets: dict = {}
            for t in itertools.permutations(range(len(q)), min(k, len(q))):
                chance, left = 1.0, 1.0
                for x in t:
                    chance *= q[x] / left
                    left -= q[x]
                key = tuple(sorted(t))
                sets[key] = sets.get(key, 0) + chance
            best = transport.couple(sets, p).acceptance
            assert theory.optimal_acceptance_without_replacement(p, q, k) == pytest.approx(
                best, abs=1e-9
            )
            found = theory.rrs_without_replacement_acceptance(p, q, k)
            assert found <= best + 1e-9


def test_greedy_drafts_reach_their_linear_program():
    for p, q in laws(15, 3, sizes=(3, 4)):
        top = np.argsort(-q, kind="stable")[:1]
        rest = np.delete(np.arange(len(q)), top)
        sets = {tuple(sorted((int(top[0]), int(x)))): q[x] / q[rest].sum() for x in rest}
        best = transport.couple(sets, p).acceptance
        assert theory.greedy_drafts_acceptance(p, q, 2) == pytest.approx(best, abs=1e-9)


def test_canonical_decomposition_has_the_value_of_the_optimum():
    for p, q in laws(15, 4):
        value = transport.canonical_acceptance(tuple(p), tuple(q))
        assert value == pytest.approx(theory.optimal_acceptance(p, q, 2), abs=1e-9)


def test_candidates_that_cannot_be_drafted_have_no_row():
    plan = transport.optimal_coupling((0.5, 0.5), (1.0, 0.0), 2)
    with pytest.raises(ValueError, match="probability 0"):
        plan.given([1, 0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((0.5, 0.5), (1.0,), 2), "share a vocabulary"),
        (((0.5, 0.5), (0.5, 0.5), 0), "n_drafts"),
        (((1 / 60,) * 60, (1 / 60,) * 60, 3), "variables"),
    ],
)
def test_programs_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        transport.optimal_coupling(*arguments)
