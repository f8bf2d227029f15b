"""Losses of one target and one prediction, and the families that say how to average predictions.

Pure JAX. Built in are squared loss and the canonical losses A(prediction) - target * prediction of
the logistic, Poisson and softmax models; `custom_family` makes a family of any other loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from privlearn.aggregate.layout import Bags, member_log_mean_exp, member_mean

ElementLoss: TypeAlias = Callable[[Array, Array], Array]


class Family(NamedTuple):
    """A loss, and what is needed to average its predictions on either scale.

    Attributes
    ----------
    name : str
    loss : callable
        ``loss(target, prediction)``, prediction on the link scale, one value per element (or per
        leading element, when the last axis holds the classes).
    log_partition : callable, optional
        A in ``loss = A(prediction) - target * prediction``: given for canonical families only.
    pool : callable, optional
        ``pool(predictions, bags)``: bag prediction on the response scale, in the form that
        ``pooled_loss`` takes (a logarithm, for the built-in families).
    pooled_loss : callable, optional
        ``pooled_loss(target, pooled)``.
    inverse_link : callable, optional
        From the link scale to the response scale.
    """

    name: str
    loss: ElementLoss
    log_partition: Callable[[Array], Array] | None = None
    pool: Callable[[Array, Bags], Array] | None = None
    pooled_loss: ElementLoss | None = None
    inverse_link: Callable[[Array], Array] | None = None


# ----------------------------------------------------------------------- one target, one prediction


def squared_loss(target: ArrayLike, prediction: ArrayLike) -> Array:
    """(target - prediction)^2."""
    return (jnp.asarray(target) - jnp.asarray(prediction)) ** 2


def logistic_loss(target: ArrayLike, logit: ArrayLike) -> Array:
    """softplus(logit) - target * logit: cross-entropy of a target in [0, 1] at a logit."""
    logit = jnp.asarray(logit)
    return jax.nn.softplus(logit) - target * logit


def poisson_loss(target: ArrayLike, log_rate: ArrayLike) -> Array:
    """exp(log_rate) - target * log_rate: Poisson deviance up to a term without the rate."""
    log_rate = jnp.asarray(log_rate)
    return jnp.exp(log_rate) - target * log_rate


def softmax_loss(target: ArrayLike, logits: ArrayLike) -> Array:
    """Cross-entropy of target proportions at logits; the last axis holds the classes."""
    logits = jnp.asarray(logits)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(target * logits, axis=-1)


def _pooled_logistic(target: Array, log_probabilities: Array) -> Array:
    return -((1 - target) * log_probabilities[..., 0] + target * log_probabilities[..., 1])


def _two_log_probabilities(logit: Array) -> Array:
    return jnp.stack([jax.nn.log_sigmoid(-logit), jax.nn.log_sigmoid(logit)], axis=-1)


SQUARED = Family(
    "squared",
    squared_loss,
    pool=member_mean,
    pooled_loss=squared_loss,
    inverse_link=lambda f: f,
)
LOGISTIC = Family(
    "logistic",
    logistic_loss,
    log_partition=jax.nn.softplus,
    pool=lambda f, bags: member_log_mean_exp(_two_log_probabilities(f), bags),
    pooled_loss=_pooled_logistic,
    inverse_link=jax.nn.sigmoid,
)
POISSON = Family(
    "poisson",
    poisson_loss,
    log_partition=jnp.exp,
    pool=member_log_mean_exp,
    pooled_loss=poisson_loss,
    inverse_link=jnp.exp,
)
SOFTMAX = Family(
    "softmax",
    softmax_loss,
    log_partition=lambda f: jax.nn.logsumexp(f, axis=-1),
    pool=lambda f, bags: member_log_mean_exp(jax.nn.log_softmax(f, axis=-1), bags),
    pooled_loss=lambda target, log_p: -jnp.sum(target * log_p, axis=-1),
    inverse_link=lambda f: jax.nn.softmax(f, axis=-1),
)
FAMILIES = {family.name: family for family in (SQUARED, LOGISTIC, POISSON, SOFTMAX)}


def custom_family(
    loss: ElementLoss,
    *,
    inverse_link: Callable[[Array], Array] | None = None,
    response_loss: ElementLoss | None = None,
    log_partition: Callable[[Array], Array] | None = None,
    name: str = "custom",
) -> Family:
    """Make a family of a user's loss.

    Parameters
    ----------
    loss : callable
        ``loss(target, prediction)``.
    inverse_link, response_loss : callable, optional
        Both are needed for ``scale="response"``: the bag prediction is then the mean of
        ``inverse_link(prediction)`` and its loss ``response_loss(target, that mean)``.
    log_partition : callable, optional
        A, if ``loss = A(prediction) - target * prediction``, for `jensen_gap`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> absolute = custom_family(lambda y, f: jnp.abs(y - f))
    >>> absolute.name
    'custom'
    """
    if inverse_link is None or response_loss is None:
        return Family(name, loss, log_partition=log_partition, inverse_link=inverse_link)
    return Family(
        name,
        loss,
        log_partition=log_partition,
        pool=lambda f, bags: member_mean(inverse_link(f), bags),
        pooled_loss=response_loss,
        inverse_link=inverse_link,
    )


def family_of(loss: str | Family | ElementLoss) -> Family:
    """Turn a name, a family or a function into a `Family`."""
    if isinstance(loss, Family):
        return loss
    if isinstance(loss, str):
        if loss not in FAMILIES:
            raise ValueError(f"loss must be one of {sorted(FAMILIES)} or a function, got {loss!r}")
        return FAMILIES[loss]
    if callable(loss):
        return custom_family(loss)
    raise TypeError(f"loss must be a name, a Family or a function, got {type(loss).__name__}")
