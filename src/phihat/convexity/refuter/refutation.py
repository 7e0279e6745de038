r"""Refutations: a chord that the loss rises above, found in floats, then proved.

On a chord from a to b with middle m, a convex function has $f(m) \le (f(a) + f(b))/2$.
Thousands of chords are tried in floating point: along coordinates, at random at many
scales, along the eigenvectors of negative eigenvalues of the Hessian, and by evolution
of the best. The winner is a witness only if intervals prove that it breaks the chord:
floats, and derivatives most of all, only say where to look. Nothing found is no proof.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.program.trace import Untraceable
from phihat.convexity.refuter.chord_search import ChordSearch
from phihat.convexity.refuter.derivative_lints import lints
from phihat.convexity.refuter.witnesses import data_sets
from phihat.convexity.report import ConvexityReport, Verdict, Witness

__all__ = ["lints", "refute_convexity", "search"]


@_calls.public
def refute_convexity(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
    budget: float = 10.0,
) -> ConvexityReport:
    """Search for two points that prove that a loss is not convex.

    Args:
      loss_fn: `loss_fn(params, data)`, or `loss_fn(params)` where data is None.
      params: a pytree of floating-point arrays; the search starts there.
      data: a pytree of arrays, or a `Box` of two such trees; then one data set in the
        range suffices.
      domain: None for the whole space, or a `Box` like params.
      wrt: None for all leaves, or the paths of those that vary.
      budget: how many seconds to search, at most; compiling is not interrupted.

    Returns:
      A report whose verdict is `REFUTED`, with the witness, or `UNDECIDED`.

    Raises:
      TypeError: `params` hold leaves that are no floating-point numbers, ...
      ValueError: `budget` is negative or NaN, trees do not match, ...

    Example:
      >>> import jax.numpy as jnp
      >>> refute_convexity(lambda w: jnp.sum(w**2), jnp.ones(2)).verdict.name
      'UNDECIDED'
    """
    call = "refute_convexity"
    _checks.check_range(call, "budget", budget, 0.0, float("inf"))
    begun = time.monotonic()
    try:
        problem = pose(call, loss_fn, params, data, domain=domain, wrt=wrt)
    except Untraceable as error:
        return ConvexityReport(
            Verdict.UNDECIDED, "nowhere", f"the loss cannot be read: {error}."
        )
    witness, reason = search(problem, begun + budget)
    return ConvexityReport(
        Verdict.UNDECIDED if witness is None else Verdict.REFUTED,
        problem.scope,
        reason,
        witness=witness,
        assumptions=problem.program.assumptions,
        statement=problem.digest(),
        seconds=time.monotonic() - begun,
    )


def search(
    problem: Problem, deadline: float, jumps: Sequence[tuple[int, float]] = ()
) -> tuple[Witness | None, str]:
    """Return a witness or None, and a sentence that says what was found.

    `jumps` are where to look first: a value of the program, and where it jumps.
    """
    hunt = ChordSearch(problem, deadline, jumps)
    for name, data in data_sets(problem):
        found = hunt.run(data)
        if found is not None:
            at = f", for the data at the {name} of their range" if name else ""
            return found, f"{found.reason}{at}."
    if not problem.size:
        return None, "nothing varies."
    if hunt.values_fn is None and hunt.failure:
        return None, f"the loss cannot be mapped over points: {hunt.failure}."
    if not hunt.num_chords:
        return None, "the budget was used up before a chord could be tried."
    if not hunt.num_finite:
        return None, "the loss has no finite value at the points that were tried."
    return None, (
        f"none of {hunt.num_chords} chords was broken beyond rounding; that proves "
        "nothing."
    )
