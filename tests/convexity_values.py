"""Every value of a flat program at many points at once, and whether facts hold there.

`values_of` is an interpreter in plain NumPy, one row a point, written apart from the
package's own. `breaches` compares what the prover claims of each element of each value
(range, sign, curvature, powers) with these rows: chords from `left` to `right` by their
middles. A breach in floats is a suspicion; `confirmed` asks for a proof by intervals.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import scipy.special as special

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import from_array
from phihat.convexity.primitives import evaluation
from phihat.convexity.program import structure
from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.structure import INDEXED, STRUCTURAL, move
from tests import convexity_exact

__all__ = ["Breach", "Unread", "breaches", "confirmed", "values_of"]

Values = dict[int, np.ndarray]


class Unread(Exception):
    """This interpreter does not know the primitive."""


class Breach(NamedTuple):
    """A claim that the values contradict.

    Attributes:
      number: of the value.
      element: flat position in it.
      claim: "convex", "concave", "low", "high", "positive", "negative", "constant",
        "p" or "q", or "domain" where the middle of a chord has no value.
      chord: the row of its left end; its middle and right end follow by thirds.
      gap: by how much, in multiples of what rounding may explain.
      power: p or q.
    """

    number: int
    element: int
    claim: str
    chord: int
    gap: float
    power: Fraction | None = None


# ------------------------------------------------------------------------ values


def values_of(program: Program, inputs: Mapping[int, np.ndarray]) -> Values:
    """Evaluate all values that can be read; each is `[B, ...]`, or `[1, ...]`."""
    values: Values = {n: np.asarray(v)[None] for n, v in program.constants.items()}
    values.update(inputs)
    with np.errstate(all="ignore"):
        for equation in program.equations:
            try:
                results = _apply(equation, [values[n] for n in equation.inputs])
            except (Unread, KeyError):
                continue
            values.update(zip(equation.outputs, results, strict=True))
    return values


def _apply(equation: Equation, inputs: list[np.ndarray]) -> list[np.ndarray]:
    name = equation.primitive
    if name in ("interp", "interp_extrapolated"):
        return [_interpolated(name == "interp", *inputs)]
    if name in ("slogdet", "slogdet_sign"):
        return [np.linalg.slogdet(inputs[0])[name == "slogdet"]]
    if name == "cholesky":
        return [_factor(inputs[0])]
    if name in STRUCTURAL:
        return _moved(equation, inputs)
    if name in _ELEMENTWISE:
        result = _ELEMENTWISE[name](*_aligned(inputs))
        kind = np.dtype(equation.dtype).kind if equation.dtype is not None else "f"
        return [result.astype(equation.dtype) if kind in "iub" else result]
    if name not in _OTHERS:
        return _bound(equation, inputs)
    result = _OTHERS[name](equation, *inputs)
    if isinstance(result, list):
        return result
    if result.dtype.kind in "iu" and equation.dtype is not None:
        return [result.astype(equation.dtype)]  # NumPy sums in 64 bits, jax wraps
    return [result]


def _bound(equation: Equation, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Ask jax for what is not written here."""
    if equation.bind is None:
        raise Unread(equation.primitive)
    rows = max(len(x) for x in inputs)
    spread = [np.broadcast_to(x, (rows, *x.shape[1:])) for x in inputs]
    try:
        with jax.enable_x64(True):
            bind = functools.partial(equation.bind, **equation.params)
            result = jax.vmap(bind)(*map(jnp.asarray, spread))
    except Exception:  # what cannot be mapped is not looked at
        raise Unread(equation.primitive) from None
    return [np.asarray(part) for part in jax.tree.leaves(result)]


