"""Is this rejection sampler right? A certificate by enumeration, not by sampling.

Speculative decoding is lossless if the text that it emits, completed by the target, follows the
target's law exactly. On models that are tables (a few tokens, a few positions) every draft can be
listed and every coin integrated, so a wrong verifier is convicted with certainty, with the first
text after which its law is wrong, however small the error: stopping block verification at the first
failed coin, or keeping the old residual there, changes laws by so little that a test on samples
needs millions of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from privlearn.decoding.drafts import PROPOSALS, Draft, Proposal, Topology
from privlearn.decoding.enumeration import AllDrafts, TextLaw, WrongContext, all_drafts, compare
from privlearn.decoding.exact_coins import enumerate_runs, law_of_uniforms
from privlearn.decoding.exact_laws import emitted_law
from privlearn.decoding.theory.worlds import TabularPair
from privlearn.decoding.verifiers.protocol import Verifier
from privlearn.decoding.verifiers.registry import verifier as by_name

#: How a foreign verifier gets its randomness, see `check_lossless`.
Randomness = Literal["coins", "uniforms", "law", "seed"]
Arrays = Literal["numpy", "torch", "jax"]

#: Chance that a lossless verifier is refused when it can only be sampled.
FALSE_ALARM = 1e-6


@dataclass(frozen=True)
class Certificate:
    """What an examination of a verifier found.

    Parameters
    ----------
    verifier : str
        Its name.
    lossless : bool
        Whether no difference above the resolution was found in any world.
    exact : bool
        True if coins were integrated; False if outcomes were sampled.
    largest_error : float
        Largest difference of a probability of a text, over all texts and worlds.
    resolution : float
        Smallest difference that is counted as wrong (for samples: the largest of the allowances).
    n_drafts : int
        Drafts examined (draws, if sampled).
    expected_tau : dict
        World -> expected number of accepted tokens (an estimate, if sampled). Emitted tokens less
        one.
    world : TabularPair or None
        The world in which the law is wrong.
    failure : WrongContext or None
        The shortest text after which it is wrong there, with the emitted and the target's law.
    """

    verifier: str
    lossless: bool
    exact: bool
    largest_error: float
    resolution: float
    n_drafts: int
    expected_tau: dict[str, float] = field(repr=False)
    world: TabularPair | None = field(default=None, repr=False)
    failure: WrongContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        how = "every draft and coin integrated" if self.exact else "outcomes sampled"
        lines = [
            f"{self.verifier}: {'lossless' if self.lossless else 'NOT LOSSLESS'}",
            f"  largest error   {self.largest_error:.3g}  (counted as wrong above "
            f"{self.resolution:.3g})",
            f"  examined        {self.n_drafts} {'drafts' if self.exact else 'draws'} in "
            f"{len(self.expected_tau)} worlds, {how}",
        ]
        if self.failure is not None and self.world is not None:
            wrong, text = self.failure, " ".join(map(str, self.failure.context)) or "(nothing)"
            lines += [
                f"  first wrong     in world {self.world.name!r}, after the text {text}",
                f"    emitted       {_numbers(wrong.emitted)}",
                f"    target        {_numbers(wrong.target)}",
                f"    draft         {_numbers(wrong.draft)}",
            ]
        return "\n".join(lines)


def check_lossless(
    verifier: Verifier | str | Callable[..., Any],
    *,
    randomness: Randomness = "coins",
    gamma: int = 2,
    n_drafts: int | None = None,
    topology: Topology | None = None,
    proposal: Proposal | None = None,
    vocabulary: int = 3,
    worlds: Sequence[TabularPair] | None = None,
    arrays: Arrays = "numpy",
    n_uniforms: int | None = None,
    vectorised: bool = False,
    n_draws: int = 20_000,
    tolerance: float = 1e-12,
    random_state: int = 0,
) -> Certificate:
    """Examine whether a verifier emits exactly the target's law.

    A verifier of this package is given by object or name. Any other is a function of a draft and
    its laws, as arrays: for one chain ``tokens`` (gamma,), ``q`` (gamma, V) and ``p``
    (gamma + 1, V), where ``p[i]`` and ``q[i]`` are the laws after i drafted tokens; for K chains
    (K, gamma), (K, gamma, V) and (K, gamma + 1, V); for a tree (M,), (M, V) and (M + 1, V) as in
    `privlearn.decoding.drafts`. It returns the emitted tokens: the accepted ones and the one after
    them (trailing negative numbers are padding). Its randomness can be had in four ways:

    ============  ============================================================  =========
    randomness    the function                                                  result
    ============  ============================================================  =========
    ``coins``     ``f(coins, tokens, q, p)``, coins with the methods random,    exact
                  uniform and choice of a NumPy generator
    ``uniforms``  ``f(u, tokens, q, p)``, u (n_uniforms,) on [0, 1); with       exact
                  ``vectorised=True`` u is (N, n_uniforms) and (N, gamma + 1)
                  tokens come back, padded with -1 (fast with JAX and torch)
    ``law``       ``f(tokens, q, p)`` returns a mapping from tuples of emitted  exact
                  tokens to probabilities
    ``seed``      ``f(seed, tokens, q, p)``, seed an integer                    sampled
    ============  ============================================================  =========

    With ``coins``, an exact uniform has no value but can be compared (``u <= p / q``), scaled,
    shifted and logged; each comparison splits the run and both sides are followed. With
    ``uniforms``, outcomes must be constant on boxes: every uniform compared with thresholds that do
    not involve other uniforms (coins and inverse transforms; not Gumbel sampling). What the
    sampled examination can see is its `resolution`; a lossless verifier is refused with a
    probability below 1e-6.

    Parameters
    ----------
    verifier : Verifier, str or callable
    randomness : {"coins", "uniforms", "law", "seed"}, default="coins"
        For callables.
    gamma : int, default=2
        Drafted tokens a chain. Use at least 2: with 1 several known mistakes are invisible.
    n_drafts : int, optional
        K. Default: 1 for callables and chain verifiers, 2 for the others.
    topology : Topology, optional
        Any static tree instead of chains.
    proposal : str, optional
        How siblings are chosen (`drafts.PROPOSALS`). Default: what the verifier is for;
        "independent" for callables. With "deterministic", q is None.
    vocabulary : int, default=3
    worlds : sequence of TabularPair, optional
        Default: `default_worlds`, models with zeros in their supports, with one-hot laws, equal
        and disjoint models among them.
    arrays : {"numpy", "torch", "jax"}, default="numpy"
        What a callable receives (float64).
    n_uniforms : int, optional
        For ``uniforms``. Default: drafted tokens + 1.
    vectorised : bool, default=False
    n_draws : int, default=20_000
        Draws a world for ``seed``.
    tolerance : float, default=1e-12
        Difference of a probability that counts as rounding, for exact examinations.
    random_state : int, default=0
        Of the default worlds, and of the draws.

    Returns
    -------
    Certificate
        Print it.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, the verifier may not see such drafts, or what it returns
        are not 1 to gamma + 1 tokens of the vocabulary.

    Examples
    --------
    The verifier of the textbooks, and the same with a mistake:

    >>> def token(coins, tokens, q, p, right=True):
    ...     for i, x in enumerate(tokens):
    ...         if coins.random() > p[i, x] / q[i, x]:
    ...             rest = np.maximum(p[i] - q[i], 0) if right else p[i]
    ...             return [*tokens[:i], coins.choice(len(rest), p=rest / rest.sum())]
    ...     return [*tokens, coins.choice(p.shape[1], p=p[-1])]
    >>> check_lossless(token).lossless
    True
    >>> lazy = lambda *args: token(*args, right=False)
    >>> world = TabularPair.context_free([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], depth=1)
    >>> print(check_lossless(lazy, gamma=1, worlds=[world]))
    <lambda>: NOT LOSSLESS
      largest error   0.16  (counted as wrong above 1e-12)
      examined        3 drafts in 1 worlds, every draft and coin integrated
      first wrong     in world 'context free', after the text (nothing)
        emitted       0.44 0.42 0.14
        target        0.6 0.3 0.1
        draft         0.2 0.3 0.5
    """
    ours = by_name(verifier) if isinstance(verifier, (str, Verifier)) else None
    if ours is None and not callable(verifier):
        raise TypeError(f"verifier must be a Verifier, a name or a function, got {verifier!r}")
    if ours is None and randomness not in get_args(Randomness):
        raise ValueError(f"randomness must be one of {get_args(Randomness)}, got {randomness!r}")
    if arrays not in get_args(Arrays):
        raise ValueError(f"arrays must be one of {get_args(Arrays)}, got {arrays!r}")
    if topology is None:
        topology = _default_topology(ours, n_drafts, gamma)
    proposal = proposal or _default_proposal(ours)
    if proposal not in PROPOSALS:
        raise ValueError(f"proposal must be one of {PROPOSALS}, got {proposal!r}")
    if worlds is None:
        worlds = default_worlds(vocabulary, topology.height, random_state)
    if len(worlds) == 0:
        raise ValueError("worlds must hold at least one TabularPair")
    exact = ours is not None or randomness != "seed"
    expected: dict[str, float] = {}
    largest, allowed, examined, failed = 0.0, tolerance, 0, None
    for number, world in enumerate(worlds):
        drafts = all_drafts(world, topology, proposal)
        if ours is not None:
            ours.check_shape(_as_draft(drafts, proposal))
            law = emitted_law(ours, drafts)
        else:
            face = _Face(verifier, arrays, topology, world)  # type: ignore[arg-type]
            if randomness == "seed":
                law = _sampled(face, drafts, n_draws, np.random.default_rng([random_state, number]))
            else:
                exactly = {"coins": _of_coins, "uniforms": _of_uniforms, "law": _of_law}[randomness]
                law = _integrated(face, drafts, exactly, n_uniforms, vectorised)
        allow = (lambda exact_law: tolerance) if exact else _allowance(n_draws, world)
        error, wrong = compare(law.completed(world), world, allow)
        largest = max(largest, error)
        examined += int((drafts.weights > 0).sum()) if exact else n_draws
        if not exact:
            allowed = max(allowed, float(np.max(allow(world.text_law(1)))))
        expected[_unused(world.name, expected)] = law.expected_tau
        if wrong is not None and failed is None:
            failed = world, wrong
    name = ours.name if ours is not None else getattr(verifier, "__name__", repr(verifier))
    return Certificate(
        verifier=name,
        lossless=failed is None,
        exact=exact,
        largest_error=largest,
        resolution=allowed,
        n_drafts=examined,
        expected_tau=expected,
        world=failed[0] if failed else None,
        failure=failed[1] if failed else None,
    )


def default_worlds(vocabulary: int, depth: int, random_state: int = 0) -> list[TabularPair]:
    """Worlds that catch the known mistakes: plain first, so that reports are easy to read.

    Parameters
    ----------
    vocabulary : int
        At least 2.
    depth : int
        Longest draft.
    random_state : int, default=0
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary must be >= 2, got {vocabulary!r}")
    seeds = np.random.default_rng(random_state).integers(2**31, size=5)
    ramp = np.arange(1.0, vocabulary + 1)
    ramp /= ramp.sum()
    half = vocabulary // 2
    low = np.where(np.arange(vocabulary) < half, 1 / half, 0)
    high = np.where(np.arange(vocabulary) < half, 0, 1 / (vocabulary - half))
    random = TabularPair.random
    same = random(vocabulary, depth, int(seeds[3]), name="draft equals target")
    return [
        TabularPair.context_free(ramp, ramp[::-1].copy(), depth, name="context free"),
        random(vocabulary, depth, int(seeds[0]), name="random"),
        random(vocabulary, depth, int(seeds[1]), zeros=0.35, name="random with zeros"),
        random(vocabulary, depth, int(seeds[2]), concentration=0.2, name="nearly one-hot"),
        random(vocabulary, depth, int(seeds[4]), zeros=1.0, name="one-hot (greedy)"),
        TabularPair(same.p, same.p, name=same.name),
        TabularPair.context_free(low, high, depth, name="disjoint supports"),
    ]


