"""What is exact: certificates, acceptance of several drafts, lenience, temperature."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from privlearn.decoding import theory
from privlearn.decoding.certificate import check_lossless
from privlearn.decoding.figures.contexts import mean_of, next_logits, softmax
from privlearn.decoding.figures.mistakes import MISTAKES
from privlearn.decoding.verifiers import VERIFIERS, verifier
from privlearn.decoding.verifiers.chain import ChainVerifier
from privlearn.figures import Figure, register
from privlearn.figures.marks import (
    Series,
    dots,
    error_bars,
    pick_in_legend,
    reference,
    theory_line,
    tooltips,
)

# ---------------------------------------------------------------------------------- certificate

_KINDS = ("lossless", "lossy on purpose", "mistake")
_LOSSY: dict[str, dict[str, float]] = {"lenient": {"eps": 0.5}, "ensemble": {"weight": 0.5}}
#: Where an error of exactly 0 is drawn.
_FLOOR = 1e-17


def certificate_table(*, gamma: int, vocabulary: int, worlds_seed: int) -> pl.DataFrame:
    """Largest error of the emitted law, of every verifier of the package and of known mistakes."""
    rows = []
    for name in VERIFIERS:
        rule = verifier(name, **_LOSSY.get(name, {}))
        # Two chains of three tokens would take tens of gigabytes.
        depth = 1 if name == "optimal" else gamma if isinstance(rule, ChainVerifier) else 2
        found = check_lossless(rule, gamma=depth, vocabulary=vocabulary, random_state=worlds_seed)
        rows.append((name, _KINDS[0 if rule.lossless else 1], found))
    for name, (wrong, n_drafts, depth) in MISTAKES.items():
        found = check_lossless(
            wrong, n_drafts=n_drafts, gamma=depth, vocabulary=vocabulary,
            random_state=worlds_seed,
        )  # fmt: skip
        rows.append((name, _KINDS[2], found))
    return pl.DataFrame(
        [
            {
                "verifier": name,
                "kind": kind,
                "error": found.largest_error,
                "drawn_at": max(found.largest_error, _FLOOR),
                "verdict": "lossless" if found.lossless else "not lossless",
                "drafts": found.n_drafts,
            }
            for name, kind, found in rows
        ]
    )


def draw_certificate(table: pl.DataFrame) -> Any:
    """One row a verifier, its error on a logarithmic axis."""
    series = Series("kind", title="Verifier", order=_KINDS)
    order = table["verifier"].to_list()
    y = alt.Y("verifier:N", sort=order, title=None, axis=alt.Axis(labelLimit=240))
    x = alt.X(
        "drawn_at:Q",
        title="Largest error of a probability (log)",
        scale=alt.Scale(type="log", domain=[_FLOOR, 1]),
        axis=alt.Axis(format=".0e", values=[1e-16, 1e-12, 1e-8, 1e-4, 1]),
    )
    base = alt.Chart(table)
    look = {"color": series.color(table), "opacity": series.opacity()}
    left = alt.X2Datum(_FLOOR)
    stems = base.mark_rule(tooltip=None).encode(x=x, x2=left, y=y, **look)
    ends = base.mark_point().encode(
        x=x, y=y, shape=series.shape(table), tooltip=tooltips(table), **look
    )
    chart = stems + ends + reference(x=1e-12)
    return pick_in_legend(chart.properties(width=420, height=19 * len(order)), series)


register(
    Figure(
        name="decoding-certificate",
        topic="decoding",
        title="Is the rejection sampler right? Errors by enumeration",
        caption=(
            "For each verifier, the largest difference between the probability of a text that "
            "speculative decoding emits and its probability under the target, over all texts in "
            "seven small worlds (zeros in the supports, one-hot laws, equal and disjoint models "
            "among them). One draft of two tokens (three in the paper profile), two drafts of two "
            "for the rules that take several, of one for the linear program. All drafts are "
            "enumerated and all coins integrated: there is no sampling "
            "error. Dashed: above this an error counts as wrong.\n\n"
            "Notice the gap of more than ten orders of magnitude: what is lossless is exact to "
            "rounding, and no known mistake hides. The last six are the mistakes that people make: "
            "some change no probability by more than a few hundredths, which a look at generated "
            "text would never show. Lenience and the ensemble (both at 0.5) are lossy on purpose."
        ),
        source=(
            "Leviathan et al., arXiv 2211.17192; Sun et al., arXiv 2310.15141 and 2403.10444; "
            "Hu et al., arXiv 2502.18779; the certificate is an addition"
        ),
        profiles={
            "quick": {"gamma": 2, "vocabulary": 3, "worlds_seed": 0},
            "paper": {"gamma": 3, "vocabulary": 3, "worlds_seed": 0},
        },
        compute=certificate_table,
        draw=draw_certificate,
        claims=("decoding/lossless-*",),
    )
)

# ------------------------------------------------------------------------------- several drafts

_RULES = ("optimum (i.i.d. drafts)", "K-SEQ", "recursive rejection", "the same, no replacement",
          "greedy drafts")  # fmt: skip


def without_replacement(
    p: np.ndarray, q: np.ndarray, n_drafts: int, rng: np.random.Generator
) -> np.ndarray:
    """Acceptance of recursive rejection without replacement given drawn candidates, (n, K).

    The sum over candidate tuples is exponential in K; here k - 1 candidates are drawn for each
    context, the coins and the last candidate are integrated: entry k - 1 is unbiased for k.
    """
    n, at = len(p), np.arange(len(p))
    accepted, refused = np.zeros((n, n_drafts)), np.ones(n)
    for k in range(n_drafts):
        accepted[:, k] = 1 - refused * (1 - np.minimum(p, q).sum(axis=1))
        cumulated = np.cumsum(q, axis=1)
        chance = rng.random(n) * cumulated[:, -1]
        x = np.minimum((cumulated <= chance[:, None]).sum(axis=1), q.shape[1] - 1)
        refused = refused * (1 - np.minimum(p[at, x] / q[at, x], 1))
        rest = np.maximum(p - q, 0)
        mass = rest.sum(axis=1, keepdims=True)
        p = np.where(mass > 0, rest / np.where(mass > 0, mass, 1), p)
        q = q.copy()
        q[at, x] = 0
        q /= q.sum(axis=1, keepdims=True)
    return accepted


def drafts_table(
    *, n_contexts: int, n_drafts: tuple[int, ...], n_draws: int, seed: int
) -> pl.DataFrame:
    """Mean acceptance over held-out contexts of the trained pair, for every rule and K."""
    p, q = (softmax(next_logits(size, n_contexts, seed)) for size in ("target", "draft"))
    pairs = list(zip(p, q, strict=True))
    rng = np.random.default_rng(seed)
    drawn = np.mean([without_replacement(p, q, max(n_drafts), rng) for _ in range(n_draws)], axis=0)
    rows = []
    for k in n_drafts:
        best = np.array([theory.optimal_acceptance(*pair, k) for pair in pairs])
        found = {
            _RULES[0]: best,
            _RULES[1]: np.array([theory.kseq(*pair, k).acceptance for pair in pairs]),
            _RULES[2]: np.array([theory.rrs_acceptance(*pair, k) for pair in pairs]),
            _RULES[3]: drawn[:, k - 1],
            _RULES[4]: np.array([theory.greedy_drafts_acceptance(*pair, k) for pair in pairs]),
        }
        for rule, values in found.items():
            mean, gap = mean_of(values), mean_of(best - values)
            rows.append(
                {
                    "rule": rule,
                    "k": k,
                    "acceptance": mean.mean,
                    "stderr": mean.stderr,
                    "below_optimum": gap.mean,
                    "below_optimum_se": gap.stderr,
                    "guarantee": float(best.mean() * (1 - np.exp(-1))),
                }
            )
    return pl.DataFrame(rows)


def draw_drafts(table: pl.DataFrame) -> Any:
    """Acceptance on the left, the distance from the optimum of i.i.d. drafts on the right."""
    series = Series("rule", title="Rule", order=_RULES)
    x = alt.X("k:Q", title="Drafts K", scale=alt.Scale(type="log", base=2),
              axis=alt.Axis(values=sorted(set(table["k"]))))  # fmt: skip
    left = alt.Y(title="Acceptance", scale=alt.Scale(zero=False))
    accepted: Any = theory_line(table, x, "acceptance", series=series, axis=left)
    accepted += error_bars(table, x, "acceptance", stderr="stderr", series=series, axis=left)
    accepted += dots(table, x, "acceptance", series=series, axis=left)
    first = table.filter(pl.col("rule") == _RULES[0])
    accepted += theory_line(first, x, "guarantee", axis=left, dash=(4, 4))
    right = alt.Y(title="Optimum of i.i.d. drafts less acceptance")
    others = table.filter(pl.col("rule") != _RULES[0])
    gaps: Any = theory_line(others, x, "below_optimum", series=series, axis=right)
    gaps += error_bars(
        others, x, "below_optimum", stderr="below_optimum_se", series=series, axis=right
    )
    gaps += dots(others, x, "below_optimum", series=series, axis=right)
    size = {"width": 300, "height": 280}
    return pick_in_legend(alt.hconcat(accepted.properties(**size), gaps.properties(**size)), series)


register(
    Figure(
        name="decoding-drafts",
        topic="decoding",
        title="Several drafts: how often one of K candidates is the next token",
        caption=(
            "Acceptance in held-out contexts of the trained pair (1.3 million against 0.08 million "
            "weights, 512 tokens, temperature 1), against the number of candidates K. Given a "
            "context, all rules but one are exact; recursive rejection without replacement "
            "averages over drawn candidates. Bars are two standard errors over contexts. The "
            "dashed line is (1 - 1/e) of the optimum, which K-SEQ is guaranteed. Right: distance "
            "from the optimum for independent drafts, on the same contexts, so errors are paired."
            "\n\nNotice that the second candidate buys most; that K-SEQ stays above recursive "
            "rejection and far above its guarantee; that candidates which differ (without "
            "replacement, greedy) win no more than a better rule does; and that every rule leaves "
            "3 to 8 points of acceptance to an optimum that nobody can sample from quickly at a "
            "real vocabulary."
        ),
        source=(
            "Sun et al., SpecTr, arXiv 2310.15141, acceptance experiments; rules of arXiv "
            "2305.09781, 2402.12374 and 2502.18779; optimum derived here"
        ),
        profiles={
            "quick": {"n_contexts": 256, "n_drafts": (1, 2, 4, 8), "n_draws": 8, "seed": 1},
            "paper": {
                "n_contexts": 4096,
                "n_drafts": (1, 2, 3, 4, 6, 8, 12, 16),
                "n_draws": 16,
                "seed": 1,
            },
        },
        compute=drafts_table,
        draw=draw_drafts,
        claims=("decoding/acceptance-*", "decoding/optimum-closed-form", "decoding/kseq-guarantee"),
    )
)

# ------------------------------------------------------------------------------------- lenience

_LENIENCES = ("linear", "squared", "exponential", "ensemble")


def _lenient_laws(p: np.ndarray, q: np.ndarray, rule: str, eps: float):
    """Acceptance (n,) and output law (n, V) of one lenient step; as `theory.lenience_law`."""
    if rule == "ensemble":
        law = eps * p + (1 - eps) * q
        return np.minimum(law, q).sum(axis=1), law
    scaled = {"linear": p / eps, "squared": p / eps**2, "exponential": p**eps}[rule]
    kept = np.minimum(q, scaled)
    rest = np.maximum(p - q, 0)
    mass = rest.sum(axis=1, keepdims=True)
    rest = np.where(mass > 0, rest / np.where(mass > 0, mass, 1), p)
    accepted = kept.sum(axis=1)
    return accepted, kept + (1 - accepted)[:, None] * rest


def lenience_table(*, n_contexts: int, eps: tuple[float, ...], seed: int) -> pl.DataFrame:
    """Acceptance against distance from the target, for every lenience and eps."""
    p, q = (softmax(next_logits(size, n_contexts, seed)) for size in ("target", "draft"))
    rows = []
    for rule in _LENIENCES:
        for e in eps:
            accepted, law = _lenient_laws(p, q, rule, e)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(law > 0, law / p, 0)
                nats = np.where(law > 0, law * np.log(ratio), 0).sum(axis=1)
            rows.append(
                {
                    "rule": rule,
                    "eps": e,
                    "acceptance": accepted.mean(),
                    "acceptance_se": mean_of(accepted).stderr,
                    "distance": mean_of(0.5 * np.abs(law - p).sum(axis=1)).mean,
                    "kl": max(mean_of(nats).mean, 0.0),
                    "largest_ratio": mean_of(ratio.max(axis=1)).mean,
                }
            )
    return pl.DataFrame(rows)


def draw_lenience(table: pl.DataFrame) -> Any:
    """Acceptance against total variation, KL divergence and the most favoured token."""
    series = Series("rule", title="Lenience", order=_LENIENCES)
    y = alt.Y(title="Acceptance", scale=alt.Scale(zero=False))
    panels = []
    for column, title, scale in (
        ("distance", "Total variation from the target", alt.Scale(zero=True)),
        ("kl", "KL(output | target), nats a token", alt.Scale(zero=True)),
        ("largest_ratio", "Largest output / target (log)", alt.Scale(type="log")),
    ):
        axis = (
            alt.Axis(values=[1, 10, 100, 1000, 10_000]) if column == "largest_ratio" else alt.Axis()
        )
        x = alt.X(f"{column}:Q", title=title, scale=scale, axis=axis)
        panel: Any = theory_line(table, x, "acceptance", series=series, axis=y)
        panel += dots(table, x, "acceptance", series=series, axis=y)
        panels.append(panel.properties(width=215, height=260))
    return pick_in_legend(alt.hconcat(*panels), series)


register(
    Figure(
        name="decoding-lenience",
        topic="decoding",
        title="Lenience: what a lossy verifier pays for acceptance",
        caption=(
            "Acceptance of lenient verification against what it does to the law of the emitted "
            "token, averaged over held-out contexts of the trained pair; each dot is one eps "
            "(1, at the left, is lossless). Exact in each context; the contexts move all curves "
            "together, by less than 0.02.\n\n"
            "Notice on the left that every rule lies on one line of slope 1: a point of acceptance "
            "costs exactly a point of total variation, whatever the function, so that distance "
            "cannot choose between them. (Where q exceeds p these rules only add mass to p, and "
            "they take it from where p exceeds q.) The other panels can: the linear form, which "
            "never emits a token with more than p / eps, has the smallest divergence and by far "
            "the smallest largest ratio at every acceptance; the squared form is the linear one at "
            "eps squared; the exponential form and the ensemble emit some tokens a thousand times "
            "too often. Distilling the draft raises acceptance without leaving the target."
        ),
        source=(
            "Leviathan et al., arXiv 2211.17192, appendix A.5; Zhou et al., DistillSpec, arXiv "
            "2310.08461, lenience curves; output laws derived here"
        ),
        profiles={
            "quick": {
                "n_contexts": 256,
                "eps": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05),
                "seed": 1,
            },
            "paper": {
                "n_contexts": 4096,
                "eps": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02),
                "seed": 1,
            },
        },
        compute=lenience_table,
        draw=draw_lenience,
        claims=("decoding/lenience-law", "decoding/ensemble-law"),
    )
)

# ---------------------------------------------------------------------------------- temperature

_DRAFTS = ("draft, docs", "draft, code", "middle, docs", "middle, code")


def temperature_table(
    *, n_contexts: int, temperatures: tuple[float, ...], seed: int
) -> pl.DataFrame:
    """Acceptance of two drafts in two domains against the temperature of both laws."""
    rows = []
    for label in _DRAFTS:
        size, domain = label.split(", ")
        target, draft = (next_logits(s, n_contexts, seed, domain) for s in ("target", size))
        for temperature in temperatures:
            p, q = softmax(target, temperature), softmax(draft, temperature)
            found = mean_of(np.minimum(p, q).sum(axis=1))
            sampled = mean_of((p * q).sum(axis=1))
            rows.append(
                {
                    "draft": label,
                    "temperature": temperature,
                    "acceptance": found.mean,
                    "stderr": found.stderr,
                    "match": sampled.mean,
                }
            )
    return pl.DataFrame(rows)


def draw_temperature(table: pl.DataFrame) -> Any:
    """Acceptance with error bars; dashed: what matching samples would accept."""
    series = Series("draft", title="Draft, domain", order=_DRAFTS)
    x = alt.X("temperature:Q", title="Temperature of both models")
    y = alt.Y(title="Acceptance", scale=alt.Scale(domain=[0, 1]))
    chart: Any = theory_line(table, x, "acceptance", series=series, axis=y)
    chart += error_bars(table, x, "acceptance", stderr="stderr", series=series, axis=y)
    chart += dots(table, x, "acceptance", series=series, axis=y)
    chart += theory_line(table, x, "match", series=series, axis=y, dash=(3, 3))
    return pick_in_legend(chart.properties(width=520, height=300), series)


register(
    Figure(
        name="decoding-temperature",
        topic="decoding",
        title="Acceptance against temperature",
        caption=(
            "Mean of the sum of min(p, q) over held-out contexts, for the two smaller models of "
            "the family as drafts of the largest, in English reference text and in Python code, "
            "both laws at the same temperature (0: greedy). Exact in each context, bars are two "
            "standard errors over contexts. Dashed: the sum of p q, what a server accepts that "
            "samples from the target and keeps the draft as long as it agrees.\n\n"
            "Notice that for this family acceptance rises slowly with temperature, by up to 0.1 "
            "from greedy to 1, while matching samples loses more than half of it: at temperature 1 "
            "the rule matters more than the draft does. A larger draft gains about 0.1 everywhere; "
            "whether that pays depends on its cost."
        ),
        source="Leviathan et al., arXiv 2211.17192, section 4 (acceptance of drafts)",
        profiles={
            "quick": {
                "n_contexts": 256, "temperatures": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5),
                "seed": 1,
            },
            "paper": {
                "n_contexts": 4096,
                "temperatures": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5),
                "seed": 1,
            },
        },
        compute=temperature_table,
        draw=draw_temperature,
        claims=("decoding/token-tau",),
    )
)  # fmt: skip
