"""The risk of look-alike training: general formula, closed cases, second route, known numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privlearn.lookalike import theory
from privlearn.lookalike.theory import GaussianMixtureModel, risk


def skewed_mixture(theta_s: float = 1.0) -> GaussianMixtureModel:
    """Three clusters of weights .5, .3, .2 and centres of norm 2 and 1.5, contrast at .6."""
    return GaussianMixtureModel.orthogonal(
        n_clusters=3, norm=2.0, norm_public=1.5, alignment=0.6, direction="contrast",
        weights=(0.5, 0.3, 0.2), signal_sensitive=theta_s**2, signal_public=1.0, noise=0.25,
    )  # fmt: skip


def swept_mixture(direction="sum", n_clusters=3, norm=2.0, weights=None, alignment=0.8, ths=0.5):
    return GaussianMixtureModel.orthogonal(
        n_clusters=n_clusters, norm=norm, alignment=alignment, direction=direction,
        weights=weights, signal_sensitive=ths**2, signal_public=1.0, noise=0.25,
    )  # fmt: skip


def mixed_up(weights, rate):
    weights = np.asarray(weights)
    return (1 - rate) * np.diag(weights) + rate * np.outer(weights, weights)


# (p, q, ridge, |theta_s|) at n = 400 -> base, known, empirical, misclustered, drop.
# Each theory value below was met by an independent simulation within its standard error.
REFERENCE = [
    ((200, 100, 0.0, 1.0), (1.000, 1.307, 1.428, 1.459, 2.069)),
    ((200, 300, 0.0, 1.0), (1.565, 4.640, 4.761, 5.189, 6.208)),
    ((200, 600, 0.0, 1.0), (1.390, 3.751, 3.881, 4.149, 5.103)),
    ((200, 300, 0.2, 1.0), (0.951, 1.779, 1.922, 1.956, 2.649)),
    ((100, 600, 0.0, 1.0), (1.318, 3.751, 3.819, 4.149, 5.103)),
    ((300, 250, 0.0, 0.4), (1.187, 1.036, 1.064, 1.092, 1.222)),
]


@pytest.mark.parametrize(("setting", "expected"), REFERENCE)
def test_risk_reproduces_the_reference_table_of_all_five_estimators(setting, expected):
    p, q, ridge, ths = setting
    model = skewed_mixture(ths)
    found = [
        risk(
            model,
            psi_d=(p + q) / 400,
            psi_p=p / 400,
            ridge=ridge,
            estimator=name,
            confusion=mixed_up(model.weights, 0.2),
        ).total
        for name in theory.ESTIMATORS
    ]
    np.testing.assert_allclose(found, expected, atol=6e-4)


@pytest.mark.parametrize(
    ("p", "q", "ridge", "expected"),
    [(100, 100, 0.3, (1.527, 1.523, 1.704)), (100, 600, 0.0, (4.099, 4.082, 4.566))],
)
def test_anonymised_test_features_have_their_own_risk(p, q, ridge, expected):
    model = skewed_mixture()
    found = [
        risk(
            model, psi_d=(p + q) / 400, psi_p=p / 400, ridge=ridge, estimator=name,
            confusion=mixed_up(model.weights, 0.2), test_features="anonymised",
        ).total
        for name in ("known", "empirical", "misclustered")
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=6e-4)


# psi_d -> base and look-alike risk for |theta_s| = .3 and 1 (psi_p = .3).
GAIN = {
    0.4: (0.417, 0.355, 0.417, 1.139),
    0.6: (0.625, 0.463, 0.625, 1.536),
    0.8: (1.250, 0.657, 1.250, 2.250),
    0.95: (5.000, 0.949, 5.000, 3.321),
    1.05: (5.295, 1.337, 5.328, 4.750),
    1.2: (1.659, 3.377, 1.779, 12.25),
    2.0: (1.011, 1.184, 1.418, 3.239),
    3.0: (1.106, 1.151, 1.718, 2.557),
}


@pytest.mark.parametrize("psi_d", sorted(GAIN))
def test_risk_reproduces_the_gain_table_over_and_underparametrised(psi_d):
    found = []
    for ths in (0.3, 1.0):
        model = swept_mixture(alignment=0.5, ths=ths)
        found += [risk(model, psi_d=psi_d, psi_p=0.3, estimator=e).total for e in ("base", "known")]
    np.testing.assert_allclose(found, GAIN[psi_d], rtol=1e-3, atol=6e-4)


def test_separation_number_imbalance_and_misclustering_reproduce_reference_values():
    def empirical(psi, **kw):
        return risk(swept_mixture(**kw), psi_d=psi, psi_p=0.3, estimator="empirical").total

    norms = (0.5, 1, 2, 4, 8)
    np.testing.assert_allclose(
        [empirical(0.6, norm=v) for v in norms], [0.6877, 0.6420, 0.5909, 0.5652, 0.5572], atol=6e-5
    )
    counts = (1, 2, 3, 5, 10, 20, 40)
    np.testing.assert_allclose(
        [empirical(0.6, n_clusters=v) for v in counts],
        [0.5686, 0.5806, 0.5909, 0.6074, 0.6346, 0.6618, 0.6833],
        atol=6e-5,
    )
    weights = (None, (0.5, 0.3, 0.2), (0.1, 0.45, 0.45), (0.98, 0.01, 0.01))
    np.testing.assert_allclose(
        [empirical(0.6, direction="contrast", weights=w) for w in weights],
        [0.5909, 0.5873, 0.6174, 0.6127],
        atol=6e-5,
    )
    model = swept_mixture(direction="contrast")
    rates = (0, 0.05, 0.1, 0.2, 0.5, 1)
    for psi_d, expected in (
        (0.6, (0.5543, 0.5688, 0.5888, 0.6310, 0.7319, 0.8449)),
        (0.95, (1.2686, 1.3094, 1.3492, 1.4194, 1.5605, 1.6898)),
        (1.5, (2.956, 3.054, 3.137, 3.265, 3.499, 3.701)),
    ):
        found = [
            risk(
                model, psi_d=psi_d, psi_p=0.3, estimator="misclustered",
                confusion=mixed_up(model.weights, rate),
            ).total
            for rate in rates
        ]  # fmt: skip
        np.testing.assert_allclose(found, expected, atol=6e-4)


def test_best_ridge_reproduces_the_table_where_lookalike_survives_tuning():
    expected = {
        (1.0, 0.3): (0.4131, 0.3611, 0.5071, 0.4124, 0.6452, 0.4283),
        (0.5, 0.3): (0.4640, 0.4373, 0.6086, 0.5053, 0.7856, 0.5280),
        (1.0, 1.0): (0.4192, 0.5322, 0.5359, 0.6453, 0.7372, 0.6811),
        (0.9, 2.0): (0.5204, 2.0685, 0.8319, 2.4350, 1.4341, 2.5442),
    }
    for (alignment, ths), values in expected.items():
        model = swept_mixture("contrast", norm=3.0, alignment=alignment, ths=ths)
        found = [
            theory.best_ridge(model, psi_d=d, psi_p=p, estimator=e)[1].total
            for d, p in ((0.6, 0.3), (0.95, 0.5), (1.5, 1.0))
            for e in ("base", "known")
        ]
        np.testing.assert_allclose(found, values, atol=1.2e-4)


mixtures = st.builds(
    swept_mixture,
    direction=st.sampled_from(["sum", (1.0, 0.3, -0.7)]),
    norm=st.floats(0.2, 6),
    weights=st.sampled_from([None, (0.5, 0.3, 0.2), (0.8, 0.1, 0.1)]),
    alignment=st.floats(-1, 1),
    ths=st.floats(0.05, 2),
)


@given(model=mixtures, psi=st.floats(0.05, 0.95), psi_p=st.floats(0.05, 2))
def test_general_formula_reduces_to_the_closed_cases(model, psi, psi_p):
    kw = {"psi_d": psi + psi_p, "psi_p": psi_p}
    np.testing.assert_allclose(
        risk(model, estimator="known", **kw).total,
        theory.risk_known_underparametrised(model, psi),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        risk(model, estimator="empirical", **kw).total,
        theory.risk_empirical_underparametrised(model, psi, psi_p),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        risk(model, psi_d=psi, psi_p=0.0, estimator="base").total,
        theory.risk_base_underparametrised(psi, model.noise),
        rtol=1e-9,
    )


@pytest.mark.parametrize("psi_d", [0.5, 0.95, 2.0])
@pytest.mark.parametrize("ridge", [0.05, 0.5])
def test_scalar_saddle_problem_gives_the_same_risk_as_the_closed_form(psi_d, ridge):
    model = skewed_mixture(0.8)
    closed = risk(model, psi_d=psi_d, psi_p=0.3, ridge=ridge, estimator="known").total
    route = theory.risk_cgmt(model, psi_d=psi_d, psi_p=0.3, ridge=ridge)
    assert abs(route / closed - 1) < 2e-6


def test_without_sensitive_features_lookalike_is_the_baseline():
    model = GaussianMixtureModel.from_parameters(
        np.zeros((0, 2)), np.eye(5, 2) * 2, np.zeros(0), np.arange(5.0), weights=(0.4, 0.6),
        noise=0.3,
    )  # fmt: skip
    for psi in (0.4, 1.7):
        values = [risk(model, psi_d=psi, psi_p=0.0, estimator=e).total for e in theory.ESTIMATORS
                  if e != "misclustered"]  # fmt: skip
        np.testing.assert_allclose(values, values[0], rtol=1e-10)


def test_one_cluster_at_the_origin_is_dropping_the_sensitive_block():
    model = GaussianMixtureModel.from_parameters(
        np.zeros((2, 1)), np.zeros((3, 1)), [0.5, 0.2], [1.0, 0, 0], weights=[1.0], noise=0.1
    )
    for psi_d in (0.5, 1.9):
        known, drop = (
            risk(model, psi_d=psi_d, psi_p=0.2, estimator=e).total for e in ("known", "drop")
        )
        assert known == pytest.approx(drop, rel=1e-12)


def test_baseline_without_clusters_has_the_textbook_ridgeless_risk():
    model = GaussianMixtureModel.from_parameters(
        np.zeros((1, 1)), np.zeros((1, 1)), [0.6], [0.8], weights=[1.0], noise=0.5
    )
    psi = 2.5
    expected = 0.5 + 1.0 * (1 - 1 / psi) + 0.5 / (psi - 1)
    found = risk(model, psi_d=psi, psi_p=1.0, estimator="base").total
    assert found == pytest.approx(expected, rel=1e-12)


def test_risk_is_infinite_at_the_interpolation_peak_and_finite_with_ridge():
    model = skewed_mixture()
    assert risk(model, psi_d=1.3, psi_p=0.3, estimator="known").total == np.inf
    assert np.isfinite(risk(model, psi_d=1.3, psi_p=0.3, estimator="known", ridge=0.1).total)


@pytest.mark.parametrize(
    ("p", "q", "m", "expected"),
    [(30, 40, 3, 0.173), (30, 40, 5, 0.432), (30, 40, 15, 1.213), (30, 40, 30, 0.754),
     (30, 40, 60, 0.753), (80, 100, 2, 1.0649), (80, 100, 6, 1.946)],
)  # fmt: skip
def test_m_anonymity_risk_reproduces_reference_values(p, q, m, expected):
    found = theory.risk_m_anonymity(
        n=300, p=p, q=q, min_size=m, signal_sensitive=0.8, noise=0.25, centred=False
    )
    assert found.structured == pytest.approx(expected, abs=6e-4)


def test_centring_moves_the_m_anonymity_peak_by_one_cluster():
    for p, q, clusters, expected in ((10, 20, 15, 1.607), (16, 20, 12, 1.601), (10, 20, 8, 1.923)):
        found = theory.risk_m_anonymity(
            n=120, p=p, q=q, min_size=120 / clusters, signal_sensitive=0.8, noise=0.25
        )
        assert found.structured == pytest.approx(expected, abs=6e-4)


def test_m_anonymity_with_clusters_of_one_is_ordinary_least_squares():
    found = theory.risk_m_anonymity(
        n=200, p=20, q=30, min_size=1, signal_sensitive=0.8, noise=0.25, centred=False
    )
    assert found.total == pytest.approx(0.25 * (1 + 50 / (200 - 50 - 1)), rel=1e-12)


def test_m_anonymity_with_few_clusters_approaches_dropping_the_sensitive_block():
    found = theory.risk_m_anonymity(
        n=3000, p=3000, q=40, min_size=1500, signal_sensitive=0.8, noise=0.25, centred=False
    )
    assert found.total == pytest.approx(1.05 * (1 + 40 / (3000 - 40 - 1)), rel=2e-3)


def test_plan_warns_of_the_second_peak_and_prices_each_size():
    plan = theory.plan_min_size(
        n=300, p=30, q=40, signal_sensitive=0.1, noise=1.0, min_sizes=(2, 3, 10, 60)
    )
    assert plan.danger == (10,)
    assert plan.best.risk == min(r.risk for r in plan.rows if np.isfinite(r.risk))
    for row in plan.rows:
        if np.isfinite(row.risk):
            assert row.change_percent == pytest.approx(100 * (row.risk / plan.base_risk - 1))


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"psi_d": -1.0, "psi_p": 0.0}, "psi_d"),
        ({"psi_d": 0.5, "psi_p": 0.6}, "psi_p"),
        ({"psi_d": 0.5, "psi_p": 0.1, "ridge": -1.0}, "ridge"),
        ({"psi_d": 0.5, "psi_p": 0.1, "estimator": "best"}, "estimator"),
        ({"psi_d": 0.5, "psi_p": 0.1, "estimator": "misclustered"}, "confusion"),
        ({"psi_d": 0.5, "psi_p": 0.1, "test_features": "some"}, "test_features"),
        ({"psi_d": np.nan, "psi_p": 0.1}, "psi_d"),
    ],
)
def test_bad_ratios_and_names_are_refused_by_name(kwargs, word):
    with pytest.raises(ValueError, match=word):
        risk(skewed_mixture(), **kwargs)


def test_impossible_populations_are_refused():
    with pytest.raises(ValueError, match="weights"):
        swept_mixture(weights=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="alignment"):
        swept_mixture(alignment=1.5)
    with pytest.raises(ValueError, match="signal_sensitive"):
        GaussianMixtureModel(
            np.ones(1), np.eye(1), np.eye(1), np.array([2.0]), np.zeros(1), 1.0, 1.0, 0.1
        )
    with pytest.raises(ValueError, match="min_size"):
        theory.risk_m_anonymity(n=10, p=2, q=2, min_size=11, signal_sensitive=1.0, noise=1.0)
    with pytest.raises(ValueError, match="confusion"):
        risk(
            skewed_mixture(), psi_d=0.5, psi_p=0.2, estimator="misclustered",
            confusion=np.full((3, 3), 1 / 9),
        )  # fmt: skip
