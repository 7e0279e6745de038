"""What is claimed of a loss, and on what evidence."""

import dataclasses
import enum
import math
import textwrap
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core import tables as _tables

__all__ = [
    "MAX_FACTORED",
    "Blame",
    "Cell",
    "ConvexityReport",
    "Line",
    "Verdict",
    "Witness",
]

MAX_FACTORED = 32
"""That larger matrices have LU factors the independent checker takes on trust."""


class Verdict(enum.Enum):
    """The outcome of a check; the report's `scope` says where it holds.

    Example:
      >>> Verdict.REFUTED.is_convex, Verdict.PROVED_AFFINE.is_convex
      (False, True)
    """

    PROVED_CONVEX = "proved convex"
    """By the rules of the prover, everywhere in the domain."""
    PROVED_AFFINE = "proved affine"
    """Both convex and concave, everywhere in the domain."""
    PROVED_CONCAVE = "proved concave"
    """By the rules of the prover, everywhere in the domain."""
    CERTIFIED_ON_BOX = "certified convex on a box"
    """The Hessian was enclosed on the whole box, and has no negative eigenvalue."""
    REFUTED = "refuted"
    """Not convex, since the witness breaks a chord."""
    UNDECIDED = "undecided"
    """Neither proved nor refuted; the blame says what stood in the way."""

    def __bool__(self) -> bool:
        """Refuse: UNDECIDED would count as true."""
        raise TypeError(
            "A Verdict is neither true nor false: ask `verdict.is_convex`, or compare "
            "it, as in `verdict is Verdict.REFUTED`."
        )

    @property
    def is_convex(self) -> bool:
        """Whether the loss is known to be convex on the scope."""
        return self in (
            Verdict.PROVED_CONVEX,
            Verdict.PROVED_AFFINE,
            Verdict.CERTIFIED_ON_BOX,
        )


class Witness(NamedTuple):
    """Two points between which the function exceeds the straight line: not convex.

    Attributes:
      a: params at one end.
      b: params at the other.
      t: where between them, in (0, 1): at `(1 - t) a + t b`.
      gap: how far the function lies above the chord there, at least, where rigorous;
        else about; inf where it has no finite value there.
      rigorous: whether `gap > 0` holds for the real function, by interval arithmetic.
      values: the function at `a`, between, and at `b`, as floats.
    """

    a: Any
    b: Any
    t: float
    gap: float
    rigorous: bool
    values: tuple[float, float, float]

    @property
    def reason(self) -> str:
        """What it shows, in one sentence."""
        if math.isinf(self.gap):
            return (
                "the loss has finite values at two points and none midway, so that "
                "its domain is not convex"
            )
        return "the function rises above one of its chords"


class Blame(NamedTuple):
    """Where a proof was lost.

    Attributes:
      source: the line, as `file.py:12`.
      primitive: the primitive in that line.
      reason: a sentence.
    """

    source: str
    primitive: str
    reason: str

    def __str__(self) -> str:
        """Show as one sentence."""
        return f"{self.source} `{self.primitive}`: {self.reason}"


class Line(NamedTuple):
    """One line of a certificate.

    Attributes:
      number: the position of the equation in the flat program.
      primitive: what was applied.
      source: where it was written.
      rule: the rule by which its output is known.
      inputs: what was known of the inputs, as text.
      outputs: what is known of the outputs, as text.
    """

    number: int
    primitive: str
    source: str
    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_trusted(self) -> bool:
        """Whether `replay` takes it on trust: of LU factors of a large matrix."""
        if self.primitive != "lu":
            return False
        shape = self.outputs[0].partition("]")[0].strip("[").split(",")
        return len(shape) != 2 or int(shape[0]) > MAX_FACTORED


class Cell(NamedTuple):
    """One of the boxes that cover the box of a certificate.

    Attributes:
      low: the lower ends of the params, flat `[n]`.
      high: the upper ends `[n]`.
      mu: a lower bound of the Hessian's eigenvalues on it.
      L: an upper bound.
    """

    low: np.ndarray
    high: np.ndarray
    mu: float
    L: float


