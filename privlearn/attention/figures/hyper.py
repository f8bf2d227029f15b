"""HyperAttention: its error against the number of samples, and its time against the length."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from privlearn.attention.figures.scaling import crossing_marks
from privlearn.figures import Figure, register
from privlearn.figures.marks import Series, dots, error_bars, pick_in_legend, theory_line

PAPER = "Han et al., ICLR 2024, arXiv 2310.05869"
_WIDTH, _OUT = 64, 16
SOURCES = (
    "planted clusters",
    "independent normal",
    "digits, logits to 10",
    "digits, logits to 30",
)


def example(name: str, n: int, seed: int) -> tuple[Any, Any, Any]:
    """Queries, keys (n, 64), values (n, 16), for a scale of 1/8."""
    rng = np.random.default_rng(seed)
    if name.startswith("digits"):
        from sklearn.datasets import load_digits

        table = load_digits()
        X = table.data[:n] - table.data[:n].mean(axis=0)
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
        x = X * math.sqrt(float(name.split()[-1])) * _WIDTH**0.25
        v = np.eye(_OUT)[table.target[:n]]
        return x.astype(np.float32), x.astype(np.float32), v.astype(np.float32)
    q, k = rng.standard_normal((2, n, _WIDTH))
    v = rng.standard_normal((n, _OUT))
    if name == "planted clusters":
        centres, means = rng.standard_normal((16, _WIDTH)), rng.standard_normal((16, _OUT))
        of_q, of_k = rng.integers(0, 16, (2, n))
        q, k, v = centres[of_q] + 0.3 * q, centres[of_k] + 0.3 * k, means[of_k] + 0.3 * v
    return q.astype(np.float32), k.astype(np.float32), v.astype(np.float32)


# ------------------------------------------------------------------------------- error against m


def error_table(
    *, n: int, block: int, samples: Sequence[int], sources: Sequence[str], n_trials: int, seed: int
) -> pl.DataFrame:
    """Relative error of the output: predicted from alpha-like sums, and measured."""
    import jax
    import jax.numpy as jnp

    from privlearn.attention.diagnosis import diagnose
    from privlearn.attention.hyper import hyper_attention
    from privlearn.attention.softmax import softmax_attention

    keys = jax.random.split(jax.random.key(seed), n_trials)
    exact = jax.jit(softmax_attention)

    @functools.partial(jax.jit, static_argnames="m")
    def errors(q: Any, k: Any, v: Any, truth: Any, m: int) -> Any:
        def trial(rng: Any) -> Any:
            out = hyper_attention(q, k, v, rng=rng, block=block, samples=m, min_seq_len=1)
            return jnp.linalg.norm(out - truth) ** 2 / jnp.linalg.norm(truth) ** 2

        return jax.lax.map(trial, keys)

    rows = []
    for source in sources:
        q, k, v = (x[:, None] for x in example(source, n, seed))
        truth = exact(q, k, v)
        predicted = [
            float(diagnose(q, k, v, rng=key, block=block, samples=1).error[0, 0]) ** 2
            for key in keys[:4]
        ]
        for m in samples:
            squared = np.asarray(errors(q, k, v, truth, m), float)
            mean = squared.mean() ** 0.5
            stderr = squared.std(ddof=1) / len(squared) ** 0.5 / (2 * mean)
            rows.append((source, m, (np.mean(predicted) / m) ** 0.5, mean, stderr))
    columns = ["data", "samples", "predicted", "error", "stderr"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def draw_error(table: pl.DataFrame) -> alt.LayerChart:
    """Prediction as lines, measurement as dots."""
    series = Series("data", title="Queries, keys, values", order=SOURCES)
    x = alt.X("samples:Q", title="Samples m").scale(type="log", base=2, nice=False)
    axis = alt.Y(title="Relative error of the output").scale(type="log")
    chart = (
        theory_line(table, x, "predicted", series=series, axis=axis)
        + error_bars(table, x, "error", stderr="stderr", series=series, axis=axis)
        + dots(table, x, "error", series=series, axis=axis)
    )
    return pick_in_legend(chart.properties(width=520, height=320), series)


register(
    Figure(
        name="attention-hyper-error",
        topic="attention",
        title="The error falls as one over the root of the sample, from a level that the data set",
        caption=(
            "Relative Frobenius error of HyperAttention's output against the number m of sampled "
            "keys, blocks fixed in size. Lines: predicted by `diagnose` from queries, keys and "
            "values alone, to first order, so proportional to m^-1/2. Dots: root mean square over "
            "independent hashes and samples, with two standard errors. Notice that the level "
            "differs by factors of hundreds between data sets: hashing finds "
            "what planted clusters and sharp digits attend to; independent normal data has nothing "
            "to find, its true output is a small average, and the error exceeds the output itself. "
            "Where dots leave the line, the sample is too small for a first-order law."
        ),
        source=f"{PAPER}, theorem 1 (rate); first-order level re-derived",
        profiles={
            "quick": {
                "n": 512, "block": 64, "samples": (16, 64, 256), "sources": SOURCES,
                "n_trials": 24, "seed": 0,
            },
            "paper": {
                "n": 1792, "block": 128, "samples": (16, 32, 64, 128, 256, 512, 1024),
                "sources": SOURCES, "n_trials": 100, "seed": 0,
            },
        },
        compute=error_table,
        draw=draw_error,
        claims=("attention/hyper-output-error", "attention/hyper-row-sum*"),
    )
)  # fmt: skip


# ------------------------------------------------------------------------------------------- time


def _milliseconds(calls: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Least time of each call; calls take turns."""
    import jax

    found = dict.fromkeys(calls, math.inf)
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:  # the first turn compiles
                found[name] = min(found[name], 1e3 * (time.perf_counter() - start))
    return found


