"""How often the next token is a drafted one, for every rule of selection.

One position, K candidates from q, target p. Acceptance is membership: the emitted token is among
the candidates. Sources with each function; the closed forms of the optimum and of the special case
were derived by max-flow min-cut and checked against linear programs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from privlearn.decoding.theory._arguments import check_count, check_law, check_pair


def acceptance(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """One candidate: ``sum min(p, q) = 1 - TV(p, q)``, over the last axis.

    Leviathan et al., ICML 2023, arXiv 2211.17192, theorem 3.5; the maximal coupling.

    Examples
    --------
    >>> float(acceptance([0.6, 0.3, 0.1], [0.2, 0.3, 0.5]).round(12))
    0.6
    """
    p, q = check_pair(p, q)
    return np.minimum(p, q).sum(axis=-1)


class KSeq(NamedTuple):
    """The division factor of K-SEQ and its acceptance."""

    rho: float
    beta: float  #: chance that one candidate passes
    acceptance: float


def kseq(p: ArrayLike, q: ArrayLike, n_drafts: int) -> KSeq:
    """K-SEQ at its best division factor: the root of ``1 - (1 - beta(rho))^K = rho beta(rho)``.

    Sun et al., "SpecTr", NeurIPS 2023, arXiv 2310.15141, algorithm 2 and theorem 2.

    Examples
    --------
    >>> [round(x, 6) for x in kseq([0.1, 0.2, 0.7], [0.5, 0.3, 0.2], 2)]
    [1.614143, 0.385857, 0.622829]
    """
    p, q = check_pair(p, q)
    n = check_count("n_drafts", n_drafts)

    def beta(rho: float) -> float:
        return min(float(np.minimum(q, p / rho).sum()), 1.0)

    def excess(rho: float) -> float:
        return 1 - (1 - beta(rho)) ** n - rho * beta(rho)

    if n == 1 or excess(1.0) <= 0:
        rho = 1.0
    elif excess(float(n)) >= 0:
        rho = float(n)
    else:
        rho = float(brentq(excess, 1.0, float(n), xtol=1e-15, rtol=1e-15))
    return KSeq(rho, beta(rho), 1 - (1 - beta(rho)) ** n)


def kseq_bound(n_drafts: int) -> float:
    """``1 - (1 - 1/K)^K``: K-SEQ accepts at least this share of the optimum (SpecTr, theorem 2)."""
    n = check_count("n_drafts", n_drafts)
    return 1 - (1 - 1 / n) ** n


def kseq_uniform(vocabulary: int, n_drafts: int) -> KSeq:
    """One-hot target and uniform draft on V >= K tokens: K-SEQ reaches the optimum.

    ``rho* = V (1 - (1 - 1/V)^K)``, acceptance ``1 - (1 - 1/V)^K``. Derived; checked numerically.

    Examples
    --------
    >>> round(kseq_uniform(5, 2).acceptance, 12)
    0.36
    """
    size, n = check_count("vocabulary", vocabulary), check_count("n_drafts", n_drafts)
    if size < n:
        raise ValueError(f"vocabulary must be >= n_drafts = {n}, got {size}")
    accepted = 1 - (1 - 1 / size) ** n
    return KSeq(size * accepted, 1 / size, accepted)


def optimal_acceptance(p: ArrayLike, q: ArrayLike, n_drafts: int) -> float:
    """The most that any rule can accept of K i.i.d. candidates, in O(V log V).

    ``1 + min over H of (p(H) - q(H)^K)``; the minimum is at a prefix of the tokens sorted by p / q.
    Derived by max-flow min-cut (the transport problem is SpecTr's, arXiv 2310.15141, section 4);
    checked against linear programs.

    Examples
    --------
    >>> [round(optimal_acceptance([0.1, 0.2, 0.7], [0.5, 0.3, 0.2], k), 6) for k in (1, 2, 3, 4)]
    [0.5, 0.66, 0.788, 0.8904]
    """
    p, q = check_pair(p, q)
    n = check_count("n_drafts", n_drafts)
    below_p, below_q = _prefixes(p, q)
    return float(1 + (below_p - below_q**n).min())


def optimal_acceptance_without_replacement(p: ArrayLike, q: ArrayLike, n_drafts: int) -> float:
    """The same for K candidates drawn without replacement from q.

    ``1 + min over prefixes H of (p(H) - Pr(all candidates in H))``, by a sum over the sets in H:
    exponential in K, for small vocabularies. K beyond the support of q counts as its size.

    Examples
    --------
    >>> p, q = [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]
    >>> round(optimal_acceptance_without_replacement(p, q, 2), 6)
    0.785714
    """
    p, q = check_pair(p, q)
    n = min(check_count("n_drafts", n_drafts), int((q > 0).sum()))
    order = _order(p, q)
    below = np.concatenate([[0.0], np.cumsum(p[order])])
    inside = [_all_inside(q, tuple(order[:j]), n, 1.0) for j in range(len(order) + 1)]
    return float(1 + (below - inside).min())


def rrs_acceptance(p: ArrayLike, q: ArrayLike, n_drafts: int) -> float:
    """Recursive rejection with replacement: ``1 - prod over i of (1 - sum min(p_i, q))``.

    Miao et al., SpecInfer, ASPLOS 2024, arXiv 2305.09781.

    Examples
    --------
    >>> [round(rrs_acceptance([0.1, 0.2, 0.7], [0.5, 0.3, 0.2], k), 6) for k in (1, 2, 3, 4)]
    [0.5, 0.6, 0.68, 0.744]
    """
    p, q = check_pair(p, q)
    refused = 1.0
    for _ in range(check_count("n_drafts", n_drafts)):
        refused *= 1 - np.minimum(p, q).sum()
        rest = np.maximum(p - q, 0)
        if rest.sum() == 0:
            return 1.0
        p = rest / rest.sum()
    return float(1 - refused)


def rrs_without_replacement_acceptance(p: ArrayLike, q: ArrayLike, n_drafts: int) -> float:
    """Recursive rejection without replacement, by a sum over the candidates drawn.

    Chen et al., Sequoia, 2024, arXiv 2402.12374. Exponential in K, for small vocabularies.

    Examples
    --------
    >>> p, q = [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]
    >>> round(rrs_without_replacement_acceptance(p, q, 2), 6)
    0.688571
    """
    p, q = check_pair(p, q)
    return float(_without_replacement(p, q, check_count("n_drafts", n_drafts)))


def greedy_drafts_acceptance(p: ArrayLike, q: ArrayLike, n_drafts: int) -> float:
    """Top K - 1 tokens T of q and a sample of the rest: ``p(T) + sum min(p, q~) off T``.

    Hu et al., "Towards Optimal Multi-Draft Speculative Decoding", ICLR 2025, arXiv 2502.18779.

    Examples
    --------
    >>> round(greedy_drafts_acceptance([0.1, 0.2, 0.7], [0.5, 0.3, 0.2], 2), 6)
    0.7
    """
    p, q = check_pair(p, q)
    top = np.argsort(-q, kind="stable")[: check_count("n_drafts", n_drafts) - 1]
    rest = q.copy()
    rest[top] = 0
    if rest.sum() == 0:
        return float(p[top].sum())
    rest = rest / rest.sum()  # 0 on the top tokens
    return float(p[top].sum() + np.minimum(p, rest).sum())


def deterministic_acceptance(p: ArrayLike, candidates: ArrayLike) -> float:
    """Fixed candidates: p of the distinct ones, the largest possible."""
    tokens = np.unique(np.asarray(candidates, dtype=np.int64))
    return float(check_law("p", p)[tokens].sum())


def _order(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Tokens by ascending p / q, q = 0 last."""
    return np.argsort(np.where(q > 0, p / np.where(q > 0, q, 1), np.inf), kind="stable")


def _prefixes(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = _order(p, q)
    return (
        np.concatenate([[0.0], np.cumsum(p[order])]),
        np.minimum(np.concatenate([[0.0], np.cumsum(q[order])]), 1),
    )


def _all_inside(q: np.ndarray, inside: tuple, n: int, left: float) -> float:
    """Probability that n draws without replacement, from what is left of q, all fall inside."""
    if n == 0:
        return 1.0
    return float(
        sum(
            q[x] / left * _all_inside(q, tuple(y for y in inside if y != x), n - 1, left - q[x])
            for x in inside
            if q[x] > 0 and left > 0
        )
    )


def _without_replacement(p: np.ndarray, q: np.ndarray, n: int) -> float:
    total = q.sum()
    if n == 0 or total <= 0:
        return 0.0
    q = q / total
    accepted = np.minimum(p, q).sum()
    rest = np.maximum(p - q, 0)
    if rest.sum() <= 1e-15:
        return 1.0
    following = rest / rest.sum()
    refused = np.maximum(q - p, 0)
    return accepted + sum(
        refused[x] * _without_replacement(following, np.where(np.arange(len(q)) == x, 0, q), n - 1)
        for x in np.flatnonzero(refused > 1e-15)
    )
