"""Divergences against known values and gradients; distillation against what it must reach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding import DistillSpec, SpeculativeDecoder
from privlearn.decoding.distill import divergence, sample_texts, text_loss
from privlearn.decoding.models import Prompts, TransformerConfig, TransformerLM
from privlearn.simulate import float64

P, Q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
NAMES = ("fkl", "rkl", "jsd", "tvd")


def test_divergences_differ_from_known_values():
    with float64():
        logs = jnp.log(jnp.asarray(P)), jnp.log(jnp.asarray(Q))
        got = [float(divergence(name, *logs)) for name in NAMES]
        np.testing.assert_allclose(got, [0.498224, 0.584996, 0.125101, 0.4], atol=6e-7)
        near_0 = float(divergence("jsd", *logs, 0.001)) / 0.001
        near_1 = float(divergence("jsd", *logs, 0.999)) / 0.001
        np.testing.assert_allclose([near_0, near_1], [0.497664, 0.584064], atol=6e-7)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_differs_from_the_closed_form(name):
    """With respect to the student's logits, b = 0.3 for the Jensen-Shannon divergence."""
    b = 0.3
    with float64():
        gradient = jax.grad(
            lambda z: divergence(name, jnp.log(jnp.asarray(P)), jax.nn.log_softmax(z), b)
        )(jnp.log(jnp.asarray(Q)))
    m = b * P + (1 - b) * Q

    def centred(score):
        return Q * (score - Q @ score)

    expected = {
        "fkl": Q - P,
        "rkl": centred(np.log(Q / P)),
        "jsd": (1 - b) * centred(np.log(Q / m)),
        "tvd": centred((Q > P) * 1.0),
    }[name]
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_zero_probability_gives_no_finite_gradient(name):
    p = jnp.log(jnp.array([0.5, 0.5, 0.0]))
    gradient = jax.grad(lambda z: divergence(name, p, jax.nn.log_softmax(z)))(jnp.zeros(3))
    assert np.all(np.isfinite(gradient))


@pytest.fixture(scope="module")
def tables(random_table):
    return random_table(0, 4), random_table(1, 4)


def test_loss_counts_prompt_or_padding(tables):
    """Two texts of different lengths against a loop over their continuations."""
    from privlearn.decoding.distill import Texts

    target, draft = tables
    tokens = np.array([[0, 1, 2, 3, 1], [3, 2, 0, 0, 0]])
    begin, end = [2, 1], [5, 3]
    loss = eqx.filter_jit(text_loss)(
        draft, target, Texts(jnp.asarray(tokens), jnp.array(begin), jnp.array(end)), "fkl", 1.0, 0.5
    )
    means = []
    for row, first, last in zip(tokens, begin, end, strict=True):
        laws = [(target.law([row[t - 1]]), draft.law([row[t - 1]])) for t in range(first, last)]
        means.append(np.mean([np.sum(p * np.log(p / q)) for p, q in laws]))
    assert float(loss) == pytest.approx(np.mean(means), rel=1e-5)


def test_sampled_texts_are_not_continuations(tables):
    target, _ = tables
    prompts = Prompts(jnp.array([[0, 1, 2], [3, 0, 0]]), jnp.array([3, 1]))
    keys = jax.random.split(jax.random.key(0), 2)
    texts = sample_texts(target, prompts, keys, 4)
    assert texts.begin.tolist() == [3, 1]
    assert texts.end.tolist() == [7, 5]
    assert texts.tokens[0, :3].tolist() == [0, 1, 2]
    assert texts.tokens[1, 0] == 3


CELLS = [
    ("jsd", "student"),
    pytest.param("fkl", "fixed", marks=pytest.mark.slow),
    pytest.param("rkl", "teacher", marks=pytest.mark.slow),
    pytest.param("tvd", "mixed", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "data"), CELLS)
def test_unrestricted_draft_does_not_reach_the_target(tables, name, data):
    """A table of the same order can be the target: acceptance near 1, from about 0.6."""
    target, draft = tables
    prompts = [[0, i] for i in range(4)] * 4
    continuations = None
    if data == "fixed":
        rng = np.random.default_rng(0)
        continuations = rng.integers(0, 4, (16, 16))
    spec = DistillSpec(
        target,
        draft,
        divergence=name,
        data=data,
        n_steps=80,
        batch_size=16,
        continuation_length=16,
        learning_rate=0.1,
        random_state=1,
    ).fit(prompts, continuations)
    overlap = [
        np.minimum(target.law([t]), np.asarray(jax.nn.softmax(spec.draft_.log_table[t]))).sum()
        for t in range(4)
    ]
    before = [np.minimum(target.law([t]), draft.law([t])).sum() for t in range(4)]
    assert np.mean(before) < 0.8
    assert min(overlap) > 0.9
    assert spec.drafter(3).gamma == 3
    if data == "student":  # not only the loss: real decoding
        decoder = SpeculativeDecoder(target, spec.draft_, "token", max_new_tokens=24)
        assert decoder.generate(prompts).acceptance_rate_ > 0.9


@pytest.mark.slow
def test_distilled_transformer_is_not_accepted_more_often():
    """A one-layer draft of a two-layer target; the acceptance of real decoding, not the loss."""

    def model(seed, layers):
        config = TransformerConfig(vocab_size=8, d_model=16, n_layers=layers, n_heads=2, context=48)
        model = TransformerLM.init(jax.random.key(seed), config)
        return jax.tree.map(lambda leaf: leaf * 5 if leaf.ndim == 2 else leaf, model)

    target, draft = model(0, 2), model(1, 1)
    prompts = np.random.default_rng(0).integers(0, 8, (16, 4))
    spec = DistillSpec(
        target, draft, n_steps=60, continuation_length=24, learning_rate=2e-2, random_state=0
    ).fit(prompts)

    def acceptance(draft):
        decoder = SpeculativeDecoder(target, draft, "token", max_new_tokens=24, random_state=5)
        return decoder.generate(prompts).acceptance_rate_

    assert acceptance(spec.draft_) > acceptance(draft) + 0.1


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"divergence": "kl"}, "divergence"),
        ({"data": "both"}, "data"),
        ({"data": "fixed"}, "continuations"),
        ({"jsd_weight": 1.0}, "jsd_weight"),
        ({"mix": 1.5}, "mix"),
        ({"temperature": 0.0}, "temperature"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"n_steps": 0}, "n_steps"),
    ],
)
def test_impossible_recipe_is_fitted(tables, parameters, word):
    with pytest.raises(ValueError, match=word):
        DistillSpec(*tables).set_params(**parameters).fit([[0, 1]])


def test_continuations_that_do_not_fit_are_used(tables):
    spec = DistillSpec(*tables, data="fixed", n_steps=1)
    with pytest.raises(ValueError, match="one per prompt"):
        spec.fit([[0, 1], [2]], [[3]])
    with pytest.raises(ValueError, match="at least one token"):
        spec.fit([[0, 1]], [[]])
