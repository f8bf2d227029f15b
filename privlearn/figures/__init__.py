"""Figures: a register of what the papers show, one chart theme, and the report page.

A topic's ``figures.py`` registers `Figure` values, drawn with the pieces in `marks`;
`build` makes their data, charts and page.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["marks", "theme"],
    submod_attrs={
        "registry": [
            "PROFILES",
            "Figure",
            "Registry",
            "discover",
            "get",
            "names",
            "register",
            "select",
        ],
        "report": ["BuildReport", "Outcome", "build"],
        "theme": ["PALETTE"],
    },
)
