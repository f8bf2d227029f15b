"""The rules that arguments of every attention satisfy, and the choice by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.attention import dot_product_attention, init_sketch, polynomial_attention
from privlearn.attention.arguments import (
    check_inputs,
    choose_implementation,
    number_runs,
    visible,
)

Q, K = jnp.zeros((2, 5, 4, 8)), jnp.zeros((2, 5, 2, 8))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((Q.astype(int), K, K), {}, "query: dtype int32"),
        ((Q, K, K.astype(jnp.bfloat16)), {}, "dtypes differ"),
        ((Q[0], K, K), {}, "all with or all without B"),
        ((Q, K[:, :, :0], K[:, :, :0]), {}, "no axis may be empty"),
        ((Q, K[..., :7], K), {}, "head sizes 8 and 7"),
        ((Q[:, :, :3], K, K), {}, "3 heads of queries and 2 of keys"),
        ((Q, K[:, :4], K), {}, "places of keys and values"),
        ((Q, K[:1], K[:1]), {}, "must agree"),
        ((Q[:, :3], K, K), {"is_causal": True}, "3 queries and 5 keys"),
        ((Q, K, K), {"key_mask": np.ones((2, 5), int)}, "key_mask: dtype"),
        ((Q, K, K), {"key_mask": np.ones((2, 4), bool)}, r"key_mask: shape \(2, 4\)"),
        ((Q, K, K), {"segment_ids": np.ones((2, 5))}, "segment_ids: dtype"),
        ((Q, K, K), {"segment_ids": np.ones((5,), int)}, "segment_ids: shape"),
        ((Q[:, :3], K, K), {"segment_ids": np.ones((2, 3), int)}, "as many keys as queries"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arrays, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check_inputs(*arrays, **options)


def test_an_id_that_returns_is_a_new_document():
    np.testing.assert_array_equal(number_runs(jnp.array([[3, 3, 1, 3], [0, 1, 1, 1]])),
                                  [[0, 0, 1, 2], [0, 1, 1, 1]])  # fmt: skip
    inputs = check_inputs(Q, K, K, is_causal=True, segment_ids=np.array([[3, 3, 1, 3, 3]]))
    seen = visible(inputs, is_causal=True)
    expected = np.tri(5, dtype=bool) & (np.array([0, 0, 1, 2, 2])[:, None] == [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(seen[0], expected)


def test_a_part_of_what_is_visible_is_that_part_of_the_whole():
    mask = np.random.default_rng(0).random((2, 5)) < 0.5
    inputs = check_inputs(Q, K, K, key_mask=mask, segment_ids=np.array([[0, 0, 1, 1, 1]]))
    whole = visible(inputs, is_causal=True)
    part = visible(inputs, is_causal=True, queries=slice(1, 4), keys=slice(2, 5))
    np.testing.assert_array_equal(part, whole[:, 1:4, 2:5])


def test_arrays_without_a_batch_give_results_without_one():
    inputs = check_inputs(Q[0], K[0], K[0], key_mask=np.ones(5, bool))
    assert inputs.query.shape == (*Q.shape[:0], 1, 5, 4, 8)
    assert inputs.restore(inputs.query).shape == (5, 4, 8)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="impl: 'triton'"):
        choose_implementation("triton")
    with pytest.raises(ValueError, match="method: 'flash'"):
        dot_product_attention(Q, K, K, method="flash")
    assert choose_implementation("auto", pallas_devices=("none",)) == "xla"


def drawn():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, 2, 8))
    return q, k[:, :, :1], v[:, :, :1]


def test_every_way_to_say_which_keys_exist_is_the_same():
    q, k, v = drawn()
    exists = np.arange(6) < np.array([4, 6])[:, None]
    expected = polynomial_attention(q, k, v, key_mask=exists, is_causal=True)
    how = {"method": "polynomial", "is_causal": True}
    for options in (
        {"key_mask": exists},
        {"mask": exists[:, None, None]},
        {"key_value_seq_lengths": np.array([4, 6])},
        {"mask": np.ones((1, 1, 1, 6), bool), "key_value_seq_lengths": np.array([4, 6])},
    ):
        np.testing.assert_array_equal(dot_product_attention(q, k, v, **options, **how), expected)


def test_masks_that_depend_on_the_query_are_refused():
    q, k, v = drawn()
    with pytest.raises(ValueError, match="only masks of keys"):
        dot_product_attention(q, k, v, np.ones((2, 1, 6, 6), bool), method="polynomial")


def test_methods_by_name_are_the_functions():
    q, k, v = drawn()
    sketch = init_sketch(jax.random.key(1), 8, 4)
    out = dot_product_attention(
        q, k, v, method="polysketch", sketch=sketch, is_causal=True, block=6
    )
    # One block: exact.
    np.testing.assert_allclose(out, polynomial_attention(q, k, v, is_causal=True), atol=1e-6)


def test_softmax_by_name_is_that_of_jax():
    q, k, v = drawn()
    np.testing.assert_allclose(
        dot_product_attention(q, k, v, is_causal=True, key_value_seq_lengths=np.array([6, 6])),
        jax.nn.dot_product_attention(q, k, v, is_causal=True),
        atol=1e-5,
    )
