"""What the estimators ask of bags, responses and parameters, with errors that name the argument."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from privlearn.aggregate.bags import BagIndex, index_bags

#: Members of a bag that carry the same aggregate may differ by this much of the largest response.
CONSTANT_TOLERANCE = 1e-9


def check_bags(bags: Any, n_rows: int, *, least: int = 2) -> BagIndex:
    """Index bag ids; None means that every row is its own bag."""
    if bags is None:
        rows = np.arange(n_rows)
        return BagIndex(rows, rows, np.ones(n_rows, np.int64))
    index = index_bags(bags, n_rows)
    if len(index.sizes) < least:
        raise ValueError(
            f"bags must name at least {least} bags, got {len(index.sizes)}: one mean response does "
            "not determine a model"
        )
    return index


def responses_of_mapping(y: Mapping[Any, Any], index: BagIndex, bags: Any) -> np.ndarray:
    """Response of each bag, in the order of ``index``, from a mapping of bag id to response."""
    if bags is None:
        raise ValueError("y maps bag ids to responses, so bags must be given too")
    labels = index.labels.tolist()
    missing = [label for label in labels if label not in y]
    if missing:
        raise ValueError(f"y has no response for {_some(missing)} (unknown bag ids in bags)")
    known = set(labels)
    empty = [label for label in y if label not in known]
    if empty:
        raise ValueError(f"y names bags that have no rows, {_some(empty)}: bags of size 0")
    values = np.asarray([y[label] for label in labels], float)
    if not np.isfinite(values).all():
        raise ValueError("y must be finite, got NaN or infinite values")
    return values


def bag_responses(y: np.ndarray, index: BagIndex, response: str) -> np.ndarray:
    """One response a bag, (m, ...), from one a row: checked to be constant, or averaged here."""
    first = np.empty(len(index.sizes), np.int64)
    first[index.codes[::-1]] = np.arange(len(index.codes))[::-1]
    means = y[first].astype(float)
    if response == "individual":
        means = np.zeros_like(means)
        np.add.at(means, index.codes, y)
        return means / index.sizes.reshape((-1,) + (1,) * (y.ndim - 1))
    off = np.abs(y - means[index.codes]).reshape(len(y), -1).max(axis=1, initial=0.0)
    scale = np.abs(y).max(initial=0.0)
    wrong = np.flatnonzero(off > CONSTANT_TOLERANCE * scale)
    if wrong.size:
        bag = index.labels[index.codes[wrong[0]]]
        raise ValueError(
            f"y must be constant within a bag, because response='aggregate' says that it holds bag "
            f"means; bag {bag!r} has different values ({wrong.size} rows deviate). Pass "
            "response='individual' to let the estimator average individual responses"
        )
    return means


def score_weights(sample_weight: Any, index: BagIndex, weights: str) -> np.ndarray:
    """Weight of each bag in a score: of its rows together, or by the rule used in fitting."""
    if sample_weight is None:
        return index.sizes.astype(float) if weights == "size" else np.ones(len(index.sizes))
    rows = np.asarray(sample_weight, float)
    if rows.shape != index.codes.shape:
        raise ValueError(
            f"sample_weight must have one weight per row ({len(index.codes)}), got {rows.shape}"
        )
    if not (np.isfinite(rows) & (rows >= 0)).all() or rows.sum() == 0:
        raise ValueError("sample_weight must be finite, >= 0 and not all zero")
    return np.bincount(index.codes, rows, minlength=len(index.sizes))


def check_shares(shares: np.ndarray) -> np.ndarray:
    """Check proportions a bag, (m,) of the second class or (m, n_classes); returns the latter."""
    if shares.ndim > 2 or (shares.ndim == 2 and shares.shape[1] < 2):
        raise ValueError(f"y must hold one proportion or one a class, got shape {shares.shape}")
    if (shares < -CONSTANT_TOLERANCE).any() or (shares > 1 + CONSTANT_TOLERANCE).any():
        raise ValueError(
            f"y must hold proportions in [0, 1], got values from {shares.min():.6g} to "
            f"{shares.max():.6g}. Clip released proportions first (that costs no privacy); for "
            "class labels pass response='individual'"
        )
    shares = np.clip(shares, 0.0, 1.0)
    if shares.ndim == 1:
        return np.stack([1 - shares, shares], axis=1)
    if not np.allclose(shares.sum(axis=1), 1, atol=1e-6):
        raise ValueError("y must hold proportions that sum to 1 over the classes of each bag")
    return shares


def check_numeric(values: Any, name: str) -> None:
    """Refuse what holds objects or text that are no numbers, by the name of the argument."""
    dtype = getattr(values, "dtype", None)
    array = np.asarray(values) if dtype is None or getattr(dtype, "kind", "O") == "O" else None
    kind = getattr(dtype, "kind", "?") if array is None else array.dtype.kind
    if kind not in "OUS":
        return
    try:
        np.asarray(values).astype(float)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be numeric, got dtype {dtype}: {error}") from error


def check_rows(X: Any, y: Any) -> None:
    """Refuse responses that are not one a row, before scikit-learn says so without a name."""
    counts = [
        values.shape[0] if getattr(values, "shape", ()) else len(values)
        for values in (X, y)
        if getattr(values, "shape", ()) or isinstance(values, (list, tuple))
    ]
    if len(counts) == 2 and counts[0] != counts[1]:
        raise ValueError(
            f"y must have one entry per row of X: got {counts[1]} for {counts[0]} rows. (For one "
            "response a bag, pass a mapping from bag id to response)"
        )


def check_number(value: Any, name: str, *, least: float = 0.0) -> float:
    """Check a finite real number that is at least ``least``."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number >= {least:g}, got {value!r}")
    if not (np.isfinite(float(value)) and float(value) >= least):
        raise ValueError(f"{name} must be finite and >= {least:g}, got {value!r}")
    return float(value)


def check_rho(rho: Any) -> float | str:
    """Check that rho is a number >= 0, "cv" or "theory"."""
    if isinstance(rho, str):
        return check_choice(rho, "rho", ("cv", "theory"))
    return check_number(rho, "rho")


def check_rhos(rhos: Any) -> np.ndarray:
    """Check the rhos of a path: a vector of finite numbers >= 0, at least one."""
    values = np.asarray(rhos, float)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"rhos must be a list of numbers, got shape {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"rhos must be finite and >= 0, got {rhos}")
    return values


def check_choice(value: Any, name: str, choices: Iterable[str]) -> str:
    """Check that a value is one of the words."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _some(labels: list[Any]) -> str:
    shown = ", ".join(map(repr, labels[:3]))
    return shown if len(labels) <= 3 else f"{shown} and {len(labels) - 3} more"
