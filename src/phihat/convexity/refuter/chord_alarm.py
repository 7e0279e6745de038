"""The alarm: the user's own function, tried on chords before a proof is handed out.

It is never evidence of convexity. It guards against a program that was misread: the
function runs as it is, in its own dtypes and under the user's configuration, and where
it rises above a chord by more than the rounding of its three values can explain, the
verdict is taken back. The rounding is bounded by a running error analysis; a chord
without such a bound raises no alarm, and a lint says so.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.convexity.numbers import dtypes as floats
from phihat.convexity.program.problem import Problem
from phihat.convexity.refuter import chords
from phihat.convexity.refuter.rounding_errors import Unbounded, value_and_error
from phihat.convexity.report import ConvexityReport, Verdict, Witness

__all__ = ["Alarm", "contradicts", "guarded", "try_chords"]

_LEAST = 8
"""So many chords are tried whatever they cost."""

_WANTED = 300
_MAX_AXES = 4096
"""Each coordinate has a chord of its own, up to this many."""

_ENTRIES = 1 << 22
"""Numbers in flight for one value of the program, above the least number of chords."""

_MAX_ANALYSED = 1 << 24
"""Programs with larger values are not analysed, so they raise no alarm."""

_SUSPECTS = 6
"""The worst chords of each sign, on which rounding is analysed."""

_JUDGING = 1.0
"""Seconds for that; where they are over, only what was analysed is judged."""


class Alarm(NamedTuple):
    """What the chords say.

    Attributes:
      num_chords: how many chords had three finite values.
      witness: a chord that rounding cannot explain, or None.
      sign: 1 where the function rises above it, -1 where it sinks below.
      lint: a sentence on what rounding hides, or None.
    """

    num_chords: int = 0
    witness: Witness | None = None
    sign: int = 1
    lint: str | None = None


_tried: dict[Any, Alarm] = {}
"""What was found of a statement before, by its digest."""


def guarded(
    report: ConvexityReport,
    problem: Problem,
    loss_fn: Callable[..., Any],
    data: Any,
    seconds: float,
) -> ConvexityReport:
    """Return the report with the number of chords; without its verdict on an alarm.

    Args:
      report: what was proved or certified; others are returned as they are.
      problem: the question.
      loss_fn: the user's function.
      data: as the user gave it.
      seconds: how long more chords than the least number may take.
    """
    verdict = report.verdict
    if not verdict.is_convex and verdict is not Verdict.PROVED_CONCAVE:
        return report
    key = (report.statement, verdict, bool(jax.config.read("jax_enable_x64")))
    if key not in _tried:
        if len(_tried) >= 256:
            _tried.pop(next(iter(_tried)))
        _tried[key] = try_chords(problem, loss_fn, data, _CLAIMS[verdict], seconds)
    alarm = _tried[key]
    if alarm.witness is None:
        lints = report.lints + ((alarm.lint,) if alarm.lint else ())
        return dataclasses.replace(report, num_chords=alarm.num_chords, lints=lints)
    reason = _warn(problem, f"it was {verdict.value}", alarm, alarm.witness)
    return ConvexityReport(
        Verdict.UNDECIDED,
        report.scope,
        reason=reason,
        witness=alarm.witness,
        assumptions=report.assumptions,
        num_chords=alarm.num_chords,
    )


def contradicts(
    problem: Problem,
    loss_fn: Callable[..., Any],
    data: Any,
    bounds: tuple[float, float],
    seconds: float,
) -> bool:
    r"""Tell, with a warning, whether the function itself breaks bounds of curvature.

    Args:
      problem: the question; its domain is where they were certified.
      loss_fn: the user's function.
      data: as the user gave it.
      bounds: $(\mu, L)$ of the Hessian's eigenvalues; an infinite one says nothing.
      seconds: how long more chords than the least number may take.
    """
    signed = zip((1, -1), bounds, strict=True)
    claims = {sign: float(bound) for sign, bound in signed if math.isfinite(bound)}
    if not claims:
        return False
    alarm = try_chords(problem, loss_fn, data, claims, seconds)
    if alarm.witness is None:
        return False
    mu, ceiling = bounds
    _warn(problem, f"curvatures were {mu:.4g} to {ceiling:.4g}", alarm, alarm.witness)
    return True


def _warn(problem: Problem, claim: str, alarm: Alarm, witness: Witness) -> str:
    how = "above" if alarm.sign > 0 else "below"
    reason = (
        f"{claim}, but the function itself lies {how} a chord by {witness.gap:.3g}, "
        "more than rounding explains: the program was misread, which is a bug of this "
        "library; please report it"
    )
    _checks.warn(f"{problem.call}: {reason}.", RuntimeWarning)
    return reason


_CLAIMS: dict[Verdict, dict[int, float]] = {
    Verdict.PROVED_CONVEX: {1: 0.0},
    Verdict.PROVED_AFFINE: {1: 0.0, -1: 0.0},
    Verdict.PROVED_CONCAVE: {-1: 0.0},
    Verdict.CERTIFIED_ON_BOX: {1: 0.0},
}
"""By the sign of a gap, the least curvature (1) or the greatest (-1) of a verdict."""


def try_chords(
    problem: Problem,
    loss_fn: Callable[..., Any],
    data: Any,
    claims: Mapping[int, float],
    seconds: float,
) -> Alarm:
    """Evaluate the user's function on chords, and judge what it shows.

    With a curvature >= c the middle of a chord from m - s to m + s lies c |s|^2 / 2
    below it at least; with one <= c, at most.
    """
    function = _Function(problem, loss_fn, data)
    if function.is_broken:
        return Alarm()
    suspects, sizes, count = _suspects(function, claims, seconds)
    usual = float(np.median(np.concatenate(sizes))) if count else 0.0
    lint, deadline = None, time.monotonic() + _JUDGING
    for rank, suspect in enumerate(suspects):
        if rank and time.monotonic() > deadline:
            break
        _, sign, middle, step, values = suspect
        sag = claims[sign] * float(step @ step) / 2
        gap = sign * float(values[0] - (values[1] / 2 + values[2] / 2) + sag)
        try:
            bound = _bound(problem, function, middle, step, deadline)
        except Unbounded as error:
            lint = (
                f"what rounding does is not bounded ({error}), so that a gap of "
                f"{gap:.2g} on a chord was not judged"
            )
            continue
        bound += (4 + step.size) * 2.0**-52 * abs(sag)
        if gap > bound:
            witness = Witness(
                function.params_of(middle - step),
                function.params_of(middle + step),
                0.5,
                gap - bound,
                False,
                (float(values[1]), float(values[0]), float(values[2])),
            )
            return Alarm(count, witness, sign)
        if gap > 1e-3 * usual:
            lint = (
                f"{function.narrowest} hides the curvature here: by rounding alone the "
                f"loss lies off a chord by {gap:.2g}"
            )
    return Alarm(count, lint=lint)


class _Suspect(NamedTuple):
    """A chord from middle - step to middle + step that breaks a claim, it seems.

    Attributes:
      excess: its gap over the rounding of its three values.
      sign: of the gap.
      middle: [P].
      step: [P].
      values: in the middle, at middle - step and at middle + step.
    """

    excess: float
    sign: int
    middle: np.ndarray
    step: np.ndarray
    values: np.ndarray


def _suspects(
    function: "_Function", claims: Mapping[int, float], seconds: float
) -> tuple[list[_Suspect], list[np.ndarray], int]:
    """Return the worst chords, the sizes of all values, and the number of chords."""
    begin = time.monotonic()
    suspects: list[_Suspect] = []
    count, sizes = 0, []
    batches = _batches(function.space, function.precision, function.batch_size)
    for middle, step in batches:
        try:
            values = function(middle, step)
        except Exception:  # the user's own, or no memory: the alarm has no say
            break
        usable = np.isfinite(values).all(axis=0)
        count += int(usable.sum())
        sizes.append(np.abs(values[:, usable]).reshape(-1))
        with np.errstate(all="ignore"):
            gap = values[0] - (values[1] / 2 + values[2] / 2)
            noise = 2 * function.unit * np.abs(values).sum(axis=0)
            squares = (step * step).sum(axis=1) / 2
            for sign, c in claims.items():
                over = sign * (gap + c * squares)
                excess = np.where(usable & (over > noise), over / noise, 0.0)
                suspects += [
                    _Suspect(float(excess[k]), sign, middle[k], step[k], values[:, k])
                    for k in np.argsort(-excess)[:_SUSPECTS]
                    if excess[k] > 0
                ]
        if count >= _LEAST and time.monotonic() - begin > seconds:
            break
    suspects.sort(key=lambda suspect: -suspect.excess)
    return suspects[:_SUSPECTS], sizes, count


def _bound(
    problem: Problem,
    function: "_Function",
    middle: np.ndarray,
    step: np.ndarray,
    deadline: float,
) -> float:
    """Bound what rounding may do to a gap: the bounds of its three values."""
    if function.largest > _MAX_ANALYSED:
        raise Unbounded("a value of too many numbers")
    errors = []
    try:
        for point in (middle, middle - step, middle + step):
            leaves = function.leaves_of(point)
            _, error = value_and_error(problem.program, leaves, function.data, deadline)
            errors.append(error)
    except (ArithmeticError, ValueError, MemoryError) as error:
        raise Unbounded("a value that was not analysed") from error
    # The gap itself is computed in float64 from the three values.
    bound = errors[0] + (errors[1] + errors[2]) / 2
    if not math.isfinite(bound):
        raise Unbounded("a value that overflows")
    return bound


class _Function:
    """The user's function, traced once more as it is, on batches of points.

    Attributes:
      data: the leaves of the data.
      dtype: the widest dtype among the free leaves, in which points are drawn.
      precision: bits of the narrowest one.
      unit: the rounding of the value's dtype.
      narrowest: the float dtype with the fewest digits in the program.
      batch_size: how many chords are evaluated at once.
      largest: the number of entries of the largest value of the program.
      space: where its chords may lie.
      is_broken: whether it cannot be run.
    """

    def __init__(self, problem: Problem, loss_fn: Any, data: Any) -> None:
        """Trace; nothing is compiled yet."""
        self.problem = problem
        low = data.low if isinstance(data, Box) else data
        args = (problem.params,) if low is None else (problem.params, low)
        self.data = jax.tree.leaves(low)
        program = problem.program
        self.is_broken = False
        try:
            with jax.disable_jit(False):
                self.closed = _traced(loss_fn, args)
        except Exception:
            self.is_broken = True
            return
        dtypes = [aval.dtype for aval in self.closed.in_avals]
        free = [d for d, f in zip(dtypes, problem.varied, strict=False) if f]
        self.precision = min(int(jnp.finfo(dtype).nmant) for dtype in free) + 1
        self.dtype = self.closed.out_avals[0].dtype
        self.unit = float(jnp.finfo(self.dtype).eps)
        kinds = [*filter(floats.is_float, program.dtypes), *program.narrowed.values()]
        self.narrowest = max(kinds, key=lambda kind: float(jnp.finfo(kind).eps))
        params = [n for n, f in zip(program.params, problem.varied, strict=True) if f]
        moving = program.dependents(params)
        self.largest = max((math.prod(program.shapes[n]) for n in moving), default=1)
        self.space = chords.space_of(problem)
        self.largest = max(self.largest, len(self.space.start))
        everything = max(map(math.prod, program.shapes), default=1)
        self.batch_size = max(_LEAST, min(_WANTED, _ENTRIES // (3 * self.largest)))
        self.largest = everything
        axes = [0 if f else None for f in problem.varied] + [None] * len(self.data)
        call = jax.extend.core.jaxpr_as_fun(self.closed)
        run = jax.vmap(lambda *leaves: call(*leaves)[0], in_axes=axes)
        self._run = chords.compiled(run, is_small=self.batch_size > _LEAST)
        self._dtypes = dtypes

    def leaves_of(self, point: np.ndarray) -> list[np.ndarray]:
        """Return the leaves of params at flat points, those that are held as given."""
        parts = zip(self.problem.cut(point), self.problem.start, self.problem.varied)  # noqa: B905
        return [
            (leaf if varies else given).astype(dtype)
            for (leaf, given, varies), dtype in zip(parts, self._dtypes, strict=False)
        ]

    def params_of(self, point: np.ndarray) -> Any:
        """Return params at a flat point."""
        return self.problem.unflatten(self.leaves_of(point))

    def __call__(self, middle: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return the values at the middles, and at both ends `[3, B]`."""
        points = np.concatenate([middle, middle - step, middle + step])
        values = self._run(*self.leaves_of(points), *self.data)
        return np.asarray(values).astype(np.float64).reshape(3, -1)


