"""From one trial to batches of trials on all devices: the JAX half of :mod:`.monte_carlo`.

Trial number i always runs with ``jax.random.fold_in(key, i)``. A batch is what one device runs at
once; with D devices a round is D batches, laid out in the order of the trials. The program that a
device runs therefore has the same shapes whatever the number of devices.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from privlearn.simulate.precision import float64

Trial = Callable[[jax.Array], Any]

_AXIS = "trials"
#: How many trials are compiled to learn what one of them needs.
_PROBE = 8
#: Beyond this many trials a larger batch saves no time.
_MOST = 2**16


def output_names(tree: Any) -> list[str]:
    """Name the leaves of a trial's output, as errors show them."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") or "output" for path, _ in paths]


def check_key(key: Any) -> jax.Array:
    """Return the key if it is one typed JAX key; say what to do if not."""
    advice = "make one with jax.random.key(seed)"
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be a typed JAX key, got {type(key).__name__}: {advice}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key must be a typed JAX key, got an array of {key.dtype} (jax.random.PRNGKey makes "
            f"those): {advice}, or wrap yours with jax.random.wrap_key_data(key)"
        )
    if key.shape != ():
        raise ValueError(f"key must be a single key, got an array of keys of shape {key.shape}")
    implementation = str(jax.random.key_impl(key))
    if "rbg" in implementation:
        # Under vmap these draw for the whole batch from its first key.
        raise ValueError(
            f"key is of implementation {implementation!r}, with which the draws of a trial depend "
            'on its batch: make one with jax.random.key(seed, impl="threefry2x32")'
        )
    return key


def check_devices(devices: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    """Return the devices to use: those given, the default device if one is set, or all."""
    if devices is None:
        default = jax.config.jax_default_device  # type: ignore[attr-defined]
        if default is None:
            return tuple(jax.local_devices())
        return (jax.local_devices(backend=default)[0] if isinstance(default, str) else default,)
    chosen = tuple(devices)
    if not chosen:
        raise ValueError("devices must name at least one JAX device, got none")
    for device in chosen:
        if not isinstance(device, jax.Device):
            raise TypeError(f"devices must be JAX devices, got {device!r}: see jax.devices()")
    if len(set(chosen)) < len(chosen):
        raise ValueError("devices names a JAX device twice")
    if len({device.platform for device in chosen}) > 1:
        raise ValueError("devices must all be of one platform")
    return chosen


def _real_arrays(output: Any) -> Any:
    """Turn what a trial returned into arrays of real numbers, or name the leaf that is not."""
    leaves, structure = jax.tree.flatten(output)
    if not leaves:
        raise TypeError(f"trial must return at least one number, got {output!r}")
    arrays = []
    for name, leaf in zip(output_names(output), leaves, strict=True):
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)) if np.isscalar(leaf) else None)
        if dtype is None or not (
            jnp.issubdtype(dtype, jnp.floating)
            or jnp.issubdtype(dtype, jnp.integer)
            or jnp.issubdtype(dtype, jnp.bool_)
        ):
            raise TypeError(
                f"trial must return a pytree of real arrays, but {name!r} is "
                f"{type(leaf).__name__}" + ("" if dtype is None else f" of dtype {dtype}")
            )
        arrays.append(jnp.asarray(leaf))
    return jax.tree.unflatten(structure, arrays)


