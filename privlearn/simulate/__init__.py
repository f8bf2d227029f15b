"""Monte Carlo on JAX, estimates with standard errors, and sweeps that resume.

``monte_carlo`` averages a pure function of a key over many keys, ``run_trials`` returns every
outcome, ``sweep`` calls a function at every point of a grid and remembers what is finished, and
``float64`` is 64-bit JAX for one ``with`` block.

Importing this package imports no JAX: its modules do so when a function is called. They are
imported here, and not lazily, because a module and its function share a name: whoever imported
``privlearn.simulate.sweep`` first would put the module in the function's place.
"""

from privlearn.simulate.cache import CacheWarning
from privlearn.simulate.estimate import Estimate
from privlearn.simulate.monte_carlo import monte_carlo, run_trials
from privlearn.simulate.precision import float64
from privlearn.simulate.sweep import SweepError, SweepResult, sweep

__all__ = [
    "CacheWarning",
    "Estimate",
    "SweepError",
    "SweepResult",
    "float64",
    "monte_carlo",
    "run_trials",
    "sweep",
]
