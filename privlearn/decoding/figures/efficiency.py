"""Tokens per target call, and what they are worth on a machine."""

from __future__ import annotations

from typing import Any

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from privlearn.decoding import theory
from privlearn.decoding.decoder import SpeculativeDecoder
from privlearn.decoding.drafts import Draft
from privlearn.decoding.family import sample_prompts
from privlearn.decoding.figures.contexts import (
    PROMPT,
    acceptance_rate,
    drafted,
    expected_taus,
    mean_of,
    model,
    ratio_of,
)
from privlearn.decoding.verifiers import Verifier, verifier
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_line,
)

# ----------------------------------------------------------------------------- block efficiency

_CHAINS = ("token", "block")
_PAIRS = ("draft, T = 1", "draft, T = 0.6", "middle, T = 1")


def efficiency_table(
    *, pairs: tuple[str, ...], n_contexts: int, gamma: int, seed: int
) -> pl.DataFrame:
    """Block efficiency of token and block verification along drafted paths, coins integrated."""
    rows = []
    for pair in pairs:
        size, temperature = pair.split(", T = ")
        paths = drafted(size, n=n_contexts, gamma=gamma, seed=seed, temperature=float(temperature))
        alpha = acceptance_rate(paths).mean
        token, block = (tau[:, 0] + 1 for tau in expected_taus(paths.ratios))
        for g in range(gamma):
            gain = ratio_of(block[:, g] - token[:, g], token[:, g])
            for name, values in zip(_CHAINS, (token, block), strict=True):
                found = mean_of(values[:, g])
                rows.append(
                    {
                        "pair": pair,
                        "verifier": name,
                        "gamma": g + 1,
                        "efficiency": found.mean,
                        "stderr": found.stderr,
                        "iid": float(theory.block_efficiency(alpha, g + 1)),
                        "alpha": alpha,
                        "gain": gain.mean,
                        "gain_se": gain.stderr,
                    }
                )
    return pl.DataFrame(rows)


def draw_efficiency(table: pl.DataFrame) -> Any:
    """Left: one pair, both verifiers and the formula; right: the gain of block for all pairs."""
    x = alt.X("gamma:Q", title="Draft length").axis(tickMinStep=1)
    first = table.filter(pl.col("pair") == _PAIRS[0])
    rules = Series("verifier", title="Verifier", order=_CHAINS)
    left = alt.Y(title="Tokens per target call", scale=alt.Scale(zero=False))
    shown: Any = theory_line(first, x, "iid", axis=left, dash=(4, 4))
    shown += error_bars(first, x, "efficiency", stderr="stderr", series=rules, axis=left)
    shown += dots(first, x, "efficiency", series=rules, axis=left)
    once = table.filter(pl.col("verifier") == _CHAINS[0])
    pairs = Series("pair", title="Draft, temperature", order=_PAIRS)
    right = alt.Y(title="Gain of block over token").axis(format="%")
    gains: Any = theory_line(once, x, "gain", series=pairs, axis=right)
    gains += error_bars(once, x, "gain", stderr="gain_se", series=pairs, axis=right)
    gains += dots(once, x, "gain", series=pairs, axis=right)
    size = {"width": 290, "height": 280}
    return alt.hconcat(
        pick_in_legend(shown.properties(**size), rules),
        pick_in_legend(gains.properties(**size), pairs),
    ).resolve_scale(color="independent", shape="independent")


register(
    Figure(
        name="decoding-block-efficiency",
        topic="decoding",
        title="Block efficiency: token against block verification",
        caption=(
            "Left: tokens per target call of the trained pair (temperature 1) against the draft "
            "length. Dots: mean over drafted paths after held-out windows with the coins "
            "integrated, E[tau | path] = sum of prod min(r, 1) for token and sum of P_l for block "
            "verification; both from the same paths. Dashed: the formula for independent coins, "
            "(1 - alpha^(gamma+1)) / (1 - alpha), at the measured acceptance. Right: the relative "
            "gain of block verification, for two drafts and two temperatures. Bars are two "
            "standard errors.\n\n"
            "Notice that the gain is zero at length 1, where the two rules are one, and grows with "
            "the length; that it comes free, from the same draft and the same target call; and "
            "that token verification saturates first: with an acceptance of 0.6 its sixth drafted "
            "token is hardly ever reached. The formula is within a few hundredths of token "
            "verification, although acceptance varies from context to context; block verification "
            "is off it."
        ),
        source=(
            "Leviathan et al., arXiv 2211.17192, figure of E(tokens); Sun et al., arXiv "
            "2403.10444, table of block efficiencies"
        ),
        profiles={
            "quick": {"pairs": _PAIRS[:2], "n_contexts": 512, "gamma": 8, "seed": 2},
            "paper": {"pairs": _PAIRS, "n_contexts": 4096, "gamma": 8, "seed": 2},
        },
        compute=efficiency_table,
        draw=draw_efficiency,
        claims=(
            "decoding/token-tau", "decoding/block-tau", "decoding/block-tau-float32",
            "decoding/block-efficiency",
        ),
    )
)  # fmt: skip

