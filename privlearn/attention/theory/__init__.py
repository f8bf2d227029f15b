"""Closed forms of sketch attention: moments of sketches, costs and break-even lengths.

NumPy and SciPy only. `sketch` holds the moments of polynomial sketches, `costs` operations and
bytes.
"""