# ----------------------------------------------------------------------------- foreign verifiers


@dataclass(frozen=True)
class _Face:
    """A foreign verifier, and how it wants its arrays."""

    function: Callable[..., Any]
    arrays: Arrays
    topology: Topology
    world: TabularPair

    def arguments(self, drafts: AllDrafts, at: int) -> tuple[Any, Any, Any]:
        """Tokens, q and p of one draft, in the shape that the function is promised."""
        tokens, p = drafts.tokens[at], drafts.p[at]
        q = None if drafts.q is None else drafts.q[at]
        top = self.topology
        if top.is_chains and not top.is_chain and top == Topology.chains(*_chains_of(top)):
            n, gamma = _chains_of(top)
            tokens = tokens.reshape(n, gamma)
            q = None if q is None else q.reshape(n, gamma, -1)
            after = p[1:].reshape(n, gamma, -1)
            p = np.concatenate([np.broadcast_to(p[0], (n, 1, p.shape[-1])), after], axis=1)
        return self._as(tokens), None if q is None else self._as(q), self._as(p)

    def _as(self, array: np.ndarray) -> Any:
        if self.arrays == "torch":
            import torch

            return torch.from_numpy(np.ascontiguousarray(array))
        if self.arrays == "jax":
            import jax.numpy as jnp

            from privlearn.simulate.precision import float64

            with float64():
                return jnp.asarray(array)
        return array.copy()

    def call(self, *arguments: Any) -> Any:
        """Run the function; JAX in 64 bits."""
        if self.arrays != "jax":
            return self.function(*arguments)
        from privlearn.simulate.precision import float64

        with float64():
            return self.function(*arguments)

    def emitted(self, result: Any) -> tuple[int, ...]:
        """Tokens that a result stands for, checked."""
        found = np.asarray(result)
        integral = found.size == 0 or np.can_cast(found.dtype, np.int64, "same_kind")
        if found.ndim != 1 or not integral:
            raise ValueError(
                "the verifier must return the emitted tokens as a sequence of integers, "
                f"got {result!r}"
            )
        padding = np.flatnonzero(found < 0)
        tokens = found[: padding[0]] if len(padding) else found
        most = self.topology.height + 1
        if not 1 <= len(tokens) <= most or (tokens >= self.world.vocabulary).any():
            raise ValueError(
                f"the verifier must emit 1 to {most} tokens below {self.world.vocabulary} "
                f"(then only padding), got {found.tolist()}"
            )
        return tuple(int(t) for t in tokens)


