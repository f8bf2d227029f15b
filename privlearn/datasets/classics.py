"""Small textbook tables, as raw as their packages have them: numbers only, nothing missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from privlearn.datasets.dataset import Card, Dataset, describe, find, typed

if TYPE_CHECKING:
    import pandas as pd

BOSTON = Card(
    name="boston",
    title="Home values in 506 census tracts of Boston, 1970",
    n_rows=506,
    target_name="MEDV",
    source="US census of 1970 and local records, compiled by Harrison and Rubinfeld",
    citation="Harrison and Rubinfeld (1978), J. Environ. Econ. Manage. 5, 81-102",
    licence="no known restriction (StatLib, 1978)",
    package="mlxtend",
    sensitive=("B", "LSTAT"),
)
DIABETES = Card(
    name="diabetes",
    title="Disease progression of 442 diabetes patients",
    n_rows=442,
    target_name="progression",
    source="the data of Efron, Hastie, Johnstone and Tibshirani, in their raw units",
    citation="Efron, Hastie, Johnstone and Tibshirani (2004), Ann. Statist. 32, 407-499",
    licence="public; distributed with scikit-learn (BSD)",
    package="scikit-learn",
    sensitive=("age", "sex"),
)
BREAST_CANCER = Card(
    name="breast_cancer",
    title="Cell nuclei of 569 breast masses, benign or malignant",
    n_rows=569,
    target_name="malignant",
    source="University of Wisconsin, through the UCI repository (diagnostic data, 1995)",
    citation="Street, Wolberg and Mangasarian (1993), Proc. SPIE 1905, 861-870",
    licence="CC BY 4.0 (UCI repository)",
    package="scikit-learn",
)
WINE = Card(
    name="wine",
    title="Chemistry of 178 wines from three cultivars",
    n_rows=178,
    target_name="cultivar",
    source="Forina et al., PARVUS, through the UCI repository (1991)",
    citation="Aeberhard, Coomans and de Vel (1994), Pattern Recognition 27, 1065-1077",
    licence="CC BY 4.0 (UCI repository)",
    package="scikit-learn",
)


@overload
def load_boston(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_boston(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_boston(*, return_X_y=False):
    """Load home values in 506 census tracts of Boston, 1970 (regression).

    Kept because published experiments used it; do not use it to learn anything about Boston. Column
    ``B`` was built on the assumption that house prices depend on the share of Black residents
    through its distance from 63 %, and in general the share cannot be recovered from it.
    The original aim, the price of clean air, is served badly by it, too. scikit-learn removed
    this data set for these reasons.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        506 rows, 13 features.

    Raises
    ------
    ImportError
        If mlxtend or pandas is missing.

    Notes
    -----
    Columns, one row a census tract:

    - ``CRIM``: crime rate of the town, which the source calls per capita.
    - ``ZN``: residential land zoned for lots over 25,000 square feet, percent.
    - ``INDUS``: land of non-retail business in the town, percent.
    - ``CHAS``: 1 if the tract bounds the Charles river, else 0.
    - ``NOX``: nitrogen oxides, parts per 10 million.
    - ``RM``: average number of rooms of a dwelling.
    - ``AGE``: owner-occupied homes built before 1940, percent.
    - ``DIS``: weighted mean distance to five employment centres (the source gives no unit).
    - ``RAD``: index of access to radial highways, 1 to 24.
    - ``TAX``: property tax, US dollars per 10,000 of value.
    - ``PTRATIO``: pupils per teacher in the town.
    - ``B``: 1000 (share of Black residents - 0.63)^2; see above.
    - ``LSTAT``: adults called "of lower status" by the authors (no high-school education, or
      labourers), percent.
    - ``MEDV``: target: median value of owner-occupied homes, thousands of US dollars; values
      above 50 were recorded as 50.

    Source: US census of 1970 and local records, compiled by Harrison and Rubinfeld.
    Citation: Harrison and Rubinfeld (1978), J. Environ. Econ. Manage. 5, 81-102.
    Licence: no known restriction (StatLib, 1978).

    Examples
    --------
    >>> load_boston().data.shape
    (506, 13)
    """
    (file,) = find(BOSTON, "data/data/boston_housing.csv")
    import numpy as np
    import pandas as pd

    names = (
        "CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B",
        "LSTAT", "MEDV",
    )  # fmt: skip
    frame = pd.DataFrame(np.loadtxt(file, delimiter=","), columns=list(names))
    frame = typed(frame, integers=("CHAS", "RAD"))
    dataset = Dataset(BOSTON, frame, names[:-1], "MEDV", describe(load_boston), (file,))
    return (dataset.data, dataset.target) if return_X_y else dataset


@overload
def load_diabetes(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_diabetes(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_diabetes(*, return_X_y=False):
    """Load disease progression of 442 diabetes patients (regression), in raw units.

    scikit-learn's own loader scales the features by default; this one does not.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        442 rows, 10 features.

    Raises
    ------
    ImportError
        If pandas is missing.

    Notes
    -----
    Columns, one row a patient:

    - ``age``: years.
    - ``sex``: 1 or 2; the source does not say which is which.
    - ``bmi``: body mass index, kg / m^2.
    - ``bp``: average blood pressure, mm Hg.
    - ``s1``: total serum cholesterol, mg / dl.
    - ``s2``: low-density lipoproteins, mg / dl.
    - ``s3``: high-density lipoproteins, mg / dl.
    - ``s4``: total cholesterol divided by high-density lipoproteins.
    - ``s5``: probably the logarithm of the serum triglycerides level.
    - ``s6``: blood sugar, mg / dl.
    - ``progression``: target: a measure of disease progression one year later, 25 to 346.

    Source: the data of Efron, Hastie, Johnstone and Tibshirani, in their raw units.
    Citation: Efron, Hastie, Johnstone and Tibshirani (2004), Ann. Statist. 32, 407-499.
    Licence: public; distributed with scikit-learn (BSD).

    Examples
    --------
    >>> load_diabetes().frame["age"].max()
    np.int64(79)
    """
    files = find(
        DIABETES, "datasets/data/diabetes_data_raw.csv.gz", "datasets/data/diabetes_target.csv.gz"
    )
    from sklearn import datasets

    frame = datasets.load_diabetes(as_frame=True, scaled=False).frame
    frame = typed(frame.rename(columns={"target": "progression"}), integers=("age", "sex"))
    dataset = Dataset(
        DIABETES, frame, tuple(frame.columns[:-1]), "progression", describe(load_diabetes), files
    )
    return (dataset.data, dataset.target) if return_X_y else dataset


@overload
def load_breast_cancer(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_breast_cancer(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_breast_cancer(*, return_X_y=False):
    """Load measurements of cell nuclei of 569 breast masses (classification).

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        569 rows, 30 features.

    Raises
    ------
    ImportError
        If pandas is missing.

    Notes
    -----
    Columns, one row a digitised image of a fine-needle aspirate. Ten properties of the nuclei,
    each as ``mean x``, ``x error`` (standard error) and ``worst x`` (mean of the three largest):

    - ``radius``: mean distance from the centre to the outline (length units of the image).
    - ``texture``: standard deviation of the grey values.
    - ``perimeter``: same unit.
    - ``area``: its square.
    - ``smoothness``: local variation of the radius.
    - ``compactness``: perimeter^2 / area - 1.
    - ``concavity``: depth of the concave parts of the outline.
    - ``concave points``: number of concave parts of the outline, scaled.
    - ``symmetry``: difference between the halves.
    - ``fractal dimension``: of the outline, minus 1.

    - ``malignant``: target: 1 if the mass was malignant (212 rows), 0 if benign (357 rows).
      scikit-learn codes it the other way round.

    Source: University of Wisconsin, through the UCI repository (diagnostic data, 1995).
    Citation: Street, Wolberg and Mangasarian (1993), Proc. SPIE 1905, 861-870.
    Licence: CC BY 4.0 (UCI repository).

    Examples
    --------
    >>> int(load_breast_cancer().target.sum())
    212
    """
    files = find(BREAST_CANCER, "datasets/data/breast_cancer.csv")
    from sklearn import datasets

    frame = datasets.load_breast_cancer(as_frame=True).frame
    names = tuple(frame.columns[:-1])
    frame["malignant"] = 1 - frame.pop("target")
    frame = typed(frame, integers=("malignant",))
    dataset = Dataset(BREAST_CANCER, frame, names, "malignant", describe(load_breast_cancer), files)
    return (dataset.data, dataset.target) if return_X_y else dataset


@overload
def load_wine(*, return_X_y: Literal[False] = ...) -> Dataset: ...
@overload
def load_wine(*, return_X_y: Literal[True]) -> tuple[pd.DataFrame, pd.Series]: ...
def load_wine(*, return_X_y=False):
    """Load the chemistry of 178 wines from three cultivars (classification).

    Parameters
    ----------
    return_X_y : bool, default=False
        Return only features and target.

    Returns
    -------
    Dataset or (DataFrame, Series)
        178 rows, 13 features.

    Raises
    ------
    ImportError
        If pandas is missing.

    Notes
    -----
    Columns, one row a wine of one region of Italy. The source gives few units; none are added:

    - ``alcohol``: percent by volume.
    - ``malic_acid``: malic acid.
    - ``ash``: ash.
    - ``alcalinity_of_ash``: alkalinity of the ash.
    - ``magnesium``: magnesium.
    - ``total_phenols``: total phenols.
    - ``flavanoids``: flavonoids (spelt as in the source).
    - ``nonflavanoid_phenols``: other phenols.
    - ``proanthocyanins``: proanthocyanins.
    - ``color_intensity``: intensity of colour.
    - ``hue``: hue.
    - ``od280/od315_of_diluted_wines``: ratio of absorbance at 280 and 315 nm.
    - ``proline``: proline.
    - ``cultivar``: target: class_0 (59 wines), class_1 (71) or class_2 (48).

    Source: Forina et al., PARVUS, through the UCI repository (1991).
    Citation: Aeberhard, Coomans and de Vel (1994), Pattern Recognition 27, 1065-1077.
    Licence: CC BY 4.0 (UCI repository).

    Examples
    --------
    >>> load_wine().target.value_counts().to_dict()
    {'class_1': 71, 'class_0': 59, 'class_2': 48}
    """
    files = find(WINE, "datasets/data/wine_data.csv")
    from sklearn import datasets

    bunch = datasets.load_wine(as_frame=True)
    frame = bunch.frame
    names = tuple(frame.columns[:-1])
    frame["cultivar"] = bunch.target_names[frame.pop("target")]
    frame = typed(frame, categories=("cultivar",))
    dataset = Dataset(WINE, frame, names, "cultivar", describe(load_wine), files)
    return (dataset.data, dataset.target) if return_X_y else dataset
