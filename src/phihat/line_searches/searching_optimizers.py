"""Optimizers made of line searches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import kinds as _kinds
from phihat._core import tree as _tree
from phihat._core.types import Params
from phihat.line_searches import searches as _searching
from phihat.line_searches.searches import (
    Search,
    SearchResult,
    SearchTrace,
    as_int,
    as_wide,
)
from phihat.optimizers import Optimizer

__all__ = [
    "LineSearchState",
    "SearchResult",
    "SearchTrace",
    "backtracking",
    "bracketing",
    "golden_section",
    "line_search",
    "steepest_descent",
    "strong_wolfe",
]


class LineSearchState(NamedTuple):
    """What an optimizer with a line search tells of its last search.

    Attributes:
      step: updates made so far, int32 [].
      learning_rate: the step that the search found, [].
      converged: whether it met its own test, bool [].
      num_iterations: rounds it used, int32 [].
      num_evaluations: values of the loss it computed, int32 [].
      trace: its `SearchTrace`, or None.
    """

    step: Int[Array, ""]
    learning_rate: Float[Array, ""]
    converged: Bool[Array, ""]
    num_iterations: Int[Array, ""]
    num_evaluations: Int[Array, ""]
    trace: SearchTrace | None


# ------------------------------------------------------------------------ optimizers


@_calls.public
def steepest_descent(search: Search) -> Optimizer:
    r"""Step against the gradient, as far as a line search says.

    $\phi \leftarrow \phi - s\,g$ with $s$ = `search` of $s \mapsto L(\phi - s\,g)$.
    What comes in counts as a gradient, whatever made it: `optax.chain(optax.trace(0.9),
    steepest_descent(search))` searches along momentum. For directions that point
    downhill already see `line_search`.

    Args:
      search: `bracketing()`, `golden_section()`, `backtracking()`, `strong_wolfe()`, or
        any `(fn, slope=None) -> SearchResult`.

    Returns:
      An optax transformation; `update` needs `value_fn`, which `fit` passes. Its state
      holds the last search: `record="learning_rate"` puts the steps on record.

    Raises:
      TypeError: `search` is not a function.

    Example:
      >>> from phihat import fit
      >>> optimizer = steepest_descent(bracketing(max_step=1.0, max_iterations=40))
      >>> result = fit(lambda x: (x - 3.0) ** 2, 0.0, optimizer, num_steps=1)
      >>> print(round(float(result.params), 4))
      3.0
    """
    search = _as_search("steepest_descent", search)
    return Optimizer(
        Partial(_line_search_init, search=search),
        Partial(_steepest_descent_update, search=search),
    )


@_calls.public
def line_search(search: Search) -> Optimizer:
    r"""Scale the updates that come in by the step that a line search finds.

    $u \leftarrow s\,u$ with $s$ = `search` of $s \mapsto L(\phi + s\,u)$: the last link
    of a chain whose updates point downhill, such as `optax.chain(optax.adam(1.0),
    line_search(backtracking()))`.

    Args:
      search: as for `steepest_descent`.

    Returns:
      An optax transformation; `update` needs `value_fn`, which `fit` passes.

    Raises:
      TypeError: `search` is not a function.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer, start = line_search(backtracking()), jnp.asarray(1.0)
      >>> state = optimizer.init(start)
      >>> downhill = jnp.asarray(-4.0)
      >>> updates, state = optimizer.update(
      ...     downhill, state, start, value_fn=lambda x: x**2
      ... )
      >>> print(updates)
      -1.0
    """
    search = _as_search("line_search", search)
    return Optimizer(
        Partial(_line_search_init, search=search),
        Partial(_line_search_update, search=search),
    )


# -------------------------------------------------------------------------- searches


@_calls.public
def bracketing(
    *,
    max_step: float = 0.1,
    max_iterations: int = 15,
    tolerance: float = 1e-5,
    trace: bool = False,
) -> Search:
    r"""Shrink a bracket of four points, as the chapter's notebooks do.

    With $M$ = `max_step` it begins at $a,b,c,d = 0,\ .33M,\ .66M,\ M$. While
    $|b-c|$ > `tolerance` and rounds are left it evaluates all four. If $f(a)$ is the
    smallest, $b,c,d$ move half-way to $a$. Else if $f(b) < f(c)$, $d$ moves to $c$;
    else $a$ moves to $b$; either way $b,c$ become the thirds of $[a,d]$. The answer is
    $(b+c)/2$. Where that does not lie below $f(0)$, which the notebooks do not check,
    it is quartered until it does, and on to the bottom of that valley: the answer never
    raises the function. Its step is 0 only where no step lowers it, as at a minimum.

    It has weaknesses. It compares only b with c, so it assumes that there is only one
    minimum, and can lose a lower value at d. It never goes beyond `max_step`. Its
    defaults, those of the notebooks, use up their 15 rounds with b and c still 8e-5
    apart, so it seldom counts as converged: 20 rounds reach the tolerance.
    `golden_section` costs a quarter as much and keeps its best point.

    Args:
      max_step: $M > 0$, the far end of the first bracket.
      max_iterations: rounds at most, >= 1, four evaluations each.
      tolerance: the distance of b from c that is small enough, >= 0.
      trace: keep the bracket and its values of every round.

    Returns:
      A search; converged if its step is not 0 and within `tolerance` of a minimum.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> result = bracketing(max_step=1.0, trace=True)(lambda s: (s - 0.3) ** 2)
      >>> print(result.trace.steps[0], result.num_evaluations)
      [0.   0.33 0.66 1.  ] 61

    References:
      Prince, *Understanding Deep Learning*, notebooks 6.1 and 6.2, 2023.
    """
    return Partial(
        _searching.bracketing,
        max_step=_positive("bracketing", "max_step", max_step),
        max_iterations=_rounds("bracketing", max_iterations),
        tolerance=_nonnegative("bracketing", "tolerance", tolerance),
        trace=_tree.Static(bool(trace)),
    )


@_calls.public
def golden_section(
    *,
    max_step: float = 0.1,
    max_iterations: int = 50,
    tolerance: float = 1e-5,
    trace: bool = False,
) -> Search:
    r"""Shrink a bracket by the golden ratio, with one new evaluation a round.

    The answer is the best point seen, the ends 0 and `max_step` included, so it is
    never worse than the start. Where the start is the best, shorter steps are tried,
    each a quarter as long, to the bottom of a valley. On a function with one dip it is
    the minimum to within `tolerance`, in $\log(M/\mathrm{tolerance})/0.48$ rounds.
    Rounding limits that: float32 cannot tell values apart within about 3e-4 of the
    scale on which the function changes, so below it a tolerance gives no better step.

    Args:
      max_step: $M > 0$, the far end of the bracket.
      max_iterations: rounds at most, >= 1.
      tolerance: the width of the bracket that is small enough, >= 0.
      trace: keep the bracket and its values of every round.

    Returns:
      A search; converged if the bracket is small enough and the best point is not the
      start.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> result = golden_section(max_step=1.0)(lambda s: (s - 0.3) ** 2)
      >>> print(round(float(result.step), 3), result.num_evaluations)
      0.3 28

    References:
      Kiefer, *Sequential minimax search for a maximum*, Proc. AMS 1953.
    """
    return Partial(
        _searching.golden_section,
        max_step=_positive("golden_section", "max_step", max_step),
        max_iterations=_rounds("golden_section", max_iterations),
        tolerance=_nonnegative("golden_section", "tolerance", tolerance),
        trace=_tree.Static(bool(trace)),
    )


@_calls.public
def backtracking(
    *,
    max_step: float = 1.0,
    shrink: float = 0.5,
    sufficient_decrease: float = 1e-4,
    max_iterations: int = 30,
    trace: bool = False,
) -> Search:
    r"""Try a long step and shorten it until the value falls enough (Armijo's rule).

    The first of $s = M, rM, r^2M, \dots$ with $f(s) \le f(0) + c\,s\,f'(0)$.

    Args:
      max_step: $M > 0$, the first trial.
      shrink: $r$ in (0, 1).
      sufficient_decrease: $c$ in (0, 1), the share of the promised fall that is asked.
      max_iterations: trials at most, >= 1.
      trace: keep every trial.

    Returns:
      A search; where no trial is good enough, its step is 0 and it has not converged.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> result = backtracking()(lambda s: (s - 0.3) ** 2)
      >>> print(result.step, result.num_iterations)
      0.5 2

    References:
      Armijo, *Minimization of functions having Lipschitz continuous first partial
      derivatives*, Pacific J. Math. 1966.
    """
    call = "backtracking"
    return Partial(
        _searching.backtracking,
        max_step=_positive(call, "max_step", max_step),
        shrink=_fraction(call, "shrink", shrink),
        sufficient_decrease=_fraction(call, "sufficient_decrease", sufficient_decrease),
        max_iterations=_rounds(call, max_iterations),
        trace=_tree.Static(bool(trace)),
    )


@_calls.public
def strong_wolfe(
    *,
    initial_step: float = 1.0,
    sufficient_decrease: float = 1e-4,
    curvature: float = 0.9,
    max_iterations: int = 30,
    trace: bool = False,
) -> Search:
    r"""Find a step that lowers the value enough and flattens the slope enough.

    $f(s) \le f(0) + c_1 s f'(0)$ and $|f'(s)| \le -c_2 f'(0)$: the step doubles until
    it has passed such points, then cubic interpolation closes in. With a small
    `curvature` the search is nearly exact.

    Args:
      initial_step: the first trial, > 0.
      sufficient_decrease: $c_1$ in (0, 1).
      curvature: $c_2$ in (0, 1); 0.9 suits Newton-like directions, 0.1 gradients. Only
        from $c_1$ up is such a step sure to exist.
      max_iterations: trials at most, >= 1, each a value and a slope.
      trace: keep every trial.

    Returns:
      A search; where no trial meets both conditions it gives the best that met the
      first, or 0, and has not converged.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> result = strong_wolfe(curvature=0.01)(lambda s: (s - 3.0) ** 2)
      >>> print(result.step, result.num_iterations)
      3.0 4

    References:
      Nocedal and Wright, *Numerical Optimization*, algorithms 3.5 and 3.6, 2006.
    """
    call = "strong_wolfe"
    return Partial(
        _searching.strong_wolfe,
        initial_step=_positive(call, "initial_step", initial_step),
        sufficient_decrease=_fraction(call, "sufficient_decrease", sufficient_decrease),
        curvature=_fraction(call, "curvature", curvature),
        max_iterations=_rounds(call, max_iterations),
        trace=_tree.Static(bool(trace)),
    )


# ----------------------------------------------------------------------- the updates


def _line_search_init(params: Params, *, search: Search) -> LineSearchState:
    del params
    # Only the shape of the trace is wanted: no search is run.
    shapes = jax.eval_shape(lambda: search(lambda step: step, -1.0).trace)
    return LineSearchState(
        step=as_int(0),
        learning_rate=as_wide(0.0),
        converged=jnp.asarray(False),
        num_iterations=as_int(0),
        num_evaluations=as_int(0),
        trace=jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes
        ),
    )


def _steepest_descent_update(
    updates: PyTree, state: LineSearchState, params: Params | None = None, **extra: Any
) -> tuple[PyTree, LineSearchState]:
    downhill = jax.tree.map(jnp.negative, updates)
    return _search_along("steepest_descent", downhill, state, params, **extra)


def _line_search_update(
    updates: PyTree, state: LineSearchState, params: Params | None = None, **extra: Any
) -> tuple[PyTree, LineSearchState]:
    return _search_along("line_search", updates, state, params, **extra)


def _search_along(
    call: str,
    direction: PyTree,
    state: LineSearchState,
    params: Params | None,
    *,
    search: Search,
    value_fn: Callable[[Params], Any] | None = None,
    grad: PyTree = None,
    **extra: Any,
) -> tuple[PyTree, LineSearchState]:
    del extra
    loss_fn = _checks.check_extra(call, "value_fn", value_fn, "params -> loss")
    point = _checks.check_extra(call, "params", params, "where the gradient is")

    def scaled(step: Float[Array, ""]) -> PyTree:
        return jax.tree.map(
            lambda leaf: step.astype(jnp.result_type(leaf)) * leaf, direction
        )

    slope = None if grad is None else _inner(grad, direction)
    found = search(
        lambda step: loss_fn(optax.apply_updates(point, scaled(step))), slope
    )
    state = LineSearchState(
        step=state.step + 1,
        learning_rate=found.step,
        converged=found.converged,
        num_iterations=found.num_iterations,
        num_evaluations=found.num_evaluations,
        trace=found.trace,
    )
    return scaled(found.step), state


def _inner(left: PyTree, right: PyTree) -> Float[Array, ""]:
    products = jax.tree.map(
        lambda one, other: jnp.sum(as_wide(one) * as_wide(other)), left, right
    )
    return sum(jax.tree.leaves(products), as_wide(0.0))


# -------------------------------------------------------------------- private helpers


def _as_search(call: str, search: Any) -> Partial:
    if _kinds.MARK in getattr(search, "__dict__", {}):
        raise TypeError(
            f"{call}: `search` must be a search, such as `bracketing()`, got "
            f"{_kinds.describe(search)}."
        )
    return _tree.as_partial(search, call, "search")


def _positive(call: str, argument: str, value: Any) -> Any:
    value = _tree.as_number(value, call, argument)
    _checks.check_range(call, argument, value, low=0.0, include_low=False)
    return value


def _nonnegative(call: str, argument: str, value: Any) -> Any:
    value = _tree.as_number(value, call, argument)
    _checks.check_range(call, argument, value, low=0.0)
    return value


def _fraction(call: str, argument: str, value: Any) -> Any:
    value = _tree.as_number(value, call, argument)
    _checks.check_range(
        call, argument, value, 0.0, 1.0, include_low=False, include_high=False
    )
    return value


def _rounds(call: str, value: Any) -> _tree.Static:
    return _tree.Static(_checks.check_count(call, "max_iterations", value))
