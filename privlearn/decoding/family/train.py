"""Train the family: three sizes of one model, on CPython's own manual and source.

Run it as ``python -m privlearn.decoding.family.train --out DIRECTORY``. It learns a byte-pair
vocabulary, trains each size with the optax recipe below on random windows of the training files,
and writes for each size the weights (float16, in the layout of Hugging Face's Llama), and a card
with the corpus, the split, the held-out loss and the teacher-forced acceptance of each pair. The
same seed gives the same batches; the last digits depend on the machine.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm.auto import tqdm

from privlearn.decoding.models import TransformerConfig, TransformerLM

VOCAB_SIZE = 512
CONTEXT = 256


def _size(n_layers: int, d_model: int, d_ff: int) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=VOCAB_SIZE,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=d_model // 32,
        d_ff=d_ff,
        context=CONTEXT,
    )


#: The three sizes, with 1.32, 0.27 and 0.08 million weights.
SIZES = {"target": _size(4, 160, 432), "middle": _size(2, 96, 256), "draft": _size(1, 64, 160)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to train one model.

    Parameters
    ----------
    steps : int
        Updates.
    batch, window : int
        Windows in a batch and tokens in a window.
    learning_rate : float
        Highest, reached after ``warmup`` steps, then a cosine to a twentieth of it.
    chunk : int
        Steps compiled into one call.
    """

    steps: int
    batch: int = 8
    window: int = CONTEXT
    learning_rate: float = 4e-3
    warmup: int = 50
    chunk: int = 10

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW on a cosine schedule, gradients clipped to norm 1."""
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup, self.steps, self.learning_rate / 20
        )
        return optax.chain(
            optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.05)
        )


#: How the shipped weights were trained.
PLANS = {"target": Plan(800), "middle": Plan(700), "draft": Plan(700)}


class Trained(NamedTuple):
    """A trained model and its training loss (nats a token) at each step."""

    model: TransformerLM
    losses: np.ndarray


def token_losses(model: TransformerLM, tokens: Array) -> Array:
    """Nats of each token but the first, (B, T-1), of texts (B, T)."""
    logits = model(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])


def train(
    config: TransformerConfig,
    domains: Mapping[str, np.ndarray],
    plan: Plan,
    key: Array,
    *,
    progress: bool = False,
) -> Trained:
    """Train a model from scratch.

    Parameters
    ----------
    config : TransformerConfig
    domains : mapping from name to array of int
        Token streams; every window is taken from one of them, each as often as the others.
    plan : Plan
    key : Array
        Of the first weights and of the windows.
    progress : bool, default False
        Show a bar.
    """
    k_init, k_batches = jax.random.split(key)
    model = TransformerLM.init(k_init, config)
    optimizer = plan.optimizer()
    streams = [np.asarray(stream, np.int32) for stream in domains.values()]
    starts = np.cumsum([0] + [len(stream) for stream in streams[:-1]])
    text = jnp.asarray(np.concatenate(streams))
    rooms = jnp.array([len(stream) - plan.window for stream in streams])
    offsets = jnp.asarray(starts)

    def batch(key: Array) -> Array:
        k_domain, k_start = jax.random.split(key)
        domain = jax.random.randint(k_domain, (plan.batch,), 0, len(streams))
        start = jax.random.uniform(k_start, (plan.batch,)) * rooms[domain]
        at = offsets[domain] + start.astype(jnp.int32)
        return text[at[:, None] + jnp.arange(plan.window + 1)]

    @functools.partial(jax.jit, donate_argnums=0)
    def run(carry: Any, first: Array) -> Any:
        def step(carry: Any, i: Array) -> Any:
            model, state = carry
            windows = batch(jax.random.fold_in(k_batches, i))
            loss, grads = jax.value_and_grad(lambda m: jnp.mean(token_losses(m, windows)))(model)
            updates, state = optimizer.update(grads, state, model)
            return (optax.apply_updates(model, updates), state), loss

        return jax.lax.scan(step, carry, first + jnp.arange(plan.chunk))

    carry, losses = (model, optimizer.init(model)), []
    bar = tqdm(range(0, plan.steps, plan.chunk), disable=not progress)
    for first in bar:
        carry, chunk = run(carry, jnp.asarray(first))
        losses.append(np.asarray(chunk))
        bar.set_postfix(loss=f"{losses[-1].mean():.3f}")
    return Trained(carry[0], np.concatenate(losses))
