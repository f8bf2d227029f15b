"""HyperAttention in trained models: what a diagnosis tells, and what patching does to the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import altair as alt
import jax
import numpy as np
import polars as pl

from privlearn.attention.figures.hyper import PAPER, SOURCES, example
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line

SMALL, LARGE = "trained model of privlearn", "SmolLM2-135M"


class Texts(NamedTuple):
    """A trained model and texts for it."""

    model: Any
    tokens: np.ndarray


def small_model(n_texts: int, length: int, seed: int) -> Texts:
    """The largest model of the package's own family, and held-out texts."""
    from privlearn.decoding.family import load_family, sample_prompts

    return Texts(load_family().target, sample_prompts(n_texts, length, seed=seed))


def large_model(n_texts: int, length: int) -> Texts | None:
    """SmolLM2 and windows of Python's manual, evenly spread; None where it is not installed."""
    from privlearn.attention.training import library_text
    from privlearn.decoding import load_smollm2

    try:
        loaded = load_smollm2()
    except ImportError:
        return None
    ids = loaded.encode(library_text())
    starts = np.linspace(0, len(ids) - length, n_texts).astype(int)
    return Texts(loaded.model, ids[starts[:, None] + np.arange(length)])


# ------------------------------------------------------------------------------------- diagnosis


def diagnosis_table(
    *,
    n: int,
    n_texts: int,
    length: int,
    block_share: int,
    seed: int,
    large_texts: int = 0,
    large_length: int = 0,
) -> pl.DataFrame:
    """Alpha, kappa, share of the blocks and predicted error: synthetic, digits, trained models."""
    from privlearn.attention.diagnosis import Diagnosis, diagnose
    from privlearn.attention.patching import collect_heads

    rows: list[tuple[Any, ...]] = []

    def add(source: str, found: Diagnosis, layer: int | None = None) -> None:
        for head in range(found.alpha.shape[1]):
            pick = [getattr(found, x)[:, head] for x in ("alpha", "kappa", "block_share", "error")]
            alpha, kappa, share, error = (float(np.median(x)) for x in pick)
            rows.append((source, layer, head, alpha / found.n_keys, kappa, share, error))

    for source in SOURCES:
        q, k, v = (x[:, None] for x in example(source, n, seed))
        size = n // block_share
        found = diagnose(q, k, v, rng=jax.random.key(seed), block=size, samples=size)
        add(source, found)
    models = {SMALL: small_model(n_texts, length, seed)}
    if large_texts and (large := large_model(large_texts, large_length)) is not None:
        models[LARGE] = large
    for source, (model, tokens) in models.items():
        size = tokens.shape[1] // 2 // block_share
        for layer, (q, k, v) in enumerate(collect_heads(model, tokens, model.config.n_layers)):
            found = diagnose(
                q, k, v, rng=jax.random.key(seed), block=size, samples=size, is_causal=True
            )
            add(source, found, layer + 1)
    columns = ["source", "layer", "head", "alpha", "kappa", "block_share", "error"]
    table = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
    return table.with_columns(kappa=pl.when(pl.col("kappa").is_finite()).then("kappa"))


def draw_diagnosis(table: pl.DataFrame) -> alt.HConcatChart:
    """One dot a head: the error to expect against alpha, and against the share of the blocks."""
    known = [x for x in (*SOURCES, SMALL, LARGE) if x in table["source"]]
    series = Series("source", title="Source", order=known)
    axis = alt.Y(title="Predicted relative error").scale(type="log")
    alpha = alt.X("alpha:Q", title="alpha / number of keys").scale(type="log")
    share = alt.X("block_share:Q", title="Attention within the hash blocks").scale(domain=(0, 1))
    panels = [
        dots(table, x, "error", series=series, axis=axis).properties(width=300, height=280)
        for x in (alpha, share)
    ]
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="attention-hyper-diagnosis",
        topic="attention",
        title="What a user can measure before approximating",
        caption=(
            "One dot for each head (median over texts for a model): the relative error to expect "
            "with blocks and samples of 1/8 of the keys, against alpha (how much attention the "
            "most attended key draws; 1 would be one key for each query) and against the share of "
            "attention that the hash blocks catch (chance: 1/8). Planted clusters and digits are "
            "caught, and suit the method. The package's model is its small trained language model, "
            "in which the second half of each text looks at the first half: notice that its alpha "
            "spreads over two orders of magnitude while the hash catches hardly more than chance, "
            "so that the sample carries everything and the error is large in every head. Texts of "
            "256 tokens are short for this method; the figure shows how the "
            "numbers are read, not that such a model should be approximated. The tooltip has kappa."
            "\n\nThe paper profile adds the 270 heads of SmolLM2-135M if it is installed: in "
            "most of them one key draws nearly all attention (alpha near the square of the "
            "number of keys), and in none does the hash catch more than chance."
        ),
        source=f"{PAPER}, section 4.3 (alpha); predicted error re-derived",
        profiles={
            "quick": {"n": 512, "n_texts": 2, "length": 256, "block_share": 8, "seed": 0},
            "paper": {
                "n": 1792, "n_texts": 32, "length": 256, "block_share": 8, "seed": 0,
                "large_texts": 1, "large_length": 2048,
            },
        },
        compute=diagnosis_table,
        draw=draw_diagnosis,
        claims=("attention/hyper-output-error",),
    )
)  # fmt: skip


