"""The user's functions between chunks: what they are given, and what they answer."""

import datetime
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core import fingerprints
from phihat._core import tree as _tree
from phihat._engine.spec import as_optimizer
from phihat.results import FitState

__all__ = ["Callback", "as_callbacks", "as_seconds", "call", "name_of"]

Callback = Callable[[FitState, dict[str, Any]], Any]


def as_seconds(call: str, argument: str, value: Any) -> float | None:
    """Return a duration in seconds."""
    if value is None:
        return None
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    value = _tree.as_number(value, call, argument)
    _checks.check_range(call, argument, value, 0.0, include_low=False)
    return float(value)


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple, of one too."""
    if callable(callbacks):
        callbacks = (callbacks,)
    if hasattr(callbacks, "update"):  # an optimizer, which is a tuple of functions
        callbacks = None
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, (str, bytes)):
        raise TypeError(
            "train: `callbacks` must be functions `(state, rows)`, got "
            f"{_checks.brief(callbacks)}."
        )
    callbacks = tuple(callbacks)
    for callback in callbacks:
        if not callable(callback) or isinstance(callback, type):
            raise TypeError(
                "train: `callbacks` must be functions `(state, rows)`, got "
                f"{_checks.brief(callback)}."
            )
    return callbacks


def name_of(callback: Callback) -> str:
    """Return the name by which messages call a callback."""
    return getattr(callback, "__qualname__", type(callback).__qualname__)


def call(
    callback: Callback, state: FitState, rows: dict[str, Any], spec: Any
) -> tuple[bool, Any]:
    """Call a callback on copies of its own, and read its answer.

    Returns:
      Whether the fit shall end, and an optimizer to go on with, or None.
    """
    answer = callback(state, jax.tree.map(np.array, rows))
    if answer is None:
        return False, None
    if _is_truth_value(answer):
        return bool(answer), None
    if callable(getattr(answer, "init", None)) and hasattr(answer, "update"):
        return False, _as_same_optimizer(callback, answer, spec)
    raise TypeError(
        f"train: the callback `{name_of(callback)}` returned {_checks.brief(answer)} "
        f"of type {type(answer).__name__}; a callback returns None, True, False, or "
        "the fit's optimizer with other numbers."
    )


def _is_truth_value(answer: Any) -> bool:
    """Tell a bool of Python, or one of NumPy, jax, PyTorch or the like."""
    if isinstance(answer, bool):
        return True
    kind = str(getattr(answer, "dtype", ""))
    return kind.split(".")[-1] == "bool" and tuple(getattr(answer, "shape", (1,))) == ()


def _as_same_optimizer(callback: Callback, answer: Any, spec: Any) -> Any:
    optimizer = as_optimizer("train", answer)
    mine, given = (
        fingerprints.describe(one).key for one in (spec.step.optimizer, optimizer)
    )
    if mine != given:
        raise TypeError(
            f"train: the callback `{name_of(callback)}` returned an optimizer of other "
            "code than the fit's; only its numbers, such as the learning rate, may "
            "change. Those of optax are code: take an optimizer of phihat, or "
            "`optax.inject_hyperparams`."
        )
    return optimizer
