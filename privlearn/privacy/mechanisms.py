"""Mechanisms: noise with a guarantee, each with two faces of one distribution.

``release(values)`` is for private data: OpenDP's float-safe samplers, operating-system entropy,
no seed. ``simulate(key, values)`` is for research: pure JAX, reproducible, not private.

Sharp edges
-----------
- `sensitivity` is that of the whole array handed to ``release``: the largest change of its L1
  norm (Laplace) or L2 norm (Gaussian) between neighbours, not of one entry. When the entries are
  sums over disjoint bags, one response moves one entry, and the two agree.
- A second release of the same data spends the budget again: write it in a `Ledger`.
- Sums of floats round, and the sensitivity of a rounded sum exceeds that of the exact one
  (Casacuberta et al. 2022): use `SumGrid` before summing.
- The cost of a release is OpenDP's exact sampler, value by value; large ones use all cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from privlearn.privacy import _opendp, theory
from privlearn.privacy.guarantee import Guarantee

if TYPE_CHECKING:
    import jax
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
    from jax.typing import ArrayLike

_RATIO_SLACK = 1 + 2.0**-40  # covers the rounding to OpenDP's grid, see _opendp.ROUNDING
_ULP_SLACK = 1 + 2.0**-50  # covers the outward rounding of OpenDP's own arithmetic


def check_positive(name: str, value: Any) -> None:
    """Refuse anything but a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and float(value) > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")


def _as_floats(values: Any) -> np.ndarray:
    """Return `values` as finite float64, or say what is wrong with them."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"values must be numbers, got dtype {array.dtype}")
    if (
        array.dtype.kind in "iu"
        and array.size
        and max(abs(int(array.min())), int(array.max())) > (1 << 53)
    ):
        raise ValueError("values must be at most 2**53 in size to be exact as float64")
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise ValueError("values must be finite, got NaN or infinity")
    return floats


def _as_integers(values: Any) -> np.ndarray:
    """Return `values` as int64, or say what is wrong with them."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("values must be finite, got NaN or infinity")
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise ValueError(f"values must be integers, got dtype {array.dtype}")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError("values must fit in int64")
    return array.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Mechanism:
    """What all mechanisms share: whom the guarantee protects."""

    epsilon: float
    unit: str = "one record"
    neighbours: str = "replace one"
    condition: str = ""

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        _ = self.guarantee  # refuses an empty unit or neighbours

    @property
    def guarantee(self) -> Guarantee:
        """What one release promises."""
        return Guarantee(
            float(self.epsilon), 0.0, self.unit, self.neighbours, condition=self.condition
        )

    def _certify(self, certified: float, allowed: float, what: str) -> None:
        if not certified <= allowed:
            raise RuntimeError(f"OpenDP certifies only {what} = {certified}, not {allowed}")


@dataclass(frozen=True, kw_only=True)
class LaplaceMechanism(_Mechanism):
    """Laplace noise: pure epsilon-DP for real-valued arrays.

    Parameters
    ----------
    sensitivity : float
        Largest L1 change of the whole array between neighbours.
    epsilon : float
        What to promise. OpenDP's own certificate for the release is checked against it.
    unit, neighbours, condition : str
        Passed on to the `Guarantee`.

    Examples
    --------
    >>> mechanism = LaplaceMechanism(sensitivity=1.0, epsilon=0.5)
    >>> round(mechanism.scale, 6)
    2.0
    >>> mechanism.release([[1.0, 2.0]]).shape
    (1, 2)
    """

    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        check_positive("sensitivity", self.sensitivity)
        super().__post_init__()

    @cached_property
    def scale(self) -> float:
        """Return sensitivity / epsilon, raised by 2^-40 of itself to pay for OpenDP's grid."""
        return float(self.sensitivity / self.epsilon * _RATIO_SLACK)

    def certified_epsilon(self, size: int = 1) -> float:
        """Epsilon that OpenDP itself certifies for a release of `size` values."""
        k = _opendp.grid_exponent(float(self.sensitivity), size)
        measurement = _opendp.measurement("laplace", self.scale, size, k)
        return float(measurement.map(float(self.sensitivity)))

    def release(self, values: Any) -> np.ndarray:
        """Noise `values` (any shape) with operating-system entropy; returns float64.

        Raises
        ------
        ValueError
            If values are not numbers, not finite, or integers beyond 2**53.
        """
        floats = _as_floats(values)
        if floats.size == 0:
            return floats
        self._certify(self.certified_epsilon(floats.size), self.epsilon, "epsilon")
        k = _opendp.grid_exponent(float(self.sensitivity), floats.size)
        return _opendp.add_noise("laplace", floats, self.scale, k)

    def simulate(self, key: jax.Array, values: ArrayLike) -> jax.Array:
        """Same distribution in pure JAX, seeded: for simulation, not for private data."""
        from privlearn.privacy import kernels

        return kernels.laplace(key, values, self.scale)

    @property
    def loss_width(self) -> float:
        """Largest privacy loss that matters to numerical composition."""
        return float(self.epsilon)

    def privacy_loss(self, interval: float) -> PrivacyLossDistribution:
        """dp-accounting's privacy loss distribution, pessimistic, on a grid of `interval`.

        One dimension dominates any number of them with the same L1 sensitivity: if G_d(a) is
        the power at level a of the best test for a shift by d, a test of shifts (d1, d2) has
        power at most G_d2(E G_d1(a)) <= G_d2(G_d1(a)) = G_(d1+d2)(a), as G is concave and the
        noise log-concave.
        """
        from dp_accounting.pld import privacy_loss_distribution as pld

        return pld.from_laplace_mechanism(
            1.0, sensitivity=float(self.epsilon), value_discretization_interval=interval
        )


