"""scikit-learn estimators for bags: linear regression, and logistic or softmax classification.

Both take ``fit(X, y, bags=...)``, where ``y`` holds what is known of each bag. See `regression` and
`classification` for what they minimise, `model_selection` for how rho is chosen.
"""

from privlearn.aggregate.classification import AggregateClassifier
from privlearn.aggregate.model_selection import BagKFold, PlugIn, RhoSearch
from privlearn.aggregate.regression import AggregateRegressor, BagPredictions

__all__ = [
    "AggregateClassifier",
    "AggregateRegressor",
    "BagKFold",
    "BagPredictions",
    "PlugIn",
    "RhoSearch",
]
