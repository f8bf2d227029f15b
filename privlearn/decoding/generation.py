"""The decoding loop: draft, target step, verify, emit, commit, observe; one compiled program.

Rows of a batch accept different numbers of tokens. Nothing is ragged all the same: each row has its
own length, writes its new tokens there, and finished rows run along with zero tokens. A row's
randomness depends on its id and the iteration only, so its text does not depend on its batch mates.

The invariant: exactly one emitted token of each row is *pending*, the last one, which the target
has not read. Each target step reads the pending token first and then the draft.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privlearn.decoding.drafters.protocol import Drafter, Observation
from privlearn.decoding.models import (
    Cache,
    CausalLM,
    Prompts,
    advance,
    commit,
    prefill,
)
from privlearn.decoding.sampling import SamplingRule, draw, law_or_nan
from privlearn.decoding.statistics import Tally, count_step, empty_tally
from privlearn.decoding.verifiers import Verified, Verifier, emitted_tokens

__all__ = ["DecodingState", "Program", "iterate", "run", "start"]

_INIT = 2**31 - 1  # the drafter's first keys; iterations count from 0


class Program(NamedTuple):
    """What does not change while a batch is decoded.

    Attributes
    ----------
    target : CausalLM
    drafter : Drafter
    verifier : Verifier
    rule : SamplingRule
        Applied to target and draft before verification.
    eos : jax.Array of int32, shape (n,)
        Tokens that end a text; may be empty.
    """

    target: CausalLM
    drafter: Drafter
    verifier: Verifier
    rule: SamplingRule
    eos: jax.Array


class DecodingState(NamedTuple):
    """What an iteration changes.

    Attributes
    ----------
    text : jax.Array of int32, shape (B, S)
        Prompt and new tokens; what lies beyond ``length`` is undefined.
    length : jax.Array of int32, shape (B,)
    limit : jax.Array of int32, shape (B,)
        Length at which the row ends.
    done : jax.Array of bool, shape (B,)
    broken : jax.Array of bool, shape (B,)
        The row ended because a law was none (NaN or infinite logits).
    keys : jax.Array of keys, shape (B,)
    step : jax.Array of int32, shape ()
        Iterations so far.
    cache : Cache
        The target's.
    drafter : pytree
        The drafter's state.
    tally : Tally
    """

    text: jax.Array
    length: jax.Array
    limit: jax.Array
    done: jax.Array
    broken: jax.Array
    keys: jax.Array
    step: jax.Array
    cache: Cache
    drafter: Any
    tally: Tally


def start(
    program: Program, prompts: Prompts, limit: jax.Array, keys: jax.Array, max_len: int
) -> DecodingState:
    """Read the prompts; nothing is emitted yet.

    Parameters
    ----------
    program : Program
    prompts : Prompts
    limit : jax.Array of int32, shape (B,)
        Longest text of each row, prompt included; at most ``max_len``.
    keys : jax.Array of keys, shape (B,)
        One key per row: ``fold_in(base, row id)``.
    max_len : int
        Static: no text grows longer.
    """
    topology = program.drafter.topology
    rows, width = prompts.tokens.shape
    step_width = 1 + topology.size + program.drafter.n_extra
    slots = max(max_len, width)
    cache = program.target.init_cache(rows, slots, slack=step_width)
    text = jnp.zeros((rows, slots + topology.height + 1), jnp.int32)
    init_keys = jax.vmap(lambda key: jax.random.fold_in(key, _INIT))(keys)
    return DecodingState(
        text=text.at[:, :width].set(prompts.tokens),
        length=prompts.lengths,
        limit=limit,
        done=prompts.lengths >= limit,
        broken=jnp.zeros(rows, bool),
        keys=keys,
        step=jnp.int32(0),
        cache=prefill(program.target, cache, prompts.tokens, prompts.lengths),
        drafter=program.drafter.init(init_keys, prompts, slots, program.target.vocab_size),
        tally=empty_tally(rows, topology.height),
    )


def step_keys(state: DecodingState) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys (B,) for drafting, verification and observation in this iteration."""
    # One call of the generator: each costs as much as a small product of matrices.
    places = 3 * state.step + jnp.arange(3)
    keys = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(places))(state.keys)
    return keys[:, 0], keys[:, 1], keys[:, 2]


def iterate(program: Program, state: DecodingState) -> DecodingState:
    """One iteration of all rows."""
    draft_keys, verify_keys, observe_keys = step_keys(state)
    plan, drafter_state = program.drafter.propose(
        draft_keys, state.drafter, state.text, state.length, program.rule
    )
    draft, topology = plan.draft, plan.draft.topology
    logits, cache = _target_step(program.target, plan, state)
    law = law_or_nan(_verified_rule(program), logits[:, : topology.size + 1])
    if topology.size:
        verified = program.verifier.verify(verify_keys, draft, law)
    else:
        verified = _plain(verify_keys, law)
    tokens = emitted_tokens(draft, verified)

    alive = ~state.done
    broken = alive & ~verified.ok
    emitted, ended = _cut(tokens, verified.n_accepted, state, program.eos)
    emitted = jnp.where(alive & ~broken, emitted, 0)
    text = _write(state.text, tokens, state.length, emitted)
    if topology.is_chain:
        cache = advance(cache, emitted)
    else:
        cache = commit(cache, verified.path_slots, emitted)
    seen = Observation(
        keys=observe_keys,
        text=text,
        before=state.length,
        emitted=emitted,
        draft=draft,
        path=verified.path_slots,
        accepted=verified.n_accepted,
        law=law,
        logits=logits,
        eos=program.eos,
    )
    length = state.length + emitted
    counted = alive & ~broken
    return state._replace(
        text=text,
        length=length,
        done=state.done | broken | ended | (length >= state.limit),
        broken=state.broken | broken,
        step=state.step + 1,
        cache=cache,
        drafter=program.drafter.observe(drafter_state, seen),
        tally=count_step(state.tally, draft, law, tokens, verified.n_accepted, emitted, counted),
    )


