"""How many tokens a step of lookahead decoding emits, in a model of independent guesses.

Fu, Bailis, Stoica and Zhang, ICML 2024, arXiv 2402.02057, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from privlearn.decoding.theory._arguments import check_count, check_range


def lookahead_tokens(a: ArrayLike, length: int, n_guesses: ArrayLike) -> np.ndarray:
    """Expected tokens of a step with b guesses: ``(g + 1) - sum_{i=1..g} (1 - a^i)^b``.

    Each guess has g tokens, matched one after another with probability a, guesses independent; the
    longest match wins and one more token is free.

    Parameters
    ----------
    a : float or array
        In [0, 1].
    length : int
        g, tokens of a guess.
    n_guesses : float or array
        b >= 0.

    Examples
    --------
    >>> float(lookahead_tokens(0.7, 4, 5).round(6))
    4.587269
    """
    g = check_count("length", length, 0)
    a, b = check_range("a", a, 0, 1), check_range("n_guesses", n_guesses, 0, np.inf)
    powers = np.asarray(a)[..., None] ** np.arange(1, g + 1)
    return g + 1 - ((1 - powers) ** np.asarray(b)[..., None]).sum(axis=-1)


def lookahead_compression(
    a: ArrayLike, length: int, window: ArrayLike, steps_per_guess: ArrayLike
) -> np.ndarray:
    """Tokens per step if a good speculation appears every f steps: ``(f - 1 + E[tokens]) / f``.

    With ``b = f W`` guesses. The form of the paper's scaling law as recalled, not re-measured.
    """
    f = check_range("steps_per_guess", steps_per_guess, 1, np.inf)
    w = check_range("window", window, 0, np.inf)
    return (f - 1 + lookahead_tokens(a, length, f * w)) / f


def lookahead_width(window: int, ngram: int, n_guesses: int) -> int:
    """Tokens that one step feeds to the target, ``(W + G) (N - 1)``, the pending one included.

    Examples
    --------
    >>> lookahead_width(15, 5, 15)
    120
    """
    w, n = check_count("window", window), check_count("ngram", ngram, 2)
    return (w + check_count("n_guesses", n_guesses, 0)) * (n - 1)
