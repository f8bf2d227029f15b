"""The figures of sketch attention: errors of sketches and samples, scaling, quality, patching."""

# The order of import is the order of the report.
from privlearn.attention.figures import sketch  # noqa: I001
from privlearn.attention.figures import scaling
from privlearn.attention.figures import quality
from privlearn.attention.figures import hyper
from privlearn.attention.figures import patched

__all__ = ["hyper", "patched", "quality", "scaling", "sketch"]
