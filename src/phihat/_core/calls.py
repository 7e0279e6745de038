"""Public functions that tell what is wrong with a call that failed.

A call that succeeds is not looked at. One that cannot be bound is answered with the
nearest name, or with what other libraries' word is called here; one that fails for
another reason, with the argument that is evidently of the wrong kind, if there is one.
"""

import difflib
import functools
import inspect
import numbers
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.core
import numpy as np

from phihat._core import checks as _checks
from phihat._core import kinds as _kinds
from phihat._core import peers as _peers
from phihat._core import user_code as _user_code
from phihat._core.jaxprs import is_tracing

__all__ = ["explain_arguments", "explain_binding", "public"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def public(function: _Function) -> _Function:
    """Let a function, or the construction of a class, explain failed calls.

    The signature stays, and so does everything else that is asked of a function.
    """
    if isinstance(function, type):
        method = "__init__" if "__init__" in vars(function) else "__new__"
        made = _explaining(getattr(function, method), function, num_hidden=1)
        setattr(function, method, made)
        return function  # type: ignore[return-value]
    wrapper = _explaining(function, function, num_hidden=0)
    setattr(wrapper, _kinds.MARK, True)
    return wrapper


def _explaining(function: Any, named: Any, num_hidden: int) -> Any:
    """Return the function with its failed calls explained."""
    explain, is_unbound, check_flags = _explain, _is_unbound, _check_flags
    defaults = getattr(function, "__kwdefaults__", None) or {}
    flags = frozenset(name for name, one in defaults.items() if type(one) is bool)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if flags and not flags.isdisjoint(kwargs):
                check_flags(named, flags, kwargs)
            return function(*args, **kwargs)
        except Exception as error:
            better = explain(named, args[num_hidden:], kwargs, error)
            if better is None:
                raise
            raise better from (None if is_unbound(error) else error)

    # With the globals of the function's own module, where doctest looks for it.
    code = call.__code__.replace(co_name=function.__name__)
    home = getattr(function, "__globals__", {})
    home = home if home.get("__builtins__") else globals()
    wrapper = types.FunctionType(code, home, function.__name__, None, call.__closure__)
    return functools.update_wrapper(wrapper, function)


def _is_unbound(error: Exception) -> bool:
    """Tell whether no line of the function ran."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


def _check_flags(named: Any, flags: frozenset[str], kwargs: dict[str, Any]) -> None:
    """Refuse what is merely true or false: a word or a list was meant otherwise."""
    for name in flags & kwargs.keys():
        if not isinstance(kwargs[name], (bool, np.bool_)):
            raise TypeError(
                f"{named.__name__}: `{name}` must be True or False, got "
                f"{_kinds.describe(kwargs[name])}."
            )


def _explain(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
) -> Exception | None:
    """Return a clearer exception than the one raised, or None where there is none."""
    name, text = function.__name__, str(error)
    if type(error) in (TypeError, ValueError, AttributeError):
        exchanged = _explain_order(function, args, kwargs)
        if exchanged is not None:
            return exchanged
    if text.startswith(f"{name}: "):
        values = (*args, *kwargs.values())
        if any(_kinds.MARK in getattr(value, "__dict__", {}) for value in values):
            better = explain_arguments(function, args, kwargs)
            if better is not None and "not called" in str(better):
                return better
        is_plain = type(error) in (TypeError, ValueError)
        is_plain &= "JAX has removed" not in text  # which begins a note of its own
        # Some arrays describe themselves in several lines.
        return (
            type(error)(" ".join(text.split())) if "\n" in text and is_plain else None
        )
    if isinstance(error, Warning) or _is_of_a_caller(text):
        return None
    if _is_unbound(error):
        text = explain_binding(function, args, kwargs)
        return None if text is None else TypeError(f"{name}: {text}")
    if not _is_called_from_here():
        text = _user_code.explain_traced(error)
        if text is not None:
            return TypeError(f"{name}: {text}")
        better = explain_arguments(function, args, kwargs)
        text = _user_code.explain_failure(error, _bound(function, args, kwargs) or {})
        if better is None and text is not None:
            return ValueError(f"{name}: {text}")
        return better
    return explain_arguments(function, args, kwargs)


def _is_called_from_here() -> bool:
    """Tell whether phihat itself made the call; then the outer call explains."""
    frame = sys._getframe(3)  # above: the explained function, which was left
    return str(frame.f_globals.get("__name__", "")).startswith("phihat.")


def _is_of_a_caller(text: str) -> bool:
    """Tell whether a message names a function that called this one."""
    frame = sys._getframe(3)  # above: the explained function, which was left
    while frame is not None:
        if text.startswith(f"{frame.f_code.co_name}: "):
            return True
        frame = frame.f_back
    return False


# ---------------------------------------------------------------------- what is unbound


def explain_binding(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Say why arguments cannot be bound to a function, or return None if they can."""
    parameters = inspect.signature(function).parameters
    for word in kwargs:
        if word not in parameters:
            return _explain_unknown(function.__name__, word, parameters, kwargs)
    positional = [
        name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY
    ]
    if len(args) > len(positional):
        return _explain_too_many(len(args), positional, parameters)
    for name in positional[: len(args)]:
        if name in kwargs:
            return f"`{name}` is given twice, by its place and by its name."
    given = {*positional[: len(args)], *kwargs}
    missing = [
        f"`{name}`"
        for name, one in parameters.items()
        if one.default is one.empty and name not in given
    ]
    if len(missing) == 1:
        return f"the argument {missing[0]} is missing."
    if missing:
        return f"the arguments {', '.join(missing[:-1])} and {missing[-1]} are missing."
    return None


def _explain_unknown(
    call: str, word: str, parameters: Any, kwargs: dict[str, Any]
) -> str:
    said = f"there is no argument `{word}`"
    names = [name for name in parameters if name not in kwargs]
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.9)
    if near:  # one letter off: nearer than what the word means elsewhere
        return f"{said}; did you mean `{near[0]}`?"
    told = _peers.translate(call, word, tuple(parameters))
    if told is not None:
        return f"{said}; {told}"
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"{said}; did you mean `{near[0]}`?"
    if not parameters:
        return f"{said}; it takes none."
    return f"{said}; it takes {', '.join(f'`{name}`' for name in parameters)}."


