"""Attention that is linear in time and memory: sketched polynomials, hashed softmax, blocks.

All take arrays in the layout of `jax.nn.dot_product_attention`, (B, T, N, H):

- for a model to be trained: `polysketch_attention` (Kacham, Mirrokni and Zhong 2024, arXiv
  2310.01655) with a sketch from `init_sketch`, and `polynomial_attention`, its exact form;
- for a model that was trained with softmax: `hyper_attention` (Han et al. 2024, arXiv 2310.05869),
  after `diagnose` told from the model's own queries and keys (`collect_heads`) whether it suits;
- exact and in blocks, for everything else: `softmax_attention`.

`dot_product_attention` chooses among them by name. `PolysketchAttention` and `PolynomialAttention`
are equinox modules; `attention_hook` and `patch_with_hyper` put any of these into chosen layers of
a trained model, and `losses_by_layers` says what that costs. `init_state` and `polysketch_step`
decode token by token with a state of constant size. `training` has small models and tasks,
`theory` the closed forms.
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
        "patching": [
            "PatchedLoss",
            "attention_hook",
            "collect_heads",
            "losses_by_layers",
            "patch_with_hyper",
            "text_losses",
        ],
        "polynomial": ["normalize_heads", "polynomial_attention"],
        "polysketch": ["pad_to_block", "polysketch_attention"],
        "sketches": ["LearnedSketch", "RandomSketch", "init_sketch"],
        "softmax": ["softmax_attention"],
        "training": ["SmallLM", "TextBatches", "train"],
    },
)
