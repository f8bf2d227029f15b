"""Weights in and out: safetensors in the layouts of Hugging Face, and models in GGUF files."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"gguf_file", "layouts", "pretrained", "smollm", "tensor_file"},
    submod_attrs={
        "gguf_file": ["load_gguf"],
        "layouts": ["from_tensors", "to_tensors"],
        "pretrained": ["load_pretrained", "save_pretrained"],
        "smollm": ["SmolLM", "load_smollm2"],
        "tensor_file": ["read_tensors", "write_tensors"],
    },
)
