"""The four kinds of task with which the chapter opens, each on real data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat import datasets, losses, models
from phihat._core.types import LossFn, ModelFn, Params, Status
from phihat.fitting import fit
from phihat.optimizers import adam, momentum, nesterov
from phihat.sampling import minibatches

__all__ = ["TASKS", "Task", "TaskResult", "carry_out", "prepare"]


class Task(NamedTuple):
    """A data set, the model and loss that suit it, and how it is to be fitted."""

    name: str
    kind: str
    model_name: str
    load: Callable[[], tuple[Any, Any]]
    model: ModelFn
    loss_fn: LossFn
    init: Callable[[], Params]
    start: str
    optimizer: optax.GradientTransformation
    options: dict[str, Any]
    measure: str
    has_held_out: bool = True


class TaskResult(NamedTuple):
    """What came of a task; losses are those of all training rows.

    The second score is that of the rows held out, or None where there are none.
    """

    num_rows: tuple[int, int]
    steps: int
    first_loss: float
    loss: float
    status: str
    scores: tuple[float, float | None]


def carry_out(task: Task) -> TaskResult:
    """Fit a task on four fifths of its rows, or on all, and score it on both parts."""
    train, held_out = prepare(task.load(), task.has_held_out)
    start = task.init()
    result = fit(
        task.loss_fn,
        start,
        task.optimizer,
        train,
        key=jax.random.key(0),
        **task.options,
    )
    parts = [train, *([] if held_out is None else [held_out])]
    judge = (task.loss_fn, task.model, parts)
    first_loss, _ = _evaluate(start, *judge)
    loss, scores = _evaluate(result.params, *judge)
    return TaskResult(
        num_rows=(len(train[1]), 0 if held_out is None else len(held_out[1])),
        steps=int(result.num_steps),
        first_loss=float(first_loss),
        loss=float(loss),
        status=Status(int(result.status)).name,
        scores=(float(scores[0]), float(scores[1]) if task.has_held_out else None),
    )


@partial(jax.jit, static_argnums=1)
def prepare(data: Any, has_held_out: bool = True) -> tuple[Any, Any]:
    """Split, and standardize both parts by the training rows alone."""
    train, held_out = data, None
    if has_held_out:
        train, held_out = datasets.split(data, jax.random.key(0), held_out=0.2)

    def scale(part: Any, reference: Any) -> Any:
        if jnp.issubdtype(part.dtype, jnp.integer):  # class labels
            return part
        return datasets.standardize(part, reference=reference)

    scaled = jax.tree.map(scale, train, train)
    return scaled, jax.tree.map(scale, held_out, train) if has_held_out else None


@jax.jit
def _evaluate(
    params: Params, loss_fn: LossFn, model: ModelFn, parts: list[Any]
) -> tuple[Float[Array, ""], list[Float[Array, ""]]]:
    scores = [_score(model(params, x), y) for x, y in parts]
    return loss_fn(params, parts[0]), scores


def _score(prediction: Array, y: Array) -> Float[Array, ""]:
    """Return R^2, averaged over the outputs, or the share of right classes."""
    if prediction.ndim > y.ndim:
        return jnp.mean(jnp.argmax(prediction, axis=-1) == y)
    if jnp.issubdtype(y.dtype, jnp.integer):
        return jnp.mean((prediction > 0) == (y > 0))
    spread = jnp.sum((y - y.mean(axis=0, keepdims=True)) ** 2, axis=0)
    return jnp.mean(1.0 - jnp.sum((y - prediction) ** 2, axis=0) / spread)


def _zeros(*shape: int) -> Params:
    return {"weight": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}


def _perceptron() -> Params:
    return models.init_multilayer_perceptron(jax.random.key(1), (64, 32, 10))


_LINEAR = Partial(models.linear)
_PERCEPTRON = Partial(models.multilayer_perceptron)

TASKS = [
    Task(
        name="diabetes",
        kind="regression",
        model_name="linear",
        load=datasets.diabetes,
        model=_LINEAR,
        loss_fn=losses.least_squares(_LINEAR, reduction="mean"),
        init=partial(_zeros, 10),
        start="zeros",
        optimizer=nesterov(0.5, 0.95),
        options={"num_steps": 2000, "tolerance": 1e-3},
        measure="R^2",
    ),
    Task(
        name="linnerud",
        kind="multivariate regression",
        model_name="linear, L2",
        load=datasets.linnerud,
        model=_LINEAR,
        loss_fn=losses.with_l2(losses.least_squares(_LINEAR, reduction="mean"), 0.1),
        init=partial(_zeros, 3, 3),
        start="zeros",
        optimizer=momentum(0.1, 0.8),
        options={"num_steps": 2000, "tolerance": 1e-3},
        measure="R^2",
        has_held_out=False,  # a fifth of its 20 rows would be too few to judge by
    ),
    Task(
        name="breast cancer",
        kind="binary classification",
        model_name="linear, L2",
        load=datasets.breast_cancer,
        model=_LINEAR,
        loss_fn=losses.with_l2(
            losses.binary_cross_entropy(_LINEAR, reduction="mean"), 1e-3
        ),
        init=partial(_zeros, 30),
        start="zeros",
        optimizer=nesterov(1.0, 0.95),
        options={"num_steps": 2000, "tolerance": 1e-3},
        measure="accuracy",
    ),
    Task(
        name="digits",
        kind="multiclass classification",
        model_name="perceptron 64-32-10",
        load=datasets.digits,
        model=_PERCEPTRON,
        loss_fn=losses.multiclass_cross_entropy(_PERCEPTRON, reduction="mean"),
        init=jax.jit(_perceptron),
        start="drawn",
        optimizer=adam(0.003),
        # The split has shuffled the rows. Whole batches only: a shorter last one would
        # be a second shape to compile.
        options={
            "num_epochs": 15,
            "sampler": minibatches(32, drop_remainder=True, shuffle=False),
        },
        measure="accuracy",
    ),
]
