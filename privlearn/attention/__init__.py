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
        "approxd",
        "arguments",
        "blocks",
        "decoding",
        "diagnosis",
        "figures",
        "hyper",
        "lsh",
        "modules",
        "patching",
        "polynomial",
        "polysketch",
        "sketches",
        "softmax",
        "theory",
        "training",
    },
    submod_attrs={
        "api": ["dot_product_attention"],
        "approxd": ["approximate_row_sums", "sort_lsh_mask"],
        "decoding": ["PolysketchState", "init_state", "polysketch_step"],
        "diagnosis": ["Diagnosis", "diagnose"],
        "hyper": ["hyper_attention"],
        "modules": ["PolynomialAttention", "PolysketchAttention"],
        "patching": ["losses_by_layers", "patch_with_hyper"],
        "polynomial": ["normalize_heads", "polynomial_attention"],
        "polysketch": ["pad_to_block", "polysketch_attention"],
        "sketches": ["LearnedSketch", "RandomSketch", "init_sketch"],
        "softmax": ["softmax_attention"],
    },
)
