"""Closed forms of sketch attention: moments of sketches, costs and break-even lengths.

NumPy and SciPy only. `sketch` holds the moments of polynomial sketches, `costs` operations and
bytes, `hyper` what is known of hashed softmax attention (a module of its own: ``theory.hyper``).
"""

from privlearn.attention.theory import hyper
from privlearn.attention.theory.costs import (
    break_even_length,
    cache_break_even,
    exact_flops,
    learned_parameters,
    minimum_bytes,
    n_features,
    polysketch_flops,
    state_floats,
)
from privlearn.attention.theory.sketch import (
    frobenius_error,
    legacy_shrinkage,
    overlap,
    product_moments,
    sketch_second_moment,
    sketch_variance,
    weight_bias,
    weight_rms,
)

__all__ = [
    "break_even_length",
    "cache_break_even",
    "exact_flops",
    "frobenius_error",
    "hyper",
    "learned_parameters",
    "legacy_shrinkage",
    "minimum_bytes",
    "n_features",
    "overlap",
    "polysketch_flops",
    "product_moments",
    "sketch_second_moment",
    "sketch_variance",
    "state_floats",
    "weight_bias",
    "weight_rms",
]
