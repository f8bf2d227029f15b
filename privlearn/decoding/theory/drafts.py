"""Exact numbers of accepted tokens of a step, in tabular worlds.

Sums over the drafted texts; token and full information: Leviathan et al., arXiv 2211.17192, and Sun
et al., arXiv 2403.10444; the sums for block verification and its optimality were re-derived and
checked by enumeration.
"""

from __future__ import annotations

import numpy as np

from privlearn.decoding.theory._arguments import check_count
from privlearn.decoding.theory.selection import kseq
from privlearn.decoding.theory.worlds import TabularPair


def token_expected_tau(world: TabularPair, gamma: int) -> float:
    """``sum over l and x^l of prod_{i <= l} min(p, q)``: token verification.

    Examples
    --------
    >>> world = TabularPair.context_free([1 / 3, 2 / 3], [2 / 3, 1 / 3], depth=3)
    >>> [round(token_expected_tau(world, g) * 27, 9) for g in (2, 3)]
    [30.0, 38.0]
    """
    return float((np.arange(gamma + 1) * token_tau_law(world, gamma)).sum())


def token_tau_law(world: TabularPair, gamma: int) -> np.ndarray:
    """Law of tau under token verification, (gamma + 1,)."""
    _check(world, gamma)
    reach, tails = np.ones(1), [1.0]
    for depth in range(gamma):
        reach = (reach[:, None] * np.minimum(world.p[depth], world.q[depth])).ravel()
        tails.append(reach.sum())
    return -np.diff(np.append(tails, 0.0))


def block_expected_tau(world: TabularPair, gamma: int) -> float:
    """``sum over l and x^l of min_{j <= l} q(x^j) p(x_{j+1..l} | x^j)``: block verification.

    The largest possible for a verifier whose text is completed by plain sampling.

    Examples
    --------
    >>> world = TabularPair.context_free([1 / 3, 2 / 3], [2 / 3, 1 / 3], depth=3)
    >>> [round(block_expected_tau(world, g) * 9, 9) for g in (2, 3)]
    [11.0, 15.0]
    """
    return float((np.arange(gamma + 1) * block_tau_law(world, gamma)).sum())


def block_tau_law(world: TabularPair, gamma: int) -> np.ndarray:
    """Law of tau under block verification, (gamma + 1,): ``Pr(tau >= l, x^l) = q(x^l) P_l``."""
    _check(world, gamma)
    # least(x^l) = min over j of q(x^j) p(rest), and q(x^l): a two-term recursion.
    least, drafted, tails = np.ones(1), np.ones(1), [1.0]
    for depth in range(gamma):
        drafted = (drafted[:, None] * world.q[depth]).ravel()
        least = np.minimum((least[:, None] * world.p[depth]).ravel(), drafted)
        tails.append(least.sum())
    return -np.diff(np.append(tails, 0.0))


def full_information_expected_tau(world: TabularPair, gamma: int) -> float:
    """``sum over l and x^l of min(p(x^l), q(x^l))``: if later tokens may be re-weighted too.

    Reached by greedy block verification, whose next tokens follow a modified target.

    Examples
    --------
    >>> world = TabularPair.context_free([1 / 3, 2 / 3], [2 / 3, 1 / 3], depth=3)
    >>> [round(full_information_expected_tau(world, g) * 27, 9) for g in (2, 3)]
    [36.0, 50.0]
    """
    _check(world, gamma)
    target, drafted, total = np.ones(1), np.ones(1), 0.0
    for depth in range(gamma):
        target = (target[:, None] * world.p[depth]).ravel()
        drafted = (drafted[:, None] * world.q[depth]).ravel()
        total += np.minimum(target, drafted).sum()
    return float(total)


