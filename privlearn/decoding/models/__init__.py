"""Causal language models behind one protocol: a cache of slots, extend, commit.

A model is an equinox module, hence a pytree of its weights: pass it to jitted functions as an
argument. `protocol` says what a model must have, `cache` what may be done to a cache,
`tabular` holds models small enough to enumerate, `transformer` the real ones.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "attention",
        "cache",
        "checks",
        "huggingface",
        "protocol",
        "tabular",
        "transformer",
    },
    submod_attrs={
        "attention": ["Attention", "CausalSoftmax"],
        "cache": [
            "Cache",
            "advance",
            "commit",
            "extend_slots",
            "repeat_rows",
            "room",
            "set_length",
            "take_rows",
            "visible_slots",
        ],
        "checks": ["Prompts", "check_logits", "check_same_vocabulary", "pack_prompts"],
        "huggingface": ["HFAdapter"],
        "protocol": ["CausalLM", "forward", "prefill"],
        "tabular": ["TabularLM"],
        "transformer": ["TransformerConfig", "TransformerLM"],
    },
)
