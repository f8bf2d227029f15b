"""The Gaussian simplex: user u sends N(a e_u, I_n), a channel with everything in closed form."""

from __future__ import annotations

import math

from scipy import integrate, special

from ._arguments import real, whole
from ._bounds import fano_bound, sharp_fano_bound
from ._curves import curve_bound, gaussian_curve


def gaussian_simplex_success(n_users: int, distance: float) -> float:
    """Exact success of the best attacker: integral of phi(z - a) Phi(z)^(n - 1).

    Parameters
    ----------
    n_users : int
        At least 2.
    distance : float
        a, in standard deviations of the noise.

    Examples
    --------
    >>> round(gaussian_simplex_success(10, 2.0), 5)
    0.67365
    """
    n, a = whole("n_users", n_users, 2), real("distance", distance, 0.0, math.inf)
    constant = 0.5 * math.log(2 * math.pi)

    def density(z: float) -> float:
        return math.exp((n - 1) * float(special.log_ndtr(z)) - 0.5 * (z - a) ** 2 - constant)

    # The largest of n - 1 standard normals sits near this, the user's own value near a.
    peak = math.sqrt(2 * math.log(n))
    value, _ = integrate.quad(
        density, -12, a + 12, points=sorted({a, min(peak, a + 11)}), epsabs=0, epsrel=1e-11,
        limit=400,
    )  # fmt: skip
    return float(value)


def gaussian_simplex_bound(n_users: int, distance: float, kind: str = "test_curve") -> float:
    """Upper bound on the success: "test_curve", or "fano" and "sharp_fano" with I <= a^2 / 2.

    Examples
    --------
    >>> round(gaussian_simplex_bound(1000, 3.0), 5)
    0.77023
    """
    n, a = whole("n_users", n_users, 2), real("distance", distance, 0.0, math.inf)
    if kind == "test_curve":
        return curve_bound(n, gaussian_curve(a))
    if kind == "fano":
        return fano_bound(n, a * a / 2)
    if kind == "sharp_fano":
        return sharp_fano_bound(n, a * a / 2)
    raise ValueError(f"kind must be test_curve, fano or sharp_fano, got {kind!r}")