def time_table(*, lengths: Sequence[int], size: int, leaf: int, repeats: int) -> pl.DataFrame:
    """Forward milliseconds of one head, exact and approximate, causal and not."""
    import jax

    from privlearn.attention.hyper import hyper_attention
    from privlearn.attention.softmax import softmax_attention

    rows = []
    for n in lengths:
        q, k, v = jax.random.normal(jax.random.key(0), (3, n, 1, 64))
        calls: dict[Any, Callable[[], Any]] = {}
        for causal in (False, True):
            least = leaf if causal else 1
            exact = jax.jit(functools.partial(softmax_attention, is_causal=causal))
            hyper = jax.jit(
                functools.partial(
                    hyper_attention, rng=jax.random.key(1), block=size, samples=size,
                    min_seq_len=least, is_causal=causal,
                )
            )  # fmt: skip
            calls["exact", causal] = functools.partial(exact, q, k, v)
            calls["HyperAttention", causal] = functools.partial(hyper, q, k, v)
        for (name, causal), taken in _milliseconds(calls, repeats).items():
            rows.append((n, name, "causal" if causal else "not causal", taken))
    return pl.DataFrame(rows, schema=["n", "method", "form", "milliseconds"], orient="row")


def draw_time(table: pl.DataFrame) -> alt.HConcatChart:
    """One panel a form."""
    series = Series("method", title="Method", order=("exact", "HyperAttention"))
    x = alt.X("n:Q", title="Tokens").scale(type="log", base=2, nice=False)
    axis = alt.Y(title="Milliseconds, forward, one head").scale(type="log")
    panels = []
    for form in table["form"].unique(maintain_order=True):
        part = table.filter(pl.col("form") == form)
        layers = (
            theory_line(part, x, "milliseconds", series=series, axis=axis)
            + dots(part, x, "milliseconds", series=series, axis=axis)
            + crossing_marks(part, x, "milliseconds", series=series, axis=axis, exact="exact")
        )
        panels.append(layers.properties(title=form, width=300, height=280))
    return pick_in_legend(alt.hconcat(*panels).resolve_scale(y="shared"), series)


register(
    Figure(
        name="attention-hyper-time",
        topic="attention",
        title="Time against length, and where the lines cross",
        caption=(
            "Least milliseconds of a few runs on the machine that made this page, float32, head "
            "size 64, blocks and samples of 256, causal leaves of 1,024 tokens. Exact attention is "
            "this package's own, in blocks, and grows fourfold when the length doubles; "
            "HyperAttention about twofold, more in the causal form, which adds a level of the "
            "recursion each time and is exact (the same line) below twice a leaf. Left of the "
            "crossing (bold number, where there is one) the approximation costs more than what it "
            "approximates. Timings carry no error bars and move with the load of the machine; "
            "`benchmarks/attention_hyper.py` is the measurement to quote."
        ),
        source=f"{PAPER}, figure 4, on a CPU",
        profiles={
            "quick": {"lengths": (1024, 4096), "size": 256, "leaf": 1024, "repeats": 3},
            "paper": {
                "lengths": tuple(2**i for i in range(9, 16)), "size": 256, "leaf": 1024,
                "repeats": 5,
            },
        },
        compute=time_table,
        draw=draw_time,
    )
)  # fmt: skip
