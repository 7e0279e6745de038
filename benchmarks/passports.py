"""Passports: how far each optimizer is from its references, in units of rounding.

`python -m benchmarks.passports` measures all of them and writes `docs/passports`: the
numbers as JSON, and from those one page per optimizer. The gradient of both sides comes
from one compiled function, so that what differs is the update rule alone.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree

import phihat
from benchmarks import pairs
from phihat import losses, problems
from tests import nist

__all__ = ["NUM_STEPS", "PAGES", "PASSPORTS", "Reference", "measure", "pages", "ulps"]

PAGES = Path(__file__).parent.parent / "docs" / "passports"
TEXTS = Path(__file__).with_name("passports.md")
"""What the passports say beside their numbers, a section for each."""

NUM_STEPS = 100
DTYPES = ("float32", "float64")

Steps = np.ndarray
"""Params after each step, [T, P], or where a fit ends, [1, P]."""


class Reference(NamedTuple):
    """What an optimizer is compared with.

    Attributes:
      ours: `(case, dtype) -> steps`.
      theirs: likewise; raises ImportError where the package is not installed.
      cases: names of problems.
      bounds: the ulps that the tests allow in float32 and float64: room for machines
        that round elsewhere.
    """

    ours: Callable[[str, str], Steps]
    theirs: Callable[[str, str], Steps]
    cases: tuple[str, ...]
    bounds: tuple[float, float]


def ulps(one: Steps, other: Steps, dtype: str) -> float:
    """Return the largest distance of two paths, in ulps of the path's largest entry."""
    largest = np.max(np.abs(other.astype(float)))
    gap = np.max(np.abs(one.astype(float) - other.astype(float)))
    return float(gap / np.spacing(np.asarray(largest, dtype)))


# --------------------------------------------------------------------------- the cases

PROBLEMS = {
    "quadratic": problems.quadratic(100.0, 4),
    "rosenbrock": problems.rosenbrock(),
    "beale": problems.beale(),
    "adam_surface": problems.adam_surface(),
    "gabor": problems.gabor(),
    "linear_regression": problems.linear_regression(),
    "booth": problems.booth(),
}
RATES = {"rosenbrock": 5e-4, "beale": 1e-3, "adam_surface": 0.1, "gabor": 2e-3}
"""Rates at which gradient descent goes down; elsewhere 0.01. Adam's are 0.05."""


@functools.cache
def loss_and_start(case: str, dtype: str) -> tuple[Any, Any]:
    problem = PROBLEMS[case]
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), problem.start)
    vector, unflatten = ravel_pytree(start)
    return (lambda vector: problem.loss_fn(unflatten(vector))), vector


@functools.cache
def gradient_of(case: str, dtype: str) -> Callable[[Any], np.ndarray]:
    loss_fn, start = loss_and_start(case, dtype)
    gradient = jax.jit(jax.grad(loss_fn))
    gradient(start)
    return lambda params: np.asarray(gradient(np.asarray(params, dtype)))


# ------------------------------------------------------------ step by step, by gradient


def by_optax(make: Callable[[float], Any], rate: float | None = None) -> Any:
    """Return the params that an optax loop carries."""

    @functools.cache
    def path(case: str, dtype: str) -> Steps:
        optimizer = make(RATES.get(case, 0.01) if rate is None else rate)
        gradient, params = gradient_of(case, dtype), loss_and_start(case, dtype)[1]

        @jax.jit
        def update(gradient: Any, state: Any, params: Any) -> Any:
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        state, found = optimizer.init(params), []
        with jax.numpy_dtype_promotion("standard"):  # optax's own needs it
            for _ in range(NUM_STEPS):
                params, state = update(gradient(params), state, params)
                found.append(np.asarray(params))
        return np.stack(found)

    return path


def by_torch(make: Callable[[Any, Any, float], Any], rate: float | None = None) -> Any:
    def path(case: str, dtype: str) -> Steps:
        import torch

        start = np.array(loss_and_start(case, dtype)[1])
        gradient, point = (
            gradient_of(case, dtype),
            torch.nn.Parameter(torch.tensor(start)),
        )
        step_size = RATES.get(case, 0.01) if rate is None else rate
        optimizer, found = make(torch, [point], step_size), []
        for _ in range(NUM_STEPS):
            point.grad = torch.tensor(gradient(point.detach().numpy()))
            optimizer.step()
            found.append(point.detach().numpy().copy())
        return np.stack(found)

    return path


