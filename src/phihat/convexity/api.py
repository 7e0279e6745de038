"""The calls: decide whether a loss is convex, or prove it, with the evidence.

Example:
  >>> import jax, jax.numpy as jnp
  >>> loss_fn = lambda w: jnp.sum(jax.nn.softplus(w)) + 0.1 * w @ w
  >>> check_convexity(loss_fn, jnp.zeros(3)).verdict.name
  'PROVED_CONVEX'
  >>> check_convexity(lambda w: jnp.sum(jnp.sin(w)), jnp.zeros(3)).verdict.name
  'REFUTED'
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.convexity import kernel
from phihat.convexity.box import certificates
from phihat.convexity.box.posing import check_budget
from phihat.convexity.numbers.intervals import from_array
from phihat.convexity.primitives.evaluation import Undefined, Unreadable, evaluate
from phihat.convexity.program.form import Program
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.program.trace import Untraceable
from phihat.convexity.prover.interpreter import Proof, prove
from phihat.convexity.refuter import chord_alarm, refutation
from phihat.convexity.report import ConvexityReport, Verdict

__all__ = ["check_convexity", "convex_blocks", "prove_convexity", "replay"]


@_calls.public
def check_convexity(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
    budget: float = 10.0,
) -> ConvexityReport:
    r"""Decide whether a loss is convex: by a proof, a refutation, or on a box.

    Convex means $L((1-t)a + tb) \le (1-t)L(a) + tL(b)$ for all a, b in the domain and
    t in [0, 1]. What is decided on is the program as it is traced under the present
    configuration of jax: its floats stand for reals, so that rounding and overflow are
    ignored, and its integers and booleans are machine integers of their own dtype.
    Values count, not derivative rules. So `jax_enable_x64` may change a verdict, where
    it changes an integer, a default dtype or the rounding of a constant.

    Args:
      loss_fn: `loss_fn(params, data) -> []`, or `loss_fn(params) -> []` where data is
        None.
      params: a pytree of floating-point arrays; gives the shapes, the values of leaves
        that are held, and a point at which the loss must be finite.
      data: a pytree of arrays, or a `Box` of two trees like the data: then the verdict
        holds for every data set in the range.
      domain: None for the whole space, or a `Box` in which params vary.
      wrt: None for all leaves; else the tree path (or key) of the leaves that vary, one
        or several; the others are held at their values.
      budget: seconds for the search for a witness and for the boxes, >= 0; the proof
        itself is not cut short.

    Returns:
      The report. `report.verdict` is one of `Verdict`; `print(report)` is a slide.

    Raises:
      TypeError: params are not floats; the loss is not a real number.
      ValueError: the loss is not a scalar; the domain does not match params.

    Example:
      >>> from phihat import losses, models
      >>> from phihat.datasets import linear_regression
      >>> loss_fn = losses.least_squares(models.linear)
      >>> start = {"weight": 0.0, "bias": 0.0}
      >>> report = check_convexity(loss_fn, start, linear_regression())
      >>> print(report)
      PROVED CONVEX  on all of R^2
        because every step follows a rule that keeps convexity

    References:
      Grant, Boyd, Ye, *Disciplined Convex Programming*, 2006.
    """
    begin = time.monotonic()
    check_budget("check_convexity", budget)
    problem, report = _posed(
        "check_convexity", loss_fn, params, data, domain=domain, wrt=wrt
    )
    if problem is None:
        return _timed(report, begin)
    proof = prove(problem)
    report = _proved(problem, proof)
    if report.verdict is Verdict.UNDECIDED and budget > 0.0:
        report = _searched(problem, proof, report, begin + budget)
    report = chord_alarm.guarded(report, problem, loss_fn, data, budget / 10)
    if problem.program.rules_of_ad or (
        not report.is_convex and _has_kinks(problem.program)
    ):
        report = dataclasses.replace(
            report, lints=(*report.lints, *refutation.lints(problem, begin + budget))
        )
    return _timed(_with_hint(report, problem), begin)


@_calls.public
def prove_convexity(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
    budget: float = 10.0,
) -> ConvexityReport:
    """Prove by rules that a loss is convex, affine or concave.

    Args:
      loss_fn: as in `check_convexity`.
      params: as in `check_convexity`.
      data: as in `check_convexity`.
      domain: as in `check_convexity`.
      wrt: as in `check_convexity`.
      budget: seconds, >= 0, of which a tenth may go to chords of the function itself,
        which guard the verdict; the proof itself is not cut short.

    Returns:
      A report whose verdict is PROVED_CONVEX, PROVED_AFFINE, PROVED_CONCAVE or
      UNDECIDED.

    Raises:
      TypeError: as `check_convexity`.
      ValueError: as `check_convexity`.

    Example:
      >>> import jax.numpy as jnp
      >>> report = prove_convexity(lambda x: jnp.sqrt(1.0 + x**2), 0.0)
      >>> report.verdict.name
      'PROVED_CONVEX'
    """
    begin = time.monotonic()
    check_budget("prove_convexity", budget)
    problem, report = _posed(
        "prove_convexity", loss_fn, params, data, domain=domain, wrt=wrt
    )
    if problem is not None:
        report = _proved(problem, prove(problem))
        report = chord_alarm.guarded(report, problem, loss_fn, data, budget / 10)
    return _timed(report, begin)


@_calls.public
def convex_blocks(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    held: str = "all",
) -> list[tuple[str, ...]]:
    """Find groups of params in which a loss is convex while the others are fixed.

    Args:
      loss_fn: as in `check_convexity`.
      params: a pytree of at most 12 leaves.
      data: as in `check_convexity`.
      domain: as in `check_convexity`.
      held: "all": convex whatever the values of the leaves that are held; "given":
        at their values in params.

    Returns:
      The groups of tree paths, largest first; none contains another. Each is proved;
      a larger one may be convex without being proved.

    Raises:
      TypeError: as `check_convexity`.
      ValueError: as `check_convexity`; more than 12 leaves; `held` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_fn = lambda p: jnp.sum((p["u"] @ p["v"] - 1.0) ** 2)
      >>> convex_blocks(loss_fn, {"u": jnp.ones((2, 1)), "v": jnp.ones((1, 2))})
      [("['u']",), ("['v']",)]
    """
    _checks.check_choice("convex_blocks", "held", held, ("all", "given"))
    problem, report = _posed("convex_blocks", loss_fn, params, data, domain=domain)
    if problem is None:
        raise ValueError(f"convex_blocks: {report.reason}.")
    labels, count = problem.labels, len(problem.labels)
    if count > _MAX_LEAVES:
        raise ValueError(
            f"convex_blocks: `params` must have at most {_MAX_LEAVES} leaves, got "
            f"{count}; group them."
        )
    found: list[int] = []
    by_size = sorted(range(1, 1 << count), key=lambda m: (-m.bit_count(), m))
    for mask in by_size:
        if any(mask & larger == mask for larger in found):
            continue
        question = _restricted(problem, mask, held)
        report = _proved(question, prove(question))
        if chord_alarm.guarded(report, question, loss_fn, data, 0.1).is_convex:
            found.append(mask)
    return [
        tuple(label for k, label in enumerate(labels) if mask >> k & 1)
        for mask in found
    ]


_MAX_LEAVES = 12
_KINKS = {"abs", "clamp", "max", "min", "reduce_max", "reduce_min", "select_n", "sign"}
"""Where the slope may fall at a kink, where differentiation sees no curvature."""


@_calls.public
def replay(
    report: ConvexityReport,
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
) -> bool:
    """Check a certificate: trace the loss again, and derive every line or box again.

    Args:
      report: what `prove_convexity`, `check_convexity` or `certify_convexity` returned;
        of the last, the box is the domain.
      loss_fn: the loss it speaks of.
      params: as then.
      data: as then.
      domain: as then.
      wrt: as then.

    Returns:
      Whether the statement is the one that was proved (program, domain, data, versions)
      and every line of the certificate, the assumptions, the conditions on the domain
      and the verdict are what the rules give. On a box: whether the boxes on record
      cover it and the bounds of the Hessian, computed anew, hold on each. False for a
      report without a proof.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> report = prove_convexity(loss_fn, jnp.ones(2))
      >>> replay(report, loss_fn, jnp.ones(2))
      True
    """
    if report.verdict not in (*_PROVED, Verdict.CERTIFIED_ON_BOX):
        return False
    problem, _ = _posed("replay", loss_fn, params, data, domain=domain, wrt=wrt)
    if problem is None:
        return False
    if report.verdict is Verdict.CERTIFIED_ON_BOX:
        return (
            kernel.is_the_question(problem, loss_fn, data, domain, wrt)
            and kernel.integers_fit(problem)
            and certificates.is_certificate(
                report, problem, prove(problem).convex_summands
            )
        )
    return kernel.accepts(report, problem, loss_fn, data, domain, wrt)


_PROVED = (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE, Verdict.PROVED_CONCAVE)


_PARTIAL = {
    *("acos", "acosh", "asin", "atanh", "digamma", "div", "entr", "kl_div", "lgamma"),
    *("log", "log1p", "pow", "rel_entr", "rsqrt", "sqrt", "xlog1py", "xlogy"),
}
"""What is defined on a part of the line alone."""


def _with_hint(report: ConvexityReport, problem: Problem) -> ConvexityReport:
    """Name `domain` where nothing is proved, and it may help."""
    is_partial = any(blame.primitive in _PARTIAL for blame in report.blame)
    is_open = report.verdict in (Verdict.REFUTED, Verdict.UNDECIDED)
    if problem.is_box or not is_open or not (is_partial or report.constraints):
        return report
    hint = (
        "the loss is not defined everywhere, or not known to be: if params lie in a "
        "box, pass it as `domain=phihat.Box(low, high)`"
    )
    return dataclasses.replace(report, lints=(*report.lints, hint))


def _has_kinks(program: Program) -> bool:
    return any(equation.primitive in _KINKS for equation in program.equations)


def _posed(
    call: str, loss_fn: Any, params: Any, data: Any, **options: Any
) -> tuple[Problem | None, ConvexityReport]:
    """Pose the problem; a program that cannot be read is undecided."""
    try:
        return pose(call, loss_fn, params, data, **options), ConvexityReport(
            Verdict.UNDECIDED, ""
        )
    except Untraceable as error:
        return None, ConvexityReport(Verdict.UNDECIDED, "", reason=str(error))


def _timed(report: ConvexityReport, begin: float) -> ConvexityReport:
    return dataclasses.replace(report, seconds=time.monotonic() - begin)


def _proved(problem: Problem, proof: Proof) -> ConvexityReport:
    """Report a proof, which counts only where the loss is finite at params."""
    verdict, reason = _verdict(problem, proof)
    return ConvexityReport(
        verdict,
        problem.scope,
        reason=reason,
        assumptions=(*problem.program.assumptions, *proof.assumptions),
        constraints=proof.constraints,
        blame=() if verdict in _PROVED else proof.blame,
        certificate=proof.lines if verdict in _PROVED else (),
        statement=problem.digest() if verdict in _PROVED else "",
    )


def _verdict(problem: Problem, proof: Proof) -> tuple[Verdict, str]:
    facts = proof.facts
    if not facts.curved:
        return Verdict.UNDECIDED, "the rules do not settle it"
    if not facts.total and not _is_finite_at_start(problem):
        return Verdict.UNDECIDED, "the loss at params is not a finite number"
    if facts.affine:
        return Verdict.PROVED_AFFINE, "every step follows a rule that keeps it affine"
    if facts.convex:
        return (Verdict.PROVED_CONVEX, "every step follows a rule that keeps convexity")
    return Verdict.PROVED_CONCAVE, "every step follows a rule that keeps concavity"


def _is_finite_at_start(problem: Problem) -> bool:
    """Evaluate at params: a proof on an empty domain would be vacuous."""
    program = problem.program
    ranges = [from_array(leaf) for leaf in problem.start]
    inputs = dict(
        zip((*program.params, *program.data), (*ranges, *problem.data), strict=True)
    )
    try:
        evaluate(program, {n: r for n, r in inputs.items() if r is not None})
    except Undefined:
        return False
    except Unreadable:
        return bool(np.isfinite(problem.value(problem.start)))
    return True


def _searched(
    problem: Problem, proof: Proof, report: ConvexityReport, deadline: float
) -> ConvexityReport:
    """Look for a broken chord, then enclose the Hessian on a bounded box."""
    bounded = problem.is_box and all(
        np.isfinite(end).all() for leaf in problem.domain for end in leaf
    )
    now = time.monotonic()
    search_until = now + (deadline - now) / 2 if bounded else deadline
    witness, sentence = refutation.search(problem, search_until, proof.jumps)
    if time.monotonic() >= search_until:
        sentence = "the budget was used up before all chords were tried."
    if witness is not None:
        return dataclasses.replace(
            report, verdict=Verdict.REFUTED, reason=witness.reason, witness=witness
        )
    if bounded:
        enclosed = certificates.certify(
            problem, deadline, convex_values=proof.convex_summands
        )
        if enclosed.verdict is not Verdict.UNDECIDED:
            return enclosed
        sentence = f"{enclosed.reason}."
    reason = f"{report.reason}; {sentence}".rstrip(".")
    return dataclasses.replace(report, reason=reason)


def _restricted(problem: Problem, mask: int, held: str) -> Problem:
    """Let some leaves vary; the others are numbers: given ones, or any at all."""
    varied = tuple(bool(mask >> k & 1) for k in range(len(problem.labels)))
    if held == "all":
        # A constant of any value is a range of data.
        domain = problem.domain
    else:
        domain = tuple(
            interval if varies else from_array(leaf)
            for interval, varies, leaf in zip(
                problem.domain, varied, problem.start, strict=True
            )
        )
    return dataclasses.replace(problem, varied=varied, domain=domain)
