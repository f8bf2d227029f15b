"""Learning from aggregate responses: what the theory says beside what the estimator does.

Run alone with ``python -m theory_checks.aggregate``. Formulas are those of
`privlearn.aggregate.theory`: Javanmard, Chen, Mirrokni, Badanidiyuru, Fu, "Learning from Aggregate
Responses", ICLR 2024, arXiv 2401.11081, re-derived.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg  # noqa: F401  (loads the BLAS that JAX calls, so that its threads can be limited)
from threadpoolctl import threadpool_limits

from privlearn import claims, simulate
from privlearn.aggregate import kernels, layout, losses, simulation, theory
from privlearn.claims import Claim, Measurement, by_profile

PAPER = "Javanmard et al., ICLR 2024, arXiv 2401.11081; re-derived"
EASYLLP = "Busa-Fekete et al., NeurIPS 2023, arXiv 2302.03115"
OURS = "derived here, for the model of Javanmard et al., arXiv 2401.11081"


def _estimate(trial: Callable[[jax.Array], Any], seed: int, n_trials: int) -> simulate.Estimate:
    # Trials already fill the cores: threads inside the small matrix factorisations only collide.
    with threadpool_limits(limits=1, user_api="blas"):
        return simulate.monte_carlo(
            trial, key=jax.random.key(seed), n_trials=n_trials, x64=True, batch_size=25
        )


def _outcomes(trial: Callable[[jax.Array], Any], seed: int, n_trials: int) -> Any:
    with threadpool_limits(limits=1, user_api="blas"):
        return simulate.run_trials(
            trial, key=jax.random.key(seed), n_trials=n_trials, x64=True, batch_size=25
        )


def _joined(parts: list[tuple[Any, Any, Any]], n: int) -> Measurement:
    """One measurement from (theory, mean, stderr) of several cases."""
    columns = [np.concatenate([np.ravel(part[i]) for part in parts]) for i in range(3)]
    return Measurement(*columns, n=n)


# ------------------------------------------------------------------ the limit n, p -> infinity (F1)

# n, p, k, rhos: 1/k above and below gamma, and the instance loss.
_LIMIT_CASES = (
    (400, 100, 2, (0.3, 1.0)),
    (500, 100, 4, (0.2,)),
    (480, 48, 6, (0.1, 3.0)),
    (200, 100, 4, (0.1, 1.0)),
)


@functools.cache
def _limit_estimates(profile: str, design: simulation.Design) -> list[simulate.Estimate]:
    """One estimate a case, shared by the claims on bias, variance and shrinkage."""
    times, n_trials = by_profile(profile, 1, 2), by_profile(profile, 200, 500)
    return [
        _estimate(
            simulation.interpolating_trial(
                times * n, times * p, k, np.array(rhos), 2.0, 0.5, design=design
            ),
            11,
            n_trials,
        )
        for n, p, k, rhos in (_LIMIT_CASES if design == "gaussian" else _LIMIT_CASES[:1])
    ]


def _limit(field: str, design: simulation.Design) -> Callable[[str], Measurement]:
    def measure(profile: str) -> Measurement:
        parts = []
        for (n, p, k, rhos), found in zip(
            _LIMIT_CASES, _limit_estimates(profile, design), strict=design == "gaussian"
        ):
            exact = getattr(theory.risk(p / n, k, rhos, 2.0, 0.5), field)
            parts.append((exact, getattr(found.mean, field), getattr(found.stderr, field)))
        return _joined(parts, found.n)

    return measure


for _field, _what, _design in (
    ("bias", "The squared bias", "gaussian"),
    ("variance", "The variance", "gaussian"),
    ("shrinkage", "The shrinkage", "gaussian"),
    ("total", "With independent Wishart Gram matrices for rotated bags, the risk", "wishart"),
):
    claims.register(
        Claim(
            name=f"aggregate/interpolating-{_field}"
            if _design == "gaussian"
            else "aggregate/wishart-rotation",
            topic="aggregate",
            statement=f"{_what} of the interpolating estimator tends to the closed form F1",
            source=PAPER,
            measure=_limit(_field, _design),
            # n is 200 to 500 in the quick profile; the limit is approached like 1 / n.
            tolerance=0.015,
            resolution=0.035,
        )
    )


def _correlated(profile: str) -> Measurement:
    n, p, k, rho = 300, 60, 3, 0.2
    sigma = 0.7 ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    trial = simulation.fitted_trial(n, p, k, rho, 2.0, 0.5, covariance=sigma)
    found = _estimate(trial, 13, by_profile(profile, 1000, 6000))
    theta0 = np.zeros(p)
    theta0[0] = math.sqrt(2.0)
    exact = theory.risk_correlated(p / n, k, rho, theta0, sigma, 0.5).total
    return Measurement(exact, found.mean.total, found.stderr.total, found.n)


claims.register(
    Claim(
        name="aggregate/correlated-features",
        topic="aggregate",
        statement="For x ~ N(0, Sigma), F1 is the prediction risk with signal theta0' Sigma theta0",
        source=OURS,
        measure=_correlated,
        tolerance=0.015,  # n = 300
        resolution=0.07,
    )
)


# --------------------------------------------------------------------------exact at finite n and p


def _finite(
    cases: tuple[tuple[int, int, int, tuple[float, ...]], ...], seed: int
) -> Callable[[str], Measurement]:
    def measure(profile: str) -> Measurement:
        n_trials = by_profile(profile, 1500, 8000)
        parts = []
        for n, p, k, rhos in cases:
            trial = simulation.interpolating_trial(n, p, k, np.array(rhos), 2.0, 0.5)
            found = _estimate(trial, seed, n_trials)
            exact = theory.exact_risk_finite(n, p, k, rhos, 2.0, 0.5)
            parts.append((exact.total, found.mean.total, found.stderr.total))
            parts.append((exact.variance, found.mean.variance, found.stderr.variance))
        return _joined(parts, n_trials)

    return measure


for _name, _statement, _cases in (
    (
        "bag-loss-exact",
        "Bag loss, p < m - 1: risk noise p / (m - p - 1), exact at finite n",
        ((60, 8, 3, (0.0,)),),
    ),
    (
        "bag-loss-min-norm-exact",
        "Bag loss, p > m + 1, least norm: signal (1 - m/p) + noise m / (p - m - 1), exact",
        ((60, 40, 3, (0.0,)),),
    ),
    (
        "instance-loss-exact",
        "Instance loss, p < n - 1: the matrix-beta bias and noise (m/n) p / (n - p - 1), exact",
        ((60, 15, 3, (1.0,)),),
    ),
    (
        "overparametrised-exact",
        "p > n + 1: every rho > 0 gives one and the same risk, exact at finite n",
        ((30, 50, 3, (0.1, 1.0, 10.0)),),
    ),
    (
        "single-instance-bags-exact",
        "k = 1: rho does nothing; ordinary (least-norm) least squares, exact",
        ((40, 12, 1, (0.0, 0.5, 3.0)), (20, 36, 1, (0.5,))),
    ),
):
    claims.register(
        Claim(
            name=f"aggregate/{_name}",
            topic="aggregate",
            statement=_statement,
            source=PAPER if "instance-loss" not in _name else OURS,
            measure=_finite(_cases, 21),
            resolution=0.05,
        )
    )


def _hard_regulariser(profile: str) -> Measurement:
    n, p, k = 60, 50, 3
    trial = simulation.interpolating_trial(n, p, k, 1e6, 2.0, 0.5)
    found = _estimate(trial, 22, by_profile(profile, 2000, 8000))
    exact = theory.exact_risk_finite(n, p, k, math.inf, 2.0, 0.5)
    return _joined(
        [
            (exact.bias, found.mean.bias, found.stderr.bias),
            (exact.variance, found.mean.variance, found.stderr.variance),
        ],
        found.n,
    )


claims.register(
    Claim(
        name="aggregate/infinite-rho-exact",
        topic="aggregate",
        statement="rho -> inf: least squares among predictions that are constant within bags",
        source=OURS,
        measure=_hard_regulariser,
        tolerance=1e-3,  # rho is 1e6, not infinite
        resolution=0.05,
    )
)


# --------------------------------------------------------------------------------- the second route


def _saddle(profile: str) -> Measurement:
    rng = np.random.default_rng(31)
    exact, found = [], []
    for _ in range(by_profile(profile, 20, 100)):
        gamma, k = rng.uniform(0.02, 0.97), int(rng.integers(1, 12))
        rho, signal, noise = np.exp(rng.uniform(-4, 3, 3))
        closed = theory.risk(gamma, k, rho, signal, noise)
        saddle = theory.risk_cgmt(gamma, k, rho, signal, noise)
        exact += [closed.total, closed.shrinkage]
        found += [saddle.total, saddle.shrinkage]
    return Measurement(np.array(exact), np.array(found), 0.0, len(exact))


claims.register(
    Claim(
        name="aggregate/saddle-point-equals-closed-form",
        topic="aggregate",
        statement="The scalar saddle point F2 of the Gaussian min-max theorem gives F1",
        source=PAPER,
        measure=_saddle,
        tolerance=1e-7,
        resolution=1e-6,
    )
)


# ----------------------------------------------------------------------------------------- who wins


def _threshold(profile: str) -> Measurement:
    n_trials = by_profile(profile, 400, 2000)
    parts = []
    for gamma, k, p in ((0.1, 4, 60), (0.3, 2, 60)):
        trial = simulation.interpolating_trial(round(p / gamma), p, k, np.array([0.0, 1.0]))
        drawn = _outcomes(trial, 41, n_trials)
        gain = drawn.variance[:, 0] - drawn.variance[:, 1]
        loss = drawn.bias[:, 1] - drawn.bias[:, 0]
        ratio = gain.mean() / loss.mean()
        residual = (gain - ratio * loss) / loss.mean()
        parts.append(
            (
                theory.snr_threshold(gamma, k),
                ratio,
                residual.std(ddof=1) / math.sqrt(n_trials),
            )
        )
    return _joined(parts, n_trials)


claims.register(
    Claim(
        name="aggregate/snr-threshold",
        topic="aggregate",
        statement="Risks of bag and instance loss cross at the signal-to-noise ratio F3",
        source=PAPER,
        measure=_threshold,
        # Finite m: the bag variance is p / (m - p - 1) for p / (m - p), and m - p is 40 at least.
        tolerance=0.03,
        resolution=0.07,
    )
)

_BEST_CASES = ((0.1, 2, 0.2, 1.0), (0.4, 4, 2.0, 0.5))


def _best_rho(profile: str) -> Measurement:
    """Locate the bottom of the simulated curve by a parabola in log rho, with a jackknife error."""
    n_trials, p = by_profile(profile, 100, 400), 80
    steps = np.linspace(-0.5, 0.5, 7)
    parts = []
    for gamma, k, signal, noise in _BEST_CASES:
        best = theory.best_rho(gamma, k, signal, noise)
        trial = simulation.interpolating_trial(
            round(p / gamma), p, k, best.rho * np.exp(steps), signal, noise
        )
        groups = _outcomes(trial, 42, n_trials).total.reshape(20, -1, len(steps)).mean(axis=1)

        def bottom(curve: np.ndarray, rho: float = best.rho) -> tuple[float, float]:
            cubic = np.polynomial.Polynomial.fit(steps, curve, 3)
            at = min((z.real for z in cubic.deriv().roots() if abs(z.imag) < 1e-9), key=cubic)
            return rho * math.exp(at), float(cubic(at))

        full = np.array(bottom(groups.mean(axis=0)))
        without = np.array([bottom(np.delete(groups, i, 0).mean(axis=0)) for i in range(20)])
        spread = np.sqrt(19 / 20 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
        parts.append(((best.rho, best.risk), full, spread))
    return _joined(parts, n_trials)


claims.register(
    Claim(
        name="aggregate/best-rho",
        topic="aggregate",
        statement="The root of the quartic is where simulated risk is least, with that risk",
        source=OURS,
        measure=_best_rho,
        tolerance=0.015,  # p = 80
        resolution=0.06,
    )
)


# ------------------------------------------------------------------------------------ label privacy


def _laplace(profile: str) -> Measurement:
    n_trials = by_profile(profile, 3000, 12000)
    parts = []
    for k, rhos, epsilon in ((4, (0.2, 1.0), 2.0), (2, (0.0,), 4.0)):
        trial = simulation.private_trial(
            300, 30, k, np.array(rhos), 1.0, 0.25, epsilon=epsilon, clip=4.0
        )
        found = _estimate(trial, 51, n_trials)
        exact = theory.risk_private(
            0.1, k, rhos, 1.0, 0.25, epsilon=epsilon, clip=4.0, clipping=False
        ).total
        parts.append((exact, found.mean.total, found.stderr.total))
    return _joined(parts, n_trials)


def _clipping(profile: str) -> Measurement:
    n_trials = by_profile(profile, 500, 2000)
    parts = []
    for clip in (1.0, 2.2):
        trial = simulation.private_trial(
            400, 40, 4, 0.2, 1.0, 0.25, epsilon=2.0, clip=clip, laplace="averaged"
        )
        found = _estimate(trial, 52, n_trials)
        exact = theory.risk_private(0.1, 4, 0.2, 1.0, 0.25, epsilon=2.0, clip=clip).total
        parts.append((exact, found.mean.total, found.stderr.total))
    return _joined(parts, n_trials)


def _best_clip(profile: str) -> Measurement:
    n_trials = by_profile(profile, 300, 2000)
    parts = []
    for epsilon in (1.0,):
        best = theory.best_clip(0.05, 1, 0.0, 1.0, 0.25, epsilon=epsilon)
        trial = simulation.private_trial(
            800, 40, 1, 0.0, 1.0, 0.25, epsilon=epsilon, clip=float(best.clip), laplace="averaged"
        )
        found = _estimate(trial, 53, n_trials)
        parts.append((best.risk, found.mean.total, found.stderr.total))
    return _joined(parts, n_trials)


def _ridge(profile: str) -> Measurement:
    n, p, signal, epsilons = 1000, 50, 1.0, np.array([0.5, 2.0, 8.0])
    noises = theory.effective_noise(1, 0.25, epsilons, 3.0)

    def trial(key: jax.Array) -> Any:
        features = jax.random.normal(key, (n, 1, p))
        stats = kernels.gram_statistics(features, jnp.zeros(n))
        # With bags of one, the within-bag matrix is 0: a ridge of rho = lambda takes its place.
        penalised = stats._replace(within=n * jnp.eye(p))

        def at(noise: jax.Array) -> jax.Array:
            found = kernels.conditional_risk(
                penalised, p / n * noise / signal, noise, signal=signal, method="cholesky"
            )
            return found.bias + found.variance

        return jax.vmap(at)(jnp.asarray(noises))

    exact = theory.ridge_private_risk(p / n, signal, 0.25, epsilon=epsilons, clip=3.0).total
    return Measurement.of(exact, _estimate(trial, 54, by_profile(profile, 300, 2000)))


for _name, _statement, _measure, _tolerance, _resolution in (
    (
        "laplace-noise",
        "Laplace noise on bag means acts as noise 8 C^2 / (k epsilon^2) more per response (F4)",
        _laplace,
        0.02,  # n = 300
        0.07,
    ),
    (
        "clipping",
        "Clipping Gaussian responses shrinks the target by alpha and adds noise (F4c)",
        _clipping,
        0.01,  # n = 400
        0.05,
    ),
    (
        "best-clip",
        "The risk at the best clip, individual responses with Laplace noise",
        _best_clip,
        0.01,  # n = 800
        0.045,
    ),
    (
        "ridge-baseline",
        "Individual Laplace noise and the best ridge: the fair baseline's risk",
        _ridge,
        0.004,  # n = 1000
        0.01,
    ),
):
    claims.register(
        Claim(
            name=f"aggregate/private-{_name}",
            topic="aggregate",
            statement=_statement,
            source=PAPER if _name == "laplace-noise" else OURS,
            measure=_measure,
            tolerance=_tolerance,
            resolution=_resolution,
        )
    )


# ------------------------------------------------------------------------------------------ EasyLLP


def _easyllp_risk(profile: str) -> Measurement:
    n_trials = by_profile(profile, 300, 3000)
    parts = []
    for n, p, k, t in ((240, 60, 2, None), (240, 48, 4, 2.0)):
        found = _estimate(simulation.easyllp_trial(n, p, k, 2.0, 0.5, multiplier=t), 61, n_trials)
        exact = theory.easyllp_risk_finite(n, p, k, 2.0, 0.5, multiplier=t)
        for field in ("total", "shrinkage"):
            parts.append(
                (getattr(exact, field), getattr(found.mean, field), getattr(found.stderr, field))
            )
    return _joined(parts, n_trials)


def _easyllp_limit(profile: str) -> Measurement:
    n_trials = by_profile(profile, 200, 1000)
    parts = []
    for gamma, k in ((0.2, 4),):
        p = 80
        trial = simulation.easyllp_trial(round(p / gamma), p, k, 2.0, 0.5, design="wishart")
        found = _estimate(trial, 62, n_trials)
        exact = theory.easyllp_risk(gamma, k, 2.0, 0.5).total
        parts.append((exact, found.mean.total, found.stderr.total))
    return _joined(parts, n_trials)


claims.register(
    Claim(
        name="aggregate/easyllp-exact",
        topic="aggregate",
        statement="Risk and shrinkage of multiples of the instance solution, exact at finite n",
        source=OURS,
        measure=_easyllp_risk,
        resolution=0.025,
    )
)
claims.register(
    Claim(
        name="aggregate/easyllp-risk",
        topic="aggregate",
        statement="EasyLLP has risk k gamma / (1 - gamma) [noise + signal (1 - 1/k)] (F5)",
        source=OURS,
        measure=_easyllp_limit,
        tolerance=0.02,  # p = 80
        resolution=0.045,
    )
)


class _SmallWorld:
    """Three feature values, binary responses, bags of 3: every bag can be enumerated."""

    x = np.array([0.2, 0.5, 0.3])
    y = np.array([0.1, 0.6, 0.9])
    k = 3

    @classmethod
    def bags(cls) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability, feature numbers and responses of all 6^3 bags."""
        members = list(itertools.product(range(3), (0, 1)))
        weight = [cls.x[i] * (cls.y[i] if y else 1 - cls.y[i]) for i, y in members]
        every = list(itertools.product(range(6), repeat=cls.k))
        probability = np.array([math.prod(weight[j] for j in bag) for bag in every])
        features = np.array([[members[j][0] for j in bag] for bag in every])
        responses = np.array([[members[j][1] for j in bag] for bag in every])
        return probability, features, responses


