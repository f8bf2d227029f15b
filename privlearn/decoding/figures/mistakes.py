"""Verifiers as people write them, right and with the mistakes that were made.

Each is a function for ``check_lossless(..., randomness="coins")``: coins, drafted tokens, laws of
the draft and of the target in, emitted tokens out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from privlearn.decoding.theory import kseq as best_factor


def _pick(coins: Any, weights: np.ndarray) -> int:
    return int(coins.choice(len(weights), p=weights / weights.sum()))


def token(coins: Any, tokens: Any, q: np.ndarray, p: np.ndarray, mistake: str = "") -> list[int]:
    """Token verification (Leviathan et al., 2023, arXiv 2211.17192)."""
    for i, x in enumerate(tokens):
        if coins.random() > p[i, x] / q[i, x]:
            rest = p[i] if mistake == "after a rejection" else np.maximum(p[i] - q[i], 0)
            return [*tokens[:i], _pick(coins, rest)]
    return [*tokens, _pick(coins, p[-2] if mistake == "bonus" else p[-1])]


def block(coins: Any, tokens: Any, q: np.ndarray, p: np.ndarray, mistake: str = "") -> list[int]:
    """Block verification (Sun et al., 2025, arXiv 2403.10444)."""
    joint, going, tau, scale = 1.0, True, 0, 1.0
    for i, x in enumerate(tokens):
        joint = min(joint * p[i, x] / q[i, x], 1.0)
        chance = joint
        if i + 1 < len(tokens):
            above = np.maximum(joint * p[i + 1] - q[i + 1], 0).sum()
            chance = above / (above + 1 - joint) if above + 1 - joint > 0 else 1.0
        yes = coins.random() < chance
        going = going and (yes or mistake != "break")
        if yes and going:
            tau, scale = i + 1, joint
    if tau == len(tokens):
        return [*tokens, _pick(coins, p[-1])]
    rest = np.maximum((1 if mistake == "old residual" else scale) * p[tau] - q[tau], 0)
    return [*tokens[:tau], _pick(coins, rest if rest.sum() > 0 else p[tau])]


def longest(coins: Any, tokens: np.ndarray, q: np.ndarray, p: np.ndarray) -> list[int]:
    """K drafts, each verified alone, the longest kept."""
    return max((token(coins, *chain) for chain in zip(tokens, q, p, strict=True)), key=len)


def kseq_one(coins: Any, tokens: np.ndarray, q: np.ndarray, p: np.ndarray) -> list[int]:
    """K-SEQ on one position with rho = 1 and the negative part of its residual cut off."""
    law, draft = p[0, 0], q[0, 0]
    for x in tokens[:, 0]:
        if coins.random() < law[x] / draft[x]:
            return [int(x)]
    beta = best_factor(law, draft, 1).beta
    share = (1 - (1 - beta) ** len(tokens)) / beta if beta > 0 else 0.0
    rest = np.maximum(law - np.minimum(draft, law) * share, 0)
    return [_pick(coins, rest if rest.sum() > 0 else law)]


def _with(verifier: Callable[..., list[int]], mistake: str) -> Callable[..., list[int]]:
    def wrong(coins: Any, tokens: Any, q: np.ndarray, p: np.ndarray) -> list[int]:
        return verifier(coins, tokens, q, p, mistake)

    return wrong


#: What is wrong -> (verifier, drafts K, length gamma).
MISTAKES: dict[str, tuple[Callable[..., list[int]], int, int]] = {
    "token: resample p after rejection": (_with(token, "after a rejection"), 1, 2),
    "token: bonus one position early": (_with(token, "bonus"), 1, 2),
    "block: stop at first failed coin": (_with(block, "break"), 1, 2),
    "block: residual of token": (_with(block, "old residual"), 1, 2),
    "K drafts: keep the longest": (longest, 2, 1),
    "K-SEQ: rho = 1, residual clipped": (kseq_one, 2, 1),
}
