"""Look-alike clustering: what the theory says beside what the fits do.

Run alone with ``python -m theory_checks.lookalike``. Formulas are those of
`privlearn.lookalike.theory`: setting of Javanmard and Mirrokni, "Anonymous Learning via Look-Alike
Clustering", NeurIPS 2023, arXiv 2310.04015; formulas re-derived.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from privlearn import claims, simulate
from privlearn.claims import Claim, Measurement, by_profile
from privlearn.lookalike import theory
from privlearn.lookalike.populations import Case
from privlearn.lookalike.simulation import (
    cases_trial,
    m_anonymity_trial,
    mean_risk,
    mixture_trial,
    one_blas_thread,
)
from privlearn.lookalike.theory import ESTIMATORS, GaussianMixtureModel

PAPER = "Javanmard and Mirrokni, NeurIPS 2023, arXiv 2310.04015; re-derived"
OURS = "derived here, for the model of Javanmard and Mirrokni, arXiv 2310.04015"


def _joined(parts: Sequence[tuple[Any, Any, Any]], n: int) -> Measurement:
    """One measurement from (theory, mean, stderr) of several cases."""
    columns = [np.concatenate([np.ravel(part[i]) for part in parts]) for i in range(3)]
    return Measurement(*columns, n=n)


def _skewed(ths: float = 1.0) -> GaussianMixtureModel:
    """Clusters of unequal weight; theta along a contrast, so that mistakes matter."""
    return GaussianMixtureModel.orthogonal(
        n_clusters=3, norm=2.0, norm_public=1.5, alignment=0.6, direction="contrast",
        weights=(0.5, 0.3, 0.2), signal_sensitive=ths**2, signal_public=1.0, noise=0.25,
    )  # fmt: skip


def _mixed_up(weights: np.ndarray, rate: float) -> np.ndarray:
    return (1 - rate) * np.diag(weights) + rate * np.outer(weights, weights)


# --------------------------------------------------------------------- the general formula (limit)

# n, p, q, ridge, trials: below and above the interpolation peak, and a ridge. The finite-n error is
# of order K / (n - q), so n is large where q < n, and psi = q / n stays off 1.
_REGIMES = (
    (600, 90, 90, 0.0, 80),
    (240, 72, 360, 0.0, 200),
    (300, 80, 120, 0.3, 75),
)


def _theory(case: Case, n: int, p: int, q: int, test_features: str = "individual") -> float:
    return theory.risk(
        case.model, psi_d=(p + q) / n, psi_p=p / n, estimator=case.estimator, ridge=case.ridge,
        confusion=case.confusion, test_features=test_features,
    ).total  # fmt: skip


@functools.cache
def _regimes(profile: str) -> list[tuple[np.ndarray, Any, int]]:
    """Theory, estimate and trials of every regime, shared by the claims on the estimators."""
    model, found = _skewed(), []
    for n, p, q, ridge, n_trials in _REGIMES:
        joint = _mixed_up(model.weights, 0.2)
        cases = [
            Case(model, name, ridge, joint if name == "misclustered" else None)
            for name in ESTIMATORS
        ]
        times = by_profile(profile, 1, 2)
        n, p, q = times * n, times * p, times * q
        trial = cases_trial(cases, n=n, p=p, q=q, n_responses=16)
        estimate = mean_risk(trial, seed=11, n_trials=by_profile(profile, 1, 4) * n_trials)
        found.append((np.array([_theory(c, n, p, q) for c in cases]), estimate, estimate.n))
    return found


def _estimator(name: str) -> Callable[[str], Measurement]:
    at = ESTIMATORS.index(name)  # type: ignore[arg-type]

    def measure(profile: str) -> Measurement:
        parts = [
            (exact[at], found.mean.total[at], found.stderr.total[at])
            for exact, found, _ in _regimes(profile)
        ]
        return _joined(parts, min(n for _, _, n in _regimes(profile)))

    return measure


for _name, _what in (
    ("base", "own features"),
    ("known", "true cluster centres"),
    ("empirical", "averages of the clusters' members"),
    ("misclustered", "centres of wrong clusters, with a given confusion matrix"),
    ("drop", "no sensitive features"),
):
    claims.register(
        Claim(
            name=f"lookalike/risk-{_name}",
            topic="lookalike",
            statement=(
                f"The test risk of training on {_what} tends to the closed form, under- and "
                "overparametrised and with ridge"
            ),
            source=OURS if _name in ("misclustered", "drop") else PAPER,
            measure=_estimator(_name),
            # Finite n: (K + tr[H^-1]_ss) / (n - q), 7.3 / 510 in the first regime (see
            # lookalike/finite-n-correction).
            tolerance=0.02,
            resolution=0.05,
        )
    )


def _anonymised(profile: str) -> Measurement:
    model = _skewed()
    names = ("known", "empirical", "misclustered", "drop")
    parts = []
    for n, p, q, ridge in ((300, 60, 80, 0.3), (240, 60, 360, 0.0)):
        joint = _mixed_up(model.weights, 0.2)
        cases = [Case(model, e, ridge, joint if e == "misclustered" else None) for e in names]
        trial = cases_trial(cases, n=n, p=p, q=q, test_features="anonymised", n_responses=16)
        found = mean_risk(trial, seed=12, n_trials=by_profile(profile, 150, 800))
        exact = [_theory(case, n, p, q, "anonymised") for case in cases]
        parts.append((exact, found.mean.total, found.stderr.total))
    return _joined(parts, found.n)


claims.register(
    Claim(
        name="lookalike/risk-anonymised-test-features",
        topic="lookalike",
        statement="For new people who show a centre, the risk is the residual plus the bulk error",
        source=OURS,
        measure=_anonymised,
        tolerance=0.015,  # finite n, as above
        resolution=0.05,
    )
)


# ----------------------------------------------------------------------------- closed special cases


def _random_models(seed: int, n_models: int) -> list[tuple[GaussianMixtureModel, float, float]]:
    """Models with centres in general position, and (psi, psi_p)."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_models):
        k = int(rng.integers(1, 5))
        model = GaussianMixtureModel.from_parameters(
            rng.normal(size=(8, k)), rng.normal(size=(7, k)), 0.4 * rng.normal(size=8),
            0.4 * rng.normal(size=7), weights=rng.dirichlet(3 * np.ones(k)),
            noise=rng.uniform(0.1, 1),
        )  # fmt: skip
        drawn.append((model, rng.uniform(0.05, 0.95), rng.uniform(0.05, 2)))
    return drawn


