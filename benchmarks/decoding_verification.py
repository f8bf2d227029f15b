"""Cost of verification alone, at the vocabulary of a real model.

    python benchmarks/decoding_verification.py [--vocabulary 49152] [--gamma 8] [--drafts 4]
        [--repeats 20] [--decode-step-ms 90]

One process, compiled once, repeats interleaved over the verifiers; the float32 laws are on the
device already. "accepts" draws the draft from q near p (many accepted tokens: trees walk deep),
"rejects" from q far from p. The share is that of a decode step of the target whose time you give:
90 ms is SmolLM2-135M, float32, torch, two busy cores; measure your own.
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from privlearn.decoding.drafts import Draft, Topology
from privlearn.decoding.verifiers import verifier

CHAIN = ("token", "block", "match")
TREE = ("kseq", "rrs", "match")


def cases(vocabulary, gamma, drafts):
    """(name, verifier, draft, p) with laws near to and far from each other."""
    for label, noise in (("accepts", 0.3), ("rejects", 3.0)):
        for topology, names in ((Topology.chain(gamma), CHAIN),
                                (Topology.chains(drafts, gamma), TREE)):  # fmt: skip
            keys = jax.random.split(jax.random.key(0), 3)
            # The same law at all nodes of a depth, as for drafts that agree so far.
            depth = jnp.array([0, *topology.depth])
            base = 3 * jax.random.normal(keys[0], (topology.height + 1, vocabulary))
            p = jax.nn.softmax(base, axis=-1)[depth]
            shift = noise * jax.random.normal(keys[1], base.shape)
            q = jax.nn.softmax(base + shift, axis=-1)[depth[1:] - 1]
            tokens = jax.random.categorical(keys[2], jnp.log(q)).astype(jnp.int32)
            draft = Draft.tree(tokens[None], topology, q[None])
            for name in names:
                yield f"{name:6s} {'chain' if names is CHAIN else 'drafts'} {label}", name, draft, p


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--gamma", type=int, default=8)
    parser.add_argument("--drafts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--decode-step-ms", type=float, default=90.0)
    options = parser.parse_args()
    runs = []
    for label, name, draft, p in cases(options.vocabulary, options.gamma, options.drafts):
        step = jax.jit(verifier(name).verify)
        laws_of_target = p[None]
        out = jax.block_until_ready(step(jax.random.key(0), draft, laws_of_target))
        runs.append((label, step, draft, laws_of_target, [], [int(out.n_accepted[0])]))
    for repeat in range(options.repeats):
        key = jax.random.key(repeat + 1)
        for _, step, draft, p, times, accepted in runs:
            start = time.perf_counter()
            out = jax.block_until_ready(step(key, draft, p))
            times.append(time.perf_counter() - start)
            accepted.append(int(out.n_accepted[0]))
    print(
        f"V = {options.vocabulary:,}, gamma = {options.gamma}, K = {options.drafts} where several "
        f"drafts, batch 1, float32, {os.cpu_count()} cores, jax {jax.__version__}"
    )
    print(f"{'verifier':28s} {'median us':>10s} {'fastest us':>10s} {'accepted':>9s} {'share':>8s}")
    for label, _, _, _, times, accepted in runs:
        median = 1e6 * np.median(times)
        share = median / (1e3 * options.decode_step_ms)
        print(
            f"{label:28s} {median:10.0f} {1e6 * min(times):10.0f} {np.mean(accepted):9.2f} "
            f"{share:8.2%}"
        )


if __name__ == "__main__":
    main()