def _integrated(face, drafts, exactly, n_uniforms, vectorised) -> TextLaw:
    size = face.world.vocabulary
    emitted = tuple(np.zeros((size**d, size)) for d in range(face.topology.height + 1))
    for at in np.flatnonzero(drafts.weights > 0):
        arguments = face.arguments(drafts, int(at))
        for chance, tokens in exactly(face, arguments, n_uniforms, vectorised):
            _add(emitted, face.emitted(tokens), drafts.weights[at] * chance)
    return TextLaw(emitted)


def _of_coins(face: _Face, arguments, n_uniforms, vectorised):
    return enumerate_runs(lambda coins: face.call(coins, *arguments))


def _of_law(face: _Face, arguments, n_uniforms, vectorised):
    law = face.call(*arguments)
    if not isinstance(law, Mapping):
        raise TypeError(
            "with randomness='law' the verifier must return a mapping from tuples of emitted "
            f"tokens to probabilities, got {type(law).__name__}"
        )
    return [(float(chance), tokens) for tokens, chance in law.items()]


def _of_uniforms(face: _Face, arguments, n_uniforms, vectorised):
    n = face.topology.size + 1 if n_uniforms is None else n_uniforms
    width = face.topology.height + 1

    def many(u: np.ndarray) -> np.ndarray:
        if vectorised:
            found = np.asarray(face.call(face._as(u), *arguments))
            if found.shape != (len(u), width):
                raise ValueError(
                    f"a vectorised verifier must return {(len(u), width)} tokens padded with -1, "
                    f"got shape {found.shape}"
                )
            return found
        out = np.full((len(u), width), -1, dtype=np.int64)
        for i, row in enumerate(u):
            tokens = face.emitted(face.call(face._as(row), *arguments))
            out[i, : len(tokens)] = tokens
        return out

    if vectorised:
        return law_of_uniforms(_in_blocks(many, n), n)
    return law_of_uniforms(many, n, n_lines=12, n_probes=33, n_checks=128)


