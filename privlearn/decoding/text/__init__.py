"""Text to train and test on, and a small byte-pair tokenizer to read it with."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"corpora", "tokenizer"},
    submod_attrs={
        "corpora": ["Split", "is_held_out", "load_corpus", "split_by_file"],
        "tokenizer": ["BytePairTokenizer", "train_tokenizer"],
    },
)
