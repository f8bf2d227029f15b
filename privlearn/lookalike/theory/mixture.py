"""The population, described by the inner products that matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class GaussianMixtureModel:
    """The population, by the inner products on which the asymptotic risk depends.

    Attributes
    ----------
    weights : ndarray of shape (K,)
        Cluster probabilities, summing to 1.
    gram_sensitive, gram_public : ndarray of shape (K, K)
        ``M' M`` of the cluster means, sensitive and public block.
    align_sensitive, align_public : ndarray of shape (K,)
        ``M' theta`` of each block.
    signal_sensitive, signal_public : float
        ``|theta|^2`` of each block.
    noise : float
        Variance of the response noise.

    Examples
    --------
    >>> from privlearn.lookalike.theory import risk
    >>> model = GaussianMixtureModel.orthogonal(n_clusters=3, norm=2.0, alignment=0.5,
    ...     signal_sensitive=0.09, signal_public=1.0, noise=0.25)
    >>> round(risk(model, psi_d=0.6, psi_p=0.3, estimator="known").total, 3)
    0.463
    """

    weights: np.ndarray
    gram_sensitive: np.ndarray
    gram_public: np.ndarray
    align_sensitive: np.ndarray
    align_public: np.ndarray
    signal_sensitive: float
    signal_public: float
    noise: float

    def __post_init__(self) -> None:
        """Check shapes and that the numbers can come from one population."""
        weights = np.asarray(self.weights, float)
        if weights.ndim != 1 or not np.all(weights > 0) or abs(weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights must be positive and sum to 1, got {self.weights!r}")
        k = len(weights)
        object.__setattr__(self, "weights", weights)
        for name, shape in (
            ("gram_sensitive", (k, k)),
            ("gram_public", (k, k)),
            ("align_sensitive", (k,)),
            ("align_public", (k,)),
        ):
            value = np.asarray(getattr(self, name), float)
            if value.shape != shape or not np.all(np.isfinite(value)):
                raise ValueError(f"{name} must be finite with shape {shape}, got {value.shape}")
            object.__setattr__(self, name, value)
        for name in ("signal_sensitive", "signal_public", "noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        for block in ("sensitive", "public"):
            inside = float(np.sum(self._coordinates(block)[1] ** 2))
            signal = getattr(self, f"signal_{block}")
            if inside > signal * (1 + 1e-8) + 1e-12:
                raise ValueError(
                    f"align_{block} needs |theta|^2 >= {inside:.6g} inside the span of the "
                    f"centres, but signal_{block} is {signal:.6g}"
                )

    @classmethod
    def from_parameters(
        cls,
        means_sensitive: np.ndarray,
        means_public: np.ndarray,
        theta_sensitive: np.ndarray,
        theta_public: np.ndarray,
        *,
        weights: np.ndarray,
        noise: float,
    ) -> GaussianMixtureModel:
        """Build from explicit means, one column a cluster, and coefficients.

        Parameters
        ----------
        means_sensitive : ndarray of shape (p, K)
        means_public : ndarray of shape (q, K)
        theta_sensitive : ndarray of shape (p,)
        theta_public : ndarray of shape (q,)
        weights : ndarray of shape (K,)
        noise : float
            Variance of the response noise.
        """
        ms, mn = np.asarray(means_sensitive, float), np.asarray(means_public, float)
        ts, tn = np.asarray(theta_sensitive, float), np.asarray(theta_public, float)
        if ms.ndim != 2 or mn.ndim != 2 or ts.shape != ms.shape[:1] or tn.shape != mn.shape[:1]:
            raise ValueError(
                "means must have one column a cluster and as many rows as theta has entries, got "
                f"means {ms.shape}, {mn.shape} and theta {ts.shape}, {tn.shape}"
            )
        return cls(
            weights=np.asarray(weights, float),
            gram_sensitive=ms.T @ ms,
            gram_public=mn.T @ mn,
            align_sensitive=ms.T @ ts,
            align_public=mn.T @ tn,
            signal_sensitive=float(ts @ ts),
            signal_public=float(tn @ tn),
            noise=float(noise),
        )

    @classmethod
    def orthogonal(
        cls,
        *,
        n_clusters: int,
        norm: float,
        alignment: float,
        signal_sensitive: float,
        signal_public: float,
        noise: float,
        weights: Sequence[float] | None = None,
        direction: Sequence[float] | Literal["sum", "contrast"] = "sum",
        norm_public: float | None = None,
    ) -> GaussianMixtureModel:
        """Orthogonal centres of one norm, coefficients at a given alignment to their span.

        Parameters
        ----------
        n_clusters : int
            Number of clusters K.
        norm, norm_public : float
            Length of each centre in the sensitive and the public block (default: the same).
        alignment : float
            Cosine between theta and the span of the centres, in [-1, 1], in both blocks.
        signal_sensitive, signal_public, noise : float
            ``|theta_s|^2``, ``|theta_ns|^2`` and the noise variance.
        weights : sequence of K floats, optional
            Cluster probabilities; balanced if not given.
        direction : "sum", "contrast" or sequence of K floats
            Direction of theta inside the span, in coordinates along the centres.
            "sum" is (1, ..., 1), "contrast" is (1, -1/(K-1), ...).
        """
        if not -1 <= alignment <= 1:
            raise ValueError(f"alignment must lie in [-1, 1], got {alignment!r}")
        if n_clusters < 1:
            raise ValueError(f"n_clusters must be at least 1, got {n_clusters!r}")
        if isinstance(direction, str):
            if direction not in ("sum", "contrast"):
                raise ValueError(
                    f"direction must be 'sum', 'contrast' or K numbers, got {direction!r}"
                )
            along = np.ones(n_clusters)
            if direction == "contrast":
                if n_clusters < 2:
                    raise ValueError("direction='contrast' needs n_clusters of at least 2")
                along[1:] = -1.0 / (n_clusters - 1)
        else:
            along = np.asarray(direction, float)
            if along.shape != (n_clusters,) or not np.any(along):
                raise ValueError(f"direction must be {n_clusters} numbers, not all 0")
        along = along / np.linalg.norm(along)
        public_norm = norm if norm_public is None else norm_public
        eye = np.eye(n_clusters)
        return cls(
            weights=np.full(n_clusters, 1 / n_clusters) if weights is None else np.array(weights),
            gram_sensitive=norm**2 * eye,
            gram_public=public_norm**2 * eye,
            align_sensitive=norm * alignment * np.sqrt(signal_sensitive) * along,
            align_public=public_norm * alignment * np.sqrt(signal_public) * along,
            signal_sensitive=float(signal_sensitive),
            signal_public=float(signal_public),
            noise=float(noise),
        )

    def _coordinates(self, block: str) -> tuple[np.ndarray, np.ndarray]:
        """Means (r, K) and theta (r,) in an orthonormal basis of the span of the means."""
        return _span_coordinates(getattr(self, f"gram_{block}"), getattr(self, f"align_{block}"))

    def _everything_public(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Means, theta and |theta|^2 when no block is treated apart (the baseline)."""
        means, theta = _span_coordinates(
            self.gram_sensitive + self.gram_public, self.align_sensitive + self.align_public
        )
        return means, theta, self.signal_sensitive + self.signal_public


def _span_coordinates(gram: np.ndarray, align: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    if values.size and values[0] < -1e-8 * max(values[-1], 1.0):
        raise ValueError("gram matrices must be positive semi-definite")
    keep = values > 1e-12 * max(values[-1], 0.0) if values.size else np.zeros(0, bool)
    if not np.any(keep) or values[-1] <= 0:
        return np.zeros((0, gram.shape[0])), np.zeros(0)
    root = np.sqrt(values[keep])
    means = root[:, None] * vectors[:, keep].T
    return means, (vectors[:, keep].T @ align) / root
