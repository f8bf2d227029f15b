"""Choose rho, and cut folds that keep bags whole.

Two ways to a rho without a single individual response: cross-validation over bags by the *bag* loss
of held-out bags (`RhoSearch` says what was found), and the theory with plug-in signal and noise
(`plug_in`). The instance loss must never validate: its minimiser is biased toward shrinkage, so
it prefers every rho too large.

Both are ours, for the estimators of Javanmard et al., ICLR 2024, arXiv 2401.11081, re-derived and
checked by simulation: for random bags of isotropic features the expected bag loss of a held-out bag
is (risk + noise) / size, so it ranks rhos as their risks do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator

from privlearn.aggregate import theory
from privlearn.aggregate.bags import index_bags
from privlearn.aggregate.linear import BagData

RhoRule: TypeAlias = Literal["min", "1se"]

#: The rhos that are tried when none are given: the bag loss, and three to a decade.
DEFAULT_RHOS = (0.0, *(float(f"{rho:.3g}") for rho in np.logspace(-3, 1, 13)))


class BagKFold(BaseCrossValidator):
    """K folds over whole bags: no bag is ever on both sides.

    Unlike `sklearn.model_selection.GroupKFold` it takes the bags under the name ``bags``, which is
    also what the estimators here take, and asks for them by itself: with metadata routing on,
    ``GridSearchCV(..., cv=BagKFold()).fit(X, y, bags=bags)`` needs no more.

    Parameters
    ----------
    n_splits : int, default=5
        Folds. Each holds out the same number of bags, give or take one.
    shuffle : bool, default=False
        False deals bags to folds in turn, in the sorted order of their ids, so that bags that
        follow one another go to different folds.
    random_state : int, RandomState or None
        Order of the bags, with ``shuffle=True``.

    Examples
    --------
    >>> import numpy as np
    >>> X, bags = np.zeros((6, 1)), np.array(["a", "a", "b", "c", "c", "d"])
    >>> for train, test in BagKFold(2).split(X, bags=bags):
    ...     print(bags[train], bags[test])
    ['b' 'd'] ['a' 'a' 'c' 'c']
    ['a' 'a' 'c' 'c'] ['b' 'd']
    """

    __metadata_request__split = {"bags": True}  # noqa: RUF012 -- as scikit-learn reads it

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, random_state: Any = None
    ) -> None:
        if not isinstance(n_splits, (int, np.integer)) or n_splits < 2:
            raise ValueError(f"n_splits must be an integer >= 2, got {n_splits!r}")
        if random_state is not None and not shuffle:
            raise ValueError("random_state has no effect without shuffle=True")
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(
        self,
        X: Any,
        y: Any = None,
        groups: ArrayLike | None = None,
        bags: ArrayLike | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of the training and of the held-out bags of each fold.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : ignored
        groups : array-like, default=None
            The bags, for tools that know them under scikit-learn's name.
        bags : array-like of int or str, shape (n,), default=None
            Bag of each row; None means that every row is its own bag.
        """
        if groups is not None and bags is not None:
            raise ValueError("groups and bags are two names for the same: give one")
        bags = groups if bags is None else bags
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        index = index_bags(np.arange(n) if bags is None else bags, n)
        for out in self.held_out(len(index.sizes)):
            rows = out[index.codes]
            yield np.flatnonzero(~rows), np.flatnonzero(rows)

    def held_out(self, n_bags: int) -> np.ndarray:
        """Bags that each fold holds out: bool, shape (n_splits, n_bags)."""
        if n_bags < self.n_splits:
            raise ValueError(f"n_splits = {self.n_splits} folds need as many bags, got {n_bags}")
        fold = np.arange(n_bags) % self.n_splits
        if self.shuffle:
            from sklearn.utils import check_random_state

            fold = check_random_state(self.random_state).permutation(fold)
        return fold == np.arange(self.n_splits)[:, None]

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: Any = None, bags: Any = None
    ) -> int:
        """Return the number of folds."""
        return self.n_splits


class RhoSearch(NamedTuple):
    """What cross-validation over bags found.

    Attributes
    ----------
    rhos : ndarray, shape (r,)
    losses : ndarray, shape (folds, r)
        Bag loss on the held-out bags of each fold.
    mean : ndarray, shape (r,)
    stderr : ndarray, shape (r,)
        Standard error of the mean over folds.
    best : int
        Position of the rho of least mean loss.
    chosen : int
        Position of the rho that the rule chose: ``best``, or for "1se" the largest rho whose mean
        loss is within one standard error of it.
    """

    rhos: np.ndarray
    losses: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    best: int
    chosen: int

    @property
    def rho(self) -> float:
        """The chosen rho."""
        return float(self.rhos[self.chosen])


