"""The figures: every one computes and draws, has its error bars, and shows what its title says."""

import numpy as np
import polars as pl
import pytest

from privlearn.figures import registry
from privlearn.figures.theme import themed
from privlearn.lookalike import figures  # noqa: F401  (registers them)
from privlearn.lookalike.figures import synthetic

SMALL = {
    "lookalike-risk-vs-psid": {"n": 40, "dots_at": (0.6,), "n_trials": 4},
    "lookalike-gain-vs-snr": {
        "settings": ((0.6, 0.3),), "n": 40, "dots_at": (0.1, 1.0), "n_trials": 4,
    },
    "lookalike-gain-map": {"step": 0.2},
    "lookalike-ridge": {"n": 40, "dots_at": (0.3,), "n_trials": 4},
    "lookalike-clusters": {
        "n": 60, "norm_dots": (2.0,), "number_dots": (4,), "n_trials": 4, "n_found": 3,
    },
    "lookalike-misclustering": {
        "settings": ((0.6, 0.3),), "n": 40, "dots_at": (0.5,), "n_trials": 4,
    },
    "lookalike-m-anonymity": {
        "n": 60, "p": 6, "q": 8, "dots_at": (2, 10, 30), "n_trials": 4,
    },
    "lookalike-information-loss": {"min_sizes": (20,), "methods": ("mdav", "kmeans-merge")},
    "lookalike-real-against-m": {
        "tables": (("diabetes", 100, None),), "min_sizes": (5,), "n_splits": 8,
    },
    "lookalike-real-breast-cancer": {"n_trains": (40,), "min_sizes": (5,), "n_splits": 8},
}  # fmt: skip


def test_small_settings_cover_every_figure_of_the_topic():
    assert set(SMALL) == {f.name for f in registry.REGISTRY if f.topic == "lookalike"}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_figure_computes_and_draws_with_error_bars_wherever_it_sampled(name):
    figure = registry.REGISTRY.get(name)
    table = figure.compute(**(dict(figure.settings("quick")) | SMALL[name]))
    spec = themed(figure.draw(table)).to_dict()
    assert "$schema" in spec
    measured = table.filter(pl.col("mean").is_not_null()) if "mean" in table.columns else table
    ends = {"stderr", "low", "most"} & set(table.columns)
    assert ends or name == "lookalike-gain-map"
    for end in ends:
        assert np.isfinite(measured[end].to_numpy()).all()
    if "low" in table.columns:
        assert (table["low"] <= table["median"]).all()
        assert (table["cost_low"] <= table["cost_high"]).all()
        assert (table.filter(pl.col("method") == "base")["cost"] == 0).all()


def test_captions_quote_numbers_that_the_theory_gives():
    best = [
        synthetic.theory.best_ridge(
            synthetic.GaussianMixtureModel.orthogonal(
                n_clusters=3, norm=3.0, alignment=0.9, signal_sensitive=4.0, signal_public=1.0,
                noise=0.25, direction="contrast",
            ),
            psi_d=1.5, psi_p=1.0, estimator=name,
        )[1].total
        for name in ("base", "known")
    ]  # fmt: skip
    assert round(100 * (best[1] / best[0] - 1)) == 77
    assert "77 %" in registry.REGISTRY.get("lookalike-ridge").caption


def test_gain_and_its_error_follow_from_paired_risks():
    rng = np.random.default_rng(0)
    lookalike = 1 + 0.1 * rng.normal(size=(4000, 1))
    base = 1.5 * lookalike + 0.01 * rng.normal(size=(4000, 1))
    gain, stderr = synthetic.paired_gain(np.stack([base, lookalike], axis=-1))
    # Paired: the common 10 % cancels, an error of 0.01 / sqrt(4000) is left.
    assert stderr[0] == pytest.approx(100 * 0.01 / np.sqrt(4000), rel=0.1)
    assert abs(gain[0] - 50) < 5 * stderr[0]


def test_map_shows_a_gain_near_the_first_peak_and_a_loss_near_the_second():
    table = synthetic.map_table(ths=0.3, step=0.04, top=2.4)

    def at(psi_p: float, psi_d: float) -> float:
        near = (pl.col("psi_p") - psi_p).abs() + (pl.col("psi_d") - psi_d).abs()
        return table.sort(near)["gain"][0]

    assert at(0.3, 0.95) > 100
    assert at(0.3, 1.29) < -50
    assert table["gain"].is_finite().all()
