"""A loss as a straight-line program of primitives over numbered values.

The prover, the box certifier and the refuter all read the *value* of a loss, never its
derivative rules. So the trace takes the jaxpr of the loss and flattens it:

- calls (`jit`, `checkpoint`, `custom_jvp`, `custom_vjp`) are replaced by their bodies;
  the derivative rules are never looked at;
- `stop_gradient` is the identity, and is listed, for AD sees something else;
- short scans and loops with a known number of rounds are unrolled, a `cond` becomes
  its branch where the index is known and a select where it is not;
- integers and booleans that depend on nothing are computed, since they are exact, and
  so are the random bits of a known key;
- equal equations get one number;
- functions of jax that stand for an ideal function (`logaddexp`, ...) stay whole, if
  their bodies are those of the installed jax (`atoms.py`).

The program is the user's own, traced once, under the user's own configuration: a loss
that is float32 there is read in float32. Its floats then stand for reals, so a literal
0.1 is the float32 nearest to 0.1, read exactly; its integers and booleans are machine
integers of their own dtype. What no rule can read (a primitive that is not jax's, one
that runs a program of its own, other dtypes) gets a name that no rule has.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core.jaxprs import branch_of_platform, primitive_name
from phihat.convexity.numbers import dtypes
from phihat.convexity.program import atoms, complexes, loops
from phihat.convexity.program.folding import folded
from phihat.convexity.program.form import Equation, Program, Source
from phihat.convexity.program.jaxprs import (
    hashable_params,
    is_of_jax,
    live,
    opened,
    refused_name,
    source_of,
)
from phihat.convexity.program.loops import Untraceable
from phihat.convexity.program.structure import STRUCTURAL

__all__ = ["NoLoss", "Untraceable", "trace"]

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that only call a body, and the name of its parameter."""

_IDENTITIES = {
    "copy",
    "copy_p",
    "name",
    "optimization_barrier",
    "sharding_constraint",
    "stop_gradient",
}
_COMMUTATIVE = {"add", "add_any", "mul", "max", "min", "eq", "ne", "and", "or"}


class NoLoss(Exception):
    """The value is no real scalar; `kind` is the builtin exception that says so."""

    def __init__(self, kind: type[Exception], sentence: str) -> None:
        """Keep the kind, and the sentence."""
        super().__init__(sentence)
        self.kind = kind


def trace(loss_fn: Callable[..., Any], params: Any, data: Any = None) -> Program:
    """Trace `loss_fn(params, data)`, or `loss_fn(params)` where `data` is None.

    Of the leaves of params and data, the program's inputs, only shapes, dtypes and weak
    types matter. The value must be a real scalar (`NoLoss`), the program not too long
    to be unrolled (`Untraceable`); what the loss raises passes.
    """
    args = (params,) if data is None else (params, data)
    leaves, tree = jax.tree.flatten(args)
    num_params = len(jax.tree.leaves(params))

    def flat_loss(*leaves: Any) -> Any:
        return loss_fn(*jax.tree.unflatten(tree, leaves))

    with jax.disable_jit(False):
        closed = jax.make_jaxpr(flat_loss)(*leaves)
    _check_value(closed.out_avals)
    flattener = _Flattener()
    inputs = [flattener.new_value(variable.aval) for variable in closed.jaxpr.invars]
    outputs = flattener.inline(closed, inputs, Source("", 0, ""))
    program = flattener.program(inputs[:num_params], inputs[num_params:], outputs)
    return dataclasses.replace(program, closed=closed)


def _check_value(avals: Sequence[Any]) -> None:
    if len(avals) != 1 or avals[0].shape != ():
        shapes = ", ".join(str(aval.shape) for aval in avals)
        raise NoLoss(
            ValueError,
            "the value of `loss_fn` must be one scalar, got "
            f"{len(avals)} array(s) of shape {shapes}; reduce it by a sum or a mean.",
        )
    if not jnp.issubdtype(avals[0].dtype, jnp.floating):
        raise NoLoss(
            TypeError,
            "the value of `loss_fn` must be a real floating-point number, got dtype "
            f"{avals[0].dtype}.",
        )


