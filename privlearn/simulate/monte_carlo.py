"""Monte Carlo on JAX: one pure trial in, estimates with standard errors out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from privlearn.simulate.estimate import Estimate, Moments

if TYPE_CHECKING:
    import jax

# JAX is imported where it is first needed: `import privlearn.simulate` stays quick.

#: Device memory that the automatic batch size may use, in bytes a device. A constant, not a share
#: of what is free, so that the same call makes the same batches on a busy machine.
MEMORY = 2**28


def monte_carlo(
    trial: Callable[[jax.Array], Any],
    *,
    key: jax.Array,
    n_trials: int,
    batch_size: int | None = None,
    x64: bool = False,
    devices: Sequence[jax.Device] | None = None,
    nonfinite: Literal["raise", "keep"] = "raise",
    memory: int = MEMORY,
) -> Estimate:
    """Average a random trial over many keys.

    Trial number i runs with ``jax.random.fold_in(key, i)``. Trials are vmapped in batches, the
    batches spread over the devices, and means and variances merged on the host in float64, so
    memory does not grow with ``n_trials``.

    Parameters
    ----------
    trial : callable
        Pure JAX function from one typed key to a pytree of real arrays (booleans and integers
        count as numbers, so an event's probability is the mean of its indicator).
    key : jax.Array
        One typed key, from ``jax.random.key``. Not of the implementations "rbg" and "unsafe_rbg":
        under ``vmap`` their draws depend on the batch.
    n_trials : int
        Number of trials, at least 2 and at most 2**32.
    batch_size : int, optional
        Trials that one device runs at once. By default as many as XLA's memory analysis of a small
        batch says will fit in ``memory``, shared out evenly.
    x64 : bool, default=False
        Run the trial in 64 bits, in a local context (:func:`float64`). False leaves the precision
        that is in force, 32 bits unless the caller changed it.
    devices : sequence of jax.Device, optional
        Where to run; all local devices of the default backend if not given, or the default device
        if ``jax.default_device`` sets one. Fewer are used where there are too few trials to share
        out, and of CPU devices at least one fewer than XLA has threads (it would hang).
    nonfinite : {"raise", "keep"}, default="raise"
        What to do when an output is infinite or not a number: raise at the first batch that has
        one, or let it into the mean.
    memory : int, default=2**28
        Bytes of device memory for the automatic batch size; no part of it when ``batch_size`` is
        given. Workspace that a linear-algebra library takes for itself is not in XLA's analysis.

    Returns
    -------
    Estimate
        ``mean`` and ``stderr`` in the structure of the trial's output, as numpy float64, and ``n``.

    Raises
    ------
    FloatingPointError
        If an output is not finite and ``nonfinite="raise"``; the message names the output, how
        many trials, and the first of them.
    TypeError, ValueError
        If an argument, or what the trial returns, is not as described.

    See Also
    --------
    run_trials : Every trial's output instead of their mean.

    Notes
    -----
    What is reproducible: the key of a trial depends on its number alone, and the order of the
    additions on the shape of the output alone. The estimate is bit-identical between runs, and
    between numbers of devices of one kind, for the same ``batch_size``. Across batch sizes the
    trials are the same random draws, but XLA may compile a matrix product of another shape to
    another order of additions, so a trial's value, and the mean, can differ by rounding. The
    automatic batch size depends on the number of devices and on XLA's analysis; give
    ``batch_size`` where every bit counts.

    Sharp edge: on a CPU with two threads, jax 0.10 can wait for ever on a trial that makes two
    *independent* factorisations (eigh, svd, cholesky, ...): batched, each blocks a thread until a
    free one has done its share. Make one depend on the other, or factor once; or set the
    environment variable ``NPROC=4`` before JAX starts, which gives XLA more threads.

    Compilation: each call traces and compiles anew, so a trial that reads a changed global sees
    the change. Pass ``jax.jit(trial)`` to have its batches compiled once and kept for the next
    call (JAX's rule then holds: what the trial closed over is frozen at the first).

    Examples
    --------
    >>> import jax
    >>> from privlearn import simulate
    >>> def trial(key):
    ...     x = jax.random.normal(key, (10,))
    ...     return {"mean": x.mean(), "positive": x[0] > 0}
    >>> estimate = simulate.monte_carlo(trial, key=jax.random.key(0), n_trials=2_000)
    >>> abs(estimate.mean["mean"]) < 5 * estimate.stderr["mean"]
    np.True_
    >>> estimate.stderr["mean"].round(3)  # 1 / sqrt(10 * 2000)
    np.float64(0.007)
    """
    n_trials = _count("n_trials", n_trials, 2, why="one trial has no standard error")
    import jax

    moments: list[Moments] = []
    with _one_blas_thread():
        for outputs in _outputs(trial, key, n_trials, batch_size, x64, devices, nonfinite, memory):
            leaves, structure = jax.tree.flatten(outputs)
            if not moments:
                moments = [Moments(leaf.shape[1:]) for leaf in leaves]
            for moment, leaf in zip(moments, leaves, strict=True):
                moment.add(leaf)
    means, stderrs = zip(*(moment.finish() for moment in moments), strict=True)
    return Estimate(
        mean=jax.tree.unflatten(structure, means),
        stderr=jax.tree.unflatten(structure, stderrs),
        n=n_trials,
    )


def run_trials(
    trial: Callable[[jax.Array], Any],
    *,
    key: jax.Array,
    n_trials: int,
    batch_size: int | None = None,
    x64: bool = False,
    devices: Sequence[jax.Device] | None = None,
    nonfinite: Literal["raise", "keep"] = "raise",
    memory: int = MEMORY,
) -> Any:
    """Run a random trial over many keys and return every outcome.

    The trials are those of :func:`monte_carlo` with the same key, and so are the parameters. Use
    it for quantiles, histograms and covariances; memory grows with ``n_trials``.

    Returns
    -------
    pytree of numpy.ndarray
        The trial's outputs stacked along a new first axis of length ``n_trials``, in their dtypes.

    See Also
    --------
    monte_carlo : Parameters, errors and what is reproducible.

    Examples
    --------
    >>> import jax
    >>> from privlearn import simulate
    >>> draws = simulate.run_trials(jax.random.normal, key=jax.random.key(0), n_trials=5)
    >>> draws.shape, bool(draws[3] == jax.random.normal(jax.random.fold_in(jax.random.key(0), 3)))
    ((5,), True)
    """
    n_trials = _count("n_trials", n_trials, 1)
    import jax

    stacked: list[np.ndarray] = []
    start = 0
    with _one_blas_thread():
        for outputs in _outputs(trial, key, n_trials, batch_size, x64, devices, nonfinite, memory):
            leaves, structure = jax.tree.flatten(outputs)
            if not stacked:
                stacked = [np.empty((n_trials, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
            for whole, leaf in zip(stacked, leaves, strict=True):
                whole[start : start + len(leaf)] = leaf
            start += len(leaves[0])
    return jax.tree.unflatten(structure, stacked)


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to one thread: trials fill the cores, threads inside small matrices collide.

    On two busy cores a batched factorisation was seen to take a hundred times longer without.
    """
    # JAX calls the BLAS of SciPy, which must be loaded for its threads to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def _outputs(
    trial: Callable[[jax.Array], Any],
    key: jax.Array,
    n_trials: int,
    batch_size: int | None,
    x64: bool,
    devices: Sequence[jax.Device] | None,
    nonfinite: str,
    memory: int,
) -> Iterator[Any]:
    """Check the arguments, then yield the outputs of the trials, batch by batch."""
    from privlearn.simulate.batches import batches

    if not callable(trial):
        raise TypeError(f"trial must be a function of a key, got {type(trial).__name__}")
    if batch_size is not None:
        batch_size = _count("batch_size", batch_size, 1)
    if nonfinite not in ("raise", "keep"):
        raise ValueError(f'nonfinite must be "raise" or "keep", got {nonfinite!r}')
    for start, outputs in batches(
        trial,
        key=key,
        n_trials=n_trials,
        batch_size=batch_size,
        memory=_count("memory", memory, 1),
        x64=bool(x64),
        devices=devices,
    ):
        if nonfinite == "raise":
            _refuse_nonfinite(outputs, start)
        yield outputs


def _refuse_nonfinite(outputs: Any, start: int) -> None:
    """Raise if a trial of this batch, whose first is number ``start``, is not finite."""
    import jax

    from privlearn.simulate.batches import output_names

    for name, leaf in zip(output_names(outputs), jax.tree.leaves(outputs), strict=True):
        if leaf.dtype.kind in "biu":
            continue
        bad = ~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        if bad.any():
            first = start + int(bad.argmax())
            raise FloatingPointError(
                f"trial output {name!r} is not finite in {int(bad.sum())} of the trials "
                f"{start} to {start + len(leaf) - 1}; the first is trial {first}, whose key is "
                f'jax.random.fold_in(key, {first}). nonfinite="keep" lets such values into the mean'
            )


def _count(name: str, value: Any, least: int, why: str = "") -> int:
    """Return a whole number of at least ``least``, or say what is wrong with it."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}" + (f": {why}" * bool(why)))
    if name == "n_trials" and count > 2**32:
        raise ValueError(f"n_trials must be at most 2**32, the number of keys, got {count}")
    return count
