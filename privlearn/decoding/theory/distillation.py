"""Divergences between a teacher p and a student q = softmax(z), and their gradients in z.

Zhou et al., "DistillSpec", ICLR 2024, arXiv 2310.08461, section 3. Nats; over the last axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from privlearn.decoding.theory._arguments import check_pair, check_range

#: Names of the divergences, in the order of the paper's tables.
DIVERGENCES = ("fkl", "rkl", "jsd", "tvd")


def fkl(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Forward KL, ``sum p log(p / q)``; infinite where the student forbids a teacher's token."""
    p, q = check_pair(p, q)
    return rel_entr(p, q).sum(axis=-1)


def rkl(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Reverse KL, ``sum q log(q / p)``."""
    return fkl(q, p)


def jsd(p: ArrayLike, q: ArrayLike, b: float = 0.5) -> np.ndarray:
    """``b KL(p, m) + (1 - b) KL(q, m)``, ``m = b p + (1 - b) q``.

    Divided by b (by 1 - b) it tends to FKL (RKL) as b -> 0 (1).
    """
    p, q = check_pair(p, q)
    b = float(check_range("b", b, 0, 1))
    m = b * p + (1 - b) * q
    return b * rel_entr(p, m).sum(axis=-1) + (1 - b) * rel_entr(q, m).sum(axis=-1)


def tvd(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Total variation, ``sum |p - q| / 2``: one minus the acceptance."""
    p, q = check_pair(p, q)
    return np.abs(p - q).sum(axis=-1) / 2


def divergence(name: str, p: ArrayLike, q: ArrayLike, b: float = 0.5) -> np.ndarray:
    """A divergence by name.

    Examples
    --------
    >>> p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    >>> [round(float(divergence(name, p, q)), 6) for name in DIVERGENCES]
    [0.498224, 0.584996, 0.125101, 0.4]
    """
    if name not in DIVERGENCES:
        raise ValueError(f"name must be one of {DIVERGENCES}, got {name!r}")
    return jsd(p, q, b) if name == "jsd" else {"fkl": fkl, "rkl": rkl, "tvd": tvd}[name](p, q)


def divergence_gradient(name: str, p: ArrayLike, q: ArrayLike, b: float = 0.5) -> np.ndarray:
    """Gradient with respect to the student's logits; q > 0 (and p > 0 for RKL).

    ``q - p`` (FKL), ``q (s - E_q s)`` with s = log(q/p) (RKL), (1 - b) log(q/m) (JSD), 1[q > p]
    (TVD).

    Examples
    --------
    >>> divergence_gradient("fkl", [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]).round(3).tolist()
    [-0.4, 0.0, 0.4]
    """
    p, q = check_pair(p, q)
    if name == "fkl":
        return q - p
    if name == "rkl":
        score = np.log(q / p)
    elif name == "jsd":
        b = float(check_range("b", b, 0, 1))
        score = (1 - b) * np.log(q / (b * p + (1 - b) * q))
    elif name == "tvd":
        score = (q > p).astype(float)
    else:
        raise ValueError(f"name must be one of {DIVERGENCES}, got {name!r}")
    return q * (score - (q * score).sum(axis=-1, keepdims=True))


class AcceptanceBounds(NamedTuple):
    """Lower bounds of the acceptance from a KL divergence, in either direction."""

    pinsker: np.ndarray
    bretagnolle_huber: np.ndarray


def acceptance_bounds(kl: ArrayLike) -> AcceptanceBounds:
    """``1 - sqrt(KL / 2)`` and ``1 - sqrt(1 - exp(-KL))``: a small KL means a large acceptance.

    Examples
    --------
    >>> [round(float(x), 4) for x in acceptance_bounds(0.498224)]
    [0.5009, 0.3736]
    """
    kl = check_range("kl", kl, 0, np.inf)
    return AcceptanceBounds(1 - np.sqrt(kl / 2), 1 - np.sqrt(-np.expm1(-kl)))