def _aligned(inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Insert axes behind the batch, so that scalars broadcast."""
    rank = max(x.ndim for x in inputs)
    return [
        x.reshape(x.shape[:1] + (1,) * (rank - x.ndim) + x.shape[1:]) for x in inputs
    ]


def _interpolated(
    is_clamped: bool, x: np.ndarray, knots: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    if len(knots) > 1 or len(heights) > 1:
        raise Unread
    (xp,), (fp,) = knots, heights
    inside = np.interp(x, xp, fp)
    if is_clamped:
        return inside
    slopes = np.diff(fp) / np.diff(xp)
    return (
        inside
        + slopes[0] * np.minimum(x - xp[0], 0.0)
        + slopes[-1] * np.maximum(x - xp[-1], 0.0)
    )


def _factor(matrices: np.ndarray) -> np.ndarray:
    """Factor each matrix; one that is not positive definite has no factor."""
    found = np.full(matrices.shape, np.nan)
    for place in np.ndindex(matrices.shape[:-2]):
        try:
            found[place] = np.linalg.cholesky(matrices[place])
        except np.linalg.LinAlgError:
            continue
    return found


def _moved(equation: Equation, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Move places instead of values, then read the places; indices must be known."""
    where = set(INDEXED.get(equation.primitive, lambda _: range(0))(len(inputs)))
    if any(inputs[k].shape[0] != 1 for k in where):
        rows = max(len(x) for x in inputs)
        each = [
            _moved(equation, [x[k % len(x)][None] for x in inputs]) for k in range(rows)
        ]
        return [np.concatenate(parts) for parts in zip(*each, strict=True)]
    parts, places, start = [], [], 0
    for k, x in enumerate(inputs):
        if k in where:
            places.append(x[0])
            continue
        size = math.prod(x.shape[1:])
        places.append(np.arange(start, start + size).reshape(x.shape[1:]))
        parts.append(x.reshape(x.shape[0], size))
        start += size
    rows = max(part.shape[0] for part in parts)
    flat = np.concatenate(
        [np.broadcast_to(part, (rows, part.shape[1])) for part in parts], axis=1
    )
    return [flat[:, place] for place in move(equation, places)]


def _divided(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iu":
        return np.trunc(x / np.where(y == 0, 1, y)).astype(x.dtype)
    return x / y


def _rounded(equation: Equation, x: np.ndarray) -> np.ndarray:
    if "EVEN" in str(equation.params["rounding_method"]):
        return np.round(x)
    return np.trunc(x + np.copysign(0.5, x))


def _cast(equation: Equation, x: np.ndarray) -> np.ndarray:
    new = np.dtype(equation.params["new_dtype"])
    if new.kind in "iu" and x.dtype.kind == "f":
        info = np.iinfo(new)
        return np.clip(np.trunc(x), float(info.min), float(info.max)).astype(new)
    return x.astype(new) if new.kind in "iub" else x.astype(np.float64)


def _chosen(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    result = cases[0]
    for k, case in enumerate(cases[1:], 1):
        result = np.where(which == k, case, result)
    return result


def _logsumexp_along(x: np.ndarray, axis: int) -> np.ndarray:
    return np.logaddexp.accumulate(x, axis=axis)


def _axes(equation: Equation) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in equation.params["axes"])


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda equation, x: function(x, axis=_axes(equation))


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(equation: Equation, x: np.ndarray) -> np.ndarray:
        axis = equation.params["axis"] + 1
        if not equation.params["reverse"]:
            return function(x, axis=axis)
        return np.flip(function(np.flip(x, axis), axis=axis), axis)

    return rule


def _dot(equation: Equation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (contract_x, contract_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxy")
    left = [next(letters) for _ in range(x.ndim - 1)]
    right: list[str] = ["" for _ in range(y.ndim - 1)]
    for i, j in zip((*contract_x, *batch_x), (*contract_y, *batch_y), strict=True):
        right[j] = left[i]
    right = [letter or next(letters) for letter in right]
    batch = [left[k] for k in batch_x]
    out = batch + [
        letter
        for side, used in (
            (left, (*contract_x, *batch_x)),
            (right, (*contract_y, *batch_y)),
        )
        for k, letter in enumerate(side)
        if k not in used
    ]
    rows = max(len(x), len(y))
    x, y = (np.broadcast_to(z, (rows, *z.shape[1:])) for z in (x, y))
    return np.einsum(f"z{''.join(left)},z{''.join(right)}->z{''.join(out)}", x, y)


def _sorted(equation: Equation, *inputs: np.ndarray) -> list[np.ndarray]:
    axis = equation.params["dimension"] + 1
    rows = max(len(x) for x in inputs)
    inputs = tuple(np.broadcast_to(x, (rows, *x.shape[1:])) for x in inputs)
    if equation.params["num_keys"] != 1:
        raise Unread("sort")
    order = np.argsort(inputs[0], axis=axis, kind="stable")
    return [np.take_along_axis(x, order, axis) for x in inputs]


def _top(equation: Equation, x: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(-x, axis=-1, kind="stable")[..., : equation.params["k"]]
    return [np.take_along_axis(x, order, -1), order]


def _position(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda equation, x: function(x, axis=equation.params["axes"][0] + 1)


def _scattered(
    equation: Equation, x: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    from phihat.convexity.program.structure import group_of_updates

    if len(indices) != 1:
        return _bound(equation, [x, indices, updates])[0]
    rows = max(len(x), len(updates))
    places = group_of_updates(
        equation.params, x.shape[1:], indices[0], updates.shape[1:]
    )
    places = places.reshape(-1)
    total = np.array(np.broadcast_to(x, (rows, *x.shape[1:]))).reshape(rows, -1)
    flat = np.broadcast_to(updates, (rows, *updates.shape[1:])).reshape(rows, -1)
    for k, place in enumerate(places):
        if place >= 0:
            total[:, place] += flat[:, k]
    return total.reshape(rows, *x.shape[1:])


def _scan(equation: Equation, *inputs: np.ndarray) -> list[np.ndarray]:
    params = equation.params
    body: Program = params["body"]
    split = params["num_consts"] + params["num_carry"]
    consts, carry = inputs[: params["num_consts"]], inputs[params["num_consts"] : split]
    rows: list[list[np.ndarray]] = [[] for _ in body.outputs[params["num_carry"] :]]
    order = range(params["length"])
    for step in reversed(order) if params["reverse"] else order:
        elements = [x[:, step] for x in inputs[split:]]
        given = dict(zip(body.params, [*consts, *carry, *elements], strict=True))
        values = values_of(body, given)
        if any(number not in values for number in body.outputs):
            raise Unread("scan")
        results = [values[number] for number in body.outputs]
        carry = results[: params["num_carry"]]
        for row, result in zip(rows, results[params["num_carry"] :], strict=True):
            row.append(result)
    stacked = [
        np.stack(row[::-1] if params["reverse"] else row, axis=1) for row in rows
    ]
    return [*carry, *stacked]


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "cos": np.cos,
    "cosh": np.cosh,
    "digamma": special.digamma,
    "div": _divided,
    "entr": special.entr,
    "eq": np.equal,
    "erf": special.erf,
    "erf_inv": special.erfinv,
    "erfc": special.erfc,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "kl_div": special.kl_div,
    "le": np.less_equal,
    "lgamma": special.gammaln,
    "log": np.log,
    "log1p": np.log1p,
    "log_ndtr": special.log_ndtr,
    "logaddexp": np.logaddexp,
    "logistic": special.expit,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rel_entr": special.rel_entr,
    "rem": np.fmod,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "select_n": _chosen,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "xlog1py": special.xlog1py,
    "xlogy": special.xlogy,
    "xor": np.bitwise_xor,
}
_OTHERS: dict[str, Callable[..., Any]] = {
    "argmax": _position(np.argmax),
    "argmin": _position(np.argmin),
    "convert_element_type": _cast,
    "cumlogsumexp": _cumulative(_logsumexp_along),
    "cummax": _cumulative(np.maximum.accumulate),
    "cummin": _cumulative(np.minimum.accumulate),
    "cumprod": _cumulative(np.cumprod),
    "cumsum": _cumulative(np.cumsum),
    "dot_general": _dot,
    "integer_pow": lambda equation, x: x ** float(equation.params["y"]),
    "iota": lambda equation: _iota(equation),
    "reduce_and": _reduction(np.all),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reduce_or": _reduction(np.any),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "round": _rounded,
    "scan": _scan,
    "scatter-add": _scattered,
    "sort": _sorted,
    "top_k": _top,
}


def _iota(equation: Equation) -> np.ndarray:
    axis, shape = equation.params["dimension"], equation.params["shape"]
    places = np.indices(shape)[axis]
    return places.astype(equation.dtype)[None]


# ------------------------------------------------------------------------- claims


def breaches(
    program: Program, known: Mapping[int, Any], values: Values, *, only: Any = None
) -> Iterator[Breach]:
    """Yield claims that the rows contradict, beyond what rounding explains.

    Args:
      program: the program.
      known: the prover's array of each value that it reached.
      values: rows in thirds: left ends, middles, right ends of chords.
      only: the numbers of the values to look at; all where None.
    """
    rows = max(len(v) for v in values.values())
    # Of each value the largest magnitude that it is made of: rounding scales with it.
    # Rows on which an input was NaN stay: the value may exist all the same, and then
    # the claims speak of it.
    sizes: dict[int, np.ndarray] = {}
    writers = program.producers()
    order = [*program.params, *program.data]
    order += [n for equation in program.equations for n in equation.outputs]
    for number in order:
        if number not in values or number not in known:
            continue
        array = known[number]
        sources = writers[number].inputs if number in writers else ()
        size = np.ones(rows)
        for n in sources:
            size = np.maximum(size, sizes.get(n, 1.0))
        flat = np.broadcast_to(
            values[number].reshape(len(values[number]), -1), (rows, array.size)
        )
        fine = np.ones(rows, bool)
        wanted = only is None or number in only
        if flat.dtype.kind == "f":
            infinite = np.zeros(array.size, bool)
            for facts, mask in _classes(array):
                infinite |= mask & facts.is_infinite
            numbers = flat[:, ~infinite]
            fine = np.isfinite(numbers).all(axis=1)
            magnitudes = np.where(np.isnan(numbers), 0.0, np.abs(numbers))
            size = np.maximum(size, magnitudes.max(axis=1, initial=0.0))
        sizes[number] = size
        moderate = size < 1e60
        if wanted:
            yield from _holes(number, array, fine, moderate)
            usable = fine & moderate
            yield from _of_value(number, array, flat.astype(np.float64), usable, size)


def _classes(array: Any) -> Iterator[tuple[Any, np.ndarray]]:
    places = array.places
    flat = None if places is None else np.broadcast_to(places, array.shape).reshape(-1)
    for k, facts in enumerate(array.classes):
        mask = np.ones(array.size, bool) if flat is None else flat == k
        if mask.any():
            yield facts, mask


def _holes(
    number: int, array: Any, fine: np.ndarray, moderate: np.ndarray
) -> Iterator[Breach]:
    """A curved value that exists at both ends of a chord exists at its middle."""
    if array.size > 1 or not any(f.curved for f in array.classes):
        return
    left, middle, right = np.split(fine, 3)
    bad = left & right & ~middle & np.logical_and.reduce(np.split(moderate, 3))
    if bad.any():
        yield Breach(number, 0, "domain", int(np.argmax(bad)), math.inf)


def _of_value(
    number: int, array: Any, flat: np.ndarray, usable: np.ndarray, size: np.ndarray
) -> Iterator[Breach]:
    here = flat[usable]
    slack = 1e-9 * size[usable, None]
    triples = np.split(flat, 3)
    chords = np.logical_and.reduce(np.split(usable, 3))
    lefts, middles, rights = (part[chords] for part in triples)
    rounding = 1e-9 * np.maximum.reduce(np.split(size, 3))[chords, None]
    row_of, chord_of = np.flatnonzero(usable), np.flatnonzero(chords)
    for facts, mask in _classes(array):
        if facts.is_infinite or not len(here):
            continue
        at = np.flatnonzero(mask)

        def found(
            claim: str,
            excess: np.ndarray,
            room: Any,
            rows: np.ndarray,
            power: Any = None,
            at: np.ndarray = at,
        ) -> Iterator[Breach]:
            with np.errstate(over="ignore"):
                excess = excess / room
            if excess.size and np.nanmax(excess, initial=-1.0) > 1.0:
                row, column = np.unravel_index(np.nanargmax(excess), excess.shape)
                worst = float(excess[row, column])
                yield Breach(
                    number, int(at[column]), claim, int(rows[row]), worst, power
                )

        z = here[:, at]
        if facts.low > -math.inf:
            yield from found("low", facts.low - z, slack, row_of)
        if facts.high < math.inf:
            yield from found("high", z - facts.high, slack, row_of)
        if facts.positive:
            yield from found("positive", np.where(z <= 0.0, 2.0, 0.0), 1.0, row_of)
        if facts.negative:
            yield from found("negative", np.where(z >= 0.0, 2.0, 0.0), 1.0, row_of)
        left, middle, right = lefts[:, at], middles[:, at], rights[:, at]
        if facts.constant:
            yield from found("constant", np.abs(left - right), rounding, chord_of)
        bend = middle - (left + right) / 2
        if facts.convex:
            yield from found("convex", bend, rounding, chord_of)
        if facts.concave:
            yield from found("concave", -bend, rounding, chord_of)
        if (facts.p is not None or facts.q is not None) and not facts.constant:
            # Far below the other numbers, a value is mostly their rounding.
            near = np.minimum(np.minimum(left, right), middle) > 1e-4 * rounding / 1e-9
            for claim, power, sign in (("p", facts.p, 1.0), ("q", facts.q, -1.0)):
                if power is None or power == math.inf:
                    continue
                with np.errstate(all="ignore"):
                    ends = _powered(left, power), _powered(right, power)
                    broken = sign * (_powered(middle, power) - (ends[0] + ends[1]) / 2)
                    room = 1e-6 * (np.abs(ends[0]) + np.abs(ends[1]) + 1e-30)
                excess = np.where(near & np.isfinite(broken), broken, 0.0)
                yield from found(claim, excess, room, chord_of, power)


def _powered(z: np.ndarray, power: Any) -> np.ndarray:
    return np.log(z) if power == 0 else z ** float(power)


# ------------------------------------------------------------------- confirmation


def confirmed(
    program: Program, inputs: Mapping[int, np.ndarray], breach: Breach, facts: Any
) -> bool | None:
    """Prove a breach: True, or False if refuted, None if open.

    Intervals decide first; what they leave open, values to thousands of bits; and what
    those cannot read, floats where a gap of values leaves no doubt. That a value has a
    strict sign is no breach where intervals prove the sign but for 0, and rounding
    alone keeps them from excluding 0: 1 - sigmoid(1e14) is below every precision.
    """
    third = max(len(v) for v in inputs.values()) // 3

    def enclosed(row: int) -> Any:
        point = {n: from_array(v[row % len(v)]) for n, v in inputs.items()}
        z = evaluation.evaluate(program, point, [breach.number])[breach.number]
        low, high = (np.ravel(end)[breach.element] for end in (z.low, z.high))
        return iv.Interval(low, high)

    try:
        sure = _settled(breach, facts, enclosed, third)
    except (evaluation.Undefined, evaluation.Unreadable):
        sure = None
    if sure is None:
        sure = _settled_by_bits(program, inputs, breach, facts, third)
    if sure is None and math.inf > breach.gap > _OVERWHELMING:
        return True
    if sure is None and breach.claim in ("positive", "negative"):
        return False if _is_within_rounding(breach, enclosed) else None
    return sure


_OVERWHELMING = 1e6


def _is_within_rounding(breach: Breach, enclosed: Callable[[int], Any]) -> bool:
    """Whether a value has the sign or is 0, and its bounds differ by rounding only."""
    try:
        z = enclosed(breach.chord)
    except (evaluation.Undefined, evaluation.Unreadable):
        return False
    if breach.claim == "negative":
        z = iv.neg(z)
    return bool(0.0 <= z.low < z.high <= 2.0**-48)


def _settled(
    breach: Breach, facts: Any, enclosed: Callable[[int], Any], third: int
) -> bool | None:
    if breach.claim in ("low", "high", "positive", "negative"):
        z = enclosed(breach.chord)
        outside, inside = {
            "low": (z.high < facts.low, z.low >= facts.low),
            "high": (z.low > facts.high, z.high <= facts.high),
            "positive": (z.high <= 0.0, z.low > 0.0),
            "negative": (z.low >= 0.0, z.high < 0.0),
        }[breach.claim]
        return True if outside else (False if inside else None)
    if breach.claim == "domain":
        enclosed(breach.chord), enclosed(breach.chord + 2 * third)
        try:
            enclosed(breach.chord + third)
        except evaluation.Undefined as error:
            return True if error.certain else None
        return False
    left, middle, right = (enclosed(breach.chord + k * third) for k in range(3))
    if breach.claim == "constant":
        return bool(left.high < right.low or right.high < left.low) or None
    if breach.power is not None:
        left, middle, right = (
            _interval_power(z, breach.power) for z in (left, middle, right)
        )
    bend = iv.sub(middle, iv.mul(0.5, iv.add(left, right)))
    if breach.claim in ("concave", "q"):
        bend = iv.neg(bend)
    return True if bend.low > 0 else (False if bend.high <= 0 else None)


def _settled_by_bits(
    program: Program,
    inputs: Mapping[int, np.ndarray],
    breach: Breach,
    facts: Any,
    third: int,
) -> bool | None:
    """Evaluate by `convexity_exact`, more and more finely, until two verdicts agree."""
    is_single = breach.claim in ("low", "high", "positive", "negative")
    places = [breach.chord + k * third for k in range(1 if is_single else 3)]
    rows = [{n: v[row % len(v)] for n, v in inputs.items()} for row in places]
    last: tuple[bool, Any] | None = None
    for bits in convexity_exact.PRECISIONS:
        try:
            values = [
                np.ravel(convexity_exact.values_of(program, row, breach.number, bits))
                for row in rows
            ]
        except (convexity_exact.Unread, structure.Unknown):
            return None
        with mpmath.workprec(bits):
            now = _judged(breach, facts, [v[breach.element] for v in values], bits)
        if now is not None and last is not None and _agree(now, last):
            return now[0]
        last = now
    return None


def _agree(x: tuple[bool, Any], y: tuple[bool, Any]) -> bool:
    """Tell whether two precisions say the same; a sign counts beyond its rounding."""
    return x[0] == y[0] and abs(x[1] - y[1]) <= mpmath.ldexp(abs(x[1]), -32)


def _judged(
    breach: Breach, facts: Any, z: list[Any], bits: int
) -> tuple[bool, Any] | None:
    """Tell whether values of `bits` bits break a claim, and the value that shows it.

    The value is 0 where it lies within what rounding explains; None where nothing can
    be said.
    """
    z = [mpmath.mpf(int(v)) if isinstance(v, np.generic) else v for v in z]
    if breach.claim == "domain":
        left, middle, right = map(mpmath.isfinite, z)
        return bool(left and right and not middle), 0
    if not all(map(mpmath.isfinite, z)):
        return None
    if breach.power is not None:
        if min(z) <= 0:
            return None
        power = mpmath.mpf(breach.power.numerator) / breach.power.denominator
        z = [mpmath.log(v) if power == 0 else v**power for v in z]
    room = mpmath.ldexp(1 + max(map(abs, z)), -bits // 2)
    if breach.claim in ("positive", "negative"):
        excess = -z[0] if breach.claim == "positive" else z[0]
        return None if excess == 0 else (bool(excess > 0), excess)
    if breach.claim == "low":
        excess = mpmath.mpf(facts.low) - z[0]
    elif breach.claim == "high":
        excess = z[0] - mpmath.mpf(facts.high)
    elif breach.claim == "constant":
        excess = abs(z[0] - z[2])
    else:
        sign = -1 if breach.claim in ("concave", "q") else 1
        excess = sign * (z[1] - (z[0] + z[2]) / 2)
    return bool(excess > room), 0 if abs(excess) <= room else excess


def _interval_power(z: Any, power: Fraction) -> Any:
    if power == 0:
        return iv.log(z)
    return iv.power(z, iv.from_rational(power))