def _traced(loss_fn: Any, args: Any) -> Any:
    leaves, tree = jax.tree.flatten(args)
    return jax.make_jaxpr(lambda *flat: loss_fn(*jax.tree.unflatten(tree, flat)))(
        *leaves
    )


def _batches(
    space: chords.Space, precision: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield flat chords: half dense, half along axes."""
    rng = np.random.default_rng(0)
    free = rng.permutation(space.free)
    if not len(free):
        return
    num_axes = max(_WANTED // 2, min(len(free), _MAX_AXES))
    total, done = num_axes + _WANTED // 2, 0
    while done < total:
        count = min(size, total - done)
        middle, step = chords.dense(space, rng, count)
        # Every other chord runs along a coordinate, each in turn.
        rows = np.arange(1, count, 2)
        lengths = np.linalg.norm(step[rows], axis=1)
        step[rows] = 0.0
        turn = (done // 2 + np.arange(len(rows))) % len(free)
        step[rows, free[turn]] = lengths
        done += count
        middle, step = chords.snapped(space, middle, step, precision=precision)
        moves = (step != 0).any(axis=1)
        if count < size:  # one compiled program serves all batches
            repeats = np.arange(size) % count
            middle, step, moves = middle[repeats], step[repeats], moves[repeats]
            moves[count:] = False
        yield np.where(moves[:, None], middle, np.nan), step
