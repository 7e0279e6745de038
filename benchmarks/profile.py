"""A performance profile: how many evaluations each optimizer needs, and how often.

Every solver runs from the same starts on the standard test problems. A run is solved
when at most a share of 1e-5 of the possible decrease of the loss is left,
$f \\le f^* + 10^{-5} (f_0 - f^*)$, where $f^*$ is the known global minimum. Its cost is
the number of evaluations until then. An evaluation of the loss counts as one, with or
without its gradient, and a Hessian of P params counts as P. Run from the root:
`python -m benchmarks.profile [PROBLEM ...]`. What is measured is kept problem by
problem, so that a run that was interrupted is finished by naming the problems left.

References:
  Dolan and Moré, *Benchmarking optimization software with performance profiles*,
  Mathematical Programming 2002.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import scipy.optimize
from jax.flatten_util import ravel_pytree

import phihat
from benchmarks import pairs
from phihat import problems
from phihat.problems import many_minima

__all__ = ["SOLVERS", "measure", "profile"]

NUM_STARTS = 4
SHARE = 1e-5
BUDGET = 1000

LEFT_OUT = ("monkey_saddle", "matyas", "parabola", "gabor", "brown_badly_scaled")
"""Without a minimum, another's twin, one param, or out of a float's reach."""


class Counted:
    """A loss of a vector that keeps how low it has been, evaluation by evaluation."""

    def __init__(self, problem: problems.Problem) -> None:
        unflatten = ravel_pytree(problem.start)[1]
        self.plain = lambda vector: problem.loss_fn(unflatten(vector))
        self.value_and_grad = jax.jit(jax.value_and_grad(self.plain))
        self.hessian = jax.jit(jax.hessian(self.plain))
        self.reset(-np.inf)

    def reset(self, target: float) -> None:
        self.target, self.number, self.solved = target, 0, np.inf

    def count(self, value: Any, number: int = 1) -> None:
        self.number += number
        if value is not None and value <= self.target:
            self.solved = min(self.solved, self.number)

    def __call__(self, vector: Any) -> Any:
        """Evaluate inside a compiled program, and tell the host."""
        value = self.plain(vector)
        jax.debug.callback(self.count, value)
        return value


Run = Callable[[np.ndarray], Any]


def ours(make: Callable[[], Any], *, has_hessian: bool = False) -> Any:
    def prepare(loss: Counted) -> Run:
        optimizer = make()

        def run(start: np.ndarray) -> None:
            record: Any = ()
            if has_hessian:
                record = {"hessian": lambda state, info: tell(state, info)}
            phihat.fit(
                loss,
                jnp.asarray(start),
                optimizer,
                num_steps=BUDGET,
                tolerance=1e-9,
                record=record,
            ).loss.block_until_ready()
            jax.effects_barrier()

        def tell(state: Any, info: Any) -> Any:
            size = state.params.size
            jax.debug.callback(lambda _: loss.count(None, size), info.loss)
            return info.loss

        return run

    return prepare


def in_scipy(method: str) -> Any:
    has_hessian = method in ("trust-exact",)

    def prepare(loss: Counted) -> Run:
        def value_and_grad(params: np.ndarray) -> Any:
            value, gradient = loss.value_and_grad(params)
            loss.count(float(value))
            return float(value), np.asarray(gradient)

        def hessian(params: np.ndarray) -> np.ndarray:
            loss.count(None, params.size)
            return np.asarray(loss.hessian(params))

        def run(start: np.ndarray) -> None:
            is_blind = method == "Nelder-Mead"
            scipy.optimize.minimize(
                (lambda p: value_and_grad(p)[0]) if is_blind else value_and_grad,
                start,
                jac=None if is_blind else True,
                hess=hessian if has_hessian else None,
                method=method,
                options={"maxiter": BUDGET},
            )

        return run

    return prepare


def in_optimistix(make: Callable[[], Any]) -> Any:
    def prepare(loss: Counted) -> Run:
        solver, fn = make(), lambda params, _: loss(params)

        def run(start: np.ndarray) -> None:
            optimistix.minimise(
                fn, solver, jnp.asarray(start), max_steps=BUDGET, throw=False
            ).value.block_until_ready()
            jax.effects_barrier()

        return run

    return prepare


def steepest() -> Any:
    return phihat.steepest_descent(phihat.line_searches.strong_wolfe())


SOLVERS: dict[str, Any] = {
    "phihat newton": ours(phihat.newton, has_hessian=True),
    "phihat steepest_descent, strong_wolfe": ours(steepest),
    "phihat adam(0.1)": ours(lambda: phihat.adam(0.1)),
    "phihat fit, optax.lbfgs": ours(optax.lbfgs),
    "SciPy trust-exact": in_scipy("trust-exact"),
    "SciPy BFGS": in_scipy("BFGS"),
    "SciPy L-BFGS-B": in_scipy("L-BFGS-B"),
    "SciPy CG": in_scipy("CG"),
    "SciPy Nelder-Mead": in_scipy("Nelder-Mead"),
    "optimistix BFGS": in_optimistix(lambda: optimistix.BFGS(rtol=1e-9, atol=1e-9)),
    "optimistix NonlinearCG": in_optimistix(
        lambda: optimistix.NonlinearCG(rtol=1e-9, atol=1e-9)
    ),
}


def starts_of(problem: problems.Problem) -> np.ndarray:
    """Return the published start, and others drawn from the box."""
    first = np.asarray(ravel_pytree(problem.start)[0])
    low, high = (
        np.asarray(ravel_pytree(end)[0]) for end in (problem.box.low, problem.box.high)
    )
    drawn = np.random.default_rng(0).uniform(low, high, (NUM_STARTS - 1, first.size))
    return np.concatenate([first[None], drawn])


def measure(problem: problems.Problem, solvers: dict[str, Any]) -> dict[str, Any]:
    """Return, by solver, the evaluations to each solution, None where not reached."""
    loss, found = Counted(problem), {}
    for name, prepare in solvers.items():
        run, found[name] = prepare(loss), []
        for start in starts_of(problem):
            first = float(loss.plain(jnp.asarray(start)))
            target = problem.minimum_value + SHARE * (first - problem.minimum_value)
            loss.reset(target)
            with np.errstate(all="ignore"):
                run(start)
            within = loss.solved <= BUDGET
            found[name].append(int(loss.solved) if within else None)
    return found


def profile(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios, ascending, and for each solver the share solved within them.

    Args:
      costs: [S, N], evaluations of S solvers on N runs, inf where not solved.
    """
    best = costs.min(axis=0)
    is_usable = np.isfinite(best) & (best > 0)  # where nobody solved, all are infinite
    ratios = costs / np.where(is_usable, best, 1)
    grid = np.unique(ratios[np.isfinite(ratios)])
    return grid, np.mean(ratios[:, None, :] <= grid[None, :, None], axis=2)


