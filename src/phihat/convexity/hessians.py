r"""The second derivative of a loss on many boxes at once: one rule for each primitive.

Equations run in order, each for all boxes. A box on which something cannot be told is
*undecided*: a comparison, jump or cast that may change within the closed box (or where
it touches it), an argument that is not proved inside of a domain. A primitive without a
rule stops the reading, by name.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity.problem import pose
  >>> problem = pose("doctest", lambda w: jnp.sum(jnp.cosh(w)), jnp.zeros(2))
  >>> low, high = np.array([[-1.0, -1.0]]), np.array([[1.0, 0.0]])
  >>> bounds = second_derivatives(Outline(problem), low, high)
  >>> bounds.lower.contains(np.eye(2)).all().item()  # the least cosh'' is 1
  True
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity import derivatives
from phihat.convexity import intervals as iv
from phihat.convexity import jet_arithmetic as jets
from phihat.convexity.affine import Affine, Outline
from phihat.convexity.derivatives import SMOOTH, Derivatives
from phihat.convexity.evaluate import VALUE_RULES
from phihat.convexity.intervals import Interval
from phihat.convexity.jets import (
    Jet,
    Ridge,
    concatenate,
    constant,
    lift,
    range_of,
    select,
    sum_groups,
)
from phihat.convexity.places import (
    moved_places,
    paired_places,
    places_along,
    spread_places,
)
from phihat.convexity.program import Equation
from phihat.convexity.report import Blame
from phihat.convexity.structure import STRUCTURAL, group_of_updates
from phihat.convexity.values.extended import Extended

__all__ = ["Blocked", "Bounds", "second_derivatives"]

_MOST_PARTS = 32
_ENTRIES_A_PASS = 60_000


class Blocked(Exception):
    """An equation cannot be read on any box; `blame` says which."""

    def __init__(self, equation: Equation, reason: str) -> None:
        """Keep the equation's line and the reason."""
        self.blame = Blame(str(equation.source), equation.primitive, reason)
        super().__init__(str(self.blame))


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What is known of the second derivative on C boxes.

    Attributes:
      lower: Loewner bounds from below `[C, n, n]`, as `jets` defines them.
      upper: likewise from above.
      is_convex: whether the loss is convex for structural reasons `[C]`.
      is_concave: likewise.
      is_decided: where False `[C]`, nothing is known of that box.
      blame: why, for some box that is not decided.
    """

    lower: Interval
    upper: Interval
    is_convex: np.ndarray
    is_concave: np.ndarray
    is_decided: np.ndarray
    blame: Blame | None


def second_derivatives(outline: Outline, low: np.ndarray, high: np.ndarray) -> Bounds:
    """Bound the second derivative on boxes.

    Args:
      outline: the program, read once.
      low: lower ends of the boxes `[C, n]`.
      high: upper ends `[C, n]`; equal to `low` for points.

    Raises:
      Blocked: an equation has no rule.
      TooLarge: some value's Hessians do not fit in memory.
    """
    run = _Run(outline, Interval(low, high))
    for equation in outline.equations:
        run.step(equation)
    loss = run.read(outline.program.output)
    jet = lift(loss, run.slopes)
    cells = low.shape[0]
    lower, upper = (
        iv.rearrange(lambda end: np.broadcast_to(end, (cells, *end.shape[1:])), bound)
        for bound in (jet.lower[:, 0], jet.upper[:, 0])
    )
    return Bounds(
        lower,
        upper,
        np.broadcast_to(jet.is_convex[:, 0], cells) & run.is_decided,
        np.broadcast_to(jet.is_concave[:, 0], cells) & run.is_decided,
        run.is_decided,
        run.blame,
    )


class _Run:
    """One pass over the equations, for all boxes at once."""

    def __init__(self, outline: Outline, box: Interval) -> None:
        self.outline = outline
        self.program = outline.program
        cells, size = box.shape
        self.is_decided = np.ones(cells, bool)
        self.blame: Blame | None = None
        self.values: dict[int, Ridge | Jet] = {}
        self.slopes = iv.rearrange(
            lambda end: np.concatenate([end, np.zeros((1, size))]), outline.slopes
        )
        self.scalars = self._in_parts(box)

    def _in_parts(self, box: Interval) -> Interval:
        """Enclose all scalars on all boxes, cut into closed parts `[C, M + 1, K]`."""
        outline, (cells, size) = self.outline, box.shape
        sums = iv.matmul(outline.slopes[size:], box.transpose()).transpose()
        sums = iv.add(sums, outline.offsets[size:])
        zeros = np.zeros((cells, 1))
        low, high = (
            np.concatenate([*ends, zeros], axis=1)[..., None]
            for ends in zip(box, sums, strict=True)
        )
        room = _ENTRIES_A_PASS // max(low.size, 1)
        count = 1 if np.array_equal(low, high) else min(max(room, 4), _MOST_PARTS)
        with np.errstate(all="ignore"):
            edges = low + (high - low) * (np.arange(count + 1) / count)
        edges = np.where(np.isfinite(edges), np.clip(edges, low, high), high)
        edges = np.maximum.accumulate(edges, axis=-1)
        edges[..., :1], edges[..., -1:] = low, high
        return Interval(edges[..., :-1], edges[..., 1:])

    def read(self, number: int) -> Ridge | Jet:
        if number not in self.values:
            if number in self.outline.affine:
                self.values[number] = self.ridge(self.outline.affine[number])
            else:
                found = self.outline.constant(number)
                assert found is not None
                self.values[number] = constant(Interval(*found).reshape(1, -1))
        return self.values[number]

    def ridge(self, affine: Affine) -> Ridge:
        """Return elements a u + b as functions of u: they have a slope and no bend."""
        gain, offset = (x.reshape(1, -1, 1) for x in (affine.gain, affine.offset))
        value = iv.add(iv.mul(gain, self.scalars[:, affine.rows]), offset)
        return Ridge(affine.rows, value, gain, iv.mul(0.0, gain))

    def step(self, equation: Equation) -> None:
        for number in equation.inputs:
            found = self.outline.constant(number)
            if isinstance(found, Extended) and equation.primitive != "select_n":
                raise Blocked(equation, "it takes a constant that is not finite")
        rule = _RULES.get(equation.primitive)
        if equation.primitive in STRUCTURAL:
            rule = _structural
        if rule is None:
            raise Blocked(equation, "there is no rule for its second derivative")
        with np.errstate(all="ignore"):
            results = rule(self, equation, [self.read(n) for n in equation.inputs])
        results = results if isinstance(results, list) else [results]
        self.values.update(zip(equation.outputs, results, strict=True))

    def require(self, holds: np.ndarray, equation: Equation, reason: str) -> None:
        """Give up the boxes `[C or 1, ...]` on which something may not hold."""
        holds = holds.reshape(holds.shape[0], -1).all(1)
        if not holds.all():
            self.is_decided = self.is_decided & holds
            if self.blame is None:
                blocked = Blocked(equation, reason)
                self.blame = blocked.blame

    def spread(self, equation: Equation, inputs: Sequence[Any]) -> list[Any]:
        """Broadcast the inputs of an elementwise equation."""
        shape = self.program.shapes[equation.outputs[0]]
        return [
            x
            if self.program.shapes[number] == shape
            else x.take(spread_places(self.program.shapes[number], shape))
            for number, x in zip(equation.inputs, inputs, strict=True)
        ]


_Rule = Callable[[_Run, Equation, list[Any]], Any]


# ------------------------------------------------------------------ smooth functions


def _apply(
    run: _Run,
    equation: Equation,
    x: Ridge | Jet,
    inside: np.ndarray,
    fn: Callable[[Interval], Derivatives],
    *,
    safe: float = 0.5,
) -> Ridge | Jet:
    """Compose; boxes on which the argument may leave the open domain are given up."""
    run.require(inside, equation, "its argument is not proved inside of its domain")
    return jets.compose(x, lambda value: fn(iv.where(inside, value, safe)))


def _smooth(name: str) -> _Rule:
    def rule(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        return _named(run, equation, name, inputs[0])

    return rule


def _named(run: _Run, equation: Equation, name: str, x: Ridge | Jet) -> Ridge | Jet:
    inside = derivatives.is_inside(name, x.value)
    safe = derivatives.SAFE.get(name, 0.5)
    return _apply(run, equation, x, inside, SMOOTH[name], safe=safe)


def _whole_power(run: _Run, equation: Equation, x: Ridge | Jet, n: int) -> Ridge | Jet:
    inside = np.ones(x.value.shape, bool)
    if n < 0:
        inside = (x.value.low > 0) | (x.value.high < 0)
    return _apply(run, equation, x, inside, lambda v: derivatives.whole_power(v, n))


def _integer_pow(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    return _whole_power(run, equation, inputs[0], int(equation.params["y"]))


def _pow(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Raise to a power: a whole one as such, else for x > 0, by exp(y log x)."""
    x, y = run.spread(equation, inputs)
    if isinstance(y, Ridge) and y.rows is None:
        exponent = range_of(y)
        first = float(exponent.low.flat[0]) if exponent.size else 1.0
        is_whole = first == np.rint(first) and abs(first) < 2**31
        if (
            is_whole
            and (exponent.low == first).all()
            and (exponent.high == first).all()
        ):
            return _whole_power(run, equation, x, int(first))
        wide = exponent[..., None] if isinstance(x, Ridge) else exponent
        power = functools.partial(derivatives.power, exponent=wide)
        return _apply(run, equation, x, x.value.low > 0, power)
    logarithm = _named(run, equation, "log", x)
    return _named(run, equation, "exp", jets.product(y, logarithm, run.slopes))


