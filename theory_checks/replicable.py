"""What is published, or derived here, about replicable estimates, beside simulations of them.

Every simulation calls the public functions of `privlearn.replicable`; one call with many labels has
one independent offset, or threshold, for each trial.
"""

from privlearn import claims

IMPAGLIAZZO = "Impagliazzo, Lei, Pitassi, Sorrell 2022, arXiv 2201.08430"
ESFANDIARI = "Esfandiari, Karbasi, Mirrokni, Velegkas, Zhou 2023, arXiv 2302.10359"
DERIVED = "derived here for the construction of "

TRIALS = {"quick": 1_000_000, "paper": 20_000_000}
FEW_TRIALS = {"quick": 20_000, "paper": 400_000}
PAIRS = {"quick": 1_000, "paper": 20_000}


def frequency(theory, hits):
    import numpy as np

    hits = np.asarray(hits)
    rate = float(hits.mean())
    return claims.Measurement(
        theory, rate, float(np.sqrt(rate * (1 - rate) / hits.size)), hits.size
    )


def rounded_differently(n, p, alpha, n_trials, seed):
    import numpy as np

    from privlearn.replicable import replicable_round

    rng = np.random.default_rng(seed)
    frequencies = rng.binomial(n, p, (2, n_trials)) / n
    one, two = replicable_round(
        frequencies, alpha=alpha, shared_seed=seed, labels=np.arange(n_trials)
    )
    return one != two


def measure_stat_query(profile):
    from privlearn.replicable import theory

    design = theory.stat_query_design(tau=0.05, rho=0.1, failure_probability=0.01)
    hits = rounded_differently(design.n, 0.5, design.alpha, TRIALS[profile], seed=1)
    return frequency(theory.rounding_differs(design.n, 0.5, design.alpha), hits)


def measure_rounding(profile):
    from privlearn.replicable import theory

    hits = rounded_differently(2000, 0.3, 0.1, TRIALS[profile], seed=2)
    return frequency(theory.rounding_differs(2000, 0.3, 0.1), hits)


def measure_narrow_grid(profile):
    """A grid narrower than the gap, where min(1, .) matters."""
    from privlearn.replicable import theory

    hits = rounded_differently(400, 0.5, 0.03, TRIALS[profile], seed=3)
    return frequency(theory.rounding_differs(400, 0.5, 0.03), hits)


def thresholded_differently(n, masses, low, high, n_trials, seed):
    import numpy as np

    from privlearn.replicable import replicable_threshold

    rng = np.random.default_rng(seed)
    rest = [*masses, 1 - sum(masses)]
    one, two = rng.multinomial(n, rest, (2, n_trials))[..., :-1] / n
    at = replicable_threshold(low=low, high=high, shared_seed=seed, label=np.arange(n_trials))
    return ((one >= at[:, None]) != (two >= at[:, None])).any(axis=1)


def measure_threshold(profile):
    from privlearn.replicable import theory

    hits = thresholded_differently(2000, [0.3], 0.25, 0.35, TRIALS[profile], seed=4)
    return frequency(theory.threshold_differs(2000, 0.3, 0.25, 0.35), hits)


def measure_threshold_at_the_edge(profile):
    from privlearn.replicable import theory

    hits = thresholded_differently(500, [0.26], 0.25, 0.3, TRIALS[profile], seed=5)
    return frequency(theory.threshold_differs(500, 0.26, 0.25, 0.3), hits)


def measure_several_cells(profile):
    from privlearn.replicable import theory

    masses = [0.177, 0.177, 0.177, 0.177, 0.15]
    hits = thresholded_differently(8000, masses, 0.1437, 0.1797, TRIALS[profile], seed=6)
    return frequency(theory.thresholds_differ(8000, masses, 0.1437, 0.1797), hits)


def measure_masses(profile):
    import numpy as np

    from privlearn.replicable import replicable_masses, theory

    n, masses, alpha, n_trials = 2000, [0.3, 0.3, 0.4], 0.1, FEW_TRIALS[profile]
    counts = np.random.default_rng(7).multinomial(n, masses, (n_trials, 2))
    hits = []
    for trial, (one, two) in enumerate(counts):
        first, second = (replicable_masses(c, alpha=alpha, shared_seed=trial) for c in (one, two))
        hits.append(not np.array_equal(first, second))
    return frequency(theory.jointly_rounded_differ(n, masses, alpha), hits)


