"""How long a verdict on convexity takes, beside cvxpy's rules, and how it scales.

Run from the root by `python -m pytest benchmarks/bench_convexity.py -s -n 0`; the
results go to `docs/benchmarks`.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import pairs
from phihat import check_convexity, prove_convexity
from tests.convexity_losses import LOSSES

cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is in the extra `peers`")

_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(24, 3)), _rng.normal(size=24)
SIGNS = np.sign(Y)


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("convexity")
    yield report
    report.write()


def residual(w: Any) -> Any:
    return X @ w - Y


def margin(w: Any) -> Any:
    return cvxpy.multiply(SIGNS, X @ w)


Expression = Callable[[Any], Any]
IN_CVXPY: dict[str, tuple[Expression, Expression]] = {
    "least squares": (
        lambda w: cvxpy.sum_squares(residual(w)),
        lambda w: cvxpy.sum(cvxpy.square(residual(w))),
    ),
    "ridge": (
        lambda w: cvxpy.sum_squares(residual(w)) + 0.1 * cvxpy.sum_squares(w),
        lambda w: cvxpy.sum(residual(w) ** 2) + 0.1 * cvxpy.sum(w**2),
    ),
    "elastic net": (
        lambda w: cvxpy.sum_squares(residual(w)) + cvxpy.norm1(w),
        lambda w: cvxpy.sum(residual(w) ** 2) + cvxpy.sum(cvxpy.abs(w)),
    ),
    "group lasso": (
        lambda w: cvxpy.sum_squares(residual(w)) + cvxpy.norm2(w),
        lambda w: cvxpy.sum(residual(w) ** 2) + cvxpy.sqrt(cvxpy.sum(w**2)),
    ),
    "logistic": (
        lambda w: cvxpy.sum(cvxpy.logistic(-margin(w))),
        lambda w: cvxpy.sum(cvxpy.log(1 + cvxpy.exp(-margin(w)))),
    ),
    "softmax cross-entropy": (
        lambda w: cvxpy.log_sum_exp(X @ w),
        lambda w: cvxpy.log(cvxpy.sum(cvxpy.exp(X @ w))),
    ),
    "Poisson": (
        lambda w: cvxpy.sum(cvxpy.exp(X @ w) - cvxpy.multiply(SIGNS + 1, X @ w)),
        lambda w: cvxpy.sum(cvxpy.exp(X @ w) - cvxpy.multiply(SIGNS + 1, X @ w)),
    ),
    "Huber": (
        lambda w: cvxpy.sum(cvxpy.huber(residual(w))),
        lambda w: cvxpy.sum(
            0.5 * cvxpy.minimum(cvxpy.abs(residual(w)), 1) ** 2
            + cvxpy.abs(residual(w))
            - cvxpy.minimum(cvxpy.abs(residual(w)), 1)
        ),
    ),
    "pseudo-Huber": (
        lambda w: cvxpy.sum(
            cvxpy.norm2(
                cvxpy.vstack([residual(w), np.ones(24)]),
                axis=0,
            )
        ),
        lambda w: cvxpy.sum(cvxpy.sqrt(1 + residual(w) ** 2)),
    ),
    "log-cosh": (
        lambda w: cvxpy.sum(
            cvxpy.logistic(2 * residual(w)) - residual(w) - np.log(2.0)
        ),
        lambda w: cvxpy.sum(
            cvxpy.log((cvxpy.exp(residual(w)) + cvxpy.exp(-residual(w))) / 2)
        ),
    ),
    "pinball": (
        lambda w: cvxpy.sum(cvxpy.maximum(0.3 * residual(w), -0.7 * residual(w))),
        lambda w: cvxpy.sum(cvxpy.maximum(0.3 * residual(w), -0.7 * residual(w))),
    ),
    "hinge": (
        lambda w: cvxpy.sum(cvxpy.pos(1 - margin(w))),
        lambda w: cvxpy.sum(cvxpy.maximum(1 - margin(w), 0)),
    ),
    "sum of the largest": (
        lambda w: cvxpy.sum_largest(X @ w, 5),
        lambda w: cvxpy.sum_largest(X @ w, 5),
    ),
    "x log x": (
        lambda w: -cvxpy.sum(cvxpy.entr(w)),
        lambda w: cvxpy.sum(cvxpy.multiply(w, cvxpy.log(w))),
    ),
}
"""Each loss as cvxpy's own atoms say it, and from the primitives that a program has."""


