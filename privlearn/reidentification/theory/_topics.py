"""Constants and weights of the Topics model: one topic a week and site, sometimes a random one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import real, whole


class TopicProbabilities(NamedTuple):
    """Chance that one given topic is shown in a week.

    Attributes
    ----------
    inside, outside : float
        For a topic in the user's top set, and for any other.
    """

    inside: float
    outside: float


def topic_probabilities(
    n_topics: int = 349, top_k: int = 5, noise: float = 0.05
) -> TopicProbabilities:
    """q_in = (1 - p) / k + p / m and q_out = p / m: the random topic may be one of the top set.

    Parameters
    ----------
    n_topics : int, default=349
        m, topics in the taxonomy (349 in its first version, 469 in its second).
    top_k : int, default=5
        k, topics in a user's top set of a week.
    noise : float, default=0.05
        p, the chance that the topic is drawn from the whole taxonomy.

    Examples
    --------
    >>> inside, outside = topic_probabilities()
    >>> round(inside, 6), round(outside, 9)
    (0.190143, 0.000143266)
    """
    m, k = whole("n_topics", n_topics, 1), whole("top_k", top_k, 1)
    p = real("noise", noise, 0.0, 1.0)
    if k > m:
        raise ValueError(f"top_k must be at most n_topics = {m}, got {k}")
    return TopicProbabilities((1 - p) / k + p / m, p / m)


def topics_epsilon(
    n_topics: int = 349, top_k: int = 5, noise: float = 0.05, n_weeks: int = 1
) -> float:
    """Local epsilon of a site's view after some weeks: T log(q_in / q_out).

    Examples
    --------
    >>> round(topics_epsilon(), 4), round(topics_epsilon(469), 4)
    (7.1908, 7.4862)
    """
    inside, outside = topic_probabilities(n_topics, top_k, noise)
    weeks = whole("n_weeks", n_weeks, 0)
    if outside == 0 and top_k < n_topics and weeks > 0:
        return math.inf
    # Where the top set is the whole taxonomy nothing depends on the user.
    return weeks * math.log(inside / outside) if top_k < n_topics and weeks > 0 else 0.0


def topics_capacity(n_topics: int = 349, top_k: int = 5, noise: float = 0.05) -> float:
    """Bayes capacity of a week: m q_in = m (1 - p) / k + p.

    Examples
    --------
    >>> round(topics_capacity(), 2), round(topics_capacity(469), 2)
    (66.36, 89.16)
    """
    return n_topics * topic_probabilities(n_topics, top_k, noise).inside


def capacity_bound(
    n_users: int,
    n_weeks: int,
    n_topics: int = 349,
    top_k: int = 5,
    noise: float = 0.05,
) -> float:
    """S <= min(1, capacity^T / n), whatever else the attacker knows about the users.

    Examples
    --------
    >>> round(capacity_bound(10_000_000, 3), 4)
    0.0292
    """
    n, weeks = whole("n_users", n_users, 1), whole("n_weeks", n_weeks, 0)
    log_bound = weeks * math.log(topics_capacity(n_topics, top_k, noise)) - math.log(n)
    return min(1.0, math.exp(min(log_bound, 0.0)))


def same_topic_probability(n_topics: int = 349, top_k: int = 5, noise: float = 0.05) -> float:
    """Chance that two sites see the same topic of a user in a week: k q_in^2 + (m - k) q_out^2.

    Examples
    --------
    >>> round(same_topic_probability(), 6)
    0.180779
    """
    inside, outside = topic_probabilities(n_topics, top_k, noise)
    return top_k * inside**2 + (n_topics - top_k) * outside**2


def inclusion_from_frequency(
    frequency: ArrayLike,
    n_topics: int = 349,
    top_k: int = 5,
    noise: float = 0.05,
    floor: float = 1e-6,
) -> np.ndarray:
    """Chance that a topic is in a random top set, from how often it is shown.

    (frequency - q_out) / (q_in - q_out), clipped to [floor, 1]: an unseen topic would give a
    negative value, and the weights take its logarithm.

    Parameters
    ----------
    frequency : array-like
        Share of (user, week) pairs in which the first site saw the topic.
    n_topics, top_k, noise
        As in `topic_probabilities`.
    floor : float, default=1e-6
        Least value.

    Examples
    --------
    >>> inclusion_from_frequency([0.0, 0.190143266]).round(4)
    array([0., 1.])
    """
    inside, outside = topic_probabilities(n_topics, top_k, noise)
    raw = np.asarray(frequency, dtype=float)
    if inside == outside:
        return np.full(raw.shape, min(1.0, top_k / n_topics))
    return np.clip((raw - outside) / (inside - outside), floor, 1.0)


def asymmetric_weights(
    inclusion: ArrayLike, n_topics: int = 349, top_k: int = 5, noise: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Costs of a match and of a mismatch in a week, by the topic of the query.

    -log of the chance that the same user's other site shows the same topic, and -log of the
    chance that it shows one given other topic, with one common inclusion for all topics as a
    simplification. Smaller is more similar.

    Parameters
    ----------
    inclusion : array-like of shape (m,)
        Chance that each topic is in a random top set.
    n_topics, top_k, noise
        As in `topic_probabilities`.

    Returns
    -------
    (match, mismatch) : arrays of shape (m,)

    Notes
    -----
    The asymmetric weighted Hamming distance of Carey et al. 2023, as in the authors' public code.
    """
    inside, outside = topic_probabilities(n_topics, top_k, noise)
    share, gain = np.asarray(inclusion, dtype=float), inside - outside
    rho = inside * share / (outside + gain * share)
    with np.errstate(divide="ignore"):
        match = -np.log(outside + gain * rho)
        mismatch = -np.log(outside + gain * (top_k - 1) * share / np.maximum(top_k - share, 1e-12))
    return match, mismatch


def likelihood_weights(
    inclusion: ArrayLike, n_topics: int = 349, top_k: int = 5, noise: float = 0.05
) -> np.ndarray:
    """Log likelihood ratio of a week, for every topic of the query (rows) and of the target.

    log P(y | x, same user) / P(y). The other topics of a top set that contains x are taken to be
    as frequent as their inclusions say (derived here): best for independent weeks if that holds.

    Parameters
    ----------
    inclusion : array-like of shape (m,)
        Chance that each topic is in a random top set.
    n_topics, top_k, noise
        As in `topic_probabilities`.

    Returns
    -------
    ndarray of shape (m, m)
    """
    inside, outside = topic_probabilities(n_topics, top_k, noise)
    share, gain = np.asarray(inclusion, dtype=float), inside - outside
    shown = outside + gain * share
    rho = inside * share / shown
    rest = (top_k - rho) / np.maximum(top_k - share, 1e-12)
    with np.errstate(divide="ignore"):
        table = np.log(outside + gain * rest[:, None] * share[None, :]) - np.log(shown)
        np.fill_diagonal(table, np.log(outside + gain * rho) - np.log(shown))
    return table
