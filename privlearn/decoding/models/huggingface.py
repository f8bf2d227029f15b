"""A torch model of Hugging Face behind the protocol: slow, and made to compare with."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from privlearn.decoding.models.cache import (
    Cache,
    check_extend,
    extend_slots,
    new_positions,
    visible_slots,
    write_slots,
)
from privlearn.decoding.models.checks import check_length


class HFAdapter(eqx.Module):
    """A causal language model of ``transformers`` as a `CausalLM`.

    Its cache holds token ids, and every step runs torch on the whole text again with the mask and
    the positions of that step. That is slow, and independent of our cache: what a test of parity
    wants. It works under ``jit`` (by a callback to the host), not on several devices.

    Parameters
    ----------
    module : torch.nn.Module
        For example a ``LlamaForCausalLM``; called with ``input_ids``, a four-dimensional
        ``attention_mask`` and ``position_ids``. Used in evaluation mode.

    Raises
    ------
    TypeError
        If the module has no ``config`` with a vocabulary.
    """

    module: Any = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not hasattr(getattr(self.module, "config", None), "vocab_size"):
            raise TypeError(
                f"module: {type(self.module).__name__} has no config.vocab_size; give a causal "
                "language model of transformers"
            )

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.module.config.vocab_size)

    @property
    def context(self) -> int | None:
        """Longest text, as the config says."""
        return getattr(self.module.config, "max_position_embeddings", None)

    def init_cache(self, batch: int, max_len: int, *, slack: int = 0) -> Cache:
        """An empty cache of token ids; see `CausalLM.init_cache`."""
        n_slots = check_length(max_len, slack, batch, self.context)
        return Cache(
            jnp.zeros((batch, 1, n_slots, 1), jnp.int32), jnp.zeros(batch, dtype=jnp.int32)
        )

    def extend(
        self,
        cache: Cache,
        tokens: ArrayLike,
        positions: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Cache]:
        """Read new tokens; see `CausalLM.extend`."""
        tokens = check_extend(cache, tokens, mask)
        n_rows, n_new = tokens.shape
        n_slots = cache.n_slots
        places = new_positions(cache, n_new, positions)
        cache = extend_slots(cache, tokens[:, None, :, None])
        slot = jnp.arange(n_slots, dtype=jnp.int32)
        everywhere = jnp.broadcast_to(slot, (n_rows, n_slots))
        place = write_slots(everywhere[:, None, :, None], places[:, None, :, None], cache.length)[
            :, 0, :, 0
        ]
        # Committed tokens look at the past, new ones where the mask says, scratch at itself.
        seen = visible_slots(cache.length, n_slots, n_new, mask)
        past = jnp.broadcast_to(slot <= slot[:, None], (n_rows, n_slots, n_slots))
        whole = write_slots(past[:, None], seen[:, None], cache.length)[:, 0]
        shape = jax.ShapeDtypeStruct((n_rows, n_slots, self.vocab_size), jnp.float32)
        logits = jax.pure_callback(
            self._on_host, shape, cache.slots[:, 0, :, 0], place, whole, vmap_method="sequential"
        )
        new = cache.length[:, None] + jnp.arange(n_new, dtype=jnp.int32)
        return jnp.take_along_axis(logits, new[:, :, None], axis=1), cache

    def _on_host(self, ids: Array, place: Array, seen: Array) -> np.ndarray:
        import torch

        seen = torch.from_numpy(np.array(seen))[:, None]
        barred = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        limit = (self.context or np.iinfo(np.int32).max) - 1
        self.module.eval()
        with torch.no_grad():
            out = self.module(
                input_ids=torch.from_numpy(np.array(ids, np.int64)),
                attention_mask=barred.to(next(self.module.parameters()).dtype),
                position_ids=torch.from_numpy(np.minimum(np.array(place, np.int64), limit)),
                use_cache=False,
            )
        return out.logits.float().numpy()
