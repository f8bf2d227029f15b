"""Auctions and markets: bids are best, estimates converge, draws are uniform and independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.pacing import draws
from privlearn.pacing.auctions import (
    FirstPrice,
    LogNormal,
    Market,
    SecondPrice,
    Uniform,
)
from privlearn.pacing.controllers import Action

ONE = Action(jnp.array([0.5]), jnp.array(0.0), jnp.array(1.0))


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        (13, [(0x9D1C5EC6, 0x8BD50731), (0xFD36D048, 0x2D17272C), (0xBA3E4725, 0xF27D669E)]),
        (20, [(0x6B200159, 0x99BA4EFE), (0x1CB996FC, 0xBB002BE7), (0xC4923A9C, 0x483DF7A0)]),
    ],
)
def test_threefry_gives_the_known_answers_of_its_authors(rounds, words):
    ones = 2**32 - 1
    inputs = [
        ((0, 0), (0, 0)),
        ((ones, ones), (ones, ones)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344)),
    ]
    for (counter, key), want in zip(inputs, words, strict=True):
        pair = tuple(jnp.uint32(c) for c in counter)
        got = draws.threefry(jnp.array(key, jnp.uint32), pair, rounds)
        assert tuple(int(word) for word in got) == want


@pytest.mark.parametrize("rounds", [13, 20])
def test_draws_are_uniform_and_uncorrelated(rounds):
    """Means, variances and correlations with neighbours, 5 standard errors of each."""
    n = 2**17
    first, second = draws.words(jax.random.key(0), (n // 128, 128), rounds)
    u, w = np.asarray(draws.uniform(first)), np.asarray(draws.uniform(second))
    spare = np.asarray(draws.spare_uniform(first, second))
    assert min(u.min(), w.min()) > 0
    assert max(u.max(), w.max(), spare.max()) < 1
    other, _ = draws.words(jax.random.key(1), (n // 128, 128), rounds)
    for x in (u, w, spare):
        assert abs(x.mean() - 0.5) < 5 / np.sqrt(12 * n)
        assert abs(x.var() - 1 / 12) < 5 / np.sqrt(180 * n)
    pairs = [(u, w), (u, spare), (w, spare), (u[1:], u[:-1]), (u[:, 1:], w[:, :-1])]
    pairs.append((u, np.asarray(draws.uniform(other))))
    for x, y in pairs:
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 5 / np.sqrt(x.size)
    counts = np.bincount((u.ravel() * 256).astype(int), minlength=256)
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)


def test_the_second_price_bid_is_best_against_every_price():
    value, prices = 0.8, np.linspace(0, 1, 101)
    bid = float(SecondPrice().bid((), jnp.array(value), ONE))
    gains = [((prices <= b) * (value - 1.5 * prices)).sum() for b in np.linspace(0, 1, 501)]
    assert ((prices <= bid + 1e-6) * (value - 1.5 * prices)).sum() == pytest.approx(max(gains))


def test_the_first_price_bid_is_the_closed_form_of_a_uniform_law():
    closed, grid = FirstPrice(Uniform()), FirstPrice(Uniform(1e-9, 1.0), n_bids=1001)
    for value in (0.1, 0.5, 0.9):
        got = [float(a.bid(a.init(), jnp.array(value), ONE)) for a in (closed, grid)]
        assert got[0] == pytest.approx(value / 3, abs=1e-6)
        assert got[1] == pytest.approx(value / 3, abs=1e-3)
    rich = Action(jnp.array([0.0]), jnp.array(0.0), jnp.array(1.0))
    assert float(closed.bid((), jnp.array(5.0), rich)) == 1.0


@pytest.mark.parametrize("prices", ["revealed", "censored"])
def test_estimates_of_the_law_converge_also_where_lost_bids_are_censored(prices):
    """Dvoretzky-Kiefer-Wolfowitz with n = 4000: beyond 0.05 with probability < 1e-8.

    Censoring at random bids leaves less; 0.08 is wide.
    """
    auction = FirstPrice(prices, n_bids=51)
    rng = np.random.default_rng(0)
    price = jnp.asarray(rng.beta(2, 3, 4000), jnp.float32)
    bid = auction.grid[rng.integers(10, 51, 4000)]

    def step(state, x):
        return auction.learn(state, x[0], x[1], x[0] >= x[1]), None

    state, _ = jax.lax.scan(step, auction.init(), (bid, price))
    got = np.asarray(auction.refresh(state).wins)
    want = (np.asarray(price)[None, :] <= np.asarray(auction.grid)[:, None]).mean(axis=1)
    assert np.abs(got - want).max() < 0.08
    assert (np.diff(got) >= -1e-6).all()
    if prices == "revealed":
        assert np.abs(got - want).max() < 1e-3


def test_laws_have_the_quantiles_that_their_cdf_says():
    u = jnp.linspace(0.01, 0.99, 50)
    for law in (Uniform(1.0, 3.0), LogNormal(2.0, 0.7)):
        np.testing.assert_allclose(law.cdf(law.quantile(u)), u, atol=1e-5)


def test_the_copula_correlates_ranks_and_keeps_the_laws():
    u, w = jax.random.uniform(jax.random.key(0), (2, 20_000))
    value, price = Market(correlation=0.8).requests(u, w, jnp.zeros(()))
    assert np.corrcoef(value, price)[0, 1] == pytest.approx(6 / np.pi * np.arcsin(0.4), abs=0.02)
    assert float(price.mean()) == pytest.approx(0.5, abs=5 / np.sqrt(12 * 20_000))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Uniform(1.0, 0.5), "need 0 <= low < high"),
        (lambda: LogNormal(-1.0), "median and sigma must be positive"),
        (lambda: Market(correlation=1.0), "correlation must be"),
        (lambda: SecondPrice("reach"), "objective must be"),
        (lambda: SecondPrice("value", gamma=-1.0), "gamma must be positive"),
        (lambda: SecondPrice("utility", gamma=1.0), "gamma needs objective"),
        (lambda: SecondPrice("value", gamma=1.0, combination="max"), "combination must be one of"),
        (lambda: FirstPrice("hidden"), "prices must be a law"),
        (lambda: FirstPrice(top=0.0), "top must be positive"),
        (lambda: FirstPrice(n_bids=1), "n_bids must be at least 2"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
