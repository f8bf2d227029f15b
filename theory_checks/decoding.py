"""Fast decoding: what the theory says beside what the verifiers do.

Run alone with ``python -m theory_checks.decoding``. Formulas are those of
`privlearn.decoding.theory`. Laws of verifiers are exact (`privlearn.decoding.exact_laws`: drafts
enumerated, coins integrated), so most comparisons have no sampling error.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from privlearn import claims
from privlearn.claims import Claim, Measurement
from privlearn.decoding import theory, transport
from privlearn.decoding.drafts import Draft, Proposal, Topology
from privlearn.decoding.enumeration import TextLaw, all_drafts
from privlearn.decoding.exact_laws import emitted_law
from privlearn.decoding.theory import TabularPair
from privlearn.decoding.verifiers import verifier

LEVIATHAN = "Leviathan, Kalman and Matias, ICML 2023, arXiv 2211.17192"
SPECTR = "Sun et al., SpecTr, NeurIPS 2023, arXiv 2310.15141"
BLOCK = "Sun et al., ICLR 2025, arXiv 2403.10444"
DISTILL = "Zhou et al., DistillSpec, ICLR 2024, arXiv 2310.08461"

#: Rounding of float64 sums over some hundred drafts, relative to the smallest probability compared.
_ROUNDING = 1e-9


def _worlds(profile: str, size: int, depth: int) -> list[TabularPair]:
    n = {"quick": 3, "paper": 40}[profile]
    return [TabularPair.random(size, depth, seed, zeros=0.2 * (seed % 2)) for seed in range(n)]


@functools.cache
def _laws(
    profile: str, name: str, topology: Topology, proposal: Proposal, size: int
) -> list[tuple[TabularPair, TextLaw]]:
    """Worlds, and the exact law of what a verifier emits in each."""
    worlds = _worlds(profile, size, topology.height)
    rule = verifier(name)
    return [(w, emitted_law(rule, all_drafts(w, topology, proposal))) for w in worlds]


def _exact(theory_value, estimate) -> Measurement:
    return Measurement(np.asarray(theory_value), np.asarray(estimate))


def _register(
    name: str,
    statement: str,
    source: str,
    measure: Callable[[str], Measurement],
    *,
    tolerance: float = _ROUNDING,
    resolution: float = 1e-6,
) -> None:
    claims.register(
        Claim(
            name=f"decoding/{name}",
            topic="decoding",
            statement=statement,
            source=source,
            measure=measure,
            tolerance=tolerance,
            resolution=resolution,
        )
    )


# ----------------------------------------------------------------------------------- losslessness


def _lossless(name: str, topology: Topology, proposal: Proposal, size: int):
    def measure(profile: str) -> Measurement:
        exact, found = [], []
        for world, law in _laws(profile, name, topology, proposal, size):
            target = world.text_law(topology.height + 1)
            keep = target > 1e-9
            exact.append(target[keep])
            found.append(law.completed(world)[keep])
            # All the mass must be where the target has some.
            exact.append([1.0])
            found.append([law.completed(world)[keep].sum()])
        return _exact(np.concatenate(exact), np.concatenate(found))

    return measure


_CHAIN, _CHAINS, _TREE = Topology.chain(2), Topology.chains(2, 2), Topology.fan_out((2, 1))
for _name, _topology, _proposal, _size, _source in (
    ("token", _CHAIN, "independent", 3, f"{LEVIATHAN}, appendix A.1"),
    ("block", _CHAIN, "independent", 3, f"{BLOCK}, theorem 1"),
    ("kseq", _CHAINS, "independent", 3, f"{SPECTR}, theorem 2"),
    ("rrs", _CHAINS, "independent", 3, "Miao et al., SpecInfer, ASPLOS 2024, arXiv 2305.09781"),
    ("rrs_wor", _TREE, "without_replacement", 3, "Chen et al., Sequoia, arXiv 2402.12374"),
    ("greedy_drafts", _TREE, "greedy", 3, "Hu et al., ICLR 2025, arXiv 2502.18779"),
    ("optimal", Topology.chains(2, 1), "independent", 3, f"{SPECTR}, section 4"),
    ("match", _CHAINS, "independent", 3, "sampled verification, as servers do it"),
    ("deterministic", _CHAINS, "deterministic", 3, "Fu et al., ICML 2024, arXiv 2402.02057"),
):
    _register(
        f"lossless-{_name.replace('_', '-')}",
        f"Text emitted with the verifier {_name!r}, completed by the target, follows the target",
        _source,
        _lossless(_name, _topology, _proposal, _size),  # type: ignore[arg-type]
    )


# ------------------------------------------------------------------------------- accepted tokens


def _tau_law(name: str, exact: Callable[[TabularPair, int], np.ndarray]):
    def measure(profile: str) -> Measurement:
        laws = _laws(profile, name, _CHAIN, "independent", 3)
        # Tails Pr(tau >= l): none of them is 0 in these worlds.
        return _exact(
            [np.cumsum(exact(world, 2)[::-1]) for world, _ in laws],
            [np.cumsum(law.tau_law[::-1]) for _, law in laws],
        )

    return measure


_register(
    "token-tau",
    "Token verification: Pr(tau >= l) = sum over x^l of prod min(p, q)",
    f"{LEVIATHAN}, theorem 3.5 and its product",
    _tau_law("token", theory.token_tau_law),
)
_register(
    "block-tau",
    "Block verification: Pr(tau >= l) = sum over x^l of min_j q(x^j) p(rest | x^j)",
    f"{BLOCK}; re-derived",
    _tau_law("block", theory.block_tau_law),
)


def _multi_tau(name: str, exact) -> Callable[[str], Measurement]:
    def measure(profile: str) -> Measurement:
        laws = _laws(profile, name, _CHAINS, "independent", 3)
        return _exact(
            [exact(world, 2, 2) for world, _ in laws], [law.expected_tau for _, law in laws]
        )

    return measure


_register(
    "kseq-tau",
    "Accepted tokens of K drafts with K-SEQ: dynamic program over text and survivors",
    f"{SPECTR}, algorithm 1; dynamic program derived here",
    _multi_tau("kseq", theory.kseq_expected_tau),
    # rho* of the step is a bracket of 2^-30.
    tolerance=1e-7,
)
_register(
    "rrs-tau",
    "Accepted tokens of K drafts with recursive rejection: the same dynamic program",
    "arXiv 2305.09781; dynamic program derived here",
    _multi_tau("rrs", theory.rrs_expected_tau),
)


def _bernoulli(profile: str) -> Measurement:
    world = TabularPair.context_free([1 / 3, 2 / 3], [2 / 3, 1 / 3], 3)
    drafts = all_drafts(world, Topology.chain(3), "independent")
    found = [emitted_law(verifier(name), drafts).expected_tau for name in ("token", "block")]
    return _exact([38 / 27, 5 / 3], found)


_register(
    "bernoulli-example",
    "Two tokens, p = (1/3, 2/3), q = (2/3, 1/3), gamma = 3: E[tau] = 38/27 (token), 5/3 (block)",
    f"{BLOCK}, worked example continued to gamma = 3",
    _bernoulli,
)


def _sampled_block(profile: str) -> Measurement:
    """The compiled float32 step at a vocabulary where enumeration is hopeless: tau by chance."""
    rows, size, gamma = 512, 64, 3
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(size), size=2)
    exact = theory.block_expected_tau(TabularPair.context_free(p, q, gamma), gamma)
    rule = verifier("block")
    laws = jnp.tile(jnp.asarray(p, jnp.float32), (rows, gamma + 1, 1))

    @jax.jit
    def tau(key):
        drawing, verifying = jax.random.split(key)
        tokens = jax.random.choice(drawing, size, (rows, gamma), p=jnp.asarray(q, jnp.float32))
        draft = Draft.chain(tokens, jnp.tile(jnp.asarray(q, jnp.float32), (rows, gamma, 1)))
        return rule.verify(verifying, draft, laws).n_accepted

    n_calls = {"quick": 60, "paper": 1000}[profile]
    found = np.concatenate([tau(jax.random.key(i)) for i in range(n_calls)])
    return Measurement(exact, found.mean(), found.std() / np.sqrt(len(found)), len(found))


_register(
    "block-tau-float32",
    "The compiled step in float32 accepts as many tokens as the exact sum says (V = 64)",
    f"{BLOCK}; sum re-derived",
    _sampled_block,
    tolerance=1e-5,
    resolution=0.06,
)


# ------------------------------------------------------------------------------------ acceptance


def _pairs(profile: str, sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(17)
    n = {"quick": 40, "paper": 400}[profile]
    return [tuple(rng.dirichlet(np.full(rng.choice(sizes), 0.6), size=2)) for _ in range(n)]


def _optimum(profile: str) -> Measurement:
    cases = list(itertools.product(_pairs(profile, (2, 3, 4, 5)), (1, 2, 3)))
    return _exact(
        [theory.optimal_acceptance(p, q, k) for (p, q), k in cases],
        [transport.optimal_coupling(tuple(p), tuple(q), k).acceptance for (p, q), k in cases],
    )


_register(
    "optimum-closed-form",
    "The best acceptance of K i.i.d. candidates is 1 + min over prefixes of (p(H) - q(H)^K)",
    "derived by max-flow min-cut for the transport problem of arXiv 2310.15141, section 4",
    _optimum,
    # The solver's own tolerance.
    tolerance=1e-7,
    resolution=1e-5,
)


def _canonical(profile: str) -> Measurement:
    pairs = _pairs(profile, (2, 3, 4, 5))
    return _exact(
        [theory.optimal_acceptance(p, q, 2) for p, q in pairs],
        [transport.canonical_acceptance(tuple(p), tuple(q)) for p, q in pairs],
    )


_register(
    "canonical-decomposition",
    "Choosing one of two candidates and verifying it alone reaches the optimum",
    "Khisti et al., ICLR 2025, arXiv 2410.18234, theorem 1",
    _canonical,
    tolerance=1e-7,
    resolution=1e-5,
)


def _one_position(name: str, proposal: Proposal, exact, k: int = 3) -> Callable:
    def measure(profile: str) -> Measurement:
        topology, rule = Topology.chains(k, 1), verifier(name)
        pairs = _pairs(profile, (4,))[: {"quick": 12, "paper": 200}[profile]]
        found = [
            emitted_law(
                rule, all_drafts(TabularPair.context_free(p, q, 1), topology, proposal)
            ).expected_tau
            for p, q in pairs
        ]
        return _exact([exact(p, q, k) for p, q in pairs], found)

    return measure


for _name, _proposal, _formula, _what, _source in (
    ("kseq", "independent", lambda p, q, k: theory.kseq(p, q, k).acceptance,
     "1 - (1 - beta(rho*))^K", f"{SPECTR}, theorem 2"),
    ("rrs", "independent", theory.rrs_acceptance, "1 - prod_i (1 - sum min(p_i, q))",
     "arXiv 2305.09781"),
    ("rrs_wor", "without_replacement", theory.rrs_without_replacement_acceptance,
     "the sum over the candidates drawn", "arXiv 2402.12374"),
    ("greedy_drafts", "greedy", theory.greedy_drafts_acceptance,
     "p(T) + sum off T of min(p, q~)", "arXiv 2502.18779"),
):  # fmt: skip
    _register(
        f"acceptance-{_name.replace('_', '-')}",
        f"With three candidates {_name!r} accepts with probability {_what}",
        _source,
        _one_position(_name, _proposal, _formula),  # type: ignore[arg-type]
        # rho* by bisection; residuals of nearly equal laws are differences of rounding.
        tolerance=1e-7,
        resolution=1e-5,
    )


def _bound(profile: str) -> Measurement:
    """Worst ratio to the optimum over random pairs, against the guarantee: 1 if it holds."""
    worst = []
    for k in (2, 3, 4, 8):
        ratios = [
            theory.kseq(p, q, k).acceptance / theory.optimal_acceptance(p, q, k)
            for p, q in _pairs(profile, (2, 5, 20))
        ]
        worst.append(min(min(ratios) / theory.kseq_bound(k), 1.0))
    return _exact(np.ones(4), worst)


_register(
    "kseq-guarantee",
    "K-SEQ accepts at least 1 - (1 - 1/K)^K of the optimum (min(1, worst ratio / bound) = 1)",
    f"{SPECTR}, theorem 2",
    _bound,
)


def _certain(profile: str) -> Measurement:
    cases = ((5, 2), (10, 4), (7, 7))
    exact = [theory.kseq_uniform(*case) for case in cases]
    pairs = [(np.eye(size)[0], np.full(size, 1 / size)) for size, _ in cases]
    found = [theory.kseq(p, q, k)[:] for (p, q), (_, k) in zip(pairs, cases, strict=True)]
    best = [theory.optimal_acceptance(p, q, k) for (p, q), (_, k) in zip(pairs, cases, strict=True)]
    return _exact([*np.ravel(exact), *(e.acceptance for e in exact)], [*np.ravel(found), *best])


_register(
    "kseq-certain-target",
    "One-hot target, uniform draft: rho* = V (1 - (1 - 1/V)^K), and K-SEQ is optimal",
    "derived here; formulas of arXiv 2310.15141",
    _certain,
)


# -------------------------------------------------------------------------- walltime and lookahead


def _efficiency(profile: str) -> Measurement:
    rng = np.random.default_rng(5)
    alphas, gammas = np.array([0.2, 0.5, 0.8]), np.array([1, 3, 6])
    n = {"quick": 200_000, "paper": 4_000_000}[profile]
    exact, mean, error = [], [], []
    for alpha, gamma in itertools.product(alphas, gammas):
        coins = rng.geometric(1 - alpha, size=n)  # first failure
        tokens = np.minimum(coins, gamma + 1)
        exact.append(theory.block_efficiency(alpha, int(gamma)))
        mean.append(tokens.mean())
        error.append(tokens.std() / np.sqrt(n))
    return Measurement(np.array(exact), np.array(mean), np.array(error), n)


_register(
    "block-efficiency",
    "Independent acceptance: (1 - alpha^(gamma+1)) / (1 - alpha) tokens per target step",
    f"{LEVIATHAN}, equation 1",
    _efficiency,
    tolerance=0.0,
    resolution=0.02,
)


def _gain(profile: str) -> Measurement:
    """Best improvement over gamma where alpha > c, and 1 (plain decoding) where not."""
    grid = list(itertools.product((0.1, 0.3, 0.6, 0.9), (0.05, 0.2, 0.5, 0.95)))
    gains = [theory.walltime_improvement(a, np.arange(0, 60), c).max() > 1 + 1e-12 for a, c in grid]
    return _exact([1.0 + (a > c) for a, c in grid], [1.0 + gain for gain in gains])


_register(
    "walltime-gain",
    "Some draft length improves the walltime exactly if alpha > c (1 + indicator compared)",
    f"{LEVIATHAN}, corollary 3.9",
    _gain,
)


def _lookahead(profile: str) -> Measurement:
    rng = np.random.default_rng(6)
    n = {"quick": 100_000, "paper": 1_000_000}[profile]
    exact, mean, error = [], [], []
    for a, g, b in ((0.7, 4, 1), (0.7, 4, 5), (0.5, 6, 8)):
        matched = np.minimum(rng.geometric(1 - a, size=(n, b)) - 1, g).max(axis=1) + 1.0
        exact.append(float(theory.lookahead_tokens(a, g, b)))
        mean.append(matched.mean())
        error.append(matched.std() / np.sqrt(n))
    return Measurement(np.array(exact), np.array(mean), np.array(error), n)


_register(
    "lookahead-tokens",
    "b independent guesses of g tokens emit (g + 1) - sum_i (1 - a^i)^b tokens",
    "Fu et al., ICML 2024, arXiv 2402.02057, section 4; re-derived",
    _lookahead,
    tolerance=0.0,
    resolution=0.02,
)


# -------------------------------------------------------------------------- lenience, distillation


def _lenience(profile: str) -> Measurement:
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    world = TabularPair.context_free(p, q, 1)
    drafts = all_drafts(world, Topology.chain(1), "independent")
    exact, found = [], []
    for function, eps in itertools.product(("linear", "squared", "exponential"), (1.0, 0.5, 0.3)):
        law = emitted_law(verifier("lenient", function=function, eps=eps), drafts)
        closed = theory.lenience_law(p, q, eps, function)  # type: ignore[arg-type]
        exact += [closed.acceptance, *closed.law]
        found += [law.expected_tau, *law.completed(world).reshape(3, 3).sum(axis=1)]
    return _exact(exact, found)


_register(
    "lenience-law",
    "A lenient step emits min(q, f(p)) + (1 - A) residual, and accepts with probability A",
    f"{LEVIATHAN}, appendix; {DISTILL}; law derived here",
    _lenience,
)


def _ensemble(profile: str) -> Measurement:
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    world = TabularPair.context_free(p, q, 1)
    drafts = all_drafts(world, Topology.chain(1), "independent")
    law = emitted_law(verifier("ensemble", weight=0.3), drafts)
    closed = theory.ensemble_law(p, q, 0.3)
    first = law.completed(world).reshape(3, 3).sum(axis=1)
    return _exact([closed.acceptance, *closed.law], [law.expected_tau, *first])


_register(
    "ensemble-law",
    "Verification against w p + (1 - w) q emits that mixture and accepts with 1 - w TV",
    "transformers, assistant_ensemble_weight; law derived here",
    _ensemble,
)


def _gradients(profile: str) -> Measurement:
    rng, step = np.random.default_rng(8), 1e-5
    exact, found = [], []
    for name in theory.DIVERGENCES:
        p, z = rng.dirichlet(np.ones(5)), rng.normal(size=5)

        def value(z: np.ndarray, name: str = name, p: np.ndarray = p) -> float:
            return float(theory.divergence(name, p, np.exp(z) / np.exp(z).sum(), 0.3))

        q = np.exp(z) / np.exp(z).sum()
        slopes = [(value(z + m) - value(z - m)) / (2 * step) for m in step * np.eye(5)]
        # Shifted by one: a component of a gradient may vanish.
        exact.append(1 + theory.divergence_gradient(name, p, q, 0.3))
        found.append(1 + np.array(slopes))
    return _exact(exact, found)


_register(
    "distillation-gradients",
    "Gradients of FKL, RKL, JSD and TVD in the student's logits (1 + gradient compared)",
    f"{DISTILL}, section 3; gradients re-derived",
    _gradients,
    # Central differences of step 1e-5.
    tolerance=1e-8,
)


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="decoding"))