def _every_bag(function: Callable[[Any, Any], Any], outputs: np.ndarray) -> np.ndarray:
    """Apply to (mean response, predictions) of each bag of the small world."""
    _, features, responses = _SmallWorld.bags()
    with simulate.float64():
        one = layout.equal_bags(1, _SmallWorld.k)
        values = jax.vmap(lambda y, f: function(y[None], f[None], one))(
            jnp.asarray(responses.mean(axis=1)), jnp.asarray(outputs[features])
        )
        return np.asarray(values)


def _logistic(y: Any, logit: Any) -> Any:
    return np.logaddexp(0, logit) - y * logit


def _easyllp_unbiased(profile: str) -> Measurement:
    logits = np.array([-1.0, 0.4, 2.0])
    world = _SmallWorld
    truth = world.x @ (world.y * _logistic(1, logits) + (1 - world.y) * _logistic(0, logits))
    prior = float(world.x @ world.y)
    control = float(world.x @ (_logistic(1, logits) - _logistic(0, logits)))
    probability = world.bags()[0]
    found = []
    for variate in (None, control):
        values = _every_bag(
            lambda y, f, one, variate=variate: losses.easyllp_loss(
                "logistic", y, f, one, prior=prior, control_variate=variate
            ),
            logits,
        )
        found.append(probability @ values)
    return Measurement(np.array([truth, truth]), np.array(found))