class _Program:
    """A trial compiled for some devices: (key, trial numbers) -> outputs, one shard a device."""

    def __init__(self, trial: Trial, devices: tuple[jax.Device, ...]) -> None:
        def one(key: jax.Array, number: jax.Array) -> Any:
            return _real_arrays(trial(jax.random.fold_in(key, number)))

        mesh = Mesh(np.array(devices), (_AXIS,))
        self.devices = devices
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.spread = NamedSharding(mesh, PartitionSpec(_AXIS))
        # shard_map rather than automatic partitioning: a batched LAPACK or cuSOLVER call must run
        # where its trials are, and XLA's partitioner may gather its operands on every device.
        self.run = jax.jit(
            jax.shard_map(
                jax.vmap(one, in_axes=(None, 0)),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(_AXIS)),
                out_specs=PartitionSpec(_AXIS),
                check_vma=False,
            )
        )
        self._bytes: dict[bool, int] = {}

    def trial_bytes(self, key: jax.Array) -> int:
        """Bytes of device memory for one trial, from XLA's analysis of a small batch.

        Two rounds of outputs are counted, since one is read while the next is computed. Where the
        backend has no analysis, eight times the outputs are assumed.
        """
        wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        if wide not in self._bytes:
            shape = (_PROBE * len(self.devices),)
            numbers = jax.ShapeDtypeStruct(shape, jnp.uint32, sharding=self.spread)
            lowered = self.run.lower(key, numbers)
            analysis = lowered.compile().memory_analysis()
            if analysis is None:
                outputs = jax.tree.leaves(lowered.out_info)
                total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in outputs)
                used = 8 * total / len(self.devices)
            else:
                used = analysis.temp_size_in_bytes + 2 * analysis.output_size_in_bytes
            self._bytes[wide] = max(1, math.ceil(used / _PROBE))
        return self._bytes[wide]

    def width(self, key: jax.Array, n_trials: int, memory: int) -> int:
        """Return the batch size: what the memory holds, evened out over rounds and devices."""
        share = math.ceil(n_trials / len(self.devices))
        fits = min(share, _MOST)
        if share > _PROBE:
            fits = max(1, min(fits, memory // self.trial_bytes(key)))
        return math.ceil(share / math.ceil(share / fits))


# A jitted trial has already agreed to be traced once, so its batches may be kept too. A plain
# function has not: a notebook changes a global that it reads, and calls again.
_kept_program = functools.lru_cache(maxsize=16)(_Program)


def _program(trial: Trial, devices: tuple[jax.Device, ...]) -> _Program:
    if isinstance(trial, jax.stages.Wrapped) and isinstance(trial, Hashable):
        return _kept_program(trial, devices)
    return _Program(trial, devices)


def _usable(devices: tuple[jax.Device, ...]) -> tuple[jax.Device, ...]:
    """Leave one thread of XLA's CPU pool free, by using one device fewer where there is none.

    All CPU devices of a process share one pool of max(threads, devices) threads, and a batched
    LAPACK call on a device blocks a thread until others have done its share: with a device on
    every thread nobody is left to do it, and the program hangs for ever (seen in jax 0.10.2).
    More than one CPU device exists only under ``--xla_force_host_platform_device_count``.
    """
    if devices[0].platform != "cpu" or len(devices) == 1:
        return devices
    # XLA reads NPROC before it counts the CPUs that this process may use.
    affinity = getattr(os, "sched_getaffinity", None)
    threads = int(
        os.environ.get("NPROC") or (len(affinity(0)) if affinity else os.cpu_count() or 1)
    )
    pool = max(threads, jax.local_device_count("cpu"))
    return devices[: pool - 1]


def batches(
    trial: Trial,
    *,
    key: jax.Array,
    n_trials: int,
    batch_size: int | None,
    memory: int,
    x64: bool,
    devices: Sequence[jax.Device] | None,
) -> Iterator[tuple[int, Any]]:
    """Yield (number of the first trial, stacked outputs as numpy arrays), in order.

    While one round is being read the next one is already computing. The 64-bit context is never
    held across a yield: it would leak into the caller's own code.
    """
    key = check_key(key)

    chosen = _usable(check_devices(devices))

    def precision() -> AbstractContextManager[None]:
        return float64() if x64 else nullcontext()

    if batch_size is not None:
        batch_size = min(batch_size, n_trials)
    program = _program(trial, chosen[: math.ceil(n_trials / (batch_size or 1))])
    with precision():
        key = jax.device_put(key, program.everywhere)
        width = batch_size or program.width(key, n_trials, memory)
    stride = width * len(program.devices)

    def dispatch(start: int) -> Any:
        # The last round is filled up with repeats of the last trial, which are dropped again.
        numbers = np.minimum(np.arange(start, start + stride), n_trials - 1).astype(np.uint32)
        with precision():
            return program.run(key, jax.device_put(numbers, program.spread))

    ahead = dispatch(0)
    for start in range(0, n_trials, stride):
        current = ahead
        if start + stride < n_trials:
            ahead = dispatch(start + stride)
        count = min(stride, n_trials - start)
        yield start, jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], current)