# -------------------------------------------------------------------------------- patched layers

#: The models of the figure, as settings: model, texts, tokens of each, tokens of a leaf, which
#: (block, samples), how many layers.
Setting = tuple[str, int, int, int, Sequence[tuple[int, int]], Sequence[int]]


def patched_table(*, settings: Sequence[Setting], seed: int) -> pl.DataFrame:
    """Extra nats per token of trained models with their last layers approximated."""
    rows = [row for setting in settings for row in _losses(*setting, seed)]
    columns = ["model", "variant", "layers", "perplexity", "extra", "stderr"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _losses(
    name: str,
    n_texts: int,
    length: int,
    leaf: int,
    variants: Sequence[tuple[int, int]],
    counts: Sequence[int],
    seed: int,
) -> Iterator[tuple[Any, ...]]:
    """Rows of one model; none where the model is not installed."""
    from privlearn.attention.patching import losses_by_layers

    loaded = large_model(n_texts, length) if name == LARGE else small_model(n_texts, length, seed)
    if loaded is None:
        return
    model, tokens = loaded
    last_first = range(model.config.n_layers - 1, -1, -1)
    for block, samples in variants:
        found = losses_by_layers(
            model, tokens, last_first, rng=jax.random.key(seed), block=block, samples=samples,
            lsh_projs=5, min_seq_len=leaf, counts=counts,
        )  # fmt: skip
        label = f"blocks of {block}, {samples} samples"
        for one in found:
            extra = one.by_text - found[0].by_text
            stderr = extra.std(ddof=1) / len(extra) ** 0.5
            yield name, label, one.n_layers, one.perplexity, float(extra.mean()), float(stderr)


def draw_patched(table: pl.DataFrame) -> alt.HConcatChart:
    """A panel a model, a line a variant."""
    series = Series("variant", title="HyperAttention with")
    x = alt.X("layers:Q", title="Layers replaced, last ones first").axis(tickMinStep=1)
    axis = alt.Y(title="Extra nats per token")
    panels = []
    for name in table["model"].unique(maintain_order=True):
        part = table.filter(pl.col("model") == name)
        layers = (
            theory_line(part, x, "extra", series=series, axis=axis)
            + error_bars(part, x, "extra", stderr="stderr", series=series, axis=axis)
            + dots(part, x, "extra", series=series, axis=axis)
        )
        panels.append(layers.properties(title=name, width=320, height=280))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="attention-hyper-patched",
        topic="attention",
        title="A trained model with some layers approximated",
        caption=(
            "Increase of the loss (nats per token; the table has the perplexity, per token of "
            "the model's own vocabulary) when the last layers of the package's small trained "
            "language model get HyperAttention instead of the softmax attention that they were "
            "trained with. Bars: two standard errors over texts, paired with the same text in the "
            "unpatched model. The model reads 256 tokens, which is short for this method: leaves "
            "of the recursion are 64 tokens here and 4,096 in the paper, so the figure shows the "
            "experiment in small, not the paper's numbers.\n\n"
            "The paper profile adds other settings and, where it is installed, SmolLM2-135M with "
            "three texts of 2,048 tokens and leaves of 512. There the last 10 of 30 layers cost "
            "0.16 nats (perplexity 10.1 to 11.9) and 20 layers 0.6 to 0.9: read off before you "
            "patch. More samples help the small model; in SmolLM2 they help up to 10 layers, and "
            "at 20 and more no samples at all do less damage than 128."
        ),
        source=f"{PAPER}, figure 3, on small models",
        profiles={
            "quick": {"settings": ((SMALL, 12, 256, 64, ((16, 16),), (0, 2, 4)),), "seed": 0},
            "paper": {
                "settings": (
                    (SMALL, 40, 256, 64, ((16, 16), (16, 64), (16, 0)), (0, 1, 2, 3, 4)),
                    (LARGE, 3, 2048, 512, ((128, 128), (128, 0)), (0, 10, 20, 30)),
                ),
                "seed": 0,
            },
        },
        compute=patched_table,
        draw=draw_patched,
    )
)  # fmt: skip
