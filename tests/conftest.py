"""What holds for all tests: one hypothesis profile, and enough threads for XLA."""

import hypothesis

from privlearn.environment import widen_xla_pool

# Compilation by JAX takes longer than a deadline allows.
hypothesis.settings.register_profile("privlearn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("privlearn")
widen_xla_pool()
