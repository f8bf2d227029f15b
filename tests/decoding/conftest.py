"""Models of tests, made with NumPy: drawing them with JAX compiles a program for every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding.models import TabularLM, TransformerLM


def _table(seed, vocab_size, order=1, concentration=1.0, zeros=0.0):
    rng = np.random.default_rng(seed)
    laws = rng.dirichlet(np.full(vocab_size, concentration), size=(vocab_size + 1,) * order)
    gone = (rng.random(laws.shape) < zeros) & (laws < laws.max(axis=-1, keepdims=True))
    laws = np.where(gone, 0, laws)
    return TabularLM.from_probabilities(laws / laws.sum(axis=-1, keepdims=True))


def _transformer(seed, config, dtype=jnp.float32, scale=0.3):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: TransformerLM.init(jax.random.key(0), config, dtype=dtype))

    def leaf(like):
        noise = scale * rng.normal(size=like.shape)
        return jnp.asarray(noise if len(like.shape) == 2 else 1 + 0.5 * noise, like.dtype)

    return jax.tree.map(leaf, shapes)


@pytest.fixture(scope="session")
def random_table():
    """``(seed, vocab_size, order, concentration, zeros)`` -> a `TabularLM` with Dirichlet laws."""
    return _table


@pytest.fixture(scope="session")
def random_transformer():
    """``(seed, config, dtype, scale)`` -> a `TransformerLM` all of whose parts show."""
    return _transformer
