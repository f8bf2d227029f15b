"""The ledger: arithmetic against dp-accounting, refusal, disjoint parts, bounded memory."""

import itertools
import math
from collections import Counter

import dp_accounting
import pytest
from dp_accounting import pld
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st

from privlearn.privacy import (
    BudgetExceededError,
    DiscreteLaplaceMechanism,
    GaussianMechanism,
    Guarantee,
    LaplaceMechanism,
    Ledger,
    MixedGuaranteesError,
    RandomizedResponse,
    ledger,
    theory,
)


def spent(*entries, **budget):
    """Ledger without a limit that matters, with entries of (what, keywords)."""
    made = Ledger(epsilon=1e6, delta=0.999, **budget)
    for what, keywords in entries:
        made.spend(what, **keywords)
    return made


guarantees = st.builds(Guarantee, epsilon=st.floats(0, 10), delta=st.floats(0, 1e-3))
placed = st.tuples(
    guarantees,
    st.sampled_from([{}, {"count": 3}, {"partition": "a", "part": 1}, {"partition": "a", "part": 2},
                     {"partition": "b", "part": 1, "count": 2}]),
)  # fmt: skip


@given(st.lists(placed, max_size=8), st.randoms())
def test_basic_total_is_the_worst_persons_sum_in_any_order(entries, random):
    total = spent(*entries).total()
    for name in ("epsilon", "delta"):
        worst = max(
            math.fsum(
                getattr(g, name) * k.get("count", 1)
                for g, k in entries
                if "partition" not in k or {"a": a, "b": 1}[k["partition"]] == k["part"]
            )
            for a in (1, 2)
        )
        assert getattr(total, name) == pytest.approx(worst, rel=1e-12)
    random.shuffle(entries)
    again = spent(*entries).total()
    assert (again.epsilon, again.delta) == pytest.approx((total.epsilon, total.delta), rel=1e-12)


def test_refusal_records_nothing_and_says_what_it_would_have_cost():
    budget = Ledger(epsilon=1.0, delta=1e-6)
    budget.spend(Guarantee(0.7), label="first")
    for what in (Guarantee(0.4), Guarantee(0.1, 1e-5), Guarantee(math.inf)):
        with pytest.raises(BudgetExceededError, match=r"'again' would bring.*Nothing was recorded"):
            budget.spend(what, label="again")
    assert len(budget.entries) == 1
    assert budget.total() == Guarantee(0.7)
    assert budget.remaining() == pytest.approx((0.3, 1e-6))
    budget.spend(Guarantee(0.3, 1e-6))


def test_rounding_does_not_refuse_what_adds_up_exactly():
    budget = Ledger(epsilon=0.3)
    for _ in range(3):
        budget.spend(Guarantee(0.1))
    with pytest.raises(BudgetExceededError):
        budget.spend(Guarantee(1e-9))


@pytest.mark.parametrize(
    ("guarantee", "name"),
    [
        (Guarantee(0.1, unit="one user"), "unit"),
        (Guarantee(0.1, neighbours="add or remove one"), "neighbours"),
    ],
)
def test_guarantees_about_other_things_are_not_added_up(guarantee, name):
    budget = Ledger(epsilon=1.0)
    with pytest.raises(MixedGuaranteesError, match=name):
        budget.spend(guarantee)
    assert budget.entries == ()


def test_disjoint_parts_cost_the_largest_and_the_total_says_on_what_condition():
    budget = Ledger(epsilon=1.0)
    for part in range(100):
        budget.spend(Guarantee(0.9), partition="bag", part=part)
    assert budget.total().epsilon == 0.9
    assert "parts of 'bag' are disjoint" in budget.total().condition
    with pytest.raises(BudgetExceededError):
        budget.spend(Guarantee(0.2), partition="bag", part=5)
    with pytest.raises(BudgetExceededError):
        budget.spend(Guarantee(0.2))


def test_conditions_of_the_parts_are_conditions_of_the_total():
    total = spent((Guarantee(0.1, condition="features are public"), {"count": 2})).total()
    assert total.condition == "features are public"