def measure_means(profile):
    import numpy as np

    from privlearn.replicable import replicable_round, theory

    n, alpha, n_trials = 60, 0.4, FEW_TRIALS[profile]
    rows = np.random.default_rng(8).random((2, n_trials, n))
    one, two = replicable_round(
        rows.mean(axis=2), alpha=alpha, shared_seed=8, labels=np.arange(n_trials)
    )
    return frequency(theory.means_differ(n, 1 / np.sqrt(12), alpha), one != two)


def measure_median(profile):
    import numpy as np

    from privlearn.replicable import replicable_round, theory

    n, alpha, n_trials = 201, 0.5, FEW_TRIALS[profile]
    rng = np.random.default_rng(9)
    medians = np.median(rng.exponential(size=(2, n_trials, n)), axis=2)
    one, two = replicable_round(
        medians, alpha=alpha, shared_seed=9, purpose="median", labels=np.arange(n_trials)
    )
    gap = theory.median_gap(n, lambda rank: -np.log1p(-rank))
    return frequency(gap / alpha, one != two)


def blob_cells():
    """Masses of the 16 cells of level 2 under the truncated mixture, by the normal law."""
    import numpy as np
    from scipy import stats

    ends = np.array([-1, -0.5, 0, 0.5, 1])
    half = [stats.norm(c, 0.1) for c in (-0.6, 0.4)]
    along = np.mean([np.diff(h.cdf(ends)) / (h.cdf(1) - h.cdf(-1)) for h in half], axis=0)
    return np.outer(along, along).ravel()


