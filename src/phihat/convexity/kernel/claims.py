"""The claims of a certificate, read from its text."""

import functools
import math
import re
from fractions import Fraction

from phihat.convexity.kernel.facts import NOTHING, Known, Refused, either, number
from phihat.convexity.kernel.values import Value

__all__ = ["claimed", "follows", "implies", "parsed"]

_CLAIM = re.compile(
    r"(?P<kind>affine|convex|concave|uncurved|constant)"
    r"(?: \[(?P<low>\S+), (?P<high>\S+)\]| (?P<point>[-+\d.einfa]+))?"
    r"(?P<sign> positive| negative)*(?: p=(?P<p>\S+))?(?: q=(?P<q>\S+))?"
    r"(?P<partly> where defined)?"
)


def parsed(text: str) -> Known:
    """Read the text of a claim; what cannot be read claims everything."""
    match = _CLAIM.fullmatch(text)
    if match is None:
        raise Refused(f"a claim that cannot be read: {text}")
    kind = match["kind"]
    low = float(match["point"] or match["low"] or -math.inf)
    high = float(match["point"] or match["high"] or math.inf)
    if kind == "constant":
        if low == -high == -math.inf:
            return NOTHING._replace(constant=True)
        return number(low, high)._replace(total=not (low == high and math.isinf(low)))
    p, q = (
        None if k is None else math.inf if k == "inf" else Fraction(k)
        for k in (match["p"], match["q"])
    )
    sign = 1 if " positive" in text else -1 if " negative" in text else 0
    return Known(
        low,
        high,
        kind in ("affine", "convex"),
        kind in ("affine", "concave"),
        p,  # type: ignore[arg-type]
        q,
        sign,
        match["partly"] is None,
    )


def implies(k: Known, claim: Known) -> bool:
    """Whether facts give a claim; ends of ranges may differ by rounding."""
    slack = 1e-9
    if claim.constant and not k.constant:
        return False
    if claim.infinite or k.infinite:
        return claim.low == k.low and claim.high == k.high
    low = claim.low - slack * (abs(claim.low) if math.isfinite(claim.low) else 0.0)
    high = claim.high + slack * (abs(claim.high) if math.isfinite(claim.high) else 0.0)
    return (
        (k.convex or not claim.convex)
        and (k.concave or not claim.concave)
        and (claim.p is None or (k.p is not None and k.p <= claim.p))
        and (claim.q is None or (k.q is not None and k.q >= claim.q))
        and (not claim.sign or claim.sign == k.sign)
        and (k.total or not claim.total or claim.constant)
        and low <= k.low
        and k.high <= high
    )


def claimed(text: str, shape: tuple[int, ...]) -> Value:
    """Return what the text of a line says, taken at its word."""
    claims = text.partition("] ")[2].removesuffix(" shifted").split(" | ")
    return Value(shape, (functools.reduce(either, map(parsed, claims)),))


def follows(value: Value, text: str) -> bool:
    """Whether what a line claims of a value follows from what is known of it."""
    head, _, rest = text.partition("] ")
    if head != "[" + ",".join(map(str, value.shape)):
        return False
    claims = [c.removesuffix(" shifted") for c in rest.split(" | ")]
    if "..." in claims or rest == "constant":
        return value.constant or rest != "constant"
    wanted = [parsed(claim) for claim in claims]
    return all(any(implies(k, c) for c in wanted) for k in value.knowns) or (
        implies(value.known, functools.reduce(either, wanted))
    )
