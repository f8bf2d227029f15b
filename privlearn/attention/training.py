"""Training small models with one attention or another: text, selective copying, induction heads.

The tasks are those by which linear attentions are judged (section 4 of arXiv 2310.01655, after Gu
and Dao's Mamba, arXiv 2312.00752), at a size for two cores. `SmallLM` is a plain transformer whose
attention is a module ``(q, k, v) -> out`` on (B, N, T, H), one for each layer.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from privlearn.attention.arguments import check_whole
from privlearn.attention.modules import PolynomialAttention, PolysketchAttention

Variant: TypeAlias = Literal[
    "softmax", "polynomial-2", "polynomial-4", "random", "random-local", "learned", "learned-local"
]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class SoftmaxAttention(eqx.Module):
    """Causal softmax attention of whole short texts, for comparison."""

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """Mix values (B, N, T, D)."""
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=True), 1, 2)


def make_attention(
    variant: Variant, key: Array, head_size: int, *, r: int = 16, block: int = 32
) -> eqx.Module:
    """The attention module of a variant.

    Parameters
    ----------
    variant : str
        "softmax"; "polynomial-2" and "polynomial-4", exact; "random" and "learned" sketches of
        degree 4, with exact blocks if "-local" follows.
    key : Array
        A typed JAX key for the sketch.
    head_size, r, block : int

    Examples
    --------
    >>> import jax
    >>> make_attention("random-local", jax.random.key(0), 16).local_exact
    True
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: {variant!r}; must be one of {', '.join(VARIANTS)}")
    name, _, option = variant.partition("-")
    if name == "softmax":
        return SoftmaxAttention()
    if name == "polynomial":
        return PolynomialAttention(int(option))
    kind: Any = "gaussian" if name == "random" else "learned"
    return PolysketchAttention.init(
        key, head_size, r=r, kind=kind, block=block, local_exact=option == "local"
    )


class Layer(eqx.Module):
    """Attention, then feed-forward, each behind a normalisation without gain or bias."""

    qkv: Array
    out: Array
    up: Array
    down: Array
    attention: eqx.Module
    n_heads: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        """Map (B, T, C) to (B, T, C)."""
        rows, n, width = x.shape
        heads = (_standardized(x) @ self.qkv).reshape(rows, n, 3, self.n_heads, -1)
        q, k, v = heads.transpose(2, 0, 3, 1, 4)
        mixed = self.attention(q, k, v)  # type: ignore[operator]
        x = x + mixed.transpose(0, 2, 1, 3).reshape(rows, n, width) @ self.out
        return x + jax.nn.gelu(_standardized(x) @ self.up) @ self.down


class SmallLM(eqx.Module):
    """A small causal transformer with learned positions; make one with `init`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> model = SmallLM.init(jax.random.key(0), "learned-local", vocab_size=16, context=8, width=16)
    >>> model(jnp.zeros((1, 8), int)).shape
    (1, 8, 16)
    """

    embedding: Array
    positions: Array
    layers: tuple[Layer, ...]
    head: Array

    @classmethod
    def init(
        cls,
        key: Array,
        variant: Variant,
        *,
        vocab_size: int,
        context: int,
        width: int = 64,
        n_layers: int = 2,
        n_heads: int = 2,
        r: int = 16,
        block: int = 32,
    ) -> SmallLM:
        """Draw the weights.

        Parameters
        ----------
        key : Array
            A typed JAX key. Weights outside the attention do not depend on the variant.
        variant : str
            See `make_attention`.
        vocab_size, context, width, n_layers, n_heads, r, block : int
        """
        if width % n_heads:
            raise ValueError(f"n_heads: {n_heads}; must divide the width {width}")
        for name, size in (("vocab_size", vocab_size), ("context", context), ("layers", n_layers)):
            check_whole(name, size, 1)
        sketch_key, *keys = jax.random.split(key, 4 + 4 * n_layers)
        draws = iter(keys)

        def matrix(rows: int, columns: int, scale: float | None = None) -> Array:
            deviation = rows**-0.5 if scale is None else scale
            return deviation * jax.random.normal(next(draws), (rows, columns))

        def layer(i: int) -> Layer:
            attention = make_attention(
                variant, jax.random.fold_in(sketch_key, i), width // n_heads, r=r, block=block
            )
            shrink = (2 * n_layers) ** -0.5
            return Layer(
                matrix(width, 3 * width),
                matrix(width, width, shrink * width**-0.5),
                matrix(width, 4 * width),
                matrix(4 * width, width, shrink * (4 * width) ** -0.5),
                attention,
                n_heads,
            )

        embedding, positions = matrix(vocab_size, width, 0.5), matrix(context, width, 0.1)
        layers = tuple(layer(i) for i in range(n_layers))
        return cls(embedding, positions, layers, matrix(width, vocab_size))

    @property
    def n_parameters(self) -> int:
        """Number of weights that are trained; random sketches are not."""
        leaves = jax.tree.leaves(self)
        fixed = [
            leaf
            for layer in self.layers
            if isinstance(layer.attention, PolysketchAttention) and not _is_learned(layer.attention)
            for leaf in jax.tree.leaves(layer.attention)
        ]
        return sum(x.size for x in leaves) - sum(x.size for x in fixed)

    def __call__(self, tokens: Array) -> Array:
        """Logits (B, T, V) of texts (B, T)."""
        x = self.embedding[tokens] + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return _standardized(x) @ self.head


