"""Weights survive the way out and in, and a file that is not what it should be is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import HFAdapter, TransformerConfig, TransformerLM
from privlearn.decoding.weights import (
    from_tensors,
    load_pretrained,
    read_tensors,
    save_pretrained,
    to_tensors,
    write_tensors,
)

LLAMA = TransformerConfig(
    vocab_size=37, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, context=32
)
SHAPES = {
    "llama": LLAMA,
    "llama-untied": dataclasses.replace(LLAMA, tied=False, rope_base=500.0, norm_eps=1e-3),
    "gpt2": TransformerConfig(37, 24, 2, 4, context=32, style="gpt2"),
    "gpt2-untied": TransformerConfig(37, 24, 2, 4, d_ff=40, context=32, style="gpt2", tied=False),
}


def random_model(config, seed=0):
    """Every weight random and large, biases and norms too."""
    model = TransformerLM.init(jax.random.key(seed), config)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), model)


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def model(request):
    return random_model(SHAPES[request.param])


def same(one, two):
    return one.config == two.config and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    )


def test_a_saved_model_comes_back_bit_for_bit(model, tmp_path):
    assert same(load_pretrained(save_pretrained(model, tmp_path / "m")), model)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_files_come_back_rounded(tmp_path, dtype):
    model = random_model(LLAMA)
    again = load_pretrained(save_pretrained(model, tmp_path, dtype=dtype))
    assert same(again, model.astype(dtype).astype(jnp.float32))
    assert load_pretrained(tmp_path, dtype=dtype).dtype == dtype


def test_a_divided_file_is_read_whole(tmp_path):
    model = random_model(LLAMA)
    config, tensors = to_tensors(model)
    parts = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(parts.values()):
        write_tensors(tmp_path / part, {n: t for n, t in tensors.items() if parts[n] == part})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert same(load_pretrained(tmp_path), model)


def test_checkpoints_without_a_prefix_and_with_stored_masks_are_read():
    model = random_model(SHAPES["gpt2"])
    config, tensors = to_tensors(model)
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    bare["h.0.attn.bias"] = np.ones((1, 1, 32, 32), np.float32)
    bare["lm_head.weight"] = tensors["transformer.wte.weight"]
    assert same(from_tensors(config, bare), model)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-5]), "cut short"),
        (lambda f: f.write_bytes(b"no weights at all, just words"), "not a readable safetensors"),
        (lambda f: f.write_bytes(b""), "not a readable safetensors"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, message):
    save_pretrained(random_model(LLAMA), tmp_path)
    damage(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def changed(tensors, name, value):
    return (
        {**tensors, name: value}
        if value is not None
        else {n: t for n, t in tensors.items() if n != name}
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.norm.weight", None, r"'model.norm.weight' is missing"),
        ("model.norm.weight", np.ones(5, np.float32), r"shape \(5,\).*asks for \(24,\)"),
        ("model.extra", np.ones(5, np.float32), "knows nothing of, such as 'model.extra'"),
    ],
)
def test_weights_of_another_model_are_refused(name, value, message):
    config, tensors = to_tensors(random_model(LLAMA))
    with pytest.raises(ValueError, match=message):
        from_tensors(config, changed(tensors, name, value))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    write_tensors(tmp_path / "a", {"good": np.ones(2), "bad": np.array([1.0, bad])})
    with pytest.raises(ValueError, match="'bad' holds NaN or infinite"):
        read_tensors(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert'"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
    ],
)
def test_configs_out_of_reach_are_refused(change, message):
    config, tensors = to_tensors(random_model(LLAMA))
    with pytest.raises(ValueError, match=message):
        from_tensors(config | change, tensors)


def test_a_missing_or_broken_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path / "nowhere")
    save_pretrained(random_model(LLAMA), tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not a JSON file"):
        load_pretrained(tmp_path)


def test_another_attention_has_no_layout():
    odd = random_model(LLAMA).with_attention(lambda q, k, v: v, layers=[0])
    with pytest.raises(ValueError, match=r"layers \[0\]"):
        to_tensors(odd)


def test_an_adapter_refuses_what_is_no_language_model():
    with pytest.raises(TypeError, match=r"no config\.vocab_size"):
        HFAdapter(object())
