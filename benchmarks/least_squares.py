"""Sums of squares of the literature: how many each solver finishes, and what it says.

First the problems of Moré and Wild without bounds, then those of Moré, Garbow and
Hillstrom with bounds that are active at the solution, one by one and mapped. A run is
solved when its sum of squares has fallen by all but a share of 1e-8 of what it could,
with the lowest sum that any solver found. "False" counts the runs that a solver calls
converged although a param alone could still lower the sum by a share of 1e-6, or that
left the box. Everyone runs in float64 with exact derivatives. Run from the root:
`python -m benchmarks.least_squares [free | bounded]`.

References:
  Moré and Wild, *Benchmarking derivative-free optimization algorithms*, SIAM Journal on
  Optimization 2009.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import scipy.optimize

import phihat
from phihat import Box, Status
from tests import more_garbow_hillstrom, more_wild

jax.config.update("jax_enable_x64", True)

NUM_STEPS = 2000
SHARE = 1e-8
STEEP = 1e-6
NUM_MAPPED = 4
"""Starts of one problem in one program: the published one, and others beside it."""


class Problem(NamedTuple):
    """Residuals of a vector, starts [S, P], and the box."""

    residuals: Callable[[Any], Any]
    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def box(self) -> Box | None:
        """The box, or None where it is open."""
        is_open = np.isinf(self.low).all() and np.isinf(self.high).all()
        return None if is_open else Box(jnp.asarray(self.low), jnp.asarray(self.high))


class End(NamedTuple):
    """Where a run ended, and whether the solver calls that converged."""

    params: Any
    is_converged: bool


def ours(make: Callable[[], Any], *, is_mapped: bool = False) -> Any:
    def run(problem: Problem) -> list[End]:
        zeros = jnp.zeros_like(problem.residuals(jnp.asarray(problem.starts[0])))
        loss_fn = phihat.losses.least_squares(
            jax.tree_util.Partial(lambda p, _: problem.residuals(p))
        )

        def solve(start: Any) -> Any:
            return phihat.fit(
                loss_fn,
                start,
                make(),
                (zeros, zeros),
                num_steps=NUM_STEPS,
                projection=problem.box,
                record=(),
            )

        starts = jnp.asarray(problem.starts)
        if is_mapped:
            found = jax.vmap(solve)(starts)
            rows = zip(found.params, found.status, strict=True)
        else:
            rows = [(one.params, one.status) for one in map(solve, starts)]
        return [
            End(np.asarray(params), int(status) == Status.CONVERGED)
            for params, status in rows
        ]

    return run


def in_scipy(method: str) -> Any:
    def run(problem: Problem) -> list[End]:
        residuals = jax.jit(problem.residuals)
        jacobian = jax.jit(jax.jacfwd(problem.residuals))
        bounds = (problem.low, problem.high)
        ends = []
        for start in problem.starts:
            try:
                solve: Any = scipy.optimize.least_squares
                found = solve(
                    lambda p: np.asarray(residuals(p)),
                    np.clip(start, *bounds),
                    jac=lambda p: np.asarray(jacobian(p)),
                    method=method,
                    x_scale="jac",
                    bounds=bounds if method != "lm" else (-np.inf, np.inf),
                    max_nfev=NUM_STEPS,
                    **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
                )
                ends.append(End(found.x, found.status > 0))
            except ValueError:  # residuals that are not finite
                ends.append(End(np.full_like(start, np.nan), False))
        return ends

    return run


def in_optimistix(make: Any) -> Any:
    def run(problem: Problem) -> list[End]:
        solver = make(rtol=1e-14, atol=1e-14)
        fn = lambda params, _: problem.residuals(params)  # noqa: E731
        ends = []
        for start in problem.starts:
            found = optimistix.least_squares(
                fn, solver, jnp.asarray(start), max_steps=NUM_STEPS, throw=False
            )
            is_converged = bool(found.result == optimistix.RESULTS.successful)
            ends.append(End(np.asarray(found.value), is_converged))
        return ends

    return run


FREE = {
    "levenberg_marquardt": ours(phihat.levenberg_marquardt),
    "newton": ours(phihat.newton),
    "SciPy lm": in_scipy("lm"),
    "SciPy trf": in_scipy("trf"),
    "optimistix LM": in_optimistix(optimistix.LevenbergMarquardt),
    "optimistix Dogleg": in_optimistix(optimistix.Dogleg),
}

BOUNDED = {
    "levenberg_marquardt": ours(phihat.levenberg_marquardt),
    "newton": ours(phihat.newton),
    "newton_cg": ours(phihat.newton_cg),
    "levenberg_marquardt, mapped": ours(phihat.levenberg_marquardt, is_mapped=True),
    "newton, mapped": ours(phihat.newton, is_mapped=True),
    "newton_cg, mapped": ours(phihat.newton_cg, is_mapped=True),
    "SciPy trf": in_scipy("trf"),
    "SciPy dogbox": in_scipy("dogbox"),
}


def free_problems() -> dict[str, Problem]:
    """Return the problems of Moré and Wild, all starts of a function together."""
    grouped: dict[str, Problem] = {}
    for name, problem in more_wild.PROBLEMS.items():
        name = name.split(", start")[0]
        starts = problem.start[None]
        if name in grouped:
            starts = np.concatenate([grouped[name].starts, starts])
        infinite = np.full(problem.start.size, np.inf)
        grouped[name] = Problem(problem.residuals, starts, -infinite, infinite)
    return grouped


def bounded_problems() -> dict[str, Problem]:
    """Return problems whose bounds are active, from the published start and others."""
    found = {}
    for name, problem in more_garbow_hillstrom.PROBLEMS.items():
        low, high = np.asarray(problem.low, float), np.asarray(problem.high, float)
        first = np.clip(np.asarray(problem.start, float), low, high)
        drawn = np.random.default_rng(0).uniform(0.8, 1.2, (NUM_MAPPED - 1, first.size))
        starts = np.clip(np.concatenate([first[None], drawn * first]), low, high)
        found[name] = Problem(problem.residuals, starts, low, high)
    return found


def compare(problems: dict[str, Problem], solvers: dict[str, Any]) -> None:
    """Print for each problem the runs solved, then the sums and the false claims."""
    width = max(map(len, problems))
    print(" " * width, *(f"{name:>20.20}" for name in solvers))
    totals = {name: np.zeros(3, int) for name in solvers}
    seconds = dict.fromkeys(solvers, 0.0)
    for name, problem in problems.items():
        residuals = jax.jit(problem.residuals)
        derivatives = jax.jit(lambda p, fn=problem.residuals: _derivatives(fn, p))
        sum_of = lambda p, fn=residuals: float(np.sum(np.asarray(fn(p)) ** 2))  # noqa: E731
        ends = {}
        for solver, run in solvers.items():
            begin = time.perf_counter()
            with np.errstate(all="ignore"):
                ends[solver] = run(problem)
            seconds[solver] += time.perf_counter() - begin
        lowest = min(
            sum_of(end.params)
            for runs in ends.values()
            for end in runs
            if _is_inside(problem, end.params)
        )
        cells = []
        for solver, runs in ends.items():
            counts = np.zeros(3, int)
            for start, end in zip(problem.starts, runs, strict=True):
                first = sum_of(np.clip(start, problem.low, problem.high))
                reach = lowest + SHARE * (first - lowest) + 1e-25
                is_solved = sum_of(end.params) <= reach
                is_solved &= _is_inside(problem, end.params)
                is_false = end.is_converged and not _is_minimum(
                    problem, end.params, derivatives(jnp.asarray(end.params))
                )
                counts += [is_solved, end.is_converged, is_false]
            totals[solver] += counts
            cells.append("{} ({} said, {} false)".format(*counts))
        print(f"{name:{width}}", *(f"{cell:>20}" for cell in cells), flush=True)
    number = sum(len(problem.starts) for problem in problems.values())
    for solver, (solved, said, false) in totals.items():
        print(
            f"{solver:28} solved {solved} of {number}, called {said} converged, "
            f"{false} falsely; {seconds[solver]:.0f} s"
        )


def _is_inside(problem: Problem, params: Any) -> bool:
    return bool(((params >= problem.low) & (params <= problem.high)).all())


def _derivatives(residuals: Any, params: Any) -> Any:
    """Return the residuals, their Jacobian, and half the Hessian of their squares."""
    half_sum_fn = lambda p: jnp.sum(residuals(p) ** 2) / 2  # noqa: E731
    return (
        residuals(params),
        jax.jacfwd(residuals)(params),
        jax.hessian(half_sum_fn)(params),
    )


def _is_minimum(problem: Problem, params: Any, derivatives: Any) -> bool:
    """Tell whether no param alone promises a fall of note, within the box."""
    residual, jacobian, hessian = map(np.asarray, derivatives)
    if not _is_inside(problem, params) or not np.isfinite(residual).all():
        return False
    gradient = jacobian.T @ residual
    near = 1e-6 * (1 + np.abs(params))  # an interior method never quite arrives
    held = (params <= problem.low + near) & (gradient > 0)
    held |= (params >= problem.high - near) & (gradient < 0)
    norms = np.maximum(np.sum(jacobian**2, axis=0), np.abs(np.diagonal(hessian)))
    falls = np.where(norms > 0, gradient**2 / np.where(norms > 0, norms, 1.0), 0.0)
    total = residual @ residual
    noise = np.sum(np.square(np.finfo(float).eps * (norms**0.5) * np.abs(params)))
    return bool((np.where(held, 0.0, falls) <= STEEP * total + 100 * noise).all())


def main(names: list[str]) -> None:
    """Run the parts named, or both."""
    if not names or "free" in names:
        compare(free_problems(), FREE)
    if not names or "bounded" in names:
        compare(bounded_problems(), BOUNDED)


if __name__ == "__main__":
    main(sys.argv[1:])