@pytest.mark.parametrize(
    ("mechanism", "event"),
    [
        (LaplaceMechanism(sensitivity=2.0, epsilon=0.3), dp_accounting.LaplaceDpEvent(1 / 0.3)),
        (
            GaussianMechanism(sensitivity=2.0, epsilon=0.5, delta=1e-7),
            dp_accounting.GaussianDpEvent(theory.gaussian_sigma(0.5, 1e-7)),
        ),
    ],
)
def test_tight_epsilon_is_dp_accountings(mechanism, event):
    accountant = pld.PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, 20))
    accountant.compose(dp_accounting.GaussianDpEvent(4.0))
    other = GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=float(theory.gaussian_delta(4.0, 1.0, 1.0)))  # fmt: skip # noqa: E501
    composed = spent((mechanism, {"count": 20}), (other, {}))
    for delta in (1e-3, 1e-5, 1e-8):
        oracle = accountant.get_epsilon(delta)
        assert composed.tight_epsilon(delta) == pytest.approx(oracle, rel=2e-3)


@pytest.mark.parametrize("sensitivity", [1, 4, 20_000])
def test_tight_epsilon_of_discrete_laplace_is_at_most_what_its_guarantee_alone_gives(sensitivity):
    mechanism = DiscreteLaplaceMechanism(sensitivity=sensitivity, epsilon=0.2)
    by_mechanism = spent((mechanism, {"count": 30})).tight_epsilon(1e-6)
    by_guarantee = spent((mechanism.guarantee, {"count": 30})).tight_epsilon(1e-6)
    assert 0 < by_mechanism <= by_guarantee * (1 + 1e-3) < 30 * 0.2


def test_tight_epsilon_of_randomised_response_against_its_binomial_law():
    """20 binary responses: the loss is epsilon (2 B - 20) with B binomial; delta by summation."""
    epsilon, n = 0.2, 20
    truth = 1 / (1 + math.exp(-epsilon))
    composed = spent((RandomizedResponse(n_categories=2, epsilon=epsilon), {"count": n}))
    for target in (1e-2, 1e-4):
        got = composed.tight_epsilon(target)
        delta = sum(
            math.comb(n, b) * truth**b * (1 - truth) ** (n - b)
            * max(0.0, 1 - math.exp(got - epsilon * (2 * b - n)))
            for b in range(n + 1)
        )  # fmt: skip
        assert 0.98 * target <= delta <= target


@given(
    epsilon=st.floats(1e-6, 20),
    delta=st.floats(1e-10, 1e-4),
    count=st.sampled_from([1, 2, 17, 1000]),
)
@settings(max_examples=25)
def test_tight_epsilon_of_gaussians_is_an_upper_bound_and_close(epsilon, delta, count):
    """n Gaussians are one of sqrt(n) the sensitivity, exactly; tiny epsilons included."""
    mechanism = GaussianMechanism(sensitivity=1.0, epsilon=epsilon, delta=delta)
    got = spent((mechanism, {"count": count})).tight_epsilon(delta)
    exact = theory.gaussian_epsilon(mechanism.scale, math.sqrt(count), delta)
    assert exact * (1 - 1e-6) <= got <= exact * 1.02


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.integers(1, 10**6)), min_size=1, max_size=4))
def test_the_grid_never_has_more_points_than_the_cap(losses):
    """Memory: losses' own grids and the composed one stay near 2^19 points."""
    borne = Counter({Guarantee(epsilon): count for epsilon, count in losses})
    grid = ledger._grid(borne)
    assert grid > 0
    for source in borne:
        assert source.epsilon / grid <= 2**19 + 1


def test_a_gaussian_with_hardly_any_noise_does_not_exhaust_memory():
    loud = GaussianMechanism(sensitivity=1.0, epsilon=1e5, delta=1e-5)
    assert spent((loud, {})).tight_epsilon(1e-5) == 1e5


def test_tight_composition_fits_more_releases_into_a_budget_than_basic():
    def fitted(composition):
        budget = Ledger(epsilon=3.0, delta=1e-5, composition=composition)
        mechanism = GaussianMechanism(sensitivity=1.0, epsilon=0.5, delta=1e-6)
        try:
            for i in itertools.count():  # noqa: B007
                budget.spend(mechanism)
                assert budget.total().epsilon <= 3.0
                assert budget.total().delta <= 1e-5
        except BudgetExceededError:
            return i

    assert fitted("basic") == 6
    assert fitted("tight") > 25


