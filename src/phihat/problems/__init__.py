"""Test problems with known minima and known convexity.

Each is a `Problem`: a loss of the params alone, a start, a global minimum, whether the
loss is convex, and the box in which it is usually shown.

Example:
  >>> from phihat import problems
  >>> problem = problems.booth()
  >>> float(problem.loss_fn(problem.minimum)), problem.is_convex
  (0.0, True)
"""

from phihat._core import calls as _calls
from phihat.problems.classics import (
    adam_surface,
    beale,
    booth,
    gabor,
    himmelblau,
    linear_regression,
    matyas,
    monkey_saddle,
    parabola,
    quadratic,
    rosenbrock,
    six_hump_camel,
)
from phihat.problems.many_minima import (
    branin,
    easom,
    goldstein_price,
    griewank,
    hartmann,
    levy,
    rastrigin,
    styblinski_tang,
    three_hump_camel,
)
from phihat.problems.problem import Problem
from phihat.problems.valleys import (
    bard,
    brown_badly_scaled,
    brown_dennis,
    freudenstein_roth,
    helical_valley,
    jennrich_sampson,
    kowalik_osborne,
    powell_singular,
    variably_dimensioned,
    wood,
)

__all__ = [
    "Problem",
    "adam_surface",
    "bard",
    "beale",
    "booth",
    "branin",
    "brown_badly_scaled",
    "brown_dennis",
    "easom",
    "freudenstein_roth",
    "gabor",
    "goldstein_price",
    "griewank",
    "hartmann",
    "helical_valley",
    "himmelblau",
    "jennrich_sampson",
    "kowalik_osborne",
    "levy",
    "linear_regression",
    "matyas",
    "monkey_saddle",
    "parabola",
    "powell_singular",
    "quadratic",
    "rastrigin",
    "rosenbrock",
    "six_hump_camel",
    "standard",
    "styblinski_tang",
    "three_hump_camel",
    "variably_dimensioned",
    "wood",
]


@_calls.public
def standard() -> dict[str, Problem]:
    """Return one of each, by name.

    Example:
      >>> [name for name, problem in standard().items() if problem.is_convex]
      ['quadratic', 'booth', 'matyas', 'parabola', 'linear_regression',
      'brown_dennis', 'powell_singular', 'variably_dimensioned']
    """
    problems = (
        quadratic(),
        rosenbrock(),
        himmelblau(),
        six_hump_camel(),
        beale(),
        booth(),
        matyas(),
        parabola(),
        adam_surface(),
        monkey_saddle(),
        gabor(),
        linear_regression(),
        bard(),
        brown_badly_scaled(),
        brown_dennis(),
        freudenstein_roth(),
        helical_valley(),
        jennrich_sampson(),
        kowalik_osborne(),
        powell_singular(),
        variably_dimensioned(),
        wood(),
        branin(),
        easom(),
        goldstein_price(),
        griewank(),
        hartmann(),
        levy(),
        rastrigin(),
        styblinski_tang(),
        three_hump_camel(),
    )
    return {problem.name: problem for problem in problems}