def _closed(profile: str) -> Measurement:
    exact, found = [], []
    for model, psi, psi_p in _random_models(21, by_profile(profile, 40, 400)):
        exact += [
            theory.risk_known_underparametrised(model, psi),
            theory.risk_empirical_underparametrised(model, psi, psi_p),
            theory.risk_base_underparametrised(psi, model.noise),
        ]
        found += [
            theory.risk(model, psi_d=psi + psi_p, psi_p=psi_p, estimator="known").total,
            theory.risk(model, psi_d=psi + psi_p, psi_p=psi_p, estimator="empirical").total,
            theory.risk(model, psi_d=psi, psi_p=0.0, estimator="base").total,
        ]
    return Measurement(np.array(exact), np.array(found), 0.0, len(exact))


claims.register(
    Claim(
        name="lookalike/closed-cases-equal-general-formula",
        topic="lookalike",
        statement="For q < n and no ridge the general formula is the closed form of each estimator",
        source=PAPER,
        measure=_closed,
        tolerance=1e-9,
        resolution=1e-8,
    )
)


def _saddle(profile: str) -> Measurement:
    exact, found = [], []
    for model, psi, psi_p in _random_models(22, by_profile(profile, 12, 60)):
        for scale, ridge in ((1.0, 0.2), (1.6, 0.05)):
            setting = {"psi_d": scale * psi + psi_p, "psi_p": psi_p, "ridge": ridge}
            exact.append(theory.risk(model, estimator="known", **setting).total)
            found.append(theory.risk_cgmt(model, **setting))
    return Measurement(np.array(exact), np.array(found), 0.0, len(exact))