# ------------------------------------------------------------------- several drafts, whole steps

_RULES = ("kseq", "rrs", "match")


def chains_table(
    *, n_contexts: int, gamma: int, n_drafts: tuple[int, ...], rules: tuple[str, ...],
    n_coins: int, seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Block efficiency of K chains: the compiled verifiers on drafts of the trained pair."""
    paths = drafted("draft", n=n_contexts, gamma=gamma, seed=seed, n_drafts=max(n_drafts))
    token, block = (tau[:, 0, -1] + 1 for tau in expected_taus(paths.ratios))
    rows = []
    for k in n_drafts:
        laws, n = paths.p[:, :k].astype(np.float32), n_contexts
        after = laws[:, :, 1:].reshape(n, k * gamma, -1)
        p = jnp.asarray(np.concatenate([laws[:, 0, :1], after], axis=1))
        draft = Draft.chains(jnp.asarray(paths.tokens[:, :k]), jnp.float32(paths.q[:, :k]))
        for name in rules:
            taus = _accepted(verifier(name), draft, p, jax.random.key(seed), n_coins)
            found = mean_of(np.asarray(taus) + 1)
            rows.append({"rule": name, "k": k, "efficiency": found.mean, "stderr": found.stderr})
    # One draft needs no coins: exact along its path, and K-SEQ and recursive rejection are token.
    for name, values in (*((rule, token) for rule in rules if rule != "match"), ("block", block)):
        found = mean_of(values)
        rows.append({"rule": name, "k": 1, "efficiency": found.mean, "stderr": found.stderr})
    return pl.DataFrame(rows).sort("rule", "k")


def _accepted(
    rule: Verifier, draft: Draft, p: jax.Array, key: jax.Array, n_coins: int
) -> jax.Array:
    """Accepted tokens of each context, averaged over coins."""

    @jax.jit
    def mean_tau(draft: Draft, p: jax.Array) -> jax.Array:
        def one(total: jax.Array, at: jax.Array):
            found = rule.verify(jax.random.fold_in(key, at), draft, p)
            return total + found.n_accepted, None

        zero = jnp.zeros(p.shape[0], jnp.int32)
        return jax.lax.scan(one, zero, jnp.arange(n_coins))[0] / n_coins

    return mean_tau(draft, p)


def draw_chains(table: pl.DataFrame) -> Any:
    """Tokens per target call against K."""
    series = Series("rule", title="Verifier", order=(*_RULES, "block"))
    x = alt.X("k:Q", title="Drafts K", scale=alt.Scale(type="log", base=2),
              axis=alt.Axis(values=sorted(set(table["k"]))))  # fmt: skip
    y = alt.Y(title="Tokens per target call", scale=alt.Scale(zero=False))
    chart: Any = theory_line(table, x, "efficiency", series=series, axis=y)
    chart += error_bars(table, x, "efficiency", stderr="stderr", series=series, axis=y)
    chart += dots(table, x, "efficiency", series=series, axis=y)
    return pick_in_legend(chart.properties(width=480, height=280), series)


register(
    Figure(
        name="decoding-chains",
        topic="decoding",
        title="K drafts of several tokens: block efficiency",
        caption=(
            "Tokens per target call with K independent drafts of the trained pair (temperature 1), "
            "for K-SEQ and recursive rejection (and matching samples, in the paper profile), "
            "beside block verification of one draft. With one draft the two are token "
            "verification, exact along its path; with more, the compiled float32 verifiers run on "
            "drafts after held-out windows, several coins each. Bars are two standard errors over "
            "contexts, which the rules share.\n\n"
            "Notice that each further draft gains less, that K-SEQ keeps a little ahead, that "
            "matching samples throws most of it away, and that block verification gives one draft "
            "almost half of what a second draft would, for nothing. Each doubling of K also "
            "doubles the tokens that the target reads: this axis is free of hardware, walltime is "
            "not."
        ),
        source="Sun et al., SpecTr, arXiv 2310.15141, block efficiency against K",
        profiles={
            "quick": {
                "n_contexts": 192, "gamma": 4, "n_drafts": (4,), "rules": ("kseq", "rrs"),
                "n_coins": 4, "seed": 3,
            },
            "paper": {
                "n_contexts": 2048, "gamma": 4, "n_drafts": (2, 4, 8), "rules": _RULES,
                "n_coins": 16, "seed": 3,
            },
        },
        compute=chains_table,
        draw=draw_chains,
        claims=("decoding/kseq-tau", "decoding/rrs-tau", "decoding/lossless-*"),
    )
)  # fmt: skip

# -------------------------------------------------------------------------------------- walltime

_KINDS = ("verifying is free", "measured costs")


def walltime_table(
    *, target: str, batches: tuple[int, ...], gammas: tuple[int, ...], longest: int,
    n_tokens: int, repeats: int, n_contexts: int, seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Speed over plain decoding: predicted from measured costs, and measured, on this machine."""
    paths = drafted("draft", n=n_contexts, gamma=longest, seed=seed, target=target)
    efficiency = [1.0, *(expected_taus(paths.ratios)[1][:, 0] + 1).mean(axis=0)]
    rows = []
    for batch in batches:
        prompts = sample_prompts(batch, PROMPT, seed=seed)
        panel = f"{batch} row{'s' if batch > 1 else ''}"
        curve = None
        for g in gammas:
            decoder = SpeculativeDecoder(
                model(target), model("draft"), gamma=g, max_new_tokens=n_tokens,
                random_state=seed,
            )  # fmt: skip
            curve = decoder.measure(prompts) if curve is None else curve
            found = decoder.compare(prompts, repeats=repeats)
            # Time of a step as measured; tokens of a step as expected, not as these prompts fell.
            usual = found.speedup * efficiency[g] / found.block_efficiency
            rows.append({"panel": panel, "gamma": g, "measured": float(usual),
                         "as_run": found.speedup,
                         "own_efficiency": found.block_efficiency})  # fmt: skip
        assert curve is not None
        for g in range(longest + 1):
            free = theory.speedup(efficiency[g] - 1, g, curve.c, 1.0)
            own = theory.speedup(efficiency[g] - 1, g, curve.c, float(curve.relative(g + 1)))
            for kind, value in zip(_KINDS, (free, own), strict=True):
                rows.append({"panel": panel, "gamma": g, "kind": kind, "predicted": float(value),
                             "efficiency": float(efficiency[g])})  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def draw_walltime(table: pl.DataFrame) -> Any:
    """One panel a batch size: two predictions as lines, measured speed-ups as dots."""
    series = Series("kind", title="Walltime model", order=_KINDS)
    x = alt.X("gamma:Q", title="Draft length (0: plain decoding)").axis(tickMinStep=1)
    y = alt.Y(title="Speed over plain decoding")
    panels = []
    for name in table["panel"].unique(maintain_order=True):
        part = table.filter(pl.col("panel") == name)
        lines = part.filter(pl.col("kind").is_not_null())
        panel: Any = theory_line(lines, x, "predicted", series=series, axis=y)
        panel += dots(part.filter(pl.col("measured").is_not_null()), x, "measured", axis=y)
        panel += reference(y=1.0, label="plain decoding")
        panels.append(panel.properties(width=290, height=260, title=name))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="decoding-walltime",
        topic="decoding",
        title="Walltime: the model against this machine",
        caption=(
            "Speed of speculative over plain decoding of the trained pair (block verification, "
            "temperature 1) against the draft length. Lines: BE(gamma) / (gamma c + t(gamma + 1) / "
            "t(1)) with the measured ratio c of draft and target steps, once as if verifying "
            "gamma + 1 tokens cost one step, once with the measured cost curve t. Dots: whole "
            "decoding loops, medians of interleaved runs, scaled to the block efficiency of the "
            "lines. Times belong to the machine that made this page, and to what else it was "
            "doing. (The quick profile has the middle model as target.)\n\n"
            "Notice that the textbook model promises more than a processor pays: wider steps cost "
            "more, a draft step costs a good part of a target step, and the loop has costs that no "
            "model counts. With targets this small every draft loses on two cores, for one row as "
            "for eight (on a busy machine the measured costs scatter, and the line with them). "
            "That is what gamma='auto' is for: it measures, and if need be leaves speculation off. "
            "The place of speculation are large targets whose steps wait for memory."
        ),
        source=(
            "Leviathan et al., arXiv 2211.17192, theorem 3.8 and figures on walltime; measured "
            "cost curve added"
        ),
        profiles={
            "quick": {
                "target": "middle", "batches": (1,), "gammas": (2,), "longest": 8,
                "n_tokens": 48, "repeats": 5, "n_contexts": 256, "seed": 2,
            },
            "paper": {
                "target": "target", "batches": (1, 8), "gammas": (1, 2, 3, 4, 6, 8), "longest": 8,
                "n_tokens": 80, "repeats": 9, "n_contexts": 4096, "seed": 2,
            },
        },
        compute=walltime_table,
        draw=draw_walltime,
        claims=("decoding/walltime-gain", "decoding/block-efficiency"),
    )
)  # fmt: skip
