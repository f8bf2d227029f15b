"""Re-identification risk: bounds and exact success beside attacks that run.

Run alone with ``python -m theory_checks.reidentification``. Framework and Topics model: Carey et
al., "Measuring Re-identification Risk", SIGMOD 2023, arXiv 2304.07210; the formulas are derived in
`privlearn.reidentification.theory`, because the paper's own statements were not at hand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privlearn import claims, simulate
from privlearn.claims import Measurement, by_profile
from privlearn.reidentification import simulation, theory
from privlearn.reidentification.api import TopicsApi

MODEL = "Topics model of Carey et al., SIGMOD 2023, arXiv 2304.07210; derived here"
OURS = "derived here, for the framework of Carey et al., SIGMOD 2023, arXiv 2304.07210"

UNIFORM = theory.PersistentWorld(4, 2, 0.2)
SKEWED = theory.PersistentWorld(4, 2, 0.2, (6, 3, 2, 1, 0.5, 0.5))


_claim = claims.registrar("reidentification", source=OURS)


# ------------------------------------------------------------ attacks in small worlds, exactly

_ATTACKS: tuple[Any, ...] = ("optimal", "weekly", "asymmetric", "hamming")


def _small_world(
    world: theory.PersistentWorld, weeks: tuple[int, ...], n_users: int, seed: int
) -> Callable[[str], Measurement]:
    """Attacks that run on drawn populations, beside sums over all sequences."""

    def measure(profile: str) -> Measurement:
        n_trials = by_profile(profile, 20_000, 400_000)
        trial = simulation.persistent_trial(world, n_users=n_users, weeks=weeks, methods=_ATTACKS)
        found = simulate.monte_carlo(
            trial, key=jax.random.key(seed), n_trials=n_trials, batch_size=5_000
        )
        return Measurement(
            np.array(
                [
                    [theory.exact_success(world, week, n_users, method) for week in weeks]
                    for method in _ATTACKS
                ]
            ),
            np.array([found.mean[method] for method in _ATTACKS]),
            np.array([found.stderr[method] for method in _ATTACKS]),
            n_trials,
        )

    return measure


_claim(
    "small-world-success",
    "With top sets that never change and are equally likely, the attacks succeed as often as the "
    "sum over all sequences says",
    _small_world(UNIFORM, (2, 3), 5, 1),
    source=MODEL,
    resolution=0.04,
)
_claim(
    "small-world-skewed",
    "The same where some top sets are more frequent: likelihood ratio > week by week > asymmetric "
    "Hamming > Hamming",
    _small_world(SKEWED, (2, 3), 3, 2),
    source=MODEL,
    resolution=0.04,
)


def _brute(profile: str) -> Measurement:
    cases = [(UNIFORM, 1, 3, "optimal"), (SKEWED, 1, 3, "asymmetric"), (UNIFORM, 2, 2, "hamming")]
    if profile == "paper":
        cases += [(SKEWED, 2, 2, method) for method in _ATTACKS] + [(SKEWED, 1, 5, "optimal")]
    return Measurement(
        np.array([theory.exact_success(*case) for case in cases]),
        np.array([theory.brute_force_success(*case) for case in cases]),
        n=len(cases),
    )


_claim(
    "score-groups-equal-enumeration",
    "Success by groups of equal scores, ((lt + eq)^n - lt^n) / (n eq), is that of all queries and "
    "all targets enumerated",
    _brute,
    tolerance=1e-11,
    resolution=1e-10,
)


def _matching(profile: str) -> Measurement:
    """Draw whole tables and a hidden permutation; guess from the posterior of each draw."""
    rng = np.random.default_rng(3)
    n, n_trials = 3, by_profile(profile, 40_000, 400_000)
    joint = SKEWED.joint(1)
    pairs = rng.choice(16, p=joint.ravel(), size=(n_trials, n))
    x, y = np.divmod(pairs, 4)
    permutations = np.array(list(itertools.permutations(range(n))))
    hidden = permutations[rng.integers(0, len(permutations), n_trials)]
    # Site 1 shows user i's topic in row hidden[i].
    shown = np.empty_like(y)
    np.put_along_axis(shown, hidden, y, axis=1)
    weight = joint[x[:, None, :], shown[:, permutations]].prod(axis=2)
    weight /= weight.sum(axis=1, keepdims=True)
    agree = (permutations[:, None, :] == permutations[None, :, :]).mean(axis=2)
    best = permutations[(weight @ agree + 1e-9 * rng.random(weight.shape)).argmax(axis=1)]
    per_row = np.stack(
        [[weight[:, permutations[:, i] == j].sum(axis=1) for j in range(n)] for i in range(n)]
    )
    rows = (per_row + 1e-9 * rng.random(per_row.shape)).argmax(axis=1).T
    likely = permutations[(weight + 1e-9 * rng.random(weight.shape)).argmax(axis=1)]
    credit = np.stack(
        [
            (best == hidden).mean(axis=1),
            (rows == hidden).mean(axis=1),
            (likely == hidden).mean(axis=1),
            (likely == hidden).all(axis=1),
        ]
    )
    return Measurement(
        np.array(theory.matching_success(SKEWED, n)),
        credit.mean(axis=1),
        credit.std(axis=1, ddof=1) / math.sqrt(n_trials),
        n_trials,
    )


_claim(
    "matching-two-tables",
    "With both tables in hand: expected share of right links of the best permutation, of the best "
    "guess row by row (never less), of the likeliest permutation, and the chance of all right",
    _matching,
    resolution=0.08,
)


# --------------------------------------------------------------------------------- the model


def _drawn_constants(profile: str) -> Measurement:
    """Draw both sites for fixed top sets: chance of a topic of the set, and of a match."""
    n_trials, exact = by_profile(profile, 200, 4_000), []
    cases = ((349, 5, 0.05), (20, 3, 0.5))

    def trial(key: jax.Array) -> jax.Array:
        values = []
        for number, (m, k, p) in enumerate(cases):
            sets = jnp.broadcast_to(jnp.arange(k, dtype=jnp.int32), (200, 10, k))
            views = simulation.show_sites(jax.random.fold_in(key, number), sets, TopicsApi(m, k, p))
            values.append(
                jnp.stack([(views.site_a < k).mean(), (views.site_a == views.site_b).mean()])
            )
        return jnp.concatenate(values)

    for m, k, p in cases:
        inside, _ = theory.topic_probabilities(m, k, p)
        exact += [k * inside, theory.same_topic_probability(m, k, p)]
    found = simulate.monte_carlo(trial, key=jax.random.key(4), n_trials=n_trials, batch_size=50)
    return Measurement.of(np.array(exact), found)


_claim(
    "topic-probabilities",
    "A topic of the top set is shown with (1 - p) / k + p / m, and two sites see the same topic "
    "with k q_in^2 + (m - k) q_out^2",
    _drawn_constants,
    source=MODEL,
    resolution=0.04,
)


def _epsilon_and_capacity(profile: str) -> Measurement:
    """Epsilon and Bayes capacity, with one user for each possible history of weekly top sets."""
    exact, found = [], []
    for m, k, p, weeks in ((6, 2, 0.1, 1), (5, 2, 0.3, 2), (4, 1, 0.2, 3)):
        week = theory.PersistentWorld(m, k, p).topic_law
        law = week
        for _ in range(weeks - 1):
            law = np.einsum("ux,vy->uvxy", law, week).reshape(len(law) * len(week), -1)
        exact += [
            theory.topics_epsilon(m, k, p, weeks),
            theory.topics_capacity(m, k, p) ** weeks,
        ]
        found += [float(np.log(law.max(axis=0) / law.min(axis=0)).max()), theory.capacity(law)]
    return Measurement(np.array(exact), np.array(found), n=len(exact))


_claim(
    "epsilon-and-capacity",
    "T weeks have epsilon T log(q_in / q_out) and Bayes capacity (m q_in)^T",
    _epsilon_and_capacity,
    source=MODEL,
    tolerance=1e-12,
    resolution=1e-11,
)


# --------------------------------------------------------------------------------- the bounds


def _random_channels(seed: int, count: int, users: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.dirichlet(
            np.full(rng.integers(2, 8), rng.choice([0.1, 0.5, 2.0])), rng.integers(*users)
        )
        for _ in range(count)
    ]


def _bounds_hold(profile: str) -> Measurement:
    """1 + (exact success - bound, where positive): 1 if no bound is ever below."""
    worst = np.zeros(len(theory.Bounds._fields))
    for matrix in _random_channels(5, by_profile(profile, 300, 3_000), (2, 7)):
        excess = theory.bayes_success(matrix) - np.array(theory.bounds(matrix))
        worst = np.maximum(worst, excess)
    return Measurement(np.ones(len(worst)), 1 + worst)


_claim(
    "bounds-hold",
    "None of the ten bounds is below the exact success of the best attacker (random channels)",
    _bounds_hold,
    tolerance=1e-12,
    resolution=1e-11,
)


def _tight(profile: str) -> Measurement:
    """Symmetric channels, where a user's own release has chance h and all others share the rest."""
    exact, found = [], []
    for n, h in ((4, 0.7), (10, 0.3), (25, 0.9)):
        rest = (1 - h) / (n - 1)
        got = theory.bounds(np.full((n, n), rest) + (h - rest) * np.eye(n))
        exact += [h] * 6
        found += [
            got.sharp_fano,
            got.chi_square,
            got.tv_mean,
            got.tv_max,
            got.pure_dp,
            got.test_curve,
        ]
    return Measurement(np.array(exact), np.array(found))


