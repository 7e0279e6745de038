"""What goes on record: names, functions and recorders resolved to one form.

A recorder is a pair of pure functions with a state of its own, so that a quantity may
be warm-started from its last value. `record_every` decides when it is asked.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from phihat._core import checks as _checks
from phihat._core import reductions as _reductions
from phihat._core import tree as _tree
from phihat._engine.step import project
from phihat._recorder import Recorder
from phihat.optimizers import eval_params
from phihat.results import FitState, StepInfo

__all__ = [
    "Recorder",
    "are_scalars",
    "blank",
    "final_values",
    "make_recorders",
    "normalise",
]


def normalise(call: str, record: Any) -> tuple[tuple[str, Any], ...]:
    """Return `record` as pairs of a name and None, a Partial or a Recorder."""
    if record == ("loss",):  # the default, on the path of every call
        return (("loss", None),)
    entries: list[tuple[str, Any]] = []
    for entry in [record] if isinstance(record, (str, Mapping)) else record:
        if isinstance(entry, str):
            known = [*_BUILT_IN, *_NEED_THE_LOSS, "step"]
            _checks.check_choice(call, "record", entry, known)
            entries.append((entry, None))
        elif isinstance(entry, Mapping):
            for name, fn in entry.items():
                entries.append((name, _as_code(fn, call, f"record[{name!r}]")))
        else:
            raise TypeError(
                f"{call}: `record` must hold names or mappings from a name to "
                f"`fn(state, info)`, got {_checks.brief(entry)}."
            )
    return tuple((name, code) for name, code in entries if name != "step")


def _as_code(fn: Any, call: str, argument: str) -> Any:
    if isinstance(fn, Recorder):
        return Recorder(
            init_fn=_tree.as_partial(fn.init_fn, call, argument),
            update_fn=_tree.as_partial(fn.update_fn, call, argument),
            final_fn=fn.final_fn and _tree.as_partial(fn.final_fn, call, argument),
        )
    return _tree.as_partial(fn, call, argument)


def make_recorders(
    caller: str, entries: tuple[tuple[str, Any], ...], loss_fn: Any, projection: Any
) -> dict[str, Recorder]:
    """Return a recorder for every entry; inside a trace."""
    recorders = {}
    for name, code in entries:
        if isinstance(code, Recorder):
            recorders[name] = code
        elif code is not None:
            recorders[name] = _stateless(code)
        elif name == "params":
            recorders[name] = _stateless(Partial(_evaluation_params, projection))
        elif name in _NEED_THE_LOSS:
            if loss_fn is None:
                raise TypeError(
                    f"{caller}: `record` asks for {name!r}, which calls the loss with "
                    "params and a batch alone; a loss with a `model_state`, or a step "
                    "function that was not made by `make_step`, has no such call. "
                    f"Leave {name!r} out, or record a function `(state, info)`."
                )
            recorders[name] = _NEED_THE_LOSS[name](loss_fn)
        else:
            recorders[name] = _stateless(Partial(_BUILT_IN[name], _tree.Static(caller)))
    return recorders


def final_values(
    recorders: dict[str, Recorder], recorder_states: dict[str, PyTree]
) -> dict[str, PyTree]:
    """Return what the recorders with a final value have to tell."""
    return {
        name: recorder.final_fn(recorder_states[name])
        for name, recorder in recorders.items()
        if recorder.final_fn is not None
    }


def blank(value: PyTree) -> PyTree:
    """Return what stands where nothing was measured: NaN, or zero for integers."""

    def fill(leaf: Array) -> Array:
        is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.full(leaf.shape, jnp.nan if is_float else 0, leaf.dtype)

    return jax.tree.map(fill, value)


def _stateless(fn: Callable[[FitState, StepInfo], PyTree]) -> Recorder:
    return Recorder(init_fn=_no_state, update_fn=Partial(_call_stateless, fn))


def _no_state(params: PyTree) -> None:
    del params


def _call_stateless(
    fn: Callable[[FitState, StepInfo], PyTree],
    recorder_state: None,
    state: FitState,
    info: StepInfo,
    batch: PyTree,
) -> tuple[None, PyTree]:
    del recorder_state, batch
    return None, fn(state, info)


def _evaluation_params(projection: Any, state: FitState, info: StepInfo) -> PyTree:
    del info
    params = eval_params(state.opt_state, state.params)
    return project(projection, params)


def _loss(caller: Any, state: FitState, info: StepInfo) -> Array:
    del caller, state
    return info.loss


def _grad_norm(caller: Any, state: FitState, info: StepInfo) -> Array:
    del caller, state
    return _reductions.global_norm(info.grad)


def _learning_rate(caller: Any, state: FitState, info: StepInfo) -> Array:
    del state
    if info.learning_rate is None:
        raise ValueError(
            f"{caller}: `record` asks for 'learning_rate', but this optimizer does not "
            "tell its rate, or has several: make it by "
            "`optax.inject_hyperparams(...)`, or use an optimizer of phihat."
        )
    return info.learning_rate


def _aux(caller: Any, state: FitState, info: StepInfo) -> PyTree:
    del state
    if info.aux is None:
        raise ValueError(
            f"{caller}: `record` asks for 'aux', but the loss returns none; return "
            "`(loss, aux)` and pass `has_aux=True`."
        )
    return info.aux


_BUILT_IN: dict[str, Any] = {
    "aux": _aux,
    "grad_norm": _grad_norm,
    "learning_rate": _learning_rate,
    "loss": _loss,
    "params": None,
}


def _sharpness(loss_fn: Any) -> Recorder:
    # Few fits record it: `curvature` is imported for those.
    from phihat.curvature.recorder import sharpness_recorder

    return sharpness_recorder(loss_fn)


_NEED_THE_LOSS: dict[str, Callable[[Any], Recorder]] = {"sharpness": _sharpness}

_OF_ANY_SIZE = ("aux", "params")


def are_scalars(entries: tuple[tuple[str, Any], ...]) -> bool:
    """Tell whether all that goes on record is known to be one number a row."""
    known = (_BUILT_IN | _NEED_THE_LOSS).keys() - _OF_ANY_SIZE
    return {name for name, _ in entries} <= known