def _is_learned(attention: PolysketchAttention) -> bool:
    return attention.sketch is not None and attention.sketch.takes_raw


def _standardized(x: Array) -> Array:
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5)


class Batch(NamedTuple):
    """Texts, what follows each place, and which places count.

    Attributes
    ----------
    tokens : Array of int, shape (B, T)
    targets : Array of int, shape (B, T)
    counts : Array of float, shape (B, T)
        1 where the answer is asked for, else 0.
    """

    tokens: Array
    targets: Array
    counts: Array


def selective_copying(
    key: Array, batch: int, *, length: int = 64, n_data: int = 8, vocab_size: int = 16
) -> Batch:
    """Data tokens among noise, to be repeated in order behind a mark.

    Token 0 is noise, 1 the mark that asks for the next answer, the others are data. A text is
    ``length`` tokens with the data at random places, then ``n_data`` marks.

    Examples
    --------
    >>> import jax
    >>> texts = selective_copying(jax.random.key(0), 2, length=12, n_data=3, vocab_size=6)
    >>> texts.tokens.shape, float(texts.counts.sum())
    ((2, 15), 6.0)
    """
    if not 1 <= n_data <= length:
        raise ValueError(f"n_data: {n_data}; must lie in 1..{length}, the length")
    check_whole("vocab_size", vocab_size, 3)
    place_key, data_key = jax.random.split(key)
    data = jax.random.randint(data_key, (batch, n_data), 2, vocab_size)
    order = jax.random.uniform(place_key, (batch, length)).argsort(axis=1)
    places = jnp.sort(order[:, :n_data], axis=1)
    noise = jnp.zeros((batch, length), data.dtype)
    text = noise.at[jnp.arange(batch)[:, None], places].set(data)
    tokens = jnp.concatenate([text, jnp.ones_like(data)], axis=1)
    return Batch(
        tokens,
        jnp.concatenate([noise, data], axis=1),
        jnp.concatenate([0.0 * noise, 0.0 * data + 1], axis=1),
    )


def induction_heads(key: Array, batch: int, *, length: int = 64, vocab_size: int = 16) -> Batch:
    """A special token, what followed it, and at the end the special token again: what follows it.

    Token 0 is special. It stands once among random tokens, and once at the end.

    Examples
    --------
    >>> import jax
    >>> texts = induction_heads(jax.random.key(0), 1, length=8, vocab_size=5)
    >>> at = int((texts.tokens[0] == 0).argmax())
    >>> bool(texts.targets[0, -1] == texts.tokens[0, at + 1])
    True
    """
    check_whole("length", length, 3)
    check_whole("vocab_size", vocab_size, 2)
    place_key, data_key = jax.random.split(key)
    text = jax.random.randint(data_key, (batch, length), 1, vocab_size)
    rows = jnp.arange(batch)
    at = jax.random.randint(place_key, (batch,), 0, length - 2)
    answers = text[rows, at + 1]
    text = text.at[rows, at].set(0).at[:, -1].set(0)
    last = jnp.zeros(text.shape).at[:, -1].set(1.0)
    return Batch(text, jnp.zeros_like(text).at[:, -1].set(answers), last)


def library_text() -> str:
    """English that comes with Python: the topics of ``help``, in the order of their names."""
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


class TextBatches:
    """Random windows of a text, as a task; characters are tokens.

    Parameters
    ----------
    text : str
    context : int, default 128
        Length of a window.
    held_out : float, default 0.1
        Share of the text, at its end, that only `validation` shows.

    Examples
    --------
    >>> import jax
    >>> task = TextBatches("abcabcabc" * 20, context=4)
    >>> task.vocab_size, task(jax.random.key(0), 2).tokens.shape
    (3, (2, 4))
    """

    def __init__(self, text: str, context: int = 128, held_out: float = 0.1) -> None:
        if not 0 < held_out < 1:
            raise ValueError(f"held_out: {held_out}; must lie in (0, 1)")
        self.context = check_whole("context", context, 1)
        letters, codes = np.unique(list(text), return_inverse=True)
        cut = int(len(codes) * (1 - held_out))
        if min(cut, len(codes) - cut) <= context:
            raise ValueError(
                f"text: {len(text)} characters; both parts must be longer than the context, "
                f"{context}"
            )
        self.vocab_size = len(letters)
        self._train, self._held = (jnp.asarray(part) for part in (codes[:cut], codes[cut:]))

    def __call__(self, key: Array, batch: int) -> Batch:
        """Random windows of the first part."""
        return self._windows(
            self._train,
            jax.random.randint(key, (batch,), 0, len(self._train) - self.context),
        )

    def validation(self, batch: int) -> Batch:
        """Windows of the held-out part, evenly spread."""
        last = len(self._held) - self.context - 1
        return self._windows(self._held, jnp.linspace(0, last, batch).astype(int))

    def _windows(self, text: Array, starts: Array) -> Batch:
        rows = text[starts[:, None] + jnp.arange(self.context + 1)]
        return Batch(rows[:, :-1], rows[:, 1:], jnp.ones((len(starts), self.context)))