def by_book(
    rule: Callable[..., tuple[Any, Any]],
    rate: float | None = None,
    *,
    ahead: float = 0.0,
    is_wide: bool = False,
) -> Any:
    """Return the recursion as the deck writes it, in NumPy.

    It computes in the dtype of the params; `is_wide`, in float64, where only the
    gradient knows that dtype.
    """

    def path(case: str, dtype: str) -> Steps:
        gradient, own = gradient_of(case, dtype), "float64" if is_wide else dtype
        params = np.array(loss_and_start(case, dtype)[1], own)
        step_size = np.asarray(RATES.get(case, 0.01) if rate is None else rate, own)
        memory, found = (np.zeros_like(params), np.zeros_like(params)), []
        for step in range(NUM_STEPS):
            look = params - step_size * np.asarray(ahead, own) * memory[0]
            slope = gradient(look).astype(own)
            direction, memory = rule(slope, memory, step)
            params = params - step_size * direction
            found.append(params)
        return np.stack(found)

    return path


def iterates(optimizer: Callable[[float], Any]) -> Any:
    """Return ours at the iterates, not at the points that the loop carries."""

    def path(case: str, dtype: str) -> Steps:
        made = optimizer(RATES.get(case, 0.01))
        update = jax.jit(lambda g, s, p: made.update(g, s, p))
        gradient, params = gradient_of(case, dtype), loss_and_start(case, dtype)[1]
        state, found = made.init(params), []
        for _ in range(NUM_STEPS):
            updates, state = update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
            found.append(np.asarray(phihat.eval_params(state, params)))
        return np.stack(found)

    return path


def plain_rule(gradient: Any, memory: Any, step: int) -> Any:
    del step
    return gradient, memory


def momentum_rule(gradient: Any, memory: Any, step: int) -> Any:
    del step
    b = np.asarray(0.9, gradient.dtype)
    mean = b * memory[0] + (1 - b) * gradient
    return mean, (mean, memory[1])


def adam_rule(b1: float, b2: float) -> Any:
    def rule(gradient: Any, memory: Any, step: int) -> Any:
        b, c, eps = (np.asarray(value, gradient.dtype) for value in (b1, b2, 1e-8))
        mean = b * memory[0] + (1 - b) * gradient
        square = c * memory[1] + (1 - c) * gradient**2
        corrected = mean / (1 - b ** (step + 1))
        root = np.sqrt(square / (1 - c ** (step + 1)))
        return corrected / (root + eps), (mean, square)

    return rule


# ------------------------------------------------------------------------ line searches


def by_search(search: Any) -> Any:
    def path(case: str, dtype: str) -> Steps:
        loss_fn, start = loss_and_start(case, dtype)
        result = phihat.fit(
            loss_fn,
            start,
            phihat.steepest_descent(search),
            num_steps=10,
            record=("params",),
        )
        return np.asarray(result.history["params"])[1:]

    return path


def by_step(choose: Callable[[Any, Any, Any], Any]) -> Any:
    """Return ten steps against the gradient, each as long as `choose` says."""

    def path(case: str, dtype: str) -> Steps:
        loss_fn, params = loss_and_start(case, dtype)
        value, gradient, found = jax.jit(loss_fn), gradient_of(case, dtype), []
        for _ in range(10):
            slope = gradient(params)
            line = lambda s, p=params, g=slope: np.asarray(value(p - s * g))  # noqa: E731
            step = np.asarray(choose(line, slope, case), dtype)
            params = np.asarray(params - step * slope)
            found.append(params)
        return np.stack(found)

    return path


def notebook_search(line: Any, slope: Any, case: str) -> float:
    """The line search of the chapter's notebooks, with their settings."""
    del case
    dtype = slope.dtype
    a, b, c, d = (np.asarray(0.1 * x, dtype) for x in (0.0, 0.33, 0.66, 1.0))
    rounds = 0
    while abs(b - c) > np.asarray(1e-5, dtype) and rounds < 15:
        rounds += 1
        at_a, at_b, at_c, at_d = (line(x) for x in (a, b, c, d))
        if at_a < min(at_b, at_c, at_d):
            b, c, d = (a + (x - a) / 2 for x in (b, c, d))
        else:
            if at_b < at_c:
                d = c
            else:
                a = b
            b, c = a + (d - a) / 3, a + 2 * (d - a) / 3
    return (b + c) / 2


def exact_search(line: Any, slope: Any, case: str) -> float:
    """The minimum along the gradient of a quadratic, in closed form."""
    del line
    hessian = np.asarray(
        jax.hessian(loss_and_start(case, "float64")[0])(
            jnp.asarray(loss_and_start(case, "float64")[1])
        )
    )
    g = slope.astype(float)
    return (g @ g) / (g @ hessian @ g)


