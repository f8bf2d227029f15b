"""Real releases in the form in which `privlearn.privacy.audit_epsilon` attacks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from privlearn.causal.cells import Cells
from privlearn.causal.mechanism import ClusterDP


def release_outputs(mechanism: Any) -> Callable[[Any, int], np.ndarray]:
    """Make a function: outcomes of one treated cell, number of runs -> all that is seen of it.

    All runs are clusters of one release, which draws from the operating system's entropy as any
    release does; the control cell beside the treated one holds lowest outcomes.

    Parameters
    ----------
    mechanism : mechanism or baseline of `privlearn.causal`

    Returns
    -------
    callable
        ``run(codes, n)`` with value codes of shape (m,); gives an array of shape (n, width):
        private outcomes, the prior before them if one is released, or means or counts.

    Raises
    ------
    ValueError
        If the mechanism pools its priors over clusters: its runs would not be independent.

    Examples
    --------
    >>> from privlearn.causal import OutcomeGrid, UniformPriorDP
    >>> from privlearn.privacy import audit_epsilon
    >>> mechanism = UniformPriorDP.for_budget(OutcomeGrid.of([0, 1]), 1.0)
    >>> outputs = release_outputs(mechanism)
    >>> outputs([1, 0], 5).shape
    (5, 2)
    >>> found = audit_epsilon(
    ...     outputs, [0, 0], [1, 0], n=20_000, batched=True, confidence=1 - 1e-9
    ... )
    >>> found.contradicts(mechanism.guarantee)
    False
    """
    if getattr(mechanism, "uses_data", False) and mechanism.priors != "cell":
        raise ValueError(
            f"mechanism must not pool its priors over clusters, got {mechanism.name}; "
            "audit ClusterDP, or one release a run"
        )

    def run(values: Any, n: int) -> np.ndarray:
        m = len(values)
        codes = np.tile(np.concatenate([np.zeros(m, int), values]), n).astype(np.int32)
        arms = np.tile(np.repeat([0, 1], m), n)
        cells = (2 * np.repeat(np.arange(n), 2 * m) + arms).astype(np.int32)
        layout = Cells(cells, tuple((i,) for i in range(n)), np.full((n, 2), m))
        release = mechanism.release_codes(codes, layout)
        if hasattr(release, "means"):
            seen = release.means[:, 1] if release.counts is None else release.counts[:, 1]
            return seen.reshape(n, -1)
        outcomes = release.outcomes.reshape(n, -1)[:, m:]
        if isinstance(mechanism, ClusterDP):
            return np.concatenate([release.priors[:, 1], outcomes], axis=1)
        return outcomes

    return run
