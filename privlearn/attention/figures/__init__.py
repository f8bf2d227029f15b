"""The figures of sketch attention: errors of sketches and samples, scaling, quality, patching."""

from privlearn.attention.figures import hyper, quality, scaling, sketch

__all__ = ["hyper", "quality", "scaling", "sketch"]
