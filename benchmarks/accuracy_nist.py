"""Certified curve fits: digits reached by our optimizers and by two peers.

For each of NIST's nonlinear sets and both published starts it prints the digits of the
worst param (11 are certified) and our number of steps. Everyone runs in float64 with
exact derivatives and tolerances at rounding. Run from the root:
`python -m benchmarks.accuracy_nist [SET ...]`.
"""

import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import scipy.optimize

import phihat
from phihat import losses, second_order
from tests import nist

jax.config.update("jax_enable_x64", True)

NUM_STEPS = 12_000


def ours(factory):
    def run(problem):
        model = lambda params, x: problem.model(params, x.T)  # noqa: E731
        data = (jnp.asarray(problem.x.T), jnp.asarray(problem.y))
        loss_fn, optimizer = losses.least_squares(model), factory()
        for start in problem.starts:
            result = phihat.fit(
                loss_fn,
                jnp.asarray(start),
                optimizer,
                data,
                num_steps=NUM_STEPS,
                tolerance=0.0,
                record=(),
            )
            yield result.params, int(result.num_steps)

    return run


def curve_fit(problem):
    model = jax.jit(lambda x, *params: problem.model(params, x))
    jacobian = jax.jit(jax.jacfwd(lambda p: problem.model(p, jnp.asarray(problem.x))))
    for start in problem.starts:
        try:
            params, *_, info, _, _ = scipy.optimize.curve_fit(
                lambda x, *params: np.asarray(model(x, *params)),
                problem.x,
                problem.y,
                p0=start,
                jac=lambda x, *params: np.asarray(jacobian(jnp.asarray(params))),  # noqa: ARG005
                full_output=True,
                ftol=1e-15,
                xtol=1e-15,
                gtol=0.0,
                maxfev=NUM_STEPS,
            )
            yield params, info["nfev"]
        except RuntimeError:  # its way to say that it did not converge
            yield np.full_like(start, np.nan), -1


def optimistix_lm(problem):
    solver = optimistix.LevenbergMarquardt(rtol=1e-14, atol=1e-14)
    residual_fn = lambda params, _: problem.model(params, problem.x) - problem.y  # noqa: E731
    for start in problem.starts:
        result = optimistix.least_squares(
            residual_fn, solver, jnp.asarray(start), max_steps=NUM_STEPS, throw=False
        )
        yield result.value, int(result.stats["num_steps"])


SOLVERS = {
    "levenberg_marquardt": ours(second_order.levenberg_marquardt),
    "newton": ours(second_order.newton),
    "scipy curve_fit": curve_fit,
    "optimistix LM": optimistix_lm,
}


def main(names):
    warnings.simplefilter("ignore", scipy.optimize.OptimizeWarning)
    np.seterr(all="ignore")
    print("digits (steps) from both starts\n")
    print(" " * 10 + "".join(f"{name:>28}" for name in SOLVERS))
    reached, seconds = dict.fromkeys(SOLVERS, 0), dict.fromkeys(SOLVERS, 0.0)
    names = names or list(nist.PROBLEMS)
    for name in names:
        problem, line = nist.PROBLEMS[name], f"{name:10}"
        for solver, run in SOLVERS.items():
            begin = time.perf_counter()
            found = [
                (nist.num_digits(params, problem.certified), steps)
                for params, steps in run(problem)
            ]
            seconds[solver] += time.perf_counter() - begin
            reached[solver] += sum(digits >= 8 for digits, _ in found)
            line += "".join(
                f"{digits:7.1f} {f'({steps})':>6}" for digits, steps in found
            )
        print(line, flush=True)
    for solver, number in reached.items():
        print(
            f"{solver:20} {number} of {2 * len(names)} to 8 digits or more, "
            f"{seconds[solver]:.0f} s with compiling"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