def _debiased_square(profile: str) -> Measurement:
    world, outputs = _SmallWorld, np.array([0.3, 0.5, 0.8])
    truth = world.x @ (world.y * (1 - outputs) ** 2 + (1 - world.y) * outputs**2)
    values = _every_bag(
        lambda y, f, one: losses.debiased_square_loss(
            y, f, one, prior=world.x @ world.y, mean_prediction=world.x @ outputs
        ),
        outputs,
    )
    return Measurement(truth, world.bags()[0] @ values)


# --------------------------------------------------------------------------------------- identities


def _random_bags(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bags of 1 to 6 members in random order, responses and predictions."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(12), rng.permutation(np.repeat(np.arange(1, 7), 2))))
    return ids, rng.uniform(0, 3, 12), rng.standard_normal(len(ids))


def _identity(
    family: str, log_partition: Callable[[Any], Any] | None
) -> Callable[[str], Measurement]:
    """Instance loss - bag loss, by the package, against the regulariser in plain NumPy loops."""

    def measure(profile: str) -> Measurement:
        exact, found = [], []
        for seed in range(by_profile(profile, 5, 50)):
            ids, means, f = _random_bags(seed)
            gaps = []
            for a in range(12):
                part = f[ids == a]
                if log_partition is None:
                    pairs = (part[:, None] - part[None, :]) ** 2
                    gaps.append(len(part) * pairs.sum() / (2 * len(part) ** 2))
                else:
                    gap = log_partition(part).mean() - log_partition(part.mean())
                    gaps.append(len(part) * gap)
            exact.append(sum(gaps) / len(f))
            with simulate.float64():
                rows = layout.segment_bags(ids)
                y, predictions = jnp.asarray(means), jnp.asarray(f)
                difference = losses.instance_loss(family, y, predictions, rows) - losses.bag_loss(
                    family, y, predictions, rows
                )
                found.append(float(difference))
        return Measurement(np.array(exact), np.array(found))

    return measure


for _name, _statement, _source, _measure in (
    (
        "easyllp-unbiased",
        "EasyLLP's loss, with and without control variate, has the mean of the loss on individual "
        "responses (all 216 bags of a small world)",
        EASYLLP,
        _easyllp_unbiased,
    ),
    (
        "debiased-square-unbiased",
        "k (bag gap)^2 - (k - 1) (mean gap)^2 has the mean of the squared loss on individual "
        "responses (all 216 bags of a small world)",
        "Optimistic rates for learning from label proportions, COLT 2024; re-derived",
        _debiased_square,
    ),
    (
        "identity-squared",
        "Squared loss: instance loss = bag loss + within-bag variance of the predictions",
        PAPER,
        _identity("squared", None),
    ),
    (
        "identity-logistic",
        "Logistic loss on mean logits: instance loss = bag loss + a label-free Jensen gap",
        PAPER,
        _identity("logistic", lambda eta: np.logaddexp(0, eta)),
    ),
    (
        "identity-poisson",
        "Poisson loss on mean log-rates: instance loss = bag loss + a label-free Jensen gap",
        PAPER,
        _identity("poisson", np.exp),
    ),
):
    claims.register(
        Claim(
            name=f"aggregate/{_name}",
            topic="aggregate",
            statement=_statement,
            source=_source,
            measure=_measure,
            tolerance=1e-12,
            resolution=1e-11,
        )
    )


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="aggregate"))
