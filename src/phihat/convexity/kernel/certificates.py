"""Whether a certificate proves what its report says."""

import math
from collections.abc import Callable
from typing import Any

from phihat._core.types import Box
from phihat.convexity.kernel.checker import Checker
from phihat.convexity.kernel.facts import Known, Refused
from phihat.convexity.kernel.question import is_the_question
from phihat.convexity.program.problem import Problem
from phihat.convexity.report import ConvexityReport, Verdict

__all__ = ["accepts"]


def accepts(
    report: ConvexityReport,
    problem: Problem,
    loss_fn: Callable[..., Any],
    data: Any,
    domain: Box | None,
    wrt: Any,
) -> bool:
    """Check a certificate of a proof, line by line, and its conclusion.

    The problem is traced anew; data, domain and `wrt` are as the user gave them.
    """
    if not is_the_question(problem, loss_fn, data, domain, wrt):
        return False
    return any(_follows(report, problem, on_logs) for on_logs in (False, True))


def _follows(report: ConvexityReport, problem: Problem, on_logs: bool) -> bool:
    try:
        checker = Checker(problem, report.certificate, on_logs=on_logs)
        checker.run()
    except Refused:
        return False
    known = checker.values[problem.program.output].known
    return (
        _CONCLUSIONS[report.verdict](known)
        and report.statement == problem.digest()
        and report.scope == problem.scope
        and set(report.assumptions) == set(problem.program.assumptions)
        and list(report.constraints) == list(dict.fromkeys(checker.conditions))
        and (known.total or math.isfinite(problem.value(problem.start)))
    )


_CONCLUSIONS: dict[Verdict, Callable[[Known], bool]] = {
    Verdict.PROVED_AFFINE: lambda known: known.affine,
    Verdict.PROVED_CONVEX: lambda known: known.convex,
    Verdict.PROVED_CONCAVE: lambda known: known.concave,
}
