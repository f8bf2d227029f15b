"""What look-alike training costs, or gains, on real tables: repeated splits, every method on each.

Set-up of all studies: columns z-scored on the whole table (public scales), random splits, clusters
found on the sensitive columns of the training rows alone, table and response centred on the
training rows, predictions for test rows from their *individual* features. Errors are mean squared
test errors, not rescaled. At an interpolation peak the mean error has no expectation, so the
summary is the median over splits with a distribution-free interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.stats
from jax import Array

from privlearn import datasets
from privlearn.lookalike import kernels
from privlearn.lookalike.estimators import LookAlikeClustering
from privlearn.lookalike.simulation import one_blas_thread
from privlearn.simulate import float64

BASE, DROP = "base", "drop"


class Table(NamedTuple):
    """A real table, ready for a study.

    Attributes
    ----------
    name : str
    X : ndarray of shape (n, d)
        Z-scored columns.
    y : ndarray of shape (n,)
        Response, z-scored unless it is a class (-1 or 1).
    columns : tuple of str
    sensitive : ndarray of int
        Numbers of the sensitive columns.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    columns: tuple[str, ...]
    sensitive: np.ndarray


class Study(NamedTuple):
    """Test errors of every method on every split.

    Attributes
    ----------
    methods : tuple of str
        "base", "m = 3", ..., "drop".
    min_sizes : tuple of int
        m of each method: 1 for the base, 0 for dropping.
    ridges : tuple of float
        Penalties; 0 is the min-norm fit.
    errors : ndarray of shape (n_splits, n_methods, n_ridges)
        Mean squared test errors.
    information_loss : ndarray of shape (n_methods,)
        Mean share of the sensitive columns' variance that averaging removed; 0 for the base and 1
        for dropping.
    """

    methods: tuple[str, ...]
    min_sizes: tuple[int, ...]
    ridges: tuple[float, ...]
    errors: np.ndarray
    information_loss: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """Median test error over splits, (n_methods, n_ridges)."""
        return np.median(self.errors, axis=0)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Order statistics that hold the median over splits with probability ``level``.

        The splits share one table: the interval is about the draw of the split, not of the table.
        """
        n = len(self.errors)
        low = int(scipy.stats.binom.ppf((1 - level) / 2, n, 0.5))
        if scipy.stats.binom.cdf(low - 1, n, 0.5) > (1 - level) / 2 or low < 1:
            raise ValueError(f"{n} splits are too few for an interval of level {level}")
        ordered = np.sort(self.errors, axis=0)
        return ordered[low - 1], ordered[n - low]


# ------------------------------------------------------------------------------------------ tables


def diabetes_table() -> Table:
    """442 patients; the response is z-scored; sensitive: the six blood values s1 to s6."""
    X, y = datasets.load_diabetes(return_X_y=True)
    return _table("diabetes", X, _z(np.asarray(y, float)), tuple(X.columns[-6:]))


def breast_cancer_table() -> Table:
    """569 tumours, the class as -1 or 1; sensitive: the first 20 of 30 columns.

    The mean and the standard error of the ten measurements are sensitive, their worst values are
    not: the sensitive columns are all but redundant given the others.
    """
    X, y = datasets.load_breast_cancer(return_X_y=True)
    classes = np.unique(np.asarray(y))
    signs = np.where(np.asarray(y) == classes[1], 1.0, -1.0)
    return _table("breast cancer", X, signs, tuple(X.columns[:20]))


def census_table() -> Table:
    """Earners of the American Community Survey of 2012; sensitive: sex, race and age.

    The 894 people who have an income; the response is its logarithm. Other features: hours of work
    and minutes of travel (0 for who does not), employment, education, marriage, language,
    citizenship and disability.
    """
    frame = datasets.load_census_income().frame
    frame = frame[(frame["income"] > 0) & frame["edu"].notna()].reset_index(drop=True)
    X = pd.concat(
        [
            _one_hot(frame, ["gender", "race"]),
            frame[["age"]].astype(float),
            frame[["hrs_work", "time_to_work"]].fillna(0.0),
            _one_hot(frame, ["employment", "edu", "married", "lang", "citizen", "disability"]),
        ],
        axis=1,
    )
    y = _z(np.log(frame["income"].to_numpy(float)))
    return _table("census income", X, y, _starting(X, ("gender", "race", "age")))


def election_table() -> Table:
    """Respondents of the 2016 Cooperative Congressional Election Study; sensitive: sex, race, age.

    The response is the bracket of household income, 1 to 12, z-scored; the other features are the
    degree, ideology, party and religion. Rows with a missing value are left out.
    """
    frame = datasets.load_election_survey().frame
    other = [
        "collegeed", "ideo", "pid7na", "bornagain", "religimp", "churchatd", "prayerfreq",
    ]  # fmt: skip
    frame = frame.dropna(subset=[*other, "racef", "age", "female", "famincr"])
    frame = frame.reset_index(drop=True)
    X = pd.concat(
        [
            _one_hot(frame, ["racef"]),
            frame[["female", "age", *other]].astype(float),
        ],
        axis=1,
    )
    y = _z(frame["famincr"].to_numpy(float))
    return _table("election survey", X, y, _starting(X, ("racef", "female", "age")))


def _table(name: str, X: pd.DataFrame, y: np.ndarray, sensitive: Sequence[str]) -> Table:
    columns = tuple(map(str, X.columns))
    numbers = np.array([columns.index(c) for c in sensitive])
    return Table(name, _z(X.to_numpy(float)), y, columns, numbers)


def _z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _one_hot(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return pd.get_dummies(frame[columns], drop_first=True, dtype=float)


def _starting(X: pd.DataFrame, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(c for c in map(str, X.columns) if c.startswith(prefixes))


# ------------------------------------------------------------------------------------------- study


def lookalike_study(
    table: Table,
    *,
    n_train: int,
    min_sizes: Sequence[int],
    ridges: Sequence[float] = (0.0,),
    n_splits: int,
    n_test: int | None = None,
    method: str = "mdav",
    seed: int = 0,
) -> Study:
    """Fit base, look-alike with every minimum size, and drop, on random splits.

    Parameters
    ----------
    table : Table
    n_train : int
        Training rows of a split.
    min_sizes : sequence of int
        Minimum cluster sizes m.
    ridges : sequence of float, default=(0.0,)
        Penalties lam of ``(1/n)|y - X theta|^2 + lam |theta|^2``; 0 is the min-norm fit.
    n_splits : int
    n_test : int, optional
        Test rows; all others if not given.
    method : str, default="mdav"
        As in :class:`privlearn.lookalike.LookAlikeClustering`.
    seed : int, default=0

    Returns
    -------
    Study

    Raises
    ------
    ValueError
        If a count does not fit the table.

    Examples
    --------
    >>> study = lookalike_study(diabetes_table(), n_train=350, min_sizes=(5,), n_splits=6)
    >>> study.methods, study.errors.shape
    (('base', 'm = 5', 'drop'), (6, 3, 1))
    """
    n = len(table.y)
    if not 2 <= n_train < n:
        raise ValueError(f"n_train must lie in [2, {n - 1}], got {n_train}")
    n_test = n - n_train if n_test is None else n_test
    if not 1 <= n_test <= n - n_train:
        raise ValueError(f"n_test must lie in [1, {n - n_train}], got {n_test}")
    if not ridges or min(ridges) < 0:
        raise ValueError(f"ridges must be numbers >= 0, got {ridges!r}")
    if n_splits < 1:
        raise ValueError(f"n_splits must be at least 1, got {n_splits}")
    rng = np.random.default_rng(seed)
    loss = np.zeros((n_splits, len(min_sizes)))
    # Splits go through memory in blocks: the test rows of one, once a method, may be large.
    n_methods = len(min_sizes) + 2
    block = max(1, min(n_splits, _BLOCK_BYTES // (8 * n_methods * n_test * table.X.shape[1])))
    errors = np.empty((n_splits, n_methods, len(ridges)))
    for start in range(0, n_splits, block):
        splits = range(start, min(start + block, n_splits))
        tables, targets, tests, answers = [], [], [], []
        for split in splits:
            order = rng.permutation(n)
            train, test = order[:n_train], order[n_train : n_train + n_test]
            shown, loss[split] = _shown(table, train, min_sizes, method)
            # Centred here: the intercept is the response's mean and the test row's own centre.
            means = shown.mean(axis=1, keepdims=True)
            tables.append(shown - means)
            targets.append(table.y[train] - table.y[train].mean())
            tests.append(table.X[test][None] - means)
            answers.append(table.y[test] - table.y[train].mean())
        errors[splits.start : splits.stop] = _errors(
            np.stack(tables), np.stack(targets), np.stack(tests), np.stack(answers), ridges
        )
    return Study(
        (BASE, *(f"m = {m}" for m in min_sizes), DROP),
        (1, *map(int, min_sizes), 0),
        tuple(map(float, ridges)),
        errors,
        np.concatenate([[0.0], loss.mean(axis=0), [1.0]]),
    )


def _shown(
    table: Table, train: np.ndarray, min_sizes: Sequence[int], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Training tables of every method, (n_methods, n, d), and the information losses."""
    X = table.X[train]
    shown, loss = [X], []
    for m in min_sizes:
        transformer = LookAlikeClustering(table.sensitive, int(m), method=method)
        shown.append(transformer.fit_transform(X))
        loss.append(transformer.information_loss_)
    dropped = X.copy()
    dropped[:, table.sensitive] = 0.0  # the fit of least norm, or ridge, gives such columns 0
    return np.stack([*shown, dropped]), np.array(loss)


