r"""Line searches: how far to go along a direction.

A search is a function of a scalar function, `search(fn, slope=None)`, that looks for a
small value of $f(s)$ at $s \ge 0$; `steepest_descent(search)` makes an optimizer of it.
A value that is infinite or NaN counts as $+\infty$, so it never wins a comparison.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import line_searches
  >>> search = line_searches.bracketing(max_step=1.0, max_iterations=40)
  >>> result = search(lambda step: (step - 0.3) ** 2)
  >>> print(jnp.round(result.step, 3), result.converged)
  0.3 True
"""

from phihat.line_searches.searching_optimizers import (
    LineSearchState,
    SearchResult,
    SearchTrace,
    backtracking,
    bracketing,
    golden_section,
    line_search,
    steepest_descent,
    strong_wolfe,
)

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
