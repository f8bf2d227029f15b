"""What lossy verification emits.

Leviathan et al., ICML 2023, arXiv 2211.17192, appendix; Zhou et al., "DistillSpec", ICLR 2024,
arXiv 2310.08461. The law of the output was derived for the residual ``max(p - q, 0)`` and checked
by enumeration.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from privlearn.decoding.theory._arguments import check_pair, check_range


class LenienceLaw(NamedTuple):
    """The first token of a lenient step."""

    acceptance: float
    law: np.ndarray  #: (V,) law of the emitted token
    largest_ratio: float  #: max of law / p where p > 0


def lenience_law(
    p: ArrayLike,
    q: ArrayLike,
    eps: float,
    function: Literal["linear", "squared", "exponential"] = "linear",
) -> LenienceLaw:
    """Law of one drafted position: ``min(q, f(p)) + (1 - A) residual``, ``A = sum min(q, f(p))``.

    With "linear" no token has more than ``p / eps``.

    Examples
    --------
    >>> found = lenience_law([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], 0.5)
    >>> round(found.acceptance, 6), found.law.round(6).tolist(), round(found.largest_ratio, 6)
    (0.7, [0.5, 0.3, 0.2], 2.0)
    """
    p, q = check_pair(p, q)
    eps = float(check_range("eps", eps, 0, 1))
    if eps == 0:
        raise ValueError("eps must be > 0, got 0")
    powers = {"linear": p / eps, "squared": p / eps**2, "exponential": p**eps}
    if function not in powers:
        raise ValueError(f"function must be one of {list(powers)}, got {function!r}")
    kept = np.minimum(q, powers[function])
    rest = np.maximum(p - q, 0)
    rest = rest / rest.sum() if rest.sum() > 0 else p
    law = kept + (1 - kept.sum()) * rest
    return LenienceLaw(float(kept.sum()), law, float((law[p > 0] / p[p > 0]).max()))


def ensemble_law(p: ArrayLike, q: ArrayLike, weight: float) -> LenienceLaw:
    """Verification against ``w p + (1 - w) q``: that law, acceptance ``1 - w TV(p, q)``.

    Examples
    --------
    >>> ensemble_law([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], 0.5).law.round(6).tolist()
    [0.4, 0.3, 0.3]
    """
    p, q = check_pair(p, q)
    w = float(check_range("weight", weight, 0, 1))
    law = w * p + (1 - w) * q
    accepted = 1 - w * np.abs(p - q).sum() / 2
    return LenienceLaw(float(accepted), law, float((law[p > 0] / p[p > 0]).max()))