_claim(
    "bounds-tight",
    "On symmetric channels sharp Fano, chi-square, total variation, epsilon and test-curve bounds "
    "equal the success",
    _tight,
    tolerance=1e-9,
    resolution=1e-8,
)


def _hull(profile: str) -> Measurement:
    """Whether the hull holds on all channels, and the plain maximum fails on some: 1 for yes."""
    hull_holds, plain_fails = True, False
    for matrix in _random_channels(6, by_profile(profile, 300, 3_000), (2, 8)):
        n, exact = len(matrix), theory.bayes_success(matrix)
        hull_holds &= theory.curve_bound(n, theory.pairwise_curve(matrix)) >= exact - 1e-12
        curves = [theory.pair_curve(p, q) for p, q in itertools.permutations(matrix, 2)]
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            power = max(float(curve((1 - middle) / (n - 1))) for curve in curves)
            low, high = (middle, high) if power >= middle else (low, middle)
        plain_fails |= high < exact - 1e-3
    return Measurement(np.ones(2), np.array([hull_holds, plain_fails], dtype=float))


_claim(
    "hull-needed",
    "S <= g((1 - S) / (n - 1)) holds with the concave hull of the pair curves, and fails by more "
    "than 0.001 for some channels with their plain maximum",
    _hull,
    tolerance=1e-9,
    resolution=0.5,
)


