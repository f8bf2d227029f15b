"""What a step costs on this machine, and the draft length that pays.

Walltime model (Leviathan, Kalman, Matias, 2023, arXiv 2211.17192, theorem 3.8, with a measured cost
curve in place of "verifying is free"): with t(T) the time of a target step on T tokens and c the
time of a draft step over t(1), an iteration of draft length gamma costs
``gamma c + t(gamma+1)/t(1)`` plain steps and yields BE tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from privlearn.decoding.models import CausalLM, set_length
from privlearn.decoding.statistics import DecodingStatistics, pooled
from privlearn.decoding.verifiers.choice import likeliest

if TYPE_CHECKING:
    from privlearn.decoding.decoder import SpeculativeDecoder

__all__ = [
    "CostCurve",
    "GammaChoice",
    "best_gamma",
    "block_efficiency_by_position",
    "choose_gamma",
    "measure_costs",
]

#: Draft lengths that ``gamma="auto"`` considers.
GAMMAS = tuple(range(0, 17))


@dataclass(frozen=True)
class CostCurve:
    """Measured times of steps, for one batch size and text length.

    Attributes
    ----------
    widths : array of int, shape (n,)
        Tokens T of a target step, increasing from 1.
    seconds : array of float, shape (n,)
        t(T), medians.
    draft_seconds : float
        Of one draft step of one token; 0 without a draft model.
    batch : int
        Rows.

    Examples
    --------
    >>> curve = CostCurve(np.array([1, 5]), np.array([1.0, 2.0]), 0.1, 1)
    >>> float(curve.relative(3)), curve.c, round(curve.speedup(3.0, 4), 2)
    (1.5, 0.1, 1.25)
    """

    widths: np.ndarray
    seconds: np.ndarray
    draft_seconds: float
    batch: int

    def __post_init__(self) -> None:
        """Check that the curve can be read."""
        if len(self.widths) != len(self.seconds) or len(self.widths) == 0 or self.widths[0] != 1:
            raise ValueError(
                f"widths must begin with 1 and have a time each, got widths={self.widths!r}."
            )
        if np.any(np.diff(self.widths) <= 0) or np.any(np.asarray(self.seconds) <= 0):
            raise ValueError("widths must increase and seconds must be positive.")

    @property
    def c(self) -> float:
        """Draft step over plain target step."""
        return float(self.draft_seconds / self.seconds[0])

    def relative(self, width: ArrayLike) -> np.ndarray:
        """t(T)/t(1), linear between measured widths, along the last slope beyond them."""
        width = np.asarray(width, float)
        inside = np.interp(width, self.widths, self.seconds)
        if len(self.widths) > 1:
            run = self.widths[-1] - self.widths[-2]
            slope = max(0.0, (self.seconds[-1] - self.seconds[-2]) / run)
            inside = inside + slope * np.maximum(width - self.widths[-1], 0)
        return inside / self.seconds[0]

    def speedup(self, block_efficiency: float, gamma: int) -> float:
        """Predicted speed-up over plain decoding."""
        return float(block_efficiency / (gamma * self.c + self.relative(gamma + 1)))


def block_efficiency_by_position(
    acceptance: ArrayLike, gamma: ArrayLike, drafted: float = 1.0
) -> np.ndarray:
    """Tokens per target call from the acceptance at each draft position.

    ``1 + drafted * sum over l <= gamma of a_1 ... a_l``: exact for a drafter whose position d is
    accepted with chance a_d once d - 1 were, however these chances vary from context to context.
    Beyond the last known position the last chance goes on.

    Parameters
    ----------
    acceptance : array of float, shape (D,)
        a_1 .. a_D.
    gamma : int or array of int
    drafted : float, default 1.0
        Share of the calls that have a draft at all.

    Examples
    --------
    >>> block_efficiency_by_position([0.8], [1, 3, 5]).round(3).tolist()
    [1.8, 2.952, 3.689]
    >>> block_efficiency_by_position([0.5, 1.0], [0, 1, 2], drafted=0.5).tolist()
    [1.0, 1.25, 1.5]
    """
    chances, gamma = np.atleast_1d(np.asarray(acceptance, float)), np.asarray(gamma, int)
    if chances.size == 0 or not np.all((chances >= 0) & (chances <= 1)):
        raise ValueError(f"acceptance must be chances in [0, 1], got {acceptance!r}.")
    longest = int(np.max(gamma, initial=0))
    chances = np.append(chances, np.full(max(longest - len(chances), 0), chances[-1]))
    tokens = np.concatenate([[0.0], np.cumsum(np.cumprod(chances))])
    return 1 + drafted * tokens[gamma]


def best_gamma(
    curve: CostCurve,
    acceptance: ArrayLike,
    gammas: Sequence[int] = GAMMAS,
    drafted: float = 1.0,
) -> int:
    """The draft length with the largest predicted speed-up; 0 if none exceeds 1.

    Parameters
    ----------
    curve : CostCurve
    acceptance : float or array of float
        The same at every position, or by position; see `block_efficiency_by_position`.
    gammas : sequence of int
        Lengths to choose from.
    drafted : float, default 1.0
        Share of the calls that have a draft.

    Examples
    --------
    >>> flat = CostCurve(np.array([1]), np.array([1.0]), 0.05, 1)
    >>> best_gamma(flat, 0.8), best_gamma(flat, 0.03)
    (8, 0)
    """
    lengths = np.array(sorted({0, *gammas}))
    cost = lengths * curve.c + curve.relative(lengths + 1)
    gain = block_efficiency_by_position(acceptance, lengths, drafted) / cost
    best = int(np.argmax(gain))
    return int(lengths[best]) if gain[best] > 1 else 0


def measure_costs(
    target: CausalLM,
    draft: CausalLM | None,
    *,
    batch: int = 1,
    length: int = 64,
    max_len: int = 256,
    widths: Sequence[int] = (1, 2, 3, 5, 9),
    repeats: int = 5,
    steps: int = 8,
) -> CostCurve:
    """Time target steps of several widths and a draft step, interleaved, each compiled first.

    Parameters
    ----------
    target, draft : CausalLM
        ``draft`` may be None.
    batch, length, max_len : int
        Rows, committed tokens, and the longest text that the caches are made for.
    widths : sequence of int
        Beginning with 1.
    repeats, steps : int
        Medians over ``repeats`` runs of ``steps`` steps.
    """
    jobs: list[Callable[[], Any]] = [
        partial(_steps, target, *_prepared(target, batch, length, max_len, w, steps))
        for w in widths
    ]
    if draft is not None:
        jobs.append(partial(_steps, draft, *_prepared(draft, batch, length, max_len, 1, steps)))
    for job in jobs:
        jax.block_until_ready(job())
    times = np.zeros((repeats, len(jobs)))
    for r in range(repeats):
        for j, job in enumerate(jobs):
            begin = time.perf_counter()
            jax.block_until_ready(job())
            times[r, j] = (time.perf_counter() - begin) / steps
    median = np.median(times, axis=0)
    curve = np.maximum.accumulate(median[: len(widths)])  # more tokens never cost less
    draft_seconds = float(median[-1]) if draft is not None else 0.0
    return CostCurve(np.asarray(widths), curve, draft_seconds, batch)


def _prepared(
    model: CausalLM, batch: int, length: int, max_len: int, width: int, steps: int
) -> tuple[Any, jax.Array, int]:
    if model.context is not None:
        max_len = min(max_len, model.context)
    length = min(length, max_len)
    cache = model.init_cache(batch, max_len, slack=width)
    cache = set_length(cache, jnp.full(batch, length, jnp.int32))
    return cache, jnp.zeros((batch, width), jnp.int32), steps


@eqx.filter_jit
def _steps(model: CausalLM, cache: Any, tokens: jax.Array, steps: int) -> jax.Array:
    """The tokens after ``steps`` steps, each needed by the next: nothing is optimised away."""

    def step(_: int, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        cache, tokens = carry
        logits, cache = model.extend(cache, tokens)
        return cache, likeliest(logits)

    return lax.fori_loop(0, steps, step, (cache, tokens))[1]


@dataclass(frozen=True)
class GammaChoice:
    """How ``gamma="auto"`` decided.

    Attributes
    ----------
    gamma : int
        The draft length; 0: plain decoding.
    alpha : float
        Acceptance rate on the calibration prompts; NaN if nothing was drafted.
    acceptance : array of float
        Acceptance by position there.
    drafted : float
        Share of target calls that had a draft.
    curve : CostCurve
    predicted : float
        Speed-up by the walltime model at the length it likes best.
    measured : float or None
        The largest of ``tried``; None if the model already preferred plain decoding.
    tried : dict of int to float
        Lengths and speed-ups of whole loops over plain decoding on the calibration prompts.
    """

    gamma: int
    alpha: float
    acceptance: np.ndarray
    drafted: float
    curve: CostCurve
    predicted: float
    measured: float | None
    tried: dict[int, float] = field(default_factory=dict)


#: Speculation must beat plain decoding by this much in calibration: a lead within the noise of
#: a short run is as likely a loss.
_LEAD = 1.03

#: Of lengths within this share of the fastest the shortest is taken: where acceptance falls later
#: in the text, it loses least.
_NEAR = 0.9


def choose_gamma(
    decoder: SpeculativeDecoder,
    prompts: Sequence[ArrayLike] | ArrayLike,
    *,
    calibration_gamma: int = 4,
    calibration_tokens: int = 64,
    rounds: int = 4,
) -> GammaChoice:
    """Measure costs and acceptance, maximise the predicted speed-up, confirm it with the loop.

    The model leaves out what verification and bookkeeping cost, and must guess the acceptance of
    positions beyond the calibration's. So the length that it likes best and half of it are timed
    against plain decoding on the calibration prompts. The shorter one is taken if it is within 10 %
    of the fastest, and plain decoding unless it is beaten by 3 %.

    Parameters
    ----------
    decoder : SpeculativeDecoder
        With a drafter whose length can be chosen, or any other: then the choice is between it and
        plain decoding.
    prompts : sequence of token sequences
        The batch to calibrate on.
    calibration_gamma : int
        Draft length at which acceptance is measured.
    calibration_tokens : int
        New tokens per row in a calibration run, at most ``max_new_tokens``.
    rounds : int
        Runs of each kind, with other seeds: one short text says little about acceptance.
    """
    tokens = min(calibration_tokens, decoder.max_new_tokens)
    trial = _trial(decoder, calibration_gamma, tokens)
    drafter = decoder.drafter
    fixed = drafter is None or drafter == "lookahead"
    if hasattr(drafter, "propose"):
        fixed = not hasattr(drafter, "with_gamma")
    curve = trial.measure(prompts)
    runs = rounds if decoder.temperature else 1  # a greedy text is the same whatever the seed
    results = [_seeded(trial, run).generate(prompts) for run in range(runs)]
    statistics = pooled([result.statistics for result in results])
    acceptance, drafted = _acceptance(statistics)
    found = partial(
        GammaChoice,
        alpha=statistics.acceptance_rate,
        acceptance=acceptance,
        drafted=drafted,
        curve=curve,
    )
    if drafter is None:
        return found(gamma=0, predicted=1.0, measured=None)
    if fixed:
        gamma = results[0].gamma_
        predicted = float(statistics.block_efficiency / curve.relative(_step_width(trial)))
    else:
        gamma = best_gamma(curve, acceptance, drafted=drafted)
        expected = float(block_efficiency_by_position(acceptance, gamma, drafted))
        predicted = curve.speedup(expected, gamma)
    if gamma == 0:
        return found(gamma=0, predicted=predicted, measured=None)
    lengths = [gamma] if fixed else sorted({gamma, -(-gamma // 2)})
    tried = _tried(decoder, lengths, prompts, tokens, rounds)
    fastest = max(tried.values())
    good = [length for length, speed in tried.items() if speed > max(_LEAD, _NEAR * fastest)]
    return found(gamma=min(good, default=0), predicted=predicted, measured=fastest, tried=tried)


def _trial(decoder: SpeculativeDecoder, gamma: int, tokens: int) -> SpeculativeDecoder:
    """The decoder with a fixed draft length, writing texts of a fixed length."""
    changes: dict[str, Any] = {"gamma": gamma, "max_new_tokens": tokens, "eos": None}
    if gamma == 0:
        changes["drafter"] = None
    elif hasattr(decoder.drafter, "with_gamma"):
        changes["drafter"] = decoder.drafter.with_gamma(gamma)  # type: ignore[union-attr]
    return type(decoder)(**{**decoder.get_params(deep=False), **changes})


def _seeded(decoder: SpeculativeDecoder, seed: int) -> SpeculativeDecoder:
    return decoder.set_params(random_state=seed)


def _tried(
    decoder: SpeculativeDecoder,
    lengths: Sequence[int],
    prompts: Sequence[ArrayLike] | ArrayLike,
    tokens: int,
    rounds: int,
) -> dict[int, float]:
    """Speed-up over plain decoding of loops with each draft length, interleaved after a warm-up."""
    trials = {length: _trial(decoder, length, tokens) for length in (0, *lengths)}
    for trial in trials.values():
        _seeded(trial, 0).generate(prompts)
    seconds: dict[int, list[float]] = {length: [] for length in trials}
    iterations = dict.fromkeys(trials, 0)
    for r in range(rounds):
        for length, trial in trials.items():
            result = _seeded(trial, r).generate(prompts)
            seconds[length].append(result.walltime_ / result.statistics.iterations)
            iterations[length] += result.statistics.iterations
    # All wrote the same number of tokens; a median, so that one disturbed run decides nothing.
    cost = {length: float(np.median(seconds[length])) * iterations[length] for length in trials}
    return {length: cost[0] / cost[length] for length in lengths}


def _acceptance(statistics: DecodingStatistics) -> tuple[np.ndarray, float]:
    """Acceptance by position, each drawn a little to the overall rate, and the share of drafts."""
    reached, accepted = statistics.reached.sum(axis=0), statistics.accepted.sum(axis=0)
    if reached.size == 0 or reached[0] == 0:
        return np.zeros(1), 0.0
    overall = accepted.sum() / reached.sum()
    return (accepted + overall) / (reached + 1), float(reached[0] / statistics.steps.sum())


def _step_width(decoder: SpeculativeDecoder) -> int:
    drafter = decoder._resolve_drafter(1)
    return 1 + drafter.topology.size + drafter.n_extra