@dataclass(frozen=True, kw_only=True)
class DiscreteLaplaceMechanism(_Mechanism):
    """Two-sided geometric noise: pure epsilon-DP for integer arrays (counts).

    Parameters
    ----------
    sensitivity : int
        Largest L1 change of the whole array between neighbours.
    epsilon : float
        What to promise.
    unit, neighbours, condition : str
        Passed on to the `Guarantee`.

    Examples
    --------
    >>> DiscreteLaplaceMechanism(sensitivity=1, epsilon=1.0).release([3, 5]).dtype
    dtype('int64')
    """

    sensitivity: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.sensitivity, bool) or not isinstance(self.sensitivity, Integral):
            raise ValueError(f"sensitivity must be an integer, got {self.sensitivity!r}")
        check_positive("sensitivity", self.sensitivity)
        super().__post_init__()

    @cached_property
    def scale(self) -> float:
        """Return sensitivity / epsilon (rounded up); P(noise = x) is prop. to exp(-|x|/scale)."""
        return float(self.sensitivity / self.epsilon * _ULP_SLACK)

    def certified_epsilon(self, size: int = 1) -> float:
        """Epsilon that OpenDP itself certifies for a release of `size` values."""
        measurement = _opendp.measurement("discrete_laplace", self.scale, size)
        return float(measurement.map(int(self.sensitivity)))

    def release(self, values: Any) -> np.ndarray:
        """Noise integer `values` (any shape) with operating-system entropy; returns int64.

        Raises
        ------
        ValueError
            If values are not integers, or do not fit in int64.
        """
        integers = _as_integers(values)
        if integers.size == 0:
            return integers
        self._certify(self.certified_epsilon(integers.size), self.epsilon, "epsilon")
        return _opendp.add_noise("discrete_laplace", integers, self.scale)

    def simulate(self, key: jax.Array, values: ArrayLike) -> jax.Array:
        """Same distribution in pure JAX, seeded: for simulation, not for private data."""
        from privlearn.privacy import kernels

        return kernels.discrete_laplace(key, values, self.scale)

    @property
    def loss_width(self) -> float:
        """Largest privacy loss that matters to numerical composition."""
        return float(self.epsilon)

    def privacy_loss(self, interval: float) -> PrivacyLossDistribution:
        """dp-accounting's privacy loss distribution, pessimistic, on a grid of `interval`."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        if self.sensitivity > 10_000:  # its cost grows with the sensitivity; bound it instead
            return guarantee_privacy_loss(self.guarantee, interval)
        return pld.from_discrete_laplace_mechanism(
            float(self.epsilon / self.sensitivity),
            sensitivity=int(self.sensitivity),
            value_discretization_interval=interval,
            use_connect_dots=True,
        )


@dataclass(frozen=True, kw_only=True)
class GaussianMechanism(_Mechanism):
    r"""Gaussian noise: (epsilon, delta)-DP for real-valued arrays with L2 sensitivity.

    `scale` is the smallest sigma with :func:`theory.gaussian_delta` (sigma, sensitivity,
    epsilon) <= delta, which is exact (Balle and Wang 2018), for every epsilon > 0:

    .. math:: \delta = \Phi(\tfrac{\Delta}{2\sigma} - \tfrac{\epsilon\sigma}{\Delta})
              - e^{\epsilon}\,\Phi(-\tfrac{\Delta}{2\sigma} - \tfrac{\epsilon\sigma}{\Delta}).

    OpenDP certifies the release in zero-concentrated DP, :meth:`certified_rho`. The step from
    there to (epsilon, delta) is the formula above at the certified sensitivity
    sigma sqrt(2 rho), because OpenDP's own conversion of rho would ask for more noise.

    Parameters
    ----------
    sensitivity : float
        Largest L2 change of the whole array between neighbours.
    epsilon, delta : float
        What to promise; delta in (0, 1).
    unit, neighbours, condition : str
        Passed on to the `Guarantee`.

    Examples
    --------
    >>> round(GaussianMechanism(sensitivity=1.0, epsilon=1.0, delta=1e-5).scale, 4)
    3.7306
    """

    sensitivity: float = 1.0
    delta: float

    def __post_init__(self) -> None:
        check_positive("sensitivity", self.sensitivity)
        check_positive("delta", self.delta)
        if self.delta >= 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta!r}")
        super().__post_init__()

    @property
    def guarantee(self) -> Guarantee:
        """What one release promises."""
        return Guarantee(
            float(self.epsilon), float(self.delta), self.unit, self.neighbours, self.condition
        )

    @cached_property
    def scale(self) -> float:
        """Standard deviation: the exact sigma, raised by 2^-40 of itself for OpenDP's grid."""
        sigma = theory.gaussian_sigma(float(self.epsilon), float(self.delta), self.sensitivity)
        return sigma * _RATIO_SLACK

    def certified_rho(self, size: int = 1) -> float:
        """Zero-concentrated DP parameter that OpenDP itself certifies for `size` values."""
        k = _opendp.grid_exponent(float(self.sensitivity), size)
        measurement = _opendp.measurement("gaussian", self.scale, size, k)
        return float(measurement.map(float(self.sensitivity)))

    def certified_delta(self, size: int = 1) -> float:
        """Exact delta at `epsilon` for the sensitivity behind :meth:`certified_rho`.

        OpenDP's noise lives on a grid of spacing g. Its probabilities and those of rounded
        continuous noise differ by a factor exp(+-s), s <= 100 size (g/sigma)^2, within 40
        sigma (the midpoint rule's error, (x^2/sigma^2 - 1) (g/sigma)^2 / 24 an entry), and
        beyond that lies less than 1e-300; s, about 1e-22, is charged here all the same.
        """
        k = _opendp.grid_exponent(float(self.sensitivity), size)
        slack = 100 * size * (2.0**k / self.scale) ** 2
        sensitivity = self.scale * math.sqrt(2 * self.certified_rho(size))
        delta = theory.gaussian_delta(self.scale, sensitivity, self.epsilon - 2 * slack)
        return float(delta * math.exp(slack))

    def release(self, values: Any) -> np.ndarray:
        """Noise `values` (any shape) with operating-system entropy; returns float64.

        Raises
        ------
        ValueError
            If values are not numbers, not finite, or integers beyond 2**53.
        """
        floats = _as_floats(values)
        if floats.size == 0:
            return floats
        self._certify(self.certified_delta(floats.size), self.delta, "delta")
        k = _opendp.grid_exponent(float(self.sensitivity), floats.size)
        return _opendp.add_noise("gaussian", floats, self.scale, k)

    def simulate(self, key: jax.Array, values: ArrayLike) -> jax.Array:
        """Same distribution in pure JAX, seeded: for simulation, not for private data."""
        from privlearn.privacy import kernels

        return kernels.gaussian(key, values, self.scale)

    @property
    def loss_width(self) -> float:
        """Largest privacy loss that matters to numerical composition (10 sigma)."""
        mu = float(self.sensitivity / self.scale)
        return mu * mu / 2 + 10 * mu

    def privacy_loss(self, interval: float) -> PrivacyLossDistribution:
        """dp-accounting's privacy loss distribution, pessimistic, on a grid of `interval`."""
        from dp_accounting.pld import privacy_loss_distribution as pld

        # The slack in scale and the grid's share of the sensitivity cancel to 2^-40.
        return pld.from_gaussian_mechanism(
            float(self.scale / _RATIO_SLACK / self.sensitivity),
            value_discretization_interval=interval,
        )