def measure_leaves(profile):
    from privlearn.replicable import simulation, theory

    n = 4000
    level = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3).levels[1]
    agree = 1 - theory.thresholds_differ(n // 2, blob_cells(), level.low, level.high)
    found = simulation.coreset_agreement(simulation.truncated_mixture, n, PAIRS[profile], seed=10)
    return frequency(
        agree, [True] * found.same_leaves + [False] * (found.n_pairs - found.same_leaves)
    )


def measure_coreset(profile):
    from privlearn.replicable import simulation, theory

    n = 4000
    plan = theory.schedule(n_clusters=3, epsilon=0.99, opt=0.5, dim=2, levels=3).levels[1]
    alpha = theory.masses_design(n_atoms=4, epsilon=0.099, rho=0.3, failure_probability=0.01).alpha
    agree = (1 - theory.thresholds_differ(n // 2, blob_cells(), plan.low, plan.high)) * (
        1 - theory.jointly_rounded_differ(n // 2, [0.25] * 4, alpha)
    )
    found = simulation.coreset_agreement(simulation.truncated_mixture, n, PAIRS[profile], seed=11)
    hits = [True] * found.same_coreset + [False] * (found.n_pairs - found.same_coreset)
    return frequency(agree, hits)


def measure_design(profile):
    """The sample size and grid spend the accuracy and the two budgets, and nothing more."""
    import numpy as np

    from privlearn.replicable import theory

    tau, rho, delta = 0.05, 0.1, 0.01
    design = theory.stat_query_design(tau=tau, rho=rho, failure_probability=delta)
    hoeffding = 2 * np.exp(-2 * design.n * design.estimate_accuracy**2)
    spent = [
        hoeffding,
        design.estimate_accuracy + design.alpha / 2,
        2 * hoeffding + 2 * design.estimate_accuracy / design.alpha,
    ]
    return claims.Measurement(np.array([delta, tau, rho]), np.array(spent))


def measure_calibrated_grid(profile):
    """At the calibrated width, equal masses differ with the bound's probability rho in sum."""
    import numpy as np

    from privlearn.replicable import theory

    n, atoms, rho = 16_000, 4, 0.1
    alpha = theory.calibrated_mass_grid(n=n, n_atoms=atoms, rho=rho)
    return claims.Measurement(rho, np.sum([theory.binomial_gap(n, 1 / atoms) / alpha] * atoms))


_claim = claims.registrar("replicable")

_claim(
    "stat-query",
    "the replicable statistical query with tau = .05, rho = .1, delta = .01 (193,124 rows) differs "
    "between two runs with probability E|v1 - v2| / alpha = .0139 at p = 1/2, far below rho",
    measure_stat_query,
    source=DERIVED + IMPAGLIAZZO,
    resolution=0.08,
)
_claim(
    "rounding",
    "two frequencies of 2,000 rows, p = .3, are rounded differently on a shared grid of width .1 "
    "with probability E min(1, |v1 - v2| / alpha) = .115614",
    measure_rounding,
    source=DERIVED + IMPAGLIAZZO,
    resolution=0.025,
)
_claim(
    "rounding-narrow",
    "the same law where the grid (.03) is about as narrow as the gap (400 rows, p = 1/2)",
    measure_narrow_grid,
    source=DERIVED + IMPAGLIAZZO,
    resolution=0.012,
)
_claim(
    "threshold",
    "a threshold uniform on [.25, .35] separates two frequencies of 2,000 rows, p = .3, with "
    "probability E|clip(v1) - clip(v2)| / .1 = .115614",
    measure_threshold,
    source=DERIVED + ESFANDIARI,
    resolution=0.025,
)
_claim(
    "threshold-edge",
    "the same law for a mass near the end of the range (500 rows, p = .26, range [.25, .3])",
    measure_threshold_at_the_edge,
    source=DERIVED + ESFANDIARI,
    resolution=0.025,
)
_claim(
    "thresholds-shared",
    "five cells against one shared threshold: 1 - mean over the threshold of "
    "prod_j (1 - 2 F_j (1 - F_j))",
    measure_several_cells,
    source=DERIVED + ESFANDIARI,
    # Counts are multinomial, the formula takes them as independent: .8 % observed at 5 cells.
    tolerance=0.02,
    resolution=0.04,
)
_claim(
    "masses-shared-offset",
    "three masses rounded with one shared offset differ with probability 1 - mean over the offset "
    "of prod_j sum_cells P_j(cell)^2",
    measure_masses,
    source=DERIVED + ESFANDIARI,
    # The masses sum to 1, the formula takes them as independent.
    tolerance=0.05,
    resolution=0.18,
)
_claim(
    "means",
    "two means of n rows of standard deviation s are rounded differently with probability "
    "2 s / (sqrt(pi n) alpha)",
    measure_means,
    source=DERIVED + IMPAGLIAZZO,
    # Normal law of a mean of 60 uniform rows: relative error of E|gap| about 1 / (20 n).
    tolerance=0.002,
    resolution=0.2,
)
_claim(
    "median",
    "two medians of 201 exponential rows are rounded differently with probability "
    "2 int B (1 - B) dQ / alpha",
    measure_median,
    source=DERIVED + IMPAGLIAZZO,
    # Gaps beyond alpha have probability 1e-6.
    tolerance=0.001,
    resolution=0.15,
)
_claim(
    "same-leaves",
    "two samples of 4,000 rows of the truncated mixture give the same leaves with the probability "
    "that the law of the shared threshold gives for the exact masses of its cells",
    measure_leaves,
    source=DERIVED + ESFANDIARI,
    # Independence of the cells' counts, as above.
    tolerance=0.02,
    resolution=0.25,
)
_claim(
    "same-coreset",
    "two samples of 4,000 rows of the truncated mixture give the same coreset with the product of "
    "the probabilities of the same leaves and of the same rounded masses",
    measure_coreset,
    source=DERIVED + ESFANDIARI,
    tolerance=0.04,  # independence of the counts, in both factors
    resolution=0.3,
)
_claim(
    "design",
    "n = ceil(log(2/delta) / (2 tau'^2)) makes Hoeffding's bound delta, tau' + alpha/2 = tau and "
    "2 delta + 2 tau'/alpha = rho",
    measure_design,
    source=IMPAGLIAZZO,
    tolerance=1e-4,  # n is rounded up
    resolution=2e-4,
)
_claim(
    "calibrated-grid",
    "on the grid of width 2 sqrt((N-1)/(pi n)) / rho, N equal masses differ with probability at "
    "most rho, by the sum of their exact laws",
    measure_calibrated_grid,
    source=DERIVED + ESFANDIARI,
    tolerance=1e-3,  # normal approximation of E|v1 - v2|
    resolution=2e-3,
)

if __name__ == "__main__":
    raise SystemExit(claims.main(topic="replicable"))
