"""Losses for bags whose mean response is all that is known: any model, any loss, bags of any size.

Pure JAX on predictions, so jit, vmap and grad work. Three choices are always explicit:

* the loss of one target and one prediction: a name ("squared", "logistic", "poisson", "softmax"),
  a `Family`, or any function ``loss(target, prediction)`` that JAX can trace;
* how predictions are averaged over a bag, ``scale="link"`` (mean logit, mean log rate) or
  ``scale="response"`` (mean probability, mean rate). For squared loss they are the same;
* how bags of unequal size weigh, ``weights="size"`` (default), ``"bag"``, or an array that is used
  as it is.

Predictions come in one of two layouts, `layout.PaddedBags` or `layout.SegmentBags`.

Sources: Javanmard, Chen, Mirrokni, Badanidiyuru, Fu, "Learning from Aggregate Responses", ICLR
2024, arXiv 2401.11081 (bag, instance and interpolating loss, both identities); Busa-Fekete, Choi,
Dick, Gentile, Munoz Medina, "Easy Learning from Label Proportions", NeurIPS 2023, arXiv 2302.03115
(EasyLLP); "Optimistic rates for learning from label proportions" (de-biased square loss). The
weights for unequal bags and the leave-own-bag-out corrections are ours.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.aggregate import kernels
from privlearn.aggregate.families import (
    FAMILIES,
    LOGISTIC,
    POISSON,
    SOFTMAX,
    SQUARED,
    ElementLoss,
    Family,
    custom_family,
    family_of,
    logistic_loss,
    poisson_loss,
    softmax_loss,
    squared_loss,
)
from privlearn.aggregate.layout import (
    Bags,
    BagWeights,
    leave_own_out_mean,
    member_mean,
    member_ndim,
    replace_padding,
    sizes_of,
    spread,
    weights_of,
)

__all__ = [
    "FAMILIES",
    "LOGISTIC",
    "POISSON",
    "SOFTMAX",
    "SQUARED",
    "ElementLoss",
    "Family",
    "Scale",
    "bag_loss",
    "bag_prediction",
    "custom_family",
    "debiased_square_loss",
    "easyllp_loss",
    "family_of",
    "instance_loss",
    "interpolating_loss",
    "jensen_gap",
    "logistic_loss",
    "poisson_loss",
    "proportion_loss",
    "softmax_loss",
    "squared_loss",
    "within_bag_variance",
]

Scale: TypeAlias = Literal["link", "response"]


# --------------------------------------------------------------------- bag, instance, interpolating


def bag_prediction(
    predictions: Array,
    bags: Bags,
    loss: str | Family | ElementLoss = "squared",
    *,
    scale: Scale = "link",
) -> Array:
    """Mean prediction of each bag: of f (``"link"``), or of inverse_link(f) (``"response"``)."""
    predictions = _checked(predictions, bags)
    if _checked_scale(scale) == "link":
        return member_mean(predictions, bags)
    family = family_of(loss)
    if family.inverse_link is None:
        raise ValueError(
            f"scale='response' needs a loss with an inverse_link, {family.name} has none"
        )
    return member_mean(family.inverse_link(predictions), bags)


def bag_loss(
    loss: str | Family | ElementLoss,
    ybar: Array,
    predictions: Array,
    bags: Bags,
    *,
    scale: Scale = "link",
    weights: BagWeights = "size",
) -> Array:
    """Loss of the mean response of a bag at the mean prediction of the bag, averaged over bags.

    Parameters
    ----------
    loss : str, Family or callable
        Loss of one target and one prediction.
    ybar : Array, shape (m, ...)
        Mean response of each bag.
    predictions : Array
        One prediction per member, on the link scale: (m, k_max, ...) or (n, ...), as `bags` says.
    bags : PaddedBags or SegmentBags
    scale : {"link", "response"}
        Average predictions as they are (mean logit), or after the inverse link (mean probability).
    weights : {"size", "bag"} or Array

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from privlearn.aggregate.layout import equal_bags
    >>> f = jnp.array([[0.0, 2.0], [1.0, 1.0]])
    >>> float(bag_loss("squared", jnp.array([1.0, 2.0]), f, equal_bags(2, 2)))
    0.5
    """
    family = family_of(loss)
    ybar = _checked_ybar(ybar, bags)
    predictions = _checked(predictions, bags)
    if _checked_scale(scale) == "link":
        values = family.loss(ybar, member_mean(predictions, bags))
    elif family.pool is None or family.pooled_loss is None:
        raise ValueError(
            f"scale='response' needs a loss with inverse_link and response_loss "
            f"(see custom_family); {family.name} has none"
        )
    else:
        values = family.pooled_loss(ybar, family.pool(predictions, bags))
    return jnp.sum(weights_of(bags, weights) * _per_bag(values, ybar))


def instance_loss(
    loss: str | Family | ElementLoss,
    ybar: Array,
    predictions: Array,
    bags: Bags,
    *,
    weights: BagWeights = "size",
) -> Array:
    """Loss of the mean response of its bag at the prediction of each member, averaged.

    Members of a bag weigh alike, bags as `weights` says. Arguments as in `bag_loss`.
    """
    family = family_of(loss)
    ybar = _checked_ybar(ybar, bags)
    predictions = _checked(predictions, bags)
    values = _per_member(family.loss(spread(ybar, bags), predictions), ybar, bags)
    return jnp.sum(weights_of(bags, weights) * member_mean(values, bags))


def interpolating_loss(
    loss: str | Family | ElementLoss,
    ybar: Array,
    predictions: Array,
    bags: Bags,
    rho: ArrayLike,
    *,
    scale: Scale = "link",
    weights: BagWeights = "size",
) -> Array:
    """Bag loss + rho * (instance loss - bag loss).

    rho = 0 is the bag loss, rho = 1 the instance loss; rho > 1 is legal. Arguments as in
    `bag_loss`.
    """
    _checked_rho(rho)
    of_bags = bag_loss(loss, ybar, predictions, bags, scale=scale, weights=weights)
    of_instances = instance_loss(loss, ybar, predictions, bags, weights=weights)
    return of_bags + rho * (of_instances - of_bags)


def within_bag_variance(predictions: Array, bags: Bags, *, weights: BagWeights = "size") -> Array:
    """Variance of the predictions within a bag, averaged over bags: no response in it.

    Identity 1: for squared loss, any model and any bags, instance loss = bag loss + this.
    """
    predictions = _checked(predictions, bags)
    means = member_mean(predictions, bags)
    squares = member_mean((predictions - spread(means, bags)) ** 2, bags)
    return jnp.sum(weights_of(bags, weights) * _sum_trailing(squares, 1))


def jensen_gap(
    loss: str | Family,
    predictions: Array,
    bags: Bags,
    *,
    weights: BagWeights = "size",
) -> Array:
    """Mean of A(eta) in a bag minus A(mean eta), averaged over bags: no response in it, never < 0.

    Identity 2: for a canonical loss A(eta) - y eta and bags averaged on the link scale, instance
    loss = bag loss + this. On the response scale no such identity holds: the difference depends on
    the responses.

    Parameters
    ----------
    loss : {"logistic", "poisson", "softmax"} or Family
        Must have a log_partition.
    predictions, bags, weights
        As in `bag_loss`.
    """
    family = family_of(loss)
    partition = family.log_partition
    if partition is None:
        raise ValueError(f"loss must be canonical (have a log_partition), {family.name} is not")
    predictions = _checked(predictions, bags)
    of_members = _sum_trailing(partition(predictions), member_ndim(bags))
    of_mean = _sum_trailing(partition(member_mean(predictions, bags)), 1)
    return jnp.sum(weights_of(bags, weights) * (member_mean(of_members, bags) - of_mean))


# ------------------------------------------------------------------------------------------ EasyLLP


def easyllp_loss(
    loss: str | Family | ElementLoss,
    ybar: Array,
    predictions: Array,
    bags: Bags,
    *,
    labels: Literal["binary", "classes", "response"] = "binary",
    prior: Literal["leave-own-bag-out", "plug-in"] | ArrayLike = "leave-own-bag-out",
    control_variate: Literal["leave-own-bag-out"] | ArrayLike | None = None,
    weights: BagWeights = "size",
) -> Array:
    """De-biased instance loss: its mean over random bags is the loss on individual responses.

    Each member gets the pseudo-label ``size * ybar - (size - 1) * prior``, whose mean given its
    features and response is the response itself. The weights of the loss may be negative.

    Parameters
    ----------
    loss : str, Family or callable
    ybar : Array, shape (m,), or (m, n_classes) for ``labels="classes"``
    predictions, bags, weights
        As in `bag_loss`.
    labels : {"binary", "classes", "response"}
        ``"binary"``: pseudo * loss(1, f) + (1 - pseudo) * loss(0, f). ``"classes"``: the sum over
        classes of pseudo_c * loss(one-hot c, f). ``"response"``: loss(pseudo, f), whose gradient is
        unbiased where the loss is linear in the target up to a term without f (squared, canonical).
    prior : {"leave-own-bag-out", "plug-in"} or array-like
        E[y]: the mean over all other bags (exactly unbiased, the default), over all bags, or known.
    control_variate : "leave-own-bag-out" or array-like, optional
        Subtracts (pseudo - prior) * D, where D estimates the mean of loss(1, f) - loss(0, f) (the
        mean loss of each class, shape (n_classes,), for ``labels="classes"``). The mean stays the
        same for any D that is independent of the bag, the variance falls. Gradients flow through D.

    Notes
    -----
    With D and prior both estimated from the other bags a bias of order size / n remains; give D
    from another mini-batch, or the prior, to be exact.
    """
    ybar = _checked_ybar(ybar, bags)
    predictions = _checked(predictions, bags)
    family = family_of(loss)
    sizes = sizes_of(bags)
    prior = _prior(prior, ybar, sizes)
    pseudo = kernels.easyllp_pseudo_labels(
        ybar, sizes.reshape((-1,) + (1,) * (ybar.ndim - 1)), prior
    )
    if labels == "response":
        if control_variate is not None:
            raise ValueError("control_variate needs labels='binary' or 'classes'")
        values = _per_member(family.loss(spread(pseudo, bags), predictions), ybar, bags)
        return jnp.sum(weights_of(bags, weights) * member_mean(values, bags))
    if labels == "binary":
        losses = jnp.stack([_at(family, label, predictions) for label in (0.0, 1.0)], axis=-1)
        pseudo, prior = (jnp.stack([1 - v, v], axis=-1) for v in (pseudo, prior))
    elif labels == "classes":
        identity = jnp.eye(ybar.shape[-1], dtype=predictions.dtype)
        losses = jnp.stack([_at(family, row, predictions) for row in identity], axis=-1)
    else:
        raise ValueError(f"labels must be 'binary', 'classes' or 'response', got {labels!r}")
    if losses.shape[:-1] != bags[0].shape:
        raise ValueError(f"predictions of shape {predictions.shape} do not suit labels={labels!r}")
    means = member_mean(losses, bags)
    values = jnp.sum(pseudo * means, axis=-1)
    if control_variate is not None:
        centre = _control(control_variate, labels, means, sizes)
        values = values - jnp.sum((pseudo - prior) * centre, axis=-1)
    return jnp.sum(weights_of(bags, weights) * values)


def _at(family: Family, label: ArrayLike, predictions: Array) -> Array:
    return family.loss(jnp.asarray(label, predictions.dtype), predictions)


def _prior(prior: str | ArrayLike, ybar: Array, sizes: Array) -> Array:
    if isinstance(prior, str):
        if prior == "leave-own-bag-out":
            if ybar.shape[0] < 2:
                raise ValueError("prior='leave-own-bag-out' needs at least two bags")
            return leave_own_out_mean(ybar, sizes)
        if prior != "plug-in":
            raise ValueError(
                f"prior must be 'leave-own-bag-out', 'plug-in' or values, got {prior!r}"
            )
        prior = jnp.average(ybar, axis=0, weights=sizes)
    return jnp.broadcast_to(jnp.asarray(prior, ybar.dtype), ybar.shape)


def _control(control: str | ArrayLike, labels: str, means: Array, sizes: Array) -> Array:
    if isinstance(control, str):
        if control != "leave-own-bag-out":
            raise ValueError(
                f"control_variate must be None, 'leave-own-bag-out' or values, got {control!r}"
            )
        return leave_own_out_mean(means, sizes)
    control = jnp.asarray(control, means.dtype)
    return jnp.stack([jnp.zeros_like(control), control], axis=-1) if labels == "binary" else control


# ------------------------------------------------------- proportion matching, de-biased square loss


def proportion_loss(
    ybar: Array,
    predictions: Array,
    bags: Bags,
    *,
    labels: Literal["binary", "classes"] = "binary",
    kind: Literal["cross-entropy", "squared"] = "cross-entropy",
    weights: BagWeights = "size",
) -> Array:
    """Compare the proportions of a bag with the mean predicted probabilities of its members.

    Parameters
    ----------
    ybar : Array, shape (m,) or, for ``labels="classes"``, (m, n_classes)
        Proportions.
    predictions : Array
        Logits: one per member, or n_classes per member.
    kind : {"cross-entropy", "squared"}
    """
    if labels not in ("binary", "classes"):
        raise ValueError(f"labels must be 'binary' or 'classes', got {labels!r}")
    family = LOGISTIC if labels == "binary" else SOFTMAX
    if kind == "cross-entropy":
        return bag_loss(family, ybar, predictions, bags, scale="response", weights=weights)
    if kind != "squared":
        raise ValueError(f"kind must be 'cross-entropy' or 'squared', got {kind!r}")
    ybar = _checked_ybar(ybar, bags)
    mean = bag_prediction(predictions, bags, family, scale="response")
    return jnp.sum(weights_of(bags, weights) * _per_bag((ybar - mean) ** 2, ybar))


def debiased_square_loss(
    ybar: Array,
    predictions: Array,
    bags: Bags,
    *,
    prior: ArrayLike | None = None,
    mean_prediction: ArrayLike | None = None,
    weights: BagWeights = "size",
) -> Array:
    """Unbiased estimate, from bag means, of the squared loss on individual responses.

    size * (ybar - fbar)^2 - (size - 1) * (E y - E f)^2, averaged over bags (iid bags).

    Parameters
    ----------
    ybar : Array, shape (m, ...)
    predictions : Array
        On the response scale: probabilities, not logits.
    prior, mean_prediction : array-like, optional
        E y and E f. Unless both are given, (E y - E f)^2 is replaced by the product of the bag's
        own ybar - fbar and its mean over all other bags: exactly unbiased too.
    """
    ybar = _checked_ybar(ybar, bags)
    gap = ybar - member_mean(_checked(predictions, bags), bags)
    _per_bag(gap, ybar)
    sizes = sizes_of(bags)
    if (prior is None) != (mean_prediction is None):
        raise ValueError("prior and mean_prediction must be given together, or neither")
    if prior is None or mean_prediction is None:
        if ybar.shape[0] < 2:
            raise ValueError("prior and mean_prediction must be given when there is one bag only")
        square = gap * leave_own_out_mean(gap, sizes)
    else:
        square = jnp.broadcast_to(
            (jnp.asarray(prior) - jnp.asarray(mean_prediction)) ** 2, gap.shape
        )
    k = sizes.reshape((-1,) + (1,) * (gap.ndim - 1))
    return jnp.sum(weights_of(bags, weights) * _sum_trailing(k * gap**2 - (k - 1) * square, 1))


# ----------------------------------------------------------------------------------------- checking


def _checked(predictions: Array, bags: Bags) -> Array:
    predictions = jnp.asarray(predictions)
    lead = member_ndim(bags)
    expected = bags[0].shape
    if predictions.shape[:lead] != expected:
        raise ValueError(
            f"predictions must have leading shape {expected} as bags say, got {predictions.shape}"
        )
    return replace_padding(predictions, bags)


def _checked_ybar(ybar: Array, bags: Bags) -> Array:
    ybar = jnp.asarray(ybar)
    m = sizes_of(bags).shape[0]
    if ybar.ndim == 0 or ybar.shape[0] != m:
        raise ValueError(f"ybar must have one entry per bag ({m}), got shape {ybar.shape}")
    return ybar


def _checked_rho(rho: ArrayLike) -> None:
    if isinstance(rho, (int, float)) and not rho >= 0:
        raise ValueError(f"rho must be a number >= 0, got {rho}")


def _checked_scale(scale: str) -> str:
    if scale not in ("link", "response"):
        raise ValueError(f"scale must be 'link' or 'response', got {scale!r}")
    return scale


def _per_bag(values: Array, ybar: Array) -> Array:
    """One number a bag from the values of a loss; a shape that broadcast by accident is refused."""
    return _summed(values, ybar.shape[:1], ybar.shape[1:])


def _per_member(values: Array, ybar: Array, bags: Bags) -> Array:
    return _summed(values, bags[0].shape, ybar.shape[1:])


def _summed(values: Array, lead: tuple[int, ...], trailing: tuple[int, ...]) -> Array:
    if values.shape not in (lead, lead + trailing):
        raise ValueError(
            f"predictions do not fit ybar: the loss has shape {values.shape}, it should have "
            f"{lead + trailing} (is there an extra axis in predictions?)"
        )
    return _sum_trailing(values, len(lead))


def _sum_trailing(values: Array, ndim: int) -> Array:
    return values.reshape((*values.shape[:ndim], -1)).sum(axis=-1)