def armijo(line: Any, slope: Any, case: str) -> float:
    """Armijo's rule, with the defaults of `backtracking`."""
    del case
    step, at_zero, fall = np.asarray(1.0, slope.dtype), line(0.0), slope @ slope
    while not line(step) <= at_zero - np.asarray(1e-4, slope.dtype) * step * fall:
        step = step / 2
    return step


# ------------------------------------------------------------- where second-order ends


def our_end(make: Callable[[], Any]) -> Any:
    def path(case: str, dtype: str) -> Steps:
        loss_fn, start = loss_and_start(case, dtype)
        result = phihat.fit(
            loss_fn, start, make(), num_steps=200, tolerance=0.0, record=()
        )
        return np.asarray(result.params)[None]

    return path


def scipy_end(method: str) -> Any:
    """Return SciPy's end, which is in float64 whatever ours is in."""

    def path(case: str, dtype: str) -> Steps:
        del dtype
        loss_fn, start = loss_and_start(case, "float64")
        value, gradient = jax.jit(loss_fn), jax.jit(jax.grad(loss_fn))
        hessian = jax.jit(jax.hessian(loss_fn))
        result = scipy.optimize.minimize(
            lambda p: float(value(p)),
            np.asarray(start),
            jac=lambda p: np.asarray(gradient(p)),
            hess=lambda p: np.asarray(hessian(p)),
            method=method,
            options={"gtol": 1e-12, "maxiter": 500},
        )
        return result.x[None]

    return path


CURVES = ("Misra1a", "DanWood", "Chwirut2", "Rat42")
"""NIST's sets, from the second of the published starts."""


def our_curve(case: str, dtype: str) -> Steps:
    problem = nist.PROBLEMS[case]
    data = (jnp.asarray(problem.x.T, dtype), jnp.asarray(problem.y, dtype))
    loss_fn = losses.least_squares(lambda params, x: problem.model(params, x.T))
    result = phihat.fit(
        loss_fn,
        jnp.asarray(problem.starts[1], dtype),
        phihat.levenberg_marquardt(),
        data,
        num_steps=500,
        tolerance=0.0,
        record=(),
    )
    return np.asarray(result.params)[None]


def scipy_curve(case: str, dtype: str) -> Steps:
    del dtype
    problem = nist.PROBLEMS[case]
    params, _ = scipy.optimize.curve_fit(
        lambda x, *params: np.asarray(problem.model(params, x)),
        problem.x,
        problem.y,
        p0=problem.starts[1],
        jac=lambda x, *params: np.asarray(
            jax.jacfwd(lambda p: problem.model(p, x))(jnp.asarray(params))
        ),
        ftol=1e-15,
        xtol=1e-15,
        maxfev=10_000,
    )
    return params[None]


def certified(case: str, dtype: str) -> Steps:
    del dtype
    return nist.PROBLEMS[case].certified[None]


# ------------------------------------------------------------------------ the passports

EVERYWHERE = tuple(PROBLEMS)[:-1]
ENDS = ("booth", "rosenbrock", "beale", "linear_regression")

