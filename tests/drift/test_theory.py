"""Theory of drift: published anchors, independent optimisers, limits, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from privlearn.drift import theory

SMALL = {"dim": 10, "noise": 0.25, "batch": 4}
STEPS = np.arange(60)
BURST = np.where(STEPS == 30, 2.0, np.where(STEPS >= 40, 0.15, 0.0))

problems = st.builds(
    dict, dim=st.integers(1, 50), noise=st.floats(0.01, 4), batch=st.integers(1, 64)
)


def total(rates, **problem):
    """The sum of the second moments after each step."""
    return theory.moments(rates, **problem).second[1:].sum()


# ------------------------------------------------------------------- the recursion and its optimum


def test_the_recursion_is_that_of_batches_and_not_of_single_samples():
    """E (xx')^2 = (d + 2) I for one sample; a batch mean adds (d + 1) / B to its square."""
    rng = np.random.default_rng(0)
    d, b, s2, eta, lag = 3, 2, 0.4, 0.3, np.array([1.0, -0.5, 0.2])
    x = rng.standard_normal((400_000, b, d))
    error = x @ lag + np.sqrt(s2) * rng.standard_normal((400_000, b))
    after = lag - eta * (x * error[..., None]).mean(axis=1)
    squares = (after**2).sum(axis=1)
    exact = theory.moments(
        [eta], dim=d, noise=s2, batch=b, displacements=np.zeros((1, d)), start_lag=lag
    )
    stderr = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - exact.second[1]) < 5 * stderr
    assert stderr / exact.second[1] < 0.002  # (d + 2) instead of (d + 1) is 4 % off
    assert np.allclose(after.mean(axis=0), exact.mean[1], atol=5 * after.std() / 600)


def test_gradients_have_the_covariance_that_the_noise_scale_needs():
    rng = np.random.default_rng(1)
    lag, s2 = np.array([0.7, -0.3]), 0.5
    x = rng.standard_normal((500_000, 2))
    g = x * (x @ lag + np.sqrt(s2) * rng.standard_normal(len(x)))[:, None]
    found = np.cov(g.T)
    assert np.allclose(found, theory.gradient_covariance(lag, s2), atol=0.03)


def test_greedy_schedule_has_the_published_sum_and_rates():
    best = theory.optimal_schedule(BURST, **SMALL)
    assert best.second[1:].sum() == pytest.approx(24.1691058, abs=5e-8)
    assert 2 * best.regret == pytest.approx(24.9990895, abs=5e-8)
    assert best.rates[[0, 29, 30, 31]] == pytest.approx([0.2286, 0.0432, 0.0416, 0.2561], abs=5e-5)


def test_a_general_optimiser_over_all_rates_finds_nothing_better_than_greedy():
    best = theory.optimal_schedule(BURST, **SMALL)
    found = minimize(
        lambda r: total(r, shifts=BURST, **SMALL), np.full(60, 0.1), method="L-BFGS-B",
        bounds=[(0, 0.5)] * 60, options={"maxfun": 10**6, "maxiter": 10**4, "ftol": 1e-14},
    )  # fmt: skip
    assert best.second[1:].sum() <= found.fun + 1e-9
    assert found.fun == pytest.approx(best.second[1:].sum(), rel=1e-6)
    assert np.abs(found.x[:-1] - best.rates[:-1]).max() < 2e-3


@given(problems, st.integers(0, 2**32 - 1))
def test_no_random_schedule_beats_the_greedy_one(problem, seed):
    rng = np.random.default_rng(seed)
    shifts = rng.exponential(0.3, 40) * (rng.random(40) < rng.random())
    start = rng.exponential(2.0)
    best = theory.optimal_schedule(shifts, start=start, **problem)
    top = theory.largest_rate(dim=problem["dim"], batch=problem["batch"])
    others = [rng.uniform(0, 2 * top, 40), best.rates * rng.uniform(0.7, 1.3, 40)]
    for rates in others:
        assert theory.regret(rates, shifts=shifts, start=start, **problem) >= best.regret - 1e-9


@given(problems, st.floats(0.01, 10))
def test_rates_do_not_depend_on_the_unit_of_the_response(problem, c):
    shifts = np.array([0.0, 0.5, 0.0, 0.1, 0.0])
    plain = theory.optimal_schedule(shifts, **problem)
    scaled = theory.optimal_schedule(
        c * shifts, dim=problem["dim"], batch=problem["batch"], noise=c**2 * problem["noise"],
        start=c**2,
    )  # fmt: skip
    assert np.allclose(plain.rates, scaled.rates, rtol=1e-9)


