r"""The optimizers of the deck, as optax transformations whose numbers are data.

Each factory returns an `optax.GradientTransformationExtraArgs` that runs in any optax
loop. Its `init` and `update` are `jax.tree_util.Partial`s of module-level functions,
so every hyperparameter is a leaf: a new learning rate compiles nothing, `jax.vmap` maps
over an optimizer, `jax.grad` differentiates with respect to one.

Below, $g$ is the gradient of the batch's loss and $\alpha_t$ the learning rate of step
$t$, which is a number, a scalar array, or a schedule `step -> rate`.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import optimizers
  >>> optimizer = optimizers.momentum(0.5, decay=0.0)
  >>> optimizer
  momentum(learning_rate=0.5, decay=0.0)
  >>> params = {"w": jnp.asarray([1.0, 2.0])}
  >>> state = optimizer.init(params)
  >>> updates, state = optimizer.update({"w": jnp.asarray([1.0, -1.0])}, state, params)
  >>> print(updates["w"])
  [-0.5  0.5]
"""

from phihat.optimizers.evaluation import eval_params
from phihat.optimizers.factories import (
    adam,
    gradient_descent,
    momentum,
    nesterov,
    normalized_gradient,
)
from phihat.optimizers.optimizer import Optimizer
from phihat.optimizers.updates import (
    AdamState,
    GradientDescentState,
    MomentumState,
    NesterovState,
)

__all__ = [
    "AdamState",
    "GradientDescentState",
    "MomentumState",
    "NesterovState",
    "Optimizer",
    "adam",
    "eval_params",
    "gradient_descent",
    "momentum",
    "nesterov",
    "normalized_gradient",
]