def _in_blocks(function, n_uniforms: int, block: int = 1024):
    """Call in blocks of one shape, so that a compiled function is compiled once."""

    def blocks(u: np.ndarray) -> np.ndarray:
        n = len(u)
        padded = np.zeros((-(-n // block) * block, n_uniforms))
        padded[:n] = u
        return np.concatenate([function(part) for part in np.split(padded, len(padded) // block)])[
            :n
        ]

    return blocks


def _sampled(face: _Face, drafts: AllDrafts, n_draws: int, rng: np.random.Generator) -> TextLaw:
    size = face.world.vocabulary
    emitted = tuple(np.zeros((size**d, size)) for d in range(face.topology.height + 1))
    law = drafts.weights / drafts.weights.sum()
    counts = rng.multinomial(n_draws, law)
    for at in np.flatnonzero(counts):
        arguments = face.arguments(drafts, int(at))
        for seed in rng.integers(2**31, size=counts[at]):
            _add(emitted, face.emitted(face.call(int(seed), *arguments)), 1 / n_draws)
    return TextLaw(emitted)


def _allowance(n_draws: int, world: TabularPair) -> Callable[[np.ndarray], np.ndarray]:
    """Differences that a lossless verifier exceeds anywhere with probability < 1e-6 (Bernstein)."""
    cells = 2 * sum(world.vocabulary ** (d + 1) for d in range(world.depth + 1))
    log = np.log(2 * cells * 64 / FALSE_ALARM)  # 64: more worlds than anybody examines

    def allowed(exact: np.ndarray) -> np.ndarray:
        spread = exact * (1 - exact)
        third = log / (3 * n_draws)
        return third + np.sqrt(third**2 + 2 * spread * log / n_draws) + 1e-12

    return allowed


def _add(emitted: tuple[np.ndarray, ...], tokens: tuple[int, ...], mass: float) -> None:
    size, code = emitted[0].shape[1], 0
    for token in tokens[:-1]:
        code = code * size + token
    emitted[len(tokens) - 1][code, tokens[-1]] += mass


# ------------------------------------------------------------------------------------- defaults


def _default_topology(ours: Verifier | None, n_drafts: int | None, gamma: int) -> Topology:
    if ours is not None and not ours.chain_only and n_drafts is None:
        n_drafts = 2
    n = 1 if n_drafts is None else n_drafts
    if ours is not None and ours.proposals in (("without_replacement",), ("greedy",)):
        return Topology.fan_out((n,) * gamma)
    return Topology.chains(n, gamma)


def _default_proposal(ours: Verifier | None) -> Proposal:
    return ours.proposals[0] if ours is not None and ours.proposals else "independent"


def _chains_of(topology: Topology) -> tuple[int, int]:
    n = sum(before < 0 for before in topology.parent)
    return n, topology.size // max(n, 1)


def _as_draft(drafts: AllDrafts, proposal: Proposal) -> Draft:
    return Draft.tree(
        drafts.tokens[:1].astype(np.int32),
        drafts.topology,
        None if drafts.q is None else drafts.q[:1],
        proposal=proposal,
    )


def _unused(name: str, taken: Mapping[str, float]) -> str:
    if name not in taken:
        return name
    return next(f"{name} ({i})" for i in range(2, len(taken) + 3) if f"{name} ({i})" not in taken)


def _numbers(law: np.ndarray) -> str:
    return " ".join(f"{x:.4g}" for x in law)
