"""The same weights give the same logits in Hugging Face's transformers; needs torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import (
    HFAdapter,
    TransformerConfig,
    TransformerLM,
    commit,
    forward,
    prefill,
)
from privlearn.decoding.weights import load_pretrained, load_smollm2, save_pretrained
from privlearn.decoding.weights.smollm import smollm2_path

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPES = {
    "llama": TransformerConfig(
        vocab_size=37, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, context=32
    ),
    "llama-untied": TransformerConfig(
        37, 32, 2, 4, context=32, tied=False, rope_base=500.0, norm_eps=1e-3
    ),
    "gpt2": TransformerConfig(37, 24, 2, 4, context=32, style="gpt2"),
    "gpt2-untied": TransformerConfig(37, 24, 2, 4, d_ff=40, context=32, style="gpt2", tied=False),
}
TOKENS = np.random.default_rng(0).integers(0, 37, (2, 20))


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def pair(request, tmp_path_factory):
    rng = np.random.default_rng(1)
    model = TransformerLM.init(jax.random.key(0), SHAPES[request.param])
    model = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), model)
    folder = save_pretrained(model, tmp_path_factory.mktemp("model"))
    peer, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    return model, peer


def test_exported_logits_are_equal(pair):
    model, peer = pair
    with torch.no_grad():
        theirs = peer(torch.from_numpy(TOKENS)).logits.numpy()
    np.testing.assert_allclose(model(TOKENS), theirs, atol=1e-4)
    np.testing.assert_allclose(forward(model, TOKENS), theirs, atol=1e-4)


def test_what_transformers_saves_is_read(pair, tmp_path):
    model, peer = pair
    peer.save_pretrained(tmp_path)
    again = load_pretrained(tmp_path)
    assert again.config == model.config
    np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=1e-6)


def test_the_adapter_agrees_on_trees_and_rows_of_different_lengths(pair):
    model, peer = pair
    mask = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
    outcomes = []
    for lm in (model, HFAdapter(peer)):

        @jax.jit
        def step(cache, lm=lm):
            at = cache.length[:, None] + jnp.array([0, 1, 1])
            tree, cache = lm.extend(cache, jnp.array([[3, 4, 5], [6, 7, 8]]), at, mask)
            cache = commit(cache, jnp.array([[0, 2]] * 2), jnp.array([2, 1]))
            return tree, lm.extend(cache, jnp.array([[9], [10]]))[0]

        outcomes.append(step(prefill(lm, lm.init_cache(2, 24), TOKENS, [7, 11])))
    for ours, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_smollm2_writes_what_transformers_writes():
    """Greedy text of a chat and of a program, 32 tokens each, on the same dequantised weights."""
    pytest.importorskip("gguf")
    pytest.importorskip("tokenizers")
    path = smollm2_path()
    ours = load_smollm2()
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

    @jax.jit
    def greedy(model, tokens):
        cache = model.init_cache(1, tokens.shape[1] + 32)
        cache = prefill(model, cache, tokens, jnp.array([tokens.shape[1]]))

        def step(carry, _):
            cache, last = carry
            logits, cache = model.extend(cache, last)
            last = jnp.argmax(logits[:, -1:], axis=-1)
            return (commit(cache, jnp.zeros((1, 1), int), jnp.array([1])), last), last[0, 0]

        return jax.lax.scan(step, (cache, tokens[:, -1:]), None, 32)[1]

    program = "def fibonacci(n):\n    if n < 2:\n        return 1234567890\n"
    for ids in (ours.encode_chat("What is the capital of France?"), ours.encode(program)):
        text = ours.decode(ids, keep_special=True)
        assert peer_tokenizer(text)["input_ids"] == ids.tolist()
        with torch.no_grad():
            theirs = peer(torch.tensor(ids[None].astype(np.int64))).logits.numpy()
            written = peer.generate(
                torch.tensor(ids[None].astype(np.int64)),
                attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
                max_new_tokens=32,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )[0, len(ids) :].numpy()
        np.testing.assert_allclose(ours.model(ids[None]), theirs, atol=2e-3)
        np.testing.assert_array_equal(greedy(ours.model, jnp.asarray(ids)[None]), written)
    answer = greedy(ours.model, ours.encode_chat("What is the capital of France?")[None])
    assert "Paris" in ours.decode(answer)