def _logaddexp(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take y + log(1 + exp(x - y))."""
    x, y = run.spread(equation, inputs)
    return jets.total(
        y,
        _named(run, equation, "softplus", _difference(run, equation, x, y)),
        run.slopes,
    )


def _times_log(name: str) -> _Rule:
    """Take x log y or x log(1 + y), which is 0 where x is the constant 0."""

    def rule(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        x, y = run.spread(equation, inputs)
        inside = derivatives.is_inside(name, y.value)
        if isinstance(x, Ridge) and x.rows is None:
            is_zero = (range_of(x).low == 0) & (range_of(x).high == 0)
            inside = inside | (is_zero[..., None] if isinstance(y, Ridge) else is_zero)
        logarithm = _apply(run, equation, y, inside, SMOOTH[name])
        return jets.product(x, logarithm, run.slopes)

    return rule


def _rel_entr(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take x (log x - log y), for x, y > 0."""
    x, y = run.spread(equation, inputs)
    one, other = (_named(run, equation, "log", z) for z in (x, y))
    ratio = jets.total(one, jets.negative(other), run.slopes)
    return jets.product(x, ratio, run.slopes)


def _kl_div(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take x (log x - log y) - x + y."""
    x, y = run.spread(equation, inputs)
    shift = jets.total(y, jets.negative(x), run.slopes)
    return jets.total(_rel_entr(run, equation, inputs), shift, run.slopes)


# ---------------------------------------------------------------- arithmetic, kinks


def _add(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    return jets.total(*run.spread(equation, inputs), run.slopes)


def _neg(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    return jets.negative(inputs[0])


def _sub(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Subtract; a value minus itself is 0."""
    x, y = run.spread(equation, inputs)
    if equation.inputs[0] == equation.inputs[1]:
        return constant(iv.from_array(np.zeros((1, x.value.shape[1]))))
    return jets.total(x, jets.negative(y), run.slopes)


def _mul(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Multiply; a value times itself is its square."""
    if equation.inputs[0] == equation.inputs[1]:
        return _whole_power(run, equation, inputs[0], 2)
    return jets.product(*run.spread(equation, inputs), run.slopes)


def _div(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    x, y = run.spread(equation, inputs)
    return jets.product(x, _whole_power(run, equation, y, -1), run.slopes)


def _difference(run: _Run, equation: Equation, x: Any, y: Any) -> Ridge | Jet:
    """Take x - y, as one scalar where x and y are affine."""
    number = equation.outputs[0]
    if number in run.outline.differences:
        return run.ridge(run.outline.differences[number])
    return jets.total(x, jets.negative(y), run.slopes)


def _max(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take max(x, y), for affine ones as y + max(x - y, 0)."""
    x, y = run.spread(equation, inputs)
    if equation.outputs[0] not in run.outline.differences:
        return jets.maximum(x, y, run.slopes)
    return jets.total(y, _excess(run, equation, x, y), run.slopes)


def _min(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take min(x, y), for affine ones as x - max(x - y, 0)."""
    x, y = run.spread(equation, inputs)
    if equation.outputs[0] not in run.outline.differences:
        return jets.minimum(x, y, run.slopes)
    return jets.total(x, jets.negative(_excess(run, equation, x, y)), run.slopes)


def _excess(run: _Run, equation: Equation, x: Any, y: Any) -> Ridge | Jet:
    zero = constant(iv.from_array(np.zeros((1, x.value.shape[1]))))
    return jets.maximum(_difference(run, equation, x, y), zero, run.slopes)


def _abs(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    return jets.maximum(inputs[0], jets.negative(inputs[0]), run.slopes)


def _clamp(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    low, x, high = run.spread(equation, inputs)
    return jets.minimum(jets.maximum(x, low, run.slopes), high, run.slopes)


# --------------------------------------------------------------- jumps and choices


def _jump(jumps_at: Callable[[np.ndarray], np.ndarray]) -> _Rule:
    """Make a rule of a step function: constant on boxes that no jump touches."""

    def rule(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        value = range_of(inputs[0])
        (stepped,) = VALUE_RULES[equation.primitive](equation, [value])
        if isinstance(inputs[0], Jet) or inputs[0].rows is not None:
            touches = jumps_at(value.low) | jumps_at(value.high)
            is_flat = (stepped.low == stepped.high) & ~touches
            run.require(is_flat, equation, "it may jump within the box")
        return constant(stepped)

    return rule


def _is_whole(x: np.ndarray) -> np.ndarray:
    return np.rint(x) == x


def _convert(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Cast: to integers a jump at each of them, and to booleans one at 0."""
    dtype = np.dtype(equation.params["new_dtype"])
    if dtype.kind == "b":
        return _jump(lambda x: x == 0)(run, equation, inputs)
    if dtype.kind not in "iu":
        if isinstance(inputs[0], Ridge) and inputs[0].rows is None:
            return _logic(run, equation, inputs)
        raise Blocked(equation, f"a cast to {dtype} rounds")
    return _jump(_is_whole)(run, equation, inputs)


def _comparison(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Compare; what depends on params must be apart on all of the closed box."""
    name = equation.primitive
    x, y = run.spread(equation, inputs)
    if all(isinstance(z, Ridge) and z.rows is None for z in (x, y)):
        return _logic(run, equation, inputs)
    if equation.inputs[0] == equation.inputs[1]:  # a finite number equals itself
        holds = np.full((1, x.value.shape[1]), name in ("eq", "le", "ge"))
        return constant(iv.from_array(holds))
    one, other = range_of(x), range_of(y)
    below, above = one.high < other.low, one.low > other.high
    run.require(below | above, equation, "it may change within the box")
    holds = {"lt": below, "le": below, "gt": above, "ge": above}.get(name)
    if holds is None:
        holds = np.full(below.shape, name == "ne")
    return constant(iv.from_array(holds))


def _logic(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Combine what is constant on each box, by the rules of values."""
    inputs = run.spread(equation, inputs)
    if not all(isinstance(x, Ridge) and x.rows is None for x in inputs):
        raise Blocked(equation, "there is no rule for its second derivative")
    ranges = [Interval(*range_of(x)) for x in inputs]
    (result,) = VALUE_RULES[equation.primitive](equation, ranges)
    return constant(result)


def _is_finite(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    value = range_of(inputs[0])
    is_finite = np.isfinite(value.low) & np.isfinite(value.high)
    run.require(is_finite, equation, "its argument may not be finite")
    return constant(iv.from_array(np.ones(value.shape)))


def _select(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Choose by a condition that is constant on the box."""
    which, *cases = run.spread(equation, inputs)
    if isinstance(which, Jet) or which.rows is not None:
        raise Blocked(equation, "its condition is not read")
    condition = range_of(which)
    run.require(
        condition.low == condition.high, equation, "its condition may change in the box"
    )
    chosen = np.clip(condition.low, 0, len(cases) - 1).astype(int)
    shape = run.program.shapes[equation.outputs[0]]
    for position, number in enumerate(equation.inputs[1:]):
        found = run.outline.constant(number)
        if isinstance(found, Extended):
            given = run.program.shapes[number]
            marked = found.kind.reshape(-1)[spread_places(given, shape)] != 0
            if np.any((chosen == position) & marked):
                raise Blocked(equation, "it chooses a constant that is not finite")
    return select(chosen, cases, run.slopes)


# ---------------------------------------------------------- moves and reductions


def _structural(run: _Run, equation: Equation, inputs: list[Any]) -> list[Ridge | Jet]:
    shapes = [run.program.shapes[number] for number in equation.inputs]
    constants = [run.outline.constant(number) for number in equation.inputs]
    places = moved_places(equation, shapes, constants)
    if places is None:
        raise Blocked(equation, "an index depends on params, or lies out of range")
    pool = concatenate(inputs, run.slopes)
    return [pool.take(place) for place in places]


def _reduce_sum(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    shape = run.program.shapes[equation.inputs[0]]
    places = places_along(shape, equation.params["axes"])
    return sum_groups(inputs[0], places, run.slopes)


def _dot_general(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    shapes = [run.program.shapes[number] for number in equation.inputs]
    places = paired_places(*shapes, equation.params["dimension_numbers"])
    x, y = (z.take(place.reshape(-1)) for z, place in zip(inputs, places, strict=True))
    products = jets.product(x, y, run.slopes)
    numbers = np.arange(places[0].size).reshape(places[0].shape)
    return sum_groups(products, numbers, run.slopes)


def _folded(combine: Callable[..., Ridge | Jet]) -> _Rule:
    """Make a rule of a reduction by pairs, as a balanced tree."""

    def rule(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        shape = run.program.shapes[equation.inputs[0]]
        places = places_along(shape, equation.params["axes"])
        groups, length = places.shape
        x = inputs[0].take(places.T.reshape(-1))
        while length > 1:
            half = length // 2 * groups
            one, other = x.take(np.arange(half)), x.take(np.arange(half, 2 * half))
            rest = x.take(np.arange(2 * half, length * groups))
            x = concatenate([combine(one, other, run.slopes), rest], run.slopes)
            length -= length // 2
        return x

    return rule


def _accumulated(combine: Callable[..., Ridge | Jet]) -> _Rule:
    """Make a rule of a cumulative operation, step by step along its axis."""

    def rule(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        shape = run.program.shapes[equation.inputs[0]]
        places = places_along(shape, (equation.params["axis"],))
        order = places[:, ::-1] if equation.params["reverse"] else places
        steps = [inputs[0].take(column) for column in order.T]
        for position in range(1, len(steps)):
            steps[position] = combine(steps[position - 1], steps[position], run.slopes)
        where_to = np.empty(order.size, int)
        where_to[order.T.reshape(-1)] = np.arange(order.size)
        return concatenate(steps, run.slopes).take(where_to)

    return rule


def _scatter_add(run: _Run, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Add to each element of the operand the updates that go there."""
    operand, _, updates = inputs
    indices = run.outline.constant(equation.inputs[1])
    if indices is None or not np.array_equal(*indices):
        raise Blocked(equation, "an index depends on params")
    given, shape = (run.program.shapes[equation.inputs[k]] for k in (0, 2))
    targets = group_of_updates(equation, given, indices.low.astype(int), shape)
    targets = targets.reshape(-1)
    size, none = operand.value.shape[1], np.array([0])
    zero = constant(iv.from_array(np.zeros((1, 1))))
    pool = concatenate([operand, updates, zero], run.slopes)
    groups = [
        np.append(none + e, size + np.flatnonzero(targets == e)) for e in range(size)
    ]
    places = np.full((size, max(map(len, groups), default=1)), pool.value.shape[1] - 1)
    for row, group in zip(places, groups, strict=True):
        row[: len(group)] = group
    return sum_groups(pool, places, run.slopes)


_RULES: dict[str, _Rule] = {
    **{name: _smooth(name) for name in SMOOTH},
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _comparison),
    **dict.fromkeys(("and", "or", "not", "xor"), _logic),
    "abs": _abs,
    "add": _add,
    "add_any": _add,
    "ceil": _jump(_is_whole),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "cummax": _accumulated(jets.maximum),
    "cummin": _accumulated(jets.minimum),
    "cumprod": _accumulated(jets.product),
    "cumsum": _accumulated(jets.total),
    "div": _div,
    "dot_general": _dot_general,
    "floor": _jump(_is_whole),
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "kl_div": _kl_div,
    "logaddexp": _logaddexp,
    "max": _max,
    "min": _min,
    "mul": _mul,
    "neg": _neg,
    "pow": _pow,
    "reduce_max": _folded(jets.maximum),
    "reduce_min": _folded(jets.minimum),
    "reduce_prod": _folded(jets.product),
    "reduce_sum": _reduce_sum,
    "rel_entr": _rel_entr,
    "round": _jump(lambda x: _is_whole(2 * x) & ~_is_whole(x)),
    "scatter-add": _scatter_add,
    "scatter_add": _scatter_add,
    "select_n": _select,
    "sign": _jump(lambda x: x == 0),
    "sub": _sub,
    "xlog1py": _times_log("log1p"),
    "xlogy": _times_log("log"),
}
