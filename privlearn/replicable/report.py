"""How often two executions of any clusterer give the same partition, measured."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array

from .oracles import in_order, one_thread
from .warnings import ReplicabilityWarning

FloatArray = NDArray[np.float64]
Sampler = Callable[[int, np.random.Generator], Any]

_GRID_ROWS = 20_000  # reference rows at which partitions without centres are compared


@dataclass(frozen=True, slots=True)
class ReplicabilityReport:
    """What was seen of pairs of executions on independent samples (`replicability_report`).

    Attributes
    ----------
    estimator : str
    n_samples : int
        Rows of each execution.
    n_pairs : int
    n_equal : int
        Pairs with exactly the same partition.
    rate : float
        n_equal / n_pairs.
    interval : (float, float)
        Clopper-Pearson interval of the probability.
    confidence : float
    disagreement : float
        Mean share of evaluation rows that the two executions put in different clusters, under the
        best matching of their labels; 0 for equal partitions.
    cost_ratio, cost_ratio_stderr : float
        Mean k-means cost over that of `sklearn.cluster.KMeans` with as many clusters, fitted to the
        same sample, both on the evaluation rows; and its standard error. NaN if not asked for.
    seconds : float
        Median wall-clock time of one fit, with one thread.
    kmeans_seconds : float
        The same for k-means.
    compared : str
        What was compared: "centres" (equality of the partition of the space) or "labels of N
        reference rows" (from which a difference elsewhere is not seen: the rate is an upper bound).
    source : str
        Where samples came from.
    seed : int
    forecast : float
        Mean forecast of the same rate by the estimator itself; NaN if it makes none.
    """

    estimator: str
    n_samples: int
    n_pairs: int
    n_equal: int
    rate: float
    interval: tuple[float, float]
    confidence: float
    disagreement: float
    cost_ratio: float
    cost_ratio_stderr: float
    seconds: float
    kmeans_seconds: float
    compared: str
    source: str
    seed: int
    forecast: float

    def __str__(self) -> str:
        """Readable lines for a notebook or a log."""
        low, high = self.interval
        lines = [
            self.estimator,
            f"  same partition: {self.n_equal} of {self.n_pairs} pairs, rate {self.rate:.3f} "
            f"({self.confidence:.0%} interval {low:.3f} to {high:.3f})",
            f"  n = {self.n_samples:,} rows each, {self.source}; compared: {self.compared}",
            f"  rows put in another cluster: {self.disagreement:.2%} on average",
        ]
        if np.isfinite(self.forecast):
            lines.append(f"  rate as forecast by the fits themselves: {self.forecast:.3f}")
        if np.isfinite(self.cost_ratio):
            lines.append(
                f"  cost over that of k-means: {self.cost_ratio:.3f} "
                f"± {self.cost_ratio_stderr:.3f} (standard error)"
            )
            lines.append(f"  one fit: {self.seconds:.3g} s (k-means {self.kmeans_seconds:.3g} s)")
        else:
            lines.append(f"  one fit: {self.seconds:.3g} s")
        return "\n".join(lines)


def replicability_report(
    estimator: Any,
    data: Any,
    *,
    n_samples: int | None = None,
    n_pairs: int = 50,
    split: Literal["halves", "bootstrap"] = "halves",
    reference: Any = None,
    compare: Literal["auto", "centres", "labels"] = "auto",
    n_cost_pairs: int = 20,
    n_evaluation: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReplicabilityReport:
    """Fit pairs of independent samples, the shared seed equal within a pair, and compare exactly.

    Parameters
    ----------
    estimator : clusterer or pipeline
        Any scikit-learn clusterer with ``predict``. Parameters named ``shared_seed`` (at any depth)
        get a fresh seed for each pair, the same for both executions; where there is none,
        parameters named ``random_state`` do.
    data : callable or table
        ``sampler(n, rng)`` that gives n independent rows; or a table (array, or pandas, polars,
        pyarrow ... frame of numbers).
    n_samples : int, optional
        Rows of each execution. Needed with a sampler; for a table half of its rows, or all for the
        bootstrap, if not given.
    n_pairs : int, default=50
    split : {"halves", "bootstrap"}, default="halves"
        How pairs come from a table: disjoint random parts, which are independent samples of the
        population that the table came from; or draws with replacement, which are independent
        samples of the table.
    reference : table, optional
        Rows at which labels are compared, where centres cannot be; a grid over the evaluation rows
        (in up to 3 dimensions) and these rows themselves if not given.
    compare : {"auto", "centres", "labels"}, default="auto"
        Centres bit by bit, in sorted order (nearest-centre clusterers only), or labels up to names;
        "auto" takes centres where there are any. A pipeline is compared by labels.
    n_cost_pairs : int, default=20
        Pairs, the first so many, to whose first sample k-means is fitted too, for the ratio of
        costs; 0 for none.
    n_evaluation : int, default=10,000
        Rows for costs and disagreement: a sample of its own, or the table (at most so many).
    confidence : float, default=0.95
    seed : int, default=0
        Of the samples and the seeds.

    Returns
    -------
    ReplicabilityReport

    Raises
    ------
    TypeError
        If the estimator has no ``predict``: it then labels a sample and not the space.
    ValueError
        If a parameter is out of range or there are too few rows.

    Notes
    -----
    Fits run with one native thread, so that small ones do not wait for threads and times compare.
    Pairs of parts of one table are dependent: the interval says how often random parts of *this
    table* agree. Equality is exact; label permutations do not count as a difference.

    Examples
    --------
    >>> from privlearn.replicable.simulation import truncated_mixture
    >>> report = replicability_report(
    ...     KMeans(3, n_init=1), truncated_mixture, n_samples=500, n_pairs=10, n_cost_pairs=0)
    >>> report.n_equal, report.compared
    (0, 'centres')
    """
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict: it labels its sample and not the space, "
            "so that two samples cannot be compared"
        )
    _check(n_pairs, split, compare, confidence)
    draw, source, n, evaluation = _source(data, n_samples, split, n_evaluation, seed)
    seeds = _seed_parameters(estimator)
    judge = _Judge(compare, reference, evaluation)
    ratios, spans, kmeans_spans, disagreements, forecasts = [], [], [], [], []
    n_equal = 0
    with warnings.catch_warnings(), one_thread():
        for category in (ReplicabilityWarning, ConvergenceWarning):
            warnings.simplefilter("ignore", category)  # one for each fit; the report says it once
        for pair in range(n_pairs):
            rng = np.random.default_rng([seed, 1, pair])
            number = int(rng.integers(2**31))
            samples = draw(n, rng)
            models = []
            for sample in samples:
                model = clone(estimator).set_params(**dict.fromkeys(seeds, number))
                start = time.perf_counter()
                models.append(model.fit(sample))
                spans.append(time.perf_counter() - start)
                forecast = getattr(model, "forecast_", None)
                if forecast is not None:
                    forecasts.append(1 - forecast.total)
            equal, away = judge.compare(*models)
            n_equal += equal
            disagreements.append(away)
            if pair < n_cost_pairs:
                start = time.perf_counter()
                k = judge.n_clusters(models[0])
                plain = KMeans(k, n_init=3, random_state=number).fit(samples[0])
                kmeans_spans.append(time.perf_counter() - start)
                ratios.append(judge.cost(models[0]) / judge.cost(plain))
    return ReplicabilityReport(
        estimator=" ".join(str(estimator).split()),
        n_samples=n,
        n_pairs=n_pairs,
        n_equal=n_equal,
        rate=n_equal / n_pairs,
        interval=clopper_pearson(n_equal, n_pairs, confidence),
        confidence=confidence,
        disagreement=float(np.mean(disagreements)),
        cost_ratio=float(np.mean(ratios)) if ratios else np.nan,
        cost_ratio_stderr=_stderr(ratios),
        seconds=float(np.median(spans)),
        kmeans_seconds=float(np.median(kmeans_spans)) if ratios else np.nan,
        compared=judge.compared,
        source=source,
        seed=seed,
        forecast=float(np.mean(forecasts)) if forecasts else np.nan,
    )


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability from ``successes`` of ``n`` independent trials.

    Examples
    --------
    >>> [round(end, 4) for end in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def same_partition(first: Any, second: Any) -> bool:
    """Whether two labelings of the same rows are the same up to the names of the labels.

    Examples
    --------
    >>> same_partition([0, 0, 1], [5, 5, 2]), same_partition([0, 0, 1], [0, 1, 1])
    (True, False)
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        raise ValueError(f"labels must be of the same rows, got shapes {a.shape} and {b.shape}")
    return bool(np.array_equal(_by_first_occurrence(a), _by_first_occurrence(b)))