def _explain_too_many(count: int, positional: list[str], parameters: Any) -> str:
    by_name = [name for name in parameters if name not in positional]
    takes = f"{len(positional)} argument{'s' * (len(positional) != 1)}"
    cure = f"; give the others by name, such as `{by_name[0]}=`" if by_name else ""
    listed = f" ({', '.join(f'`{name}`' for name in positional)})" if positional else ""
    return f"it takes {takes} by place{listed}, got {count}{cure}."


# ------------------------------------------------------------- what is of a wrong kind


def explain_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TypeError | ValueError | None:
    """Return what is wrong with the first argument of a wrong kind, if there is one."""
    signature = inspect.signature(function)
    bound = _bound(function, args, kwargs)
    if bound is None:
        return None
    for name, value in bound.items():
        unreadable = _explain_leaf(f"{function.__name__}: `{name}` holds", value)
        if unreadable is not None:
            return unreadable
    for name, value in bound.items():
        parameter = signature.parameters[name]
        if value is parameter.default:
            continue
        wanted = _kinds.of(name, parameter.annotation)
        if wanted is not None and not wanted.accepts(value):
            said = f"{function.__name__}: `{name}` must be {wanted.text}"
            if value is None:
                return TypeError(f"{said}, got None.")
            return TypeError(f"{said}, got {_kinds.describe(value)}.")
    text = _explain_loss(bound) or _explain_optimizer(bound)
    return None if text is None else TypeError(f"{function.__name__}: {text}")


