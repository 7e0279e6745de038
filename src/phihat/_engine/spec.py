"""What a fit is made of: its arguments brought to one form, or refused in one sentence.

`prepare` serves every public function that fits; errors speak in the name of the call
that was made.
"""

import dataclasses
import inspect
from typing import Any

import jax
from jaxtyping import PyTree

from phihat import losses, sampling
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import kinds as _kinds
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat._engine import recorders as _recorders
from phihat._engine.endings import measures_itself
from phihat._engine.step import STATIC, Step
from phihat._engine.tolerance import Tolerance
from phihat.optimizers import Optimizer
from phihat.results import FitResult, FitState

__all__ = [
    "FitSpec",
    "as_optimizer",
    "as_sampler",
    "as_tolerance",
    "check_opt_state",
    "check_optimizer",
    "make_step",
    "place",
    "prepare",
    "prepare_run",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FitSpec:
    """What a fit is made of: its numbers are leaves, the rest shapes its program.

    Attributes:
      step: a `Step`, or a Partial of any pure `(state, batch) -> (state, info)`.
      sampler: a Partial, or None for all data at every step.
      record: pairs of a name and a recorder, a Partial or None.
      tolerance: a `Tolerance`, or None.
      num_steps: the budget; None where `num_epochs` is given.
      num_epochs: likewise, in passes over the data.
      record_every: steps per row of the history.
      remat: compute most states anew in reverse differentiation.
    """

    step: Any
    sampler: Any
    record: tuple[tuple[str, Any], ...]
    tolerance: Tolerance | None
    num_steps: int | None = dataclasses.field(metadata=STATIC)
    num_epochs: int | None = dataclasses.field(metadata=STATIC)
    record_every: int = dataclasses.field(metadata=STATIC)
    remat: bool = dataclasses.field(metadata=STATIC)

    @property
    def caller(self) -> str:
        """The public function in whose name errors speak."""
        return self.step.caller if isinstance(self.step, Step) else "run"


def prepare(
    caller: str,
    loss_fn: Any,
    params: Any,
    optimizer: Any,
    data: Any,
    *,
    num_steps: Any,
    num_epochs: Any = None,
    batch_size: Any = None,
    sampler: Any = None,
    key: Any = None,
    tolerance: Any = None,
    record: Any = (),
    record_every: Any = 1,
    has_aux: Any = False,
    projection: Any = None,
    nonfinite: str = "stop",
    state: Any = None,
    model_state: Any = None,
    remat: Any = False,
    is_streamed: bool = False,
) -> FitSpec:
    """Check the arguments of a fit, and bring them to one form."""
    if model_state is None and isinstance(state, FitState):
        model_state = state.model_state
    step = make_step(
        caller, loss_fn, optimizer, has_aux, projection, nonfinite, model_state
    )
    if not is_streamed:
        sampler = as_sampler(caller, data, batch_size, sampler)
    _check_start(caller, params, state, projection)
    _checks.check_key(caller, key)
    start = params if state is None else state.params
    tolerance = as_tolerance(caller, tolerance)
    if remat and tolerance is not None:
        raise ValueError(
            f"{caller}: `remat` serves reverse differentiation, which `tolerance` "
            "rules out; give a number of steps alone, or differentiate implicitly, by "
            "`sweeps.implicit_fit`."
        )
    arrays = None if is_streamed else data
    losses.check_batch(caller, loss_fn, start, arrays)
    step = place(caller, step, params=start, data=arrays, state=state, key=key)
    return _budgeted(
        caller,
        step,
        sampler,
        tolerance,
        num_steps=num_steps,
        num_epochs=num_epochs,
        record=record,
        record_every=record_every,
        remat=bool(remat),
    )


def prepare_run(
    step_fn: Any,
    state: Any,
    data: Any,
    *,
    batch_size: Any,
    sampler: Any,
    tolerance: Any,
    **budget: Any,
) -> FitSpec:
    """Check the arguments of `fitting.run`, and bring them to one form."""
    sampler = as_sampler("run", data, batch_size, sampler)
    tolerance = as_tolerance("run", tolerance)
    if not isinstance(state, FitState):
        raise TypeError(
            "run: `state` must be a FitState, as `init` returns it, got "
            f"{_checks.brief(state)}."
        )
    if isinstance(step_fn, Step):
        step_fn = dataclasses.replace(step_fn, caller="run")
        step_fn = place("run", step_fn, params=state.params, data=data, state=state)
    else:
        step_fn = _tree.as_partial(step_fn, "run", "step_fn")
    return _budgeted("run", step_fn, sampler, tolerance, **budget)


def _budgeted(
    caller: str,
    step: Any,
    sampler: Any,
    tolerance: Tolerance | None,
    *,
    num_steps: Any,
    num_epochs: Any,
    record: Any,
    record_every: Any,
    remat: bool = False,
) -> FitSpec:
    if (num_steps is None) == (num_epochs is None):
        given = "neither" if num_steps is None else "both"
        raise ValueError(
            f"{caller}: give either `num_steps` or `num_epochs`, got {given}."
        )
    if num_steps is not None:
        num_steps = _checks.check_count(caller, "num_steps", num_steps)
    if num_epochs is not None:
        num_epochs = _checks.check_count(caller, "num_epochs", num_epochs)
    return FitSpec(
        step=step,
        sampler=sampler,
        record=_recorders.normalise(caller, record),
        tolerance=tolerance,
        num_steps=num_steps,
        num_epochs=num_epochs,
        record_every=_checks.check_count(caller, "record_every", record_every),
        remat=remat,
    )


def make_step(
    caller: str,
    loss_fn: Any,
    optimizer: Any,
    has_aux: Any = False,
    projection: Any = None,
    nonfinite: str = "stop",
    model_state: Any = None,
) -> Step:
    """Return the step of these arguments."""
    if nonfinite not in ("stop", "continue"):
        _checks.check_choice(caller, "nonfinite", nonfinite, ("stop", "continue"))
    if model_state is not None:
        _checks.check_arrays(caller, "model_state", model_state)
    return Step(
        loss_fn=_tree.as_partial(loss_fn, caller, "loss_fn"),
        optimizer=as_optimizer(caller, optimizer),
        projection=_as_projection(caller, projection),
        has_aux=bool(has_aux),
        has_model_state=model_state is not None,
        stops=nonfinite == "stop",
        caller=caller,
        placement=None,
    )


def place(caller: str, step: Step, *, params: Params, **others: PyTree) -> Step:
    """Let a step keep its params and batches where they lie."""
    placement = _placement.placement_of(caller, params=params, **others)
    return step if placement is None else dataclasses.replace(step, placement=placement)


def as_optimizer(caller: str, optimizer: Any) -> Optimizer:
    """Return any (init, update) pair as one of Partials."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    pair = (getattr(optimizer, "init", None), getattr(optimizer, "update", None))
    if type(optimizer) is tuple and len(optimizer) == 2:
        pair = optimizer
    if not (callable(pair[0]) and callable(pair[1])):
        hint = ""
        searched = getattr(optimizer, "func", None)
        if ".line_searches" in str(getattr(searched, "__module__", "")):
            hint = "; make an optimizer of the search, `steepest_descent(search)`"
        elif callable(optimizer):
            hint = "; call the factory, as in `adam(0.1)`"
        elif isinstance(optimizer, str):
            hint = "; pass the optimizer itself, such as `phihat.adam(0.1)`"
        raise TypeError(
            f"{caller}: `optimizer` must be an (init, update) pair, as optax makes "
            f"them, got {_checks.brief(optimizer)}{hint}."
        )
    return Optimizer(
        _tree.as_partial(pair[0], caller, "optimizer.init"),
        _tree.as_partial(pair[1], caller, "optimizer.update"),
    )


def _as_projection(caller: str, projection: Any) -> Any:
    if projection is None or isinstance(projection, Box):
        return projection
    return _tree.as_partial(projection, caller, "projection")


def as_tolerance(caller: str, tolerance: Any) -> Tolerance | None:
    """Return a `Tolerance`; a number bounds the gradient."""
    if tolerance is None:
        return None
    if not isinstance(tolerance, Tolerance):
        tolerance = Tolerance(gradient=tolerance)
    checked = {}
    for name, bound in zip(Tolerance._fields, tolerance, strict=True):
        if bound is not None:
            bound = _tree.as_scalar(bound, caller, "tolerance")
            _checks.check_range(caller, "tolerance", bound, low=0.0)
        checked[name] = bound
    criteria = {name for name, bound in checked.items() if bound is not None}
    if criteria <= {"relative"}:
        raise ValueError(
            f"{caller}: `tolerance` names no criterion; give one of "
            f"{', '.join(name for name in Tolerance._fields if name != 'relative')}."
        )
    return Tolerance(**checked)


def as_sampler(caller: str, data: Any, batch_size: Any, sampler: Any) -> Any:
    """Return how batches are drawn, or None for all data at every step."""
    _data_checks.check_data(caller, data)
    if batch_size is not None:
        if sampler is not None:
            raise ValueError(
                f"{caller}: give either `batch_size` or `sampler`, got both; a sampler "
                "has its own batch size."
            )
        if data is None:
            raise ValueError(f"{caller}: `batch_size` needs `data` to draw from.")
        sampler = sampling.minibatches(batch_size)
    if sampler is None:
        return None
    sampler = _tree.as_partial(sampler, caller, "sampler")
    _check_takes_data(caller, sampler)
    sampling.check_sampler(sampler, data)
    return sampler


def _check_takes_data(caller: str, sampler: Any) -> None:
    """Refuse a function that is no sampler, and a factory that was not called."""
    is_factory = sampler.func is inspect.unwrap(sampling.minibatches)
    is_factory |= sampler.func in (sampling.minibatches, sampling.from_indices)
    if is_factory or not _checks.can_call(sampler, None):
        raise TypeError(
            f"{caller}: `sampler` must be a function of the data, such as "
            f"`minibatches(32)`, got {_kinds.describe(sampler.func)}."
        )


# ------------------------------------------------------------- the start and the state


def _check_start(caller: str, params: Any, state: Any, projection: Any) -> None:
    if params is None and state is None:
        raise TypeError(
            f"{caller}: `params` must be the start, a pytree of floats, got None."
        )
    if params is not None:
        _checks.check_float_leaves(caller, "params", params)
        if isinstance(projection, Box):
            _checks.check_box(caller, "projection", projection, params)
    if state is not None:
        _check_state(caller, state, params)


def _check_state(caller: str, state: Any, params: Any) -> None:
    if not isinstance(state, FitState):
        hint = "; it is `result.state`" if isinstance(state, FitResult) else ""
        raise TypeError(
            f"{caller}: `state` must be a FitState, got {_checks.brief(state)}{hint}."
        )
    if params is None:
        return
    found = _tree.difference(params, state.params)
    if found is not None:
        what, given, carried = found
        raise ValueError(
            f"{caller}: `params` and `state.params` differ in {what}: {given} and "
            f"{carried}; pass the params of that state, or None."
        )


def check_opt_state(caller: str, optimizer: Optimizer, state: FitState) -> None:
    """Check that the optimizer could have made this state for these params."""
    expected = jax.eval_shape(optimizer.init, state.params)
    found = _tree.difference(state.opt_state, expected)
    if found is not None:
        what, given, wanted = found
        whom = "optimizer" if what == "structure" else "params"
        raise ValueError(
            f"{caller}: `state` does not fit the {whom}: its `opt_state` has the "
            f"{what} {given}, but this fit needs {wanted}."
        )


# ----------------------------------------------------- optimizers that need to be told


_SEARCHING = ("ScaleByLBFGS", "ScaleByZoomLinesearch", "ScaleByBacktrackingLinesearch")
"""States of optax whose steps are judged before they are projected."""


def check_optimizer(spec: FitSpec, opt_state: PyTree, *, is_fixed: bool) -> None:
    """Refuse what an optimizer cannot do, before the loss is traced."""
    step = spec.step
    if not isinstance(step, Step):
        return
    kinds = _kinds_of_nodes(opt_state)
    if step.projection is not None and any(
        kind.__name__.startswith(_SEARCHING) for kind in kinds
    ):
        _checks.warn(
            f"{step.caller}: `projection` is applied after this optimizer's steps, "
            "whose line search and memory do not know about it, so the fit may end at "
            "a wrong point or not at all. For bounds use `newton()`, `newton_cg()` or "
            "`levenberg_marquardt()`, which keep a Box inside their steps."
        )
    if any(getattr(kind, "measures_itself", False) for kind in kinds):
        _check_measuring(step, is_fixed)


def _check_measuring(step: Step, is_fixed: bool) -> None:
    name = repr(step.optimizer).split("(")[0]
    if not (step.projection is None or isinstance(step.projection, Box)):
        raise ValueError(
            f"{step.caller}: with {name} `projection` must be a Box, which it keeps "
            f"inside its steps, got {_checks.brief(step.projection)}."
        )
    changing = "rows that are drawn" * (not is_fixed)
    if step.has_model_state:
        changing = "a `model_state`"
    if _checks.takes_key(step.loss_fn):
        changing = "a loss with a `key`"
    if changing:
        raise ValueError(
            f"{step.caller}: {name} compares the losses of successive params, which "
            f"{changing} would change in between; give all data at every step, or use "
            "a first-order optimizer, such as `adam`."
        )


def _kinds_of_nodes(tree: PyTree) -> set[type]:
    kinds: set[type] = set()

    def visit(node: Any) -> bool:
        kinds.add(type(node))
        return measures_itself(node)

    jax.tree.leaves(tree, is_leaf=visit)
    return kinds