class _Evaluation(NamedTuple):
    rows: FloatArray  #: a fresh sample, or the table


class _Judge:
    """Compares two fitted models: equality of partitions, disagreement, cost."""

    def __init__(self, compare: str, reference: Any, evaluation: _Evaluation) -> None:
        self.mode = compare
        self.rows = evaluation.rows
        self.reference = None if reference is None else as_array(reference)
        self.compared = ""

    def compare(self, first: Any, second: Any) -> tuple[bool, float]:
        labels = [np.asarray(model.predict(self.rows)) for model in (first, second)]
        away = disagreement(*labels)
        centres = [_centres(model) for model in (first, second)]
        if self.mode == "centres" and centres[0] is None:
            raise ValueError(
                f"compare='centres', but {type(first).__name__} has no cluster_centers_; "
                "use compare='labels'"
            )
        if self.mode != "labels" and centres[0] is not None:
            self.compared = "centres"
            one, two = centres
            return bool(one is not None and two is not None and np.array_equal(one, two)), away
        if self.reference is None:
            self.reference = _reference_rows(self.rows)
        self.compared = f"labels of {len(self.reference):,} reference rows"
        found = [model.predict(self.reference) for model in (first, second)]
        return same_partition(*found), away

    def n_clusters(self, model: Any) -> int:
        centres = _centres(model)
        known = getattr(model, "n_clusters", None)
        if isinstance(known, int):
            return known
        return len(centres) if centres is not None else len(np.unique(model.predict(self.rows)))

    def cost(self, model: Any) -> float:
        """Mean squared distance to the own centres, or (without any) to the clusters' means."""
        labels = np.asarray(model.predict(self.rows))
        centres = getattr(model, "cluster_centers_", None)
        if centres is None or np.shape(centres)[1] != self.rows.shape[1]:
            labels = np.unique(labels, return_inverse=True)[1]
            sizes = np.bincount(labels)[:, None]
            sums = [np.bincount(labels, weights=column) for column in self.rows.T]
            centres = np.stack(sums, axis=1) / sizes
        return float(np.mean(np.sum((self.rows - np.asarray(centres)[labels]) ** 2, axis=1)))