claims.register(
    Claim(
        name="lookalike/saddle-point-equals-closed-form",
        topic="lookalike",
        statement="The scalar problem of the Gaussian min-max theorem gives the same risk",
        source=PAPER,
        measure=_saddle,
        tolerance=1e-5,  # a numerical minimum: its value is sharp, its place less so
        resolution=1e-4,
    )
)


def _closed_simulated(profile: str) -> Measurement:
    n, p, q = 1200, 120, 180
    model = _skewed()
    trial = mixture_trial(model, n=n, p=p, q=q, estimators=("known", "empirical"), n_responses=16)
    found = mean_risk(trial, seed=23, n_trials=by_profile(profile, 50, 400))
    exact = (
        theory.risk_known_underparametrised(model, q / n),
        theory.risk_empirical_underparametrised(model, q / n, p / n),
    )
    return _joined([(exact, found.mean.total, found.stderr.total)], found.n)


claims.register(
    Claim(
        name="lookalike/risk-closed-underparametrised",
        topic="lookalike",
        statement=(
            "q < n, true centres: noise + |P_perp theta_s|^2 + (noise + |theta_s|^2) psi / (1 - "
            "psi); averages: as many more as M'M + diag(psi_p / weights) shrinks the centres by"
        ),
        source=PAPER,
        measure=_closed_simulated,
        tolerance=0.012,  # (K + tr[H^-1]_ss) / (n - q), 7.3 / 1020, and noise in the centres
        resolution=0.03,
    )
)


def _first_order_simulated(profile: str) -> Measurement:
    parts = []
    for k, n, p, q in ((3, 300, 60, 90), (8, 400, 40, 80))[by_profile(profile, 1, 0) :]:
        model = GaussianMixtureModel.orthogonal(
            n_clusters=k, norm=2.0, alignment=0.8, signal_sensitive=0.25, signal_public=1.0,
            noise=0.25,
        )  # fmt: skip
        trial = mixture_trial(model, n=n, p=p, q=q, estimators="known", n_responses=16)
        found = mean_risk(trial, seed=24, n_trials=by_profile(profile, 200, 1000))
        parts.append((theory.risk_known_finite(model, n, q), found.mean.total, found.stderr.total))
    return _joined(parts, found.n)


claims.register(
    Claim(
        name="lookalike/finite-n-correction",
        topic="lookalike",
        statement=(
            "Known centres, q < n: (q + K + tr[H^-1]_ss) / (n - q - K - 1) in place of "
            "psi / (1 - psi) is right to first order in 1 / n"
        ),
        source=OURS,
        measure=_first_order_simulated,
        tolerance=0.01,  # second order: (K / (n - q))^2 and the random cluster sizes
        resolution=0.03,
    )
)


# ----------------------------------------------------------------------------------- when it helps


def _threshold(profile: str) -> Measurement:
    """At the predicted signal-to-noise ratio, base and look-alike training have one risk."""
    n, p, q, alignment, noise = 500, 200, 100, 0.5, 0.25
    psi_d, psi = (p + q) / n, q / n
    snr = (1 / (1 - psi_d) - 1 - psi / (1 - psi)) / (1 - alignment**2 + psi / (1 - psi))
    model = GaussianMixtureModel.orthogonal(
        n_clusters=3, norm=3.0, alignment=alignment, signal_sensitive=snr * noise,
        signal_public=1.0, noise=noise,
    )  # fmt: skip
    trial = mixture_trial(model, n=n, p=p, q=q, estimators=("base", "known"), n_responses=16)
    n_trials = by_profile(profile, 50, 500)
    with one_blas_thread():
        runs = simulate.run_trials(
            trial, key=jax.random.key(31), n_trials=n_trials, batch_size=50, x64=True
        )
    base, known = np.asarray(runs.total).T
    ratio = known.mean() / base.mean()
    stderr = (known - ratio * base).std(ddof=1) / base.mean() / math.sqrt(n_trials)
    return Measurement(1.0, ratio, stderr, n_trials)


