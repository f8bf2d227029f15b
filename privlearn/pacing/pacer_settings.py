"""Settings of a `PacingController`: checked once, completed, and kept as they go into JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

Objective = Literal["utility", "value"]
Combination = Literal["dual", "minimum", "sequential"]

_INF = math.inf


def number(name: str, value: Any, rule: str, low: float, high: float = _INF) -> float:
    """Return a finite number in [low, high], or raise an error that names the argument."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    result = float(value)
    if not (math.isfinite(result) and low <= result <= high):
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return result


def _choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}")
    return str(value)


def checked_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Check and complete the settings of a controller."""
    config = dict(given)
    config.update(_checked_time(given))
    _choice("mirror", given["mirror"], ("euclidean", "entropic"))
    _choice("objective", given["objective"], get_args(Objective))
    _choice("combination", given["combination"], get_args(Combination))
    config["plan"] = _checked_plan(given["plan"])
    for name in ("k_p", "k_d"):
        config[name] = number(name, given[name], "finite", -_INF)
    config["beta"] = number("beta", given["beta"], "in [0, 1)", 0.0, math.nextafter(1.0, 0.0))
    config["mu_scale"] = number("mu_scale", given["mu_scale"], "finite and positive", 5e-324)
    if given["k_i"] is not None:
        config["k_i"] = number("k_i", given["k_i"], "finite and at least 0", 0.0)
    elif config["expected_auctions"] is None:
        raise ValueError("k_i or expected_auctions must be given where time is a clock")
    entropic = given["mirror"] == "entropic"
    least = 5e-324 if entropic else 0.0
    rule = "finite and positive" if entropic else "finite and at least 0"
    low = 1e-6 if entropic else 0.0
    config["mu_min"] = (
        low if given["mu_min"] is None else number("mu_min", given["mu_min"], rule, least)
    )
    if given["mu_max"] is not None:
        config["mu_max"] = number("mu_max", given["mu_max"], "above mu_min", config["mu_min"])
    first = given["mu0"]
    if first is None:
        first = 1.0 if entropic or given["objective"] == "value" else 0.0
        top = _INF if config["mu_max"] is None else config["mu_max"]
        first = min(max(first, config["mu_min"]), top)
    config["mu0"] = number(
        "mu0",
        first,
        "between mu_min and mu_max",
        max(config["mu_min"], least),
        _INF if config["mu_max"] is None else config["mu_max"],
    )
    if given["max_bid"] is not None:
        config["max_bid"] = number("max_bid", given["max_bid"], "finite and at least 0", 0.0)
    config.update(_checked_roi(given))
    return config


def _checked_plan(plan: Sequence[float] | None) -> list[float]:
    if plan is None:
        return [1.0]
    shares = [number(f"plan[{i}]", s, "finite and at least 0", 0.0) for i, s in enumerate(plan)]
    total = math.fsum(shares)
    if total <= 0:
        raise ValueError(f"plan must have a positive sum, got {list(plan)!r}")
    # Shares that were normalised before stay as they are, to the last bit.
    return shares if abs(total - 1) < 1e-12 else [share / total for share in shares]


def _checked_time(given: dict[str, Any]) -> dict[str, Any]:
    horizon, start, end = given["horizon"], given["start"], given["end"]
    expected = given["expected_auctions"]
    for name, count in (("horizon", horizon), ("expected_auctions", expected)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise TypeError(f"{name} must be a whole number, got {count!r}")
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if horizon is not None:
        if start is not None or end is not None:
            raise ValueError("give horizon, or start and end, not both")
        return {
            "clock": False,
            "start": 0.0,
            "end": float(horizon),
            "expected_auctions": expected or horizon,
            "max_gap": _INF,
        }
    if start is None or end is None:
        raise ValueError("horizon, or start and end, must be given")
    first = number("start", start, "finite", -_INF)
    last = number("end", end, "finite", -_INF)
    if last <= first:
        raise ValueError(f"end must be after start, got start={start!r}, end={end!r}")
    gap = given["max_gap"]
    longest = (last - first) / 10 if gap is None else number("max_gap", gap, "positive", 5e-324)
    return {"clock": True, "start": first, "end": last, "max_gap": longest}


def _checked_roi(given: dict[str, Any]) -> dict[str, Any]:
    gamma, eta = given["gamma"], given["eta_roi"]
    if gamma is None:
        if eta is not None:
            raise ValueError("eta_roi needs gamma, the least return")
        return {"lam0": number("lam0", given["lam0"], "in [1e-6, 1e6]", 1e-6, 1e6)}
    if given["objective"] != "value":
        raise ValueError("gamma needs objective='value': an ROI constraint is on value won")
    if eta is None:
        raise ValueError("eta_roi must be given with gamma; about 1 / sqrt(auctions) will do")
    return {
        "gamma": number("gamma", gamma, "finite and positive", 5e-324),
        "eta_roi": number("eta_roi", eta, "finite and positive", 5e-324),
        "lam0": number("lam0", given["lam0"], "in [1e-6, 1e6]", 1e-6, 1e6),
    }
