"""What an optimizer is: a pair of `Partial`s, which shows its hyperparameters."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from phihat._core import tables as _tables

__all__ = ["Optimizer", "describe"]


class Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation that shows its hyperparameters: nothing else is added.

    Args:
      init: a Partial, `params -> state`.
      update: a Partial, `(updates, state, params, **extra) -> (updates, state)`.

    Example:
      >>> from phihat import optimizers
      >>> repr(optimizers.adam(1))
      'adam(learning_rate=1.0, b1=0.9, b2=0.999, eps=1e-08)'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the factory's name and its arguments."""
        if not isinstance(self.update, Partial):
            return super().__repr__()
        return describe(self.update)

    def _repr_html_(self) -> str:
        """Show the hyperparameters as a table in a notebook."""
        if not isinstance(self.update, Partial):
            return _tables.table(repr(self), ())
        return _tables.table(_name_of(self.update), _arguments_of(self.update))


def describe(fn: Callable[..., Any]) -> str:
    """Write a Partial as the call that made it."""
    if not isinstance(fn, Partial):
        return _name_of(fn)
    arguments = [_describe_value(value) for value in fn.args]
    arguments += [f"{name}={value}" for name, value in _arguments_of(fn)]
    return f"{_name_of(fn)}({', '.join(arguments)})" if arguments else _name_of(fn)


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", None) or getattr(
        getattr(fn, "func", fn), "__name__", "fn"
    )
    is_ours = isinstance(fn, Partial)
    return name.removeprefix("_").removesuffix("_update") if is_ours else name


def _arguments_of(fn: Partial) -> list[tuple[str, str]]:
    # jax sorts keywords when it rebuilds a Partial; the rate comes first all the same.
    names = sorted(fn.keywords, key=lambda name: (name != "learning_rate", name))
    return [(name, _describe_value(fn.keywords[name])) for name in names]


def _describe_value(value: Any) -> str:
    if callable(value):
        return describe(value)
    if isinstance(value, (jax.Array, np.ndarray)):
        shape = ",".join(str(size) for size in value.shape)
        return str(value) if not value.shape else f"{value.dtype}[{shape}]"
    return repr(value)
