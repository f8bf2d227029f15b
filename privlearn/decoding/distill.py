"""DistillSpec: train a draft to be accepted, not to be likely.

Zhou, Lyu, Rawat, Menon, Rostamizadeh, Kumar, Kagy, Agarwal, "DistillSpec: Improving Speculative
Decoding via Knowledge Distillation", ICLR 2024, arXiv 2310.08461. Two choices: on which texts
(fixed data, the teacher's, the student's own, a mixture) and by which divergence (forward and
reverse KL, Jensen-Shannon, total variation). The target stays frozen, decoding stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from privlearn.decoding.drafters import ModelDrafter, NoDrafter
from privlearn.decoding.drafters.protocol import check_count
from privlearn.decoding.generation import Program, run, start
from privlearn.decoding.models import (
    CausalLM,
    Prompts,
    check_same_vocabulary,
    forward,
    pack_prompts,
)
from privlearn.decoding.sampling import SamplingRule, wide
from privlearn.decoding.verifiers import MatchVerifier

__all__ = ["DataSource", "DistillSpec", "Divergence", "Texts", "divergence", "sample_texts"]

Divergence = Literal["fkl", "rkl", "jsd", "tvd"]
DataSource = Literal["fixed", "teacher", "student", "mixed"]

#: log p is not taken below this in the reverse KL: a target with zeros would give an infinite loss.
LOG_FLOOR = -30.0


def divergence(
    name: Divergence, log_p: jax.Array, log_q: jax.Array, jsd_weight: float = 0.5
) -> jax.Array:
    """D(p, q) in nats, per position; p teacher, q student.

    Parameters
    ----------
    name : {"fkl", "rkl", "jsd", "tvd"}
        sum p log(p/q); sum q log(q/p); b KL(p, m) + (1-b) KL(q, m) with m = b p + (1-b) q;
        half the sum of absolute differences, which is 1 minus the acceptance.
    log_p, log_q : jax.Array, shape (..., V)
        Log-probabilities.
    jsd_weight : float in (0, 1), default 0.5
        b.

    Examples
    --------
    >>> p, q = jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.log(jnp.array([0.2, 0.3, 0.5]))
    >>> [round(float(divergence(name, p, q)), 5) for name in ("fkl", "rkl", "jsd", "tvd")]
    [0.49822, 0.585, 0.1251, 0.4]
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    if name == "fkl":
        return _relative_entropy(p, log_p, log_q)
    if name == "rkl":
        return _relative_entropy(q, log_q, jnp.maximum(log_p, LOG_FLOOR))
    if name == "jsd":
        b = jsd_weight
        log_m = jnp.logaddexp(log_p + np.log(b), log_q + np.log1p(-b))
        return b * _relative_entropy(p, log_p, log_m) + (1 - b) * _relative_entropy(q, log_q, log_m)
    if name == "tvd":
        return 0.5 * jnp.sum(jnp.abs(p - q), axis=-1)
    raise ValueError(f"divergence must be one of {get_args(Divergence)}, got {name!r}.")


def _relative_entropy(a: jax.Array, log_a: jax.Array, log_b: jax.Array) -> jax.Array:
    """Sum a (log a - log b), with 0 log 0 = 0 also in the gradient."""
    there = a > 0
    difference = jnp.where(there, log_a, 0) - jnp.where(there, log_b, 0)
    return jnp.sum(jnp.where(there, a, 0) * difference, axis=-1)


class Texts(NamedTuple):
    """Prompts with continuations.

    Attributes
    ----------
    tokens : jax.Array of int32, shape (B, S)
        Padded on the right.
    begin, end : jax.Array of int32, shape (B,)
        Places of the continuation: ``tokens[b, begin[b]:end[b]]``.
    """

    tokens: jax.Array
    begin: jax.Array
    end: jax.Array


@eqx.filter_jit
def sample_texts(
    model: CausalLM, prompts: Prompts, keys: jax.Array, n_new: int, temperature: float = 1.0
) -> Texts:
    """Continue prompts by plain sampling: ``n_new`` tokens each; no gradient flows through it.

    Parameters
    ----------
    model : CausalLM
    prompts : Prompts
    keys : jax.Array of keys, shape (B,)
    n_new : int
        Static.
    temperature : float, default 1.0
    """
    rule = SamplingRule(jnp.asarray(temperature), None, None, None)
    nothing = jnp.zeros(0, jnp.int32)
    program = Program(model, NoDrafter(), MatchVerifier(), rule, nothing)
    max_len = prompts.tokens.shape[1] + n_new
    state = start(program, prompts, prompts.lengths + n_new, keys, max_len)
    state = run(program, state, jnp.int32(n_new))
    return Texts(state.text[:, :max_len], prompts.lengths, state.length)


