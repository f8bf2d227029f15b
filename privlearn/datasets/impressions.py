"""Logs of what was shown to whom, and what came of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, find, typed

if TYPE_CHECKING:
    import pandas as pd

OPEN_BANDIT = Card(
    name="open_bandit",
    title="What a fashion shop showed, with which probability, and whether it was clicked",
    n_rows=60_000,
    target_name="click",
    source="Open Bandit Dataset (ZOZO), the sample that ships in obp",
    citation="Saito, Aihara, Matsutani and Narita (2021), NeurIPS Datasets and Benchmarks",
    licence="CC BY 4.0",
    package="obp",
    sensitive=("user_0", "user_1", "user_2", "user_3"),
    groups=("campaign", "policy", "item"),
)

_POLICIES = ("random", "bts")
_CAMPAIGNS = ("all", "men", "women")
_USER = ("user_0", "user_1", "user_2", "user_3")


@overload
def load_open_bandit(
    *, policy: Literal["both", "random", "bts"] = ..., return_X_y: Literal[False] = ...
) -> Dataset: ...
@overload
def load_open_bandit(
    *, policy: Literal["both", "random", "bts"] = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_open_bandit(*, policy="both", return_X_y=False):
    """Load a week of real impressions with their propensities: 24 to 30 November 2019.

    Three campaigns of a large fashion shop, each under two policies that choose the item: uniformly
    at random, and Bernoulli Thompson sampling. 10,000 impressions of each of the six logs ship in
    the package obp; here they are pooled and in order of time.

    Parameters
    ----------
    policy : {"both", "random", "bts"}, default="both"
        Whose impressions.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        60,000 rows (30,000 of one policy), 10 features. Of the rows of both, 287 were clicked.

    Raises
    ------
    ImportError
        If obp or pandas is missing. The file is read where obp is installed and nothing of obp is
        imported, so ``pip install --no-deps obp`` will do.
    ValueError
        If policy is none of the three.

    Notes
    -----
    Columns, one row an impression:

    - ``timestamp``: when, microseconds since 1970 (UTC).
    - ``campaign``: all, men or women: the items on offer (80, 34 or 46).
    - ``policy``: random or bts: who chose the item.
    - ``item``: campaign and number of the item.
    - ``position``: 1 to 3, left to right.
    - ``propensity``: probability with which the policy chose this item for this position.
    - ``click``: target: 1 or 0.
    - ``user_0``: a feature of the user, hashed by the publisher as the next three; one of 3
      (sensitive).
    - ``user_1``: one of 5 (sensitive).
    - ``user_2``: one of 9 (sensitive).
    - ``user_3``: one of 10 (sensitive).

    Source: Open Bandit Dataset (ZOZO), the sample that ships in obp.
    Citation: Saito, Aihara, Matsutani and Narita (2021), NeurIPS Datasets and Benchmarks.
    Licence: CC BY 4.0.

    Examples
    --------
    >>> log = load_open_bandit().frame
    >>> len(log), int(log["click"].sum()), bool(log["timestamp"].is_monotonic_increasing)
    (60000, 287, True)
    """
    if policy not in ("both", *_POLICIES):
        raise ValueError(f'policy must be "both", "random" or "bts", got {policy!r}')
    if importlib.util.find_spec("obp") is None:
        raise ImportError(
            "load_open_bandit needs pandas and obp, which carries the data; its code is not used, "
            "so leave out what it depends on: pip install --no-deps obp",
            name="obp",
        )
    policies = _POLICIES if policy == "both" else (policy,)
    logs = [(who, what) for who in policies for what in _CAMPAIGNS]
    files = find(OPEN_BANDIT, *(f"dataset/obd/{who}/{what}/{what}.csv" for who, what in logs))
    import pandas as pd

    raw = ["timestamp", "item_id", "position", "click", "propensity_score"]
    raw += [f"user_feature_{i}" for i in range(4)]
    parts = []
    for (who, what), file in zip(logs, files, strict=True):
        part = pd.read_csv(file, usecols=raw)
        item = what + "-" + part["item_id"].astype(str)
        parts.append(part.assign(policy=who, campaign=what, item=item))
    frame = pd.concat(parts, ignore_index=True)
    # `as_unit` so that pandas 2 (nanoseconds) and 3 (microseconds) agree.
    moments = pd.to_datetime(frame["timestamp"], utc=True, format="ISO8601").dt.as_unit("us")
    frame["timestamp"] = moments.astype("int64")
    frame = frame.sort_values("timestamp", kind="stable")
    names = {f"user_feature_{i}": f"user_{i}" for i in range(4)}
    frame = frame.rename(columns=names | {"propensity_score": "propensity"})
    columns = ("timestamp", "campaign", "policy", "item", "position", "propensity", "click", *_USER)
    labels = ("campaign", "policy", "item", *_USER)
    frame = typed(
        frame[list(columns)],
        integers=("timestamp", "position", "click"),
        categories=labels,
    )
    dataset = Dataset(
        OPEN_BANDIT,
        frame,
        tuple(name for name in columns if name != "click"),
        "click",
        describe(load_open_bandit),
        files,
    )
    return (dataset.data, dataset.target) if return_X_y else dataset