@dataclass(frozen=True, kw_only=True)
class RandomizedResponse(_Mechanism):
    """k-ary randomised response: each code is told as it is, or another one at random.

    Pure epsilon-DP for each entry by itself (the local model): `epsilon` is for one entry, so
    the unit that it protects must own one entry only.

    Parameters
    ----------
    n_categories : int
        Number k of codes 0..k-1, from public knowledge and not from the data.
    epsilon : float
        What to promise; the truth is told with probability e^eps / (e^eps + k - 1).
    unit, neighbours, condition : str
        Passed on to the `Guarantee`.

    Examples
    --------
    >>> round(RandomizedResponse(n_categories=12, epsilon=2.0).keep_probability, 6)
    0.401818
    """

    n_categories: int

    def __post_init__(self) -> None:
        if isinstance(self.n_categories, bool) or not isinstance(self.n_categories, Integral):
            raise ValueError(f"n_categories must be an integer, got {self.n_categories!r}")
        if not 2 <= self.n_categories <= 2**31 - 1:
            raise ValueError(
                f"n_categories must be between 2 and 2**31 - 1, got {self.n_categories}"
            )
        super().__post_init__()
        if self.epsilon < 1e-9:
            raise ValueError(f"epsilon must be at least 1e-9 here, got {self.epsilon!r}")

    @cached_property
    def keep_probability(self) -> float:
        """Probability of telling the truth, rounded down."""
        keep = float(theory.randomized_response_keep(float(self.epsilon), self.n_categories))
        return max(keep / _ULP_SLACK, 1 / int(self.n_categories))

    @property
    def scale(self) -> float:
        """Probability of not telling the truth."""
        return 1 - self.keep_probability

    def certified_epsilon(self) -> float:
        """Epsilon that OpenDP itself certifies for this probability."""
        return _opendp.randomized_response_loss(self.keep_probability, int(self.n_categories))

    def _codes(self, values: Any) -> np.ndarray:
        codes = _as_integers(values)
        if codes.size and not (codes.min() >= 0 and codes.max() < self.n_categories):
            raise ValueError(f"values must be codes in 0..{self.n_categories - 1}")
        return codes

    def release(self, values: Any) -> np.ndarray:
        """Randomise codes (any shape) with operating-system entropy; returns int64.

        OpenDP has no vector sampler for k > 2 categories. The one coin whose probability is not
        dyadic comes from OpenDP's bit-vector sampler, and the other code from exactly uniform
        integers of the operating system: the law is that of OpenDP's `make_randomized_response`,
        whose certificate is checked.

        Raises
        ------
        ValueError
            If values are not integer codes in 0..n_categories-1.
        """
        codes = self._codes(values)
        if codes.size == 0:
            return codes
        self._certify(self.certified_epsilon(), self.epsilon, "epsilon")
        k = int(self.n_categories)
        lie = _opendp.coin_flips(1 - self.keep_probability, codes.size)
        shift = 1 + _opendp.uniform_integers(k - 1, codes.size)
        flat = codes.ravel()
        return np.where(lie, (flat + shift) % k, flat).reshape(codes.shape)

    def simulate(self, key: jax.Array, values: ArrayLike) -> jax.Array:
        """Same distribution in pure JAX, seeded: for simulation, not for private data."""
        from privlearn.privacy import kernels

        return kernels.randomized_response(
            key, values, self.keep_probability, int(self.n_categories)
        )

    @property
    def loss_width(self) -> float:
        """Largest privacy loss that matters to numerical composition."""
        return float(self.epsilon)

    def privacy_loss(self, interval: float) -> PrivacyLossDistribution:
        """dp-accounting's privacy loss distribution, pessimistic, on a grid of `interval`."""
        return _response_loss(float(self.epsilon), int(self.n_categories), 0.0, interval)


