"""Privacy: what a guarantee is, mechanisms that keep it, a ledger that adds it up, an audit.

Importing this package imports neither JAX nor OpenDP; each loads when a name needs it.

Examples
--------
>>> from privlearn.privacy import LaplaceMechanism, Ledger
>>> mechanism = LaplaceMechanism(sensitivity=1.0, epsilon=0.5, unit="one response")
>>> ledger = Ledger(epsilon=1.0, unit="one response")
>>> print(ledger.spend(mechanism, label="mean by campaign"))
epsilon = 0.5, delta = 0, unit: one response, neighbours: replace one
>>> mechanism.release([10.0, 20.0]).shape
(2,)
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"audit", "guarantee", "kernels", "ledger", "mechanisms", "sums", "theory"},
    submod_attrs={
        "audit": ["AuditResult", "audit_epsilon"],
        "guarantee": ["Guarantee"],
        "ledger": ["BudgetExceededError", "Entry", "Ledger", "MixedGuaranteesError"],
        "mechanisms": [
            "DiscreteLaplaceMechanism",
            "GaussianMechanism",
            "LaplaceMechanism",
            "RandomizedResponse",
        ],
        "sums": ["SumGrid", "release_means", "simulate_means"],
    },
)
