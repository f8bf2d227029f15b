"""Lookahead decoding: Jacobi iterations fill a pool of n-grams, the same pass verifies them.

Fu, Bailis, Stoica, Zhang, "Break the Sequential Dependency of LLM Inference Using Lookahead
Decoding", ICML 2024, arXiv 2402.02057. No draft model and no training: spare parallel work of the
target itself guesses what comes. All rows of the window are filled at once with random tokens of
the prompt (the paper's warm-up, equally exact, fills them one step after another).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privlearn.decoding.drafters.protocol import Observation, Plan, check_count
from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.models import Prompts
from privlearn.decoding.sampling import SamplingRule
from privlearn.decoding.verifiers.choice import likeliest

__all__ = ["Lookahead", "LookaheadState", "Pool", "insert", "window_mask"]


class Pool(NamedTuple):
    """For each token the G n-grams that followed it most recently; one row's, or B rows'.

    Attributes
    ----------
    grams : jax.Array of int32, shape (..., V, G, N-1)
        What followed.
    age : jax.Array of int32, shape (..., V, G)
        When it was inserted last; 0: an empty place.
    clock : jax.Array of int32, shape (...)
        Insertions so far.
    """

    grams: jax.Array
    age: jax.Array
    clock: jax.Array


class LookaheadState(NamedTuple):
    """Window, pool, and where the prompt ends.

    Attributes
    ----------
    window : jax.Array of int32, shape (B, N-1, W)
        The last Jacobi iterates; row 0, column 0 stands for the pending token and is not read.
    pool : Pool
    prompt_length : jax.Array of int32, shape (B,)
    """

    window: jax.Array
    pool: Pool
    prompt_length: jax.Array


class Lookahead(eqx.Module):
    """Guess with n-grams from the target's own Jacobi iterations.

    Each step reads ``1 + (W-1) + W (N-2) + G (N-1)`` tokens and emits 1 to N.

    Parameters
    ----------
    window : int, default 5
        W, columns of the Jacobi window.
    ngram : int, default 4
        N, at least 2.
    guesses : int or None, default None
        G, n-grams verified in each step and kept for each token; ``window`` if None. 0 keeps no
        pool: one token a step.
    pool_from_prompt : bool, default False
        Also insert the n-grams of the prompt, and of the text as it is emitted (prompt lookup
        merged in).

    Examples
    --------
    >>> Lookahead(window=3, ngram=3, guesses=2).topology.parent
    (-1, 0, -1, 2)
    >>> Lookahead(window=3, ngram=3, guesses=2).n_extra
    5
    """

    window: int = eqx.field(static=True, default=5)
    ngram: int = eqx.field(static=True, default=4)
    guesses: int | None = eqx.field(static=True, default=None)
    pool_from_prompt: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_count("window", self.window, 1)
        check_count("ngram", self.ngram, 2)
        if self.guesses is not None:
            check_count("guesses", self.guesses, 0)

    @property
    def n_guesses(self) -> int:
        """G."""
        return self.window if self.guesses is None else self.guesses

    @property
    def vocab_size(self) -> None:
        """None: the target drafts for itself."""
        return None

    @property
    def context(self) -> None:
        """None: there is no limit."""
        return None

    @property
    def min_prompt(self) -> int:
        """A prompt of one token suffices."""
        return 1

    @property
    def topology(self) -> Topology:
        """G chains of N - 1 tokens."""
        if self.n_guesses == 0:
            return Topology.chain(0)
        return Topology.chains(self.n_guesses, self.ngram - 1)

    @property
    def n_extra(self) -> int:
        """Tokens of the window but for the pending one."""
        return self.window * (self.ngram - 1) - 1

    def init(
        self, keys: jax.Array, prompts: Prompts, max_len: int, vocab_size: int
    ) -> LookaheadState:
        """A window of random prompt tokens; an empty pool, or the prompt's n-grams."""
        shape = (self.ngram - 1, self.window)
        window = _prompt_tokens(keys, prompts.tokens, prompts.lengths, shape)
        pool = self._empty_pool(prompts.tokens.shape[0], vocab_size)
        if self.pool_from_prompt and self.n_guesses:
            ends = jnp.arange(prompts.tokens.shape[1])
            ends = jnp.broadcast_to(ends, prompts.tokens.shape)
            pool = self._insert_text(pool, prompts.tokens, ends, ends < prompts.lengths[:, None])
        return LookaheadState(window, pool, prompts.lengths)

    def propose(
        self,
        keys: jax.Array,
        state: LookaheadState,
        text: jax.Array,
        length: jax.Array,
        rule: SamplingRule,
    ) -> tuple[Plan, LookaheadState]:
        """The pool's n-grams of the pending token, and the window beside them."""
        rows = text.shape[0]
        pending = jnp.take_along_axis(text, length[:, None] - 1, axis=1)
        if self.n_guesses:
            grams = jax.vmap(lambda grams, token: grams[token])(state.pool.grams, pending[:, 0])
            age = jax.vmap(lambda age, token: age[token])(state.pool.age, pending[:, 0])
            valid = jnp.broadcast_to((age > 0)[..., None], grams.shape)
            draft = Draft.chains(grams, valid=valid)
        else:
            draft = Draft.chain(jnp.zeros((rows, 0), jnp.int32))
        extra = state.window.reshape(rows, -1)[:, 1:]
        column, row = np.arange(self.window), np.arange(self.ngram - 1)
        offset = (row[:, None] + column[None, :]).reshape(-1)[1:]
        mask = window_mask(draft.topology, self.window, self.ngram)
        return Plan(draft, extra, offset, mask), state

    def observe(self, state: LookaheadState, seen: Observation) -> LookaheadState:
        """New n-grams into the pool, the window one row on."""
        rows, size = state.window.shape[0], seen.draft.topology.size
        pending = jnp.take_along_axis(seen.text, seen.before[:, None] - 1, axis=1)
        # Logits behind every column of the window's last row; for N = 2 that is row 0, whose
        # column 0 is the pending token.
        window_logits = jnp.concatenate([seen.logits[:, :1], seen.logits[:, size + 1 :]], axis=1)
        new = likeliest(window_logits[:, -self.window :])
        first = jnp.concatenate([pending, state.window[:, 0, 1:]], axis=1)
        pool = state.pool
        if self.n_guesses:
            stack = jnp.concatenate([first[:, None], state.window[:, 1:], new[:, None]], axis=1)
            pool = _insert_rows(pool, jnp.swapaxes(stack, 1, 2), jnp.ones(first.shape, bool))
            if self.pool_from_prompt:
                place = jnp.arange(self.ngram)
                ends = seen.before[:, None] + place
                pool = self._insert_text(pool, seen.text, ends, place < seen.emitted[:, None])
        is_end = jnp.any(new[..., None] == seen.eos, axis=-1)
        other = _prompt_tokens(seen.keys, seen.text, state.prompt_length, (self.window,))
        new = jnp.where(is_end, other, new)
        shifted = new[:, None, 1:] if self.ngram == 2 else state.window[:, 1:2, 1:]
        # Row 0 loses its first column; column 0 is only the pending token's place.
        row0 = jnp.concatenate([jnp.zeros((rows, 1, 1), jnp.int32), shifted], axis=2)
        window = jnp.concatenate([row0, state.window[:, 2:], new[:, None]], axis=1)
        return LookaheadState(window[:, : self.ngram - 1], pool, state.prompt_length)

    def _empty_pool(self, rows: int, vocab_size: int) -> Pool:
        places = (rows, vocab_size, self.n_guesses)
        return Pool(
            jnp.zeros((*places, self.ngram - 1), jnp.int32),
            jnp.zeros(places, jnp.int32),
            jnp.zeros(rows, jnp.int32),
        )

    def _insert_text(self, pool: Pool, text: jax.Array, ends: jax.Array, wanted: jax.Array) -> Pool:
        """The n-grams of ``text`` that end at the places ``ends`` (B, n), left to right."""
        back = jnp.arange(-self.ngram + 1, 1)
        places = ends[..., None] + back
        inside = (places[..., 0] >= 0) & wanted
        grams = jax.vmap(lambda text, places: text[places])(text, jnp.maximum(places, 0))
        return _insert_rows(pool, grams, inside)