claims.register(
    Claim(
        name="lookalike/snr-threshold",
        topic="lookalike",
        statement=(
            "For d < n look-alike training gains up to |theta_s|^2 / noise = (psi_d / (1 - psi_d) "
            "- psi / (1 - psi)) / (1 - alignment^2 + psi / (1 - psi)): there both risks are equal"
        ),
        source=PAPER,
        measure=_threshold,
        tolerance=0.02,  # finite n, as above; the estimate uses it up on one side
        resolution=0.06,
    )
)


def _tuned_ridge(profile: str) -> Measurement:
    """Each estimator at its own best ridge, d > n: look-alike training still wins."""
    n, p, q = 240, 240, 120
    model = GaussianMixtureModel.orthogonal(
        n_clusters=3, norm=3.0, alignment=1.0, direction="contrast", signal_sensitive=0.09,
        signal_public=1.0, noise=0.25,
    )  # fmt: skip
    setting = {"psi_d": (p + q) / n, "psi_p": p / n}
    cases, exact = [], []
    for name in ("base", "known", "empirical"):
        ridge, best = theory.best_ridge(model, estimator=name, **setting)
        cases.append(Case(model, name, ridge))
        exact.append(best.total)
    trial = cases_trial(cases, n=n, p=p, q=q, n_responses=16)
    found = mean_risk(trial, seed=32, n_trials=by_profile(profile, 150, 1000))
    return _joined([(exact, found.mean.total, found.stderr.total)], found.n)


claims.register(
    Claim(
        name="lookalike/risk-tuned-ridge",
        topic="lookalike",
        statement="At its best ridge each estimator has the risk that the closed form predicts",
        source=OURS,
        measure=_tuned_ridge,
        tolerance=0.015,  # finite n, as above
        resolution=0.05,
    )
)


# ------------------------------------------------------------------ m-anonymity, exact at finite n


def _m_anonymity(
    settings: Sequence[tuple[int, int, int, int]], *, centred: bool, seed: int
) -> Callable[[str], Measurement]:
    def measure(profile: str) -> Measurement:
        parts = []
        for n, p, q, m in settings:
            setting = {"n": n, "p": p, "q": q, "min_size": m, "signal_sensitive": 0.8}
            setting |= {"noise": 0.25, "centred": centred}
            exact = theory.risk_m_anonymity(**setting)  # type: ignore[arg-type]
            trial = m_anonymity_trial(**setting, n_responses=16)  # type: ignore[arg-type]
            found = mean_risk(trial, seed=seed, n_trials=by_profile(profile, 3000, 15000))
            mean, stderr = found.mean, found.stderr
            parts.append((exact.structured, mean.sensitive, stderr.sensitive))
            parts.append((exact.bulk, mean.other, stderr.other))
        return _joined(parts, found.n)

    return measure


for _name, _statement, _settings, _centred in (
    (
        "many-clusters",
        "More clusters than sensitive features: the exact risk",
        ((200, 20, 30, 4),),
        False,
    ),
    (
        "few-clusters",
        "Fewer clusters than sensitive features, beyond the second peak: the exact risk",
        ((200, 30, 30, 20),),
        False,
    ),
    (
        "centred",
        "Centring on the training rows takes one row and one cluster, on both sides of the peak",
        ((120, 10, 20, 4), (120, 24, 20, 12)),
        True,
    ),
):
    claims.register(
        Claim(
            name=f"lookalike/m-anonymity-{_name}",
            topic="lookalike",
            statement=_statement,
            source=OURS,
            measure=_m_anonymity(_settings, centred=_centred, seed=41),
            resolution=0.05,
        )
    )


if __name__ == "__main__":
    raise SystemExit(claims.main(topic="lookalike"))