def kseq_expected_tau(world: TabularPair, gamma: int, n_drafts: int) -> float:
    """Accepted tokens of K i.i.d. drafts with K-SEQ at every depth, exactly.

    By dynamic programming over the text and the number of surviving drafts.
    Sun et al., arXiv 2310.15141, algorithm 1.

    Examples
    --------
    >>> p = {(): (0.6, 0.4), (0,): (0.1, 0.9), (1,): (0.55, 0.45)}
    >>> q = {(): (0.35, 0.65), (0,): (0.5, 0.5), (1,): (0.75, 0.25)}
    >>> world = TabularPair.from_functions(
    ...     lambda x: p.get(x, (0.5, 0.5)), lambda x: q.get(x, (0.5, 0.5)), 2, 2)
    >>> [round(kseq_expected_tau(world, 2, k), 6) for k in (1, 2, 3)]
    [1.28, 1.530165, 1.685199]
    """
    return _multi_draft_tau(world, gamma, n_drafts, _kseq_survivors)


def rrs_expected_tau(world: TabularPair, gamma: int, n_drafts: int) -> float:
    """The same with recursive rejection (with replacement) at every depth."""
    return _multi_draft_tau(world, gamma, n_drafts, _rrs_survivors)


def _check(world: TabularPair, gamma: int) -> None:
    if check_count("gamma", gamma, 0) > world.depth:
        raise ValueError(f"gamma must be <= the depth {world.depth} of the world, got {gamma}")


def _multi_draft_tau(world: TabularPair, gamma: int, n_drafts: int, survivors) -> float:
    """E[tau] where ``survivors(p, q, k)[y, s]`` is Pr(token y, s of k candidates equal it)."""
    _check(world, gamma)
    n, size, total = check_count("n_drafts", n_drafts), world.vocabulary, 0.0
    reach = np.zeros((1, n + 1))
    reach[0, n] = 1
    for depth in range(gamma):
        following = np.zeros((size ** (depth + 1), n + 1))
        for code in range(size**depth):
            for k in np.flatnonzero(reach[code] > 0):
                if k > 0:
                    law = survivors(world.p[depth][code], world.q[depth][code], int(k))
                    following[code * size : (code + 1) * size, : k + 1] += reach[code, k] * law
        following[:, 0] = 0
        total += following.sum()
        reach = following
    return float(total)


def _others(mass: float, n: int) -> np.ndarray:
    """Binomial(n, mass) probabilities, (n + 1,)."""
    from scipy.stats import binom

    return binom.pmf(np.arange(n + 1), n, mass)


def _kseq_survivors(p: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    """K-SEQ: candidates are i.i.d.; first pass at i, or a residual without mass on a candidate.

    At rho* the residual is positive only where every such candidate would have passed, so the
    survivors are those equal to the accepted token.
    """
    found = kseq(p, q, k)
    law = np.zeros((len(p), k + 1))
    passing = np.minimum(q, p / found.rho)  # Pr(candidate = y and passes)
    for y in np.flatnonzero(passing > 0):
        refuse = q[y] - passing[y]  # Pr(candidate = y and refused)
        for i in range(k):
            # i refused before (each y or another token), then y passes, k - 1 - i free candidates.
            before = np.zeros(i + 1)
            for j, chance in enumerate(_count(refuse, 1 - found.beta - refuse, i)):
                before[j] = chance
            after = _others(min(q[y], 1.0), k - 1 - i)
            law[y, 1:] += passing[y] * np.convolve(before, after)
    return law


def _rrs_survivors(p: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    """Recursive rejection: acceptance at i given i - 1 refusals, each with its own target."""
    law = np.zeros((len(p), k + 1))
    for y in np.flatnonzero(q > 0):
        current, before = p, np.ones(1)
        for i in range(k):
            passing = np.minimum(current, q)
            after = _others(min(q[y], 1.0), k - 1 - i)
            law[y, 1:] += passing[y] * np.convolve(before, after)
            refuse = q[y] - passing[y]
            other = max(1 - passing.sum() - refuse, 0.0)
            before = np.convolve(before, [other, refuse])
            rest = np.maximum(current - q, 0)
            if rest.sum() <= 1e-15:
                break
            current = rest / rest.sum()
    return law


def _count(yes: float, no: float, n: int) -> np.ndarray:
    """Of n independent refusals, how many carry the token: unnormalised binomial weights."""
    weights = np.ones(1)
    for _ in range(n):
        weights = np.convolve(weights, [max(no, 0.0), max(yes, 0.0)])
    return weights