def test_time_to_a_verdict(report: pairs.Report) -> None:
    """Print every loss: our verdict and time, cvxpy's with atoms and without."""
    times: dict[str, dict[str, float]] = {}
    by_primitives = 0
    for name, (loss_fn, params, data, domain, truth) in LOSSES.items():
        check_convexity(loss_fn, params, data, domain=domain)
        begin = time.perf_counter()
        verdict = check_convexity(loss_fn, params, data, domain=domain).verdict
        seconds = time.perf_counter() - begin
        assert verdict.is_convex == (truth != "R"), name
        theirs = ""
        if name in IN_CVXPY:
            known = [form(cvxpy.Variable(3)).is_convex() for form in IN_CVXPY[name]]
            by_primitives += known[1]
            words = ["yes" if convex else "no" for convex in known]
            theirs = f"; cvxpy {words[0]}, from primitives {words[1]}"
        times[f"{name}: {verdict.name}{theirs}"] = {"run_seconds": seconds}
    every = [entry["run_seconds"] for entry in times.values()]
    times["median"] = {"run_seconds": statistics.median(every)}
    times["worst"] = {"run_seconds": max(every)}
    report.add(
        f"a verdict on each of {len(LOSSES)} losses, second call",
        times,
        cvxpy=f"proves {by_primitives} of {len(IN_CVXPY)} from primitives",
    )


@pytest.mark.parametrize("name", ["least squares", "logistic", "elastic net"])
def test_a_proof_beside_cvxpy(name: str, benchmark: Any, report: pairs.Report) -> None:
    loss_fn, params, data, domain, _ = LOSSES[name]
    result = pairs.measure(
        benchmark,
        lambda: prove_convexity(loss_fn, params, data, domain=domain).verdict.name,
        {"cvxpy's DCP": lambda: IN_CVXPY[name][0](cvxpy.Variable(3)).is_dcp()},
        rounds=15,
    )
    report.add(f"proof of {name}", result)


PROGRAM = """
import time
import jax.numpy as jnp, numpy as np, optax
from phihat import prove_convexity

def loss_fn(w, data):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(data[0] @ w, data[1]))

def kibibytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

rng = np.random.default_rng(0)
x = jnp.asarray(rng.normal(size=({rows}, {columns})), jnp.float32)
y = jnp.asarray(rng.integers(0, 2, {rows}), jnp.float32)
prove_convexity(loss_fn, jnp.zeros(2), (x[:3, :2], y[:3]))
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = kibibytes("VmRSS")
times = []
for _ in range(3):
    begin = time.perf_counter()
    verdict = prove_convexity(loss_fn, jnp.zeros({columns}), (x, y)).verdict
    times.append(time.perf_counter() - begin)
after = kibibytes("VmHWM")
print(verdict.name, sorted(times)[1], (after - before) / 1024)
"""


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(10**k, 100) for k in range(2, 7)] + [(50_000, 200)],
)
def test_logistic_regression_of_many_rows(
    rows: int, columns: int, report: pairs.Report
) -> None:
    """Time, and memory beside data on the device; each size in its own process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(rows=rows, columns=columns)],
        capture_output=True,
        text=True,
        check=True,
    )
    verdict, seconds, mebibytes = done.stdout.split()
    assert verdict == "PROVED_CONVEX"
    report.add(
        f"logistic regression, {rows} x {columns}",
        {"ours": {"run_seconds": float(seconds)}},
        bound="goal at 50000 x 200: 0.5 s and 200 MB",
        extra_memory=f"{float(mebibytes):.0f} MiB",
    )
