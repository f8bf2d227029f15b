"""How other libraries name and lay out the weights: Hugging Face's Llama and GPT-2.

Each layout is a pair of functions between a `TransformerLM` and (config, tensors): the contents of
``config.json`` and of ``model.safetensors``. Llama stores a linear layer as (out, in), GPT-2 as
(in, out), which is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from privlearn.decoding.models import CausalSoftmax, TransformerConfig, TransformerLM
from privlearn.decoding.models.transformer import Block, Linear, Norm

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]


class Shelf:
    """Tensors to be taken one by one, with their shapes checked, and none left over.

    Parameters
    ----------
    tensors : mapping from name to array
    dtype : dtype
        What the weights become.
    prefix : str
        Put before every name.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], dtype: DTypeLike, prefix: str) -> None:
        self._left = dict(tensors)
        self._dtype = dtype
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return name in self._left or self._prefix + name in self._left

    def take(self, name: str, *shape: int, transposed: bool = False) -> np.ndarray:
        """The tensor of that name and shape, transposed if asked, and off the shelf."""
        full = self._prefix + name if self._prefix + name in self._left else name
        if full not in self._left:
            raise ValueError(
                f"tensors: {self._prefix + name!r} is missing; the file holds another model than "
                "its config says"
            )
        array = self._left.pop(full)
        if array.shape != shape:
            raise ValueError(
                f"tensors: {full!r} has shape {array.shape}, but its config asks for {shape}"
            )
        return array.T if transposed else array

    def done(self, ignored: tuple[str, ...] = ()) -> None:
        """Refuse what nobody took, but for names with an ignored ending."""
        left = [name for name in self._left if not name.endswith(ignored or ("\0",))]
        if left:
            raise ValueError(
                f"tensors: {len(left)} that the config knows nothing of, such as {left[0]!r}"
            )

    def array(self, value: np.ndarray) -> Array:
        """A weight in the precision asked for."""
        return jnp.asarray(np.ascontiguousarray(value), self._dtype)


def _need(config: Config, name: str) -> Any:
    if config.get(name) is None:
        raise ValueError(f"config: {name!r} is missing")
    return config[name]


def _refuse(config: Config, name: str, *allowed: Any) -> None:
    if config.get(name, allowed[0]) not in allowed:
        raise ValueError(f"config: {name}={config[name]!r} is not supported; only {allowed} are")


def llama_config(config: Config) -> TransformerConfig:
    """The shape that a Llama ``config.json`` describes.

    Raises
    ------
    ValueError
        For a variant that `TransformerLM` cannot express (scaled rotary angles, biases, another
        activation).
    """
    _refuse(config, "hidden_act", "silu")
    _refuse(config, "attention_bias", False)
    _refuse(config, "mlp_bias", False)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"config: rope_type={kind!r} is not supported; only 'default' is")
    return TransformerConfig(
        vocab_size=_need(config, "vocab_size"),
        d_model=_need(config, "hidden_size"),
        n_layers=_need(config, "num_hidden_layers"),
        n_heads=_need(config, "num_attention_heads"),
        d_ff=_need(config, "intermediate_size"),
        n_kv_heads=config.get("num_key_value_heads") or 0,
        d_head=config.get("head_dim") or 0,
        context=_need(config, "max_position_embeddings"),
        style="llama",
        tied=bool(config.get("tie_word_embeddings", False)),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_base=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
    )


