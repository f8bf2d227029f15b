"""HyperAttention and exact blocked attention beside JAX and PyTorch: time, error, peak memory.

float32, batch 1, head size 64, H = 1 and 4 heads, blocks and samples of 256. Contenders:

exact     privlearn's `softmax_attention`
hyper     privlearn's `hyper_attention`; causal with leaves of `--leaf` tokens (1024)
jax       `jax.nn.dot_product_attention`, to 8k: on a CPU it holds every score in memory
torch     `torch.nn.functional.scaled_dot_product_attention`, where torch is installed

1. Milliseconds, forward and forward + backward; contenders take turns, so that a slow minute hits
   all of them; least and median of the runs (7 at 4k and less, 5 to 16k, 2 at 32k, 1 at 64k).
   Compilation is reported apart. "x exact": the best of the exact contenders (exact, jax, torch)
   over this one, by least times. "bwd/fwd": time of the backward pass alone over that of the
   forward pass. "of peak": FLOPs that the method needs (not those of exact attention), over time,
   over the speed of a 2048 x 2048 matrix product measured in the same run; sorting and gathering
   count as nothing. "of memory": bytes that the method cannot avoid to move between its arrays,
   over time, over the speed of copying a large array: small, so arithmetic is what bounds it.
2. Error beside time: relative Frobenius error of the output on planted clusters and on independent
   normal data, where attention has nothing to find.
3. Peak memory of one call above inputs and compiled program, each point in a fresh process.

All of it takes about five minutes on two cores.

`--reduced` is a quick functional run whose numbers mean nothing. `--device gpu` measures the same
contenders in bfloat16 on an NVIDIA GPU, with cuDNN attention and the Pallas kernel beside.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.attention.hyper import hyper_attention
from privlearn.attention.softmax import softmax_attention
from privlearn.attention.theory.hyper import exact_flops, hyper_flops

D, BLOCK = 64, 256
#: Seconds before each timed call: threads of PyTorch wait actively for a while after theirs, and
#: would take a core from whoever comes next.
PAUSE = 0.1


def clustered(n: int, heads: int, seed: int = 0) -> list[np.ndarray]:
    """Queries and keys in 16 clusters, values by cluster: (1, n, heads, D), scale 1/8."""
    rng = np.random.default_rng(seed)
    centres, means = rng.standard_normal((2, 16, D))
    of_q, of_k = rng.integers(0, 16, (2, n, heads))

    def near(x: np.ndarray) -> np.ndarray:
        return (x + 0.3 * rng.standard_normal(x.shape))[None].astype(np.float32)

    return [near(centres[of_q]), near(centres[of_k]), near(means[of_k])]


def independent(n: int, heads: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.standard_normal((3, 1, n, heads, D)).astype(np.float32))


def methods(causal: bool, leaf: int, device: str) -> dict[str, Callable]:
    hyper = functools.partial(
        hyper_attention, rng=jax.random.key(0), block=BLOCK, samples=BLOCK, is_causal=causal,
        min_seq_len=leaf if causal else 1,
    )  # fmt: skip
    found: dict[str, Callable] = {
        "exact": functools.partial(softmax_attention, is_causal=causal),
        "jax": functools.partial(jax.nn.dot_product_attention, is_causal=causal),
        "hyper": hyper,
    }
    if device == "gpu":
        found["cudnn"] = functools.partial(
            jax.nn.dot_product_attention, is_causal=causal, implementation="cudnn"
        )
        found["hyper pallas"] = functools.partial(hyper, impl="pallas")
    return found


def with_backward(attention: Callable) -> Callable:
    def total(q: jax.Array, k: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        return (attention(q, k, v).astype(jnp.float32) * w).sum()

    return lambda q, k, v, w: jax.value_and_grad(total, argnums=(0, 1, 2))(q, k, v, w)


def forward(attention: Callable) -> Callable:
    return lambda q, k, v, w: attention(q, k, v)


def torch_calls(arrays: list[np.ndarray], causal: bool, backward: bool) -> Callable[[], None]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    attention = torch.nn.functional.scaled_dot_product_attention
    tensors = [torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 1, 3))) for x in arrays]
    q, k, v, w = tensors

    def call() -> None:
        if not backward:
            with torch.no_grad():
                attention(q, k, v, is_causal=causal)
            return
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        (attention(*leaves, is_causal=causal) * w).sum().backward()

    return call


def peaks() -> tuple[float, float]:
    """The machine's own FLOP/s and bytes/s: a matrix product and a copy of 256 MB."""

    def least(f: Callable, x: jax.Array) -> float:
        f = jax.jit(f)
        jax.block_until_ready(f(x))
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            jax.block_until_ready(f(x))
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    a = jax.random.normal(jax.random.key(0), (2048, 2048))
    large = jnp.zeros(2**26)
    return 2 * 2048**3 / least(lambda a: a @ a, a), 2 * large.nbytes / least(jnp.negative, large)