class Score(NamedTuple):
    """How a model answers.

    Attributes
    ----------
    loss : float
        Mean negative log probability, in nats, of the places that count.
    accuracy : float
        Share of those places where the likeliest token is right.
    """

    loss: Any
    accuracy: Any


def score(model: SmallLM, batch: Batch) -> Score:
    """Loss and accuracy of a batch; pure, so it may be jitted and differentiated."""
    logits = jax.nn.log_softmax(model(batch.tokens))
    chosen = jnp.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0]
    total = jnp.sum(batch.counts)
    right = logits.argmax(axis=-1) == batch.targets
    return Score(-jnp.sum(chosen * batch.counts) / total, jnp.sum(right * batch.counts) / total)


class History(NamedTuple):
    """What `train` saw.

    Attributes
    ----------
    steps : list of int
        Steps done when the held-out batch was scored.
    scores : list of Score
        Of the held-out batch.
    seconds : list of float
        Spent on training until then, without compilation and scoring.
    """

    steps: list[int]
    scores: list[Score]
    seconds: list[float]


def train(
    model: SmallLM,
    task: Callable[[Array, int], Batch],
    held_out: Batch,
    key: Array,
    *,
    n_steps: int,
    batch: int = 16,
    learning_rate: float = 3e-3,
    every: int = 50,
) -> tuple[SmallLM, History]:
    """Train with Adam on fresh batches of a task, gradients clipped at norm 1.

    Parameters
    ----------
    model : SmallLM
    task : callable
        ``task(key, batch) -> Batch``, traceable by JAX. Pass the same object for other seeds of
        the same model: they reuse what was compiled.
    held_out : Batch
        Scored every ``every`` steps.
    key : Array
        A typed JAX key for the batches.
    n_steps : int
        Rounded up to a multiple of ``every``.
    batch, every : int
    learning_rate : float

    Returns
    -------
    model : SmallLM
    history : History

    Raises
    ------
    TypeError, ValueError
        If a number of steps or the batch is no positive integer.

    Examples
    --------
    >>> import jax
    >>> task = TextBatches("abcabcabc" * 20, context=6)
    >>> model = SmallLM.init(
    ...     jax.random.key(0), "softmax", vocab_size=3, context=6, width=8, n_layers=1, n_heads=1
    ... )
    >>> _, history = train(
    ...     model, task, task.validation(4), jax.random.key(1), n_steps=60, every=30
    ... )
    >>> history.steps, history.scores[-1].accuracy
    ([30, 60], 1.0)
    """
    for name, size in (("n_steps", n_steps), ("batch", batch), ("every", every)):
        check_whole(name, size, 1)
    optimiser = _optimiser(learning_rate)
    carry, history, spent = (model, optimiser.init(model)), History([], [], []), 0.0
    n_steps = -(-n_steps // every) * every
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda carry: carry, carry))
    compiled = _compiled_steps(task, batch, every, learning_rate, structure, tuple(shapes))
    for done in range(0, n_steps, every):
        keys = jax.random.split(jax.random.fold_in(key, done), every)
        start = time.perf_counter()
        carry = jax.block_until_ready(compiled(carry, keys))
        spent += time.perf_counter() - start
        found = _judge(carry[0], held_out)
        history.steps.append(done + every)
        history.scores.append(Score(float(found.loss), float(found.accuracy)))
        history.seconds.append(spent)
    return carry[0], history


_judge = jax.jit(score)


def _optimiser(learning_rate: float) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))


@functools.lru_cache(maxsize=16)  # other seeds of the same model and task need no compilation
def _compiled_steps(
    task: Callable[[Array, int], Batch],
    batch: int,
    every: int,
    learning_rate: float,
    structure: Any,
    shapes: tuple[jax.ShapeDtypeStruct, ...],
) -> Any:
    """`every` steps of training, compiled for a model of that structure."""
    optimiser = _optimiser(learning_rate)

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        model, state = carry
        gradient = jax.grad(lambda m: score(m, task(key, batch)).loss)(model)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(model, updates), state), None

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), every))
    return run.lower(jax.tree.unflatten(structure, shapes), keys).compile()