def main(names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
    known = {
        name: problem
        for name, problem in problems.standard().items()
        if name not in LEFT_OUT
    }
    path = pairs.RESULTS / "profile.json"
    runs, seconds = {}, 0.0
    if names:
        before = json.loads(path.read_text())
        runs, seconds = before["runs"], before["seconds"]
    for name in names or known:
        begin = time.perf_counter()
        runs[name] = measure(known[name], SOLVERS)
        seconds += time.perf_counter() - begin
        print(f"{name:22}", *(f"{_short(cost):>19}" for cost in runs[name].values()))
        document = {
            **pairs.here(),
            "seconds": seconds,
            "budget": BUDGET,
            "late": [name for name in known if name not in runs],
            "runs": {name: runs[name] for name in known if name in runs},
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
    solvers, costs = costs_of(document)
    is_local = is_for_local_descent(document)
    rows = [*zip(solvers, np.isfinite(costs), strict=True)]
    for solver, solved in [*rows, ("at least one of them", np.isfinite(costs).any(0))]:
        print(
            f"{solver:40} {solved.mean():.1%} of {solved.size} runs solved, "
            f"{solved[is_local].mean():.1%} of the {is_local.sum()} on problems "
            "that are not made for global optimization"
        )
    draw(document, path.with_suffix(".png"))


def _short(costs: list[int | None]) -> str:
    return ",".join("-" if cost is None else str(cost) for cost in costs)


def costs_of(document: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    solvers = list(next(iter(document["runs"].values())))
    costs = [
        [
            np.inf if cost is None else float(cost)
            for run in document["runs"].values()
            for cost in run[solver]
        ]
        for solver in solvers
    ]
    return solvers, np.asarray(costs)


def is_for_local_descent(document: dict[str, Any]) -> np.ndarray:
    """Tell, run by run, which are on problems not made for global optimization."""
    runs = document["runs"]
    number = len(next(iter(next(iter(runs.values())).values())))
    return np.repeat([name not in many_minima.__all__ for name in runs], number)


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw one stair per solver: ours in colours and solid, peers dashed."""
    import matplotlib.pyplot as plt

    solvers, costs = costs_of(document)
    grid, shares = profile(costs)
    figure, axes = plt.subplots(figsize=(9, 7.5), layout="constrained")
    # Package by stroke, solver by marker and by Okabe and Ito's colours.
    strokes = {"phihat": ("-", 2.6), "SciPy": ("--", 1.5), "optimistix": (":", 1.8)}
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000"]
    for k in np.argsort(-shares[:, -1], kind="stable"):
        stroke, width = strokes[solvers[k].split()[0]]
        axes.step(
            grid,
            shares[k],
            where="post",
            color=colours[k % len(colours)],
            linestyle=stroke,
            linewidth=width,
            marker="osD^vP*X<>h"[k],
            markevery=0.12,
            markersize=7,
            label=f"{solvers[k]}: {np.isfinite(costs[k]).mean():.0%} solved",
        )
    axes.set_xscale("log")
    axes.set_xlim(1.0, grid[-1])
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("τ: evaluations over those of the best solver of the run")
    axes.set_ylabel("share of runs solved within τ times the best")
    axes.set_title(
        f"Performance profile, {costs.shape[1]} runs on "
        f"{len(document['runs'])} problems, at most {document['budget']} evaluations"
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