def test_second_moments_of_the_schedule_are_those_of_the_general_recursion():
    best = theory.optimal_schedule(BURST, **SMALL)
    assert np.allclose(theory.moments(best.rates, shifts=BURST, **SMALL).second, best.second)


@given(st.integers(0, 2**32 - 1))
def test_rotating_a_known_path_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    moves, lag = rng.standard_normal((20, 3)), rng.standard_normal(3)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rates = rng.uniform(0, 0.3, 20)
    plain, turned = (
        theory.moments(rates, dim=3, noise=0.3, batch=4, displacements=m, start_lag=s)
        for m, s in ((moves, lag), (moves @ turn, lag @ turn))
    )
    assert np.allclose(plain.second, turned.second, rtol=1e-9)


# -------------------------------------------------------------------------------- special cases


def test_one_sample_of_one_coordinate_without_noise():
    best = theory.optimal_schedule([0.0] * 5, dim=1, noise=0.0, batch=1)
    assert np.allclose(best.rates, 1 / 3)
    assert np.allclose(best.second, (2 / 3) ** np.arange(6))


def test_an_infinite_batch_jumps_to_the_optimum_and_pays_the_last_move():
    shifts = np.array([0.3, 0.0, 2.0])
    best = theory.optimal_schedule(shifts, dim=5, noise=1.0, batch=1e12)
    assert np.allclose(best.rates[[0, 1, 2]], [1, 1, 1], atol=1e-3) or best.second[2] < 1e-9
    assert np.allclose(best.second[1:], shifts**2, atol=1e-9)
    assert theory.optimal_rate(1.0, dim=5, noise=1.0, batch=np.inf) == 1.0
    assert theory.optimal_rate(np.inf, dim=5, noise=1.0, batch=4) == pytest.approx(0.4)


def test_without_drift_the_rate_is_one_over_t():
    best = theory.optimal_schedule(0.0, horizon=200_000, **SMALL)
    t = 199_999
    assert t * best.rates[t] == pytest.approx(1, abs=3e-4)
    assert t * best.second[t] * 4 / (10 * 0.25) == pytest.approx(1, abs=3e-4)


def test_the_fixed_point_has_its_published_value_and_is_reached():
    point = theory.fixed_point(0.15, **SMALL)
    assert point.second == pytest.approx(0.1680536398, abs=1e-10)
    assert point.rate == pytest.approx(0.1338858237, abs=1e-10)
    long = theory.optimal_schedule(0.15, horizon=400, **SMALL)
    assert long.second[-1] == pytest.approx(point.second, rel=1e-10)
    small = theory.fixed_point(1e-4, **SMALL)
    assert small.rate == pytest.approx(1e-4 * np.sqrt(4 / (10 * 0.25)), rel=1e-3)
    assert theory.fixed_point(0.0, **SMALL) == (0.0, 0.0)


@pytest.mark.parametrize("direction", ["random", "fixed"])
def test_steady_state_of_a_constant_rate_is_where_the_recursion_settles(direction):
    if direction == "random":
        drift = {"shifts": 0.15}
    else:
        drift = {"displacements": np.tile(0.15 * np.eye(10)[0], (600, 1)), "start_lag": [0] * 10}
    found = theory.moments([0.2] * 600, **drift, **SMALL).second[-1]
    exact = theory.steady_state(0.2, 0.15, direction=direction, **SMALL)
    assert found == pytest.approx(exact, rel=1e-12)


def test_the_best_constant_of_a_steady_drift_is_the_fixed_point():
    rates = np.linspace(0.05, 0.3, 20_001)
    curve = theory.steady_state(rates, 0.15, direction="random", **SMALL)
    point = theory.fixed_point(0.15, **SMALL)
    assert rates[curve.argmin()] == pytest.approx(point.rate, abs=2e-5)
    assert curve.min() == pytest.approx(point.second, rel=1e-8)
    unstable = 2 * theory.largest_rate(dim=10, batch=4)
    assert np.isinf(theory.steady_state(unstable, 0.15, direction="random", **SMALL))
    assert theory.steady_state(0.0, 0.0, direction="fixed", **SMALL) == 0