@dataclasses.dataclass(frozen=True)
class ConvexityReport:
    """A verdict with its evidence; printed, it fits on a slide.

    Attributes:
      verdict: the outcome.
      scope: of where it holds: the whole space, or a box, and for which data.
      reason: why, in one sentence.
      mu: a certified lower bound of the Hessian's eigenvalues on the box, or None.
      L: a certified upper bound of them, or None.
      witness: the broken chord, where refuted.
      assumptions: what was taken for granted.
      constraints: conditions on the domain that the function itself implies.
      blame: where the proof was lost, the most telling first.
      lints: where automatic differentiation and the value disagree, and what may help.
      certificate: every step of the proof, for `replay`.
      cells: the boxes of a certificate on a box, for `replay`.
      statement: a digest of the program, the domain and the data that was decided on.
      seconds: how long it took.
      num_chords: on how many chords the function itself was tried, as an alarm.

    Example:
      >>> import jax.numpy as jnp
      >>> import phihat
      >>> report = phihat.check_convexity(lambda w: jnp.sum(w**4), jnp.ones(2))
      >>> report.verdict.name, report.is_convex, report.witness
      ('PROVED_CONVEX', True, None)
    """

    verdict: Verdict
    scope: str
    reason: str = ""
    mu: float | None = None
    L: float | None = None
    witness: Witness | None = None
    assumptions: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    blame: tuple[Blame, ...] = ()
    lints: tuple[str, ...] = ()
    certificate: tuple[Line, ...] = ()
    cells: tuple[Cell, ...] = ()
    statement: str = ""
    seconds: float = 0.0
    num_chords: int = 0

    @property
    def is_convex(self) -> bool:
        """Whether the loss is known to be convex on the scope."""
        return self.verdict.is_convex

    @property
    def trusted(self) -> tuple[str, ...]:
        """What `replay` does not check by itself, but takes on trust."""
        lines = [
            f"{line.source} `{line.primitive}`: the factors of a constant matrix"
            for line in self.certificate
            if line.is_trusted
        ]
        if self.cells:
            lines.append("the enclosures of the Hessian on the boxes that cover it")
        return tuple(lines)

    def __bool__(self) -> bool:
        """Refuse: three outcomes do not fit in a boolean."""
        raise TypeError(
            "a ConvexityReport is neither true nor false: ask `report.verdict`, or "
            "`report.is_convex` for 'known to be convex'."
        )

    def __repr__(self) -> str:
        """Show the verdict and its scope."""
        return f"ConvexityReport({self.verdict.name}, scope={self.scope!r})"

    def _repr_html_(self) -> str:
        """Show the text as a table in a notebook."""
        return _tables.from_report(str(self))

    def __str__(self) -> str:
        """Write the slide."""
        scope = self.scope
        if self.constraints:  # the loss is not defined on all of the space
            scope = scope.replace("on all of", "where it is defined in", 1)
        lines = [f"{self.verdict.name.replace('_', ' ')}  {scope}"]
        if self.reason:
            lines += _wrapped("because ", self.reason)
        if self.mu is not None or self.L is not None:
            ends = " .. ".join(
                "?" if end is None else f"{end:.6g}" for end in (self.mu, self.L)
            )
            lines.append(f"  eigenvalues of the Hessian within {ends}")
        if self.witness is not None:
            lines += _witness_lines(self.witness)
        for title, entries in (
            ("where ", self.constraints),
            ("assuming ", self.assumptions),
            ("blame ", tuple(map(str, self.blame))),
            ("note ", self.lints),
        ):
            lines += _entries(title, entries)
        return "\n".join(lines)


def _entries(title: str, entries: tuple[str, ...], shown: int = 3) -> list[str]:
    lines = [line for entry in entries[:shown] for line in _wrapped(title, entry)]
    if len(entries) > shown:
        lines.append(f"  {title}... and {len(entries) - shown} more")
    return lines


def _wrapped(title: str, sentence: str) -> list[str]:
    return textwrap.wrap(
        title + sentence, 76, initial_indent="  ", subsequent_indent="    "
    )


def _witness_lines(witness: Witness) -> list[str]:
    how = "rigorously" if witness.rigorous else "in floating point"
    below, above, end = witness.values
    lines = [
        f"  a = {_short(witness.a)}   L(a) = {below:.6g}",
        f"  b = {_short(witness.b)}   L(b) = {end:.6g}",
        f"  at a + {witness.t:g} (b - a) the loss is {above:.6g}",
    ]
    if math.isfinite(witness.gap):
        lines[-1] += f", {how} above the"
        lines.append(f"    chord by {witness.gap:.3g}")
    return lines


def _short(params: Any) -> str:
    """Show a point in at most six numbers."""
    leaves = [np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(params)]
    flat = np.concatenate(leaves) if leaves else np.zeros(0)
    shown = ", ".join(f"{number:.5g}" for number in flat[:6])
    return f"[{shown}{', ...' if flat.size > 6 else ''}]"