def gpt2_config(config: Config) -> TransformerConfig:
    """The shape that a GPT-2 ``config.json`` describes; ValueError for variants out of reach."""
    _refuse(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    _refuse(config, "scale_attn_weights", True)
    _refuse(config, "scale_attn_by_inverse_layer_idx", False)
    return TransformerConfig(
        vocab_size=_need(config, "vocab_size"),
        d_model=_need(config, "n_embd"),
        n_layers=_need(config, "n_layer"),
        n_heads=_need(config, "n_head"),
        d_ff=config.get("n_inner") or 0,
        context=_need(config, "n_positions"),
        style="gpt2",
        tied=bool(config.get("tie_word_embeddings", True)),
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
    )


def _llama_block(shelf: Shelf, c: TransformerConfig, i: int) -> Block:
    queries, keys = c.n_heads * c.d_head, c.n_kv_heads * c.d_head

    def part(name: str, n_out: int, n_in: int) -> np.ndarray:
        return shelf.take(f"layers.{i}.{name}_proj.weight", n_out, n_in, transposed=True)

    def joined(group: str, **widths: int) -> Linear:
        parts = [part(f"{group}.{name}", width, c.d_model) for name, width in widths.items()]
        return Linear(shelf.array(np.concatenate(parts, axis=1)))

    def norm(name: str) -> Norm:
        weight = shelf.take(f"layers.{i}.{name}.weight", c.d_model)
        return Norm(shelf.array(weight), None, c.norm_eps)

    return Block(
        norm_1=norm("input_layernorm"),
        qkv=joined("self_attn", q=queries, k=keys, v=keys),
        out=Linear(shelf.array(part("self_attn.o", c.d_model, queries))),
        norm_2=norm("post_attention_layernorm"),
        up=joined("mlp", gate=c.d_ff, up=c.d_ff),
        down=Linear(shelf.array(part("mlp.down", c.d_model, c.d_ff))),
        attention=CausalSoftmax(),
        config=c,
    )


def _gpt2_block(shelf: Shelf, c: TransformerConfig, i: int) -> Block:
    def linear(name: str, n_in: int, n_out: int) -> Linear:
        weight = shelf.take(f"h.{i}.{name}.weight", n_in, n_out)
        return Linear(shelf.array(weight), shelf.array(shelf.take(f"h.{i}.{name}.bias", n_out)))

    return Block(
        norm_1=_gpt2_norm(shelf, c, f"h.{i}.ln_1"),
        qkv=linear("attn.c_attn", c.d_model, 3 * c.d_model),
        out=linear("attn.c_proj", c.d_model, c.d_model),
        norm_2=_gpt2_norm(shelf, c, f"h.{i}.ln_2"),
        up=linear("mlp.c_fc", c.d_model, c.d_ff),
        down=linear("mlp.c_proj", c.d_ff, c.d_model),
        attention=CausalSoftmax(),
        config=c,
    )


def _gpt2_norm(shelf: Shelf, c: TransformerConfig, name: str) -> Norm:
    weight, bias = (shelf.take(f"{name}.{part}", c.d_model) for part in ("weight", "bias"))
    return Norm(shelf.array(weight), shelf.array(bias), c.norm_eps)


def _head(shelf: Shelf, c: TransformerConfig) -> Array | None:
    if c.tied:
        # Some writers store the shared tensor twice.
        if "lm_head.weight" in shelf:
            shelf.take("lm_head.weight", c.vocab_size, c.d_model)
        return None
    return shelf.array(shelf.take("lm_head.weight", c.vocab_size, c.d_model, transposed=True))


def from_tensors(
    config: Config, tensors: Mapping[str, np.ndarray], *, dtype: DTypeLike = jnp.float32
) -> TransformerLM:
    """Build a model from what Hugging Face's Llama or GPT-2 stores.

    Parameters
    ----------
    config : dict
        As in ``config.json``; ``model_type`` is "llama" or "gpt2".
    tensors : mapping from name to array
        As in ``model.safetensors``.
    dtype : dtype, default float32

    Raises
    ------
    ValueError
        For another type of model, a missing or left-over tensor, or a shape that contradicts the
        config.
    """
    kind = config.get("model_type")
    if kind == "llama":
        c, prefix = llama_config(config), "model."
        shelf = Shelf(tensors, dtype, prefix)
        embedding, positions = shelf.take("embed_tokens.weight", c.vocab_size, c.d_model), None
        blocks = tuple(_llama_block(shelf, c, i) for i in range(c.n_layers))
        norm = Norm(shelf.array(shelf.take("norm.weight", c.d_model)), None, c.norm_eps)
    elif kind == "gpt2":
        c = gpt2_config(config)
        # The first published checkpoints carry no prefix.
        prefix = "transformer." if "transformer.wte.weight" in tensors else ""
        shelf = Shelf(tensors, dtype, prefix)
        embedding = shelf.take("wte.weight", c.vocab_size, c.d_model)
        positions = shelf.array(shelf.take("wpe.weight", c.context, c.d_model))
        blocks = tuple(_gpt2_block(shelf, c, i) for i in range(c.n_layers))
        norm = _gpt2_norm(shelf, c, "ln_f")
    else:
        raise ValueError(f"config: model_type={kind!r}; must be 'llama' or 'gpt2'")
    head = _head(shelf, c)
    # Masks and angles that old checkpoints stored beside the weights.
    shelf.done(("attn.bias", "attn.masked_bias", "rotary_emb.inv_freq"))
    return TransformerLM(shelf.array(embedding), positions, blocks, norm, head, c)


def to_tensors(model: TransformerLM, *, dtype: DTypeLike | None = None) -> tuple[Config, Tensors]:
    """What Hugging Face's Llama or GPT-2 would store of a model: the inverse of `from_tensors`.

    Parameters
    ----------
    model : TransformerLM
        With softmax attention in every layer.
    dtype : dtype, optional
        Of the arrays; that of the model if None.

    Returns
    -------
    config : dict
    tensors : dict from name to array

    Examples
    --------
    >>> import jax
    >>> from privlearn.decoding.models import TransformerConfig, TransformerLM
    >>> from privlearn.decoding.weights import to_tensors
    >>> config = TransformerConfig(vocab_size=16, d_model=8, n_layers=1, n_heads=2)
    >>> model = TransformerLM.init(jax.random.key(0), config)
    >>> to_tensors(model)[1]["model.layers.0.mlp.down_proj.weight"].shape  # (out, in)
    (8, 32)
    """
    others = [i for i, b in enumerate(model.blocks) if not isinstance(b.attention, CausalSoftmax)]
    if others:
        raise ValueError(f"model: layers {others} do not use softmax attention; no layout has them")
    c = model.config
    write = _llama_tensors if c.style == "llama" else _gpt2_tensors
    config, arrays = write(model)
    if model.head is not None:
        arrays["lm_head.weight"] = model.head.T
    target = np.dtype(dtype or model.dtype)
    config["dtype"] = target.name
    return config, {name: np.asarray(array).astype(target) for name, array in arrays.items()}


def _llama_tensors(model: TransformerLM) -> tuple[Config, dict[str, Array]]:
    c = model.config
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_ff,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.d_head,
        "hidden_act": "silu",
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_base,
        "rope_parameters": {"rope_theta": c.rope_base, "rope_type": "default"},
        "tie_word_embeddings": c.tied,
        # No token of ours opens or closes a text, and 1 and 2 are common words.
        "bos_token_id": None,
        "eos_token_id": None,
    }
    arrays = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.norm.weight}
    ends = (c.n_heads * c.d_head, (c.n_heads + c.n_kv_heads) * c.d_head)
    for i, block in enumerate(model.blocks):
        q, k, v = jnp.split(block.qkv.weight, ends, axis=1)
        gate, up = jnp.split(block.up.weight, 2, axis=1)
        parts = {"self_attn.q": q, "self_attn.k": k, "self_attn.v": v}
        parts |= {"self_attn.o": block.out.weight, "mlp.down": block.down.weight}
        parts |= {"mlp.gate": gate, "mlp.up": up}
        name = f"model.layers.{i}"
        arrays |= {f"{name}.{part}_proj.weight": weight.T for part, weight in parts.items()}
        arrays[f"{name}.input_layernorm.weight"] = block.norm_1.weight
        arrays[f"{name}.post_attention_layernorm.weight"] = block.norm_2.weight
    return config, arrays


def _gpt2_tensors(model: TransformerLM) -> tuple[Config, dict[str, Array]]:
    c = model.config
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": c.vocab_size,
        "n_embd": c.d_model,
        "n_inner": c.d_ff,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_positions": c.context,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    named: dict[str, Linear | Norm] = {"ln_f": model.norm}
    for i, block in enumerate(model.blocks):
        named |= {f"h.{i}.ln_1": block.norm_1, f"h.{i}.ln_2": block.norm_2}
        named |= {f"h.{i}.attn.c_attn": block.qkv, f"h.{i}.attn.c_proj": block.out}
        named |= {f"h.{i}.mlp.c_fc": block.up, f"h.{i}.mlp.c_proj": block.down}
    assert model.positions is not None  # the gpt2 style has them
    arrays = {"transformer.wte.weight": model.embedding, "transformer.wpe.weight": model.positions}
    for name, layer in named.items():
        assert layer.bias is not None  # the gpt2 style has biases everywhere
        arrays[f"transformer.{name}.weight"] = layer.weight
        arrays[f"transformer.{name}.bias"] = layer.bias
    return config, arrays
