r"""Losses: from a model $f$ to `loss_fn(params, batch) -> []`.

A batch is `(x, y)`, or `(x, y, weights)` with a weight for every row. Each loss is the
sum over the rows of a batch, $L = \sum_i w_i\, \ell(f(\phi, x_i), y_i)$, as the deck
has it, or with `reduction="mean"` that sum divided by the number of rows I: outputs of
a row are always summed. Weights thus multiply the terms of their rows and never rescale
the rest, so that minibatches stay unbiased.

Predictions are reduced in at least float32, and the loss has that dtype.

A model with a parameter named `key` (dropout) makes a loss with a parameter named
`key`, which is handed on; a fit gives one, folded from its own key and the step.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import losses, models
  >>> loss_fn = losses.least_squares(models.linear)
  >>> batch = (jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0]))
  >>> float(loss_fn({"weight": 2.0, "bias": 0.0}, batch))
  2.0
"""

from phihat.losses.batch_checks import check_batch
from phihat.losses.factories import (
    binary_cross_entropy,
    gaussian_negative_log_likelihood,
    least_squares,
    multiclass_cross_entropy,
    with_l2,
)
from phihat.losses.inspection import Traits, residual_fn, traits, weights_of

__all__ = [
    "Traits",
    "binary_cross_entropy",
    "check_batch",
    "gaussian_negative_log_likelihood",
    "least_squares",
    "multiclass_cross_entropy",
    "residual_fn",
    "traits",
    "weights_of",
    "with_l2",
]