def choose_rho(rhos: ArrayLike, losses: np.ndarray, rule: RhoRule = "min") -> RhoSearch:
    """Choose from validation losses of shape (folds, r); ties go to the smaller rho.

    Examples
    --------
    >>> losses = np.array([[1.0, 0.8, 0.9], [1.2, 1.0, 1.1]])
    >>> choose_rho([0, 0.1, 1], losses).rho, choose_rho([0, 0.1, 1], losses, "1se").rho
    (0.1, 1.0)
    """
    rhos = np.asarray(rhos, float)
    mean = losses.mean(axis=0)
    stderr = losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
    order = np.argsort(rhos, kind="stable")
    best = int(order[np.argmin(mean[order])])
    chosen = best
    if rule == "1se":
        near = mean <= mean[best] + stderr[best]
        chosen = int(np.argmax(np.where(near, rhos, -1.0)))
    return RhoSearch(rhos, losses, mean, stderr, best, chosen)


def held_out_bags(cv: Any, data: BagData) -> np.ndarray:
    """Turn an int or a splitter into held-out bags: bool, shape (folds, m).

    An int is `BagKFold` with at most as many folds as bags. Any other splitter is given the bags
    where it takes ``bags`` or ``groups``, and must not cut one.
    """
    m, n = len(data.sizes), len(data.codes)
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        if cv < 2:
            raise ValueError(f"cv must be at least 2 folds, got {cv}")
        return BagKFold(min(int(cv), m)).held_out(m)
    if isinstance(cv, BagKFold):
        return cv.held_out(m)
    if hasattr(cv, "split") and not isinstance(cv, str):
        folds = cv.split(np.zeros((n, 1)), None, data.codes)
    elif np.iterable(cv) and not isinstance(cv, (str, bytes)):
        folds = cv
    else:
        raise ValueError(f"cv must be an int, a splitter or an iterable of splits, got {cv!r}")
    return np.stack([_whole_bags(test, train, data) for train, test in folds])


def _whole_bags(test: ArrayLike, train: ArrayLike, data: BagData) -> np.ndarray:
    m = len(data.sizes)
    counts = np.bincount(data.codes[np.asarray(test)], minlength=m)
    others = np.bincount(data.codes[np.asarray(train)], minlength=m)
    out = counts > 0
    if (out & (counts != data.sizes)).any() or (out & (others > 0)).any():
        raise ValueError("cv must keep bags whole: it puts rows of a bag on both sides of a split")
    if not out.any() or out.all():
        raise ValueError("cv must leave bags on both sides of every split")
    if not (others[~out] == data.sizes[~out]).all():
        raise ValueError("cv must train on every bag that it does not hold out")
    return out


class PlugIn(NamedTuple):
    """Signal and noise estimated from bag means alone, and the rho that theory takes from them.

    Attributes
    ----------
    signal : float
        Variance of the linear part of one response, theta0' Sigma theta0.
    noise : float
        Variance of the rest of one response.
    gamma : float
        Features / rows.
    k : float
        Rows / bags.
    rho : float
        `theory.best_rho` at these.
    """

    signal: float
    noise: float
    gamma: float
    k: float
    rho: float


def plug_in(data: BagData, *, fit_intercept: bool = True) -> PlugIn:
    """Estimate signal and noise from random bags, and take the rho of least asymptotic risk.

    signal + noise = size * Var(bag mean); noise = size * residual variance of least squares on the
    bag means, with the degrees of freedom left after the features. Bags must be random: clusters or
    sorted bags break the first equation. For unequal bags each bag enters times its size.

    Raises
    ------
    ValueError
        If there are no degrees of freedom (not more bags than coefficients), or the estimated
        signal is not positive.
    """
    m, p = len(data.sizes), data.features.shape[1]
    spent = int(fit_intercept)
    freedom = m - p - spent
    advice = "use rho='cv' or a number"
    if freedom < 1:
        raise ValueError(
            f"rho='theory' needs more bags than coefficients to estimate the noise, got {m} bags "
            f"and {p + spent} coefficients; {advice}"
        )
    n = len(data.codes)
    root = np.sqrt(data.sizes.astype(float))
    centres = np.zeros((m, p))
    np.add.at(centres, data.codes, data.features)
    centres /= data.sizes[:, None]
    means = data.means
    if fit_intercept:
        centres = centres - data.sizes @ centres / n
        means = means - data.sizes @ means / n
    targets = root * means
    theta = np.linalg.lstsq(root[:, None] * centres, targets, rcond=None)[0]
    noise = float(np.sum((targets - root * (centres @ theta)) ** 2) / freedom)
    signal = float(np.sum(targets**2) / (m - spent)) - noise
    if not signal > 0:
        raise ValueError(
            f"rho='theory' estimates a signal variance of {signal:.3g}: the bag means vary no more "
            f"than noise would; {advice}"
        )
    gamma, k = p / n, n / m
    best = theory.best_rho(gamma=gamma, k=k, signal=signal, noise=noise)
    return PlugIn(signal, noise, gamma, k, float(best.rho))
