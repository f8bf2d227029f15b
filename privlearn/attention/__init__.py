"""Attention that is linear in time and memory: sketched polynomials, hashed softmax, blocks.

`polysketch_attention` (Kacham, Mirrokni and Zhong 2024) and `polynomial_attention`, its exact
form; `hyper_attention` (Han et al. 2024) and `softmax_attention`, exact and blocked. All take
arrays in the layout of `jax.nn.dot_product_attention`; `dot_product_attention` chooses by name.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "api",
        "arguments",
        "blocks",
        "decoding",
        "figures",
        "hyper",
        "lsh",
        "modules",
        "polynomial",
        "polysketch",
        "sketches",
        "softmax",
        "theory",
        "training",
    },
    submod_attrs={
        "api": ["dot_product_attention"],
        "decoding": ["PolysketchState", "init_state", "polysketch_step"],
        "hyper": ["hyper_attention"],
        "modules": ["PolynomialAttention", "PolysketchAttention"],
        "polynomial": ["normalize_heads", "polynomial_attention"],
        "polysketch": ["pad_to_block", "polysketch_attention"],
        "sketches": ["LearnedSketch", "RandomSketch", "init_sketch"],
        "softmax": ["softmax_attention"],
    },
)
