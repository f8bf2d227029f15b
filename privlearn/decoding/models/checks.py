"""Checks of what goes into a decoder and what comes out of a model, made before any loop starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.decoding.models.protocol import CausalLM


class Prompts(NamedTuple):
    """Prompts side by side.

    Attributes
    ----------
    tokens : Array of int32, shape (B, P)
        Padded on the right with token 0.
    lengths : Array of int32, shape (B,)
        True lengths.
    """

    tokens: Array
    lengths: Array


def check_length(max_len: int, slack: int, batch: int, context: int | None) -> int:
    """Check the sizes of a cache; returns its number of slots.

    Raises
    ------
    ValueError
        For sizes below 1, a negative slack, or texts longer than the context of the model.
    """
    for name, size, least in (("batch", batch, 1), ("max_len", max_len, 1), ("slack", slack, 0)):
        if size < least:
            raise ValueError(f"{name}: {size}; must be at least {least}")
    if context is not None and max_len > context:
        raise ValueError(
            f"max_len: {max_len} tokens exceed the context of the model, {context}; shorten the "
            "prompt or ask for fewer new tokens"
        )
    return max_len + slack


def check_same_vocabulary(target: CausalLM, draft: CausalLM) -> None:
    """Refuse a draft that does not speak the target's tokens.

    Raises
    ------
    ValueError
        If the vocabularies differ in size.
    """
    if target.vocab_size != draft.vocab_size:
        raise ValueError(
            f"draft: a vocabulary of {draft.vocab_size} tokens, but the target has "
            f"{target.vocab_size}; both models must share one tokenizer"
        )


def check_logits(logits: ArrayLike, where: str = "logits") -> None:
    """Refuse logits that no law has: NaN, +inf, or -inf everywhere.

    Raises
    ------
    ValueError
        Naming the first bad place. For concrete arrays, outside ``jit``.

    Examples
    --------
    >>> from privlearn.decoding.models import check_logits
    >>> check_logits([[0.0, float("-inf")]])
    >>> check_logits([[0.0, 1.0], [float("nan"), 0.0]])
    Traceback (most recent call last):
        ...
    ValueError: logits: NaN at (1, 0); the weights or the inputs of the model are broken
    """
    values = np.asarray(logits)
    for name, bad in (("NaN", np.isnan(values)), ("+inf", np.isposinf(values))):
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{where}: {name} at {place}; the weights or the inputs of the model are broken"
            )
    empty = np.all(np.isneginf(values), axis=-1)
    if empty.any():
        place = tuple(int(i) for i in np.argwhere(empty)[0]) if empty.ndim else ()
        raise ValueError(f"{where}: no token is possible at {place}: every logit is -inf")


def pack_prompts(
    prompts: Sequence[ArrayLike] | ArrayLike,
    model: CausalLM,
    *,
    max_new_tokens: int = 0,
    min_length: int = 1,
) -> Prompts:
    """Put prompts of different lengths side by side, checked against the model.

    Parameters
    ----------
    prompts : sequence of token sequences, or array of shape (B, P)
        Token ids. One flat sequence of ids is one prompt.
    model : CausalLM
        Whose vocabulary and context the prompts must fit.
    max_new_tokens : int, default 0
        How many tokens are to follow.
    min_length : int, default 1
        Shortest prompt allowed; drafting by a model needs 2.

    Raises
    ------
    TypeError
        If the ids are not integers.
    ValueError
        For no prompts, an empty or too short prompt, an id outside the vocabulary, or a text that
        would be longer than the context.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM, pack_prompts
    >>> model = TabularLM.random(jax.random.key(0), vocab_size=3, order=2)
    >>> pack_prompts([[0, 1, 2], [2]], model).tokens
    Array([[0, 1, 2],
           [2, 0, 0]], dtype=int32)
    """
    if isinstance(prompts, str):
        raise TypeError("prompts: a string; encode it with the tokenizer of the model first")
    listed: list[Any] = list(prompts)  # type: ignore[arg-type]
    if listed and np.ndim(listed[0]) == 0:
        listed = [listed]
    if not listed:
        raise ValueError("prompts: none given; give at least one sequence of token ids")
    rows = [_checked_prompt(i, prompt, model, min_length) for i, prompt in enumerate(listed)]
    lengths = np.array([len(row) for row in rows], np.int32)
    longest = int(lengths.max())
    if model.context is not None and longest + max_new_tokens > model.context:
        raise ValueError(
            f"prompts[{int(lengths.argmax())}]: {longest} tokens and {max_new_tokens} new ones "
            f"exceed the context of the model, {model.context}"
        )
    tokens = np.zeros((len(rows), longest), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return Prompts(jnp.asarray(tokens), jnp.asarray(lengths))


def _checked_prompt(i: int, prompt: ArrayLike, model: CausalLM, min_length: int) -> np.ndarray:
    ids = np.asarray(prompt)
    if ids.ndim != 1:
        raise ValueError(f"prompts[{i}]: {ids.ndim} axes; a prompt is one sequence of token ids")
    if len(ids) < min_length:
        what = "empty" if len(ids) == 0 else f"{len(ids)} token(s)"
        raise ValueError(
            f"prompts[{i}]: {what}, but at least {min_length} token(s) are needed; "
            "begin it with a token that opens a text"
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"prompts[{i}]: dtype {ids.dtype}; token ids are integers")
    bad = (ids < 0) | (ids >= model.vocab_size)
    if bad.any():
        raise ValueError(
            f"prompts[{i}]: id {int(ids[bad][0])} is outside the vocabulary of the model, "
            f"0..{model.vocab_size - 1}"
        )
    return ids
