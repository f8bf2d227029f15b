"""Which data sets there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privlearn.datasets import classics, earnings, experiments, histories, impressions, streams
from privlearn.datasets.dataset import Card

if TYPE_CHECKING:
    import polars as pl

#: Every data set that ships now, in the order of the index.
CARDS: tuple[Card, ...] = (
    classics.BOSTON,
    classics.DIABETES,
    classics.BREAST_CANCER,
    classics.WINE,
    earnings.CPS_WAGES,
    earnings.CENSUS_INCOME,
    earnings.GSS_WAGES,
    earnings.ELECTION_SURVEY,
    experiments.THORNTON_HIV,
    experiments.STAR,
    histories.MOVIELENS,
    streams.FLIGHTS,
    impressions.OPEN_BANDIT,
)


def list_datasets() -> pl.DataFrame:
    """List the data sets; nothing is loaded, and nothing but polars need be installed.

    Returns
    -------
    polars.DataFrame
        One row a data set: ``loader`` (name of the function), ``title``, ``rows``, ``target``,
        ``sensitive`` and ``groups`` (columns), ``package``, ``licence``, ``installed``.

    Examples
    --------
    >>> import polars as pl
    >>> list_datasets().filter(pl.col("sensitive").list.contains("race"))["loader"].to_list()
    ['load_census_income']
    """
    import polars as pl

    return pl.DataFrame(
        [
            {
                "loader": f"load_{card.name}",
                "title": card.title,
                "rows": card.n_rows,
                "target": card.target_name,
                "sensitive": list(card.sensitive),
                "groups": list(card.groups),
                "package": card.package,
                "licence": card.licence,
                "installed": card.installed,
            }
            for card in CARDS
        ],
        schema_overrides={"sensitive": pl.List(pl.String), "groups": pl.List(pl.String)},
    )
