"""Closed forms against integration, enumeration and one another; JAX is not needed for them."""

import subprocess
import sys

import numpy as np
import pytest

from privlearn.attention import theory


def gauss(c, n=24):
    """Nodes and weights of two standard normals with correlation c; exact for polynomials."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    a, b = np.meshgrid(x, x)
    weights = np.outer(w, w) / w.sum() ** 2
    return a, c * a + np.sqrt(1 - c * c) * b, weights


@pytest.mark.parametrize("c", [0.0, 0.3, -0.7, 1.0])
def test_product_moments_are_the_integrals(c):
    a, b, weights = gauss(c)
    found = [np.sum(weights * (a * b) ** k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(theory.product_moments(c), found, atol=1e-9)


def sketched_powers(c, r):
    """E Z^2 and E Z^4 from the moments of one term, by the multinomial expansion term by term."""
    m = [1.0, *(float(x) ** 2 for x in theory.product_moments(c))]
    second = sum(m[2] if i == j else m[1] ** 2 for i in range(r) for j in range(r)) / r**2
    fourth = 0.0
    for index in np.ndindex(r, r, r, r):
        fourth += np.prod([m[k] for k in np.unique(index, return_counts=True)[1]])
    return second, fourth / r**4


@pytest.mark.parametrize("c", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("r", [1, 3, 5])
def test_weight_error_equals_the_sum_over_all_index_tuples(c, r):
    second, fourth = sketched_powers(c, r)
    np.testing.assert_allclose(theory.sketch_second_moment(c, r), second, rtol=1e-12)
    mse = fourth - 2 * c**4 * second + c**8
    np.testing.assert_allclose(theory.weight_rms(c, r), np.sqrt(mse), rtol=1e-12)


def test_published_values():
    found = [[theory.weight_rms(c, r) for r in (32, 64, 256)] for c in (0.0, 0.5, 1.0)]
    printed = [[0.0729, 0.0321, 0.0071], [0.283, 0.146, 0.053], [1.508, 0.883, 0.375]]
    np.testing.assert_allclose(found, printed, rtol=0.006)
    np.testing.assert_allclose(
        theory.sketch_variance([0.0, 0.5, 1.0], 32), [0.03125, 0.0684, 0.25], rtol=1e-3
    )
    np.testing.assert_allclose(
        theory.sketch_second_moment([0.0, 0.5, 1.0], 64, degree=4), [0.0169, 0.0322, 1.424],
        rtol=3e-3,
    )  # fmt: skip


def test_orthogonal_vectors_keep_a_weight():
    np.testing.assert_allclose(theory.weight_bias(0.0, [4, 32]), [0.25, 1 / 32])
    r = np.array([8.0, 64.0])
    np.testing.assert_allclose(theory.weight_rms(0.0, r), np.sqrt(3 * (1 + 26 / r)) / r)


def test_the_error_falls_as_one_over_the_root_of_r():
    ratio = theory.weight_rms(0.7, 4_000_000) / theory.weight_rms(0.7, 1_000_000)
    assert abs(ratio - 0.5) < 1e-3


def test_signs_spread_less_than_normals_where_coordinates_are_shared():
    x = np.array([0.6, 0.8, 0.0])
    assert theory.overlap(x, 2 * x) == pytest.approx(0.6**4 + 0.8**4)
    less = theory.sketch_variance(1.0, 32, overlap=theory.overlap(x, x))
    assert less < theory.sketch_variance(1.0, 32)
    # One coordinate: signs square to 1, so the sketch is exact.
    assert theory.sketch_variance(1.0, 32, overlap=1.0) == 0


def test_frobenius_error_of_equal_and_of_orthogonal_directions():
    assert theory.frobenius_error(np.ones(3), 32) == pytest.approx(float(theory.weight_rms(1, 32)))
    assert theory.frobenius_error(np.zeros(3), 32) == pytest.approx(0.0729, rel=1e-3)


def test_published_costs():
    flops = [
        theory.polysketch_flops(r, packed=p) for r, p in [(32, False), (32, True), (64, False),
                                                          (64, True), (16, True)]
    ]  # fmt: skip
    assert flops == [348_672, 219_712, 1_163_776, 639_616, 109_600]
    sizes = [(32, False), (32, True), (64, False), (64, True), (16, True)]
    lengths = [round(theory.break_even_length(r, packed=p)) for r, p in sizes]
    assert lengths == [2724, 1716, 9092, 4997, 856]
    assert round(theory.break_even_length(packed=False, block=1024)) == 2724 + 1548
    extra = theory.polysketch_flops(learned=True) - theory.polysketch_flops()
    assert extra == 327_680 - 8 * 64 * 32  # the nets stand in for the random matrices
    assert theory.learned_parameters() == pytest.approx(82_300, rel=1e-3)
    assert theory.minimum_bytes(32768, bytes_per_number=2) == pytest.approx(16.8e6, rel=2e-3)
    assert theory.exact_flops(100, is_causal=False) == 2 * theory.exact_flops(100)


def test_legacy_weights_shrink_with_every_product():
    np.testing.assert_allclose(theory.legacy_shrinkage(32), 1 / 1024)
    np.testing.assert_allclose(theory.legacy_shrinkage(2, degree=8), 1 / 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.weight_rms(1.5, 8), "c: 1.5"),
        (lambda: theory.sketch_variance(0.5, 0), "r: 0"),
        (lambda: theory.sketch_second_moment(0.5, 8, degree=3), "degree: 3"),
        (lambda: theory.polysketch_flops(0), "r: 0"),
        (lambda: theory.legacy_shrinkage(8, degree=2), "degree: 2"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_theory_does_not_load_jax():
    code = (
        "import sys; from privlearn.attention import theory; theory.weight_rms(0.5, 8); "
        "print('jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