def insert(pool: Pool, gram: jax.Array, wanted: jax.Array) -> Pool:
    """Insert one n-gram (N,) into one row's pool: known ones become the newest, or the oldest goes.

    Examples
    --------
    >>> pool = Pool(jnp.zeros((3, 1, 1), int), jnp.zeros((3, 1), int), jnp.int32(0))
    >>> pool = insert(pool, jnp.array([2, 1]), True)
    >>> pool.grams[2].tolist(), pool.age[2].tolist()
    ([[1]], [1])
    """
    token, value = gram[0], gram[1:]
    age = pool.age[token]
    known = jnp.all(pool.grams[token] == value, axis=-1) & (age > 0)
    place = jnp.where(jnp.any(known), jnp.argmax(known), jnp.argmin(age))
    clock = pool.clock + 1
    return Pool(
        pool.grams.at[token, place].set(jnp.where(wanted, value, pool.grams[token, place])),
        pool.age.at[token, place].set(jnp.where(wanted, clock, pool.age[token, place])),
        clock,
    )


def _insert_rows(pool: Pool, grams: jax.Array, wanted: jax.Array) -> Pool:
    """Insert n-grams (B, n, N) in order, where ``wanted`` (B, n)."""

    def step(pool: Pool, one: tuple[jax.Array, jax.Array]) -> tuple[Pool, None]:
        return jax.vmap(insert)(pool, *one), None

    return lax.scan(step, pool, (jnp.swapaxes(grams, 0, 1), wanted.T))[0]


def window_mask(topology: Topology, window: int, ngram: int) -> np.ndarray:
    """Who sees whom in a step: slots are the pending token, the guesses, the window row by row.

    A guess sees the pending token and the earlier tokens of its own chain. Row 0 of the window is
    causal, the pending token being its column 0. A token of a later row sees row 0 up to its own
    column, and its own column above. Window and guesses never see each other.

    Examples
    --------
    >>> window_mask(Topology.chain(0), window=2, ngram=3).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 0, 1, 0],
           [1, 1, 0, 1]])
    """
    n_draft = topology.size + 1
    cells = [(row, column) for row in range(ngram - 1) for column in range(window)][1:]
    mask = np.zeros((n_draft + len(cells),) * 2, bool)
    mask[:n_draft, :n_draft] = topology.mask
    for i, (row, column) in enumerate(cells):
        mask[n_draft + i, 0] = True
        for j, (other_row, other_column) in enumerate(cells):
            above = other_column == column and 1 <= other_row <= row
            mask[n_draft + i, n_draft + j] = above or (other_row == 0 and other_column <= column)
    return mask


def _prompt_tokens(
    keys: jax.Array, text: jax.Array, prompt_length: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Random tokens of each row's prompt, uniform over its places."""

    def row(key: jax.Array, text: jax.Array, length: jax.Array) -> jax.Array:
        return text[jax.random.randint(key, shape, 0, length)]

    return jax.vmap(row)(keys, text, prompt_length)
