"""The arguments of a fit: brought to one form, or refused by one sentence.

Example:
  >>> from phihat._engine import spec as _arguments
  >>> _arguments.as_tolerance("fit", 1e-6)
  Tolerance(gradient=1e-06, loss=None, params=None, relative=0.0)
"""

from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from phihat import sampling
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat._engine.step import Tolerance, guarded_step
from phihat.optimizers import Optimizer
from phihat.results import FitResult, FitState

__all__ = [
    "Options",
    "as_optimizer",
    "as_options",
    "as_sampler",
    "as_step",
    "as_tolerance",
    "check_opt_state",
    "check_start",
]


class Options(NamedTuple):
    """What shapes a program beside its code."""

    num_steps: int | None
    num_epochs: int | None
    record_every: int
    records: bool
    functions: tuple[Any, ...]
    """The functions of the code: jax hashes a structure without those inside it."""
    remat: bool = False


def as_step(
    call: str,
    loss_fn: Any,
    optimizer: Any,
    has_aux: Any,
    projection: Any,
    nonfinite: str,
) -> Partial:
    if nonfinite not in ("stop", "continue"):
        _checks.check_choice(call, "nonfinite", nonfinite, ("stop", "continue"))
    return Partial(
        guarded_step,
        _tree.as_partial(loss_fn, call, "loss_fn"),
        as_optimizer(call, optimizer),
        _as_projection(call, projection),
        has_aux=_tree.Static(bool(has_aux)),
        nonfinite=_tree.Static(nonfinite),
    )


def as_optimizer(call: str, optimizer: Any) -> Optimizer:
    """Return any (init, update) pair as one of Partials."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    pair = (getattr(optimizer, "init", None), getattr(optimizer, "update", None))
    if type(optimizer) is tuple and len(optimizer) == 2:
        pair = optimizer
    if not (callable(pair[0]) and callable(pair[1])):
        hint = ""
        if callable(optimizer):
            hint = "; call the factory, as in `adam(0.1)`"
        raise TypeError(
            f"{call}: `optimizer` must be an (init, update) pair, as optax makes them, "
            f"got {_checks.brief(optimizer)}{hint}."
        )
    return Optimizer(
        _tree.as_partial(pair[0], call, "optimizer.init"),
        _tree.as_partial(pair[1], call, "optimizer.update"),
    )


def _as_projection(call: str, projection: Any) -> Any:
    if projection is None:
        return None
    if isinstance(projection, Box):
        return Partial(_clip, projection)
    return _tree.as_partial(projection, call, "projection")


def _clip(box: Box, params: Params) -> Params:
    return box.clip(params)


def as_tolerance(call: str, tolerance: Any) -> Tolerance | None:
    if tolerance is None:
        return None
    if not isinstance(tolerance, Tolerance):
        tolerance = Tolerance(gradient=tolerance)
    checked = {}
    for name, bound in zip(Tolerance._fields, tolerance, strict=True):
        if bound is not None:
            bound = _tree.as_number(bound, call, "tolerance")
            _checks.check_range(call, "tolerance", bound, low=0.0)
        checked[name] = bound
    if tolerance[:3] == (None, None, None):
        raise ValueError(
            f"{call}: `tolerance` names no criterion; give one of gradient, loss, "
            "params."
        )
    return Tolerance(**checked)


def as_options(
    call: str,
    num_steps: int | None,
    num_epochs: int | None,
    record_every: int,
    record: Any,
    functions: tuple[Any, ...],
) -> Options:
    if (num_steps is None) == (num_epochs is None):
        given = "neither" if num_steps is None else "both"
        raise ValueError(
            f"{call}: give either `num_steps` or `num_epochs`, got {given}."
        )
    if num_steps is not None:
        num_steps = _checks.check_count(call, "num_steps", num_steps)
    if num_epochs is not None:
        num_epochs = _checks.check_count(call, "num_epochs", num_epochs)
    return Options(
        num_steps=num_steps,
        num_epochs=num_epochs,
        record_every=_checks.check_count(call, "record_every", record_every),
        records=bool(record),
        functions=functions,
    )


def as_sampler(call: str, data: Any, batch_size: Any, sampler: Any) -> Any:
    _checks.check_data(call, data)
    if batch_size is not None:
        if sampler is not None:
            raise ValueError(
                f"{call}: give either `batch_size` or `sampler`, got both; a sampler "
                "has its own batch size."
            )
        if data is None:
            raise ValueError(f"{call}: `batch_size` needs `data` to draw from.")
        sampler = sampling.minibatches(batch_size)
    if sampler is None:
        return None
    sampler = _tree.as_partial(sampler, call, "sampler")
    sampling.check_sampler(sampler, data)
    return sampler


def check_start(call: str, params: Any, state: Any, projection: Any) -> None:
    if params is None and state is None:
        raise TypeError(
            f"{call}: `params` must be the start, a pytree of floats, got None."
        )
    if params is not None:
        _checks.check_float_leaves(call, "params", params)
        if isinstance(projection, Box):
            _checks.check_box(call, "projection", projection, params)
    if state is not None:
        _check_state(call, state, params)


def _check_state(call: str, state: Any, params: Any) -> None:
    if not isinstance(state, FitState):
        hint = "; it is `result.state`" if isinstance(state, FitResult) else ""
        raise TypeError(
            f"{call}: `state` must be a FitState, got {_checks.brief(state)}{hint}."
        )
    if params is None:
        return
    given, carried = jax.tree.structure(params), jax.tree.structure(state.params)
    if given != carried:
        raise ValueError(
            f"{call}: `params` and `state.params` differ in structure: {given} and "
            f"{carried}; pass the params of that state, or None."
        )
    unlike = _tree.unlike_leaf(params, state.params)
    if unlike is not None:
        path, shape, carried_shape = unlike
        raise ValueError(
            f"{call}: `params` and `state.params` differ in shape at "
            f"{path or 'the only leaf'}: {shape} and {carried_shape}."
        )


def check_opt_state(optimizer: Optimizer, state: FitState) -> None:
    """Check that the optimizer could have made this state for these params."""
    expected = jax.eval_shape(optimizer.init, state.params)
    wanted, given = jax.tree.structure(expected), jax.tree.structure(state.opt_state)
    if wanted != given:
        raise ValueError(
            "fit: `state` does not fit the optimizer: its `opt_state` has the "
            f"structure {given}, but this optimizer's is {wanted}."
        )
    unlike = _tree.unlike_leaf(expected, state.opt_state)
    if unlike is not None:
        path, shape, given_shape = unlike
        raise ValueError(
            f"fit: `state` does not fit the params: `opt_state{path}` has shape "
            f"{given_shape}, but these params need {shape}."
        )