class _Flattener:
    """Inlines, unrolls, folds and numbers."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.dtypes: list[Any] = []
        self.constants: dict[int, np.ndarray] = {}
        self.keys: dict[int, Any] = {}
        self.pairs: dict[int, tuple[int, int]] = {}
        self.narrowed: dict[int, Any] = {}
        self.equations: list[Equation] = []
        self.writers: dict[int, Equation] = {}
        self.known: dict[Any, tuple[int, ...]] = {}
        self.known_constants: dict[Any, int] = {}
        self.bool_behind: dict[int, int] = {}
        self.assumptions: dict[str, None] = {}
        self.rules_of_ad: dict[str, None] = {}

    # ------------------------------------------------------------------ values
    def new_value(self, aval: Any) -> int:
        self.shapes.append(tuple(aval.shape))
        self.dtypes.append(aval.dtype)
        return len(self.shapes) - 1

    def constant(self, value: Any) -> int:
        """Number a constant; small equal ones share a number."""
        if jnp.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.extended):
            number = self.new_value(value)
            self.keys[number] = value  # rules cannot read it; draws can
            return number
        array = np.asarray(value)
        key = None
        if array.size <= 16:
            key = (array.shape, array.dtype.str, array.tobytes())
            if key in self.known_constants:
                return self.known_constants[key]
        number = self.new_value(array)
        self.constants[number] = array
        if key is not None:
            self.known_constants[key] = number
        return number

    def rounded(self, value: Any, dtype: Any) -> int:
        """Number a literal, rounded to its dtype, of which a Python number is not."""
        if complexes.is_complex(dtype):
            return complexes.constant(self, value)
        if not dtypes.is_readable(dtype):
            return self.constant(value)
        return self.constant(np.asarray(value).astype(dtype, copy=False))

    def program(
        self, params: list[int], data: list[int], outputs: list[int]
    ) -> Program:
        return Program(
            self.shapes,
            self.dtypes,
            self.constants,
            tuple(params),
            tuple(data),
            live(self.equations, outputs),
            tuple(outputs),
            tuple(self.assumptions),
            tuple(self.rules_of_ad),
            self.narrowed,
        )

    # ------------------------------------------------------------------- jaxprs
    def inline(self, closed: Any, inputs: Sequence[int], outer: Source) -> list[int]:
        """Flatten a closed jaxpr on numbered inputs; return its outputs' numbers."""
        jaxpr, consts = opened(closed)
        numbers: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            numbers[variable] = self.rounded(value, variable.aval.dtype)

        def read(atom: Any) -> int:
            if not hasattr(atom, "val"):
                return numbers[atom]
            return self.rounded(atom.val, atom.aval.dtype)

        for eqn in jaxpr.eqns:
            read_inputs = tuple(read(atom) for atom in eqn.invars)
            outputs = self.equation(eqn, read_inputs, outer)
            numbers.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Any, inputs: tuple[int, ...], outer: Source) -> list[int]:
        name = primitive_name(eqn.primitive)
        source = source_of(eqn, outer)
        if name is None:
            # No rule bears such a name, whatever the primitive calls itself.
            return self.emit(eqn, f"{eqn.primitive.name} (not jax's)", inputs, source)
        if name in _IDENTITIES and len(inputs) == len(eqn.outvars):
            if name == "stop_gradient" and not self.is_maximum(inputs[0]):
                self.rules_of_ad[f"{source} stop_gradient"] = None
            return list(inputs)
        if name == "convert_element_type":
            aliased = self.cast(eqn, inputs[0], source)
            if aliased is not None:
                return [aliased]
        if _CALLS.get(name) in eqn.params:
            return self.call(eqn, name, inputs, source)
        if name == "platform_index":
            branch = branch_of_platform(eqn.params.get("platforms", ()))
            if branch is not None:
                return [self.constant(np.int32(branch))]
        if name == "select_n" and len(inputs) > 1:
            chosen = self.first_of_truths(eqn, inputs, source)
            if chosen is not None:
                return [chosen]
        if name == "custom_linear_solve":
            return self.solve(eqn, inputs, source)
        if name == "cond":
            return self.cond(eqn, inputs, source)
        if name == "scan":
            return loops.scan(self, eqn, inputs, source)
        if name == "while":
            return loops.while_loop(self, eqn, inputs, source)
        kinds = (self.dtypes[n] for n in inputs), (v.aval.dtype for v in eqn.outvars)
        if any(map(complexes.is_complex, itertools.chain(*kinds))):
            found = complexes.read(self, eqn, name, inputs, source)
            if found is not None:
                return found
        return self.emit(eqn, refused_name(name, eqn) or name, inputs, source)

    def emit(
        self, eqn: Any, name: str, inputs: tuple[int, ...], source: Source
    ) -> list[int]:
        """Write one equation, unless it is known already or can be computed."""
        ordered = inputs
        if name in _COMMUTATIVE and self.shapes[inputs[0]] == self.shapes[inputs[1]]:
            ordered = tuple(sorted(inputs))
        key = (name, ordered, hashable_params(eqn.params))
        if key[-1] is not None and key in self.known:
            return list(self.known[key])
        outputs = self.fold(eqn, name, inputs)
        if outputs is None:
            outputs = [self.new_value(variable.aval) for variable in eqn.outvars]
            self.append(
                Equation(
                    name,
                    eqn.params,
                    ordered,
                    tuple(outputs),
                    source,
                    eqn.primitive.bind,
                )
            )
        if key[-1] is not None:
            self.known[key] = tuple(outputs)
        return outputs

    def append(self, equation: Equation) -> None:
        """Add an equation, with its dtypes."""
        given, made = (
            tuple(self.dtypes[number] for number in numbers)
            for numbers in (equation.inputs, equation.outputs)
        )
        equation = equation._replace(
            dtype=made[0] if made else None, dtypes=made, input_dtypes=given
        )
        strange = [dtype for dtype in (*given, *made) if not dtypes.is_readable(dtype)]
        if strange:
            name = f"{equation.primitive} on {strange[0]}"
            equation = equation._replace(primitive=name)
        if len(self.equations) >= loops.MAX_EQUATIONS:
            raise Untraceable(
                f"{equation.source}: the program has more than {loops.MAX_EQUATIONS} "
                "equations when loops are unrolled"
            )
        self.equations.append(equation)
        self.writers.update(dict.fromkeys(equation.outputs, equation))

    def make(
        self, name: str, inputs: tuple[int, ...], aval: Any, source: Source, **params
    ) -> int:
        """Write an equation of our own (slices and stacks of unrolled scans)."""
        return self.make_all(name, inputs, [aval], source, **params)[0]

    def make_all(
        self,
        name: str,
        inputs: tuple[int, ...],
        avals: Sequence[Any],
        source: Source,
        **params: Any,
    ) -> tuple[int, ...]:
        """Write an equation of our own with several outputs."""
        numbers = tuple(map(self.new_value, avals))
        self.append(Equation(name, params, inputs, numbers, source, None))
        return numbers

    def fold(self, eqn: Any, name: str, inputs: tuple[int, ...]) -> list[int] | None:
        """Compute what is exact; None where an input is not known, or it is not."""
        known = {**self.constants, **self.keys} if self.keys else self.constants
        if not all(number in known for number in inputs):
            return None
        results = folded(name, eqn, [known[number] for number in inputs])
        return None if results is None else list(map(self.constant, results))

    # -------------------------------------------------------------------- calls
    def cast(self, eqn: Any, number: int, source: Source) -> int | None:
        """Read a cast between real dtypes as the identity, where that is exact."""
        old, new = self.dtypes[number], eqn.params["new_dtype"]
        if not (dtypes.is_readable(old) and dtypes.is_readable(new)):
            return None
        if old == new:
            return number
        if number in self.constants and dtypes.is_widening(old, new):
            return self.constant(self.constants[number].astype(new))
        if dtypes.is_boolean(old) and dtypes.is_integer(new):
            folded = self.emit(eqn, "convert_element_type", (number,), source)[0]
            self.bool_behind[folded] = number
            return folded
        if not (dtypes.is_float(old) and dtypes.is_float(new)):
            return None
        if not dtypes.is_widening(old, new):
            before = self.narrowed.get(number, new)
            is_less = jnp.finfo(new).eps >= jnp.finfo(before).eps
            self.narrowed[number] = new if is_less else before
            self.assumptions[
                f"{source}: a cast from {old} to {new} is read without its rounding"
            ] = None
        return number

    def call(
        self, eqn: Any, name: str, inputs: tuple[int, ...], source: Source
    ) -> list[int]:
        body = eqn.params[_CALLS[name]]
        atom = atoms.recognise(eqn, body)
        if atom is not None:
            key = (atom, inputs)
            if key not in self.known:
                self.assumptions[
                    f"`{atom}` is the exact function; "
                    "jax's code for it was not examined"
                ] = None
                names = ("slogdet_sign", atom) if atom == "slogdet" else (atom,)
                self.known[key] = tuple(
                    self.make(name, inputs, variable.aval, source)
                    for name, variable in zip(names, eqn.outvars, strict=True)
                )
            return list(self.known[key])
        if name.startswith("custom_") and not is_of_jax(body):
            called = eqn.params.get("name") or getattr(body, "name", "")
            self.rules_of_ad[f"{source} {name} {called}".rstrip()] = None
        return self.inline(body, inputs, source)

    def solve(self, eqn: Any, inputs: tuple[int, ...], source: Source) -> list[int]:
        """Inline the program that solves: it is what runs, whatever it claims."""
        lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
        before = lengths.matvec + lengths.vecmat
        after = before + lengths.solve + lengths.transpose_solve
        given = (*inputs[before : before + lengths.solve], *inputs[after:])
        self.rules_of_ad[f"{source} custom_linear_solve"] = None
        solution = self.inline(jaxprs.solve, given, source)
        if len(solution) != len(eqn.outvars):
            raise Untraceable(f"{source}: a `custom_linear_solve` that is not read")
        return solution

    def is_maximum(self, number: int) -> bool:
        """Whether a value is a maximum, which stable forms subtract and add again."""
        for _ in range(8):
            equation = self.writers.get(number)
            if equation is None:
                return False
            if equation.primitive in ("max", "reduce_max", "cummax"):
                return True
            is_choice = equation.primitive == "select_n"
            if not (is_choice or equation.primitive in STRUCTURAL):
                return False
            number = equation.inputs[-1 if is_choice else 0]
        return False

    def first_of_truths(
        self, eqn: Any, inputs: tuple[int, ...], source: Source
    ) -> int | None:
        """Read a choice by the first of several truths as nested choices of two.

        The argmax of booleans is the place of the first that is true, or 0.
        """
        index, cases = self.writers.get(inputs[0]), inputs[1:]
        if index is None or index.primitive != "argmax":
            return None
        truths = self.writers.get(index.inputs[0])
        if truths is None or truths.primitive != "stack" or len(cases) < 2:
            return None
        axes = tuple(index.params["axes"]), truths.params.get("axis")
        is_boolean = all(map(dtypes.is_boolean, truths.input_dtypes))
        if axes != ((0,), 0) or not is_boolean or len(truths.inputs) != len(cases):
            return None
        chosen = cases[0]
        for truth, case in reversed(list(zip(truths.inputs, cases, strict=True))):
            if self.shapes[truth] != self.shapes[case]:
                return None
            chosen = self.make(
                "select_n", (truth, chosen, case), eqn.outvars[0].aval, source
            )
        return chosen

    def cond(self, eqn: Any, inputs: tuple[int, ...], source: Source) -> list[int]:
        """Inline the branch of a known index; else select among all of them."""
        branches = eqn.params["branches"]
        which, operands = inputs[0], inputs[1:]
        if which in self.constants:
            taken = int(np.clip(int(self.constants[which]), 0, len(branches) - 1))
            return self.inline(branches[taken], operands, source)
        results = [self.inline(branch, operands, source) for branch in branches]
        which = self.bool_behind.get(which, which)
        return [
            self.make("select_n", (which, *cases), variable.aval, source)
            for variable, *cases in zip(eqn.outvars, *results, strict=True)
        ]
