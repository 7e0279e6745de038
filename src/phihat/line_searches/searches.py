"""How the line searches look: pure functions of a scalar function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import pictures as _pictures
from phihat._core import reductions as _reductions
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat.line_searches import shortening as _shortening

__all__ = [
    "ScalarFn",
    "Search",
    "SearchResult",
    "SearchTrace",
    "as_int",
    "as_wide",
    "backtracking",
    "bracketing",
    "golden_section",
    "strong_wolfe",
]

ScalarFn = Callable[[Float[Array, ""]], Any]
"""`step -> value`, a pure function of one number."""

Search = Callable[..., "SearchResult"]
"""`(fn, slope=None) -> SearchResult`."""


class SearchTrace(NamedTuple):
    """What a search looked at, one row per round, NaN after the last.

    Attributes:
      steps: the steps of the round, [R, N]: the bracket a, b, c, d of `bracketing` and
        `golden_section`, the one trial of the others.
      values: the function there, [R, N].
    """

    steps: Float[Array, "R N"]
    values: Float[Array, "R N"]

    def __repr__(self) -> str:
        """Show numbers; arrays by their shapes."""
        return _tables.short_fields(self)


class SearchResult(NamedTuple):
    """The answer of a search.

    Attributes:
      step: the step found, [].
      value: the function there, []; infinite where it is not finite.
      converged: whether the search met its own test, bool [].
      num_iterations: rounds used, int32 [].
      num_evaluations: values of the function computed, int32 [].
      trace: a `SearchTrace` if it was asked for, else None.
    """

    step: Float[Array, ""]
    value: Float[Array, ""]
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]
    num_evaluations: Int[Array, ""]
    trace: SearchTrace | None

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the bracket of a search with `trace=True`, by `phihat.plot.bracket`."""
        return _pictures.draw("bracket", self, axes=axes)

    def __repr__(self) -> str:
        """Show numbers; arrays by their shapes."""
        return _tables.short_fields(self)


class _Bracket(NamedTuple):
    """Four steps in rising order, [4], their values if known, and the rounds so far."""

    steps: Float[Array, "4"]
    values: Any
    num_iterations: Int[Array, ""]


@_calls.public
def bracketing(
    fn: ScalarFn,
    slope: Any = None,
    *,
    max_step: Any,
    max_iterations: _tree.Static,
    tolerance: Any,
    trace: _tree.Static,
) -> SearchResult:
    del slope
    value_fn = _finite("bracketing", fn)

    def is_wide(bracket: _Bracket) -> Bool[Array, ""]:
        is_above = jnp.abs(bracket.steps[1] - bracket.steps[2]) > as_wide(tolerance)
        # The first round measures the start, which the answer must lie below.
        return is_above | (bracket.num_iterations == 0)

    def shrink(bracket: _Bracket) -> tuple[_Bracket, SearchTrace]:
        a, b, c, d = bracket.steps
        values = jax.vmap(value_fn)(bracket.steps)
        low = jnp.where(values[1] < values[2], a, b)
        high = jnp.where(values[1] < values[2], c, d)
        third = (high - low) / 3
        steps = jnp.where(
            jnp.argmin(values) == 0,
            a + (bracket.steps - a) / 2,
            jnp.stack([low, low + third, low + 2 * third, high]),
        )
        after = _Bracket(steps, None, bracket.num_iterations + 1)
        return after, SearchTrace(bracket.steps, values)

    steps = as_wide(max_step) * jnp.asarray([0.0, 0.33, 0.66, 1.0], as_wide(0.0).dtype)
    start = _Bracket(steps, None, as_int(0))
    end, rows = _scan_rounds(is_wide, shrink, start, max_iterations.value)
    step = (end.steps[1] + end.steps[2]) / 2
    found = _shortening.Found(step, value_fn(step), ~is_wide(end))
    found = _shortening.below_start(value_fn, rows.values[0, 0], found, tolerance)
    return SearchResult(
        step=found.step,
        value=found.value,
        converged=found.is_close & (found.step > 0),
        num_iterations=end.num_iterations,
        num_evaluations=4 * end.num_iterations + 1 + found.num_trials,
        trace=rows if trace.value else None,
    )


_GOLDEN = (5**0.5 - 1) / 2
"""The share of the bracket that a round keeps."""