def _bound(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the arguments by name, or None where they do not suit the function."""
    try:
        return inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return None


def _explain_order(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TypeError | None:
    """Say so if two arguments evidently stand in each other's place."""
    bound = _bound(function, args, kwargs) or {}
    parameters = inspect.signature(function).parameters
    places = [
        name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY
    ]
    given = [name for name in places if name in bound]
    for name in given:
        fits = _kinds.ROLES.get(name)
        if fits is None or fits(bound[name]):
            continue
        for other in given:
            own = _kinds.ROLES.get(other)
            if fits(bound[other]) and not (own is not None and own(bound[other])):
                return TypeError(
                    f"{function.__name__}: `{name}` and `{other}` are exchanged; the "
                    f"order is {function.__name__}({', '.join(places)})."
                )
    return None


def _explain_leaf(said: str, value: Any) -> TypeError | ValueError | None:
    """Return what is wrong with the first leaf of which no number can be had."""
    try:
        leaves = jax.tree_util.tree_flatten_with_path(value)[0]
    except Exception:  # keys that cannot be sorted, nodes with opinions of their own
        return None
    for path, leaf in leaves:
        where = jax.tree_util.keystr(path)
        at = f" at {where}" if where else ""
        if _checks.is_of_pytorch(leaf) and not callable(leaf):
            return TypeError(f"{said} a tensor{at}; {_checks.CURE_FOR_TENSORS}.")
        if _checks.is_deleted(leaf):
            cure = _checks.CURE_FOR_DELETED
            return TypeError(f"{said} {_checks.brief(leaf)}{at}; {cure}.")
        if isinstance(leaf, jax.core.Tracer) and not is_tracing():
            return TypeError(
                f"{said} a tracer of {leaf.aval.str_short()}{at}, which escaped from a "
                "transformation of jax that has ended; return the array from the "
                "transformed function instead of keeping it aside."
            )
        if isinstance(leaf, numbers.Real) and not _fits_a_float(leaf):
            return ValueError(
                f"{said} {_checks.brief(leaf)}{at}; no float is as large, so give one "
                "below 1.8e308."
            )
    return None


def _fits_a_float(number: Any) -> bool:
    try:
        float(number)
    except OverflowError:
        return False
    return True


def _explain_loss(bound: dict[str, Any]) -> str | None:
    """Say so if a loss, or another function, takes other arguments than there are."""
    loss_fn, data = bound.get("loss_fn"), bound.get("data")
    if callable(bound.get("fn")):
        return _explain_searched(bound["fn"])
    if callable(loss_fn) and _checks.is_of_pytorch(loss_fn):
        return (
            "`loss_fn` is a module of PyTorch; write the loss as a function "
            "(params, batch) with `jax.numpy`."
        )
    if _is_table(bound.get("params")) and data is not None and not _is_table(data):
        return (
            "`params` holds arrays with the same number of rows, as data do, and "
            "`data` does not: they seem to be exchanged."
        )
    if not callable(loss_fn) or bound.get("model_state") is not None:
        return None
    text = _user_code.explain_model(loss_fn, data)
    if text is not None:
        return text
    names = ("params",) if data is None else ("params", "batch")
    if not _checks.can_call(loss_fn, *names):
        shown = _user_code.plain_signature(loss_fn)
        cure = "pass the data" if data is None else "leave `data` out, or use the batch"
        return (
            f"`loss_fn` is called as ({', '.join(names)}), but its signature is "
            f"{shown}; {cure}."
        )
    return _user_code.explain_lists("data", data)


def _explain_searched(fn: Callable[..., Any]) -> str | None:
    """Say so if a function that is searched along a line takes more than a step."""
    if _checks.can_call(fn, 0.0):
        return None
    shown = _user_code.plain_signature(fn)
    return (
        f"`fn` is called as (step), but its signature is {shown}; bind the rest "
        "with `functools.partial`."
    )


def _is_table(tree: Any) -> bool:
    """Tell whether a pytree is what data look like: arrays with the same rows."""
    leaves = jax.tree.leaves(tree)
    rows = {np.shape(leaf)[:1] for leaf in leaves}
    return len(leaves) > 1 and len(rows) == 1 and rows.pop() > (1,)


def _explain_optimizer(bound: dict[str, Any]) -> str | None:
    """Say so if an optimizer is one of many, each with a number of its own."""
    leaves = jax.tree_util.tree_flatten_with_path(bound.get("optimizer"))[0]
    for path, leaf in leaves:
        if np.ndim(leaf) and isinstance(path[-1], jax.tree_util.DictKey):
            return (
                f"the `{path[-1].key}` of the optimizer must be a scalar in one fit, "
                f"got the shape {list(np.shape(leaf))}; map over the optimizer for "
                "many."
            )
    return None