def text_loss(
    draft: CausalLM,
    target: CausalLM,
    texts: Texts,
    name: Divergence,
    temperature: float | jax.Array,
    jsd_weight: float,
) -> jax.Array:
    """Mean over texts of the mean over their continuations of D(p, q), teacher-forced."""
    log_p = jax.lax.stop_gradient(log_laws(target, texts.tokens, temperature))
    each = divergence(name, log_p, log_laws(draft, texts.tokens, temperature), jsd_weight)
    # The law at place t is that of token t + 1.
    place = jnp.arange(texts.tokens.shape[1]) + 1
    counted = (place >= texts.begin[:, None]) & (place < texts.end[:, None])
    total = jnp.sum(jnp.where(counted, each, 0), axis=1)
    return jnp.mean(total / jnp.maximum(jnp.sum(counted, axis=1), 1))


def log_laws(model: CausalLM, tokens: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Tempered log-probabilities (B, S, V) of what follows each token."""
    logits = model(tokens) if callable(model) else forward(model, tokens)
    return jax.nn.log_softmax(wide(logits) / temperature, axis=-1)


class DistillSpec(BaseEstimator):
    """Distil a draft from the target, so that more of its tokens are accepted.

    Parameters
    ----------
    target, draft : CausalLM
        The target stays as it is; ``draft`` is the start and is not changed either.
    divergence : {"fkl", "rkl", "jsd", "tvd"}, default "fkl"
        Total variation is the acceptance itself, but its gradient vanishes where a draft is far
        off: start it from a draft that knows something.
    data : {"fixed", "teacher", "student", "mixed"}, default "student"
        Texts to train on: the given continuations; the target's, sampled once; the draft's own,
        sampled anew for each batch; for each batch the draft's with chance ``mix``, else fixed ones
        if there are any, else the teacher's.
    jsd_weight : float in (0, 1), default 0.5
    mix : float in [0, 1], default 0.5
    temperature : float, default 1.0
        Of both laws; that of the decoding to come. Above 0.
    n_steps : int, default 200
    batch_size : int, default 16
    continuation_length : int, default 64
        Tokens that are sampled.
    learning_rate : float, default 1e-3
        Of AdamW with gradient clipping at norm 1.
    random_state : int, RandomState or None

    Attributes
    ----------
    draft_ : CausalLM
        The distilled draft.
    losses_ : ndarray of float, shape (n_steps,)
        Mean divergence of each batch before its step.

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TabularLM
    >>> target = TabularLM.random(jax.random.key(0), vocab_size=4, order=1)
    >>> draft = TabularLM.random(jax.random.key(1), vocab_size=4, order=1)
    >>> spec = DistillSpec(target, draft, n_steps=60, learning_rate=0.1, batch_size=8,
    ...                    continuation_length=8, random_state=0).fit([[0, 1], [2, 3]])
    >>> bool(spec.losses_[-5:].mean() < 0.2 * spec.losses_[:5].mean())
    True
    """

    def __init__(
        self,
        target: CausalLM,
        draft: CausalLM,
        *,
        divergence: Divergence = "fkl",
        data: DataSource = "student",
        jsd_weight: float = 0.5,
        mix: float = 0.5,
        temperature: float = 1.0,
        n_steps: int = 200,
        batch_size: int = 16,
        continuation_length: int = 64,
        learning_rate: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.target = target
        self.draft = draft
        self.divergence = divergence
        self.data = data
        self.jsd_weight = jsd_weight
        self.mix = mix
        self.temperature = temperature
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.continuation_length = continuation_length
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(
        self,
        prompts: Sequence[ArrayLike] | ArrayLike,
        continuations: Sequence[ArrayLike] | None = None,
    ) -> DistillSpec:
        """Train on continuations of the prompts.

        Parameters
        ----------
        prompts : sequence of token sequences
        continuations : sequence of token sequences, optional
            What really followed each prompt: needed for ``data="fixed"``.

        Raises
        ------
        ValueError
            For parameters out of range, vocabularies that differ, or missing continuations.
        FloatingPointError
            If the loss stops being finite.
        """
        self._check()
        rng = check_random_state(self.random_state)
        key = jax.random.key(rng.randint(np.iinfo(np.int32).max))
        packed = pack_prompts(prompts, self.target, max_new_tokens=self.continuation_length)
        fixed = self._fixed_texts(prompts, continuations)
        if self.data == "teacher" or (self.data == "mixed" and fixed is None):
            fixed = self._teacher_texts(packed, jax.random.fold_in(key, 0))
        optimiser = adam(float(self.learning_rate))
        draft, optimiser_state = self.draft, optimiser.init(_weights(self.draft))
        losses = np.zeros(self.n_steps)
        n_prompts = packed.tokens.shape[0]
        for step in range(self.n_steps):
            rows = rng.randint(n_prompts, size=self.batch_size)
            own = self.data == "student" or (self.data == "mixed" and rng.uniform() < self.mix)
            if own:
                batch = Prompts(packed.tokens[rows], packed.lengths[rows])
                keys = jax.random.split(jax.random.fold_in(key, step + 1), self.batch_size)
                texts = sample_texts(
                    draft, batch, keys, self.continuation_length, float(self.temperature)
                )
            else:
                assert fixed is not None
                texts = Texts(*(part[rows] for part in fixed))
            draft, optimiser_state, loss = _train_step(
                draft,
                optimiser_state,
                self.target,
                texts,
                jnp.asarray(float(self.temperature)),
                float(self.jsd_weight),
                self.divergence,
                optimiser,
            )
            losses[step] = float(loss)
            if not np.isfinite(losses[step]):
                raise FloatingPointError(
                    f"the loss is {losses[step]} at step {step}; lower learning_rate "
                    f"(now {self.learning_rate}) or look at the models' logits."
                )
        self.draft_, self.losses_ = draft, losses
        return self

    def drafter(self, gamma: int = 4) -> ModelDrafter:
        """The distilled draft as a drafter."""
        check_is_fitted(self, "draft_")
        return ModelDrafter(self.draft_, gamma)

    def _check(self) -> None:
        check_same_vocabulary(self.target, self.draft)
        if self.divergence not in get_args(Divergence):
            raise ValueError(
                f"divergence must be one of {get_args(Divergence)}, got {self.divergence!r}."
            )
        if self.data not in get_args(DataSource):
            raise ValueError(f"data must be one of {get_args(DataSource)}, got {self.data!r}.")
        if not 0 < self.jsd_weight < 1:
            raise ValueError(f"jsd_weight must lie in (0, 1), got {self.jsd_weight!r}.")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix must lie in [0, 1], got {self.mix!r}.")
        if not 0 < self.temperature < np.inf:
            raise ValueError(
                f"temperature must be positive, got {self.temperature!r}; for greedy decoding "
                "distil at a low one."
            )
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}.")
        for name in ("n_steps", "batch_size", "continuation_length"):
            check_count(name, getattr(self, name), 1)

    def _fixed_texts(
        self,
        prompts: Sequence[ArrayLike] | ArrayLike,
        continuations: Sequence[ArrayLike] | None,
    ) -> Texts | None:
        if continuations is None:
            if self.data == "fixed":
                raise ValueError('continuations are needed with data="fixed", got None.')
            return None
        if len(continuations) != len(prompts):  # type: ignore[arg-type]
            raise ValueError(
                f"continuations must be one per prompt, got {len(continuations)} for "
                f"{len(prompts)}."  # type: ignore[arg-type]
            )
        pairs = list(zip(prompts, continuations, strict=True))  # type: ignore[arg-type]
        if any(np.size(continuation) == 0 for _, continuation in pairs):
            raise ValueError("continuations must have at least one token each.")
        whole = pack_prompts([np.concatenate(pair) for pair in pairs], self.target)
        begin = jnp.asarray([np.size(prompt) for prompt, _ in pairs], jnp.int32)
        return Texts(whole.tokens, begin, whole.lengths)

    def _teacher_texts(self, packed: Prompts, key: jax.Array) -> Texts:
        """The target's continuation of every prompt, sampled once, in equal batches."""
        n = packed.tokens.shape[0]
        rows = np.arange(-(-n // self.batch_size) * self.batch_size) % n
        keys = jax.random.split(key, len(rows))
        parts = []
        for at in range(0, len(rows), self.batch_size):
            part = rows[at : at + self.batch_size]
            batch = Prompts(packed.tokens[part], packed.lengths[part])
            parts.append(
                sample_texts(
                    self.target,
                    batch,
                    keys[at : at + self.batch_size],
                    self.continuation_length,
                    float(self.temperature),
                )
            )
        return Texts(*(jnp.concatenate(columns)[:n] for columns in zip(*parts, strict=True)))


@lru_cache(maxsize=16)
def adam(learning_rate: float) -> optax.GradientTransformation:
    """AdamW with clipping; the same object for the same rate, so that its step compiles once."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(learning_rate))


def _weights(model: CausalLM) -> CausalLM:
    return eqx.filter(model, eqx.is_inexact_array)


@eqx.filter_jit
def _train_step(
    draft: CausalLM,
    optimiser_state: Any,
    target: CausalLM,
    texts: Texts,
    temperature: jax.Array,
    jsd_weight: float,
    name: Divergence,
    optimiser: optax.GradientTransformation,
) -> tuple[CausalLM, Any, jax.Array]:
    """One step of the optimiser on one batch."""
    loss, gradient = eqx.filter_value_and_grad(text_loss)(
        draft, target, texts, name, temperature, jsd_weight
    )
    updates, optimiser_state = optimiser.update(gradient, optimiser_state, _weights(draft))
    return eqx.apply_updates(draft, updates), optimiser_state, loss
