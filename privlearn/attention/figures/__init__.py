"""The figures of sketch attention: errors of sketches, scaling, quality against time."""
