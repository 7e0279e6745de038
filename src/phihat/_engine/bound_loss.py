"""The loss of a step: its batch, key and model state, checked where it is traced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from phihat._core import checks as _checks
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core import user_code as _user_code
from phihat._core.types import Batch, Params, RandomKey
from phihat.results import FitState

__all__ = ["UseBatch", "bind_loss", "subkey"]

UseBatch = Callable[[Callable[[Batch], Any]], Any]
"""`fn -> fn(batch)`, with the batch of the step."""


def bind_loss(
    step: Any, state: FitState, use: UseBatch
) -> Callable[[Params], tuple[Array, tuple[PyTree, PyTree]]]:
    """Return `params -> (loss, (model_state, aux))`, checked where it is traced.

    Where a placement is given, params, gradients and the batch lie as it says: the
    transpose of keeping params in place keeps their gradients there.
    """
    placement = step.placement
    keyed: dict[str, Any] = {}
    if _checks.takes_key(step.loss_fn):
        if state.key is None:
            raise ValueError(
                f"{step.caller}: `loss_fn` takes a key, so `key` is needed: pass "
                "`key=jax.random.key(0)`."
            )
        keyed["key"] = jax.random.fold_in(subkey(state.key, "loss"), state.step)

    def evaluate(params: Params, batch: Batch) -> tuple[Array, tuple[PyTree, PyTree]]:
        arguments = () if batch is None else (batch,)
        if placement is not None:
            arguments = tuple(
                _placement.keep_rows(placement.data, one) for one in arguments
            )
            params = _placement.keep(placement.params, params)
        if step.has_model_state:
            arguments = (*arguments, state.model_state)
        _check_signature(step, len(arguments), keyed)
        output = step.loss_fn(params, *arguments, **keyed)
        return _split_output(step, output, state.model_state)

    return lambda params: use(lambda batch: evaluate(params, batch))


def _check_signature(step: Any, num_arguments: int, extra: dict[str, Any]) -> None:
    if _checks.can_call(step.loss_fn, *(None,) * (1 + num_arguments), **extra):
        return
    num_batches = num_arguments - step.has_model_state
    called = ["params"] + ["batch"] * num_batches
    called += ["model_state"] * step.has_model_state
    cure = (
        "make one array or tuple of its data, bind the rest with "
        "`jax.tree_util.Partial`, or pass `model_state=` where it takes one"
        if num_batches
        else "pass the data to the fit"
    )
    raise TypeError(
        f"{step.caller}: `loss_fn` is called as ({', '.join(called)}), but its "
        f"signature is {_user_code.plain_signature(step.loss_fn)}; {cure}."
    )


def _split_output(
    step: Any, output: Any, model_state: PyTree
) -> tuple[Array, tuple[PyTree, PyTree]]:
    """Return the loss, the new model state and aux of what a loss returned."""
    names = ["loss"] + ["model_state"] * step.has_model_state + ["aux"] * step.has_aux
    loss, new_state, aux = output, model_state, None
    if len(names) > 1:
        if not (isinstance(output, tuple) and len(output) == len(names)):
            flags = ["`model_state`"] * step.has_model_state
            flags += ["`has_aux=True`"] * step.has_aux
            raise TypeError(
                f"{step.caller}: with {' and '.join(flags)}, `loss_fn` must return "
                f"`({', '.join(names)})`, got {_checks.brief(output)}."
            )
        found = dict(zip(names, output, strict=True))
        loss, aux = found["loss"], found.get("aux")
        if step.has_model_state:
            new_state = _same_model_state(
                step.caller, found["model_state"], model_state
            )
    _check_scalar(step.caller, loss)
    return jnp.asarray(loss), (new_state, aux)


def _same_model_state(caller: str, after: PyTree, before: PyTree) -> PyTree:
    found = _tree.difference(before, after)
    if found is not None:
        what, was, now = found
        raise TypeError(
            f"{caller}: `loss_fn` returns a model state of another {what} than it was "
            f"given, {now} for {was}; a compiled loop carries one structure, such as "
            "all of `batch_stats`."
        )
    return _tree.cast_like(after, before)


def _check_scalar(caller: str, loss: Any) -> None:
    if isinstance(loss, (tuple, list, dict)) or loss is None:
        raise TypeError(
            f"{caller}: `loss_fn` must return a scalar, got a {type(loss).__name__}; "
            "for `(loss, aux)` pass `has_aux=True`."
        )
    if jnp.ndim(loss) != 0:
        raise ValueError(
            f"{caller}: `loss_fn` must return a scalar, got shape "
            f"{list(jnp.shape(loss))}; take its sum or mean."
        )
    if not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(
            f"{caller}: `loss_fn` must return a floating-point scalar, got "
            f"{jnp.result_type(loss)}."
        )


_STREAMS = {"sampling": 0, "loss": 1}
"""The fit's key is split once, into one key for each use."""


def subkey(key: RandomKey, stream: str) -> RandomKey:
    """Return the fit's key for one of its uses."""
    return jax.random.fold_in(key, _STREAMS[stream])
