"""A small family of trained models: one tokenizer, three sizes, read from the package itself."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, submodules={"train"}, submod_attrs={})
