"""Compiled programs, one per piece of code, remembered while they are in use.

A program's key is everything but numbers: functions, structure, options. It holds its
functions strongly, so no identity is reused while it lives, and it is forgotten when
many newer ones are in use.

Example:
  >>> import jax
  >>> from phihat._core import programs as _programs
  >>> def scaled(code, options, is_eager, x):
  ...     return code * x + options
  >>> print(_programs.call(scaled, 2.0, 1, jax.numpy.asarray(3.0)))
  7.0
"""

import concurrent.futures
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jaxtyping import PyTree

from phihat._core import tree as _tree

__all__ = ["bind", "call", "is_tracing"]

_MAX_PROGRAMS = 256
"""Enough for a notebook's day; a program of a small fit is some hundred kilobytes."""


def call(
    body: Callable[..., Any], code: PyTree, options: Hashable, *arrays: PyTree
) -> Any:
    """Run `body(code, options, is_eager, *arrays)` as one compiled program.

    Called eagerly, it runs the program remembered for this code. Under a trace it does
    so only where no function in the code can hide a tracer; else it is inlined, and
    nothing is remembered.

    Args:
      body: a module-level function; `is_eager` tells it whether a single fit is running
        on its own, or some transformation is at work.
      code: a pytree of functions and numbers, split here.
      options: what else shapes the program, hashable, with types that tell apart.
      *arrays: further pytrees of numbers.

    Returns:
      What `body` returns.
    """
    key, numbers = _tree.split(code)
    if not is_tracing():
        return _program(body, key, options, True)(numbers, *arrays)
    if _tree.is_importable(code):
        return _program(body, key, options, False)(numbers, *arrays)
    return body(code, options, False, *arrays)


def bind(
    body: Callable[..., Any], code: PyTree, options: Hashable, *, donates: bool = False
) -> Callable[..., Any]:
    """Return the program of an eager `call`, for one who calls it again and again.

    Args:
      body: as in `call`, like the two that follow.
      code: split once, here.
      options: what else shapes the program.
      donates: the first of the arrays is given away to the program.
    """
    key, numbers = _tree.split(code)
    return functools.partial(_program(body, key, options, True, donates), numbers)


@functools.lru_cache(maxsize=_MAX_PROGRAMS)
def _program(
    body: Callable[..., Any],
    key: Hashable,
    options: Hashable,
    is_eager: bool,
    donates: bool = False,
) -> Callable[..., Any]:
    def program(numbers: list[Any], *arrays: PyTree) -> Any:
        return body(_tree.merge(key, numbers), options, is_eager, *arrays)

    program.__name__ = body.__name__.strip("_")
    return jax.jit(program, donate_argnums=(1,) if donates else ())


def is_tracing() -> bool:
    """Tell whether some transformation of jax is tracing right now."""
    eager, look = _trace_states()
    return look() != eager


@functools.cache
def _trace_states() -> tuple[Any, Callable[[], Any]]:
    """Return the state in which nothing is traced, and how to get the present one."""
    # Here and not above: jax.extend takes longer to import than all of phihat.
    from jax.extend.core import get_opaque_trace_state

    look = functools.partial(get_opaque_trace_state, convention="phihat")
    # The first call may be inside a trace; a thread of its own begins outside any.
    with concurrent.futures.ThreadPoolExecutor(1) as outside:
        return outside.submit(look).result(), look
