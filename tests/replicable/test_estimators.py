import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from privlearn.replicable import ReplicableKCenters, ReplicableKMeans, ReplicableKMedians, WeightedKMedians

pytestmark = pytest.mark.filterwarnings("ignore::privlearn.replicable.warnings.ReplicabilityWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        ReplicableKMeans(shared_seed=0, n_components=3),
        ReplicableKMedians(shared_seed=0, n_components=2),
        ReplicableKCenters(shared_seed=0, n_components=3),
        WeightedKMedians(),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
