"""Polysketch attention beside exact softmax attention: seconds, operations and peak memory.

1. The machine: its float32 matrix product (GFLOP/s) and its copy (GB/s), in this process.
2. Causal, float32, B = 1, head size 64, r = 32: seconds of the forward pass and of forward with
   backward, for n = 1k to 64k and 1 and 4 heads. Exact: the blocked form of this package, torch's
   scaled_dot_product_attention where torch is installed, and `jax.nn.dot_product_attention` up to
   8k (it makes the whole table). Runs alternate, so that a slow minute hits all; min and median;
   compilation apart. "own" counts the operations of the algorithm, "of peak" divides by 1.
   "x best exact" is the least median of an exact form over ours, at the same n: below 1 it loses.
3. Peak memory of the process above what it held before the call, forward with backward, each point
   in a fresh process; and how it grows when n doubles.
4. What the sketches cost in accuracy: relative error of the output against exact polynomial
   attention of degree 4, n = 2048.

``--reduced`` is a functional run whose times mean nothing. ``--gpu`` is for a machine with an
NVIDIA GPU, and the one command that measures there: bfloat16, 32k tokens in all, 16 heads, sizes
64 and 128, cuDNN attention beside the loop and the two-pass kernels, with shares of the bound
max(operations / peak, bytes / bandwidth) for ``--peak-tflops`` and ``--bandwidth-tbs``.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.attention import (
    init_sketch,
    polynomial_attention,
    polysketch_attention,
    softmax_attention,
    theory,
)

HEAD, R = 64, 32
#: name -> kind of sketch, exact blocks, packed features, block
SKETCHED: dict[str, tuple[str, bool, bool, int]] = {
    "random": ("gaussian", False, True, 128),
    "random+local": ("gaussian", True, True, 128),
    "random full": ("gaussian", False, False, 128),
    "learned+local": ("learned", True, True, 128),
}
EXACT = ("exact blocked", "exact torch", "exact jax.nn")
DENSE_LIMIT = 8192


def inputs(n: int, heads: int, batch: int = 1, head: int = HEAD, dtype: Any = jnp.float32) -> list:
    rng = np.random.default_rng(0)
    shape = (batch, n, heads, head)
    return [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for _ in range(3)]


def attention(name: str, head: int = HEAD, impl: str = "auto") -> Callable:
    if name == "exact blocked":
        return partial(softmax_attention, is_causal=True)
    if name == "exact jax.nn":
        return partial(jax.nn.dot_product_attention, is_causal=True)
    kind, local, packed, block = SKETCHED[name]
    sketch = init_sketch(jax.random.key(0), head, R, kind=kind)  # type: ignore[arg-type]
    return partial(
        polysketch_attention, sketch=sketch, is_causal=True, local_exact=local, packed=packed,
        block=block, impl=impl,
    )  # fmt: skip


def jax_call(name: str, backward: bool, arrays: list, **how: Any) -> tuple[Callable, float]:
    """A compiled call without arguments, and the seconds of its compilation."""
    function = attention(name, **how)
    if backward:

        def loss(q: Any, k: Any, v: Any, weight: Any) -> Any:
            return jnp.sum(function(q, k, v) * weight)

        weight = jnp.asarray(np.random.default_rng(1).standard_normal(arrays[2].shape), jnp.float32)
        run, given = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))), [*arrays, weight]
    else:
        run, given = jax.jit(lambda q, k, v: function(q, k, v)), arrays
    start = time.perf_counter()
    compiled = run.lower(*given).compile()
    spent = time.perf_counter() - start
    return lambda: jax.block_until_ready(compiled(*given)), spent


def torch_call(backward: bool, arrays: list) -> Callable:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    q, k, v = (torch.from_numpy(np.array(x)).transpose(1, 2).contiguous() for x in arrays)
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward() -> Any:
        with torch.no_grad():
            return attend(q, k, v, is_causal=True)

    def both() -> Any:
        given = [x.detach().requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(attend(*given, is_causal=True).sum(), given)

    return both if backward else forward


def make(name: str, backward: bool, arrays: list) -> tuple[Callable, float]:
    if name == "exact torch":
        return torch_call(backward, arrays), 0.0
    return jax_call(name, backward, arrays)


def contenders(n: int) -> list[str]:
    names = ["exact blocked"]
    if importlib.util.find_spec("torch") is not None:
        names.append("exact torch")
    if n <= DENSE_LIMIT:
        names.append("exact jax.nn")
    return [*names, *SKETCHED]


def operations(name: str, n: int, backward: bool) -> float:
    """Operations of a head; backward counted as 2.5 and 2 forward passes, exact and sketched."""
    if name not in SKETCHED:
        own = theory.exact_flops(n, HEAD, HEAD, is_causal=name != "exact jax.nn")
        return own * (3.5 if backward else 1)
    kind, local, packed, block = SKETCHED[name]
    own = n * theory.polysketch_flops(
        R, head_size=HEAD, value_size=HEAD, block=block, packed=packed, local_exact=local,
        learned=kind == "learned",
    )  # fmt: skip
    return own * (3 if backward else 1)


def alternate(calls: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def machine(size: int, repeats: int) -> tuple[float, float]:
    """GFLOP/s of a matrix product and GB/s of a copy."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    x = jnp.zeros((size * size * 4,), jnp.float32)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    seconds = alternate(
        {
            "product": lambda: product(a).block_until_ready(),
            "copy": lambda: copy(x).block_until_ready(),
        },
        repeats,
    )
    flops = 2 * size**3 / min(seconds["product"]) / 1e9
    return flops, 2 * x.nbytes / min(seconds["copy"]) / 1e9


