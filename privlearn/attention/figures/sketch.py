"""Errors of random sketches: theory as lines, draws as dots."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from privlearn.attention import theory
from privlearn.attention.sketches import Kind, RandomSketch, init_sketch
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    theory_and_simulation,
    theory_line,
)

PAPER = "Kacham, Mirrokni and Zhong 2024 (arXiv 2310.01655)"
RANDOM_KINDS: tuple[Kind, ...] = ("gaussian", "rademacher", "srht")
SIZE = Series("r", title="Size of the sketch, r")


def squared_errors(
    kind: Kind, sizes: Sequence[int], cosines: np.ndarray, n: int, seed: int
) -> np.ndarray:
    """(weight - c^4)^2 of n independent sketches, (n, sizes, cosines); head size 16.

    A smaller sketch is made of the first columns of the largest: dots of one panel share draws.
    """
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))[0]
    x = np.tile(basis[:, 0], (len(cosines), 1))
    y = np.outer(cosines, basis[:, 0]) + np.outer(np.sqrt(1 - cosines**2), basis[:, 1])
    one, other = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    def trial(key: jax.Array) -> jax.Array:
        leaves = init_sketch(key, 16, max(sizes), kind=kind).leaves  # type: ignore[union-attr]
        sketches = [RandomSketch(leaves[:, :, :r], (), degree=4) for r in sizes]
        return jnp.stack([jnp.sum(s(one) * s(other), axis=1) ** 2 for s in sketches])

    run = jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=250))
    weights = np.asarray(run(jax.random.split(jax.random.key(seed), n)), float)
    return (weights - cosines**4) ** 2


def table(*, sizes: Sequence[int], n_cosines: int, n: int, seed: int) -> pl.DataFrame:
    """Root mean squared error of a weight against the cosine, for each size and kind."""
    fine, coarse = np.linspace(0, 1, 101), np.linspace(0, 1, n_cosines)
    frames = []
    for r in sizes:
        line = pl.DataFrame({"cosine": fine, "theory": theory.weight_rms(fine, r)})
        frames.append(line.with_columns(r=pl.lit(r), kind=pl.lit("gaussian")))
    for kind in RANDOM_KINDS:
        found = squared_errors(kind, sizes, coarse, n, seed)
        for r, errors in zip(sizes, np.moveaxis(found, 1, 0), strict=True):
            rms = np.sqrt(errors.mean(axis=0))
            # Of a root: half the relative standard error of the mean square.
            stderr = errors.std(axis=0) / np.sqrt(n) / (2 * rms)
            columns = {"cosine": coarse, "mean": rms, "stderr": stderr}
            frames.append(pl.DataFrame(columns).with_columns(r=pl.lit(r), kind=pl.lit(kind)))
    return pl.concat(frames, how="diagonal")


def draw(frame: pl.DataFrame) -> alt.HConcatChart:
    """One panel for each kind of matrix; the line is that of Gaussian ones in each."""
    panels = []
    x = alt.X("cosine:Q", title="Cosine of query and key")
    axis = alt.Y(title="RMS error of the weight").scale(type="log", domain=(0.004, 3))
    lines = frame.filter(pl.col("theory").is_not_null())
    for kind in RANDOM_KINDS:
        shown = frame.filter((pl.col("kind") == kind) & pl.col("mean").is_not_null())
        panel = (
            theory_line(lines, x, "theory", series=SIZE, axis=axis)
            + error_bars(shown, x, "mean", stderr="stderr", series=SIZE, axis=axis)
            + dots(shown, x, "mean", series=SIZE, axis=axis)
        )
        panels.append(panel.properties(title=kind, width=220))
    return pick_in_legend(alt.hconcat(*panels), SIZE)


register(
    Figure(
        name="attention-sketch-error",
        topic="attention",
        title="A random sketch spreads the largest weights by more than their size",
        caption=(
            "Root mean squared error of a sketched weight of degree 4 against the exact weight "
            "(cosine)^4 of unit vectors. Lines: the closed form for Gaussian matrices, the same in "
            "all panels; dots: independent sketches with error bars of 2 standard errors (too "
            "short where the cosine is near 1: squared errors there have heavy tails).\n\n"
            "Notice the right edge: the exact weight is 1, and a sketch of size 32 misses it by "
            "1.5. Signs and Hadamard columns spread less, but not enough to change that. This is "
            "why models combine sketches with exact blocks, or train the sketch. Dots of one panel "
            "share their draws."
        ),
        source=PAPER + ", section 2.2; error re-derived here",
        profiles={
            "quick": {"sizes": (16, 32, 64, 256), "n_cosines": 6, "n": 2000, "seed": 0},
            "paper": {"sizes": (16, 32, 64, 128, 256), "n_cosines": 11, "n": 40_000, "seed": 0},
        },
        compute=table,
        draw=draw,
        claims=("attention/sketch-*", "attention/weight-*"),
    )
)


def profile_table(*, n: int, head_size: int, degrees: Sequence[int], n_draws: int, seed: int):
    """How many keys a query looks at: exp(entropy) of its weights, by place."""
    rng = np.random.default_rng(seed)
    places = np.unique(np.geomspace(4, n, 12).astype(int)) - 1
    rows: dict[str, list[np.ndarray]] = {}
    for _ in range(n_draws):
        q, k = rng.standard_normal((2, n, head_size))
        q, k = (x - x.mean(axis=1, keepdims=True) for x in (q, k))
        q, k = (x / x.std(axis=1, keepdims=True) for x in (q, k))
        scores = (q @ k.T)[places] / np.sqrt(head_size)
        seen = np.arange(n) <= places[:, None]
        for degree in (0, *degrees):
            weights = np.where(seen, np.exp(scores) if degree == 0 else scores**degree, 0)
            p = weights / weights.sum(axis=1, keepdims=True)
            entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)
            name = "softmax" if degree == 0 else f"degree {degree}"
            rows.setdefault(name, []).append(np.exp(entropy))
    frames = []
    for name, found in rows.items():
        values = np.array(found)
        frames.append(
            pl.DataFrame(
                {
                    "keys": places + 1,
                    "attention": name,
                    "mean": values.mean(axis=0),
                    "stderr": values.std(axis=0, ddof=1) / np.sqrt(n_draws),
                }
            )
        )
    return pl.concat(frames)


def draw_profile(frame: pl.DataFrame) -> alt.LayerChart:
    """Effective against visible keys, on logarithmic axes."""
    return theory_and_simulation(
        frame.with_columns(theory=pl.col("mean")),
        x=alt.X("keys:Q", title="Visible keys").scale(type="log"),
        theory="theory",
        mean="mean",
        stderr="stderr",
        series=Series("attention", title="Attention"),
        axis=alt.Y(title="Keys that a query looks at, exp(entropy)").scale(type="log"),
    )


register(
    Figure(
        name="attention-weight-profile",
        topic="attention",
        title="The higher the degree, the fewer keys a query looks at",
        caption=(
            "Random queries and keys after layer normalisation, inner products divided by the root "
            "of the head size as in all attentions here. Each dot is the exponential of the mean "
            "entropy of a query's weights: the number of keys with equal weights that would spread "
            "them as much. Error bars (2 standard errors over draws) are mostly smaller than dots; "
            "lines join the dots.\n\n"
            "Softmax and degree 2 spread weights over half of the visible keys and more; degree 4 "
            "over a quarter, degree 8 over one in twenty of 512."
        ),
        source="definition of polynomial attention in " + PAPER + "; the measure is ours",
        profiles={
            "quick": {"n": 512, "head_size": 32, "degrees": (2, 4, 8), "n_draws": 12, "seed": 1},
            "paper": {"n": 2048, "head_size": 64, "degrees": (2, 4, 8), "n_draws": 60, "seed": 1},
        },
        compute=profile_table,
        draw=draw_profile,
    )
)