@_calls.public
def golden_section(
    fn: ScalarFn,
    slope: Any = None,
    *,
    max_step: Any,
    max_iterations: _tree.Static,
    tolerance: Any,
    trace: _tree.Static,
) -> SearchResult:
    del slope
    value_fn = _finite("golden_section", fn)

    def is_wide(bracket: _Bracket) -> Bool[Array, ""]:
        return bracket.steps[3] - bracket.steps[0] > as_wide(tolerance)

    def shrink(bracket: _Bracket) -> tuple[_Bracket, SearchTrace]:
        steps, values = bracket.steps, bracket.values
        left_wins = jnp.minimum(values[0], values[1]) <= jnp.minimum(
            values[2], values[3]
        )
        low = jnp.where(left_wins, steps[0], steps[1])
        high = jnp.where(left_wins, steps[2], steps[3])
        width = high - low
        new = jnp.where(left_wins, high - _GOLDEN * width, low + _GOLDEN * width)
        value = value_fn(new)
        after = _Bracket(
            jnp.where(
                left_wins,
                jnp.stack([low, new, steps[1], high]),
                jnp.stack([low, steps[2], new, high]),
            ),
            jnp.where(
                left_wins,
                jnp.stack([values[0], value, values[1], values[2]]),
                jnp.stack([values[1], values[2], value, values[3]]),
            ),
            bracket.num_iterations + 1,
        )
        return after, SearchTrace(steps, values)

    shares = jnp.asarray([0.0, 1 - _GOLDEN, _GOLDEN, 1.0], as_wide(0.0).dtype)
    steps = as_wide(max_step) * shares
    start = _Bracket(steps, jax.vmap(value_fn)(steps), as_int(0))
    end, rows = _scan_rounds(is_wide, shrink, start, max_iterations.value)
    best = jnp.argmin(end.values)
    # Where the start won, shorter steps than those of the bracket are tried.
    shortest = jnp.where(best == 0, end.steps[1], end.steps[best])
    found = _shortening.Found(shortest, end.values[best], ~is_wide(end))
    found = _shortening.below_start(value_fn, start.values[0], found, tolerance)
    return SearchResult(
        step=found.step,
        value=found.value,
        converged=found.is_close & (found.step > 0),
        num_iterations=end.num_iterations,
        num_evaluations=4 + end.num_iterations + found.num_trials,
        trace=rows if trace.value else None,
    )