def _split_errors(
    tables: Array, target: Array, tests: Array, answer: Array, lam: Array | None
) -> Array:
    """Test error of every method on one split."""

    def one(shown: Array, test: Array) -> Array:
        nothing = shown[:, :0]
        fitted = kernels.fit_base(shown, nothing, target, lam=lam)
        return jnp.mean((answer - kernels.predict(fitted, test, test[:, :0])) ** 2)

    return jax.vmap(one)(tables, tests)


_min_norm_errors: Callable[..., Array] = jax.jit(
    jax.vmap(lambda x, y, u, v: _split_errors(x, y, u, v, None), in_axes=(0, 0, 0, 0))
)
_ridge_errors: Callable[..., Array] = jax.jit(jax.vmap(_split_errors, in_axes=(0, 0, 0, 0, None)))


def _errors(
    tables: np.ndarray,
    targets: np.ndarray,
    tests: np.ndarray,
    answers: np.ndarray,
    ridges: Sequence[float],
) -> np.ndarray:
    """Test errors (n_splits, n_methods, n_ridges), in float64."""
    with float64(), one_blas_thread():
        data = tuple(map(jnp.asarray, (tables, targets, tests, answers)))
        found = [
            _ridge_errors(*data, lam) if lam > 0 else _min_norm_errors(*data) for lam in ridges
        ]
        return np.stack([np.asarray(part) for part in found], axis=-1)


#: Most that the test rows of a block of splits may take.
_BLOCK_BYTES = 2**28

#: Tables by name.
TABLES: dict[str, Callable[[], Table]] = {
    "diabetes": diabetes_table,
    "breast cancer": breast_cancer_table,
    "census income": census_table,
    "election survey": election_table,
}