def measure(
    n: int, heads: int, causal: bool, backward: bool, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each contender; the first entry of "NAME compile" is the time to compile."""
    arrays = clustered(n, heads)
    arrays.append(np.random.default_rng(1).standard_normal(arrays[2].shape).astype(np.float32))
    dtype = jnp.bfloat16 if options.device == "gpu" else jnp.float32
    on_device = [jnp.asarray(x, dtype) for x in arrays]
    calls: dict[str, Callable] = {}
    seconds: dict[str, list[float]] = {}
    for name, attention in methods(causal, options.leaf, options.device).items():
        if name == "jax" and n > 8192:
            continue
        function = jax.jit(with_backward(attention) if backward else forward(attention))
        start = time.perf_counter()
        compiled = function.lower(*on_device).compile()
        seconds[f"{name} compile"] = [time.perf_counter() - start]
        calls[name] = lambda compiled=compiled: jax.block_until_ready(compiled(*on_device))
    slow = backward and n > 16384  # PyTorch's backward pass on a CPU takes a minute there
    if options.device == "cpu" and importlib.util.find_spec("torch") and not slow:
        calls["torch"] = torch_calls(arrays, causal, backward)
    repeats = next(r for most, r in ((4096, 7), (16384, 5), (32768, 2), (n, 1)) if n <= most)
    if backward or heads > 1:
        repeats = -(-repeats // 2)
    if n * heads <= 32768:  # a first call finds its pages unmapped, which long ones do not notice
        for call in calls.values():
            call()
    repeats = 1 if options.reduced else repeats
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return seconds


def own_work(name: str, n: int, causal: bool, backward: bool, leaf: int) -> tuple[float, float]:
    """FLOPs and bytes of one head. The backward pass has 5 products for the forward pass's 2."""
    row = 4.0 * D
    if name.startswith("hyper"):
        cost = {"block": BLOCK, "samples": BLOCK, "min_seq_len": leaf, "causal": causal}
        flops = hyper_flops(n, D, D, **cost)  # type: ignore[arg-type]
        levels = max(0, (n // leaf).bit_length() - 1) if causal else 2  # each of n / 2 tokens
        # Queries, keys, values and outputs in, outputs out; the sample with every 1024 queries.
        of_level = n / 2 * row * (5 + 2 * BLOCK / 1024)
        return flops * (3.5 if backward else 1), levels * of_level * (3 if backward else 1)
    flops = exact_flops(n, D, D, causal=causal)
    passes = n / 2048 * (0.5 if causal else 1)  # of all keys and values, one a tile of queries
    moved = n * row * (2 + 2 * passes) * (3 if backward else 1)
    return flops * (3.5 if backward else 1), moved


def lengths(heads: int, backward: bool, sizes: list[int]) -> list[int]:
    """What is measured by default: everything for one head forward, less of the rest."""
    most = 16384 if heads > 1 and backward else 32768 if heads > 1 or backward else 65536
    of_few = (2048, 8192, 32768)
    return [n for n in sizes if n <= most and (heads == 1 or n in of_few)]


def show_times(options: argparse.Namespace, sizes: list[int]) -> None:
    flops, copied = peaks()
    print(
        f"-- 1. times; a matrix product runs at {flops / 1e9:.0f} GFLOP/s, a copy at "
        f"{copied / 1e9:.1f} GB/s; load {os.getloadavg()}"
    )
    for heads in (1,) if options.reduced else (1, 4):
        for causal in (False, True):
            least: dict[tuple[str, int], float] = {}
            for backward in (False, True):
                chosen = sizes if options.sizes else lengths(heads, backward, sizes)
                for n in chosen:
                    seconds = measure(n, heads, causal, backward, options)
                    exact = min(min(seconds[x]) for x in ("exact", "jax", "torch") if x in seconds)
                    kind = "causal" if causal else "full"
                    title = f"H={heads} {kind:6} {'fwd+bwd' if backward else 'fwd':7} n={n:6}"
                    for name, times in seconds.items():
                        if name.endswith("compile"):
                            continue
                        best = min(times)
                        work, moved = own_work(name, n, causal, backward, options.leaf)
                        built = seconds.get(f"{name} compile", [0.0])[0]
                        ratio = ""
                        if backward and (name, n) in least:
                            ratio = f"bwd/fwd {best / least[name, n] - 1:4.1f}  "
                        if not backward:
                            least[name, n] = best
                        print(
                            f"{title} {name:12} least {1e3 * best:8.1f} median "
                            f"{1e3 * statistics.median(times):8.1f} ms  x exact "
                            f"{exact / best:5.2f}  {ratio:14}of peak "
                            f"{heads * work / best / flops:4.2f}  of memory "
                            f"{heads * moved / best / copied:4.2f}  compile {built:4.1f} s",
                            flush=True,
                        )


def show_errors(options: argparse.Namespace, sizes: list[int]) -> None:
    print("-- 2. relative error of hyper, 1 head, mean of 3 seeds")
    for causal in (False, True):
        calls = methods(causal, options.leaf, "cpu")
        exact, hyper = (jax.jit(calls[name]) for name in ("exact", "hyper"))
        for n in (n for n in sizes if options.sizes or n in (1024, 2048, 8192)):
            for name, draw in (("clusters", clustered), ("normal", independent)):
                errors = []
                for seed in range(1 if options.reduced else 3):
                    arrays = draw(n, 1, seed)
                    a, b = exact(*arrays), hyper(*arrays)
                    errors.append(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)))
                kind = "causal" if causal else "full"
                print(f"{kind:6} n={n:6} {name:9} {statistics.mean(errors):7.3f}", flush=True)


def one_point(name: str, n: int, causal: bool, backward: bool, leaf: int) -> None:
    """Peak memory of one call, in a process of its own: prints MiB above what was there before."""
    attention = methods(causal, leaf, "cpu")[name]
    arrays = [jnp.asarray(x) for x in clustered(n, 1)]
    arrays.append(arrays[2])
    function = jax.jit(with_backward(attention) if backward else forward(attention))
    compiled = function.lower(*arrays).compile()
    # The largest size so far may lie behind us (imports, compiler): start counting anew.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    jax.block_until_ready(compiled(*arrays))
    print(json.dumps(_status("VmHWM") - before))


def _status(field: str) -> float:
    """A field of /proc/self/status in MiB; the peak of the process where there is none."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith(field))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show_memory(options: argparse.Namespace, sizes: list[int]) -> None:
    print("-- 3. peak memory of one call, 1 head, MiB above inputs; and ratio when n doubles")
    for name in ("hyper", "exact"):
        for causal in (False, True):
            for backward in (False, True):
                last = None
                for n in sizes:
                    few = name == "exact" and (n > 32768 or (backward and n > 16384))
                    if not (options.sizes or options.reduced) and (
                        n < 8192 or few or (n == 8192 and not backward)
                    ):
                        continue
                    point = [name, str(n), str(int(causal)), str(int(backward)), str(options.leaf)]
                    command = [sys.executable, __file__, "--point", *point]
                    out = subprocess.run(command, check=True, capture_output=True, text=True)
                    mib = json.loads(out.stdout.splitlines()[-1])
                    ratio = "" if not last else f"ratio {mib / last:.2f}"
                    kind = (
                        f"{'causal' if causal else 'full':6} {'fwd+bwd' if backward else 'fwd':7}"
                    )
                    print(f"{name:6} {kind} n={n:6} {mib:8.1f} MiB {ratio}", flush=True)
                    last = mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--leaf", type=int, default=1024, help="min_seq_len of the causal form")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--part", choices=("times", "errors", "memory"), help="only this part")
    parser.add_argument("--sizes", type=int, nargs="*", help="lengths n")
    parser.add_argument("--point", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        name, *numbers = options.point
        n, causal, backward, leaf = map(int, numbers)
        one_point(name, n, bool(causal), bool(backward), leaf)
        return
    if options.device == "gpu" and jax.default_backend() != "gpu":
        parser.error("--device gpu: JAX sees no GPU here")
    if options.reduced:
        options.leaf = min(options.leaf, 512)
    sizes = options.sizes or ([1024] if options.reduced else [2**i for i in range(10, 17)])
    parts = {"times": show_times, "errors": show_errors, "memory": show_memory}
    for name, part in parts.items():
        if options.part in (None, name) and not (options.device == "gpu" and name == "memory"):
            part(options, sizes)


if __name__ == "__main__":
    main()
