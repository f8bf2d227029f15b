"""Polysketch attention beside exact softmax attention: seconds, operations and peak memory.

1. The machine, in this process: its float32 matrix product (GFLOP/s), its copy in cache and into
   fresh memory (GB/s), and the matrix products of one forward pass alone, in the shapes of the
   algorithm and with nothing between them: what the loop could reach.
2. Causal, float32, B = 1, head size 64, r = 32: seconds of the forward pass and of forward with
   backward, for n = 1k to 64k with 1 head and a few lengths with 4. Exact: the blocked form of this
   package, torch's scaled_dot_product_attention where torch is installed, and
   `jax.nn.dot_product_attention` up to 8k (it makes the whole table). Runs alternate, so that a
   slow minute hits all; min and median; compilation apart. "own" counts the operations of the
   algorithm, "of peak" divides by 1. "x best exact" is the least median of an exact form over ours,
   at the same n: below 1 it loses. "bwd/fwd" is what the backward pass adds.
3. The same numbers beside what we aim at, n = 32k, and from which n on a form wins.
4. Peak memory of the process above what it held before the call, each point in a fresh process; and
   how it grows when n doubles.
5. What the sketches cost in accuracy: relative error of the output against exact polynomial
   attention of degree 4, n = 2048.

All of it takes less than six minutes on two cores; ``--part`` takes one. ``--reduced`` is a
functional run whose times mean nothing. ``--gpu`` is for a machine with an NVIDIA GPU, and the one
command that measures there: bfloat16, 32k tokens in all, 16 heads, sizes 64 and 128, cuDNN
attention beside the loop and the two-pass kernels, with shares of the bound
max(operations / peak, bytes / bandwidth) for ``--peak-tflops`` and ``--bandwidth-tbs``.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
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
#: Seconds before each timed call: threads of PyTorch wait actively for a while after theirs, and
#: would take a core from whoever comes next.
PAUSE = 0.1
#: name -> kind of sketch, exact blocks, packed features, block
SKETCHED: dict[str, tuple[str, bool, bool, int]] = {
    "random": ("gaussian", False, True, 256),
    "random+local": ("gaussian", True, True, 256),
    "random full": ("gaussian", False, False, 256),
    "learned": ("learned", False, True, 256),
    "learned+local": ("learned", True, True, 256),
}
EXACT = ("exact blocked", "exact torch", "exact jax.nn")
DENSE_LIMIT = 8192
#: Where these two are measured; the other forms are at all lengths.
FEW = {"random full": (2048, 32768), "learned": (2048, 32768)}
#: Lengths with 4 heads, forward and forward+backward: exact attention costs minutes beyond.
WITH_HEADS = {False: (2048, 8192, 32768), True: (2048, 8192)}
#: Seconds that a row of contenders may take, beyond two runs of each.
PATIENCE = 8.0


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
    sketch = init_sketch(jax.random.key(0), head, R, kind=kind)
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


def contenders(n: int, heads: int, backward: bool) -> list[str]:
    """Who runs; one exact form is enough where a single run takes a quarter of a minute."""
    torch = importlib.util.find_spec("torch") is not None
    names = ["exact torch"] if torch else []
    if not (torch and backward and heads * n > 32768):
        names.insert(0, "exact blocked")
    if n * heads <= DENSE_LIMIT:
        names.append("exact jax.nn")
    return names + [name for name in SKETCHED if n in FEW.get(name, (n,))]


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
    """Seconds of each call, round after round; the first round counts only if it was long."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for turn in range(repeats + 1):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
        spent = time.perf_counter() - begun
        if turn == 0 and spent < PATIENCE / 2:
            seconds, begun = {name: [] for name in calls}, time.perf_counter()
        elif turn and spent > PATIENCE:
            break
    return seconds


