"""Hashing by hyperplanes and the order of its buckets."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention.lsh import (
    bucket_places,
    draw_projections,
    gray_code,
    gray_place,
    hash_codes,
    inverse_order,
    stable_order,
)


def test_neighbouring_buckets_differ_by_more_than_one_bit():
    codes = np.argsort(gray_place(jnp.arange(128)))  # codes in sorted order
    steps = [int(a ^ b).bit_count() for a, b in itertools.pairwise(codes)]
    assert set(steps) == {1}
    wrong = np.argsort(gray_code(jnp.arange(128)))  # what sorting by the Gray code itself does
    steps = [int(a ^ b).bit_count() for a, b in itertools.pairwise(wrong)]
    assert max(steps) == 4
    assert np.mean(steps) == pytest.approx(1.307, abs=5e-4)


def test_inverse_gray_code_is_not_the_inverse():
    places = jnp.arange(2**12)
    assert np.array_equal(gray_place(gray_code(places)), places)


def test_code_is_not_made_of_the_sides_of_the_hyperplanes():
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    projections = draw_projections(jax.random.key(1), 5, 6)
    bits = np.asarray(x @ projections) > 0
    assert np.array_equal(hash_codes(x, projections), bits @ 2 ** np.arange(6))
    assert np.array_equal(bucket_places(x, projections), gray_place(hash_codes(x, projections)))
    assert np.array_equal(hash_codes(3 * x, projections), hash_codes(x, projections))


@pytest.mark.parametrize("n_places", [8, 2**24])
def test_order_is_not_stable(n_places):
    places = jnp.asarray(np.random.default_rng(0).integers(0, 8, (3, 200)))
    order = stable_order(places, n_places)
    assert np.array_equal(order, np.argsort(places, axis=-1, kind="stable"))
    assert np.array_equal(
        np.take_along_axis(np.asarray(order), np.asarray(inverse_order(order)), -1),
        np.broadcast_to(np.arange(200), (3, 200)),
    )


@pytest.mark.parametrize("n", [0, 25])
def test_impossible_number_of_hyperplanes_is_taken(n):
    with pytest.raises(ValueError, match=f"n_projs: {n}"):
        draw_projections(jax.random.key(0), 4, n)
