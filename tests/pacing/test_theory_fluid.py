"""Fluid solutions against integrals over values and competing bids."""

import numpy as np
import pytest
from scipy.integrate import quad

from privlearn.pacing import theory

#: Budgets on both sides of where they cease to bind.
RATES = (0.05, 0.1, 0.16, 0.3, 0.7)


def second_price(kappa):
    """Spend, value and win rate of the bid kappa v, by quadrature over v."""
    top = lambda v: min(kappa * v, 1.0)  # noqa: E731
    edge = [min(1 / kappa, 1.0)]
    integral = lambda f: quad(f, 0, 1, points=edge, epsabs=1e-12)[0]  # noqa: E731
    return (
        integral(lambda v: top(v) ** 2 / 2),
        integral(lambda v: v * top(v)),
        integral(top),
    )


@pytest.mark.parametrize("rate", RATES)
def test_second_price_utility(rate):
    fluid = theory.second_price_utility(rate)
    spend, value, wins = second_price(fluid.multiplier)
    np.testing.assert_allclose(
        [fluid.spend, fluid.reward, fluid.win_rate], [spend, value - spend, wins], rtol=1e-9
    )
    assert fluid.spend == pytest.approx(min(rate, 1 / 6))
    assert fluid.mu == pytest.approx(1 / fluid.multiplier - 1)


@pytest.mark.parametrize("rate", RATES)
def test_second_price_value(rate):
    fluid = theory.second_price_value(rate)
    spend, value, wins = second_price(min(fluid.multiplier, 1e9))
    np.testing.assert_allclose(
        [fluid.spend, fluid.reward, fluid.win_rate], [spend, value, wins], rtol=1e-6
    )
    assert fluid.spend == pytest.approx(min(rate, 0.5))


@pytest.mark.parametrize("rate", RATES)
def test_first_price_utility(rate):
    fluid = theory.first_price_utility(rate)
    a = fluid.multiplier
    assert fluid.spend == pytest.approx(a * a / 3)
    assert fluid.reward == pytest.approx(a / 3 - a * a / 3)
    assert fluid.win_rate == pytest.approx(a / 2)
    assert fluid.spend == pytest.approx(min(rate, 1 / 12))
    grid = np.linspace(0, 1, 20_001)
    best = grid[np.argmax((0.8 - (1 + fluid.mu) * grid) * grid)]
    assert best == pytest.approx(0.8 * a, abs=1e-4)


def test_numbers_of_record():
    assert theory.second_price_utility(0.1).reward == pytest.approx(0.1581989, abs=5e-8)
    assert theory.second_price_utility(0.05).reward == pytest.approx(0.1325742, abs=5e-8)
    assert theory.second_price_value(0.1).reward == pytest.approx(0.2581989, abs=5e-8)
    assert theory.first_price_utility(0.05).mu == pytest.approx(0.290994, abs=5e-7)


@pytest.mark.parametrize("gamma", [1.05, 1.5, 1.99, 2.0, 2.5, 4.0])
def test_return_on_investment_is_met_with_equality(gamma):
    spend, value, _ = second_price(theory.roi_multiplier(gamma))
    assert value / spend == pytest.approx(gamma, rel=1e-9)


def test_the_binding_constraint_decides():
    assert theory.roi_value(0.12, 4.0).multiplier == 0.5
    assert theory.roi_value(0.05, 2.5).multiplier == pytest.approx(np.sqrt(0.3))
    assert theory.roi_value(0.7, 0.9).reward == 0.5


def test_slopes_are_derivatives_of_spend():
    step = 1e-6
    for at, mu in ((theory.utility_at, 0.3), (lambda m: theory.value_at(1 / m), 1.7),
                   (lambda m: theory.value_at(1 / m), 0.6)):  # fmt: skip
        rise = (at(mu + step).spend - at(mu - step).spend) / (2 * step)
        assert at(mu).slope == pytest.approx(-rise, rel=1e-6)
    k = 1.7  # first price: spend 1 / (12 k^2)
    rate = 1 / (12 * k * k)
    assert theory.first_price_utility(rate).slope == pytest.approx(1 / (6 * k**3))


def test_throttling_buys_at_the_mean_price():
    assert theory.throttled_utility(0.1).reward / theory.second_price_utility(
        0.1
    ).reward == pytest.approx(0.632, abs=5e-4)


def test_bad_input_names_the_argument():
    with pytest.raises(ValueError, match="rate must be finite and above 0, got -1"):
        theory.second_price_utility(-1)
    with pytest.raises(TypeError, match="gamma must be a number"):
        theory.roi_multiplier("high")