def machine(size: int, repeats: int) -> tuple[float, float, float]:
    """GFLOP/s of a matrix product; GB/s of a copy in cache, and of one into fresh memory."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    small, large = jnp.zeros((1 << 18,), jnp.float32), jnp.zeros((size * size * 4,), jnp.float32)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1)
    seconds = alternate(
        {
            "product": lambda: product(a).block_until_ready(),
            "cache": lambda: copy(small).block_until_ready(),
            "fresh": lambda: copy(large).block_until_ready(),
        },
        repeats,
    )
    least = {name: min(times) for name, times in seconds.items()}
    flops = 2 * size**3 / least["product"] / 1e9
    return flops, 2e-9 * small.nbytes / least["cache"], 2e-9 * large.nbytes / least["fresh"]


def show_products(n: int, peak: float, repeats: int) -> None:
    """The matrix products of a forward pass, in their shapes, on operands that stay in cache."""
    block, depth, n_features = SKETCHED["random"][3], HEAD + 1, R * (R + 1) // 2
    rng = np.random.default_rng(0)
    shapes = {
        "into the state": ("mdk,mrk->mdr", (depth, block), (n_features, block)),
        "out of the state": ("mdr,mrq->mdq", (depth, n_features), (n_features, block)),
        "scores": ("mrk,mrq->mkq", (R, block), (R, block)),
        "values": ("mdk,mkq->mdq", (depth, block), (block, block)),
    }
    together = 4
    for name, (how, *pair) in shapes.items():
        x, y = (jnp.asarray(rng.standard_normal((2, together, *p)), jnp.float32) for p in pair)

        def run(x: Any, y: Any, how: str = how) -> Any:
            def step(z: Any, i: Any) -> Any:
                # Depends on the turn before: the compiler can neither drop nor move it.
                return 1e-30 * jnp.einsum(how, x[i % 2] + z, y[i % 2])[0, 0, 0], None

            return jax.lax.scan(step, jnp.float32(0), jnp.arange(n // block // together))[0]

        compiled = jax.jit(run).lower(x, y).compile()
        call = {name: lambda x=x, y=y, f=compiled: f(x, y).block_until_ready()}
        least = min(alternate(call, repeats)[name])
        sizes = dict(
            zip(how.split("->")[0].replace(",", ""), x.shape[1:] + y.shape[1:], strict=True)
        )
        work = 2e-9 * n / block * np.prod([sizes[letter] for letter in sizes if letter != "m"])
        print(
            f"products alone, n = {n}, {name:17} {1e3 * least:7.1f} ms  "
            f"{work / least:6.1f} GFLOP/s  {work / least / peak:5.2f} of peak"
        )


def load() -> str:
    return "load " + "/".join(f"{x:.1f}" for x in os.getloadavg())


def show_times(
    lengths: list[int], heads: int, repeats: int, peak: float
) -> dict[tuple[str, int, bool], float]:
    """Print both tables; medians by name, n and whether with backward."""
    medians: dict[tuple[str, int, bool], float] = {}
    for backward in (False, True):
        what = "forward+backward" if backward else "forward"
        print(f"\n{what}, {heads} head(s), milliseconds; {load()}")
        print(
            f"{'n':>6} {'':14} {'min':>9} {'median':>9} {'runs':>4} {'compile s':>9} "
            f"{'own GFLOP/s':>11} {'of peak':>8} {'x best exact':>12} {'bwd/fwd':>8}"
        )
        for n in lengths:
            if heads > 1 and n not in WITH_HEADS[backward]:
                continue
            arrays = inputs(n, heads)
            names = contenders(n, heads, backward)
            made = {name: make(name, backward, arrays) for name in names}
            seconds = alternate({name: call for name, (call, _) in made.items()}, repeats)
            for name, times in seconds.items():
                medians[name, n, backward] = statistics.median(times)
            best = min(medians[name, n, backward] for name in names if name in EXACT)
            for name, times in seconds.items():
                rate = heads * operations(name, n, backward) / min(times) / 1e9
                mine = medians[name, n, backward]
                forward = medians.get((name, n, False), np.nan)
                added = f"{mine / forward - 1:8.2f}" if backward else ""
                print(
                    f"{n:6} {name:14} {1e3 * min(times):9.1f} {1e3 * mine:9.1f} {len(times):4} "
                    f"{made[name][1]:9.1f} {rate:11.1f} {rate / peak:8.2f} {best / mine:12.2f} "
                    f"{added}",
                    flush=True,
                )
    return medians


def show_targets(medians: dict[tuple[str, int, bool], float], heads: int) -> None:
    def over_exact(name: str, n: int, backward: bool) -> float:
        best = min(medians.get((exact, n, backward), np.inf) for exact in EXACT)
        return best / medians[name, n, backward]

    lengths = sorted({n for _, n, _ in medians})
    print(f"\naims, {heads} head(s)")
    if ("random", 32768, True) in medians:
        for name, backward, least in (
            ("random", False, 10), ("learned+local", False, 4), ("random", True, 8)
        ):  # fmt: skip
            what = "forward+backward" if backward else "forward"
            ratio = over_exact(name, 32768, backward)
            print(f"n = 32768 {what:16} {name:14} {ratio:6.2f} x best exact, at least {least}")
        for name in ("random", "random+local", "learned+local"):
            ratio = medians[name, 32768, True] / medians[name, 32768, False] - 1
            print(f"n = 32768 {'backward':16} {name:14} {ratio:6.2f} x forward, at most 3")
    for backward in (False, True):
        for name in ("random", "random+local", "learned+local"):
            met = [n for n in lengths if (name, n, backward) in medians]
            wins = [n for n in met if over_exact(name, n, backward) >= 1]
            first = f"from n = {wins[0]} on" if wins else "nowhere"
            what = "forward+backward" if backward else "forward"
            print(f"{name:14} {what:16} wins {first}, of {met}")


def status(field: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def child(name: str, n: int, heads: int, backward: bool) -> None:
    """Print the growth of the peak memory of this process by one call, its inputs not counted."""
    arrays = inputs(n, heads)
    call, _ = jax_call(name, backward, arrays)
    # Give back what compilation left, and begin a new peak.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call()
    print(status("VmHWM") - before)


def show_memory(lengths: list[int], heads: int) -> None:
    if not Path("/proc/self/clear_refs").exists():
        print("\npeak memory: needs /proc of Linux, left out")
        return
    for backward in (False, True):
        what = "forward+backward" if backward else "forward"
        print(f"\npeak memory of {what} above the inputs, MB, {heads} head(s), fresh process")
        for name in ["exact blocked", "random", "learned+local"]:
            found: list[float] = []
            # An exact run costs a quarter of a minute at 64k; its memory is linear as well.
            sizes = [n for n in lengths if name in SKETCHED or n <= 32768]
            for n in sizes:
                command = [sys.executable, __file__, "--child", name, str(n), str(heads)]
                command += ["backward"] if backward else ["forward"]
                out = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(int(out.stdout.split()[-1]) / 1e6)
            growth = [b / max(a, 1e-9) for a, b in itertools.pairwise(found)]
            points = "  ".join(f"{n}: {x:.0f}" for n, x in zip(sizes, found, strict=True))
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
    parser.add_argument("--part", choices=("times", "memory", "errors"), help="only this")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, n, heads, way = args.child
        child(name, int(n), int(heads), way == "backward")
        return
    if args.gpu:
        gpu(args.lengths or [2**i for i in range(11, 18)], max(args.repeats, 20),
            args.peak_tflops, args.bandwidth_tbs)  # fmt: skip
        return
    lengths = args.lengths or ([512, 1024] if args.reduced else [2**i for i in range(10, 17)])
    heads = args.heads or ([1] if args.reduced else [1, 4])
    repeats = 2 if args.reduced else args.repeats
    if args.part in (None, "times"):
        peak, cache, fresh = machine(512 if args.reduced else 2048, 5)
        print(
            f"jax {jax.__version__}, {os.cpu_count()} cores, float32 product {peak:.0f} GFLOP/s, "
            f"copy in cache {cache:.1f} GB/s, into fresh memory {fresh:.1f} GB/s, {load()}"
        )
        show_products(1024 if args.reduced else 32768, peak, repeats)
        for count in heads:
            show_targets(show_times(lengths, count, repeats, peak), count)
    if args.part in (None, "memory"):
        show_memory(lengths if args.reduced else [n for n in lengths if n >= 16384], heads[0])
    if args.part in (None, "errors"):
        show_errors(512 if args.reduced else 2048)


if __name__ == "__main__":
    main()
