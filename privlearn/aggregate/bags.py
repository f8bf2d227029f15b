"""Ways to cut rows into bags, and what each way does to label privacy.

A bag is the unit whose mean response becomes known. Every builder here returns a
`BagAssignment`: an integer array with one bag id per row, ids 0, 1, ..., m - 1, that also knows
how it was made and whether the labels had a part in it. Label differential privacy of released
bag means rests on membership being independent of the responses, so
`privlearn.aggregate.release_bags` refuses an assignment whose ``label_private`` is False.

Bags have exactly ``k`` rows. When ``k`` does not divide ``n``, the ``n mod k`` rows left over
form one last, smaller bag; no row is ever dropped. (The asymptotic theory is for equal bags: its
simulations use an ``n`` that ``k`` divides.)

Which bags suit which loss (re-derived for linear models and checked by simulation): feature
clusters suit the bag loss, because they keep the bag means of the features far apart; bags sorted
by a prediction suit the instance loss, because they keep the regression function constant within
a bag.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

__all__ = [
    "BagAssignment",
    "BagIndex",
    "feature_clustered_bags",
    "index_bags",
    "label_sorted_bags",
    "prediction_sorted_bags",
    "random_bags",
]


class BagAssignment(np.ndarray):
    """One integer bag id per row, with a record of where the bags come from.

    Use it as the array that it is. Slices, copies and pickles keep the record; ``np.asarray``
    drops it, and so does storing the ids as a column of a data frame.

    Attributes
    ----------
    method : str
        How the bags were built.
    label_private : bool
        Whether membership is independent of the labels. If it is False, the membership itself
        tells something about single labels, and no release that publishes it is label-private.

    Examples
    --------
    >>> bags = random_bags(6, k=2, random_state=0)
    >>> bags.shape, bags.method, bags.label_private
    ((6,), 'random', True)
    >>> label_sorted_bags([0.3, 0.1, 0.2, 0.9], k=2)[:3].label_private
    False
    """

    method: str
    label_private: bool

    def __new__(cls, ids: ArrayLike, *, method: str, label_private: bool) -> BagAssignment:
        """View ``ids`` as int64 and attach the record."""
        array = np.asarray(ids, dtype=np.int64).view(cls)
        array.method = method
        array.label_private = label_private
        return array

    def __array_finalize__(self, source: object) -> None:
        # What was derived from an unknown array promises nothing.
        self.method = getattr(source, "method", "unknown")
        self.label_private = getattr(source, "label_private", False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # Arithmetic and comparisons give plain arrays: they are no longer an assignment.
        plain = (np.asarray(x) if isinstance(x, BagAssignment) else x for x in inputs)
        if "out" in kwargs:
            kwargs["out"] = tuple(
                np.asarray(x) if isinstance(x, BagAssignment) else x for x in kwargs["out"]
            )
        return getattr(ufunc, method)(*plain, **kwargs)

    def __reduce__(self) -> Any:
        rebuild, arguments, state = cast("tuple[Any, Any, tuple[Any, ...]]", super().__reduce__())
        return rebuild, arguments, (*state, self.method, self.label_private)

    def __setstate__(self, state: Any) -> None:
        *state, self.method, self.label_private = state
        super().__setstate__(tuple(state))


class BagIndex(NamedTuple):
    """Bags of any id type as consecutive integers."""

    #: (n,) int64: the position in ``labels`` of each row's bag.
    codes: np.ndarray
    #: (m,) the distinct bag ids, sorted.
    labels: np.ndarray
    #: (m,) int64: rows in each bag, all at least 1.
    sizes: np.ndarray


def index_bags(bags: ArrayLike, n_rows: int | None = None) -> BagIndex:
    """Map bag ids to 0, ..., m - 1, in their sorted order.

    Parameters
    ----------
    bags : array-like of shape (n,)
        Integer or string bag ids.
    n_rows : int, optional
        The number of rows that there must be.

    Returns
    -------
    BagIndex

    Raises
    ------
    TypeError
        If the ids are neither integers nor strings. Floats are refused because ids beyond 2**53
        would silently fall together, and mixed objects because they have no order.
    ValueError
        If there are no rows, the wrong number of rows, or more than one axis.

    Examples
    --------
    >>> index_bags(["b", "a", "b"])
    BagIndex(codes=array([1, 0, 1]), labels=array(['a', 'b'], dtype='<U1'), sizes=array([1, 2]))
    """
    ids = np.asarray(bags)
    if ids.ndim != 1:
        raise ValueError(f"bags must have one axis, got shape {ids.shape}")
    if n_rows is not None and len(ids) != n_rows:
        raise ValueError(f"bags must have one id per row: got {len(ids)} ids for {n_rows} rows")
    if len(ids) == 0:
        raise ValueError("bags must name at least one row, got none")
    if ids.dtype.kind == "O" and all(isinstance(bag, str) for bag in ids):
        ids = ids.astype(str)
    if ids.dtype.kind not in "iuUT":
        hint = {
            "O": " (missing values, or integers beyond 64 bits?)",
            "f": " (convert ids that are whole numbers with astype(int))",
        }.get(ids.dtype.kind, "")
        raise TypeError(f"bags must be integers or strings, got dtype {ids.dtype}{hint}")
    labels, codes, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    return BagIndex(codes.astype(np.int64), labels, sizes.astype(np.int64))


def random_bags(
    n: int, k: int, random_state: int | np.random.Generator | np.random.RandomState | None = None
) -> BagAssignment:
    """Put ``n`` rows into bags of ``k`` uniformly at random.

    Parameters
    ----------
    n : int
        Number of rows.
    k : int
        Rows per bag; the last bag takes the ``n mod k`` rows left over, if any.
    random_state : int, Generator, RandomState or None
        Source of randomness.

    Returns
    -------
    BagAssignment
        Label-private.

    Examples
    --------
    >>> np.bincount(random_bags(7, k=3, random_state=0))
    array([3, 3, 1])
    """
    sizes = _bag_sizes(n, k)
    order = _generator(random_state).permutation(n)
    return BagAssignment(_cut(order, sizes), method="random", label_private=True)


def prediction_sorted_bags(
    scores: ArrayLike, k: int, *, scores_use_labels: bool = True
) -> BagAssignment:
    """Sort rows by a predicted response and cut the order into runs of ``k``.

    For equal sizes this is 1-D size-constrained k-means of the scores, the bagging that is best
    for the instance loss when the score is E[y|x] (Javanmard et al., "PriorBoost", arXiv
    2402.04987). Ties keep their order; the last bag takes the ``n mod k`` highest scores.

    Parameters
    ----------
    scores : array-like of shape (n,)
        One finite prediction per row.
    k : int
        Rows per bag.
    scores_use_labels : bool, default=True
        Whether the model behind the scores has seen the responses that will be released.
        A model fitted to them passes them on to the membership, so the default is the careful
        answer: the bags count as label-private only if you say False, which is right for scores
        from other people's data, from public knowledge, or from an earlier private release whose
        budget is accounted for.

    Returns
    -------
    BagAssignment
        Label-private if ``scores_use_labels`` is False.

    Examples
    --------
    >>> np.asarray(prediction_sorted_bags([0.9, 0.1, 0.8, 0.2], k=2))
    array([1, 0, 1, 0])
    """
    values = _finite_vector(scores, "scores")
    order = np.argsort(values, kind="stable")
    return BagAssignment(
        _cut(order, _bag_sizes(len(values), k)),
        method="prediction-sorted",
        label_private=not scores_use_labels,
    )


def label_sorted_bags(y: ArrayLike, k: int) -> BagAssignment:
    """Sort rows by the response itself and cut the order into runs of ``k``.

    **Not label-private**: who shares a bag with whom tells the order of the labels, whatever
    noise is later put on the means. Only for an aggregator whom everybody trusts. It also makes
    the bag loss biased, because bags are then selected on the response.

    Parameters
    ----------
    y : array-like of shape (n,)
        One finite response per row.
    k : int
        Rows per bag; the last bag takes the ``n mod k`` largest responses left over, if any.

    Returns
    -------
    BagAssignment
        With ``label_private`` False, so that `privlearn.aggregate.release_bags` refuses it.

    Examples
    --------
    >>> bags = label_sorted_bags([3.0, 1.0, 2.0, 9.0], k=2)
    >>> np.asarray(bags), bags.label_private
    (array([1, 0, 0, 1]), False)
    """
    values = _finite_vector(y, "y")
    order = np.argsort(values, kind="stable")
    return BagAssignment(
        _cut(order, _bag_sizes(len(values), k)), method="label-sorted", label_private=False
    )


def feature_clustered_bags(
    X: ArrayLike,
    k: int,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
    *,
    max_rounds: int = 15,
    max_block: int = 512,
) -> BagAssignment:
    """Cluster the features into bags of exactly ``k`` rows (size-constrained k-means).

    Centres start at random rows. Each round solves the linear assignment of rows to ``k`` slots
    per centre on squared distances, exactly, and moves every centre to the mean of its rows;
    it stops when nothing changes or after ``max_rounds``. Feature clusters are the bags to take
    for the bag loss (Agarwal et al., "Aggregating Data for Optimal and Private Learning", arXiv
    2411.19045).

    An exact assignment of n rows costs O(n^3) time and n^2 memory. More than ``max_block`` rows
    are therefore first halved, again and again, along the direction in which they vary most,
    always between whole bags, and each block is clustered by itself. Bags stay exact in size;
    only rows near a cut cannot meet rows on its other side. Time is then linear in n, about
    0.05 ms a row (1e5 rows of 4 features: 5 s on one core). Bags larger than ``max_block``
    come from the halving alone.

    Features are public under label privacy, so clustering them costs no budget. Scale them
    first: distances are Euclidean in the units given. A few predictive features work better
    than many, because with many no bag can be tight.

    Parameters
    ----------
    X : array-like of shape (n, p)
        Finite features.
    k : int
        Rows per bag; one bag takes the ``n mod k`` rows left over, if any.
    random_state : int, Generator, RandomState or None
        Picks the first centres.
    max_rounds : int, default=15
        Most rounds of assignment.
    max_block : int, default=512
        Most rows that are assigned jointly.

    Returns
    -------
    BagAssignment
        Label-private.

    Examples
    --------
    >>> X = [[0.0], [5.0], [0.1], [5.1], [0.2], [5.2]]
    >>> bags = feature_clustered_bags(X, k=3, random_state=0)
    >>> bool(bags[0] == bags[2] == bags[4] != bags[1] == bags[3] == bags[5])
    True
    """
    rows = np.asarray(X, dtype=float)
    if rows.ndim != 2:
        raise ValueError(f"X must have two axes (rows, features), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"X must be finite, got {(~np.isfinite(rows)).sum()} NaN or infinite")
    for name, value in (("max_rounds", max_rounds), ("max_block", max_block)):
        if not (isinstance(value, (int, np.integer)) and value >= 1):
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    sizes = _bag_sizes(len(rows), k)
    rng = _generator(random_state)
    ids = np.empty(len(rows), dtype=np.int64)
    blocks = [(np.arange(len(rows)), np.arange(len(sizes)))]
    while blocks:
        members, bags = blocks.pop()
        if len(bags) == 1:
            ids[members] = bags[0]
        elif len(members) <= max_block:
            ids[members] = bags[
                _size_constrained_kmeans(rows[members], sizes[bags], max_rounds, rng)
            ]
        else:
            half = len(bags) // 2
            order = members[_principal_order(rows[members])]
            cut = sizes[bags[:half]].sum()
            blocks += [(order[cut:], bags[half:]), (order[:cut], bags[:half])]
    return BagAssignment(ids, method="feature-clustered", label_private=True)


def _size_constrained_kmeans(
    rows: np.ndarray, sizes: np.ndarray, max_rounds: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions in ``sizes`` for each row: Lloyd's rounds with exact assignment to slots."""
    centres = rows[rng.choice(len(rows), size=len(sizes), replace=False)]
    slots = np.repeat(np.arange(len(sizes)), sizes)
    ids = np.full(len(rows), -1)
    for _ in range(max_rounds):
        cost = cdist(rows, centres, "sqeuclidean")
        _, slot = linear_sum_assignment(cost[:, slots])
        if np.array_equal(slots[slot], ids):
            break
        ids = slots[slot]
        order = np.argsort(ids, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        centres = np.add.reduceat(rows[order], starts, axis=0) / sizes[:, None]
    return ids


def _principal_order(rows: np.ndarray) -> np.ndarray:
    """Order of the rows along their direction of largest variance."""
    centred = rows - rows.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return np.argsort(centred @ direction, kind="stable")


def _bag_sizes(n: int, k: int) -> np.ndarray:
    """Sizes of the bags of ``n`` rows: all ``k``, then what is left over."""
    for name, value in (("n", n), ("k", k)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if n < 1:
        raise ValueError(f"there must be at least one row to put into bags, got {n}")
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of rows ({n}), got {k}")
    full, left_over = divmod(int(n), int(k))
    return np.array([k] * full + [left_over] * (left_over > 0), dtype=np.int64)


def _cut(order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Give the rows in ``order`` to bags 0, 1, ... of the given sizes."""
    ids = np.empty(len(order), dtype=np.int64)
    ids[order] = np.repeat(np.arange(len(sizes)), sizes)
    return ids


def _finite_vector(values: ArrayLike, name: str) -> np.ndarray:
    """``values`` as a float vector, or an error that names it."""
    vector = np.asarray(values, dtype=float)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {vector.shape}")
    bad = int((~np.isfinite(vector)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite values")
    return vector


def _generator(
    random_state: int | np.random.Generator | np.random.RandomState | None,
) -> np.random.Generator:
    """Make a NumPy generator from anything that scikit-learn or NumPy calls a random state."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.Generator(random_state._bit_generator)
    return np.random.default_rng(random_state)
