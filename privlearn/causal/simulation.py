"""Populations to experiment on, and the experiment as a trial for `privlearn.simulate`.

A population has fixed potential outcomes; a trial draws the assignment, the mechanism's noise and
the estimate::

    people = gaussian_mixture(n=3500, k=12, beta=2.0, seed=0)
    trial = experiment_trial(people, ClusterDP(people.grid, lam=0.5, gamma=0.01, sigma=10.0))
    monte_carlo(trial, key=jax.random.key(0), n_trials=1_000).mean.square    # variance

The mechanism and the estimate are those of `kernels`, which releases use too.

Sources: the Gaussian mixture follows the synthetic experiment of Javanmard, Mirrokni,
Pouget-Abadie (arXiv 2308.00957), whose exact outcome model we have not seen; the graph stands in
for their social network, which no package carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import stats

from privlearn.causal import kernels, theory
from privlearn.causal.cells import Cells
from privlearn.causal.mechanism import _Resampling
from privlearn.causal.outcomes import OutcomeGrid


class Population(NamedTuple):
    """Fixed potential outcomes of units in clusters, sorted by cluster.

    Attributes
    ----------
    y0, y1 : ndarray of shape (n,), int32
        Value codes without and with treatment.
    clusters : ndarray of shape (n,), int32
        0, ..., C-1, ascending.
    n_treated : ndarray of shape (C,)
        How many units of each cluster are treated.
    grid : OutcomeGrid
    """

    y0: np.ndarray
    y1: np.ndarray
    clusters: np.ndarray
    n_treated: np.ndarray
    grid: OutcomeGrid

    @property
    def sizes(self) -> np.ndarray:
        """Units per cluster and arm, (C, 2)."""
        n_c = np.bincount(self.clusters)
        return np.stack([n_c - self.n_treated, self.n_treated], axis=1)

    @property
    def effect(self) -> float:
        """Average effect, in units of the outcome."""
        v = self.grid.array
        return float((v[self.y1] - v[self.y0]).mean())

    @property
    def shares(self) -> np.ndarray:
        """Share of each value among the potential outcomes of each cluster and arm, (C, 2, K)."""
        k, c = self.grid.k, len(self.n_treated)
        counts = np.stack(
            [kernels.count_cells(y, self.clusters, c, k) for y in (self.y0, self.y1)], axis=1
        )
        return counts / counts.sum(-1, keepdims=True)

    @property
    def sampling_variance(self) -> float:
        """Variance of the stratified estimate without privacy (Neyman): exact."""
        v = self.grid.array
        return theory.neyman_variance(v[self.y0], v[self.y1], self.clusters, self.n_treated)

    def merged(self) -> Population:
        """Return the same units as one cluster."""
        total = np.array([self.n_treated.sum()])
        return self._replace(clusters=np.zeros_like(self.clusters), n_treated=total)

    def assign(self, seed: int) -> np.ndarray:
        """Draw one assignment in NumPy: n_treated units of each cluster."""
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(self.clusters)), self.clusters))
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.clusters))[:-1]])
        rank = np.arange(len(order)) - starts[self.clusters]
        z = np.zeros(len(order), np.int32)
        z[order] = rank < self.n_treated[self.clusters]
        return z

    def cells(self, z: np.ndarray) -> Cells:
        """Layout of an assignment."""
        members = tuple((c,) for c in range(len(self.n_treated)))
        return Cells((2 * self.clusters + z).astype(np.int32), members, self.sizes)


def gaussian_mixture(
    n: int,
    k: int,
    beta: float,
    seed: int,
    *,
    effect: float = 1.0,
    weights: tuple[float, ...] = (0.3, 0.3, 0.4),
) -> Population:
    """Clusters with normal outcomes a distance `beta` apart, binned to k values.

    c ~ weights, y(0) = beta (c - 1) + N(0, 1), y(1) = y(0) + effect; k equal bins over the range of
    all potential outcomes (a choice that only a simulation may make), bin midpoints as values;
    half of each cluster is treated.

    Examples
    --------
    >>> people = gaussian_mixture(n=300, k=12, beta=2.0, seed=0)
    >>> people.sizes.sum(), round(people.effect, 1)
    (np.int64(300), 1.0)
    """
    rng = np.random.default_rng(seed)
    clusters = np.sort(rng.choice(len(weights), n, p=np.asarray(weights)))
    latent = beta * (clusters - 1) + rng.standard_normal(n)
    return binned(latent, latent + effect, clusters, k)


def communities(
    seed: int, *, n_communities: int = 50, n: int = 2_000, k: int = 8, noise: float = 0.5
) -> Population:
    """Users of a social network whose outcomes depend on their community: a stochastic block model.

    Community sizes follow a power law; inside, edges appear with a probability drawn per community.
    An outcome is a linear function of the community's standardised log size and density, plus
    normal noise; the treatment adds half a unit, and more in dense communities.

    Parameters
    ----------
    seed : int
    n_communities, n, k : int
        Communities (of at least 8 users), about how many users, values.
    noise : float
        Standard deviation within communities; the features have standard deviation 1.

    Examples
    --------
    >>> users = communities(seed=0, n=600)
    >>> len(users.n_treated), bool(users.sizes.min() >= 4)
    (50, True)
    """
    rng = np.random.default_rng(seed)
    raw = rng.pareto(1.5, n_communities) + 1
    sizes = np.maximum((raw / raw.sum() * n).astype(int), 8)
    density = np.empty(n_communities)
    for c, size in enumerate(sizes):
        pairs = size * (size - 1) // 2
        density[c] = rng.binomial(pairs, rng.beta(2, 6)) / pairs
    features = np.stack([np.log(sizes), density])
    features = (features - features.mean(1, keepdims=True)) / features.std(1, keepdims=True)
    clusters = np.repeat(np.arange(n_communities), sizes)
    base = (features.sum(0) / math.sqrt(2))[clusters] + noise * rng.standard_normal(len(clusters))
    return binned(base, base + 0.5 + 0.25 * features[1][clusters], clusters, k)


def binned(y0: np.ndarray, y1: np.ndarray, clusters: np.ndarray, k: int) -> Population:
    """Population from real potential outcomes, in k equal bins; half of each cluster treated.

    Examples
    --------
    >>> binned(np.zeros(4), np.ones(4), np.array([0, 0, 0, 0]), k=2).effect
    0.5
    """
    low, high = min(y0.min(), y1.min()), max(y0.max(), y1.max())
    grid = OutcomeGrid.bins((float(low), float(high)), k)
    codes = [grid.encode(y) for y in (y0, y1)]
    n_treated = np.bincount(clusters) // 2
    return Population(codes[0], codes[1], clusters.astype(np.int32), n_treated, grid)


def from_trial(
    codes: np.ndarray, z: np.ndarray, clusters: np.ndarray, grid: OutcomeGrid
) -> Population:
    """Population of a real trial under the hypothesis of no effect: both outcomes are the seen one.

    The sharp null hypothesis makes the unseen outcomes known; cell sizes stay those of the trial.

    Examples
    --------
    >>> grid = OutcomeGrid.of([0, 1])
    >>> one = from_trial(np.array([0, 1, 1]), np.array([1, 0, 0]), np.array([0, 0, 0]), grid)
    >>> one.effect, one.sizes
    (0.0, array([[2, 1]]))
    """
    order = np.argsort(clusters, kind="stable")
    y = codes[order].astype(np.int32)
    n_treated = np.bincount(clusters, z).astype(int)
    return Population(y, y, clusters[order].astype(np.int32), n_treated, grid)


class TrialOutcome(NamedTuple):
    """One experiment; averages over trials are what the theory is about.

    Attributes
    ----------
    error : Array
        Estimate minus the true effect: 0 on average.
    square : Array
        Its square: the variance.
    gap : Array
        Squared difference from the estimate with true outcomes: the variance gap.
    expected_gap : Array
        The closed form of the gap for this assignment and these priors.
    variance : Array
        Estimated variance.
    covered : Array
        Whether the interval covers the true effect.
    """

    error: Array
    square: Array
    gap: Array
    expected_gap: Array
    variance: Array
    covered: Array


def assign(key: Array, clusters: Array, n_treated: Array) -> Array:
    """Treat n_treated[c] random units of each cluster; clusters are sorted.

    Examples
    --------
    >>> z = assign(jax.random.key(0), jnp.array([0, 0, 1, 1, 1]), jnp.array([1, 2]))
    >>> int(z[:2].sum()), int(z[2:].sum())
    (1, 2)
    """
    n = clusters.shape[0]
    draws = jax.random.bits(key, (n,), jnp.uint32)
    position = jnp.arange(n, dtype=jnp.int32)
    _, _, order = jax.lax.sort((clusters, draws, position), num_keys=2)
    first = jnp.searchsorted(clusters, jnp.arange(n_treated.shape[0]))
    rank = position - first[clusters].astype(jnp.int32)
    return jnp.zeros(n, jnp.int32).at[order].set((rank < n_treated[clusters]).astype(jnp.int32))


def experiment_trial(
    population: Population,
    mechanism: _Resampling | Sequence[_Resampling],
    *,
    stratify: bool = True,
    level: float = 0.95,
) -> Callable[[Array], TrialOutcome]:
    """Make a trial: assign, privatize, estimate.

    Parameters
    ----------
    population : Population
    mechanism : ClusterDP or one of its family, or several
        Several share the assignment and one compilation; outputs then have a first axis for them.
        They must keep the floor in the same way (``normalize``).
    stratify : bool
        Estimate cluster by cluster, or all clusters thrown together. The assignment is
        stratified in any case; use ``population.merged()`` for complete randomisation.
    level : float
        Of the interval.

    Returns
    -------
    callable
        key -> `TrialOutcome`.

    Raises
    ------
    ValueError
        If a mechanism has another grid than the population, or they differ in ``normalize``.

    Examples
    --------
    >>> from privlearn import simulate
    >>> from privlearn.causal import UniformPriorDP
    >>> people = gaussian_mixture(n=100, k=4, beta=2.0, seed=0)
    >>> trial = experiment_trial(people, UniformPriorDP(people.grid, lam=0.3))
    >>> found = simulate.monte_carlo(trial, key=jax.random.key(0), n_trials=50, batch_size=50)
    >>> bool(abs(found.mean.error) < 5 * found.stderr.error)
    True
    """
    one = isinstance(mechanism, _Resampling)
    family = [mechanism] if isinstance(mechanism, _Resampling) else list(mechanism)
    if any(m.grid != population.grid for m in family):
        raise ValueError("mechanism must have the grid of the population")
    if len({m.normalize for m in family}) != 1:
        raise ValueError("mechanisms must have one way to normalize, or go into separate trials")
    k, n_clusters = population.grid.k, len(population.n_treated)
    values = population.grid.array - population.grid.array.mean()  # effects do not change
    quantile = float(stats.norm.ppf((1 + level) / 2))
    y0, y1, clusters, n_treated = (jnp.asarray(x) for x in population[:4])
    wheres = np.stack([m.prior_of_cell(n_clusters) for m in family])
    parameters = np.array([(m.exact_lam, m.exact_gamma, float(m.sigma)) for m in family])
    tau = population.effect

    def trial(key: Array) -> TrialOutcome:
        assignment, noise = jax.random.split(key)
        z = assign(assignment, clusters, n_treated)
        cells = 2 * clusters + z
        codes = jnp.where(z == 1, y1, y0)
        v = jnp.asarray(values, jnp.result_type(float))

        def effect(counts: Array, prior_mean: Any, lam: Any) -> kernels.Effect:
            moments = kernels.score_moments(counts, v, prior_mean, lam)
            return kernels.stratified_effect(
                moments if stratify else kernels.pool_clusters(moments)
            )

        def counted(y: Array) -> Array:
            return kernels.count_cells(y, cells, 2 * n_clusters, k).reshape(-1, 2, k)

        true_counts = counted(codes)
        plain = effect(true_counts, 0.0, 0.0)

        def privatized(key: Array, parameter: Array, where: Array) -> TrialOutcome:
            lam, gamma, sigma = parameter
            draw = kernels.privatize(
                key, codes, cells, where, k=k, n_priors=2 * n_clusters, lam=lam, gamma=gamma,
                sigma=sigma, normalize=family[0].normalize,
            )  # fmt: skip
            mean, spread = kernels.distribution_moments(draw.priors, v)
            mean, spread = mean[where].reshape(-1, 2), spread[where].reshape(-1, 2)
            found = effect(counted(draw.outcomes), mean, lam)
            expected = _expected_gap(true_counts, v, mean, spread, lam, stratify)
            error = found.tau - tau
            covered = jnp.abs(error) <= quantile * jnp.sqrt(found.variance)
            gap = (found.tau - plain.tau) ** 2
            return TrialOutcome(error, error**2, gap, expected, found.variance, covered)

        keys = jax.random.split(noise, len(family))
        outcomes = jax.vmap(privatized)(keys, jnp.asarray(parameters, v.dtype), jnp.asarray(wheres))
        return jax.tree.map(lambda x: x[0], outcomes) if one else outcomes

    return trial


def _expected_gap(
    counts: Array, values: Array, mean: Array, spread: Array, lam: Array, stratify: bool
) -> Array:
    """Closed form of the gap given assignment and priors, on traced arrays."""
    size = counts.sum(-1)
    own = (counts * (values - mean[..., None]) ** 2).sum(-1) / size
    each = (lam * spread + lam * (1 - lam) * own) / (1 - lam) ** 2
    if stratify:
        weight = (size.sum(-1, keepdims=True) / size.sum()) ** 2 / size
    else:
        weight = size / size.sum(0) ** 2
    return (weight * each).sum()


def planned_gap(
    population: Population, mechanism: _Resampling, *, n_draws: int = 200, seed: int = 0
) -> float:
    """Variance gap to expect, averaged over noise, with cells as the population's shares.

    Leaves out what the random assignment adds to the difference of cells from their cluster.

    Examples
    --------
    >>> from privlearn.causal import UniformPriorDP
    >>> people = gaussian_mixture(n=300, k=4, beta=2.0, seed=0)
    >>> planned_gap(people, UniformPriorDP(people.grid, lam=0.3)) > 0
    True
    """
    from privlearn.causal.planner import expected_gap, prior_moments

    if mechanism.priors == "none":
        flat = np.full(population.shares.shape, 1 / population.grid.k)
        return theory.variance_gap(
            population.shares, flat, population.grid.array, mechanism.exact_lam, population.sizes
        )
    spread, distance = prior_moments(
        population.shares, population.sizes, population.grid.array, gamma=mechanism.exact_gamma,
        sigma=mechanism.sigma, pooled=mechanism.priors == "arm", normalize=mechanism.normalize,
        n_draws=n_draws, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return expected_gap(
        population.shares, population.sizes, population.grid.array, mechanism.exact_lam, spread,
        distance,
    )  # fmt: skip
