r"""The chapter's own fits: the parabola, linear regression and the Gabor model.

Both models have two params, $\phi_0$ and $\phi_1$, so a fit is a path on a surface.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat import curvature, datasets, losses, models
from phihat._core.types import Batch, LossFn, ModelFn, Status
from phihat.fitting import fit
from phihat.line_searches import bracketing, steepest_descent
from phihat.optimizers import (
    adam,
    gradient_descent,
    momentum,
    nesterov,
    normalized_gradient,
)

__all__ = [
    "PROBLEMS",
    "Problem",
    "Run",
    "Setting",
    "convexity",
    "losses_at",
    "parabola",
    "parabola_run",
    "solve",
]


class Setting(NamedTuple):
    """An optimizer, the rate to show for it, and the rows of a batch (None: all)."""

    optimizer: optax.GradientTransformation
    rate: float | None
    batch_size: int | None = None


class Problem(NamedTuple):
    """A least-squares fit of a model with two params, and how it is to be done."""

    title: str
    formula: str
    model: ModelFn
    load: Callable[[], Batch]
    start: tuple[float, float]
    settings: dict[str, Setting]

    @property
    def loss_fn(self) -> LossFn:
        """The sum of squares, as the chapter has it."""
        return losses.least_squares(self.model)

    @property
    def data(self) -> Batch:
        """The points x [I] and y [I]."""
        return self.load()


class Run(NamedTuple):
    """A fit: its iterates [T+1, 2] or [T+1], the loss of all data there, its end."""

    name: str
    path: np.ndarray
    losses: np.ndarray
    status: str
    score: float


MAX_STEPS = 200
"""A budget, for the fits that do not converge before."""

TOLERANCE = 1e-3
"""The largest gradient entry of a fit that has converged."""


def parabola(x: Any) -> Any:
    r"""Return $y = x^2 - 4x + 5$, whose derivative is $2x - 4$."""
    return x * x - 4.0 * x + 5.0


def parabola_run() -> Run:
    """Descend the parabola from x = -0.5."""
    rate = gradient_descent(0.15)
    result = fit(
        parabola, -0.5, rate, num_steps=60, tolerance=TOLERANCE, record=("params",)
    )
    path = np.asarray(result.history["params"])[: int(result.num_steps) + 1]
    status = Status(int(result.status)).name
    return Run("gradient descent", path, np.asarray(parabola(path)), status, np.nan)


def solve(problem: Problem, name: str) -> Run:
    """Fit a problem with the optimizer of this name, and follow its path."""
    setting = problem.settings[name]
    is_random = setting.batch_size is not None
    result = fit(
        problem.loss_fn,
        jnp.asarray(problem.start),
        setting.optimizer,
        problem.data,
        num_steps=MAX_STEPS,
        batch_size=setting.batch_size,
        key=jax.random.key(1) if is_random else None,
        # A small gradient on one batch says nothing about the others.
        tolerance=None if is_random else TOLERANCE,
        record=("params",),
    )
    path = np.asarray(result.history["params"])
    values = np.asarray(losses_at(problem.loss_fn, path, problem.data))
    end = int(result.num_steps) + 1
    y = np.asarray(problem.data[1])
    score = 1.0 - values[-1] / np.sum((y - y.mean()) ** 2)
    status = Status(int(result.status)).name
    return Run(name, path[:end], values[:end], status, float(score))


@jax.jit
def losses_at(
    loss_fn: LossFn, points: Float[Array, "n 2"], data: Batch
) -> Float[Array, " n"]:
    """Return the loss of all data at each of these points."""
    return jax.vmap(lambda point: loss_fn(point, data))(points)


def convexity(problem: Problem, point: Any) -> Float[Array, " 2"]:
    """Return the eigenvalues of the Hessian at a point, in ascending order."""
    point = jnp.asarray(point)
    return curvature.eigenvalues(problem.loss_fn, point, problem.data)


PROBLEMS = {
    "linear regression": Problem(
        title="linear regression",
        formula="f = phi_0 + phi_1 x",
        model=Partial(models.polynomial),
        load=datasets.linear_regression,
        start=(1.6, -0.5),
        settings={
            "gradient descent": Setting(gradient_descent(0.02), 0.02),
            "line search": Setting(steepest_descent(bracketing()), None),
            "momentum": Setting(momentum(0.05, 0.8), 0.05),
            "Nesterov": Setting(nesterov(0.05, 0.8), 0.05),
            "normalized": Setting(normalized_gradient(0.02), 0.02),
            "Adam": Setting(adam(0.1), 0.1),
        },
    ),
    "gabor": Problem(
        title="the Gabor model",
        formula="f = sin(u) exp(-u^2 / 32), u = phi_0 + 0.06 phi_1 x",
        model=Partial(models.gabor, envelope_width=4.0),
        load=datasets.gabor,
        start=(1.5, 5.0),
        settings={
            "gradient descent": Setting(gradient_descent(0.1), 0.1),
            "SGD": Setting(gradient_descent(0.4), 0.4, batch_size=5),
            "momentum": Setting(momentum(0.3, 0.8), 0.3),
            "Nesterov": Setting(nesterov(0.3, 0.8), 0.3),
            "normalized": Setting(normalized_gradient(0.1), 0.1),
            "Adam": Setting(adam(0.3), 0.3),
        },
    ),
}
