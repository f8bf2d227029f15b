"""Closed forms of re-identification risk: bounds on any attacker, exact success, constants.

A *channel* is a matrix P of shape (n, s): row u is the law of what is released about user u, over
s possible releases. A user is drawn uniformly, the attacker sees one release and names a user;
*success* is the probability of being right. Everything is a probability in [0, 1] or in nats, in
64-bit NumPy and SciPy.

Source: Carey et al., "Measuring Re-identification Risk", SIGMOD 2023, arXiv 2304.07210, for the
framework and the Topics model. The paper's own theorem statements were not at hand: bounds and
exact tables are derived here and checked on random channels, by enumeration and by simulation
(`privlearn check reidentification`).
"""

from ._bounds import (
    Bounds,
    approximate_dp_bound,
    bayes_success,
    bayes_success_lp,
    bounds,
    capacity,
    chi_square_bound,
    fano_bound,
    mutual_information,
    pure_dp_bound,
    sharp_fano_bound,
)
from ._curves import (
    PowerCurve,
    curve_bound,
    gaussian_curve,
    pair_curve,
    pairwise_curve,
    targeted_curve,
)
from ._exact import (
    PersistentWorld,
    brute_force_success,
    exact_success,
    expected_success,
    known_profiles_success,
)
from ._gaussian import gaussian_simplex_bound, gaussian_simplex_success
from ._matching import MatchingSuccess, matching_success
from ._topics import (
    asymmetric_weights,
    capacity_bound,
    inclusion_from_frequency,
    likelihood_weights,
    same_topic_probability,
    topic_probabilities,
    topics_capacity,
    topics_epsilon,
)

__all__ = [
    "Bounds",
    "MatchingSuccess",
    "PersistentWorld",
    "PowerCurve",
    "approximate_dp_bound",
    "asymmetric_weights",
    "bayes_success",
    "bayes_success_lp",
    "bounds",
    "brute_force_success",
    "capacity",
    "capacity_bound",
    "chi_square_bound",
    "curve_bound",
    "exact_success",
    "expected_success",
    "fano_bound",
    "gaussian_curve",
    "gaussian_simplex_bound",
    "gaussian_simplex_success",
    "inclusion_from_frequency",
    "known_profiles_success",
    "likelihood_weights",
    "matching_success",
    "mutual_information",
    "pair_curve",
    "pairwise_curve",
    "pure_dp_bound",
    "same_topic_probability",
    "sharp_fano_bound",
    "targeted_curve",
    "topic_probabilities",
    "topics_capacity",
    "topics_epsilon",
]