class _Trial(NamedTuple):
    """A step, its value, and the slope there if it is needed."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    slope: Float[Array, ""]


class _Trials(NamedTuple):
    """What `backtracking` and `strong_wolfe` carry from trial to trial.

    Below, `low` is the best step that met the first condition, `high` the far end of
    the bracket, infinite until there is one.
    """

    step: Float[Array, ""]
    low: _Trial
    high: _Trial
    is_done: Bool[Array, ""]
    num_iterations: Int[Array, ""]


@_calls.public
def backtracking(
    fn: ScalarFn,
    slope: Any = None,
    *,
    max_step: Any,
    shrink: Any,
    sufficient_decrease: Any,
    max_iterations: _tree.Static,
    trace: _tree.Static,
) -> SearchResult:
    value_fn = _finite("backtracking", fn)
    start = _start("backtracking", fn, value_fn, slope)
    fall = as_wide(sufficient_decrease) * start.slope

    def look(trials: _Trials) -> tuple[_Trials, SearchTrace]:
        step = trials.step
        value = value_fn(step)
        is_done = value <= start.value + step * fall
        here = _Trial(step, value, start.slope)
        after = _Trials(
            step=step * as_wide(shrink),
            low=_tree.select(is_done, here, trials.low),
            high=here,
            is_done=is_done,
            num_iterations=trials.num_iterations + 1,
        )
        return after, SearchTrace(step[None], value[None])

    end, rows = _search(look, start, max_step, max_iterations.value, trace.value)
    return _answer(end, rows, num_evaluations=end.num_iterations + 1)


@_calls.public
def strong_wolfe(
    fn: ScalarFn,
    slope: Any = None,
    *,
    initial_step: Any,
    sufficient_decrease: Any,
    curvature: Any,
    max_iterations: _tree.Static,
    trace: _tree.Static,
) -> SearchResult:
    call = "strong_wolfe"
    value_and_slope = jax.value_and_grad(_scalar(call, fn))
    start = _start(call, fn, _finite(call, fn), slope)
    fall = as_wide(sufficient_decrease) * start.slope

    def look(trials: _Trials) -> tuple[_Trials, SearchTrace]:
        step, low, high = trials.step, trials.low, trials.high
        value, slope = value_and_slope(step)
        is_finite = jnp.isfinite(value) & jnp.isfinite(slope)
        here = _Trial(step, jnp.where(is_finite, value, jnp.inf), slope)
        is_high = (here.value > start.value + step * fall) | (here.value >= low.value)
        is_done = ~is_high & (jnp.abs(slope) <= -as_wide(curvature) * start.slope)
        turns = slope * (high.step - low.step) >= 0
        high = _tree.select(is_high, here, _tree.select(turns, low, high))
        low = _tree.select(is_high, low, here)
        after = _Trials(
            step=jnp.where(
                jnp.isfinite(high.step), _interpolate(low, high), 2 * low.step
            ),
            low=low,
            high=high,
            is_done=is_done,
            num_iterations=trials.num_iterations + 1,
        )
        return after, SearchTrace(step[None], here.value[None])

    end, rows = _search(look, start, initial_step, max_iterations.value, trace.value)
    return _answer(end, rows, num_evaluations=2 * end.num_iterations + 1)


def _interpolate(low: _Trial, high: _Trial) -> Float[Array, ""]:
    """Return the minimum of the cubic through two trials, kept away from its ends."""
    width = high.step - low.step
    secant = (high.value - low.value) / width
    first = low.slope + high.slope - 3 * secant
    square = first * first - low.slope * high.slope
    second = jnp.sign(width) * _reductions.safe_sqrt(jnp.maximum(square, 0.0))
    bottom = high.slope - low.slope + 2 * second
    share = 1 - (high.slope + second - first) / jnp.where(bottom == 0, 1.0, bottom)
    is_sound = jnp.isfinite(share) & (bottom != 0) & (square >= 0)
    share = jnp.where(is_sound, jnp.clip(share, 0.1, 0.9), 0.5)
    return low.step + share * width


def _search(
    look: Callable[[_Trials], tuple[_Trials, SearchTrace]],
    start: _Trial,
    first_step: Any,
    max_iterations: int,
    trace: bool,
) -> tuple[_Trials, SearchTrace | None]:
    """Look at trial after trial until one is good enough; rows only where asked for."""
    nothing = jnp.full((max_iterations, 1), jnp.nan, start.value.dtype)
    rows = SearchTrace(nothing, nothing) if trace else None
    # With no descent at the start there is nothing to look for.
    trials = _Trials(
        step=as_wide(first_step),
        low=start,
        high=_Trial(jnp.full_like(start.step, jnp.inf), start.value, start.slope),
        is_done=~(start.slope < 0),
        num_iterations=as_int(0),
    )

    def goes_on(carry: Any) -> Bool[Array, ""]:
        return ~carry[0].is_done & (carry[0].num_iterations < max_iterations)

    def advance(carry: Any) -> Any:
        trials, rows = carry
        after, row = look(trials)
        if rows is not None:
            here = trials.num_iterations
            rows = jax.tree.map(lambda all, one: all.at[here].set(one), rows, row)
        return after, rows

    # A while_loop and not a scan: most searches end at the first or second trial.
    return jax.lax.while_loop(goes_on, advance, (trials, rows))


def _answer(
    end: _Trials, rows: SearchTrace | None, *, num_evaluations: Array
) -> SearchResult:
    return SearchResult(
        step=end.low.step,
        value=end.low.value,
        converged=end.is_done & (end.low.step > 0),
        num_iterations=end.num_iterations,
        num_evaluations=num_evaluations,
        trace=rows,
    )


def _scan_rounds(
    goes_on: Callable[[Any], Bool[Array, ""]],
    advance: Callable[[Any], tuple[Any, SearchTrace]],
    state: Any,
    max_iterations: int,
) -> tuple[Any, SearchTrace]:
    """Advance while it goes on, in a scan: it can be differentiated in reverse."""
    row = jax.eval_shape(advance, state)[1]
    blank = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), row)

    def body(state: Any, _: None) -> tuple[Any, SearchTrace]:
        return jax.lax.cond(
            goes_on(state), advance, lambda state: (state, blank), state
        )

    return jax.lax.scan(body, state, length=max_iterations)


# -------------------------------------------------------------------- private helpers


def _start(call: str, fn: ScalarFn, value_fn: ScalarFn, slope: Any) -> _Trial:
    origin = as_wide(0.0)
    if slope is None:
        slope = jax.grad(_scalar(call, fn))(origin)
    return _Trial(origin, value_fn(origin), as_wide(slope))


def _scalar(call: str, fn: ScalarFn) -> ScalarFn:
    def scalar_fn(step: Float[Array, ""]) -> Float[Array, ""]:
        value = fn(step)
        said = f"{call}: `fn` must return a real number"
        if not isinstance(value, jax.Array) and not _checks.is_numeric(value):
            raise TypeError(f"{said}, got {_checks.brief(value)}.")
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{said}, got shape {list(jnp.shape(value))}; take its sum or mean."
            )
        if jnp.iscomplexobj(value):
            raise TypeError(
                f"{said}, got {jnp.result_type(value)}; take its real part or its size."
            )
        return as_wide(value)

    return scalar_fn


def _finite(call: str, fn: ScalarFn) -> ScalarFn:
    """Return `fn` with infinity for every value that is not finite."""
    scalar_fn = _scalar(call, fn)

    def value_fn(step: Float[Array, ""]) -> Float[Array, ""]:
        value = scalar_fn(step)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    return value_fn


def as_wide(value: Any) -> Array:
    return jax.lax.convert_element_type(value, _tree.default_float())


def as_int(value: int) -> Int[Array, ""]:
    return jnp.asarray(value, jnp.int32)