def test_tight_composition_of_parts_is_the_worst_persons():
    g = GaussianMechanism(sensitivity=1.0, epsilon=0.5, delta=1e-6)
    heavy = {"partition": "region", "part": "A", "count": 8}
    light = {"partition": "region", "part": "B", "count": 3}
    both = spent((g, {}), (g, heavy), (g, light)).tight_epsilon(1e-5)
    assert both == spent((g, {}), (g, heavy)).tight_epsilon(1e-5)
    assert both == pytest.approx(spent((g, {"count": 9})).tight_epsilon(1e-5), rel=1e-9)


def test_very_many_kinds_of_people_are_bounded_by_one_who_bears_the_most_of_each():
    a, b = Guarantee(0.1), Guarantee(0.2)
    entries = []
    for partition in "uvwxyz":
        for part, (x, y) in enumerate(((3, 1), (1, 3), (2, 2))):
            place = {"partition": partition, "part": part}
            entries += [(a, {**place, "count": x}), (b, {**place, "count": y})]
    got = spent(*entries).tight_epsilon(1e-6)
    assert got >= spent((a, {"count": 6}), (b, {"count": 18})).tight_epsilon(1e-6)
    assert got <= spent((a, {"count": 18}), (b, {"count": 18})).tight_epsilon(1e-6) + 1e-9


@pytest.mark.parametrize("split", [0.1, 0.5, 0.9])
def test_one_laplace_dominates_two_that_share_its_sensitivity(split):
    """The lemma behind using one dimension for vectors (see LaplaceMechanism.privacy_loss)."""
    make = privacy_loss_distribution.from_laplace_mechanism
    one = make(1.0, sensitivity=1.5)
    two = make(1.0, sensitivity=1.5 * split).compose(make(1.0, sensitivity=1.5 * (1 - split)))
    for epsilon in (0.0, 0.3, 0.8, 1.2, 1.5):
        slack = 1e-4
        assert two.get_delta_for_epsilon(epsilon) <= one.get_delta_for_epsilon(epsilon) + slack


def test_pure_promises_stay_pure_under_tight_composition():
    budget = Ledger(epsilon=1.0, composition="tight")
    assert budget.spend(LaplaceMechanism(sensitivity=1.0, epsilon=0.5), count=2).epsilon == 1.0
    with pytest.raises(BudgetExceededError):
        budget.spend(LaplaceMechanism(sensitivity=1.0, epsilon=0.01))


def test_zero_epsilon_with_a_delta_composes():
    assert spent((Guarantee(0.0, 1e-6), {"count": 2})).tight_epsilon(1e-5) == 0.0
    assert Ledger(epsilon=1.0).tight_epsilon(0.0) == 0.0


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda: Ledger(epsilon=0.0), "epsilon"),
        (lambda: Ledger(epsilon=-1.0), "epsilon"),
        (lambda: Ledger(epsilon=1.0, delta=1.0), "delta"),
        (lambda: Ledger(epsilon=1.0, composition="loose"), "composition"),
        (lambda: Ledger(epsilon=1.0).spend(0.5), "what"),
        (lambda: Ledger(epsilon=1.0).spend(Guarantee(0.1), count=0), "count"),
        (lambda: Ledger(epsilon=1.0).spend(Guarantee(0.1), count=1.5), "count"),
        (lambda: Ledger(epsilon=1.0).spend(Guarantee(0.1), partition="a"), "part"),
        (lambda: Ledger(epsilon=1.0).spend(Guarantee(0.1), part="a"), "partition"),
        (lambda: Ledger(epsilon=1.0).tight_epsilon(1.5), "delta"),
    ],
)
def test_bad_input_is_refused_by_name(act, name):
    with pytest.raises(ValueError, match=name):
        act()


def test_it_prints_every_line_the_total_and_the_budget():
    text = str(
        spent(
            (Guarantee(0.25), {"label": "means"}),
            (Guarantee(0.5), {"label": "counts", "partition": "region", "part": "A"}),
        )
    )
    lines = text.splitlines()
    assert lines[0].split() == ["release", "count", "part", "epsilon", "delta"]
    assert [word for line in lines for word in ("means", "counts", "total", "budget") if word in line][:4] == ["means", "counts", "total", "budget"]  # fmt: skip # noqa: E501
    assert "region = A" in text
    assert "0.75" in text