def _program(profile: str) -> Measurement:
    matrices = _random_channels(7, by_profile(profile, 20, 200), (3, 4))
    return Measurement(
        np.array([theory.bayes_success(matrix) for matrix in matrices]),
        np.array([theory.bayes_success_lp(matrix) for matrix in matrices]),
    )


_claim(
    "bayes-equals-program",
    "The best of all randomised attackers, a linear program, succeeds with (1 / n) sum over x of "
    "max_u P_u(x)",
    _program,
    tolerance=1e-6,  # the solver's feasibility is 1e-7
    resolution=1e-5,
)


def _gaussian(profile: str) -> Measurement:
    """Draw releases a e_u + noise; the best attacker names the largest coordinate."""
    n_trials, cases = by_profile(profile, 40_000, 400_000), ((10, 1.0), (10, 2.0), (200, 2.0))

    def trial(key: jax.Array) -> jax.Array:
        right = []
        for number, (n, a) in enumerate(cases):
            release = jax.random.normal(jax.random.fold_in(key, number), (n,)).at[0].add(a)
            right.append(release.argmax() == 0)
        return jnp.stack(right)

    found = simulate.monte_carlo(trial, key=jax.random.key(8), n_trials=n_trials, batch_size=5_000)
    return Measurement.of(
        np.array([theory.gaussian_simplex_success(n, a) for n, a in cases]), found
    )


_claim(
    "gaussian-simplex",
    "Users who send N(a e_u, I) are named with probability integral phi(z - a) Phi(z)^(n - 1)",
    _gaussian,
    resolution=0.08,
)


def _known_profiles(profile: str) -> Measurement:
    """An attacker who knows three persistent top sets, run on drawn releases."""
    sets = np.array([[0, 1], [0, 2], [2, 3]])
    n_trials = by_profile(profile, 40_000, 400_000)
    inside, outside = theory.topic_probabilities(4, 2, 0.2)
    law = np.full((3, 4), outside)
    np.put_along_axis(law, sets, inside, axis=1)
    weekly = jnp.asarray(np.log(law))

    def trial(key: jax.Array) -> jax.Array:
        who_key, show_key = jax.random.split(key)
        user = jax.random.randint(who_key, (), 0, 3)
        top = jnp.broadcast_to(jnp.asarray(sets)[user], (1, 3, 2))
        topics = simulation.show_sites(show_key, top, TopicsApi(4, 2, 0.2)).site_a[0]
        scores = jnp.cumsum(weekly[:, topics], axis=1)  # after 1, 2 and 3 weeks
        best = scores >= scores.max(axis=0) - 1e-4
        return best[user] / best.sum(axis=0)

    exact = [theory.known_profiles_success(sets, weeks, 4, 0.2) for weeks in (1, 2, 3)]
    found = simulate.monte_carlo(trial, key=jax.random.key(9), n_trials=n_trials, batch_size=5_000)
    return Measurement.of(np.array(exact), found)


_claim(
    "known-profiles",
    "Who knows all top sets names the user with (1 / n) sum over x of max_u prod_t P(x_t | S_u)",
    _known_profiles,
    source=MODEL,
    resolution=0.03,
)


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="reidentification"))
