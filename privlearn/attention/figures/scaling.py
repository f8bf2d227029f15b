"""Time and memory against the length of the text, measured where the figure is made."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from privlearn.attention import theory
from privlearn.attention.polynomial import polynomial_attention
from privlearn.attention.polysketch import polysketch_attention
from privlearn.attention.sketches import Kind, init_sketch
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_line,
)

FORMS = Series(
    "attention",
    title="Attention",
    order=(
        "softmax, blocked", "polynomial, exact", "random sketch", "learned sketch + blocks",
        "HyperAttention",
    ),
)  # fmt: skip


def forms(head_size: int, r: int, block: int, leaf: int) -> dict[str, Callable[..., jax.Array]]:
    """The causal attentions to measure, by their name in the legend."""
    from privlearn.attention.hyper import hyper_attention
    from privlearn.attention.softmax import softmax_attention

    kinds: tuple[Kind, ...] = ("gaussian", "learned")
    sketches = [init_sketch(jax.random.key(0), head_size, r, kind=kind) for kind in kinds]
    sketched = partial(polysketch_attention, is_causal=True, block=block)
    return {
        FORMS.order[0]: partial(softmax_attention, is_causal=True),
        FORMS.order[1]: partial(polynomial_attention, is_causal=True),
        FORMS.order[2]: partial(sketched, sketch=sketches[0], local_exact=False),
        FORMS.order[3]: partial(sketched, sketch=sketches[1]),
        FORMS.order[4]: partial(
            hyper_attention, rng=jax.random.key(1), is_causal=True, min_seq_len=leaf
        ),
    }


def crossing(n: ArrayLike, ours: ArrayLike, theirs: ArrayLike) -> float | None:
    """Length from which one measured line stays below another; None if there is none in between.

    Interpolated between measured lengths, linearly in logarithms.

    Examples
    --------
    >>> round(crossing([1, 2, 4], ours=[2, 2, 2], theirs=[1, 2**0.5, 4]), 3)
    2.52
    >>> crossing([1, 2, 4], ours=[1, 1, 1], theirs=[2, 2, 2])
    """
    length, one, other = (np.log(np.asarray(x, float)) for x in (n, ours, theirs))
    gap = one - other
    above = np.flatnonzero(gap > 0)
    if not len(above) or above[-1] == len(gap) - 1:
        return None
    i = above[-1]
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(np.exp(length[i] + share * (length[i + 1] - length[i])))


def crossing_marks(
    frame: pl.DataFrame, x: alt.X, y: str, *, series: Series, axis: alt.Y, exact: str
) -> alt.Chart:
    """The lengths at which lines fall below that of an exact attention, written where they do."""
    rows = []
    theirs = frame.filter(pl.col(series.field) == exact).sort("n")
    for name in series.order:
        ours = frame.filter(pl.col(series.field) == name).sort("n")
        if name == exact or ours["n"].to_list() != theirs["n"].to_list():
            continue
        at = crossing(ours["n"], ours[y], theirs[y])
        if at is not None:
            level = np.exp(np.interp(np.log(at), np.log(ours["n"]), np.log(ours[y])))
            rows.append((name, at, float(level), f"{at:,.0f}"))
    found = pl.DataFrame(
        rows, {series.field: str, "n": float, y: float, "crossing": str}, orient="row"
    )
    marks = alt.Chart(found).mark_text(dy=14, fontWeight="bold", tooltip=None)
    vertical = axis.copy(deep=False)
    vertical.shorthand = f"{y}:Q"
    return marks.encode(
        x=x, y=vertical, text="crossing:N", color=series.color(frame), opacity=series.opacity()
    )


def _temporaries(compiled: Any) -> int:
    """Bytes that a compiled program holds beside its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def table(
    *, names: Sequence[str], lengths: Sequence[int], dense_up_to: int, head_size: int, r: int,
    block: int, leaf: int, repeats: int,
) -> pl.DataFrame:  # fmt: skip
    """Seconds and bytes of temporaries of forward with backward, one head, runs alternating."""
    rows = []
    for n in lengths:
        rng = np.random.default_rng(n)
        given = [jnp.asarray(rng.standard_normal((1, n, 1, head_size)), jnp.float32)] * 3
        compiled = {}
        for name, form in forms(head_size, r, block, leaf).items():
            if name not in names or ("polynomial" in name and n > dense_up_to):
                continue
            loss = jax.grad(lambda *x, f=form: jnp.sum(f(*x) ** 2), argnums=(0, 1, 2))
            compiled[name] = jax.jit(loss).lower(*given).compile()
        seconds: dict[str, list[float]] = {name: [] for name in compiled}
        for run in compiled.values():
            jax.block_until_ready(run(*given))
        for _ in range(repeats):
            for name, run in compiled.items():
                start = time.perf_counter()
                jax.block_until_ready(run(*given))
                seconds[name].append(time.perf_counter() - start)
        for name, run in compiled.items():
            per_token = [1e6 * x / n for x in seconds[name]]
            rows.append(
                {
                    "n": n,
                    "attention": name,
                    "median": statistics.median(per_token),
                    "least": min(per_token),
                    "most": max(per_token),
                    "bytes_per_token": _temporaries(run) / n,
                }
            )
    return pl.DataFrame(rows)


