"""The optimal schedule for a million steps: a JAX scan, a NumPy/Python loop, and numba.

    python benchmarks/drift_schedule.py [--steps 1_000_000] [--repeats 7]

All compute v <- v (1 - eta) + gamma^2 with eta = B v / ((B + d + 1) v + d s2), in 64 bits, and
return rates and second moments. "Unrolled" and "both" are the variants that were *not* taken: scans
that unroll the loop, and that store rates beside second moments. Compilation is shown apart.
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.drift import kernels, streams, theory
from privlearn.simulate import float64

D, B, S2 = 20, 8.0, 0.25


def variant(unroll, both):
    @jax.jit
    def run(shifts, start):
        def step(v, square):
            rate = kernels.optimal_rate(v, D, S2, B)
            return v * (1 - rate) + square, (rate, v) if both else v

        last, out = jax.lax.scan(step, start, shifts**2, unroll=unroll)
        rates, before = out if both else (kernels.optimal_rate(out, D, S2, B), out)
        return rates, jnp.append(before, last)

    return run


def numba_loop():
    import numba

    @numba.njit
    def run(shifts, start):
        rates, second = np.empty(shifts.size), np.empty(shifts.size + 1)
        v = start
        for t in range(shifts.size):
            second[t] = v
            eta = B * v / ((B + D + 1) * v + D * S2)
            rates[t] = eta
            v = v * (1 - eta) + shifts[t] ** 2
        second[shifts.size] = v
        return rates, second

    return run


def timed(run, repeats):
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    first, times = time.perf_counter() - start, []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return result, first, np.array(times) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    shifts = streams.periodic(arguments.steps)
    print(
        f"{arguments.steps:,} steps; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax "
        f"{jax.__version__}"
    )
    with float64():
        moves, start = jnp.asarray(shifts), jnp.asarray(1.0)
        ours = jax.jit(kernels.optimal_schedule)
        fast = numba_loop()
        stored, eight, many = variant(1, True), variant(8, False), variant(32, False)
        runs = {
            "scan (ours)": lambda: ours(moves, B, 1.0, D, S2),
            "scan, both stored": lambda: stored(moves, start),
            "scan, unroll 8": lambda: eight(moves, start),
            "scan, unroll 32": lambda: many(moves, start),
            "numba loop": lambda: fast(shifts, 1.0),
            "Python loop (theory)": lambda: tuple(
                theory.optimal_schedule(shifts, dim=D, noise=S2, batch=B)
            ),
        }
        exact = None
        for name, run in runs.items():
            result, first, times = timed(run, arguments.repeats)
            exact = result if exact is None else exact
            gap = max(
                float(np.abs(np.asarray(a) / np.asarray(b) - 1).max())
                for a, b in zip(result, exact, strict=True)
            )
            print(
                f"  {name:22s} {np.median(times):9.1f} ms ({times.min():.1f} to {times.max():.1f}),"
                f" first call {first:.2f} s, largest relative difference {gap:.1e}"
            )


if __name__ == "__main__":
    main()