PASSPORTS: dict[str, dict[str, Reference]] = {
    "gradient_descent": {
        "optax.sgd": Reference(
            by_optax(phihat.gradient_descent), by_optax(optax.sgd), EVERYWHERE, (4, 4)
        ),
        "torch.optim.SGD": Reference(
            by_optax(phihat.gradient_descent),
            by_torch(lambda torch, points, rate: torch.optim.SGD(points, lr=rate)),
            EVERYWHERE,
            (64, 64),
        ),
        "the deck": Reference(
            by_optax(phihat.gradient_descent), by_book(plain_rule), EVERYWHERE, (64, 64)
        ),
    },
    "momentum": {
        "optax.sgd": Reference(
            by_optax(phihat.momentum),
            by_optax(lambda rate: optax.sgd(rate * (1 - 0.9), momentum=0.9)),
            EVERYWHERE,
            (64, 64),
        ),
        "torch.optim.SGD": Reference(
            by_optax(phihat.momentum),
            by_torch(
                lambda torch, points, rate: torch.optim.SGD(
                    points, lr=rate * (1 - 0.9), momentum=0.9
                )
            ),
            EVERYWHERE,
            (64, 64),
        ),
        "the deck": Reference(
            by_optax(phihat.momentum), by_book(momentum_rule), EVERYWHERE, (64, 64)
        ),
    },
    "nesterov": {
        "optax.sgd, look-ahead points": Reference(
            by_optax(phihat.nesterov),
            by_optax(
                lambda rate: optax.sgd(rate * (1 - 0.9), momentum=0.9, nesterov=True)
            ),
            EVERYWHERE,
            (64, 64),
        ),
        "torch.optim.SGD, look-ahead points": Reference(
            by_optax(phihat.nesterov),
            by_torch(
                lambda torch, points, rate: torch.optim.SGD(
                    points, lr=rate * (1 - 0.9), momentum=0.9, nesterov=True
                )
            ),
            EVERYWHERE,
            (64, 64),
        ),
        "the book, look-ahead 0.9": Reference(
            iterates(phihat.nesterov),
            by_book(momentum_rule, ahead=0.9),
            EVERYWHERE,
            (64, 64),
        ),
        "the slide, look-ahead 1": Reference(
            iterates(lambda rate: phihat.nesterov(rate, lookahead=1.0)),
            by_book(momentum_rule, ahead=1.0),
            EVERYWHERE,
            (64, 64),
        ),
    },
    "normalized_gradient": {
        "optax.adam without means": Reference(
            by_optax(phihat.normalized_gradient),
            by_optax(lambda rate: optax.adam(rate, 0.0, 0.0)),
            EVERYWHERE,
            (4, 4),
        ),
        "torch.optim.Adam without means": Reference(
            by_optax(phihat.normalized_gradient),
            by_torch(
                lambda torch, points, rate: torch.optim.Adam(
                    points, lr=rate, betas=(0.0, 0.0)
                )
            ),
            EVERYWHERE,
            (64, 1e7),
        ),
        "the deck": Reference(
            by_optax(phihat.normalized_gradient),
            by_book(adam_rule(0.0, 0.0)),
            EVERYWHERE,
            (64, 1e7),
        ),
    },
    "adam": {
        "optax.adam": Reference(
            by_optax(phihat.adam, 0.05),
            by_optax(optax.adam, 0.05),
            EVERYWHERE,
            (64, 200),
        ),
        "torch.optim.Adam": Reference(
            by_optax(phihat.adam, 0.05),
            by_torch(
                lambda torch, points, rate: torch.optim.Adam(points, lr=rate), 0.05
            ),
            EVERYWHERE,
            (64, 200),
        ),
        "the deck": Reference(
            by_optax(phihat.adam, 0.05),
            by_book(adam_rule(0.9, 0.999), 0.05),
            EVERYWHERE,
            (64, 200),
        ),
        "the deck, computed in float64": Reference(
            by_optax(phihat.adam, 0.05),
            by_book(adam_rule(0.9, 0.999), 0.05, is_wide=True),
            EVERYWHERE,
            (64, 200),
        ),
        "(optax.adam against the deck in float64)": Reference(
            by_optax(optax.adam, 0.05),
            by_book(adam_rule(0.9, 0.999), 0.05, is_wide=True),
            EVERYWHERE,
            (64, 200),
        ),
    },
    "steepest_descent": {
        "bracketing: the chapter's notebooks": Reference(
            by_search(phihat.bracketing()),
            by_step(notebook_search),
            ("quadratic", "beale", "adam_surface", "linear_regression"),
            (1e4, 200),
        ),
        "golden_section: the exact step on a quadratic": Reference(
            by_search(phihat.golden_section(max_step=1.0, tolerance=1e-9)),
            by_step(exact_search),
            ("quadratic", "linear_regression"),
            (1e6, 1e11),
        ),
        "backtracking: Armijo's rule": Reference(
            by_search(phihat.backtracking()), by_step(armijo), EVERYWHERE, (64, 64)
        ),
    },
    "newton": {
        "scipy.optimize.minimize, trust-exact": Reference(
            our_end(phihat.newton), scipy_end("trust-exact"), ENDS, (64, 256)
        ),
    },
    "newton_cg": {
        "scipy.optimize.minimize, trust-ncg": Reference(
            our_end(phihat.newton_cg), scipy_end("trust-ncg"), ENDS, (64, 1000)
        ),
    },
    "levenberg_marquardt": {
        "scipy.optimize.curve_fit": Reference(
            our_curve, scipy_curve, CURVES, (256, 1e8)
        ),
        "certified params": Reference(our_curve, certified, CURVES, (256, 5e6)),
    },
}
"""Every optimizer with its references; a test fails where one is missing."""


