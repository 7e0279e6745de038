"""The form in which a loss is read: numbered values, written by flat equations."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Equation", "Program", "Source"]


class Source(NamedTuple):
    """Where an equation was written.

    Attributes:
      file: the file's name, without its folders.
      line: the line in it, from 1; 0 where unknown.
      function: the function around it.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Show as `file.py:12`."""
        return f"{self.file}:{self.line}" if self.line else "(unknown line)"


class Equation(NamedTuple):
    """One primitive applied to numbered values.

    Attributes:
      primitive: the name by which rules know it: that of a primitive of jax, or of an
        atom. What has no rule by its nature bears a name that no rule has.
      params: what the primitive was bound with.
      inputs: numbers of the values read.
      outputs: numbers of the values written.
      source: the line of the user's program that it stems from.
      bind: applies the primitive to concrete arrays; None for atoms.
      dtype: of the first output; integers divide, invert and overflow otherwise.
      dtypes: of all outputs.
      input_dtypes: of all inputs.
    """

    primitive: str
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: Source
    bind: Callable[..., Any] | None
    dtype: Any = None
    dtypes: tuple[Any, ...] = ()
    input_dtypes: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """A flat program: `equations` in order, over values numbered from 0.

    Attributes:
      shapes: the shape of each value.
      dtypes: the NumPy dtype of each value.
      constants: values known exactly: literals, integers, point data.
      params: the numbers of the leaves of params, in the order of `jax.tree.leaves`.
      data: the numbers of the leaves of data.
      equations: in order; each writes values that no other writes.
      outputs: the numbers of the results.
      assumptions: sentences about what was taken for granted while reading.
      rules_of_ad: the places where AD follows a rule and not the value.
      narrowed: of values that are read through a cast to fewer digits, the narrowest
        dtype.
      closed: the jaxpr as it was traced, derivative rules and all; None for a body.
    """

    shapes: list[tuple[int, ...]]
    dtypes: list[Any]
    constants: dict[int, np.ndarray]
    params: tuple[int, ...]
    data: tuple[int, ...]
    equations: list[Equation]
    outputs: tuple[int, ...]
    assumptions: tuple[str, ...]
    rules_of_ad: tuple[str, ...]
    narrowed: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    closed: Any = None

    @property
    def output(self) -> int:
        """The number of the loss."""
        return self.outputs[0]

    def producers(self) -> dict[int, Equation]:
        """Return the equation that writes each value."""
        return {
            number: equation
            for equation in self.equations
            for number in equation.outputs
        }

    def dependents(self, roots: Sequence[int]) -> set[int]:
        """Return the numbers of the values that depend on any of `roots`."""
        found = set(roots)
        for equation in self.equations:
            if not found.isdisjoint(equation.inputs):
                found.update(equation.outputs)
        return found
