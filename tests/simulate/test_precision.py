import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.simulate import float64


def test_only_the_block_is_64_bit():
    with float64():
        assert jnp.arange(3.0).dtype == np.float64
    assert jnp.arange(3.0).dtype == np.float32


def test_an_error_inside_the_block_does_not_leave_64_bit_on():
    with pytest.raises(RuntimeError, match="inside"), float64():
        raise RuntimeError("inside")
    assert jnp.arange(3.0).dtype == np.float32


def test_other_threads_keep_their_precision():
    seen = []
    with float64():
        thread = threading.Thread(target=lambda: seen.append(jnp.arange(3.0).dtype))
        thread.start()
        thread.join()
    assert seen == [np.float32]


def test_a_jitted_function_is_traced_anew_inside():
    third = jax.jit(lambda x: x / 3)
    outside = float(third(1.0))
    with float64():
        assert float(third(1.0)) == 1 / 3
    assert float(third(1.0)) == outside != 1 / 3
