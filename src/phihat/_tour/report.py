"""What the tour prints: the runs as text, with tables."""

from collections.abc import Sequence

import jax
import numpy as np

from phihat._tour.deck import PROBLEMS, Problem, Run, convexity, parabola
from phihat._tour.tables import table
from phihat._tour.tasks import Task, TaskResult

__all__ = [
    "parabola_report",
    "problem_report",
    "tasks_report",
]


def parabola_report(run: Run) -> str:
    """Compare the derivative that JAX computes with that of the slide."""
    points = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    slopes = jax.vmap(jax.grad(parabola))(points)
    rows = [
        [f"{x:g}", f"{parabola(x):g}", f"{slope:g}", f"{2 * x - 4:g}"]
        for x, slope in zip(points, slopes, strict=True)
    ]
    end, lowest = run.path[-1], run.losses[-1]
    return _section(
        "Parabola: y = x^2 - 4x + 5",
        table(["x", "y", "jax.grad", "2x - 4"], rows),
        f"Gradient descent from x = {run.path[0]:g} came to x = {end:.3f}, where "
        f"y = {lowest:.3f}:",
        f"{run.status} after {len(run.path) - 1} steps.",
    )


def problem_report(name: str, runs: Sequence[Run]) -> str:
    """Tell how each optimizer fared on a problem, from one start."""
    problem = PROBLEMS[name]
    rows = []
    for run in runs:
        setting = problem.settings[run.name]
        rows.append(
            [
                run.name,
                "found" if setting.rate is None else f"{setting.rate:g}",
                _point(run.path[0]),
                str(len(run.path) - 1),
                f"{run.losses[-1]:.4f}",
                run.status,
                _point(run.path[-1]),
                f"{run.score:.3f}",
            ]
        )
    heads = ["optimizer", "rate", "start", "steps", "loss", "status", "end", "R^2"]
    return _section(
        f"Fit of {problem.title}: {problem.formula}",
        table(heads, rows),
        f"The loss at the start is {runs[0].losses[0]:.4f}.",
        _curvature(problem) if name == "linear regression" else _MANY_MINIMA,
    )


def tasks_report(tasks: Sequence[Task], outcomes: Sequence[TaskResult]) -> str:
    """Tell how well each task is done on rows that the fit never saw."""
    pairs = list(zip(tasks, outcomes, strict=True))
    models = [
        [task.name, task.kind, task.model_name, *map(str, outcome.num_rows)]
        for task, outcome in pairs
    ]
    fits = [
        [
            task.name,
            task.start,
            str(outcome.steps),
            f"{outcome.first_loss:.4f}",
            f"{outcome.loss:.4f}",
            outcome.status,
            task.measure,
            *("none" if score is None else f"{score:.3f}" for score in outcome.scores),
        ]
        for task, outcome in pairs
    ]
    heads = ["data", "start", "steps", "first loss", "loss", "status"]
    return _section(
        "Four kinds of task, on real data",
        table(["data", "task", "model", "rows to fit", "held out"], models),
        "",
        table([*heads, "score", "fitted", "held out"], fits),
        "Features, and the targets of a regression, are scaled by the mean and the\n"
        "standard deviation of the rows to fit. linnerud is too small to hold any out.",
    )


_MANY_MINIMA = (
    "CONVERGED means that the gradient vanished, not that no other minimum is lower:\n"
    "this loss has many. An R^2 below 0 is worse than the mean."
)


def _curvature(problem: Problem) -> str:
    low, high = convexity(problem, problem.start)
    return (
        "It is quadratic, with the same Hessian everywhere; the eigenvalues, "
        f"{low:.2f} and {high:.1f},\nare positive: it is convex, and has one minimum."
    )


def _section(title: str, *paragraphs: str) -> str:
    return "\n".join([title, "=" * len(title), *paragraphs, ""])


def _point(params: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in params) + ")"