def guarantee_privacy_loss(guarantee: Guarantee, interval: float) -> PrivacyLossDistribution:
    """Worst privacy loss distribution of any mechanism with this guarantee.

    Examples
    --------
    >>> loss = guarantee_privacy_loss(Guarantee(1.0), 1e-3)
    >>> round(loss.get_epsilon_for_delta(0.0), 3)
    1.0
    """
    return _response_loss(guarantee.epsilon, 2, guarantee.delta, interval)


def _response_loss(epsilon: float, k: int, delta: float, interval: float):
    """Privacy loss of k-ary randomised response that fails outright with probability delta.

    With k = 2 it is the worst that (epsilon, delta) allows (Kairouz, Oh and Viswanath 2015).
    dp-accounting's own constructors round losses up by as much as `interval`, which adds up over
    a million compositions; connecting the dots (Doroshenko et al. 2022) does not.
    """
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

    truth = 1 / (1 + (k - 1) * math.exp(-epsilon))
    lie = math.exp(-epsilon) * truth
    steps = epsilon / interval
    points = np.unique(
        [math.floor(-steps), math.ceil(-steps), 0, math.floor(steps), math.ceil(steps)]
    )
    ratio = np.exp(points * interval)
    stick = np.maximum(truth - ratio * lie, 0) + np.maximum(lie - ratio * truth, 0)
    stick += (k - 2) * lie * np.maximum(1 - ratio, 0)
    stick[-1] = 0.0
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots(
        interval, points, np.clip(delta + (1 - delta) * stick, 0, 1)
    )
    return pld.PrivacyLossDistribution(pmf)