def load() -> str:
    return "load " + "/".join(f"{x:.1f}" for x in os.getloadavg())


def show_times(lengths: list[int], heads: int, repeats: int, peak: float) -> None:
    for backward in (False, True):
        what = "forward+backward" if backward else "forward"
        print(f"\n{what}, {heads} head(s), milliseconds; {load()}")
        print(f"{'n':>6} {'':14} {'min':>9} {'median':>9} {'compile s':>9} {'own GFLOP/s':>11} "
              f"{'of peak':>8} {'x best exact':>12}")  # fmt: skip
        for n in lengths:
            arrays = inputs(n, heads)
            made = {name: make(name, backward, arrays) for name in contenders(n)}
            seconds = alternate({name: call for name, (call, _) in made.items()}, repeats)
            medians = {name: statistics.median(times) for name, times in seconds.items()}
            best = min(medians[name] for name in medians if name in EXACT)
            for name, times in seconds.items():
                rate = heads * operations(name, n, backward) / min(times) / 1e9
                print(
                    f"{n:6} {name:14} {1e3 * min(times):9.1f} {1e3 * medians[name]:9.1f} "
                    f"{made[name][1]:9.1f} {rate:11.1f} {rate / peak:8.2f} "
                    f"{best / medians[name]:12.2f}",
                    flush=True,
                )


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(name: str, n: int, heads: int) -> None:
    """Print the growth of the peak memory of this process by one call, its inputs not counted."""
    arrays = inputs(n, heads)
    call, _ = make(name, True, arrays)
    before = peak_bytes()
    call()
    print(peak_bytes() - before)


def show_memory(lengths: list[int], heads: int) -> None:
    print(f"\npeak memory of forward+backward above the inputs, MB, {heads} head(s), fresh process")
    for name in ["exact blocked", *SKETCHED]:
        found: list[float] = []
        for n in lengths:
            command = [sys.executable, __file__, "--child", name, str(n), str(heads)]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(int(out.stdout.split()[-1]) / 1e6)
        growth = [b / max(a, 1e-9) for a, b in itertools.pairwise(found)]
        points = "  ".join(f"{n}: {x:.0f}" for n, x in zip(lengths, found, strict=True))
        print(f"{name:14} {points}   x per doubling: " + " ".join(f"{g:.2f}" for g in growth))


def show_errors(n: int) -> None:
    print(f"\nrelative error against exact polynomial attention of degree 4, n = {n}")
    arrays = inputs(n, 1)
    exact = polynomial_attention(*arrays, degree=4, is_causal=True)
    for name in SKETCHED:
        found = attention(name)(*arrays)
        error = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
        note = "  (untrained nets: not an approximation)" if name.startswith("learned") else ""
        print(f"{name:14} {float(error):6.3f}{note}")


def gpu(lengths: list[int], repeats: int, peak_tflops: float, bandwidth_tbs: float) -> None:
    if jax.default_backend() != "gpu":
        raise SystemExit("--gpu: JAX sees no GPU here; install jax with CUDA and run it there")
    tokens, heads = max(lengths), 16
    for head in (64, 128):
        for n in lengths:
            arrays = inputs(n, heads, tokens // n, head, jnp.bfloat16)
            cudnn = jax.jit(
                partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn")
            )
            calls = {"cudnn": lambda a=arrays, f=cudnn: jax.block_until_ready(f(*a))}
            for impl in ("xla", "pallas"):
                calls[f"random+local {impl}"] = jax_call(
                    "random+local", False, arrays, head=head, impl=impl
                )[0]
            exact = tokens * heads * theory.exact_flops(n, head, head) / n
            block = SKETCHED["random+local"][3]
            own = tokens * heads * theory.polysketch_flops(
                R, head_size=head, value_size=head, block=block
            )  # fmt: skip
            moved = heads * theory.minimum_bytes(tokens, head, head, bytes_per_number=2)
            for name, times in alternate(calls, repeats).items():
                mine = exact if name == "cudnn" else own
                bound = max(mine / peak_tflops, moved / bandwidth_tbs) / 1e12
                print(
                    f"d={head:3} n={n:6} {name:20} {1e3 * min(times):8.3f} ms  exact-equivalent "
                    f"{exact / min(times) / 1e12:7.1f} TFLOP/s  own {mine / min(times) / 1e12:7.1f}"
                    f"  of the bound {bound / min(times):.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--heads", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--bandwidth-tbs", type=float, default=3.35)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]), int(args.child[2]))
        return
    if args.gpu:
        gpu(args.lengths or [2**i for i in range(11, 18)], max(args.repeats, 20),
            args.peak_tflops, args.bandwidth_tbs)  # fmt: skip
        return
    lengths = args.lengths or ([512, 1024] if args.reduced else [2**i for i in range(10, 17)])
    heads = args.heads or ([1] if args.reduced else [1, 4])
    repeats = 2 if args.reduced else args.repeats
    peak, bandwidth = machine(512 if args.reduced else 2048, 5)
    print(f"jax {jax.__version__}, {os.cpu_count()} cores, float32 product {peak:.0f} GFLOP/s, "
          f"copy {bandwidth:.1f} GB/s, {load()}")  # fmt: skip
    for count in heads:
        show_times(lengths, count, repeats, peak)
    show_memory(lengths if args.reduced else [n for n in lengths if n >= 8192], heads[0])
    show_errors(512 if args.reduced else 2048)


if __name__ == "__main__":
    main()
