"""The linear estimator for bags of rows whose mean response is all that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted, validate_data

from privlearn.aggregate import _validation as valid
from privlearn.aggregate.bags import BagIndex
from privlearn.aggregate.linear import BagData, LinearPath, fit_linear, fold_losses
from privlearn.aggregate.model_selection import (
    DEFAULT_RHOS,
    RhoSearch,
    choose_rho,
    held_out_bags,
    plug_in,
)

LOSSES = ("interpolate", "bag", "instance", "easyllp", "debiased")


class BagPredictions(NamedTuple):
    """Mean prediction of each bag.

    Attributes
    ----------
    bags : ndarray, shape (m,)
        Bag ids, sorted.
    predictions : ndarray, shape (m,) or (m, n_classes)
    """

    bags: np.ndarray
    predictions: np.ndarray


class AggregateRegressor(RegressorMixin, BaseEstimator):
    """Linear regression when only the mean response of each bag is known.

    Minimises over (theta, b)::

        sum over bags of weight * [ (ybar - fbar)^2 + rho * within-bag variance of f ]
            + alpha * ||theta||^2,             f = X theta + b,  weights summing to 1

    with ``fbar`` the mean prediction of the bag. rho = 0 is the bag loss, rho = 1 the instance loss
    (each row gets the mean response of its bag), between them a trade of variance for bias. Where
    the minimiser is not unique the one of least norm is taken. Computed in float64.

    Parameters
    ----------
    loss : {"interpolate", "bag", "instance", "easyllp", "debiased"}, default="interpolate"
        ``"bag"`` and ``"instance"`` are rho = 0 and 1. ``"easyllp"`` regresses each row on the
        pseudo-label size * ybar - (size - 1) * mean(y): unbiased, and stable where the bag loss
        explodes (as many features as bags), but of variance that grows with the size.
        ``"debiased"`` weighs the squared gap of a bag by its size, the unbiased estimate of the
        squared loss on individual responses; for equal bags and an intercept it is the bag loss.
    rho : float, "cv" or "theory", default="cv"
        At least 0; used by ``loss="interpolate"`` only. ``"cv"``: the bag loss of held-out bags
        chooses from ``rhos``. ``"theory"``: the rho of least asymptotic risk at the signal and
        noise estimated from the bag means; for random bags and more bags than features. When every
        row is its own bag rho does nothing, and nothing is searched.
    alpha : float, default=0.0
        Ridge. The intercept is not penalised.
    fit_intercept : bool, default=True
        Equivalent to taking the (weighted) means out of features and bag responses first.
    weights : {"size", "bag"}, default="size"
        Weight of a bag: by its number of rows, or all alike. The same for equal bags.
    response : {"aggregate", "individual"}, default="aggregate"
        Whether ``y`` holds bag means, repeated for each row of the bag (an error if they are not
        constant within a bag), or individual responses that the estimator averages.
    rhos : array-like, default=None
        What ``rho="cv"`` chooses from; default 0 and 13 values from 0.001 to 10.
    cv : int or splitter, default=5
        Folds over whole bags: `BagKFold` for an int (at most as many folds as bags).
    rho_rule : {"min", "1se"}, default="min"
        ``"1se"`` takes the largest rho whose validation loss is within one standard error of the
        least: steadier with fewer than about 30 bags.
    solver : {"auto", "gram", "rows"}, default="auto"
        Normal equations, or a singular value decomposition of the rows; ``"auto"`` takes the
        latter for singular and badly conditioned problems.

    Attributes
    ----------
    coef_ : ndarray, shape (n_features,)
    intercept_ : float
    rho_ : float
        The rho that was used (not with "easyllp" and "debiased").
    rho_path_ : LinearPath
        Coefficients for every rho that was looked at.
    cv_results_ : RhoSearch
        Validation losses, with ``rho="cv"``.
    plug_in_ : PlugIn
        Estimated signal and noise, with ``rho="theory"``.
    n_bags_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray

    Notes
    -----
    ``fit`` and ``score`` ask for ``bags`` by themselves when scikit-learn's metadata routing is on,
    so ``GridSearchCV(make_pipeline(StandardScaler(), AggregateRegressor()), ..., cv=BagKFold())``
    takes ``fit(X, y, bags=bags)``.

    Source: Javanmard, Chen, Mirrokni, Badanidiyuru, Fu, "Learning from Aggregate Responses", ICLR
    2024, arXiv 2401.11081; EasyLLP: Busa-Fekete et al., NeurIPS 2023, arXiv 2302.03115.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = X @ [1.0, -2.0] + 3
    >>> bags = np.arange(200) // 4
    >>> ybar = y.reshape(50, 4).mean(axis=1)
    >>> model = AggregateRegressor(rho=0.0).fit(X, ybar[bags], bags=bags)
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([ 1., -2.]), 3.0)
    >>> AggregateRegressor(rho="cv").fit(X, dict(enumerate(ybar)), bags=bags).rho_
    0.0
    """

    __metadata_request__fit = {"bags": True}  # noqa: RUF012 -- as scikit-learn reads them
    __metadata_request__score = {"bags": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        loss: str = "interpolate",
        rho: float | str = "cv",
        alpha: float = 0.0,
        fit_intercept: bool = True,
        weights: str = "size",
        response: str = "aggregate",
        rhos: Any = None,
        cv: Any = 5,
        rho_rule: str = "min",
        solver: str = "auto",
    ) -> None:
        self.loss = loss
        self.rho = rho
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.weights = weights
        self.response = response
        self.rhos = rhos
        self.cv = cv
        self.rho_rule = rho_rule
        self.solver = solver

    def fit(self, X: Any, y: Any, bags: ArrayLike | None = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like, shape (n, p)
            Features of each row.
        y : array-like, shape (n,), or mapping
            Per row, as ``response`` says; or a mapping from bag id to the mean response of the bag.
        bags : array-like of int or str, shape (n,), default=None
            Bag of each row. None: every row is its own bag, which is ordinary least squares.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For wrong lengths, NaN or infinite values, fewer than two bags, y that varies within a
            bag, bag ids without response or without rows, and parameters out of range.
        TypeError
            For bag ids that are neither integers of 64 bits nor strings.
        """
        self._check_parameters()
        data = self._read(X, y, bags, reset=True)
        self.n_bags_ = len(data.sizes)
        for name in ("rho_", "cv_results_", "plug_in_"):
            self.__dict__.pop(name, None)
        if self.loss == "debiased":
            path = self._fit_debiased(data)
        elif self.loss == "easyllp":
            prior = float(data.sizes @ data.means) / len(data.codes)
            pseudo = np.asarray(data.sizes * data.means - (data.sizes - 1) * prior)
            path = self._path(data._replace(means=pseudo), [1.0])
        else:
            path = self._fit_interpolating(data)
            self.rho_ = float(path.rhos[self._chosen])
        self.rho_path_ = path
        self.coef_ = path.coef[self._chosen]
        self.intercept_ = float(path.intercept[self._chosen])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the response of each row of X, shape (n,)."""
        check_is_fitted(self)
        valid.check_numeric(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_

    def predict_bags(self, X: Any, bags: ArrayLike) -> BagPredictions:
        """Predict the mean response of each bag.

        Parameters
        ----------
        X : array-like, shape (n, p)
        bags : array-like of int or str, shape (n,)
            Any ids: they need not be those of ``fit``.
        """
        predictions = self.predict(X)
        index = valid.check_bags(bags, len(predictions), least=1)
        return BagPredictions(index.labels, bag_means(predictions, index))

    def score(
        self,
        X: Any,
        y: Any,
        bags: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Coefficient of determination of the mean responses of bags (weighted as in fitting).

        Parameters
        ----------
        X, y, bags
            As in `fit`. Without bags it is the ordinary R^2 of rows.
        sample_weight : array-like, shape (n,), default=None
            Weight of each row instead: a bag weighs what its rows weigh together.
        """
        check_is_fitted(self)
        self._check_parameters()
        data = self._read(X, y, bags, reset=False)
        predictions = data.features @ self.coef_ + self.intercept_
        index = BagIndex(data.codes, np.arange(len(data.sizes)), data.sizes)
        weight = valid.score_weights(sample_weight, index, self.weights)
        return float(r2_score(data.means, bag_means(predictions, index), sample_weight=weight))

    @property
    def _chosen(self) -> int:
        return self.cv_results_.chosen if hasattr(self, "cv_results_") else 0

    def _check_parameters(self) -> None:
        valid.check_choice(self.loss, "loss", LOSSES)
        valid.check_choice(self.weights, "weights", ("size", "bag"))
        valid.check_choice(self.response, "response", ("aggregate", "individual"))
        valid.check_choice(self.rho_rule, "rho_rule", ("min", "1se"))
        valid.check_choice(self.solver, "solver", ("auto", "gram", "rows"))
        valid.check_rho(self.rho)
        valid.check_number(self.alpha, "alpha")

    def _read(self, X: Any, y: Any, bags: ArrayLike | None, *, reset: bool) -> BagData:
        """Check the data, and reduce the responses to one a bag."""
        valid.check_numeric(X, "X")
        least = 2 if reset else 1
        options = {"dtype": np.float64, "reset": reset, "ensure_min_samples": least}
        if isinstance(y, Mapping):
            features = validate_data(self, X, **options)
            index = valid.check_bags(bags, len(features), least=least)
            means = valid.responses_of_mapping(y, index, bags)
            if means.ndim != 1:
                raise ValueError(f"y must map each bag to one number, got shape {means.shape}")
        else:
            valid.check_numeric(y, "y")
            valid.check_rows(X, y)
            features, responses = validate_data(self, X, y, y_numeric=True, **options)
            index = valid.check_bags(bags, len(features), least=least)
            means = valid.bag_responses(responses, index, self.response)
        return BagData(features, means, index.codes, index.sizes)

    def _path(self, data: BagData, rhos: ArrayLike) -> LinearPath:
        return fit_linear(
            data,
            rhos,
            alpha=float(self.alpha),
            fit_intercept=bool(self.fit_intercept),
            weights=self.weights,  # type: ignore[arg-type]
            solver=self.solver,  # type: ignore[arg-type]
        )

    def _fit_interpolating(self, data: BagData) -> LinearPath:
        fixed = {"bag": 0.0, "instance": 1.0}
        rho = fixed.get(self.loss, self.rho)
        if not isinstance(rho, str):
            return self._path(data, [float(rho)])
        if (data.sizes == 1).all():
            return self._path(data, [0.0])
        if rho == "theory":
            self.plug_in_ = plug_in(data, fit_intercept=bool(self.fit_intercept))
            return self._path(data, [self.plug_in_.rho])
        rhos = valid.check_rhos(DEFAULT_RHOS if self.rhos is None else self.rhos)
        self.cv_results_ = self._search(data, rhos)
        return self._path(data, rhos)

    def _search(self, data: BagData, rhos: np.ndarray) -> RhoSearch:
        losses = fold_losses(
            data,
            held_out_bags(self.cv, data),
            rhos,
            alpha=float(self.alpha),
            fit_intercept=bool(self.fit_intercept),
            weights=self.weights,  # type: ignore[arg-type]
        )
        return choose_rho(rhos, losses, self.rho_rule)  # type: ignore[arg-type]

    def _fit_debiased(self, data: BagData) -> LinearPath:
        """Least squares on bag means that each count times their size, about the overall mean.

        With e the deviation of a bag's gap d = ybar - fbar from the mean gap D, the loss is the
        weighted mean of size * e^2, + D^2: the variance and the squared mean of the gap of one row.
        An intercept makes D zero.
        """
        index = BagIndex(data.codes, np.arange(len(data.sizes)), data.sizes)
        centres = bag_means(data.features, index)
        weight = data.sizes / len(data.codes) if self.weights == "size" else 1 / len(data.sizes)
        weight = np.broadcast_to(weight, data.means.shape)
        mean_x, mean_y = weight @ centres, weight @ data.means
        root = np.sqrt(weight * data.sizes)[:, None]
        rows = root * (centres - mean_x)
        targets = root[:, 0] * (data.means - mean_y)
        if not self.fit_intercept:
            rows, targets = np.vstack([rows, mean_x]), np.append(targets, mean_y)
        count = len(rows)
        problem = BagData(
            np.sqrt(count) * rows, np.sqrt(count) * targets, np.arange(count), np.ones(count, int)
        )
        path = fit_linear(
            problem,
            [0.0],
            alpha=float(self.alpha),
            fit_intercept=False,
            solver=self.solver,  # type: ignore[arg-type]
        )
        if not self.fit_intercept:
            return path
        return path._replace(intercept=mean_y - path.coef @ mean_x)


def bag_means(values: np.ndarray, index: BagIndex) -> np.ndarray:
    """Mean of the rows of each bag, shape (m, ...), in NumPy."""
    sums = np.zeros((len(index.sizes), *values.shape[1:]))
    np.add.at(sums, index.codes, values)
    return sums / index.sizes.reshape((-1,) + (1,) * (values.ndim - 1))
