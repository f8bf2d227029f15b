"""Re-identification risk: how likely is a user found again in what is released about them.

Three ways in:

* `reidentification_report`: a table of events in, a privacy review out.
* `ReidentificationAttack`: link the rows of one site to the rows of another, with intervals.
* `theory`: what no attacker can exceed, and exact success in small worlds.

Source: Carey, Dick, Epasto, Javanmard, Karlin, Kumar, Munoz Medina, Mirrokni, Nunes,
Vassilvitskii, Zhong, "Measuring Re-identification Risk", SIGMOD 2023, arXiv 2304.07210.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={
        "api", "attack", "channels", "charts", "draws", "histories", "kernels", "report",
        "result", "simulation", "theory",
    },
    submod_attrs={
        "api": ["TopicsApi"],
        "attack": ["ReidentificationAttack"],
        "channels": ["bounds_from_model", "bounds_from_posterior", "bounds_from_sampler"],
        "report": ["ReidentificationReport", "reidentification_report"],
        "result": ["AttackResult", "Rate"],
    },
)  # fmt: skip