def run(program: Program, state: DecodingState, until: jax.Array) -> DecodingState:
    """Iterate until every row is done or ``until`` iterations were made; a `lax.while_loop`."""

    def more(state: DecodingState) -> jax.Array:
        return jnp.any(~state.done) & (state.step < until)

    def body(state: DecodingState) -> DecodingState:
        # Under 64 bits an index may come back wider than it went in.
        return jax.tree.map(lambda new, old: new.astype(old.dtype), iterate(program, state), state)

    return lax.while_loop(more, body, state)


@eqx.filter_jit
def compiled_start(
    program: Program, prompts: Prompts, limit: jax.Array, keys: jax.Array, max_len: int
) -> DecodingState:
    """`start`, compiled; ``max_len`` is static."""
    return start(program, prompts, limit, keys, max_len)


@eqx.filter_jit(donate="all-except-first")
def _compiled_run(fixed: tuple[Program, jax.Array], state: DecodingState) -> DecodingState:
    return run(fixed[0], state, fixed[1])


def compiled_run(program: Program, state: DecodingState, until: int) -> DecodingState:
    """`run`, compiled, with the state's memory reused: the state that goes in is gone after it."""
    return _compiled_run((program, jnp.int32(until)), state)


def stream(
    program: Program,
    state: DecodingState,
    every: int,
    on_tokens: Callable[[int, np.ndarray], None],
) -> DecodingState:
    """Run in chunks of ``every`` iterations; after each, hand over every row's new tokens."""
    known = np.asarray(state.length)
    while not bool(np.all(np.asarray(state.done))):
        state = compiled_run(program, state, int(state.step) + every)
        text, length = np.asarray(state.text), np.asarray(state.length)
        for row in np.flatnonzero(length > known):
            on_tokens(int(row), text[row, known[row] : length[row]].copy())
        known = length
    return state


def _plain(keys: jax.Array, law: jax.Array) -> Verified:
    """Without a draft there is nothing to decide, whatever the verifier: one token from the law."""
    token = jax.vmap(draw)(keys, law[:, 0])
    nothing = jnp.zeros_like(token)
    return Verified(nothing[:, None], nothing, token, jnp.isfinite(law[:, 0, 0]))


def _verified_rule(program: Program) -> SamplingRule:
    """The rule for the target: a greedy lenient verifier compares untempered probabilities."""
    drafts = program.drafter.topology.size > 0
    if drafts and program.rule.greedy and getattr(program.verifier, "greedy", False):
        return SamplingRule.of(1.0)
    return program.rule


def _target_step(target: CausalLM, plan: Any, state: DecodingState) -> tuple[jax.Array, Cache]:
    """Logits (B, 1+M+E, V) behind the pending token, the draft, and the extra tokens."""
    draft = plan.draft
    pending = jnp.take_along_axis(state.text, state.length[:, None] - 1, axis=1)
    tokens = jnp.concatenate([pending, draft.tokens, plan.extra], axis=1)
    if draft.topology.is_chain and plan.extra.shape[1] == 0:
        return target.extend(state.cache, tokens)  # causal, consecutive: the defaults
    offset = np.concatenate([[0], draft.topology.depth, plan.extra_offset]).astype(np.int32)
    positions = state.length[:, None] - 1 + offset
    return target.extend(state.cache, tokens, positions, plan.mask)


def _cut(
    tokens: jax.Array, tau: jax.Array, state: DecodingState, eos: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How many tokens each row may emit, and whether an end-of-text token is the last of them."""
    place = jnp.arange(tokens.shape[1])
    ends = jnp.any(tokens[..., None] == eos, axis=-1) & (place <= tau[:, None])
    first_end = jnp.where(jnp.any(ends, axis=1), jnp.argmax(ends, axis=1), tokens.shape[1])
    emitted = jnp.minimum(jnp.minimum(tau, first_end) + 1, state.limit - state.length)
    return emitted, first_end < emitted


def _write(text: jax.Array, tokens: jax.Array, at: jax.Array, n: jax.Array) -> jax.Array:
    """The first n tokens of each row into its text; the rest stays as it was."""
    width = tokens.shape[1]

    def row(text: jax.Array, tokens: jax.Array, at: jax.Array, n: jax.Array) -> jax.Array:
        old = lax.dynamic_slice(text, (at,), (width,))
        return lax.dynamic_update_slice(text, jnp.where(jnp.arange(width) < n, tokens, old), (at,))

    return jax.vmap(row)(text, tokens, at, n)
