"""Two executions side by side, as in the paper: rows, coreset, centres, induced partition."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl
from sklearn.cluster import KMeans

from privlearn.figures import PALETTE, Figure, register
from privlearn.replicable.estimators import ReplicableKMeans
from privlearn.replicable.oracles import in_order
from privlearn.replicable.simulation import SAMPLERS

PAPER = "Esfandiari et al. 2023 (arXiv 2302.10359)"


def two_runs_table(
    *,
    distribution: str,
    n: int,
    n_clusters: int,
    shared_seed: int,
    sample_seeds: tuple[int, int],
    n_shown: int,
    n_grid: int,
) -> pl.DataFrame:
    """Rows, coreset, centres and cells of a grid for two samples and two methods."""
    samples = [SAMPLERS[distribution](n, np.random.default_rng(seed)) for seed in sample_seeds]
    along = (np.arange(n_grid) + 0.5) / n_grid * 2 - 1
    grid = np.stack([a.ravel() for a in np.meshgrid(along, along)], axis=1)
    frames = []
    for method in ("Replicable k-means", "k-means (scikit-learn)"):
        centres = []
        for run, X in enumerate(samples):
            points, weights = np.empty((0, 2)), np.empty(0)
            if method.startswith("Replicable"):
                model = ReplicableKMeans(
                    n_clusters, shared_seed=shared_seed, epsilon=0.99, opt=0.5, levels=3,
                    bounds=(-1, 1), fresh_samples=True,
                ).fit(X)  # fmt: skip
                points, weights = model.coreset_.points, model.coreset_.weights
            else:
                model = KMeans(n_clusters, n_init=1, random_state=shared_seed).fit(X)
            found = in_order(model.cluster_centers_)
            centres.append(found)
            cluster = ((grid[:, None] - found) ** 2).sum(axis=2).argmin(axis=1)
            parts = {
                "cell": (grid, cluster, None),
                "row": (X[:n_shown], None, None),
                "coreset": (points, None, weights),
                "centre": (found, np.arange(len(found)), None),
            }
            frames += [
                pl.DataFrame(
                    {
                        "x": xy[:, 0],
                        "y": xy[:, 1],
                        "cluster": [None] * len(xy) if label is None else label.tolist(),
                        "weight": [None] * len(xy) if weight is None else weight.tolist(),
                    },
                    schema={
                        "x": pl.Float64, "y": pl.Float64, "cluster": pl.Int64, "weight": pl.Float64,
                    },
                ).with_columns(part=pl.lit(part), run=pl.lit(f"sample {run + 1}"))
                for part, (xy, label, weight) in parts.items()
            ]  # fmt: skip
        same = np.array_equal(centres[0], centres[1])
        gap = np.abs(centres[0] - centres[1]).max()
        verdict = "identical bit by bit" if same else f"centres differ by up to {gap:.2g}"
        frames = [
            frame if "method" in frame.columns else frame.with_columns(
                method=pl.lit(method), verdict=pl.lit(verdict)
            )
            for frame in frames
        ]  # fmt: skip
    return pl.concat(frames).with_columns(half=pl.lit(1 / n_grid))


def draw_two_runs(table: pl.DataFrame) -> alt.VConcatChart:
    """One row of panels a method, one column a sample."""
    rows = []
    for method in table["method"].unique(maintain_order=True):
        panels = []
        for run in table["run"].unique(maintain_order=True):
            panel = table.filter((pl.col("method") == method) & (pl.col("run") == run))
            panels.append(_panel(panel).properties(title=str(run), width=270, height=270))
        verdict = table.filter(pl.col("method") == method)["verdict"][0]
        rows.append(alt.hconcat(*panels).properties(title=f"{method}: {verdict}"))
    return alt.vconcat(*rows)


def _panel(table: pl.DataFrame) -> alt.LayerChart:
    scale = alt.Scale(domain=(-1, 1), nice=False)
    x, y = alt.X("x:Q", title=None).scale(scale), alt.Y("y:Q", title=None).scale(scale)
    colours = alt.Scale(domain=list(range(len(PALETTE))), range=list(PALETTE))

    sizes = alt.Scale(domain=(0, 0.5), range=(20, 260))

    def part(name: str) -> alt.Chart:
        return alt.Chart(table.filter(pl.col("part") == name))

    cells = table.filter(pl.col("part") == "cell").with_columns(
        x2=pl.col("x") + pl.col("half"), y2=pl.col("y") + pl.col("half"),
        x=pl.col("x") - pl.col("half"), y=pl.col("y") - pl.col("half"),
    )  # fmt: skip
    regions = (
        alt.Chart(cells)
        .mark_rect(opacity=0.25, tooltip=None, stroke=None)
        .encode(
            x=x, x2="x2:Q", y=y, y2="y2:Q",
            color=alt.Color("cluster:N", scale=colours, legend=None),
        )
    )  # fmt: skip
    dots = part("row").mark_point(size=5, opacity=0.5, color="#555555", tooltip=None)
    stars = part("coreset").mark_point(shape="diamond", filled=False, color="black")
    centres = part("centre").mark_point(shape="cross", size=220, stroke="black", strokeWidth=1)
    return (
        regions
        + dots.encode(x=x, y=y)
        + stars.encode(
            x=x, y=y, size=alt.Size("weight:Q", legend=None, scale=sizes),
            tooltip=[
                alt.Tooltip("x:Q", format=".4g"), alt.Tooltip("y:Q", format=".4g"),
                alt.Tooltip("weight:Q", format=".3f"),
            ],
        )
        + centres.encode(
            x=x, y=y, color=alt.Color("cluster:N", scale=colours, legend=None),
            tooltip=[alt.Tooltip("x:Q", format=".6g"), alt.Tooltip("y:Q", format=".6g")],
        )
    )  # fmt: skip


_CAPTION = (
    "Two independent samples of {what}, {n} rows each, {k} clusters, one shared seed (2; samples "
    "drawn with seeds 12345 and 54321). Dots: 400 of the rows. Diamonds: coreset, larger for "
    "more mass. Crosses: centres. Colours: the partition of the plane. Above each row of panels it "
    "says whether the two executions agree exactly. Replicable k-means sees the sample only "
    "through a coreset of a few rounded points; k-means of scikit-learn, with the same "
    "random_state in both executions, follows its sample. One pair is shown: how often "
    "pairs agree is in the figures of rates."
)

for _name, _distribution, _what in (
    ("replicable-two-runs-mixture", "mixture", "four blobs"),
    ("replicable-two-runs-moons", "moons", "two moons"),
):
    _settings = {
        "distribution": _distribution, "n": 64_000, "n_clusters": 3, "shared_seed": 2,
        "sample_seeds": (12345, 54321), "n_shown": 400, "n_grid": 40,
    }  # fmt: skip
    register(
        Figure(
            name=_name,
            topic="replicable",
            title=f"Two samples of {_what}, two executions",
            caption=_CAPTION.format(what=_what, n="64,000 (paper profile 138,990)", k=3),
            source=f"{PAPER}, figures of two executions; rounded means instead of cell centres",
            profiles={"quick": _settings, "paper": {**_settings, "n": 138_990, "n_grid": 80}},
            compute=two_runs_table,
            draw=draw_two_runs,
            claims=("replicable/same-*",),
        )
    )
