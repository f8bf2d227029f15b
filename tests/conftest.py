"""One hypothesis profile for all tests: compilation by JAX takes longer than a deadline allows."""

import hypothesis

hypothesis.settings.register_profile("privlearn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("privlearn")
