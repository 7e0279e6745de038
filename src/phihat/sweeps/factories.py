"""An optimizer as a function of its hyperparameters."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jax.tree_util import Partial

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat.optimizers import Optimizer

__all__ = ["as_factory", "as_rate_factory"]


def as_factory(
    call: str, argument: str, optimizer: Any, names: Iterable[str]
) -> Callable[..., Any]:
    """Return a function from hyperparameters to an optimizer.

    Args:
      call: the public function on whose behalf, for messages.
      argument: the name of its argument.
      optimizer: a factory, such as `phihat.adam`, or one of our optimizers, whose
        hyperparameters are then replaced by those that are given.
      names: of the hyperparameters that will be given.
    """
    if _is_ours(optimizer):
        for name in names:
            if name not in optimizer.update.keywords:
                raise TypeError(
                    f"{call}: `{argument}` has no hyperparameter `{name}`: "
                    f"{optimizer!r}."
                )
        return Partial(_replace, optimizer)
    _check_factory(call, argument, optimizer)
    try:
        inspect.signature(optimizer).bind(**dict.fromkeys(names, 0.1))
    except TypeError as error:
        raise TypeError(
            f"{call}: `{argument}` cannot be called with {', '.join(names)}: {error}."
        ) from error
    return _tree.as_partial(optimizer, call, argument)


def as_rate_factory(call: str, argument: str, optimizer: Any) -> Callable[..., Any]:
    """Return a function from a learning rate, given by position, to an optimizer."""
    if _is_ours(optimizer):
        factory = as_factory(call, argument, optimizer, ("learning_rate",))
        return Partial(_set_rate, factory)
    _check_factory(call, argument, optimizer)
    return _tree.as_partial(optimizer, call, argument)


def _is_ours(optimizer: Any) -> bool:
    return isinstance(optimizer, Optimizer) and isinstance(optimizer.update, Partial)


def _check_factory(call: str, argument: str, optimizer: Any) -> None:
    if hasattr(optimizer, "update") or not callable(optimizer):
        raise TypeError(
            f"{call}: `{argument}` must be an optimizer of phihat, such as "
            "`phihat.adam(0.1)`, or a function that makes one, such as `phihat.adam`, "
            f"got {_checks.brief(optimizer)}."
        )


def _set_rate(factory: Callable[..., Any], rate: Any) -> Any:
    return factory(learning_rate=rate)


def _replace(optimizer: Optimizer, /, **hyperparameters: Any) -> Optimizer:
    """Return an optimizer with other numbers."""
    update: Any = optimizer.update
    keywords = {**update.keywords, **hyperparameters}
    return Optimizer(optimizer.init, Partial(update.func, *update.args, **keywords))