@given(problems, st.floats(1e-3, 1e3))
def test_the_gradient_noise_form_is_the_optimal_rate(problem, v):
    d, s2, b = problem["dim"], problem["noise"], problem["batch"]
    trace = np.trace(theory.gradient_covariance(np.eye(d)[0] * np.sqrt(v), s2))
    rate = theory.noise_scale_rate(v, trace, b)
    assert rate == pytest.approx(theory.optimal_rate(v, **problem), rel=1e-12)


# ------------------------------------------------------------------------------- hindsight


def test_hindsight_comparators_reach_the_published_minima():
    def sum_after(found):
        return total(found.rates, shifts=BURST, **SMALL)

    grid = np.linspace(0.15, 0.25, 1001)
    best = min((total(np.full(60, r), shifts=BURST, **SMALL), r) for r in grid)
    assert best[0] == pytest.approx(26.220, abs=5e-4)
    assert best[1] == pytest.approx(0.196, abs=1e-3)
    constant = theory.best_constant(BURST, **SMALL)
    assert sum_after(constant) == pytest.approx(26.220, abs=2e-3)


BIG = {"dim": 20, "noise": 0.25, "batch": 8}
T = np.arange(1500)
TABLE = {  # oracle, best constant and its rate, best decay: published values
    "burst": (np.where(np.isin(T, [300, 700, 1100]), 3.0, 0.0), 60.1, 110.1, 0.127, 109.9),
    "gradual": (np.full(1500, 0.05), 35.6, 37.7, 0.062, 37.2),
    "periodic": (0.12 * np.maximum(0, np.sin(2 * np.pi * T / 300)), 33.6, 44.9, 0.071, 44.2),
    "none": (np.zeros(1500), 4.15, 16.2, 0.031, 4.28),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_exact_columns_of_the_comparison_have_their_published_values(name):
    shifts, oracle, constant, rate, decay = TABLE[name]
    after = {
        "oracle": theory.optimal_schedule(shifts, **BIG).regret,
        "constant": theory.best_constant(shifts, **BIG),
        "decay": theory.best_decay(shifts, **BIG),
        "cosine": theory.best_cosine(shifts, **BIG, cycles=(1, 5)),
    }
    assert after["oracle"] == pytest.approx(oracle, rel=2e-3)
    assert after["constant"].regret == pytest.approx(constant, abs=0.06)
    assert after["constant"].parameters[0] == pytest.approx(rate, abs=1.1e-3)
    assert after["decay"].regret == pytest.approx(decay, rel=3e-3)
    assert after["oracle"] <= min(after[k].regret for k in ("constant", "decay", "cosine"))
    assert after["decay"].regret <= after["constant"].regret


# ------------------------------------------------------------------------- limit and known path


def test_the_recursion_converges_to_the_differential_equation_at_rate_epsilon():
    rate = lambda t: 0.3 + 0.2 * np.sin(t)  # noqa: E731
    problem = {"end": 3.0, "dim": 5, "noise": 0.5, "batch": 2.0, "start_lag": [1, 0, 0, 0, 0]}
    exact = theory.moment_ode(rate, None, **problem).second[-1]
    found = [
        theory.discretised(rate, None, epsilon=e, **problem).second[-1] for e in (0.5, 0.1, 0.02)
    ]
    assert exact == pytest.approx(0.8906, abs=5e-5)
    assert found == pytest.approx([1.1073, 0.9297, 0.8983], abs=5e-5)
    assert (found[1] - exact) / (found[2] - exact) == pytest.approx(5, rel=0.05)


def test_a_moving_optimum_enters_the_differential_equation_with_its_cross_term():
    problem = {"end": 2.0, "dim": 2, "noise": 0.3, "batch": 1.5, "start_lag": [0.5, -1.0]}
    move = lambda t: [np.cos(t), 0.5]  # noqa: E731
    exact = theory.moment_ode(lambda t: 0.6, move, **problem)
    fine, finer = (
        theory.discretised(lambda t: 0.6, move, epsilon=e, **problem).second[-1]
        for e in (1e-3, 5e-4)
    )
    assert 2 * finer - fine == pytest.approx(exact.second[-1], rel=1e-5)  # Richardson


def control_problem():
    t = 0.01 * np.arange(400)
    jump = np.where((np.arange(400) >= 200) & (np.arange(400) < 230), 5.0, 0.0)
    path = np.stack([0.8 * np.cos(t), np.full(400, 0.5), jump, 0 * t, 0 * t], axis=1)
    return path, {
        "dim": 5, "noise": 0.5, "batch": 1.0, "step": 0.01, "start_lag": [1, 0, 0, 0, 0.5],
    }  # fmt: skip


def test_known_path_sweep_and_quasi_newton_reach_the_published_cost():
    path, problem = control_problem()
    sweep = theory.known_path_limit(path, **problem)
    other = theory.known_path_limit(path, method="L-BFGS", **problem)
    assert sweep.cost == pytest.approx(10.2074028, abs=1e-7)
    assert other.cost == pytest.approx(10.2074028, abs=1e-7)
    assert np.abs(sweep.rates - other.rates).max() < 5e-6
    assert sweep.rates.mean() == pytest.approx(0.160, abs=5e-4)


def test_known_path_beats_greedy_and_constant_rates_which_have_their_published_costs():
    path, problem = control_problem()
    # Rates given from outside: the engine with a single admissible value.
    from privlearn.drift.theory._known import _Problem

    engine = _Problem(
        -0.01 * path, np.array(problem["start_lag"]), 1.25, 0.01, 6.0, 2.5, 0.0, 0.01, 1.0
    )
    constants = {r: engine.cost(np.full(400, r)) for r in np.arange(0.10, 0.25, 0.01)}
    assert min(constants.values()) == pytest.approx(10.26071, abs=5e-4)
    assert min(constants, key=constants.get) == pytest.approx(0.16)
    greedy = np.zeros(400)
    for _ in range(400):  # a rate depends on earlier ones only: a fixed point in at most T rounds
        second = engine.forward(greedy)[1][:-1]
        step = np.clip(second / (6 * second + 2.5), 0, 1)
        if np.array_equal(step, greedy):
            break
        greedy = step
    assert engine.cost(greedy) == pytest.approx(10.33793, abs=5e-4)
    assert theory.known_path_limit(path, **problem).cost < min(constants.values())


def test_the_discrete_adjoint_is_the_derivative_of_the_recursion():
    from privlearn.drift.theory._known import _Problem

    rng = np.random.default_rng(2)
    engine = _Problem(
        rng.standard_normal((12, 3)), rng.standard_normal(3), 9.0, 1.0, 2.0, 0.7, 1.0, 0.5, 1.0
    )
    rates = rng.uniform(0.05, 0.5, 12)
    exact = engine.gradient(rates)[1]
    steps = 1e-6 * np.eye(12)
    numeric = [(engine.cost(rates + e) - engine.cost(rates - e)) / 2e-6 for e in steps]
    assert np.allclose(exact, numeric, rtol=1e-6, atol=1e-6)


def test_known_moves_of_sgd_are_used_and_beat_the_schedule_that_knows_only_lengths():
    moves = np.tile([0.1, 0.0, 0.0], (80, 1))
    problem = {"dim": 3, "noise": 1.0, "batch": 4}
    lag = [1.0, 0.0, 0.0]
    known = theory.known_path_schedule(moves, start_lag=lag, **problem)
    blind = theory.optimal_schedule(np.full(80, 0.1), **problem)
    paid = theory.moments(blind.rates, displacements=moves, start_lag=lag, **problem)
    assert known.cost == pytest.approx(known.second[1:].sum() / 2)
    assert known.cost < paid.second[1:].sum() / 2 - 0.1
    assert known.rates[20:60].mean() > blind.rates[20:60].mean()
    quasi = theory.known_path_schedule(moves, start_lag=lag, method="L-BFGS", **problem)
    assert quasi.cost == pytest.approx(known.cost, rel=1e-9)


def test_a_known_path_that_rests_has_the_greedy_schedule():
    known = theory.known_path_schedule(
        np.zeros((30, 2)), dim=2, noise=0.5, batch=3, start_lag=[0, 0], start=1.0
    )
    greedy = theory.optimal_schedule(0.0, horizon=30, dim=2, noise=0.5, batch=3)
    assert np.allclose(known.rates, greedy.rates, atol=1e-8)


# ------------------------------------------------------------------------------------- bounds


def drifting_quadratic(rng, d, steps, rates, kind):
    """Exact regret, moments and shifts of SGD with additive noise on drifting quadratics."""
    H = np.diag(rng.uniform(0.05, 1, d) if kind != "flat" else rng.choice([0.0, 1.0], d))
    s2, B = rng.uniform(0.1, 2), int(rng.integers(1, 9))
    mean, cov = rng.standard_normal(d), np.zeros((d, d))
    sizes = rng.exponential(0.3, steps) * (rng.random(steps) < 0.5)
    way = rng.standard_normal(d)
    out = {"regret": 0.0, "v": [], "D": [], "gamma": []}
    for t in range(steps):
        second = cov + np.outer(mean, mean)
        out["v"].append(np.trace(second))
        out["regret"] += np.trace(H @ second) / 2
        keep = np.eye(d) - rates[t] * H
        mean, cov = keep @ mean, keep @ cov @ keep + rates[t] ** 2 * s2 / B / d * np.eye(d)
        out["D"].append(np.sqrt(np.trace(cov) + mean @ mean))
        step = rng.standard_normal(d) if kind == "random" else -mean if kind == "away" else way
        move = sizes[t] * step / max(np.linalg.norm(step), 1e-9)
        out["gamma"].append(np.linalg.norm(move))
        mean = mean - move
    return out | {"s2": s2, "B": B}


@pytest.mark.parametrize("kind", ["random", "away", "one way", "flat"])
def test_the_convex_bound_is_never_below_the_exact_regret(kind):
    rng = np.random.default_rng(3)
    worst = 0.0
    for _ in range(60):
        steps = 60
        rates = np.full(steps, rng.uniform(0.02, 0.5))
        if rng.random() < 0.5:
            rates = rng.uniform(0.02, 0.5, steps)
        run = drifting_quadratic(rng, int(rng.integers(1, 5)), steps, rates, kind)
        bound = theory.convex_bound(
            rates, run["v"], shifts=run["gamma"], distances=run["D"], noise=run["s2"],
            batch=run["B"], smoothness=1.0,
        )  # fmt: skip
        worst = max(worst, run["regret"] / bound)
    assert 0.02 < worst <= 1, worst


def test_the_convex_rate_minimises_the_bound_of_its_window():
    problem = {"noise": 2.0, "batch": 4, "smoothness": 1.0}
    rate = theory.convex_rate(1.5, window=400, diameter=1.0, **problem)
    shifts = np.where(np.arange(400) == 200, 1.5, 0.0)

    def bound(r):
        return theory.convex_bound([r] * 400, 1.0, shifts=shifts, distances=1.0, **problem)

    assert 0 < rate < 0.5
    assert bound(rate) <= min(bound(0.98 * rate), bound(1.02 * rate))
    assert theory.convex_rate(1e6, window=10, diameter=1.0, **problem) == 0.5


@pytest.mark.parametrize("slack", [None, 0.5])
def test_the_strongly_convex_step_is_an_upper_bound_and_its_rate_the_best(slack):
    rng = np.random.default_rng(4)
    problem = {"modulus": 0.3, "smoothness": 1.0, "noise": 1.3, "batch": 2}
    for _ in range(200):
        H = np.diag(rng.uniform(0.3, 1.0, 3))
        lag = rng.standard_normal(3) * rng.exponential()
        v, gamma = lag @ lag, rng.exponential(0.5)
        best = theory.strongly_convex_step(v, gamma, slack=slack, **problem)
        grid = [
            theory.strongly_convex_step(v, gamma, rate=r, slack=slack, **problem).second
            for r in np.linspace(0, 1, 101)
        ]
        assert best.second <= min(grid) + 1e-12
        after = lag - best.rate * H @ lag
        exact = after @ after + best.rate**2 * 1.3 / 2
        if slack is None:
            exact += gamma**2
        else:  # the worst direction: straight away
            exact += gamma**2 + 2 * gamma * np.linalg.norm(after)
        assert exact <= best.second + 1e-9


def test_the_strongly_convex_schedule_rises_after_a_move_and_decays_like_one_over_t():
    problem = {"modulus": 0.5, "smoothness": 1.0, "noise": 1.0, "batch": 1}
    moves = np.zeros(4000)
    moves[1000] = 2.0
    rates = theory.strongly_convex_schedule(moves, start=1.0, **problem).rates
    assert rates[1001] > 10 * rates[1000]
    assert rates[999] * 999 == pytest.approx(2 / 0.5, rel=0.05)


def test_the_non_convex_bound_holds_for_exact_expectations_of_a_double_well():
    """l_t(x) = (x^2 - 1)^2 / 8 on |x| <= 1, tilted by a drifting slope; L = 1 there."""
    rng = np.random.default_rng(5)
    worst = 0.0
    for _ in range(20):
        rates = np.full(50, rng.uniform(0.05, 0.6))
        tilt = np.cumsum(rng.uniform(-0.01, 0.01, 51))
        x = np.full(4000, rng.uniform(-0.5, 0.5))
        weighted, inside = np.zeros(len(x)), np.abs(x) <= 2
        loss0 = (x[0] ** 2 - 1) ** 2 / 8 + tilt[0] * x[0]
        for t, eta in enumerate(rates):
            grad = x * (x**2 - 1) / 2 + tilt[t]
            weighted += eta * (1 - 5.5 * eta / 2) * grad**2
            x = x - eta * (grad + 0.1 * rng.standard_normal(len(x)))
            inside &= np.abs(x) <= 2
        assert inside.all()  # on |x| <= 2 the second derivative is at most 5.5 and tilts at most 2
        bound = theory.nonconvex_bound(
            np.minimum(rates, 2 / 5.5), gap=loss0 + 2 * np.abs(tilt).max(),
            drift=2 * np.abs(np.diff(tilt)).sum(), noise=0.01, batch=1, smoothness=5.5,
        )  # fmt: skip
        if rates[0] <= 2 / 5.5:
            worst = max(worst, weighted.mean() / bound)
    assert 0.05 < worst <= 1, worst


def test_the_non_convex_rate_minimises_what_the_bound_implies():
    problem = {"noise": 2.0, "batch": 4, "smoothness": 0.5}
    rate = theory.nonconvex_rate(0.7, window=300, gap=1.0, **problem)

    def implied(r):  # 1 - L r / 2 >= 1/2
        return theory.nonconvex_bound([r] * 300, gap=1.0, drift=0.7, **problem) * 2 / r

    assert implied(rate) < min(implied(0.97 * rate), implied(1.03 * rate))
    assert theory.nonconvex_rate(0.0, window=300, gap=0.0, **problem) == 0
    assert theory.nonconvex_rate(1e9, window=3, gap=1.0, **problem) == 2


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shifts": [0.1, -0.2]}, "shifts must be at least 0 .* got -0.2 at step 1"),
        ({"shifts": [0.1, np.nan]}, "shifts must be .* got nan"),
        ({"shifts": 0.1}, "needs a horizon"),
        ({"batch": 0}, "batch must be positive"),
        ({"batch": [4, 4, 4]}, "batch has 3 steps, the horizon is 2"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"noise": np.nan}, "noise must be .* got nan"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"start": -1.0}, "start must be at least 0"),
        ({"horizon": 3}, "shifts has 2 steps, the horizon is 3"),
    ],
)
def test_bad_input_of_the_optimal_schedule_is_named(change, message):
    good = {"shifts": [0.1, 0.2], **SMALL}
    with pytest.raises(ValueError, match=message):
        theory.optimal_schedule(**(good | change))


