"""Optimal transport with membership cost: the most that any multi-draft rule can accept.

A rule that draws the emitted token Y given the candidates X_1..X_K is a coupling of their law with
the target p; it accepts where Y is among the candidates (Sun et al., "SpecTr", NeurIPS 2023,
arXiv 2310.15141, section 4). The optimum is a linear program, solved here on the *sets* of
candidates, since the cost sees only the set. Its value has a closed form (derived by max-flow
min-cut and checked against the program), see `privlearn.decoding.theory.optimal_acceptance`.

Plain NumPy and SciPy, for small vocabularies.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.optimize import linprog

#: Sets of candidates times tokens that a program may have.
_MAX_VARIABLES = 200_000


@dataclass(frozen=True)
class Coupling:
    """A plan that couples the set of candidates with the emitted token.

    Parameters
    ----------
    sets : tuple of tuple of int
        Sets of candidates with positive probability, sorted tokens.
    weights : ndarray, shape (n_sets,)
        Probability of each set.
    plan : ndarray, shape (n_sets, V)
        Joint probability of set and emitted token; rows sum to `weights`, columns to p.
    """

    sets: tuple[tuple[int, ...], ...]
    weights: np.ndarray
    plan: np.ndarray

    @property
    def acceptance(self) -> float:
        """Probability that the emitted token is among the candidates."""
        return float(sum(self.plan[i, list(s)].sum() for i, s in enumerate(self.sets)))

    def given(self, candidates: ArrayLike) -> np.ndarray:
        """Law of the emitted token given the candidates, (V,).

        Raises
        ------
        ValueError
            If the draft cannot propose this set of candidates.
        """
        key = tuple(sorted({int(t) for t in np.ravel(candidates)}))
        if key not in self.sets:
            raise ValueError(f"candidates {key} have probability 0 under the draft")
        at = self.sets.index(key)
        return self.plan[at] / self.weights[at]


def set_law(q: Sequence[float], n_drafts: int) -> dict[tuple[int, ...], float]:
    """Law of the set of distinct tokens among K i.i.d. candidates, by inclusion and exclusion.

    Examples
    --------
    >>> {s: round(w, 3) for s, w in set_law((0.5, 0.3, 0.2), 2).items()}
    {(0,): 0.25, (1,): 0.09, (2,): 0.04, (0, 1): 0.3, (0, 2): 0.2, (1, 2): 0.12}
    """
    support = [x for x, mass in enumerate(q) if mass > 0]
    within: dict[tuple[int, ...], float] = {}
    for size in range(1, min(n_drafts, len(support)) + 1):
        for members in itertools.combinations(support, size):
            exactly = _surjections(tuple(float(q[x]) for x in members), n_drafts)
            if exactly > 0:
                within[members] = exactly
    return within


@functools.lru_cache(maxsize=4096)
def _surjections(masses: tuple[float, ...], n: int) -> float:
    """Probability that n draws fall in these tokens and hit each, without cancellation."""
    if not masses:
        return 1.0 if n == 0 else 0.0
    first, rest = masses[0], masses[1:]
    total = 0.0
    for times in range(1, n - len(rest) + 1):
        total += _binomial(n, times) * first**times * _surjections(rest, n - times)
    return total


@functools.lru_cache(maxsize=4096)
def _binomial(n: int, k: int) -> int:
    return 1 if k in (0, n) else _binomial(n - 1, k - 1) + _binomial(n - 1, k)


@functools.lru_cache(maxsize=256)
def optimal_coupling(p: tuple[float, ...], q: tuple[float, ...], n_drafts: int) -> Coupling:
    """Coupling of K i.i.d. candidates of q with p that accepts as often as possible.

    The program is written as a maximal flow, ``max sum of pi[s, y] over y in s`` with rows at most
    the weights of the sets and columns at most p: equalities on both sides make solvers report
    float data infeasible now and then. Mass that the flow leaves is filled in independently.

    Parameters
    ----------
    p, q : tuple of float
        Laws of target and draft over the same V tokens.
    n_drafts : int
        K.

    Returns
    -------
    Coupling

    Raises
    ------
    ValueError
        If the laws do not fit, or the program is too large.
    RuntimeError
        If the solver fails.

    Examples
    --------
    >>> round(optimal_coupling((0.1, 0.2, 0.7), (0.5, 0.3, 0.2), 2).acceptance, 12)
    0.66
    """
    if len(p) != len(q):
        raise ValueError(f"p and q must share a vocabulary, got {len(p)} and {len(q)} tokens")
    if n_drafts < 1:
        raise ValueError(f"n_drafts must be >= 1, got {n_drafts}")
    sets = set_law(q, n_drafts)
    return couple(sets, np.asarray(p, dtype=float))


def couple(sets: dict[tuple[int, ...], float], p: np.ndarray) -> Coupling:
    """Optimal coupling of any law of the set of candidates with p."""
    if len(sets) * len(p) > _MAX_VARIABLES:
        raise ValueError(
            f"the program would have {len(sets)} sets x {len(p)} tokens; at most {_MAX_VARIABLES} "
            "variables are allowed: use theory.optimal_acceptance for the value alone"
        )
    names, weights = tuple(sets), np.array(list(sets.values()))
    rows = np.repeat(np.arange(len(names)), [len(s) for s in names])
    columns = np.array([x for s in names for x in s])
    n = len(columns)
    at = (np.ones(2 * n), (np.concatenate([rows, len(names) + columns]), np.tile(np.arange(n), 2)))
    bounds = sp.csr_array(at, shape=(len(names) + len(p), n))
    limits = np.concatenate([weights, p])
    # The stubs of SciPy know no sparse A_ub; the HiGHS methods take it.
    found = linprog(-np.ones(n), A_ub=bounds, b_ub=limits, method="highs")  # type: ignore[call-overload]
    if not found.success:
        raise RuntimeError(f"the solver found no coupling: {found.message}")
    plan = np.zeros((len(names), len(p)))
    plan[rows, columns] = np.maximum(found.x, 0)
    return Coupling(names, weights, _filled(plan, weights, p))


def _filled(plan: np.ndarray, weights: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Make both marginals exact: shrink what rounding overfilled, spread the rest independently."""
    for axis, bound in ((1, weights[:, None]), (0, p[None, :])):
        total = plan.sum(axis=axis, keepdims=True)
        plan = plan * np.minimum(1, bound / np.where(total > 0, total, 1))
    row_slack = np.maximum(weights - plan.sum(axis=1), 0)
    column_slack = np.maximum(p - plan.sum(axis=0), 0)
    left = row_slack.sum()
    return plan if left == 0 else plan + np.outer(row_slack, column_slack) / left