def disagreement(first: Any, second: Any) -> float:
    """Share of rows in different clusters, under the best one-to-one matching of labels.

    Examples
    --------
    >>> disagreement([0, 0, 1, 1], [1, 1, 0, 1])
    0.25
    """
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1), dtype=np.int64)
    np.add.at(table, (a, b), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(1 - table[rows, columns].sum() / len(a))


def as_array(table: Any) -> FloatArray:
    """Numbers of an array or of a frame that narwhals reads."""
    frame = nw.from_native(table, pass_through=True, allow_series=False)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    values = frame.to_numpy() if isinstance(frame, nw.DataFrame) else frame
    return check_array(values, dtype=np.float64)


def _stderr(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _check(n_pairs: int, split: str, compare: str, confidence: float) -> None:
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be at least 1, got {n_pairs!r}")
    if split not in ("halves", "bootstrap"):
        raise ValueError(f"split must be 'halves' or 'bootstrap', got {split!r}")
    if compare not in ("auto", "centres", "labels"):
        raise ValueError(f"compare must be 'auto', 'centres' or 'labels', got {compare!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")


def _source(
    data: Any, n_samples: int | None, split: str, n_evaluation: int, seed: int
) -> tuple[Callable[..., list[FloatArray]], str, int, _Evaluation]:
    """How to draw a pair, in words too, the rows of each, and the rows for evaluation."""
    rng = np.random.default_rng([seed, 0])
    if callable(data):
        if n_samples is None or n_samples < 1:
            raise ValueError(f"n_samples must be given with a sampler, got {n_samples!r}")

        def sample(n: int, rng: np.random.Generator) -> list[FloatArray]:
            return [as_array(data(n, rng)) for _ in range(2)]

        return sample, "from a sampler", n_samples, _Evaluation(as_array(data(n_evaluation, rng)))
    table = as_array(data)
    most = len(table) // 2 if split == "halves" else len(table)
    n = most if n_samples is None else n_samples
    if n < 1 or (split == "halves" and n > most):
        raise ValueError(
            f"n_samples must lie in [1, {most}] for disjoint parts of {len(table)} rows, got {n}"
        )

    def part(n: int, rng: np.random.Generator) -> list[FloatArray]:
        if split == "bootstrap":
            return [table[rng.integers(len(table), size=n)] for _ in range(2)]
        order = rng.permutation(len(table))
        return [table[order[:n]], table[order[n : 2 * n]]]

    how = "disjoint random parts of a table" if split == "halves" else "bootstrap of a table"
    some = (
        table if len(table) <= n_evaluation else table[rng.permutation(len(table))[:n_evaluation]]
    )
    return part, f"{how} of {len(table):,} rows", n, _Evaluation(some)


def _seed_parameters(estimator: Any) -> list[str]:
    names = estimator.get_params(deep=True)
    for wanted in ("shared_seed", "random_state"):
        found = [name for name in names if name == wanted or name.endswith(f"__{wanted}")]
        if found:
            return found
    return []


def _centres(model: Any) -> FloatArray | None:
    """Sorted centres that say what the partition is, if the model is one of nearest centres."""
    found = getattr(model, "projected_centers_", None)
    if found is None:
        found = getattr(model, "cluster_centers_", None)
    if found is None or np.ndim(found) != 2:
        return None
    return in_order(np.asarray(found, dtype=np.float64))


def _reference_rows(rows: FloatArray) -> FloatArray:
    dim = rows.shape[1]
    if dim > 3:
        return rows
    along = int(_GRID_ROWS ** (1 / dim))
    axes = [
        np.linspace(low, high, along) for low, high in zip(rows.min(0), rows.max(0), strict=True)
    ]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    return np.concatenate([grid, rows])


def _by_first_occurrence(labels: NDArray[Any]) -> NDArray[np.intp]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