def test_bad_input_elsewhere_is_named():
    with pytest.raises(TypeError, match="noise must be a number"):
        theory.optimal_rate(1.0, dim=2, noise="loud", batch=1)
    with pytest.raises(ValueError, match="displacements need start_lag"):
        theory.moments([0.1], displacements=[[1.0]], dim=1, noise=1.0, batch=1)
    with pytest.raises(ValueError, match="has a meaning only with displacements"):
        theory.moments([0.1], start_lag=[1.0], dim=1, noise=1.0, batch=1)
    with pytest.raises(ValueError, match=r"either shifts .* or displacements"):
        theory.moments(
            [0.1], shifts=1.0, displacements=[[1.0]], start_lag=[0], dim=1, noise=1.0, batch=1
        )
    with pytest.raises(ValueError, match=r"below \|start_lag\|"):
        theory.known_path_schedule([[0.0]], dim=1, noise=1, batch=1, start_lag=[2.0], start=1.0)
    with pytest.raises(ValueError, match='method must be "sweep" or "L-BFGS"'):
        theory.known_path_schedule([[0.0]], dim=1, noise=1, batch=1, start_lag=[2.0], method="x")
    with pytest.raises(ValueError, match="direction must be"):
        theory.steady_state(0.1, 0.1, dim=1, noise=1, batch=1, direction="up")
    with pytest.raises(ValueError, match=r"rates must lie in \(0, 1 / \(2 smoothness\)\]"):
        theory.convex_bound([0.9], 1.0, shifts=0, distances=1, noise=1, batch=1, smoothness=1)
    with pytest.raises(ValueError, match="at most 2 / smoothness"):
        theory.nonconvex_bound([3.0], gap=1, drift=0, noise=1, batch=1, smoothness=1)
    with pytest.raises(ValueError, match="is above smoothness"):
        theory.strongly_convex_step(1.0, 0.0, modulus=2, smoothness=1, noise=1, batch=1)
