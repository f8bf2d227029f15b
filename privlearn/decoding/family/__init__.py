"""A small family of trained models: one tokenizer, three sizes, read from the package itself.

The weights were trained by `privlearn.decoding.family.train` on CPython's manual and source; the
card (`load_card`) says on which files, and how well they read the files that were held out.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"evaluate", "shipped", "train"},
    submod_attrs={
        "evaluate": ["Score", "agreement", "nats_per_byte"],
        "shipped": [
            "Family",
            "load_card",
            "load_family",
            "load_held_out",
            "load_model",
            "load_tokenizer",
            "sample_prompts",
        ],
    },
)
