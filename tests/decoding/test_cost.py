"""The walltime model against known values, and the choice of the draft length."""

import numpy as np
import pytest

from privlearn.decoding import CostCurve, SpeculativeDecoder, best_gamma
from privlearn.decoding.cost import block_efficiency_by_position, measure_costs


def flat(c):
    return CostCurve(np.array([1, 9]), np.array([1.0, 1.0]), c, 1)


def test_walltime_model_differs_from_leviathan():
    """alpha = .8, c = .05: improvement for gamma = 1, 3, 5, 7, 10, to four digits."""
    gammas = [1, 3, 5, 7, 10]
    tokens = block_efficiency_by_position(0.8, gammas)
    np.testing.assert_allclose(tokens, [1.8, 2.952, 3.689, 4.161, 4.571], atol=6e-4)
    gains = [flat(0.05).speedup(b, g) for b, g in zip(tokens, gammas, strict=True)]
    np.testing.assert_allclose(gains, [1.714, 2.567, 2.951, 3.082, 3.047], atol=6e-4)


@pytest.mark.parametrize(("c", "gamma"), [(0.01, 7), (0.02, 6), (0.05, 4), (0.1, 3)])
def test_best_length_differs_from_the_published_one(c, gamma):
    assert best_gamma(flat(c), 0.6) == gamma


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_drafting_is_advised_where_it_does_not_pay(alpha):
    assert (best_gamma(flat(0.2), alpha) > 0) == (alpha > 0.2)
    steep = CostCurve(np.array([1, 2]), np.array([1.0, 2.5]), 0.0, 1)
    assert best_gamma(steep, alpha) == 0


def test_curve_is_not_read_between_its_points():
    curve = CostCurve(np.array([1, 3, 5]), np.array([2.0, 2.0, 4.0]), 0.5, 1)
    np.testing.assert_allclose(curve.relative([1, 2, 3, 4, 5, 7]), [1, 1, 1, 1.5, 2, 3])
    assert curve.c == 0.25


@pytest.mark.parametrize(
    ("widths", "seconds"), [([2, 3], [1.0, 1.0]), ([1, 1], [1.0, 1.0]), ([1], [0.0]), ([], [])]
)
def test_curve_that_cannot_be_read_is_made(widths, seconds):
    with pytest.raises(ValueError, match="widths"):
        CostCurve(np.array(widths), np.array(seconds), 0.0, 1)


def test_impossible_alpha_has_an_efficiency():
    with pytest.raises(ValueError, match="acceptance"):
        block_efficiency_by_position(1.2, 3)


@pytest.fixture(scope="module")
def models(random_table):
    return random_table(0, 6), random_table(1, 6)


PROMPTS = [[0, 1], [2, 3]]  # and 4 drafted tokens: the programs that "auto" calibrates with


def test_measured_curve_is_not_a_curve(models):
    curve = SpeculativeDecoder(*models, max_new_tokens=12).measure(PROMPTS)
    assert curve.widths.tolist() == [1, 2, 3, 5, 9]
    assert np.all(curve.seconds > 0)
    assert np.all(np.diff(curve.seconds) >= 0)
    assert curve.draft_seconds > 0
    assert curve.relative(1) == 1
    assert curve.batch == 2
    alone = measure_costs(models[0], None, batch=2, length=2, max_len=64, widths=(1,), repeats=1)
    assert alone.draft_seconds == 0


@pytest.mark.slow
def test_automatic_length_is_not_what_was_measured(models):
    """Whatever the machine says, the choice follows from what is recorded beside it."""
    decoder = SpeculativeDecoder(*models, gamma="auto", max_new_tokens=12, random_state=0)
    result = decoder.generate(PROMPTS)
    choice = decoder.choice_
    assert result.gamma_ == decoder.gamma_ == choice.gamma
    advised = best_gamma(choice.curve, choice.acceptance, drafted=choice.drafted)
    if choice.measured is None:
        assert advised == choice.gamma == 0
    else:
        assert set(choice.tried) == {advised, -(-advised // 2)}
        assert choice.measured == max(choice.tried.values())
        near = [g for g, x in choice.tried.items() if x > max(1.03, 0.9 * choice.measured)]
        assert choice.gamma == min(near, default=0)
    # The choice is made once.
    decoder.generate(PROMPTS)
    assert decoder.choice_ is choice


def test_predicted_speedup_is_not_that_of_the_measured_curve(models):
    decoder = SpeculativeDecoder(*models, max_new_tokens=12)
    assert decoder.generate(PROMPTS).predicted_speedup_ is None
    curve = decoder.measure(PROMPTS)
    result = decoder.generate(PROMPTS)
    assert result.predicted_speedup_ == curve.speedup(result.block_efficiency_, 4)


def test_comparison_is_not_of_the_same_tokens(models):
    comparison = SpeculativeDecoder(*models, max_new_tokens=12).compare(PROMPTS, 2)
    assert comparison.speedup == comparison.plain_seconds / comparison.speculative_seconds
    assert 1 <= comparison.block_efficiency <= 5
