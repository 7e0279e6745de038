"""Numbers with their errors as people write them, and the reports made of them."""

import math
from typing import Any, NamedTuple

import numpy as np

from phihat._core import tables as _tables
from phihat._core.types import Status

__all__ = ["Row", "as_html", "as_text", "status_words", "with_error"]

_SHOWN = 40
_TIED = 0.9
_MOST_PAIRS = 10


class Row(NamedTuple):
    """What a report says of one param."""

    name: str
    value: float
    error: float
    remark: str

    @property
    def number(self) -> str:
        """The value with its error, or alone where it has none."""
        if self.remark == "fixed":
            return f"{self.value:.8g}"
        return with_error(self.value, self.error)

    @property
    def percent(self) -> str:
        """The error over the value."""
        is_known = math.isfinite(self.error) and self.value != 0
        if self.remark == "fixed" or not is_known:
            return ""
        return f"{100 * self.error / abs(self.value):.2g} %"


def with_error(value: float, error: float) -> str:
    """Write a value with its error in brackets, in units of the last digit.

    The error has one digit, or two where it begins with less than 355, as the Particle
    Data Group rounds.

    Args:
      value: any number.
      error: its standard error; where it is not finite, or zero, the value is written
        alone with what is known of it.
    """
    if not math.isfinite(value):
        return f"{value:g}"
    if math.isnan(error):
        return f"{value:.6g} (error unknown)"
    if math.isinf(error):
        return f"{value:.6g} (not determined)"
    if error <= 0:
        return f"{value:.8g}"
    largest = max(abs(value), error)
    exponent = math.floor(math.log10(largest))
    if -4 <= exponent < 7:
        exponent = 0
    scale = 10.0**-exponent if exponent > -300 else 1e300
    value, error = value * scale, error * scale
    place = math.floor(math.log10(error))
    leading = round(error / 10.0 ** (place - 2))
    digits = 2 if leading < 355 or leading >= 950 else 1
    last = place - digits + 1 + (leading >= 950)
    rounded = round(error / 10.0**last)
    tail = f"e{exponent:+03d}" if exponent else ""
    if last >= 0:
        step = 10**last
        return f"{round(value / step) * step:d}({rounded * step}){tail}"
    shown = str(rounded) if rounded < 10**-last else f"{rounded * 10.0**last:.{-last}f}"
    return f"{value:.{-last}f}({shown}){tail}"


def status_words(status: int, num_steps: int) -> str:
    """Say in words how a fit ended."""
    plural = "" if num_steps == 1 else "s"
    after = f"after {num_steps} step{plural}"
    return {
        Status.CONVERGED: f"converged {after}",
        Status.STALLED: f"stalled {after}: no step lowers the sum of squares, and the "
        "gradient is not zero",
        Status.COMPLETED: f"not converged: the budget of {num_steps} step{plural} was "
        "used; raise `num_steps`",
        Status.NONFINITE_LOSS: f"failed {after}: the sum of squares is not "
        "finite there",
        Status.NONFINITE_GRADIENT: f"failed {after}: a derivative of the model is not "
        "finite there",
        Status.NONFINITE_PARAMS: f"failed {after}: a param became infinite or NaN",
    }.get(Status(status), f"{Status(status).name} {after}")


def as_text(fit: Any) -> str:
    """Write the report of a `CurveFit`."""
    rows = fit.rows()
    lines = [_headline(fit)]
    shown = rows[:_SHOWN]
    names = max([len(row.name) for row in shown] + [5])
    numbers = max(len(row.number) for row in shown)
    errors = [_short(row.error) if row.remark != "fixed" else "" for row in shown]
    width = max([len(error) for error in errors] + [5])
    head = f"  {'param':{names}}  {'value':{numbers}}  {'error':{width}}  percent"
    lines.append(head.rstrip())
    for row, error in zip(shown, errors, strict=True):
        line = f"  {row.name:{names}}  {row.number:{numbers}}  {error:{width}}  "
        lines.append(f"{line}{row.percent:8}  {row.remark}".rstrip())
    if len(rows) > _SHOWN:
        lines.append(f"  ... {len(rows) - _SHOWN} more")
    lines += [f"  {line}" for line in _facts(fit)]
    doubts = [f"  doubt: {sentence}" for sentence in fit.doubts.values()]
    return "\n".join(lines + (doubts or ["  no reason for doubt was found"]))


def as_html(fit: Any) -> str:
    """Write the report of a `CurveFit` as HTML, for notebooks."""
    rows = [
        (
            row.name,
            row.number,
            _short(row.error) if row.remark != "fixed" else "",
            row.percent,
            row.remark,
        )
        for row in fit.rows()
    ]
    doubts = [f"Doubt: {text}." for text in fit.doubts.values()]
    notes = _facts(fit) + (doubts or ["No reason for doubt was found."])
    head = ("param", "value", "error", "percent", "")
    return _tables.table(_headline(fit), rows, head, notes)


# ------------------------------------------------------------------------- private


def _headline(fit: Any) -> str:
    free = sum(row.remark != "fixed" for row in fit.rows())
    plural = "" if free == 1 else "s"
    return (
        f"{fit.model_name}: {fit.num_points} points, {free} fitted param{plural}, "
        f"{fit.status}"
    )


def _facts(fit: Any) -> list[str]:
    freedom = fit.degrees_of_freedom
    plural = "" if freedom == 1 else "s"
    plain = "" if fit.loss == "linear" else " with outliers in full"
    facts = [
        f"chi-square {fit.chi_square:.6g}{plain}, reduced {fit.reduced_chi_square:.6g} "
        f"({freedom} degree{plural} of freedom)",
        f"R^2 {fit.r_squared:.6g}, AIC {fit.aic:.6g}, BIC {fit.bic:.6g}",
    ]
    if fit.loss != "linear":
        facts.append(f"robust loss {fit.loss}, f_scale {fit.f_scale:g}")
    pairs = _tied_pairs(fit)
    if pairs:
        more = len(pairs) - _MOST_PAIRS
        tail = f", and {more} more" if more > 0 else ""
        facts.append("correlations above 0.9: " + ", ".join(pairs[:_MOST_PAIRS]) + tail)
    return facts


def _tied_pairs(fit: Any) -> list[str]:
    found = []
    correlations = fit.correlations
    for i, j in zip(*np.triu_indices(len(fit.names), 1), strict=True):
        if abs(correlations[i, j]) > _TIED:
            found.append((correlations[i, j], fit.names[i], fit.names[j]))
    found.sort(key=lambda pair: -abs(pair[0]))
    return [f"{one} and {other} {value:+.3f}" for value, one, other in found]


def _short(number: float) -> str:
    return f"{number:.2g}"