def measure(
    reference: Reference,
    cases: tuple[str, ...] | None = None,
    dtypes: tuple[str, ...] = DTYPES,
) -> Any:
    """Return ulps by case and dtype, or None where a package is not installed."""
    found: dict[str, dict[str, float]] = {}
    try:
        for case in cases or reference.cases:
            found[case] = {
                dtype: ulps(
                    reference.ours(case, dtype), reference.theirs(case, dtype), dtype
                )
                for dtype in dtypes
            }
    except ImportError:
        return None
    return found


# ---------------------------------------------------------------------------- the pages


def pages(document: dict[str, Any]) -> dict[str, str]:
    """Return every page by its name, from the numbers alone."""
    found = {"index": _index(document)}
    sections = TEXTS.read_text(encoding="utf-8").split("\n# ")
    texts = dict(section.removeprefix("# ").split("\n", 1) for section in sections)
    for name, references in document["passports"].items():
        lines = [f"# {name}", "", texts[name].strip(), "", "## Distance", ""]
        lines += [SENTENCES.get(name, _BY_STEP), ""]
        lines += ["| reference | problem | float32 | float64 |", "|---|---|--:|--:|"]
        for reference, cases in references.items():
            for case, distances in cases.items():
                numbers = " | ".join(_number(distances[dtype]) for dtype in DTYPES)
                lines.append(f"| {reference} | {case} | {numbers} |")
        lines += ["", _measured(document), ""]
        found[name] = "\n".join(lines)
    return found


def _index(document: dict[str, Any]) -> str:
    names = list(document["passports"])
    lines = [
        "# Optimizers compared with other libraries",
        "",
        "Each optimizer is compared with other implementations of the same method. Its",
        "page says which settings correspond, and how far apart the results are.",
        "",
        "The table lists the largest difference on any problem. It is counted in",
        "units in the last place of the largest param: 1 is the distance between",
        "neighbouring floating-point numbers. The number in brackets is the largest",
        "difference that the tests allow.",
        "",
        "`python -m benchmarks.passports` measures again and writes these pages, which",
        f"took {document['seconds']:.0f} s. The tests repeat some of the comparisons.",
        "",
        "| optimizer | reference | float32 | float64 |",
        "|---|---|--:|--:|",
    ]
    for name, references in document["passports"].items():
        for reference, cases in references.items():
            worst = [max(case[dtype] for case in cases.values()) for dtype in DTYPES]
            allowed = PASSPORTS[name][reference].bounds
            pairs_of = zip(worst, allowed, strict=True)
            numbers = " | ".join(f"{_number(w)} ({a:.3g})" for w, a in pairs_of)
            lines.append(f"| [{name}]({name}.md) | {reference} | {numbers} |")
    lines += ["", _measured(document), "", ":::{toctree}", ":hidden:", ""]
    return "\n".join([*lines, *names, ":::", ""])


def _measured(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in document["versions"].items())
    return f"Measured on {document['date']}, {document['machine']['cpu']}: {versions}."


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.3g}"


_BY_STEP = (
    f"The largest distance over {NUM_STEPS} steps, in units in the last place of the "
    "path's largest entry. Rounding errors differ from the first step on, and on a "
    "badly scaled problem they grow from step to step."
)
_TEN = "The largest distance over 10 steps, in units in the last place."
_ENDS = (
    "The distance of the two ends, in units in the last place of the largest param. "
    "SciPy runs in float64 in both columns."
)
SENTENCES = {
    "steepest_descent": _TEN,
    "newton": _ENDS,
    "newton_cg": _ENDS,
    "levenberg_marquardt": _ENDS,
}


def main(arguments: list[str]) -> None:
    """Measure everything and write the pages; with `--pages`, write them alone."""
    path = PAGES / "passports.json"
    if arguments == ["--pages"]:
        document = json.loads(path.read_text())
    else:
        document = _measure_all()
        PAGES.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
    for name, page in pages(document).items():
        (PAGES / f"{name}.md").write_text(page, encoding="utf-8")


def _measure_all() -> dict[str, Any]:
    jax.config.update("jax_enable_x64", True)
    begin = time.perf_counter()
    passports: dict[str, Any] = {}
    for name, references in PASSPORTS.items():
        passports[name] = {}
        for reference, entry in references.items():
            found = measure(entry)
            if found is None:
                print(f"{name}: the package of {reference} is not installed")
                continue
            passports[name][reference] = found
            worst = [max(c[dtype] for c in found.values()) for dtype in DTYPES]
            print(f"{name:20} {reference:46} {worst[0]:10.1f} {worst[1]:10.1f}")
    seconds = time.perf_counter() - begin
    return {**pairs.here(), "seconds": seconds, "passports": passports}


if __name__ == "__main__":
    main(sys.argv[1:])
