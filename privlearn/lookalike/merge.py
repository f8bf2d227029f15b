"""The simple way to a minimum size: plain k-means, then merge what is too small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from .coordinates import FloatArray, group_sums, relabel


def kmeans_merge(
    Z: FloatArray, min_size: int, n_clusters: int, *, n_init: int, random_state: object
) -> NDArray[np.intp]:
    """Run k-means, then merge the smallest cluster into the nearest one while it is below m.

    A merged cluster's mean is recomputed before the next merge.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    min_size : int
    n_clusters : int
        For k-means; what is left after the merges is at most that.
    n_init : int
        Starts of k-means.
    random_state : int, RandomState or None

    Returns
    -------
    labels : ndarray of shape (n,)
    """
    distinct = len(np.unique(Z, axis=0))
    model = KMeans(min(n_clusters, distinct), n_init=n_init, random_state=random_state)
    labels = model.fit(Z).labels_.astype(np.intp)
    sizes = np.bincount(labels).astype(float)
    sums = group_sums(Z, labels, len(sizes))
    target = np.arange(len(sizes))
    while True:
        alive = np.flatnonzero(sizes > 0)
        small = int(alive[sizes[alive].argmin()])
        if sizes[small] >= min_size or len(alive) == 1:
            return relabel(target[labels])
        others = alive[alive != small]
        gap = sums[others] / sizes[others, None] - sums[small] / sizes[small]
        into = int(others[np.einsum("kd,kd->k", gap, gap).argmin()])
        sums[into] += sums[small]
        sizes[into] += sizes[small]
        sizes[small] = 0
        target[target == small] = into
