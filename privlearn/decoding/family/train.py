"""Train the family: three sizes of one model, on CPython's own manual and source.

Run it as ``python -m privlearn.decoding.family.train --out DIRECTORY``. It learns a byte-pair
vocabulary, trains each size with the optax recipe below on random windows of the training files,
and writes for each size the weights (float16, in the layout of Hugging Face's Llama), and a card
with the corpus, the split, the held-out loss and the teacher-forced acceptance of each pair. The
same seed gives the same batches; the last digits depend on the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm.auto import tqdm

from privlearn.decoding.models import TransformerConfig, TransformerLM
from privlearn.decoding.text import (
    BytePairTokenizer,
    Split,
    load_corpus,
    split_by_file,
    train_tokenizer,
)
from privlearn.decoding.text.corpora import Domain

DOMAINS: tuple[Domain, ...] = ("docs", "code")
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


#: How the shipped weights were trained: rounds, each from the weights of the one before, with a
#: new optimizer and the learning rate back at its top (warm restarts: Loshchilov and Hutter, 2017,
#: arXiv 1608.03983).
PLANS = {
    "target": (Plan(800), Plan(500, learning_rate=3e-3)),
    "middle": (Plan(1600),),
    "draft": (Plan(2000),),
}


class Trained(NamedTuple):
    """A trained model, its training loss (nats a token) at each step, and how long it took."""

    model: TransformerLM
    losses: np.ndarray
    seconds: float


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
    start: TransformerLM | None = None,
    progress: bool = False,
) -> Trained:
    """Train a model.

    Parameters
    ----------
    config : TransformerConfig
    domains : mapping from name to array of int
        Token streams; every window is taken from one of them, each as often as the others.
    plan : Plan
    key : Array
        Of the first weights and of the windows.
    start : TransformerLM, optional
        Weights to go on from; random ones if None.
    progress : bool, default False
        Show a bar.
    """
    k_init, k_batches = jax.random.split(key)
    model = TransformerLM.init(k_init, config) if start is None else jax.tree.map(jnp.copy, start)
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

    carry, losses, began = (model, optimizer.init(model)), [], time.perf_counter()
    bar = tqdm(range(0, plan.steps, plan.chunk), disable=not progress)
    for first in bar:
        carry, chunk = run(carry, jnp.asarray(first))
        losses.append(np.asarray(chunk))
        bar.set_postfix(loss=f"{losses[-1].mean():.3f}")
    return Trained(carry[0], np.concatenate(losses), time.perf_counter() - began)


def train_rounds(
    config: TransformerConfig,
    domains: Mapping[str, np.ndarray],
    plans: Sequence[Plan],
    key: Array,
    *,
    progress: bool = False,
) -> Trained:
    """Train round after round; the key of round r > 0 is ``fold_in(key, r)``."""
    fit = train(config, domains, plans[0], key, progress=progress)
    for i, plan in enumerate(plans[1:], start=1):
        again = jax.random.fold_in(key, i)
        more = train(config, domains, plan, again, start=fit.model, progress=progress)
        losses = np.concatenate([fit.losses, more.losses])
        fit = Trained(more.model, losses, fit.seconds + more.seconds)
    return fit


def corpus() -> tuple[dict[str, Split], BytePairTokenizer, dict[str, np.ndarray]]:
    """Both domains split by file, a tokenizer learnt from their training parts, those in tokens."""
    splits: dict[str, Split] = {d: split_by_file(load_corpus(d)) for d in DOMAINS}
    texts = {domain: "\n\n".join(split.train.values()) for domain, split in splits.items()}
    tokenizer = train_tokenizer(texts.values(), VOCAB_SIZE)
    return splits, tokenizer, {domain: tokenizer.encode(text) for domain, text in texts.items()}


def _shorter(steps: int) -> Plan:
    """The recipe in fewer steps: warm up for at most half of them, in whole chunks."""
    if steps < 1:
        raise ValueError(f"steps: {steps}; must be at least 1")
    chunk = max(size for size in range(1, Plan.chunk + 1) if steps % size == 0)
    return Plan(steps, warmup=min(Plan.warmup, steps // 2), chunk=chunk)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every size and write the family to a folder."""
    from privlearn.decoding.family.write import write_family

    parser = argparse.ArgumentParser(prog="python -m privlearn.decoding.family.train")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="updates of each size, instead of the recipe's")
    chosen = parser.parse_args(arguments)
    splits, tokenizer, streams = corpus()
    plans = PLANS if chosen.steps is None else dict.fromkeys(SIZES, (_shorter(chosen.steps),))
    trained = {}
    for i, (name, config) in enumerate(SIZES.items()):
        key = jax.random.fold_in(jax.random.key(chosen.seed), i)
        trained[name] = train_rounds(config, streams, plans[name], key, progress=True)
    write_family(chosen.out, trained, tokenizer, splits, plans, chosen.seed)


if __name__ == "__main__":
    main()