def canonical_acceptance(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    """The optimum for two i.i.d. candidates through its canonical decomposition.

    Khisti et al., "Multi-Draft Speculative Sampling: Canonical Decomposition and Theoretical
    Limits", ICLR 2025, arXiv 2410.18234: choose one candidate with weights that may depend on the
    pair, then verify it against p as a single draft. The best weights maximise
    ``sum over y of min(p(y), Pr(chosen = y))``: one unknown for each pair of distinct tokens.

    Examples
    --------
    >>> round(canonical_acceptance((0.1, 0.2, 0.7), (0.5, 0.3, 0.2)), 9)
    0.66
    """
    size = len(p)
    if len(q) != size:
        raise ValueError(f"p and q must share a vocabulary, got {size} and {len(q)} tokens")
    chosen = [(i, j) for i, j in itertools.combinations(range(size), 2) if q[i] * q[j] > 0]
    n = len(chosen)
    # Unknowns: share of the pair's mass that goes to its first token, then t(y) <= p(y), law(y).
    rows, bound = np.zeros((size, n + size)), np.array([mass**2 for mass in q])
    rows[:, n:] = np.eye(size)
    for at, (i, j) in enumerate(chosen):
        mass = 2 * q[i] * q[j]
        rows[i, at], rows[j, at] = -mass, mass
        bound[j] += mass
    limits = [(0.0, 1.0)] * n + [(0.0, mass) for mass in p]
    cost = np.concatenate([np.zeros(n), -np.ones(size)])
    found = linprog(cost, A_ub=rows, b_ub=bound, bounds=limits, method="highs")
    if not found.success:
        raise RuntimeError(f"the solver found no weights: {found.message}")
    assert found.fun is not None  # it succeeded
    return -float(found.fun)
