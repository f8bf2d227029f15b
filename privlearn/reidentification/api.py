"""What a browser shows to a site: the Topics model, with the details that the paper leaves out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from privlearn.reidentification import theory

__all__ = ["Law", "TopicsApi"]


class Law(NamedTuple):
    """Numbers of the release that scores depend on; may be traced.

    Attributes
    ----------
    inside, outside : float
        Chance that one given topic is shown: of the top set, and any other.
    top_k : int
        Size of a top set.
    """

    inside: Any
    outside: Any
    top_k: Any


@dataclass(frozen=True)
class TopicsApi:
    """The Topics model: each site gets one topic a week of each user, fixed for user, week, site.

    With probability ``noise`` the topic is drawn from the whole taxonomy, else from the user's
    ``top_k`` topics of that week. The defaults are those of the paper's model; the flags below the
    line add what the real interface does.

    Parameters
    ----------
    n_topics : int, default=349
        Topics in the taxonomy: 349 in its first version, 469 in its second.
    top_k : int, default=5
        Size of a weekly top set.
    noise : float, default=0.05
        Chance of a uniformly random topic, which may be one of the top set.
    padding : bool, default=True
        Fill up top sets of fewer than ``top_k`` topics with distinct random ones. Without it, a
        draw of an empty place shows nothing (-1).
    topics_per_call : int, default=1
        How many past weeks one call shows, at most 3. A site that calls in each of T weeks then
        sees T + topics_per_call - 1 weeks; those of its first call come in random order, with
        repeats left out.
    reach : float, optional
        Share of a user's page visits on which the calling site is present. If given, topics are
        filtered by caller: a topic of the top set is shown only if the caller was present at a
        visit to it in the last 3 weeks. The random topic is not filtered. No filter if not given.
    shared_weeks : bool, default=True
        Weeks start on the same day for all. If False, each user and site has its own start, drawn
        uniformly from 7 days, as browsers do.

    Notes
    -----
    The per-caller filter and the call of three weeks follow public descriptions of the interface;
    the model is Carey et al. 2023, arXiv 2304.07210.

    Examples
    --------
    >>> api = TopicsApi()
    >>> round(api.inside, 6), round(api.epsilon(n_weeks=1), 4)
    (0.190143, 7.1908)
    """

    n_topics: int = 349
    top_k: int = 5
    noise: float = 0.05
    padding: bool = True
    topics_per_call: int = 1
    reach: float | None = None
    shared_weeks: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that the model has no meaning for."""
        theory.topic_probabilities(self.n_topics, self.top_k, self.noise)
        if self.topics_per_call not in (1, 2, 3):
            raise ValueError(f"topics_per_call must be 1, 2 or 3, got {self.topics_per_call!r}")
        if self.reach is not None and not (
            isinstance(self.reach, (int, float))
            and 0 < self.reach <= 1
            and math.isfinite(self.reach)
        ):
            raise ValueError(f"reach must lie in (0, 1], or be None, got {self.reach!r}")
        for flag in ("padding", "shared_weeks"):
            if not isinstance(getattr(self, flag), bool):
                raise TypeError(f"{flag} must be True or False, got {getattr(self, flag)!r}")

    @property
    def inside(self) -> float:
        """Chance q_in that one given topic of the top set is shown."""
        return theory.topic_probabilities(self.n_topics, self.top_k, self.noise).inside

    @property
    def outside(self) -> float:
        """Chance q_out that one given other topic is shown."""
        return theory.topic_probabilities(self.n_topics, self.top_k, self.noise).outside

    @property
    def law(self) -> Law:
        """The numbers that scores depend on."""
        return Law(self.inside, self.outside, self.top_k)

    def epsilon(self, n_weeks: int) -> float:
        """Local epsilon of a site's view after some weeks."""
        return theory.topics_epsilon(self.n_topics, self.top_k, self.noise, n_weeks)

    def capacity_bound(self, n_users: int, n_weeks: int) -> float:
        """Success that no attacker exceeds, whatever else they know: capacity^T / n, at most 1.

        Where a site can be shown nothing (a caller filter, no padding), that counts as one more
        outcome of a week; its chance may be anything, which adds 1 to the capacity.
        """
        if n_weeks == 0:
            return 1 / n_users
        weekly = theory.topics_capacity(self.n_topics, self.top_k, self.noise)
        weekly += self.reach is not None or not self.padding
        weeks = n_weeks + self.topics_per_call - 1
        return min(1.0, math.exp(min(0.0, weeks * math.log(weekly) - math.log(n_users))))
