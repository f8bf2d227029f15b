"""Planning a label-DP release: the best bag size and the best clip, from public quantities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import checked, plain
from ._best import best_rho
from ._private import effective_noise, risk_private
from ._search import golden

_LOG_RHO = (np.log(1e-6), np.log(1e6))


class BestBagSize(NamedTuple):
    """The bag size of least risk.

    Attributes
    ----------
    k : int or ndarray
        Members of a bag.
    rho : float or ndarray
        Knob of the interpolating loss that goes with it.
    risk : float or ndarray
        Total risk, in squared units of the response.
    """

    k: Any
    rho: Any
    risk: Any


class BestClip(NamedTuple):
    """The clip of least risk.

    Attributes
    ----------
    clip : float or ndarray
        Responses are clipped to [-clip, clip], in units of the response.
    risk : float or ndarray
        Total risk, in squared units of the response.
    """

    clip: Any
    risk: Any


def best_bag_size(
    epsilon: ArrayLike,
    *,
    gamma: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    clip: ArrayLike,
    rho: float | Literal["best"] = "best",
    sizes: Iterable[int] = range(1, 61),
    clipping: bool = False,
) -> BestBagSize:
    """Size of random bags with the least risk under label-DP.

    Uses only quantities that are public or guessed beforehand; never take them from the
    responses that are to be protected.

    Parameters
    ----------
    epsilon : float or array
        Privacy loss of the release.
    gamma, signal, noise, clip : float or array
        As in `risk_private`; they broadcast with epsilon.
    rho : float or "best", default="best"
        Knob of the loss: given (1 is the instance loss), or the best one for each size.
    sizes : iterable of int, default=1..60
        Bag sizes to compare.
    clipping : bool, default=False
        Account for what clipping does to Gaussian responses (F4c); slower with rho="best".

    Returns
    -------
    BestBagSize
        k, rho, risk. Best among random bags and this family of losses: individual responses with
        noise and a tuned ridge (`ridge_private_risk`) do at least as well in this model.

    Raises
    ------
    ValueError
        If an argument is out of range or sizes is empty.

    Notes
    -----
    The question is that of Javanmard et al. 2024, arXiv 2401.11081; the answer follows from F1, F4.

    Examples
    --------
    >>> setting = dict(gamma=0.05, signal=1.0, noise=0.25, clip=3.0)
    >>> best_bag_size([0.5, 2.0, 8.0], **setting, rho=1.0).k
    array([17,  2,  1])
    """
    ks = np.array(list(sizes))
    if ks.size == 0:
        raise ValueError("sizes must name at least one bag size")
    if not np.issubdtype(ks.dtype, np.integer):
        raise ValueError("sizes must be integers")
    e, g, r2, s2, c = (
        a[..., None]
        for a in checked(epsilon=epsilon, gamma=gamma, signal=signal, noise=noise, clip=clip)
    )
    rhos: Any
    if rho != "best":
        rhos = np.broadcast_to(checked(rho=rho)[0], np.broadcast_shapes(e.shape, ks.shape))
        total = risk_private(g, ks, rhos, r2, s2, epsilon=e, clip=c, clipping=clipping).total
    elif clipping:
        rhos, total = _best_rho_clipped(g, ks, r2, s2, e, c)
    else:
        best = best_rho(g, ks, r2, effective_noise(ks, s2, e, c))
        rhos, total = best.rho, best.risk
    at = np.argmin(total, axis=-1)
    return BestBagSize(
        plain(ks[at]),
        plain(np.take_along_axis(rhos, at[..., None], -1)[..., 0]),
        plain(np.take_along_axis(total, at[..., None], -1)[..., 0]),
    )


def best_clip(
    gamma: ArrayLike,
    k: ArrayLike,
    rho: ArrayLike,
    signal: ArrayLike,
    noise: ArrayLike,
    *,
    epsilon: ArrayLike,
) -> BestClip:
    """Clip of least risk under label-DP, for Gaussian responses (F4c).

    It often matters more than the bag size. It must still come from public knowledge: signal and
    noise are guesses made beforehand, not estimates from the protected responses.

    Parameters
    ----------
    gamma, k, rho, signal, noise, epsilon : float or array
        As in `risk_private`; signal + noise > 0 and epsilon finite.

    Returns
    -------
    BestClip

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> best = best_clip(0.05, 1, 0.0, 1.0, 0.25, epsilon=[1.0, 4.0])
    >>> best.risk.round(3)
    array([0.494, 0.102])
    """
    g, k_, rho_, r2, s2, e = checked(
        gamma=gamma, k=k, rho=rho, signal=signal, noise=noise, epsilon=epsilon
    )
    if np.isinf(e).any():
        raise ValueError("epsilon must be finite: without privacy no clip is best")
    if (r2 + s2 == 0).any():
        raise ValueError("signal + noise must be positive")
    scale = np.sqrt(r2 + s2)

    def total(log_ratio: Any) -> Any:
        return risk_private(g, k_, rho_, r2, s2, epsilon=e, clip=np.exp(log_ratio) * scale).total

    found = golden(total, np.full(g.shape, np.log(1e-3)), np.full(g.shape, np.log(10.0)))
    return BestClip(plain(np.exp(found) * scale), plain(total(found)))


def _best_rho_clipped(g: Any, k: Any, r2: Any, s2: Any, e: Any, c: Any) -> tuple[Any, Any]:
    """Best rho of F4c, by search on a log scale, and rho = 0."""
    shape = np.broadcast_shapes(np.shape(g), np.shape(k))

    def total(rho: Any) -> Any:
        return np.broadcast_to(risk_private(g, k, rho, r2, s2, epsilon=e, clip=c).total, shape)

    low, high = (np.full(shape, value) for value in _LOG_RHO)
    rho = np.exp(golden(lambda z: total(np.exp(z)), low, high))
    positive, zero = total(rho), total(0.0)
    return np.where(zero <= positive, 0.0, rho), np.minimum(zero, positive)