def draw(frame: pl.DataFrame) -> alt.HConcatChart:
    """Time for each token, and memory for each token."""
    x = alt.X("n:Q", title="Tokens, n").scale(type="log", base=2)
    axis = alt.Y(title="Microseconds per token, forward and backward").scale(type="log")
    left = (
        theory_line(frame, x, "median", series=FORMS, axis=axis)
        + error_bars(frame, x, "median", stderr=("least", "most"), series=FORMS, axis=axis)
        + dots(frame, x, "median", series=FORMS, axis=axis)
        + crossing_marks(frame, x, "median", series=FORMS, axis=axis, exact=FORMS.order[0])
        + reference(x=theory.break_even_length(local_exact=False), label="equal operations")
    )
    memory = alt.Y(title="Bytes of temporaries per token").scale(type="log")
    right = theory_line(frame, x, "bytes_per_token", series=FORMS, axis=memory) + dots(
        frame, x, "bytes_per_token", series=FORMS, axis=memory
    )
    chart = alt.hconcat(left.properties(width=320), right.properties(width=320))
    return pick_in_legend(chart, FORMS)


register(
    Figure(
        name="attention-scaling",
        topic="attention",
        title="Time and memory for each token stop growing",
        caption=(
            "Forward and backward of causal attention, one head of size 64, float32, on the "
            "machine that made this report, which may have been busy: dots are medians of a few "
            "alternating runs, bars go from the least to the most, bold numbers say where a line "
            "falls below that of blocked softmax. Right: temporaries of the compiled program. "
            "HyperAttention is exact up to leaves of 1,024 to 2,047 tokens. The quick profile "
            "shows two of the five attentions, at two lengths.\n\n"
            "Exact attention needs time in proportion to n for each token, and in its plain form "
            "(polynomial, exact) memory too; sketched attention needs the same for each "
            "token at any length. Left of the dashed line, where both need equally many operations "
            "in the forward pass with a random sketch (r = 32), the sketch loses, as it must. "
            "Ratios to be quoted come from benchmarks/attention_polysketch.py."
        ),
        source=(
            "the latency figure of Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655), on a CPU"
        ),
        profiles={
            "quick": {
                "names": ("softmax, blocked", "random sketch"),
                "lengths": (1024, 4096), "dense_up_to": 1024, "head_size": 64, "r": 32,
                "block": 128, "leaf": 1024, "repeats": 3,
            },
            "paper": {
                "names": FORMS.order,
                "lengths": (512, 1024, 2048, 4096, 8192, 16384, 32768), "dense_up_to": 8192,
                "head_size": 64, "r": 32, "block": 128, "leaf": 1024, "repeats": 5,
            },
        },
        compute=table,
        draw=draw,
        claims=("attention/operations-per-token",),
    )
)  # fmt: skip
