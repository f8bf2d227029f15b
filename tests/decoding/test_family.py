"""The shipped family reads held-out text as well as its card says, and training still trains."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.family import (
    agreement,
    load_card,
    load_family,
    load_held_out,
    load_model,
    nats_per_byte,
    sample_prompts,
)
from privlearn.decoding.family import train as recipe
from privlearn.decoding.family.write import GAP, write_family
from privlearn.decoding.models import TransformerConfig, forward
from privlearn.decoding.text import BytePairTokenizer, Split
from privlearn.decoding.weights import load_pretrained

SIZES = ("target", "middle", "draft")


@pytest.fixture(scope="module")
def family():
    return load_family()


@pytest.mark.parametrize("size", SIZES)
def test_the_shipped_weights_have_the_loss_on_the_card(family, size):
    card = load_card()["models"][size]
    model = getattr(family, size)
    assert model.n_parameters == card["parameters"]
    assert model.config == recipe.SIZES[size]
    for domain, files in load_held_out().items():
        score = nats_per_byte(model, family.tokenizer, GAP.join(files.values()))
        assert score.mean == pytest.approx(card["excerpt_nats_per_byte"][domain]["mean"], abs=2e-4)


def test_larger_models_read_better_and_are_good_enough():
    held_out = {s: load_card()["models"][s]["held_out_nats_per_byte"] for s in SIZES}
    for domain in ("docs", "code"):
        target, middle, draft = (held_out[size][domain]["mean"] for size in SIZES)
        assert target < middle < draft < 1.9
        assert target <= 1.4


def test_the_draft_would_often_be_accepted(family):
    """On an excerpt, within 5 standard errors and the difference of the texts, of the card."""
    for domain, files in load_held_out().items():
        written = load_card()["acceptance"]["draft for target"][domain]
        tokens = family.tokenizer.encode(GAP.join(files.values()))
        score = agreement(family.target, family.draft, tokens)
        assert score.mean == pytest.approx(written["mean"], abs=0.06)
        assert score.mean > 0.5


def test_no_held_out_file_was_trained_on():
    for domain, parts in load_card()["corpus"]["domains"].items():
        held_out = set(parts["held_out"]["files"])
        assert held_out == set(load_held_out()[domain])
        assert not held_out & set(parts["train"]["files"])


def test_prompts_are_windows_of_held_out_text(family):
    prompts = sample_prompts(6, 20, seed=3)
    assert prompts.shape == (6, 20)
    np.testing.assert_array_equal(prompts, sample_prompts(6, 20, seed=3))
    texts = [text for files in load_held_out().values() for text in files.values()]
    for prompt in prompts:
        inner = family.tokenizer.decode_bytes(prompt).decode(errors="ignore")
        assert any(inner in text for text in texts)
    with pytest.raises(ValueError, match="domain: 'news'"):
        sample_prompts(1, domain="news")
    with pytest.raises(ValueError, match="length: 100000"):
        sample_prompts(1, 100_000)


@pytest.mark.slow
def test_the_target_writes_words(family):
    """Of a greedy continuation most words occur in the text it never saw."""
    prompt = family.tokenizer.encode("The statement is executed when the")[None]
    model, n = family.target, 24

    @jax.jit
    def write(model, text):
        def step(text, i):
            logits = forward(model, text)
            last = jnp.argmax(logits[0, i - 1])
            return text.at[0, i].set(last), last

        return jax.lax.scan(step, text, jnp.arange(prompt.shape[1], prompt.shape[1] + n))[1]

    new = write(model, jnp.pad(jnp.asarray(prompt), ((0, 0), (0, n))))
    words = family.tokenizer.decode(new).split()[:-1]
    known = " ".join(t for files in load_held_out().values() for t in files.values())
    assert len(words) >= 3
    assert np.mean([word in known for word in words]) > 0.6


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size: 'huge'"):
        load_model("huge")


TINY = TransformerConfig(vocab_size=256, d_model=16, n_layers=1, n_heads=2, context=128)
PLAN = recipe.Plan(30, batch=4, window=16, learning_rate=2e-2, warmup=5, chunk=15)


@pytest.fixture(scope="module")
def lessons():
    text = BytePairTokenizer().encode("abcabcabd" * 60)
    return {"one": text, "two": text[::-1].copy()}


@pytest.fixture(scope="module")
def pupil(lessons):
    return recipe.train(TINY, lessons, PLAN, jax.random.key(0))


@pytest.mark.slow
def test_training_lowers_the_loss_and_a_seed_repeats_it(lessons, pupil):
    first, again = pupil, recipe.train(TINY, lessons, PLAN, jax.random.key(0))
    assert first.losses.shape == (30,)
    assert first.losses[0] == pytest.approx(np.log(256), abs=0.1)
    assert first.losses[-5:].mean() < 2.5
    np.testing.assert_array_equal(first.losses, again.losses)


@pytest.mark.slow
def test_a_second_round_goes_on_where_the_first_ended(lessons):
    rounds = recipe.train_rounds(TINY, lessons, (PLAN, PLAN), jax.random.key(0))
    assert rounds.losses.shape == (60,)
    assert rounds.losses[30] < 0.7 * rounds.losses[0]
    assert rounds.losses[-5:].mean() < rounds.losses[25:30].mean()


@pytest.mark.slow
def test_a_family_is_written_with_its_card(pupil, tmp_path):
    trained = dict.fromkeys(SIZES, pupil)
    files = {f"file {i}": f"abc abd abc\nabc number {i}\n" * 20 for i in range(4)}
    split = Split({"file 0": files["file 0"]}, {n: t for n, t in files.items() if n != "file 0"})
    card = write_family(
        tmp_path,
        trained,
        BytePairTokenizer(),
        {"one": split},
        dict.fromkeys(SIZES, (PLAN,)),
        seed=1,
    )
    assert json.loads((tmp_path / "card.json").read_text()) == card
    assert card["acceptance"]["draft for target"]["one"]["mean"] == pytest.approx(1, abs=1e-4)
    assert set(json.loads((tmp_path / "held_out.json").read_text())["one"]) == set(split.held_out)
    assert (tmp_path / "draft" / "model.safetensors").stat().st_size < 25_000


@pytest.mark.slow
def test_the_training_command_writes_no_family(tmp_path, monkeypatch):
    """The whole recipe on the real corpus, but for the sizes of the models and the steps."""
    small = TransformerConfig(vocab_size=512, d_model=16, n_layers=1, n_heads=2, context=256)
    monkeypatch.setattr(recipe, "SIZES", dict.fromkeys(SIZES, small))
    recipe.main(["--out", str(tmp_path), "--seed", "3", "--steps", "4"])
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["seed"] == 3
    for size in SIZES:
        assert load_pretrained(tmp_path / size).config == small
        (plan,) = card["models"][size]["rounds"]
        assert (plan["steps"], plan["warmup"], plan["chunk"]) == (4, 2, 4)
        # Hardly trained: near one of 512 tokens at about 2.2 bytes each.
        for score in card["models"][size]["held_out_nats_per_byte"].values():
            assert score["mean"] == pytest.approx(np.log(512) / 2.2, rel=0.15)
    assert (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize(("steps", "warmup", "chunk"), [(1, 0, 1), (27, 13, 9), (800, 50, 10)])
def test_fewer_steps_end_in_the_middle_of_a_chunk_or_of_the_warm_up(steps, warmup, chunk):
    plan = recipe._shorter(steps)
    assert (plan.steps, plan.warmup, plan.chunk) == (steps, warmup, chunk)
    plan.optimizer()  # a warm-up longer than the plan is refused by optax
    with pytest.raises(ValueError, match="steps: 0"):
        recipe._shorter(0)
