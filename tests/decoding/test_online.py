"""Online drafts: exactness through updates, the loss on corrections only, replay, routes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privlearn.decoding import OnlineSpeculative, drift_stream, moving_average
from privlearn.decoding.models import forward
from privlearn.decoding.online import Batch, correction_loss

STREAM = [[0, 1], [2, 3], [1, 1]] * 6


@pytest.fixture(scope="module")
def models(random_table):
    return random_table(0, 4, 1, 0.4), random_table(1, 4)


def serve(models, stream=STREAM, routes=None, **parameters):
    settings = {"update_interval": 2, "learning_rate": 0.1, "max_new_tokens": 16, "gamma": 3}
    return OnlineSpeculative(*models, **{**settings, **parameters}).partial_fit(stream, routes)


def rates(online):
    return [request.acceptance_rate for request in online.history_]


@pytest.mark.slow
def test_updates_change_the_law_of_the_text(models):
    """The first two tokens of 500 requests while the draft moves fast; chi-square at 1e-7."""
    target, _ = models
    online = OnlineSpeculative(
        *models, gamma=2, update_interval=1, learning_rate=0.3, max_new_tokens=2
    )
    counts = np.zeros((4, 4))
    for _ in range(500):
        first, second = online.serve([0, 1]).new_tokens[0]
        counts[first, second] += 1
    law = np.array([target.law([1])[i] * target.law([i]) for i in range(4)]) * counts.sum()
    large = law >= 5  # the rest in one cell
    expected = np.append(law[large], law[~large].sum() + 1e-9)
    observed = np.append(counts[large], counts[~large].sum())
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert statistic < stats.chi2.isf(1e-7, large.sum())
    assert sum(request.updated for request in online.history_) > 10


def test_recorded_law_is_not_that_of_the_rejected_place(models):
    target, _ = models
    online = serve(models, [[0, 1]], update_interval=100)
    (correction,) = online.checkpoint().buffers[None]
    assert len(correction.position) == online.history_[0].corrections > 0
    for place, law in zip(correction.position, correction.law, strict=True):
        np.testing.assert_allclose(law, target.law(correction.tokens[:place]), atol=1e-6)
        assert 2 <= place < len(correction.tokens)


def test_gradient_comes_from_other_than_corrected_places(models):
    """With respect to the logits: (q - p) / n at corrected places, nothing elsewhere."""
    target, draft = models
    tokens = jnp.array([[0, 1, 2, 3, 0, 1]])
    position, counted = jnp.array([[2, 5, 0]]), jnp.array([[True, True, False]])
    law = jnp.asarray(np.stack([target.law([1]), target.law([0]), np.full(4, 0.25)]))[None]

    class Loose:
        """Logits that may change place by place."""

        def __init__(self, logits):
            self.logits = logits

        def __call__(self, tokens):
            return self.logits

    logits = jax.jit(forward)(draft, tokens)

    def loss(z):
        return correction_loss(Loose(z), Batch(tokens, position, law, counted), 1.0, "fkl")

    gradient = jax.jit(jax.grad(loss))(logits)
    expected = np.zeros((6, 4))
    expected[1] = (draft.law([1]) - target.law([1])) / 2
    expected[4] = (draft.law([0]) - target.law([0])) / 2
    np.testing.assert_allclose(gradient[0], expected, atol=1e-6)


def test_draft_does_not_learn_a_stationary_stream(models):
    online = serve(models, [[0, 1]] * 60)
    assert np.mean(rates(online)[-10:]) > 0.9
    assert np.mean(rates(online)[:4]) < 0.75


def test_static_draft_learns(models):
    online = serve(models, update_interval=10**6)
    assert not any(request.updated for request in online.history_)
    assert online.draft_for() is models[1]


def test_restored_stream_differs(models):
    online = serve(models)
    middle = online.checkpoint()
    once = [online.serve(prompt).sequences[0].tolist() for prompt in STREAM]
    weights = np.asarray(online.draft_for().log_table)
    online.restore(middle)
    again = [online.serve(prompt).sequences[0].tolist() for prompt in STREAM]
    assert once == again
    np.testing.assert_array_equal(weights, online.draft_for().log_table)


def test_one_route_differs_from_no_routing_or_two_share_a_draft(models):
    alone = serve(models)
    routed = serve(models, routes=["all"] * len(STREAM))
    assert rates(alone) == rates(routed)
    two = serve(models, routes=["a", "b"] * (len(STREAM) // 2))
    assert not np.array_equal(two.draft_for("a").log_table, two.draft_for("b").log_table)
    assert two.draft_for("new") is models[1]


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"update_interval": 0}, "update_interval"),
        ({"temperature": 0.0}, "temperature"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"gamma": 0}, "gamma"),
    ],
)
def test_impossible_parameter_serves(models, parameters, word):
    with pytest.raises(ValueError, match=word):
        serve(models, **parameters)


def test_routes_that_do_not_fit_are_used(models):
    with pytest.raises(ValueError, match="routes"):
        serve(models, routes=["a"])


def test_moving_average_differs_from_a_loop():
    values = np.array([1.0, np.nan, 3.0, 4.0, np.nan, np.nan, 9.0])
    expected = [np.nanmean(values[max(0, i - 2) : i + 1]) for i in range(5)]
    np.testing.assert_allclose(moving_average(values, 3)[:5], expected)
    assert np.isnan(moving_average([np.nan, 1.0], 1)[0])


def test_stream_mixes_its_domains():
    class Bytes:
        @staticmethod
        def encode(text):
            return list(text.encode())

    stream = drift_stream(Bytes(), per_domain=3, length=20, seed=1)
    assert stream.prompts.shape == (9, 20)
    assert stream.domains == ("docs",) * 3 + ("code",) * 3 + ("rst",) * 3
    again = drift_stream(Bytes(), per_domain=3, length=20, seed=1)
    np.testing.assert_array_equal(stream.prompts, again.prompts)
    with pytest.raises(ValueError, match="domain"):
        drift_stream(Bytes(), ("poems",))
