"""Online speculative decoding: keep distilling the draft while serving.

Liu, Hu, Bailis, Cheung, Deng, Stoica, Zhang, "Online Speculative Decoding", ICML 2024, arXiv
2310.07177. Each rejection gives the target's law at a position where the draft was wrong. They are
collected, and after every few requests the draft takes a step towards them. Weights change between
requests only, so a token is always verified against the law that drafted it, and the text keeps the
target's law exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.base import BaseEstimator

from privlearn.decoding.decoder import TEXT_STEP, Generation, SpeculativeDecoder
from privlearn.decoding.distill import Divergence, _weights, adam, divergence, log_laws
from privlearn.decoding.drafters import ModelDrafter
from privlearn.decoding.drafters.protocol import check_count
from privlearn.decoding.drafters.recording import Record, RecordingDrafter
from privlearn.decoding.models import CausalLM
from privlearn.decoding.verifiers import Verifier

__all__ = ["OnlineSpeculative", "OnlineState", "Request", "moving_average"]


class Correction(NamedTuple):
    """One served text and where its draft was wrong; NumPy arrays."""

    tokens: np.ndarray
    position: np.ndarray
    law: np.ndarray


class Batch(NamedTuple):
    """Corrections side by side.

    Attributes
    ----------
    tokens : jax.Array of int32, shape (I, S)
    position : jax.Array of int32, shape (I, R)
        Places of the rejected tokens: the law at place j is read behind place j - 1.
    law : jax.Array, shape (I, R, V)
        The target's.
    counted : jax.Array of bool, shape (I, R)
    """

    tokens: jax.Array
    position: jax.Array
    law: jax.Array
    counted: jax.Array


@dataclass(frozen=True)
class Request:
    """What became of one request.

    Attributes
    ----------
    route : hashable
        Which draft served it.
    acceptance_rate : float
        Mean acceptance chance over verified draft positions, with the draft that served it.
    block_efficiency : float
    corrections : int
        Rejected positions that were recorded.
    updated : bool
        Whether a draft was updated after it.
    """

    route: Hashable
    acceptance_rate: float
    block_efficiency: float
    corrections: int
    updated: bool


class OnlineState(NamedTuple):
    """All that changes: `OnlineSpeculative.checkpoint` puts it aside, `restore` goes back."""

    drafts: dict[Hashable, CausalLM]
    optimisers: dict[Hashable, Any]
    buffers: dict[Hashable, tuple[Correction, ...]]
    served: int
    history: tuple[Request, ...]


class OnlineSpeculative(BaseEstimator):
    """Serve requests one after another, and adapt the draft to what is asked.

    Parameters
    ----------
    target, draft : CausalLM
        ``draft`` is the start of every route's own draft.
    gamma : int, default 5
    update_interval : int, default 8
        Requests (with at least one rejection) that are buffered before an update; a very large
        number: a static draft.
    learning_rate : float, default 1e-4
        Constant, of AdamW with clipping.
    n_update_steps : int, default 1
        Steps on each full buffer.
    divergence : {"fkl", "rkl", "jsd", "tvd"}, default "fkl"
    verifier : str or Verifier, default "block"
        For chains.
    temperature : float, default 1.0
        Above 0: the draft learns laws.
    max_new_tokens : int, default 128
    random_state : int, default 0
        Request number n draws the same whatever was served before.

    Attributes
    ----------
    history_ : list of Request
    state_ : OnlineState

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM
    >>> target = TabularLM.random(jax.random.key(0), vocab_size=4, order=1, concentration=0.3)
    >>> draft = TabularLM.random(jax.random.key(1), vocab_size=4, order=1)
    >>> online = OnlineSpeculative(target, draft, update_interval=2, learning_rate=0.1,
    ...                            max_new_tokens=24)
    >>> rates = [r.acceptance_rate for r in online.partial_fit([[0, 1]] * 40).history_]
    >>> bool(np.mean(rates[-8:]) > np.mean(rates[:4]) + 0.1)
    True
    """

    def __init__(
        self,
        target: CausalLM,
        draft: CausalLM,
        *,
        gamma: int = 5,
        update_interval: int = 8,
        learning_rate: float = 1e-4,
        n_update_steps: int = 1,
        divergence: Divergence = "fkl",
        verifier: str | Verifier = "block",
        temperature: float = 1.0,
        max_new_tokens: int = 128,
        random_state: int = 0,
    ) -> None:
        self.target = target
        self.draft = draft
        self.gamma = gamma
        self.update_interval = update_interval
        self.learning_rate = learning_rate
        self.n_update_steps = n_update_steps
        self.divergence = divergence
        self.verifier = verifier
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.random_state = random_state

    def partial_fit(
        self, prompts: Sequence[ArrayLike], routes: Sequence[Hashable] | None = None
    ) -> OnlineSpeculative:
        """Serve a stretch of the stream, one request at a time.

        Parameters
        ----------
        prompts : sequence of token sequences
            In order of arrival.
        routes : sequence of hashable, optional
            Which draft serves each request (a language, a topic): each has its own buffer and
            optimiser. One draft for all if None.
        """
        self._check()
        if routes is None:
            routes = [None] * len(prompts)
        if len(routes) != len(prompts):
            raise ValueError(
                f"routes must be one per prompt, got {len(routes)} for {len(prompts)} prompts."
            )
        for prompt, route in zip(prompts, routes, strict=True):
            self.serve(prompt, route)
        return self

    def serve(self, prompt: ArrayLike, route: Hashable = None) -> Generation:
        """Answer one request, record its rejections, update its draft if the buffer is full."""
        self._check()
        if not hasattr(self, "state_"):
            self.state_ = OnlineState({}, {}, {}, 0, ())
        state = self.state_
        draft = state.drafts.get(route, self.draft)
        decoder = SpeculativeDecoder(
            self.target,
            RecordingDrafter(ModelDrafter(draft, self.gamma), self.max_new_tokens),
            self.verifier,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            random_state=self.random_state,
        )
        result, (_, record) = decoder.decode([prompt], row_ids=np.array([state.served]))
        correction = _correction(result, record)
        buffer = state.buffers.get(route, ())
        if len(correction.position):
            buffer = (*buffer, correction)
        optimiser_state = state.optimisers.get(route)
        updated = len(buffer) >= self.update_interval
        if updated:
            draft, optimiser_state = self._update(draft, optimiser_state, buffer)
            buffer = ()
        request = Request(
            route,
            result.acceptance_rate_,
            result.block_efficiency_,
            len(correction.position),
            updated,
        )
        self.state_ = OnlineState(
            {**state.drafts, route: draft},
            {**state.optimisers, route: optimiser_state},
            {**state.buffers, route: buffer},
            state.served + 1,
            (*state.history, request),
        )
        return result

    @property
    def history_(self) -> list[Request]:
        """What became of every request so far."""
        return list(self.state_.history) if hasattr(self, "state_") else []

    def draft_for(self, route: Hashable = None) -> CausalLM:
        """The draft that would serve the next request of a route."""
        return self.state_.drafts.get(route, self.draft) if hasattr(self, "state_") else self.draft

    def checkpoint(self) -> OnlineState:
        """The state; nothing in it is ever changed in place."""
        return self.state_ if hasattr(self, "state_") else OnlineState({}, {}, {}, 0, ())

    def restore(self, state: OnlineState) -> OnlineSpeculative:
        """Go back to a checkpoint: the same stream then gives the same texts and drafts."""
        self.state_ = state
        return self

    def _check(self) -> None:
        for name in ("gamma", "update_interval", "n_update_steps"):
            check_count(name, getattr(self, name), 1)
        if not 0 < self.temperature < np.inf:
            raise ValueError(
                f"temperature must be positive, got {self.temperature!r}: the draft learns laws, "
                "and a greedy target has none."
            )
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}.")

    def _update(
        self, draft: CausalLM, optimiser_state: Any, buffer: tuple[Correction, ...]
    ) -> tuple[CausalLM, Any]:
        optimiser = adam(float(self.learning_rate))
        if optimiser_state is None:
            optimiser_state = optimiser.init(_weights(draft))
        batch: Batch = _stack(buffer, self.max_new_tokens, draft.context)
        for _ in range(self.n_update_steps):
            draft, optimiser_state = _update_step(
                draft,
                optimiser_state,
                batch,
                jnp.asarray(float(self.temperature)),
                self.divergence,
                optimiser,
            )
        return draft, optimiser_state


def moving_average(values: ArrayLike, window: int = 20) -> np.ndarray:
    """Mean of the last ``window`` values, of fewer at the start; NaN counts as missing.

    Examples
    --------
    >>> moving_average([1.0, 3.0, 5.0], window=2).tolist()
    [1.0, 2.0, 4.0]
    """
    values = np.asarray(values, float)
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0))
    count = np.cumsum(known)
    total[window:] -= total[:-window].copy()
    count[window:] -= count[:-window].copy()
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def correction_loss(
    draft: CausalLM, batch: Batch, temperature: float | jax.Array, name: Divergence
) -> jax.Array:
    """Mean over the recorded positions of D(target's law, draft's law); nothing else counts."""
    log_q = log_laws(draft, batch.tokens, temperature)
    behind = jnp.maximum(batch.position - 1, 0)[..., None]
    each = divergence(name, jnp.log(batch.law), jnp.take_along_axis(log_q, behind, axis=1))
    counted = batch.counted
    return jnp.sum(jnp.where(counted, each, 0)) / jnp.maximum(jnp.sum(counted), 1)


@eqx.filter_jit
def _update_step(
    draft: CausalLM,
    optimiser_state: Any,
    batch: Batch,
    temperature: jax.Array,
    name: Divergence,
    optimiser: Any,
) -> tuple[CausalLM, Any]:
    gradient = eqx.filter_grad(correction_loss)(draft, batch, temperature, name)
    updates, optimiser_state = optimiser.update(gradient, optimiser_state, _weights(draft))
    return eqx.apply_updates(draft, updates), optimiser_state


def _correction(result: Generation, record: Record) -> Correction:
    n = int(record.n[0])
    return Correction(
        result.sequences[0], np.asarray(record.position[0, :n]), np.asarray(record.law[0, :n])
    )


def _stack(buffer: tuple[Correction, ...], capacity: int, context: int | None) -> Batch:
    """Texts and corrections side by side, padded to few different shapes."""
    longest = max(len(one.tokens) for one in buffer)
    width = -(-longest // TEXT_STEP) * TEXT_STEP
    width = width if context is None else min(width, context)
    rows, vocabulary = len(buffer), buffer[0].law.shape[1]
    tokens = np.zeros((rows, width), np.int32)
    position = np.zeros((rows, capacity), np.int32)
    law = np.full((rows, capacity, vocabulary), 1.0 / vocabulary, buffer[0].law.dtype)
    counted = np.zeros((rows, capacity), bool)
    for i, one in enumerate(buffer):
        n = len(one.position)
        tokens[i, : len(one.tokens)] = one.tokens
        position[i, :n], law[i, :n], counted[i, :n] = one.position, one.law, True
    return Batch(*map(jnp.asarray, (tokens, position, law, counted)))
