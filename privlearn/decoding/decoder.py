"""The public face of generation: `SpeculativeDecoder`, and what its ``generate`` returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from privlearn.decoding.cost import CostCurve, GammaChoice, choose_gamma, measure_costs
from privlearn.decoding.drafters import Lookahead, ModelDrafter, NoDrafter, PromptLookup
from privlearn.decoding.drafters.protocol import Drafter, check_count
from privlearn.decoding.generation import (
    DecodingState,
    Program,
    compiled_run,
    compiled_start,
    stream,
)
from privlearn.decoding.models import CausalLM, Prompts, check_same_vocabulary, pack_prompts
from privlearn.decoding.sampling import SamplingRule
from privlearn.decoding.statistics import DecodingStatistics
from privlearn.decoding.verifiers import Verifier, verifier

__all__ = ["Comparison", "Generation", "SpeculativeDecoder", "pad_prompts"]

#: Prompts are padded, and texts given room, to multiples of these: fewer programs to compile.
PROMPT_STEP, TEXT_STEP = 16, 64


@dataclass(frozen=True)
class Generation:
    """Texts and what it took to write them.

    Attributes
    ----------
    sequences : list of array of int
        Prompt and new tokens of each row; a final end-of-text token is included.
    prompt_lengths : array of int, shape (B,)
    finish_reasons : list of {"eos", "length"}
    statistics : DecodingStatistics
        Counts, per row.
    walltime_ : float
        Seconds from the prompts to the last token; the first call with new shapes also compiles.
    gamma_ : int
        Longest draft of an iteration; 0: plain decoding.
    predicted_speedup_ : float or None
        Over plain decoding, by the measured cost curve; None where none was measured.
    """

    sequences: list[np.ndarray]
    prompt_lengths: np.ndarray
    finish_reasons: list[str]
    statistics: DecodingStatistics
    walltime_: float
    gamma_: int
    predicted_speedup_: float | None = None

    @property
    def new_tokens(self) -> list[np.ndarray]:
        """The sequences without their prompts."""
        return [s[n:] for s, n in zip(self.sequences, self.prompt_lengths, strict=True)]

    @property
    def block_efficiency_(self) -> float:
        """New tokens per target call."""
        return self.statistics.block_efficiency

    @property
    def acceptance_rate_(self) -> float:
        """Mean acceptance chance over positions whose prefix was accepted."""
        return self.statistics.acceptance_rate

    @property
    def acceptance_by_position_(self) -> np.ndarray:
        """Share of reached draft positions that were accepted."""
        return self.statistics.acceptance_by_position

    @property
    def tau_histogram_(self) -> np.ndarray:
        """Target calls by accepted draft tokens."""
        return self.statistics.tau_histogram

    @property
    def straggler_efficiency_(self) -> float:
        """New tokens per row and iteration of the batch."""
        return self.statistics.straggler_efficiency

    @property
    def tokens_per_second_(self) -> float:
        """New tokens of all rows over the walltime."""
        return float(self.statistics.emitted.sum() / self.walltime_)


@dataclass(frozen=True)
class Comparison:
    """A decoder beside plain decoding of the same prompts; seconds are medians over repeats.

    Attributes
    ----------
    plain_seconds, speculative_seconds : float
        Per new token.
    speedup : float
        Their ratio.
    block_efficiency : float
    """

    plain_seconds: float
    speculative_seconds: float
    speedup: float
    block_efficiency: float


class SpeculativeDecoder(BaseEstimator):
    """Generate from a language model, several tokens per call of it.

    Parameters
    ----------
    target : CausalLM
        The model whose law the text follows.
    drafter : CausalLM, Drafter, {"prompt_lookup", "lookahead"} or None, default None
        A draft model, or anything from `privlearn.decoding.drafters`. None: plain decoding.
    verifier : str or Verifier, default "block"
        See `privlearn.decoding.verifiers`. A tree of drafts needs one for trees ("kseq", "rrs",
        ...), lookahead "deterministic" or "match".
    gamma : int or "auto", default 4
        Draft length where the drafter is a model or "prompt_lookup"; a drafter that is an object
        has its own. 0: plain decoding. "auto": measure the machine and the acceptance on the first
        prompts and take the length that pays most, 0 if none pays.
    temperature : float, default 1.0
        0 is greedy.
    top_k, top_p, min_p : optional
        See `SamplingRule.of`; applied to target and draft before verification.
    max_new_tokens : int, default 64
    eos : int, sequence of int, or None
        Tokens that end a text; None: texts end at the limit.
    random_state : int, RandomState or None
        Seed. With an int every call of ``generate`` draws the same.

    Attributes
    ----------
    gamma_ : int
        Draft length in use, once known.
    cost_ : CostCurve
        With ``gamma="auto"``, or after `measure`.
    choice_ : GammaChoice
        With ``gamma="auto"``: what was predicted and measured for each length.

    Notes
    -----
    Computes in the precision of the models; laws in float32 at least. The text of a row depends on
    its prompt, the seed and its row id only. In float32 a tie between the two best logits may break
    otherwise in another batch shape.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM
    >>> target = TabularLM.random(jax.random.key(0), vocab_size=8, order=2)
    >>> draft = TabularLM.random(jax.random.key(1), vocab_size=8, order=1)
    >>> decoder = SpeculativeDecoder(target, draft, gamma=3, max_new_tokens=20, random_state=0)
    >>> result = decoder.generate([[0, 1, 2], [3, 4]])
    >>> [len(sequence) for sequence in result.sequences]
    [23, 22]
    >>> 1 <= result.block_efficiency_ <= 4
    True
    """

    def __init__(
        self,
        target: CausalLM,
        drafter: CausalLM | Drafter | str | None = None,
        verifier: str | Verifier = "block",
        gamma: int | Literal["auto"] = 4,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        max_new_tokens: int = 64,
        eos: int | Sequence[int] | None = None,
        random_state: Any = None,
    ) -> None:
        self.target = target
        self.drafter = drafter
        self.verifier = verifier
        self.gamma = gamma
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.min_p = min_p
        self.max_new_tokens = max_new_tokens
        self.eos = eos
        self.random_state = random_state

    def generate(
        self,
        prompts: Sequence[ArrayLike] | ArrayLike,
        *,
        row_ids: ArrayLike | None = None,
        on_tokens: Callable[[int, np.ndarray], None] | None = None,
        stream_every: int = 4,
    ) -> Generation:
        """Continue every prompt.

        Parameters
        ----------
        prompts : sequence of token sequences
            Of any lengths; a draft model needs at least two tokens in each.
        row_ids : array of int, shape (B,), optional
            Which randomness each row gets; ``0 .. B-1`` if None. A prompt with the same id and
            seed gets the same text in any batch.
        on_tokens : callable, optional
            Called as ``on_tokens(row, tokens)`` with new tokens while the batch is being decoded.
        stream_every : int, default 4
            Iterations between calls of ``on_tokens``.

        Returns
        -------
        Generation

        Raises
        ------
        TypeError, ValueError
            For parameters or prompts that cannot be used, and for models that give NaN or
            infinite logits.
        """
        return self.decode(prompts, row_ids, on_tokens, stream_every)[0]

    def decode(
        self,
        prompts: Sequence[ArrayLike] | ArrayLike,
        row_ids: ArrayLike | None = None,
        on_tokens: Callable[[int, np.ndarray], None] | None = None,
        stream_every: int = 4,
    ) -> tuple[Generation, Any]:
        """As `generate`; also returns the final state of the drafter."""
        program = self._program(prompts)
        packed = self._pack(prompts, program)
        started = time.perf_counter()
        state = self._start(program, packed, row_ids)
        if on_tokens is None:
            state = compiled_run(program, state, np.iinfo(np.int32).max)
        else:
            check_count("stream_every", stream_every, 1)
            state = stream(program, state, stream_every, on_tokens)
        lengths = np.asarray(state.length)  # waits for the loop
        walltime = time.perf_counter() - started
        _refuse_broken(state, program)
        return self._result(state, program, packed, lengths, walltime), state.drafter

    def measure(self, prompts: Sequence[ArrayLike] | ArrayLike) -> CostCurve:
        """Measure what steps cost on this machine, for the batch size of ``prompts``; sets cost_.

        Afterwards results have ``predicted_speedup_``.
        """
        packed = pack_prompts(prompts, self.target, max_new_tokens=self._limit(), min_length=1)
        model = getattr(self._resolve_drafter(1), "model", None)
        self.cost_ = measure_costs(
            self.target,
            model,
            batch=packed.tokens.shape[0],
            length=int(packed.lengths.max()),
            max_len=_room(packed, self._limit(), self.target),
        )
        return self.cost_

    def compare(self, prompts: Sequence[ArrayLike] | ArrayLike, repeats: int = 3) -> Comparison:
        """Time this and plain decoding of the same prompts, interleaved, after a warm-up."""
        plain = SpeculativeDecoder(**{**self.get_params(deep=False), "drafter": None, "gamma": 0})
        self.generate(prompts)
        plain.generate(prompts)
        ours, theirs = [], []
        for _ in range(check_count("repeats", repeats, 1)):
            result = self.generate(prompts)
            ours.append(result.walltime_ / result.statistics.emitted.sum())
            reference = plain.generate(prompts)
            theirs.append(reference.walltime_ / reference.statistics.emitted.sum())
        mine, other = float(np.median(ours)), float(np.median(theirs))
        return Comparison(other, mine, other / mine, result.block_efficiency_)

    def _program(self, prompts: Sequence[ArrayLike] | ArrayLike) -> Program:
        """Everything checked and resolved, the draft length included."""
        if not isinstance(self.target, CausalLM):
            raise TypeError(f"target must be a CausalLM, got {type(self.target).__name__}.")
        self._limit()
        if self.gamma == "auto":
            if not hasattr(self, "choice_"):
                self.choice_: GammaChoice = choose_gamma(self, prompts)
                self.cost_ = self.choice_.curve
            self.gamma_ = self.choice_.gamma
            drafter = self._resolve_drafter(self.gamma_)
        else:
            drafter = self._resolve_drafter(self.gamma)
            self.gamma_ = drafter.topology.height
        return self._program_with(drafter)

    def _program_with(self, drafter: Drafter) -> Program:
        """The program of this decoder with a given drafter."""
        if drafter.vocab_size is not None:
            check_same_vocabulary(self.target, drafter)
        rule = SamplingRule.of(self.temperature, self.top_k, self.top_p, self.min_p)
        return Program(self.target, drafter, verifier(self.verifier), rule, self._eos())

    def _resolve_drafter(self, gamma: Any) -> Drafter:
        check_count("gamma", gamma, 0)
        drafter = self.drafter
        if drafter is None or gamma == 0:
            return NoDrafter()
        if isinstance(drafter, str):
            if drafter == "prompt_lookup":
                return PromptLookup(gamma)
            if drafter == "lookahead":
                return Lookahead()
            raise ValueError(
                "drafter must be a model, a drafter, 'prompt_lookup' or 'lookahead', "
                f"got {drafter!r}."
            )
        if hasattr(drafter, "propose"):
            if self.gamma == "auto" and hasattr(drafter, "with_gamma"):
                return drafter.with_gamma(gamma)
            return drafter
        if isinstance(drafter, CausalLM):
            return ModelDrafter(drafter, gamma)
        raise TypeError(
            f"drafter must be a model, a drafter, a name or None, got {type(drafter).__name__}."
        )

    def _limit(self) -> int:
        return check_count("max_new_tokens", self.max_new_tokens, 1)

    def _eos(self) -> jax.Array:
        if self.eos is None:
            return jnp.zeros(0, jnp.int32)
        eos = np.atleast_1d(np.asarray(self.eos))
        if not np.issubdtype(eos.dtype, np.integer) or eos.ndim != 1:
            raise TypeError(f"eos must be a token id or a sequence of them, got {self.eos!r}.")
        if np.any((eos < 0) | (eos >= self.target.vocab_size)):
            raise ValueError(
                f"eos must lie in the vocabulary, 0..{self.target.vocab_size - 1}, "
                f"got {self.eos!r}."
            )
        return jnp.asarray(eos, jnp.int32)

    def _pack(self, prompts: Sequence[ArrayLike] | ArrayLike, program: Program) -> Prompts:
        packed = pack_prompts(
            prompts,
            self.target,
            max_new_tokens=self.max_new_tokens,
            min_length=program.drafter.min_prompt,
        )
        context = program.drafter.context
        longest = int(np.max(packed.lengths)) + self.max_new_tokens
        if context is not None and longest > context:
            raise ValueError(
                f"prompts: texts of up to {longest} tokens exceed the context of the draft model, "
                f"{context}; shorten them, lower max_new_tokens, or use another drafter."
            )
        return packed

    def _start(
        self, program: Program, packed: Prompts, row_ids: ArrayLike | None = None
    ) -> DecodingState:
        rows = packed.tokens.shape[0]
        ids = np.arange(rows) if row_ids is None else np.asarray(row_ids)
        if ids.shape != (rows,) or not np.issubdtype(ids.dtype, np.integer) or np.any(ids < 0):
            raise ValueError(f"row_ids must be {rows} integers of at least 0, got {row_ids!r}.")
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.asarray(ids))
        room = _room(packed, self.max_new_tokens, program.target, program.drafter)
        return compiled_start(
            program,
            pad_prompts(packed, room),
            packed.lengths + self.max_new_tokens,
            keys,
            room,
        )

    def _result(
        self,
        state: DecodingState,
        program: Program,
        packed: Prompts,
        lengths: np.ndarray,
        walltime: float,
    ) -> Generation:
        text = np.asarray(state.text)
        sequences = [row[:n].copy() for row, n in zip(text, lengths, strict=True)]
        ends = set(np.asarray(program.eos).tolist())
        statistics = DecodingStatistics.of(state.tally, int(state.step))
        gamma = program.drafter.topology.height
        predicted = 1.0 if gamma == 0 else None
        # The model knows chains; the step of a tree or of a window is wider than gamma + 1.
        if gamma and hasattr(self, "cost_") and program.drafter.topology.is_chain:
            predicted = self.cost_.speedup(statistics.block_efficiency, gamma)
        return Generation(
            sequences=sequences,
            prompt_lengths=np.asarray(packed.lengths),
            finish_reasons=["eos" if int(s[-1]) in ends else "length" for s in sequences],
            statistics=statistics,
            walltime_=walltime,
            gamma_=gamma,
            predicted_speedup_=predicted,
        )


def pad_prompts(packed: Prompts, room: int) -> Prompts:
    """Prompts padded to a common step, so that few widths are compiled."""
    width = packed.tokens.shape[1]
    padded = min(-(-width // PROMPT_STEP) * PROMPT_STEP, room)
    return packed._replace(tokens=jnp.pad(packed.tokens, ((0, 0), (0, padded - width))))


def _room(packed: Prompts, new: int, *models: Any) -> int:
    """Longest text, rounded up to a common step, within every context."""
    longest = int(np.max(packed.lengths)) + new
    room = -(-longest // TEXT_STEP) * TEXT_STEP
    contexts = [model.context for model in models if model.context is not None]
    return min([room, *contexts])


def _refuse_broken(state: DecodingState, program: Program) -> None:
    broken = np.asarray(state.broken)
    if broken.any():
        row = int(np.argmax(broken))
        who = "target" if program.drafter.vocab_size is None else "target or the draft model"
        raise ValueError(
            f"row {row}: the {who} gave logits that are no law (NaN, infinite, or all -inf) after "
            f"{int(np.asarray(state.length)[row])} tokens; look at its weights and precision."
        )
