"""Compiled programs: one for each piece of code, kept until they are too many.

`call` splits a tree of code into a key (what the functions are, see `fingerprints`)
and its numbers, which are arguments of the program. So another learning rate, penalty
or start compiles nothing, and neither does a notebook cell that is run again.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import fingerprints
from phihat._core import tree as _tree
from phihat._core.jaxprs import is_tracing, quick_start_options
from phihat._core.stores import Store

__all__ = ["Mode", "bind", "call", "clear_programs"]


class Mode(NamedTuple):
    """How a program is run, which tells the engine which loop it may use.

    Attributes:
      is_eager: called plainly: nothing maps or differentiates it.
      hides_no_tracers: all that is traced comes in by the arguments.
    """

    is_eager: bool
    hides_no_tracers: bool


_programs = Store()

_FEW_ENTRIES = 2**15
"""Entries of params up to which the time to compile counts more than that to run."""

_FEW_LEAVES = 16
"""Leaves of params above which the quick way of writing kernels is the slower one."""


@_calls.public
def clear_programs() -> None:
    """Free all compiled programs, and whatever their functions close over.

    `fit` and its like keep 256 programs at most, and 134 MB of the arrays that their
    functions close over; the least recently used go first. This frees all of them at
    once; the next call compiles anew.

    Example:
      >>> import phihat
      >>> phihat.clear_programs()
    """
    _programs.clear()
    fingerprints.clear()


def call(
    body: Callable[..., Any],
    code: PyTree,
    options: Hashable,
    *arrays: PyTree,
    runs_briefly: bool = False,
) -> Any:
    """Run `body(code, options, mode, *arrays)` as one compiled program.

    Called eagerly, it runs the program remembered for this code. Under a trace it does
    so only where no function in the code can hide a tracer; else it is inlined, and
    nothing is remembered.

    Args:
      body: a module-level function; its third argument is a `Mode`.
      code: a pytree of functions and numbers, split here.
      options: what else shapes the program, hashable, with types that tell apart.
      *arrays: further pytrees of numbers.
      runs_briefly: a small program is then compiled without being optimized.
    """
    if not is_tracing():
        params = arrays[0] if arrays else None
        return bind(body, code, options, params=params, runs_briefly=runs_briefly)(
            *arrays
        )
    if _tree.is_importable(code):
        mode = Mode(False, True)
        program, numbers = _program(body, code, options, mode, _CompileOptions())
        return program(numbers, *arrays)
    mode = Mode(False, fingerprints.hides_no_tracers(code))
    return body(code, options, mode, *arrays)


class _CompileOptions(NamedTuple):
    """How a program is compiled: which arguments it is given, and for a quick start."""

    donated: tuple[int, ...] = ()
    is_quick: bool = False
    runs_briefly: bool = False

    @property
    def of_xla(self) -> dict[str, Any] | None:
        """The options of XLA, None for its own."""
        if not self.is_quick:
            return None
        return quick_start_options(runs_briefly=self.runs_briefly)


def bind(
    body: Callable[..., Any],
    code: PyTree,
    options: Hashable,
    *,
    params: PyTree = None,
    donates: bool = False,
    runs_briefly: bool = False,
) -> Callable[..., Any]:
    """Return the program of an eager `call`, for one who calls it again and again.

    Args:
      body: as in `call`, like the two that follow.
      code: split once, here.
      options: what else shapes the program.
      params: those of the fit, or a state that holds them. Where they are few the
        program is compiled for a quick start. They alone decide, so that a fit that is
        run in parts is compiled like the whole and has the same bits.
      donates: the first of the arrays is given away to the program.
      runs_briefly: as in `call`.
    """
    is_quick = _are_few(params)
    donated = (1,) if donates else ()
    compile_options = _CompileOptions(donated, is_quick, is_quick and runs_briefly)
    program, numbers = _program(body, code, options, Mode(True, True), compile_options)
    return functools.partial(program, numbers)


def _are_few(params: PyTree) -> bool:
    """Tell whether there are so few params that the program is a small one."""
    leaves = jax.tree.leaves(getattr(params, "params", params))
    if len(leaves) > _FEW_LEAVES:
        return False
    return 0 < sum(np.size(leaf) for leaf in leaves) <= _FEW_ENTRIES


def _program(
    body: Callable[..., Any],
    code: PyTree,
    options: Hashable,
    mode: Mode,
    compile_options: _CompileOptions,
) -> tuple[Callable[..., Any], list[Any]]:
    found = fingerprints.describe(code)
    key = (body, found.key, options, mode, compile_options)
    program = _programs.get(key)
    if program is None:
        for name, size in found.large_arrays:
            _checks.warn(
                f"A function closes over the NumPy array `{name}` of {size / 1e6:.3g} "
                "MB: it becomes a constant of the compiled program, and changing it in "
                "place is not seen. Pass it as data."
            )
        program = _compile(body, _tree.split(code)[0], options, mode, compile_options)
        _programs.put(key, program, found.num_bytes)
    return program, found.numbers


def _compile(
    body: Callable[..., Any],
    key: Any,
    options: Hashable,
    mode: Mode,
    compile_options: _CompileOptions,
) -> Callable[..., Any]:
    def program(numbers: list[Any], *arrays: PyTree) -> Any:
        return body(_tree.merge(key, numbers), options, mode, *arrays)

    program.__name__ = body.__name__.strip("_")
    return jax.jit(
        program,
        donate_argnums=compile_options.donated,
        compiler_options=compile_options.of_xla,
    )
