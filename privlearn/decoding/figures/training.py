"""Drafts that learn: distillation before serving, adaptation while serving."""

from __future__ import annotations

from typing import Any

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from privlearn.decoding.distill import DistillSpec, sample_texts
from privlearn.decoding.family import load_tokenizer
from privlearn.decoding.figures.contexts import (
    BATCH,
    PROMPT,
    Mean,
    mean_of,
    model,
    read,
    softmax,
)
from privlearn.decoding.models import Prompts, TransformerLM
from privlearn.decoding.online import OnlineSpeculative, moving_average
from privlearn.decoding.streams import StreamDomain, domain_texts
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_line,
    tooltips,
)

# ---------------------------------------------------------------------------------- distillation

_DATA = ("fixed", "teacher", "student", "mixed")
_STATIC = 10**9  # an update interval that is never reached


def split_files(domain: StreamDomain) -> dict[str, list[str]]:
    """The files of a domain by what they are for: no file that trains or chooses is reported."""
    texts = domain_texts(domain)
    return {"train": texts[0::2], "choose": texts[3::4], "report": texts[1::4]}


def windows(texts: list[str], n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Windows (n, length) at random places of texts."""
    tokenizer = load_tokenizer()
    files = [np.asarray(tokenizer.encode(text), np.int32) for text in texts]
    files = [ids for ids in files if len(ids) > length]
    sizes = np.array([len(ids) - length for ids in files], float)
    picked = rng.choice(len(files), size=n, p=sizes / sizes.sum())
    starts = [int(rng.integers(len(files[i]) - length)) for i in picked]
    return np.stack([files[i][s : s + length] for i, s in zip(picked, starts, strict=True)])


def acceptance_along(target: TransformerLM, draft: TransformerLM, tokens: np.ndarray) -> np.ndarray:
    """Mean of sum_x min(p, q) over the continuation of each row, (n,)."""
    p, q = (softmax(read(m, tokens)[:, PROMPT - 1 : -1]) for m in (target, draft))
    return np.minimum(p, q).sum(axis=-1).mean(axis=-1)


def teacher_texts(teacher: TransformerLM, part: str, length: int, seed: int) -> np.ndarray:
    """Texts (BATCH, PROMPT + length): the target's own continuations of windows of the new task."""
    starts = windows(split_files("rst")[part], BATCH, PROMPT, np.random.default_rng(seed))
    prompts = Prompts(jnp.asarray(starts), jnp.full(BATCH, PROMPT, jnp.int32))
    keys = jax.random.split(jax.random.key(seed), BATCH)
    return np.asarray(sample_texts(teacher, prompts, keys, length).tokens)


def distill_table(
    *, target: str, cells: tuple[str, ...], n_steps: int, batch_size: int,
    learning_rates: tuple[float, ...], length: int, n_prompts: int, n_seeds: int, seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Acceptance before and after distillation, along the target's own text on unseen files."""
    teacher = model(target)
    start = teacher.first_layers(1)
    real = windows(
        split_files("rst")["train"], n_prompts, PROMPT + length, np.random.default_rng(seed)
    )

    def distilled(cell: str, rate: float, random_state: int) -> TransformerLM:
        divergence, data = cell.split(", ")
        spec = DistillSpec(
            teacher, start, divergence=divergence, data=data,  # type: ignore[arg-type]
            n_steps=n_steps, batch_size=batch_size, continuation_length=length,
            learning_rate=rate, random_state=random_state,
        )  # fmt: skip
        spec.fit(list(real[:, :PROMPT]), list(real[:, PROMPT:]))
        assert isinstance(spec.draft_, TransformerLM)
        return spec.draft_

    rate = learning_rates[0]
    if len(learning_rates) > 1:
        tokens = teacher_texts(teacher, "choose", length, seed)
        reached = [
            acceptance_along(teacher, distilled("fkl, teacher", r, seed), tokens).mean()
            for r in learning_rates
        ]
        rate = learning_rates[int(np.argmax(reached))]
    tokens = teacher_texts(teacher, "report", length, seed)
    before = acceptance_along(teacher, start, tokens)
    rows = []
    for cell in cells:
        after = [
            acceptance_along(teacher, distilled(cell, rate, seed + s), tokens)
            for s in range(n_seeds)
        ]
        gain: Mean = mean_of(np.mean(after, axis=0) - before)
        divergence, data = cell.split(", ")
        rows.append(
            {
                "divergence": divergence.upper(),
                "data": data,
                "before": float(before.mean()),
                "after": float(np.mean(after)),
                "gain": gain.mean,
                "stderr": gain.stderr,
                "low": gain.mean - 2 * gain.stderr,
                "high": gain.mean + 2 * gain.stderr,
                "spread": float(np.std([(a - before).mean() for a in after])),
                "learning_rate": rate,
            }
        )
    return pl.DataFrame(rows)


def draw_distill(table: pl.DataFrame) -> Any:
    """Gain in acceptance of each divergence, colour by data."""
    series = Series("data", title="Texts to train on", order=_DATA)
    x = alt.X("gain:Q", title="Gain in acceptance", scale=alt.Scale(zero=True))
    order = ["FKL", "RKL", "JSD", "TVD"]
    y = alt.Y("divergence:N", title=None, sort=order)
    offset = alt.YOffset("data:N", sort=list(_DATA))
    base = alt.Chart(table)
    look = {"color": series.color(table), "opacity": series.opacity(), "yOffset": offset}
    left = alt.X("low:Q", title="Gain in acceptance")
    bars = base.mark_rule(tooltip=None).encode(x=left, x2="high:Q", y=y, **look)
    points = base.mark_point().encode(
        x=x, y=y, shape=series.shape(table), tooltip=tooltips(table), **look
    )
    chart = bars + points + reference(x=0.0, label="before distillation")
    return pick_in_legend(chart.properties(width=460, height=240), series)


register(
    Figure(
        name="decoding-distillation",
        topic="decoding",
        title="Distilling the draft for a new task: objectives and data",
        caption=(
            "Gain in acceptance after 200 AdamW steps, starting from the target cut after "
            "its first layer, on a task that the target was not trained on (reStructuredText), for "
            "four divergences and four sources of texts: the task's own (fixed), the target's "
            "(teacher), the draft's own (student), half of each (mixed). Acceptance is the mean of "
            "the sum of min(p, q) along the target's own continuations, exact in each context; "
            "bars are two standard errors over texts, paired with the draft before. Files are "
            "split in three: one half trains, a quarter chooses the learning rate (the best of "
            "three for one cell), a quarter is reported. (Quick profile: the middle model as "
            "target, 40 steps, a fixed rate.)\n\n"
            "Notice that every cell gains, without a label; that in the paper profile the target's "
            "texts and the draft's own, which cost no data, gain half as much again as real ones "
            "or more; and that divergences differ less than texts do, total variation a little "
            "behind. Expect less of a draft that is trained to its capacity: this start has room "
            "to learn, which is why it was taken."
        ),
        source="Zhou et al., DistillSpec, arXiv 2310.08461, divergences against training data",
        profiles={
            "quick": {
                "target": "middle",
                "cells": ("fkl, fixed", "fkl, student", "tvd, student"),
                "n_steps": 40, "batch_size": 8, "learning_rates": (1e-3,), "length": 32,
                "n_prompts": 256, "n_seeds": 1, "seed": 4,
            },
            "paper": {
                "target": "target",
                "cells": tuple(f"{d}, {s}" for d in ("fkl", "rkl", "jsd", "tvd") for s in _DATA),
                "n_steps": 200, "batch_size": 16, "learning_rates": (3e-4, 1e-3, 3e-3),
                "length": 48, "n_prompts": 512, "n_seeds": 1, "seed": 4,
            },
        },
        compute=distill_table,
        draw=draw_distill,
        claims=("decoding/distillation-gradients",),
    )
)  # fmt: skip

# ------------------------------------------------------------------------------------- adaptation

_DRAFTS = ("static", "one online draft", "a draft for each domain")


def shifting(
    domains: tuple[StreamDomain, ...], per_domain: int, *, parts: tuple[str, ...], seed: int
) -> list[np.ndarray]:
    """Windows of domain after domain, each from some parts of its files."""
    rng = np.random.default_rng(seed)
    return [
        window
        for domain in domains
        for window in windows(
            [text for part in parts for text in split_files(domain)[part]], per_domain, PROMPT, rng
        )
    ]


def online_table(
    *, target: str, domains: tuple[StreamDomain, ...], per_domain: int, update_interval: int,
    n_update_steps: int, learning_rates: tuple[float, ...], n_choose: int, n_tokens: int,
    window: int, seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Acceptance of every request of a stream whose domain changes, for three ways to draft."""

    def served(name: str, stream: list[np.ndarray], size: int, rate: float) -> np.ndarray:
        online = OnlineSpeculative(
            model(target), model(target).first_layers(1), gamma=4, max_new_tokens=n_tokens,
            random_state=seed,
            update_interval=_STATIC if name == _DRAFTS[0] else update_interval,
            learning_rate=rate, n_update_steps=n_update_steps,
        )  # fmt: skip
        routes = [domain for domain in domains for _ in range(size)]
        online.partial_fit(stream, routes if name == _DRAFTS[2] else None)
        return np.array([request.acceptance_rate for request in online.history_])

    rate = learning_rates[0]
    if len(learning_rates) > 1:
        trial = shifting(domains, n_choose, parts=("choose",), seed=seed)
        reached = [served(_DRAFTS[1], trial, n_choose, r).mean() for r in learning_rates]
        rate = learning_rates[int(np.argmax(reached))]
    stream = shifting(domains, per_domain, parts=("train", "report"), seed=seed)
    rates = {name: served(name, stream, per_domain, rate) for name in _DRAFTS}
    rows = []
    for name, found in rates.items():
        gain = found - rates[_DRAFTS[0]]
        for i, (value, smooth) in enumerate(zip(found, moving_average(found, window), strict=True)):
            rows.append({"draft": name, "request": i + 1, "domain": domains[i // per_domain],
                         "acceptance": float(value), "smooth": float(smooth),
                         "learning_rate": rate})  # fmt: skip
        for part in range(len(domains) if name != _DRAFTS[0] else 0):
            # The later half of each stretch: after the draft had time to adapt.
            late = gain[part * per_domain + per_domain // 2 : (part + 1) * per_domain]
            shown = mean_of(late)
            rows.append({"draft": name, "stretch": f"{part + 1} {domains[part]}",
                         "gain": shown.mean, "stderr": shown.stderr})  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def draw_online(table: pl.DataFrame) -> Any:
    """The moving average along the stream; gains over the static draft by stretch."""
    series = Series("draft", title="Draft", order=_DRAFTS)
    stream = table.filter(pl.col("request").is_not_null())
    first = stream.filter(pl.col("draft") == _DRAFTS[0])
    changes = first.filter(pl.col("domain") != pl.col("domain").shift(1).fill_null(""))
    x = alt.X("request:Q", title="Request")
    y = alt.Y(title="Acceptance (moving average)", scale=alt.Scale(zero=False))
    chart: Any = theory_line(stream, x, "smooth", series=series, axis=y)
    for change in changes.iter_rows(named=True):
        chart += reference(x=change["request"], label=change["domain"])
    gains = table.filter(pl.col("gain").is_not_null())
    z = alt.X("stretch:N", title="Stretch (its later half)", axis=alt.Axis(labelAngle=0))
    side = alt.Y(title="Gain over static")
    right: Any = error_bars(gains, z, "gain", stderr="stderr", series=series, axis=side)
    right += dots(gains, z, "gain", series=series, axis=side)
    right += reference(y=0.0)
    return pick_in_legend(
        alt.hconcat(
            chart.properties(width=400, height=260), right.properties(width=220, height=260)
        ),
        series,
    )


register(
    Figure(
        name="decoding-online",
        topic="decoding",
        title="Adapting the draft while serving, under domain shift",
        caption=(
            "Acceptance of requests whose domain changes (dashed lines): English reference text, "
            "Python code, reStructuredText, Python code again. The draft is the target cut after "
            "its first layer: static, distilled online from the target's laws at rejected "
            "positions, or so with a copy for each domain. Left: moving averages. Right: mean gain "
            "over the static draft in the later half of each stretch, same requests and "
            "randomness, bars two standard errors over requests. Texts follow the target's law "
            "throughout: weights change between requests only. The learning rate was the best of "
            "three on a stream of other files. (Quick profile: the middle model as target, a fixed "
            "rate.)\n\n"
            "Notice that the gain grows with the requests served, through every change of domain: "
            "what these domains share outweighs what tells them apart, so one draft for all is "
            "ahead of one for each, which learns from fewer requests. Rejections cost nothing to "
            "collect, but a learning rate that is too large undoes a draft that was good."
        ),
        source="Liu et al., Online Speculative Decoding, arXiv 2310.07177, streams with shifts",
        profiles={
            "quick": {
                "target": "middle", "domains": ("docs", "code", "rst", "code"), "per_domain": 16,
                "update_interval": 2, "n_update_steps": 4, "learning_rates": (3e-4,), "n_choose": 0,
                "n_tokens": 48, "window": 10, "seed": 5,
            },
            "paper": {
                "target": "target", "domains": ("docs", "code", "rst", "code"), "per_domain": 200,
                "update_interval": 4, "n_update_steps": 4, "learning_rates": (1e-4, 3e-4, 1e-3),
                "n_choose": 40, "n_tokens": 96, "window": 50, "seed": 5,
            },
        },
        compute=online_table,
        draw=draw_online,
        claims=("decoding/distillation-gradients", "decoding/lossless-block"),
    )
)  # fmt: skip
