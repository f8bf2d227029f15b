"""Bounds of channels that are no matrix, beside those of the matrix."""

import numpy as np
import pytest
from sklearn.naive_bayes import BernoulliNB

from privlearn.reidentification import (
    bounds_from_model,
    bounds_from_posterior,
    bounds_from_sampler,
    theory,
)

MATRIX = np.random.default_rng(0).dirichlet(np.full(6, 0.5), 5)


def posteriors(n_draws, seed=1):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 5, n_draws)
    release = np.array([rng.choice(6, p=MATRIX[u]) for u in user])
    return (MATRIX / MATRIX.sum(axis=0)).T[release], release


def test_sampled_bounds_are_those_of_the_matrix_within_error():
    found = bounds_from_posterior(posteriors(20_000)[0])
    exact = theory.bounds(MATRIX, pairwise=False)
    assert abs(found.success - theory.bayes_success(MATRIX)) < 5 * found.success_stderr
    assert found.information == pytest.approx(theory.mutual_information(MATRIX), abs=0.03)
    for name in ("fano", "sharp_fano", "chi_square", "tv_mean"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), abs=0.02)
        assert found.upper[name] >= getattr(found, name)
        assert getattr(found, name) >= found.success - 1e-9


def test_upper_ends_lie_above_the_truth_as_often_as_they_say():
    exact = theory.bounds(MATRIX, pairwise=False)
    above = [
        bounds_from_posterior(posteriors(300, seed)[0]).upper["sharp_fano"] >= exact.sharp_fano
        for seed in range(60)
    ]
    assert sum(above) >= 46  # 57 expected at 95 %; 45 or fewer has chance below 1e-6


def test_a_sampler_errs_on_the_safe_side_on_average():
    exact = theory.bounds(MATRIX, pairwise=False)
    found = [
        bounds_from_sampler(
            lambda u, size, rng: rng.choice(6, size, p=MATRIX[u]),
            n_users=5,
            n_draws=100,
            random_state=seed,
        )
        for seed in range(30)
    ]
    for name in ("capacity", "sharp_fano", "chi_square", "tv_mean"):
        mean = np.mean([getattr(one, name) for one in found])
        assert getattr(exact, name) < mean < getattr(exact, name) + 0.12, name
    assert np.isnan(found[0].test_curve)


def test_a_fitted_model_gives_the_bounds_of_its_posterior():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.1, 0.9, (4, 12))
    user = np.repeat(np.arange(4), 500)
    X = (rng.random((2000, 12)) < rates[user]).astype(int)
    model = BernoulliNB().fit(X[::2], user[::2])
    found = bounds_from_model(model, X[1::2])
    # The model is right here, so the share it gets right is its own estimate of the success.
    right = (model.predict(X[1::2]) == user[1::2]).mean()
    assert abs(found.success - right) < 5 * np.sqrt(right * (1 - right) / 1000) + 0.01
    assert found.n_users == 4
    with pytest.raises(TypeError, match="fitted classifier with predict_proba, got int"):
        bounds_from_model(3, X)


def test_bad_channels_are_named():
    with pytest.raises(ValueError, match=r"posterior must sum to one.*row 0 sums to 1\.2"):
        bounds_from_posterior([[0.6, 0.6], [0.5, 0.5]])
    with pytest.raises(ValueError, match="at least 2 users and 2 draws, got 1 and 2"):
        bounds_from_posterior([[1.0], [1.0]])
    with pytest.raises(ValueError, match="sampler must return 5 releases, got 2"):
        bounds_from_sampler(lambda u, n, rng: [0, 1], n_users=2, n_draws=5, random_state=0)
    with pytest.raises(TypeError, match="sampler must be a function, got str"):
        bounds_from_sampler("x", n_users=2, n_draws=5, random_state=0)
