"""The linear classifier for bags of rows whose class proportions are all that is known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from privlearn.aggregate import _validation as valid
from privlearn.aggregate.bags import BagIndex
from privlearn.aggregate.linear import BagData
from privlearn.aggregate.logistic import LogitFit, Problem, proportion_cross_entropy
from privlearn.aggregate.model_selection import (
    DEFAULT_RHOS,
    RhoSearch,
    choose_rho,
    held_out_bags,
)
from privlearn.aggregate.regression import BagPredictions, bag_means

LOSSES = (
    "proportion",
    "proportion-squared",
    "interpolate",
    "bag",
    "instance",
    "easyllp",
    "debiased",
)


class ClassData(NamedTuple):
    """Rows, bags, and the proportion of every class in every bag.

    Attributes
    ----------
    features : ndarray, shape (n, p)
    shares : ndarray, shape (m, n_classes)
    codes : ndarray of int, shape (n,)
    sizes : ndarray of int, shape (m,)
    classes : ndarray, shape (n_classes,)
    """

    features: np.ndarray
    shares: np.ndarray
    codes: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray


class AggregateClassifier(ClassifierMixin, BaseEstimator):
    """Logistic or softmax regression when only the class proportions of each bag are known.

    Minimises a loss on bags + alpha * ||coef||^2, by L-BFGS in float64, deterministically. Two
    classes have one logit, more have a softmax. When every row is its own bag all losses but the
    squared ones are ordinary (penalised) logistic regression.

    Parameters
    ----------
    loss : str, default="proportion"
        ``"proportion"`` (cross-entropy) and ``"proportion-squared"``: the proportions of a bag
        against the *mean probability* of its members.
        ``"interpolate"``, ``"bag"`` (rho = 0), ``"instance"`` (rho = 1): the canonical loss at the
        *mean logit* of the bag + rho * a Jensen gap that has no label in it.
        ``"easyllp"``: unbiased pseudo-labels size * share - (size - 1) * mean share for each row;
        probabilities can be extreme. ``"debiased"``: the unbiased estimate of the squared error
        of individual probabilities. "proportion", "proportion-squared" and "debiased" are not
        convex for bags of more than one row; they start at zero.
    rho : float or "cv", default="cv"
        At least 0, used by ``loss="interpolate"`` only. ``"cv"`` chooses from ``rhos`` by the
        cross-entropy of held-out bags at mean probabilities.
    alpha : float, default=0.001
        Ridge; the intercept is not penalised. With 0 the coefficients of separable classes, and of
        EasyLLP, may run away.
    fit_intercept : bool, default=True
    weights : {"size", "bag"}, default="size"
        Weight of a bag: by its number of rows, or all alike.
    response : {"aggregate", "individual"}, default="aggregate"
        Whether ``y`` holds proportions, repeated for each row of a bag, or class labels that the
        estimator averages. Without bags the two are the same: labels.
    classes : array-like, default=None
        Names of the classes, for ``y`` of proportions: two of them for a vector (the second is the
        one whose proportion is given), or one a column. Default 0, 1, ...
    rhos, cv, rho_rule
        As in `AggregateRegressor`.
    tol : float, default=1e-7
        L-BFGS stops when no entry of the gradient (of scaled features) is larger.
    max_iter : int, default=1000

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    coef_ : ndarray, shape (1, n_features) for two classes, else (n_classes, n_features)
    intercept_ : ndarray, shape (1,) or (n_classes,)
    rho_ : float
        The rho that was used ("interpolate", "bag", "instance").
    cv_results_ : RhoSearch
        With ``rho="cv"``.
    n_iter_ : int
    n_bags_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray

    Notes
    -----
    Proportions released with noise can lie outside [0, 1]: clip them first, which costs no privacy.

    Source: Javanmard et al., ICLR 2024, arXiv 2401.11081; Busa-Fekete et al., NeurIPS 2023, arXiv
    2302.03115; "Optimistic rates for learning from label proportions" (de-biased square loss).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> clicked = X[:, 0] + 0.3 * rng.normal(size=400) > 0
    >>> bags = np.arange(400) // 4
    >>> share = clicked.reshape(100, 4).mean(axis=1)
    >>> model = AggregateClassifier().fit(X, share[bags], bags=bags)
    >>> bool((model.predict(X) == clicked).mean() > 0.9)
    True
    """

    __metadata_request__fit = {"bags": True}  # noqa: RUF012 -- as scikit-learn reads them
    __metadata_request__score = {"bags": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        loss: str = "proportion",
        rho: float | str = "cv",
        alpha: float = 1e-3,
        fit_intercept: bool = True,
        weights: str = "size",
        response: str = "aggregate",
        classes: Any = None,
        rhos: Any = None,
        cv: Any = 5,
        rho_rule: str = "min",
        tol: float = 1e-7,
        max_iter: int = 1000,
    ) -> None:
        self.loss = loss
        self.rho = rho
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.weights = weights
        self.response = response
        self.classes = classes
        self.rhos = rhos
        self.cv = cv
        self.rho_rule = rho_rule
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, bags: ArrayLike | None = None) -> Self:
        """Fit the classifier.

        Parameters
        ----------
        X : array-like, shape (n, p)
        y : array-like, shape (n,) or (n, n_classes), or mapping
            With bags: the proportion of the second class in the bag of each row, or the proportions
            of all classes; or class labels with ``response="individual"``. A mapping goes from bag
            id to proportion(s). Without bags: class labels, or a table of proportions.
        bags : array-like of int or str, shape (n,), default=None
            Bag of each row. None: every row is its own bag.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `AggregateRegressor.fit`, and for proportions outside [0, 1] or that do not sum to 1,
            and fewer than two classes.
        TypeError
            For bag ids that are neither integers of 64 bits nor strings.
        """
        self._check_parameters()
        data = self._read(X, y, bags, None)
        if len(data.classes) < 2:
            raise ValueError(f"y must hold at least two classes, got one class: {data.classes}")
        for name in ("rho_", "cv_results_"):
            self.__dict__.pop(name, None)
        self.classes_ = data.classes
        self.n_bags_ = len(data.sizes)
        fit = self._fit(data)
        if not fit.converged:
            warnings.warn(
                f"L-BFGS stopped before tol={self.tol} ({fit.message}); raise max_iter or alpha",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_, self.intercept_, self.n_iter_ = fit.coef, fit.intercept, fit.n_iter
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits: (n,) for two classes, else (n, n_classes)."""
        check_is_fitted(self)
        valid.check_numeric(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        values = X @ self.coef_.T + self.intercept_
        return values[:, 0] if len(self.classes_) == 2 else values

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of `predict_proba`."""
        values = self.decision_function(X)
        if values.ndim == 1:
            return np.stack([log_expit(-values), log_expit(values)], axis=1)
        return log_softmax(values, axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class for each row, shape (n, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class of each row, shape (n,)."""
        values = self.decision_function(X)
        best = (values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)
        return self.classes_[best]

    def predict_bags(self, X: Any, bags: ArrayLike) -> BagPredictions:
        """Predict the proportions of each bag: mean probabilities, shape (m, n_classes)."""
        chances = self.predict_proba(X)
        index = valid.check_bags(bags, len(chances), least=1)
        return BagPredictions(index.labels, bag_means(chances, index))

    def score(
        self,
        X: Any,
        y: Any,
        bags: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Accuracy of labels without bags; with bags, minus the cross-entropy of proportions.

        Parameters
        ----------
        X, y, bags
            As in `fit`. The cross-entropy is that of the proportions of a bag at its mean
            probabilities, weighted as in fitting; larger is better.
        sample_weight : array-like, shape (n,), default=None
            Weight of each row instead: a bag weighs what its rows weigh together.
        """
        check_is_fitted(self)
        self._check_parameters()
        if bags is None and not isinstance(y, Mapping) and np.asarray(y).ndim == 1:
            return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))
        data = self._read(X, y, bags, self.classes_)
        index = BagIndex(data.codes, np.arange(len(data.sizes)), data.sizes)
        chances = bag_means(self.predict_proba(X), index)
        weight = valid.score_weights(sample_weight, index, self.weights)
        loss = proportion_cross_entropy(data.shares, chances)
        return -float(np.average(loss, weights=weight))

    def _check_parameters(self) -> None:
        valid.check_choice(self.loss, "loss", LOSSES)
        valid.check_choice(self.weights, "weights", ("size", "bag"))
        valid.check_choice(self.response, "response", ("aggregate", "individual"))
        valid.check_choice(self.rho_rule, "rho_rule", ("min", "1se"))
        if valid.check_rho(self.rho) == "theory":
            raise ValueError("rho='theory' is for AggregateRegressor: use rho='cv' or a number")
        valid.check_number(self.alpha, "alpha")
        valid.check_number(self.tol, "tol")
        valid.check_number(self.max_iter, "max_iter", least=1)

    def _read(self, X: Any, y: Any, bags: ArrayLike | None, known: np.ndarray | None) -> ClassData:
        """Check the data, and reduce the responses to the proportions of each bag.

        ``known`` are the classes of a fitted estimator, None while fitting.
        """
        valid.check_numeric(X, "X")
        fitting = known is None
        least = 2 if fitting else 1
        options = {"dtype": np.float64, "reset": fitting, "ensure_min_samples": least}
        if isinstance(y, Mapping):
            features = validate_data(self, X, **options)
            index = valid.check_bags(bags, len(features), least=least)
            raw = valid.responses_of_mapping(y, index, bags)
            shares = valid.check_shares(raw)
            classes = self._classes(shares, known)
            return ClassData(features, shares, index.codes, index.sizes, classes)
        valid.check_rows(X, y)
        shape = np.asarray(y).shape
        table = len(shape) == 2 and shape[1] > 1
        labels = not table and (bags is None or self.response == "individual")
        if not labels:
            valid.check_numeric(y, "y")
        features, y = validate_data(self, X, y, multi_output=table, **options)
        index = valid.check_bags(bags, len(features), least=least)
        if labels:
            classes, rows = self._one_hot(y, known)
            shares = valid.bag_responses(rows, index, "individual")
        else:
            shares = valid.check_shares(valid.bag_responses(y, index, self.response))
            classes = self._classes(shares, known)
        return ClassData(features, shares, index.codes, index.sizes, classes)

    def _one_hot(self, y: Any, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        y = column_or_1d(y)
        check_classification_targets(y)
        classes = np.unique(y) if known is None else known
        strange = np.setdiff1d(y, classes)
        if strange.size:
            raise ValueError(f"y holds classes that fit has not seen: {strange.tolist()}")
        return classes, (y[:, None] == classes).astype(float)

    def _classes(self, shares: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        count = shares.shape[1]
        if known is not None:
            if len(known) != count:
                raise ValueError(f"y has proportions of {count} classes, fit had {len(known)}")
            return known
        if self.classes is None:
            return np.arange(count)
        classes = np.asarray(self.classes)
        if classes.shape != (count,) or len(np.unique(classes)) != count:
            raise ValueError(f"classes must be {count} different names, got {self.classes!r}")
        return classes

    def _fit(self, data: ClassData) -> LogitFit:
        fixed = {"bag": 0.0, "instance": 1.0}
        kind = "interpolate" if self.loss in fixed else self.loss
        problem = Problem(
            data.features,
            data.shares[:, 1] if len(data.classes) == 2 else data.shares,
            data.codes,
            data.sizes,
            kind=kind,
            alpha=float(self.alpha),
            fit_intercept=bool(self.fit_intercept),
        )
        weight = data.sizes.astype(float) if self.weights == "size" else np.ones(len(data.sizes))
        rho = 0.0
        if kind == "interpolate":
            self.rho_ = rho = self._rho(problem, data, weight, fixed.get(self.loss, self.rho))
        tol, max_iter = float(self.tol), int(self.max_iter)
        found = problem.minimise(weight / weight.sum(), rho, tol=tol, max_iter=max_iter)
        return problem.unpack(*found, tol)

    def _rho(
        self, problem: Problem, data: ClassData, weight: np.ndarray, rho: float | str
    ) -> float:
        if not isinstance(rho, str):
            return float(rho)
        if (data.sizes == 1).all():
            return 0.0
        rhos = valid.check_rhos(DEFAULT_RHOS if self.rhos is None else self.rhos)
        self.cv_results_ = self._search(problem, data, weight, rhos)
        return self.cv_results_.rho

    def _search(
        self, problem: Problem, data: ClassData, weight: np.ndarray, rhos: np.ndarray
    ) -> RhoSearch:
        """Fit every rho on the bags of every fold, from large rho to small, each from the last."""
        bags = BagData(data.features, data.shares[:, 0], data.codes, data.sizes)
        held_out = held_out_bags(self.cv, bags)
        losses = np.empty((len(held_out), len(rhos)))
        for i, out in enumerate(held_out):
            train, test = np.where(out, 0, weight), np.where(out, weight, 0)
            packed = None
            for j in np.argsort(-rhos):
                packed, _ = problem.minimise(
                    train / train.sum(),
                    float(rhos[j]),
                    start=packed,
                    tol=max(float(self.tol), 1e-6),
                    max_iter=int(self.max_iter),
                )
                losses[i, j] = problem.proportion_loss(packed, test / test.sum())
        return choose_rho(rhos, losses, self.rho_rule)  # type: ignore[arg-type]
