"""What a simulation returns, and how it is accumulated: numpy only, so that no reader needs JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Trials are averaged in blocks of this many, or fewer where one trial's output is large. The
#: block depends on the shape of the output alone, never on the batch size, so the order of the
#: additions, and with it every rounding, is the same however the trials were batched.
_BLOCK = 1024
_BLOCK_BYTES = 2**23


class Estimate(NamedTuple):
    """A Monte-Carlo mean with its standard error.

    Attributes
    ----------
    mean : pytree of float64
        Mean over trials of each output, in the structure that the trial returned.
    stderr : pytree of float64
        Standard error of that mean: sample standard deviation (n - 1) over the root of n.
    n : int
        Number of trials.

    Examples
    --------
    >>> import numpy as np
    >>> Estimate(mean=np.float64(0.5), stderr=np.float64(0.1), n=100).n
    100
    """

    mean: Any
    stderr: Any
    n: int


class Moments:
    """Streaming mean and sum of squared deviations of one output (Chan, Golub and LeVeque 1979).

    Memory is two arrays of the output's shape and at most one block of trials.

    Parameters
    ----------
    shape : tuple of int
        Shape of the output of one trial.

    Examples
    --------
    >>> import numpy as np
    >>> moments = Moments(())
    >>> moments.add(np.array([1.0, 2.0]))
    >>> moments.add(np.array([3.0]))
    >>> mean, stderr = moments.finish()
    >>> float(mean), round(float(stderr), 4)
    (2.0, 0.5774)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        trial_bytes = 8 * max(1, int(np.prod(shape)))
        self.block = max(1, min(_BLOCK, _BLOCK_BYTES // trial_bytes))
        self.n = 0
        self._mean: NDArray[np.float64] = np.zeros(shape)
        self._squares: NDArray[np.float64] = np.zeros(shape)
        self._pending: NDArray[np.float64] = np.empty((0, *shape))

    def add(self, values: NDArray[Any]) -> None:
        """Take in the next trials, in order; their number is the first axis."""
        start = 0
        while start < len(values):
            stop = start + self.block - len(self._pending)
            taken = np.asarray(values[start:stop], dtype=np.float64, order="C")
            self._pending = np.concatenate([self._pending, taken])
            if len(self._pending) == self.block:
                self._merge()
            start = stop

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean and its standard error; at least two trials must have been added."""
        if len(self._pending):
            self._merge()
        with np.errstate(invalid="ignore"):
            stderr = np.sqrt(self._squares / (self.n - 1) / self.n)
        return self._mean[()], stderr[()]

    def _merge(self) -> None:
        """Fold the pending block into the running moments."""
        block, self._pending = self._pending, self._pending[:0]
        n = self.n + len(block)
        # An infinite trial, where the caller keeps those, makes inf - inf here: nan is right.
        with np.errstate(invalid="ignore", over="ignore"):
            mean = block.mean(axis=0)
            delta = mean - self._mean
            self._squares = (
                self._squares
                + np.square(block - mean).sum(axis=0)
                + np.square(delta) * (self.n * len(block) / n)
            )
            # The first block is taken as it is: 0 + (mean - 0) * 1 would be the same but for inf.
            self._mean = mean if self.n == 0 else self._mean + delta * (len(block) / n)
        self.n = n
